/* What an image is made of; for broker/metadata only. See image.h for the rules. */
#ifndef SUNDOG_BROKER_METADATA_IMAGE_INTERNAL_H
#define SUNDOG_BROKER_METADATA_IMAGE_INTERNAL_H

#include "base/core/err.h"
#include "base/core/list.h"
#include "broker/metadata/image.h"
#include "broker/metadata/image_edit.h"
#include "broker/metadata/pmap.h"

#include <stdatomic.h>

#define IMAGE_MAGIC     UINT32_C(0x1a6e0001)
#define IMAGE_MAGIC_END UINT32_C(0x1a6edead)

/* The items of the maps: a counted head, the public value, and one block of memory for both and all they point to
 * (topics: the partitions apart). */

struct image_partition_item {
    struct pmap_item head;
    struct image_partition value;
};

struct image_topic_item {
    struct pmap_item head;
    struct image_topic value;
    struct image_partition_item *
        *partitions; /* value.partitions_n of them, NULL where a log has left a hole */
    int32_t capacity;
    struct list editing; /* linked: belongs to the edit under way, which changes it in place */
};

struct image_broker_item {
    struct pmap_item head;
    struct image_broker value;
};

struct image_config_key {
    int8_t type;
    struct slice name;
};

struct image_config_item {
    struct pmap_item head;
    struct image_config value;
    struct image_config_key key;
};

struct image_feature_item {
    struct pmap_item head;
    struct image_feature value;
};

/* A record that no part of this broker looks into, kept so that snapshots have it: quotas, ACLs, SCRAM credentials,
 * delegation tokens, controllers. */
struct image_kept_key {
    int16_t type;
    struct slice id;
};

struct image_kept_item {
    struct pmap_item head;
    struct image_kept_key key;
    struct slice value; /* the record's frame (record.h) */
};

struct image {
    uint32_t magic;
    _Atomic uint32_t refs;
    struct image_reaper *reaper; /* NULL: freed with the last reference, where it stands */
    struct image *dead_next;     /* in the reaper's hands */

    struct slice cluster_id;
    int64_t offset;
    int32_t epoch;
    int64_t timestamp_ms;     /* append time of the last batch contained */
    int64_t producer_id_next; /* 0: none was ever given */
    int32_t producer_ids_broker;
    int64_t producer_ids_broker_epoch;
    int64_t partitions_n;
    int16_t kraft_version;

    struct pmap topics;       /* by name */
    struct pmap topics_by_id; /* the same items */
    struct pmap brokers, configs, features, kept;
};

extern const struct pmap_type image_topic_type, image_topic_id_type, image_broker_type, image_config_type,
    image_feature_type, image_kept_type;

/* An image without content; cluster_id is copied. NULL: out of memory. */
struct image *image_create(struct slice cluster_id);
/* A copy that shares everything, to be changed before it is published. */
struct image *image_clone(const struct image *img);
void image_free(struct image *img);

/* Objects (image_objects.c): NULL when out of memory; one reference is the caller's. */
struct image_partition_item *image_partition_create(const struct image_partition *value);
struct image_topic_item *image_topic_create(struct slice name, const struct uuid *id);
struct image_topic_item *image_topic_clone(const struct image_topic_item *t);
/* Takes the reference; the index may be above partitions_n. */
int image_topic_set(struct image_topic_item *t, int32_t index, struct image_partition_item *p);
struct image_broker_item *image_broker_create(const struct image_broker *value);
/* `value` null: without `key`. `was` may be NULL. */
struct image_config_item *image_config_create(const struct image_config_key *resource,
                                              const struct image_config *was, struct slice key,
                                              struct slice value);
struct image_feature_item *image_feature_create(struct slice name, int16_t level);
struct image_kept_item *image_kept_create(const struct image_kept_key *key, struct slice value);
void image_partition_unref(struct image_partition_item *p);

#define IMAGE_ITEM(ptr, type) ((struct type *)(void *)(ptr))

#endif
