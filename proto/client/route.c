/* From a call's target to a connection, and what must be asked on the way: leaders by metadata, coordinators by
 * FindCoordinator. A call that cannot go yet stays where it is; its error says what it waits for. */
#include "proto/client/client_internal.h"

#include <stdlib.h>

/* How long a connection may be in the making before another broker is tried beside it. */
#define ANY_PATIENCE_US        (INT64_C(500) * 1000)
#define COORDINATOR_TIMEOUT_US (10 * INT64_C(1000000))

static struct client_conn *wait_for(struct call *call, int code, const char *what)
{
    err_set(&call->err, code, "%s", what);
    return NULL;
}

static enum client_lane lane_of(const struct call *call)
{
    if (call->pub.target.lane != CLIENT_LANE_AUTO)
        return call->pub.target.lane;
    switch (call->api->key) {
    case kp_key_produce: return CLIENT_LANE_PRODUCE;
    case kp_key_fetch: return CLIENT_LANE_FETCH;
    case kp_key_join_group:
    case kp_key_sync_group: return CLIENT_LANE_GROUP;
    default: return CLIENT_LANE_CONTROL;
    }
}

/* The broker's connection for this lane when it is ready; opens it where it may. */
static struct client_conn *use(struct client_broker *b, struct call *call)
{
    struct client_conn *conn = &b->conns[lane_of(call)];
    struct client_core *core = conn->core;
    if (conn->retiring)
        return wait_for(call, -E_AGAIN, "the session is renewed");
    if (client_conn_state(conn) == CONN_READY)
        return conn;
    if (client_conn_state(conn) != CONN_CLOSED)
        return wait_for(call, -E_AGAIN, "connecting");
    if (b->retry_at_us > core->now_us) {
        client_core_due_by(core, b->retry_at_us);
        return wait_for(call, -E_REFUSED, "broker not reachable");
    }
    client_conn_open(conn);
    return wait_for(call, -E_AGAIN, "connecting");
}

/* ---- any ---- */

static struct client_broker *next_broker(struct client_core *core, struct client_broker *b)
{
    assert(!list_empty(&core->brokers)); /* the bootstrap addresses stay */
    struct list *at = b ? b->link.next : core->brokers.next;
    if (at == &core->brokers)
        at = at->next;
    return LIST_ENTRY(at, struct client_broker, link);
}

static struct client_conn *route_any(struct client_core *core, struct call *call)
{
    enum client_lane lane = lane_of(call);
    struct client_broker *start = next_broker(core, core->last_any), *b = start, *closed = NULL, *busy = NULL;
    bool patient = false;
    do {
        struct client_conn *conn = &b->conns[lane];
        enum conn_state state = client_conn_state(conn);
        if (b->gone || conn->retiring) {
            /* passed over */
        } else if (state == CONN_READY && client_conn_idle(conn)) {
            core->last_any = b;
            return conn;
        } else if (state == CONN_READY) {
            busy = b;
        } else if (state != CONN_CLOSED) {
            int64_t until_us = conn->since_us + ANY_PATIENCE_US;
            if (until_us > core->now_us) {
                client_core_due_by(core, until_us);
                patient = true;
            }
        } else if (b->retry_at_us > core->now_us) {
            client_core_due_by(core, b->retry_at_us);
        } else if (!closed || (closed->node_id < 0 && b->node_id >= 0)) {
            closed = b; /* brokers of the metadata go before bootstrap addresses */
        }
        b = next_broker(core, b);
    } while (b != start);
    if (busy) {
        core->last_any = busy;
        return &busy->conns[lane];
    }
    if (patient)
        return wait_for(call, -E_AGAIN, "connecting");
    if (!closed)
        return wait_for(call, -E_REFUSED, "no broker is reachable");
    core->last_any = closed;
    client_conn_open(&closed->conns[lane]);
    client_core_due_by(core, core->now_us + ANY_PATIENCE_US);
    return wait_for(call, -E_AGAIN, "connecting");
}

/* ---- leaders ---- */

static struct client_conn *route_node(struct client_core *core, struct call *call, int32_t node_id,
                                      const char *what)
{
    struct client_broker *b = client_broker_find(core, node_id);
    if (b)
        return use(b, call);
    client_metadata_want(core);
    return wait_for(call, -E_NOTFOUND, what);
}

/* What is asked by number has an older answer's word for it that the broker is there. A newer one that lacks it is
 * final: its partitions have other leaders now, and whoever asked knows better than this call whom to ask. */
static struct client_conn *route_broker(struct client_core *core, struct call *call)
{
    int32_t node_id = call->pub.target.number;
    bool gone = !client_broker_find(core, node_id) && core->metadata_last_us > call->asked_us;
    assert(!call->handshake);
    if (!gone)
        return route_node(core, call, node_id, "no such broker in the metadata");
    client_call_finish(core, call, -E_NOTFOUND, "%s: broker %d is not in the metadata any more",
                       call->api->name, node_id);
    return NULL;
}

static struct client_conn *route_leader(struct client_core *core, struct call *call)
{
    const struct client_target *t = &call->pub.target;
    struct topic_entry *entry;
    int rc = client_topic_add(core, t->name, &entry);
    if (rc)
        return wait_for(call, rc, "no room for another topic");
    const struct client_topic *topic = &entry->pub;
    if (topic->error == KE_NONE && t->number >= 0 && t->number < topic->partitions_n &&
        topic->partitions[t->number].leader >= 0)
        return route_node(core, call, topic->partitions[t->number].leader,
                          "the leader is not in the metadata");
    client_metadata_want(core);
    if (topic->error == KE_NONE && t->number >= 0 && t->number < topic->partitions_n)
        return wait_for(call, -E_NOTFOUND, "the partition has no leader");
    err_set(&call->err, -E_NOTFOUND, "topic %.*s partition %d: %s", SLICE_FMT(t->name), t->number,
            topic->error == KE_NONE        ? "no such partition"
            : topic->error && entry->asked ? kafka_error_name(topic->error)
                                           : "not known yet");
    return NULL;
}

/* ---- coordinators ---- */

static char *coordinator_key(const struct client_target *t, char *out, size_t cap, size_t *n)
{
    *n = t->name.n + 1;
    if (*n >= cap)
        return NULL;
    out[0] = t->kind == CLIENT_GROUP ? 'g' : 't';
    slice_cstr(t->name, out + 1, cap - 1);
    return out;
}

static struct coordinator *coordinator_find(struct client_core *core, const struct client_target *t)
{
    char key[INT16_MAX + 2];
    size_t n;
    struct coordinator *c = NULL;
    if (coordinator_key(t, key, sizeof key, &n))
        HASH_FIND(hh, core->coordinators, key, n, c);
    return c;
}

static void free_coordinator(struct client_core *core, struct coordinator *c)
{
    HASH_DEL(core->coordinators, c);
    free(c->key);
    free(c);
}

void client_coordinators_free(struct client_core *core)
{
    struct coordinator *c, *next;
    HASH_ITER (hh, core->coordinators, c, next)
        free_coordinator(core, c);
}

/* The table is a cache: when it is full the oldest that nobody asks for goes. */
static void make_room(struct client_core *core)
{
    struct coordinator *c, *next;
    HASH_ITER (hh, core->coordinators, c, next) {
        if (HASH_COUNT(core->coordinators) < COORDINATORS_MAX)
            return;
        if (!c->asking)
            free_coordinator(core, c);
    }
}

static struct coordinator *coordinator_add(struct client_core *core, const struct client_target *t)
{
    char key[INT16_MAX + 2];
    size_t n;
    if (!coordinator_key(t, key, sizeof key, &n))
        return NULL;
    make_room(core);
    struct coordinator *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->node_id = -1;
    c->key = malloc(n + 1);
    if (c->key) {
        memcpy(c->key, key, n + 1);
        HASH_ADD_KEYPTR(hh, core->coordinators, c->key, n, c);
    }
    if (!c->key || !HASH_ADDED(c)) {
        free(c->key);
        free(c);
        return NULL;
    }
    return c;
}

void client_coordinator_forget(struct client_core *core, const struct client_target *t)
{
    struct coordinator *c = coordinator_find(core, t);
    if (c && !c->asking)
        c->node_id = -1;
}

struct found {
    int32_t node_id, port;
    struct slice host;
    int16_t error;
};

static struct found found_in(const struct kp_find_coordinator_response *m, int16_t version)
{
    if (version < 4)
        return (struct found){m->node_id, m->port, m->host, m->error_code};
    if (m->coordinators_n < 1)
        return (struct found){.node_id = -1, .error = KE_COORDINATOR_NOT_AVAILABLE};
    const struct kp_find_coordinator_response_coordinators *c = &m->coordinators[0];
    return (struct found){c->node_id, c->port, c->host, c->error_code};
}

/* Calls that wait for this coordinator and will not get one: the answer is final. */
static void refuse_waiting(struct client_core *core, const struct coordinator *c, int16_t error)
{
    list_each_safe(at, &core->waiting)
    {
        struct call *call = LIST_ENTRY(at, struct call, link);
        enum client_target_kind kind = call->pub.target.kind;
        if ((kind == CLIENT_GROUP || kind == CLIENT_TRANSACTION) &&
            coordinator_find(core, &call->pub.target) == c)
            client_call_finish(core, call, error == KE_GROUP_AUTHORIZATION_FAILED ? -E_ACCESS : -E_INVALID,
                               "coordinator of %s: %s", c->key + 1, kafka_error_name(error));
    }
}

struct lookup {
    struct client_core *core;
    struct client_target target;
};

static void coordinator_answered(void *arg, const struct client_response *r)
{
    struct lookup *l = arg; /* in the call's arena */
    struct client_core *core = l->core;
    struct coordinator *c = coordinator_find(core, &l->target);
    if (!c)
        return;
    assert(c->asking);
    c->asking = false;
    struct found f = {.node_id = -1, .error = KE_COORDINATOR_NOT_AVAILABLE};
    if (r->status == 0)
        f = found_in(r->body, r->version);
    if (f.error == KE_NONE && f.node_id >= 0 && client_broker_add(core, f.node_id, f.host, f.port)) {
        c->node_id = f.node_id;
        c->failures = 0;
        return;
    }
    c->retry_at_us = core->now_us + client_core_backoff(core, c->failures);
    c->failures += c->failures < 30;
    if (r->status == 0 && f.error != KE_NONE && !kafka_error_retriable(f.error))
        refuse_waiting(core, c, f.error);
}

static void ask_coordinator(struct client_core *core, struct coordinator *c, const struct client_target *t)
{
    assert(!c->asking);
    assert(t->kind == CLIENT_GROUP || t->kind == CLIENT_TRANSACTION);
    struct call *call = client_core_call(core, kp_api_find(kp_key_find_coordinator), true);
    struct lookup *l = call ? ARENA_NEW(&call->arena, struct lookup) : NULL;
    struct slice *keys = l ? ARENA_NEWS(&call->arena, struct slice, 1) : NULL;
    struct slice name = keys ? arena_dup(&call->arena, t->name) : SLICE_NULL;
    if (slice_is_null(name)) {
        if (call)
            client_call_free(core, call);
        c->retry_at_us = core->now_us + core->o.backoff_min_us;
        return;
    }
    *l = (struct lookup){core, {.kind = t->kind, .name = name}};
    keys[0] = name;
    struct kp_find_coordinator_request *q = call->pub.body;
    q->key = name;
    q->key_type = t->kind == CLIENT_GROUP ? 0 : 1;
    q->coordinator_keys = keys;
    q->coordinator_keys_n = 1;
    call->pub.timeout_us = COORDINATOR_TIMEOUT_US;
    call->pub.on_response = coordinator_answered;
    call->pub.arg = l;
    c->asking = true;
    client_core_submit(core, call, core->now_us);
}

static struct client_conn *route_coordinator(struct client_core *core, struct call *call)
{
    const struct client_target *t = &call->pub.target;
    struct coordinator *c = coordinator_find(core, t);
    if (!c && !(c = coordinator_add(core, t)))
        return wait_for(call, -E_LIMIT, "no room for another coordinator");
    if (c->node_id >= 0) {
        struct client_broker *b = client_broker_find(core, c->node_id);
        if (b)
            return use(b, call);
        c->node_id = -1;
    }
    if (!c->asking && c->retry_at_us <= core->now_us)
        ask_coordinator(core, c, t);
    else if (!c->asking)
        client_core_due_by(core, c->retry_at_us);
    return wait_for(call, -E_AGAIN, "looking for the coordinator");
}

struct client_conn *client_route(struct client_core *core, struct call *call)
{
    const struct client_target *t = &call->pub.target;
    assert(call->state == CALL_WAITING);
    switch (t->kind) {
    case CLIENT_ANY: return route_any(core, call);
    case CLIENT_LEADER: return route_leader(core, call);
    case CLIENT_CONTROLLER:
        return route_node(core, call, core->controller, "the controller is not known yet");
    case CLIENT_GROUP:
    case CLIENT_TRANSACTION: return route_coordinator(core, call);
    case CLIENT_BROKER: return route_broker(core, call);
    }
    return NULL;
}
