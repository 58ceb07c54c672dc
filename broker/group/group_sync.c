/* SyncGroup: the leader brings the assignments; they are given out when their record is committed. */
#include "broker/group/group_internal.h"
#include "base/core/mutant.h"

static bool differs(struct slice asked, struct slice is)
{
    return !slice_is_null(asked) && !slice_is_null(is) && !slice_eq(asked, is);
}

static int16_t check(const struct group *g, const struct group_event *e)
{
    if (group_in(g, GROUP_DEAD))
        return KE_COORDINATOR_NOT_AVAILABLE;
    int16_t error = group_caller_check(g, &e->caller);
    if (error != KE_NONE)
        return error;
    if (e->caller.generation != g->generation && !MUTANT("stale_generation_accepted"))
        return KE_ILLEGAL_GENERATION;
    if (differs(e->sync.protocol_type, g->protocol_type) || differs(e->sync.protocol_name, g->protocol_name))
        return KE_INCONSISTENT_GROUP_PROTOCOL;
    return group_in(g, GROUP_PREPARING) ? KE_REBALANCE_IN_PROGRESS : KE_NONE;
}

static int16_t take_assignments(struct group *g, const struct group_event *e, struct group_effects *fx)
{
    size_t bytes = 0;
    for (int32_t i = 0; i < e->sync.assignments_n; i++)
        bytes += e->sync.assignments[i].assignment.n;
    if (bytes > GROUP_REQUEST_BYTES_MAX || g->bytes + bytes > GROUP_BYTES_MAX + GROUP_REQUEST_BYTES_MAX)
        return KE_MESSAGE_TOO_LARGE;
    for (int32_t i = 0; i < e->sync.assignments_n; i++) {
        struct group_member *m = group_member_find(g, e->sync.assignments[i].member_id);
        if (!m)
            continue; /* the leader knows somebody whom we do not: nothing to give */
        bool ok = true;
        struct slice copy = group_dup(e->sync.assignments[i].assignment, &ok);
        if (!ok)
            return KE_COORDINATOR_NOT_AVAILABLE; /* those already taken are replaced when the leader comes again */
        group_member_assign(g, m, slice_is_null(copy) ? slice_of("", 0) : copy, fx);
    }
    return KE_NONE;
}

static void arrived(struct group *g, struct group_member *m)
{
    if (!m->sync_missing)
        return;
    assert(g->syncs_missing_n > 0);
    m->sync_missing = false;
    if (--g->syncs_missing_n == 0)
        g->sync_due_us = GROUP_NEVER;
}

/* A sync that is parked already belongs to a connection that the client has given up. */
static void park(struct group *g, struct group_member *m, void *token, struct group_effects *fx)
{
    assert(token);
    assert(!m->join); /* whoever syncs has had the answer to its join */
    if (m->sync)
        group_answer_sync(fx, m->sync, KE_REBALANCE_IN_PROGRESS);
    m->sync = token;
    arrived(g, m);
}

void group_on_sync(struct group *g, const struct group_event *e, struct group_now now,
                   struct group_effects *fx)
{
    (void)now;
    int16_t error = check(g, e);
    if (error != KE_NONE) {
        group_answer_sync(fx, e->token, error);
        return;
    }
    struct group_member *m = group_member_find(g, e->caller.member_id);
    assert(m);
    if (group_in(g, GROUP_STABLE)) {
        arrived(g, m);
        group_answer_sync(fx, e->token, KE_NONE);
        struct group_effect *a = &fx->v[fx->n - 1];
        a->sync.protocol_type = g->protocol_type;
        a->sync.protocol_name = g->protocol_name;
        a->sync.assignment = m->assignment;
        return;
    }
    assert(group_in(g, GROUP_COMPLETING));
    if (m == g->leader && g->syncing.ticket == 0) {
        error = take_assignments(g, e, fx);
        if (error != KE_NONE) {
            group_answer_sync(fx, e->token, error);
            return;
        }
        g->syncing.generation = g->generation;
        g->syncing.ticket = group_persist(g, true, fx);
    }
    park(g, m, e->token, fx);
}

static void assignment_persisted(struct group *g, int16_t error, struct group_now now,
                                 struct group_effects *fx)
{
    assert(group_in(g, GROUP_COMPLETING));
    assert(g->syncing.generation == g->generation);
    g->syncing.ticket = 0;
    if (error != KE_NONE) {
        group_answer_syncs(g, error, now, fx);
        group_rebalance(g, now, fx);
        return;
    }
    assert(g->joining_n == 0); /* S31: nobody is on the way to another generation */
    g->generation_persisted = g->generation;
    group_move(g, GROUP_STABLE, now);
    group_answer_syncs(g, KE_NONE, now, fx);
}

/* A static member's swap. When a rebalance has begun meanwhile, the parked join waits for that. */
static void swap_persisted(struct group *g, struct group_member *m, int16_t error, struct group_now now,
                           struct group_effects *fx)
{
    assert(m->swap.ticket);
    assert(m->join);
    assert(m->instance_id.n > 0);
    m->swap.ticket = 0;
    if (error == KE_NONE && !group_in(g, GROUP_STABLE))
        return;
    void *token = m->join;
    assert(g->joining_n > 0);
    m->join = NULL;
    g->joining_n--;
    group_session_start(g, m, m->session_timeout_ms, now);
    if (error != KE_NONE) {
        group_answer_join_error(fx, token, error, SLICE_NULL);
        return;
    }
    group_answer_join(g, m, token, fx);
    struct group_effect *a = &fx->v[fx->n - 1];
    if (m->swap.may_skip_assignment) {
        a->join.skip_assignment = m == g->leader;
    } else {
        /* Clients before v9 would assign anew as leaders: to them the leader is the id that is gone (KIP-345). */
        a->join.with_members = false;
        a->join.leader = m->swap.leader_was.n ? m->swap.leader_was : slice_of("", 0);
    }
}

void group_on_persisted(struct group *g, const struct group_event *e, struct group_now now,
                        struct group_effects *fx)
{
    if (group_in(g, GROUP_DEAD))
        return;
    if (g->syncing.ticket != 0 && g->syncing.ticket == e->persisted.ticket) {
        assignment_persisted(g, e->persisted.error, now, fx);
        return;
    }
    list_each (at, &g->members) {
        struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        if (m->swap.ticket == e->persisted.ticket && m->join) {
            swap_persisted(g, m, e->persisted.error, now, fx);
            return;
        }
    }
}
