/* Compaction of closed segments (cleanup.policy=compact): the last value of each key stays, offsets never
 * change.
 *
 * Three steps, so that the shard never waits for the disk: begin (shard) puts the segments aside, run (any
 * thread) reads them, writes the new ones and syncs them, done (shard) puts them in place; files are swapped
 * by rename with a state that recovery understands at every point. One at a time per log. Memory: the key map
 * takes at most `map_bytes` (log.cleaner.dedupe.buffer.size); keys that do not fit wait for the next round.
 * Kept: the last record of each key; tombstones for delete.retention.ms after the first round that could
 * remove them (delete horizon in the batch header); each producer id's last batch, empty if need be; records
 * without a key, control batches. */
#ifndef SUNDOG_BROKER_LOG_COMPACT_H
#define SUNDOG_BROKER_LOG_COMPACT_H

#include "broker/log/log.h"

struct log_compaction;

struct log_compact_options {
    int64_t wall_ms;
    int64_t limit_offset; /* high watermark or last stable offset: nothing at or above is looked at */
    int64_t clean_offset; /* of cleaner-offset-checkpoint: below it is clean; 0 when unknown */
    size_t map_bytes;
    uint64_t seed; /* for the key map's hash: random */
};

/* How much would be gained, to choose the log to clean next. */
struct log_dirtiness {
    int64_t clean_bytes, dirty_bytes; /* of closed segments below the limit and past the compaction lag */
    bool
        due; /* the ratio or max.compaction.lag.ms says so, or so many small segments wait that one could be made of */
};
int log_dirtiness(struct log *l, const struct log_compact_options *o, struct log_dirtiness *out,
                  struct err *err);

/* 1: *out is to be run. 0: nothing to clean. -E_BUSY: one is under way. */
int log_compact_begin(struct log *l, const struct log_compact_options *o, struct log_compaction **out,
                      struct err *err);
/* Any thread; blocks. */
void log_compact_run(struct log_compaction *c);
/* Makes the run end soon, without result. Any thread. */
void log_compact_stop(struct log_compaction *c);

struct log_compacted {
    int64_t clean_offset; /* goes into cleaner-offset-checkpoint */
    int64_t bytes_before, bytes_after;
    int64_t records_before, records_after;
};
/* 0, or why nothing was changed (-E_CORRUPT, -E_IO, -E_NOSPACE; -E_AGAIN: the segments went meanwhile). Frees
 * it. */
int log_compact_done(struct log *l, struct log_compaction *c, struct log_compacted *out, struct err *err);

#endif
