#include "base/world/clock.h"
#include "base/world/loop_posix.h"

#include "base/core/rng.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct job_pool *pool;
static struct loop_posix *lp;
static struct loop *l;
static char order[256];

static void setup(void)
{
    struct err err = {0};
    cr_assert_eq(job_pool_create(4, &pool, &err), 0, "%s", err.text);
    cr_assert_eq(loop_posix_create(&(struct loop_posix_options){.jobs = pool}, &lp, &err), 0, "%s", err.text);
    l = loop_posix_loop(lp);
    order[0] = 0;
}

static void teardown(void)
{
    loop_posix_destroy(lp);
    job_pool_destroy(pool);
}

TestSuite(loop, .init = setup, .fini = teardown);

static void note(void *arg)
{
    strncat(order, arg, 8);
}

static void stop(void *arg)
{
    loop_stop(arg);
}

Test(loop, timers_run_in_order_of_time_then_arming)
{
    struct loop_timer a, b, c, d, end;
    loop_timer_init(&a, l, note, "a");
    loop_timer_init(&b, l, note, "b");
    loop_timer_init(&c, l, note, "c");
    loop_timer_init(&d, l, note, "d");
    loop_timer_init(&end, l, stop, l);
    int64_t t = loop_now_us(l);
    loop_timer_at(&c, t + 3000);
    loop_timer_at(&a, t + 1000);
    loop_timer_at(&d, t + 2000);
    loop_timer_at(&b, t + 1000);
    loop_timer_at(&end, t + 20000);
    loop_timer_stop(&d);
    loop_timer_stop(&d);
    loop_timer_at(&a, t + 1500); /* re-armed: now behind b */
    loop_posix_run(lp);
    cr_expect_str_eq(order, "bac");
    cr_expect_geq(loop_now_us(l), t + 20000);
    cr_expect_lt(loop_now_us(l), t + 60000000); /* a busy machine may be late, not by a minute */
    cr_expect_not(a.armed);
}

static unsigned again_count;
static void again(void *arg)
{
    if (++again_count < 5)
        loop_timer_at(arg, 0);
}

Test(loop, a_timer_armed_for_the_past_is_due_in_the_next_turn)
{
    struct loop_timer t;
    loop_timer_init(&t, l, again, &t);
    loop_timer_at(&t, 0);
    for (unsigned i = 1; i <= 5; i++) {
        usleep(10);
        loop_posix_turn(lp, -1);
        cr_expect_eq(again_count, i);
    }
    cr_expect_not(t.armed);
}

static int64_t last_us;
static unsigned fired;
static void check_time(void *arg)
{
    struct loop_timer *t = arg;
    cr_expect_leq(t->due_us, loop_now_us(l));
    cr_expect_leq(last_us, t->due_us);
    last_us = t->due_us;
    fired++;
}

Test(loop, many_timers_armed_and_stopped_at_random)
{
    enum { N = 2000 };
    static struct loop_timer t[N];
    struct rng r;
    rng_init(&r, 3);
    int64_t start = loop_now_us(l) + 2;
    for (int i = 0; i < N; i++)
        loop_timer_init(&t[i], l, check_time, &t[i]);
    unsigned armed = 0;
    for (int i = 0; i < 4 * N; i++) {
        struct loop_timer *one = &t[rng_below(&r, N)];
        if (rng_below(&r, 3) == 0)
            loop_timer_stop(one);
        else
            loop_timer_at(one, start + (int64_t)rng_below(&r, 50000));
    }
    for (int i = 0; i < N; i++)
        armed += t[i].armed;
    while (loop_now_us(l) < start + 60000)
        loop_posix_turn(lp, 5000);
    cr_expect_eq(fired, armed);
    for (int i = 0; i < N; i++)
        cr_expect_not(t[i].armed);
}

struct message {
    struct loop_msg msg;
    int from, number;
};
static int received[4];
static pthread_t loop_thread;

static void receive(struct loop_msg *msg)
{
    struct message *m = (struct message *)msg;
    cr_expect(pthread_equal(pthread_self(), loop_thread));
    cr_expect_eq(m->number, received[m->from]);
    received[m->from]++;
    free(m);
}

static void *send_many(void *arg)
{
    for (int i = 0; i < 5000; i++) {
        struct message *m = malloc(sizeof *m);
        *m = (struct message){{.fn = receive}, (int)(intptr_t)arg, i};
        loop_post(l, &m->msg);
    }
    return NULL;
}

Test(loop, messages_arrive_in_each_senders_order)
{
    pthread_t t[4];
    loop_thread = pthread_self();
    for (intptr_t i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, send_many, (void *)i);
    while (received[0] + received[1] + received[2] + received[3] < 20000)
        loop_posix_turn(lp, -1);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
}

static void post_self(struct loop_msg *msg)
{
    strcat(order, "m");
    if (strlen(order) < 3)
        loop_post(l, msg);
}

Test(loop, a_message_to_oneself_comes_in_the_next_turn)
{
    struct loop_msg m = {.fn = post_self};
    loop_post(l, &m);
    cr_expect_str_eq(order, "");
    loop_posix_turn(lp, -1);
    cr_expect_str_eq(order, "m");
    loop_posix_turn(lp, -1);
    cr_expect_str_eq(order, "mm");
    loop_posix_turn(lp, -1);
    loop_posix_turn(lp, 0);
    cr_expect_str_eq(order, "mmm");
}

struct work {
    struct loop_job job;
    int number;
    pthread_t ran_on;
};
static int lane_next[8], done_count;

static void run_work(struct loop_job *job)
{
    struct work *w = (struct work *)job;
    w->ran_on = pthread_self();
    if (w->number % 17 == 0)
        usleep(200);
    int *next = &lane_next[job->lane]; /* one thread a lane: no race */
    cr_assert_eq(*next, w->number);
    ++*next;
}

static void work_done(struct loop_job *job)
{
    struct work *w = (struct work *)job;
    cr_expect(pthread_equal(pthread_self(), loop_thread));
    cr_expect_not(pthread_equal(w->ran_on, loop_thread));
    done_count++;
}

Test(loop, jobs_of_a_lane_run_in_order_elsewhere)
{
    enum { N = 800 };
    static struct work w[N];
    loop_thread = pthread_self();
    for (int i = 0; i < N; i++) {
        w[i] = (struct work){{.lane = (unsigned)i % 8, .run = run_work, .done = work_done}, i / 8, 0};
        loop_job(l, &w[i].job);
    }
    while (done_count < N)
        loop_posix_turn(lp, -1);
    cr_expect(pthread_equal(w[0].ran_on, w[4].ran_on)); /* lanes 0 and 4 of 4 threads */
}

Test(loop, destroy_waits_for_jobs)
{
    enum { N = 50 };
    static struct work w[N];
    struct loop_posix *other;
    loop_thread = pthread_self();
    cr_assert_eq(loop_posix_create(&(struct loop_posix_options){.jobs = pool}, &other, NULL), 0);
    for (int i = 0; i < N; i++) {
        w[i] = (struct work){{.lane = 0, .run = run_work, .done = work_done}, i, 0};
        loop_job(loop_posix_loop(other), &w[i].job);
    }
    loop_posix_destroy(other);
    cr_expect_eq(done_count, N);
}

Test(loop, hooks_run_last_in_order_each_turn)
{
    struct loop_hook a = {.fn = note, .arg = "1"}, b = {.fn = note, .arg = "2"};
    struct loop_timer t;
    struct loop_msg m = {.fn = post_self};
    strcpy(order, "..."); /* post_self posts no more */
    loop_timer_init(&t, l, note, "t");
    loop_hook_add(l, &a);
    loop_hook_add(l, &b);
    loop_timer_in(&t, 1);
    loop_post(l, &m);
    usleep(100);
    loop_posix_turn(lp, 0);
    cr_expect_str_eq(order, "...tm12");
    loop_hook_remove(&a);
    loop_posix_turn(lp, 0);
    cr_expect_str_eq(order, "...tm122");
}

static int pipe_fd[2];
static void drain_pipe(void *arg)
{
    (void)arg;
    char c;
    cr_expect_eq(read(pipe_fd[0], &c, 1), 1);
    order[strlen(order)] = c;
}

Test(loop, a_watched_descriptor_is_told_of_while_readable)
{
    struct loop_watch *w;
    struct err err = {0};
    cr_assert_eq(pipe(pipe_fd), 0);
    cr_assert_eq(loop_posix_watch(lp, pipe_fd[0], drain_pipe, NULL, &w, &err), 0, "%s", err.text);
    cr_expect_eq(write(pipe_fd[1], "xyz", 3), 3);
    for (int i = 0; i < 4; i++)
        loop_posix_turn(lp, 1000);
    cr_expect_str_eq(order, "xyz");
    loop_posix_unwatch(w);
    close(pipe_fd[0]);
    close(pipe_fd[1]);
}

Test(loop, an_idle_loop_sleeps)
{
    struct loop_timer t;
    loop_timer_init(&t, l, note, "t");
    loop_timer_in(&t, 20000);
    loop_posix_turn(lp, 1000); /* the kernel timer is armed */
    loop_timer_stop(&t);
    int turns = 0;
    for (int64_t end = clock_now_us() + 300000; clock_now_us() < end; turns++)
        loop_posix_turn(lp, end - clock_now_us());
    cr_expect_leq(turns, 4); /* the stopped timer, the end, and rounding */
}

static void *stop_from_outside(void *arg)
{
    usleep(5000);
    loop_posix_stop(arg);
    return NULL;
}

Test(loop, stop_from_another_thread)
{
    pthread_t t;
    pthread_create(&t, NULL, stop_from_outside, lp);
    loop_posix_run(lp);
    pthread_join(t, NULL);
    cr_expect_neq(loop_random(l), loop_random(l));
}
