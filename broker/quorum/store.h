/* `__cluster_metadata-0` on disk: the log, its snapshots, quorum-state, and the image that they add up to.
 *
 * Opening recovers (KRAFT.md §1): leftovers go, the log's torn tail is cut, a snapshot beyond the log's end takes the
 * log's place, then snapshot and log are replayed to the end, uncommitted records included. Damage, a log that begins
 * above zero without a snapshot there, or a log without quorum-state is refused: such a node could vote or answer
 * against what it promised.
 * Threading: shard 0's, but for opening, which blocks and may run before the loops, and quorum_snapshot_run (a job).
 * Voters and kraft.version come from the last records in snapshot and log, else from the configuration. */
#ifndef SUNDOG_BROKER_QUORUM_STORE_H
#define SUNDOG_BROKER_QUORUM_STORE_H

#include "broker/log/log.h"
#include "broker/metadata/replay.h"
#include "broker/metadata/snapshot.h"
#include "broker/quorum/quorum.h"
#include "broker/quorum/quorum_state.h"
#include "proto/kafka/wire.h"

#define QUORUM_FOLDER         QUORUM_TOPIC "-0"
#define QUORUM_SNAPSHOTS_MAX  4096 /* on disk at a start, whoever made them */
#define QUORUM_SNAPSHOTS_KEPT 64   /* retention keeps no more, whatever its limits say */

struct quorum_snapshot {
    struct snapshot_id id;
    int64_t size_bytes;
    int64_t made_ms; /* wall clock; the file's time after a restart */
};

struct quorum_store {
    struct disk *disk;
    char dir[SNAPSHOT_PATH_MAX]; /* …/__cluster_metadata-0 */
    struct log *log;
    struct replay replay;
    struct quorum_state state; /* as found; what follows is the driver's */
    bool state_found;

    int16_t kraft_version;
    struct kp_voters_record voters; /* with kraft_version ≥ 1 */
    struct arena voters_arena;
    bool voters_in_log; /* not only in the 0-0 checkpoint that formatting leaves */

    struct quorum_snapshot
        snapshots[QUORUM_SNAPSHOTS_MAX]; /* complete ones, oldest first; without the 0-0 one */
    unsigned snapshots_n;
    int64_t snapshot_appended_bytes; /* since the last snapshot */
};

struct quorum_store_options {
    struct disk *disk;
    const char *metadata_dir; /* the log dir in which the folder lies */
    struct slice cluster_id;
    struct log_files *files;
    const struct log_config *config;
    struct image_reaper *reaper;
    int64_t wall_ms;
    bool clean;
};

int quorum_store_open(struct quorum_store *s, const struct quorum_store_options *o, struct err *err);
/* `clean`: writes what a clean stop leaves. Negative when that failed; all is freed in any case. */
int quorum_store_close(struct quorum_store *s, bool clean, struct err *err);

/* Where the log ends, and the epoch of its last record (that of the snapshot when the log has none). */
int64_t quorum_store_end(const struct quorum_store *s);
int32_t quorum_store_last_epoch(const struct quorum_store *s);

/* One or more batches at the log's end: written and replayed. Negative and nothing written: -E_NOSPACE and whatever
 * log_append_as_is says. After -E_CORRUPT (records that cannot be applied) the store must not be used any more. */
int quorum_store_append(struct quorum_store *s, struct slice batches, int64_t wall_ms, struct err *err);

/* ---- snapshots ---- */

/* A snapshot to be written by a job. */
struct quorum_snapshot_job {
    struct disk *disk;
    const char *dir;
    struct image *img; /* a reference */
    struct snapshot_quorum quorum;
    int64_t size_bytes; /* out */
    int rc;
    struct err err;
};
void quorum_snapshot_run(struct quorum_snapshot_job *job);
/* It is complete: taken into the list. */
void quorum_store_snapshot_made(struct quorum_store *s, const struct snapshot_id *id, int64_t size_bytes,
                                int64_t wall_ms);
/* Drops the oldest snapshots but the last while all together with the log exceed `bytes`, or they are older than `ms`
 * (−1: no limit); the log then begins at the next snapshot's end, and segments wholly below go (KAFKA-14238: never by
 * the log's own rules). How many were dropped, or negative. Blocks for a few unlinks. */
int quorum_store_retain(struct quorum_store *s, int64_t bytes, int64_t ms, int64_t wall_ms,
                        int64_t high_watermark, struct err *err);

#endif
