/* A broker's life with its own controller in the simulated world: registered, unfenced, stopped, started again. */
#include "broker/lifecycle/lifecycle.h"

#include "tests/support/sim/sim.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static bool no_statics(void *arg, struct slice key, struct arena *arena, struct slice *value,
                       bool *is_default)
{
    (void)arg, (void)key, (void)arena, (void)value, (void)is_default;
    return false;
}

/* What the test wants of the node. */
struct plan {
    bool ready;
    int64_t previous_epoch;
    uint64_t incarnation;
};

struct program {
    struct plan *plan;
    struct log_files *files;
    struct control *control;
    struct control_subscriber sub;
    struct lifecycle *life;
    struct uuid dir;
    struct control_endpoint listener;
    int serving, stopped, failed, fenced_seen;
    int64_t epoch;
};

static void on_failed(void *arg, const char *why)
{
    (void)why;
    ((struct program *)arg)->failed++;
}

static void on_control_stopped(void *arg)
{
    (void)arg;
}

static void on_serving(void *arg)
{
    ((struct program *)arg)->serving++;
}

static void on_stopped(void *arg, int64_t epoch)
{
    struct program *p = arg;
    p->stopped++;
    p->epoch = epoch;
}

static bool is_ready(void *arg)
{
    return ((struct program *)arg)->plan->ready;
}

static void on_image(void *arg, const struct image *was, const struct image *now)
{
    struct program *p = arg;
    const struct image_broker *a = was ? image_broker(was, 1) : NULL, *b = image_broker(now, 1);
    p->fenced_seen += a && b && !a->fenced && b->fenced;
}

static void *boot(void *arg, struct sim_node *node)
{
    struct program *p = calloc(1, sizeof *p);
    struct err err = {0};
    p->plan = arg;
    disk_make_dirs(sim_node_disk(node), "/data", NULL);
    p->files = log_files_create(sim_node_disk(node), 100);
    struct control_options o = {
        .quorum = quorum_options_default(),
        .session_timeout_ms = 9000,
        .rules = {.num_partitions = 1, .default_replication_factor = 1, .statics = {no_statics, NULL}},
        .failed = on_failed,
        .stopped = on_control_stopped,
        .arg = p};
    o.quorum.loop = sim_node_loop(node);
    o.quorum.disk = sim_node_disk(node);
    o.quorum.files = p->files;
    o.quorum.metadata_dir = "/data";
    o.quorum.cluster_id = SLICE_LIT("cluster");
    o.quorum.node_id = 1;
    o.quorum.directory_id = p->dir = uuid_small(1000);
    cr_assert_eq(control_open(&o, &p->control, &err), 0, "%s", err.text);
    p->sub = (struct control_subscriber){.loop = o.quorum.loop, .changed = on_image, .arg = p};
    control_subscribe(p->control, &p->sub);
    p->listener = (struct control_endpoint){"PLAINTEXT", "h", 9092, 0};
    struct lifecycle_options lo = {.loop = o.quorum.loop,
                                   .control = p->control,
                                   .node_id = 1,
                                   .cluster_id = "cluster",
                                   .incarnation = uuid_small(++p->plan->incarnation + 5000),
                                   .previous_epoch = p->plan->previous_epoch,
                                   .listeners = &p->listener,
                                   .listeners_n = 1,
                                   .directory_ids = &p->dir,
                                   .directories_n = 1,
                                   .heartbeat_ms = 2000,
                                   .registration_timeout_ms = 60000,
                                   .ready = is_ready,
                                   .serving = on_serving,
                                   .failed = on_failed,
                                   .stopped = on_stopped,
                                   .arg = p};
    cr_assert_eq(lifecycle_create(&lo, &p->life, &err), 0);
    control_start(p->control);
    lifecycle_start(p->life);
    return p;
}

static void destroy(void *arg, void *program)
{
    struct program *p = program;
    (void)arg;
    lifecycle_destroy(p->life);
    control_unsubscribe(&p->sub);
    control_abandon(p->control);
    log_files_destroy(p->files);
    free(p);
}

struct world {
    struct sim *sim;
    struct sim_node *node;
    struct plan plan;
};

static void world_init(struct world *w, uint64_t seed)
{
    *w = (struct world){.plan = {.ready = true, .previous_epoch = -1}};
    w->sim = sim_create(&(struct sim_options){.seed = seed});
    w->node = sim_node_add(
        w->sim, &(struct sim_node_options){.name = "b1", .boot = boot, .destroy = destroy, .arg = &w->plan});
}

static struct program *prog(struct world *w)
{
    return sim_node_program(w->node);
}

static bool is_serving(void *arg)
{
    return prog(arg)->serving > 0;
}

static bool is_stopped(void *arg)
{
    return prog(arg)->stopped > 0;
}

static void wait_serving(struct world *w)
{
    cr_assert_eq(sim_run_until(w->sim, sim_now_us(w->sim) + 5 * SIM_SECOND, is_serving, w), SIM_TRUE);
}

Test(lifecycle, a_broker_serves_only_when_it_is_ready)
{
    struct world w;
    world_init(&w, 1);
    w.plan.ready = false;
    cr_assert(sim_start(w.node));
    sim_run_for(w.sim, 20 * SIM_SECOND);
    cr_assert_eq(prog(&w)->serving, 0);
    cr_assert(image_broker(prog(&w)->sub.image, 1)->fenced);
    w.plan.ready = true;
    int64_t before = sim_now_us(w.sim);
    wait_serving(&w);
    cr_assert_lt(sim_now_us(w.sim) - before, SIM_SECOND / 5, "heartbeats are quick while starting");
    cr_assert_str_eq(lifecycle_state(prog(&w)->life), "running");
    sim_destroy(w.sim);
}

Test(lifecycle, it_lives_on_for_hours_and_through_a_pause_without_being_fenced)
{
    struct world w;
    world_init(&w, 2);
    cr_assert(sim_start(w.node));
    wait_serving(&w);
    sim_run_for(w.sim, 10 * SIM_MINUTE);
    sim_pause(w.node, true);
    sim_run_for(w.sim, SIM_MINUTE);
    sim_pause(w.node, false);
    sim_run_for(w.sim, SIM_MINUTE);
    cr_assert_eq(prog(&w)->fenced_seen, 0, "who stood still cannot judge silence");
    cr_assert_eq(prog(&w)->failed, 0);
    struct quorum_status s;
    quorum_status(control_quorum(prog(&w)->control), &s);
    cr_assert_lt(s.log_end, 10, "an idle node writes nothing");
    sim_destroy(w.sim);
}

Test(lifecycle, a_stop_moves_leaderships_and_gives_the_epoch_for_the_marker)
{
    struct world w;
    world_init(&w, 3);
    cr_assert(sim_start(w.node));
    wait_serving(&w);
    int64_t epoch = lifecycle_epoch(prog(&w)->life);
    lifecycle_stop(prog(&w)->life);
    cr_assert_eq(sim_run_until(w.sim, sim_now_us(w.sim) + 5 * SIM_SECOND, is_stopped, &w), SIM_TRUE);
    cr_assert_eq(prog(&w)->epoch, epoch);
    cr_assert(image_broker(control_image(prog(&w)->control), 1)->fenced);
    sim_run_for(w.sim, 20 * SIM_SECOND);
    cr_assert_eq(prog(&w)->stopped, 1, "once");
    sim_kill(w.node);
    w.plan.previous_epoch = epoch;
    cr_assert(sim_start(w.node));
    wait_serving(&w);
    cr_assert_gt(lifecycle_epoch(prog(&w)->life), epoch);
    sim_destroy(w.sim);
}

Test(lifecycle, killed_it_is_back_at_once)
{
    for (uint64_t seed = 10; seed < 20; seed++) {
        struct world w;
        world_init(&w, seed);
        cr_assert(sim_start(w.node));
        wait_serving(&w);
        for (int i = 0; i < 5; i++) {
            sim_run_for(w.sim, rng_range(sim_rng(w.sim), 0, 200000));
            sim_power_cut(w.node);
            cr_assert(sim_start(w.node));
            wait_serving(&w); /* its own former session is no obstacle: the directory's lock proves it dead */
        }
        sim_destroy(w.sim);
    }
}

Test(lifecycle, a_stop_before_it_was_registered_is_a_stop)
{
    struct world w;
    world_init(&w, 4);
    cr_assert(sim_start(w.node));
    lifecycle_stop(prog(&w)->life);
    cr_assert_eq(sim_run_until(w.sim, sim_now_us(w.sim) + 5 * SIM_SECOND, is_stopped, &w), SIM_TRUE);
    cr_assert_eq(prog(&w)->epoch, -1);
    sim_destroy(w.sim);
}

Test(lifecycle, a_stop_at_any_moment_of_the_start_ends)
{
    int registering = 0;
    for (int i = 0; i < 60; i++) {
        struct world w;
        world_init(&w, 40 + (uint64_t)i);
        cr_assert(sim_start(w.node));
        sim_run_for(w.sim, i * 500);
        registering += strcmp(lifecycle_state(prog(&w)->life), "registering") == 0;
        lifecycle_stop(prog(&w)->life);
        cr_assert_eq(sim_run_until(w.sim, sim_now_us(w.sim) + 2 * SIM_SECOND, is_stopped, &w), SIM_TRUE,
                     "after %d us", i * 500);
        sim_destroy(w.sim);
    }
    cr_assert_gt(registering, 0, "one of them came while its registration was under way");
}
