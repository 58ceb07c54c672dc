/* Outgoing connections: the name is looked up on a job thread, its addresses are tried one after the other, and only
 * when all have refused is the owner told, with the last one's error. */
#include "base/world/net_posix_internal.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RESOLVE_LANE 3 /* away from lane 0, where small programs flush */

struct resolve {
    struct loop_job job; /* first */
    struct conn *conn;   /* NULL: nobody waits any more. The loop's thread only */
    char *host;
    uint16_t port;
    struct addresses *found;
    int rc;
};

int net_posix_lookup(const char *host, uint16_t port, int flags, struct addresses *out, struct err *err)
{
    assert(host);
    assert(out);
    char service[8];
    snprintf(service, sizeof service, "%u", (unsigned)port);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    struct addrinfo *list = NULL;
    *out = (struct addresses){0};
    int rc = getaddrinfo(host[0] ? host : NULL, service, &hints, &list);
    if (rc != 0)
        return err_set(err, rc == EAI_MEMORY ? -E_NOMEM : -E_NOTFOUND, "host \"%.100s\": %s", host,
                       gai_strerror(rc));
    for (struct addrinfo *a = list; a && out->n < NET_ADDRESSES_MAX; a = a->ai_next) {
        struct address *to = &out->list[out->n++];
        assert(a->ai_addrlen <= sizeof to->to);
        memcpy(&to->to, a->ai_addr, a->ai_addrlen);
        to->n = a->ai_addrlen;
    }
    freeaddrinfo(list);
    return 0;
}

int net_posix_socket(int domain, int type, int protocol)
{
    int fd = socket(domain, type | SOCK_CLOEXEC, protocol);
    if (fd >= 0)
        net_posix_tune_outgoing(fd);
    return fd;
}

/* Whether the kernel has taken the attempt; else `*code` says why not. */
static bool try_address(struct conn *c, const struct address *a, int *code)
{
    assert(c->fd < 0);
    assert(a->n > 0);
    int fd = net_posix_socket(a->to.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        *code = errno == EMFILE || errno == ENFILE ? -E_LIMIT : err_from_errno(errno);
        return false;
    }
    conn_set_fd(c, fd);
    net_posix_peer_text((const struct sockaddr *)&a->to, a->n, c->peer);
    if (connect(fd, (const struct sockaddr *)&a->to, a->n) == 0 || errno == EINPROGRESS) {
        c->state = CONN_CONNECTING;
        conn_update_events(c); /* at once or later: writable tells */
        return true;
    }
    *code = err_from_errno(errno);
    conn_drop_fd(c);
    return false;
}

static void try_next(struct conn *c, int code)
{
    assert(c->addresses);
    assert(c->addresses->next <= c->addresses->n);
    while (c->addresses->next < c->addresses->n)
        if (try_address(c, &c->addresses->list[c->addresses->next++], &code))
            return;
    assert(code < 0);
    conn_fail_later(c, code);
}

void conn_connect_ready(struct conn *c)
{
    assert(c->state == CONN_CONNECTING);
    assert(c->fd >= 0);
    int error = 0;
    socklen_t n = sizeof error;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0)
        error = errno;
    if (error) {
        conn_drop_fd(c);
        try_next(c, err_from_errno(error));
        return;
    }
    free(c->addresses);
    c->addresses = NULL;
    c->state = CONN_OPEN;
    conn_update_events(c);
    c->events->connected(c->arg);
}

/* ---- names ---- */

static void resolve_run(struct loop_job *job)
{
    struct resolve *r = (struct resolve *)(void *)job;
    r->rc = net_posix_lookup(r->host, r->port, AI_ADDRCONFIG, r->found, NULL);
    if (r->rc == -E_NOTFOUND) /* "localhost" on a machine with no other address */
        r->rc = net_posix_lookup(r->host, r->port, 0, r->found, NULL);
}

static void resolve_done(struct loop_job *job)
{
    struct resolve *r = (struct resolve *)(void *)job;
    struct conn *c = r->conn;
    if (c) {
        assert(c->resolve == r);
        assert(c->state == CONN_RESOLVING);
        c->resolve = NULL;
        c->addresses = r->found;
        r->found = NULL;
        if (r->rc)
            conn_fail_later(c, r->rc);
        else
            try_next(c, -E_NOTFOUND);
    }
    free(r->found);
    free(r->host);
    free(r);
}

void conn_forget_resolve(struct conn *c)
{
    if (c->resolve)
        c->resolve->conn = NULL;
    c->resolve = NULL;
}

static int start_resolve(struct conn *c, const char *host, uint16_t port)
{
    assert(!c->resolve);
    assert(c->state == CONN_RESOLVING);
    struct resolve *r = calloc(1, sizeof *r);
    if (!r)
        return -E_NOMEM;
    *r = (struct resolve){.job = {.lane = RESOLVE_LANE, .run = resolve_run, .done = resolve_done},
                          .conn = c,
                          .host = strdup(host),
                          .port = port,
                          .found = calloc(1, sizeof *r->found)};
    if (!r->host || !r->found) {
        free(r->host);
        free(r->found);
        free(r);
        return -E_NOMEM;
    }
    c->resolve = r;
    loop_job(c->net->base.loop, &r->job);
    return 0;
}

int net_posix_connect(struct net *net, const char *host, uint16_t port, const struct net_conn_events *events,
                      void *arg, struct net_conn **out, struct err *err)
{
    struct net_posix *n = net_posix_of(net);
    assert(host);
    assert(events);
    assert(events->connected);
    assert(events->failed);
    assert(events->readable);
    assert(events->writable);
    struct addresses numeric;
    bool known = host[0] && net_posix_lookup(host, port, AI_NUMERICHOST, &numeric, NULL) == 0;
    if (!host[0] || (!known && !loop_posix_has_jobs(n->loop)))
        return err_set(err, -E_INVALID, "connect to \"%s\": not an address", host);
    struct conn *c = conn_new(n);
    if (!c)
        return err_set(err, -E_NOMEM, "connect to %s:%u: %s", host, (unsigned)port, err_str(-E_NOMEM));
    c->state = CONN_RESOLVING;
    c->events = events;
    c->arg = arg;
    snprintf(c->peer, sizeof c->peer, "%.48s:%u", host, (unsigned)port);
    int rc = 0;
    if (!known) {
        rc = start_resolve(c, host, port);
    } else if (!(c->addresses = malloc(sizeof numeric))) {
        rc = -E_NOMEM;
    } else {
        *c->addresses = numeric;
        try_next(c, -E_IO);
    }
    if (rc) {
        net_close(&c->base);
        return err_set(err, rc, "connect to %s:%u: %s", host, (unsigned)port, err_str(rc));
    }
    *out = &c->base;
    return 0;
}
