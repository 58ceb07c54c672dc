#include "mirror/offsets/topic_map.h"

static int on_position(void *arg, const struct map_position *p)
{
    struct topic_map *m = arg;
    if (p->p >= m->partitions)
        m->partitions = p->p + 1;
    return route_rule_of_fingerprint(p->fingerprint, &m->rule);
}

int topic_map_open(struct store_view *v, const struct stored_topic *topic, struct topic_map *out)
{
    *out = (struct topic_map){.topic = *topic};
    store_map_init(&out->map, v, topic->number);
    int rc = store_positions_each(v, topic->number, on_position, out);
    return rc ? rc : out->partitions > 0;
}

int32_t topic_map_targets(const struct topic_map *m)
{
    return m->rule.mode == ROUTE_KEEP ? m->partitions : m->rule.target_partitions;
}
