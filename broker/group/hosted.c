/* A group and its offsets on this broker: found, stepped, dropped. */
#include "broker/group/groups_internal.h"

#include "base/runtime/log.h"

#include <stdlib.h>

struct hosted *hosted_find(const struct coordinator *c, struct slice group)
{
    struct hosted *h = NULL;
    if (group.n)
        HASH_FIND(hh, c->hosted, group.p, group.n, h);
    else
        for (h = c->hosted; h && group_id(h->group).n; h = h->hh.next)
            ; /* "" is a legal id for commits; uthash does not find keys without bytes everywhere */
    return h;
}

/* Time has passed for this group; it may have passed too early, for a session that was prolonged. */
static void on_due(struct groups_due *due)
{
    struct hosted *h = LIST_ENTRY(due, struct hosted, due);
    hosted_step(h, &(struct group_event){.kind = GROUP_TICK});
    hosted_forget_if_void(h);
}

struct hosted *hosted_add(struct coordinator *c, struct slice group)
{
    struct groups *gs = c->gs;
    assert(c->magic == COORDINATOR_MAGIC);
    assert(!hosted_find(c, group));
    struct hosted *h =
        gs->hosted_n < GROUPS_MAX || sm_state(&c->state) == COORDINATOR_LOADING ? calloc(1, sizeof *h) : NULL;
    if (!h)
        return NULL;
    h->at = c;
    h->gs = gs;
    h->due.fn = on_due;
    wheel_entry_init(&h->due.entry);
    offsets_init(&h->offsets);
    h->group = group_create(group, &gs->options.group, groups_now(gs));
    if (h->group) {
        struct slice id = group_id(h->group);
        HASH_ADD_KEYPTR(hh, c->hosted, id.p, id.n, h);
    }
    if (!h->group || !HASH_ADDED(h)) {
        group_destroy(h->group);
        free(h);
        return NULL;
    }
    gs->hosted_n++;
    metric_add(gs->groups_cell, 1);
    return h;
}

void hosted_free_if_done(struct hosted *h)
{
    if (h->at || h->ops)
        return;
    assert(h->gs->hosted_n > 0);
    assert(group_state(h->group) == GROUP_DEAD);
    groups_due_stop(h->gs, &h->due);
    offsets_fini(&h->offsets);
    group_destroy(h->group);
    free((void *)(uintptr_t)h->loaded.p);
    h->gs->hosted_n--;
    metric_add(h->gs->groups_cell, -1);
    free(h);
}

void hosted_drop(struct hosted *h, int16_t error)
{
    assert(h->at);
    assert(h->at->magic == COORDINATOR_MAGIC);
    hosted_step(h, &(struct group_event){.kind = GROUP_UNLOAD, .unload_error = error});
    groups_due_stop(h->gs, &h->due);
    HASH_DEL(h->at->hosted, h);
    h->at = NULL;
    hosted_free_if_done(h);
}

void hosted_forget_if_void(struct hosted *h)
{
    if (h->at && !h->recorded && !h->ops && h->offsets.entries_n == 0 && group_idle(h->group))
        hosted_drop(h, KE_COORDINATOR_NOT_AVAILABLE);
}

/* ---- steps ---- */

static void persist(struct hosted *h, const struct group_effect *e)
{
    struct groups *gs = h->gs;
    assert(!h->deleting);
    assert(h->failed_ticket == 0);
    struct group_op *op = group_op_begin(h, OP_GROUP, NULL);
    if (!op) {
        h->failed_ticket = e->persist.wanted ? e->persist.ticket : 0;
        return;
    }
    op->ticket = e->persist.wanted ? e->persist.ticket : 0;
    h->recorded = true;
    group_record_put_group(&op->builder, groups_now(gs).wall_ms,
                           h->group); /* a failure is sticky in the builder */
    group_op_write(op);
}

static int16_t carry_out(struct hosted *h)
{
    struct groups *gs = h->gs;
    int16_t error = KE_NONE;
    for (size_t i = 0; i < gs->fx.n; i++) {
        const struct group_effect *e = &gs->fx.v[i];
        switch (e->kind) {
        case GROUP_ANSWER_JOIN: hosted_answer_join(h, e); break;
        case GROUP_ANSWER_SYNC: hosted_answer_sync(h, e); break;
        case GROUP_ANSWER: error = e->error; break;
        case GROUP_PERSIST: persist(h, e); break;
        }
    }
    group_effects_clear(&gs->fx);
    assert(gs->stepping); /* nobody has stepped another group meanwhile */
    return error;
}

static void arm(struct hosted *h)
{
    int64_t due = group_due_us(h->group);
    if (due == GROUP_NEVER)
        groups_due_stop(h->gs, &h->due);
    else if (!h->due.entry.armed || due != h->due.entry.due_us)
        groups_due_at(h->gs, &h->due, due);
}

int16_t hosted_step(struct hosted *h, const struct group_event *e)
{
    struct groups *gs = h->gs;
    enum group_state was = group_state(h->group);
    assert(!gs->stepping);
    assert(h->at);
    gs->stepping = true;
    group_step(h->group, e, groups_now(gs), &gs->fx);
    int16_t error = carry_out(h);
    while (h->failed_ticket) {
        struct group_event failed = {.kind = GROUP_PERSISTED,
                                     .persisted = {h->failed_ticket, KE_COORDINATOR_NOT_AVAILABLE}};
        h->failed_ticket = 0;
        group_step(h->group, &failed, groups_now(gs), &gs->fx);
        carry_out(h);
    }
    gs->stepping = false;
    arm(h);
    assert(h->at);
    assert(h->due.entry.armed == (group_due_us(h->group) != GROUP_NEVER));
    if (group_state(h->group) == GROUP_STABLE && was == GROUP_COMPLETING)
        metric_add(gs->rebalances, 1);
    return error;
}
