/* Reading at the replica of our rack (KIP-392). */
#include "tests/unit/mirror/port/rig.h"

static void batches(struct source *s, int n)
{
    for (int i = 0; i < n; i++)
        source_add(s, (struct batch_spec){.base = s->end, .n = 10, .codec = CODEC_NONE});
}

static struct rig *with_replica(int there, int behind)
{
    struct rig *g = rig_create();
    batches(&g->source, there);
    batches(&g->replica, there - behind);
    g->source.preferred = 2;
    g->reader.properties[g->reader.properties_n++] = (struct port_property){"client.rack", "here"};
    return g;
}

Test(port_replica, is_read_where_the_leader_says_so)
{
    struct rig *g = with_replica(10, 0);
    rig_run(g, 2 * SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 100);
    cr_assert_leq(g->source.fetches, 2);
    int fetches = g->source.fetches;
    batches(&g->source, 5);
    batches(&g->replica, 5);
    rig_run(g, 2 * SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 150);
    cr_assert_eq(g->source.fetches, fetches, "the leader is left alone");
    cr_assert_eq(rig_events(g, PORT_TROUBLE), 0);
    rig_destroy(g);
}

Test(port_replica, nobody_is_sent_there_without_a_rack)
{
    struct rig *g = with_replica(10, 0);
    g->reader.properties_n = 0;
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 100);
    cr_assert_eq(g->replica.fetches, 0);
    rig_destroy(g);
}

Test(port_replica, the_leader_is_asked_again_after_a_while)
{
    struct rig *g = with_replica(10, 0);
    g->reader.properties[g->reader.properties_n++] = (struct port_property){"metadata.max.age.ms", "3000"};
    rig_run(g, 30 * SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 100);
    cr_assert(g->source.fetches >= 8 && g->source.fetches <= 12, "%d", g->source.fetches);
    rig_destroy(g);
}

/* What it lacks is not lost: the leader is asked, and sends us there again when it has caught up. */
Test(port_replica, out_of_range_there_is_not_believed)
{
    struct rig *g = with_replica(10, 5);
    g->reader.first.offset = 70;
    rig_run(g, 2 * SIM_SECOND);
    cr_assert_null(rig_event(g, PORT_OUT_OF_RANGE));
    cr_assert_eq(rig_events(g, PORT_TROUBLE), 1);
    cr_assert_lt(g->source.fetches, 30, "it does not spin");
    batches(&g->replica, 5);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 30);
    rig_destroy(g);
}

Test(port_replica, another_history_there_is_not_believed)
{
    struct rig *g = with_replica(10, 0);
    g->replica.epoch = g->source.epoch = 3;
    g->replica.diverging = 12;
    g->reader.first.offset = 20;
    g->reader.first.leader_epoch = 2;
    rig_run(g, SIM_SECOND);
    cr_assert_null(rig_event(g, PORT_TRUNCATED));
    g->replica.diverging = -1;
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 80);
    rig_destroy(g);
}

/* The leader goes on sending us to one that is dead until it notices; then it serves us itself. */
Test(port_replica, one_that_dies_gives_way_to_the_leader)
{
    struct rig *g = with_replica(10, 0);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 100);
    sim_kill(g->at_replica);
    batches(&g->source, 5);
    rig_run(g, 5 * SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 100);
    g->source.preferred = 0;
    rig_run(g, 5 * SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 150);
    rig_destroy(g);
}
