/* The rig's source and mirrors, and what their lanes ask to be done. */
#include "tests/unit/mirror/target/rig.h"

int64_t wall(const struct rig *r)
{
    return INT64_C(1700000000000) + r->now / 1000;
}

int route(const struct rig *r, const struct src_record *s)
{
    uint32_t h = 2166136261u;
    for (const char *k = s->key; *k; k++)
        h = (h ^ (uint8_t)*k) * 16777619u;
    return (int)(h % (uint32_t)r->lanes);
}

void source_add(struct rig *r, const char *key, int64_t timestamp)
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

void source_grow(struct rig *r, int n)
{
    char key[16];
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof key, "k%d", (int)rng_below(&r->rng, 50));
        source_add(r, key, wall(r) - rng_range(&r->rng, 0, 1000));
    }
}

/* Control records, aborted ones: offsets without records. */
void source_gap(struct rig *r, int n)
{
    r->s.end += n;
}

/* ---- mirrors ---- */

void rig_init(struct rig *r, uint64_t seed, int lanes, int mirrors)
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

void rig_start(struct rig *r, int mi)
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

struct event *rig_event(struct rig *r, struct event e)
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

int64_t delay(struct rig *r)
{
    return 1 + rng_exponential(&r->rng, r->latency);
}

/* The connections of one mirror are gone. What has not been applied is lost, or comes late; all in flight fails. */
void rig_break(struct rig *r, int mi, bool tell)
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

void rig_kill(struct rig *r, int mi)
{
    struct mirror *m = &r->m[mi];
    cr_assert(m->up);
    rig_effects(r, mi);
    rig_break(r, mi, false);
    group_fini(&m->g);
    m->up = false;
    cr_assert_eq(appender_budget_used(m->budget), 0);
}

void rig_fini(struct rig *r)
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

static void rig_keep(struct rig *r, int mi, const struct appender_progress *p)
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

static void keep_runs(struct rig *r, const struct lane_effect *e)
{
    cr_assert_lt(r->runs_n + e->runs_n, RIG_RUNS);
    memcpy(r->runs + r->runs_n, e->runs, e->runs_n * sizeof *e->runs);
    r->runs_n += e->runs_n;
}

void rig_progress(struct rig *r, int mi, struct appender_progress *out)
{
    struct lane_effect e;
    while (group_take_runs(&r->m[mi].g, &e))
        keep_runs(r, &e);
    group_progress(&r->m[mi].g, out);
}

void rig_save(struct rig *r, int mi)
{
    struct appender_progress p;
    struct mirror *m = &r->m[mi];
    rig_progress(r, mi, &p);
    for (size_t i = 0; i < p.points_n; i++)
        if (!p.points[i].known)
            return;
    if (p.source_next != m->saved.source_next)
        r->runs_when_saved = r->runs_n;
    rig_keep(r, mi, &p);
    group_saved(&m->g);
}

/* ---- effects ---- */

static void send_produce(struct rig *r, int mi, int q, struct lane_batch *b)
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
    uint8_t *bytes = malloc(lane_batch_bytes(b).n);
    memcpy(bytes, lane_batch_bytes(b).p, lane_batch_bytes(b).n);
    rig_event(r, (struct event){.kind = EV_APPLY,
                                .due = due,
                                .mirror = mi,
                                .q = q,
                                .generation = m->generation,
                                .batch = b,
                                .bytes = bytes,
                                .size = lane_batch_bytes(b).n});
}

static void forget_batch(struct rig *r, int mi, struct lane_batch *b)
{
    for (int i = 0; i < r->ev_n; i++)
        if (r->ev[i].kind != EV_FREE && r->ev[i].mirror == mi && r->ev[i].batch == b)
            r->ev[i].batch = NULL;
    lane_batch_give(r->m[mi].budget, b);
}

static void lane_effects(struct rig *r, int mi, struct lane *l, const struct lane_effect *e)
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
    case LANE_RUNS: keep_runs(r, e); break;
    case LANE_NOTE:
        m->notes[e->note.kind]++;
        m->noted[e->note.kind] += e->note.count;
        break;
    case LANE_REFRESH: m->leader_told[q] = -1; break;
    default: break;
    }
}

static size_t source_index(const struct rig *r, int64_t offset)
{
    size_t i = 0;
    while (i < r->s.n && r->s.v[i].offset < offset)
        i++;
    return i;
}

void rig_effects(struct rig *r, int mi)
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
            rig_progress(r, mi, &p);
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
