/* Members: who is in the group, who was given an id and has not come back, and what each of them holds.
 *
 * The block of a member's protocols: the array, then all names and metadata in one run. */
#include "broker/group/group_internal.h"

static struct group_member *by_id_find(const struct group *g, struct slice id)
{
    struct group_member *m = NULL;
    if (id.n) /* nobody has an empty id */
        HASH_FIND(by_id, g->by_id, id.p, id.n, m);
    return m;
}

struct group_member *group_member_find(const struct group *g, struct slice id)
{
    struct group_member *m = by_id_find(g, id);
    return m && !m->pending ? m : NULL;
}

struct group_member *group_pending_find(const struct group *g, struct slice id)
{
    struct group_member *m = by_id_find(g, id);
    return m && m->pending ? m : NULL;
}

struct group_member *group_static_find(const struct group *g, struct slice instance_id)
{
    struct group_member *m = NULL;
    if (instance_id.n)
        HASH_FIND(by_instance, g->by_instance, instance_id.p, instance_id.n, m);
    return m;
}

static size_t protocols_bytes(const struct group_protocol *p, int32_t n)
{
    size_t bytes = (size_t)n * sizeof *p;
    for (int32_t i = 0; i < n; i++)
        bytes += p[i].name.n + p[i].metadata.n;
    return bytes;
}

static struct slice copy_to(uint8_t **at, struct slice s)
{
    if (s.n)
        memcpy(*at, s.p, s.n);
    struct slice copy = slice_of(*at, s.n);
    *at += s.n;
    return copy;
}

static struct group_protocol *protocols_dup(const struct group_protocol *p, int32_t n, bool *ok)
{
    struct group_protocol *v = group_block(protocols_bytes(p, n) + 1);
    if (!v) {
        *ok = false;
        return NULL;
    }
    uint8_t *at = (uint8_t *)(v + n);
    for (int32_t i = 0; i < n; i++)
        v[i] = (struct group_protocol){copy_to(&at, p[i].name), copy_to(&at, p[i].metadata)};
    assert(at == (uint8_t *)v + protocols_bytes(p, n));
    return v;
}

static size_t member_bytes(const struct group_member *m)
{
    return sizeof *m + m->id.n + m->instance_id.n + m->client_id.n + m->client_host.n + m->assignment.n +
           protocols_bytes(m->protocols, m->protocols_n);
}

/* What was copied into it was copied whole, or it is given back: NULL. */
static struct group_member *ready(struct group_member *m, bool ok)
{
    m->session_due_us = GROUP_NEVER;
    if (!ok) {
        group_member_destroy(m);
        return NULL;
    }
    m->bytes = member_bytes(m);
    return m;
}

struct group_member *group_member_create(const struct group_event *join, struct slice id)
{
    struct group_member *m = group_block(sizeof *m);
    if (!m)
        return NULL;
    bool ok = true;
    assert(id.n > 0);
    assert(join->join.protocols_n > 0);
    m->id = group_dup(id, &ok);
    m->instance_id = group_dup(join->caller.instance_id, &ok);
    m->client_id = group_dup(join->join.client_id, &ok);
    m->client_host = group_dup(join->join.client_host, &ok);
    m->assignment = slice_of("", 0);
    m->protocols = protocols_dup(join->join.protocols, join->join.protocols_n, &ok);
    m->protocols_n = m->protocols ? join->join.protocols_n : 0;
    m->session_timeout_ms = join->join.session_timeout_ms;
    m->rebalance_timeout_ms = join->join.rebalance_timeout_ms;
    return ready(m, ok);
}

struct group_member *group_pending_create(struct slice id)
{
    struct group_member *m = group_block(sizeof *m);
    if (!m)
        return NULL;
    bool ok = true;
    m->pending = true;
    m->id = group_dup(id, &ok);
    return ready(m, ok);
}

void group_member_destroy(struct group_member *m)
{
    if (!m)
        return;
    assert(!m->join);
    assert(!m->sync);
    group_dup_free(m->id);
    group_dup_free(m->instance_id);
    group_dup_free(m->client_id);
    group_dup_free(m->client_host);
    group_dup_free(m->assignment);
    group_dup_free(m->swap.leader_was);
    group_block_free(m->protocols);
    group_block_free(m);
}

static void member_keep(struct group_effects *fx, struct group_member *m)
{
    group_dup_keep(fx, m->id);
    group_dup_keep(fx, m->instance_id);
    group_dup_keep(fx, m->client_id);
    group_dup_keep(fx, m->client_host);
    group_dup_keep(fx, m->assignment);
    group_dup_keep(fx, m->swap.leader_was);
    group_block_keep(fx, m->protocols);
    group_block_keep(fx, m);
}

static bool by_id_add(struct group *g, struct group_member *m)
{
    HASH_ADD_KEYPTR(by_id, g->by_id, m->id.p, m->id.n, m);
    return m->by_id.tbl != NULL;
}

static bool by_instance_add(struct group *g, struct group_member *m)
{
    if (slice_is_null(m->instance_id))
        return true;
    HASH_ADD_KEYPTR(by_instance, g->by_instance, m->instance_id.p, m->instance_id.n, m);
    return m->by_instance.tbl != NULL;
}

bool group_member_add(struct group *g, struct group_member *m)
{
    assert(!group_member_find(g, m->id));
    assert(!group_pending_find(g, m->id));
    assert(m->id.n > 0);
    assert(m->bytes > 0);
    assert((!m->pending || (!m->join && !m->sync)));
    if (!by_id_add(g, m))
        return false;
    if (!by_instance_add(g, m)) {
        HASH_DELETE(by_id, g->by_id, m);
        return false;
    }
    g->bytes += m->bytes;
    if (m->pending) {
        list_push(&g->pending, &m->link);
        g->pending_n++;
        return true;
    }
    list_push(&g->members, &m->link);
    g->members_n++;
    if (m->join)
        g->joining_n++;
    if (!g->leader)
        g->leader = m;
    return true;
}

static void sync_arrived(struct group *g, struct group_member *m)
{
    if (m->sync_missing) {
        m->sync_missing = false;
        assert(g->syncs_missing_n > 0);
        g->syncs_missing_n--;
    }
}

void group_member_remove(struct group *g, struct group_member *m, struct group_effects *fx)
{
    assert(!m->pending || (!m->join && !m->sync && !m->sync_missing));
    if (m->join) {
        assert(g->joining_n > 0);
        group_answer_join_error(fx, m->join, KE_UNKNOWN_MEMBER_ID, SLICE_NULL);
        m->join = NULL;
        g->joining_n--;
    }
    if (m->sync) {
        group_answer_sync(fx, m->sync, KE_UNKNOWN_MEMBER_ID);
        m->sync = NULL;
    }
    sync_arrived(g, m);
    HASH_DELETE(by_id, g->by_id, m);
    if (!slice_is_null(m->instance_id))
        HASH_DELETE(by_instance, g->by_instance, m);
    list_remove(&m->link);
    assert(g->bytes >= m->bytes);
    g->bytes -= m->bytes;
    if (m->pending) {
        assert(g->pending_n > 0);
        assert(g->leader != m);
        g->pending_n--;
    } else {
        assert(g->members_n > 0);
        g->members_n--;
        if (g->leader == m)
            g->leader =
                list_empty(&g->members) ? NULL : LIST_ENTRY(g->members.next, struct group_member, link);
    }
    member_keep(fx, m);
}

#define SWAP(type, a, b)                                                                                     \
    do {                                                                                                     \
        type swap_ = (a);                                                                                    \
        (a) = (b);                                                                                           \
        (b) = swap_;                                                                                         \
    } while (0)

bool group_member_replace(struct group *g, struct group_member *m, struct group_member *next,
                          struct group_effects *fx)
{
    assert(!m->pending);
    assert(!next->pending);
    assert(!next->join);
    assert(!next->sync);
    assert(next->protocols_n > 0);
    assert(g->bytes >= m->bytes);
    if (!slice_eq(m->id, next->id)) {
        /* The index changes first, under the new id's own bytes: should that fail, nothing has. */
        struct slice old = m->id;
        HASH_DELETE(by_id, g->by_id, m);
        m->id = next->id;
        next->id = old;
        if (!by_id_add(g, m)) {
            SWAP(struct slice, m->id, next->id);
            bool back = by_id_add(g, m); /* the room that the delete made */
            assert(back);
            return false;
        }
    }
    SWAP(struct group_protocol *, m->protocols, next->protocols);
    SWAP(int32_t, m->protocols_n, next->protocols_n);
    SWAP(struct slice, m->client_id, next->client_id);
    SWAP(struct slice, m->client_host, next->client_host);
    m->session_timeout_ms = next->session_timeout_ms;
    m->rebalance_timeout_ms = next->rebalance_timeout_ms;
    g->bytes -= m->bytes;
    m->bytes = member_bytes(m);
    g->bytes += m->bytes;
    member_keep(fx, next);
    return true;
}

void group_member_assign(struct group *g, struct group_member *m, struct slice assignment,
                         struct group_effects *fx)
{
    assert(!m->pending);
    assert(!slice_is_null(assignment));
    assert(g->bytes >= m->bytes);
    group_dup_keep(fx, m->assignment);
    m->assignment = assignment;
    g->bytes -= m->bytes;
    m->bytes = member_bytes(m);
    g->bytes += m->bytes;
}

int16_t group_caller_check(const struct group *g, const struct group_caller *c)
{
    if (!slice_is_null(c->instance_id)) {
        const struct group_member *m = group_static_find(g, c->instance_id);
        if (!m)
            return KE_UNKNOWN_MEMBER_ID;
        if (!slice_eq(m->id, c->member_id))
            return KE_FENCED_INSTANCE_ID;
        return KE_NONE;
    }
    return group_member_find(g, c->member_id) ? KE_NONE : KE_UNKNOWN_MEMBER_ID;
}

/* A join that is already parked belongs to a connection that the client has given up. */
void group_park_join(struct group *g, struct group_member *m, void *token, struct group_effects *fx)
{
    assert(token);
    assert(!m->pending);
    if (m->join)
        group_answer_join_error(fx, m->join, KE_REBALANCE_IN_PROGRESS, m->id);
    else
        g->joining_n++;
    m->join = token;
    m->swap.ticket = 0;
}

void group_due_at_most(struct group *g, int64_t due_us)
{
    if (due_us < g->due_us)
        g->due_us = due_us;
}

/* A session that is prolonged leaves due_us where it was: one tick too many costs less than a search each time. */
void group_session_start(struct group *g, struct group_member *m, int32_t timeout_ms, struct group_now now)
{
    m->session_due_us = now.us + (int64_t)timeout_ms * 1000;
    group_due_at_most(g, m->session_due_us);
}

void group_due_refresh(struct group *g)
{
    int64_t due = g->join_due_us < g->sync_due_us ? g->join_due_us : g->sync_due_us;
    const struct list *both[] = {&g->members, &g->pending};
    for (size_t i = 0; i < 2; i++)
        list_each (at, both[i]) {
            const struct group_member *m = LIST_ENTRY(at, struct group_member, link);
            if (m->session_due_us < due)
                due = m->session_due_us;
        }
    g->due_us = due;
    assert(g->due_us <= g->join_due_us);
    assert(g->due_us <= g->sync_due_us);
}

int32_t group_rebalance_timeout_ms(const struct group *g)
{
    int32_t most = 0;
    list_each (at, &g->members) {
        const struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        if (m->rebalance_timeout_ms > most)
            most = m->rebalance_timeout_ms;
    }
    return most;
}
