/* What net_posix.c, net_connect.c and net_listen.c share: handles and their states. */
#ifndef SUNDOG_BASE_WORLD_NET_POSIX_INTERNAL_H
#define SUNDOG_BASE_WORLD_NET_POSIX_INTERNAL_H

#include "base/world/libevent.h"
#include "base/world/loop_posix_internal.h"
#include "base/world/net_posix.h"

#include <netdb.h>
#include <sys/socket.h>

/* resolving → connecting (each address in turn) → open; failed from the first two. */
enum conn_state { CONN_RESOLVING, CONN_CONNECTING, CONN_OPEN, CONN_FAILED };

#define CONN_MAGIC     0x636f6e6eu
#define LISTENER_MAGIC 0x6c73746eu

struct net_posix {
    struct net base; /* first */
    struct loop_posix *loop;
    struct net_posix_options options;
    struct conn *current; /* whose handler runs; NULL once it has been closed in there */
    struct listener *current_listener;
    struct listener *reserving; /* has descriptors of its own; NULL: none does */
    unsigned open;              /* connections and listeners */
    int spare_fd;
};

struct address {
    struct sockaddr_storage to;
    socklen_t n;
};

struct addresses {
    struct address list[NET_ADDRESSES_MAX];
    unsigned n, next;
};

struct conn {
    struct net_conn base; /* first */
    unsigned magic;
    enum conn_state state;
    struct net_posix *net;
    int fd; /* -1 while resolving */
    struct turn_ready ready;
    struct event read_event, write_event; /* valid while fd >= 0 */
    bool reading, writing;                /* which of them is added */
    unsigned want, fired;                 /* NET_WANT_… */
    int failure;                          /* -E_…, to be told by `failed` */
    const struct net_conn_events *events;
    void *arg;
    struct resolve *resolve;     /* in flight */
    struct addresses *addresses; /* outgoing, until open */
    char peer[NET_ADDRESS_MAX];
};

static inline struct net_posix *net_posix_of(struct net *n)
{
    return (struct net_posix *)n;
}

static inline struct turn *net_posix_turn(struct net_posix *n)
{
    return loop_posix_turn_of(n->loop);
}

/* -E_AGAIN, -E_CLOSED or another code for what a socket call has left in errno. */
int net_posix_errno(int errnum);
void net_posix_peer_text(const struct sockaddr *a, socklen_t n, char out[NET_ADDRESS_MAX]);
/* TCP_NODELAY, keep-alive. */
void net_posix_tune(int fd);
void net_posix_tune_outgoing(int fd);

/* A connection without a socket, and giving it one. */
struct conn *conn_new(struct net_posix *n);
void conn_set_fd(struct conn *c, int fd);
void conn_drop_fd(struct conn *c);
/* Adds and removes the two libevent events as state and `want` say. */
void conn_update_events(struct conn *c);
/* `failed` will be called in the next turn. */
void conn_fail_later(struct conn *c, int code);

int net_posix_connect(struct net *n, const char *host, uint16_t port, const struct net_conn_events *events,
                      void *arg, struct net_conn **out, struct err *err);
/* The socket of a connecting handle is writable: connected, or on to the next address. */
void conn_connect_ready(struct conn *c);
void conn_forget_resolve(struct conn *c);
/* AI_… flags or'ed into the hints; 0 or -E_NOTFOUND with gai's words. */
int net_posix_lookup(const char *host, uint16_t port, int flags, struct addresses *out, struct err *err);

int net_posix_listen(struct net *n, const char *host, uint16_t port,
                     void (*accepted)(void *arg, struct net_conn *c), void *arg, struct net_listener **out,
                     struct err *err);
int net_posix_share(struct net *n, struct net_listener *other,
                    void (*accepted)(void *arg, struct net_conn *c), void *arg, struct net_listener **out,
                    struct err *err);
uint16_t net_posix_listener_port(struct net_listener *l);
void net_posix_listener_pause(struct net_listener *l, bool pause);
void net_posix_listener_reserve(struct net_listener *l, unsigned n);
void net_posix_listener_close(struct net_listener *l);
/* A descriptor has become free: back to the reserve first, if it lacks one. */
void net_posix_restock(struct net_posix *n);
int net_posix_open_spare(void);

#endif
