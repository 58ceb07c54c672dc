#include "broker/net/internal.h"

#include "base/core/hash.h"
#include "base/runtime/log.h"

#include <stdlib.h>

#define TICK_US      1000000
#define SAY_EVERY_US INT64_C(1000000) /* about one peer */
/* A slow sender earns a second more for each so many bytes. */
#define BYTES_PER_SECOND ((size_t)64 << 10)

static void on_tick(void *arg);

int net_server_create(struct shard *shard, const struct net_options *o, struct net_server **out,
                      struct err *err)
{
    assert(o->requests_max > 0);
    assert(o->queued_max_bytes > 0);
    assert(o->connections);
    assert(shard->requests);
    struct net_server *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, -E_NOMEM, "no memory for the server");
    s->shard = shard;
    s->o = *o;
    /* A frame that is larger than half of the budget could never be told from a leak. */
    if ((uint64_t)s->o.request_max_bytes > shard->memory.limit_bytes / 2)
        s->o.request_max_bytes = (int64_t)(shard->memory.limit_bytes / 2);
    net_buffers_init(&s->buffers, shard);
    list_init(&s->connections);
    list_init(&s->closed);
    list_init(&s->work);
    list_init(&s->later);
    list_init(&s->starved);
    loop_timer_init(&s->tick, shard->loop, on_tick, s);
    struct metrics *m = shard->metrics;
    s->open = metrics_cell(m, shard->index, M_sundog_broker_connections);
    s->accepted = metrics_cell(m, shard->index, M_sundog_broker_connections_accepted_total);
    s->starving = metrics_cell(m, shard->index, M_sundog_broker_connections_starved);
    s->received = metrics_cell(m, shard->index, M_sundog_broker_received_bytes_total);
    s->sent = metrics_cell(m, shard->index, M_sundog_broker_sent_bytes_total);
    s->memory = metrics_cell(m, shard->index, M_sundog_broker_memory_bytes);
    size_t n;
    const struct api_row *rows = api_rows(&n);
    s->per_api = calloc(n, sizeof *s->per_api);
    if (!s->per_api) {
        free(s);
        return err_set(err, -E_NOMEM, "no memory for the server");
    }
    for (size_t i = 0; i < n; i++) {
        const char *name = kp_api_find(rows[i].key)->name;
        s->per_api[i].requests = metrics_cell(m, shard->index, M_sundog_broker_requests_total, name);
        s->per_api[i].seconds = metrics_cell(m, shard->index, M_sundog_broker_request_seconds, name);
    }
    *out = s;
    return 0;
}

static void on_accept(void *arg, struct net_conn *socket)
{
    struct accept_arg *a = arg;
    struct net_server *s = a->server;
    assert(socket);
    assert(atomic_load(s->o.connections) >= 0);
    int32_t n = atomic_fetch_add(s->o.connections, 1) + 1;
    if (n > s->o.connections_max || s->draining) {
        atomic_fetch_sub(s->o.connections, 1);
        log_warn("broker.net", "connection refused limit=%d", s->o.connections_max);
        server_count_close(s, "max.connections is reached");
        net_close(socket);
        return;
    }
    connection_accept(s, a->listener, socket);
    if (!s->tick.armed)
        loop_timer_in(&s->tick, TICK_US);
}

int net_server_open(struct net_server *s, struct net_listen_at *at, size_t n, struct net_server *first,
                    struct err *err)
{
    if (n > LISTENERS_MAX)
        return err_set(err, -E_CONFIG, "listeners: more than %d", LISTENERS_MAX);
    for (size_t i = 0; i < n; i++) {
        s->accept[i] = (struct accept_arg){s, &at[i].api};
        int rc = first ? net_listen_share(s->shard->net, first->listeners[i], on_accept, &s->accept[i],
                                          &s->listeners[i], err)
                       : net_listen(s->shard->net, at[i].host, at[i].port, on_accept, &s->accept[i],
                                    &s->listeners[i], err);
        if (rc)
            return err_wrap(err, "listeners: %s://%s:%u", at[i].api.name, at[i].host, at[i].port);
        s->listeners_n = i + 1;
        at[i].port = net_listener_port(s->listeners[i]);
        if (at[i].api.advertised_port == 0)
            at[i].api.advertised_port = at[i].port;
    }
    return 0;
}

void net_server_pause(struct net_server *s, bool pause)
{
    for (size_t i = 0; i < s->listeners_n; i++)
        net_listener_pause(s->listeners[i], pause);
}

static void close_listeners(struct net_server *s)
{
    for (size_t i = 0; i < s->listeners_n; i++)
        net_listener_close(s->listeners[i]);
    s->listeners_n = 0;
}

static bool may_wake(const struct net_server *s, const struct connection *c)
{
    return receive_may(c) || (s->holding_n == 0 && !s->favoured);
}

/* Small ones first, then in the order in which they began to wait. */
static void wake_starved(struct net_server *s)
{
    while (!list_empty(&s->starved)) {
        struct connection *c = LIST_ENTRY(s->starved.next, struct connection, starved);
        if (!may_wake(s, c))
            return;
        assert(c->socket);
        assert(c->server == s);
        if (!receive_may(c))
            s->favoured = c;
        list_remove(&c->starved);
        metric_add(s->starving, -1);
        if (c->frame_started_us)
            c->frame_started_us = server_now(s); /* the wait was not its fault */
        connection_work(c);
        connection_want(c);
    }
}

/* Counts and lists agree. */
static void check(const struct net_server *s)
{
    assert((s->connections_n == 0) == list_empty(&s->connections));
    assert(s->holding_n <= s->requests_n);
    assert(s->connections_n <= (size_t)atomic_load(s->o.connections));
    assert(!s->spare || (s->spare->refs > 0 && s->spare->used <= s->spare->cap));
    assert(!s->favoured || (s->favoured->server == s && s->favoured->socket));
}

bool net_server_turn(struct net_server *s, bool *later)
{
    check(s);
    struct list now;
    list_init(&now);
    while (!list_empty(&s->later) && server_turn_has(s, &s->started, START_PER_TURN))
        connection_work(LIST_ENTRY(s->later.next, struct connection, work));
    while (!list_empty(&s->work))
        list_push(&now, list_pop(&s->work));
    while (!list_empty(&now))
        connection_turn(LIST_ENTRY(list_pop(&now), struct connection, work));
    if (!list_empty(&s->starved))
        wake_starved(s);
    list_each_safe(at, &s->closed) connection_reap(LIST_ENTRY(at, struct connection, link));
    if (s->draining && s->drained && list_empty(&s->connections) && list_empty(&s->closed)) {
        void (*drained)(void *) = s->drained;
        s->drained = NULL;
        loop_timer_stop(&s->tick);
        drained(s->drained_arg);
        return false;
    }
    check(s);
    *later |= !list_empty(&s->later);
    return !list_empty(&s->work);
}

/* Why this connection has lived too long, or NULL. */
static const char *overdue(const struct connection *c, int64_t now)
{
    const struct net_options *o = &c->server->o;
    if (c->blocked_since_us && now - c->blocked_since_us > o->write_max_us)
        return "the client does not read";
    if (c->frame_started_us) {
        int64_t earned_us = (int64_t)(receive_frame_bytes(c) / BYTES_PER_SECOND) * 1000000;
        if (connection_has_room(c) && !list_linked(&c->starved) &&
            now - c->frame_started_us > o->request_max_us + earned_us)
            return "a request took too long to arrive";
    } else if (c->queue_n == 0 && now - c->active_us > o->idle_max_us) {
        return "connections.max.idle.ms";
    }
    return NULL;
}

static void on_tick(void *arg)
{
    struct net_server *s = arg;
    int64_t now = loop_now_us(s->shard->loop);
    bool late = s->draining && now >= s->drain_limit_us;
    list_each_safe(at, &s->connections)
    {
        struct connection *c = LIST_ENTRY(at, struct connection, link);
        const char *why = late ? "shutting down" : overdue(c, now);
        if (why) {
            connection_close(c, why);
            continue;
        }
        /* Memory that was short may be there again without anything having happened here. */
        if (c->stash_whole)
            connection_work(c);
        connection_want(c);
    }
    metric_set(s->memory, (int64_t)s->shard->memory.used_bytes);
    if (s->connections_n > 0 || s->draining)
        loop_timer_in(&s->tick, TICK_US);
    else
        net_buffers_trim(&s->buffers);
}

void net_server_drain(struct net_server *s, int64_t limit_us, void (*drained)(void *arg), void *arg)
{
    assert(!s->draining);
    assert(drained);
    s->draining = true;
    s->drained = drained;
    s->drained_arg = arg;
    s->drain_limit_us = server_now(s) + limit_us;
    assert(limit_us >= 0);
    close_listeners(s);
    list_each_safe(at, &s->connections) connection_drain(LIST_ENTRY(at, struct connection, link));
    loop_timer_in(&s->tick, 0);
}

void net_server_destroy(struct net_server *s)
{
    if (!s)
        return;
    close_listeners(s);
    list_each_safe(at, &s->connections) connection_close(LIST_ENTRY(at, struct connection, link), NULL);
    list_each_safe(at, &s->closed)
    {
        bool gone = connection_reap(LIST_ENTRY(at, struct connection, link));
        assert(gone);
        (void)gone;
    }
    assert(s->connections_n == 0);
    assert(s->requests_n == 0);
    assert(s->holding_n == 0);
    assert(!s->favoured);
    if (s->spare)
        net_buffer_unref(s->spare);
    net_buffers_fini(&s->buffers);
    loop_timer_stop(&s->tick);
    struct metric_cell *cells[] = {s->open, s->accepted, s->starving, s->received, s->sent, s->memory};
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
        metrics_release(s->shard->metrics, cells[i]);
    size_t n;
    api_rows(&n);
    for (size_t i = 0; i < n; i++) {
        metrics_release(s->shard->metrics, s->per_api[i].requests);
        metrics_release(s->shard->metrics, s->per_api[i].seconds);
    }
    free(s->per_api);
    free(s);
}

void server_count(struct net_server *s, const struct api_request *req)
{
    size_t n;
    size_t row = (size_t)(req->row - api_rows(&n));
    assert(row < n);
    metric_add(s->per_api[row].requests, 1);
    metric_observe(s->per_api[row].seconds, server_now(s) - req->received_us);
}

bool server_may_say(struct net_server *s, const char *host)
{
    unsigned peer = hash_bytes(host, strlen(host)), at = peer % NET_PEERS_SAID;
    int64_t now = loop_now_us(s->shard->loop);
    if (s->said[at].peer == peer && s->said[at].at_us && now - s->said[at].at_us < SAY_EVERY_US)
        return false;
    s->said[at].peer = peer;
    s->said[at].at_us = now;
    return true;
}

void server_count_close(struct net_server *s, const char *why)
{
    struct metric_cell *c =
        metrics_cell(s->shard->metrics, s->shard->index, M_sundog_broker_connections_closed_total, why);
    metric_add(c, 1); /* not given back: the count must stay on the page */
}

void net_server_counts(const struct net_server *s, struct net_counts *out)
{
    *out = (struct net_counts){.connections = s->connections_n, .requests_waiting = s->requests_n};
    list_each (at, &s->starved)
        out->starved++;
}
