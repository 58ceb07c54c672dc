#include "mirror/cli/http.h"

#include "base/world/loop_posix.h"
#include "base/world/net_posix.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct getting {
    struct net_conn *conn;
    const char *request;
    size_t sent;
    struct buf *in;
    int done; /* 1, or -E_… */
};

static void on_writable(void *arg)
{
    struct getting *g = arg;
    size_t n = strlen(g->request);
    struct iovec v = {(void *)(uintptr_t)(g->request + g->sent), n - g->sent};
    ssize_t rc = net_writev(g->conn, &v, 1);
    if (rc >= 0)
        g->sent += (size_t)rc;
    else if (rc != -E_AGAIN)
        g->done = (int)rc;
    if (g->sent == n)
        net_want(g->conn, NET_WANT_READ);
}

static void on_connected(void *arg)
{
    struct getting *g = arg;
    net_want(g->conn, NET_WANT_WRITE);
}

static void on_readable(void *arg)
{
    enum { PIECE = 65536 };
    struct getting *g = arg;
    uint8_t *to = buf_room(g->in, PIECE);
    if (!to) {
        g->done = -E_LIMIT;
        return;
    }
    ssize_t n = net_read(g->conn, to, PIECE);
    if (n > 0)
        buf_added(g->in, (size_t)n);
    else if (n == 0)
        g->done = 1;
    else if (n != -E_AGAIN)
        g->done = (int)n;
}

static void on_failed(void *arg, int code)
{
    ((struct getting *)arg)->done = code;
}

/* Status line, headers, body: the daemons close after each answer. */
static int parse(struct buf *in, int *status, struct err *err)
{
    const char *text = (const char *)buf_slice(in).p;
    const char *end = in->n ? memmem(text, in->n, "\r\n\r\n", 4) : NULL;
    if (!end || in->n < 12 || strncmp(text, "HTTP/1.", 7) != 0)
        return err_set(err, -E_CORRUPT, "the answer is not HTTP");
    *status = (int)strtol(text + 9, NULL, 10);
    buf_drop(in, (size_t)(end + 4 - text));
    return 0;
}

static int get(struct loop_posix *loop, struct net *net, const char *host, uint16_t port, struct getting *g,
               int64_t timeout_ms, struct err *err)
{
    static const struct net_conn_events events = {on_connected, on_readable, on_writable, on_failed};
    enum { TURN_US = 20000 };
    int rc = net_connect(net, host, port, &events, g, &g->conn, err);
    if (rc)
        return rc;
    int64_t end = loop_now_us(loop_posix_loop(loop)) + timeout_ms * 1000;
    while (!g->done && loop_now_us(loop_posix_loop(loop)) < end)
        loop_posix_turn(loop, TURN_US);
    net_close(g->conn);
    if (g->done == 0)
        return err_set(err, -E_TIMEOUT, "no answer within %lld ms", (long long)timeout_ms);
    return g->done < 0 ? err_set(err, g->done, "%s", err_str(g->done)) : 0;
}

int http_get(const char *address, const char *path, int64_t timeout_ms, int *status, struct buf *out,
             struct err *err)
{
    char host[256], request[512];
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || (size_t)(colon - address) >= sizeof host)
        return err_set(err, -E_INVALID, "'%s' is not HOST:PORT", address);
    slice_cstr(slice_of(address, (size_t)(colon - address)), host, sizeof host);
    long port = strtol(colon + 1, NULL, 10);
    if (port < 1 || port > 65535)
        return err_set(err, -E_INVALID, "'%s' is not HOST:PORT", address);
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path,
             address);
    struct job_pool *jobs = NULL;
    struct loop_posix *loop = NULL;
    struct net *net = NULL;
    struct getting g = {.request = request, .in = out};
    int rc = job_pool_create(1, &jobs, err);
    if (!rc)
        rc = loop_posix_create(&(struct loop_posix_options){.jobs = jobs}, &loop, err);
    if (!rc)
        rc = net_posix_create(loop, &(struct net_posix_options){0}, &net, err);
    if (!rc)
        rc = get(loop, net, host, (uint16_t)port, &g, timeout_ms, err);
    if (!rc)
        rc = parse(out, status, err);
    if (net)
        net_posix_destroy(net);
    if (loop)
        loop_posix_destroy(loop);
    if (jobs)
        job_pool_destroy(jobs);
    return rc;
}
