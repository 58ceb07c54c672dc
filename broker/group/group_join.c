/* JoinGroup: new members, members that come again, static members in place of their predecessors. */
#include "broker/group/group_internal.h"

static size_t join_bytes(const struct group_event *e)
{
    size_t n = e->join.client_id.n + e->join.client_host.n + e->join.protocol_type.n;
    for (int32_t i = 0; i < e->join.protocols_n; i++)
        n += e->join.protocols[i].name.n + e->join.protocols[i].metadata.n;
    return n;
}

/* Counts those who wait, not those who are members: so a group that is over a lowered limit sheds its last joiners. */
static bool has_room(const struct group *g, const struct group_member *m)
{
    size_t most = (size_t)g->config->members_max;
    assert(!m || !m->pending);
    if (group_in(g, GROUP_EMPTY))
        return true;
    if (group_in(g, GROUP_PREPARING))
        return (m && m->join) || g->joining_n < most;
    return m || g->members_n < most;
}

static int16_t check_limits(const struct group *g, const struct group_event *e, const struct group_member *m)
{
    if (e->join.session_timeout_ms < g->config->session_min_ms ||
        e->join.session_timeout_ms > g->config->session_max_ms)
        return KE_INVALID_SESSION_TIMEOUT;
    if (e->join.rebalance_timeout_ms < 0)
        return KE_INVALID_REQUEST;
    if (e->join.protocols_n > GROUP_PROTOCOLS_MAX)
        return KE_INCONSISTENT_GROUP_PROTOCOL;
    size_t bytes = join_bytes(e);
    if (bytes > GROUP_REQUEST_BYTES_MAX || g->bytes - (m ? m->bytes : 0) + bytes > GROUP_BYTES_MAX)
        return KE_GROUP_MAX_SIZE_REACHED;
    return KE_NONE;
}

static bool take_protocol_type(struct group *g, const struct group_event *e, struct group_effects *fx)
{
    if (g->members_n > 0 || slice_eq(g->protocol_type, e->join.protocol_type))
        return true;
    bool ok = true;
    struct slice type = group_dup(e->join.protocol_type, &ok);
    if (!ok)
        return false;
    group_dup_keep(fx, g->protocol_type);
    g->protocol_type = type;
    return true;
}

/* A new member cannot heartbeat while its join is parked, so its session is the join's own time-out: clients that gave
 * up must not pile up as members. */
static void add_member(struct group *g, const struct group_event *e, struct slice id, struct group_now now,
                       struct group_effects *fx)
{
    assert(id.n > 0);
    assert(!group_member_find(g, id));
    struct group_member *m = group_member_create(e, id);
    struct group_member *pending = group_pending_find(g, id);
    if (!m || !take_protocol_type(g, e, fx))
        goto nomem;
    if (pending)
        group_member_remove(g, pending, fx);
    if (!group_member_add(g, m))
        goto nomem;
    m->fresh = true;
    group_park_join(g, m, e->token, fx);
    group_session_start(g, m, g->config->new_member_join_timeout_ms, now);
    assert(!group_in(g, GROUP_DEAD));
    assert(g->bytes <= GROUP_BYTES_MAX + 2 * GROUP_REQUEST_BYTES_MAX);
    if (group_in(g, GROUP_PREPARING) && g->initial)
        g->member_added = true;
    group_rebalance(g, now, fx);
    return;
nomem:
    group_member_destroy(m);
    group_answer_join_error(fx, e->token, KE_COORDINATOR_NOT_AVAILABLE, e->caller.member_id);
}

/* False: out of memory, and answered. */
static bool update_member(struct group *g, struct group_member *m, const struct group_event *e,
                          struct slice id, struct group_effects *fx)
{
    struct group_member *next = group_member_create(e, id);
    if (next && group_member_replace(g, m, next, fx))
        return true;
    group_member_destroy(next);
    group_answer_join_error(fx, e->token, KE_COORDINATOR_NOT_AVAILABLE, e->caller.member_id);
    return false;
}

static void update_and_rebalance(struct group *g, struct group_member *m, const struct group_event *e,
                                 struct group_now now, struct group_effects *fx)
{
    if (!update_member(g, m, e, m->id, fx))
        return;
    group_park_join(g, m, e->token, fx);
    group_rebalance(g, now, fx);
}

/* A member that is known comes again. */
static void join_member(struct group *g, struct group_member *m, const struct group_event *e,
                        struct group_now now, struct group_effects *fx)
{
    bool same = group_protocols_same(m, e);
    /* In Completing it may have missed the answer. In Stable a follower without news need not disturb the others, but
     * the leader may have seen what its metadata does not show, such as new partitions. */
    if (same && (group_in(g, GROUP_COMPLETING) || (group_in(g, GROUP_STABLE) && m != g->leader)))
        group_answer_join(g, m, e->token, fx);
    else
        update_and_rebalance(g, m, e, now, fx);
}

/* ---- static members (KIP-345) ---- */

static void fence(struct group *g, struct group_member *m, struct group_effects *fx)
{
    if (m->join) {
        group_answer_join_error(fx, m->join, KE_FENCED_INSTANCE_ID, m->id);
        m->join = NULL;
        m->swap.ticket = 0;
        g->joining_n--;
    }
    if (m->sync) {
        group_answer_sync(fx, m->sync, KE_FENCED_INSTANCE_ID);
        m->sync = NULL;
    }
    assert(!m->swap.ticket); /* only a parked join waits for one */
}

static bool needs_rebalance(const struct group *g, const struct group_member *m,
                            struct slice subscription_was)
{
    if (!slice_eq(group_protocol_elect(g), g->protocol_name))
        return true;
    return !group_same_topics(g->protocol_type, subscription_was,
                              group_protocol_metadata(m, g->protocol_name));
}

/* In a Stable group the new process takes over its predecessor's assignment, once the record says so. */
static void swap_in_stable(struct group *g, struct group_member *m, const struct group_event *e,
                           struct slice leader_was, struct group_effects *fx)
{
    bool ok = true;
    assert(group_in(g, GROUP_STABLE));
    assert(m->join);
    assert(!m->swap.ticket);
    assert(g->syncing.ticket == 0);
    struct slice was = group_dup(leader_was, &ok);
    group_dup_keep(fx, m->swap.leader_was);
    m->swap.leader_was = ok ? was : SLICE_NULL;
    m->swap.may_skip_assignment = e->join.may_skip_assignment;
    m->swap.ticket = group_persist(g, true, fx);
}

static void replace_static(struct group *g, struct group_member *m, const struct group_event *e,
                           struct group_now now, struct group_effects *fx)
{
    assert(!group_in(g, GROUP_EMPTY));
    assert(m->instance_id.n > 0);
    assert(g->leader);
    struct slice leader_was = g->leader->id; /* kept by the effects when it changes */
    struct slice subscription_was = group_protocol_metadata(m, g->protocol_name);
    struct slice id_was = m->id;
    if (!update_member(g, m, e, e->join.fresh_member_id, fx))
        return;
    /* The answers name the old id: m->id is the new one by now. */
    struct slice id = m->id;
    m->id = id_was;
    fence(g, m, fx);
    m->id = id;
    group_session_start(g, m, m->session_timeout_ms, now);
    group_park_join(g, m, e->token, fx);
    if (group_in(g, GROUP_STABLE) && !needs_rebalance(g, m, subscription_was))
        swap_in_stable(g, m, e, leader_was, fx);
    else
        group_rebalance(g, now, fx); /* in Completing the leader may have the old id in hand */
}

/* ---- new ones ---- */

/* Known by its id only from its second join on: a client that gives up leaves no member behind (KIP-394). */
static void add_pending(struct group *g, const struct group_event *e, struct group_now now,
                        struct group_effects *fx)
{
    assert(e->join.fresh_member_id.n > 0);
    struct group_member *m = group_pending_create(e->join.fresh_member_id);
    if (!m || !group_member_add(g, m)) {
        group_member_destroy(m);
        group_answer_join_error(fx, e->token, KE_COORDINATOR_NOT_AVAILABLE, SLICE_NULL);
        return;
    }
    group_session_start(g, m, e->join.session_timeout_ms, now);
    group_answer_join_error(fx, e->token, KE_MEMBER_ID_REQUIRED, m->id);
}

static void join_unknown(struct group *g, const struct group_event *e, struct group_now now,
                         struct group_effects *fx)
{
    struct group_member *known = group_static_find(g, e->caller.instance_id);
    if (!group_protocols_fit(g, e, known))
        group_answer_join_error(fx, e->token, KE_INCONSISTENT_GROUP_PROTOCOL, SLICE_NULL);
    else if (known)
        replace_static(g, known, e, now, fx);
    else if (slice_is_null(e->caller.instance_id) && e->join.member_id_required)
        add_pending(g, e, now, fx);
    else
        add_member(g, e, e->join.fresh_member_id, now, fx);
}

static void join_known(struct group *g, const struct group_event *e, struct group_now now,
                       struct group_effects *fx)
{
    struct group_member *m = group_member_find(g, e->caller.member_id);
    int16_t error = KE_NONE;
    if (!group_protocols_fit(g, e, m))
        error = KE_INCONSISTENT_GROUP_PROTOCOL;
    else if (group_pending_find(g, e->caller.member_id))
        error = slice_is_null(e->caller.instance_id) ? KE_NONE : KE_UNKNOWN_MEMBER_ID;
    else
        error = group_caller_check(g, &e->caller);
    assert(error != KE_NONE || m || group_pending_find(g, e->caller.member_id));
    if (error != KE_NONE)
        group_answer_join_error(fx, e->token, error, e->caller.member_id);
    else if (m)
        join_member(g, m, e, now, fx);
    else
        add_member(g, e, e->caller.member_id, now, fx);
}

void group_on_join(struct group *g, const struct group_event *e, struct group_now now,
                   struct group_effects *fx)
{
    if (group_in(g, GROUP_DEAD)) {
        group_answer_join_error(fx, e->token, KE_COORDINATOR_NOT_AVAILABLE, e->caller.member_id);
        return;
    }
    struct group_member *m = group_member_find(g, e->caller.member_id);
    int16_t error = check_limits(g, e, m);
    if (error != KE_NONE) {
        group_answer_join_error(fx, e->token, error, e->caller.member_id);
    } else if (!has_room(g, m)) {
        struct group_member *out = m ? m : group_pending_find(g, e->caller.member_id);
        group_answer_join_error(fx, e->token, KE_GROUP_MAX_SIZE_REACHED, SLICE_NULL);
        if (out) {
            group_member_remove(g, out, fx);
            group_rebalance(g, now, fx);
        }
    } else if (e->caller.member_id.n == 0) {
        join_unknown(g, e, now, fx);
    } else {
        join_known(g, e, now, fx);
    }
}
