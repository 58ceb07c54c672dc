#include "mirror/flow/internal.h"

#include <assert.h>

#include "base/runtime/log.h"

/* What becomes of topics that the source has deleted. Where topics come and go all the time, nothing of them may stay.
 *
 * In memory (partitions, appenders, metrics): a topic that has been gone for GONE_US and has nothing under way
 * leaves. Should it come back, it begins again from the store, as after a restart of the daemon. In the store and
 * the progress topic: positions, runs and groups stay as long as the target has its copy, for its readers may still
 * be translated. Every ROUND_US the topics that are only there are asked for, at the source, then at the target;
 * what neither knows is forgotten. (A target that does not know its progress topic either is not believed.) Some at
 * a time; a refused or failed answer ends the round. The topic with the highest number of the store stays, so that
 * no number is ever given again. */

#define GONE_US      INT64_C(60000000)
#define ROUND_US     INT64_C(60000000)
#define STEP_US      INT64_C(500000)
#define BUSY_US      INT64_C(10000)
#define RETIRE_RUNS  20000 /* in one commit */
#define RETIRE_ARENA ((size_t)1 << 20)

/* ---- in memory ---- */

/* Whatever a halted partition has in flight will not be acknowledged any more. */
static bool may_leave(const struct flow_topic *t, int64_t now_us)
{
    if (!t->gone || t->reborn || t->again || now_us - t->gone_us < GONE_US)
        return false;
    for (int32_t p = 0; p < t->parts_n; p++) {
        const struct part *part = t->parts[p];
        if (part->sm.state == PART_HALTED ? list_linked(&part->saving) || list_linked(&part->dirty)
                                          : !part_finished(part))
            return false;
    }
    return true;
}

void flow_retire_tick(struct flow *f)
{
    struct flow_topic *t, *next;
    if (f->sm.state != FLOW_RUNNING || progress_busy(f->progress))
        return;
    HASH_ITER (hh, f->topics, t, next) {
        if (!may_leave(t, loop_now_us(f->loop)))
            continue;
        log_info(FLOW_AREA, "topic left flow=%s topic=%s: the source does not have it any more", f->name,
                 t->source);
        flow_topic_destroy(t);
    }
}

/* ---- in the store ---- */

static void round_again(struct flow *f, int64_t in_us)
{
    assert(!f->retire.call);
    arena_reset(&f->retire.arena);
    f->retire.n = 0;
    f->retire.decided = false;
    loop_timer_in(&f->retire.timer, in_us);
}

struct collecting {
    struct flow *f;
    uint32_t highest; /* of all topics */
};

static bool in_use(const struct flow *f, struct slice source)
{
    char name[512];
    return source.n >= sizeof name ||
           flow_topic_find((struct flow *)(uintptr_t)f, slice_cstr(source, name, sizeof name));
}

static int collect(void *arg, const struct stored_topic *t)
{
    struct collecting *c = arg;
    struct retire *r = &c->f->retire;
    c->highest = t->number;
    if (t->flow != progress_flow_number(c->f->progress) || t->number <= r->cursor || r->n == RETIRE_TOPICS ||
        t->topic.name.n == 0 || t->target_topic.n == 0)
        return 0;
    r->cursor = t->number;
    if (in_use(c->f, t->topic.name))
        return 0;
    assert(r->n < RETIRE_TOPICS);
    struct stored_topic *out = &r->topic[r->n];
    *out = *t;
    out->topic.name = arena_dup(&r->arena, t->topic.name);
    out->target_topic = arena_dup(&r->arena, t->target_topic);
    if (!arena_failed(&r->arena))
        r->n++;
    return 0;
}

static bool unknown(const struct kp_metadata_response *m, struct slice name)
{
    for (int32_t i = 0; i < m->topics_n; i++)
        if (slice_eq(m->topics[i].name, name))
            return m->topics[i].error_code == KE_UNKNOWN_TOPIC_OR_PARTITION;
    return false;
}

/* Is the answer of a broker that knows its topics? One that has just started may not. */
static bool believed(const struct flow *f, const struct kp_metadata_response *m)
{
    return !unknown(m, f->retire.progress_topic);
}

/* Keeps those of the list that this side does not know either. */
static void narrow(struct retire *r, const struct kp_metadata_response *m, bool target)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        if (unknown(m, target ? r->topic[i].target_topic : r->topic[i].topic.name))
            r->topic[n++] = r->topic[i];
    assert(n <= r->n);
    r->n = n;
}

static void forgotten(void *arg)
{
    (void)arg;
}

static void forget_all(struct flow *f)
{
    struct retire *r = &f->retire;
    size_t done = 0, positions = 0;
    assert(r->decided);
    assert(r->n > 0);
    assert(!progress_busy(f->progress));
    for (size_t i = 0; i < r->n; i++) {
        if (in_use(f, r->topic[i].topic.name)) /* it has come back meanwhile */
            continue;
        done += progress_forget_topic(f->progress, &r->topic[i], RETIRE_RUNS / RETIRE_TOPICS, &positions);
    }
    if (done > 0)
        log_info(FLOW_AREA, "topics forgotten flow=%s topics=%zu: neither side has them any more", f->name,
                 done);
    if (f->syncs)
        offset_syncs_gone(f->syncs, positions);
    progress_commit(f->progress, forgotten, f);
    if (f->checkpoint)
        checkpoint_wake(f->checkpoint);
}

static bool ask(struct flow *f, struct client *c,
                void (*answered)(void *arg, const struct client_response *r));

static void on_target(void *arg, const struct client_response *a)
{
    struct flow *f = arg;
    f->retire.call = NULL;
    bool good = a->status == 0 && believed(f, a->body);
    if (good)
        narrow(&f->retire, a->body, true);
    if (!good || f->retire.n == 0) {
        round_again(f, good ? STEP_US : ROUND_US);
        return;
    }
    f->retire.decided = true;
    loop_timer_in(&f->retire.timer, 0);
}

static bool name_progress_topic(struct flow *f);

static void on_source(void *arg, const struct client_response *a)
{
    struct flow *f = arg;
    f->retire.call = NULL;
    if (a->status == 0)
        narrow(&f->retire, a->body, false);
    if (a->status || f->retire.n == 0)
        round_again(f, a->status ? ROUND_US : STEP_US);
    else if (!name_progress_topic(f) || !ask(f, f->target, on_target))
        round_again(f, ROUND_US);
}

static bool name_progress_topic(struct flow *f)
{
    struct buf name;
    buf_init(&name, 1024);
    policy_progress_topic(f->policy.source, &name);
    f->retire.progress_topic = name.failed ? SLICE_NULL : arena_dup(&f->retire.arena, buf_slice(&name));
    buf_fini(&name);
    return !slice_is_null(f->retire.progress_topic);
}

static bool ask(struct flow *f, struct client *c,
                void (*answered)(void *arg, const struct client_response *r))
{
    struct retire *r = &f->retire;
    /* Not SAFE: that a topic is unknown is the answer. */
    struct client_call *call = client_ask(c, &(struct client_ask){.api = kp_key_metadata,
                                                                  .version_min = 4,
                                                                  .version_max = 12,
                                                                  .retry = CLIENT_RETRY_LOST,
                                                                  .target = {.kind = CLIENT_ANY},
                                                                  .on_response = answered,
                                                                  .arg = f});
    struct kp_metadata_request *q = call ? call->body : NULL;
    assert(!r->call);
    assert(r->n > 0);
    assert(r->n <= RETIRE_TOPICS);
    if (q)
        q->topics = ARENA_NEWS(call->arena, struct kp_metadata_request_topics, r->n + 1);
    if (!q || !q->topics) {
        if (call)
            client_cancel(c, call);
        return false;
    }
    for (size_t i = 0; i < r->n; i++)
        q->topics[q->topics_n++] = (struct kp_metadata_request_topics){
            .name = c == f->source ? r->topic[i].topic.name : r->topic[i].target_topic};
    if (c == f->target)
        q->topics[q->topics_n++] = (struct kp_metadata_request_topics){.name = r->progress_topic};
    q->allow_auto_topic_creation = false;
    r->call = call;
    r->asked = c;
    client_send(c, call);
    return true;
}

static void round_step(void *arg)
{
    struct flow *f = arg;
    struct retire *r = &f->retire;
    struct collecting c = {.f = f};
    struct store_view *v;
    assert(!r->call);
    assert((r->n == 0 || r->decided));
    if (progress_busy(f->progress)) { /* a commit is filled and begun at once */
        loop_timer_in(&r->timer, BUSY_US);
        return;
    }
    if (r->decided) {
        forget_all(f);
        round_again(f, STEP_US);
        return;
    }
    if (!f->sync || !f->source_contact.known || store_view_open(f->o.store, &v, NULL)) {
        round_again(f, ROUND_US);
        return;
    }
    int rc = store_topics_each(v, collect, &c);
    store_view_close(v);
    if (f->syncs)
        offset_syncs_tidy(f->syncs);
    if (r->n > 0 && r->topic[r->n - 1].number == c.highest)
        r->n--;
    if (rc || r->n == 0) {
        r->cursor = 0;
        round_again(f, ROUND_US);
    } else if (!ask(f, f->source, on_source)) {
        round_again(f, ROUND_US);
    }
}

void flow_retire_start(struct flow *f)
{
    arena_init(&f->retire.arena, RETIRE_ARENA);
    loop_timer_init(&f->retire.timer, f->loop, round_step, f);
    loop_timer_in(&f->retire.timer, ROUND_US);
}

void flow_retire_stop(struct flow *f)
{
    if (f->retire.call)
        client_cancel(f->retire.asked, f->retire.call);
    f->retire.call = NULL;
    if (f->retire.timer.loop) {
        loop_timer_stop(&f->retire.timer);
        arena_fini(&f->retire.arena);
    }
    f->retire.timer.loop = NULL;
}
