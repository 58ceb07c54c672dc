#include "tests/support/serve/sim_client.h"

#include "proto/kafka/batch.h"

#include <assert.h>
#include <stdlib.h>

#define ATTEMPTS 3

struct sim_client {
    struct sim *sim;
    struct sim_node *node;
    const char *bootstrap;
    struct client *client;
    struct loop_msg msg;
    /* The call. */
    enum client_target_kind kind;
    int16_t key, version;
    const void *request;
    bool answered;
    int status;
    struct arena arena;
    struct client_frame *frame;
    void *response;
    struct buf batch;
};

static void *boot(void *arg, struct sim_node *node)
{
    struct sim_client *c = arg;
    int rc = client_create(sim_node_loop(node), sim_node_net(node),
                           &(struct client_options){.bootstrap = c->bootstrap,
                                                    .backoff_max_us = 200 * SIM_MS,
                                                    .connect_timeout_us = SIM_SECOND},
                           &c->client, NULL);
    return rc ? NULL : c;
}

static void destroy(void *arg, void *program)
{
    struct sim_client *c = program;
    (void)arg;
    client_frame_unref(c->frame);
    c->frame = NULL;
    client_destroy(c->client);
    c->client = NULL;
}

struct sim_client *sim_client_add(struct sim *s, const char *name, const char *bootstrap)
{
    struct sim_client *c = calloc(1, sizeof *c);
    assert(c);
    c->sim = s;
    c->bootstrap = bootstrap;
    arena_init(&c->arena, 16 << 20);
    buf_init(&c->batch, 1 << 20);
    c->node =
        sim_node_add(s, &(struct sim_node_options){.name = name, .boot = boot, .destroy = destroy, .arg = c});
    bool up = sim_start(c->node);
    assert(up);
    (void)up;
    return c;
}

void sim_client_free(struct sim_client *c)
{
    sim_kill(c->node);
    arena_fini(&c->arena);
    buf_fini(&c->batch);
    free(c);
}

int sim_client_status(const struct sim_client *c)
{
    return c->status;
}

/* The answer is encoded and decoded again into the test's own arena: what the client gives is gone after the
 * callback. */
static void on_response(void *arg, const struct client_response *r)
{
    struct sim_client *c = arg;
    c->answered = true;
    c->status = r->status;
    if (r->status)
        return;
    const struct kp_message *m = &kp_api_find(c->key)->response;
    struct buf bytes;
    buf_init(&bytes, 16 << 20);
    int rc = kp_encode(m, r->version, r->body, &bytes);
    assert(!rc);
    struct slice kept = arena_dup(&c->arena, buf_slice(&bytes));
    c->response = arena_alloc(&c->arena, m->body->size_bytes);
    rc = kp_decode(m, r->version, kept, &c->arena, c->response, NULL, NULL);
    assert(!rc);
    (void)rc;
    buf_fini(&bytes);
}

static void send_call(struct loop_msg *msg)
{
    struct sim_client *c = LIST_ENTRY(msg, struct sim_client, msg);
    struct client_call *call = client_call(c->client, c->key);
    const struct kp_message *m = &kp_api_find(c->key)->request;
    memcpy(call->body, c->request, m->body->size_bytes);
    call->target.kind = c->kind;
    call->version_min = call->version_max = c->version;
    call->timeout_us = 30 * SIM_SECOND;
    call->on_response = on_response;
    call->arg = c;
    client_send(c->client, call);
}

static bool is_answered(void *arg)
{
    return ((struct sim_client *)arg)->answered;
}

static void ask_once(struct sim_client *c, int64_t limit_us)
{
    arena_reset(&c->arena);
    c->answered = false;
    c->status = -E_TIMEOUT;
    c->response = NULL;
    c->msg.fn = send_call;
    loop_post(sim_node_loop(c->node), &c->msg);
    sim_run_until(c->sim, sim_now_us(c->sim) + limit_us, is_answered, c);
    assert(c->answered); /* the request must outlive the call: give the limit time enough */
}

/* A connection to a machine that has lost its power is found dead by the first call on it. */
const void *sim_client_ask(struct sim_client *c, enum client_target_kind kind, int16_t key, int16_t version,
                           const void *request, int64_t limit_us)
{
    c->kind = kind;
    c->key = key;
    c->version = version;
    c->request = request;
    for (int i = 0; i < ATTEMPTS; i++) {
        ask_once(c, limit_us);
        if (c->status != -E_CLOSED)
            break;
    }
    c->request = NULL; /* the caller's, for this call only */
    return c->response;
}

int16_t sim_client_create_topic(struct sim_client *c, const char *name, int32_t partitions)
{
    struct kp_create_topics_request_topics t = {
        .name = slice_str(name), .num_partitions = partitions, .replication_factor = 1};
    struct kp_create_topics_request q = {.topics = &t, .topics_n = 1, .timeout_ms = 5000};
    const struct kp_create_topics_response *a =
        sim_client_ask(c, CLIENT_ANY, kp_key_create_topics, 5, &q, 60 * SIM_SECOND);
    return a ? a->topics[0].error_code : -1;
}

int16_t sim_client_produce(struct sim_client *c, const char *topic, int32_t partition, int n, int64_t *offset)
{
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    buf_clear(&c->batch);
    batch_begin(&b, &c->batch, &o);
    for (int i = 0; i < n; i++)
        batch_add(&b, &(struct record_new){.timestamp = loop_wall_ms(sim_node_loop(c->node)),
                                           .key = SLICE_LIT("k"),
                                           .value = SLICE_LIT("value")});
    batch_close(&b, NULL);
    struct kp_produce_request_partition_data data = {.index = partition,
                                                     .records = {.bytes = buf_slice(&c->batch)}};
    struct kp_produce_request_topic_data t = {
        .name = slice_str(topic), .partition_data = &data, .partition_data_n = 1};
    struct kp_produce_request q = {.acks = -1, .timeout_ms = 5000, .topic_data = &t, .topic_data_n = 1};
    const struct kp_produce_response *a =
        sim_client_ask(c, CLIENT_ANY, kp_key_produce, 8, &q, 60 * SIM_SECOND);
    if (a && offset)
        *offset = a->responses[0].partition_responses[0].base_offset;
    return a ? a->responses[0].partition_responses[0].error_code : -1;
}

int64_t sim_client_offset(struct sim_client *c, const char *topic, int32_t partition, int64_t which)
{
    struct kp_list_offsets_request_partitions p = {
        .partition_index = partition, .current_leader_epoch = -1, .timestamp = which};
    struct kp_list_offsets_request_topics t = {.name = slice_str(topic), .partitions = &p, .partitions_n = 1};
    struct kp_list_offsets_request q = {.replica_id = -1, .topics = &t, .topics_n = 1};
    const struct kp_list_offsets_response *a =
        sim_client_ask(c, CLIENT_ANY, kp_key_list_offsets, 5, &q, 60 * SIM_SECOND);
    return a ? a->topics[0].partitions[0].offset : -1;
}

int64_t sim_client_fetch(struct sim_client *c, const char *topic, int32_t partition, int64_t offset)
{
    struct kp_fetch_request_partitions p = {.partition = partition,
                                            .current_leader_epoch = -1,
                                            .fetch_offset = offset,
                                            .log_start_offset = -1,
                                            .partition_max_bytes = 1 << 20};
    struct kp_fetch_request_topics t = {.topic = slice_str(topic), .partitions = &p, .partitions_n = 1};
    struct kp_fetch_request q = {.replica_id = -1,
                                 .max_bytes = 1 << 20,
                                 .session_epoch = -1,
                                 .topics = &t,
                                 .topics_n = 1,
                                 .rack_id = SLICE_LIT("")};
    const struct kp_fetch_response *a = sim_client_ask(c, CLIENT_ANY, kp_key_fetch, 11, &q, 60 * SIM_SECOND);
    if (!a)
        return -1000;
    const struct kp_fetch_response_partitions *out = &a->responses[0].partitions[0];
    return out->error_code ? -out->error_code : (int64_t)out->records.bytes.n;
}
