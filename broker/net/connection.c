/* A connection: which requests may start, who is answered, when it ends. */
#include "broker/net/internal.h"

#include "base/core/mutant.h"
#include "base/runtime/log.h"

#include <stdlib.h>

static bool connection_invariant(const void *owner, unsigned state)
{
    const struct connection *c = owner;
    return c->magic == CONNECTION_MAGIC && (state == CONNECTION_CLOSED) == (c->socket == NULL);
}

/*   OPEN ──peer's end, shutdown──▶ DRAINING ──all answered──▶ CLOSED ──last request back──▶ (freed)
 *     └────────────error, deadline─────────────────────────────▲                                      */
static const struct sm_state states[] = {
    [CONNECTION_OPEN] = {"open", SM_TO(CONNECTION_DRAINING) | SM_TO(CONNECTION_CLOSED)},
    [CONNECTION_DRAINING] = {"draining", SM_TO(CONNECTION_CLOSED)},
    [CONNECTION_CLOSED] = {"closed", SM_END},
};
static const struct sm_table connection_sm = SM_TABLE("connection", states, connection_invariant);

/* What holds of an open connection between any two steps. */
static void check(const struct connection *c)
{
    assert(c->magic == CONNECTION_MAGIC);
    assert(c->socket);
    assert(c->running_n <= c->queue_n);
    assert(list_empty(&c->queue) == (c->queue_n == 0));
    assert(c->queue_n <= c->server->requests_n);
    assert(c->queue_n > 0 || (c->queued_bytes == 0 && c->piece == 0 && c->piece_at == 0 && !c->next));
    assert(c->in ? c->at <= c->end && c->end <= c->in->cap && c->in->refs > 0 : c->at == 0 && c->end == 0);
    assert(!(c->in && c->stash));
    assert((c->stash != NULL) == (c->stash_n > 0));
    assert((c->stash || !c->stash_whole));
    assert(!c->later || list_linked(&c->work));
}

static void start_next(struct connection *c);

static void on_readable(void *arg)
{
    struct connection *c = arg;
    assert(c->magic == CONNECTION_MAGIC);
    assert(c->socket);
    receive_readable(c);
    if (!c->socket)
        return;
    start_next(c);
    connection_work(c);
}

static void on_writable(void *arg)
{
    struct connection *c = arg;
    assert(c->magic == CONNECTION_MAGIC);
    assert(c->socket);
    c->blocked_since_us = 0;
    connection_work(c);
}

static void on_failed(void *arg, int code)
{
    (void)code;
    connection_close(arg, NULL);
}

static const struct net_conn_events connection_events = {
    .readable = on_readable, .writable = on_writable, .failed = on_failed};

static void on_answered(struct api_request *req)
{
    struct connection *c = req->connection;
    assert(c->magic == CONNECTION_MAGIC);
    assert(c->running_n > 0);
    assert(req->started);
    assert(req->answered);
    assert(!req->away);
    assert(req != c->next);
    c->running_n--;
    if (!c->socket || req->silent) {
        connection_finish(c, req);
        if (c->socket)
            connection_work(c);
        return;
    }
    c->queued_bytes += req->out.size_bytes;
    connection_work(c);
}

static void on_failure(struct api_request *req, const char *why)
{
    (void)why; /* it stays in req->failure: send.c closes when its turn has come */
    on_answered(req);
}

static const struct api_transport transport = {.answered = on_answered, .failed = on_failure};

void connection_accept(struct net_server *s, const struct api_listener *listener, struct net_conn *socket)
{
    struct connection *c = calloc(1, sizeof *c);
    if (!c) {
        net_close(socket);
        return;
    }
    c->magic = CONNECTION_MAGIC;
    c->server = s;
    c->socket = socket;
    c->listener = listener;
    c->id = s->next_id++ * s->shard->count + s->shard->index;
    net_peer(socket, c->host);
    char *port = strrchr(c->host, ':');
    if (port)
        *port = '\0';
    sm_init(&c->state, &connection_sm, c, CONNECTION_OPEN);
    list_init(&c->queue);
    list_init(&c->work);
    list_init(&c->starved);
    list_push(&s->connections, &c->link);
    s->connections_n++;
    metric_add(s->open, 1);
    metric_add(s->accepted, 1);
    c->active_us = server_now(s);
    net_conn_set_events(socket, &connection_events, c);
    connection_want(c);
}

bool connection_has_room(const struct connection *c)
{
    const struct net_options *o = &c->server->o;
    if (sm_state(&c->state) == CONNECTION_CLOSED)
        return false;
    if (MUTANT("output_cap_removed"))
        return true;
    assert(o->requests_max > 0);
    assert(o->queued_max_bytes > 0);
    unsigned requests_max = server_memory_is_short(c->server) ? 1 : (unsigned)o->requests_max;
    return c->queue_n < requests_max && c->queued_bytes < (size_t)o->queued_max_bytes;
}

void connection_want(struct connection *c)
{
    if (!c->socket)
        return;
    bool reads = sm_state(&c->state) == CONNECTION_OPEN && !c->read_ended && connection_has_room(c) &&
                 !list_linked(&c->starved);
    unsigned want = (reads ? NET_WANT_READ : 0) | (c->blocked_since_us ? NET_WANT_WRITE : 0);
    if (want != c->want) {
        c->want = want;
        net_want(c->socket, want);
    }
}

void connection_work(struct connection *c)
{
    if (c->later)
        list_remove(&c->work);
    c->later = false;
    if (!list_linked(&c->work))
        list_push(&c->server->work, &c->work);
}

static void connection_later(struct connection *c)
{
    assert(!c->later || list_linked(&c->work));
    if (list_linked(&c->work))
        return; /* it is looked at once more in this turn, and comes here again */
    list_push(&c->server->later, &c->work);
    c->later = true;
}

/* A request may start when those before it are answered, or are all of the same API and that may overlap. */
static bool may_start(const struct connection *c, const struct api_request *req)
{
    return c->running_n == 0 ||
           (req->row && (req->row->flags & API_CONCURRENT) && req->row->key == c->running_key);
}

static void start_next(struct connection *c)
{
    struct net_server *s = c->server;
    while (c->next && c->socket) {
        struct api_request *req = c->next;
        if (!req->failure && !may_start(c, req))
            return;
        bool large = req->frame.n > NET_BUFFER_BYTES;
        if (large && !req->failure && !server_turn_has(s, &s->started, START_PER_TURN)) {
            connection_later(c);
            return;
        }
        if (large)
            s->started.bytes += req->frame.n;
        c->next = req->link.next == &c->queue ? NULL : LIST_ENTRY(req->link.next, struct api_request, link);
        if (req->failure)
            return; /* never started; answers before it leave, then send.c closes */
        assert(req->row);
        assert(!req->started);
        assert(!req->answered);
        assert(c->running_n < c->queue_n);
        req->transport = &transport;
        c->running_key = req->row->key;
        c->running_n++;
        bool ended = sm_state(&c->state) == CONNECTION_DRAINING;
        uint64_t before = c->server->requests_n;
        api_start(req);
        /* Parked for a client that is not there: it may give up. A request that is finished is not looked at. */
        if (ended && c->socket && c->running_n > 0 && c->server->requests_n == before && !req->answered &&
            !req->gone)
            api_abandon(req);
    }
}

static void abandon_parked(struct connection *c)
{
    list_each_safe(at, &c->queue)
    {
        struct api_request *req = LIST_ENTRY(at, struct api_request, link);
        if (req->started && !req->away && !req->answered && !req->gone)
            api_abandon(req); /* may finish this one, no other */
        else if (req->away)
            req->gone = true;
    }
}

void connection_drain(struct connection *c)
{
    assert(c->magic == CONNECTION_MAGIC);
    if (sm_state(&c->state) != CONNECTION_OPEN)
        return;
    sm_move(&c->state, CONNECTION_DRAINING);
    c->read_ended = true;
    c->frames_ended |= c->server->draining;
    abandon_parked(c);
    connection_work(c);
}

void connection_finish(struct connection *c, struct api_request *req)
{
    struct net_server *s = c->server;
    assert(c->queue_n > 0);
    assert(s->requests_n > 0);
    assert(req != c->next);
    if (req->answered && !req->silent && !req->failure && c->queued_bytes >= req->out.size_bytes)
        c->queued_bytes -= req->out.size_bytes;
    assert(!req->away); /* it is nobody's but ours */
    assert((req->answered || !req->started));
    list_remove(&req->link);
    c->queue_n--;
    s->requests_n--;
    struct net_buffer *buffer = req->buffer;
    if (req->started)
        server_count(s, req);
    api_finish(req);
    if (buffer) {
        assert(s->holding_n > 0);
        s->holding_n--;
        net_buffer_unref(buffer);
    }
}

void connection_close(struct connection *c, const char *why)
{
    struct net_server *s = c->server;
    if (!c->socket)
        return;
    if (why) {
        if (!c->said && server_may_say(s, c->host))
            log_info("broker.net", "connection closed peer=%s why=\"%s\"", c->host, why);
        server_count_close(s, why);
    }
    net_close(c->socket);
    c->socket = NULL;
    sm_move(&c->state, CONNECTION_CLOSED);
    assert(s->connections_n > 0);
    assert(atomic_load(s->o.connections) > 0);
    receive_close(c);
    assert(!c->in);
    assert(!c->stash);
    assert(s->favoured != c);
    if (list_linked(&c->work))
        list_remove(&c->work);
    c->later = false;
    if (list_linked(&c->starved)) {
        list_remove(&c->starved);
        metric_add(s->starving, -1);
    }
    list_remove(&c->link);
    list_push(&s->closed, &c->link);
    s->connections_n--;
    atomic_fetch_sub(s->o.connections, 1);
    metric_add(s->open, -1);
    c->next = NULL;
    list_each_safe(at, &c->queue)
    {
        struct api_request *req = LIST_ENTRY(at, struct api_request, link);
        if (!req->started || (!req->away && req->answered))
            connection_finish(c, req);
    }
    abandon_parked(c);
}

bool connection_reap(struct connection *c)
{
    assert(!c->socket);
    if (!list_empty(&c->queue))
        return false;
    assert(c->queue_n == 0);
    assert(c->running_n == 0);
    assert(!c->in);
    assert(!c->stash);
    assert(!list_linked(&c->work));
    assert(!list_linked(&c->starved));
    assert(c->server->favoured != c);
    list_remove(&c->link);
    c->magic = 0;
    free(c);
    return true;
}

void connection_turn(struct connection *c)
{
    if (!c->socket)
        return;
    check(c);
    bool full = !connection_has_room(c);
    receive_buffered(c);
    if (!c->socket)
        return;
    start_next(c);
    send_answers(c);
    if (!c->socket)
        return;
    if (full && connection_has_room(c))
        connection_work(c); /* frames may be waiting in its buffer */
    if (sm_state(&c->state) == CONNECTION_DRAINING && list_empty(&c->queue) && !list_linked(&c->work) &&
        !list_linked(&c->starved)) {
        connection_close(c, NULL);
        return;
    }
    check(c);
    connection_want(c);
}
