/* A small raw Kafka client: any API, any version that both sides know, by rows.
 *
 * What stands on it: the sequenced appender, the sources, admin work of mirror and command line. It connects
 * to brokers as needed (one connection per broker and lane, reconnect with bounded, jittered backoff),
 * negotiates versions per connection (ApiVersions), keeps the order of requests on a connection, caches
 * metadata, routes to leaders, controller and coordinators. It never retries a request that may have been
 * acted upon, unless told so.
 *
 * Threading: everything on the loop's thread. Callbacks come from the client's own turn, never from inside a
 * call of this API; they may submit, cancel, and look at metadata, but not destroy the client. Limits:
 * `calls_max` requests open at once (client_call gives NULL above), `response_max_bytes` for one response (a
 * larger one closes the connection), `memory_max_bytes` for responses received or kept by callers: above it
 * large responses stay in the sockets. */
#ifndef SUNDOG_PROTO_CLIENT_CLIENT_H
#define SUNDOG_PROTO_CLIENT_CLIENT_H

#include "base/core/arena.h"
#include "base/core/err.h"
#include "base/core/list.h"
#include "base/core/slice.h"
#include "base/core/uuid.h"
#include "base/world/loop.h"
#include "base/world/net.h"
#include "proto/kafka/errors.h"
#include "proto/kafka/wire.h"

struct client;
struct client_frame;

struct client_security;

struct client_options {
    const struct client_security *security; /* security.h; NULL: PLAINTEXT. Must outlive the client */
    const char *bootstrap;     /* "host:port,[::1]:port,…"; up to CLIENT_BOOTSTRAP_MAX of them */
    const char *client_id;     /* "sundog" when NULL */
    const char *software_name; /* for ApiVersions; "sundog" when NULL */
    const char *software_version;
    int64_t connect_timeout_us;  /* 10 s when 0: connection, security and ApiVersions together */
    int64_t request_timeout_us;  /* 30 s when 0: of calls without a deadline of their own */
    int64_t backoff_min_us;      /* 100 ms when 0: first pause before a broker or a request is tried again */
    int64_t backoff_max_us;      /* 5 s when 0: doubles up to here, ± 20 % */
    int64_t metadata_max_age_us; /* 5 min when 0: refreshed after this, and at once when an answer says so */
    int64_t idle_max_us;         /* 9 min when 0: a connection unused for this long is closed */
    size_t response_max_bytes;   /* 128 MiB when 0 */
    size_t memory_max_bytes;     /* 64 MiB when 0; at least one response is always let in */
    unsigned calls_max;          /* 4096 when 0 */
};

#define CLIENT_BOOTSTRAP_MAX 16

int client_create(struct loop *loop, struct net *net, const struct client_options *options,
                  struct client **out, struct err *err);
/* Closes everything; callbacks of open calls are not made. Frames that callers keep stay valid. NULL is fine.
 */
void client_destroy(struct client *c);

/* ---- requests ---- */

enum client_target_kind {
    CLIENT_ANY,         /* any broker that answers */
    CLIENT_LEADER,      /* of topic `name`, `number` is the partition */
    CLIENT_CONTROLLER,  /* what Metadata calls so (with KRaft any broker, which forwards) */
    CLIENT_GROUP,       /* coordinator of group `name` */
    CLIENT_TRANSACTION, /* coordinator of transactional id `name` */
    CLIENT_BROKER,      /* `number` is the node id, of the metadata; -E_NOTFOUND when it is there no more */
};

/* Connections of one broker are apart by purpose, since a broker answers one request of a connection at a
 * time: a parked Fetch or JoinGroup must not hold up others. */
enum client_lane {
    CLIENT_LANE_AUTO, /* by API: Fetch, Produce, JoinGroup and SyncGroup have their own, the rest share one */
    CLIENT_LANE_CONTROL,
    CLIENT_LANE_PRODUCE,
    CLIENT_LANE_FETCH,
    CLIENT_LANE_GROUP,
    CLIENT_LANES,
};

struct client_target {
    enum client_target_kind kind;
    struct slice name; /* copied */
    int32_t number;
    enum client_lane lane;
};

enum client_retry {
    /* Waits for a connection and for metadata until the deadline; never sent twice. A Produce that stands behind
     * another on a connection that breaks fails with it, unsent: order is the caller's to restore. */
    CLIENT_RETRY_UNSENT,
    CLIENT_RETRY_LOST, /* also sent again when the connection broke, until the deadline: for what may be done twice,
                          and whose answer may be an error that counts as retriable (a topic that is not there). */
    CLIENT_RETRY_SAFE, /* also sent again when any error in the answer is retriable. The last answer is handed
                          over. */
};

/* What a call came to. Valid until the callback returns; `frame` may be kept longer (client_frame_ref). */
struct client_response {
    int status;       /* 0: `body` is there. -E_TIMEOUT, -E_CLOSED, -E_REFUSED, -E_NOTFOUND (no such topic,
                         leader, broker), -E_VERSION, -E_CORRUPT (not decodable), -E_LIMIT, … */
    bool sent;        /* with an error: the broker may have acted on it all the same */
    int16_t version;  /* of request and response */
    int32_t node_id;  /* who answered, -1 for a bootstrap address */
    const void *body; /* struct kp_…_response; arrays in the call's arena, slices in `frame` */
    struct client_frame *frame;
    const struct err *err; /* why, when status is not 0 */
};

/* One request from client_call to its callback; the client's after client_send. */
struct client_call {
    void *body;          /* struct kp_…_request with its defaults, to be filled in */
    struct arena *arena; /* for what `body` points to; lives until the callback has returned */
    struct client_target target;
    enum client_retry retry;
    int16_t version_min,
        version_max;    /* what the caller is prepared for; both sides' ranges narrow it further */
    int64_t timeout_us; /* from client_send on; 0: the options' */
    int64_t
        send_within_us; /* gives up earlier while it has not been sent (no leader, no connection); 0: does not */
    void (*on_response)(void *arg,
                        const struct client_response *r); /* exactly once, unless cancelled or destroyed */
    void *arg;
};

/* A new call of an API (kp_key_…), or NULL above `calls_max` or out of memory. */
struct client_call *client_call(struct client *c, int16_t api_key);

/* A call but for its body. Versions narrow the rows' range; a version_max or a time of 0 leaves it as it is. */
struct client_ask {
    int16_t api, version_min, version_max;
    enum client_retry retry;
    struct client_target target;
    int64_t timeout_us, send_within_us;
    void (*on_response)(void *arg, const struct client_response *r);
    void *arg;
};
/* client_call filled in by `ask`: only the body is left to fill before client_send. */
struct client_call *client_ask(struct client *c, const struct client_ask *ask);
/* Hands it to the client. Record slices in the body (Produce) are sent by reference: they must stay as they
 * are until the callback, or until client_cancel has returned. */
void client_send(struct client *c, struct client_call *call);
/* Gives back a call that was never sent, or takes back one that was: its callback will not come, an answer is
 * dropped. The request may reach the broker all the same; bytes referred to are no longer looked at. (A
 * half-written request closes its connection.) */
void client_cancel(struct client *c, struct client_call *call);

/* The short form: `body` (a struct kp_…_request) is the caller's and stays as it is until `on_response`.
 * -E_LIMIT or -E_NOMEM when there is no room; else 0 and `on_response` follows. */
int client_request(struct client *c, const struct client_target *target, int16_t api_key, int16_t version_max,
                   const void *body, void (*on_response)(void *arg, const struct client_response *r),
                   void *arg, int64_t timeout_us);

/* ---- response memory ---- */

/* A response's bytes, counted against `memory_max_bytes` until the last reference is gone. Loop thread only.
 */
struct client_frame *client_frame_ref(struct client_frame *f);
void client_frame_unref(struct client_frame *f);
size_t client_frame_bytes(const struct client_frame *f);
/* One more reference, for who keeps it until somebody far away has answered; false: such frames have three
 * quarters of the client's memory already, the rest is for what comes. */
bool client_frame_stay(struct client_frame *f);

/* ---- metadata ---- */

struct client_partition {
    int32_t leader; /* -1: none at present */
    int32_t leader_epoch;
};
struct client_topic {
    struct slice name;
    struct uuid id; /* zero where the cluster has none */
    int16_t error;  /* KE_UNKNOWN_TOPIC_OR_PARTITION: it is not there */
    int32_t partitions_n;
    const struct client_partition *partitions;
};

/* Follows a topic: it is part of every refresh from now on. Sending to a leader does this by itself. Topics
 * are never created by asking. -E_LIMIT above CLIENT_TOPICS_MAX. */
int client_topic_follow(struct client *c, struct slice name);
void client_topic_forget(struct client *c, struct slice name);
/* What is known now, or NULL; valid until the next turn of the loop. */
const struct client_topic *client_topic(const struct client *c, struct slice name);
/* Asks again soon (several wishes in `backoff_min_us` are one). */
void client_metadata_refresh(struct client *c);
/* Null until the first answer. A later answer from another cluster is refused, its broker left
 * (client_last_error says so): addresses do not change sites unnoticed. */
struct slice client_cluster_id(const struct client *c);
/* Sets the only cluster id that is believed; before the first answer. Copied. */
void client_cluster_pin(struct client *c, struct slice cluster_id);
int32_t client_controller(const struct client *c); /* -1: not known */

#define CLIENT_TOPICS_MAX 100000

/* Told after each metadata answer, in the client's turn. */
struct client_watch {
    struct list link;
    void (*changed)(void *arg);
    void *arg;
};
void client_watch_add(struct client *c, struct client_watch *w);
void client_watch_remove(struct client_watch *w);

/* ---- state, for status pages ---- */

enum client_state {
    CLIENT_IDLE,       /* nothing asked yet, or all connections closed for lack of use */
    CLIENT_CONNECTING, /* no broker answers at present; client_last_error says why */
    CLIENT_UP,
};
enum client_state client_state(const struct client *c);
/* The last failure, empty text if none since the start; -E_ACCESS: we were refused, or refuse to trust. */
const struct err *client_last_error(const struct client *c);

struct client_counts {
    uint64_t requests, responses, failures, retries, connects, bytes_in, bytes_out;
    size_t calls, memory_bytes; /* at present */
};
void client_counts(const struct client *c, struct client_counts *out);
/* Of the options' memory_max_bytes, from now on; what is held beyond it stays until it is given back. */
void client_memory_limit(struct client *c, size_t bytes);

#endif
