/* Requests are used again, each with the first chunk of its arena: an ordinary request allocates nothing. */
#include "broker/api/api.h"
#include "broker/api/fetch_sessions.h"
#include "broker/metrics.h"

#include <stdlib.h>

/* Of the budget, what fetch sessions may hold: they stay when their clients are silent. */
#define SESSIONS_SHARE 16

/* Kept for reuse; what more were needed at once is freed. */
#define POOL_MAX 256

struct api_pool {
    struct list free;
    size_t free_n, out_n;
    /* Topics made on first use: a bucket that fills with time. */
    int64_t create_tokens_us, create_at_us;
    struct shard *shard;
    struct fetch_sessions sessions; /* made with the first request: the loop is there then */
    bool sessions_there;
    size_t sessions_charged, sessions_counted;
    struct metric_cell *sessions_n, *session_fetches;
};

struct api_pool *api_pool_create(struct shard *shard)
{
    struct api_pool *pool = calloc(1, sizeof *pool);
    if (pool) {
        list_init(&pool->free);
        pool->shard = shard;
        pool->sessions_n = metrics_cell(shard->metrics, shard->index, M_sundog_broker_fetch_sessions);
        pool->session_fetches =
            metrics_cell(shard->metrics, shard->index, M_sundog_broker_session_fetches_total);
    }
    assert(!shard->requests);
    return pool;
}

void api_pool_destroy(struct api_pool *pool)
{
    if (!pool)
        return;
    assert(pool->out_n == 0);
    if (pool->sessions_there)
        fetch_sessions_fini(&pool->sessions);
    shard_memory_give(pool->shard, pool->sessions_charged);
    metric_add(pool->sessions_n, -(int64_t)pool->sessions_counted);
    metrics_release(pool->shard->metrics, pool->sessions_n);
    metrics_release(pool->shard->metrics, pool->session_fetches);
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
    assert(!req->started);
    assert(!req->answered);
    assert(req->charged_bytes == 0);
    assert(req->arena.used_bytes == 0);
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
    assert(!list_linked(&req->link));
    assert(req->answered || !req->started);
    assert(pool->out_n > 0);
    for (struct api_release *r = req->releases, *next; r; r = next) {
        assert(r->fn);
        next = r->next; /* the hook may free or send away what it is embedded in */
        r->fn(r);
    }
    assert(req->shard == home);
    assert(!req->away);
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

struct fetch_sessions *api_fetch_sessions(struct shard *shard)
{
    struct api_pool *pool = shard->requests;
    if (!pool->sessions_there)
        fetch_sessions_init(&pool->sessions, shard->index, shard->count,
                            shard->memory.limit_bytes / SESSIONS_SHARE, loop_random(shard->loop));
    pool->sessions_there = true;
    return &pool->sessions;
}

void api_fetch_sessions_count(struct shard *shard, bool used)
{
    struct api_pool *pool = shard->requests;
    size_t bytes = pool->sessions.bytes, n = pool->sessions.n;
    assert(pool->sessions_there);
    shard_memory_give(shard, pool->sessions_charged);
    shard_memory_take(shard, bytes);
    metric_add(pool->sessions_n, (int64_t)n - (int64_t)pool->sessions_counted);
    metric_add(pool->session_fetches, used);
    pool->sessions_charged = bytes;
    pool->sessions_counted = n;
}

bool api_may_create(struct shard *shard, int32_t topics)
{
    struct api_pool *pool = shard->requests;
    const int64_t cost = 1000000 / API_CREATE_PER_SECOND, full = cost * API_CREATE_BURST;
    int64_t now = loop_now_us(shard->loop);
    assert(topics >= 0);
    assert(now >= pool->create_at_us);
    assert(pool->create_tokens_us >= 0);
    pool->create_tokens_us = pool->create_at_us ? pool->create_tokens_us + now - pool->create_at_us : full;
    if (pool->create_tokens_us > full)
        pool->create_tokens_us = full;
    pool->create_at_us = now;
    if (pool->create_tokens_us < cost * topics)
        return false;
    pool->create_tokens_us -= cost * topics;
    return true;
}
