/* How much is asked for at a time: over long, slow and throttled ways. */
#include "tests/unit/mirror/port/rig.h"

#define FAR_US  (50 * SIM_MS) /* one way */
#define RECORDS 2000

/* Some 80 KB each. */
static void backlog(struct rig *g, int n)
{
    for (int i = 0; i < n; i++)
        source_add(&g->source, (struct batch_spec){.base = g->source.end, .n = RECORDS, .codec = CODEC_NONE});
    g->reader.counts_only = true;
}

static void way(struct rig *g, int64_t latency_us, int64_t bytes_per_s)
{
    struct sim_link link = {
        .latency_us = latency_us, .bytes_per_s = bytes_per_s, .buffer_bytes = (int64_t)64 << 20};
    rig_run(g, 1);
    sim_link_set(g->at_source, g->at_reader, &link);
    sim_link_set(g->at_reader, g->at_source, &link);
}

static void property(struct rig *g, const char *key, const char *value)
{
    g->reader.properties[g->reader.properties_n++] = (struct port_property){key, value};
}

/* Virtual time until all partitions have so many records; gives up after a minute. */
static int64_t until_all_have(struct rig *g, int records)
{
    int64_t us = 0;
    for (int i = 0; i < g->source.partitions_n && us < 60 * SIM_SECOND;)
        if (g->reader.other[i].records_n >= records)
            i++;
        else
            rig_run(g, 10 * SIM_MS), us += 10 * SIM_MS;
    return us;
}

/* 240 answers of 2 batches: one after the other they would take 24 s. */
Test(port_request, many_partitions_fill_a_long_way)
{
    struct rig *g = rig_create();
    backlog(g, 60);
    g->source.partitions_n = 8;
    property(g, "fetch.max.bytes", "200000");
    way(g, FAR_US, 0);
    int64_t us = until_all_have(g, 60 * RECORDS);
    cr_assert_lt(us, 6 * SIM_SECOND, "%lld ms", (long long)us / 1000);
    cr_assert_leq(g->source.max_bytes_seen, 200000);
    cr_assert_eq(rig_events(g, PORT_TROUBLE), 0);
    rig_destroy(g);
}

/* Nobody but the last answer knows where the next one begins: so each is as large as the room. */
Test(port_request, one_partition_has_the_room_of_a_long_way)
{
    struct rig *g = rig_create();
    backlog(g, 62);
    g->source.partitions_n = 1;
    g->reader.memory_max = 4 << 20;
    way(g, FAR_US, 0);
    int64_t us = until_all_have(g, 62 * RECORDS);
    cr_assert_eq(g->source.max_bytes_seen, 2 << 20, "%d", g->source.max_bytes_seen);
    cr_assert_eq(g->source.part_bytes_seen, 2 << 20);
    cr_assert_lt(us, SIM_SECOND, "%lld ms", (long long)us / 1000);
    rig_destroy(g);
}

Test(port_request, a_slow_way_gets_smaller_answers)
{
    struct rig *g = rig_create();
    backlog(g, 62);
    g->source.partitions_n = 1;
    way(g, FAR_US, 100000);
    int64_t us = until_all_have(g, 62 * RECORDS);
    cr_assert_lt(us, 60 * SIM_SECOND, "%lld ms", (long long)us / 1000);
    cr_assert_leq(g->source.max_bytes_last, 256 << 10, "%d", g->source.max_bytes_last);
    cr_assert_geq(g->source.max_bytes_last, 64 << 10);
    rig_destroy(g);
}

/* What is new at an end goes with the next request, however much the others have. */
Test(port_request, who_is_at_the_end_does_not_wait_for_those_with_more)
{
    struct rig *g = rig_create();
    backlog(g, 60);
    g->source.partitions_n = 8;
    g->reader.first.offset = g->source.end;
    property(g, "fetch.max.bytes", "200000");
    way(g, FAR_US, 0);
    rig_run(g, SIM_SECOND);
    cr_assert_lt(g->reader.other[1].records_n, 60 * RECORDS / 2, "the others are at it");
    cr_assert_eq(g->reader.other[0].records_n, 0);
    source_add(&g->source, (struct batch_spec){.base = g->source.end, .n = 7, .codec = CODEC_NONE});
    rig_run(g, 4 * FAR_US + 10 * SIM_MS);
    cr_assert_eq(g->reader.other[0].records_n, 7);
    rig_destroy(g);
}

Test(port_request, a_throttled_reader_waits)
{
    struct rig *g = rig_create();
    backlog(g, 4);
    g->source.partitions_n = 4;
    g->source.throttle_ms = 1000;
    property(g, "fetch.max.bytes", "200000");
    rig_run(g, 10 * SIM_SECOND);
    cr_assert_leq(g->source.fetches, 40, "%d", g->source.fetches);
    cr_assert_geq(g->source.fetches, 9);
    rig_destroy(g);
}
