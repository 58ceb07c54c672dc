/* A source, one or two mirrors' lane groups, a network and modelled target partitions, in virtual time. One thread. */
#ifndef SUNDOG_TESTS_UNIT_TARGET_RIG_H
#define SUNDOG_TESTS_UNIT_TARGET_RIG_H

#include "mirror/target/group.h"
#include "tests/support/target_model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define MS          INT64_C(1000)
#define SEC         INT64_C(1000000)

#define RIG_PID     4711
#define RIG_LANES   4
#define RIG_MIRRORS 2
#define RIG_EVENTS  4096
#define RIG_RUNS    200000

/* ---- the source ---- */

struct src_record {
    int64_t offset, timestamp;
    char key[16], value[32];
    bool gone;
};

struct source {
    struct src_record *v;
    size_t n, cap;
    int64_t start, end;
};

/* ---- the rig ---- */

enum event_kind { EV_APPLY, EV_ANSWER, EV_ASK, EV_FREE };

struct event {
    enum event_kind kind;
    int64_t due;
    int mirror, q, generation;
    struct lane_batch *batch; /* NULL: nobody waits for the answer */
    uint8_t *bytes;
    size_t size;
    struct lane_answer answer;
    struct lane_effect ask;
    uint64_t seq;
};

struct mirror {
    bool up;
    int generation;
    struct lane_group g;
    struct appender_budget *budget;
    struct appender_progress saved; /* with points of its own */
    struct appender_point points[RIG_LANES];
    bool has_saved;
    size_t cursor; /* index of the next source record */
    int64_t read_at;
    bool reading, ended_told;
    bool room; /* taking was never refused, or GROUP_ROOM came since */
    int64_t leader_told[RIG_LANES];
    int64_t apply_due[RIG_LANES], answer_due[RIG_LANES];
    int anchors, reads, notes[8], states, drained, settled;
    int64_t noted[8];
};

struct rig {
    struct rng rng;
    uint64_t seed;
    int64_t now; /* us */
    struct source s;
    struct target_model t[RIG_LANES];
    int lanes, mirrors;
    struct mirror m[RIG_MIRRORS];
    struct appender_guard guard;
    struct event ev[RIG_EVENTS];
    int ev_n;
    uint64_t seq;
    struct appender_run *runs;
    size_t runs_n;
    /* knobs */
    size_t batch_max;
    int codec, feed_max;
    int64_t latency;      /* mean of each way */
    bool no_late;         /* what is cut off is lost, never late */
    bool shared_progress; /* two mirrors and one progress topic */
    bool never_saves;
    bool hold_anchor; /* its saving does not end */
    bool fresh_needs_empty;
    bool whole; /* the source gives batches as they lie in its log, not records */
    size_t whole_min;
    uint64_t passed, unpacked;
    uint32_t lose_answers;  /* per million: applied, the answer never comes, the connection breaks */
    bool save_when_fed;     /* before the effects of what was fed are carried out */
    size_t runs_when_saved; /* told when a save moved the position last */
    int max_inflight_seen;
    int sends_before_ack;
};

struct verdict {
    int missing, doubled, disordered, wrong_runs, wrong_times, strangers;
    int64_t first_bad;
};

int64_t wall(const struct rig *r);
void source_add(struct rig *r, const char *key, int64_t timestamp);
void source_grow(struct rig *r, int n);
void source_gap(struct rig *r, int n);
void rig_init(struct rig *r, uint64_t seed, int lanes, int mirrors);
void rig_start(struct rig *r, int mi);
void rig_break(struct rig *r, int mi, bool tell);
void rig_kill(struct rig *r, int mi);
void rig_fini(struct rig *r);
/* As appender_progress: with the runs it stands on. */
void rig_progress(struct rig *r, int mi, struct appender_progress *out);
void rig_save(struct rig *r, int mi);
void rig_effects(struct rig *r, int mi);
void rig_settle_now(struct rig *r);
bool rig_step(struct rig *r, int64_t until);
void rig_run(struct rig *r, int64_t us);
bool rig_quiet(const struct rig *r);
const struct appender_status *rig_status(const struct rig *r, int mi);
bool rig_finish(struct rig *r, int64_t within);
void rig_dump(const struct rig *r);
struct verdict rig_check(struct rig *r);
void rig_assert_good(struct rig *r, uint64_t seed);

/* Between the rig's own files. */
int route(const struct rig *r, const struct src_record *s);
struct event *rig_event(struct rig *r, struct event e);
int64_t delay(struct rig *r);

#endif
