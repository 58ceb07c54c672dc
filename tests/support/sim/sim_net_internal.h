/* Between the handles of sim_net.c and the transport of sim_tcp.c. */
#ifndef SUNDOG_TESTS_SUPPORT_SIM_NET_INTERNAL_H
#define SUNDOG_TESTS_SUPPORT_SIM_NET_INTERNAL_H

#include "tests/support/sim/sim_internal.h"

#define END_MAGIC 0x73656e64u

enum end_state { END_CONNECTING, END_OPEN, END_BROKEN };

/* A program's handle of a connection. `tcp` is NULL once its process is dead. */
struct sim_sock {
    struct net_conn base; /* first */
    unsigned magic;
    struct list link; /* of its node */
    struct sim_node *node;
    struct sim_tcp *tcp;
    unsigned side;
    enum end_state state;
    int code; /* of END_BROKEN */
    bool tell_connected, tell_failed;
    unsigned want;
    const struct net_conn_events *events;
    void *arg;
    struct turn_ready ready;
    struct list queued; /* in its listener, until accepted */
    char peer[NET_ADDRESS_MAX];
};

struct sim_listener {
    struct net_listener base; /* first */
    struct list link;         /* of its node */
    struct sim_node *node;
    uint16_t port;
    bool paused;
    void (*accepted)(void *arg, struct net_conn *c);
    void *arg;
    struct list queue; /* struct sim_sock.queued */
    unsigned queue_n;
    struct turn_ready ready;
};

/* One direction of a connection. */
struct sim_stream {
    struct sim_tcp *tcp;
    uint8_t *bytes; /* arrived and unread: n of them from head on */
    size_t head, n, cap;
    int64_t used;       /* taken from the writer, not yet known to it as read */
    int64_t last_at_us; /* no segment overtakes another */
    bool fin_sent, fin_arrived;
    struct list flight;   /* DATA and FIN, in order */
    struct sim_event ack; /* `ack_n` bytes read, on their way to the writer */
    int64_t ack_n;
};

struct sim_tcp {
    struct list link; /* of the simulation */
    struct sim *sim;
    struct sim_node *node[2]; /* 0 has connected, 1 has accepted */
    struct sim_sock *end[2];  /* NULL: closed, or its process is dead */
    uint16_t port[2];
    struct sim_stream stream[2]; /* [i]: written by side i */
    struct list control;         /* SYN, SYN-ACK and RST on their way */
    struct sim_event timeout;    /* keep-alive: nobody has answered for too long */
};

/* ---- transport ---- */

struct sim_tcp *sim_tcp_connect(struct sim_sock *from, struct sim_node *to, uint16_t port);
/* Bytes taken, or -E_AGAIN when the buffers are full. */
ssize_t sim_tcp_write(struct sim_tcp *t, unsigned side, const void *p, size_t n);
ssize_t sim_tcp_read(struct sim_tcp *t, unsigned side, void *p, size_t n);
int64_t sim_tcp_room(const struct sim_tcp *t, unsigned side);
bool sim_tcp_readable(const struct sim_tcp *t, unsigned side);
/* As close(2): what was written still goes, unless unread bytes make it a reset. */
void sim_tcp_close(struct sim_tcp *t, unsigned side);
/* The machine has lost power. */
void sim_tcp_silence(struct sim_tcp *t, unsigned side);
void sim_tcp_reset(struct sim_tcp *t);

/* ---- handles ---- */

/* For a connection that arrives: an end in the listener's queue, or NULL (refused, or the queue is full: *full). */
struct sim_sock *sim_listener_take(struct sim_tcp *t, bool *full);
/* Something of this end may have become ready. */
void sim_sock_poll(struct sim_sock *e);
void sim_sock_break(struct sim_sock *e, int code);

const struct sim_link *sim_route_link(const struct sim_node *from, const struct sim_node *to);

#endif
