/* The quorum's roles and votes: one voter, then a few in a small random world of lost messages and crashes. */
#include "broker/quorum/raft.h"

#include "proto/kafka/errors.h"

#include <criterion/criterion.h>

#define SECOND INT64_C(1000000)

static const struct raft_replica one[] = {{.id = 1, .directory_id = {{1}}}};

static void sole(struct raft *r)
{
    raft_init(r, &(struct raft_options){.self = one[0],
                                        .voters = one,
                                        .voters_n = 1,
                                        .election_timeout_us = SECOND,
                                        .fetch_timeout_us = 2 * SECOND,
                                        .seed = 7});
}

static void start(struct raft *r, struct quorum_state state, int64_t end, int32_t epoch,
                  struct raft_effects *out)
{
    raft_step(r, &(struct raft_event){.kind = RAFT_START, .state = state, .log = {end, epoch}}, out);
}

Test(raft, every_role_can_be_reached_and_left)
{
    cr_assert(sm_lint(&raft_roles));
}

Test(raft, a_sole_voter_leads_the_next_epoch_whatever_it_was)
{
    static const struct quorum_state was[] = {
        {0, -1, -1, {{0}}}, {4, 1, 1, {{1}}}, {4, -1, 1, {{1}}}, {4, -1, -1, {{0}}}, {4, -1, 2, {{9}}}};
    for (size_t i = 0; i < sizeof was / sizeof *was; i++) {
        struct raft r;
        sole(&r);
        struct raft_effects out;
        start(&r, was[i], 100, was[i].epoch ? 3 : 0, &out);
        cr_assert_eq(raft_role(&r), RAFT_LEADER);
        cr_assert_eq(r.state.epoch, was[i].epoch + 1, "never again the epoch it was in (KAFKA-10527)");
        cr_assert_eq(out.n, 2u);
        cr_assert_eq(out.v[0].kind, RAFT_PERSIST, "durable before anything shows it");
        cr_assert_eq(out.v[0].state.epoch, r.state.epoch);
        cr_assert_eq(out.v[0].state.leader_id, 1);
        cr_assert_eq(out.v[0].state.voted_id, 1);
        cr_assert_eq(out.v[1].kind, RAFT_APPEND_LEADER_CHANGE);
        cr_assert_eq(out.v[1].epoch, r.state.epoch);
    }
}

Test(raft, an_epoch_in_the_log_beyond_the_state_counts_and_carries_no_vote)
{
    struct raft r;
    sole(&r);
    struct raft_effects out;
    start(&r, (struct quorum_state){4, 1, 1, {{1}}}, 100, 9, &out);
    cr_assert_eq(r.state.epoch, 10);
}

Test(raft, the_leader_commits_only_what_is_on_its_disk_and_only_through_its_own_epoch)
{
    struct raft r;
    sole(&r);
    struct raft_effects out;
    start(&r, QUORUM_STATE_NEW, 100, 3, &out);
    raft_step(&r, &(struct raft_event){.kind = RAFT_LOG_APPENDED, .log = {105, 4}}, &out);
    cr_assert_eq(out.n, 0u, "appended is not committed");
    raft_step(&r, &(struct raft_event){.kind = RAFT_LOG_SYNCED, .offset = 100}, &out);
    cr_assert_eq(out.n, 0u, "what former epochs wrote waits for an entry of this one");
    raft_step(&r, &(struct raft_event){.kind = RAFT_LOG_SYNCED, .offset = 101}, &out);
    cr_assert_eq(out.n, 1u);
    cr_assert_eq(out.v[0].kind, RAFT_COMMIT);
    cr_assert_eq(out.v[0].offset, 101);
    raft_step(&r, &(struct raft_event){.kind = RAFT_LOG_SYNCED, .offset = 101}, &out);
    cr_assert_eq(out.n, 0u);
    cr_assert_eq(r.high_watermark, 101);
}

Test(raft, the_sole_leader_does_not_resign_for_lack_of_others)
{
    struct raft r;
    sole(&r);
    struct raft_effects out;
    start(&r, QUORUM_STATE_NEW, 0, 0, &out);
    for (int64_t now = 0; now < 100 * SECOND; now += SECOND / 2) {
        raft_step(&r, &(struct raft_event){.kind = RAFT_TIME, .now_us = now}, &out);
        cr_assert_eq(raft_role(&r), RAFT_LEADER);
        cr_assert_eq(out.n, 0u);
    }
    raft_step(&r, &(struct raft_event){.kind = RAFT_RESIGN, .now_us = 100 * SECOND}, &out);
    cr_assert_eq(raft_role(&r), RAFT_RESIGNED);
}

Test(raft, votes_of_strangers_do_not_move_a_leader_but_a_higher_epoch_does)
{
    struct raft r;
    sole(&r);
    struct raft_effects out;
    start(&r, QUORUM_STATE_NEW, 0, 0, &out);
    struct raft_event ask = {
        .kind = RAFT_VOTE_REQUEST, .epoch = 1, .peer = {.id = 5}, .log = {10, 1}, .pre_vote = true};
    raft_step(&r, &ask, &out);
    cr_assert_eq(out.n, 1u);
    cr_assert_not(out.v[0].granted);
    ask.epoch = 0;
    raft_step(&r, &ask, &out);
    cr_assert_eq(out.v[0].error, KE_FENCED_LEADER_EPOCH);
    ask.epoch = 8;
    ask.pre_vote = false;
    raft_step(&r, &ask, &out);
    cr_assert_eq(raft_role(&r), RAFT_UNATTACHED);
    cr_assert_eq(out.v[0].kind, RAFT_PERSIST);
    cr_assert_eq(out.v[out.n - 1].kind, RAFT_ANSWER_VOTE);
    cr_assert(out.v[out.n - 1].granted);
    cr_assert_eq(out.v[out.n - 2].kind, RAFT_PERSIST, "the vote is durable before its answer");
    cr_assert_eq(out.v[out.n - 2].state.voted_id, 5);
}

/* ---- a few voters ---- */

enum { NODES = 3, INBOX = 64 };

struct message {
    struct raft_event e;
    int to, from;
};

struct model {
    struct rng rng;
    struct raft node[NODES];
    struct quorum_state disk[NODES];
    struct raft_log_end log[NODES];
    int32_t epoch_shown[NODES]; /* the highest a node has let others see */
    struct message queue[INBOX];
    unsigned queued;
    int32_t leader_of[4096]; /* by epoch, 0: none yet */
    int64_t now_us;
    uint32_t loss;
    bool crashes;
};

static void send(struct model *m, int from, int to, struct raft_event e)
{
    if (m->queued < INBOX && !rng_chance(&m->rng, m->loss))
        m->queue[m->queued++] = (struct message){e, to, from};
}

static void ask(struct model *m, int from, const struct raft_effect *e)
{
    for (int to = 0; to < NODES; to++) {
        struct raft_event ev = {.kind = RAFT_VOTE_REQUEST,
                                .epoch = e->epoch,
                                .peer = m->node[from].options.self,
                                .log = e->log,
                                .pre_vote = e->pre_vote};
        if (to != from)
            send(m, from, to, ev);
    }
}

static void boot(struct model *m, int n)
{
    struct raft_replica voters[NODES];
    for (int i = 0; i < NODES; i++)
        voters[i] = (struct raft_replica){.id = i + 1, .directory_id = {{(uint8_t)(i + 1)}}};
    raft_init(&m->node[n], &(struct raft_options){.self = voters[n],
                                                  .voters = voters,
                                                  .voters_n = NODES,
                                                  .election_timeout_us = SECOND,
                                                  .fetch_timeout_us = 2 * SECOND,
                                                  .seed = rng_next(&m->rng)});
}

/* Carries effects out in order; a crash may fall between any two. False: it fell. */
static bool carry_out(struct model *m, int n, const struct raft_effects *out, int asker)
{
    for (unsigned i = 0; i < out->n; i++) {
        const struct raft_effect *e = &out->v[i];
        if (m->crashes && rng_chance(&m->rng, 20000))
            return false;
        switch (e->kind) {
        case RAFT_PERSIST: m->disk[n] = e->state; continue;
        case RAFT_ASK_VOTES: ask(m, n, e); break;
        case RAFT_ANSWER_VOTE:
            send(m, n, asker,
                 (struct raft_event){.kind = RAFT_VOTE_RESULT,
                                     .epoch = e->epoch,
                                     .peer = m->node[n].options.self,
                                     .granted = e->granted,
                                     .pre_vote = e->pre_vote});
            break;
        case RAFT_APPEND_LEADER_CHANGE:
            cr_assert(m->leader_of[e->epoch] == 0 || m->leader_of[e->epoch] == n + 1,
                      "S26: one leader per epoch");
            m->leader_of[e->epoch] = n + 1;
            m->log[n].end_offset++;
            m->log[n].last_epoch = e->epoch;
            m->node[n].log = m->log[n];
            break;
        case RAFT_COMMIT: break;
        }
        cr_assert_geq(m->node[n].state.epoch, m->epoch_shown[n], "S26: epochs do not go back");
        m->epoch_shown[n] = m->node[n].state.epoch;
        cr_assert_eq(m->disk[n].epoch, m->node[n].state.epoch, "durable before it is shown");
    }
    return true;
}

static void step(struct model *m, int n, struct raft_event e, int asker)
{
    struct raft_effects out;
    e.now_us = m->now_us;
    raft_step(&m->node[n], &e, &out);
    bool alive = carry_out(m, n, &out, asker);
    while (!alive) {
        boot(m, n);
        raft_step(&m->node[n],
                  &(struct raft_event){
                      .kind = RAFT_START, .now_us = m->now_us, .state = m->disk[n], .log = m->log[n]},
                  &out);
        alive = carry_out(m, n, &out, 0);
    }
}

static void deliver(struct model *m)
{
    unsigned at = (unsigned)rng_below(&m->rng, m->queued);
    struct message msg = m->queue[at];
    m->queue[at] = m->queue[--m->queued];
    if (msg.e.kind == RAFT_VOTE_RESULT && msg.e.epoch > m->node[msg.to].state.epoch)
        msg.e =
            (struct raft_event){.kind = RAFT_EPOCH_SEEN, .epoch = msg.e.epoch, .leader_id = QUORUM_NOBODY};
    step(m, msg.to, msg.e, msg.from);
}

/* Leaders tell of themselves, followers fetch. */
static void heartbeat(struct model *m)
{
    for (int n = 0; n < NODES; n++) {
        if (raft_role(&m->node[n]) != RAFT_LEADER)
            continue;
        for (int to = 0; to < NODES; to++) {
            if (to == n || rng_chance(&m->rng, m->loss))
                continue;
            step(m, to,
                 (struct raft_event){
                     .kind = RAFT_EPOCH_SEEN, .epoch = m->node[n].state.epoch, .leader_id = n + 1},
                 0);
            if (raft_role(&m->node[to]) != RAFT_FOLLOWER || m->node[to].state.leader_id != n + 1 ||
                raft_role(&m->node[n]) != RAFT_LEADER)
                continue;
            if (m->log[to].end_offset < m->log[n].end_offset)
                m->log[to] = m->log[n]; /* fetched and synced */
            step(m, to, (struct raft_event){.kind = RAFT_LOG_APPENDED, .log = m->log[to]}, 0);
            step(m, to, (struct raft_event){.kind = RAFT_FETCH_OK}, 0);
            step(m, n,
                 (struct raft_event){.kind = RAFT_VOTER_FETCHED,
                                     .peer = m->node[to].options.self,
                                     .offset = m->log[to].end_offset},
                 0);
        }
    }
}

static int leaders(const struct model *m)
{
    int n = 0;
    for (int i = 0; i < NODES; i++)
        n += raft_role(&m->node[i]) == RAFT_LEADER;
    return n;
}

Test(raft, three_voters_never_elect_two_leaders_in_an_epoch_and_end_with_one)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        static struct model m;
        m = (struct model){.loss = 200000, .crashes = true};
        rng_init(&m.rng, seed);
        for (int n = 0; n < NODES; n++) {
            struct raft_effects out;
            m.disk[n] = QUORUM_STATE_NEW;
            boot(&m, n);
            raft_step(&m.node[n], &(struct raft_event){.kind = RAFT_START, .state = m.disk[n]}, &out);
        }
        for (int i = 0; i < 3000; i++) {
            if (i == 2000) { /* faults stop */
                m.loss = 0;
                m.crashes = false;
            }
            m.now_us += (int64_t)rng_below(&m.rng, SECOND / 10);
            if (m.queued > 0)
                deliver(&m);
            step(&m, (int)rng_below(&m.rng, NODES), (struct raft_event){.kind = RAFT_TIME}, 0);
            if (rng_chance(&m.rng, 300000))
                heartbeat(&m);
        }
        cr_assert_eq(leaders(&m), 1, "L10: a leader in the end, seed %llu", (unsigned long long)seed);
    }
}
