/* The lane's frame: states, waiting and halting, effects in the order they are told, what the source gives. */
#include "mirror/target/lane.h"

#include "base/core/grow.h"

#include "base/core/mutant.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define RUNS_GROW  64
#define NOTES_GROW 4

static const struct sm_state lane_states[] = {
    [LANE_SURVEYING] = {"surveying", SM_TO(LANE_SURVEYING) | SM_TO(LANE_ANCHORING) | SM_TO(LANE_PAIRING) |
                                         SM_TO(LANE_READY) | SM_TO(LANE_APPENDING) | SM_TO(LANE_HALTED)},
    [LANE_ANCHORING] = {"anchoring", SM_TO(LANE_READY) | SM_TO(LANE_HALTED)},
    [LANE_PAIRING] = {"pairing", SM_TO(LANE_READY) | SM_TO(LANE_SURVEYING) | SM_TO(LANE_HALTED)},
    [LANE_READY] = {"ready", SM_TO(LANE_APPENDING) | SM_TO(LANE_SURVEYING) | SM_TO(LANE_HALTED)},
    [LANE_APPENDING] = {"appending", SM_TO(LANE_SURVEYING) | SM_TO(LANE_HALTED)},
    [LANE_HALTED] = {"halted", SM_END},
};

static bool lane_holds(const void *owner, unsigned state)
{
    const struct lane *l = owner;
    bool memory = !list_empty(&l->batches);
    bool may = state == LANE_APPENDING || (state == LANE_SURVEYING && l->survey != LANE_SURVEY_START);
    return !memory || may;
}

_Static_assert(sizeof lane_states / sizeof *lane_states == LANE_HALTED + 1, "a row for every state");
static const struct sm_table lane_sm = SM_TABLE("lane", lane_states, lane_holds);

int lane_init(struct lane *l, const struct lane_config *c, const struct appender_point *at, int64_t now_us,
              int64_t now_ms)
{
    *l = (struct lane){.c = *c,
                       .at = *at,
                       .now_us = now_us,
                       .now_ms = now_ms,
                       .leader_epoch = -1,
                       .last_timestamp = at->known ? at->timestamp_max : -1,
                       .number_built = at->known ? at->number_next : 0,
                       .taken_next = at->source_next,
                       .acked_next = at->source_next - (at->known ? at->source_idle : 0),
                       .source_missing = -1,
                       .verify_left = at->known ? LANE_VERIFIED : 0};
    assert(l->acked_next <= at->source_next);
    assert(!at->known || at->number_next >= 0);
    l->pair_from = lane_pair_from(l);
    list_init(&l->batches);
    list_init(&l->cancelled);
    rng_init(&l->rng, c->seed);
    buf_init(&l->verify_payload, (size_t)INT32_MAX);
    l->survey = LANE_SURVEY_START;
    sm_init(&l->sm, &lane_sm, l, LANE_SURVEYING);
    if (!at->known) {
        l->at.number_next = 0;
        l->at.end_offset = 0;
        l->at.end_epoch = -1;
        l->at.timestamp_max = -1;
    }
    lane_survey_begin(l, LANE_SURVEY_START);
    return 0;
}

void lane_fini(struct lane *l)
{
    assert(list_empty(&l->cancelled)); /* the driver has taken back what was under way */
    while (!list_empty(&l->batches))
        lane_batch_give(l->c.budget, LIST_ENTRY(list_pop(&l->batches), struct lane_batch, link));
    lane_pair_reset(l);
    free(l->items);
    free(l->runs);
    free(l->notes);
    buf_fini(&l->verify_payload);
}

void lane_move(struct lane *l, enum lane_state s)
{
    sm_move(&l->sm, s);
    l->changed = true;
}

int32_t lane_sequence(int64_t number)
{
    return (int32_t)(number & INT32_MAX);
}

/* The number a sequence stands for: the one nearest to ours. */
int64_t lane_unwrap(const struct lane *l, int32_t sequence)
{
    int64_t ahead = ((int64_t)sequence - lane_sequence(l->at.number_next)) & INT32_MAX;
    return l->at.number_next + (ahead < INT64_C(1) << 30 ? ahead : ahead - (INT64_C(1) << 31));
}

/* Rule 3: the target still knows of a batch with this timestamp. */
bool lane_fresh_enough(const struct lane *l, int64_t timestamp_ms)
{
    const struct appender_guard *g = l->c.guard;
    int64_t expiration = g->expiration_ms > 0 ? g->expiration_ms : GUARD_DEFAULT_MS;
    return g->wall_clock || l->append_time ||
           (timestamp_ms >= 0 && l->now_ms - timestamp_ms < expiration - GUARD_MARGIN_MS);
}

/* ---- waiting, halting ---- */

__attribute__((format(printf, 3, 0))) static void say(struct lane *l, enum appender_reason why,
                                                      const char *fmt, va_list ap)
{
    char text[sizeof l->text];
    vsnprintf(text, sizeof text, fmt, ap);
    if (l->reason != why || strcmp(text, l->text) != 0)
        l->changed = true;
    l->reason = why;
    memcpy(l->text, text, sizeof text);
}

void lane_halt(struct lane *l, enum appender_reason why, const char *fmt, ...)
{
    va_list ap;
    if (lane_state(l) == LANE_HALTED)
        return;
    va_start(ap, fmt);
    say(l, why, fmt, ap);
    va_end(ap);
    lane_drop_batches(l);
    lane_pair_reset(l);
    lane_side_give_up(l);
    l->survey = LANE_SURVEY_START;
    lane_move(l, LANE_HALTED);
    assert(l->reason != APPENDER_REASON_NONE);
}

void lane_wait(struct lane *l, enum appender_reason why, int64_t max_us, const char *fmt, ...)
{
    va_list ap;
    assert(lane_state(l) != LANE_HALTED); /* whose reason stays */
    assert(max_us >= LANE_BACKOFF_MIN_US);
    va_start(ap, fmt);
    say(l, why, fmt, ap);
    va_end(ap);
    int64_t delay = LANE_BACKOFF_MIN_US;
    for (unsigned i = 0; i < l->attempts && delay < max_us; i++)
        delay *= 2;
    delay = delay < max_us ? delay : max_us;
    assert(delay > 0);
    l->attempts += l->attempts < 30;
    l->retry_at_us = l->now_us + delay + rng_range(&l->rng, -delay / 5, delay / 5);
}

void lane_healed(struct lane *l)
{
    if (l->reason != APPENDER_REASON_NONE)
        l->changed = true;
    l->reason = APPENDER_REASON_NONE;
    l->text[0] = 0;
    l->attempts = 0;
    l->retry_at_us = 0;
}

void lane_gone(struct lane *l, enum appender_reason why, const char *text)
{
    lane_halt(l, why, "%s", text);
}

void lane_drop_batches(struct lane *l)
{
    list_each_safe(at, &l->batches)
    {
        struct lane_batch *b = LIST_ENTRY(at, struct lane_batch, link);
        list_remove(at);
        if (b->state == LANE_BATCH_SENT) {
            b->state = LANE_BATCH_CANCELLED;
            list_push(&l->cancelled, at);
        } else {
            lane_batch_give(l->c.budget, b);
        }
    }
    l->open = NULL;
    l->match = NULL;
    l->inflight = l->sealed = 0;
    l->failing = l->must_resolve = false;
    l->number_built = l->at.number_next;
    l->taken_next = l->at.source_next;
    assert(list_empty(&l->batches));
}

/* ---- notes and runs ---- */

void lane_note(struct lane *l, const struct appender_note *n)
{
    /* The driver takes them at once; so many in one step say nothing new. */
    if (l->notes_n == LANE_NOTES_MAX || !GROW(l->notes, l->notes_n, l->notes_cap, NOTES_GROW))
        return;
    l->notes[l->notes_n] = *n;
    l->notes[l->notes_n++].partition = l->c.partition;
}

bool lane_add_run(struct lane *l, int64_t src, int64_t dst, int64_t count)
{
    struct appender_run *last = l->runs_n ? &l->runs[l->runs_n - 1] : NULL;
    assert(count > 0);
    assert(!last || src >= last->src_start + last->count); /* in the order of the source */
    if (last && last->src_start + last->count == src && last->dst_start + last->count == dst) {
        last->count += count;
        return true;
    }
    if (!GROW(l->runs, l->runs_n, l->runs_cap, RUNS_GROW))
        return false;
    l->runs[l->runs_n++] = (struct appender_run){src, dst, count, l->c.partition};
    return true;
}

/* ---- the source ---- */

static bool take_for_pairing(struct lane *l, const struct port_record *r, int64_t missing)
{
    if (l->items_n + l->items_at == l->items_cap) {
        if (l->items_at > l->items_n) {
            memmove(l->items, l->items + l->items_at, l->items_n * sizeof *l->items);
            l->items_at = 0;
        } else {
            size_t cap = l->items_cap ? l->items_cap * 2 : 1024;
            struct lane_source_item *now = realloc(l->items, cap * sizeof *now);
            if (!now)
                return false;
            l->items = now;
            l->items_cap = cap;
        }
    }
    assert(l->items_at + l->items_n < l->items_cap);
    l->items[l->items_at + l->items_n++] = (struct lane_source_item){
        r->offset, missing, {r->timestamp_ms, pairing_print(r->key, r->value, r->headers, r->headers_n)}};
    return true;
}

bool lane_keeps(const struct lane *l)
{
    return lane_state(l) == LANE_APPENDING ||
           (lane_state(l) == LANE_SURVEYING && l->survey != LANE_SURVEY_START);
}

void lane_numbered(struct lane *l, int64_t n)
{
    assert(n > 0);
    l->number_built += n;
    if (MUTANT("n_q_32_bit"))
        l->number_built &= INT32_MAX;
}

int lane_seal_open(struct lane *l)
{
    int rc = l->open ? lane_batch_seal(l, l->open) : 0;
    l->sealed += l->open != NULL;
    l->open = NULL;
    return rc;
}

static bool fits(const struct lane *l, const struct lane_batch *open, const struct record_new *n, int codec)
{
    return open->codec == codec &&
           batch_bytes(&open->builder) + batch_record_bound(n) <= l->c.batch_max_bytes;
}

static int append_record(struct lane *l, const struct port_record *r, int codec)
{
    struct record_new n = {.timestamp = r->timestamp_ms,
                           .key = r->key,
                           .value = r->value,
                           .headers_n = r->headers_n,
                           .headers_encoded = r->headers};
    int rc = 0;
    if (l->open && !fits(l, l->open, &n, codec))
        rc = lane_seal_open(l);
    if (!rc && !l->open) {
        l->open = lane_batch_take(l->c.budget);
        if (!l->open)
            return -E_NOMEM;
        list_push(&l->batches, &l->open->link);
        rc = lane_batch_begin(l, l->open, l->number_built, codec);
    }
    assert(l->open || rc);
    if (!rc)
        rc = lane_batch_add(l, l->open, &n, r->offset);
    if (rc)
        return rc;
    lane_numbered(l, 1);
    l->taken_next = r->offset + 1;
    return 0;
}

void lane_take(struct lane *l, const struct port_record *r, int64_t missing, int codec)
{
    if (r->offset < l->taken_next)
        return;
    if (lane_state(l) == LANE_PAIRING) {
        const struct pairing *p = l->pairing;
        int64_t had = p->waiting.there ? p->waiting.offset : p->source_last;
        if (!l->served || r->offset <= had)
            return;
        if (l->source_missing < 0)
            l->source_missing = missing;
        l->source_end_us = 0;
        if (!take_for_pairing(l, r, missing - l->source_missing))
            lane_restart(l, "out of memory");
        else
            lane_pair_feed(l);
        return;
    }
    if (lane_keeps(l) && append_record(l, r, codec))
        lane_restart(l, "out of memory");
}

void lane_passes(struct lane *l, int64_t from, int64_t to, int64_t missing)
{
    if (l->source_missing < 0 && to >= l->pair_from)
        l->source_missing = missing + (l->pair_from > from ? l->pair_from - from : 0);
}

/* A source that has just come back may not show all it has: its end counts when it has stood still. */
void lane_source_end(struct lane *l, int64_t missing)
{
    if (lane_state(l) != LANE_PAIRING || !l->served || l->source_missing < 0)
        return;
    if (l->source_end_us == 0)
        l->source_end_us = l->now_us;
    l->source_end_missing = missing - l->source_missing;
}

void lane_covered(struct lane *l, int64_t fed)
{
    if (lane_state(l) == LANE_APPENDING && list_empty(&l->batches) && fed > l->at.source_next)
        l->at.source_next = l->taken_next = fed;
}

void lane_reading(struct lane *l)
{
    l->source_missing = -1;
    l->items_n = l->items_at = 0;
    l->source_end_us = 0;
    l->served = lane_state(l) == LANE_PAIRING;
}

bool lane_wants(const struct lane *l)
{
    switch (lane_state(l)) {
    case LANE_PAIRING: return lane_pair_wants(l);
    case LANE_APPENDING: return l->sealed < LANE_SEALED_MAX && budget_room(l->c.budget);
    default: return false;
    }
}

bool lane_idle(const struct lane *l)
{
    return list_empty(&l->batches) && !l->verifying && l->gaps_n == 0;
}

int64_t lane_source_next(const struct lane *l, int64_t fed)
{
    struct lane_batch *head = lane_head(l);
    if (head)
        return head->src_first;
    return lane_keeps(l) && fed > l->at.source_next ? fed : l->at.source_next;
}

void lane_start(struct lane *l)
{
    assert(lane_state(l) == LANE_READY);
    lane_healed(l);
    l->taken_next = l->at.source_next;
    lane_move(l, LANE_APPENDING);
}

void lane_anchored(struct lane *l)
{
    if (lane_state(l) == LANE_ANCHORING)
        lane_move(l, LANE_READY);
}

void lane_settle(struct lane *l)
{
    if (lane_state(l) == LANE_APPENDING && lane_idle(l))
        lane_survey_begin(l, LANE_SURVEY_SETTLE);
    else
        l->settled = true; /* as far as it can be now */
}

/* ---- time and effects ---- */

static bool source_has_ended(const struct lane *l)
{
    return lane_state(l) == LANE_PAIRING && l->source_end_us > 0 && l->items_n == 0;
}

int64_t lane_due(const struct lane *l)
{
    if (lane_state(l) == LANE_HALTED)
        return INT64_MAX;
    int64_t due = l->retry_at_us > l->now_us ? l->retry_at_us : INT64_MAX;
    int64_t end = source_has_ended(l) ? l->source_end_us + LANE_SOURCE_WAIT_US : INT64_MAX;
    return end < due && end > l->now_us ? end : due;
}

void lane_time(struct lane *l, int64_t now_us, int64_t now_ms)
{
    assert(now_us >= l->now_us);
    l->now_us = now_us;
    l->now_ms = now_ms;
    if (source_has_ended(l) && now_us - l->source_end_us >= LANE_SOURCE_WAIT_US) {
        pairing_source_end(l->pairing, l->source_end_missing);
        lane_pair_feed(l);
    }
}

void lane_leader(struct lane *l, int32_t leader, int32_t epoch)
{
    if (leader < 0 || epoch < 0 || epoch == l->leader_epoch)
        return;
    bool moved = l->leader_epoch >= 0;
    l->leader_epoch = epoch;
    /* Rule 6: what a new leader has of ours is asked before anything more is sent to it. */
    if (moved && (lane_state(l) == LANE_APPENDING || l->survey != LANE_SURVEY_START))
        l->must_resolve = true;
}

bool lane_take_runs(struct lane *l, struct lane_effect *e)
{
    if (l->runs_n == 0)
        return false;
    *e = (struct lane_effect){.kind = LANE_RUNS, .runs = l->runs, .runs_n = l->runs_n};
    l->runs_n = 0;
    return true;
}

static struct lane_effect tell(struct lane *l)
{
    struct lane_effect runs;
    if (!list_empty(&l->cancelled))
        return (struct lane_effect){.kind = LANE_CANCEL,
                                    .batch = LIST_ENTRY(list_pop(&l->cancelled), struct lane_batch, link)};
    if (lane_take_runs(l, &runs))
        return runs;
    if (l->notes_n) {
        struct appender_note first = l->notes[0];
        memmove(l->notes, l->notes + 1, --l->notes_n * sizeof first);
        return (struct lane_effect){.kind = LANE_NOTE, .note = first};
    }
    if (l->changed) {
        l->changed = false;
        return (struct lane_effect){.kind = LANE_CHANGED};
    }
    if (l->refresh) {
        l->refresh = false;
        return (struct lane_effect){.kind = LANE_REFRESH};
    }
    if (l->settled) {
        l->settled = false;
        return (struct lane_effect){.kind = LANE_WAS_SETTLED};
    }
    return (struct lane_effect){.kind = LANE_NOTHING};
}

/* What the README says of batches and positions. */
static void check(const struct lane *l)
{
    int64_t number = l->at.number_next, source = l->acked_next - 1;
    unsigned sealed = 0, inflight = 0;
    list_each (at, &l->batches) {
        const struct lane_batch *b = LIST_ENTRY(at, struct lane_batch, link);
        assert(b->number == number);
        assert(b->count > 0);
        assert(b->src_first > source);
        assert(b->src_last >= b->src_first);
        assert((b == l->open) == (b->state == LANE_BATCH_OPEN));
        assert(b != l->open || at->next == &l->batches);
        sealed += b->state == LANE_BATCH_SEALED;
        inflight += b->state == LANE_BATCH_SENT;
        number += b->count;
        source = b->src_last;
    }
    assert(sealed == l->sealed);
    assert(inflight == l->inflight);
    assert(inflight <= APPENDER_INFLIGHT_MAX);
    assert(number == l->number_built || MUTANT("n_q_32_bit"));
    assert(l->acked_next <= l->at.source_next);
    assert(source < l->taken_next);
    assert(l->verify_left <= LANE_VERIFIED);
    assert(l->gaps_n <= LANE_GAPS_MAX);
    assert(l->notes_n <= LANE_NOTES_MAX);
}

struct lane_effect lane_effect(struct lane *l)
{
    check(l);
    struct lane_effect e = tell(l);
    if (e.kind != LANE_NOTHING || lane_state(l) == LANE_HALTED)
        return e;
    /* Deciding what to do next may change the state, which is then told first. */
    if ((e = lane_window_effect(l)).kind == LANE_NOTHING && (e = lane_survey_effect(l)).kind == LANE_NOTHING)
        e = lane_side_effect(l);
    return e.kind == LANE_NOTHING ? tell(l) : e;
}

void lane_read(struct lane *l, uint32_t ticket, const struct lane_trouble *t, struct slice batches,
               int64_t next, int64_t log_start)
{
    if (log_start > l->log_start)
        l->log_start = log_start;
    if (l->side_asked && ticket == l->side_ticket) {
        l->side_asked = false;
        lane_side_read(l, t, batches, next);
    } else if (l->asked && ticket == l->ticket) {
        l->asked = false;
        if (lane_state(l) == LANE_SURVEYING ||
            lane_state(l) == LANE_PAIRING) /* else it has halted meanwhile */
            lane_read_chunk(l, t, batches, next);
    }
}
