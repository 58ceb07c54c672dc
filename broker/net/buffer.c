#include "broker/net/buffer.h"

#include <stdlib.h>

/* Capacities are multiples of this, so that buffers fit frames that differ a little. */
#define GRAIN ((size_t)64 << 10)

void net_buffers_init(struct net_buffers *pool, struct shard *shard)
{
    assert(shard);
    assert(shard->memory.limit_bytes > 0);
    *pool = (struct net_buffers){.shard = shard};
    list_init(&pool->free);
}

static void destroy(struct net_buffer *b)
{
    free(b->bytes);
    free(b);
}

void net_buffers_trim(struct net_buffers *pool)
{
    while (!list_empty(&pool->free)) {
        struct net_buffer *b = LIST_ENTRY(list_pop(&pool->free), struct net_buffer, link);
        assert(b->refs == 0);
        assert(pool->free_bytes >= b->cap);
        pool->free_bytes -= b->cap;
        destroy(b);
    }
}

void net_buffers_fini(struct net_buffers *pool)
{
    net_buffers_trim(pool);
    assert(pool->free_bytes == 0);
}

/* Is there room for so many free bytes more? None are kept of the last eighth of the budget. */
static bool may_keep(const struct net_buffers *pool, size_t n)
{
    return shard_memory_has(pool->shard, pool->free_bytes + n + pool->shard->memory.limit_bytes / 8);
}

/* A free buffer that is large enough and not wastefully larger. */
static struct net_buffer *reuse(struct net_buffers *pool, size_t cap)
{
    list_each (at, &pool->free) {
        struct net_buffer *b = LIST_ENTRY(at, struct net_buffer, link);
        if (b->cap < cap || b->cap / 2 > cap)
            continue;
        assert(b->refs == 0);
        assert(b->pool == pool);
        assert(pool->free_bytes >= b->cap);
        list_remove(&b->link);
        pool->free_bytes -= b->cap;
        return b;
    }
    return NULL;
}

struct net_buffer *net_buffer_take(struct net_buffers *pool, size_t size)
{
    if (size > SIZE_MAX - GRAIN)
        return NULL;
    size_t cap = (size + GRAIN - 1) & ~(GRAIN - 1);
    struct net_buffer *b = reuse(pool, cap);
    if (!b) {
        if (!may_keep(pool, cap))
            net_buffers_trim(pool); /* what is kept is memory too */
        b = calloc(1, sizeof *b);
        uint8_t *bytes = b ? malloc(cap) : NULL;
        if (!bytes) {
            free(b);
            return NULL;
        }
        b->pool = pool;
        b->bytes = bytes;
        b->cap = cap;
    }
    assert(b->cap >= size);
    assert(b->cap % GRAIN == 0);
    list_init(&b->link);
    b->used = 0;
    b->refs = 1;
    shard_memory_take(pool->shard, b->cap);
    return b;
}

void net_buffer_unref(struct net_buffer *b)
{
    assert(b->refs > 0);
    if (--b->refs > 0)
        return;
    struct net_buffers *pool = b->pool;
    assert(b->used <= b->cap);
    assert(!list_linked(&b->link));
    assert(pool->shard->memory.used_bytes >= b->cap);
    shard_memory_give(pool->shard, b->cap);
    if (pool->free_bytes + b->cap > NET_BUFFERS_KEPT || !may_keep(pool, b->cap)) {
        destroy(b);
        return;
    }
    list_push_front(&pool->free, &b->link);
    pool->free_bytes += b->cap;
    assert(pool->free_bytes <= NET_BUFFERS_KEPT);
}
