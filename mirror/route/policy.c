#include "mirror/route/policy.h"

#include <assert.h>

#include "base/core/err.h"
#include "base/core/mutant.h"

#define HEARTBEATS      SLICE_LIT(POLICY_HEARTBEATS)
#define PROGRESS_PREFIX "sundog-progress."
#define PROGRESS_SUFFIX ".internal"

int policy_kind_parse(const char *class, enum policy_kind *out)
{
    static const struct {
        const char *name;
        enum policy_kind kind;
    } known[] = {
        {"DefaultReplicationPolicy", POLICY_DEFAULT},
        {"org.apache.kafka.connect.mirror.DefaultReplicationPolicy", POLICY_DEFAULT},
        {"IdentityReplicationPolicy", POLICY_IDENTITY},
        {"org.apache.kafka.connect.mirror.IdentityReplicationPolicy", POLICY_IDENTITY},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(class, known[i].name) == 0) {
            *out = known[i].kind;
            return 0;
        }
    return -E_CONFIG;
}

static bool starts_with(struct slice s, struct slice prefix)
{
    return s.n >= prefix.n && memcmp(s.p, prefix.p, prefix.n) == 0;
}

static bool ends_with(struct slice s, struct slice suffix)
{
    return s.n >= suffix.n && memcmp(s.p + (s.n - suffix.n), suffix.p, suffix.n) == 0;
}

static struct slice after(struct slice s, size_t n)
{
    assert(n <= s.n);
    return slice_of(s.p + n, s.n - n);
}

/* Identity naming leaves every topic but heartbeats alone; MM2 asks only how the name ends. */
static bool keeps_name(const struct policy *p, struct slice topic)
{
    return p->kind == POLICY_IDENTITY && !ends_with(topic, HEARTBEATS);
}

void policy_remote_topic(const struct policy *p, struct slice topic, struct buf *out)
{
    assert(p->source.n > 0 && topic.n > 0);
    if (!keeps_name(p, topic)) {
        buf_put(out, p->source.p, p->source.n);
        buf_put(out, p->separator.p, p->separator.n);
    }
    buf_put(out, topic.p, topic.n);
}

/* The first token when there are two or more. Java's split drops empty tokens at the end, so "east." has but one. */
static struct slice first_token(const struct policy *p, struct slice topic)
{
    assert(p->separator.n > 0);
    const uint8_t *at = memmem(topic.p, topic.n, p->separator.p, p->separator.n);
    if (!at)
        return SLICE_NULL;
    size_t n = (size_t)(at - topic.p);
    struct slice rest = after(topic, n);
    while (rest.n >= p->separator.n && starts_with(rest, p->separator))
        rest = after(rest, p->separator.n);
    return rest.n ? slice_of(topic.p, n) : SLICE_NULL;
}

struct slice policy_topic_source(const struct policy *p, struct slice topic)
{
    assert(p->separator.n > 0);
    return keeps_name(p, topic) ? p->source : first_token(p, topic);
}

struct slice policy_upstream_topic(const struct policy *p, struct slice topic)
{
    if (keeps_name(p, topic))
        return topic;
    struct slice source = first_token(p, topic);
    assert(slice_is_null(source) || source.n + p->separator.n < topic.n);
    return slice_is_null(source) ? SLICE_NULL : after(topic, source.n + p->separator.n);
}

struct slice policy_original_topic(const struct policy *p, struct slice topic)
{
    for (;;) {
        struct slice up = policy_upstream_topic(p, topic);
        if (slice_is_null(up) || up.n == 0 || up.n == topic.n)
            return topic;
        assert(up.n < topic.n); /* each hop shortens the name: the walk ends */
        topic = up;
    }
}

bool policy_is_heartbeats(const struct policy *p, struct slice topic)
{
    return slice_eq(policy_original_topic(p, topic), HEARTBEATS);
}

static bool ends_internal(const struct policy *p, struct slice topic, const char *middle)
{
    struct buf suffix;
    buf_init(&suffix, 1024);
    if (middle)
        buf_printf(&suffix, "%.*s%s", SLICE_FMT(p->internal_separator), middle);
    buf_printf(&suffix, "%.*sinternal", SLICE_FMT(p->internal_separator));
    bool yes = ends_with(topic, buf_slice(&suffix));
    buf_fini(&suffix);
    return yes;
}

bool policy_is_checkpoints(const struct policy *p, struct slice topic)
{
    return ends_internal(p, topic, "checkpoints");
}

static bool is_progress(struct slice topic)
{
    return starts_with(topic, SLICE_LIT(PROGRESS_PREFIX)) && ends_with(topic, SLICE_LIT(PROGRESS_SUFFIX));
}

bool policy_is_internal(const struct policy *p, struct slice topic)
{
    bool kafka = starts_with(topic, SLICE_LIT("__")) || starts_with(topic, SLICE_LIT("."));
    bool mm2 = starts_with(topic, SLICE_LIT("mm2")) && ends_internal(p, topic, NULL);
    return kafka || mm2 || policy_is_checkpoints(p, topic) || is_progress(topic);
}

bool policy_is_cycle(const struct policy *p, struct slice topic)
{
    if (MUTANT("loop_guard_off"))
        return false;
    for (;;) {
        struct slice source = policy_topic_source(p, topic);
        if (slice_is_null(source))
            return false;
        if (slice_eq(source, p->target))
            return true;
        struct slice up = policy_upstream_topic(p, topic);
        if (slice_is_null(up) || up.n == 0 || up.n == topic.n)
            return false;
        assert(up.n < topic.n);
        topic = up;
    }
}

void policy_checkpoints_topic(const struct policy *p, struct buf *out)
{
    assert(p->source.n > 0);
    buf_printf(out, "%.*s%.*scheckpoints%.*sinternal", SLICE_FMT(p->source), SLICE_FMT(p->internal_separator),
               SLICE_FMT(p->internal_separator));
}

void policy_offset_syncs_topic(const struct policy *p, struct slice other, struct buf *out)
{
    buf_printf(out, "mm2-offset-syncs%.*s%.*s%.*sinternal", SLICE_FMT(p->internal_separator),
               SLICE_FMT(other), SLICE_FMT(p->internal_separator));
}

void policy_progress_topic(struct slice source, struct buf *out)
{
    assert(source.n > 0);
    buf_printf(out, PROGRESS_PREFIX "%.*s" PROGRESS_SUFFIX, SLICE_FMT(source));
}
