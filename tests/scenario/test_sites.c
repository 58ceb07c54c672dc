/* The mirror between two brokers, all of it simulated: what is at the source is at the target, each record once and in
 * order, whatever dies in between; a group finds its place; what cannot be known halts. */
#include "tests/support/sites.h"

#include <criterion/criterion.h>
#include <stdlib.h>
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

/* What may die, beside the target, its connections and the mirror. */
enum trouble { SOURCE = 1, TWO_MIRRORS = 2, STORES = 4 };

/* Seeds with the record engine, seeds with the batch engine, and seeds where each start of a mirror takes either: what
 * one has begun the other goes on with. */
static void take_engine(struct sites *s, uint64_t seed)
{
    static const char *const engines[] = {"sundog.engine = record\n", "sundog.engine = batch\n"};
    s->mirror_settings = engines[seed % 3 < 2 ? seed % 3 : rng_below(sim_rng(s->sim), 2)];
}

static void strike_broker(struct sites *s, struct sim_node *b)
{
    struct rng *r = sim_rng(s->sim);
    switch (rng_below(r, 6)) {
    case 0: sim_reset_connections(s->mirror, b); break;
    case 1: sim_cut_both(s->mirror, b); break;
    case 2: sim_crash_at(b, SIM_DISK_WRITE, 1 + rng_below(r, 20), rng_below(r, 2) == 0); break;
    case 3: sim_crash_at(b, SIM_DISK_SYNC, 1 + rng_below(r, 10), rng_below(r, 2) == 0); break;
    case 4: sim_power_cut(b); break;
    default: sim_pause(b, true); break;
    }
}

static void strike(struct sites *s, unsigned troubles)
{
    struct rng *r = sim_rng(s->sim);
    struct sim_node *m = (troubles & TWO_MIRRORS) && rng_below(r, 2) ? s->other : s->mirror;
    switch (rng_below(r, 4)) {
    case 0: sim_kill(m); break;
    case 1: strike_broker(s, s->broker[WEST]); break;
    case 2:
        if (troubles & SOURCE)
            strike_broker(s, s->broker[EAST]);
        break;
    default: break;
    }
    if (rng_below(r, 4) == 0)
        strike_broker(s, s->broker[troubles & SOURCE ? (int)rng_below(r, SITES_N) : WEST]);
}

static void mend_broker(struct sites *s, int site)
{
    struct sim_node *b = s->broker[site];
    if (sim_node_up(b))
        sim_pause(b, false);
    sim_crash_at(b, SIM_DISK_WRITE, 0, false);
    sim_crash_at(b, SIM_DISK_SYNC, 0, false);
    sites_serve(s, site);
}

static void mend_mirror(struct sites *s, struct sim_node *m, unsigned troubles, uint64_t seed)
{
    struct rng *r = sim_rng(s->sim);
    if (rng_below(r, 3) == 0 && sim_node_up(m))
        sim_kill(m);
    if (sim_node_up(m))
        return;
    if ((troubles & STORES) && rng_below(r, 2))
        sites_lose_store(s, m);
    take_engine(s, seed);
    cr_assert(sim_start(m));
}

/* True: acknowledged. Else they may be there or not; they are never sent again. */
static bool produce(struct sites *s, uint64_t *number)
{
    struct rng *r = sim_rng(s->sim);
    int n = 1 + (int)rng_below(r, 12);
    bool well = sites_produce(s, EAST, TOPIC, (int32_t)rng_below(r, PARTITIONS), *number, n);
    *number += (uint64_t)n;
    sim_run_for(s->sim, (int64_t)rng_below(r, 60) * SIM_MS);
    return well;
}

static void mirror_under_faults(uint64_t seed, unsigned troubles)
{
    struct sites *s = sites_create(seed);
    struct rng *r = sim_rng(s->sim);
    uint64_t number = 0;
    int failed = 0;
    sites_topic(s, EAST, TOPIC, PARTITIONS);
    take_engine(s, seed);
    cr_assert(sim_start(s->mirror));
    if (troubles & TWO_MIRRORS)
        cr_assert(sim_start(s->other));
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 6; i++)
            failed += !produce(s, &number);
        strike(s, troubles);
        for (int i = 0; i < 3; i++)
            failed += !produce(s, &number);
        sim_run_for(s->sim, (int64_t)rng_below(r, 1500) * SIM_MS);
        sim_heal_all(s->sim);
        mend_broker(s, EAST);
        mend_broker(s, WEST);
        mend_mirror(s, s->mirror, troubles, seed);
        if (troubles & TWO_MIRRORS)
            mend_mirror(s, s->other, troubles, seed);
    }
    cr_assert_leq(failed, troubles & SOURCE ? 60 : 0, "seed %lu: %d of 108 requests failed", seed, failed);
    must_arrive(s, seed);
    sites_destroy(s);
}

/* SUNDOG_SEEDS=FIRST-LAST instead of those that every run has. */
static void mirror_all(uint64_t first, uint64_t last, unsigned troubles)
{
    const char *other = getenv("SUNDOG_SEEDS");
    char *dash = NULL;
    if (other) {
        first = last = strtoull(other, &dash, 10);
        last = *dash == '-' ? strtoull(dash + 1, NULL, 10) : last;
    }
    for (uint64_t seed = first; seed <= last; seed++)
        mirror_under_faults(seed, troubles);
}

Test(sites, each_record_arrives_once_and_in_order_whatever_dies)
{
    mirror_all(1, 12, 0);
}

Test(sites, each_record_arrives_once_whatever_dies_at_the_source)
{
    mirror_all(101, 108, SOURCE);
}

Test(sites, each_record_arrives_once_with_two_mirrors_of_one_flow)
{
    mirror_all(201, 208, TWO_MIRRORS);
}

Test(sites, each_record_arrives_once_though_stores_are_lost)
{
    mirror_all(301, 308, STORES);
}

Test(sites, each_record_arrives_once_with_all_troubles_together)
{
    mirror_all(401, 408, SOURCE | TWO_MIRRORS | STORES);
}

/* A hundred records, a group that stands at `at`, and a mirror that has applied it. */
static struct sites *group_followed(int64_t at, int32_t *epoch)
{
    struct sites *s = sites_create(1);
    int64_t offset = -1;
    bool committed = false;
    sites_topic(s, EAST, TOPIC, PARTITIONS);
    for (int i = 0; i < 10; i++)
        cr_assert(sites_produce(s, EAST, TOPIC, 0, (uint64_t)i * 10, 10));
    for (int i = 0; !committed && i < 30; i++) { /* the first asks for the offsets topic to be made */
        committed = sites_commit(s, EAST, "readers", TOPIC, 0, at);
        sim_run_for(s->sim, SIM_SECOND);
    }
    cr_assert(committed);
    cr_assert(sim_start(s->mirror));
    for (int i = 0; offset < 0 && i < 60; i++) {
        sim_run_for(s->sim, SIM_SECOND);
        offset = sites_committed(s, WEST, "readers", MIRRORED, 0, epoch);
    }
    cr_assert_eq(offset, at);
    return s;
}

Test(sites, a_group_goes_on_where_it_stood_and_without_the_sources_epoch)
{
    int32_t epoch = 0;
    struct sites *s = group_followed(42, &epoch);
    cr_assert_eq(epoch, -1, "an epoch of the source means nothing at the target");
    sites_destroy(s);
}

Test(sites, an_offset_that_somebody_else_committed_at_the_target_stays)
{
    int32_t epoch;
    struct sites *s = group_followed(42, &epoch);
    cr_assert(sites_commit(s, WEST, "readers", MIRRORED, 0, 17));
    cr_assert(sites_commit(s, EAST, "readers", TOPIC, 0, 50));
    sim_run_for(s->sim, 30 * SIM_SECOND);
    cr_assert_eq(sites_committed(s, WEST, "readers", MIRRORED, 0, &epoch), 17);
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
    sites_lose_store(s, s->mirror);
    sites_topic_delete(s, WEST, "sundog-progress.east.internal");
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 60 * SIM_SECOND);
    for (int32_t p = 0; p < PARTITIONS; p++)
        cr_assert(is_mirrored(s, p), "partition %d is halted, not mirrored again", p);
    sites_destroy(s);
}
