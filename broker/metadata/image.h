/* The metadata image: everything the metadata log says, at one offset, as an immutable value.
 *
 * An image and all it points to never change once finished (image_edit.h makes the next one; unchanged
 * objects are shared between images). Any thread may read an image that it holds. image_ref and image_unref
 * are for any thread; with its last reference an image is put aside for the thread that made it
 * (image_edit.h), so the shared objects' own counts are touched by one thread only. Between turns a
 * shard holds the image it was last given (controller/control.h); who keeps one longer takes a reference.
 * Lookups are O(log n) in topics. Slices have a NUL behind their last byte. */
#ifndef SUNDOG_BROKER_METADATA_IMAGE_H
#define SUNDOG_BROKER_METADATA_IMAGE_H

#include "base/core/slice.h"
#include "base/core/uuid.h"

#include <stdint.h>

struct image;

enum { IMAGE_NO_LEADER = -1 };

/* As ConfigResource has them on the wire and in records. */
enum image_config_type {
    IMAGE_CONFIG_TOPIC = 2,
    IMAGE_CONFIG_BROKER = 4,
    IMAGE_CONFIG_CLIENT_METRICS = 16,
    IMAGE_CONFIG_GROUP = 32
};

struct image_partition {
    int32_t leader; /* IMAGE_NO_LEADER: none */
    int32_t leader_epoch, partition_epoch;
    bool recovering;         /* elected uncleanly, not yet recovered */
    const int32_t *replicas; /* assignment order: the first is preferred */
    const int32_t *isr;
    const int32_t *removing, *adding;
    const int32_t *elr, *last_known_elr;
    const struct uuid
        *directories; /* of each replica, same order; NULL with directories_n 0 in old records */
    int32_t replicas_n, isr_n, removing_n, adding_n, elr_n, last_known_elr_n, directories_n;
};

struct image_topic {
    struct uuid id;
    struct slice name;
    bool internal;        /* __consumer_offsets, __transaction_state, __share_group_state */
    int32_t partitions_n; /* indexes 0 … n-1 */
};

struct image_endpoint {
    struct slice listener, host;
    uint16_t port;
    int16_t security_protocol; /* 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL */
};

struct image_feature_range {
    struct slice name;
    int16_t level_min, level_max;
};

struct image_broker {
    int32_t id;
    int64_t epoch;
    struct uuid incarnation;
    struct slice rack; /* null: none */
    bool fenced, in_controlled_shutdown;
    const struct image_endpoint *endpoints;
    const struct image_feature_range *features;
    const struct uuid *log_dirs, *cordoned_log_dirs;
    int32_t endpoints_n, features_n, log_dirs_n, cordoned_log_dirs_n;
};

struct image_config_entry {
    struct slice key, value;
};

/* The configs set on one resource; defaults are not in the image. */
struct image_config {
    int8_t type;                              /* enum image_config_type */
    struct slice name;                        /* topic, broker id in decimal, "" for all brokers, … */
    const struct image_config_entry *entries; /* by key */
    int32_t entries_n;
};

struct image_feature {
    struct slice name; /* "metadata.version" among them */
    int16_t level;     /* finalized; never 0 */
};

struct image *image_ref(const struct image *img);
/* NULL is fine. */
void image_unref(const struct image *img);

/* What the image stands for. */
struct slice image_cluster_id(const struct image *img);
int64_t image_offset(const struct image *img); /* last record contained; -1: none */
int32_t image_epoch(const struct image *img);  /* of that record */
/* The quorum's; chosen when the directory was formatted, in no metadata record. */
int16_t image_kraft_version(const struct image *img);
/* The first producer id not yet given to anybody. */
int64_t image_producer_id_next(const struct image *img);

/* Topics. "next" walks in name order, NULL first: for (t = image_topic_next(img, NULL); t; …). */
const struct image_topic *image_topic(const struct image *img, struct slice name);
const struct image_topic *image_topic_by_id(const struct image *img, const struct uuid *id);
const struct image_topic *image_topic_next(const struct image *img, const struct image_topic *after);
/* NULL when the index is not there. */
const struct image_partition *image_partition(const struct image_topic *t, int32_t index);
size_t image_topics_n(const struct image *img);
int64_t image_partitions_n(const struct image *img);

/* Brokers, by id. */
const struct image_broker *image_broker(const struct image *img, int32_t id);
const struct image_broker *image_broker_next(const struct image *img, const struct image_broker *after);
size_t image_brokers_n(const struct image *img);
/* Of a listener name; NULL when the broker has none of it. */
const struct image_endpoint *image_endpoint(const struct image_broker *b, struct slice listener);

/* Configs as set. */
const struct image_config *image_config(const struct image *img, enum image_config_type type,
                                        struct slice name);
const struct image_config *image_config_next(const struct image *img, const struct image_config *after);
/* Null slice when not set. `c` may be NULL. */
struct slice image_config_value(const struct image_config *c, struct slice key);

/* Finalized features; 0 when the feature is not there. */
int16_t image_feature_level(const struct image *img, struct slice name);
const struct image_feature *image_feature_next(const struct image *img, const struct image_feature *after);

/* What differs between two images; members may be NULL. Called in this order: brokers, removed topics, added
 * topics (then each of their partitions), changed partitions of topics that stay (a topic made again under
 * its name has another id: removed, then added), configs, features. Costs what changed, not what is there. */
struct image_changes {
    void (*broker)(void *arg, const struct image_broker *was,
                   const struct image_broker *now); /* NULL: not there */
    void (*topic_removed)(void *arg, const struct image_topic *was);
    void (*topic_added)(void *arg, const struct image_topic *now);
    /* `was` is NULL for a new partition */
    void (*partition)(void *arg, const struct image_topic *topic, int32_t index,
                      const struct image_partition *was, const struct image_partition *now);
    void (*config)(void *arg, const struct image_config *was, const struct image_config *now);
    void (*feature)(void *arg, const struct image_feature *was, const struct image_feature *now);
};
/* `was` NULL: everything is new. */
void image_diff(const struct image *was, const struct image *now, const struct image_changes *changes,
                void *arg);

#endif
