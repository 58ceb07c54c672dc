#include "base/world/net_posix_internal.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#define KEEPALIVE_IDLE_S     60
#define KEEPALIVE_INTERVAL_S 10
#define KEEPALIVE_PROBES     6

static struct conn *of(struct net_conn *base)
{
    struct conn *c = (struct conn *)base;
    assert(c->magic == CONN_MAGIC);
    return c;
}

int net_posix_errno(int errnum)
{
    switch (errnum) {
    case EAGAIN:
    case EINTR: return -E_AGAIN;
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
    case ETIMEDOUT:
    case ENOTCONN: return -E_CLOSED;
    default: return -E_IO;
    }
}

void net_posix_peer_text(const struct sockaddr *a, socklen_t n, char out[NET_ADDRESS_MAX])
{
    char host[INET6_ADDRSTRLEN], port[8];
    if (getnameinfo(a, n, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        snprintf(out, NET_ADDRESS_MAX, "unknown");
        return;
    }
    const char *mapped = strncmp(host, "::ffff:", 7) == 0 && strchr(host, '.') ? host + 7 : host;
    snprintf(out, NET_ADDRESS_MAX, strchr(mapped, ':') ? "[%s]:%s" : "%s:%s", mapped, port);
}

struct option {
    int level, name, value;
};

static void set_options(int fd, const struct option *options, size_t n)
{
    for (size_t i = 0; i < n; i++)
        setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int)); /* best effort */
}

void net_posix_tune(int fd)
{
    static const struct option options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
        {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
    };
    set_options(fd, options, sizeof options / sizeof *options);
}

void net_posix_tune_outgoing(int fd)
{
    static const struct option options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, NET_DEAD_MS / 2000},
        {IPPROTO_TCP, TCP_KEEPINTVL, NET_DEAD_MS / 5000},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, NET_DEAD_MS},
    };
    set_options(fd, options, sizeof options / sizeof *options);
}

/* ---- readiness: libevent only notes it, the turn acts ---- */

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;
    assert(fd == c->fd);
    (void)fd;
    c->fired |= what & EV_READ ? NET_WANT_READ : 0u;
    c->fired |= what & EV_WRITE ? NET_WANT_WRITE : 0u;
    turn_ready(net_posix_turn(c->net), &c->ready);
}

static void run_open(struct conn *c, unsigned fired)
{
    struct net_posix *n = c->net;
    if ((fired & c->want & NET_WANT_READ) && c->events)
        c->events->readable(c->arg);
    if (n->current == c && (fired & c->want & NET_WANT_WRITE) && c->events)
        c->events->writable(c->arg);
}

static void run_conn(struct turn_ready *r)
{
    struct conn *c = (struct conn *)(void *)((char *)r - offsetof(struct conn, ready));
    assert(c->magic == CONN_MAGIC);
    struct net_posix *n = c->net;
    unsigned fired = c->fired;
    c->fired = 0;
    n->current = c;
    if (c->failure) {
        int code = c->failure;
        c->failure = 0;
        c->state = CONN_FAILED;
        conn_drop_fd(c);
        if (c->events && c->events->failed)
            c->events->failed(c->arg, code);
    } else if (c->state == CONN_CONNECTING && (fired & NET_WANT_WRITE)) {
        conn_connect_ready(c);
    } else if (c->state == CONN_OPEN) {
        run_open(c, fired);
    }
    n->current = NULL;
}

struct conn *conn_new(struct net_posix *n)
{
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    *c =
        (struct conn){.base = {&n->base}, .magic = CONN_MAGIC, .net = n, .fd = -1, .ready = {.fn = run_conn}};
    n->open++;
    return c;
}

void conn_set_fd(struct conn *c, int fd)
{
    assert(c->fd < 0);
    assert(fd >= 0);
    c->fd = fd;
    struct event_base *base = loop_posix_base(c->net->loop);
    event_assign(&c->read_event, base, fd, EV_READ | EV_PERSIST, on_socket, c);
    event_assign(&c->write_event, base, fd, EV_WRITE | EV_PERSIST, on_socket, c);
}

void conn_drop_fd(struct conn *c)
{
    assert(c->magic == CONN_MAGIC);
    if (c->fd < 0)
        return;
    if (c->reading)
        event_del(&c->read_event);
    if (c->writing)
        event_del(&c->write_event);
    c->reading = c->writing = false;
    close(c->fd);
    c->fd = -1;
    c->fired = 0;
    net_posix_restock(c->net);
}

/* Adding fails when the kernel has no memory for one more watch: the connection is then as good as broken. */
static void switch_event(struct conn *c, struct event *e, bool *is, bool should)
{
    if (*is == should)
        return;
    int rc = should ? event_add(e, NULL) : event_del(e);
    if (rc == 0)
        *is = should;
    else
        conn_fail_later(c, -E_NOMEM);
}

void conn_update_events(struct conn *c)
{
    assert(c->magic == CONN_MAGIC);
    if (c->fd < 0)
        return;
    bool open = c->state == CONN_OPEN;
    switch_event(c, &c->read_event, &c->reading, open && (c->want & NET_WANT_READ));
    switch_event(c, &c->write_event, &c->writing,
                 c->state == CONN_CONNECTING || (open && (c->want & NET_WANT_WRITE)));
}

void conn_fail_later(struct conn *c, int code)
{
    assert(code < 0);
    c->failure = code;
    turn_ready(net_posix_turn(c->net), &c->ready);
}

/* ---- the vtable ---- */

static void posix_set_events(struct net_conn *base, const struct net_conn_events *events, void *arg)
{
    struct conn *c = of(base);
    assert(events);
    assert(events->readable);
    assert(events->writable);
    c->events = events;
    c->arg = arg;
}

static void posix_want(struct net_conn *base, unsigned want)
{
    struct conn *c = of(base);
    assert(want <= (NET_WANT_READ | NET_WANT_WRITE));
    assert(c->events);
    c->want = want;
    conn_update_events(c);
}

static ssize_t posix_read(struct net_conn *base, void *p, size_t n)
{
    assert(p || n == 0);
    struct conn *c = of(base);
    if (c->fd < 0)
        return c->state == CONN_RESOLVING ? -E_AGAIN : -E_CLOSED;
    ssize_t got = recv(c->fd, p, n, 0);
    return got >= 0 ? got : net_posix_errno(errno);
}

static ssize_t posix_writev(struct net_conn *base, const struct iovec *v, int n)
{
    assert(n >= 0);
    assert((v || n == 0));
    struct conn *c = of(base);
    if (c->fd < 0)
        return c->state == CONN_RESOLVING ? -E_AGAIN : -E_CLOSED;
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)v,
                       .msg_iovlen = (size_t)(n < IOV_MAX ? n : IOV_MAX)};
    ssize_t sent = sendmsg(c->fd, &m, MSG_NOSIGNAL);
    return sent >= 0 ? sent : net_posix_errno(errno);
}

static ssize_t posix_sendfile(struct net_conn *base, struct disk_file *f, int64_t position, size_t n)
{
    struct conn *c = of(base);
    int from = disk_fd(f);
    assert(from >= 0);
    assert(position >= 0);
    if (c->fd < 0)
        return c->state == CONN_RESOLVING ? -E_AGAIN : -E_CLOSED;
    off_t at = position;
    ssize_t sent = sendfile(c->fd, from, &at, n);
    return sent >= 0 ? sent : net_posix_errno(errno);
}

static void posix_peer(struct net_conn *base, char out[NET_ADDRESS_MAX])
{
    assert(out);
    snprintf(out, NET_ADDRESS_MAX, "%s", of(base)->peer);
}

static void posix_close(struct net_conn *base)
{
    struct conn *c = of(base);
    struct net_posix *n = c->net;
    conn_forget_resolve(c);
    conn_drop_fd(c);
    if (list_linked(&c->ready.link))
        list_remove(&c->ready.link);
    if (n->current == c)
        n->current = NULL;
    assert(n->open > 0);
    n->open--;
    c->magic = 0;
    free(c->addresses);
    free(c);
}

static const struct net_ops posix_ops = {
    .listen = net_posix_listen,
    .share = net_posix_share,
    .listener_port = net_posix_listener_port,
    .listener_pause = net_posix_listener_pause,
    .listener_reserve = net_posix_listener_reserve,
    .listener_close = net_posix_listener_close,
    .connect = net_posix_connect,
    .set_events = posix_set_events,
    .want = posix_want,
    .read = posix_read,
    .writev = posix_writev,
    .sendfile = posix_sendfile,
    .peer = posix_peer,
    .close = posix_close,
};

int net_posix_create(struct loop_posix *l, const struct net_posix_options *o, struct net **out,
                     struct err *err)
{
    assert(l);
    assert(out);
    struct net_posix *n = calloc(1, sizeof *n);
    if (!n)
        return err_set(err, -E_NOMEM, "network: %s", err_str(-E_NOMEM));
    n->base = (struct net){&posix_ops, loop_posix_loop(l)};
    n->loop = l;
    n->options = o ? *o : (struct net_posix_options){0};
    n->spare_fd = net_posix_open_spare();
    signal(SIGPIPE, SIG_IGN); /* sendfile knows no MSG_NOSIGNAL */
    *out = &n->base;
    return 0;
}

void net_posix_destroy(struct net *net)
{
    if (!net)
        return;
    struct net_posix *n = net_posix_of(net);
    assert(n->open == 0);
    if (n->spare_fd >= 0)
        close(n->spare_fd);
    free(n);
}
