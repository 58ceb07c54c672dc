#include "broker/net/buffer.h"

#include <criterion/criterion.h>

Test(buffer, counts_on_the_budget_while_it_is_held)
{
    struct shard s = {.memory.limit_bytes = 1 << 30};
    struct net_buffers pool;
    net_buffers_init(&pool, &s);
    struct net_buffer *b = net_buffer_take(&pool, 100000);
    cr_assert(b);
    cr_expect_geq(b->cap, 100000);
    cr_expect_eq(s.memory.used_bytes, b->cap);
    net_buffer_ref(b);
    net_buffer_unref(b);
    cr_expect_eq(s.memory.used_bytes, b->cap);
    net_buffer_unref(b);
    cr_expect_eq(s.memory.used_bytes, 0);
    net_buffers_fini(&pool);
}

Test(buffer, is_used_again_where_it_fits)
{
    struct shard s = {.memory.limit_bytes = 1 << 30};
    struct net_buffers pool;
    net_buffers_init(&pool, &s);
    struct net_buffer *a = net_buffer_take(&pool, 1 << 20);
    net_buffer_unref(a);
    struct net_buffer *small = net_buffer_take(&pool, 4096);
    cr_expect_neq(small, a, "not for something much smaller");
    cr_expect_eq(net_buffer_take(&pool, 1000000), a);
    net_buffer_unref(a);
    cr_expect_eq(pool.free_bytes, a->cap);
    net_buffers_trim(&pool);
    cr_expect_eq(pool.free_bytes, 0);
    cr_expect_eq(s.memory.used_bytes, small->cap);
    net_buffer_unref(small);
    net_buffers_fini(&pool);
}

Test(buffer, only_so_many_free_bytes_are_kept)
{
    struct shard s = {.memory.limit_bytes = 1 << 30};
    struct net_buffers pool;
    struct net_buffer *b[20];
    net_buffers_init(&pool, &s);
    for (int i = 0; i < 20; i++)
        b[i] = net_buffer_take(&pool, 1 << 20);
    for (int i = 0; i < 20; i++)
        net_buffer_unref(b[i]);
    cr_expect_leq(pool.free_bytes, NET_BUFFERS_KEPT);
    net_buffers_fini(&pool);
}
