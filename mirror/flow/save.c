#include "mirror/flow/internal.h"

#include <assert.h>
#include <stdlib.h>

#include "base/core/mutant.h"
#include "base/runtime/log.h"

/* Progress: every interval, or after FLOW_PROGRESS_RECORDS, what has been acknowledged since the last time is written
 * to the progress topic and then to the store. Only from acknowledged appends: appender_progress knows no others. */

/* One commit takes no more than this; the rest waits for the next. */
#define COMMIT_BYTES ((size_t)16 << 20)

static void save(void *arg);

/* ---- producer ids ---- */

static void ask_id(void *arg);

static void got_id(void *arg, int status, int64_t producer_id, int16_t epoch, const struct err *err)
{
    struct flow_pid *id = arg;
    assert(id->state == PID_ASKING);
    if (status) {
        log_warn(FLOW_AREA, "no producer id flow=%s partition=%d: %s", id->flow->name, id->p,
                 err ? err->text : err_str(status));
        loop_timer_in(&id->retry, FLOW_RETRY_US / 5);
        return;
    }
    id->producer_id = producer_id;
    id->epoch = epoch;
    id->state = PID_OFFERING;
    id->flow->offers_due = true;
    save_now(id->flow);
}

static void ask_id(void *arg)
{
    struct flow_pid *id = arg;
    assert(id->state == PID_ASKING);
    if (appender_producer_id(id->flow->target, got_id, id))
        loop_timer_in(&id->retry, FLOW_RETRY_US / 5);
}

struct flow_pid *flow_pid_get(struct flow *f, int32_t p)
{
    struct flow_pid *id;
    HASH_FIND_INT(f->pids, &p, id);
    if (id)
        return id->state == PID_HELD ? id : NULL;
    if (!(id = calloc(1, sizeof *id)))
        return NULL;
    id->flow = f;
    id->p = p;
    loop_timer_init(&id->retry, f->loop, ask_id, id);
    HASH_ADD_INT(f->pids, p, id);
    struct map_producer_id held;
    if (progress_producer_id(f->progress, p, &held)) {
        id->producer_id = held.producer_id;
        id->epoch = held.epoch;
        id->state = PID_HELD;
        return id;
    }
    ask_id(id);
    return NULL;
}

/* Ours or another daemon's: the one offered first holds, and all who wait for it may start. */
static void id_decided(struct flow_pid *id)
{
    struct map_producer_id held;
    struct flow *f = id->flow;
    assert(id->state == PID_OFFERING);
    assert(id->offered);
    id->offered = false;
    if (!progress_producer_id(f->progress, id->p, &held)) {
        f->offers_due = true; /* with the next commit */
        return;
    }
    id->producer_id = held.producer_id;
    id->epoch = held.epoch;
    id->state = PID_HELD;
    list_each (at, &f->parts) {
        struct part *p = LIST_ENTRY(at, struct part, link);
        if (p->p == id->p)
            part_start(p);
    }
}

void flow_pids_destroy(struct flow *f)
{
    struct flow_pid *id, *next;
    HASH_ITER (hh, f->pids, id, next) {
        HASH_DEL(f->pids, id);
        loop_timer_stop(&id->retry);
        free(id);
    }
}

/* ---- one commit ---- */

struct run_context {
    struct part *p;
    struct topic_key key;
};

static void put_run(void *arg, const struct map_run *r)
{
    struct run_context *c = arg;
    progress_put_run(c->p->flow->progress, c->p->topic->number, &c->key, c->p->p, r);
}

static struct map_lane lane_of(const struct appender_point *a)
{
    return (struct map_lane){.q = a->partition,
                             .number_next = a->number_next,
                             .end_offset = a->end_offset,
                             .source_next = a->source_next,
                             .timestamp_max = a->timestamp_max,
                             .source_idle = a->source_idle,
                             .end_epoch = a->end_epoch};
}

static void put_part(struct part *p)
{
    struct flow *f = p->flow;
    struct appender_progress ap;
    struct arena a;
    assert(p->appender);
    assert(p->topic->has_rule);
    assert(list_linked(&p->dirty));
    assert(!list_linked(&p->saving)); /* one commit at a time */
    assert(!p->anchor_saving);
    appender_progress(p->appender, &ap);
    arena_init(&a, ap.points_n * sizeof(struct map_lane) * 2 + 4096);
    struct map_lane *lanes = ARENA_NEWS(&a, struct map_lane, ap.points_n ? ap.points_n : 1);
    assert(lanes); /* sized for it; malloc's failure ends the process rather than a position */
    for (size_t i = 0; i < ap.points_n; i++)
        lanes[i] = lane_of(&ap.points[i]);
    struct run_context c = {p, {slice_str(p->topic->source), p->topic->source_id}};
    run_tail_take(&p->tail, put_run, &c);
    struct map_position pos = {.topic = c.key,
                               .p = p->p,
                               .next_offset = MUTANT("progress_before_ack") ? p->taken_next : ap.source_next,
                               .leader_epoch = ap.source_epoch,
                               .producer_id = p->id.producer_id,
                               .generation = p->generation,
                               .fingerprint = route_rule_fingerprint(p->topic->rule),
                               .target_topic = slice_str(p->topic->target),
                               .target_topic_id = p->topic->target_id,
                               .written_ms = loop_wall_ms(f->loop),
                               .lanes = lanes,
                               .lanes_n = ap.points_n};
    if (MUTANT("progress_before_ack"))
        for (size_t i = 0; i < ap.points_n; i++)
            lanes[i].source_next = p->taken_next;
    progress_put_position(f->progress, p->topic->number, &pos);
    p->position = ap.source_next;
    list_push(&f->saving, &p->saving);
    p->unsaved = 0;
    p->anchor_saving = p->anchor;
    p->anchor = false;
    list_remove(&p->dirty);
    arena_fini(&a);
}

static void ids_decided(struct flow *f)
{
    struct flow_pid *id, *next;
    f->offering = false;
    HASH_ITER (hh, f->pids, id, next) {
        if (id->offered)
            id_decided(id);
    }
}

static void saved(void *arg)
{
    struct flow *f = arg;
    f->saved_us = loop_now_us(f->loop);
    if (f->m_commits)
        metric_add(f->m_commits, 1);
    while (!list_empty(&f->saving)) {
        struct part *p = LIST_ENTRY(list_pop(&f->saving), struct part, saving);
        /* nothing is destroyed while it is saved */
        assert(p->appender);
        assert(p->flow == f);
        appender_saved(p->appender);
        if (p->anchor_saving)
            appender_anchored(p->appender);
        p->anchor_saving = false;
    }
    if (f->offering)
        ids_decided(f);
    if (f->hurry)
        save_now(f);
}

static bool put_offers(struct flow *f)
{
    struct flow_pid *id, *next;
    bool some = false;
    HASH_ITER (hh, f->pids, id, next) {
        if (id->state != PID_OFFERING || id->offered)
            continue;
        progress_offer(f->progress, id->p, id->producer_id, id->epoch);
        id->offered = some = true;
    }
    return some;
}

static void save(void *arg)
{
    struct flow *f = arg;
    if (!f->progress || progress_busy(f->progress)) {
        loop_timer_in(&f->progress_timer, INT64_C(10000));
        return;
    }
    bool some = f->offering = f->offers_due && put_offers(f);
    f->offers_due = false;
    list_each_safe(at, &f->dirty)
    {
        if (progress_bytes(f->progress) > COMMIT_BYTES)
            break;
        put_part(LIST_ENTRY(at, struct part, dirty));
        some = true;
    }
    f->unsaved = 0;
    f->hurry = !list_empty(&f->dirty);
    if (some)
        progress_commit(f->progress, saved, f);
    else
        f->saved_us = loop_now_us(f->loop);
    loop_timer_in(&f->progress_timer, (int64_t)f->o.flow->o.progress_ms * 1000);
}

void save_start(struct flow *f)
{
    loop_timer_init(&f->progress_timer, f->loop, save, f);
    f->saved_us = loop_now_us(f->loop);
    loop_timer_in(&f->progress_timer, (int64_t)f->o.flow->o.progress_ms * 1000);
}

void save_now(struct flow *f)
{
    if (f->progress_timer.loop)
        loop_timer_in(&f->progress_timer, 0);
}

bool save_idle(const struct flow *f)
{
    return list_empty(&f->dirty) && !progress_busy(f->progress);
}

/* ---- idle partitions ---- */

static void settled(void *arg)
{
    struct part *p = arg;
    assert(p->settling);
    p->settling = false;
    p->settled = true;
    part_mark(p);
}

/* Rule 16, and rule 23 where several partitions share a target: an idle partition's ends move with the others'
 * writes. */
static bool wants_settling(const struct part *p)
{
    bool shared = p->topic->rule.mode == ROUTE_HASH && p->topic->acked != p->others_seen;
    return p->sm.state == PART_CAUGHT_UP && !p->settling && (!p->settled || shared) &&
           loop_now_us(p->flow->loop) - p->idle_since_us >= FLOW_SETTLE_US;
}

void flow_settle(struct flow *f)
{
    list_each (at, &f->parts) {
        struct part *p = LIST_ENTRY(at, struct part, link);
        if (!wants_settling(p))
            continue;
        assert(p->appender);
        p->settling = true;
        p->others_seen = p->topic->acked;
        appender_settle(p->appender, settled, p);
    }
}
