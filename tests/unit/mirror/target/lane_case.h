/* What the stories of lanes share: one rig with one mirror and one lane, set up before each, and its two ends: all
 * is there once and in order, or the lane has halted and says why. */
#ifndef SUNDOG_TESTS_UNIT_TARGET_LANE_CASE_H
#define SUNDOG_TESTS_UNIT_TARGET_LANE_CASE_H

#include "tests/unit/mirror/target/rig.h"

static struct rig r;

static inline void lane_up(void)
{
    rig_init(&r, 1, 1, 1);
}

static inline void lane_down(void)
{
    rig_fini(&r);
}

/* Each story twice: the source gives records, or batches as they lie in its log. */
#define BOTH(suite, name)                                                                                    \
    static void name(void);                                                                                  \
    Test(suite, name)                                                                                        \
    {                                                                                                        \
        name();                                                                                              \
    }                                                                                                        \
    Test(suite, name##_of_batches)                                                                           \
    {                                                                                                        \
        r.whole = true;                                                                                      \
        r.whole_min = 100;                                                                                   \
        name();                                                                                              \
    }                                                                                                        \
    static void name(void)

#define DAY_MS (INT64_C(24) * 3600 * 1000)

static inline void finishes_at(int line)
{
    cr_assert(rig_finish(&r, 600 * SEC), "line %d: %s %s: %s", line,
              appender_state_name(rig_status(&r, 0)->state), appender_reason_name(rig_status(&r, 0)->reason),
              rig_status(&r, 0)->text);
    rig_assert_good(&r, 0);
}
#define FINISHES() finishes_at(__LINE__)

static inline void halts_at(int line, enum appender_reason why, const char *words)
{
    rig_finish(&r, 600 * SEC);
    cr_assert_eq(rig_status(&r, 0)->state, APPENDER_HALTED, "line %d: it goes on (%s)", line,
                 rig_status(&r, 0)->text);
    cr_assert_eq(rig_status(&r, 0)->reason, why, "line %d: halted for %s: %s", line,
                 appender_reason_name(rig_status(&r, 0)->reason), rig_status(&r, 0)->text);
    cr_assert_not_null(strstr(rig_status(&r, 0)->text, words), "line %d: %s", line, rig_status(&r, 0)->text);
}
#define HALTS(why, words) halts_at(__LINE__, APPENDER_REASON_##why, words)

/* With the mutant the same story must not end well. */
static inline bool ends_well(void)
{
    if (!rig_finish(&r, 600 * SEC))
        return false;
    struct verdict v = rig_check(&r);
    return v.missing + v.doubled + v.disordered + v.wrong_runs == 0;
}

static inline void mutant(const char *name)
{
    setenv("SUNDOG_MUTANT", name, 1);
}

static inline struct lane *lane0(void)
{
    return &r.m[0].g.lanes[0];
}

static inline void run_until_appended(int64_t records)
{
    for (int i = 0; i < 100000 && r.t[0].end < records; i++)
        rig_step(&r, r.now + SEC);
    cr_assert_geq(r.t[0].end, records);
}

/* Killed before anything was saved but the anchor. */
static inline void appended_but_not_saved(int n)
{
    source_grow(&r, n);
    rig_start(&r, 0);
    FINISHES();
    rig_kill(&r, 0);
}

#endif
