/* Which topics a flow mirrors: MM2's rule, replicate(t) = (topics and not topics.exclude, or a heartbeats topic) and
 * not internal and not a cycle (MIRRORING.md 2.2). */
#include "mirror/route/pattern.h"
#include "mirror/sync/sync.h"

#include <stdlib.h>

struct sync_filter {
    struct pattern *topics, *exclude;
    bool heartbeats;
};

int sync_filter_create(const struct flow_options *flow, struct sync_filter **out, struct err *err)
{
    struct sync_filter *f = calloc(1, sizeof *f);
    if (!f)
        return err_set(err, -E_NOMEM, "out of memory");
    f->heartbeats = flow->replicate_heartbeats;
    int rc = pattern_compile((const char *const *)flow->topics.item, flow->topics.n, &f->topics, err);
    if (rc)
        err_wrap(err, "topics");
    else if ((rc = pattern_compile((const char *const *)flow->topics_exclude.item, flow->topics_exclude.n,
                                   &f->exclude, err)))
        err_wrap(err, "topics.exclude");
    if (rc) {
        sync_filter_destroy(f);
        return rc;
    }
    *out = f;
    return 0;
}

void sync_filter_destroy(struct sync_filter *f)
{
    if (!f)
        return;
    pattern_destroy(f->topics);
    pattern_destroy(f->exclude);
    free(f);
}

/* What no broker takes for a name is none: names go into keys, and into texts that end with a NUL. */
static bool is_name(struct slice topic)
{
    return topic.n > 0 && topic.n <= POLICY_TOPIC_MAX && !memchr(topic.p, 0, topic.n);
}

bool sync_filter_takes(struct sync_filter *f, const struct policy *policy, struct slice topic)
{
    if (!is_name(topic))
        return false;
    if (policy_is_internal(policy, topic) || policy_is_cycle(policy, topic))
        return false;
    if (f->heartbeats && policy_is_heartbeats(policy, topic))
        return true;
    return pattern_matches(f->topics, topic) && !pattern_matches(f->exclude, topic);
}
