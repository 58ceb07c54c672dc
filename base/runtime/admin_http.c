/* A connection reads until the blank line, answers, and starts over:
 *
 *     reading ──request──▶ answering ──sent──▶ reading (keep-alive) or closed
 *        └── anything odd, too long, too late ──▶ answering with a 4xx, then closed */
#include "base/runtime/admin_http.h"

#include "base/core/list.h"
#include "base/runtime/admin_request.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct client {
    struct list link;
    struct admin_http *server;
    struct net_conn *conn;
    struct loop_timer timeout;
    char in[ADMIN_HEADER_MAX];
    size_t in_n;
    bool answering, close_after;
    char head[256];
    struct admin_reply reply;
    size_t head_n, sent; /* of head and body together */
    bool with_body;
};

struct admin_http {
    struct net *net;
    struct net_listener *listener;
    const struct admin_route *routes;
    size_t routes_n;
    void *arg;
    bool loopback;
    struct list clients;
    unsigned clients_n;
};

static void drop(struct client *c)
{
    assert(c->server->clients_n > 0);
    loop_timer_stop(&c->timeout);
    net_close(c->conn);
    buf_fini(&c->reply.body);
    list_remove(&c->link);
    c->server->clients_n--;
    free(c);
}

static void on_timeout(void *arg)
{
    drop(arg);
}

/* ---- answering ---- */

static const char *reason(int status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 503: return "Service Unavailable";
    default: return "Status";
    }
}

static void send_more(struct client *c)
{
    assert(c->answering);
    assert(c->head_n > 0);
    size_t body_n = c->with_body ? c->reply.body.n : 0;
    while (c->sent < c->head_n + body_n) {
        size_t head_left = c->sent < c->head_n ? c->head_n - c->sent : 0;
        size_t body_sent = c->sent > c->head_n ? c->sent - c->head_n : 0;
        struct iovec v[2];
        int parts = 0;
        if (head_left)
            v[parts++] = (struct iovec){c->head + c->head_n - head_left, head_left};
        if (body_n)
            v[parts++] = (struct iovec){c->reply.body.p + body_sent, body_n - body_sent};
        ssize_t n = net_writev(c->conn, v, parts);
        if (n == -E_AGAIN) {
            net_want(c->conn, NET_WANT_WRITE);
            return;
        }
        if (n < 0) {
            drop(c);
            return;
        }
        c->sent += (size_t)n;
    }
    if (c->close_after) {
        drop(c);
        return;
    }
    c->answering = false;
    loop_timer_in(&c->timeout, ADMIN_TIMEOUT_MS * 1000);
    net_want(c->conn, NET_WANT_READ);
}

static void answer(struct client *c, bool head_only)
{
    struct admin_reply *r = &c->reply;
    if (r->body.failed) {
        buf_clear(&r->body);
        r->status = 500;
        r->content_type = "text/plain; charset=utf-8";
        buf_printf(&r->body, "the page is larger than %u bytes\n", ADMIN_BODY_MAX);
    }
    int n =
        snprintf(c->head, sizeof c->head,
                 "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
                 "X-Content-Type-Options: nosniff\r\n%s\r\n",
                 r->status, reason(r->status), r->content_type, r->body.n,
                 c->close_after ? "Connection: close\r\n" : "");
    assert(n > 0);
    assert((size_t)n < sizeof c->head);
    c->head_n = (size_t)n;
    c->sent = 0;
    c->with_body = !head_only && r->body.n > 0;
    c->answering = true;
    loop_timer_in(&c->timeout, ADMIN_TIMEOUT_MS * 1000);
    net_want(c->conn, NET_WANT_NONE);
    send_more(c);
}

static void start_reply(struct client *c, int status, const char *content_type)
{
    assert(!c->answering);
    assert(content_type);
    buf_clear(&c->reply.body);
    c->reply.status = status;
    c->reply.content_type = content_type;
}

static void refuse(struct client *c, int status, const char *why)
{
    start_reply(c, status, "text/plain; charset=utf-8");
    buf_printf(&c->reply.body, "%s\n", why);
    c->close_after = true;
    answer(c, false);
}

static void serve(struct client *c, const struct admin_request *q)
{
    for (size_t i = 0; i < c->server->routes_n; i++) {
        const struct admin_route *route = &c->server->routes[i];
        if (!slice_eq_str(q->path, route->path))
            continue;
        start_reply(c, 200, route->content_type);
        c->close_after = q->close;
        route->fill(c->server->arg, &c->reply);
        answer(c, q->head_only);
        return;
    }
    refuse(c, 404, "no such page");
}

/* ---- reading ---- */

static void on_readable(void *arg)
{
    struct client *c = arg;
    assert(!c->answering);
    ssize_t n = net_read(c->conn, c->in + c->in_n, sizeof c->in - c->in_n);
    if (n == -E_AGAIN)
        return;
    if (n <= 0) {
        drop(c);
        return;
    }
    c->in_n += (size_t)n;
    struct admin_request q;
    int status = admin_request_parse(slice_of(c->in, c->in_n), c->server->loopback, &q);
    if (status == ADMIN_REQUEST_PARTIAL && c->in_n < sizeof c->in)
        return;
    if (status != 200) {
        bool full = status == ADMIN_REQUEST_PARTIAL;
        refuse(c, full ? 431 : status, full ? "the request's header is too large" : q.why);
        return;
    }
    if (q.bytes != c->in_n) {
        refuse(c, 400, "bytes behind the request: a body, or a second request before the first one's answer");
        return;
    }
    c->in_n = 0;
    serve(c, &q);
}

static void on_writable(void *arg)
{
    struct client *c = arg;
    assert(c->answering);
    net_want(c->conn, NET_WANT_NONE);
    send_more(c);
}

static void on_failed(void *arg, int code)
{
    (void)code;
    drop(arg);
}

static const struct net_conn_events client_events = {
    .readable = on_readable,
    .writable = on_writable,
    .failed = on_failed,
};

static void on_accepted(void *arg, struct net_conn *conn)
{
    struct admin_http *a = arg;
    assert(a->clients_n <= ADMIN_CONNECTIONS_MAX);
    struct client *c = a->clients_n < ADMIN_CONNECTIONS_MAX ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        net_close(conn);
        return;
    }
    c->server = a;
    c->conn = conn;
    buf_init(&c->reply.body, ADMIN_BODY_MAX);
    loop_timer_init(&c->timeout, a->net->loop, on_timeout, c);
    loop_timer_in(&c->timeout, ADMIN_TIMEOUT_MS * 1000);
    list_push(&a->clients, &c->link);
    a->clients_n++;
    net_conn_set_events(conn, &client_events, c);
    net_want(conn, NET_WANT_READ);
}

/* ---- the server ---- */

static bool is_loopback(const char *host)
{
    /* 127.example.org is a name like any other. */
    bool number = strspn(host, "0123456789.") == strlen(host);
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           (number && strncmp(host, "127.", 4) == 0);
}

int admin_http_create(const struct admin_options *o, struct admin_http **out, struct err *err)
{
    assert(o->net);
    assert(o->host);
    assert((o->routes || o->routes_n == 0));
    bool loopback = is_loopback(o->host);
    if (!loopback && !o->anywhere)
        return err_set(
            err, -E_CONFIG,
            "sundog.admin.listener=%s:%u: the admin port has no authentication and may only be bound to "
            "loopback; choose 127.0.0.1, or set sundog.insecure=true",
            o->host, (unsigned)o->port);
    struct admin_http *a = calloc(1, sizeof *a);
    if (!a)
        return err_set(err, -E_NOMEM, "admin port: %s", err_str(-E_NOMEM));
    *a = (struct admin_http){
        .net = o->net, .routes = o->routes, .routes_n = o->routes_n, .arg = o->arg, .loopback = loopback};
    list_init(&a->clients);
    int rc = net_listen(o->net, o->host, o->port, on_accepted, a, &a->listener, err);
    if (rc) {
        free(a);
        return err_wrap(err, "sundog.admin.listener");
    }
    net_listener_reserve(a->listener, ADMIN_RESERVE);
    *out = a;
    return 0;
}

uint16_t admin_http_port(const struct admin_http *a)
{
    return net_listener_port(a->listener);
}

void admin_http_destroy(struct admin_http *a)
{
    if (!a)
        return;
    net_listener_close(a->listener);
    list_each_safe(at, &a->clients) drop(LIST_ENTRY(at, struct client, link));
    assert(a->clients_n == 0);
    free(a);
}

int admin_listener_parse(const char *text, char host[ADMIN_HOST_MAX], uint16_t *port, struct err *err)
{
    assert(text);
    assert(host);
    assert(port);
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    const char *from = text;
    bool brackets = n >= 2 && text[0] == '[' && text[n - 1] == ']';
    if (brackets) {
        from++;
        n -= 2;
    }
    char *end = NULL;
    unsigned long number = colon && colon[1] >= '0' && colon[1] <= '9' ? strtoul(colon + 1, &end, 10) : 0;
    if (!end || *end || number > 65535 || n >= ADMIN_HOST_MAX || (!brackets && memchr(from, ':', n)))
        return err_set(err, -E_CONFIG, "sundog.admin.listener=%.100s: allowed is HOST:PORT or [IPv6]:PORT",
                       text);
    memcpy(host, from, n);
    host[n] = 0;
    *port = (uint16_t)number;
    return 0;
}
