/* The driver: effects of the group to calls, timers and events; the public face. */
#include "mirror/target/appender_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* Events make calls, whose immediate failures make events: so many in one turn, then the loop goes on. */
#define ROUNDS_PER_TURN 1000

static void drain(struct appender *a);

static void wake(struct appender *a)
{
    if (!a->draining && !a->soon.armed)
        loop_timer_in(&a->soon, 0);
    a->again = true;
}

static void on_soon(void *arg)
{
    drain(arg);
}

static void on_room(void *arg)
{
    struct appender *a = arg;
    list_init(&a->waiter.link);
    group_touched(&a->group);
    wake(a);
}

/* ---- the topic ---- */

const struct client_topic *appender_topic(const struct appender *a)
{
    const struct client_topic *t = client_topic(a->client, slice_str(a->topic));
    return t && t->error == KE_NONE ? t : NULL;
}

static void gone(struct appender *a, enum appender_reason why, const char *text)
{
    for (size_t i = 0; i < a->group.n; i++)
        lane_gone(&a->group.lanes[i], why, text);
    group_touched(&a->group);
}

static void on_gone(void *arg)
{
    struct appender *a = arg;
    char text[300];
    snprintf(text, sizeof text, "topic %.200s is not there any more", a->topic);
    gone(a, APPENDER_REASON_TARGET_GONE, text);
    drain(a);
}

static void recreated(struct appender *a, const struct uuid *now)
{
    char was[UUID_TEXT_SIZE], is[UUID_TEXT_SIZE], text[300];
    snprintf(text, sizeof text, "topic %.200s has id %s, it was %s when its progress began", a->topic,
             uuid_text(now, is), uuid_text(&a->topic_id, was));
    gone(a, APPENDER_REASON_TARGET_RECREATED, text);
}

static void on_metadata(void *arg)
{
    struct appender *a = arg;
    const struct client_topic *t = client_topic(a->client, slice_str(a->topic));
    if (!t)
        return;
    bool missing = t->error == KE_UNKNOWN_TOPIC_OR_PARTITION;
    if (missing && !a->gone.armed)
        loop_timer_in(&a->gone, APPENDER_GONE_US);
    if (t->error != KE_NONE)
        return;
    loop_timer_stop(&a->gone);
    if (!uuid_is_zero(&a->topic_id) && !uuid_is_zero(&t->id) && !uuid_eq(&a->topic_id, &t->id)) {
        recreated(a, &t->id);
        drain(a); /* at once: an answer may be next in this turn, to a batch that no lane has any more */
        return;
    }
    a->topic_there = true;
    for (size_t i = 0; i < a->group.n; i++) {
        struct lane *l = &a->group.lanes[i];
        int32_t q = l->c.partition;
        if (q < t->partitions_n)
            lane_leader(l, t->partitions[q].leader, t->partitions[q].leader_epoch);
    }
    group_touched(&a->group);
    wake(a);
}

/* ---- effects ---- */

static void carry_out(struct appender *a, struct lane *l, const struct lane_effect *e)
{
    switch (e->kind) {
    case LANE_PRODUCE:
    case LANE_OFFSETS:
    case LANE_EPOCH_END:
    case LANE_PRODUCERS:
    case LANE_READ: appender_ask(a, l, e); break;
    case LANE_CANCEL: appender_cancel(a, e->batch); break;
    case LANE_REFRESH: client_metadata_refresh(a->client); break;
    case LANE_RUNS: a->events->runs(a->arg, e->runs, e->runs_n); break;
    case LANE_NOTE: a->events->note(a->arg, &e->note); break;
    case LANE_CHANGED:
    case LANE_WAS_SETTLED:
    case LANE_NOTHING: break;
    }
}

static void tell(struct appender *a, const struct group_effect *e)
{
    struct appender_progress p;
    switch (e->kind) {
    case GROUP_LANE: carry_out(a, e->lane, &e->effect); break;
    case GROUP_ANCHOR:
        appender_progress(a, &p);
        a->events->anchor(a->arg, &p);
        break;
    case GROUP_READ_FROM: a->events->read_from(a->arg, e->from, e->epoch); break;
    case GROUP_STATE: a->events->state(a->arg, &a->group.status); break;
    case GROUP_ROOM: a->events->room(a->arg); break;
    case GROUP_DRAINED:
        if (a->drained)
            a->drained(a->drained_arg);
        break;
    case GROUP_SETTLED:
        if (a->settled)
            a->settled(a->settled_arg);
        break;
    case GROUP_NOTHING: break;
    }
}

/* Others may have filled the budget while nothing of ours is under way that would wake us. */
static void wait_for_room(struct appender *a)
{
    if (!budget_room(a->budget) && !list_linked(&a->waiter.link))
        list_push(&a->budget->waiters, &a->waiter.link);
}

static void sleep_until_due(struct appender *a)
{
    int64_t due = group_due(&a->group);
    if (due == INT64_MAX)
        loop_timer_stop(&a->due);
    else if (!a->due.armed || a->due.due_us != due)
        loop_timer_at(&a->due, due);
    wait_for_room(a);
}

static void drain(struct appender *a)
{
    if (a->draining) {
        a->again = true;
        return;
    }
    a->draining = true;
    loop_timer_stop(&a->soon);
    /* Whatever follows: a topic that is not there wakes it with its metadata, not by itself. */
    a->again = false;
    group_time(&a->group, loop_now_us(a->loop), loop_wall_ms(a->loop));
    for (int round = 0; a->topic_there || lane_state(&a->group.lanes[0]) == LANE_HALTED; round++) {
        a->again = false;
        struct group_effect e = group_effect(&a->group);
        if (e.kind == GROUP_NOTHING && !a->again)
            break;
        tell(a, &e);
        if (round == ROUNDS_PER_TURN) {
            a->again = true;
            break;
        }
    }
    a->draining = false;
    sleep_until_due(a);
    if (a->again)
        wake(a);
}

void appender_answered(struct appender *a)
{
    group_touched(&a->group);
    drain(a);
}

/* ---- life ---- */

int appender_create(const struct appender_options *o, struct appender **out, struct err *err)
{
    assert(o->topic.n > 0);
    assert(o->producer_id >= 0);
    assert(o->source_next >= 0);
    struct appender *a = calloc(1, sizeof *a);
    *out = NULL;
    if (!a)
        return err_set(err, -E_NOMEM, "appender");
    a->loop = o->loop;
    a->client = o->client;
    a->topic_id = o->topic_id;
    a->request_timeout_us = o->request_timeout_us ? o->request_timeout_us : APPENDER_REQUEST_US;
    a->events = o->events;
    a->arg = o->arg;
    a->budget = o->budget;
    a->waiter = (struct budget_waiter){.room = on_room, .arg = a};
    list_init(&a->waiter.link);
    list_init(&a->asks);
    a->topic = malloc(o->topic.n + 1);
    int rc = a->topic
                 ? group_init(&a->group, o, loop_random(o->loop), loop_now_us(o->loop), loop_wall_ms(o->loop))
                 : -E_NOMEM;
    if (!rc)
        slice_cstr(o->topic, a->topic, o->topic.n + 1);
    if (!rc && (rc = client_topic_follow(a->client, o->topic)))
        group_fini(&a->group);
    if (rc) {
        free(a->topic);
        free(a);
        return err_set(err, rc, "appender for %.*s: %s", SLICE_FMT(o->topic), err_str(rc));
    }
    loop_timer_init(&a->due, a->loop, on_soon, a);
    loop_timer_init(&a->soon, a->loop, on_soon, a);
    loop_timer_init(&a->gone, a->loop, on_gone, a);
    a->watch = (struct client_watch){.changed = on_metadata, .arg = a};
    client_watch_add(a->client, &a->watch);
    on_metadata(a);
    if (!a->topic_there)
        client_metadata_refresh(a->client);
    wake(a);
    *out = a;
    return 0;
}

void appender_destroy(struct appender *a)
{
    if (!a)
        return;
    assert(!a->draining); /* not from one of its callbacks */
    while (!list_empty(&a->asks)) {
        struct ask *ask = LIST_ENTRY(list_pop(&a->asks), struct ask, link);
        if (ask->batch)
            ask->batch->driver = NULL;
        client_cancel(a->client, ask->call);
    }
    assert(list_empty(&a->asks));
    client_watch_remove(&a->watch);
    loop_timer_stop(&a->due);
    loop_timer_stop(&a->soon);
    loop_timer_stop(&a->gone);
    list_remove(&a->waiter.link);
    for (size_t i = 0; i < a->group.n; i++) {
        struct lane *l = &a->group.lanes[i];
        while (!list_empty(&l->cancelled))
            lane_batch_give(a->budget, LIST_ENTRY(list_pop(&l->cancelled), struct lane_batch, link));
    }
    group_fini(&a->group);
    free(a->topic);
    free(a);
}

/* ---- the source's side ---- */

bool appender_can_take(struct appender *a)
{
    bool can = group_can_take(&a->group);
    if (!can)
        wait_for_room(a);
    return can;
}

int appender_take(struct appender *a, int32_t q, const struct port_record *r)
{
    return group_take(&a->group, q, r);
}

int appender_take_batch(struct appender *a, int32_t q, const struct port_batch *b, int64_t *next)
{
    return group_take_batch(&a->group, q, b, next);
}

void appender_covered(struct appender *a, int64_t source_next, int32_t source_epoch)
{
    group_covered(&a->group, source_next, source_epoch);
    wake(a);
}

void appender_reading(struct appender *a)
{
    group_reading(&a->group);
    wake(a);
}

void appender_source_end(struct appender *a, int64_t source_end)
{
    group_source_end(&a->group, source_end);
    wake(a);
}

/* ---- positions ---- */

void appender_anchored(struct appender *a)
{
    group_anchored(&a->group);
    wake(a);
}

void appender_progress(struct appender *a, struct appender_progress *out)
{
    struct lane_effect e;
    while (group_take_runs(&a->group, &e)) /* what was taken since the last turn may have ended a pairing */
        a->events->runs(a->arg, e.runs, e.runs_n);
    group_progress(&a->group, out);
}

void appender_saved(struct appender *a)
{
    group_saved(&a->group);
    wake(a);
}

void appender_drain(struct appender *a, void (*drained)(void *arg), void *arg)
{
    a->drained = drained;
    a->drained_arg = arg;
    group_drain(&a->group);
    wake(a);
}

void appender_settle(struct appender *a, void (*done)(void *arg), void *arg)
{
    a->settled = done;
    a->settled_arg = arg;
    group_settle(&a->group);
    wake(a);
}

void appender_status(const struct appender *a, struct appender_status *out)
{
    *out = a->group.status;
}

void appender_counts(const struct appender *a, struct appender_counts *out)
{
    *out = (struct appender_counts){0};
    for (size_t i = 0; i < a->group.n; i++) {
        const struct lane *l = &a->group.lanes[i];
        out->records += l->counts.records;
        out->batches += l->counts.batches;
        out->bytes += l->counts.bytes;
        out->duplicates += l->counts.duplicates;
        out->resends += l->counts.resends;
        out->reconciles += l->counts.reconciles;
        out->strangers += l->counts.strangers;
        out->inflight += l->inflight;
        list_each (at, &l->batches) {
            out->buffered_bytes += LIST_ENTRY(at, struct lane_batch, link)->counted;
        }
    }
}
