/* Reference-counted receive buffers. Frames are read into them once and record bytes are written to the log from there.
 *
 * One pool per shard, its thread only. A buffer in use counts on the shard's memory budget with its whole capacity; up
 * to NET_BUFFERS_KEPT bytes of free ones are kept, because fresh pages cost as much as the bytes received into them. */
#ifndef SUNDOG_BROKER_NET_BUFFER_H
#define SUNDOG_BROKER_NET_BUFFER_H

#include "broker/shard.h"

/* What a connection's bytes are read into when nothing is known about it; shared by all that have no frame open. */
#define NET_BUFFER_BYTES ((size_t)256 << 10)
#define NET_BUFFERS_KEPT ((size_t)8 << 20)

struct net_buffers {
    struct shard *shard;
    struct list free; /* most recently used first */
    size_t free_bytes;
};

struct net_buffer {
    struct list link;
    struct net_buffers *pool;
    size_t cap;
    size_t used; /* bytes that frames or a connection have taken, from the front */
    unsigned refs;
    uint8_t *bytes;
};

void net_buffers_init(struct net_buffers *pool, struct shard *shard);
/* Every buffer must be free. */
void net_buffers_fini(struct net_buffers *pool);
/* Gives free buffers back to the system, when idle. */
void net_buffers_trim(struct net_buffers *pool);

/* At least `size` bytes of room, one reference; NULL out of memory. Asks nothing of the budget, charges it. */
struct net_buffer *net_buffer_take(struct net_buffers *pool, size_t size);
void net_buffer_unref(struct net_buffer *b);

static inline void net_buffer_ref(struct net_buffer *b)
{
    assert(b->refs > 0);
    b->refs++;
}

#endif
