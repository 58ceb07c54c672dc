/* DeleteRecords on a whole broker: a start that was answered, or that ListOffsets has told, never goes back,
 * whatever dies in the moment of the answer; nor does it pass what was asked for. */
#include "tests/support/serve/sim_broker.h"

#include "proto/client/client.h"
#include "proto/kafka/batch.h"

#include <assert.h>
#include <criterion/criterion.h>

#define ROUNDS     60
#define PARTITIONS 3
#define TOPIC      SLICE_LIT("orders")

struct world {
    struct sim *sim;
    struct sim_node *broker, *asker;
    struct client *client;
    struct loop_timer again;
    void (*step)(struct world *w);
    int32_t at;                /* the partition that this round is about */
    int64_t end[PARTITIONS];   /* acknowledged */
    int64_t start[PARTITIONS]; /* told: it is never less */
    int64_t asked[PARTITIONS]; /* it is never more */
    int rounds, deleted, strikes;
    struct buf batch;
};

static void go_on(struct world *w, void (*step)(struct world *w), int64_t in_us)
{
    w->step = step;
    loop_timer_in(&w->again, in_us);
}

static void on_timer(void *arg)
{
    struct world *w = arg;
    w->step(w);
}

static struct client_call *call(struct world *w, int16_t api,
                                void (*done)(void *arg, const struct client_response *r))
{
    struct client_call *c = client_call(w->client, api);
    assert(c);
    c->on_response = done;
    c->arg = w;
    c->timeout_us = 2 * SIM_SECOND;
    c->target = (struct client_target){.kind = CLIENT_LEADER, .name = TOPIC, .number = w->at};
    return c;
}

static void produce(struct world *w);
static void create(struct world *w);

/* ---- the start that is told ---- */

static void list(struct world *w);

static void on_listed(void *arg, const struct client_response *r)
{
    struct world *w = arg;
    const struct kp_list_offsets_response *a = r->body;
    if (r->status || a->topics[0].partitions[0].error_code) {
        go_on(w, list, 20 * SIM_MS);
        return;
    }
    int64_t start = a->topics[0].partitions[0].offset;
    cr_assert_geq(start, w->start[w->at], "partition %d", w->at);
    cr_assert_leq(start, w->asked[w->at], "partition %d", w->at);
    w->start[w->at] = start;
    w->rounds++;
    w->at = (int32_t)rng_below(sim_rng(w->sim), PARTITIONS);
    go_on(w, produce, 0);
}

static void list(struct world *w)
{
    struct client_call *c = call(w, kp_key_list_offsets, on_listed);
    struct kp_list_offsets_request *q = c->body;
    q->replica_id = -1;
    q->topics = ARENA_NEW(c->arena, struct kp_list_offsets_request_topics);
    q->topics_n = 1;
    q->topics[0].name = TOPIC;
    q->topics[0].partitions = ARENA_NEW(c->arena, struct kp_list_offsets_request_partitions);
    q->topics[0].partitions_n = 1;
    q->topics[0].partitions[0] = (struct kp_list_offsets_request_partitions){
        .partition_index = w->at, .current_leader_epoch = -1, .timestamp = -2};
    client_send(w->client, c);
}

/* ---- deletions ---- */

static void start_again(void *arg)
{
    struct world *w = arg;
    cr_assert(sim_start(w->broker));
}

/* In the moment of the answer, or so long after the question. */
static void strike(void *arg)
{
    struct world *w = arg;
    if (!sim_node_up(w->broker))
        return;
    w->strikes++;
    if (rng_below(sim_rng(w->sim), 2))
        sim_kill(w->broker);
    else
        sim_power_cut(w->broker);
    sim_at(w->sim, sim_now_us(w->sim) + 50 * SIM_MS, start_again, w);
}

static void on_deleted(void *arg, const struct client_response *r)
{
    struct world *w = arg;
    const struct kp_delete_records_response *a = r->body;
    for (int32_t i = 0; !r->status && i < PARTITIONS; i++) {
        const struct kp_delete_records_response_partitions *p = &a->topics[0].partitions[i];
        if (p->error_code)
            continue;
        cr_assert_geq(p->low_watermark, w->start[i]);
        w->start[i] = p->low_watermark;
        w->deleted++;
    }
    if (rng_below(sim_rng(w->sim), 3) > 0)
        sim_at(w->sim, sim_now_us(w->sim), strike, w);
    go_on(w, list, 0);
}

/* All partitions by one request: one write for them. */
static void delete (struct world *w)
{
    struct client_call *c = call(w, kp_key_delete_records, on_deleted);
    struct kp_delete_records_request *q = c->body;
    q->timeout_ms = 1500;
    q->topics = ARENA_NEW(c->arena, struct kp_delete_records_request_topics);
    q->topics_n = 1;
    q->topics[0].name = TOPIC;
    q->topics[0].partitions = ARENA_NEWS(c->arena, struct kp_delete_records_request_partitions, PARTITIONS);
    q->topics[0].partitions_n = PARTITIONS;
    for (int32_t i = 0; i < PARTITIONS; i++) {
        int64_t to = rng_range(sim_rng(w->sim), w->asked[i], w->end[i]);
        q->topics[0].partitions[i] =
            (struct kp_delete_records_request_partitions){.partition_index = i, .offset = to};
        w->asked[i] = to;
    }
    client_send(w->client, c);
    if (rng_below(sim_rng(w->sim), 4) == 0)
        sim_at(w->sim, sim_now_us(w->sim) + rng_range(sim_rng(w->sim), 0, 15) * SIM_MS, strike, w);
}

/* ---- records ---- */

static void on_produced(void *arg, const struct client_response *r)
{
    struct world *w = arg;
    const struct kp_produce_response *a = r->body;
    const struct kp_produce_response_partition_responses *p =
        r->status ? NULL : &a->responses[0].partition_responses[0];
    if (p && !p->error_code)
        w->end[w->at] = p->base_offset + 5;
    if (p && !p->error_code)
        go_on(w, delete, 0);
    else
        go_on(w, produce, 20 * SIM_MS);
}

static void produce(struct world *w)
{
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    buf_clear(&w->batch);
    batch_begin(&b, &w->batch, &o);
    for (int i = 0; i < 5; i++) {
        struct record_new r = {.timestamp = loop_wall_ms(sim_node_loop(w->asker)), .value = TOPIC};
        cr_assert_eq(batch_add(&b, &r), 0);
    }
    cr_assert_eq(batch_close(&b, NULL), 0);
    struct client_call *c = call(w, kp_key_produce, on_produced);
    struct kp_produce_request *q = c->body;
    q->acks = -1;
    q->timeout_ms = 1500;
    q->topic_data = ARENA_NEW(c->arena, struct kp_produce_request_topic_data);
    q->topic_data_n = 1;
    q->topic_data[0].name = TOPIC;
    q->topic_data[0].partition_data = ARENA_NEW(c->arena, struct kp_produce_request_partition_data);
    q->topic_data[0].partition_data_n = 1;
    q->topic_data[0].partition_data[0].index = w->at;
    q->topic_data[0].partition_data[0].records.bytes = buf_slice(&w->batch);
    c->version_max = 11;
    client_send(w->client, c);
}

static void on_created(void *arg, const struct client_response *r)
{
    struct world *w = arg;
    const struct kp_create_topics_response *a = r->body;
    int16_t error = r->status ? -1 : a->topics[0].error_code;
    bool is_there = error == KE_NONE || error == KE_TOPIC_ALREADY_EXISTS;
    go_on(w, is_there ? produce : create, 10 * SIM_MS);
}

static void create(struct world *w)
{
    struct client_call *c = call(w, kp_key_create_topics, on_created);
    struct kp_create_topics_request *q = c->body;
    q->topics = ARENA_NEW(c->arena, struct kp_create_topics_request_topics);
    q->topics_n = 1;
    q->topics[0].name = TOPIC;
    q->topics[0].num_partitions = PARTITIONS;
    q->topics[0].replication_factor = 1;
    q->timeout_ms = 5000;
    c->target.kind = CLIENT_ANY;
    client_send(w->client, c);
}

static void *boot_asker(void *arg, struct sim_node *node)
{
    struct world *w = arg;
    cr_assert_eq(client_create(sim_node_loop(node), sim_node_net(node),
                               &(struct client_options){.bootstrap = "broker:9092",
                                                        .backoff_max_us = 200 * SIM_MS,
                                                        .connect_timeout_us = SIM_SECOND},
                               &w->client, NULL),
                 0);
    loop_timer_init(&w->again, sim_node_loop(node), on_timer, w);
    go_on(w, create, 0);
    return w;
}

static bool is_over(void *arg)
{
    return ((struct world *)arg)->rounds >= ROUNDS;
}

static void run(uint64_t seed, const char *properties)
{
    struct world w = {0};
    struct sim_broker_options o = {.properties = properties};
    buf_init(&w.batch, 1 << 20);
    w.sim = sim_create(&(struct sim_options){.seed = seed, .events_max = 20000000});
    w.broker =
        sim_node_add(w.sim, &(struct sim_node_options){.name = "broker", .boot = sim_broker_boot, .arg = &o});
    w.asker = sim_node_add(w.sim, &(struct sim_node_options){.name = "asker", .boot = boot_asker, .arg = &w});
    sim_disk_costs(w.broker, &(struct sim_disk_costs){
                                 .open_us = 20, .write_us = 5, .sync_us = 2000, .sync_jitter_us = 4000});
    cr_assert(sim_start(w.broker) && sim_start(w.asker), "%s", o.refused);
    cr_assert_eq(sim_run_until(w.sim, 600 * SIM_SECOND, is_over, &w), SIM_TRUE, "seed %lu: %d rounds", seed,
                 w.rounds);
    cr_assert(w.deleted > ROUNDS / 2 && w.strikes > ROUNDS / 4, "%d deleted, %d strikes", w.deleted,
              w.strikes);
    sim_destroy(w.sim);
    buf_fini(&w.batch);
}

Test(broker_deletions, what_was_deleted_stays_deleted)
{
    for (uint64_t seed = 1; seed <= 6; seed++)
        run(seed, NULL);
}

/* Checkpoints of all partitions, often: none of them takes a start back. */
Test(broker_deletions, and_no_checkpoint_takes_it_back)
{
    for (uint64_t seed = 100; seed <= 105; seed++)
        run(seed, "log.flush.offset.checkpoint.interval.ms=10\n");
}
