/* What translation needs of one topic in the store: its map, its routing rule, its partition count. */
#ifndef SUNDOG_MIRROR_OFFSETS_TOPIC_MAP_H
#define SUNDOG_MIRROR_OFFSETS_TOPIC_MAP_H

#include "mirror/offsets/store.h"
#include "mirror/route/partitioner.h"

struct topic_map {
    struct stored_topic topic;
    struct store_map map; /* valid as long as the view */
    struct route_rule rule;
    int32_t partitions; /* of the source topic, as far as it has been mirrored */
};

/* 1, 0 when nothing of the topic has been mirrored, -E_…. */
int topic_map_open(struct store_view *v, const struct stored_topic *topic, struct topic_map *out);
/* The target partitions there are by the rule. */
int32_t topic_map_targets(const struct topic_map *m);

#endif
