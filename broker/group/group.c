#include "broker/group/group_internal.h"
#include "base/core/err.h"

struct group *group_create(struct slice id, const struct group_config *config, struct group_now now)
{
    assert(config);
    assert(config->members_max > 0);
    struct group *g = group_block(sizeof *g);
    bool ok = g != NULL;
    if (!ok)
        return NULL;
    g->magic = GROUP_MAGIC;
    g->config = config;
    g->id = group_dup(id, &ok);
    if (!ok) {
        group_block_free(g);
        return NULL;
    }
    list_init(&g->members);
    list_init(&g->pending);
    g->state_since_ms = now.wall_ms;
    g->due_us = g->join_due_us = g->sync_due_us = GROUP_NEVER;
    g->bytes = sizeof *g + id.n;
    sm_init(&g->state, &group_state_table, g, GROUP_EMPTY);
    return g;
}

static void destroy_all(struct list *l)
{
    list_each_safe(at, l)
    {
        list_remove(at);
        group_member_destroy(LIST_ENTRY(at, struct group_member, link));
    }
}

void group_destroy(struct group *g)
{
    if (!g)
        return;
    assert(g->magic == GROUP_MAGIC);
    assert(g->joining_n == 0); /* everybody has been answered */
    HASH_CLEAR(by_id, g->by_id);
    HASH_CLEAR(by_instance, g->by_instance);
    destroy_all(&g->members);
    destroy_all(&g->pending);
    group_dup_free(g->id);
    group_dup_free(g->protocol_type);
    group_dup_free(g->protocol_name);
    g->magic = 0;
    group_block_free(g);
}

static void unload(struct group *g, int16_t error, struct group_now now, struct group_effects *fx)
{
    list_each (at, &g->members) {
        struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        if (m->join) {
            group_answer_join_error(fx, m->join, error, m->id);
            m->join = NULL;
            g->joining_n--;
        }
        if (m->sync) {
            group_answer_sync(fx, m->sync, error);
            m->sync = NULL;
        }
    }
    struct list *both[] = {&g->members, &g->pending};
    for (size_t i = 0; i < 2; i++)
        list_each_safe(at, both[i]) group_member_remove(g, LIST_ENTRY(at, struct group_member, link), fx);
    g->due_us = g->join_due_us = g->sync_due_us = GROUP_NEVER;
    g->syncing.ticket = 0;
    g->initial = false;
    if (!group_in(g, GROUP_DEAD))
        group_move(g, GROUP_DEAD, now);
    assert(g->members_n == 0);
    assert(g->pending_n == 0);
    assert(g->joining_n == 0);
    assert(g->syncs_missing_n == 0);
}

static void refuse(const struct group_event *e, struct group_effects *fx)
{
    if (e->kind == GROUP_JOIN)
        group_answer_join_error(fx, e->token, KE_COORDINATOR_NOT_AVAILABLE, e->caller.member_id);
    else if (e->kind == GROUP_SYNC)
        group_answer_sync(fx, e->token, KE_COORDINATOR_NOT_AVAILABLE);
    else
        group_answer(fx, e->token, KE_COORDINATOR_NOT_AVAILABLE);
}

/* Each parked request is answered at most once, each member has at most two; the rest is this request's answer, one
 * more for a connection given up, and a record. */
static bool make_room(struct group *g, struct group_effects *fx)
{
    return group_effects_reserve(fx, 2 * (g->members_n + 1) + 4);
}

void group_step(struct group *g, const struct group_event *e, struct group_now now, struct group_effects *fx)
{
    assert(g->magic == GROUP_MAGIC);
    assert(fx->n == 0);
    assert(!fx->kept);
    bool was_dead = group_in(g, GROUP_DEAD);
    int32_t generation_was = g->generation;
    bool room = make_room(g, fx);
    if (!room && e->kind == GROUP_TICK) {
        g->due_us = now.us + 1000000;
        return;
    }
    /* The others answer what a join has parked, and that join has made the room. */
    if (!room && e->kind != GROUP_PERSISTED && e->kind != GROUP_UNLOAD) {
        refuse(e, fx);
        return;
    }
    switch (e->kind) {
    case GROUP_JOIN: group_on_join(g, e, now, fx); break;
    case GROUP_SYNC: group_on_sync(g, e, now, fx); break;
    case GROUP_HEARTBEAT: group_on_heartbeat(g, e, now, fx); break;
    case GROUP_LEAVE: group_on_leave(g, e, now, fx); break;
    case GROUP_COMMIT: group_on_commit(g, e, now, fx); break;
    case GROUP_TICK: group_on_tick(g, now, fx); break;
    case GROUP_PERSISTED: group_on_persisted(g, e, now, fx); break;
    case GROUP_UNLOAD: unload(g, e->unload_error, now, fx); break;
    }
    assert(!was_dead || group_in(g, GROUP_DEAD));
    assert(g->generation >= generation_was || g->generation <= 2); /* it never falls, but for its wrap */
    group_check_counts(g);
}

/* ---- from the log ---- */

static struct group_member *restored_member(const struct group_restored *from,
                                            const struct group_restored_member *m)
{
    struct group_protocol protocol = {from->protocol_name, m->subscription};
    struct group_event join = {
        .kind = GROUP_JOIN,
        .caller = {.member_id = m->id, .instance_id = m->instance_id},
        .join = {.client_id = m->client_id,
                 .client_host = m->client_host,
                 .protocols = &protocol,
                 .protocols_n = 1,
                 .session_timeout_ms = m->session_timeout_ms,
                 .rebalance_timeout_ms = m->rebalance_timeout_ms},
    };
    return group_member_create(&join, m->id);
}

static int restore_member(struct group *g, const struct group_restored *from,
                          const struct group_restored_member *r, struct group_now now,
                          struct group_effects *fx)
{
    bool taken = !slice_is_null(r->instance_id) && group_static_find(g, r->instance_id);
    if (taken || r->id.n == 0 || group_member_find(g, r->id))
        return -E_INVALID;
    struct group_member *m = restored_member(from, r);
    bool ok = m != NULL;
    struct slice assignment = ok ? group_dup(r->assignment, &ok) : SLICE_NULL;
    if (!ok || !group_member_add(g, m)) {
        group_dup_free(assignment);
        group_member_destroy(m);
        return -E_NOMEM;
    }
    group_member_assign(g, m, slice_is_null(assignment) ? slice_of("", 0) : assignment, fx);
    group_session_start(g, m, m->session_timeout_ms, now);
    if (slice_eq(r->id, from->leader))
        g->leader = m;
    return 0;
}

static int restore(struct group *g, const struct group_restored *from, struct group_now now,
                   struct group_effects *fx)
{
    bool ok = true;
    if (from->protocol_type.n)
        g->protocol_type = group_dup(from->protocol_type, &ok);
    for (int32_t i = 0; ok && i < from->members_n; i++) {
        int rc = restore_member(g, from, &from->members[i], now, fx);
        if (rc)
            return rc;
    }
    g->generation = g->generation_persisted = from->generation > 0 ? from->generation : 0;
    if (ok && g->members_n > 0) {
        if (slice_is_null(from->protocol_name) || from->generation <= 0)
            return -E_INVALID;
        g->protocol_name = group_dup(from->protocol_name, &ok);
        if (ok)
            sm_init(&g->state, &group_state_table, g, GROUP_STABLE);
    }
    g->state_since_ms = from->state_since_ms;
    return ok ? 0 : -E_NOMEM;
}

int group_restore(struct group *g, const struct group_restored *from, struct group_now now)
{
    assert(group_in(g, GROUP_EMPTY));
    assert(g->members_n == 0);
    assert(g->generation == 0);
    struct group_effects fx; /* takes what is replaced on the way; nothing is answered */
    group_effects_init(&fx);
    int rc = restore(g, from, now, &fx);
    assert(fx.n == 0);
    assert(g->joining_n == 0);
    assert(g->syncs_missing_n == 0);
    assert(rc || group_in(g, g->members_n > 0 ? GROUP_STABLE : GROUP_EMPTY));
    group_effects_fini(&fx);
    return rc;
}

int16_t group_append_error(int16_t append_error)
{
    switch (append_error) {
    case KE_UNKNOWN_TOPIC_OR_PARTITION:
    case KE_NOT_ENOUGH_REPLICAS:
    case KE_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
    case KE_REQUEST_TIMED_OUT: return KE_COORDINATOR_NOT_AVAILABLE;
    case KE_NOT_LEADER_OR_FOLLOWER:
    case KE_FENCED_LEADER_EPOCH:
    case KE_KAFKA_STORAGE_ERROR: return KE_NOT_COORDINATOR;
    default: return append_error;
    }
}
