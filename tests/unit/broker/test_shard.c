#include "broker/shard.h"

#include <criterion/criterion.h>

Test(shard, partitions_spread_and_stay_where_they_are)
{
    unsigned count[4] = {0};
    for (uint64_t topic = 1; topic <= 100; topic++) {
        struct uuid id = uuid_small(topic * 0x9e3779b97f4a7c15ULL);
        for (int32_t p = 0; p < 10; p++) {
            unsigned s = shard_index_of(&id, p, 4);
            cr_assert_lt(s, 4);
            cr_expect_eq(shard_index_of(&id, p, 4), s);
            cr_expect_eq(shard_index_of(&id, p, 1), 0);
            count[s]++;
        }
    }
    for (int i = 0; i < 4; i++)
        cr_expect(count[i] > 200 && count[i] < 300, "shard %d has %u of 1000", i, count[i]);
}

struct call {
    struct shard_call call;
    int ran, done;
};

static void run(struct shard_call *c)
{
    LIST_ENTRY(c, struct call, call)->ran++;
    shard_reply(c);
}

static void done(struct shard_call *c)
{
    LIST_ENTRY(c, struct call, call)->done++;
}

Test(shard, a_call_to_itself_is_made_at_once)
{
    struct shard s = {.count = 1};
    struct call c = {.call = {.run = run, .done = done}};
    shard_call(&c.call, &s, &s);
    cr_expect(c.ran == 1 && c.done == 1);
}

Test(shard, memory_is_counted)
{
    struct shard s = {.memory.limit_bytes = 100};
    cr_expect(shard_memory_has(&s, 100) && !shard_memory_has(&s, 101));
    shard_memory_take(&s, 60);
    cr_expect(shard_memory_has(&s, 40) && !shard_memory_has(&s, 41));
    shard_memory_take(&s, 60); /* over it, as frames that had begun may */
    cr_expect(!shard_memory_has(&s, 0));
    shard_memory_give(&s, 120);
    cr_expect_eq(s.memory.used_bytes, 0);
}
