/* The driver: carries the core's effects out on a loop and its net, and is the public face. */
#include "base/world/net_tls.h"
#include "proto/client/client_internal.h"
#include "proto/client/token.h"

#include <stdlib.h>

/* Bytes read from one connection in one turn: others get their turn too. */
#define READ_BYTES_PER_TURN ((size_t)2 << 20)
/* Callbacks submit, which makes effects, which make callbacks: so often in one turn, then the loop goes on. */
#define ROUNDS_PER_TURN 32

struct client {
    struct client_core *core;
    struct loop *loop;
    struct net *net, *tls; /* tls: ours, NULL without; then `net` is it */
    struct loop_timer due, soon;
    struct list watches;
    bool draining, destroyed;
    struct token_job *asking;
    struct client_token token; /* of an endpoint, the last */
    int64_t token_renew_ms;    /* wall clock: asked anew from then on */
};

/* Asking for a token may block: it is done on a job's thread, which outlives the client if it must. */
struct token_job {
    struct loop_job job; /* first */
    struct client *client;
    struct client_security security;
    struct client_token token;
    int rc;
    struct err err;
};

static void drain(struct client *c);

static void wake(void *arg)
{
    struct client *c = arg;
    if (!c->draining && !c->soon.armed)
        loop_timer_in(&c->soon, 0);
}

/* ---- sockets ---- */

static struct client *client_of(const struct client_conn *conn)
{
    return conn->core->wake_arg;
}

static void on_connected(void *arg)
{
    struct client_conn *conn = arg;
    struct client *c = client_of(conn);
    client_conn_connected(conn, loop_now_us(c->loop));
    drain(c);
}

/* TLS knows more than a code. */
static const char *reason(const struct client_conn *conn, int code)
{
    const char *why = conn->handle ? net_why(conn->handle) : NULL;
    return why ? why : err_str(code);
}

static void on_failed(void *arg, int code)
{
    struct client_conn *conn = arg;
    struct client *c = client_of(conn);
    client_conn_broken(conn, code, reason(conn, code), loop_now_us(c->loop));
    drain(c);
}

static bool conn_open(const struct client_conn *conn)
{
    return conn->handle && client_conn_state(conn) > CONN_CONNECTING;
}

static void write_all(struct client_conn *conn, int64_t now_us)
{
    struct iovec v[CONN_IOV_MAX];
    int n;
    while (conn_open(conn) && (n = client_conn_gather(conn, v, CONN_IOV_MAX)) > 0) {
        ssize_t done = net_writev(conn->handle, v, n);
        if (done == -E_AGAIN)
            break;
        if (done < 0) {
            client_conn_broken(conn, (int)done, reason(conn, (int)done), now_us);
            break;
        }
        client_conn_written(conn, (size_t)done, now_us);
    }
}

static void set_wants(struct client_conn *conn)
{
    if (!conn_open(conn))
        return;
    size_t room;
    client_conn_room(conn, &room);
    unsigned want = room ? NET_WANT_READ : NET_WANT_NONE;
    struct iovec v[1];
    if (client_conn_gather(conn, v, 1))
        want |= NET_WANT_WRITE;
    net_want(conn->handle, want);
}

static void on_readable(void *arg)
{
    struct client_conn *conn = arg;
    struct client *c = client_of(conn);
    int64_t now_us = loop_now_us(c->loop);
    size_t total = 0;
    while (conn_open(conn) && total < READ_BYTES_PER_TURN) {
        size_t room;
        uint8_t *to = client_conn_room(conn, &room);
        if (!room)
            break;
        ssize_t n = net_read(conn->handle, to, room);
        if (n == -E_AGAIN)
            break;
        if (n <= 0) {
            client_conn_broken(conn, n ? (int)n : -E_CLOSED,
                               n ? reason(conn, (int)n) : "closed by the broker", now_us);
            break;
        }
        total += (size_t)n;
        client_conn_received(conn, (size_t)n, now_us);
        if ((size_t)n < room)
            break; /* the socket is empty */
    }
    client_conn_io(conn);
    drain(c);
}

static void on_writable(void *arg)
{
    struct client_conn *conn = arg;
    struct client *c = client_of(conn);
    client_conn_io(conn);
    drain(c);
}

static const struct net_conn_events events = {on_connected, on_readable, on_writable, on_failed};

static void start_connect(struct client *c, struct client_conn *conn)
{
    struct err err = {0};
    struct net_conn *handle = NULL;
    assert(!conn->handle);
    int rc = net_connect(c->net, conn->broker->host, conn->broker->port, &events, conn, &handle, &err);
    if (rc)
        client_conn_broken(conn, rc, err.text, loop_now_us(c->loop));
    else
        conn->handle = handle;
}

/* ---- effects ---- */

static void deliver(struct client *c, struct call *call)
{
    assert(call->state == CALL_DONE && !call->abandoned);
    call->pub.on_response(call->pub.arg, &call->response);
    client_core_delivered(c->core, call);
}

#define TOKEN_LANE 3 /* with the lookups of names: what waits for others */

static void token_run(struct loop_job *job)
{
    struct token_job *j = (struct token_job *)(void *)job;
    j->rc = client_token_get(&j->security, &j->token, &j->err);
}

static void token_done(struct loop_job *job)
{
    struct token_job *j = (struct token_job *)(void *)job;
    struct client *c = j->client;
    if (c) {
        c->asking = NULL;
        client_token_fini(&c->token);
        c->token = j->token;
        j->token = (struct client_token){0};
        int64_t now_ms = loop_wall_ms(c->loop), left_ms = c->token.until_ms - now_ms;
        bool file = strncmp(j->security.token_url, "file:", 5) == 0;
        c->token_renew_ms = file || j->rc ? 0 : now_ms + left_ms / 5 * 4;
        client_core_token(c->core, j->rc ? NULL : c->token.text, &j->err, loop_now_us(c->loop));
    }
    client_token_fini(&j->token);
    client_security_fini(&j->security);
    free(j);
    if (c)
        drain(c);
}

/* An endpoint's token serves until four fifths of its life are over; a file is read for each connection. */
static void give_token(struct client *c)
{
    struct err err = {0};
    if (c->asking)
        return;
    if (c->token.text && loop_wall_ms(c->loop) < c->token_renew_ms) {
        client_core_token(c->core, c->token.text, NULL, loop_now_us(c->loop));
        return;
    }
    struct token_job *j = calloc(1, sizeof *j);
    if (!j || client_security_copy(c->core->o.security, &j->security)) {
        free(j);
        err_set(&err, -E_NOMEM, "no memory for a token");
        client_core_token(c->core, NULL, &err, loop_now_us(c->loop));
        return;
    }
    j->job = (struct loop_job){.lane = TOKEN_LANE, .run = token_run, .done = token_done};
    j->client = c;
    c->asking = j;
    loop_job(c->loop, &j->job);
}

/* A watch may add or remove any, itself included. */
static void tell_watches(struct client *c)
{
    struct list told;
    list_init(&told);
    while (!list_empty(&c->watches))
        list_push(&told, list_pop(&c->watches));
    while (!list_empty(&told)) {
        struct list *at = list_pop(&told);
        list_push(&c->watches, at);
        struct client_watch *w = LIST_ENTRY(at, struct client_watch, link);
        w->changed(w->arg);
    }
}

static void carry_out(struct client *c, const struct client_effect *e)
{
    switch (e->kind) {
    case EFFECT_CONNECT: start_connect(c, e->conn); break;
    case EFFECT_CLOSE: net_close(e->handle); break;
    case EFFECT_IO:
        write_all(e->conn, loop_now_us(c->loop));
        set_wants(e->conn);
        break;
    case EFFECT_DELIVER: deliver(c, e->call); break;
    case EFFECT_TOKEN: give_token(c); break;
    case EFFECT_WATCHES: tell_watches(c); break;
    case EFFECT_NONE: break;
    }
}

static void drain(struct client *c)
{
    assert(!c->draining);
    c->draining = true;
    bool more = true;
    for (int round = 0; more && round < ROUNDS_PER_TURN; round++) {
        struct client_effect e;
        more = false;
        client_core_time(c->core, loop_now_us(c->loop));
        while ((e = client_core_effect(c->core)).kind != EFFECT_NONE) {
            carry_out(c, &e);
            more = true;
        }
    }
    c->draining = false;
    if (more)
        wake(c);
    else
        loop_timer_stop(&c->soon);
    int64_t due_us = client_core_due(c->core);
    if (due_us == INT64_MAX)
        loop_timer_stop(&c->due);
    else if (!c->due.armed || c->due.due_us != due_us)
        loop_timer_at(&c->due, due_us);
}

static void on_time(void *arg)
{
    drain(arg);
}

/* ---- the public face ---- */

int client_create(struct loop *loop, struct net *net, const struct client_options *options,
                  struct client **out, struct err *err)
{
    struct client *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return err_set(err, -E_NOMEM, "client");
    c->loop = loop;
    c->net = net;
    list_init(&c->watches);
    loop_timer_init(&c->due, loop, on_time, c);
    loop_timer_init(&c->soon, loop, on_time, c);
    int rc = 0;
    if (options->security && options->security->tls) {
        rc = net_tls_create(net, &options->security->tls_options, &c->tls, err);
        c->net = c->tls;
    }
    if (!rc)
        rc = client_core_create(options, loop_random(loop), loop_now_us(loop), &c->core, err);
    if (rc) {
        net_tls_destroy(c->tls);
        free(c);
        return rc;
    }
    c->core->wake = wake;
    c->core->wake_arg = c;
    *out = c;
    return 0;
}

void client_destroy(struct client *c)
{
    if (!c)
        return;
    assert(!c->draining); /* not from one of its callbacks */
    assert(!c->destroyed);
    c->destroyed = true;
    c->core->wake = NULL;
    loop_timer_stop(&c->due);
    loop_timer_stop(&c->soon);
    list_each (at, &c->core->brokers) {
        struct client_broker *b = LIST_ENTRY(at, struct client_broker, link);
        for (int lane = 0; lane < CLIENT_LANES; lane++) {
            net_close(b->conns[lane].handle);
            net_close(b->conns[lane].closing);
        }
    }
    if (c->asking)
        c->asking->client = NULL;
    client_token_fini(&c->token);
    client_core_destroy(c->core);
    net_tls_destroy(c->tls);
    free(c);
}

struct client_call *client_call(struct client *c, int16_t api_key)
{
    struct call *call = client_core_call(c->core, kp_api_find(api_key), false);
    return call ? &call->pub : NULL;
}

struct client_call *client_ask(struct client *c, const struct client_ask *ask)
{
    struct client_call *call = client_call(c, ask->api);
    if (!call)
        return NULL;
    assert(ask->on_response);
    call->target = ask->target;
    call->retry = ask->retry;
    if (ask->version_min > call->version_min)
        call->version_min = ask->version_min;
    if (ask->version_max && ask->version_max < call->version_max)
        call->version_max = ask->version_max;
    assert(call->version_min <= call->version_max);
    call->timeout_us = ask->timeout_us;
    call->send_within_us = ask->send_within_us;
    call->on_response = ask->on_response;
    call->arg = ask->arg;
    return call;
}

void client_send(struct client *c, struct client_call *call)
{
    client_core_submit(c->core, call_of(call), loop_now_us(c->loop));
}

void client_cancel(struct client *c, struct client_call *call)
{
    client_core_cancel(c->core, call_of(call));
}

int client_request(struct client *c, const struct client_target *target, int16_t api_key, int16_t version_max,
                   const void *body, void (*on_response)(void *arg, const struct client_response *r),
                   void *arg, int64_t timeout_us)
{
    struct client_call *call = client_call(c, api_key);
    if (!call)
        return -E_LIMIT;
    assert(on_response);
    assert(version_max >= call->version_min);
    call_of(call)->body = body;
    call->target = *target;
    call->version_max = version_max;
    call->on_response = on_response;
    call->arg = arg;
    call->timeout_us = timeout_us;
    client_send(c, call);
    return 0;
}

int client_topic_follow(struct client *c, struct slice name)
{
    struct topic_entry *t;
    return client_topic_add(c->core, name, &t);
}

void client_topic_forget(struct client *c, struct slice name)
{
    client_topic_remove(c->core, name);
}

const struct client_topic *client_topic(const struct client *c, struct slice name)
{
    const struct topic_entry *t = client_topic_entry(c->core, name);
    return t && t->asked ? &t->pub : NULL;
}

void client_metadata_refresh(struct client *c)
{
    client_metadata_want(c->core);
}

struct slice client_cluster_id(const struct client *c)
{
    return c->core->cluster_seen ? slice_str(c->core->cluster_id) : SLICE_NULL;
}

void client_cluster_pin(struct client *c, struct slice cluster_id)
{
    assert(!c->core->cluster_seen);
    free(c->core->cluster_id);
    c->core->cluster_id = malloc(cluster_id.n + 1);
    if (c->core->cluster_id)
        slice_cstr(cluster_id, c->core->cluster_id, cluster_id.n + 1);
}

int32_t client_controller(const struct client *c)
{
    return c->core->controller;
}

void client_watch_add(struct client *c, struct client_watch *w)
{
    list_push(&c->watches, &w->link);
}

void client_watch_remove(struct client_watch *w)
{
    list_remove(&w->link);
}

enum client_state client_state(const struct client *c)
{
    bool opening = false;
    list_each (at, &c->core->brokers) {
        const struct client_broker *b = LIST_ENTRY(at, struct client_broker, link);
        for (int lane = 0; lane < CLIENT_LANES; lane++) {
            enum conn_state state = client_conn_state(&b->conns[lane]);
            if (state == CONN_READY)
                return CLIENT_UP;
            opening = opening || state != CONN_CLOSED;
        }
    }
    return opening || !list_empty(&c->core->waiting) ? CLIENT_CONNECTING : CLIENT_IDLE;
}

const struct err *client_last_error(const struct client *c)
{
    return &c->core->last_error;
}

void client_memory_limit(struct client *c, size_t bytes)
{
    assert(bytes > 0);
    bool more = bytes > c->core->frames->limit_bytes;
    c->core->o.memory_max_bytes = c->core->frames->limit_bytes = bytes;
    c->core->memory_freed = c->core->memory_freed || more;
    if (more)
        wake(c);
}

void client_counts(const struct client *c, struct client_counts *out)
{
    *out = c->core->counts;
    out->calls = c->core->calls;
    out->memory_bytes = c->core->frames->used_bytes;
}
