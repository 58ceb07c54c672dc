/* Listening sockets. Without descriptors left (EMFILE) a listener would be ready for ever: one waiting client is taken
 * through a spare descriptor and closed, so that it hears of it, and accepting pauses for NET_EMFILE_PAUSE_MS. The same
 * where only those are left that files may need (accept_below). A listener with a reserve gives up one of the descriptors
 * it keeps instead, and takes it back when a connection of the net has been closed. */
#include "base/world/net_posix_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct listener {
    struct net_listener base; /* first */
    unsigned magic;
    struct net_posix *net;
    int fd;
    struct event event;
    bool added;
    bool paused;    /* by the owner */
    bool exhausted; /* by the lack of descriptors */
    bool complained;
    struct turn_ready ready;
    struct loop_timer resume;
    int reserve[NET_RESERVE_MAX];
    unsigned reserve_n, reserve_max;
    void (*accepted)(void *arg, struct net_conn *c);
    void *arg;
};

static struct listener *of(struct net_listener *base)
{
    struct listener *l = (struct listener *)base;
    assert(l->magic == LISTENER_MAGIC);
    return l;
}

int net_posix_open_spare(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void update(struct listener *l)
{
    assert(l->magic == LISTENER_MAGIC);
    assert(l->fd >= 0);
    bool should = !l->paused && !l->exhausted;
    if (should == l->added)
        return;
    int rc = should ? event_add(&l->event, NULL) : event_del(&l->event);
    if (rc == 0)
        l->added = should;
    if (!should && list_linked(&l->ready.link))
        list_remove(&l->ready.link);
}

static void on_listener(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct listener *l = arg;
    turn_ready(net_posix_turn(l->net), &l->ready);
}

static void on_resume(void *arg)
{
    struct listener *l = arg;
    l->exhausted = false;
    update(l);
}

static void refuse_for_now(struct listener *l)
{
    const struct net_posix_options *o = &l->net->options;
    assert(!l->exhausted);
    l->exhausted = true;
    update(l);
    loop_timer_in(&l->resume, NET_EMFILE_PAUSE_MS * 1000);
    if (!l->complained && o->complain)
        o->complain(o->arg, "no file descriptors left: new connections wait");
    l->complained = true;
}

static void out_of_descriptors(struct listener *l)
{
    struct net_posix *n = l->net;
    if (n->spare_fd >= 0)
        close(n->spare_fd);
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        if (n->options.refused)
            n->options.refused(n->options.arg);
    }
    n->spare_fd = net_posix_open_spare();
    refuse_for_now(l);
}

/* ---- the reserve ---- */

static void restock(struct listener *l)
{
    assert(l->magic == LISTENER_MAGIC);
    assert(l->reserve_max <= NET_RESERVE_MAX);
    while (l->reserve_n < l->reserve_max) {
        int fd = net_posix_open_spare();
        if (fd < 0)
            return;
        l->reserve[l->reserve_n++] = fd;
    }
}

void net_posix_restock(struct net_posix *n)
{
    if (n->reserving)
        restock(n->reserving);
}

static void drop_reserve(struct listener *l)
{
    l->reserve_max = 0;
    while (l->reserve_n > 0)
        close(l->reserve[--l->reserve_n]);
    if (l->net->reserving == l)
        l->net->reserving = NULL;
}

void net_posix_listener_reserve(struct net_listener *base, unsigned n)
{
    struct listener *l = of(base);
    assert(n > 0);
    assert(n <= NET_RESERVE_MAX);
    if (l->net->reserving && l->net->reserving != l)
        return;
    l->net->reserving = l;
    l->reserve_max = n;
    restock(l);
}

/* Accepts with a descriptor that was kept. */
static int accept_kept(struct listener *l, struct sockaddr_storage *from, socklen_t *n)
{
    assert(l->reserve_n > 0);
    close(l->reserve[--l->reserve_n]);
    return accept4(l->fd, (struct sockaddr *)from, n, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* The kernel gives the lowest free number: one this high says how few are left for files. */
static bool too_high(struct listener *l, int fd)
{
    const struct net_posix_options *o = &l->net->options;
    if (o->accept_below == 0 || fd < o->accept_below || l->reserve_max > 0)
        return false;
    close(fd);
    if (o->refused)
        o->refused(o->arg);
    refuse_for_now(l);
    return true;
}

/* False when there is nothing more to accept now. */
static bool accept_one(struct listener *l)
{
    assert(l->added);
    assert(!l->paused);
    struct sockaddr_storage from;
    socklen_t n = sizeof from;
    int fd = accept4(l->fd, (struct sockaddr *)&from, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE) && l->reserve_n > 0)
        fd = accept_kept(l, &from, &n);
    if (fd < 0) {
        int why = errno;
        if (why == EMFILE || why == ENFILE || why == ENOBUFS || why == ENOMEM)
            out_of_descriptors(l);
        return why == ECONNABORTED || why == EINTR;
    }
    if (too_high(l, fd))
        return false;
    l->complained = false;
    struct conn *c = conn_new(l->net);
    if (!c) {
        close(fd);
        return true;
    }
    c->state = CONN_OPEN;
    net_posix_peer_text((struct sockaddr *)&from, n, c->peer);
    conn_set_fd(c, fd);
    net_posix_tune(fd);
    l->accepted(l->arg, &c->base);
    return true;
}

static void run_listener(struct turn_ready *r)
{
    struct listener *l = (struct listener *)(void *)((char *)r - offsetof(struct listener, ready));
    assert(l->magic == LISTENER_MAGIC);
    struct net_posix *n = l->net;
    n->current_listener = l;
    for (int i = 0; i < NET_ACCEPTS_PER_TURN && n->current_listener == l && l->added; i++)
        if (!accept_one(l))
            break;
    n->current_listener = NULL;
}

static int make_listener(struct net_posix *n, int fd, void (*accepted)(void *arg, struct net_conn *c),
                         void *arg, struct net_listener **out)
{
    assert(fd >= 0);
    struct listener *l = calloc(1, sizeof *l);
    if (!l) {
        close(fd);
        return -E_NOMEM;
    }
    *l = (struct listener){.base = {&n->base},
                           .magic = LISTENER_MAGIC,
                           .net = n,
                           .fd = fd,
                           .ready = {.fn = run_listener},
                           .accepted = accepted,
                           .arg = arg};
    loop_timer_init(&l->resume, n->base.loop, on_resume, l);
    event_assign(&l->event, loop_posix_base(n->loop), fd, EV_READ | EV_PERSIST, on_listener, l);
    n->open++;
    update(l);
    *out = &l->base;
    return 0;
}

static int bind_one(const struct address *a)
{
    int fd = socket(a->to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int on = 1, off = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->to.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off); /* "::" serves IPv4 too */
    if (bind(fd, (const struct sockaddr *)&a->to, a->n) == 0 && listen(fd, NET_BACKLOG) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* The address to bind to: for a name with several, IPv4 comes first, as with Kafka; for none at all ("") IPv6, which
 * serves both. */
static const struct address *prefer(const struct addresses *a, int family)
{
    for (unsigned i = 0; i < a->n; i++)
        if (a->list[i].to.ss_family == family)
            return &a->list[i];
    return &a->list[0];
}

static const char *bind_remedy(int error)
{
    switch (error) {
    case EADDRINUSE: return "; end what listens there, or choose another port";
    case EADDRNOTAVAIL: return "; choose an address of this machine";
    case EACCES: return "; choose a port above 1023, or give the right to bind this one";
    default: return "";
    }
}

int net_posix_listen(struct net *net, const char *host, uint16_t port,
                     void (*accepted)(void *arg, struct net_conn *c), void *arg, struct net_listener **out,
                     struct err *err)
{
    assert(host);
    assert(accepted);
    assert(out);
    struct addresses found;
    int rc = net_posix_lookup(host, port, AI_PASSIVE, &found, err);
    if (rc)
        return err_wrap(err, "listener %s:%u", host, (unsigned)port);
    int fd = bind_one(prefer(&found, host[0] ? AF_INET : AF_INET6));
    if (fd < 0 && !host[0] && errno == EAFNOSUPPORT)
        fd = bind_one(prefer(&found, AF_INET));
    if (fd < 0)
        return err_set(err, err_from_errno(errno), "listener %s:%u: cannot bind: %s%s", host, (unsigned)port,
                       strerror(errno), bind_remedy(errno));
    rc = make_listener(net_posix_of(net), fd, accepted, arg, out);
    return rc ? err_set(err, rc, "listener %s:%u: %s", host, (unsigned)port, err_str(rc)) : 0;
}

int net_posix_share(struct net *net, struct net_listener *other,
                    void (*accepted)(void *arg, struct net_conn *c), void *arg, struct net_listener **out,
                    struct err *err)
{
    assert(accepted);
    assert(out);
    int fd = fcntl(of(other)->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return err_set(err, err_from_errno(errno), "listener: cannot be shared: %s", strerror(errno));
    int rc = make_listener(net_posix_of(net), fd, accepted, arg, out);
    return rc ? err_set(err, rc, "listener: cannot be shared: %s", err_str(rc)) : 0;
}

uint16_t net_posix_listener_port(struct net_listener *base)
{
    struct sockaddr_storage at;
    socklen_t n = sizeof at;
    if (getsockname(of(base)->fd, (struct sockaddr *)&at, &n) != 0)
        return 0;
    if (at.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&at)->sin6_port);
    return ntohs(((struct sockaddr_in *)&at)->sin_port);
}

void net_posix_listener_pause(struct net_listener *base, bool pause)
{
    struct listener *l = of(base);
    l->paused = pause;
    update(l);
}

void net_posix_listener_close(struct net_listener *base)
{
    struct listener *l = of(base);
    struct net_posix *n = l->net;
    loop_timer_stop(&l->resume);
    l->paused = true;
    update(l);
    drop_reserve(l);
    close(l->fd);
    if (n->current_listener == l)
        n->current_listener = NULL;
    assert(n->open > 0);
    n->open--;
    l->magic = 0;
    free(l);
}
