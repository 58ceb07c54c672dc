/* What the client's parts share: calls, connections, brokers and the core that decides.
 *
 * The core is pure: events go in (client_core_…, client_conn_…), effects come out (client_core_effect). It
 * knows neither sockets nor loops; client.c carries the effects out, tests script them.
 *
 *   client_send ─► waiting ──route──► queued on a connection ──written──► in flight ──answer──► done ─► callback
 *                     ▲                        │ connection breaks, deadline passes                │
 *                     └────────── may be sent again ◄─────────────┘                                │
 *                     └────────── CLIENT_RETRY_SAFE and a retriable error ◄────────────────────────┘
 */
#ifndef SUNDOG_PROTO_CLIENT_CLIENT_INTERNAL_H
#define SUNDOG_PROTO_CLIENT_CLIENT_INTERNAL_H

#include "base/core/hash.h"
#include "base/core/rng.h"
#include "base/core/sm.h"
#include "proto/client/client.h"
#include "proto/client/sasl.h"

#include <assert.h>

/* ---- frames (frame.c) ---- */

#define CLIENT_FRAMES_KEPT    8
#define CLIENT_FRAME_SMALL    ((size_t)64 * 1024) /* always let in, never kept */
#define CLIENT_FRAME_KEPT_MAX ((size_t)8 << 20)

struct client_frames {
    size_t limit_bytes, used_bytes; /* used: held by connections and callers */
    size_t staying_bytes;           /* of these, in frames that stay until somebody far away has answered */
    size_t kept_bytes;
    struct client_frame *kept[CLIENT_FRAMES_KEPT];
    unsigned kept_n;
    unsigned live; /* frames out there */
    bool orphaned; /* the client is gone: the last frame frees this */
    void (*freed)(void *arg);
    void *arg;
};

struct client_frame {
    struct client_frames *frames;
    unsigned refs;
    bool stays;
    size_t size, capacity;
    uint8_t bytes[];
};

struct client_frames *client_frames_create(size_t limit_bytes, void (*freed)(void *arg), void *arg);
/* Frames still referred to stay; the rest goes. */
void client_frames_destroy(struct client_frames *f);
bool client_frames_room(const struct client_frames *f, size_t size);
/* One reference, NULL out of memory. */
struct client_frame *client_frame_new(struct client_frames *f, size_t size);

/* ---- calls ---- */

struct client_core;
struct client_conn;
struct client_broker;

enum call_state { CALL_NEW, CALL_WAITING, CALL_QUEUED, CALL_DONE };

#define CALL_MAGIC 0x63616c6cu

struct call {
    struct client_call pub; /* first: the caller's view */
    uint32_t magic;
    enum call_state state;
    struct list link; /* waiting, a connection's calls, done */
    struct list all;  /* every open call */
    const struct kp_api *api;
    const void *body; /* pub.body, or the caller's own */
    struct client_conn *conn;
    uint64_t seq; /* order of submission */
    bool internal, abandoned, started, written;
    bool handshake; /* part of opening its connection: ends with it, is never sent again */
    int64_t asked_us, deadline_us, send_by_us, not_before_us;
    unsigned attempts;
    int32_t correlation;
    int16_t version;
    struct kp_pieces pieces;
    size_t piece_at, piece_used;
    struct arena arena, wire, answer; /* what the caller builds; the encoding; the decoded answer */
    struct client_response response;
    struct err err;
};

#define CALL_ARENA_BYTES_MAX ((size_t)64 << 20)
#define CALLS_KEPT           64

static inline struct call *call_of(struct client_call *c)
{
    struct call *call = (struct call *)(void *)c;
    assert(call->magic == CALL_MAGIC);
    return call;
}

/* ---- brokers and connections ---- */

enum conn_state { CONN_CLOSED, CONN_CONNECTING, CONN_SECURING, CONN_VERSIONS, CONN_READY, CONN_STATES };

#define CONN_APIS       128
#define CONN_STAGE      CLIENT_FRAME_SMALL
#define CONN_IOV_MAX    64
#define CLIENT_HOST_MAX 256

struct version_range {
    int16_t min, max; /* max -1: not served */
};

struct client_conn {
    struct client_core *core;
    struct client_broker *broker;
    enum client_lane lane;
    struct sm sm;
    void *handle;         /* the driver's */
    void *closing;        /* a handle to be closed */
    struct list calls;    /* queued and in flight, in order */
    struct call *writing; /* the first that is not wholly written, NULL: none */
    int32_t correlation;
    int64_t since_us, used_us, received_us; /* of this state; last sent or received; last received */
    struct version_range versions[CONN_APIS];
    uint8_t *stage; /* CONN_STAGE bytes while open */
    size_t staged;
    struct client_frame *frame; /* being received */
    size_t frame_have;
    struct sasl *sasl; /* while securing */
    unsigned sasl_rounds;
    int64_t retire_us; /* the session must end by then; 0: never */
    bool retiring;     /* takes no more calls */
    bool wants_token;  /* OAUTHBEARER waits for client_core_token */
    bool stalled;      /* a response waits for memory */
    bool io;           /* on the core's list of connections to look after */
    struct list io_link;
};

struct client_broker {
    struct list link; /* all of them, in order of trial */
    int32_t node_id;  /* -1: a bootstrap address */
    char host[CLIENT_HOST_MAX];
    uint16_t port;
    unsigned failures;
    int64_t retry_at_us; /* not before */
    bool gone;           /* no longer in the metadata: freed when its connections are closed */
    struct client_conn conns[CLIENT_LANES];
};

/* ---- metadata ---- */

struct topic_entry {
    struct client_topic pub;
    char *name; /* the key; pub.name points to it */
    bool asked; /* has been part of an answer */
    UT_hash_handle hh;
};

struct coordinator {
    char *key;       /* type digit and name */
    int32_t node_id; /* -1: not known */
    bool asking;
    int64_t retry_at_us;
    unsigned failures;
    UT_hash_handle hh;
};
#define COORDINATORS_MAX 10000

enum effect_kind {
    EFFECT_NONE,
    EFFECT_TOKEN,
    EFFECT_CONNECT,
    EFFECT_CLOSE,
    EFFECT_IO,
    EFFECT_DELIVER,
    EFFECT_WATCHES
};

struct client_effect {
    enum effect_kind kind;
    struct client_conn *conn; /* CONNECT: to broker->host; IO: something to write, or room to read again */
    void *handle;             /* CLOSE */
    struct call *call;        /* DELIVER; the driver gives it back with client_core_delivered */
};

struct client_core {
    struct client_options o;
    char *client_id, *software_name, *software_version;
    struct rng rng;
    int64_t now_us, due_us;
    struct client_frames *frames;
    bool memory_freed;
    void (*wake)(void *arg); /* there may be effects: look soon */
    void *wake_arg;

    struct list waiting, done, all; /* calls */
    unsigned calls, internal_calls;
    struct call *kept[CALLS_KEPT];
    unsigned kept_n;
    uint64_t seq;

    bool token_wanted;
    struct list io; /* connections with news for the driver */
    struct list brokers;
    struct client_broker *last_any;

    struct topic_entry *topics;
    struct coordinator *coordinators;
    int32_t controller;
    char *cluster_id; /* pinned or learnt */
    bool cluster_seen, metadata_wanted, metadata_asking, metadata_news;
    int64_t metadata_next_us, metadata_age_us;   /* not before; at the latest */
    int64_t metadata_last_us, metadata_space_us; /* the last answer; how far the next wish is from it */
    unsigned metadata_failures;

    struct client_counts counts;
    struct err last_error;
};

/* ---- core.c: the life of calls, effects ---- */

int client_core_create(const struct client_options *o, uint64_t seed, int64_t now_us,
                       struct client_core **out, struct err *err);
/* The driver has closed all handles. */
void client_core_destroy(struct client_core *core);
struct call *client_core_call(struct client_core *core, const struct kp_api *api, bool internal);
void client_core_submit(struct client_core *core, struct call *call, int64_t now_us);
void client_core_cancel(struct client_core *core, struct call *call);
/* Expires deadlines, asks for metadata, routes. After every event; and at client_core_due. */
void client_core_time(struct client_core *core, int64_t now_us);
int64_t client_core_due(const struct client_core *core);
/* The next thing to do for the driver; EFFECT_NONE when there is nothing. */
struct client_effect client_core_effect(struct client_core *core);
/* After the callback: frees the call. */
void client_core_delivered(struct client_core *core, struct call *call);
/* Ends a call: `code` 0 with its response filled in, else why. */
void client_call_finish(struct client_core *core, struct call *call, int code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Back to waiting, in its old place, not before `delay_us` from now. */
void client_call_again(struct client_core *core, struct call *call, int64_t delay_us);
void client_call_free(struct client_core *core, struct call *call);
void client_core_due_by(struct client_core *core, int64_t at_us);
/* min × 2^failures up to max, ± 20 %. */
int64_t client_core_backoff(struct client_core *core, unsigned failures);
void client_core_failed(struct client_core *core, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- conn.c: one connection ---- */

void client_conn_init(struct client_conn *conn, struct client_core *core, struct client_broker *broker,
                      enum client_lane lane);
/* Closed → connecting; the driver gets EFFECT_CONNECT. */
void client_conn_open(struct client_conn *conn);
/* Events, from the driver. */
void client_conn_connected(struct client_conn *conn, int64_t now_us);
void client_conn_broken(struct client_conn *conn, int code, const char *why, int64_t now_us);
/* Where received bytes go; 0: do not read now. */
uint8_t *client_conn_room(struct client_conn *conn, size_t *n);
void client_conn_received(struct client_conn *conn, size_t n, int64_t now_us);
/* What to write next; 0: nothing. */
int client_conn_gather(struct client_conn *conn, struct iovec *v, int max);
void client_conn_written(struct client_conn *conn, size_t n, int64_t now_us);
/* Puts a call behind the others; the version is decided here. -E_VERSION, -E_INVALID, -E_LIMIT: not taken. */
int client_conn_queue(struct client_conn *conn, struct call *call, struct err *err);
/* Closes from our side; calls on it end or wait again, as their retry says. */
void client_conn_close(struct client_conn *conn, int code, const char *why);
/* Puts a request of the connection's own opening; it must be answered within the connection's time. */
void client_conn_handshake(struct client_conn *conn, struct call *call, int16_t version);
/* Sends ApiVersions; its answer calls client_conn_ready. */
void client_conn_ask_versions(struct client_conn *conn, int16_t version_max);
void client_conn_ready(struct client_conn *conn);
/* Memory has come back: goes on where a response had to wait. */
void client_conn_unstall(struct client_conn *conn);
/* A wish for the driver's attention. */
void client_conn_io(struct client_conn *conn);
bool client_conn_idle(const struct client_conn *conn);

static inline enum conn_state client_conn_state(const struct client_conn *conn)
{
    return (enum conn_state)sm_state(&conn->sm);
}

/* ---- secure.c: SASL ---- */

/* A connected connection: authenticates it where that is asked for, then goes on to versions. */
void client_secure(struct client_conn *conn);
/* The token that EFFECT_TOKEN asked for, to all connections that wait for one; NULL: why there is none. */
void client_core_token(struct client_core *core, const char *token, const struct err *err, int64_t now_us);
/* An answer to one of its requests. */
bool client_secure_answer(struct client_conn *conn, const struct call *call);

/* ---- metadata.c: brokers, topics ---- */

struct client_broker *client_broker_add(struct client_core *core, int32_t node_id, struct slice host,
                                        int port);
struct client_broker *client_broker_find(const struct client_core *core, int32_t node_id);
void client_broker_failed(struct client_broker *b, struct client_core *core);
void client_brokers_sweep(struct client_core *core);
void client_metadata_want(struct client_core *core);
/* Sends the question when one is due. */
void client_metadata_step(struct client_core *core);
struct topic_entry *client_topic_entry(const struct client_core *core, struct slice name);
int client_topic_add(struct client_core *core, struct slice name, struct topic_entry **out);
void client_topic_remove(struct client_core *core, struct slice name);
void client_metadata_free(struct client_core *core);
/* Takes an answer in; false: it is of another cluster. */
bool client_metadata_take(struct client_core *core, const struct kp_metadata_response *m, int16_t version);

/* ---- route.c: from targets to connections ---- */

/* The connection a call can go to now; NULL: wait (`call->err` says for what). */
struct client_conn *client_route(struct client_core *core, struct call *call);
void client_coordinator_forget(struct client_core *core, const struct client_target *t);
void client_coordinators_free(struct client_core *core);

/* ---- answer.c: what comes back ---- */

/* A whole frame for the head of the connection's calls. False: the connection must be closed (`err`). */
bool client_answer(struct client_conn *conn, struct client_frame *frame, struct err *err);

struct answer_errors {
    int16_t first; /* the first error that is not NONE */
    bool retriable, metadata, coordinator, controller;
};
/* Looks at every error_code of a decoded body. */
struct answer_errors client_answer_errors(const struct kp_api *api, int16_t version, const void *body);

#endif
