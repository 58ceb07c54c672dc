/* The admin port: a small HTTP/1.1 server for GET and HEAD, on base/world/net.
 *
 *     static void health(void *arg, struct admin_reply *r) { r->status = 200; buf_printf(&r->body, "ok\n"); }
 *     static const struct admin_route routes[] = {{"/healthz", "text/plain; charset=utf-8", health}, …};
 *
 * One request a time on a connection, keep-alive. Refused with a 4xx and closed: another method, a request
 * with a body, a bad request line or header, more than ADMIN_HEADER_MAX bytes of them, HTTP/1.1 without
 * exactly one Host, and, when bound to loopback, a Host that is not loopback (DNS rebinding). At most
 * ADMIN_CONNECTIONS_MAX connections, further ones are closed at once; ADMIN_TIMEOUT_MS for a request to
 * arrive and for the answer to leave. ADMIN_RESERVE connections are served when the process has no descriptors left. The
 * loop's thread only. */
#ifndef SUNDOG_BASE_RUNTIME_ADMIN_HTTP_H
#define SUNDOG_BASE_RUNTIME_ADMIN_HTTP_H

#include "base/core/buf.h"
#include "base/core/err.h"
#include "base/world/net.h"

#define ADMIN_HEADER_MAX      8192
#define ADMIN_CONNECTIONS_MAX 64
#define ADMIN_RESERVE         NET_RESERVE_MAX
#define ADMIN_TIMEOUT_MS      10000
#define ADMIN_BODY_MAX        (64u << 20)

struct admin_reply {
    int status;               /* 200 unless changed */
    const char *content_type; /* the route's unless changed; must outlive the call */
    struct buf body;          /* up to ADMIN_BODY_MAX; overflow becomes a 500 */
};

struct admin_route {
    const char *path;
    const char *content_type;
    void (*fill)(void *arg, struct admin_reply *reply);
};

struct admin_options {
    struct net *net;
    const char *host;
    uint16_t port;
    bool anywhere;                    /* sundog.insecure: may be bound off loopback */
    const struct admin_route *routes; /* must outlive the server */
    size_t routes_n;
    void *arg;
};

struct admin_http;

int admin_http_create(const struct admin_options *o, struct admin_http **out, struct err *err);
uint16_t admin_http_port(const struct admin_http *a);
void admin_http_destroy(struct admin_http *a);
/* "HOST:PORT" or "[v6]:PORT"; -E_CONFIG otherwise. `host` has room for ADMIN_HOST_MAX. */
#define ADMIN_HOST_MAX 256
int admin_listener_parse(const char *text, char host[ADMIN_HOST_MAX], uint16_t *port, struct err *err);

#endif
