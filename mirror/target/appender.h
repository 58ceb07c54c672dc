/* The sequenced appender (APPENDER.md): writes the records of one source partition to its target topic, each
 * once.
 *
 * One appender = one source partition `p` of one flow; inside, a lane per target partition `q` that p feeds
 * (one lane where partition counts are equal). Records of p for q are numbered 0, 1, 2, … in source order;
 * the number is the batch's sequence under p's producer id, so the target itself refuses what it has already.
 *
 * Life: starting, then anchoring (without progress), then reconciling (when something is in doubt), then
 * appending, with waiting now and then; from each of them to halted.
 *
 * - starting: each lane asks the target: topic id, log start, end, leader epochs, what it knows of our
 *   producer id, and reads the headers behind the end we know
 *
 * - anchoring, only without progress: `anchor` is called with the ends found; nothing is appended before
 *   appender_anchored
 *
 * - reconciling: a lane found records of ours that the progress does not know; `read_from` asks for the source
 *   from there on, the records given are paired with them; then `read_from` again: where to go on
 *
 * - appending: records given are numbered, packed and sent
 *
 * - waiting: for something that may heal (no leader, not enough replicas, a timestamp too far ahead, no
 *   permission); tried again with backoff, the reason shown
 *
 * - halted: for the operator; never left but by a new appender
 *
 * `read_from` also comes in mid-run, when the target knows more than we do (another daemon, a lost answer):
 * give up what was read and begin again there. Records below what a lane has already are passed over by the
 * lane itself.
 *
 * Threading: the loop's thread. Callbacks never come from inside a call of this API; they may call it, but
 * not appender_destroy. Memory: batches until acknowledged, counted in the shared `appender_budget`. */
#ifndef SUNDOG_MIRROR_TARGET_APPENDER_H
#define SUNDOG_MIRROR_TARGET_APPENDER_H

#include "base/core/err.h"
#include "base/core/slice.h"
#include "base/core/uuid.h"
#include "base/world/loop.h"
#include "mirror/port/port.h"
#include "proto/client/client.h"

struct appender;

/* ---- positions ---- */

/* Where one lane stands: what the position record keeps for each target partition. */
struct appender_point {
    int32_t partition;   /* q */
    bool known;          /* false: no progress, everything below is ignored */
    int64_t number_next; /* n_q: all numbers below have been acknowledged */
    int64_t end_offset;  /* T_q: the target's end behind the last of them, or later when only others wrote */
    int32_t end_epoch;   /* the target's leader epoch then, -1 if not known */
    int64_t source_next; /* records of p for q below this source offset are at the target */
    int64_t timestamp_max; /* of our last batch, -1: none or not known (rule 3: guarded or not) */
    /* So many offsets before source_next held no record for q, as far as could be seen: they lie behind the last record
     * that was acknowledged. A late request may hold what the source has lost there since. */
    int64_t source_idle;
};

/* The whole of it. `source_next` is the least of the lanes': S of the position record. */
struct appender_progress {
    int64_t source_next;
    int32_t source_epoch;                /* leader epoch of the record before it, -1 if not known */
    const struct appender_point *points; /* the appender's own, valid until its next turn */
    size_t points_n;
};

/* Acknowledged: source records src_start … src_start+count-1 are dst_start … at q. In source order per lane.
 */
struct appender_run {
    int64_t src_start, dst_start, count;
    int32_t partition; /* q */
};

/* ---- what it tells ---- */

enum appender_state {
    APPENDER_STARTING,
    APPENDER_ANCHORING,
    APPENDER_RECONCILING,
    APPENDER_APPENDING,
    APPENDER_WAITING,
    APPENDER_HALTED,
    APPENDER_STATES,
};

/* Why it waits or has halted; the names are shown (appender_reason_name). */
#define APPENDER_REASONS(X)                                                                                  \
    X(NONE, "")                                                                                              \
    X(TARGET_AWAY, "target away")                                                                            \
    X(NO_LEADER, "no leader at the target")                                                                  \
    X(NOT_ENOUGH_REPLICAS, "not enough replicas at the target")                                              \
    X(TIMESTAMP_AHEAD, "timestamp too far ahead for the target")                                             \
    X(NOT_AUTHORIZED, "not authorized at the target")                                                        \
    X(TARGET_ERROR, "target error")                                                                          \
    X(CONTENDED, "another daemon writes this partition")                                                     \
    X(PROGRESS_LOST, "progress lost")                                                                        \
    X(POSITION_UNCERTAIN, "position uncertain")                                                              \
    X(HOLE, "hole")                                                                                          \
    X(TARGET_RECREATED, "target topic recreated")                                                            \
    X(TARGET_GONE, "target topic gone")                                                                      \
    X(TARGET_TRUNCATED, "target truncated")                                                                  \
    X(RECORD_TOO_LARGE, "record too large for the target")                                                   \
    X(RECORD_REFUSED, "record refused by the target")                                                        \
    X(TIMESTAMP_REFUSED, "timestamp too old for the target")                                                 \
    X(NEWER_GENERATION, "a newer generation writes")

enum appender_reason {
#define X(name, text) APPENDER_REASON_##name,
    APPENDER_REASONS(X)
#undef X
        APPENDER_REASONS_N
};
const char *appender_reason_name(enum appender_reason r);
const char *appender_state_name(enum appender_state s);

struct appender_status {
    enum appender_state state; /* the worst of the lanes */
    enum appender_reason reason;
    int32_t partition; /* the lane it is about, -1: all */
    bool guarded;      /* every lane is (rule 3) */
    bool pairing;      /* some lane reconciles, also where the state shown is a wait */
    const char *text;  /* one line for the operator, with offsets and numbers; empty when all is well */
};

/* For the ledger; each is said once per cause and lane, with counts where it goes on. */
enum appender_note_kind {
    APPENDER_STRANGER, /* others' records in the target: offset, count, producer_id of the first batch */
    APPENDER_DOUBLE,   /* numbers of ours found twice: number, count, offset of the second */
    APPENDER_ORPHANS,  /* records of ours at the target that the source no longer has: offset of the first,
                          count */
    APPENDER_TRIMMED,  /* source offsets [number, number+count) were gone before reconciling could see them */
    APPENDER_SPLIT,    /* the target takes smaller batches than ours: count is the new limit in bytes */
    APPENDER_APPEND_TIME, /* the target topic stamps records itself */
};
struct appender_note {
    enum appender_note_kind kind;
    int32_t partition;
    int64_t number, offset, count, producer_id;
};

struct appender_events {
    void (*anchor)(void *arg, const struct appender_progress *p); /* save it, then appender_anchored */
    void (*read_from)(void *arg, int64_t source_offset, int32_t source_epoch);
    void (*runs)(void *arg, const struct appender_run *runs, size_t n);
    void (*state)(void *arg, const struct appender_status *s); /* at each change of state or reason */
    void (*note)(void *arg, const struct appender_note *n);
    void (*room)(void *arg); /* appender_can_take has been false and is true again */
};

/* ---- shared bounds ---- */

/* Bytes that all appenders of a worker may hold, and the buffers they share. */
struct appender_budget;
struct appender_budget *appender_budget_create(size_t limit_bytes);
void appender_budget_destroy(struct appender_budget *b); /* after all its appenders */
size_t appender_budget_used(const struct appender_budget *b);
/* Another limit from now on; what is held beyond it stays until it is acknowledged. */
void appender_budget_limit(struct appender_budget *b, size_t limit_bytes);
/* Every BUDGET_PACE_US. A target that answers at once needs little under way, and what waits longer than the caches
 * keep it costs twice: a small part of the limit is used until that turns out to hold something up. */
void appender_budget_pace(struct appender_budget *b);
#define BUDGET_PACE_US INT64_C(500000)
/* Frees the buffers that nobody has needed since it was called last. */
void appender_budget_rest(struct appender_budget *b);

/* What rule 3 needs of the target; one per flow, kept fresh by appender_guard_refresh (DescribeConfigs). */
struct appender_guard {
    int64_t expiration_ms; /* producer.id.expiration.ms: 24 h until known */
    bool wall_clock;       /* the target keeps ids by the time of the append (ours): always guarded */
};

/* ---- the appender ---- */

#define APPENDER_INFLIGHT_MAX 5 /* Kafka remembers this many batches of a producer id */

struct appender_options {
    struct loop *loop;
    struct client *client; /* of the target */
    struct slice topic;    /* at the target; copied */
    struct uuid topic_id;  /* pinned; zero where the target has none */
    int64_t producer_id;
    int16_t producer_epoch;
    int codec; /* producer.compression.type: enum codec of proto/kafka/codec.h, 0 (none) is MM2's default */
    int codec_level;        /* CODEC_LEVEL_DEFAULT, or the codec's own */
    size_t batch_max_bytes; /* before compression; 512 KiB when 0. One larger record goes alone */
    size_t whole_min_bytes; /* smaller whole batches are packed together where they queue; 0: 4 to 16 KiB */
    int64_t request_timeout_us; /* of Produce; 30 s when 0 */
    int64_t unsaved_max; /* records acknowledged or in flight since appender_saved; 131,072 when 0. Bounds
                            what a restart must pair */
    struct appender_budget *budget;
    const struct appender_guard *guard;
    /* Every q that p can feed, once. Without any known point the partition is fresh: `fresh_needs_empty`
     * (partition counts are equal) halts with "progress lost" unless the target partition is empty. A target
     * that knows our producer id halts so in any case. */
    const struct appender_point *points;
    size_t points_n;
    int64_t source_next; /* S; with fresh points: where the source will be read from */
    int32_t source_epoch;
    bool fresh_needs_empty;
    /* Whether a producer id is that of another source partition of this flow, which writes the same target where keys
     * are hashed: no stranger. With the options' `arg`; NULL: there is none. */
    bool (*kin)(void *arg, int64_t producer_id);
    const struct appender_events *events;
    void *arg;
};

/* Starts at once; `state` events follow. */
int appender_create(const struct appender_options *o, struct appender **out, struct err *err);
/* Drops what is in flight: it may arrive or not, the next start finds out. Before the client is destroyed. NULL is
 * fine. */
void appender_destroy(struct appender *a);

/* True when a record of ordinary size may be given for any lane. False while starting, anchoring, waiting for
 * `read_from` to be followed, full, or halted. */
bool appender_can_take(struct appender *a);
/* Copies one record for target partition `q` (one of the points'). Source offsets rise from call to call,
 * starting at or above what the last `read_from` asked for. Only when appender_can_take; a batch of records
 * polled before may go in whole, up to APPENDER_OVERSHOOT records beyond. -E_NOTFOUND: no such lane. */
int appender_take(struct appender *a, int32_t q, const struct port_record *r);
/* The same for the whole of a batch as it lies in the source's log, from *next on: as it is where the target takes it
 * so, else record by record, packed in its codec (or in the options', where they name one). Its CRC has been checked.
 * *next is behind what was taken, also when the rest cannot be: -E_CORRUPT, -E_LIMIT, -E_NOMEM. */
int appender_take_batch(struct appender *a, int32_t q, const struct port_batch *b, int64_t *next);
/* Everything of the source below `source_next` has been given (or is not a record): after each delivery. */
void appender_covered(struct appender *a, int64_t source_next, int32_t source_epoch);
/* After `read_from`: the source stands there now; what is taken from now on comes from the new reading. */
void appender_reading(struct appender *a);
/* While reconciling: the source has no more at present; `source_end` is its end. */
void appender_source_end(struct appender *a, int64_t source_end);

#define APPENDER_OVERSHOOT 65536

/* The anchor has been saved. */
void appender_anchored(struct appender *a);
/* The state as of now, for a position record. */
void appender_progress(struct appender *a, struct appender_progress *out);
/* What appender_progress gave last is durable. */
void appender_saved(struct appender *a);
/* Sends what is buffered, takes nothing more; `drained` is called when all is acknowledged or the appender
 * halts or waits. For rule changes and clean shutdown. */
void appender_drain(struct appender *a, void (*drained)(void *arg), void *arg);
/* When idle: T_q moves to the end of the target sampled after the last acknowledgement (rule 16); `done` when
 * the progress shows it. */
void appender_settle(struct appender *a, void (*done)(void *arg), void *arg);

void appender_status(const struct appender *a, struct appender_status *out);

struct appender_counts {
    uint64_t records, batches, bytes, duplicates, resends, reconciles, strangers;
    size_t inflight, buffered_bytes;
};
void appender_counts(const struct appender *a, struct appender_counts *out);

/* ---- the flow's business with the target's producer ids ---- */

/* Takes a fresh producer id (InitProducerId): for an offer in the progress topic. `done` gets 0 or -E_…;
 * `err` says why. One at a time per call; -E_NOMEM when it cannot be asked. */
int appender_producer_id(struct client *target,
                         void (*done)(void *arg, int status, int64_t producer_id, int16_t epoch,
                                      const struct err *err),
                         void *arg);
/* Asks the target's brokers for what `g` holds; `done` (may be NULL) when answered or failed. */
int appender_guard_refresh(struct client *target, struct appender_guard *g, void (*done)(void *arg),
                           void *arg);

#endif
