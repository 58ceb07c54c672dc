/* What an option of a topic is, and where that comes from: the topic's own setting, else this broker's dynamic one,
 * else the cluster's, else the broker's properties, else the default. Pure; any thread. */
#ifndef SUNDOG_BROKER_CONTROLLER_EFFECTIVE_H
#define SUNDOG_BROKER_CONTROLLER_EFFECTIVE_H

#include "base/core/arena.h"
#include "broker/metadata/image.h"
#include "broker/metadata/topic_config.h"

/* Numbers of Kafka's DescribeConfigs. */
enum config_source {
    CONFIG_SOURCE_TOPIC = 1,
    CONFIG_SOURCE_DYNAMIC_BROKER = 2,
    CONFIG_SOURCE_DYNAMIC_CLUSTER = 3,
    CONFIG_SOURCE_STATIC = 4,
    CONFIG_SOURCE_DEFAULT = 5
};

/* The broker's properties. `get` gives the value as text (in the arena or constant; null: not set) and whether it is
 * the default; false: no such option. */
struct static_configs {
    bool (*get)(void *arg, struct slice key, struct arena *arena, struct slice *value, bool *is_default);
    void *arg;
};

struct config_view {
    const struct image *img;
    int32_t node_id;
    const struct static_configs *statics;
};

struct config_value {
    struct slice key, value;
    enum config_source source;
};

#define CONFIG_SYNONYMS_MAX 12

/* Every setting that could count, first the one that does; in the arena or the image. `own` is the topic's entry in the
 * image (NULL: none). Returns how many, at least one. */
int32_t effective_topic_config(const struct config_view *v, const struct image_config *own,
                               const struct topic_config_row *row, struct arena *arena,
                               struct config_value out[CONFIG_SYNONYMS_MAX]);

/* Kafka's rule between two options of a topic: its text when min.compaction.lag.ms is above max.compaction.lag.ms, else
 * null. `own` says what the topic itself will set a key to; null: nothing. */
struct slice effective_lag_conflict(const struct config_view *v,
                                    struct slice (*own)(const void *arg, struct slice key), const void *arg,
                                    struct arena *arena);

/* The dynamic settings of a broker option: this broker's, the cluster's. How many. */
int32_t effective_broker_dynamic(const struct config_view *v, struct slice key, struct config_value out[2]);

#endif
