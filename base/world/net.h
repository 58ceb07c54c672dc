/* TCP as the daemons see it: listeners, connections, readiness. Bytes are read and written by the caller,
 * into its own memory: libevent (or the simulator) is asked for readiness only.
 *
 * Everything belongs to one loop and its thread. Callbacks come from the loop, never from inside a call of
 * this API. A handle's memory is given back by net_close; after it no callback comes. */
#ifndef SUNDOG_BASE_WORLD_NET_H
#define SUNDOG_BASE_WORLD_NET_H

#include "base/core/err.h"
#include "base/world/disk.h"
#include "base/world/loop.h"

#include <sys/types.h>
#include <sys/uio.h>

struct net;
struct net_conn;
struct net_listener;

enum net_want { NET_WANT_NONE = 0, NET_WANT_READ = 1, NET_WANT_WRITE = 2 };

struct net_conn_events {
    void (*connected)(void *arg);        /* outgoing only, once */
    void (*readable)(void *arg);         /* while NET_WANT_READ */
    void (*writable)(void *arg);         /* while NET_WANT_WRITE */
    void (*failed)(void *arg, int code); /* -E_…: connect failed; other errors show in read and write */
};

#define NET_ADDRESS_MAX 64

struct net_ops {
    int (*listen)(struct net *n, const char *host, uint16_t port,
                  void (*accepted)(void *arg, struct net_conn *c), void *arg, struct net_listener **out,
                  struct err *err);
    int (*share)(struct net *n, struct net_listener *other, void (*accepted)(void *arg, struct net_conn *c),
                 void *arg, struct net_listener **out, struct err *err);
    uint16_t (*listener_port)(struct net_listener *l);
    void (*listener_pause)(struct net_listener *l, bool pause);
    void (*listener_reserve)(struct net_listener *l, unsigned n); /* may be NULL */
    void (*listener_close)(struct net_listener *l);
    int (*connect)(struct net *n, const char *host, uint16_t port, const struct net_conn_events *events,
                   void *arg, struct net_conn **out, struct err *err);
    void (*set_events)(struct net_conn *c, const struct net_conn_events *events, void *arg);
    void (*want)(struct net_conn *c, unsigned want);
    ssize_t (*read)(struct net_conn *c, void *p, size_t n);
    ssize_t (*writev)(struct net_conn *c, const struct iovec *v, int n);
    ssize_t (*sendfile)(struct net_conn *c, struct disk_file *f, int64_t position, size_t n);
    void (*peer)(struct net_conn *c, char out[NET_ADDRESS_MAX]);
    const char *(*why)(struct net_conn *c); /* may be NULL */
    void (*close)(struct net_conn *c);
};

/* One per loop. Every handle starts with a pointer to its `struct net`. */
struct net {
    const struct net_ops *ops;
    struct loop *loop;
};
struct net_conn {
    struct net *net;
};
struct net_listener {
    struct net *net;
};

/* Binds and listens; port 0 takes a free one (net_listener_port tells). Accepted connections have no events
 * yet: call net_conn_events, then net_want. At EMFILE the listener pauses itself for 100 ms and logs once. */
static inline int net_listen(struct net *n, const char *host, uint16_t port,
                             void (*accepted)(void *arg, struct net_conn *c), void *arg,
                             struct net_listener **out, struct err *err)
{
    return n->ops->listen(n, host, port, accepted, arg, out, err);
}

/* The listening socket of another loop's listener, accepted from here too: how several shards serve one port.
 * `other` must be open during the call; afterwards the two live on their own. */
static inline int net_listen_share(struct net *n, struct net_listener *other,
                                   void (*accepted)(void *arg, struct net_conn *c), void *arg,
                                   struct net_listener **out, struct err *err)
{
    return n->ops->share(n, other, accepted, arg, out, err);
}

static inline uint16_t net_listener_port(struct net_listener *l)
{
    return l->net->ops->listener_port(l);
}

static inline void net_listener_pause(struct net_listener *l, bool pause)
{
    l->net->ops->listener_pause(l, pause);
}

/* Keeps `n` descriptors (NET_RESERVE_MAX at most) for this listener's connections, and lets it have those that are
 * left to files: it accepts that many when the process has none left. Of a net's listeners the first that asks has
 * it. */
#define NET_RESERVE_MAX 8u
static inline void net_listener_reserve(struct net_listener *l, unsigned n)
{
    if (l->net->ops->listener_reserve)
        l->net->ops->listener_reserve(l, n);
}

static inline void net_listener_close(struct net_listener *l)
{
    if (l)
        l->net->ops->listener_close(l);
}

/* Starts a connection; names are resolved off the loop's thread. `connected` or `failed` follows. */
static inline int net_connect(struct net *n, const char *host, uint16_t port,
                              const struct net_conn_events *events, void *arg, struct net_conn **out,
                              struct err *err)
{
    return n->ops->connect(n, host, port, events, arg, out, err);
}

/* `events` must outlive the connection. */
static inline void net_conn_set_events(struct net_conn *c, const struct net_conn_events *events, void *arg)
{
    c->net->ops->set_events(c, events, arg);
}

/* Level-triggered interest, NET_WANT_… or'ed. */
static inline void net_want(struct net_conn *c, unsigned want)
{
    c->net->ops->want(c, want);
}

/* Bytes moved; 0 from net_read is the peer's end; -E_AGAIN: not now; -E_CLOSED, -E_IO: the connection is
 * dead. */
static inline ssize_t net_read(struct net_conn *c, void *p, size_t n)
{
    return c->net->ops->read(c, p, n);
}

static inline ssize_t net_writev(struct net_conn *c, const struct iovec *v, int n)
{
    return c->net->ops->writev(c, v, n);
}

/* File to socket without a copy of ours; 0: the file ends before `position`. */
static inline ssize_t net_sendfile(struct net_conn *c, struct disk_file *f, int64_t position, size_t n)
{
    return c->net->ops->sendfile(c, f, position, n);
}

/* "127.0.0.1:54321", for logs and client_host. */
static inline void net_peer(struct net_conn *c, char out[NET_ADDRESS_MAX])
{
    c->net->ops->peer(c, out);
}

/* More than the code of a failure says (a certificate's fault), until net_close; NULL: nothing. */
static inline const char *net_why(struct net_conn *c)
{
    return c->net->ops->why ? c->net->ops->why(c) : NULL;
}

static inline void net_close(struct net_conn *c)
{
    if (c)
        c->net->ops->close(c);
}

#endif
