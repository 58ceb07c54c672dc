/* The control plane of one node in the simulated world: calls, commits, images, restarts and power cuts. */
#include "broker/controller/control.h"

#include "broker/controller/brokers.h"
#include "tests/support/sim/sim.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define DIR_PATH "/data"

static bool no_statics(void *arg, struct slice key, struct arena *arena, struct slice *value,
                       bool *is_default)
{
    (void)arg, (void)key, (void)arena, (void)value, (void)is_default;
    return false;
}

/* A node's program: a control plane and one subscriber. */
struct program {
    struct sim_node *node;
    struct log_files *files;
    struct control *control;
    struct control_subscriber sub;
    bool failed;
    int images;
};

static void on_failed(void *arg, const char *why)
{
    (void)why;
    ((struct program *)arg)->failed = true;
}

static void on_stopped(void *arg)
{
    (void)arg;
}

static void on_image(void *arg, const struct image *was, const struct image *now)
{
    struct program *p = arg;
    cr_assert(!was || image_offset(now) > image_offset(was));
    p->images++;
}

static int idle_ms;

static void *boot(void *arg, struct sim_node *node)
{
    struct program *p = calloc(1, sizeof *p);
    struct err err = {0};
    (void)arg;
    p->node = node;
    disk_make_dirs(sim_node_disk(node), DIR_PATH, NULL);
    p->files = log_files_create(sim_node_disk(node), 100);
    struct control_options o = {.quorum = quorum_options_default(),
                                .session_timeout_ms = 9000,
                                .idle_interval_ms = idle_ms,
                                .rules = {.num_partitions = 3,
                                          .default_replication_factor = 1,
                                          .delete_topics = true,
                                          .offsets_partitions = 50,
                                          .offsets_replication_factor = 3,
                                          .offsets_segment_bytes = 104857600,
                                          .statics = {no_statics, NULL}},
                                .failed = on_failed,
                                .stopped = on_stopped,
                                .arg = p};
    o.quorum.loop = sim_node_loop(node);
    o.quorum.disk = sim_node_disk(node);
    o.quorum.files = p->files;
    o.quorum.metadata_dir = DIR_PATH;
    o.quorum.cluster_id = SLICE_LIT("cluster");
    o.quorum.node_id = 1;
    o.quorum.directory_id = uuid_small(1000);
    o.quorum.snapshot_bytes = 20000;
    o.quorum.segment_bytes = 400000;
    o.quorum.retention_bytes = 900000;
    int rc = control_open(&o, &p->control, &err);
    cr_assert_eq(rc, 0, "%s", err.text);
    p->sub = (struct control_subscriber){.loop = o.quorum.loop, .changed = on_image, .arg = p};
    control_subscribe(p->control, &p->sub);
    control_start(p->control);
    return p;
}

static void destroy(void *arg, void *program)
{
    struct program *p = program;
    (void)arg;
    control_unsubscribe(&p->sub);
    control_abandon(p->control);
    log_files_destroy(p->files);
    free(p);
}

struct world {
    struct sim *sim;
    struct sim_node *node;
};

static void world_init(struct world *w, uint64_t seed)
{
    w->sim = sim_create(&(struct sim_options){.seed = seed});
    w->node =
        sim_node_add(w->sim, &(struct sim_node_options){.name = "b1", .boot = boot, .destroy = destroy});
    cr_assert(sim_start(w->node));
}

static struct program *prog(struct world *w)
{
    return sim_node_program(w->node);
}

static bool is_active(void *arg)
{
    struct world *w = arg;
    return prog(w) && control_active(prog(w)->control) && prog(w)->sub.image;
}

static void wait_active(struct world *w)
{
    cr_assert_eq(sim_run_until(w->sim, sim_now_us(w->sim) + 10 * SIM_SECOND, is_active, w), SIM_TRUE);
}

/* One call. */
struct asking {
    struct control_call call;
    struct arena arena;
    union {
        struct kp_create_topics_request create;
        struct kp_broker_registration_request reg;
        struct kp_broker_heartbeat_request beat;
        struct kp_delete_topics_request del;
    } q;
    union {
        struct kp_create_topics_response create;
        struct kp_broker_registration_response reg;
        struct kp_broker_heartbeat_response beat;
        struct kp_delete_topics_response del;
    } r;
    bool done;
};

static void on_done(struct control_call *call)
{
    ((struct asking *)call->arg)->done = true;
}

static bool is_done(void *arg)
{
    return ((struct asking *)arg)->done;
}

static void submit(struct world *w, struct asking *a, int16_t key)
{
    a->done = false;
    a->call = (struct control_call){.api_key = key,
                                    .request = &a->q,
                                    .response = &a->r,
                                    .arena = &a->arena,
                                    .home = sim_node_loop(w->node),
                                    .done = on_done,
                                    .arg = a};
    control_submit(prog(w)->control, &a->call);
}

static void ask(struct world *w, struct asking *a, int16_t key)
{
    submit(w, a, key);
    cr_assert_eq(sim_run_until(w->sim, sim_now_us(w->sim) + 70 * SIM_SECOND, is_done, a), SIM_TRUE);
}

static void asking_init(struct asking *a)
{
    *a = (struct asking){.done = false};
    arena_init(&a->arena, (size_t)16 << 20);
}

static int64_t register_and_unfence(struct world *w, uint64_t incarnation)
{
    struct asking a;
    struct kp_broker_registration_request_listeners listener = {SLICE_LIT("PLAINTEXT"), SLICE_LIT("h"), 9092,
                                                                0};
    size_t n;
    const struct feature_claim *claims = feature_claims(&n);
    struct kp_broker_registration_request_features features[16];
    for (size_t i = 0; i < n; i++)
        features[i] = (struct kp_broker_registration_request_features){
            slice_str(claims[i].name), claims[i].level_min, claims[i].level_max};
    struct uuid dir = uuid_small(1000);
    asking_init(&a);
    kp_init(&kp_broker_registration_request_message, &a.q.reg);
    a.q.reg.broker_id = 1;
    a.q.reg.cluster_id = SLICE_LIT("cluster");
    a.q.reg.incarnation_id = uuid_small(incarnation);
    a.q.reg.listeners = &listener;
    a.q.reg.listeners_n = 1;
    a.q.reg.features = features;
    a.q.reg.features_n = (int32_t)n;
    a.q.reg.log_dirs = &dir;
    a.q.reg.log_dirs_n = 1;
    ask(w, &a, kp_key_broker_registration);
    cr_assert_eq(a.call.error, KE_NONE, "%d", a.call.error);
    int64_t epoch = a.r.reg.broker_epoch;
    kp_init(&kp_broker_heartbeat_request_message, &a.q.beat);
    a.q.beat.broker_id = 1;
    a.q.beat.broker_epoch = epoch;
    a.q.beat.current_metadata_offset = image_offset(prog(w)->sub.image);
    ask(w, &a, kp_key_broker_heartbeat);
    cr_assert_eq(a.call.error, KE_NONE);
    cr_assert_not(a.r.beat.is_fenced);
    arena_fini(&a.arena);
    return epoch;
}

static int16_t create(struct world *w, const char *name, int32_t partitions)
{
    struct asking a;
    struct kp_create_topics_request_topics t = {
        .name = slice_str(name), .num_partitions = partitions, .replication_factor = 1};
    asking_init(&a);
    kp_init(&kp_create_topics_request_message, &a.q.create);
    a.q.create.topics = &t;
    a.q.create.topics_n = 1;
    ask(w, &a, kp_key_create_topics);
    int16_t error = a.call.error ? a.call.error : a.r.create.topics[0].error_code;
    arena_fini(&a.arena);
    return error;
}

Test(control, who_was_told_created_finds_it_in_its_image_and_after_a_power_cut)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct world w;
        world_init(&w, seed);
        wait_active(&w);
        register_and_unfence(&w, 2000);
        cr_assert_eq(create(&w, "orders", 5), KE_NONE);
        const struct image_topic *t = image_topic(prog(&w)->sub.image, SLICE_LIT("orders"));
        cr_assert_not_null(t);
        cr_assert_eq(t->partitions_n, 5);
        cr_assert_eq(image_partition(t, 4)->leader, 1);
        cr_assert_eq(create(&w, "orders", 5), KE_TOPIC_ALREADY_EXISTS);
        sim_power_cut(w.node);
        cr_assert(sim_start(w.node));
        wait_active(&w);
        t = image_topic(prog(&w)->sub.image, SLICE_LIT("orders"));
        cr_assert_not_null(t, "seed %llu: acknowledged and lost", (unsigned long long)seed);
        register_and_unfence(&w, 2001);
        t = image_topic(prog(&w)->sub.image, SLICE_LIT("orders"));
        cr_assert_eq(image_partition(t, 4)->leader, 1);
        cr_assert_eq(image_partition(t, 4)->leader_epoch, 2, "lost and won again");
        sim_destroy(w.sim);
    }
}

Test(control, random_kills_and_power_cuts_lose_nothing_that_was_acknowledged)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct world w;
        char names[200][16];
        int made = 0, snapshots = 0;
        world_init(&w, seed);
        for (int round = 0; round < 8; round++) {
            wait_active(&w);
            register_and_unfence(&w, 3000 + (uint64_t)round);
            for (uint64_t i = rng_below(sim_rng(w.sim), 25); i > 0; i--) {
                snprintf(names[made], sizeof names[made], "t%d", made);
                cr_assert_eq(create(&w, names[made], 20), KE_NONE);
                made++;
            }
            struct quorum_status s;
            quorum_status(control_quorum(prog(&w)->control), &s);
            snapshots += s.snapshots > 0;
            cr_assert_not(prog(&w)->failed);
            if (rng_chance(sim_rng(w.sim), 500000))
                sim_kill(w.node);
            else
                sim_power_cut(w.node);
            cr_assert(sim_start(w.node));
        }
        wait_active(&w);
        for (int i = 0; i < made; i++)
            cr_assert_not_null(image_topic(prog(&w)->sub.image, slice_str(names[i])),
                               "seed %llu: %s of %d is lost", (unsigned long long)seed, names[i], made);
        cr_assert(made < 60 || snapshots > 0, "snapshots were taken");
        sim_destroy(w.sim);
    }
}
