/* The broker's listeners and connections on one shard: accepts, reads frames, lets requests start in their turn, sends
 * answers in request order.
 *
 * Threading: the shard's thread, except net_server_open and net_server_close_listeners, which run while its loop does
 * not (start) or on it. Lifetime: created before the loop runs; destroyed after net_server_drain has told that it is
 * empty, or at once for a broker that is being killed.
 * Limits: every one is a member of net_options. A socket is read only while its connection has fewer than
 * `requests_max` requests and `queued_max_bytes` of answers, and the shard's budget has room. */
#ifndef SUNDOG_BROKER_NET_SERVER_H
#define SUNDOG_BROKER_NET_SERVER_H

#include "broker/api/api.h"

#include <stdatomic.h>

/* A listener as configured; the same array for every shard of the broker. */
struct net_listen_at {
    struct api_listener api;
    const char *host; /* to bind; "" or "0.0.0.0": anywhere */
    uint16_t port;    /* bound; filled in when it was 0 */
};

struct net_options {
    int64_t request_max_bytes;    /* socket.request.max.bytes */
    int64_t idle_max_us;          /* connections.max.idle.ms */
    int64_t request_max_us;       /* a frame must have arrived within this and a second per 64 KiB */
    int64_t write_max_us;         /* an answer must make progress within this */
    int32_t connections_max;      /* of all shards together */
    int32_t requests_max;         /* of one connection, started or waiting */
    int64_t queued_max_bytes;     /* of one connection: answers not yet sent */
    _Atomic int32_t *connections; /* open ones, of all shards */
};

struct net_server;

int net_server_create(struct shard *shard, const struct net_options *o, struct net_server **out,
                      struct err *err);
/* Binds `n` listeners; with `first` (another shard's server) it accepts from that one's sockets instead. */
int net_server_open(struct net_server *s, struct net_listen_at *at, size_t n, struct net_server *first,
                    struct err *err);
/* Connections wait in the kernel's queue while paused. */
void net_server_pause(struct net_server *s, bool pause);
/* After the partitions' work: starts what may start, sends what can be sent. True: call again; `later` is set when
 * there is work for the next turn. */
bool net_server_turn(struct net_server *s, bool *later);
/* No new connections or requests; those under way are answered. `drained` runs when no connection is left; after
 * `limit_us` the rest is cut. */
void net_server_drain(struct net_server *s, int64_t limit_us, void (*drained)(void *arg), void *arg);
/* Cuts whatever is open. Requests of handlers still under way must have been answered before. */
void net_server_destroy(struct net_server *s);

/* For status pages. */
struct net_counts {
    uint64_t connections, requests_waiting, starved;
};
void net_server_counts(const struct net_server *s, struct net_counts *out);

#endif
