/* Random faults, seed by seed: every source record is at the target exactly once and in order, and the map points to
 * where it is. A failure names its seed; SUNDOG_SEED runs that one alone. */
#include "tests/unit/mirror/target/rig.h"

static struct rig r;
static bool whole; /* the source gives whole batches, with one lane */

/* Each story twice: the source gives records, or batches as they lie in its log. */
#define BOTH(suite, name)                                                                                    \
    static void name(void);                                                                                  \
    Test(suite, name)                                                                                        \
    {                                                                                                        \
        name();                                                                                              \
    }                                                                                                        \
    Test(suite, name##_of_batches)                                                                           \
    {                                                                                                        \
        whole = true;                                                                                        \
        name();                                                                                              \
        cr_assert_gt(r.passed, 0);                                                                           \
        cr_assert_gt(r.unpacked, 0);                                                                         \
    }                                                                                                        \
    static void name(void)

struct mix {
    const char *name;
    uint32_t breaks, kills, restarts, foreign, epochs, refusals, late_acks, compactions, trims, holds;
    uint32_t target_compactions, expiries;
    int lanes_max, mirrors;
    int64_t age_ms; /* of the records */
    bool no_late;
};

#define PM(percent) ((percent)*10000u)

static bool chance(uint32_t per_million)
{
    return rng_chance(&r.rng, per_million);
}

static void target_faults(const struct mix *m)
{
    static const int16_t refusals[] = {KE_NOT_LEADER_OR_FOLLOWER, KE_NOT_ENOUGH_REPLICAS,
                                       KE_KAFKA_STORAGE_ERROR, KE_LEADER_NOT_AVAILABLE};
    static const int16_t late[] = {KE_REQUEST_TIMED_OUT, KE_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
                                   KE_NOT_LEADER_OR_FOLLOWER};
    struct target_model *t = &r.t[rng_below(&r.rng, (uint64_t)r.lanes)];
    if (chance(m->restarts)) {
        target_restart(t);
        for (int i = 0; i < r.mirrors; i++)
            if (r.m[i].up)
                rig_break(&r, i, true);
    }
    if (chance(m->foreign))
        target_foreign(t, (int)rng_range(&r.rng, 1, 5));
    if (chance(m->epochs) && t->epochs_n < TARGET_EPOCHS)
        target_new_epoch(t);
    if (chance(m->refusals)) {
        t->refuse = refusals[rng_below(&r.rng, 4)];
        t->refuse_n = (int)rng_range(&r.rng, 1, 7);
    }
    if (chance(m->late_acks)) {
        t->after = late[rng_below(&r.rng, 3)];
        t->after_n = (int)rng_range(&r.rng, 1, 7);
    }
    if (chance(m->holds)) {
        t->hold_watermark = !t->hold_watermark;
        if (!t->hold_watermark)
            target_replicate(t);
    }
    if (chance(m->target_compactions))
        target_compact(t, 200000);
    if (chance(m->expiries))
        target_expire(t);
}

static void source_faults(const struct mix *m)
{
    if (chance(m->compactions))
        for (int i = 0; i < 20; i++)
            r.s.v[rng_below(&r.rng, r.s.n)].gone = true;
    if (chance(m->trims)) {
        /* never past what the slowest mirror has: that would be a loss nobody can undo */
        int64_t least = r.s.end;
        for (int i = 0; i < r.mirrors; i++)
            if (r.m[i].has_saved && r.m[i].saved.source_next < least)
                least = r.m[i].saved.source_next;
        r.s.start = least > r.s.start ? rng_range(&r.rng, r.s.start, least) : r.s.start;
    }
}

static void mirror_faults(const struct mix *m, int mi)
{
    struct mirror *x = &r.m[mi];
    if (!x->up) {
        if (chance(PM(30)))
            rig_start(&r, mi);
        return;
    }
    if (chance(m->breaks))
        rig_break(&r, mi, true);
    if (chance(PM(20)))
        rig_save(&r, mi);
    if (chance(m->kills) && x->has_saved)
        rig_kill(&r, mi);
}

static void produce(const struct mix *m, int n)
{
    size_t from = r.s.n;
    source_grow(&r, n);
    for (size_t i = from; i < r.s.n; i++)
        r.s.v[i].timestamp -= m->age_ms;
    if (chance(PM(20)))
        source_gap(&r, (int)rng_range(&r.rng, 1, 3));
}

static void calm_down(void)
{
    r.lose_answers = 0;
    for (int q = 0; q < r.lanes; q++) {
        r.t[q].hold_watermark = false;
        r.t[q].refuse_n = r.t[q].after_n = 0;
        target_replicate(&r.t[q]);
    }
    for (int i = 0; i < r.mirrors; i++)
        if (!r.m[i].up)
            rig_start(&r, i);
}

static void run_seed(const struct mix *m, uint64_t seed)
{
    rig_init(&r, seed, whole ? 1 : (int)(1 + seed % (uint64_t)m->lanes_max), m->mirrors);
    r.whole = whole;
    r.whole_min = (size_t)rng_range(&r.rng, 0, 2) * 150;
    r.shared_progress = m->mirrors > 1;
    r.no_late = m->no_late;
    r.batch_max = (size_t)rng_range(&r.rng, 200, 4000);
    r.codec = chance(PM(30)) ? (int)rng_below(&r.rng, CODEC_COUNT) : CODEC_NONE;
    r.lose_answers = m->breaks / 20;
    produce(m, 30);
    rig_start(&r, 0);
    rig_run(&r, SEC);
    for (int i = 1; i < r.mirrors; i++)
        rig_start(&r, i);
    for (int step = 0; step < 150; step++) {
        if (chance(PM(60)))
            produce(m, (int)rng_range(&r.rng, 1, 60));
        target_faults(m);
        source_faults(m);
        for (int i = 0; i < r.mirrors; i++)
            mirror_faults(m, i);
        rig_run(&r, rng_range(&r.rng, MS, 40 * MS));
        for (int i = 0; i < r.mirrors; i++)
            cr_assert(!r.m[i].up || rig_status(&r, i)->state != APPENDER_HALTED, "%s seed %llu: halted: %s",
                      m->name, (unsigned long long)seed, rig_status(&r, i)->text);
    }
    calm_down();
    bool done = false;
    for (int i = 0; i < 600 && !done; i++) {
        done = rig_finish(&r, SEC);
        for (int k = 0; k < r.mirrors; k++)
            rig_save(&r, k);
    }
    if (!done || getenv("SUNDOG_SEED"))
        rig_dump(&r);
    cr_assert(done, "%s seed %llu: does not finish: %s %s / %s", m->name, (unsigned long long)seed,
              appender_state_name(rig_status(&r, 0)->state), rig_status(&r, 0)->text,
              r.mirrors > 1 ? rig_status(&r, 1)->text : "");
    rig_assert_good(&r, seed);
    for (int k = 0; k < r.mirrors; k++)
        cr_assert_eq(r.m[k].notes[APPENDER_APPEND_TIME], 0, "%s seed %llu", m->name,
                     (unsigned long long)seed);
    rig_fini(&r);
}

static void run_mix(const struct mix *m, int seeds)
{
    const char *one = getenv("SUNDOG_SEED");
    if (one) {
        run_seed(m, strtoull(one, NULL, 10));
        return;
    }
    const char *factor = getenv("SUNDOG_SEEDS_FACTOR"); /* for a long soak */
    uint64_t n = (uint64_t)seeds * (factor ? (uint64_t)strtoull(factor, NULL, 10) : 1);
    for (uint64_t i = 1; i <= n; i++)
        run_seed(m, i);
}

BOTH(lane_random, network_and_kills)
{
    run_mix(&(struct mix){.name = "network", .breaks = PM(20), .kills = PM(10), .lanes_max = 3, .mirrors = 1},
            150);
}

BOTH(lane_random, everything_but_age)
{
    run_mix(&(struct mix){.name = "everything",
                          .breaks = PM(10),
                          .kills = PM(5),
                          .restarts = PM(10),
                          .foreign = PM(15),
                          .epochs = PM(10),
                          .refusals = PM(10),
                          .late_acks = PM(10),
                          .compactions = PM(5),
                          .trims = PM(5),
                          .holds = PM(5),
                          .lanes_max = 3,
                          .mirrors = 1},
            200);
}

BOTH(lane_random, old_records)
{
    run_mix(&(struct mix){.name = "old",
                          .breaks = PM(20),
                          .kills = PM(5),
                          .restarts = PM(5),
                          .foreign = PM(10),
                          .expiries = PM(20),
                          .lanes_max = 2,
                          .mirrors = 1,
                          .age_ms = INT64_C(3) * 24 * 3600 * 1000,
                          .no_late = true},
            150);
}

BOTH(lane_random, two_mirrors)
{
    run_mix(&(struct mix){.name = "two mirrors",
                          .breaks = PM(5),
                          .kills = PM(3),
                          .restarts = PM(3),
                          .foreign = PM(5),
                          .lanes_max = 2,
                          .mirrors = 2},
            100);
}
