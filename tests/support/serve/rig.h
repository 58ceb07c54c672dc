/* One shard of a broker on this machine's disk, without quorum or controller: the image is made of records that the
 * test gives. Requests go in as frames and come out decoded, with or without sockets.
 *
 * One thread: the test turns the loop. Everything lies in a temporary folder that rig_destroy removes. */
#ifndef SUNDOG_TESTS_SUPPORT_SERVE_RIG_H
#define SUNDOG_TESTS_SUPPORT_SERVE_RIG_H

#include "base/world/loop_posix.h"
#include "broker/api/api.h"
#include "broker/broker.h"
#include "broker/group/groups.h"
#include "broker/metadata/image_edit.h"
#include "broker/net/server.h"
#include "broker/partition/partitions.h"
#include "proto/kafka/batch.h"

#define RIG_NODE 1
#define RIG_PATIENCE_MS                                                                                      \
    60000 /* for what must come, on a machine however busy; an assert fails where it does not */

struct rig_options {
    bool page_cache;                     /* sundog.flush.before.ack=false */
    bool listen;                         /* open a listener on loopback, port 0 */
    const char *dir;                     /* an earlier rig's folder; NULL: a fresh one */
    size_t memory_bytes;                 /* 0: 64 MiB */
    struct net_options net;              /* zero members: defaults */
    const struct groups_options *groups; /* NULL: no consumer groups */
};

struct rig;

struct rig *rig_create(const struct rig_options *o);
/* Closes everything well; removes the folder unless `keep`. */
void rig_destroy(struct rig *r, bool keep);
const char *rig_dir(const struct rig *r);
struct shard *rig_shard(struct rig *r);
uint16_t rig_port(const struct rig *r);

/* One turn; waits at most `wait_ms`. */
void rig_turn(struct rig *r, int wait_ms);
/* Turns until `done` or the time is up; false: it is. */
bool rig_until(struct rig *r, bool (*done)(void *arg), void *arg, int limit_ms);

/* Publishes a topic and waits until its partitions are open; `config` is "key=value" or NULL. Returns its id. */
struct uuid rig_topic(struct rig *r, const char *name, int32_t partitions, const char *config);
void rig_remove_topic(struct rig *r, const char *name);
struct partition *rig_partition(struct rig *r, const char *topic, int32_t index);

/* A request sent by a client that is not there: `rig_send` starts it, `rig_answer` waits for the decoded response body
 * (NULL: dropped or failed; see the members). Freed by rig_release. */
struct rig_call {
    struct rig *rig;
    struct api_request *req;
    const struct kp_api *api;
    int16_t version;
    bool answered, failed, dropped;
    const char *why;
    void *response;
    uint8_t *frame, *bytes;
    size_t bytes_n;
    struct arena arena;
};
void rig_send(struct rig *r, struct rig_call *c, int16_t key, int16_t version, const void *body);
void *rig_answer(struct rig_call *c, int limit_ms);
void rig_release(struct rig_call *c);
/* All three for a handler that answers; the response lives until rig_release. */
void *rig_ask(struct rig *r, struct rig_call *c, int16_t key, int16_t version, const void *body);

/* A batch of `n` records with value `text`; from malloc. */
struct rig_batch {
    int n;
    int64_t producer_id;
    int16_t epoch;
    int32_t sequence;
    const char *text;
    int64_t timestamp; /* 0: now */
    enum codec codec;
};
struct slice rig_batch(struct rig *r, const struct rig_batch *b);
/* Produces it to one partition: the answer's partition response, by value. */
struct kp_produce_response_partition_responses rig_produce(struct rig *r, const char *topic, int32_t index,
                                                           int16_t acks, struct slice batch);

#endif
