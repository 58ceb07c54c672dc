/* What decisions share. */
#include "broker/controller/decide.h"

#include "broker/metadata/image_edit.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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
    assert(d->out);
    assert(d->out->arena);
    assert(d->offset_next >= 0);
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

struct placed_key {
    struct slice key;
    size_t at;
};

static int by_key(const void *a, const void *b)
{
    return slice_cmp(((const struct placed_key *)a)->key, ((const struct placed_key *)b)->key);
}

/* Sorted: a request may name as many as a batch of records takes. */
const bool *decide_repeated(const struct decide *d, const struct slice *keys, size_t n)
{
    bool *repeated = ARENA_NEWS(d->arena, bool, n + 1);
    struct placed_key *sorted = ARENA_NEWS(d->arena, struct placed_key, n + 1);
    size_t m = 0;
    if (!repeated || !sorted)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!slice_is_null(keys[i]))
            sorted[m++] = (struct placed_key){keys[i], i};
    qsort(sorted, m, sizeof *sorted, by_key);
    assert(m <= n);
    for (size_t i = 1; i < m; i++) {
        if (slice_cmp(sorted[i - 1].key, sorted[i].key) != 0)
            continue;
        repeated[sorted[i - 1].at] = repeated[sorted[i].at] = true;
    }
    return repeated;
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
