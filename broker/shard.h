/* A shard: one thread with a loop, a network, a memory budget and everything that belongs to it alone (D5).
 *
 * Threading: the members belong to the shard's thread, except `loop` as the address of messages (loop_post)
 * and the constants set before the threads start (index, count, all, broker, disk). A shard never touches
 * another shard's objects: it sends a message, whose memory (and whatever it points to) is the sender's again
 * when the reply has come. Lifetime: made by broker_create, one per loop; gone after the loops have stopped.
 * A simulated node has one shard. */
#ifndef SUNDOG_BROKER_SHARD_H
#define SUNDOG_BROKER_SHARD_H

#include "base/core/uuid.h"
#include "base/world/disk.h"
#include "base/world/loop.h"
#include "base/world/net.h"
#include "broker/metrics.h"

#include <assert.h>

struct api_pool;
struct broker;
struct groups;
struct image;
struct metrics;
struct net_server;
struct partitions;
struct producer_ids;

/* Lanes of the job pool (loop_job), which has JOB_LANES threads: what would keep others waiting has its own. */
enum job_lane {
    LANE_FLUSH = 0, /* to LANE_FLUSH + FLUSH_LANES - 1: fdatasync, spread by partition; logs being opened */
    FLUSH_LANES = 4,
    LANE_DIRS = FLUSH_LANES, /* folders made and removed, checkpoint files */
    LANE_COMPACT,
    LANE_NAMES, /* what waits for others: name resolution */
    JOB_LANES
};

/* What the shard's requests hold: received frames, request and response arenas. Over the limit sockets are
 * not read. */
struct shard_memory {
    size_t used_bytes, limit_bytes;
};

struct shard {
    unsigned index, count;
    struct shard *const *all; /* `count` of them, this one included */
    struct broker *broker;
    struct loop *loop;
    struct net *net;
    struct disk *disk;
    struct shard_memory memory;

    const struct image *image; /* the newest one published to this shard (broker/metadata); NULL at first */
    struct partitions *partitions;     /* broker/partition */
    struct groups *groups;             /* broker/group */
    struct api_pool *requests;         /* broker/api */
    struct producer_ids *producer_ids; /* broker/api */
    struct net_server *server;         /* broker/net */
    struct metrics *metrics;           /* of the whole broker; cells are acquired by shard index */
};

/* A call to another shard. Embed it in what you own; it and what it points to are the callee's from
 * shard_call until `done` runs. `run` must, then or later, call shard_reply once, on the callee's thread. */
struct shard_call {
    struct loop_msg msg;
    struct shard *from, *to;
    void (*run)(struct shard_call *call);  /* on `to` */
    void (*done)(struct shard_call *call); /* on `from`; the call is the caller's again */
};

/* From the caller's thread. On the same shard `run` is called before this returns (and `done` from within
 * shard_reply): keep your own books in order before calling. */
void shard_call(struct shard_call *call, struct shard *from, struct shard *to);
void shard_reply(struct shard_call *call);

/* The owner of a partition, the same on every thread: hash of topic id and index. */
unsigned shard_index_of(const struct uuid *topic_id, int32_t partition, unsigned count);

static inline struct shard *shard_of(const struct shard *s, const struct uuid *topic_id, int32_t partition)
{
    return s->all[shard_index_of(topic_id, partition, s->count)];
}

/* Memory of the budget: taken before it is used, given back when it is free. */
static inline bool shard_memory_has(const struct shard *s, size_t n)
{
    return n <= s->memory.limit_bytes && s->memory.used_bytes <= s->memory.limit_bytes - n;
}

static inline void shard_memory_take(struct shard *s, size_t n)
{
    s->memory.used_bytes += n;
}

static inline void shard_memory_give(struct shard *s, size_t n)
{
    assert(s->memory.used_bytes >= n);
    s->memory.used_bytes -= n;
}

#endif
