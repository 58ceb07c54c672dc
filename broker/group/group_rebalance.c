/* The way from one generation to the next: prepare, wait for joins, elect, complete, wait for syncs. */
#include "broker/group/group_internal.h"
#include "base/runtime/log.h"

static bool state_invariant(const void *owner, unsigned state)
{
    const struct group *g = owner;
    switch ((enum group_state)state) {
    case GROUP_EMPTY: return g->members_n == 0 && slice_is_null(g->protocol_name);
    case GROUP_DEAD: return g->members_n == 0 && g->pending_n == 0;
    case GROUP_COMPLETING:
    case GROUP_STABLE:
        return g->members_n > 0 && g->leader && !slice_is_null(g->protocol_name) &&
               g->join_due_us == GROUP_NEVER;
    case GROUP_PREPARING: return g->sync_due_us == GROUP_NEVER && g->syncs_missing_n == 0;
    }
    return false;
}

static const struct sm_state states[] = {
    [GROUP_EMPTY] = {"Empty", SM_TO(GROUP_PREPARING) | SM_TO(GROUP_DEAD)},
    [GROUP_PREPARING] = {"PreparingRebalance",
                         SM_TO(GROUP_COMPLETING) | SM_TO(GROUP_EMPTY) | SM_TO(GROUP_DEAD)},
    [GROUP_COMPLETING] = {"CompletingRebalance",
                          SM_TO(GROUP_STABLE) | SM_TO(GROUP_PREPARING) | SM_TO(GROUP_DEAD)},
    [GROUP_STABLE] = {"Stable", SM_TO(GROUP_PREPARING) | SM_TO(GROUP_DEAD)},
    [GROUP_DEAD] = {"Dead", SM_END},
};
const struct sm_table group_state_table = SM_TABLE("group", states, state_invariant);

void group_move(struct group *g, enum group_state to, struct group_now now)
{
    assert(!group_in(g, to));
    g->state_before = (enum group_state)sm_state(&g->state);
    g->state_since_ms = now.wall_ms;
    sm_move(&g->state, to);
}

uint64_t group_persist(struct group *g, bool wanted, struct group_effects *fx)
{
    assert(!group_in(g, GROUP_PREPARING));
    assert(!group_in(g, GROUP_DEAD));
    assert(g->ticket < UINT64_MAX);
    struct group_effect *e = group_effect_push(fx, GROUP_PERSIST);
    e->persist.ticket = ++g->ticket;
    e->persist.wanted = wanted;
    return g->ticket;
}

/* ---- syncs ---- */

static void sync_wait_end(struct group *g)
{
    list_each (at, &g->members)
        LIST_ENTRY(at, struct group_member, link)->sync_missing = false;
    g->syncs_missing_n = 0;
    g->sync_due_us = GROUP_NEVER;
}

/* Sessions start anew with the answer: while a sync is parked, nobody asks for heartbeats. */
void group_answer_syncs(struct group *g, int16_t error, struct group_now now, struct group_effects *fx)
{
    list_each (at, &g->members) {
        struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        if (error != KE_NONE)
            group_member_assign(g, m, slice_of("", 0), fx);
        if (!m->sync)
            continue;
        group_answer_sync(fx, m->sync, error);
        if (error == KE_NONE) {
            struct group_effect *a = &fx->v[fx->n - 1];
            a->sync.protocol_type = g->protocol_type;
            a->sync.protocol_name = g->protocol_name;
            a->sync.assignment = m->assignment;
        }
        m->sync = NULL;
        group_session_start(g, m, m->session_timeout_ms, now);
    }
    assert(g->syncing.ticket == 0 || error != KE_NONE);
}

/* Members that were sent a generation and never synced: they hold the others up, so they go. */
void group_sync_due(struct group *g, struct group_now now, struct group_effects *fx)
{
    assert(group_in(g, GROUP_COMPLETING) || group_in(g, GROUP_STABLE));
    assert(g->syncs_missing_n > 0);
    assert(g->sync_due_us <= now.us);
    g->sync_due_us = GROUP_NEVER;
    list_each_safe(at, &g->members)
    {
        struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        if (m->sync_missing)
            group_member_remove(g, m, fx);
    }
    assert(g->syncs_missing_n == 0);
    group_rebalance(g, now, fx);
}

/* ---- preparing ---- */

static bool all_joined(const struct group *g)
{
    return g->joining_n == g->members_n && g->pending_n == 0;
}

/* An initial rebalance waits a little for more members, again each time that some came, up to the rebalance
 * timeout: a group of many that starts at once would rebalance once for each of them (KIP-134). */
static void initial_begin(struct group *g, struct group_now now)
{
    int64_t piece = (int64_t)g->config->initial_rebalance_delay_ms * 1000;
    int64_t whole = (int64_t)group_rebalance_timeout_ms(g) * 1000;
    assert(g->members_n > 0);
    assert(piece >= 0);
    assert(whole >= 0);
    g->initial = true;
    g->member_added = false;
    g->initial_left_us = whole > piece ? whole - piece : 0;
    g->join_due_us = now.us + piece;
    group_due_at_most(g, g->join_due_us);
}

static void prepare(struct group *g, struct group_now now, struct group_effects *fx)
{
    bool initial = group_in(g, GROUP_EMPTY);
    assert(!group_in(g, GROUP_DEAD));
    if (group_in(g, GROUP_COMPLETING))
        group_answer_syncs(g, KE_REBALANCE_IN_PROGRESS, now, fx);
    sync_wait_end(g);
    g->syncing.ticket = 0;
    group_move(g, GROUP_PREPARING, now);
    if (initial) {
        initial_begin(g, now);
    } else if (all_joined(g)) {
        group_complete_join(g, now, fx);
    } else {
        g->initial = false;
        g->join_due_us = now.us + (int64_t)group_rebalance_timeout_ms(g) * 1000;
        group_due_at_most(g, g->join_due_us);
    }
}

void group_rebalance(struct group *g, struct group_now now, struct group_effects *fx)
{
    if (!group_in(g, GROUP_PREPARING))
        prepare(g, now, fx);
    else if (!g->initial && all_joined(g))
        group_complete_join(g, now, fx);
}

void group_join_due(struct group *g, struct group_now now, struct group_effects *fx)
{
    assert(group_in(g, GROUP_PREPARING));
    assert(g->join_due_us <= now.us);
    if (!g->initial || !g->member_added || g->initial_left_us == 0) {
        group_complete_join(g, now, fx);
        return;
    }
    int64_t piece = (int64_t)g->config->initial_rebalance_delay_ms * 1000;
    if (piece > g->initial_left_us)
        piece = g->initial_left_us;
    g->member_added = false;
    g->initial_left_us -= piece;
    g->join_due_us = now.us + piece;
    group_due_at_most(g, g->join_due_us);
}

/* ---- completing ---- */

void group_answer_join(struct group *g, const struct group_member *m, void *token, struct group_effects *fx)
{
    assert(token);
    assert(g->leader);
    assert(g->generation > 0);
    assert(!slice_is_null(g->protocol_name));
    struct group_effect *a = group_effect_push(fx, GROUP_ANSWER_JOIN);
    a->token = token;
    a->join.generation = g->generation;
    a->join.protocol_type = g->protocol_type;
    a->join.protocol_name = g->protocol_name;
    a->join.leader = g->leader->id;
    a->join.member_id = m->id;
    a->join.with_members = m == g->leader;
}

/* The old leader stays if it has come, else the first who has. False: nobody has. */
static bool elect_leader(struct group *g)
{
    if (g->leader && g->leader->join)
        return true;
    list_each (at, &g->members) {
        struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        if (m->join) {
            g->leader = m;
            return true;
        }
    }
    return false;
}

static void drop_absent(struct group *g, struct group_effects *fx)
{
    list_each_safe(at, &g->members)
    {
        struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        if (!m->join && slice_is_null(m->instance_id))
            group_member_remove(g, m, fx);
    }
}

/* The name is a copy: the member that brought it may go before the group changes it. */
static bool choose_protocol(struct group *g, struct group_effects *fx)
{
    bool ok = true;
    struct slice name = g->members_n ? group_dup(group_protocol_elect(g), &ok) : SLICE_NULL;
    if (!ok)
        return false;
    group_dup_keep(fx, g->protocol_name);
    g->protocol_name = name;
    return true;
}

static void send_generation(struct group *g, struct group_now now, struct group_effects *fx)
{
    assert(g->syncs_missing_n == 0);
    assert(g->sync_due_us == GROUP_NEVER);
    assert(g->leader->join);
    list_each (at, &g->members) {
        struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        assert(!m->sync);
        assert(!m->sync_missing);
        if (m->join) {
            group_answer_join(g, m, m->join, fx);
            m->join = NULL;
            m->swap.ticket = 0;
            g->joining_n--;
        }
        group_member_assign(g, m, slice_of("", 0), fx);
        group_session_start(g, m, m->session_timeout_ms, now);
        m->fresh = false;
        m->sync_missing = true;
        g->syncs_missing_n++;
    }
    assert(g->joining_n == 0);
    assert(g->syncs_missing_n == g->members_n);
    g->sync_due_us = now.us + (int64_t)group_rebalance_timeout_ms(g) * 1000;
    group_due_at_most(g, g->sync_due_us);
}

static void join_again_in(struct group *g, int64_t delay_us, struct group_now now)
{
    assert(group_in(g, GROUP_PREPARING));
    assert(delay_us >= 0);
    g->initial = false;
    g->join_due_us = now.us + delay_us;
    group_due_at_most(g, g->join_due_us);
}

void group_complete_join(struct group *g, struct group_now now, struct group_effects *fx)
{
    assert(group_in(g, GROUP_PREPARING));
    drop_absent(g, fx);
    /* Only static members are left and none has come: their sessions decide. */
    if (g->members_n > 0 && !elect_leader(g)) {
        join_again_in(g, (int64_t)group_rebalance_timeout_ms(g) * 1000, now);
        return;
    }
    if (!choose_protocol(g, fx)) {
        join_again_in(g, 1000000, now); /* out of memory: once more in a second */
        return;
    }
    g->join_due_us = GROUP_NEVER;
    g->initial = false;
    if (g->generation == INT32_MAX)
        g->generation = g->generation_persisted = 0; /* the numbers begin anew */
    g->generation++;
    if (g->members_n == 0) {
        group_move(g, GROUP_EMPTY, now);
        g->generation_persisted = g->generation;
        group_persist(g, false, fx);
    } else {
        group_move(g, GROUP_COMPLETING, now);
        send_generation(g, now, fx);
    }
    log_info("broker.group", "generation group=%.*s generation=%d members=%zu protocol=%.*s",
             SLICE_FMT(g->id), g->generation, g->members_n, SLICE_FMT(g->protocol_name));
}
