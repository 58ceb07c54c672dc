#include "tests/support/sim/sim.h"

#include "base/runtime/log.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct sim *s;
static struct sim_node *n;
static struct loop *l;
static char order[200];
static int64_t times[20];
static int count;

static void *boot_nothing(void *arg, struct sim_node *node)
{
    (void)node;
    return arg;
}

static void open_world(uint64_t seed)
{
    s = sim_create(&(struct sim_options){.seed = seed});
    n = sim_node_add(s, &(struct sim_node_options){.name = "n1", .boot = boot_nothing, .arg = order});
    l = sim_node_loop(n);
    order[0] = 0;
    count = 0;
    cr_assert(sim_start(n));
}

static void note(void *arg)
{
    strcat(order, arg);
    times[count++] = sim_now_us(s);
}

Test(sim_loop, timers_are_due_at_their_virtual_time)
{
    open_world(1);
    struct loop_timer a, b, c;
    loop_timer_init(&a, l, note, "a");
    loop_timer_init(&b, l, note, "b");
    loop_timer_init(&c, l, note, "c");
    int64_t start = sim_now_us(s), mono = loop_now_us(l);
    loop_timer_in(&b, 3600 * SIM_SECOND);
    loop_timer_in(&a, 5000);
    loop_timer_in(&c, 6000);
    loop_timer_stop(&c);
    cr_expect_eq(sim_run_until(s, start + 7200 * SIM_SECOND, NULL, NULL), SIM_IDLE);
    cr_expect_str_eq(order, "ab");
    cr_expect(times[0] - start >= 5000 && times[0] - start < 5100);
    cr_expect_eq(times[1] - start, 3600 * SIM_SECOND);
    cr_expect_eq(loop_now_us(l) - mono, 3600 * SIM_SECOND);
    cr_expect_eq(sim_now_us(s), start + 7200 * SIM_SECOND);
    sim_destroy(s);
}

struct work {
    struct loop_job job;
    const char *ran, *finished;
};

static void run_work(struct loop_job *job)
{
    note((void *)(uintptr_t)((struct work *)job)->ran);
}

static void work_done(struct loop_job *job)
{
    note((void *)(uintptr_t)((struct work *)job)->finished);
}

static void hook(void *arg)
{
    strcat(order, arg);
}

static void message(struct loop_msg *msg)
{
    (void)msg;
    strcat(order, "m");
}

Test(sim_loop, a_turn_runs_in_the_order_of_the_real_one)
{
    open_world(1);
    struct loop_hook h = {.fn = hook, .arg = "|"};
    struct loop_msg m = {.fn = message};
    struct loop_timer t;
    struct work w = {{.run = run_work, .done = work_done}, "(", ")"};
    struct work v = {{.run = run_work, .done = work_done}, "[", "]"};
    loop_hook_add(l, &h);
    loop_timer_init(&t, l, note, "t");
    loop_timer_at(&t, loop_now_us(l));
    loop_post(l, &m);
    loop_job(l, &w.job);
    loop_job(l, &v.job); /* the same lane: after the first */
    sim_run_for(s, SIM_SECOND);
    cr_expect(strncmp(order, "tm|", 3) == 0 || strncmp(order, "(tm|", 4) == 0 ||
                  strncmp(order, "t|m|", 4) == 0,
              "%s", order);
    const char *p = strchr(order, '('), *q = strchr(order, ')'), *r = strchr(order, '['),
               *u = strchr(order, ']');
    cr_expect(p && q && r && u && p < q && p < r && r < u && q < u, "%s", order);
    sim_destroy(s);
}

Test(sim_loop, a_kill_may_fall_between_a_job_and_its_done)
{
    int ran = 0, done = 0, neither = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        open_world(seed);
        struct work w = {{.run = run_work, .done = work_done}, "r", "d"};
        struct loop_timer t;
        loop_timer_init(&t, l, note, "t");
        loop_timer_in(&t, SIM_SECOND);
        loop_job(l, &w.job);
        sim_run_for(s, (int64_t)seed);
        sim_kill(n);
        cr_expect_not(t.armed);
        loop_timer_in(&t, 1); /* a dead loop */
        cr_expect_not(t.armed);
        sim_run_for(s, 10 * SIM_SECOND);
        ran += strcmp(order, "r") == 0;
        done += strcmp(order, "rd") == 0;
        neither += order[0] == 0;
        sim_destroy(s);
    }
    cr_expect_eq(ran + done + neither, 60);
    cr_expect(ran > 0 && done > 5 && neither > 5, "%d %d %d", ran, done, neither);
}

static void slow(void *arg)
{
    (void)arg;
    struct disk_file *f;
    note("s");
    cr_assert_eq(disk_open(sim_node_disk(n), "/f", DISK_WRITE | DISK_CREATE, &f, NULL), 0);
    disk_fdatasync(f);
    disk_close(f);
}

Test(sim_loop, blocking_calls_keep_the_loop_busy)
{
    open_world(1);
    sim_disk_costs(n, &(struct sim_disk_costs){.sync_us = 50000});
    struct loop_timer a, b;
    loop_timer_init(&a, l, slow, NULL);
    loop_timer_init(&b, l, note, "b");
    loop_timer_in(&a, 1000);
    loop_timer_in(&b, 2000);
    int64_t start = sim_now_us(s);
    sim_run_for(s, SIM_SECOND);
    cr_expect_str_eq(order, "sb");
    cr_expect_geq(times[1] - start, 51000);
    sim_destroy(s);
}

Test(sim_loop, clocks_step_and_drift_apart)
{
    open_world(1);
    struct sim_node *m =
        sim_node_add(s, &(struct sim_node_options){.name = "n2", .boot = boot_nothing, .arg = order});
    cr_assert(sim_start(m));
    cr_expect_neq(loop_now_us(l), loop_now_us(sim_node_loop(m))); /* monotonic clocks compare with nothing */
    struct loop_timer t;
    loop_timer_init(&t, l, note, "t");
    int64_t wall = loop_wall_ms(l);
    sim_clock_step(n, -3600000);
    loop_timer_in(&t, SIM_SECOND);
    sim_run_for(s, 2 * SIM_SECOND);
    cr_expect_eq(loop_wall_ms(l) - wall, 1000 - 3600000);
    wall = loop_wall_ms(l);
    sim_clock_drift(n, 500); /* 500 ppm */
    loop_timer_in(&t, 1000 * SIM_SECOND);
    sim_run_for(s, 2000 * SIM_SECOND);
    int64_t passed = loop_wall_ms(l) - wall;
    cr_expect(passed >= 1000495 && passed <= 1000505, "%ld", passed);
    sim_destroy(s);
}

Test(sim_loop, a_paused_process_goes_on_later)
{
    open_world(1);
    struct loop_timer t;
    struct work w = {{.run = run_work, .done = work_done}, "r", "d"};
    loop_timer_init(&t, l, note, "t");
    loop_timer_in(&t, SIM_SECOND);
    loop_job(l, &w.job);
    sim_pause(n, true);
    sim_run_for(s, 10 * SIM_SECOND);
    cr_expect_str_eq(order, "");
    int64_t start = sim_now_us(s);
    sim_pause(n, false);
    sim_run_for(s, SIM_SECOND);
    cr_expect_eq(strlen(order), 3);
    cr_expect_geq(times[0], start);
    sim_destroy(s);
}

static void stop(void *arg)
{
    loop_stop(arg);
}

static int booted, destroyed;
static void *boot_memory(void *arg, struct sim_node *node)
{
    (void)arg;
    booted++;
    struct loop_timer *t = calloc(1, sizeof *t);
    loop_timer_init(t, sim_node_loop(node), stop, sim_node_loop(node));
    loop_timer_in(t, SIM_SECOND);
    return t;
}

static void destroy_memory(void *arg, void *program)
{
    (void)arg;
    destroyed++;
    loop_timer_stop(program);
    free(program);
}

Test(sim_loop, programs_end_are_killed_and_start_again)
{
    s = sim_create(&(struct sim_options){.seed = 1});
    n = sim_node_add(s,
                     &(struct sim_node_options){.name = "n", .boot = boot_memory, .destroy = destroy_memory});
    struct sim_node *leaky =
        sim_node_add(s, &(struct sim_node_options){.name = "leaky", .boot = boot_memory});
    cr_assert(sim_start(n) && sim_start(leaky));
    uint64_t first = loop_random(sim_node_loop(n));
    sim_run_for(s, SIM_SECOND / 2);
    sim_kill(n);
    sim_kill(n);
    sim_kill(leaky); /* its memory stays, and no leak is reported */
    cr_expect(!sim_node_up(n) && !sim_node_program(n));
    cr_assert(sim_start(n) && sim_start(leaky));
    cr_expect_neq(first, loop_random(sim_node_loop(n)));
    sim_run_for(s, 2 * SIM_SECOND);
    cr_expect(sim_node_stopped(n) && sim_node_up(n));
    sim_destroy(s);
    cr_expect(booted == 4 && destroyed == 2);
}

static void append(void *arg)
{
    strcat(order, arg);
}

static void check(void *arg)
{
    ++*(uint64_t *)arg;
}

static bool three(void *arg)
{
    (void)arg;
    return strlen(order) >= 3;
}

Test(sim_loop, the_tests_script_runs_at_its_times)
{
    open_world(1);
    uint64_t checks = 0;
    sim_checker(s, check, &checks);
    int64_t start = sim_now_us(s);
    sim_at(s, start + 3000, append, "c");
    sim_at(s, start + 1000, append, "a");
    sim_at(s, start + 2000, append, "b");
    sim_at(s, start + 9000, append, "d");
    cr_expect_eq(sim_run_until(s, start + 5000, three, NULL), SIM_TRUE);
    cr_expect_eq(sim_now_us(s), start + 3000);
    cr_expect_eq(checks, sim_events(s));
    cr_expect_str_eq(order, "abc");
    cr_expect_eq(sim_run_until(s, start + 5000, NULL, NULL), SIM_TIME);
    sim_destroy(s);
}

static void rearm(void *arg)
{
    loop_timer_at(arg, 0);
}

Test(sim_loop, a_simulation_without_end_is_ended, .signal = SIGABRT)
{
    s = sim_create(&(struct sim_options){.seed = 1, .events_max = 10000});
    n = sim_node_add(s, &(struct sim_node_options){.name = "n1", .boot = boot_nothing, .arg = order});
    cr_assert(sim_start(n));
    struct loop_timer t;
    loop_timer_init(&t, sim_node_loop(n), rearm, &t);
    loop_timer_at(&t, 0);
    sim_run_for(s, 1000 * SIM_SECOND);
}

Test(sim_loop, log_lines_are_part_of_the_trace)
{
    uint64_t hash[3];
    for (int i = 0; i < 3; i++) {
        open_world(1);
        log_info("test", "value=%d", i / 2);
        log_info("test", "value=%d", i / 2);
        hash[i] = sim_trace_hash(s);
        sim_destroy(s);
    }
    cr_expect(hash[0] == hash[1] && hash[1] != hash[2]);
}
