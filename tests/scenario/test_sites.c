/* The mirror between two brokers, all of it simulated: what is at the source is at the target, each record once and in
 * order, whatever dies in between; a group finds its place; what cannot be known halts. */
#include "tests/support/sites.h"

#include <criterion/criterion.h>
#include <string.h>

#define TOPIC      "orders"
#define MIRRORED   "east.orders"
#define PARTITIONS 2
#define NUMBERS    4096

static uint64_t there[NUMBERS], here[NUMBERS];

static bool is_mirrored(struct sites *s, int32_t partition)
{
    int n = sites_read(s, EAST, TOPIC, partition, there, NUMBERS);
    int m = sites_read(s, WEST, MIRRORED, partition, here, NUMBERS);
    return n >= 0 && n == m && memcmp(there, here, (size_t)n * sizeof *here) == 0;
}

/* Until everything is there, and then a little longer: nothing may come twice. */
static void must_arrive(struct sites *s, uint64_t seed)
{
    for (int32_t p = 0; p < PARTITIONS; p++) {
        int tries = 0;
        while (!is_mirrored(s, p) && ++tries < 120)
            sim_run_for(s->sim, SIM_SECOND);
        cr_assert_lt(tries, 120, "seed %lu: partition %d is not mirrored", seed, p);
    }
    sim_run_for(s->sim, 10 * SIM_SECOND);
    for (int32_t p = 0; p < PARTITIONS; p++)
        cr_assert(is_mirrored(s, p), "seed %lu: partition %d has more than its source", seed, p);
}

static void fault(struct sites *s)
{
    struct rng *r = sim_rng(s->sim);
    struct sim_node *m = s->mirror, *w = s->broker[WEST];
    switch (rng_below(r, 7)) {
    case 0: sim_kill(m); break;
    case 1: sim_reset_connections(m, w); break;
    case 2: sim_cut_both(m, w); break;
    case 3: sim_crash_at(w, SIM_DISK_WRITE, 1 + rng_below(r, 20), rng_below(r, 2) == 0); break;
    case 4: sim_power_cut(w); break;
    case 5: sim_pause(w, true); break;
    default: break;
    }
    sim_run_for(s->sim, (int64_t)rng_below(r, 1500) * SIM_MS);
    if (rng_below(r, 3) == 0 && sim_node_up(m))
        sim_kill(m);
    if (sim_node_up(w))
        sim_pause(w, false);
    sim_crash_at(w, SIM_DISK_WRITE, 0, false);
    sim_heal_all(s->sim);
    sites_serve(s, WEST);
    if (!sim_node_up(m))
        cr_assert(sim_start(m));
}

static void mirror_under_faults(uint64_t seed)
{
    struct sites *s = sites_create(seed);
    struct rng *r = sim_rng(s->sim);
    uint64_t number = 0;
    sites_topic(s, EAST, TOPIC, PARTITIONS);
    cr_assert(sim_start(s->mirror));
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 6; i++) {
            int n = 1 + (int)rng_below(r, 12);
            cr_assert(sites_produce(s, EAST, TOPIC, (int32_t)rng_below(r, PARTITIONS), number, n));
            number += (uint64_t)n;
            sim_run_for(s->sim, (int64_t)rng_below(r, 60) * SIM_MS);
        }
        fault(s);
    }
    must_arrive(s, seed);
    sites_destroy(s);
}

Test(sites, each_record_arrives_once_and_in_order_whatever_dies)
{
    for (uint64_t seed = 1; seed <= 12; seed++)
        mirror_under_faults(seed);
}

Test(sites, a_group_goes_on_where_it_stood_and_without_the_sources_epoch)
{
    struct sites *s = sites_create(1);
    int64_t offset = -1;
    int32_t epoch = 0;
    bool committed = false;
    sites_topic(s, EAST, TOPIC, PARTITIONS);
    for (int i = 0; i < 10; i++)
        cr_assert(sites_produce(s, EAST, TOPIC, 0, (uint64_t)i * 10, 10));
    for (int i = 0; !committed && i < 30; i++) { /* the first asks for the offsets topic to be made */
        committed = sites_commit(s, EAST, "readers", TOPIC, 0, 42);
        sim_run_for(s->sim, SIM_SECOND);
    }
    cr_assert(committed);
    cr_assert(sim_start(s->mirror));
    for (int i = 0; offset < 0 && i < 60; i++) {
        sim_run_for(s->sim, SIM_SECOND);
        offset = sites_committed(s, WEST, "readers", MIRRORED, 0, &epoch);
    }
    cr_assert_eq(offset, 42);
    cr_assert_eq(epoch, -1, "an epoch of the source means nothing at the target");
    sites_destroy(s);
}

Test(sites, without_progress_and_store_a_filled_target_is_not_filled_again)
{
    struct sites *s = sites_create(1);
    sites_topic(s, EAST, TOPIC, PARTITIONS);
    for (int32_t p = 0; p < PARTITIONS; p++)
        cr_assert(sites_produce(s, EAST, TOPIC, p, 0, 50));
    cr_assert(sim_start(s->mirror));
    must_arrive(s, 1);
    sim_kill(s->mirror);
    sites_lose_store(s);
    sites_topic_delete(s, WEST, "sundog-progress.east.internal");
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 60 * SIM_SECOND);
    for (int32_t p = 0; p < PARTITIONS; p++)
        cr_assert(is_mirrored(s, p), "partition %d is halted, not mirrored again", p);
    sites_destroy(s);
}
