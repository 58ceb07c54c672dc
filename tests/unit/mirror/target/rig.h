/* A source, one or two mirrors' lane groups, a network and modelled target partitions, in virtual time.
 * size: one world; its parts know each other. */
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
    bool hold_anchor;     /* its saving does not end */
    bool fresh_needs_empty;
    bool whole; /* the source gives batches as they lie in its log, not records */
    size_t whole_min;
    uint64_t passed, unpacked;
    uint32_t lose_answers; /* per million: applied, the answer never comes, the connection breaks */
    int max_inflight_seen;
    int sends_before_ack;
};

static inline int64_t wall(const struct rig *r)
{
    return INT64_C(1700000000000) + r->now / 1000;
}

static inline int route(const struct rig *r, const struct src_record *s)
{
    uint32_t h = 2166136261u;
    for (const char *k = s->key; *k; k++)
        h = (h ^ (uint8_t)*k) * 16777619u;
    return (int)(h % (uint32_t)r->lanes);
}

static inline void source_add(struct rig *r, const char *key, int64_t timestamp)
{
    struct source *s = &r->s;
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 256;
        s->v = realloc(s->v, s->cap * sizeof *s->v);
    }
    struct src_record *x = &s->v[s->n++];
    *x = (struct src_record){.offset = s->end++, .timestamp = timestamp};
    snprintf(x->key, sizeof x->key, "%s", key);
    snprintf(x->value, sizeof x->value, "v%lld", (long long)x->offset);
}

static inline void source_grow(struct rig *r, int n)
{
    char key[16];
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof key, "k%d", (int)rng_below(&r->rng, 50));
        source_add(r, key, wall(r) - rng_range(&r->rng, 0, 1000));
    }
}

/* Control records, aborted ones: offsets without records. */
static inline void source_gap(struct rig *r, int n)
{
    r->s.end += n;
}

/* ---- mirrors ---- */

static inline void rig_init(struct rig *r, uint64_t seed, int lanes, int mirrors)
{
    memset(r, 0, sizeof *r);
    rng_init(&r->rng, seed);
    r->seed = seed;
    r->now = 1000 * SEC;
    r->lanes = lanes;
    r->mirrors = mirrors;
    r->batch_max = 2000;
    r->latency = 2 * MS;
    r->feed_max = 40;
    r->runs = malloc(RIG_RUNS * sizeof *r->runs);
    r->s.start = r->s.end = 100;
    for (int i = 0; i < lanes; i++) {
        target_init(&r->t[i], seed * 7 + (uint64_t)i);
        r->t[i].now_ms = wall(r);
    }
    for (int i = 0; i < mirrors; i++)
        r->m[i].budget = appender_budget_create(64 << 20);
}

static inline void rig_start(struct rig *r, int mi)
{
    struct mirror *m = &r->m[mi];
    struct appender_point points[RIG_LANES];
    cr_assert_not(m->up);
    for (int q = 0; q < r->lanes; q++) {
        points[q] = m->has_saved ? m->points[q] : (struct appender_point){.partition = q};
        m->leader_told[q] = -1;
        m->apply_due[q] = m->answer_due[q] = 0;
    }
    struct appender_options o = {.producer_id = RIG_PID,
                                 .codec = r->codec,
                                 .codec_level = CODEC_LEVEL_DEFAULT,
                                 .batch_max_bytes = r->batch_max,
                                 .whole_min_bytes = r->whole_min,
                                 .budget = m->budget,
                                 .guard = &r->guard,
                                 .points = points,
                                 .points_n = (size_t)r->lanes,
                                 .source_next = m->has_saved ? m->saved.source_next : r->s.start,
                                 .source_epoch = 0,
                                 .fresh_needs_empty = r->fresh_needs_empty};
    cr_assert_eq(group_init(&m->g, &o, rng_next(&r->rng), r->now, wall(r)), 0);
    m->up = true;
    m->reading = false;
    m->generation++;
}

static inline struct event *rig_event(struct rig *r, struct event e)
{
    for (int i = 0; i < r->ev_n; i++) {
        if (r->ev[i].kind == EV_FREE) {
            r->ev[i] = e;
            r->ev[i].seq = r->seq++;
            return &r->ev[i];
        }
    }
    cr_assert_lt(r->ev_n, RIG_EVENTS);
    r->ev[r->ev_n] = e;
    r->ev[r->ev_n].seq = r->seq++;
    return &r->ev[r->ev_n++];
}

static inline int64_t delay(struct rig *r)
{
    return 1 + rng_exponential(&r->rng, r->latency);
}

/* The connections of one mirror are gone. What has not been applied is lost, or comes late; all in flight fails. */
static inline void rig_break(struct rig *r, int mi, bool tell)
{
    bool lost[RIG_LANES] = {0};
    struct mirror *m = &r->m[mi];
    for (int pass = 0; pass < 1; pass++) {
        for (;;) { /* in the order they were sent */
            struct event *e = NULL;
            for (int i = 0; i < r->ev_n; i++) {
                struct event *x = &r->ev[i];
                if (x->mirror == mi && x->generation == m->generation && x->kind != EV_FREE &&
                    (!e || x->seq < e->seq))
                    e = x;
            }
            if (!e)
                break;
            e->generation = -1;
            if (e->kind == EV_ASK) {
                if (tell)
                    rig_event(r, (struct event){.kind = EV_ANSWER,
                                                .due = r->now + delay(r),
                                                .mirror = mi,
                                                .q = e->q,
                                                .generation = m->generation + 1,
                                                .ask = e->ask,
                                                .answer = {.status = -E_CLOSED}});
                e->kind = EV_FREE;
                continue;
            }
            if (e->kind == EV_ANSWER && !e->batch) {
                if (tell)
                    e->generation = m->generation + 1; /* the bad news is on its way already */
                else
                    e->kind = EV_FREE;
                continue;
            }
            struct lane_batch *b = e->batch;
            e->batch = NULL;
            if (b && tell) {
                int64_t due = r->now + delay(r);
                due = due > m->answer_due[e->q] ? due : m->answer_due[e->q];
                m->answer_due[e->q] = due;
                rig_event(r, (struct event){.kind = EV_ANSWER,
                                            .due = due,
                                            .mirror = mi,
                                            .q = e->q,
                                            .generation = m->generation + 1,
                                            .batch = b,
                                            .answer = {.status = -E_CLOSED, .sent = true}});
            }
            if (e->kind == EV_APPLY) {
                lost[e->q] = lost[e->q] || r->no_late || rng_chance(&r->rng, 400000);
                if (lost[e->q]) {
                    free(e->bytes);
                    e->kind = EV_FREE;
                } else {
                    int64_t late = r->now + rng_range(&r->rng, 0, 3 * SEC);
                    m->apply_due[e->q] = late > m->apply_due[e->q] ? late : m->apply_due[e->q];
                    e->due = m->apply_due[e->q];
                }
            } else {
                e->kind = EV_FREE;
            }
        }
    }
    m->generation++;
    for (int q = 0; q < r->lanes; q++)
        m->apply_due[q] = 0;
}

static inline void rig_effects(struct rig *r, int mi);

static inline void rig_kill(struct rig *r, int mi)
{
    struct mirror *m = &r->m[mi];
    cr_assert(m->up);
    rig_effects(r, mi);
    rig_break(r, mi, false);
    group_fini(&m->g);
    m->up = false;
    cr_assert_eq(appender_budget_used(m->budget), 0);
}

static inline void rig_fini(struct rig *r)
{
    for (int i = 0; i < r->mirrors; i++) {
        if (r->m[i].up)
            rig_kill(r, i);
        appender_budget_destroy(r->m[i].budget);
    }
    for (int i = 0; i < r->ev_n; i++)
        if (r->ev[i].kind == EV_APPLY)
            free(r->ev[i].bytes);
    for (int i = 0; i < r->lanes; i++)
        target_fini(&r->t[i]);
    free(r->s.v);
    free(r->runs);
}

static inline void rig_keep(struct rig *r, int mi, const struct appender_progress *p)
{
    struct mirror *m = &r->m[mi];
    /* Rule 15: an older position does not replace a newer one. */
    if (m->has_saved && m->saved.source_next > p->source_next)
        return;
    for (int to = 0; to < r->mirrors; to++) {
        if (to != mi && !r->shared_progress)
            continue;
        r->m[to].saved = *p;
        memcpy(r->m[to].points, p->points, p->points_n * sizeof *p->points);
        r->m[to].has_saved = true;
    }
}

static inline void rig_save(struct rig *r, int mi)
{
    struct appender_progress p;
    struct mirror *m = &r->m[mi];
    group_progress(&m->g, &p);
    for (size_t i = 0; i < p.points_n; i++)
        if (!p.points[i].known)
            return;
    rig_keep(r, mi, &p);
    group_saved(&m->g);
}

/* ---- effects ---- */

static inline void send_produce(struct rig *r, int mi, int q, struct lane_batch *b)
{
    struct mirror *m = &r->m[mi];
    struct lane *l = group_lane(&m->g, q);
    if ((int)l->inflight > r->max_inflight_seen)
        r->max_inflight_seen = (int)l->inflight;
    if (!l->first_acked)
        r->sends_before_ack = (int)l->inflight > r->sends_before_ack ? (int)l->inflight : r->sends_before_ack;
    int64_t due = r->now + delay(r);
    due = due > m->apply_due[q] ? due : m->apply_due[q];
    m->apply_due[q] = due;
    uint8_t *bytes = malloc(b->bytes.n);
    memcpy(bytes, b->bytes.p, b->bytes.n);
    rig_event(r, (struct event){.kind = EV_APPLY,
                                .due = due,
                                .mirror = mi,
                                .q = q,
                                .generation = m->generation,
                                .batch = b,
                                .bytes = bytes,
                                .size = b->bytes.n});
}

static inline void forget_batch(struct rig *r, int mi, struct lane_batch *b)
{
    for (int i = 0; i < r->ev_n; i++)
        if (r->ev[i].kind != EV_FREE && r->ev[i].mirror == mi && r->ev[i].batch == b)
            r->ev[i].batch = NULL;
    lane_batch_give(r->m[mi].budget, b);
}

static inline void lane_effects(struct rig *r, int mi, struct lane *l, const struct lane_effect *e)
{
    struct mirror *m = &r->m[mi];
    int q = l->c.partition;
    switch (e->kind) {
    case LANE_PRODUCE: send_produce(r, mi, q, e->batch); break;
    case LANE_CANCEL: forget_batch(r, mi, e->batch); break;
    case LANE_OFFSETS:
    case LANE_EPOCH_END:
    case LANE_PRODUCERS:
    case LANE_READ:
        rig_event(r, (struct event){.kind = EV_ASK,
                                    .due = r->now + delay(r),
                                    .mirror = mi,
                                    .q = q,
                                    .generation = m->generation,
                                    .ask = *e});
        break;
    case LANE_RUNS:
        cr_assert_lt(r->runs_n + e->runs_n, RIG_RUNS);
        memcpy(r->runs + r->runs_n, e->runs, e->runs_n * sizeof *e->runs);
        r->runs_n += e->runs_n;
        break;
    case LANE_NOTE:
        m->notes[e->note.kind]++;
        m->noted[e->note.kind] += e->note.count;
        break;
    case LANE_REFRESH: m->leader_told[q] = -1; break;
    default: break;
    }
}

static inline size_t source_index(const struct rig *r, int64_t offset)
{
    size_t i = 0;
    while (i < r->s.n && r->s.v[i].offset < offset)
        i++;
    return i;
}

static inline void rig_effects(struct rig *r, int mi)
{
    struct mirror *m = &r->m[mi];
    struct appender_progress p;
    for (int guard = 0;; guard++) {
        cr_assert_lt(guard, 100000, "effects without end");
        struct group_effect e = group_effect(&m->g);
        if (e.kind == GROUP_NOTHING)
            return;
        switch (e.kind) {
        case GROUP_LANE: lane_effects(r, mi, e.lane, &e.effect); break;
        case GROUP_ANCHOR:
            m->anchors++;
            group_progress(&m->g, &p);
            rig_keep(r, mi, &p);
            if (!r->hold_anchor)
                group_anchored(&m->g);
            break;
        case GROUP_READ_FROM:
            m->reads++;
            m->read_at = e.from;
            m->cursor = source_index(r, e.from);
            m->reading = m->room = true;
            m->ended_told = false;
            group_reading(&m->g);
            break;
        case GROUP_STATE: m->states++; break;
        case GROUP_ROOM: m->room = true; break;
        case GROUP_DRAINED: m->drained++; break;
        case GROUP_SETTLED: m->settled++; break;
        default: break;
        }
    }
}

/* ---- what happens in time ---- */

static inline void answer_ask(struct rig *r, struct event *e)
{
    struct lane *l = group_lane(&r->m[e->mirror].g, e->q);
    struct target_model *t = &r->t[e->q];
    struct lane_trouble none = {0}, closed = {.status = -E_CLOSED}, version = {.status = -E_VERSION};
    struct lane_trouble *tr = e->answer.status ? &closed : &none;
    int32_t epoch = -1, last = -1;
    int64_t ts = -1;
    bool known;
    switch (e->ask.kind) {
    case LANE_OFFSETS: lane_offsets(l, e->ask.ticket, tr, t->log_start, t->visible, target_epoch(t)); break;
    case LANE_EPOCH_END: lane_epoch_end(l, e->ask.ticket, tr, target_epoch_end(t, e->ask.epoch)); break;
    case LANE_PRODUCERS:
        known = target_describe(t, RIG_PID, &epoch, &last, &ts);
        if (t->no_describe && !tr->status)
            tr = &version;
        lane_producers(l, e->ask.ticket, tr, known, epoch, last, ts);
        break;
    case LANE_READ: {
        struct buf out;
        int64_t from = e->ask.from, next = from;
        buf_init(&out, 64 << 20);
        if (from < t->log_start)
            next = t->log_start;
        else
            target_read(t, from, 3000, &out);
        lane_read(l, e->ask.ticket, tr, buf_slice(&out), next, t->log_start);
        buf_fini(&out);
        break;
    }
    default: break;
    }
}

static inline void happen(struct rig *r, struct event *e)
{
    struct mirror *m = &r->m[e->mirror];
    struct event was = *e;
    e->kind = EV_FREE;
    if (was.kind == EV_APPLY) {
        struct target_model *t = &r->t[was.q];
        struct lane_answer a = {.append_time_ms = -1, .base_offset = -1};
        t->now_ms = wall(r);
        a.error = target_produce(t, slice_of(was.bytes, was.size), &a.base_offset);
        if (t->append_time && a.error == KE_NONE)
            a.append_time_ms = t->now_ms;
        free(was.bytes);
        if (!was.batch || was.generation != m->generation)
            return;
        int64_t due = r->now + delay(r);
        due = due > m->answer_due[was.q] ? due : m->answer_due[was.q];
        m->answer_due[was.q] = due;
        was.kind = EV_ANSWER;
        was.due = due;
        was.answer = a;
        was.bytes = NULL;
        rig_event(r, was);
        if (rng_chance(&r->rng, r->lose_answers))
            rig_break(r, was.mirror, true);
        return;
    }
    if (!m->up || was.generation != m->generation)
        return;
    if (was.kind == EV_ASK) {
        answer_ask(r, &was);
    } else if (was.batch) {
        lane_produced(group_lane(&m->g, was.q), was.batch, &was.answer);
    } else if (was.ask.kind != LANE_NOTHING) {
        answer_ask(r, &was);
    }
    group_touched(&m->g);
}

/* Where batches begin at the source is a matter of chance, but does not change. */
static inline uint64_t batch_dice(const struct rig *r, int64_t offset)
{
    return ((uint64_t)offset * UINT64_C(0x9e3779b97f4a7c15) + r->seed) >> 33;
}

static inline bool batch_begins(const struct rig *r, int64_t offset)
{
    return offset <= 100 || batch_dice(r, offset) % 7 == 0;
}

/* The batch around the record at *cursor, which moves behind it; the offset behind it. */
static inline int64_t source_batch(const struct rig *r, size_t *cursor, struct buf *out)
{
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    size_t i = *cursor;
    while (i > 0 && !batch_begins(r, r->s.v[i].offset))
        i--;
    uint64_t dice = batch_dice(r, r->s.v[i].offset + 1000003);
    int64_t base = r->s.v[i].offset, last = base;
    o.codec = (enum codec)(dice % CODEC_COUNT);
    o.base_offset = base;
    o.leader_epoch = 0;
    o.producer_id = (int64_t)(dice % 1000) - 1;
    o.producer_epoch = 3;
    o.base_sequence = (int32_t)dice;
    o.attributes = dice % 3 == 0 ? BATCH_TRANSACTIONAL : 0;
    o.delete_horizon = dice % 5 == 0 ? r->s.v[i].timestamp + 7 : BATCH_NO_TIMESTAMP;
    batch_begin(&b, out, &o);
    for (; i < r->s.n && (r->s.v[i].offset == base || !batch_begins(r, r->s.v[i].offset)); i++) {
        const struct src_record *s = &r->s.v[i];
        const struct record_new n = {
            .timestamp = s->timestamp, .key = slice_str(s->key), .value = slice_str(s->value)};
        last = s->offset;
        if (!s->gone)
            cr_assert_eq(batch_add_at(&b, (int32_t)(last - base), &n), 0);
    }
    batch_last_offset_delta_set(&b, (int32_t)(last - base));
    cr_assert_eq(batch_close(&b, NULL), 0);
    *cursor = i;
    return last + 1;
}

/* Some batches; where the reading has come to, -1: there is nothing. */
static inline int64_t feed_batches(struct rig *r, struct mirror *m, int n)
{
    int64_t covered = -1;
    struct buf bytes;
    buf_init(&bytes, 1 << 24);
    for (; n > 0 && m->cursor < r->s.n; n--) {
        struct src_record *s = &r->s.v[m->cursor];
        if (s->gone || s->offset < m->read_at || s->offset < r->s.start) {
            m->cursor++;
            n++;
            continue;
        }
        int64_t next = s->offset;
        buf_clear(&bytes);
        covered = source_batch(r, &m->cursor, &bytes);
        size_t before = m->g.lanes[0].sealed;
        bool open = m->g.lanes[0].open != NULL;
        cr_assert_eq(group_take_batch(&m->g, 0, buf_slice(&bytes), &next), 0);
        cr_assert_leq(next, covered);
        bool whole = !open && m->g.lanes[0].sealed == before + 1 && !m->g.lanes[0].open;
        r->passed += whole;
        r->unpacked += !whole;
        m->ended_told = false;
    }
    buf_fini(&bytes);
    return covered;
}

static inline int64_t feed_records(struct rig *r, struct mirror *m, int n)
{
    int64_t covered = -1;
    for (; n > 0 && m->cursor < r->s.n; m->cursor++) {
        struct src_record *s = &r->s.v[m->cursor];
        if (s->gone || s->offset < m->read_at || s->offset < r->s.start)
            continue;
        struct port_record rec = {.offset = s->offset,
                                  .timestamp_ms = s->timestamp,
                                  .key = slice_str(s->key),
                                  .value = slice_str(s->value)};
        cr_assert_eq(group_take(&m->g, route(r, s), &rec), 0);
        covered = s->offset + 1;
        m->ended_told = false;
        n--;
    }
    return covered;
}

static inline void feed(struct rig *r, int mi)
{
    struct mirror *m = &r->m[mi];
    while (m->reading && m->room) {
        if (!(m->room = group_can_take(&m->g)))
            return;
        int n = (int)rng_range(&r->rng, 1, r->feed_max);
        /* Whole batches go where there is one lane. */
        bool whole = r->whole && r->lanes == 1;
        int64_t covered = whole ? feed_batches(r, m, n / 4 + 1) : feed_records(r, m, n);
        if (m->cursor == r->s.n)
            covered = r->s.end;
        if (covered > m->read_at) {
            m->read_at = covered;
            group_covered(&m->g, covered, 0);
        }
        rig_effects(r, mi);
        if (m->cursor == r->s.n) {
            if (!m->ended_told) {
                m->ended_told = true;
                group_source_end(&m->g, r->s.end);
                rig_effects(r, mi);
            }
            break;
        }
    }
}

static inline void tell_leaders(struct rig *r, int mi)
{
    struct mirror *m = &r->m[mi];
    for (int q = 0; q < r->lanes; q++) {
        if (m->leader_told[q] == target_epoch(&r->t[q]))
            continue;
        m->leader_told[q] = target_epoch(&r->t[q]);
        lane_leader(group_lane(&m->g, q), 1, target_epoch(&r->t[q]));
        group_touched(&m->g);
    }
}

static inline void rig_settle_now(struct rig *r)
{
    for (int mi = 0; mi < r->mirrors; mi++) {
        if (!r->m[mi].up)
            continue;
        group_time(&r->m[mi].g, r->now, wall(r));
        tell_leaders(r, mi);
        rig_effects(r, mi);
        feed(r, mi);
        rig_effects(r, mi);
    }
}

/* One event, or the end of `until`. False when that is reached. */
static inline bool rig_step(struct rig *r, int64_t until)
{
    struct event *next = NULL;
    int64_t due = until;
    rig_settle_now(r);
    for (int mi = 0; mi < r->mirrors; mi++)
        if (r->m[mi].up && group_due(&r->m[mi].g) < due)
            due = group_due(&r->m[mi].g);
    for (int i = 0; i < r->ev_n; i++) {
        struct event *e = &r->ev[i];
        if (e->kind != EV_FREE && (e->due < due || (next && e->due == due && e->seq < next->seq))) {
            next = e;
            due = e->due;
        }
    }
    r->now = due > r->now ? due : r->now;
    for (int q = 0; q < r->lanes; q++)
        r->t[q].now_ms = wall(r);
    for (int mi = 0; mi < r->mirrors; mi++)
        if (r->m[mi].up)
            group_time(&r->m[mi].g, r->now, wall(r));
    if (next)
        happen(r, next);
    return next || due < until;
}

static inline void rig_run(struct rig *r, int64_t us)
{
    int64_t until = r->now + us;
    for (int i = 0; r->now < until && rig_step(r, until); i++)
        cr_assert_lt(i, 2000000, "it never comes to rest");
    rig_settle_now(r);
}

static inline bool rig_quiet(const struct rig *r)
{
    for (int mi = 0; mi < r->mirrors; mi++) {
        const struct mirror *m = &r->m[mi];
        if (!m->up || m->read_at < r->s.end)
            return false;
        for (size_t i = 0; i < m->g.n; i++)
            if (lane_state(&m->g.lanes[i]) != LANE_APPENDING || !lane_idle(&m->g.lanes[i]))
                return false;
    }
    return true;
}

static inline const struct appender_status *rig_status(const struct rig *r, int mi)
{
    return &r->m[mi].g.status;
}

static inline bool rig_finish(struct rig *r, int64_t within)
{
    int64_t until = r->now + within;
    while (r->now < until && !rig_quiet(r)) {
        for (int mi = 0; mi < r->mirrors; mi++)
            if (r->m[mi].up && rig_status(r, mi)->state == APPENDER_HALTED)
                return false;
        if (!rig_step(r, until))
            break;
    }
    return rig_quiet(r);
}

static inline void rig_dump(const struct rig *r)
{
    fprintf(stderr, "now %lld source %lld..%lld\n", (long long)r->now, (long long)r->s.start,
            (long long)r->s.end);
    for (int mi = 0; mi < r->mirrors; mi++) {
        const struct mirror *m = &r->m[mi];
        if (!m->up)
            continue;
        fprintf(stderr,
                "mirror %d: read_at %lld cursor %zu/%zu awaiting %d fed %lld expected %lld missing %lld "
                "can_take %d\n",
                mi, (long long)m->read_at, m->cursor, r->s.n, m->g.awaiting, (long long)m->g.fed,
                (long long)m->g.expected, (long long)m->g.missing, m->room);
        for (size_t i = 0; i < m->g.n; i++) {
            const struct lane *l = &m->g.lanes[i];
            fprintf(stderr,
                    "  q%d %s survey %d step %d asked %d reading %d inflight %u sealed %u open %p failing %d "
                    "resolve %d "
                    "verify %d gaps %zu side %d strikes %u n %lld T %lld src %lld taken %lld retry %lld "
                    "items %zu %s\n",
                    l->c.partition, sm_name(&l->sm), l->survey, l->step, l->asked, l->reading, l->inflight,
                    l->sealed, (void *)l->open, l->failing, l->must_resolve, l->verifying, l->gaps_n,
                    l->side_asked, l->strikes, (long long)l->at.number_next, (long long)l->at.end_offset,
                    (long long)l->at.source_next, (long long)l->taken_next, (long long)l->retry_at_us,
                    l->items_n, l->text);
        }
    }
}

/* ---- the verdict ---- */

struct verdict {
    int missing, doubled, disordered, wrong_runs, wrong_times, strangers;
    int64_t first_bad;
};

static inline int64_t id_of(struct slice value)
{
    char text[32];
    if (value.n < 2 || value.n >= sizeof text || value.p[0] != 'v')
        return -1;
    slice_cstr(value, text, sizeof text);
    return strtoll(text + 1, NULL, 10);
}

static inline void bad(struct verdict *v, int *count, int64_t id)
{
    ++*count;
    if (v->first_bad < 0)
        v->first_bad = id;
}

/* Every source record that is still there exactly once, in order; runs point to what they say. */
static inline struct verdict rig_check(struct rig *r)
{
    struct verdict v = {.first_bad = -1};
    size_t span = (size_t)(r->s.end + 1);
    uint8_t *seen = calloc(span, 1);
    int64_t *at = malloc(span * sizeof *at), *times = malloc(span * sizeof *times);
    for (size_t i = 0; i < r->s.n; i++)
        times[r->s.v[i].offset] = r->s.v[i].timestamp;
    for (int q = 0; q < r->lanes; q++) {
        int64_t last = -1;
        for (size_t i = 0; i < r->t[q].log_n; i++) {
            struct target_batch *b = &r->t[q].log[i];
            struct slice payload;
            struct buf scratch;
            struct record_walk w;
            struct record rec;
            struct codec_limits limits = codec_limits_for(CODEC_BYTES_MAX_DEFAULT);
            buf_init(&scratch, 64 << 20);
            cr_assert_eq(batch_payload(&b->h, slice_of(b->bytes, b->size), &limits, &scratch, &payload, NULL),
                         0);
            record_walk_init(&w, &b->h, payload);
            while (record_next(&w, &rec) == 1) {
                int64_t id = id_of(rec.value);
                if (id < 0) {
                    v.strangers++;
                    continue;
                }
                if (seen[id]++)
                    bad(&v, &v.doubled, id);
                else
                    at[id] = rec.offset;
                if (!r->t[q].append_time && rec.timestamp != times[id])
                    bad(&v, &v.wrong_times, id);
                if (id < last)
                    bad(&v, &v.disordered, id);
                last = id > last ? id : last;
            }
            buf_fini(&scratch);
        }
    }
    for (size_t i = 0; i < r->s.n; i++)
        if (!r->s.v[i].gone && r->s.v[i].offset >= r->s.start && !seen[r->s.v[i].offset])
            bad(&v, &v.missing, r->s.v[i].offset);
    for (size_t i = 0; i < r->runs_n; i++) {
        for (int64_t k = 0; k < r->runs[i].count; k++) {
            int64_t src = r->runs[i].src_start + k, dst = r->runs[i].dst_start + k;
            if (seen[src] && at[src] != dst) {
                if (getenv("SUNDOG_SEED"))
                    fprintf(stderr, "run %zu of q%d: %lld is said to be at %lld, is at %lld\n", i,
                            r->runs[i].partition, (long long)src, (long long)dst, (long long)at[src]);
                bad(&v, &v.wrong_runs, src);
            }
        }
    }
    free(seen);
    free(at);
    free(times);
    return v;
}

static inline void rig_assert_good(struct rig *r, uint64_t seed)
{
    struct verdict v = rig_check(r);
    cr_assert(v.missing + v.doubled + v.disordered + v.wrong_runs + v.wrong_times == 0,
              "seed %llu: %d missing, %d doubled, %d out of order, %d wrong runs, %d wrong times, first at "
              "source offset %lld",
              (unsigned long long)seed, v.missing, v.doubled, v.disordered, v.wrong_runs, v.wrong_times,
              (long long)v.first_bad);
}

#endif
