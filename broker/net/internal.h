/* What server.c, connection.c, receive.c and send.c know of each other. */
#ifndef SUNDOG_BROKER_NET_INTERNAL_H
#define SUNDOG_BROKER_NET_INTERNAL_H

#include "base/core/sm.h"
#include "broker/net/buffer.h"
#include "broker/net/server.h"

#define CONNECTION_MAGIC 0x53756e436f6e6e31ULL
#define FRAME_SIZE_BYTES 4
#define LISTENERS_MAX    16

/* OPEN: reads and answers. DRAINING: the peer has ended or we shut down: what came is answered, nothing more is read.
 * CLOSED: the socket is gone; the memory goes when the last request has been answered. */
enum { CONNECTION_OPEN, CONNECTION_DRAINING, CONNECTION_CLOSED };

struct connection {
    uint64_t magic;
    struct net_server *server;
    struct net_conn *socket; /* NULL once closed */
    const struct api_listener *listener;
    uint64_t id;
    char host[NET_ADDRESS_MAX];
    struct sm state;
    struct list link;    /* server->connections or server->closed */
    struct list work;    /* server->work: something to start or to send; or server->later */
    bool later;          /* in the latter: large requests have had their share of this turn */
    struct list starved; /* server->starved: waits for memory, this much */
    size_t starved_bytes;
    unsigned starved_eighths; /* MEMORY_… */
    unsigned want;
    int64_t active_us; /* bytes moved last */

    /* receive.c: bytes [at, end) of `in` are not yet frames; between turns a few of them wait in `stash` instead. */
    struct net_buffer *in;
    size_t at, end;
    uint8_t *stash;
    size_t stash_n;
    bool stash_whole;  /* there may be whole frames in it: it was filled when there was no room for more */
    size_t frame_hint; /* size of recent frames */
    int64_t frame_started_us; /* the open frame's first byte; 0: none is open */
    bool read_ended;          /* nothing more is read: the peer's end, or below */
    bool said;                /* why it will be closed is in the log */
    bool frames_ended;        /* nothing more is looked at: a refused frame, or shutdown */

    /* Requests in order of arrival: answered ones in front are being sent. */
    struct list queue;
    unsigned queue_n, running_n;
    struct api_request *next; /* the first not started */
    int16_t running_key;
    size_t queued_bytes; /* answers */

    /* send.c: how far the front request's pieces have gone. */
    size_t piece, piece_at;
    int64_t blocked_since_us; /* 0: not */
};

/* Peers whose last line in the log is remembered: one line a peer and second. Two that fall together share a place. */
#define NET_PEERS_SAID 256

struct net_server {
    struct shard *shard;
    struct net_options o;
    struct net_listener *listeners[LISTENERS_MAX];
    struct accept_arg {
        struct net_server *server;
        const struct api_listener *listener;
    } accept[LISTENERS_MAX];
    size_t listeners_n;
    bool paused; /* connections_max reached */
    struct net_buffers buffers;
    struct net_buffer *spare; /* where connections without an open frame read into */
    struct list connections, closed, work, later, starved;
    struct connection *favoured; /* may go over the budget, by one frame: see receive.c */
    size_t connections_n, requests_n;
    struct net_share {
        int64_t turn_us;
        size_t bytes;
    } read, started;  /* of large frames in this turn of the loop: server_turn_has */
    size_t holding_n; /* requests that hold a receive buffer: they will give memory back */
    uint64_t next_id;
    struct {
        unsigned peer; /* hash of its address */
        int64_t at_us;
    } said[NET_PEERS_SAID];
    struct loop_timer tick;
    bool draining;
    int64_t drain_limit_us;
    void (*drained)(void *arg);
    void *drained_arg;
    struct metric_cell *open, *accepted, *starving, *received, *sent, *memory;
    struct {
        struct metric_cell *requests, *seconds;
    } * per_api; /* as api_rows */
};

/* connection.c */
void connection_accept(struct net_server *s, const struct api_listener *listener, struct net_conn *socket);
/* Says something of this connection is to be done at the end of the turn. */
void connection_work(struct connection *c);
void connection_drain(struct connection *c);
/* Closes the socket now; `why` NULL: nothing to say. */
void connection_close(struct connection *c, const char *why);
/* Frees a closed connection without requests. */
bool connection_reap(struct connection *c);
/* Starts what is next in turn, reads on if there is room, sends. */
void connection_turn(struct connection *c);
/* Takes a request out of the queue and finishes it. */
void connection_finish(struct connection *c, struct api_request *req);
/* Asks the socket for what is wanted now. */
void connection_want(struct connection *c);
/* May another frame be taken, by the limits of this connection? */
bool connection_has_room(const struct connection *c);

/* receive.c */
void receive_readable(struct connection *c);
/* Makes requests of the frames that have arrived, while there is room. */
void receive_buffered(struct connection *c);
void receive_close(struct connection *c);
/* Has a starved connection what it waits for? */
bool receive_may(const struct connection *c);
/* Bytes of the open frame that have come. */
size_t receive_frame_bytes(const struct connection *c);

/* server.c: metrics */
void server_count(struct net_server *s, const struct api_request *req);
void server_count_close(struct net_server *s, const char *why);
/* May a line about this peer stand in the log now? What may not is in the metrics all the same. */
bool server_may_say(struct net_server *s, const char *host);

/* send.c */
void send_answers(struct connection *c);

static inline int64_t server_now(const struct net_server *s)
{
    return loop_now_us(s->shard->loop);
}

/* Eighths of the budget. In the first six large frames begin, in the seventh those that have begun may grow. The last
 * is for small requests, one of each connection: who is slow or does not read cannot keep everybody else out. */
enum { MEMORY_BEGIN = 6, MEMORY_GROW = 7, MEMORY_SMALL = 8 };

static inline bool server_memory_has(const struct net_server *s, size_t n, unsigned eighths)
{
    const struct shard_memory *m = &s->shard->memory;
    size_t most = m->limit_bytes / 8 * eighths;
    return n <= most && m->used_bytes <= most - n;
}

/* Of large frames, in one turn of the loop: what is beyond waits for the next, and small requests are served in
 * between. A frame that is larger than that takes the next turns' shares too. */
#define READ_PER_TURN  ((size_t)256 << 10)
#define START_PER_TURN ((size_t)256 << 10)

static inline bool server_turn_has(const struct net_server *s, struct net_share *share, size_t most)
{
    if (share->turn_us != server_now(s))
        *share = (struct net_share){server_now(s), share->bytes > most ? share->bytes - most : 0};
    return share->bytes < most;
}

static inline bool server_memory_is_short(const struct net_server *s)
{
    return !server_memory_has(s, 0, MEMORY_GROW);
}

#endif
