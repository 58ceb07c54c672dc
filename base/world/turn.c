#include "base/world/turn.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

void turn_init(struct turn *t, const struct loop_ops *ops)
{
    assert(ops);
    assert(ops->timer_set);
    assert(ops->post);
    assert(ops->job);
    *t = (struct turn){.loop = {.ops = ops}};
    list_init(&t->loop.hooks);
    list_init(&t->ready);
    list_init(&t->messages);
    list_init(&t->finished);
}

/* ---- timers ---- */

bool turn_reserve(struct turn *t, size_t timers)
{
    assert(timers >= t->timers_n);
    struct turn_timer *more = realloc(t->timers, timers * sizeof *more);
    if (!more)
        return false;
    t->timers = more;
    t->timers_cap = timers;
    return true;
}

static size_t index_of(const struct loop_timer *timer)
{
    return (size_t)(uintptr_t)timer->impl;
}

static bool before(const struct turn_timer *a, const struct turn_timer *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->order < b->order;
}

static void put_at(struct turn *t, size_t i, struct turn_timer e)
{
    assert(i < t->timers_cap);
    t->timers[i] = e;
    e.timer->impl = (void *)(uintptr_t)i;
}

static void sift_up(struct turn *t, size_t i, struct turn_timer e)
{
    while (i > 0 && before(&e, &t->timers[(i - 1) / 2])) {
        put_at(t, i, t->timers[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put_at(t, i, e);
}

static void sift_down(struct turn *t, size_t i, struct turn_timer e)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= t->timers_n)
            break;
        if (child + 1 < t->timers_n && before(&t->timers[child + 1], &t->timers[child]))
            child++;
        if (!before(&t->timers[child], &e))
            break;
        put_at(t, i, t->timers[child]);
        i = child;
    }
    put_at(t, i, e);
}

static void place(struct turn *t, size_t i, struct turn_timer e)
{
    if (i > 0 && before(&e, &t->timers[(i - 1) / 2]))
        sift_up(t, i, e);
    else
        sift_down(t, i, e);
}

void turn_timer_stop(struct loop *l, struct loop_timer *timer)
{
    struct turn *t = (struct turn *)l;
    size_t i = index_of(timer);
    assert(timer->armed);
    assert(i < t->timers_n);
    assert(t->timers[i].timer == timer);
    timer->armed = false;
    struct turn_timer last = t->timers[--t->timers_n];
    if (last.timer != timer)
        place(t, i, last);
}

void turn_timer_set(struct loop *l, struct loop_timer *timer)
{
    struct turn *t = (struct turn *)l;
    assert(timer->fn);
    assert(timer->loop == l);
    if (timer->armed)
        turn_timer_stop(l, timer);
    if (t->timers_n == t->timers_cap && !turn_reserve(t, t->timers_cap ? t->timers_cap * 2 : 64)) {
        fputs("out of memory for a timer\n", stderr); /* no caller could go on without its timer */
        abort();
    }
    /* Not in this turn: a handler that re-arms itself for "now" must not keep the turn from ending. */
    int64_t due_us = timer->due_us > l->now_us ? timer->due_us : l->now_us + 1;
    timer->armed = true;
    t->timers_n++;
    sift_up(t, t->timers_n - 1, (struct turn_timer){due_us, t->timers_order++, timer});
}

int64_t turn_timer_next(const struct turn *t)
{
    return t->timers_n ? t->timers[0].due_us : INT64_MAX;
}

static void run_timers(struct turn *t)
{
    assert(t->timers_n <= t->timers_cap);
    while (t->timers_n && t->timers[0].due_us <= t->loop.now_us) {
        struct loop_timer *timer = t->timers[0].timer;
        turn_timer_stop(&t->loop, timer);
        assert(!timer->armed);
        timer->fn(timer->arg);
    }
}

/* ---- the rest of a turn ---- */

/* Moves all of `from` to the empty `to`. */
static void take_all(struct list *to, struct list *from)
{
    assert(from->next);
    assert(from->next->prev == from);
    list_init(to);
    if (list_empty(from))
        return;
    *to = *from;
    to->next->prev = to->prev->next = to;
    list_init(from);
}

void turn_ready(struct turn *t, struct turn_ready *r)
{
    assert(r->fn);
    if (!list_linked(&r->link))
        list_push(&t->ready, &r->link);
}

bool turn_pending(const struct turn *t)
{
    return !list_empty(&t->ready) || !list_empty(&t->messages) || !list_empty(&t->finished);
}

static void run_ready(struct turn *t)
{
    struct list now;
    take_all(&now, &t->ready);
    while (!list_empty(&now)) {
        struct turn_ready *r = LIST_ENTRY(list_pop(&now), struct turn_ready, link);
        r->fn(r);
    }
}

static void run_messages(struct turn *t)
{
    struct list messages, finished;
    take_all(&messages, &t->messages);
    take_all(&finished, &t->finished);
    while (!list_empty(&messages)) {
        struct loop_msg *m = LIST_ENTRY(list_pop(&messages), struct loop_msg, link);
        assert(m->fn);
        m->fn(m);
    }
    while (!list_empty(&finished)) {
        struct loop_job *j = LIST_ENTRY(list_pop(&finished), struct loop_job, link);
        assert(j->done);
        assert(j->loop == &t->loop);
        j->done(j);
    }
}

void turn_run(struct turn *t)
{
    run_ready(t);
    run_timers(t);
    run_messages(t);
    list_each_safe(at, &t->loop.hooks)
    {
        struct loop_hook *h = LIST_ENTRY(at, struct loop_hook, link);
        h->fn(h->arg);
    }
}

void turn_fini(struct turn *t)
{
    while (t->timers_n)
        turn_timer_stop(&t->loop, t->timers[0].timer);
    free(t->timers);
    assert(t->timers_n == 0);
    t->timers = NULL;
    t->timers_cap = 0;
}
