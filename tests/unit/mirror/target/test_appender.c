/* The driver on a loop: what it costs while there is nothing it can do. */
#include <criterion/criterion.h>

#include "mirror/target/lane.h"
#include "tests/support/sim/sim.h"

struct program {
    struct client *client;
    struct appender_budget *budget;
    struct appender *appender;
    struct appender_guard guard;
};

static void no_anchor(void *arg, const struct appender_progress *p)
{
    (void)arg, (void)p;
    cr_assert_fail("nothing is known of the topic");
}

static void no_read(void *arg, int64_t offset, int32_t epoch)
{
    (void)arg, (void)offset, (void)epoch;
    cr_assert_fail("nothing is known of the topic");
}

static void no_runs(void *arg, const struct appender_run *runs, size_t n)
{
    (void)arg, (void)runs, (void)n;
    cr_assert_fail("nothing has been appended");
}

static void any_state(void *arg, const struct appender_status *s)
{
    (void)arg, (void)s;
}

static void any_note(void *arg, const struct appender_note *n)
{
    (void)arg, (void)n;
}

static void no_room(void *arg)
{
    (void)arg;
}

static const struct appender_events events = {no_anchor, no_read, no_runs, any_state, any_note, no_room};

static void *boot(void *arg, struct sim_node *node)
{
    struct program *p = arg;
    struct err err = {0};
    const struct client_options c = {.bootstrap = "nowhere:9092"};
    cr_assert_eq(client_create(sim_node_loop(node), sim_node_net(node), &c, &p->client, &err), 0, "%s",
                 err.text);
    p->budget = appender_budget_create((size_t)1 << 20);
    p->guard = (struct appender_guard){.expiration_ms = 86400000};
    const struct appender_point at = {.partition = 0};
    const struct appender_options o = {.loop = sim_node_loop(node),
                                       .client = p->client,
                                       .topic = SLICE_LIT("t"),
                                       .producer_id = 7,
                                       .budget = p->budget,
                                       .guard = &p->guard,
                                       .points = &at,
                                       .points_n = 1,
                                       .events = &events,
                                       .arg = p};
    cr_assert_eq(appender_create(&o, &p->appender, &err), 0, "%s", err.text);
    return p;
}

static void destroy(void *arg, void *program)
{
    struct program *p = program;
    (void)arg;
    appender_destroy(p->appender);
    appender_budget_destroy(p->budget);
    client_destroy(p->client);
}

/* A topic that the target does not know: deleted there before its partition was begun, or a target that is away. */
Test(appender, waits_for_its_topic_without_a_turn)
{
    struct program p = {0};
    struct sim *s = sim_create(&(struct sim_options){.seed = 1});
    struct sim_node *n = sim_node_add(
        s, &(struct sim_node_options){.name = "mirror", .boot = boot, .destroy = destroy, .arg = &p});
    sim_start(n);
    sim_run_for(s, SIM_SECOND / 10);
    cr_assert_lt(sim_events(s), 200, "%llu turns in a tenth of a second", (unsigned long long)sim_events(s));
    appender_covered(p.appender, 0, -1);
    sim_run_for(s, SIM_SECOND / 10);
    cr_assert_lt(sim_events(s), 400, "%llu turns in a fifth of a second", (unsigned long long)sim_events(s));
    sim_destroy(s);
}

/* Nothing of its own is under way whose end would wake it. */
Test(appender, is_told_when_others_have_left_room)
{
    struct program p = {0};
    struct sim *s = sim_create(&(struct sim_options){.seed = 2});
    struct sim_node *n = sim_node_add(
        s, &(struct sim_node_options){.name = "mirror", .boot = boot, .destroy = destroy, .arg = &p});
    sim_start(n);
    sim_run_for(s, SIM_SECOND / 10);
    cr_assert(list_empty(&p.budget->waiters));
    p.budget->used_bytes = p.budget->limit_bytes;
    cr_assert_not(appender_can_take(p.appender));
    cr_assert_not(list_empty(&p.budget->waiters));
    p.budget->used_bytes = 0;
    appender_budget_pace(p.budget);
    cr_assert(list_empty(&p.budget->waiters));
    sim_destroy(s);
}
