/* Consumer groups on a broker whose process and machine die at any moment, with members that die and stall (G1, G2,
 * S31, S32, L9). A consumer that assigns itself commits 1, 2, 3, … as fast as it may; three members share four
 * partitions and commit (generation, count) for what they own; a reader fetches all committed offsets all the time.
 * It must never see one go back, nor none where there was one, nor one that is older than what had been acknowledged
 * when it asked. */
#include "tests/support/serve/sim_broker.h"

#include "proto/client/client.h"

#include <assert.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

enum { PARTS = 4, MEMBERS = 3, GENERATIONS = 20000, IN_GENERATION = 1000000, SEEDS = 5 };
#define TOPIC  SLICE_LIT("orders")
#define SINGLE SLICE_LIT("single") /* the consumer that assigns itself */
#define SHARED SLICE_LIT("shared")

/* What the test knows, outside every node. */
struct truth {
    int64_t tried, acked, best; /* of SINGLE */
    int64_t shared_acked[PARTS], shared_best[PARTS];
    int8_t owner[GENERATIONS][PARTS]; /* member number + 1 */
    int64_t reads, loads, commits, rebalances, refused;
    int32_t generation; /* the largest a member was given */
};

struct program {
    struct truth *truth;
    struct sim_node *node;
    struct client *client;
    struct loop_timer again;
    bool created;
    /* Reader: what was acknowledged when it asked. */
    int64_t floor, shared_floor[PARTS];
    /* Member. */
    int number;
    char id[128];
    int32_t generation;
    bool joined, own[PARTS];
    int64_t count; /* of its commits; goes on when it rejoins and is given the generation it had */
    int64_t heartbeat_us, value[PARTS];
    int32_t told_n;
    char told[MEMBERS * 4][128];
};

static void go_on(struct program *p, int64_t in_us)
{
    loop_timer_in(&p->again, in_us);
}

static struct client_call *call(struct program *p, int16_t key, struct slice group,
                                void (*fn)(void *, const struct client_response *))
{
    struct client_call *c = client_call(p->client, key);
    c->target = group.n ? (struct client_target){.kind = CLIENT_GROUP, .name = group}
                        : (struct client_target){.kind = CLIENT_ANY};
    c->on_response = fn;
    c->arg = p;
    /* The broker dies but never stalls: a request that is given up does not arrive after later ones. */
    bool parks = key == kp_key_join_group || key == kp_key_sync_group;
    c->timeout_us = (parks ? 6 : 2) * SIM_SECOND;
    c->send_within_us = SIM_SECOND;
    return c;
}

/* ---- the consumer that assigns itself ---- */

static void on_created(void *arg, const struct client_response *r)
{
    struct program *p = arg;
    const struct kp_create_topics_response *a = r->body;
    int16_t error = r->status ? -1 : a->topics[0].error_code;
    p->created = error == KE_NONE || error == KE_TOPIC_ALREADY_EXISTS;
    go_on(p, 10 * SIM_MS);
}

static void create(struct program *p)
{
    struct client_call *c = call(p, kp_key_create_topics, SLICE_NULL, on_created);
    struct kp_create_topics_request *q = c->body;
    q->topics = ARENA_NEW(c->arena, struct kp_create_topics_request_topics);
    q->topics_n = 1;
    q->topics[0].name = TOPIC;
    q->topics[0].num_partitions = PARTS;
    q->topics[0].replication_factor = 1;
    q->timeout_ms = 5000;
    client_send(p->client, c);
}

static struct kp_offset_commit_request_partitions *commit_body(struct client_call *c, struct slice group,
                                                               int32_t n)
{
    struct kp_offset_commit_request *q = c->body;
    q->group_id = group;
    q->generation_id_or_member_epoch = -1;
    q->member_id = SLICE_LIT("");
    q->group_instance_id = SLICE_NULL;
    q->retention_time_ms = -1;
    q->topics = ARENA_NEW(c->arena, struct kp_offset_commit_request_topics);
    q->topics_n = 1;
    q->topics[0].name = TOPIC;
    q->topics[0].partitions = ARENA_NEWS(c->arena, struct kp_offset_commit_request_partitions, n);
    q->topics[0].partitions_n = n;
    for (int32_t i = 0; i < n; i++)
        q->topics[0].partitions[i] = (struct kp_offset_commit_request_partitions){
            .partition_index = i, .committed_leader_epoch = -1, .committed_metadata = SLICE_NULL};
    c->version_max = 8;
    return q->topics[0].partitions;
}

static void on_committed(void *arg, const struct client_response *r)
{
    struct program *p = arg;
    const struct kp_offset_commit_response *a = r->body;
    int16_t error = r->status ? -1 : a->topics[0].partitions[0].error_code;
    if (error == KE_NONE) {
        p->truth->acked = p->truth->tried;
        p->truth->commits++;
    }
    go_on(p, error ? 10 * SIM_MS : 0);
}

static void commit_alone(void *arg)
{
    struct program *p = arg;
    if (!p->created) {
        create(p);
        return;
    }
    struct client_call *c = call(p, kp_key_offset_commit, SINGLE, on_committed);
    commit_body(c, SINGLE, 1)[0].committed_offset = ++p->truth->tried;
    client_send(p->client, c);
}

/* ---- the reader ---- */

static void see_single(struct program *p, const struct kp_offset_fetch_response_groups *g)
{
    struct truth *t = p->truth;
    int64_t at = g->topics[0].partitions[0].committed_offset;
    at = at < 0 ? 0 : at;
    assert(at >= p->floor); /* acknowledged before we asked, or seen */
    assert(at <= t->tried);
    t->best = at > t->best ? at : t->best;
}

static void see_shared(struct program *p, const struct kp_offset_fetch_response_groups *g)
{
    struct truth *t = p->truth;
    for (int32_t i = 0; i < PARTS; i++) {
        int64_t at = g->topics[0].partitions[i].committed_offset;
        at = at < 0 ? 0 : at;
        assert(at >= p->shared_floor[i]);
        t->shared_best[i] = at > t->shared_best[i] ? at : t->shared_best[i];
    }
}

static void on_read(void *arg, const struct client_response *r)
{
    struct program *p = arg;
    const struct kp_offset_fetch_response *a = r->body;
    bool ok = !r->status;
    for (int32_t i = 0; !r->status && i < 2; i++) {
        const struct kp_offset_fetch_response_groups *g = &a->groups[i];
        if (g->error_code == KE_NONE)
            (slice_eq(g->group_id, SINGLE) ? see_single : see_shared)(p, g);
        p->truth->loads += g->error_code == KE_COORDINATOR_LOAD_IN_PROGRESS;
        ok &= g->error_code == KE_NONE;
    }
    p->truth->reads += ok;
    go_on(p, ok ? SIM_MS : 2 * SIM_MS);
}

static void read_all(void *arg)
{
    struct program *p = arg;
    struct truth *t = p->truth;
    struct client_call *c = call(p, kp_key_offset_fetch, SINGLE, on_read);
    struct kp_offset_fetch_request *q = c->body;
    struct slice groups[2] = {SINGLE, SHARED};
    q->groups = ARENA_NEWS(c->arena, struct kp_offset_fetch_request_groups, 2);
    q->groups_n = 2;
    for (int i = 0; i < 2; i++) {
        q->groups[i] =
            (struct kp_offset_fetch_request_groups){.group_id = groups[i], .member_epoch = -1, .topics_n = 1};
        q->groups[i].topics = ARENA_NEW(c->arena, struct kp_offset_fetch_request_groups_topics);
        q->groups[i].topics[0].name = TOPIC;
        q->groups[i].topics[0].partition_indexes = ARENA_NEWS(c->arena, int32_t, PARTS);
        q->groups[i].topics[0].partition_indexes_n = PARTS;
        for (int32_t j = 0; j < PARTS; j++)
            q->groups[i].topics[0].partition_indexes[j] = j;
    }
    c->version_min = c->version_max = 8;
    p->floor = t->acked > t->best ? t->acked : t->best;
    for (int i = 0; i < PARTS; i++)
        p->shared_floor[i] = t->shared_acked[i] > t->shared_best[i] ? t->shared_acked[i] : t->shared_best[i];
    client_send(p->client, c);
}

/* ---- a member ---- */

static void rejoin(struct program *p, int16_t error)
{
    p->joined = false;
    p->truth->refused++;
    memset(p->own, 0, sizeof p->own);
    if (error == KE_UNKNOWN_MEMBER_ID || error == KE_FENCED_INSTANCE_ID)
        p->id[0] = 0;
    go_on(p, 5 * SIM_MS);
}

static void take(struct program *p, struct slice assignment)
{
    struct truth *t = p->truth;
    char text[64];
    slice_cstr(assignment, text, sizeof text);
    assert(p->generation > 0 && p->generation < GENERATIONS);
    for (char *at = text; *at; at++) {
        int part = *at - '0';
        int8_t *owner = &t->owner[p->generation][part];
        assert(part >= 0 && part < PARTS);
        assert(*owner == 0 || *owner == p->number + 1); /* one owner in a generation */
        *owner = (int8_t)(p->number + 1);
        p->own[part] = true;
    }
    t->generation = p->generation > t->generation ? p->generation : t->generation;
    t->rebalances++;
    p->joined = true;
}

static void on_synced(void *arg, const struct client_response *r)
{
    struct program *p = arg;
    const struct kp_sync_group_response *a = r->body;
    int16_t error = r->status ? KE_REQUEST_TIMED_OUT : a->error_code;
    if (error) {
        rejoin(p, error);
        return;
    }
    take(p, a->assignment);
    go_on(p, SIM_MS);
}

static void sync(struct program *p)
{
    struct client_call *c = call(p, kp_key_sync_group, SHARED, on_synced);
    struct kp_sync_group_request *q = c->body;
    q->group_id = SHARED;
    q->generation_id = p->generation;
    q->member_id = slice_str(p->id);
    q->group_instance_id = SLICE_NULL;
    q->protocol_type = SLICE_LIT("test");
    q->protocol_name = SLICE_LIT("deal");
    q->assignments = ARENA_NEWS(c->arena, struct kp_sync_group_request_assignments, p->told_n);
    q->assignments_n = p->told_n;
    for (int32_t i = 0; i < p->told_n; i++) {
        char text[PARTS + 1] = "";
        for (int part = i; part < PARTS; part += p->told_n) {
            size_t n = strlen(text);
            text[n] = (char)('0' + part);
            text[n + 1] = 0;
        }
        q->assignments[i].member_id = slice_str(p->told[i]);
        q->assignments[i].assignment = arena_dup(c->arena, slice_str(text));
    }
    client_send(p->client, c);
}

static void on_joined(void *arg, const struct client_response *r)
{
    struct program *p = arg;
    const struct kp_join_group_response *a = r->body;
    int16_t error = r->status ? KE_REQUEST_TIMED_OUT : a->error_code;
    if (!r->status && a->member_id.n)
        slice_cstr(a->member_id, p->id, sizeof p->id);
    if (error) {
        rejoin(p, error);
        return;
    }
    p->generation = a->generation_id;
    p->told_n = a->members_n;
    assert(p->told_n <= MEMBERS * 4); /* dead ones may still be there */
    for (int32_t i = 0; i < p->told_n; i++)
        slice_cstr(a->members[i].member_id, p->told[i], sizeof p->told[i]);
    sync(p);
}

static void join(struct program *p)
{
    struct client_call *c = call(p, kp_key_join_group, SHARED, on_joined);
    struct kp_join_group_request *q = c->body;
    q->group_id = SHARED;
    q->session_timeout_ms = 1500;
    q->rebalance_timeout_ms = 3000;
    q->member_id = slice_str(p->id);
    q->group_instance_id = SLICE_NULL;
    q->reason = SLICE_NULL;
    q->protocol_type = SLICE_LIT("test");
    q->protocols = ARENA_NEW(c->arena, struct kp_join_group_request_protocols);
    q->protocols_n = 1;
    q->protocols[0].name = SLICE_LIT("deal");
    q->protocols[0].metadata = SLICE_LIT("m");
    client_send(p->client, c);
}

static void on_heartbeat(void *arg, const struct client_response *r)
{
    struct program *p = arg;
    const struct kp_heartbeat_response *a = r->body;
    p->heartbeat_us = loop_now_us(sim_node_loop(p->node)) + 300 * SIM_MS;
    if (!r->status && a->error_code != KE_NONE && a->error_code != KE_COORDINATOR_LOAD_IN_PROGRESS)
        rejoin(p, a->error_code);
    else
        go_on(p, SIM_MS);
}

static void on_member_committed(void *arg, const struct client_response *r)
{
    struct program *p = arg;
    const struct kp_offset_commit_response *a = r->body;
    const struct kp_offset_commit_response_partitions *v = r->status ? NULL : a->topics[0].partitions;
    int16_t error = v ? v[0].error_code : KE_NONE;
    for (int32_t i = 0; v && i < a->topics[0].partitions_n; i++)
        if (v[i].error_code == KE_NONE &&
            p->value[v[i].partition_index] > p->truth->shared_acked[v[i].partition_index]) {
            p->truth->shared_acked[v[i].partition_index] = p->value[v[i].partition_index];
            p->truth->commits++;
        }
    bool lost =
        error == KE_UNKNOWN_MEMBER_ID || error == KE_ILLEGAL_GENERATION || error == KE_REBALANCE_IN_PROGRESS;
    if (lost)
        rejoin(p, error);
    else
        go_on(p, 2 * SIM_MS);
}

/* (generation, count): who is allowed to commit later has the larger numbers. */
static void commit_own(struct program *p)
{
    struct client_call *c = call(p, kp_key_offset_commit, SHARED, on_member_committed);
    struct kp_offset_commit_request_partitions *v = commit_body(c, SHARED, PARTS);
    struct kp_offset_commit_request *q = c->body;
    int32_t n = 0;
    p->count++;
    for (int32_t i = 0; i < PARTS; i++)
        if (p->own[i]) {
            p->value[i] = (int64_t)p->generation * IN_GENERATION + p->count;
            v[n].partition_index = i;
            v[n++].committed_offset = p->value[i];
        }
    q->topics[0].partitions_n = n;
    q->generation_id_or_member_epoch = p->generation;
    q->member_id = slice_str(p->id);
    client_send(p->client, c);
}

static bool owns_some(const struct program *p)
{
    for (int i = 0; i < PARTS; i++)
        if (p->own[i])
            return true;
    return false;
}

static void member_step(void *arg)
{
    struct program *p = arg;
    int64_t now = loop_now_us(sim_node_loop(p->node));
    if (!p->joined) {
        join(p);
    } else if (now >= p->heartbeat_us || !owns_some(p)) {
        if (now < p->heartbeat_us) {
            go_on(p, p->heartbeat_us - now);
            return;
        }
        struct client_call *c = call(p, kp_key_heartbeat, SHARED, on_heartbeat);
        struct kp_heartbeat_request *q = c->body;
        q->group_id = SHARED;
        q->generation_id = p->generation;
        q->member_id = slice_str(p->id);
        q->group_instance_id = SLICE_NULL;
        client_send(p->client, c);
    } else {
        commit_own(p);
    }
}

/* ---- nodes ---- */

struct seat {
    struct truth *truth;
    void (*step)(void *);
    int number;
};

static void *boot(void *arg, struct sim_node *node)
{
    const struct seat *seat = arg;
    struct program *p = calloc(1, sizeof *p);
    p->truth = seat->truth;
    p->node = node;
    p->number = seat->number;
    int rc = client_create(sim_node_loop(node), sim_node_net(node),
                           &(struct client_options){.bootstrap = "broker:9092",
                                                    .backoff_max_us = 50 * SIM_MS,
                                                    .connect_timeout_us = SIM_SECOND},
                           &p->client, NULL);
    assert(!rc);
    (void)rc;
    loop_timer_init(&p->again, sim_node_loop(node), seat->step, p);
    loop_timer_in(&p->again, 0);
    return p;
}

struct world {
    struct sim *sim;
    struct sim_node *broker, *single, *reader, *members[MEMBERS];
    struct seat seats[MEMBERS + 2];
    struct truth truth;
    bool calm;
};

static void revive(void *arg)
{
    struct world *w = arg;
    if (!sim_node_up(w->broker))
        (void)sim_start(w->broker);
    for (int i = 0; i < MEMBERS; i++)
        if (!sim_node_up(w->members[i]))
            (void)sim_start(w->members[i]);
    sim_at(w->sim, sim_now_us(w->sim) + rng_range(sim_rng(w->sim), 10, 200) * SIM_MS, revive, w);
}

static void wake_all(void *arg)
{
    struct world *w = arg;
    for (int i = 0; i < MEMBERS; i++)
        if (sim_node_up(w->members[i]))
            sim_pause(w->members[i], false);
}

static void strike(void *arg)
{
    struct world *w = arg;
    struct rng *r = sim_rng(w->sim);
    int64_t now = sim_now_us(w->sim);
    struct sim_node *m = w->members[rng_below(r, MEMBERS)];
    if (w->calm)
        return;
    switch (rng_below(r, 8)) {
    case 0: sim_kill(w->broker); break;
    case 1: sim_power_cut(w->broker); break;
    case 2: sim_crash_at(w->broker, SIM_DISK_WRITE, 1 + rng_below(r, 40), rng_below(r, 2)); break;
    case 3: sim_crash_at(w->broker, SIM_DISK_SYNC, 1 + rng_below(r, 6), rng_below(r, 2)); break;
    case 4: sim_kill(m); break;
    case 5: /* past its session, and back as a zombie */
        if (sim_node_up(m))
            sim_pause(m, true);
        sim_at(w->sim, now + rng_range(r, 500, 5000) * SIM_MS, wake_all, w);
        break;
    default: break; /* a quiet time: generations need some */
    }
    sim_at(w->sim, now + rng_range(r, 300, 3000) * SIM_MS, strike, w);
}

/* All members are in one generation, own everything, each part once, and have been seen to commit in it. */
static bool settled(void *arg)
{
    struct world *w = arg;
    int owners[PARTS] = {0};
    int32_t generation = -1;
    for (int i = 0; i < MEMBERS; i++) {
        const struct program *p = sim_node_program(w->members[i]);
        if (!p || !p->joined || (generation >= 0 && p->generation != generation))
            return false;
        generation = p->generation;
        for (int part = 0; part < PARTS; part++)
            owners[part] += p->own[part];
    }
    for (int part = 0; part < PARTS; part++)
        if (owners[part] != 1 || w->truth.shared_best[part] / IN_GENERATION != generation)
            return false;
    return true;
}

static struct sim_node *add(struct world *w, const char *name, struct seat *seat, void (*step)(void *),
                            int number)
{
    *seat = (struct seat){&w->truth, step, number};
    return sim_node_add(w->sim, &(struct sim_node_options){.name = name, .boot = boot, .arg = seat});
}

static void run(uint64_t seed, const char *properties)
{
    struct world *w = calloc(1, sizeof *w);
    struct sim_broker_options o = {.properties = properties};
    w->sim = sim_create(&(struct sim_options){.seed = seed, .events_max = 50000000});
    w->broker = sim_node_add(
        w->sim, &(struct sim_node_options){.name = "broker", .boot = sim_broker_boot, .arg = &o});
    w->single = add(w, "single", &w->seats[0], commit_alone, 0);
    w->reader = add(w, "reader", &w->seats[1], read_all, 0);
    for (int i = 0; i < MEMBERS; i++) {
        char name[24];
        snprintf(name, sizeof name, "member%d", i);
        w->members[i] = add(w, name, &w->seats[2 + i], member_step, i);
    }
    sim_disk_costs(w->broker, &(struct sim_disk_costs){
                                  .open_us = 20, .write_us = 5, .sync_us = 2000, .sync_jitter_us = 4000});
    sim_disk_keep(w->broker, 300000);
    cr_assert(sim_start(w->broker) && sim_start(w->single) && sim_start(w->reader), "%s", o.refused);
    sim_at(w->sim, sim_now_us(w->sim) + 2000 * SIM_MS, strike, w);
    revive(w);
    sim_run_for(w->sim, 40 * SIM_SECOND);
    w->calm = true;
    wake_all(w);
    int64_t reads = w->truth.reads;
    sim_run_for(w->sim, 2 * SIM_SECOND);
    if (getenv("SUNDOG_GROUPS_SAY"))
        fprintf(stderr, "seed %lu: %ld commits, %ld reads, %ld loading, %ld assignments, generation %d\n",
                seed, (long)w->truth.commits, (long)w->truth.reads, (long)w->truth.loads,
                (long)w->truth.rebalances, w->truth.generation);
    int64_t end = sim_now_us(w->sim) + 60 * SIM_SECOND;
    cr_assert_eq(sim_run_until(w->sim, end, settled, w), SIM_TRUE,
                 "seed %lu: the group does not settle and commit", seed);
    cr_assert(w->truth.commits > 500 && w->truth.reads > reads && w->truth.rebalances > 5, "seed %lu", seed);
    sim_destroy(w->sim);
    free(w);
}

#define PROPERTIES                                                                                           \
    "group.min.session.timeout.ms=500\ngroup.initial.rebalance.delay.ms=100\noffsets.topic.num.partitions="  \
    "3\n"

/* SUNDOG_SEEDS=FIRST-LAST instead of those that every run has. */
static void run_seeds(uint64_t first, uint64_t last, const char *properties)
{
    const char *other = getenv("SUNDOG_SEEDS");
    char *dash = NULL;
    if (other) {
        first = last = strtoull(other, &dash, 10);
        last = *dash == '-' ? strtoull(dash + 1, NULL, 10) : last;
    }
    for (uint64_t seed = first; seed <= last; seed++)
        run(seed, properties);
}

Test(groups, commits_and_assignments_survive_kills_power_cuts_and_zombies)
{
    run_seeds(1, SEEDS, PROPERTIES);
}

Test(groups, small_segments_too)
{
    run_seeds(100, 99 + SEEDS,
              PROPERTIES "offsets.topic.segment.bytes=1048576\nlog.roll.ms=500\n"
                         "log.cleaner.backoff.ms=200\nlog.flush.offset.checkpoint.interval.ms=700\n");
}
