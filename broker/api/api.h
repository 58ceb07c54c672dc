/* A request on its way through the broker, and the table of the APIs that are served (apis.def).
 *
 * Life of a request: the transport (broker/net, or a test) takes one from the shard's pool, fills in
 * connection and frame, calls api_read_header and, when it is its turn, api_start. The handler answers it
 * exactly once, now or later (parked), by api_respond, api_error, api_drop or api_close. The arena, the
 * frame's bytes and everything the response points to live until the response has left the socket: only then
 * do the `release` hooks run and the request goes back to its pool (api_finish).
 * Threading: a request is at one shard at a time (`shard`), whose thread alone may touch it; api_move hands
 * it over. Answering from any shard is right: it comes home by itself.
 * Limits: decoding may take four times the frame and API_DECODE_ROOM, the whole request API_ARENA_MAX more;
 * a request that wants more ends its connection. */
#ifndef SUNDOG_BROKER_API_API_H
#define SUNDOG_BROKER_API_API_H

#include "broker/shard.h"
#include "proto/kafka/errors.h"
#include "proto/kafka/wire.h"

#define API_ARENA_MAX   ((size_t)16 << 20)
#define API_DECODE_ROOM ((size_t)64 << 10)

struct api_request;
typedef void (*api_handler)(struct api_request *req);

/* Where a connection came in: what Metadata tells the client of this node's address. */
struct api_listener {
    const char *name;     /* "PLAINTEXT" */
    const char *protocol; /* its security protocol */
    const char *advertised_host;
    uint16_t advertised_port;
    bool controller; /* only rows with API_ON_CONTROLLER are served here */
};

/* What carries a request's answer. Called on the home shard, once: `answered` with the pieces in req->out (or
 * req->silent), or `failed`, after which the connection must be closed. The transport ends with api_finish.
 */
struct api_transport {
    void (*answered)(struct api_request *req);
    void (*failed)(struct api_request *req, const char *why);
};

/* Run once when the response has left the socket or is dropped: file segments and other held things are let
 * go. */
struct api_release {
    struct api_release *next;
    void (*fn)(struct api_release *r);
};

struct api_request {
    struct shard *shard; /* where it is now */
    struct shard *home;  /* where its connection is */
    const struct api_transport *transport;
    void *connection; /* the transport's own */
    void *buffer;     /* likewise: what holds the frame's bytes */
    uint64_t connection_id;
    const char *client_host; /* "127.0.0.1": an address without port */
    const struct api_listener *listener;

    const struct kp_api *api;
    const struct api_row *row;
    int16_t version;
    int32_t correlation_id;
    struct slice client_id; /* may be null */
    size_t header_bytes;
    struct slice frame; /* header and body; record bytes in the body may be changed in place */
    void *body;         /* struct kp_…_request, decoded */
    struct arena arena;
    int64_t received_us;

    void *state; /* the handler's own */
    /* Set while parked at home where giving up early saves something: called at most once, on the home shard,
     * when the client has gone. The handler must still answer (nobody will see it). */
    void (*abandoned)(struct api_request *req);
    struct api_release *releases;

    struct kp_pieces out; /* the answer */
    size_t charged_bytes; /* to the home shard's budget for the arena */
    bool started, answered, silent;
    bool gone;            /* the client has; the transport's, on the home shard */
    bool away;            /* moved to another shard; the home shard's */
    bool version_unknown; /* ApiVersions of a version to come: answered as version 0 with an error */

    struct list link;    /* the transport's queue */
    struct loop_msg msg; /* for api_move and the way home */
    api_handler moved_to;
    const char *failure;
};

enum api_flag {
    API_PLAIN = 0,
    /* May be answered only by the active controller: other nodes pass it on. */
    API_NEEDS_CONTROLLER = 1,
    API_BEFORE_AUTH = 2,
    /* A connection's next request of the same API may be started before this one is answered. All others wait
     * for their turn, as clients of Kafka's own broker expect. */
    API_CONCURRENT = 4,
    /* The frame carries record bytes, which are stored from where they were received. */
    API_RECORDS = 8,
    API_ON_CONTROLLER = 16, /* also on a controller's listener */
};

/* A row of apis.def. Versions below those that rows decode are advertised for old clients' sake, not served.
 */
struct api_row {
    int16_t key, first, last; /* advertised */
    unsigned flags;
    api_handler handler;
    const char *name; /* "ListOffsets" is "list_offsets" */
};

#define SERVE(name, first, last, flags) void handle_##name(struct api_request *req);
#include "broker/api/apis.def"
#undef SERVE

const struct api_row *api_row_find(int16_t key);
const struct api_row *api_rows(size_t *n);

/* The pool of requests of a shard; requests keep a small arena chunk each. */
struct api_pool *api_pool_create(struct shard *shard);
void api_pool_destroy(struct api_pool *pool);
/* A zeroed request with shard, home, arena and time set; NULL: out of memory. */
struct api_request *api_take(struct shard *shard);
/* May so many topics be made on first use now? Takes them from what is allowed (API_CREATE_…). */
#define API_CREATE_BURST      500
#define API_CREATE_PER_SECOND 50
bool api_may_create(struct shard *shard, int32_t topics);
/* The shard's fetch sessions; to be counted, on the budget too, when they may have changed. `used`: by a request. */
struct fetch_sessions;
struct fetch_sessions *api_fetch_sessions(struct shard *shard);
void api_fetch_sessions_count(struct shard *shard, bool used);
/* Runs the releases and gives the request back; by the transport, on the home shard. */
void api_finish(struct api_request *req);

/* Reads the frame's header: api, row, version, correlation_id, client_id. 0, or -E_…: then the connection must
 * be closed (after what is still owed on it) and the request be finished unstarted. */
int api_read_header(struct api_request *req, struct err *err);
/* Counts on the home shard's budget what the request holds by now; the transport calls it when it has filled the
 * request in, api_start and the answer do so themselves. */
void api_charge(struct api_request *req);
/* Decodes the body and calls the handler. */
void api_start(struct api_request *req);
/* The transport's client has gone: a parked request may give up early. */
void api_abandon(struct api_request *req);

/* The answer: `body` is the API's response struct, in the arena or anywhere that lives until api_finish. */
void api_respond(struct api_request *req, const void *body);
/* An answer of nothing but this error, where the response has a top-level error_code; else the connection is
 * closed. */
void api_error(struct api_request *req, int16_t code);
/* No answer is due (acks=0). */
void api_drop(struct api_request *req);
/* Ends the connection; `why` is a literal, for the log. */
void api_close(struct api_request *req, const char *why);

/* Goes on with `fn` on another shard (or at once on the same one). The request is `to`'s from now on. */
void api_move(struct api_request *req, struct shard *to, api_handler fn);
void api_on_release(struct api_request *req, struct api_release *r);

/* Memory in the request's arena; NULL fails the request in api_respond, so handlers may just stop. */
#define API_NEW(req, type)     ARENA_NEW(&(req)->arena, type)
#define API_NEWS(req, type, n) ARENA_NEWS(&(req)->arena, type, n)

#endif
