/* A node: its loop in virtual time, its worker threads, its clocks, its death.
 *
 * A turn is one event: what has become ready by then, what is due, what was posted, as turn.c runs it. It takes the
 * virtual time that its disk calls cost; until that has passed no other turn of the node runs. */
#include "tests/support/sim/sim_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define LEAKS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LEAKS 1
#endif
#endif
#ifdef LEAKS
#include <sanitizer/lsan_interface.h>
#endif

#define WALL_START_MS INT64_C(1767225600000) /* 2026-01-01 */
#define TURN_US       2                      /* what any turn takes */
#define TURN_DELAY_US 20                     /* until the scheduler lets a woken node run, at most */
#define JOB_DELAY_US  20                     /* until a worker thread starts, on average */

void sim_leaks_ignore(bool ignore)
{
#ifdef LEAKS
    if (ignore)
        __lsan_disable();
    else
        __lsan_enable();
#else
    (void)ignore;
#endif
}

static void enter(struct sim_node *n)
{
    assert(!n->sim->current);
    n->sim->current = n;
    n->cost_us = 0;
    if (!n->options.destroy)
        sim_leaks_ignore(true);
}

static void leave(struct sim_node *n)
{
    assert(n->sim->current == n);
    n->sim->current = NULL;
    if (!n->options.destroy)
        sim_leaks_ignore(false);
}

/* ---- clocks ---- */

int64_t sim_node_wall_ms(const struct sim_node *n)
{
    int64_t now = n->sim->now_us;
    int64_t drift_us = (now - n->drift_from_us) / 1000 * n->drift_us_per_s / 1000;
    return WALL_START_MS + n->wall_offset_ms + (now + drift_us) / 1000;
}

void sim_clock_step(struct sim_node *n, int64_t ms)
{
    n->wall_offset_ms += ms;
    sim_note(n->sim, "clock step", n->number, (uint64_t)ms);
}

void sim_clock_drift(struct sim_node *n, int32_t us_per_s)
{
    int64_t before = sim_node_wall_ms(n);
    n->drift_from_us = n->sim->now_us;
    n->drift_us_per_s = us_per_s;
    n->wall_offset_ms += before - sim_node_wall_ms(n); /* what has drifted so far stays */
}

static void sample_clock(struct sim_node *n)
{
    n->turn.loop.now_us = n->sim->now_us + n->mono_offset_us;
    n->turn.loop.wall_ms = sim_node_wall_ms(n);
}

/* ---- turns ---- */

void sim_node_wake(struct sim_node *n)
{
    struct sim *s = n->sim;
    if (!n->up || n->paused || n->turn.stopping || s->current == n) /* at the end of what it is doing, then */
        return;
    int64_t at = INT64_MAX;
    if (turn_pending(&n->turn))
        at = s->now_us + (int64_t)rng_below(&s->rng, TURN_DELAY_US);
    int64_t timer = turn_timer_next(&n->turn);
    if (timer != INT64_MAX && timer - n->mono_offset_us < at)
        at = timer - n->mono_offset_us;
    if (at == INT64_MAX)
        return;
    if (at < n->busy_until_us)
        at = n->busy_until_us;
    if (!n->turn_event.place || n->turn_event.at_us > at)
        sim_schedule(s, &n->turn_event, at);
}

static void run_turn(struct sim_event *e)
{
    struct sim_node *n = SIM_OWNER(e, struct sim_node, turn_event);
    assert(n->up && !n->paused);
    assert(n->sim->now_us >= n->busy_until_us);
    sim_note(n->sim, "turn", n->number, 0);
    sample_clock(n);
    enter(n);
    turn_run(&n->turn);
    leave(n);
    n->busy_until_us = n->sim->now_us + TURN_US + n->cost_us;
    if (!n->doomed)
        sim_node_wake(n);
}

void sim_pause(struct sim_node *n, bool pause)
{
    n->paused = pause;
    if (pause)
        sim_unschedule(n->sim, &n->turn_event);
    else
        sim_node_wake(n);
    for (unsigned i = 0; i < SIM_LANES; i++) { /* its threads stand still too */
        struct sim_lane *lane = &n->lanes[i];
        sim_unschedule(n->sim, &lane->event);
        if (!pause && !list_empty(&lane->queue))
            sim_schedule(n->sim, &lane->event, n->sim->now_us);
    }
}

/* ---- jobs ---- */

static void lane_next(struct sim_lane *lane)
{
    struct sim *s = lane->node->sim;
    lane->running = false;
    if (!list_empty(&lane->queue) && !lane->node->paused)
        sim_schedule(s, &lane->event, s->now_us + rng_exponential(&s->rng, JOB_DELAY_US));
}

static void run_lane(struct sim_event *e)
{
    struct sim_lane *lane = SIM_OWNER(e, struct sim_lane, event);
    struct sim_node *n = lane->node;
    assert(n->up && !list_empty(&lane->queue));
    struct loop_job *job = LIST_ENTRY(lane->queue.next, struct loop_job, link);
    sim_note(n->sim, lane->running ? "job done" : "job", n->number, job->lane);
    if (!lane->running) {
        enter(n);
        job->run(job);
        leave(n);
        sim_node_wake(n);
        lane->running = true;
        sim_schedule(n->sim, e, n->sim->now_us + 1 + n->cost_us);
        return;
    }
    list_remove(&job->link);
    list_push(&n->turn.finished, &job->link);
    sim_node_wake(n);
    lane_next(lane);
}

/* ---- the node's struct loop ---- */

static struct sim_node *of(struct loop *l)
{
    return (struct sim_node *)l;
}

static void node_timer_set(struct loop *l, struct loop_timer *t)
{
    if (sim_inert(of(l)))
        return;
    turn_timer_set(l, t);
    sim_node_wake(of(l));
}

static void node_post(struct loop *l, struct loop_msg *msg)
{
    struct sim_node *n = of(l);
    assert(msg->fn);
    if (sim_inert(n))
        return;
    list_push(&n->turn.messages, &msg->link);
    sim_node_wake(n);
}

static void node_job(struct loop *l, struct loop_job *job)
{
    struct sim_node *n = of(l);
    assert(job->run && job->done);
    if (sim_inert(n))
        return;
    struct sim_lane *lane = &n->lanes[job->lane % SIM_LANES];
    bool idle = list_empty(&lane->queue);
    list_push(&lane->queue, &job->link);
    if (idle)
        lane_next(lane);
}

static void node_stop(struct loop *l)
{
    if (!sim_inert(of(l)))
        of(l)->turn.stopping = true;
}

static uint64_t node_random(struct loop *l)
{
    return rng_next(&of(l)->rng);
}

static const struct loop_ops node_ops = {
    .timer_set = node_timer_set,
    .timer_stop = turn_timer_stop,
    .post = node_post,
    .job = node_job,
    .stop = node_stop,
    .random = node_random,
};

/* ---- life and death ---- */

static void on_doom(struct sim_event *e);

struct sim_node *sim_node_add(struct sim *s, const struct sim_node_options *o)
{
    assert(s->nodes_n < SIM_NODES_MAX && o->name && o->boot && strlen(o->name) < SIM_NAME_MAX);
    struct sim_node *n = calloc(1, sizeof *n);
    assert(n);
    n->sim = s;
    n->number = s->nodes_n;
    n->options = *o;
    snprintf(n->name, sizeof n->name, "%s", o->name);
    n->options.name = n->name;
    snprintf(n->address, sizeof n->address, "10.0.0.%u", n->number + 1);
    n->turn_event.fn = run_turn;
    n->doom_event.fn = on_doom;
    n->mono_offset_us = (int64_t)rng_below(&s->rng, 1000000000000);
    n->wall_offset_ms = rng_range(&s->rng, -500, 500);
    n->host_up = true;
    for (unsigned i = 0; i < SIM_LANES; i++) {
        n->lanes[i] = (struct sim_lane){.node = n, .event = {.fn = run_lane}};
        list_init(&n->lanes[i].queue);
    }
    turn_init(&n->turn, &node_ops);
    sample_clock(n);
    sim_net_init(n);
    n->disk = sim_disk_new(n, o->disk_bytes ? o->disk_bytes : INT64_C(1) << 30);
    s->nodes[s->nodes_n++] = n;
    return n;
}

bool sim_start(struct sim_node *n)
{
    assert(!n->up && !n->sim->current);
    sim_note(n->sim, "start", n->number, n->boots);
    n->host_up = true;
    n->up = true;
    n->doomed = n->paused = false;
    n->boots++;
    n->busy_until_us = n->sim->now_us;
    rng_init(&n->rng, rng_next(&n->sim->rng));
    turn_init(&n->turn, &node_ops);
    sample_clock(n);
    enter(n);
    n->program = n->options.boot(n->options.arg, n);
    leave(n);
    n->busy_until_us = n->sim->now_us + n->cost_us;
    bool started = n->program != NULL;
    if (!started)
        sim_kill(n);
    else
        sim_node_wake(n);
    return started;
}

static void stop_machinery(struct sim_node *n)
{
    sim_unschedule(n->sim, &n->turn_event);
    sim_unschedule(n->sim, &n->doom_event);
    for (unsigned i = 0; i < SIM_LANES; i++) {
        sim_unschedule(n->sim, &n->lanes[i].event);
        list_init(&n->lanes[i].queue); /* the jobs are the program's memory */
        n->lanes[i].running = false;
    }
    turn_fini(&n->turn); /* disarms */
}

static void die(struct sim_node *n, bool power)
{
    struct sim *s = n->sim;
    assert(!s->current); /* not from inside a program: see sim_crash_at */
    if (!n->up)
        return;
    sim_note(s, power ? "power cut" : "kill", n->number, 0);
    n->up = false;
    stop_machinery(n);
    sim_net_detach(n, power);
    if (n->program && n->options.destroy) {
        s->current = n;
        n->options.destroy(n->options.arg, n->program);
        s->current = NULL;
    }
    n->program = NULL;
    n->doomed = false;
    sim_net_free(n);
    sim_disk_close_handles(n->disk);
    turn_init(&n->turn, &node_ops);
}

void sim_kill(struct sim_node *n)
{
    die(n, false);
}

void sim_power_cut(struct sim_node *n)
{
    die(n, true);
    n->host_up = false;
    sim_disk_crash(n->disk);
}

static void on_doom(struct sim_event *e)
{
    struct sim_node *n = SIM_OWNER(e, struct sim_node, doom_event);
    if (n->doomed_power)
        sim_power_cut(n);
    else
        sim_kill(n);
}

void sim_node_doom(struct sim_node *n, bool power)
{
    if (n->doomed || !n->up)
        return;
    n->doomed = true;
    n->doomed_power = power;
    sim_unschedule(n->sim, &n->turn_event);
    sim_schedule(n->sim, &n->doom_event, n->sim->now_us);
}

struct loop *sim_node_loop(struct sim_node *n)
{
    return &n->turn.loop;
}

struct net *sim_node_net(struct sim_node *n)
{
    return &n->net;
}

struct disk *sim_node_disk(struct sim_node *n)
{
    return sim_disk_vtable(n->disk);
}

struct sim *sim_node_sim(struct sim_node *n)
{
    return n->sim;
}

const char *sim_node_name(const struct sim_node *n)
{
    return n->name;
}

const char *sim_node_address(const struct sim_node *n)
{
    return n->address;
}

void *sim_node_program(struct sim_node *n)
{
    return n->program;
}

bool sim_node_up(const struct sim_node *n)
{
    return n->up;
}

bool sim_node_stopped(const struct sim_node *n)
{
    return n->turn.stopping;
}
