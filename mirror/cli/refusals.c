#include "mirror/cli/refusals.h"

#include "base/core/list.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFUSALS_MAX 16 /* addresses remembered: no more are taken for bootstrap */

struct refusals {
    struct net net; /* first: what the client sees */
    struct net *inner;
    struct list dials; /* not told yet, or closed before */
    bool connected;    /* once, with anybody */
    char refused[REFUSALS_MAX][256];
    size_t refused_n;
};

/* One connection until it is made or has failed; then its events are the owner's own again. */
struct dial {
    struct list link;
    struct refusals *refusals;
    struct net_conn *conn;
    const struct net_conn_events *events;
    void *arg;
    char address[256];
};

static void dial_free(struct dial *d)
{
    list_remove(&d->link);
    free(d);
}

static void on_connected(void *arg)
{
    struct dial d = *(struct dial *)arg;
    assert(d.conn && d.events);
    d.refusals->connected = true;
    dial_free(arg);
    net_conn_set_events(d.conn, d.events, d.arg);
    d.events->connected(d.arg);
}

static void remember(struct refusals *r, const char *address)
{
    for (size_t i = 0; i < r->refused_n; i++)
        if (strcmp(r->refused[i], address) == 0)
            return;
    if (r->refused_n < REFUSALS_MAX)
        memcpy(r->refused[r->refused_n++], address, sizeof r->refused[0]);
}

static void on_failed(void *arg, int code)
{
    struct dial d = *(struct dial *)arg;
    assert(d.conn && code < 0);
    if (code == -E_REFUSED)
        remember(d.refusals, d.address);
    dial_free(arg);
    net_conn_set_events(d.conn, d.events, d.arg);
    d.events->failed(d.arg, code);
}

/* Nothing is wanted yet. */
static void on_ready(void *arg)
{
    (void)arg;
}

static const struct net_conn_events dial_events = {on_connected, on_ready, on_ready, on_failed};

static int dial(struct net *n, const char *host, uint16_t port, const struct net_conn_events *events,
                void *arg, struct net_conn **out, struct err *err)
{
    struct refusals *r = (struct refusals *)(void *)n;
    struct dial *d = calloc(1, sizeof *d);
    if (!d)
        return err_set(err, -E_NOMEM, "a connection");
    *d = (struct dial){.refusals = r, .events = events, .arg = arg};
    list_push(&r->dials, &d->link);
    snprintf(d->address, sizeof d->address, "%.200s:%u", host, (unsigned)port);
    int rc = net_connect(r->inner, host, port, &dial_events, d, &d->conn, err);
    *out = d->conn;
    if (rc)
        dial_free(d);
    return rc;
}

struct refusals *refusals_create(struct net *inner)
{
    static const struct net_ops ops = {.connect = dial}; /* a client does nothing else by its net */
    struct refusals *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    *r = (struct refusals){.net = {&ops, inner->loop}, .inner = inner};
    list_init(&r->dials);
    return r;
}

void refusals_destroy(struct refusals *r)
{
    if (!r)
        return;
    list_each_safe(at, &r->dials) dial_free(LIST_ENTRY(at, struct dial, link));
    free(r);
}

struct net *refusals_net(struct refusals *r)
{
    return &r->net;
}

bool refusals_all(const struct refusals *r, size_t addresses)
{
    assert(addresses > 0);
    return !r->connected && r->refused_n >= addresses;
}
