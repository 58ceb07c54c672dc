/* One partition of a target broker, as the appender's rules assume it (APPENDER.md §1), with the faults it must live
 * with. Single thread; time is the caller's.
 *
 *   next sequence                        appended
 *   one of the last five batches again   NONE and the original offset (after a restart: only the last)
 *   older, overlapping, ahead            45
 *   same range, other bytes              NONE: numbers are compared, not content
 *   lower epoch                          47; a higher one is taken with sequence 0 and fences the lower
 *   an id it does not know               any sequence
 * An id is forgotten by the records' time (or by the time of the append, as our own broker does). */
#ifndef SUNDOG_TESTS_SUPPORT_TARGET_MODEL_H
#define SUNDOG_TESTS_SUPPORT_TARGET_MODEL_H

#include "base/core/buf.h"
#include "base/core/rng.h"
#include "proto/kafka/batch.h"
#include "proto/kafka/errors.h"

#define TARGET_REMEMBERED 5
#define TARGET_PRODUCERS  64
#define TARGET_EPOCHS     64

struct target_batch {
    struct batch_header h;
    uint8_t *bytes;
    size_t size;
};

struct target_producer {
    int64_t id;
    int16_t epoch;
    int64_t timestamp; /* of its last batch, or of the append */
    struct {
        int32_t first, last;
        int64_t base;
    } batches[TARGET_REMEMBERED]; /* oldest first */
    int n;
    int32_t last_sequence;
};

struct target_model {
    struct rng rng;
    int64_t now_ms;
    struct target_batch *log;
    size_t log_n, log_cap;
    int64_t log_start, end, visible; /* visible: the high watermark */
    struct target_producer producers[TARGET_PRODUCERS];
    int producers_n;
    struct {
        int32_t epoch;
        int64_t start;
    } epochs[TARGET_EPOCHS];
    int epochs_n;
    /* how it behaves */
    size_t batch_bytes_max;
    int64_t ahead_ms_max, before_ms_max; /* 0: no limit */
    int64_t expiration_ms;
    bool wall_clock, append_time, no_describe;
    int16_t refuse; /* every produce gets this before the append */
    int refuse_n;   /* so many times */
    int16_t after;  /* every produce gets this after the append */
    int after_n;
    bool hold_watermark; /* what is appended stays invisible */
    uint64_t appended, doubled, refused;
};

void target_init(struct target_model *t, uint64_t seed);
void target_fini(struct target_model *t);

/* A Produce of one batch. The error; `base` on NONE. */
int16_t target_produce(struct target_model *t, struct slice batch, int64_t *base);
/* Whole batches from the one around `from` on, below the high watermark, up to `max` bytes but at least one. */
void target_read(const struct target_model *t, int64_t from, size_t max, struct buf *out);
/* DescribeProducers. */
bool target_describe(const struct target_model *t, int64_t id, int32_t *epoch, int32_t *last,
                     int64_t *timestamp);
/* OffsetForLeaderEpoch: the end of `epoch`, -1 when not known. */
int64_t target_epoch_end(const struct target_model *t, int32_t epoch);
int32_t target_epoch(const struct target_model *t);

/* ---- what happens to it ---- */
/* Of each producer only the last batch is remembered. */
void target_restart(struct target_model *t);
/* Forgets producers whose time has come. */
void target_expire(struct target_model *t);
void target_forget(struct target_model *t, int64_t id);
/* A stranger writes so many records. */
void target_foreign(struct target_model *t, int records);
void target_new_epoch(struct target_model *t);
/* Cut at `offset`, and a new epoch (unclean election). */
void target_truncate(struct target_model *t, int64_t offset);
void target_delete_prefix(struct target_model *t, int64_t log_start);
/* Compaction: records go with this chance, batches left without any too, but the last of each producer. */
void target_compact(struct target_model *t, uint32_t per_million);
/* Makes all that is appended visible. */
void target_replicate(struct target_model *t);

#endif
