/* The shard's groups as a whole: made, woken, looked up, stopped. */
#include "broker/group/groups_internal.h"

#include <assert.h>

#include "base/core/mutant.h"
#include "broker/metadata/image.h"

#include <stdlib.h>

struct group_now groups_now(const struct groups *gs)
{
    return (struct group_now){.us = loop_now_us(gs->shard->loop), .wall_ms = loop_wall_ms(gs->shard->loop)};
}

/* ---- the turns ---- */

void groups_wake(struct groups *gs)
{
    if (!gs->work_posted) {
        gs->work_posted = true;
        loop_post(gs->shard->loop, &gs->work);
    }
}

static void on_work(struct loop_msg *msg)
{
    struct groups *gs = LIST_ENTRY(msg, struct groups, work);
    assert(gs->magic == GROUPS_MAGIC);
    gs->work_posted = false;
    group_ops_finished(gs);
    if (loads_turn(gs))
        groups_wake(gs);
    groups_flush(gs);
}

static void arm(struct groups *gs)
{
    int64_t next = wheel_next(&gs->wheel);
    if (next == INT64_MAX)
        loop_timer_stop(&gs->timer);
    else if (!gs->timer.armed || gs->timer.due_us != next)
        loop_timer_at(&gs->timer, next);
}

void groups_due_at(struct groups *gs, struct groups_due *due, int64_t due_us)
{
    assert(due->fn);
    assert(due_us != INT64_MAX);
    wheel_add(&gs->wheel, &due->entry, due_us);
    arm(gs);
}

void groups_due_stop(struct groups *gs, struct groups_due *due)
{
    if (due->entry.armed)
        wheel_remove(&gs->wheel, &due->entry);
}

static void on_timer(void *arg)
{
    struct groups *gs = arg;
    struct wheel_entry *e;
    while ((e = wheel_pop(&gs->wheel, loop_now_us(gs->shard->loop))) != NULL) {
        struct groups_due *due = LIST_ENTRY(e, struct groups_due, entry);
        due->fn(due);
    }
    arm(gs);
    groups_flush(gs);
}

static void on_check(void *arg)
{
    struct groups *gs = arg;
    groups_expire(gs);
    loop_timer_in(&gs->check, gs->options.retention_check_ms * 1000);
    groups_flush(gs);
}

void groups_answer(struct groups *gs, struct groups_call *call, int16_t error)
{
    assert(call->done);
    assert(!list_linked(&call->link));
    assert(call->left == 0); /* once, and when nothing is on its way */
    call->error = error;
    if (error && call->fill)
        call->fill(call, error);
    list_push(&gs->answered, &call->link);
}

void groups_flush(struct groups *gs)
{
    assert(!gs->stepping);
    while (!list_empty(&gs->answered)) {
        struct groups_call *call = LIST_ENTRY(list_pop(&gs->answered), struct groups_call, link);
        call->done(call);
    }
}

/* ---- which group is where ---- */

int32_t groups_partition_of(struct slice group, int32_t partitions)
{
    uint32_t h = 0; /* Java's String.hashCode; ids are ASCII in practice, others hash by their bytes */
    for (size_t i = 0; i < group.n; i++)
        h = 31 * h + group.p[i];
    /* Kafka's abs: the one number without a positive counterpart counts as 0. */
    int32_t positive = (int32_t)h == INT32_MIN ? 0 : abs((int32_t)h);
    assert(partitions > 0);
    return positive % partitions;
}

static const struct image_topic *offsets_topic(const struct shard *shard)
{
    return shard->image ? image_topic(shard->image, SLICE_LIT(GROUPS_TOPIC)) : NULL;
}

struct shard *groups_shard_of(const struct shard *shard, struct slice group)
{
    const struct image_topic *t = offsets_topic(shard);
    if (!t || t->partitions_n <= 0)
        return NULL;
    return shard_of(shard, &t->id, groups_partition_of(group, t->partitions_n));
}

/* The image says that the partition is led here, and it is not open yet: on a shard that is not the controller's that
 * comes a moment later than FindCoordinator's answer. */
static bool on_its_way(const struct groups *gs, const struct image_topic *t, int32_t index)
{
    const struct image_partition *p = image_partition(t, index);
    return p && p->leader == gs->options.node_id;
}

struct coordinator *groups_coordinator(struct groups *gs, struct slice group, int16_t *error)
{
    const struct image_topic *t = offsets_topic(gs->shard);
    struct coordinator *c = NULL;
    *error = KE_NOT_COORDINATOR;
    if (!t || t->partitions_n <= 0 || gs->stopped)
        return NULL;
    int32_t index = groups_partition_of(group, t->partitions_n);
    assert(index >= 0);
    assert(index < t->partitions_n);
    HASH_FIND(hh, gs->coordinators, &index, sizeof index, c);
    if (!c) {
        if (on_its_way(gs, t, index))
            *error = KE_COORDINATOR_LOAD_IN_PROGRESS;
        return NULL;
    }
    assert(c->magic == COORDINATOR_MAGIC);
    assert(c->index == index);
    switch ((enum coordinator_state)sm_state(&c->state)) {
    case COORDINATOR_ACTIVE: *error = KE_NONE; return c;
    case COORDINATOR_LOADING:
        *error = KE_COORDINATOR_LOAD_IN_PROGRESS;
        return MUTANT("group_load_answers_zero") ? (*error = KE_NONE, c) : NULL;
    default: *error = KE_COORDINATOR_NOT_AVAILABLE; return NULL;
    }
}

struct hosted *groups_find(struct groups *gs, struct slice group, struct coordinator **at, int16_t *error)
{
    struct coordinator *c = groups_coordinator(gs, group, error);
    *at = c;
    assert((c != NULL) == (*error == KE_NONE));
    struct hosted *h = c ? hosted_find(c, group) : NULL;
    if (h && h->deleting) {
        *error = KE_COORDINATOR_NOT_AVAILABLE;
        return NULL;
    }
    return h;
}

/* ---- images ---- */

static void on_topic_removed(void *arg, const struct image_topic *was)
{
    groups_forget_topic(arg, was->name);
}

void groups_on_image(struct groups *gs, const struct image *was, const struct image *now)
{
    static const struct image_changes changes = {.topic_removed = on_topic_removed};
    if (was)
        image_diff(was, now, &changes, gs);
    groups_flush(gs);
}

/* ---- life ---- */

static void take_cells(struct groups *gs)
{
    struct metrics *m = gs->shard->metrics;
    unsigned s = gs->shard->index;
    gs->groups_cell = metrics_cell(m, s, M_sundog_broker_groups);
    gs->loading_cell = metrics_cell(m, s, M_sundog_broker_group_logs_loading);
    gs->rebalances = metrics_cell(m, s, M_sundog_broker_group_rebalances_total);
    gs->commits = metrics_cell(m, s, M_sundog_broker_offset_commits_total);
    gs->records_failed = metrics_cell(m, s, M_sundog_broker_group_records_failed_total);
}

struct groups *groups_create(struct shard *shard, const struct groups_options *options)
{
    assert(!shard->groups);
    assert(shard->partitions);
    assert(options->commit_timeout_ms > 0);
    struct groups *gs = calloc(1, sizeof *gs);
    if (!gs)
        return NULL;
    gs->magic = GROUPS_MAGIC;
    gs->shard = shard;
    gs->options = *options;
    list_init(&gs->loading);
    list_init(&gs->finished);
    list_init(&gs->answered);
    gs->work.fn = on_work;
    wheel_init(&gs->wheel, loop_now_us(shard->loop));
    loop_timer_init(&gs->timer, shard->loop, on_timer, gs);
    loop_timer_init(&gs->check, shard->loop, on_check, gs);
    group_effects_init(&gs->fx);
    take_cells(gs);
    shard->groups = gs;
    coordinators_watch(gs);
    loop_timer_in(&gs->check, gs->options.retention_check_ms * 1000);
    return gs;
}

void groups_stop(struct groups *gs)
{
    assert(gs->magic == GROUPS_MAGIC);
    assert(!gs->stepping);
    gs->stopped = true;
    struct coordinator *c, *next;
    HASH_ITER (hh, gs->coordinators, c, next)
        coordinator_unload(c, KE_NOT_COORDINATOR);
    loop_timer_stop(&gs->check);
    assert(!gs->coordinators);
    assert(list_empty(&gs->loading));
    groups_flush(gs);
}

void groups_destroy(struct groups *gs)
{
    if (!gs)
        return;
    if (!gs->stopped)
        groups_stop(gs);
    group_ops_finished(gs); /* the partitions have given them back */
    groups_flush(gs);
    assert(!gs->coordinators);
    assert(gs->hosted_n == 0);
    assert(gs->ops_n == 0);
    assert(list_empty(&gs->finished));
    assert(list_empty(&gs->answered));
    assert(gs->wheel.count == 0);
    loop_timer_stop(&gs->timer);
    struct metric_cell *cells[] = {gs->groups_cell, gs->loading_cell, gs->rebalances, gs->commits,
                                   gs->records_failed};
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
        metrics_release(gs->shard->metrics, cells[i]);
    group_effects_fini(&gs->fx);
    gs->shard->groups = NULL;
    gs->magic = 0;
    free(gs);
}
