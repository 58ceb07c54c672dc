/* One lane: the records of source partition p for target partition q. Decides; knows neither client nor loop.
 *
 * Events go in (lane_…), effects come out (lane_effect) until there are none; whoever drives it (appender.c, or the
 * modelled target of the tests) carries them out and answers. Answers carry the ticket of their question; those of
 * questions that no longer matter are dropped here.
 *
 *   surveying ──► anchoring ──► ready ──► appending ◄──► surveying (an answer in doubt, a new leader)
 *       │                         ▲           │
 *       └──────► pairing ─────────┘           └──► surveying, everything in memory dropped (somebody else has written)
 *   (from each of them to halted)
 *
 * Surveying asks, in this order: ListOffsets; OffsetForLeaderEpoch of the end we know (and the batch there, when that
 * is not conclusive); DescribeProducers; then it reads the target from the end we know to its end, headers for what is
 * in memory, contents for what is not. */
#ifndef SUNDOG_MIRROR_TARGET_LANE_H
#define SUNDOG_MIRROR_TARGET_LANE_H

#include "base/core/buf.h"
#include "base/core/list.h"
#include "base/core/rng.h"
#include "base/core/sm.h"
#include "mirror/target/appender.h"
#include "mirror/target/pairing.h"
#include "proto/kafka/batch.h"

#include <assert.h>

/* ---- batches (lane_batch.c) ---- */

/* CANCELLED: dropped while its request was under way; the answer may come before the driver takes the request back. */
enum lane_batch_state {
    LANE_BATCH_OPEN,
    LANE_BATCH_SEALED,
    LANE_BATCH_SENT,
    LANE_BATCH_ANSWERED,
    LANE_BATCH_CANCELLED
};

/* Records [at, next segment's at) of a batch are source offsets src, src + 1, …. */
struct lane_segment {
    int64_t src;
    int32_t at;
};

/* What a Produce came to. */
struct lane_answer {
    int status; /* 0, or -E_… with `sent` */
    bool sent;
    int16_t error; /* of the partition */
    int64_t base_offset, append_time_ms;
    const char *text; /* the broker's or the client's words, may be NULL */
};

struct lane_batch {
    struct list link;
    enum lane_batch_state state;
    struct buf bytes;
    struct batch_builder builder; /* of one that is made here; those that pass as they are have none */
    struct { /* of one that stays where the source's answer put it: `bytes` is empty then */
        uint8_t *p;
        size_t n;
        const struct port_memory *memory; /* NULL: it is in `bytes` */
        void *of;
    } lent;
    int codec;
    int64_t number; /* of its first record */
    int32_t count;
    int64_t timestamp_max, src_first, src_last;
    struct lane_segment *segments;
    size_t segments_n, segments_cap;
    size_t counted; /* bytes taken from the budget */
    struct lane_answer answer;
    char words[128];   /* of the answer */
    bool acked;        /* perhaps out of turn: an earlier one is still in doubt */
    bool may_be_there; /* was sent, and not refused for certain */
    bool in_doubt;     /* an earlier attempt may have been appended */
    bool verified;     /* read back */
    void *driver;      /* the call that carries it */
};

static inline struct slice lane_batch_bytes(const struct lane_batch *b)
{
    assert(!b->lent.memory || b->bytes.n == 0);
    return b->lent.memory ? slice_of(b->lent.p, b->lent.n) : slice_of(b->bytes.p, b->bytes.n);
}

/* Told once when there is room again after there was none. */
struct budget_waiter {
    struct list link;
    void (*room)(void *arg);
    void *arg;
};

struct appender_budget {
    size_t limit_bytes, used_bytes;
    size_t usual_bytes; /* what may be used now, see appender_budget_pace */
    size_t acked_bytes; /* since appender_budget_pace */
    bool was_full;      /* the same */
    struct list waiters;
    struct list spare;  /* batches with their buffers */
    size_t spare_bytes; /* at most a quarter of the limit */
    size_t spare_least; /* since appender_budget_rest */
};

struct lane_batch *lane_batch_take(struct appender_budget *budget);
void lane_batch_give(struct appender_budget *budget, struct lane_batch *b);
static inline bool budget_room(const struct appender_budget *b)
{
    return b->used_bytes < b->usual_bytes;
}

/* ---- the lane ---- */

enum lane_state {
    LANE_SURVEYING,
    LANE_ANCHORING,
    LANE_PAIRING,
    LANE_READY,
    LANE_APPENDING,
    LANE_HALTED,
};

/* What a survey is for. */
enum lane_survey { LANE_SURVEY_START, LANE_SURVEY_RESOLVE, LANE_SURVEY_SETTLE };

enum lane_effect_kind {
    LANE_NOTHING,
    LANE_PRODUCE,   /* `batch` → lane_produced */
    LANE_CANCEL,    /* `batch` is the driver's now: lane_batch_give when its call is gone */
    LANE_OFFSETS,   /* → lane_offsets */
    LANE_EPOCH_END, /* of leader epoch `epoch` → lane_epoch_end */
    LANE_PRODUCERS, /* → lane_producers */
    LANE_READ,      /* some batches from `from` on → lane_read; `to` is where interest ends */
    LANE_REFRESH,   /* ask for metadata */
    LANE_RUNS,      /* `runs` */
    LANE_NOTE,      /* `note` */
    LANE_CHANGED,   /* state, reason or text */
    LANE_WAS_SETTLED,
};

struct lane_effect {
    enum lane_effect_kind kind;
    struct lane_batch *batch;
    uint32_t ticket;
    int32_t epoch;
    int64_t from, to;
    const struct appender_run *runs;
    size_t runs_n;
    struct appender_note note;
};

struct lane_config {
    int64_t producer_id;
    int16_t producer_epoch;
    int codec, codec_level;
    size_t batch_max_bytes, whole_min_bytes;
    int32_t partition;
    bool fresh_needs_empty;
    bool (*kin)(void *arg, int64_t producer_id); /* as in appender_options */
    void *kin_arg;
    const struct appender_guard *guard;
    struct appender_budget *budget;
    uint64_t seed;
};

#define LANE_NOTES_MAX       16
#define LANE_PAIR_BACK       100000 /* source offsets without a record of ours that pairing goes back over */
#define LANE_GAPS_MAX        8      /* between ours, still to be read; beyond that they are only counted */
#define LANE_EAGER_BYTES     ((size_t)64 * 1024) /* so much is sent at once, less waits for the window to empty */
#define LANE_SEALED_MAX      8 /* whole batches that wait, then no more records are wanted */
#define LANE_VERIFIED        5 /* first batches of a run that are read back */
#define LANE_STRIKES_MAX     8 /* answers 45 without any progress between them */
#define LANE_SOURCE_WAIT_US  (INT64_C(10) * 1000000) /* at the source's end before pairing gives up */
#define LANE_BACKOFF_MIN_US  (INT64_C(50) * 1000)
#define LANE_BACKOFF_MAX_US  (INT64_C(5) * 1000000)
#define LANE_BACKOFF_SLOW_US (INT64_C(30) * 1000000) /* where a person has to act: permissions, time */
#define LANE_CLOCKS_DIFFER_MS                                                                                \
    (INT64_C(24) * 3600 * 1000) /* a refused time younger than this may be ahead of the target's */
#define GUARD_MARGIN_MS  (INT64_C(20) * 60 * 1000)
#define GUARD_DEFAULT_MS (INT64_C(24) * 3600 * 1000)

struct lane_source_item {
    int64_t offset, missing;
    struct pairing_content content;
};

enum lane_step { STEP_OFFSETS, STEP_EPOCH, STEP_PROBE, STEP_PRODUCERS, STEP_READ };

struct lane {
    struct lane_config c;
    struct sm sm;
    struct rng rng;
    int64_t now_us, now_ms;
    void *owner; /* the driver's */

    /* What is known for certain. */
    struct appender_point at;
    bool fresh;             /* nothing of ours was ever here */
    bool append_time;       /* the target stamps records itself */
    int32_t leader_epoch;   /* of the target, by metadata; -1: not known */
    int64_t last_timestamp; /* of our last batch there, for rule 3 */
    size_t limit_bytes;     /* the target has refused a batch as too large: what it may take. 0: has not */

    /* What is under way. */
    struct list batches; /* in order of numbers: answered or sent, then sealed, then the open one */
    struct lane_batch *open;
    int64_t number_built; /* the next number to be given */
    unsigned inflight, sealed;
    bool first_acked, single, failing, must_resolve;
    unsigned verify_left, strikes, attempts;
    unsigned contended; /* how often somebody else's writing was found, less what has gone well since */
    int64_t taken_next; /* source records below are not taken (again) */
    int64_t
        acked_next; /* behind the last source record that was acknowledged; at.source_next may be further */
    int64_t pair_from;     /* where pairing begins at the source */
    struct list cancelled; /* for the driver */

    /* The survey. */
    enum lane_survey survey;
    enum lane_step step;
    bool asked;
    uint32_t ticket; /* of the survey's question */
    uint32_t tickets;
    int64_t log_start, end; /* as sampled */
    int32_t end_epoch;
    bool producers_known;                       /* DescribeProducers has answered */
    int64_t producers_next;                     /* number after the last it knows; -1: it does not know us */
    int64_t read_at, read_number, read_missing; /* next offset; next number expected; holes since ours */
    struct lane_batch *match;                   /* resolving: the next batch in memory to be found */
    bool reading;                               /* [read_at, end) is still to be read */

    /* Pairing. */
    struct pairing *pairing; /* NULL: none is under way */
    bool served;             /* the present reading began where this pairing needs it */
    struct lane_source_item *items;
    size_t items_n, items_at, items_cap;
    int64_t source_missing; /* of the whole reading up to at.source_next, -1: not there yet */
    int64_t source_end_us;  /* since when the source has no more, 0: it has */
    int64_t source_end_missing;

    /* Reading on the side: what others wrote between two of ours, and our own first batches back. */
    uint32_t side_ticket;
    bool side_asked, verifying;
    struct lane_gap {
        int64_t from, to; /* not read yet */
        struct appender_note seen;
    } gaps[LANE_GAPS_MAX];
    size_t gaps_n;
    int64_t told_to;     /* others' records up to there were told of by a survey that has read them */
    int64_t verify_next; /* next target offset to be compared */
    struct record_walk verify_walk; /* over the batch in memory */
    struct buf verify_payload;
    struct appender_note stranger; /* of the survey's reading */

    /* For the driver. */
    int64_t retry_at_us; /* nothing is tried before */
    enum appender_reason reason;
    char text[256];
    bool changed, refresh, settled;
    struct appender_run *runs;
    size_t runs_n, runs_cap;
    struct appender_note *notes;
    size_t notes_n, notes_cap;
    struct appender_counts counts;
};

int lane_init(struct lane *l, const struct lane_config *c, const struct appender_point *at, int64_t now_us,
              int64_t now_ms);
void lane_fini(struct lane *l);

/* The next thing to do, LANE_NOTHING when all is said. Runs and notes are valid until the next call. */
struct lane_effect lane_effect(struct lane *l);
/* The runs that no effect has told yet; false: none. They are the lane's until it takes or hears something. */
bool lane_take_runs(struct lane *l, struct lane_effect *e);
/* When lane_time is to be called; INT64_MAX: no need. */
int64_t lane_due(const struct lane *l);
void lane_time(struct lane *l, int64_t now_us, int64_t now_ms);

/* The source, while pairing or appending. `missing`: source offsets without a record since the reading began. What
 * the lane has already it passes over. `codec`: of the batch that it goes into. */
void lane_take(struct lane *l, const struct port_record *r, int64_t missing, int codec);
/* All below `fed` has been given. */
void lane_covered(struct lane *l, int64_t fed);
/* The reading goes from `from` to `to` without a record of any lane between; `missing` up to `from`. */
void lane_passes(struct lane *l, int64_t from, int64_t to, int64_t missing);
void lane_source_end(struct lane *l, int64_t missing);
/* A new reading begins. */
void lane_reading(struct lane *l);
/* Ready → appending. */
void lane_start(struct lane *l);
void lane_anchored(struct lane *l);
void lane_settle(struct lane *l);
bool lane_wants(const struct lane *l);
bool lane_idle(const struct lane *l);
/* Everything of the source below is at the target, when all below `fed` has been given. */
int64_t lane_source_next(const struct lane *l, int64_t fed);

/* The target. */
void lane_leader(struct lane *l, int32_t leader, int32_t epoch);
void lane_gone(struct lane *l, enum appender_reason why, const char *text);
void lane_produced(struct lane *l, struct lane_batch *b, const struct lane_answer *a);

struct lane_trouble {
    int status;       /* -E_…, or 0 */
    int16_t error;    /* Kafka's, or 0 */
    const char *text; /* may be NULL */
};
void lane_offsets(struct lane *l, uint32_t ticket, const struct lane_trouble *t, int64_t log_start,
                  int64_t end, int32_t end_epoch);
void lane_epoch_end(struct lane *l, uint32_t ticket, const struct lane_trouble *t, int64_t end);
/* `known`: it has our producer id. */
void lane_producers(struct lane *l, uint32_t ticket, const struct lane_trouble *t, bool known, int32_t epoch,
                    int32_t last_sequence, int64_t last_timestamp);
/* `batches`: whole ones from `from` (or the batch around it) on; none: there is nothing up to `next`. */
void lane_read(struct lane *l, uint32_t ticket, const struct lane_trouble *t, struct slice batches,
               int64_t next, int64_t log_start);

/* ---- shared by the lane's files ---- */

static inline enum lane_state lane_state(const struct lane *l)
{
    return (enum lane_state)sm_state(&l->sm);
}

void lane_move(struct lane *l, enum lane_state s);
void lane_halt(struct lane *l, enum appender_reason why, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Tries again later: backoff by l->attempts, at most `max_us`. */
void lane_wait(struct lane *l, enum appender_reason why, int64_t max_us, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void lane_healed(struct lane *l);
void lane_note(struct lane *l, const struct appender_note *n);
bool lane_add_run(struct lane *l, int64_t src, int64_t dst, int64_t count);
int64_t lane_unwrap(const struct lane *l, int32_t sequence);
int32_t lane_sequence(int64_t number);
bool lane_fresh_enough(const struct lane *l, int64_t timestamp_ms);
/* Drops all batches; their requests are cancelled by the driver. */
void lane_drop_batches(struct lane *l);

/* lane_survey.c */
void lane_survey_begin(struct lane *l, enum lane_survey why);
/* From the beginning, by content: what is in memory is dropped. */
void lane_restart(struct lane *l, const char *why);
struct lane_effect lane_survey_effect(struct lane *l);

/* Says why a question failed and when it is asked again. */
void lane_trouble(struct lane *l, const char *what, const struct lane_trouble *t);

/* lane_read.c: the survey's reading. */
void lane_read_begin(struct lane *l);
void lane_read_chunk(struct lane *l, const struct lane_trouble *t, struct slice batches, int64_t next);
void lane_read_end(struct lane *l);
void lane_probe(struct lane *l, const struct lane_trouble *t, struct slice batches);
enum lane_whose { LANE_OTHERS, LANE_OURS, LANE_OURS_NEWER };
enum lane_whose lane_whose(const struct lane *l, const struct batch_header *h);
int64_t lane_covers(const struct batch_header *h);

/* lane_pair.c */
int64_t lane_pair_from(
    const struct lane *l); /* what may be there in our name may be of offsets that hold no record now */
bool lane_pair_begin(struct lane *l);
/* The records of one batch of ours, from `read_number` on. False: the window is full, again later. */
bool lane_pair_batch(struct lane *l, const struct batch_header *h, struct slice batch);
bool lane_pair_absent(struct lane *l, int64_t n);
void lane_pair_feed(struct lane *l);
void lane_pair_reset(struct lane *l);
bool lane_pair_wants(const struct lane *l);

/* lane_window.c */
struct lane_effect lane_window_effect(struct lane *l);
void lane_ack(struct lane *l, struct lane_batch *b, int64_t base_offset);
/* Acknowledges in order what can be; when nothing is in flight any more, decides about the rest. */
void lane_acks(struct lane *l);
/* Everything that is not acknowledged is to be sent again. */
void lane_unsend(struct lane *l);
unsigned lane_window(const struct lane *l);
struct lane_batch *lane_head(const struct lane *l);

/* lane_split.c */
void lane_split(struct lane *l, struct lane_batch *b);

/* lane_whole.c: a batch as it lies in the source's log. */
/* Whether it may pass as it is, now; else its records go in one by one. */
bool lane_whole_may_pass(const struct lane *l, const struct batch_header *h);
/* Only what may pass. What the lane has already it passes over. */
void lane_take_whole(struct lane *l, const struct batch_header *h, const struct port_batch *whole);
/* The codec for its records when they are packed anew. */
int lane_whole_codec(const struct lane *l, const struct batch_header *h);

/* lane.c: what is taken now is kept in memory, to be sent. */
bool lane_keeps(const struct lane *l);
void lane_numbered(struct lane *l, int64_t n); /* so many more numbers have been given */
int lane_seal_open(struct lane *l);

/* lane_batch.c */
int lane_batch_begin(struct lane *l, struct lane_batch *b, int64_t number, int codec);
/* In the place of begin, add and seal: a batch without gaps, under our name. */
int lane_batch_pass(struct lane *l, struct lane_batch *b, int64_t number, const struct batch_header *h,
                    const struct port_batch *whole);
int lane_batch_add(struct lane *l, struct lane_batch *b, const struct record_new *r, int64_t src);
int lane_batch_seal(struct lane *l, struct lane_batch *b);
/* The source offset of the batch's record `at`. */
int64_t lane_batch_src(const struct lane_batch *b, int32_t at);

/* lane_side.c */
struct lane_effect lane_side_effect(struct lane *l);
void lane_side_between(struct lane *l, int64_t from, int64_t to);
void lane_side_verify(struct lane *l, struct lane_batch *b);
void lane_side_read(struct lane *l, const struct lane_trouble *t, struct slice batches, int64_t next);
void lane_side_reset(struct lane *l);
void lane_side_give_up(struct lane *l);
/* Another's batch: counted in `seen`, which lane_stranger_end tells. */
void lane_stranger(struct lane *l, const struct batch_header *h, struct appender_note *seen);
void lane_stranger_end(struct lane *l, struct appender_note *seen);

#endif
