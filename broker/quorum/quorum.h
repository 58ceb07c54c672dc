/* The driver of the quorum on shard 0: carries out what raft.h decides on the log of store.h.
 *
 *   quorum_append ─▶ log, image at once ─▶ (end of the turn) fdatasync on a job ─▶ raft: high watermark ─▶ committed()
 *
 * Appends of one turn share one fdatasync; while it runs the next ones gather (group commit). The image that a decision
 * looks at (quorum_image) runs ahead of the high watermark; the one that committed() gives does not, and never shows
 * part of a batch or of a transaction.
 * Threading: shard 0's loop; opening blocks and comes before the loops run. Lifetime: open … start … (stop, then when
 * `stopped` has been called) close. An error that leaves the log in doubt is told once by failed(): end the process. */
#ifndef SUNDOG_BROKER_QUORUM_QUORUM_H
#define SUNDOG_BROKER_QUORUM_QUORUM_H

#include "base/world/disk.h"
#include "base/world/loop.h"
#include "broker/log/log.h"
#include "broker/metadata/image.h"
#include "broker/metadata/record.h"
#include "broker/quorum/quorum_state.h"
#include "proto/kafka/wire.h"

#define QUORUM_TOPIC "__cluster_metadata"

struct quorum;

struct quorum_listener {
    /* This node leads `epoch`, has everything up to its election and may append. */
    void (*leading)(void *arg, int32_t epoch);
    /* It leads no longer. */
    void (*resigned)(void *arg);
    /* The newest whole image below the high watermark; borrowed. */
    void (*committed)(void *arg, const struct image *img);
    void (*failed)(void *arg, const char *why);
    void (*stopped)(void *arg);
};

struct quorum_options {
    struct loop *loop;
    struct disk *disk;
    struct log_files *files;
    unsigned lane;            /* of loop_job, for fdatasync and snapshots */
    const char *metadata_dir; /* metadata.log.dir, or the first of log.dirs */
    struct slice cluster_id;
    int32_t node_id;
    struct uuid directory_id; /* of metadata_dir */
    bool clean;               /* the directory had its clean-shutdown marker */
    const int32_t *voters;    /* controller.quorum.voters' ids; NULL: this node alone (kraft.version 0) */
    int32_t voters_n;
    int32_t segment_bytes; /* metadata.log.segment.bytes */
    int64_t segment_ms;
    int64_t snapshot_bytes;  /* metadata.log.max.record.bytes.between.snapshots */
    int64_t snapshot_ms;     /* metadata.log.max.snapshot.interval.ms; 0: never by time */
    int64_t retention_bytes; /* metadata.max.retention.bytes; −1: no limit */
    int64_t retention_ms;    /* metadata.max.retention.ms; −1: no limit */
    int64_t election_timeout_ms, fetch_timeout_ms;
    const struct quorum_listener *listener;
    void *arg;
};

/* Fills everything but loop, disk, files, dir, ids and listener with Kafka's defaults. */
struct quorum_options quorum_options_default(void);

/* Recovers the log (store.h). -E_CONFIG: voters that this version cannot serve, or that do not name this node. */
int quorum_open(const struct quorum_options *o, struct quorum **out, struct err *err);
/* Elections begin; on the loop. */
void quorum_start(struct quorum *q);
/* Resigns and lets jobs end, then `stopped`. */
void quorum_stop(struct quorum *q);
/* After `stopped`; `clean`: what is there is synced and closed well. Negative when it was not. */
int quorum_close(struct quorum *q, bool clean, struct err *err);
/* The process is as if killed: memory only. */
void quorum_abandon(struct quorum *q);

/* The image decisions are made on: with all that was appended. */
const struct image *quorum_image(const struct quorum *q);
/* The last log has a BeginTransaction without its end (from a leader before us). */
bool quorum_in_transaction(const struct quorum *q);
/* Of the next record. */
int64_t quorum_offset_next(const struct quorum *q);

/* Appends `n` ≥ 1 records as one atomic batch; returns the offset of the last one. Committed when an image with
 * this offset is. -E_AGAIN: not leading; -E_LIMIT: too large for a batch; -E_NOSPACE: nothing was written, try later;
 * others: failed() has been called. */
int64_t quorum_append(struct quorum *q, const struct metadata_record *v, size_t n, struct err *err);

/* ---- what tools ask ---- */

struct quorum_status {
    int32_t leader_id, epoch; /* leader QUORUM_NOBODY: none known */
    bool leading;
    int64_t high_watermark, log_start, log_end;
    int16_t kraft_version;
    const struct kp_voters_record *voters; /* NULL at kraft.version 0 */
    int32_t node_id;
    struct uuid directory_id;
    int64_t snapshots, snapshot_end_offset; /* kept; of the newest, 0: none */
};
void quorum_status(const struct quorum *q, struct quorum_status *out);
#endif
