#include "mirror/flow/internal.h"

#include <assert.h>

#include "base/runtime/log.h"

/* Runs that lie below the log start of both sides translate nothing any more: they leave the store, and the progress
 * topic by tombstones. One lane at a time, each every PRUNE_US; the last run of a lane stays, it may still grow. */

#define PRUNE_US   INT64_C(600000000)
#define STEP_US    INT64_C(200000)
#define PRUNE_RUNS 20000 /* in one commit */

struct doomed {
    struct flow *f;
    struct flow_topic *t;
    int32_t p, q;
    int64_t source_start, target_start;
    struct map_run held; /* seen, not yet followed by another one: perhaps the last */
    bool holding;
    int n;
};

static void forget(struct doomed *d)
{
    /* Below the start of both sides, and not the lane's last: nothing translates by it any more. */
    assert(d->holding);
    assert(d->held.count > 0);
    assert(d->n < PRUNE_RUNS);
    assert(d->held.src_start + d->held.count <= d->source_start);
    assert(d->held.dst_start + d->held.count <= d->target_start);
    struct topic_key key = {slice_str(d->t->source), d->t->source_id};
    progress_forget_run(d->f->progress, d->t->number, &key, d->p, &d->held);
    d->n++;
}

static int each_run(void *arg, int32_t p, const struct map_run *r)
{
    struct doomed *d = arg;
    (void)p;
    if (r->q != d->q)
        return r->q > d->q;
    if (d->holding)
        forget(d);
    d->holding = r->src_start + r->count <= d->source_start && r->dst_start + r->count <= d->target_start;
    d->held = *r;
    return !d->holding || d->n == PRUNE_RUNS;
}

static void pruned(void *arg)
{
    (void)arg;
}

static void prune_lane(struct flow *f, struct flow_topic *t, int32_t p, int32_t q, int64_t source_start,
                       int64_t target_start)
{
    struct doomed d = {
        .f = f, .t = t, .p = p, .q = q, .source_start = source_start, .target_start = target_start};
    struct store_view *v;
    if (progress_busy(f->progress) || store_view_open(f->o.store, &v, NULL))
        return;
    int rc = store_runs_each(v, t->number, p, each_run, &d);
    store_view_close(v);
    if (rc < 0)
        log_warn(FLOW_AREA, "runs cannot be read flow=%s topic=%s partition=%d: %s", f->name, t->source, p,
                 err_str(rc));
    if (d.n)
        progress_commit(f->progress, pruned, f);
}

static struct part *part_at(struct flow *f, unsigned at)
{
    list_each (link, &f->parts)
        if (at-- == 0)
            return LIST_ENTRY(link, struct part, link);
    return NULL;
}

static void next_lane(struct flow *f)
{
    struct part *p = part_at(f, f->prune.part);
    f->prune.lane++;
    if (!p || !p->topic->has_rule || p->topic->rule.mode == ROUTE_KEEP ||
        f->prune.lane >= p->topic->rule.target_partitions) {
        f->prune.part++;
        f->prune.lane = 0;
    }
    bool round_ends = part_at(f, f->prune.part) == NULL;
    if (round_ends)
        f->prune.part = 0;
    loop_timer_in(&f->prune.timer, round_ends ? PRUNE_US : STEP_US);
}

static void on_target_start(void *arg, const struct client_response *r)
{
    struct flow *f = arg;
    const struct kp_list_offsets_response *a = r->body;
    assert(f->prune.call);
    f->prune.call = NULL;
    struct flow_topic *t, *next;
    bool good = r->status == 0 && a->topics_n == 1 && a->topics[0].partitions_n == 1 &&
                a->topics[0].partitions[0].error_code == 0;
    HASH_ITER (hh, f->topics, t, next) {
        if (good && t->number == f->prune.topic && f->sm.state == FLOW_RUNNING)
            prune_lane(f, t, f->prune.p, f->prune.q, f->prune.source_start,
                       a->topics[0].partitions[0].offset);
    }
    next_lane(f);
}

static bool ask_target_start(struct flow *f, struct part *p, int32_t q)
{
    struct slice name = slice_str(p->topic->target);
    struct client_call *c = client_ask(
        f->target, &(struct client_ask){.api = kp_key_list_offsets,
                                        .version_max = 7,
                                        .target = {.kind = CLIENT_LEADER, .name = name, .number = q},
                                        .on_response = on_target_start,
                                        .arg = f});
    struct kp_list_offsets_request *req = c ? c->body : NULL;
    struct kp_list_offsets_request_topics *t =
        c ? ARENA_NEWS(c->arena, struct kp_list_offsets_request_topics, 1) : NULL;
    struct kp_list_offsets_request_partitions *one =
        c ? ARENA_NEWS(c->arena, struct kp_list_offsets_request_partitions, 1) : NULL;
    if (c)
        name = arena_dup(c->arena, name); /* the topic may go while the answer is awaited */
    if (!t || !one || slice_is_null(name)) {
        if (c)
            client_cancel(f->target, c);
        return false;
    }
    *one = (struct kp_list_offsets_request_partitions){q, -1, -2};
    *t = (struct kp_list_offsets_request_topics){name, one, 1};
    req->replica_id = -1;
    req->topics = t;
    req->topics_n = 1;
    f->prune.call = c;
    f->prune.topic = p->topic->number;
    f->prune.p = p->p;
    f->prune.q = q;
    client_send(f->target, c);
    return true;
}

static void step(void *arg)
{
    struct flow *f = arg;
    struct part *p = part_at(f, f->prune.part);
    struct port_marks m;
    assert(!f->prune.call);
    bool runs =
        p && p->assigned && p->topic->has_rule && port_marks(f->ports[p->engine], p, &m) && m.log_start > 0;
    if (runs)
        f->prune.source_start = m.log_start;
    int32_t q = runs && p->topic->rule.mode == ROUTE_HASH ? f->prune.lane : p ? p->p : 0;
    if (!runs || !ask_target_start(f, p, q))
        next_lane(f);
}

void flow_prune_start(struct flow *f)
{
    loop_timer_init(&f->prune.timer, f->loop, step, f);
    loop_timer_in(&f->prune.timer, PRUNE_US);
}

void flow_prune_stop(struct flow *f)
{
    if (f->prune.call)
        client_cancel(f->target, f->prune.call);
    f->prune.call = NULL;
    loop_timer_stop(&f->prune.timer);
}
