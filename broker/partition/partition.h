/* A partition on its shard: role, leader epoch, log, high watermark, and the produces that wait for it.
 *
 * The leader counts itself into the high watermark only after its fdatasync (D6), or with
 * sundog.flush.before.ack=false after the append, as Kafka does. Batches of one turn of the loop go to the
 * log in one write, in the order of their partition_append; at most one flush job of a partition is under
 * way, the next one starts when it ends and covers all that came meanwhile (group commit). Threading: the
 * shard's thread only. Lifetime: made and deleted as metadata images say; a pointer is good until the turn
 * ends, except for what partition_watch tells. An append is completed exactly once, also when the partition
 * goes. */
#ifndef SUNDOG_BROKER_PARTITION_PARTITION_H
#define SUNDOG_BROKER_PARTITION_PARTITION_H

#include "base/core/buf.h"
#include "broker/shard.h"

struct log;
struct partition;

enum partition_role { PARTITION_OFFLINE, PARTITION_FOLLOWER, PARTITION_LEADER };

/* By id, or NULL when this shard does not have it; see shard_of for who should. */
struct partition *partition_find(struct shard *shard, const struct uuid *topic_id, int32_t index);

const char *partition_topic(const struct partition *p);
const struct uuid *partition_topic_id(const struct partition *p);
int32_t partition_index(const struct partition *p);
/* OFFLINE also while it is being opened, and after it has failed. */
enum partition_role partition_role(const struct partition *p);
bool partition_is_opening(const struct partition *p);
bool partition_is_failed(const struct partition *p);
int32_t partition_leader_epoch(const struct partition *p);
/* Offsets: first kept, first not yet committed, first not yet written. */
int64_t partition_log_start(const struct partition *p);
int64_t partition_high_watermark(const struct partition *p);
int64_t partition_log_end(const struct partition *p);
struct log *partition_log(struct partition *p);

enum partition_origin {
    PARTITION_CLIENT,      /* checked as PROTOCOL.md §2.5 says */
    PARTITION_COORDINATOR, /* built here (groups, transactions, markers): control bits are allowed */
};

/* One append; embed it in what you own. The memory is the partition's until `done`. */
struct partition_append {
    /* In. `batch` is one record batch; its base offset and leader epoch (LogAppendTime: also stamps and CRC)
     * are changed in place. */
    uint8_t *batch;
    size_t batch_bytes;
    enum partition_origin origin;
    int16_t acks;            /* 0 or 1: done after the append; -1: after the high watermark has passed it */
    int32_t leader_epoch;    /* expected, or -1 */
    int64_t timeout_us;      /* for acks -1, from now; 0: none */
    int16_t produce_version; /* of the request: old ones may not carry zstd */
    void (*done)(struct partition_append *a);
    /* Out. */
    int16_t error; /* KE_… */
    int64_t base_offset, last_offset, log_append_time_ms, log_start_offset;
    const char *error_text; /* or NULL */
    int32_t bad_record;     /* index in the batch of the record at fault, or -1 */
    /* The partition's own. */
    struct list link;
    int64_t deadline_us;
    char text[160];
};

/* `done` is called later in this turn at the earliest for a good append, but may be called before this
 * returns when the partition refuses it (not leader, fenced, invalid). */
void partition_append(struct partition *p, struct partition_append *a);

/* DeleteRecords: the start moves up to `offset`, -1 is the high watermark. Embed it in what you own; the memory is the
 * partition's until `done`. */
struct partition_deletion {
    /* In. */
    int64_t offset;
    void (*done)(struct partition_deletion *d);
    /* Out. */
    int16_t error; /* KE_… */
    /* The partition's own. */
    struct partition *partition;
    struct list link, of_partition;
};

/* `done` is called once: when the new start is on disk and seen, so that not even a power cut brings back what was
 * deleted; before this returns when the partition refuses it or the start is there already. */
void partition_delete_records(struct partition *p, struct partition_deletion *d);

/* ---- reading ---- */

enum partition_isolation {
    PARTITION_LOG_END,
    PARTITION_HIGH_WATERMARK,
    PARTITION_COMMITTED /* last stable offset */
};
/* First offset that a reader of this isolation does not see. */
int64_t partition_limit(const struct partition *p, enum partition_isolation isolation);

/* Copies whole batches, from the one that holds `offset` on, as long as they end below `end` (of
 * partition_log_end or partition_high_watermark) and fit in `max_bytes` (one always does, if `out` takes it).
 * *next: the offset to go on from; equal to `offset` when there is nothing. 0 or -E_…. */
int partition_read(struct partition *p, int64_t offset, int64_t end, size_t max_bytes, struct buf *out,
                   int64_t *next);

/* One partition that a parked Fetch waits for; embed it in what you own. `wake` runs at the end of a turn, each time
 * the partition's committed end has moved or the partition is no longer what it was (role, epoch, start offset, gone);
 * it may stop any waits, but not append. For a partition that goes `wake` runs at once. */
struct partition_wait {
    struct list link;
    struct partition *partition; /* NULL once it is gone */
    uint64_t since_bytes;        /* partition_committed_bytes at the start */
    bool changed;                /* not the same leader any more: look again now */
    void (*wake)(struct partition_wait *w);
};
void partition_wait(struct partition *p, struct partition_wait *w);
void partition_wait_stop(struct partition_wait *w);
/* Grows with what readers up to the high watermark may see: a difference says how much has come. */
uint64_t partition_committed_bytes(const struct partition *p);

/* Hears of the partitions of one topic on this shard: groups load and unload by it. `changed` is called, on
 * the shard, after role or leader epoch have changed and for each partition there is when the watch begins;
 * `gone` before a partition is closed or deleted. Embed it; it must outlive the shard's partitions. */
struct partition_watch {
    struct list link;
    const char *topic;
    void (*changed)(struct partition_watch *w, struct partition *p);
    void (*gone)(struct partition_watch *w, struct partition *p);
};
void partition_watch(struct shard *shard, struct partition_watch *w);

#endif
