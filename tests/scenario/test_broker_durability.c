/* D6 on a whole broker: what is acknowledged with acks=all, and what a reader has seen, survives kills and power cuts
 * at any moment, in order and at its offset. An idempotent producer writes 0, 1, 2, … to one partition and sends
 * again what it was not told of; a reader follows. In the end the log is exactly 0, 1, 2, …, each once. */
#include "tests/support/serve/sim_broker.h"

#include "base/core/bytes.h"
#include "proto/client/client.h"
#include "proto/kafka/batch.h"

#include <assert.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define RECORDS  3000
#define SEEN_MAX 4000
#define TOPIC    SLICE_LIT("orders")

/* What the test knows, outside every node. */
struct truth {
    int64_t acknowledged;   /* records 0 … n-1 */
    int64_t seen[SEEN_MAX]; /* by offset: the record a reader was given there, -1: none */
    int64_t high_watermark; /* the largest a reader was told */
    int64_t producer_id;
    bool complete;
};

struct program {
    struct truth *truth;
    struct sim_node *node;
    struct client *client;
    struct loop_timer again;
    /* Producer: one batch in flight. */
    int64_t next; /* the first record of the batch in flight or to be sent */
    int count;
    struct buf batch;
    bool created;
    /* Reader. */
    int64_t offset;
};

static void go_on(struct program *p, int64_t in_us)
{
    loop_timer_in(&p->again, in_us);
}

/* ---- producer ---- */

static void build(struct program *p)
{
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    o.producer_id = p->truth->producer_id;
    o.producer_epoch = 0;
    o.base_sequence = (int32_t)p->next;
    buf_clear(&p->batch);
    batch_begin(&b, &p->batch, &o);
    for (int i = 0; i < p->count; i++) {
        uint8_t value[8];
        be64_put(value, (uint64_t)(p->next + i));
        struct record_new r = {.timestamp = loop_wall_ms(sim_node_loop(p->node)),
                               .value = slice_of(value, 8)};
        int rc = batch_add(&b, &r);
        assert(!rc);
        (void)rc;
    }
    int rc = batch_close(&b, NULL);
    assert(!rc);
    (void)rc;
}

static void on_produced(void *arg, const struct client_response *r)
{
    struct program *p = arg;
    const struct kp_produce_response *a = r->body;
    int16_t error = r->status ? -1 : a->responses[0].partition_responses[0].error_code;
    if (error == KE_NONE) {
        p->next += p->count;
        p->count = 0;
        p->truth->acknowledged = p->next;
    }
    assert(error != KE_OUT_OF_ORDER_SEQUENCE_NUMBER); /* what was acknowledged would be gone */
    go_on(p, error ? 20 * SIM_MS : 0);
}

static void on_created(void *arg, const struct client_response *r)
{
    struct program *p = arg;
    const struct kp_create_topics_response *a = r->body;
    int16_t error = r->status ? -1 : a->topics[0].error_code;
    p->created = error == KE_NONE || error == KE_TOPIC_ALREADY_EXISTS;
    go_on(p, 10 * SIM_MS);
}

static void on_producer_id(void *arg, const struct client_response *r)
{
    struct program *p = arg;
    const struct kp_init_producer_id_response *a = r->body;
    if (!r->status && !a->error_code)
        p->truth->producer_id = a->producer_id;
    go_on(p, 10 * SIM_MS);
}

static void create(struct program *p)
{
    struct client_call *c = client_call(p->client, kp_key_create_topics);
    struct kp_create_topics_request *q = c->body;
    q->topics = ARENA_NEW(c->arena, struct kp_create_topics_request_topics);
    q->topics_n = 1;
    q->topics[0].name = TOPIC;
    q->topics[0].num_partitions = 1;
    q->topics[0].replication_factor = 1;
    q->timeout_ms = 5000;
    c->target.kind = CLIENT_ANY;
    c->on_response = on_created;
    c->arg = p;
    c->timeout_us = 2 * SIM_SECOND;
    client_send(p->client, c);
}

static void ask_id(struct program *p)
{
    struct client_call *c = client_call(p->client, kp_key_init_producer_id);
    struct kp_init_producer_id_request *q = c->body;
    q->transactional_id = SLICE_NULL;
    c->target.kind = CLIENT_ANY;
    c->on_response = on_producer_id;
    c->arg = p;
    c->timeout_us = 2 * SIM_SECOND;
    client_send(p->client, c);
}

static void produce(void *arg)
{
    struct program *p = arg;
    if (!p->created) {
        create(p);
        return;
    }
    if (p->truth->producer_id < 0) {
        ask_id(p);
        return;
    }
    if (p->next >= RECORDS)
        return;
    if (p->count == 0) {
        p->count = 1 + (int)(loop_random(sim_node_loop(p->node)) % 5);
        p->count = p->next + p->count > RECORDS ? (int)(RECORDS - p->next) : p->count;
        build(p);
    }
    struct client_call *c = client_call(p->client, kp_key_produce);
    struct kp_produce_request *q = c->body;
    q->acks = -1;
    q->timeout_ms = 1500;
    q->topic_data = ARENA_NEW(c->arena, struct kp_produce_request_topic_data);
    q->topic_data_n = 1;
    q->topic_data[0].name = TOPIC;
    q->topic_data[0].partition_data = ARENA_NEW(c->arena, struct kp_produce_request_partition_data);
    q->topic_data[0].partition_data_n = 1;
    q->topic_data[0].partition_data[0].records.bytes = buf_slice(&p->batch);
    c->target = (struct client_target){.kind = CLIENT_LEADER, .name = TOPIC};
    c->version_max = 11;
    c->on_response = on_produced;
    c->arg = p;
    c->timeout_us = 2 * SIM_SECOND;
    client_send(p->client, c);
}

/* ---- reader ---- */

static void see(struct truth *t, int64_t offset, int64_t record)
{
    assert(offset < SEEN_MAX);
    assert(t->seen[offset] < 0 || t->seen[offset] == record); /* an offset never changes its record */
    assert(offset == 0 || t->seen[offset - 1] < 0 ||
           record == t->seen[offset - 1] + 1); /* none lost, none doubled */
    t->seen[offset] = record;
    t->complete |= record == RECORDS - 1;
}

static void read_batches(struct program *p, struct slice s)
{
    while (s.n >= BATCH_HEADER_BYTES) {
        struct batch_header h;
        struct record_walk w;
        struct record rec;
        struct slice payload;
        if (batch_read(s, &h, NULL) == -E_TRUNCATED)
            return;
        int rc =
            batch_payload(&h, slice_of(s.p, batch_size(&h)), &(struct codec_limits){0}, NULL, &payload, NULL);
        assert(!rc);
        record_walk_init(&w, &h, payload);
        while (record_next(&w, &rec) == 1)
            if (rec.offset >= p->offset)
                see(p->truth, rec.offset, (int64_t)be64_get(rec.value.p));
        (void)rc;
        p->offset = batch_last_offset(&h) + 1;
        s = slice_of(s.p + batch_size(&h), s.n - batch_size(&h));
    }
}

static void on_fetched(void *arg, const struct client_response *r)
{
    struct program *p = arg;
    const struct kp_fetch_response *a = r->body;
    const struct kp_fetch_response_partitions *part = r->status ? NULL : &a->responses[0].partitions[0];
    if (part && !part->error_code) {
        assert(part->high_watermark >= p->truth->high_watermark); /* P4: never back */
        p->truth->high_watermark = part->high_watermark;
        read_batches(p, part->records.bytes);
    }
    assert(!part || part->error_code != KE_OFFSET_OUT_OF_RANGE); /* what was read would be gone */
    go_on(p, part && !part->error_code ? 0 : 50 * SIM_MS);
}

static void fetch(void *arg)
{
    struct program *p = arg;
    struct client_call *c = client_call(p->client, kp_key_fetch);
    struct kp_fetch_request *q = c->body;
    q->replica_id = -1;
    q->max_wait_ms = 100;
    q->min_bytes = 1;
    q->max_bytes = 1 << 20;
    q->topics = ARENA_NEW(c->arena, struct kp_fetch_request_topics);
    q->topics_n = 1;
    q->topics[0].topic = TOPIC;
    q->topics[0].partitions = ARENA_NEW(c->arena, struct kp_fetch_request_partitions);
    q->topics[0].partitions_n = 1;
    q->topics[0].partitions[0] = (struct kp_fetch_request_partitions){.current_leader_epoch = -1,
                                                                      .fetch_offset = p->offset,
                                                                      .last_fetched_epoch = -1,
                                                                      .log_start_offset = -1,
                                                                      .partition_max_bytes = 2000,
                                                                      .high_watermark = INT64_MAX};
    c->target = (struct client_target){.kind = CLIENT_LEADER, .name = TOPIC};
    c->version_max = 11;
    c->on_response = on_fetched;
    c->arg = p;
    c->timeout_us = 2 * SIM_SECOND;
    client_send(p->client, c);
}

/* ---- nodes ---- */

static struct program *boot(struct truth *t, struct sim_node *node, void (*step)(void *))
{
    struct program *p = calloc(1, sizeof *p);
    p->truth = t;
    p->node = node;
    buf_init(&p->batch, 1 << 20);
    int rc = client_create(sim_node_loop(node), sim_node_net(node),
                           &(struct client_options){.bootstrap = "broker:9092",
                                                    .backoff_max_us = 200 * SIM_MS,
                                                    .connect_timeout_us = SIM_SECOND},
                           &p->client, NULL);
    assert(!rc);
    (void)rc;
    loop_timer_init(&p->again, sim_node_loop(node), step, p);
    loop_timer_in(&p->again, 0);
    return p;
}

static void *boot_producer(void *arg, struct sim_node *node)
{
    return boot(arg, node, produce);
}

static void *boot_reader(void *arg, struct sim_node *node)
{
    return boot(arg, node, fetch);
}

struct world {
    struct sim *sim;
    struct sim_node *broker, *producer, *reader;
    struct truth truth;
    bool calm, syncs_fail;
};

/* Its operator looks every now and then. */
static void revive(void *arg)
{
    struct world *w = arg;
    if (!sim_node_up(w->broker))
        (void)sim_start(w->broker);
    sim_at(w->sim, sim_now_us(w->sim) + rng_range(sim_rng(w->sim), 10, 200) * SIM_MS, revive, w);
}

static void kill_it(void *arg)
{
    struct world *w = arg;
    if (sim_node_up(w->broker))
        sim_kill(w->broker);
}

static void strike(void *arg)
{
    struct world *w = arg;
    struct rng *r = sim_rng(w->sim);
    int64_t now = sim_now_us(w->sim);
    if (w->calm)
        return;
    switch (rng_below(r, w->syncs_fail ? 9 : 5)) {
    case 0: sim_kill(w->broker); break;
    case 1:
    case 2: sim_power_cut(w->broker); break;
    case 3: sim_crash_at(w->broker, SIM_DISK_WRITE, 1 + rng_below(r, 40), rng_below(r, 2)); break;
    case 4: sim_crash_at(w->broker, SIM_DISK_SYNC, 1 + rng_below(r, 6), rng_below(r, 2)); break;
    default: /* the partition is fenced, and its broker started anew soon: on what the page cache has */
        sim_disk_fail(w->broker, SIM_DISK_SYNC, 1 + rng_below(r, 4), 1, -E_IO, "orders-0/");
        sim_at(w->sim, now + rng_range(r, 20, 150) * SIM_MS, kill_it, w);
    }
    sim_at(w->sim, now + rng_range(r, 200, 700) * SIM_MS, strike, w);
}

static bool all_read(void *arg)
{
    struct world *w = arg;
    return w->truth.complete && w->truth.acknowledged == RECORDS;
}

static void run(uint64_t seed, const char *properties, bool syncs_fail)
{
    struct world w = {.truth = {.producer_id = -1}, .syncs_fail = syncs_fail};
    struct sim_broker_options o = {.properties = properties};
    for (int i = 0; i < SEEN_MAX; i++)
        w.truth.seen[i] = -1;
    w.sim = sim_create(&(struct sim_options){.seed = seed, .events_max = 20000000});
    w.broker =
        sim_node_add(w.sim, &(struct sim_node_options){.name = "broker", .boot = sim_broker_boot, .arg = &o});
    w.producer = sim_node_add(
        w.sim, &(struct sim_node_options){.name = "producer", .boot = boot_producer, .arg = &w.truth});
    w.reader = sim_node_add(
        w.sim, &(struct sim_node_options){.name = "reader", .boot = boot_reader, .arg = &w.truth});
    sim_disk_costs(w.broker, &(struct sim_disk_costs){
                                 .open_us = 20, .write_us = 5, .sync_us = 2000, .sync_jitter_us = 4000});
    sim_disk_keep(w.broker, 300000);
    cr_assert(sim_start(w.broker) && sim_start(w.producer) && sim_start(w.reader), "%s", o.refused);
    sim_at(w.sim, sim_now_us(w.sim) + 200 * SIM_MS, strike, &w);
    revive(&w);
    sim_run_until(w.sim, 30 * SIM_SECOND, all_read, &w);
    w.calm = true;
    if (syncs_fail) {
        sim_disk_heal(w.broker);
        kill_it(&w);
    }
    cr_assert_eq(sim_run_until(w.sim, 300 * SIM_SECOND, all_read, &w), SIM_TRUE, "seed %lu: acknowledged %ld",
                 seed, (long)w.truth.acknowledged);
    for (int64_t i = 0; i < RECORDS; i++)
        cr_assert_eq(w.truth.seen[i], i, "seed %lu", seed);
    sim_destroy(w.sim);
}

Test(broker_durability, acknowledged_and_read_records_survive_kills_and_power_cuts)
{
    for (uint64_t seed = 1; seed <= 25; seed++)
        run(seed, NULL, false);
}

Test(broker_durability, small_segments_too)
{
    for (uint64_t seed = 100; seed <= 115; seed++)
        run(seed, "log.roll.ms=300\nlog.flush.offset.checkpoint.interval.ms=700\n", false);
}

Test(broker_durability, and_restarts_after_failed_syncs)
{
    for (uint64_t seed = 200; seed <= 215; seed++)
        run(seed, NULL, true);
}
