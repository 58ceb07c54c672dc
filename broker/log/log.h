/* One partition's log: Kafka's files in one folder, appended to at the end and read anywhere (DESIGN.md D4,
 * D6).
 *
 * Threading: a log belongs to one shard and all calls are for its thread, but for the ones marked "any
 * thread" (they touch only what a begin call put aside) and log_open, which may run elsewhere before the log
 * is handed over. Lifetime: log_open to log_close or log_delete; flushes and compactions must have ended
 * first. What a read gives (struct log_slice) holds its file and outlives roll, retention, compaction and the
 * log itself. Limits: LOG_APPEND_BATCHES_MAX batches an append, LOG_PRODUCERS_MAX producer ids, one flush and
 * one compaction at a time; open files: one a log (the active segment's .log) plus the bound of the shard's
 * struct log_files.
 *
 * Durability: an append is in the page cache; it is on disk when a flush that began after it has ended well:
 * log_durable_offset says how far. The names of new files are synced by that flush too. An error of a flush,
 * or an append's error other than "no space", fences the log for good: appends give -E_FENCED, fdatasync is
 * never called again, reads of what was durable go on. After -E_NOSPACE the file is as before and the log
 * goes on. */
#ifndef SUNDOG_BROKER_LOG_LOG_H
#define SUNDOG_BROKER_LOG_LOG_H

#include "base/core/buf.h"
#include "base/core/err.h"
#include "base/world/disk.h"
#include "broker/log/config.h"

#define LOG_APPEND_BATCHES_MAX 1024
#define LOG_PRODUCERS_MAX      65536 /* above it the one that has been silent longest is forgotten */
#define LOG_PRODUCER_BATCHES   5     /* remembered per producer id, as in Kafka */
#define LOG_PATH_MAX           1024

struct log;

/* ---- files ---- */

/* The shard's open files of closed segments and indexes, an LRU of at most `max` (each log's active .log not
 * counted). Shard's thread. */
struct log_files;
struct log_files *log_files_create(struct disk *disk, unsigned max);
void log_files_destroy(struct log_files *files);
#define LOG_FILES_DEFAULT 512

/* A file with a count of its holders; the last one closes it. Any thread. */
struct log_file;
struct log_file *log_file_take(struct log_file *f);
void log_file_drop(struct log_file *f); /* NULL is fine */
struct disk_file *log_file_disk(const struct log_file *f);

/* ---- opening ---- */

struct log_open_options {
    struct log_files *files; /* outlives the log */
    int64_t wall_ms;
    bool create;           /* make the folder and the first segment when they are missing */
    bool names_later;      /* and whoever asks syncs what was made, before anybody else hears of it */
    int64_t create_offset; /* base offset of that segment */
    bool clean;            /* the log dir had its clean-shutdown marker: what is there is trusted */
    bool kept; /* not clean, but what the process before has written is still there as it wrote it */
    int64_t recovery_point; /* from the checkpoint file, 0 when there is none; everything below is on disk */
    int64_t start_offset;   /* from the checkpoint file, 0 when there is none */
};

/* What opening found; for the log line and the metrics of the caller. */
struct log_recovery {
    unsigned segments, segments_scanned, indexes_rebuilt, files_removed;
    int64_t bytes_scanned;
    int64_t bytes_cut;    /* a torn or lost tail of what was never flushed */
    int64_t batches_lost; /* valid batches in the cut part, behind unsynced sectors that a power cut lost: say
                             it */
    int64_t cut_position; /* where, in cut_file; -1 when nothing was cut */
    char cut_file[48];    /* its name in the log's folder */
    unsigned producers;   /* ids known after replay */
};

/* Opens, recovering when not clean: each CRC from the recovery point on is checked; a torn or zero-filled
 * tail is cut. -E_CORRUPT: bad bytes below the recovery point or before valid batches: nothing was changed,
 * `err` names file, position and remedy, the partition stays offline. -E_NOTFOUND: no folder and no `create`.
 * -E_IO, -E_NOMEM, …. */
int log_open(struct disk *disk, const char *dir, const struct log_config *config,
             const struct log_open_options *options, struct log **out, struct err *err);
const struct log_recovery *log_recovery(const struct log *l);
/* Writes what a clean shutdown leaves (index tails, trimmed; producer snapshot; epochs), syncs it, frees.
 * When the log is fenced or this fails the result is negative, the memory is freed all the same, and the
 * marker must not be set. */
int log_close(struct log *l, struct err *err);
/* Frees without writing: after a failed disk, and to act out kill -9. */
void log_abandon(struct log *l);
/* Closes without writing and renames the folder to "<topic>-<partition>.<32 hex digits>-delete" (cut to 255);
 * the manager removes such folders later and at start. The log is freed whatever the result. */
int log_delete(struct log *l, uint64_t random[2], struct err *err);
/* The same of a log that is not open. */
int log_folder_delete(struct disk *disk, const char *dir, const uint64_t random[2], struct err *err);

/* From now on; nothing is done to what is there. */
void log_configure(struct log *l, const struct log_config *config);
const char *log_dir_path(const struct log *l);

/* ---- offsets ---- */

int64_t log_start_offset(const struct log *l); /* first offset a reader may have */
int64_t log_end_offset(const struct log *l);   /* of the next append */
/* First offset that a power cut may take; ≤ end. After an unclean open it is the recovery point until the
 * first flush. */
int64_t log_durable_offset(const struct log *l);
/* All below it, indexes and producer state included, is on disk: goes into recovery-point-offset-checkpoint.
 */
int64_t log_recovery_point(const struct log *l);
/* First offset of the oldest open transaction, -1 when none is open. */
int64_t log_first_unstable_offset(const struct log *l);
int64_t log_size_bytes(struct log *l); /* of all segments' .log files; -E_IO */
unsigned log_segments(const struct log *l);
bool log_fenced(const struct log *l);
/* Fenced by an I/O error, not by its content or by lack of memory: the disk is not to be trusted any more. */
bool log_disk_failed(const struct log *l);
const char *log_fence_text(const struct log *l); /* why; "" when it is not */
void log_fence(struct log *l, int code, const char *why);

/* ---- appending ---- */

/* One record batch (magic 2) in memory: checked (size, CRC; for clients PROTOCOL.md §2.5) by the caller. */
struct log_batch {
    /* In. Bytes 0..7 (base offset) and 12..15 (leader epoch) are written by log_append; they lie outside the
     * CRC. */
    uint8_t *bytes;
    size_t size_bytes;
    /* Out. */
    int16_t error;  /* KE_NONE, or why this one batch was not appended (sequence, epoch, size) */
    bool duplicate; /* it is in the log already: offsets and timestamp are the original's */
    int64_t base_offset, last_offset;
    int64_t timestamp_ms; /* of a duplicate: the wall clock of its append */
};

struct log_append_options {
    int32_t leader_epoch;
    int64_t wall_ms;  /* the clock that producer ids age by */
    bool coordinator; /* built by this broker: sequences are not checked, control batches allowed */
};

/* The leader's append: in order, each batch is checked for its producer's sequence (seeing those before it),
 * given its offset and epoch; those that pass go to the file in one write, or in one per segment when it
 * rolls. 0 also when single batches carry an `error`. Negative: those without an `error` are in the log all the same
 * (written before a roll that failed, or duplicates of what was there), the others are not. */
int log_append(struct log *l, struct log_batch *batches, unsigned n, const struct log_append_options *o,
               struct err *err);
/* A follower's, the quorum's, a mirror's: `bytes` is one or more whole batches with their offsets and epochs,
 * in order, beginning at or after the end (gaps are kept). CRCs are checked here. Epochs are entered into the
 * epoch history and producer state follows without judging. -E_CORRUPT or -E_RANGE: nothing was appended. */
int log_append_as_is(struct log *l, struct slice bytes, int64_t wall_ms, struct err *err);
/* A new segment, unless the active one is empty. */
int log_roll(struct log *l, int64_t wall_ms, struct err *err);

/* ---- reading ---- */

/* Whole batches, one behind the other in one file. Drop it when done (any thread). */
struct log_slice {
    struct log_file *file; /* NULL when size_bytes is 0 */
    int64_t position;
    size_t size_bytes;
    int64_t first_offset; /* base offset of its first batch: may lie before what was asked for */
    int64_t next_offset;  /* behind its last batch: where to read on; == offset asked for when empty */
};
static inline void log_slice_drop(struct log_slice *s)
{
    log_file_drop(s->file);
    *s = (struct log_slice){0};
}

enum log_read {
    LOG_READ_WITHIN = 0,
    LOG_READ_AT_LEAST_ONE = 1 /* a first batch above max_bytes is given all the same */
};

/* From the batch that holds `offset`; batches end at or below `limit_offset` (high watermark, end) and,
 * together, in `max_bytes`; never from two segments. Empty at the end, at the limit, or when the first batch
 * does not fit. -E_RANGE: below the start or past the end. -E_CORRUPT: bytes that are no batch. */
int log_read(struct log *l, int64_t offset, int64_t limit_offset, size_t max_bytes, enum log_read how,
             struct log_slice *out, struct err *err);
/* Copies a slice's bytes; any thread. -E_CORRUPT when the file is shorter (truncated meanwhile), -E_IO. */
int log_slice_load(const struct log_slice *s, struct buf *to);

struct log_time_offset {
    int64_t offset, timestamp_ms; /* -1, -1: none */
    int32_t leader_epoch;
};
/* The first record at or after the log start with a timestamp ≥ timestamp_ms, below limit_offset. */
int log_find_time(struct log *l, int64_t timestamp_ms, int64_t limit_offset, struct log_time_offset *out,
                  struct err *err);
/* ListOffsets -3: the record with the largest timestamp (the first of equals). */
int log_find_max_time(struct log *l, int64_t limit_offset, struct log_time_offset *out, struct err *err);

/* Calls `each` with whole batches (header and records, in memory until it returns) from the one that holds
 * `offset` up to `limit_offset`; stops when it returns non-zero and returns that. For loading internal topics
 * and lookups: reads LOG_EACH_BYTES at a time, more for a larger batch. */
#define LOG_EACH_BYTES (256 * 1024)
int log_each(struct log *l, int64_t offset, int64_t limit_offset, int (*each)(void *arg, struct slice batch),
             void *arg, struct err *err);

/* ---- flushing ---- */

struct log_flush;
enum log_flush_how {
    LOG_FLUSH_DATA,       /* what an acknowledgement needs: .log files, names */
    LOG_FLUSH_CHECKPOINT, /* also indexes, producer snapshot, epochs: log_recovery_point moves */
};
/* 1 with *out: run it, on any thread, then give it to log_flush_done on the shard. 0: nothing is dirty.
 * -E_BUSY: one is under way. -E_FENCED. -E_NOMEM. */
int log_flush_begin(struct log *l, enum log_flush_how how, struct log_flush **out);
int64_t log_flush_offset(const struct log_flush *f); /* what will be durable */
/* Any thread; blocks. */
void log_flush_run(struct log_flush *f);
/* 0: the durable offset has moved. Negative: the log is fenced. Frees the flush. */
int log_flush_done(struct log *l, struct log_flush *f, struct err *err);
/* flush.messages or flush.ms say that a flush is due. */
bool log_flush_due(const struct log *l, int64_t wall_ms);

/* ---- leader epochs (KIP-101, 279, 320) ---- */

/* A leader's new epoch begins at the end of the log. Smaller than the last one: ignored. */
int log_epoch_assign(struct log *l, int32_t epoch, int64_t start_offset);
int32_t log_epoch_latest(const struct log *l); /* -1: none */
/* The epoch of the record at `offset`; -1 when the history does not reach there. */
int32_t log_epoch_at(const struct log *l, int64_t offset);
struct log_epoch_end {
    int32_t epoch; /* -1, -1: undefined */
    int64_t end_offset;
};
/* OffsetForLeaderEpoch as PROTOCOL.md §2.4. */
struct log_epoch_end log_epoch_end(const struct log *l, int32_t epoch);

/* ---- producers ---- */

struct log_producer {
    int64_t producer_id;
    int16_t epoch;
    int32_t last_sequence, coordinator_epoch;
    int64_t last_offset, last_timestamp_ms /* wall clock of its last append */,
        txn_first_offset /* -1: none */;
};
/* DescribeProducers. Order: by producer id. */
void log_each_producer(const struct log *l, void (*each)(void *arg, const struct log_producer *p), void *arg);
/* Forgets ids whose last append lies more than producer_id_expiration_ms back by the wall clock; call it now
 * and then. Ids with an open transaction stay. Returns how many. */
unsigned log_expire_producers(struct log *l, int64_t wall_ms);

/* ---- start, truncation, retention ---- */

/* DeleteRecords, and the quorum's snapshots: the start moves up to `offset` (≤ end; a smaller one is
 * ignored). Segments wholly below it go at the next log_retain. Persisted by the manager's
 * log-start-offset-checkpoint. */
int log_set_start(struct log *l, int64_t offset);
/* A follower's: everything from `offset` on is cut, epochs and producer state too; the cut is on disk on
 * return (blocks). `offset` falls on a batch boundary or inside a batch, which then goes whole. -E_BUSY while
 * a flush or the swap of a compaction is under way. */
int log_truncate(struct log *l, int64_t offset, int64_t wall_ms, struct err *err);
/* All is dropped, the log is empty and begins at `offset` (a snapshot takes its place). */
int log_truncate_fully(struct log *l, int64_t offset, int64_t wall_ms, struct err *err);

struct log_retained {
    unsigned segments;
    int64_t bytes;
};
/* Deletes old segments by time, size (cleanup.policy delete) and start offset, never one with an offset at or
 * above limit_offset (the high watermark); files become *.deleted at once and are unlinked by log_sweep. The
 * start offset moves up. An active segment that has expired is rolled first. */
int log_retain(struct log *l, int64_t wall_ms, int64_t limit_offset, struct log_retained *out,
               struct err *err);
/* Unlinks what was deleted file.delete.delay.ms ago; syncs the folder before the first unlink (blocks).
 * Returns how many files are left to unlink. */
unsigned log_sweep(struct log *l, int64_t wall_ms);

/* ---- compaction: broker/log/compact.h ---- */

#endif
