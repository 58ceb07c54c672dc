/* Looking at a group: for answers, records and tests; and everything that must hold between two steps. */
#include "broker/group/group_internal.h"

enum group_state group_state(const struct group *g)
{
    return (enum group_state)sm_state(&g->state);
}

const char *group_state_name(const struct group *g)
{
    return sm_name(&g->state);
}

struct slice group_id(const struct group *g)
{
    return g->id;
}

int32_t group_generation(const struct group *g)
{
    return g->generation;
}

struct slice group_protocol_type(const struct group *g)
{
    return g->protocol_type;
}

struct slice group_protocol_name(const struct group *g)
{
    return g->protocol_name;
}

struct slice group_leader(const struct group *g)
{
    return g->leader ? g->leader->id : SLICE_NULL;
}

int64_t group_state_since_ms(const struct group *g)
{
    return g->state_since_ms;
}

int64_t group_due_us(const struct group *g)
{
    return g->due_us;
}

size_t group_bytes(const struct group *g)
{
    return g->bytes;
}

size_t group_members_n(const struct group *g)
{
    return g->members_n;
}

const struct group_member *group_member_next(const struct group *g, const struct group_member *after)
{
    assert(g->magic == GROUP_MAGIC);
    assert((!after || !after->pending));
    const struct list *next = after ? after->link.next : g->members.next;
    return next == &g->members ? NULL : LIST_ENTRY(next, const struct group_member, link);
}

struct group_member_view group_member_view(const struct group *g, const struct group_member *m)
{
    assert(!m->pending);
    assert(m->id.n > 0);
    return (struct group_member_view){
        .id = m->id,
        .instance_id = m->instance_id,
        .client_id = m->client_id,
        .client_host = m->client_host,
        .subscription =
            slice_is_null(g->protocol_name) ? slice_of("", 0) : group_protocol_metadata(m, g->protocol_name),
        .assignment = m->assignment,
        .session_timeout_ms = m->session_timeout_ms,
        .rebalance_timeout_ms = m->rebalance_timeout_ms,
    };
}

bool group_idle(const struct group *g)
{
    return group_in(g, GROUP_EMPTY) && g->pending_n == 0;
}

void group_check_counts(const struct group *g)
{
    unsigned state = sm_state(&g->state);
    assert(g->magic == GROUP_MAGIC);
    assert(group_state_table.invariant(g, state));
    assert(g->joining_n <= g->members_n);
    assert(g->syncs_missing_n <= g->members_n);
    assert(HASH_CNT(by_id, g->by_id) == g->members_n + g->pending_n);
    assert(HASH_CNT(by_instance, g->by_instance) <= g->members_n);
    assert((g->leader != NULL) == (g->members_n > 0));
    assert(g->bytes >= sizeof *g);
    assert(list_empty(&g->members) == (g->members_n == 0));
    assert(list_empty(&g->pending) == (g->pending_n == 0));
    assert(g->due_us <= g->join_due_us);
    assert(g->due_us <= g->sync_due_us);
    assert((g->join_due_us != GROUP_NEVER) == (state == GROUP_PREPARING));
    assert(g->sync_due_us == GROUP_NEVER || g->syncs_missing_n > 0);
    assert(!g->initial || (state == GROUP_PREPARING && g->initial_left_us >= 0));
    /* An assignment on its way is of this generation, and nobody has been told of it yet. */
    assert(g->syncing.ticket <= g->ticket);
    assert(!g->syncing.ticket || (state == GROUP_COMPLETING && g->syncing.generation == g->generation));
    assert(g->generation_persisted >= 0);
    assert(g->generation_persisted <= g->generation);
    assert(state != GROUP_STABLE || g->generation_persisted == g->generation);
}

static void check_member(const struct group *g, const struct group_member *m)
{
    assert(!m->pending);
    assert(m->id.n > 0);
    assert(m->protocols_n > 0);
    assert(group_member_find(g, m->id) == m);
    assert(slice_is_null(m->instance_id) || group_static_find(g, m->instance_id) == m);
    assert(!m->join || group_in(g, GROUP_PREPARING) || (group_in(g, GROUP_STABLE) && m->swap.ticket));
    assert(!m->sync || group_in(g, GROUP_COMPLETING));
    assert(!m->swap.ticket || m->join);
    assert(!m->sync || !m->sync_missing);
    assert(!m->fresh || m->join); /* a new member is never without a request of its own */
    assert(m->session_due_us >= g->due_us);
    /* Nobody is there for ever: either a session runs, or a request of its own is parked. */
    assert(m->session_due_us != GROUP_NEVER || m->join || m->sync);
}

void group_check(const struct group *g)
{
    size_t members = 0, joining = 0, missing = 0, pending = 0, bytes = sizeof *g + g->id.n;
    bool leader = false;
    group_check_counts(g);
    list_each (at, &g->members) {
        const struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        check_member(g, m);
        members++;
        joining += m->join != NULL;
        missing += m->sync_missing;
        bytes += m->bytes;
        leader |= m == g->leader;
    }
    list_each (at, &g->pending) {
        const struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        assert(m->pending);
        assert(group_pending_find(g, m->id) == m);
        assert(!m->join);
        assert(!m->sync);
        assert(m->session_due_us != GROUP_NEVER);
        assert(m->session_due_us >= g->due_us);
        pending++;
        bytes += m->bytes;
    }
    assert(members == g->members_n);
    assert(pending == g->pending_n);
    assert(joining == g->joining_n);
    assert(missing == g->syncs_missing_n);
    assert(bytes == g->bytes);
    assert(leader == (members > 0));
}
