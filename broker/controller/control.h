/* What the rest of the broker asks of the control plane: metadata changes, and the images that follow from
 * them.
 *
 * Everything is decided on shard 0 (quorum, controller), whoever asks. A call is a message: the caller owns
 * its memory, request and arena included, and leaves all of it alone until `done` runs on the caller's own
 * loop, exactly once. A change is answered when its records are committed, that is on disk here and with a
 * majority (D6), and every subscriber of this node has been given an image that has them: who was told
 * "created" finds it on every shard. Bounds: CONTROL_CALLS_MAX calls wait at once, more are answered
 * THROTTLING_QUOTA_EXCEEDED; a call whose time is up is answered REQUEST_TIMED_OUT, its records may still be
 * committed. */
#ifndef SUNDOG_BROKER_CONTROLLER_CONTROL_H
#define SUNDOG_BROKER_CONTROLLER_CONTROL_H

#include "base/core/arena.h"
#include "base/core/list.h"
#include "base/world/loop.h"
#include "broker/controller/decide.h"
#include "broker/metadata/image.h"
#include "broker/quorum/quorum.h"

struct control;

#define CONTROL_CALLS_MAX 10000

/* One API call to the active controller: a request body in, a response body out, by API key:
 *   CreateTopics, DeleteTopics, CreatePartitions, AlterConfigs, IncrementalAlterConfigs, UpdateFeatures,
 *   AllocateProducerIds, DescribeQuorum, BrokerRegistration, BrokerHeartbeat, AlterPartition, AssignReplicasToDirs.
 * Item errors are in the response; `error` is for the call as a whole, and then the response has it in every
 * item too, so a handler may send it as it is. */
struct control_call {
    int16_t api_key;
    const void *request; /* struct kp_…_request */
    void *response;      /* struct kp_…_response, set here; arrays and texts lie in `arena` */
    struct arena *arena; /* shard 0's between control_submit and done */
    struct loop *home;   /* where `done` runs */
    int32_t timeout_ms;  /* 0: 60 s */
    void (*done)(struct control_call *call);
    void *arg;     /* the caller's own */
    int16_t error; /* KE_NONE, NOT_CONTROLLER, REQUEST_TIMED_OUT, … */

    /* private */
    struct loop_msg msg;
    struct control *control;
    struct list link;
    int64_t deadline_us;
    int64_t offset; /* of its last record; answered when published */
};

/* From any thread. */
void control_submit(struct control *c, struct control_call *call);

/* Creation on first use: topics with the broker's defaults, or an internal topic with the partitions,
 * replication factor and configs that its coordinator needs. Fills `call` with a CreateTopics request made in
 * call->arena (response too: call->response is set) and submits it. TOPIC_ALREADY_EXISTS in the answer means
 * another was faster: go on. Refused by name (INVALID_TOPIC_EXCEPTION) like any creation. The caller checks
 * auto.create.topics.enable. */
void control_create_on_use(struct control *c, struct control_call *call, const struct slice *names,
                           int32_t names_n);

/* A shard's view. `changed` runs on `loop` with the image it had (NULL at first) and the next one, which it
 * may use until its next call; images that came meanwhile are skipped: use image_diff. Owned by the caller,
 * who unsubscribes at the end. */
struct control_subscriber {
    struct loop *loop;
    void (*changed)(void *arg, const struct image *was, const struct image *now);
    void *arg;
    const struct image *image; /* what `changed` was given last; for the loop's own thread */

    /* private */
    struct list link;
    struct loop_msg msg;
    struct control *control;
    struct image *delivering; /* on its way: the subscriber's thread has it */
    struct image *next;       /* the newest one that came meanwhile */
    int64_t acked_offset;
    bool busy;
};

/* On shard 0's thread, before the loops run or later; the present image, if any, is delivered (by message). */
void control_subscribe(struct control *c, struct control_subscriber *s);
/* When no loop runs any more: releases its image. */
void control_unsubscribe(struct control_subscriber *s);

/* ---- life: for the composition root, on shard 0's thread ---- */

#define CONTROL_ENDPOINTS_MAX 16

struct control_endpoint {
    const char *listener, *host;
    uint16_t port;
    int16_t security_protocol;
};

struct control_options {
    struct quorum_options quorum; /* all but listener and arg */
    struct decide_rules rules;
    const char *bootstrap; /* path of bootstrap.checkpoint; it need not be there */
    int64_t
        idle_interval_ms; /* metadata.max.idle.interval.ms: an empty record after so much silence; 0: never */
    int64_t session_timeout_ms;               /* broker.session.timeout.ms */
    struct uuid incarnation;                  /* of this process */
    const struct control_endpoint *endpoints; /* of the controller's listeners; borrowed for control_open */
    unsigned endpoints_n;
    /* failed: the metadata can be written no more, end the process. Once each. */
    void (*failed)(void *arg, const char *why);
    void (*stopped)(void *arg);
    void *arg;
};

/* Recovers the metadata log; blocks. -E_CONFIG: a metadata.version, or voters, that this version cannot serve. */
int control_open(const struct control_options *o, struct control **out, struct err *err);
/* On the loop: elections, then this node is the active controller. */
void control_start(struct control *c);
bool control_active(const struct control *c);
/* Calls that wait are answered as they commit or, at the end, NOT_CONTROLLER; then `stopped`. */
void control_stop(struct control *c);
/* After `stopped` and after all unsubscribed. Negative: the metadata log was not closed well. */
int control_close(struct control *c, bool clean, struct err *err);
/* As if killed: frees memory only. Subscribers have unsubscribed. */
void control_abandon(struct control *c);
/* Shard 0: the newest image that is committed (NULL: none yet), and the offset up to which every subscriber has
 * been given images (-1: nothing yet). */
const struct image *control_image(const struct control *c);
int64_t control_seen_offset(const struct control *c);
/* The quorum, for status pages. */
struct quorum *control_quorum(const struct control *c);

#endif
