/* The controller's decisions as pure functions: image × request → records and a response.
 *
 * No I/O, clock or state of its own: what a decision may look at is in `struct decide`. The records are one atomic
 * batch; the response is right when they are committed. Functions return the error of the call as a whole (KE_NONE,
 * and then items have errors of their own), records only with KE_NONE. Running out of arena is
 * KE_UNKNOWN_SERVER_ERROR and no records.
 * Any thread. */
#ifndef SUNDOG_BROKER_CONTROLLER_DECIDE_H
#define SUNDOG_BROKER_CONTROLLER_DECIDE_H

#include "base/core/rng.h"
#include "broker/controller/effective.h"
#include "broker/metadata/image.h"
#include "broker/metadata/record.h"
#include "proto/kafka/errors.h"
#include "proto/kafka/wire.h"

/* What one request may add to the log: the records of one batch (METADATA_BATCH_RECORDS_MAX), less a few. */
#define DECIDE_RECORDS_MAX   9990
#define PRODUCER_ID_BLOCK    1000
#define UNASSIGNED_DIRECTORY 1  /* uuid_small: which directory has the replica is not known yet */
#define DIRECTORIES_LEVEL    17 /* metadata.version (3.7-IV2) from which on records name directories */

/* From the broker's options; constant. */
struct decide_rules {
    int32_t num_partitions;             /* num.partitions */
    int16_t default_replication_factor; /* default.replication.factor */
    int64_t partitions_max;             /* sundog.partitions.max; 0: no limit */
    bool delete_topics;                 /* delete.topic.enable */
    int32_t offsets_partitions;         /* offsets.topic.* */
    int16_t offsets_replication_factor;
    int32_t offsets_segment_bytes;
    struct static_configs statics;
};

struct decide {
    const struct image *img;
    int64_t offset_next; /* of the batch that comes of it */
    int32_t node_id;
    const struct decide_rules *rules;
    struct rng *rng;
    struct arena *arena; /* of the response */
    struct metadata_records *out;
};

#define DECISION(name)                                                                                       \
    int16_t decide_##name(const struct decide *d, const struct kp_##name##_request *q,                       \
                          struct kp_##name##_response *r)
DECISION(create_topics);
DECISION(delete_topics);
DECISION(create_partitions);
DECISION(alter_configs);
DECISION(incremental_alter_configs);
DECISION(allocate_producer_ids);
DECISION(update_features);
DECISION(alter_partition);
DECISION(assign_replicas_to_dirs);
#undef DECISION

/* The CreateTopics request that creates `names` with their defaults; internal topics as their coordinators need them.
 * NULL: no memory. */
struct kp_create_topics_request *decide_create_on_use(const struct decide_rules *rules,
                                                      const struct slice *names, int32_t names_n,
                                                      struct arena *arena);

/* ---- shared by the decisions ---- */

/* Unfenced and not shutting down: may lead and be in an ISR. */
static inline bool broker_is_active(const struct image_broker *b)
{
    return b && !b->fenced && !b->in_controlled_shutdown;
}

int16_t decide_metadata_version(const struct image *img);
bool decide_elr(const struct image *img);
/* Adds a record at the version of the finalized level; NULL: no memory. */
void *decide_record(const struct decide *d, int16_t type);
/* An error text in the response's arena. */
struct slice decide_text(const struct decide *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct uuid decide_uuid(const struct decide *d);

/* For each of `keys` whether another one is equal to it; a null one is equal to none. NULL: no memory. */
const bool *decide_repeated(const struct decide *d, const struct slice *keys, size_t n);

/* Whether `more` partitions fit under sundog.partitions.max; else why not. */
bool decide_room(const struct decide *d, int64_t more, struct slice *why);

/* Places `partitions` × `replication_factor` replicas (broker ids, partition after partition); 0, or the Kafka error
 * with its text. Racks alternate; fenced brokers come in only when the others run out; the first replica is active
 * (INVARIANTS S22). */
int16_t decide_place(const struct decide *d, int32_t partitions, int32_t replication_factor, int32_t **out,
                     struct slice *error_text);

/* Kafka's text for what is wrong with the replicas that a request names for one partition; null: nothing. */
struct slice decide_assignment_fault(const struct decide *d, int32_t index, const int32_t *replicas,
                                     int32_t replicas_n, int32_t replication_factor);

/* A PartitionRecord for a new partition on these replicas, led by the first active one. NULL: no memory. None active:
 * the leader is none. */
struct kp_partition_record *decide_partition(const struct decide *d, const struct uuid *topic_id,
                                             int32_t index, const int32_t *replicas, int32_t replicas_n);

#endif
