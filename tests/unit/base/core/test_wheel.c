#include "base/core/wheel.h"

#include "base/core/rng.h"

#include <criterion/criterion.h>
#include <limits.h>

Test(wheel, one_deadline)
{
    struct wheel w;
    struct wheel_entry e;
    wheel_init(&w, 5000);
    wheel_entry_init(&e);
    cr_expect_eq(wheel_next(&w), INT64_MAX);
    wheel_add(&w, &e, 7001);
    cr_expect_leq(wheel_next(&w), 8000);
    cr_expect_null(wheel_pop(&w, 7000));
    cr_expect_null(wheel_pop(&w, 7999));
    cr_expect_eq(wheel_pop(&w, 8000), &e);
    cr_expect_not(e.armed);
    cr_expect_null(wheel_pop(&w, 9000));
    wheel_add(&w, &e, 100); /* long past */
    cr_expect_eq(wheel_pop(&w, 10000), &e);
    wheel_add(&w, &e, 20000);
    wheel_add(&w, &e, 30000);
    wheel_remove(&w, &e);
    wheel_remove(&w, &e);
    cr_expect_eq(w.count, 0);
    cr_expect_eq(wheel_next(&w), INT64_MAX);
}

/* Against a plain array: every entry comes exactly once, within a tick of its deadline, never early. */
static void compare_with_model(uint64_t seed, int64_t reach_us, int64_t step_us)
{
    enum { N = 300 };
    static struct wheel w;
    static struct wheel_entry e[N];
    static int64_t due[N];  /* -1: not armed */
    static int64_t from[N]; /* the later of deadline and arming */
    struct rng r;
    rng_init(&r, seed);
    int64_t now = (int64_t)rng_below(&r, 1u << 30);
    wheel_init(&w, now);
    for (int i = 0; i < N; i++) {
        wheel_entry_init(&e[i]);
        due[i] = -1;
    }
    for (int round = 0; round < 400; round++) {
        for (int k = 0; k < 20; k++) {
            size_t i = rng_below(&r, N);
            if (rng_below(&r, 4) == 0) {
                wheel_remove(&w, &e[i]);
                due[i] = -1;
            } else {
                due[i] = now + rng_exponential(&r, reach_us) - 500;
                wheel_add(&w, &e[i], due[i]);
                from[i] = due[i] > now ? due[i] : now;
            }
        }
        int64_t earliest = INT64_MAX;
        for (int i = 0; i < N; i++)
            if (due[i] >= 0 && due[i] < earliest)
                earliest = due[i];
        cr_assert(earliest == INT64_MAX ||
                  wheel_next(&w) <= (earliest > now ? earliest : now) + WHEEL_TICK_US);
        now += rng_exponential(&r, step_us);
        for (struct wheel_entry *p; (p = wheel_pop(&w, now));) {
            size_t i = (size_t)(p - e);
            cr_assert(due[i] >= 0 && due[i] <= now && p->due_us == due[i]);
            due[i] = -1;
        }
        uint64_t left = 0;
        for (int i = 0; i < N; i++) {
            cr_assert(due[i] < 0 || from[i] > now - WHEEL_TICK_US, "seed %lu: %ld is late at %ld", seed,
                      due[i], now);
            left += due[i] >= 0;
        }
        cr_assert_eq(w.count, left);
    }
}

Test(wheel, like_a_plain_list_at_every_scale)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        compare_with_model(seed, 10000, 1000);
        compare_with_model(seed, 1000000, 100000);
        compare_with_model(seed, 500000000, 10000000);
        compare_with_model(seed, INT64_C(3600000000), INT64_C(7200000000));
        compare_with_model(seed, INT64_C(90) * 86400 * 1000000, INT64_C(30) * 86400 * 1000000);
    }
}

Test(wheel, sleeping_until_next_never_oversleeps)
{
    struct wheel w;
    struct wheel_entry e;
    struct rng r;
    rng_init(&r, 9);
    wheel_init(&w, 0);
    wheel_entry_init(&e);
    int64_t now = 0;
    for (int i = 0; i < 2000; i++) {
        int64_t due = now + rng_range(&r, 0, INT64_C(1) << rng_range(&r, 1, 40));
        wheel_add(&w, &e, due);
        int wakes = 0;
        while (!wheel_pop(&w, now)) {
            int64_t next = wheel_next(&w);
            cr_assert_gt(next, now - WHEEL_TICK_US);
            now = next > now ? next : now + 1;
            cr_assert_leq(++wakes, 6);
        }
        cr_assert(now >= due && now < due + 2 * WHEEL_TICK_US);
    }
}
