/* Connections and listeners as handles of a node's program, and the test's hold on the links between nodes. */
#include "tests/support/sim/sim_net_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT_FIRST   40000 /* of outgoing connections */
#define LISTEN_FIRST 20000 /* for port 0 */
#define BACKLOG      128
#define ACCEPTS_MAX  64
#define SENDFILE_MAX 65536

static struct sim_sock *end_of(struct net_conn *c)
{
    struct sim_sock *e = (struct sim_sock *)c;
    assert(e->magic == END_MAGIC);
    return e;
}

static struct sim_listener *listener_of(struct net_listener *l)
{
    return (struct sim_listener *)l;
}

static struct sim_node *node_of(struct net *n)
{
    return SIM_OWNER(n, struct sim_node, net);
}

/* ---- readiness ---- */

static bool may_read(const struct sim_sock *e)
{
    return (e->want & NET_WANT_READ) && e->events &&
           (e->state == END_BROKEN || (e->state == END_OPEN && sim_tcp_readable(e->tcp, e->side)));
}

static bool may_write(const struct sim_sock *e)
{
    return (e->want & NET_WANT_WRITE) && e->events &&
           (e->state == END_BROKEN || (e->state == END_OPEN && sim_tcp_room(e->tcp, e->side) > 0));
}

void sim_sock_poll(struct sim_sock *e)
{
    if (sim_inert(e->node))
        return;
    if (e->tell_connected || e->tell_failed || may_read(e) || may_write(e)) {
        turn_ready(&e->node->turn, &e->ready);
        sim_node_wake(e->node);
    }
}

void sim_sock_break(struct sim_sock *e, int code)
{
    if (e->state == END_BROKEN)
        return;
    e->tell_failed = e->state == END_CONNECTING;
    e->tell_connected = false;
    e->state = END_BROKEN;
    e->code = code;
    sim_sock_poll(e);
}

static void run_end(struct turn_ready *r)
{
    struct sim_sock *e = SIM_OWNER(r, struct sim_sock, ready);
    struct sim *s = e->node->sim;
    s->running_handle = e;
    if (e->tell_failed) {
        e->tell_failed = false;
        e->events->failed(e->arg, e->code);
    } else if (e->tell_connected) {
        e->tell_connected = false;
        e->events->connected(e->arg);
    } else {
        if (may_read(e))
            e->events->readable(e->arg);
        if (s->running_handle == e && may_write(e))
            e->events->writable(e->arg);
    }
    if (s->running_handle == e)
        sim_sock_poll(e); /* level-triggered */
    s->running_handle = NULL;
}

/* ---- connections ---- */

static struct sim_sock *new_end(struct sim_node *n)
{
    struct sim_sock *e = calloc(1, sizeof *e);
    assert(e);
    *e = (struct sim_sock){.base = {&n->net}, .magic = END_MAGIC, .node = n, .ready = {.fn = run_end}};
    list_init(&e->queued);
    list_push(&n->ends, &e->link);
    return e;
}

static void free_end(struct sim_sock *e)
{
    if (list_linked(&e->ready.link))
        list_remove(&e->ready.link);
    list_remove(&e->queued);
    list_remove(&e->link);
    e->magic = 0;
    free(e);
}

static struct sim_node *find_host(struct sim_node *asking, const char *host)
{
    if (strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0)
        return asking;
    for (unsigned i = 0; i < asking->sim->nodes_n; i++) {
        struct sim_node *n = asking->sim->nodes[i];
        if (strcmp(host, n->name) == 0 || strcmp(host, n->address) == 0)
            return n;
    }
    return NULL;
}

static int net_connect_(struct net *net, const char *host, uint16_t port,
                        const struct net_conn_events *events, void *arg, struct net_conn **out,
                        struct err *err)
{
    struct sim_node *n = node_of(net);
    assert(host && events && events->connected && events->failed && events->readable && events->writable);
    if (!host[0])
        return err_set(err, -E_INVALID, "connect to \"%s\": not an address", host);
    struct sim_sock *e = new_end(n);
    e->events = events;
    e->arg = arg;
    e->state = END_CONNECTING;
    struct sim_node *to = find_host(n, host);
    snprintf(e->peer, sizeof e->peer, "%.40s:%u", to ? to->address : host, (unsigned)port);
    if (to && !sim_inert(n))
        e->tcp = sim_tcp_connect(e, to, port);
    else
        sim_sock_break(e, -E_NOTFOUND);
    *out = &e->base;
    return 0;
}

static void net_set_events(struct net_conn *c, const struct net_conn_events *events, void *arg)
{
    struct sim_sock *e = end_of(c);
    assert(events && events->readable && events->writable);
    e->events = events;
    e->arg = arg;
}

static void net_want_(struct net_conn *c, unsigned want)
{
    struct sim_sock *e = end_of(c);
    assert(e->events && want <= (NET_WANT_READ | NET_WANT_WRITE));
    e->want = want;
    sim_sock_poll(e);
}

/* Fewer bytes than asked for, when the seed says so. */
static size_t part_of(struct sim *s, size_t n)
{
    return n > 1 && rng_chance(&s->rng, s->partial_io) ? 1 + (size_t)rng_below(&s->rng, n) : n;
}

static bool usable(const struct sim_sock *e, ssize_t *why_not)
{
    if (sim_inert(e->node) || !e->tcp) {
        *why_not = -E_CLOSED;
        return false;
    }
    if (e->state == END_CONNECTING) {
        *why_not = -E_AGAIN;
        return false;
    }
    return true;
}

static ssize_t net_read_(struct net_conn *c, void *p, size_t n)
{
    struct sim_sock *e = end_of(c);
    ssize_t got = 0;
    if (!usable(e, &got))
        return got;
    if (n == 0)
        return 0;
    got = sim_tcp_read(e->tcp, e->side, p, part_of(e->node->sim, n));
    return got == -E_AGAIN && e->state == END_BROKEN ? -E_CLOSED : got; /* what had arrived comes first */
}

static ssize_t net_writev_(struct net_conn *c, const struct iovec *v, int n)
{
    struct sim_sock *e = end_of(c);
    ssize_t done = 0;
    if (!usable(e, &done))
        return done;
    if (e->state == END_BROKEN)
        return -E_CLOSED;
    size_t total = 0;
    for (int i = 0; i < n; i++)
        total += v[i].iov_len;
    size_t most = part_of(e->node->sim, total);
    for (int i = 0; i < n && (size_t)done < most; i++) {
        size_t part = v[i].iov_len < most - (size_t)done ? v[i].iov_len : most - (size_t)done;
        ssize_t w = part ? sim_tcp_write(e->tcp, e->side, v[i].iov_base, part) : 0;
        if (w < 0)
            return done > 0 ? done : w;
        done += w;
        if ((size_t)w < part)
            break;
    }
    return done;
}

static ssize_t net_sendfile_(struct net_conn *c, struct disk_file *f, int64_t position, size_t n)
{
    struct sim_sock *e = end_of(c);
    ssize_t done = 0;
    if (!usable(e, &done))
        return done;
    if (e->state == END_BROKEN)
        return -E_CLOSED;
    int64_t room = sim_tcp_room(e->tcp, e->side);
    if (room == 0)
        return -E_AGAIN;
    size_t most = n < SENDFILE_MAX ? n : SENDFILE_MAX;
    most = part_of(e->node->sim, most < (size_t)room ? most : (size_t)room);
    uint8_t *bytes = malloc(most ? most : 1);
    assert(bytes);
    done = disk_pread(f, bytes, most, position);
    if (done > 0)
        done = sim_tcp_write(e->tcp, e->side, bytes, (size_t)done);
    free(bytes);
    return done;
}

static void net_peer_(struct net_conn *c, char out[NET_ADDRESS_MAX])
{
    snprintf(out, NET_ADDRESS_MAX, "%s", end_of(c)->peer);
}

static void net_close_(struct net_conn *c)
{
    struct sim_sock *e = end_of(c);
    if (e->node->sim->running_handle == e)
        e->node->sim->running_handle = NULL;
    if (e->tcp && !(e->node->doomed && e->node->doomed_power))
        sim_tcp_close(e->tcp, e->side);
    else if (e->tcp)
        sim_tcp_silence(e->tcp, e->side); /* the power is off already: nothing leaves */
    free_end(e);
}

/* ---- listeners ---- */

static void poll_listener(struct sim_listener *l)
{
    if (sim_inert(l->node) || l->paused || list_empty(&l->queue))
        return;
    turn_ready(&l->node->turn, &l->ready);
    sim_node_wake(l->node);
}

static void run_listener(struct turn_ready *r)
{
    struct sim_listener *l = SIM_OWNER(r, struct sim_listener, ready);
    struct sim *s = l->node->sim;
    s->running_handle = l;
    for (int i = 0; i < ACCEPTS_MAX && s->running_handle == l && !l->paused && !list_empty(&l->queue); i++) {
        struct sim_sock *e = LIST_ENTRY(list_pop(&l->queue), struct sim_sock, queued);
        l->queue_n--;
        l->accepted(l->arg, &e->base);
    }
    if (s->running_handle == l)
        poll_listener(l);
    s->running_handle = NULL;
}

static struct sim_listener *find_listener(struct sim_node *n, uint16_t port)
{
    list_each (at, &n->listeners) {
        struct sim_listener *l = LIST_ENTRY(at, struct sim_listener, link);
        if (l->port == port)
            return l;
    }
    return NULL;
}

struct sim_sock *sim_listener_take(struct sim_tcp *t, bool *full)
{
    struct sim_node *n = t->node[1];
    struct sim_listener *l = n->up ? find_listener(n, t->port[1]) : NULL;
    *full = l && l->queue_n >= BACKLOG;
    if (!l || *full)
        return NULL;
    struct sim_sock *e = new_end(n);
    e->tcp = t;
    e->side = 1;
    e->state = END_OPEN;
    snprintf(e->peer, sizeof e->peer, "%s:%u", t->node[0]->address, (unsigned)t->port[0]);
    list_push(&l->queue, &e->queued);
    l->queue_n++;
    poll_listener(l);
    return e;
}

static int net_listen_(struct net *net, const char *host, uint16_t port,
                       void (*accepted)(void *arg, struct net_conn *c), void *arg, struct net_listener **out,
                       struct err *err)
{
    struct sim_node *n = node_of(net);
    assert(host && accepted && out);
    struct sim_node *at = find_host(n, host);
    if (host[0] && strcmp(host, "0.0.0.0") != 0 && strcmp(host, "::") != 0 && at != n)
        return err_set(err, at ? -E_INVALID : -E_NOTFOUND, "listener %s:%u: cannot bind: not this host", host,
                       (unsigned)port);
    for (uint16_t free_port = LISTEN_FIRST; port == 0; free_port++)
        if (!find_listener(n, free_port))
            port = free_port;
    if (find_listener(n, port))
        return err_set(err, -E_BUSY, "listener %s:%u: cannot bind: Address already in use", host,
                       (unsigned)port);
    struct sim_listener *l = calloc(1, sizeof *l);
    assert(l);
    *l = (struct sim_listener){.base = {net},
                               .node = n,
                               .port = port,
                               .accepted = accepted,
                               .arg = arg,
                               .ready = {.fn = run_listener}};
    list_init(&l->queue);
    list_push(&n->listeners, &l->link);
    *out = &l->base;
    return 0;
}

static int net_share_(struct net *net, struct net_listener *other,
                      void (*accepted)(void *arg, struct net_conn *c), void *arg, struct net_listener **out,
                      struct err *err)
{
    (void)net, (void)other, (void)accepted, (void)arg, (void)out;
    return err_set(err, -E_INVALID, "listener: a simulated node has one loop");
}

static uint16_t net_listener_port_(struct net_listener *l)
{
    return listener_of(l)->port;
}

static void net_listener_pause_(struct net_listener *base, bool pause)
{
    listener_of(base)->paused = pause;
    poll_listener(listener_of(base));
}

static void net_listener_close_(struct net_listener *base)
{
    struct sim_listener *l = listener_of(base);
    if (l->node->sim->running_handle == l)
        l->node->sim->running_handle = NULL;
    while (!list_empty(&l->queue))
        net_close_(&LIST_ENTRY(list_pop(&l->queue), struct sim_sock, queued)->base);
    if (list_linked(&l->ready.link))
        list_remove(&l->ready.link);
    list_remove(&l->link);
    free(l);
}

static const struct net_ops sim_net_ops = {
    .listen = net_listen_,
    .share = net_share_,
    .listener_port = net_listener_port_,
    .listener_pause = net_listener_pause_,
    .listener_close = net_listener_close_,
    .connect = net_connect_,
    .set_events = net_set_events,
    .want = net_want_,
    .read = net_read_,
    .writev = net_writev_,
    .sendfile = net_sendfile_,
    .peer = net_peer_,
    .close = net_close_,
};

/* ---- with the node ---- */

void sim_net_init(struct sim_node *n)
{
    n->net = (struct net){&sim_net_ops, &n->turn.loop};
    list_init(&n->ends);
    list_init(&n->listeners);
    n->port_next = PORT_FIRST;
}

void sim_net_detach(struct sim_node *n, bool silent)
{
    list_each (at, &n->ends) {
        struct sim_sock *e = LIST_ENTRY(at, struct sim_sock, link);
        struct sim_tcp *t = e->tcp;
        e->tcp = NULL;
        if (t && silent)
            sim_tcp_silence(t, e->side);
        else if (t)
            sim_tcp_close(t, e->side);
        e->state = END_BROKEN;
        e->code = -E_CLOSED;
    }
}

void sim_net_free(struct sim_node *n)
{
    while (!list_empty(&n->listeners))
        net_listener_close_(&LIST_ENTRY(n->listeners.next, struct sim_listener, link)->base);
    while (!list_empty(&n->ends))
        net_close_(&LIST_ENTRY(n->ends.next, struct sim_sock, link)->base);
}

unsigned sim_connections(const struct sim_node *n)
{
    unsigned open = 0;
    list_each (at, &n->ends)
        open += LIST_ENTRY(at, struct sim_sock, link)->state != END_BROKEN;
    return open;
}

/* ---- links ---- */

void sim_link_default(struct sim *s, const struct sim_link *link)
{
    assert(link->buffer_bytes > 0);
    s->link_default = *link;
}

void sim_link_set(struct sim_node *a, struct sim_node *b, const struct sim_link *link)
{
    assert(link->buffer_bytes > 0);
    a->routes[b->number].link = *link;
    a->routes[b->number].set = true;
}

void sim_cut(struct sim_node *a, struct sim_node *b)
{
    sim_note(a->sim, "cut", a->number, b->number);
    a->routes[b->number].cut = true;
}

void sim_heal(struct sim_node *a, struct sim_node *b)
{
    sim_note(a->sim, "heal", a->number, b->number);
    a->routes[b->number].cut = false;
}

void sim_cut_both(struct sim_node *a, struct sim_node *b)
{
    sim_cut(a, b);
    sim_cut(b, a);
}

void sim_isolate(struct sim_node *n)
{
    for (unsigned i = 0; i < n->sim->nodes_n; i++)
        if (n->sim->nodes[i] != n)
            sim_cut_both(n, n->sim->nodes[i]);
}

void sim_heal_all(struct sim *s)
{
    for (unsigned i = 0; i < s->nodes_n; i++)
        for (unsigned j = 0; j < s->nodes_n; j++)
            sim_heal(s->nodes[i], s->nodes[j]);
}

void sim_reset_connections(struct sim_node *a, struct sim_node *b)
{
    list_each_safe(at, &a->sim->connections)
    {
        struct sim_tcp *t = LIST_ENTRY(at, struct sim_tcp, link);
        if ((t->node[0] == a && t->node[1] == b) || (t->node[0] == b && t->node[1] == a))
            sim_tcp_reset(t);
    }
}
