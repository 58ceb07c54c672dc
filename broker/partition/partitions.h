/* The partitions of one shard: follows the metadata image, opens and deletes logs, does the turn's work.
 *
 * Threading: the shard's thread, but for partition_host, which all shards share: it is set up before they run,
 * and its log_dirs are touched only by jobs of LANE_DIRS. Lifetime: created before the loop runs; partitions_close
 * then partitions_destroy at the end.
 * Limits: PARTITION_PENDING_MAX batches a turn and partition wait for the write, more of them for the next turn;
 * one flush and one compaction a log are under way. */
#ifndef SUNDOG_BROKER_PARTITION_PARTITIONS_H
#define SUNDOG_BROKER_PARTITION_PARTITIONS_H

#include "broker/log/manager.h"
#include "broker/metadata/image.h"
#include "broker/partition/partition.h"

#define PARTITION_PENDING_MAX LOG_APPEND_BATCHES_MAX

/* What every partition of the broker is told, and where the logs are. Constant but for the dirs. */
struct partition_host {
    int32_t node_id;
    bool flush_before_ack;               /* sundog.flush.before.ack (D6) */
    int check_depth;                     /* enum batch_depth: how far a produced batch is looked into */
    struct log_config defaults;          /* log.* of the broker's options */
    int32_t min_insync_replicas;         /* min.insync.replicas */
    int64_t before_max_ms, after_max_ms; /* log.message.timestamp.{before,after}.max.ms */
    int64_t retention_interval_us;       /* log.retention.check.interval.ms */
    int64_t recovery_interval_us;        /* log.flush.offset.checkpoint.interval.ms */
    int64_t watermark_interval_us;       /* replica.high.watermark.checkpoint.interval.ms */
    int64_t cleaner_backoff_us;          /* log.cleaner.backoff.ms; 0: no cleaner */
    size_t cleaner_map_bytes;            /* log.cleaner.dedupe.buffer.size, of all shards */
    struct disk *disk;
    struct log_dirs *dirs;             /* by jobs of DIRS_LANE, and before the loops run */
    unsigned files_max;                /* open files of a shard */
    struct uuid dir_ids[LOG_DIRS_MAX]; /* of the dirs that are online; zero: not known */
    struct partition_index *index;     /* private: see partition_host_init */
    _Atomic bool ending;               /* private: logs that are not open or made yet need not be */
    struct checkpoints *checkpoints;   /* broker/partition/checkpoint.h; made by the composition root */
    _Atomic unsigned dirs_failed;      /* private: how many since the start */
    /* A log dir has failed, once for each: every shard is to have a turn soon. On any shard's thread; may be NULL. */
    void (*dir_failed)(void *arg, unsigned dir, const char *why);
    void *dir_failed_arg;
};

/* Indexes what is in `dirs`; before the loops run. */
int partition_host_init(struct partition_host *h, struct err *err);
void partition_host_fini(struct partition_host *h);
/* Every shard has opened its logs: log dirs of which all found ones are open are noted as well (broker/log/kept.h). */
void partition_host_opened(struct partition_host *h);

int partitions_create(struct shard *shard, struct partition_host *host, struct err *err);
/* Follows from one image to the next (NULL at first); sets shard->image before. */
void partitions_apply(struct partitions *ps, const struct image *was, const struct image *now);
/* How many are still being opened: not ready to serve while there are any. */
size_t partitions_opening(const struct partitions *ps);
/* Writes what is pending, starts flushes, wakes who waits. True: there is work for the next turn. */
bool partitions_turn(struct partitions *ps);

/* Ends: appends still parked are answered NOT_LEADER_OR_FOLLOWER, logs flushed and closed, checkpoints written;
 * `closed(arg)` then runs. */
void partitions_close(struct partitions *ps, void (*closed)(void *arg), void *arg);
/* What partitions_close found: false for each dir whose logs were not all closed well. */
const bool *partitions_clean(const struct partitions *ps);
void partitions_destroy(struct partitions *ps);

/* One partition by hand, for tests and tools: as if an image had said so. */
struct partition_spec {
    struct slice topic;
    struct uuid topic_id;
    int32_t index, leader, leader_epoch, partition_epoch, replicas_n, isr_n;
    struct uuid directory; /* that is on record for this node's replica; zero: none */
};
void partitions_host(struct partitions *ps, const struct partition_spec *spec);
void partitions_drop(struct partitions *ps, const struct uuid *topic_id, int32_t index);

/* Since the last call there came a replica that lies in another log dir than its record says; which ones do:
 * partition_misplaced. */
bool partitions_misplaced(struct partitions *ps);
bool partition_misplaced(const struct partition *p, struct uuid *dir);

/* Walks all; `each` may not drop. */
void partitions_each(struct partitions *ps, void (*each)(void *arg, struct partition *p), void *arg);

#endif
