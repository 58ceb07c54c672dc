/* What the files of the raw source share: port_client.c (life, polling), client_find.c (partitions by what names
 * them), client_request.c (what is asked), client_session.c (with which session), client_fetch.c (what comes),
 * client_check.c (where a partition stands: offsets, leader epochs), client_deliver.c (batches to deliveries). */
#ifndef SUNDOG_MIRROR_PORT_CLIENT_PARTS_H
#define SUNDOG_MIRROR_PORT_CLIENT_PARTS_H

#include "base/core/hash.h"
#include "base/core/list.h"
#include "mirror/port/port.h"
#include "proto/client/client.h"
#include "proto/kafka/batch.h"

#include <assert.h>

#define RAW_RECORDS_MAX  500
#define RAW_BYTES_MAX    (512u << 10)
#define RAW_PART_BYTES   (1 << 20)  /* of one partition in one response */
#define RAW_AHEAD_BYTES  (2u << 20) /* fetched and not delivered, of one partition */
#define RAW_SHARE_MIN    (64 << 10) /* of one answer */
#define RAW_PACE_FIRST   (1 << 20)  /* of one answer, until it is known how fast they come */
#define RAW_OFFSET_BYTES 1000       /* of a record, until some have been seen */
#define RAW_PACE_NEAR_US                                                                                     \
    (INT64_C(3) * 1000) /* answers that come as fast are large enough: caches hold them */
#define RAW_PACE_FAST_US (INT64_C(500) * 1000)
#define RAW_PACE_SLOW_US (INT64_C(2) * 1000000)
#define RAW_DEPTH        4 /* answers that a leader's room is cut into, where so many partitions have more */
#define RAW_FETCHES_MAX  8 /* under way at one leader */
/* Between two questions for those at their ends, beside others who have more: so much for each. */
#define RAW_TAIL_EACH_US    INT64_C(10)
#define RAW_TAIL_LEAST_US   (INT64_C(2) * 1000)
#define RAW_LEFT_MAX        1000  /* to be forgotten by a broker's session, before it is made anew instead */
#define RAW_THROTTLE_MAX_MS 60000 /* a broker's wish beyond this is not believed */
#define RAW_MEMORY_DEFAULT  ((size_t)64 << 20)
#define RAW_PAYLOAD_MAX     (CODEC_BYTES_MAX_DEFAULT + ((size_t)1 << 20)) /* of one batch, decompressed */
#define RAW_PAYLOAD_KEPT    ((size_t)1 << 20) /* larger ones are given back at once */
#define RAW_TOPIC_MAX       249               /* Kafka's bound of a topic's name */
#define RAW_WAIT_MS         250
#define RAW_WAIT_MAX_MS     5000 /* well below RAW_FETCH_US */
#define RAW_RETRY_US        (INT64_C(200) * 1000)
#define RAW_FETCH_US        (INT64_C(15) * 1000000)
#define RAW_REPLICA_US      (INT64_C(300) * 1000000) /* metadata.max.age.ms, as for Kafka's consumer */
#define RAW_REPLICA_SEND_US                                                                                  \
    (INT64_C(2) * 1000000) /* a replica that cannot be reached is given up for the leader */
#define RAW_GONE_US (INT64_C(60) * 1000000)

enum raw_state {
    RAW_ASKING, /* where it begins, and whether the log still has what came before */
    RAW_FETCHING,
    RAW_STOPPED, /* an event has ended it */
};

struct raw_aborted {
    int64_t producer_id, first_offset;
};

/* Batches of one response that wait for delivery. */
struct raw_chunk {
    struct list link;
    struct client_frame *frame;
    struct slice rest;
    size_t bytes;
    struct raw_aborted *aborted;
    int32_t aborted_n;
};

/* What an answer names a partition by: its topic's id where both sides know it. */
struct raw_id {
    struct uuid topic;
    int32_t partition;
};

static_assert(sizeof(struct raw_id) == 20, "a hash key has no padding");

/* The same by name; a key of RAW_NAME_BYTES and the name's own. */
struct raw_name {
    int32_t partition;
    char topic[]; /* NUL at the end, not part of the key */
};

#define RAW_NAME_BYTES sizeof(struct raw_name)

/* Where a broker's session has a partition. */
struct raw_said {
    int64_t next;
    int32_t epoch, leader_epoch;
};

struct raw_part {
    struct list link;                        /* of all */
    struct list todo;                        /* of those that wait for the same (raw_place) */
    struct list ready;                       /* of those with something to deliver */
    UT_hash_handle by_owner, by_name, by_id; /* until it is dropped */
    struct raw_port *port;
    struct raw_name *name;
    char *topic;             /* in `name` */
    struct raw_id id;        /* as metadata said last; zero where the cluster has none, then not in by_id */
    struct raw_fetch *fetch; /* the request under way that asks for it */
    struct raw_node *wanted_of; /* in whose turns it stands */
    struct raw_turns *turns;    /* in which of them */
    struct list session;        /* of those that a broker's session has */
    struct raw_node *session_of;
    bool still; /* and reads on where it stands: in no turns, asked for whenever the session is */
    struct raw_said said;
    struct port_assignment a;
    enum raw_state state;
    int64_t next;       /* the next offset to be delivered */
    int64_t fetch_next; /* the next to be fetched */
    int32_t leader, leader_epoch;
    int32_t replica;                 /* the leader would have us read there (KIP-392); -1: at the leader */
    int64_t replica_until_us;        /* then the leader is asked again */
    int32_t last_epoch, fetch_epoch; /* of the record before `next`, before `fetch_next`; -1 not known */
    struct list chunks;
    size_t ahead_bytes;
    int64_t log_start, high_watermark, last_stable;
    int64_t retry_at_us, gone_since_us;
    bool dropped, end_due, end_told, troubled;
    bool got_some;       /* in the answer that has just come */
    int32_t asked_bytes; /* of it by the last fetch */
    int32_t each_bytes;  /* of an offset, in the last answer; 0: not known */
    bool stale;          /* the answer under way belongs to a history that was given up: not taken */
    unsigned users;      /* fetches that name it: it is freed when none does */
    struct client_call *ask;
    /* an event that waits */
    bool event_there;
    struct port_delivery event;
    char text[256];
    char trouble[64]; /* the last cause that was told */
};

/* Partitions that may be fetched from one leader, in turn: whoever got something last stands behind. */
struct raw_turns {
    struct list list;
    int32_t n;
};

/* A leader's fetch session: client_session.c. */
struct raw_session {
    int32_t id,
        epoch;   /* of the next request; epoch 0: a new one is asked for; then the old one, 0: none, ends */
    bool by_id;  /* it names topics by their id */
    bool broken; /* begins anew with the next request */
    bool under_way;
    struct list still, loose; /* raw_part */
    struct list left;
    int32_t still_n, loose_n, left_n;
    int64_t replica_until_us; /* the first of those still read here for the leader */
};

/* A broker that leads partitions; kept for the life of the port. It answers in order, and what waits for news holds up
 * what stands behind it: a request behind another names somebody who has more, one that may wait goes alone. */
struct raw_node {
    struct list link;
    struct raw_port *port;
    int32_t id;
    struct raw_session session;
    struct raw_turns more;       /* known to have more */
    struct raw_turns tail;       /* at their ends, or it is not known where these are */
    struct list fetches;         /* under way */
    int32_t fetches_n, more_out; /* of these; partitions in them that have more */
    size_t asked_bytes;          /* by them */
    int32_t pace_bytes;          /* of one answer: what comes in good time */
    int64_t answered_at_us, tail_at_us, not_before_us;
};

struct raw_fetch {
    struct list link, node_link;
    struct raw_port *port;
    struct client_call *call;
    struct raw_node *node;
    bool session;            /* names those that are still in the node's, too */
    struct raw_part **parts; /* in the call's arena; without a session */
    int32_t parts_n, more_n;
    int32_t asked_bytes;
    int64_t sent_at_us;
};

struct raw_delivery {
    struct list link;
    struct client_frame *frame;
    struct buf payload;
    size_t held_bytes; /* of frame and payload, counted in buffered_bytes */
    struct port_record *records;
    size_t records_cap;
    struct port_batch *batches;
    size_t batches_cap;
};

struct raw_port {
    struct port port;
    struct loop *loop;
    struct client *client;
    bool read_uncommitted, hungry;
    size_t memory_max, buffered_bytes, asked_bytes, out_n; /* asked: by requests under way */
    int32_t answer_max, part_max, wait_ms; /* as the file says; part_max 0: as there is room */
    char *rack;                            /* where we stand; empty: nowhere */
    int64_t replica_us;
    void (*ready)(void *arg);
    void *arg;
    struct list parts, ready_parts, fetches, free_deliveries, nodes;
    struct list attention; /* partitions that metadata, or their leader, must say something of */
    struct list retrying;  /* in order of time: each waits as long */
    bool metadata_new;
    struct raw_part *owners, *names, *ids; /* hashes of parts */
    struct client_watch watch;
    struct loop_timer tick;
    bool closing;
};

static inline struct raw_port *raw_port(struct port *p)
{
    return (struct raw_port *)(void *)p;
}

/* port_client.c */
void raw_wake(struct raw_port *p); /* look again soon at what is to be asked */
void raw_work(struct raw_port *p); /* look now */
void raw_tick_by(struct raw_port *p, int64_t at_us);
void raw_ready(struct raw_part *part); /* it has something to deliver */
void raw_event(struct raw_part *part, enum port_event e, int16_t error, const char *text);
void raw_stop(struct raw_part *part, enum port_event e, int16_t error, const char *text);
void raw_retry(struct raw_part *part, const char *why);
void raw_release_part(struct raw_part *part); /* frees it when nobody uses it any more */
void raw_drop_chunks(struct raw_part *part);
/* Forgets what was fetched and not delivered: only what has been handed out is judged, the rest is asked for again. */
void raw_rewind(struct raw_part *part);
/* The leader's log does not have what we have read. */
void raw_truncated(struct raw_part *part, int64_t end);
const struct client_topic *raw_topic(const struct raw_part *part);

/* client_place.c. What a partition waits for, from its state: called after each change of it. */
void raw_place(struct raw_part *part);
void raw_unplace(struct raw_part *part);
void raw_nodes_free(struct raw_port *p);
static inline int32_t raw_reads_at(const struct raw_part *part)
{
    return part->replica >= 0 ? part->replica : part->leader;
}
/* What may be read ends here, as the leader said last; -1: not known. */
static inline int64_t raw_readable(const struct raw_part *part)
{
    return part->port->read_uncommitted ? part->high_watermark : part->last_stable;
}

/* client_find.c. NULL: no such partition, or it has been dropped. */
struct raw_part *raw_find_owner(struct raw_port *p, const void *owner);
struct raw_part *raw_find_id(struct raw_port *p, const struct uuid *topic, int32_t partition);
struct raw_part *raw_find_name(struct raw_port *p, struct slice topic, int32_t partition);
bool raw_make_findable(struct raw_part *part);                     /* false: no memory */
bool raw_keep_id(struct raw_part *part, const struct uuid *topic); /* the same */
void raw_unfind(struct raw_part *part);

/* client_request.c */
void raw_fetch_all(struct raw_port *p);
/* What an answer says of the way: `bytes` have come. */
void raw_pace(struct raw_fetch *f, size_t bytes, bool late);

/* client_session.c */
void raw_session_init(struct raw_session *s);
void raw_session_fini(struct raw_session *s);
bool raw_session_keeps(
    const struct raw_part *part); /* of one that is still there: nothing about it has changed */
void raw_session_loosen(struct raw_part *part);
void raw_session_leave(struct raw_part *part); /* nothing of it is needed any more, but the broker has it */
/* A request: prepare, room, join for each in the tail's turns, ask. */
void raw_session_prepare(struct raw_node *n);
bool raw_session_room(struct raw_node *n, struct client_call *call); /* false: no memory */
void raw_session_join(struct raw_node *n, struct raw_part *part);
void raw_session_ask(struct raw_node *n, struct client_call *call);
/* Its answer: first its rows; NULL: not to be taken. */
struct raw_part *raw_session_row(struct raw_node *n, struct raw_part *part);
void raw_session_answered(struct raw_node *n, const struct client_response *r);
void raw_session_cancelled(struct raw_node *n);
void raw_session_close(struct raw_node *n);

/* client_fetch.c */
void raw_fetched(void *arg, const struct client_response *r);
void raw_fetch_cancel(struct raw_fetch *f);

/* client_conf.c. False: no memory. */
bool raw_configure(struct raw_port *p, const struct port_options *o);

/* client_check.c */
void raw_check(struct raw_part *part);
/* The offset asked for is not in the log: asks where it begins and ends, then says so. */
void raw_ask_range(struct raw_part *part);

/* client_deliver.c: false when there was nothing but batches to be passed over; `next` has moved all the same. */
bool raw_deliver(struct raw_part *part, struct raw_delivery *d, struct port_delivery *out);
void raw_chunk_free(struct raw_part *part, struct raw_chunk *c);

#endif
