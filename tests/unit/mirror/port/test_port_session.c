/* Fetch sessions (KIP-227): who is named, and that nothing is lost however a session ends. */
#include "mirror/port/client_parts.h"
#include "tests/unit/mirror/port/rig.h"

#define PARTS 100

static void add(struct rig *g)
{
    source_add(&g->source, (struct batch_spec){.base = g->source.end, .n = 10, .codec = CODEC_NONE});
}

static void cut(struct rig *g)
{
    for (struct peer *p = g->source.peers; p; p = p->next)
        peer_close(p);
}

/* `n` partitions of one log of 100 records. */
static struct rig *wide(int32_t n)
{
    struct rig *g = rig_create();
    for (int i = 0; i < 10; i++)
        add(g);
    g->source.partitions_n = n;
    return g;
}

static void all_have(const struct rig *g, int records)
{
    cr_assert_eq(g->reader.offsets_n, records, "%d", g->reader.offsets_n);
    for (int32_t i = 1; i < g->source.partitions_n; i++)
        cr_assert_eq(g->reader.other[i].records_n, records, "%d: %d", i, g->reader.other[i].records_n);
}

static void all_know(const struct rig *g, int64_t high_watermark, int64_t start)
{
    for (int32_t i = 0; i < g->source.partitions_n; i++) {
        struct port_marks m;
        const void *owner = i ? (const void *)&g->reader.other[i] : &g->reader;
        cr_assert(port_marks(g->reader.port, (void *)owner, &m));
        cr_assert_eq(m.high_watermark, high_watermark, "%d: %lld", i, (long long)m.high_watermark);
        cr_assert_eq(m.log_start, start, "%d: %lld", i, (long long)m.log_start);
    }
}

Test(port_session, names_nobody_while_nothing_comes)
{
    struct rig *g = wide(PARTS);
    rig_run(g, SIM_SECOND);
    all_have(g, 100);
    int named = g->source.named_n, asked = g->source.incrementals_n;
    rig_run(g, 10 * SIM_SECOND);
    cr_assert_eq(g->source.sessions_n, 1);
    cr_assert_eq(g->source.named_n, named);
    cr_assert_gt(g->source.incrementals_n, asked + 100, "the script waits 20 ms for news");
    all_know(g, 100, 0);
    rig_destroy(g);
}

Test(port_session, names_those_that_have_moved)
{
    struct rig *g = wide(PARTS);
    rig_run(g, SIM_SECOND);
    for (int i = 0; i < 5; i++) {
        add(g);
        rig_run(g, SIM_SECOND);
        all_have(g, 110 + 10 * i);
        all_know(g, 110 + 10 * i, 0);
    }
    cr_assert_eq(g->source.sessions_n, 1);
    cr_assert_leq(g->source.named_n, 7 * PARTS, "%d", g->source.named_n);
    rig_destroy(g);
}

/* What is said without records: the end of what others have not committed yet, and where the log begins. */
Test(port_session, marks_are_known_without_records)
{
    struct rig *g = wide(PARTS);
    rig_run(g, SIM_SECOND);
    g->source.start = 40;
    rig_run(g, SIM_SECOND);
    all_know(g, 100, 40);
    int named = g->source.named_n;
    add(g);
    g->source.stable = 100;
    buf_fini(&g->source.batch[--g->source.batches_n]); /* not to be read yet */
    rig_run(g, SIM_SECOND);
    all_know(g, 110, 40);
    all_have(g, 100);
    cr_assert_eq(g->source.named_n, named);
    rig_destroy(g);
}

/* A partition that has more leaves it, for as long. */
Test(port_session, forgets_those_that_have_more)
{
    struct rig *g = wide(2);
    rig_run(g, SIM_SECOND);
    int forgotten = g->source.forgotten_n;
    g->source.answer_max = 100; /* a batch an answer */
    for (int i = 0; i < 20; i++)
        add(g);
    rig_run(g, 5 * SIM_SECOND);
    all_have(g, 300);
    cr_assert_gt(g->source.sessionless_n, 20);
    cr_assert_gt(g->source.forgotten_n, forgotten);
    rig_destroy(g);
}

Test(port_session, a_broker_that_gives_none_is_asked_in_full)
{
    struct rig *g = wide(PARTS);
    g->source.no_sessions = true;
    rig_run(g, SIM_SECOND);
    add(g);
    rig_run(g, SIM_SECOND);
    all_have(g, 110);
    cr_assert_eq(g->source.incrementals_n, 0);
    rig_destroy(g);
}

Test(port_session, topics_go_by_name_where_the_broker_knows_no_ids)
{
    struct rig *g = wide(PARTS);
    g->source.fetch_version = 12;
    rig_run(g, SIM_SECOND);
    add(g);
    rig_run(g, SIM_SECOND);
    all_have(g, 110);
    cr_assert_eq(g->source.sessions_n, 1);
    cr_assert_gt(g->source.incrementals_n, 10);
    rig_destroy(g);
}

Test(port_session, a_broker_from_before_sessions_is_read)
{
    struct rig *g = wide(PARTS);
    g->source.fetch_version = 6;
    g->source.no_sessions = true;
    rig_run(g, SIM_SECOND);
    add(g);
    rig_run(g, SIM_SECOND);
    all_have(g, 110);
    rig_destroy(g);
}

/* The broker has thrown it out, or counts otherwise, or has topics by name: another begins at once. */
static void lost(void (*how)(struct source *s), int sessions)
{
    struct rig *g = wide(PARTS);
    rig_run(g, SIM_SECOND);
    how(&g->source);
    add(g);
    rig_run(g, 60 * SIM_MS);
    all_have(g, 110);
    cr_assert_eq(g->source.sessions_n, sessions, "%d", g->source.sessions_n);
    cr_assert_eq(rig_events(g, PORT_TROUBLE), 0);
    add(g);
    rig_run(g, SIM_SECOND);
    all_have(g, 120);
    all_know(g, 120, 0);
    cr_assert_eq(g->source.sessions_n, sessions);
    rig_destroy(g);
}

static void thrown_out(struct source *s)
{
    s->session.id = 0;
}

static void counts_otherwise(struct source *s)
{
    s->session.epoch += 7;
}

Test(port_session, one_that_is_not_found_begins_anew)
{
    lost(thrown_out, 2);
}

Test(port_session, one_at_another_epoch_begins_anew)
{
    lost(counts_otherwise, 2);
}

Test(port_session, one_that_never_works_does_not_spin)
{
    struct rig *g = wide(PARTS);
    g->source.session_error = KE_FETCH_SESSION_TOPIC_ID_ERROR;
    rig_run(g, 2 * SIM_SECOND);
    add(g);
    rig_run(g, 2 * SIM_SECOND);
    all_have(g, 110);
    cr_assert_leq(g->source.incrementals_n, 25, "%d", g->source.incrementals_n);
    cr_assert_eq(g->source.closed_n, g->source.sessions_n - 1, "each ends the one before");
    rig_destroy(g);
}

Test(port_session, answers_of_a_connection_that_breaks_are_asked_again)
{
    struct rig *g = wide(PARTS);
    rig_run(g, SIM_SECOND);
    for (int i = 0; i < 20; i++) {
        add(g);
        rig_run(g, i * SIM_MS);
        cut(g);
        rig_run(g, 2 * SIM_SECOND);
        all_have(g, 110 + 10 * i);
        all_know(g, 110 + 10 * i, 0);
    }
    rig_destroy(g);
}

Test(port_session, an_unassigned_partition_is_forgotten)
{
    struct rig *g = wide(PARTS);
    rig_run(g, SIM_SECOND);
    int forgotten = g->source.forgotten_n;
    for (int i = 10; i < 30; i++)
        port_unassign(g->reader.port, &g->reader.other[i]);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->source.forgotten_n - forgotten, 20);
    cr_assert_eq(g->source.sessions_n, 1);
    cr_assert_not(g->source.session.in[10]);
    add(g);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.other[10].records_n, 100);
    cr_assert_eq(g->reader.other[30].records_n, 110);
    rig_destroy(g);
}

/* The broker would forget it after it was named. */
Test(port_session, a_partition_that_is_assigned_again_is_read_from_there)
{
    struct rig *g = wide(PARTS);
    rig_run(g, SIM_SECOND);
    struct err err = {0};
    struct port_assignment a = {.topic = SLICE_LIT("t"),
                                .partition = 5,
                                .offset = 50,
                                .leader_epoch = -1,
                                .owner = &g->reader.other[5]};
    g->reader.other[5] = (struct other){0};
    cr_assert_eq(port_assign(g->reader.port, &a, &err), 0);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.other[5].records_n, 50);
    add(g);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.other[5].records_n, 60);
    all_know(g, 110, 0);
    rig_destroy(g);
}

/* Each partition is named with the new epoch, and goes on from where it stood. */
Test(port_session, a_new_leader_epoch_is_named)
{
    struct rig *g = wide(PARTS);
    rig_run(g, SIM_SECOND);
    g->source.epoch = 4;
    add(g);
    rig_run(g, 2 * SIM_SECOND);
    all_have(g, 110);
    for (int i = 0; i < PARTS; i++)
        cr_assert_eq(g->source.session.row[i].current_leader_epoch, 4);
    all_know(g, 110, 0);
    rig_destroy(g);
}

/* A row comes when its partition was not to be read for a while: what it said would not be said again. */
Test(port_session, what_a_row_said_in_vain_is_asked_again)
{
    struct rig *g = wide(PARTS);
    rig_run(g, SIM_SECOND);
    struct sim_link far = {.latency_us = 400 * SIM_MS, .buffer_bytes = (int64_t)64 << 20};
    sim_link_set(g->at_source, g->at_reader, &far);
    rig_run(g, 2 * SIM_SECOND);
    g->source.end += 10; /* stable no further */
    int fetches = g->source.fetches;
    while (g->source.fetches == fetches)
        rig_run(g, SIM_MS);
    struct raw_part *part = raw_find_owner(raw_port(g->reader.port), &g->reader.other[7]);
    raw_retry(part, NULL);
    rig_run(g, 5 * SIM_SECOND);
    all_know(g, 110, 0);
    rig_destroy(g);
}

Test(port_session, the_epoch_goes_round)
{
    struct rig *g = wide(PARTS);
    rig_run(g, SIM_SECOND + 5 * SIM_MS);
    struct raw_port *p = raw_port(g->reader.port);
    struct raw_session *s = &LIST_ENTRY(p->nodes.next, struct raw_node, link)->session;
    cr_assert(s->under_way);
    cr_assert_eq(s->epoch + 1, g->source.session.epoch, "its answer waits");
    s->epoch = INT32_MAX - 3;
    g->source.session.epoch = INT32_MAX - 2;
    add(g);
    rig_run(g, SIM_SECOND);
    all_have(g, 110);
    cr_assert_eq(g->source.sessions_n, 1);
    cr_assert_lt(s->epoch, 1000);
    rig_destroy(g);
}

Test(port_session, ends_with_the_port)
{
    struct rig *g = wide(PARTS);
    rig_run(g, SIM_SECOND);
    reader_close(&g->reader);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->source.closed_n, 1);
    cr_assert_eq(g->source.session.id, 0);
    rig_destroy(g);
}

/* ---- whatever happens ---- */

static void reassign(struct rig *g, int32_t i)
{
    struct err err = {0};
    struct other *o = &g->reader.other[i];
    struct port_assignment a = {
        .topic = SLICE_LIT("t"), .partition = i, .offset = o->next, .leader_epoch = -1, .owner = o};
    port_unassign(g->reader.port, o);
    if (rng_next(sim_rng(g->sim)) % 2)
        rig_run(g, (int64_t)(rng_next(sim_rng(g->sim)) % 60) * SIM_MS);
    cr_assert_eq(port_assign(g->reader.port, &a, &err), 0);
}

static void something(struct rig *g)
{
    struct source *s = &g->source;
    switch (rng_next(sim_rng(g->sim)) % 12) {
    case 0: cut(g); break;
    case 1: s->session.id = 0; break;
    case 2: s->session.epoch += 3; break;
    case 3: s->session_error = s->session_error ? 0 : KE_INVALID_FETCH_SESSION_EPOCH; break;
    case 4: s->epoch++; break;
    case 5: s->answer_max = s->answer_max ? 0 : 700; break;
    case 6: s->no_sessions = !s->no_sessions; break;
    case 7: s->fetch_errors = 1, s->fetch_error = KE_NOT_LEADER_OR_FOLLOWER; break;
    case 8: reassign(g, 1 + (int32_t)(rng_next(sim_rng(g->sim)) % (uint64_t)(s->partitions_n - 1))); break;
    default:
        if (s->batches_n < 50)
            add(g);
        break;
    }
    rig_run(g, (int64_t)(rng_next(sim_rng(g->sim)) % 80) * SIM_MS);
}

Test(port_session, nothing_is_lost_whatever_happens)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct rig *g = wide(12);
        g->seed = seed;
        rig_run(g, 500 * SIM_MS);
        for (int i = 0; i < 100; i++)
            something(g);
        g->source.session_error = 0;
        g->source.no_sessions = false;
        g->source.start = 1; /* everybody has read it */
        rig_run(g, 20 * SIM_SECOND);
        all_have(g, 10 * g->source.batches_n);
        all_know(g, g->source.end, 1);
        cr_assert_gt(g->source.incrementals_n, 0);
        rig_destroy(g);
    }
}

Test(port_session, the_end_of_a_trouble_is_told_to_those_that_get_nothing)
{
    struct rig *g = wide(PARTS);
    rig_run(g, SIM_SECOND);
    int ends[PARTS] = {0};
    for (int round = 0; round < 3; round++) {
        for (int32_t i = 1; i < PARTS; i++)
            ends[i] = g->reader.other[i].ends_n;
        int troubles = rig_events(g, PORT_TROUBLE);
        cut(g);
        rig_run(g, 2 * SIM_SECOND);
        cr_assert_gt(rig_events(g, PORT_TROUBLE), troubles);
        for (int32_t i = 1; i < PARTS; i++)
            cr_assert_eq(g->reader.other[i].ends_n, ends[i] + 1, "%d: %d", i, g->reader.other[i].ends_n);
    }
    rig_destroy(g);
}
