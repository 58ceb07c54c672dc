/* Requests are used again, each with the first chunk of its arena: an ordinary request allocates nothing. */
#include "broker/api/api.h"

#include <stdlib.h>

/* Kept for reuse; what more were needed at once is freed. */
#define POOL_MAX 256

struct api_pool {
    struct list free;
    size_t free_n, out_n;
    /* Topics made on first use: a bucket that fills with time. */
    int64_t create_tokens_us, create_at_us;
};

struct api_pool *api_pool_create(struct shard *shard)
{
    struct api_pool *pool = calloc(1, sizeof *pool);
    if (pool)
        list_init(&pool->free);
    assert(!shard->requests);
    return pool;
}

void api_pool_destroy(struct api_pool *pool)
{
    if (!pool)
        return;
    assert(pool->out_n == 0);
    while (!list_empty(&pool->free)) {
        struct api_request *req = LIST_ENTRY(list_pop(&pool->free), struct api_request, link);
        arena_fini(&req->arena);
        free(req);
    }
    free(pool);
}

struct api_request *api_take(struct shard *shard)
{
    struct api_pool *pool = shard->requests;
    struct api_request *req;
    if (list_empty(&pool->free)) {
        req = calloc(1, sizeof *req);
        if (!req)
            return NULL;
        arena_init(&req->arena, API_ARENA_MAX);
    } else {
        req = LIST_ENTRY(list_pop(&pool->free), struct api_request, link);
        pool->free_n--;
    }
    assert(!req->started && !req->answered && req->charged_bytes == 0 && req->arena.used_bytes == 0);
    pool->out_n++;
    list_init(&req->link);
    req->shard = req->home = shard;
    req->received_us = loop_now_us(shard->loop);
    return req;
}

void api_finish(struct api_request *req)
{
    struct shard *home = req->home;
    struct api_pool *pool = home->requests;
    assert(!list_linked(&req->link) && pool->out_n > 0 && (req->answered || !req->started));
    for (struct api_release *r = req->releases, *next; r; r = next) {
        assert(r->fn);
        next = r->next; /* the hook may free or send away what it is embedded in */
        r->fn(r);
    }
    assert(req->shard == home && !req->away && home->memory.used_bytes >= req->charged_bytes);
    shard_memory_give(home, req->charged_bytes);
    pool->out_n--;
    if (pool->free_n >= POOL_MAX) {
        arena_fini(&req->arena);
        free(req);
        return;
    }
    struct arena arena = req->arena;
    arena_reset(&arena);
    *req = (struct api_request){.arena = arena};
    list_push_front(&pool->free, &req->link);
    pool->free_n++;
    assert(pool->free_n <= POOL_MAX);
}

bool api_may_create(struct shard *shard, int32_t topics)
{
    struct api_pool *pool = shard->requests;
    const int64_t cost = 1000000 / API_CREATE_PER_SECOND, full = cost * API_CREATE_BURST;
    int64_t now = loop_now_us(shard->loop);
    assert(topics >= 0 && now >= pool->create_at_us && pool->create_tokens_us >= 0);
    pool->create_tokens_us = pool->create_at_us ? pool->create_tokens_us + now - pool->create_at_us : full;
    if (pool->create_tokens_us > full)
        pool->create_tokens_us = full;
    pool->create_at_us = now;
    if (pool->create_tokens_us < cost * topics)
        return false;
    pool->create_tokens_us -= cost * topics;
    return true;
}
