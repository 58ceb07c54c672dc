/* A partition of __consumer_offsets comes here or goes away: its groups are loaded or unloaded. */
#include "broker/group/groups_internal.h"

#include <assert.h>

#include "base/runtime/log.h"

#include <stdlib.h>

static bool invariant(const void *owner, unsigned state)
{
    const struct coordinator *c = owner;
    if (state == COORDINATOR_GONE)
        return true;
    return (state == COORDINATOR_LOADING) == (c->load != NULL) && c->partition && c->index >= 0;
}

static const struct sm_state states[] = {
    [COORDINATOR_LOADING] = {"loading",
                             SM_TO(COORDINATOR_ACTIVE) | SM_TO(COORDINATOR_FAILED) | SM_TO(COORDINATOR_GONE)},
    [COORDINATOR_ACTIVE] = {"active", SM_TO(COORDINATOR_GONE)},
    [COORDINATOR_FAILED] = {"failed", SM_TO(COORDINATOR_GONE)},
    [COORDINATOR_GONE] = {"gone", SM_END},
};
static const struct sm_table coordinator_states = SM_TABLE("coordinator", states, invariant);

static struct coordinator *find(const struct groups *gs, int32_t index)
{
    struct coordinator *c = NULL;
    HASH_FIND(hh, gs->coordinators, &index, sizeof index, c);
    return c;
}

static void load(struct groups *gs, struct partition *p)
{
    struct coordinator *c = calloc(1, sizeof *c);
    assert(!find(gs, partition_index(p)));
    assert(partition_role(p) == PARTITION_LEADER);
    if (!c)
        goto nomem;
    c->magic = COORDINATOR_MAGIC;
    c->gs = gs;
    c->index = partition_index(p);
    c->partition = p;
    c->leader_epoch = partition_leader_epoch(p);
    list_init(&c->link);
    HASH_ADD(hh, gs->coordinators, index, sizeof c->index, c);
    if (!HASH_ADDED(c))
        goto nomem;
    if (load_begin(c)) {
        HASH_DEL(gs->coordinators, c);
        goto nomem;
    }
    sm_init(&c->state, &coordinator_states, c, COORDINATOR_LOADING);
    metric_add(gs->loading_cell, 1);
    list_push(&gs->loading, &c->link);
    groups_wake(gs);
    return;
nomem: /* COORDINATOR_LOAD_IN_PROGRESS is what its clients hear until it comes again */
    log_error("broker.group", "no memory to load groups partition=%d", partition_index(p));
    free(c);
}

static void end_load(struct coordinator *c, enum coordinator_state to)
{
    assert(sm_state(&c->state) == COORDINATOR_LOADING);
    assert(to != COORDINATOR_LOADING);
    load_end(c);
    if (list_linked(&c->link))
        list_remove(&c->link);
    metric_add(c->gs->loading_cell, -1);
    sm_move(&c->state, to);
}

void coordinator_active(struct coordinator *c)
{
    end_load(c, COORDINATOR_ACTIVE);
}

void coordinator_failed(struct coordinator *c)
{
    end_load(c, COORDINATOR_FAILED);
    struct hosted *h, *next;
    HASH_ITER (hh, c->hosted, h, next)
        hosted_drop(h, KE_COORDINATOR_NOT_AVAILABLE);
    assert(!c->hosted);
}

void coordinator_unload(struct coordinator *c, int16_t error)
{
    struct groups *gs = c->gs;
    assert(c->magic == COORDINATOR_MAGIC);
    assert(error != KE_NONE);
    assert(find(gs, c->index) == c);
    if (sm_state(&c->state) == COORDINATOR_LOADING)
        end_load(c, COORDINATOR_GONE);
    else
        sm_move(&c->state, COORDINATOR_GONE);
    struct hosted *h, *next;
    HASH_ITER (hh, c->hosted, h, next)
        hosted_drop(h, error);
    assert(!c->hosted);
    assert(!c->load);
    assert(!list_linked(&c->link));
    HASH_DEL(gs->coordinators, c);
    c->magic = 0;
    free(c);
    groups_wake(gs); /* for the answers */
}

static void on_changed(struct partition_watch *w, struct partition *p)
{
    struct groups *gs = LIST_ENTRY(w, struct groups, watch);
    struct coordinator *c = find(gs, partition_index(p));
    bool leads = partition_role(p) == PARTITION_LEADER && !gs->stopped;
    if (c && leads && c->partition == p && c->leader_epoch == partition_leader_epoch(p))
        return;
    if (c)
        coordinator_unload(c, KE_NOT_COORDINATOR);
    if (leads)
        load(gs, p);
}

static void on_gone(struct partition_watch *w, struct partition *p)
{
    struct groups *gs = LIST_ENTRY(w, struct groups, watch);
    struct coordinator *c = find(gs, partition_index(p));
    if (c && c->partition == p)
        coordinator_unload(c, KE_NOT_COORDINATOR);
}

void coordinators_watch(struct groups *gs)
{
    gs->watch = (struct partition_watch){.topic = GROUPS_TOPIC, .changed = on_changed, .gone = on_gone};
    partition_watch(gs->shard, &gs->watch);
}
