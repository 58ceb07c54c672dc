/* Heartbeats, commits, leaving, and time: who is still there. */
#include "broker/group/group_internal.h"
#include "base/core/mutant.h"
#include "base/runtime/log.h"

static bool stale(const struct group *g, const struct group_caller *c)
{
    return c->generation != g->generation && !MUTANT("stale_generation_accepted");
}

void group_on_heartbeat(struct group *g, const struct group_event *e, struct group_now now,
                        struct group_effects *fx)
{
    int16_t error =
        group_in(g, GROUP_DEAD) ? KE_COORDINATOR_NOT_AVAILABLE : group_caller_check(g, &e->caller);
    if (error == KE_NONE && stale(g, &e->caller))
        error = KE_ILLEGAL_GENERATION;
    if (error == KE_NONE) {
        struct group_member *m = group_member_find(g, e->caller.member_id);
        assert(m);
        group_session_start(g, m, m->session_timeout_ms, now);
        error = group_in(g, GROUP_PREPARING) ? KE_REBALANCE_IN_PROGRESS : KE_NONE;
    }
    group_answer(fx, e->token, error);
}

/* A generation whose assignment was never committed owns nothing yet: should this broker fail now, the one before it
 * comes back from the log, and a commit of this one would be overtaken by that one's (S32). */
static int16_t check_commit(const struct group *g, const struct group_caller *c)
{
    if (group_in(g, GROUP_DEAD))
        return KE_COORDINATOR_NOT_AVAILABLE;
    if (c->generation < -1)
        return KE_ILLEGAL_GENERATION;
    if (c->generation < 0 && group_in(g, GROUP_EMPTY))
        return KE_NONE; /* a consumer that assigns itself, or an administrator */
    if (c->generation < 0 && c->member_id.n == 0 && slice_is_null(c->instance_id))
        return KE_UNKNOWN_MEMBER_ID;
    int16_t error = group_caller_check(g, c);
    if (error != KE_NONE)
        return error;
    if (stale(g, c))
        return KE_ILLEGAL_GENERATION;
    bool owned = group_in(g, GROUP_STABLE) ||
                 (group_in(g, GROUP_PREPARING) && g->generation_persisted == g->generation);
    return owned ? KE_NONE : KE_REBALANCE_IN_PROGRESS;
}

void group_on_commit(struct group *g, const struct group_event *e, struct group_now now,
                     struct group_effects *fx)
{
    int16_t error = check_commit(g, &e->caller);
    assert(error != KE_NONE || MUTANT("stale_generation_accepted") || e->caller.generation < 0 ||
           e->caller.generation == g->generation_persisted); /* S32 */
    struct group_member *m = group_member_find(g, e->caller.member_id);
    if (error == KE_NONE && m && !m->fresh)
        group_session_start(g, m, m->session_timeout_ms, now);
    group_answer(fx, e->token, error);
}

/* An administrator names an instance without its member id. */
static int16_t leave_one(struct group *g, const struct group_leaving *l, struct group_effects *fx)
{
    struct group_member *m;
    if (l->member_id.n == 0) {
        m = group_static_find(g, l->instance_id);
        if (!m)
            return KE_UNKNOWN_MEMBER_ID;
    } else if ((m = group_pending_find(g, l->member_id)) == NULL) {
        struct group_caller c = {l->member_id, l->instance_id, 0};
        int16_t error = group_caller_check(g, &c);
        if (error != KE_NONE)
            return error;
        m = group_member_find(g, l->member_id);
    }
    assert(m); /* checked, or found */
    group_member_remove(g, m, fx);
    return KE_NONE;
}

void group_on_leave(struct group *g, const struct group_event *e, struct group_now now,
                    struct group_effects *fx)
{
    if (group_in(g, GROUP_DEAD)) {
        group_answer(fx, e->token, KE_COORDINATOR_NOT_AVAILABLE);
        return;
    }
    size_t members_were = g->members_n, pending_were = g->pending_n;
    for (int32_t i = 0; i < e->leave.members_n; i++)
        e->leave.members[i].error = leave_one(g, &e->leave.members[i], fx);
    group_answer(fx, e->token, KE_NONE);
    bool fewer_pending = g->pending_n < pending_were && group_in(g, GROUP_PREPARING);
    if (g->members_n < members_were || fewer_pending)
        group_rebalance(g, now, fx);
}

/* ---- time ---- */

/* Who waits for an answer of ours need not heartbeat, except in its very first join. */
static bool excused(const struct group_member *m)
{
    return !m->fresh && (m->join || m->sync);
}

static bool expire_members(struct group *g, struct group_now now, struct group_effects *fx)
{
    bool some = false;
    list_each_safe(at, &g->members)
    {
        struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        if (m->session_due_us > now.us)
            continue;
        m->session_due_us = GROUP_NEVER; /* starts again with the answer */
        if (excused(m))
            continue;
        log_info("broker.group", "member failed group=%.*s member=%.*s session_ms=%d", SLICE_FMT(g->id),
                 SLICE_FMT(m->id), m->session_timeout_ms);
        group_member_remove(g, m, fx);
        some = true;
    }
    return some;
}

static bool expire_pending(struct group *g, struct group_now now, struct group_effects *fx)
{
    bool some = false;
    list_each_safe(at, &g->pending)
    {
        struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        if (m->session_due_us <= now.us) {
            group_member_remove(g, m, fx);
            some = true;
        }
    }
    return some;
}

void group_on_tick(struct group *g, struct group_now now, struct group_effects *fx)
{
    bool members = expire_members(g, now, fx);
    bool pending = expire_pending(g, now, fx);
    if (members || (pending && group_in(g, GROUP_PREPARING)))
        group_rebalance(g, now, fx);
    if (g->sync_due_us <= now.us)
        group_sync_due(g, now, fx);
    if (g->join_due_us <= now.us)
        group_join_due(g, now, fx);
    group_due_refresh(g);
}
