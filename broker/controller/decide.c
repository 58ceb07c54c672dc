/* What decisions share. */
#include "broker/controller/decide.h"

#include "broker/metadata/image_edit.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define TEXT_MAX 512

int16_t decide_metadata_version(const struct image *img)
{
    return image_feature_level(img, SLICE_LIT(METADATA_VERSION_FEATURE));
}

bool decide_elr(const struct image *img)
{
    return image_feature_level(img, SLICE_LIT("eligible.leader.replicas.version")) > 0;
}

void *decide_record(const struct decide *d, int16_t type)
{
    assert(d->out && d->out->arena && d->offset_next >= 0);
    return metadata_records_add(d->out, type, metadata_version_of(type, decide_metadata_version(d->img)));
}

struct slice decide_text(const struct decide *d, const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return arena_dup(d->arena, slice_of(text, n < 0                     ? 0
                                              : (size_t)n < sizeof text ? (size_t)n
                                                                        : sizeof text - 1));
}

struct uuid decide_uuid(const struct decide *d)
{
    struct uuid u;
    char text[UUID_TEXT_SIZE];
    do { /* as Kafka's: version 4, and no text that looks like an option of a command */
        rng_fill(d->rng, &u, sizeof u);
        u.b[6] = (uint8_t)((u.b[6] & 0x0f) | 0x40);
        u.b[8] = (uint8_t)((u.b[8] & 0x3f) | 0x80);
    } while (uuid_text(&u, text)[0] == '-');
    return u;
}

bool decide_room(const struct decide *d, int64_t more, struct slice *why)
{
    assert(more >= 0);
    int64_t total = image_partitions_n(d->img) + more, most = d->rules->partitions_max;
    if (most <= 0 || total <= most)
        return true;
    *why = decide_text(d,
                       "The cluster would have %" PRId64 " partitions, at most %" PRId64
                       " are allowed (sundog.partitions.max)",
                       total, most);
    return false;
}
