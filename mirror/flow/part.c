#include "mirror/flow/internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/core/mutant.h"
#include "base/runtime/log.h"
#include "proto/kafka/codec.h"

/* One source partition: what it needs to start (a producer id, a place to begin), its appender, its state. */

#define ANY_OTHER(self) ((SM_TO(PART_STATES) - 1) & ~SM_TO(self))

static const struct sm_state part_states[] = {
    [PART_STARTING] = {"starting", ANY_OTHER(PART_STARTING)},
    [PART_RECONCILING] = {"reconciling", ANY_OTHER(PART_RECONCILING)},
    [PART_MIRRORING] = {"mirroring", ANY_OTHER(PART_MIRRORING)},
    [PART_CAUGHT_UP] = {"caught up", ANY_OTHER(PART_CAUGHT_UP)},
    [PART_PAUSED] = {"paused", ANY_OTHER(PART_PAUSED)},
    [PART_HALTED] = {"halted", SM_END},
};

static bool part_invariant(const void *owner, unsigned state)
{
    const struct part *p = owner;
    switch (state) {
    case PART_RECONCILING:
    case PART_MIRRORING:
    case PART_CAUGHT_UP: return p->appender != NULL && !p->topic->halted[0];
    case PART_HALTED: return part_reason(p)[0] && list_empty(&p->held);
    default: return true;
    }
}

_Static_assert(sizeof part_states / sizeof *part_states == PART_STATES, "a row for every state");
const struct sm_table part_sm = SM_TABLE("partition", part_states, part_invariant);

static void move(struct part *p, enum part_state to)
{
    if (p->sm.state == to || p->sm.state == PART_HALTED)
        return;
    log_debug(FLOW_AREA, "partition flow=%s topic=%s partition=%d state=\"%s\"", p->flow->name,
              p->topic->source, p->p, sm_state_name(&part_sm, to));
    sm_move(&p->sm, to);
}

/* ---- the reason: few partitions have one ---- */

static char no_memory[] = "out of memory";

const char *part_reason(const struct part *p)
{
    return p->reason ? p->reason : "";
}

static void clear_reason(struct part *p)
{
    if (p->reason != no_memory)
        free(p->reason);
    p->reason = NULL;
}

__attribute__((format(printf, 2, 0))) static void set_reason(struct part *p, const char *fmt, va_list args)
{
    char text[ERR_TEXT_MAX]; /* what is said may quote what was said before */
    vsnprintf(text, sizeof text, fmt, args);
    clear_reason(p);
    p->reason = strdup(text);
    if (!p->reason)
        p->reason = no_memory;
}

__attribute__((format(printf, 2, 3))) static void say(struct part *p, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    set_reason(p, fmt, args);
    va_end(args);
}

void part_halt(struct part *p, const char *fmt, ...)
{
    if (p->sm.state == PART_HALTED)
        return;
    va_list args;
    va_start(args, fmt);
    set_reason(p, fmt, args);
    va_end(args);
    part_stop_reading(p);
    p->parked = false;
    loop_timer_stop(&p->retry);
    log_error(FLOW_AREA, "partition halted flow=%s topic=%s partition=%d: %s", p->flow->name,
              p->topic->source, p->p, part_reason(p));
    move(p, PART_HALTED);
    if (!p->topic->halted[0])
        flow_ledger(p->flow, LEDGER_HALTED, p->topic->source, p->p, p->position, 0, "%s", part_reason(p));
}

void part_pause(struct part *p, const char *fmt, ...)
{
    if (p->sm.state == PART_HALTED)
        return;
    va_list args;
    va_start(args, fmt);
    set_reason(p, fmt, args);
    va_end(args);
    log_warn(FLOW_AREA, "partition paused flow=%s topic=%s partition=%d: %s", p->flow->name, p->topic->source,
             p->p, part_reason(p));
    move(p, PART_PAUSED);
}

/* The source's trouble is that of all its partitions: said once, shown at each. */
void part_trouble(struct part *p, const char *text)
{
    if (p->sm.state == PART_HALTED)
        return;
    say(p, "source: %s", text);
    log_warn(FLOW_AREA, "source trouble flow=%s: %s", p->flow->name, text);
    move(p, PART_PAUSED);
}

void part_mark(struct part *p)
{
    if (!list_linked(&p->dirty))
        list_push(&p->flow->dirty, &p->dirty);
}

void part_refresh(struct part *p)
{
    struct appender_status s;
    if (!p->appender || p->sm.state == PART_HALTED)
        return;
    if (p->parked && p->sm.state == PART_PAUSED)
        return; /* for the source's sake: what was given before goes on arriving */
    appender_status(p->appender, &s);
    if (s.state != APPENDER_APPENDING)
        return;
    struct appender_counts c;
    appender_counts(p->appender, &c);
    bool idle = p->at_end && list_empty(&p->held) && c.inflight == 0 && c.buffered_bytes == 0;
    if (idle && p->sm.state != PART_CAUGHT_UP) {
        p->idle_since_us = loop_now_us(p->flow->loop);
        p->settled = false;
    }
    clear_reason(p);
    move(p, idle ? PART_CAUGHT_UP : PART_MIRRORING);
}

/* ---- the appender's events ---- */

static void on_anchor(void *arg, const struct appender_progress *ap)
{
    struct part *p = arg;
    (void)ap; /* asked again when it is written */
    p->anchor = true;
    part_mark(p);
    save_now(p->flow);
}

static void on_read_from(void *arg, int64_t source_offset, int32_t source_epoch)
{
    part_read_from(arg, source_offset, source_epoch);
}

static void on_runs(void *arg, const struct appender_run *runs, size_t n)
{
    struct part *p = arg;
    struct flow *f = p->flow;
    assert(p->appender);
    assert(n > 0);
    for (size_t i = 0; i < n; i++) {
        assert(runs[i].count > 0);
        struct map_run r = {runs[i].partition, runs[i].src_start, runs[i].dst_start, runs[i].count};
        int rc = run_tail_add(&p->tail, &r);
        if (rc) {
            part_halt(p, "the offset map contradicts itself at source offset %lld (%s)",
                      (long long)r.src_start, err_str(rc));
            return;
        }
        f->unsaved += (uint64_t)r.count;
        p->unsaved += (uint64_t)r.count;
        p->topic->acked += (uint64_t)r.count;
        if (p->topic->records)
            metric_add(p->topic->records, r.count);
        if (f->syncs)
            offset_syncs_run(f->syncs, slice_str(p->topic->source), p->p, r.src_start, r.dst_start, r.count);
    }
    part_mark(p);
    bool enough = p->unsaved >= FLOW_PROGRESS_RECORDS || f->unsaved >= FLOW_PROGRESS_ALL;
    f->hurry = f->hurry || enough || run_tail_full(&p->tail);
    if (f->hurry)
        save_now(f);
    part_refresh(p);
}

static void on_state(void *arg, const struct appender_status *s)
{
    struct part *p = arg;
    if (p->sm.state == PART_HALTED)
        return;
    switch (s->state) {
    case APPENDER_STARTING:
    case APPENDER_ANCHORING: move(p, PART_STARTING); break;
    case APPENDER_RECONCILING: move(p, PART_RECONCILING); break;
    case APPENDER_WAITING:
        part_pause(p, "%s%s%s", appender_reason_name(s->reason), s->text[0] ? ": " : "", s->text);
        part_park(p);
        break;
    case APPENDER_HALTED:
        part_halt(p, "%s%s%s", appender_reason_name(s->reason), s->text[0] ? ": " : "", s->text);
        break;
    default: part_refresh(p); part_room(p);
    }
}

static void on_note(void *arg, const struct appender_note *n)
{
    struct part *p = arg;
    struct flow *f = p->flow;
    const char *topic = p->topic->source;
    switch (n->kind) {
    case APPENDER_STRANGER:
        if (f->m_strangers)
            metric_add(f->m_strangers, n->count);
        flow_ledger(f, LEDGER_STRANGER, p->topic->target, n->partition, n->offset, n->count,
                    "records that this mirror did not write (producer id %lld): mirroring goes on, "
                    "translation stays exact",
                    (long long)n->producer_id);
        break;
    case APPENDER_DOUBLE:
        flow_ledger(f, LEDGER_DOUBLE, p->topic->target, n->partition, n->offset, n->count,
                    "number %lld of producer %lld was found again", (long long)n->number,
                    (long long)n->producer_id);
        break;
    case APPENDER_ORPHANS:
        flow_ledger(f, LEDGER_ORPHANS, p->topic->target, n->partition, n->offset, n->count,
                    "records of %s-%d that the source no longer has", topic, p->p);
        break;
    case APPENDER_TRIMMED:
        flow_ledger(f, LEDGER_TRIMMED, topic, p->p, n->number, n->count,
                    "source offsets that were deleted before a restart could compare them");
        break;
    case APPENDER_SPLIT:
        flow_ledger(f, LEDGER_SPLIT, p->topic->target, n->partition, 0, n->count,
                    "batches are cut to what the target takes");
        break;
    case APPENDER_APPEND_TIME:
        flow_ledger(f, LEDGER_APPEND_TIME, p->topic->target, n->partition, 0, 0,
                    "message.timestamp.type is LogAppendTime: timestamps are not the source's");
        break;
    }
}

/* Another source partition of this flow: where keys are hashed several write one target partition. */
static bool is_kin(void *arg, int64_t producer_id)
{
    const struct part *p = arg;
    struct flow_pid *id, *next;
    HASH_ITER (hh, p->flow->pids, id, next) {
        if (id->state == PID_HELD && id->producer_id == producer_id)
            return true;
    }
    return false;
}

static void on_room(void *arg)
{
    part_room(arg);
}

static const struct appender_events part_events = {.anchor = on_anchor,
                                                   .read_from = on_read_from,
                                                   .runs = on_runs,
                                                   .state = on_state,
                                                   .note = on_note,
                                                   .room = on_room};

/* ---- starting ---- */

static void again(void *arg)
{
    struct part *p = arg;
    if (p->topic->gone || p->topic->reborn)
        return; /* what comes is told */
    if (p->appender && p->parked)
        part_room(p);
    else
        part_start(p);
}

static void start_later(struct part *p, const char *why)
{
    assert(!p->appender);
    assert(!p->start_call);
    say(p, "%s", why);
    loop_timer_in(&p->retry, FLOW_RETRY_US / 5);
}

/* The lanes p can feed: its own number, or all of the target's partitions. */
static size_t lanes_of(const struct part *p)
{
    assert(p->topic->has_rule);
    return p->topic->rule.mode == ROUTE_KEEP ? 1 : (size_t)p->topic->rule.target_partitions;
}

static int32_t lane_q(const struct part *p, size_t i)
{
    return p->topic->rule.mode == ROUTE_KEEP ? p->p : (int32_t)i;
}

static int fill_points(struct part *p, struct store_view *v, const struct map_position *pos,
                       struct appender_point *points)
{
    for (size_t i = 0; i < lanes_of(p); i++) {
        int32_t q = lane_q(p, i);
        struct map_run last;
        points[i] = (struct appender_point){.partition = q, .end_epoch = -1, .timestamp_max = -1};
        for (size_t k = 0; pos && k < pos->lanes_n; k++)
            if (pos->lanes[k].q == q) {
                const struct map_lane *l = &pos->lanes[k];
                points[i] = (struct appender_point){q,
                                                    true,
                                                    l->number_next,
                                                    l->end_offset,
                                                    l->end_epoch,
                                                    l->source_next,
                                                    l->timestamp_max,
                                                    l->source_idle};
            }
        int rc = store_last_run(v, p->topic->number, p->p, q, &last);
        if (rc < 0)
            return rc;
        if ((rc = run_tail_lane(&p->tail, q, rc ? &last : NULL)))
            return rc;
    }
    return 0;
}

static void create_appender(struct part *p, struct store_view *v, const struct map_position *pos,
                            int64_t log_start)
{
    struct flow *f = p->flow;
    struct err err = {0};
    struct arena a;
    assert(!p->appender);
    assert(lanes_of(p) > 0);
    assert(p->id.producer_id >= 0);
    enum codec codec = CODEC_NONE;
    codec_parse(slice_str(f->o.flow->o.compression_type), &codec);
    arena_init(&a, lanes_of(p) * sizeof(struct appender_point) * 2 + 4096);
    struct appender_point *points = ARENA_NEWS(&a, struct appender_point, lanes_of(p));
    p->generation = pos ? pos->generation : 0;
    struct appender_options o = {.loop = f->loop,
                                 .client = f->target,
                                 .topic = slice_str(p->topic->target),
                                 .topic_id = pos ? pos->target_topic_id : p->topic->target_id,
                                 .producer_id = p->id.producer_id,
                                 .producer_epoch = (int16_t)(p->id.epoch + p->generation),
                                 .codec = (int)codec,
                                 .codec_level = CODEC_LEVEL_DEFAULT,
                                 .batch_max_bytes = (size_t)f->o.flow->o.max_request_size / 2,
                                 .budget = f->budget,
                                 .guard = &f->guard,
                                 .points = points,
                                 .points_n = lanes_of(p),
                                 .source_next = pos ? pos->next_offset : log_start,
                                 .source_epoch = pos ? pos->leader_epoch : -1,
                                 .fresh_needs_empty = p->topic->rule.mode == ROUTE_KEEP &&
                                                      !MUTANT("empty_progress_starts_at_0"),
                                 .kin = p->topic->rule.mode == ROUTE_HASH ? is_kin : NULL,
                                 .events = &part_events,
                                 .arg = p};
    int rc = points ? fill_points(p, v, pos, points) : -E_NOMEM;
    if (rc)
        err_set(&err, rc, "the store cannot be read: %s", err_str(rc));
    else
        rc = appender_create(&o, &p->appender, &err);
    assert((rc == 0) == (p->appender != NULL));
    arena_fini(&a);
    p->position = p->taken_next = o.source_next;
    p->topic->target_id = o.topic_id;
    if (rc)
        start_later(p, err.text);
}

static void on_log_start(void *arg, const struct client_response *r)
{
    struct part *p = arg;
    const struct kp_list_offsets_response *a = r->body;
    struct store_view *v;
    p->start_call = NULL;
    if (r->status || a->topics_n != 1 || a->topics[0].partitions_n != 1) {
        start_later(p, r->status ? r->err->text : "the source's log start is not answered");
        return;
    }
    const struct kp_list_offsets_response_partitions *o = &a->topics[0].partitions[0];
    struct err err;
    if (o->error_code || o->offset < 0)
        start_later(p, kafka_error_name(o->error_code));
    else if (store_view_open(p->flow->o.store, &v, &err))
        start_later(p, err.text);
    else {
        create_appender(p, v, NULL, o->offset);
        store_view_close(v);
    }
}

static void ask_log_start(struct part *p)
{
    assert(!p->start_call);
    assert(!p->appender);
    struct slice name = slice_str(p->topic->source);
    struct client_call *c = client_ask(
        p->flow->source, &(struct client_ask){.api = kp_key_list_offsets,
                                              .version_max = 7,
                                              .retry = CLIENT_RETRY_SAFE,
                                              .target = {.kind = CLIENT_LEADER, .name = name, .number = p->p},
                                              .on_response = on_log_start,
                                              .arg = p});
    struct kp_list_offsets_request *q = c ? c->body : NULL;
    struct kp_list_offsets_request_topics *t =
        c ? ARENA_NEWS(c->arena, struct kp_list_offsets_request_topics, 1) : NULL;
    struct kp_list_offsets_request_partitions *one =
        c ? ARENA_NEWS(c->arena, struct kp_list_offsets_request_partitions, 1) : NULL;
    if (!t || !one) {
        if (c)
            client_cancel(p->flow->source, c);
        start_later(p, "too many requests are open");
        return;
    }
    *one = (struct kp_list_offsets_request_partitions){p->p, -1, -2};
    *t = (struct kp_list_offsets_request_topics){name, one, 1};
    q->replica_id = -1;
    q->topics = t;
    q->topics_n = 1;
    p->start_call = c;
    client_send(p->flow->source, c);
}

void part_start(struct part *p)
{
    struct flow *f = p->flow;
    struct store_view *v;
    struct map_position pos;
    struct err err;
    if (p->appender || p->start_call || p->sm.state == PART_HALTED || f->sm.state != FLOW_RUNNING)
        return;
    assert(f->progress);
    assert(p->topic->has_rule);
    assert(p->topic->number > 0);
    struct flow_pid *id = flow_pid_get(f, p->p);
    if (!id) {
        say(p, "waits for a producer id of the target");
        return; /* save.c starts it when it is there */
    }
    p->id = (struct map_producer_id){id->producer_id, id->epoch, 0};
    if (store_view_open(f->o.store, &v, &err)) {
        start_later(p, err.text);
        return;
    }
    int rc = store_position(v, p->topic->number, p->p, &pos);
    if (rc < 0)
        part_halt(p, "its position in the store is damaged: delete the store, it is built again");
    else if (rc)
        create_appender(p, v, &pos, 0);
    store_view_close(v);
    if (rc == 0)
        ask_log_start(p);
}

int part_create(struct flow_topic *t, int32_t number, struct part **out)
{
    struct part *p = calloc(1, sizeof *p);
    assert(number == t->parts_n);
    if (!p)
        return -E_NOMEM;
    p->flow = t->flow;
    p->topic = t;
    p->p = number;
    p->source_end = p->timestamp_ms = p->damaged_at = -1;
    part_choose_engine(p);
    p->end_known_us = loop_now_us(t->flow->loop);
    p->still_next = -1;
    list_init(&p->held);
    list_init(&p->dirty);
    list_init(&p->saving);
    run_tail_init(&p->tail);
    sm_init(&p->sm, &part_sm, p, PART_STARTING);
    loop_timer_init(&p->retry, t->flow->loop, again, p);
    list_push(&t->flow->parts, &p->link);
    t->flow->parts_n++;
    flow_share_memory(t->flow);
    if (t->flow->o.metrics) {
        char text[16];
        snprintf(text, sizeof text, "%d", number);
        p->lag_records =
            metrics_cell(t->flow->o.metrics, 0, M_sundog_mirror_lag_records, t->flow->name, t->source, text);
        p->lag_seconds =
            metrics_cell(t->flow->o.metrics, 0, M_sundog_mirror_lag_seconds, t->flow->name, t->source, text);
    }
    *out = p;
    return 0;
}

void part_destroy(struct part *p)
{
    if (!p)
        return;
    part_stop_reading(p);
    assert(!p->assigned);
    assert(p->held_bytes == 0);
    if (p->start_call)
        client_cancel(p->flow->source, p->start_call);
    loop_timer_stop(&p->retry);
    appender_destroy(p->appender);
    run_tail_fini(&p->tail);
    if (list_linked(&p->dirty))
        list_remove(&p->dirty);
    if (list_linked(&p->saving))
        list_remove(&p->saving);
    list_remove(&p->link);
    assert(p->flow->parts_n > 0);
    p->flow->parts_n--;
    clear_reason(p);
    if (p->lag_records) {
        metrics_release(p->flow->o.metrics, p->lag_records);
        metrics_release(p->flow->o.metrics, p->lag_seconds);
    }
    free(p);
}
