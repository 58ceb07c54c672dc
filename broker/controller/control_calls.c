/* API key → decision, and the answer that says "none of it". */
#include "broker/controller/control_internal.h"

#include <assert.h>

/* ---- decisions that need more than the image ---- */

static void describe_voters(const struct quorum_status *s, int64_t now_ms,
                            struct kp_describe_quorum_response_partitions *p, struct arena *a)
{
    /* a quorum of one: the leader itself */
    assert(s->high_watermark <= s->log_end);
    assert(s->log_start <= s->log_end);
    p->current_voters = ARENA_NEW(a, struct kp_describe_quorum_response_current_voters);
    if (!p->current_voters)
        return;
    p->current_voters_n = 1;
    p->current_voters[0] = (struct kp_describe_quorum_response_current_voters){
        .replica_id = s->node_id,
        .replica_directory_id = s->directory_id,
        .log_end_offset = s->log_end,
        .last_fetch_timestamp = now_ms,
        .last_caught_up_timestamp = now_ms,
    };
}

static bool describe_partition(struct control *c, const struct quorum_status *s,
                               const struct kp_describe_quorum_request_topics *from, int32_t i,
                               struct kp_describe_quorum_response_partitions *p, struct arena *a)
{
    p->partition_index = from->partitions[i].partition_index;
    p->error_message = SLICE_NULL;
    if (!slice_eq_str(from->topic_name, QUORUM_TOPIC) || p->partition_index != 0) {
        p->error_code = KE_UNKNOWN_TOPIC_OR_PARTITION;
        return true;
    }
    p->leader_id = s->leader_id;
    p->leader_epoch = s->epoch;
    p->high_watermark = s->high_watermark;
    describe_voters(s, loop_wall_ms(c->loop), p, a);
    return !arena_failed(a);
}

static bool describe_nodes(struct control *c, struct kp_describe_quorum_response *r, struct arena *a)
{
    r->nodes = ARENA_NEW(a, struct kp_describe_quorum_response_nodes);
    if (!r->nodes)
        return false;
    r->nodes_n = 1;
    r->nodes[0].node_id = c->o.quorum.node_id;
    r->nodes[0].listeners = ARENA_NEWS(a, struct kp_describe_quorum_response_listeners, c->o.endpoints_n);
    for (unsigned i = 0; r->nodes[0].listeners && i < c->o.endpoints_n; i++)
        r->nodes[0].listeners[r->nodes[0].listeners_n++] = (struct kp_describe_quorum_response_listeners){
            slice_str(c->endpoints[i].listener), slice_str(c->endpoints[i].host), c->endpoints[i].port};
    return !arena_failed(a);
}

static int16_t run_describe_quorum(struct control *c, const struct decide *d, struct control_call *call)
{
    const struct kp_describe_quorum_request *q = call->request;
    struct kp_describe_quorum_response *r = call->response;
    struct quorum_status s;
    quorum_status(c->quorum, &s);
    r->error_message = SLICE_NULL;
    r->topics = ARENA_NEWS(d->arena, struct kp_describe_quorum_response_topics, q->topics_n);
    for (; r->topics && r->topics_n < q->topics_n; r->topics_n++) {
        const struct kp_describe_quorum_request_topics *from = &q->topics[r->topics_n];
        struct kp_describe_quorum_response_topics *to = &r->topics[r->topics_n];
        to->topic_name = from->topic_name;
        to->partitions =
            ARENA_NEWS(d->arena, struct kp_describe_quorum_response_partitions, from->partitions_n);
        for (; to->partitions && to->partitions_n < from->partitions_n; to->partitions_n++) {
            if (!describe_partition(c, &s, from, to->partitions_n, &to->partitions[to->partitions_n],
                                    d->arena))
                return KE_UNKNOWN_SERVER_ERROR;
        }
    }
    return describe_nodes(c, r, d->arena) ? KE_NONE : KE_UNKNOWN_SERVER_ERROR;
}

/* ---- the table ---- */

#define RUN(name)                                                                                            \
    static int16_t run_##name(struct control *c, const struct decide *d, struct control_call *call)          \
    {                                                                                                        \
        (void)c;                                                                                             \
        return decide_##name(d, call->request, call->response);                                              \
    }
RUN(create_topics)
RUN(delete_topics)
RUN(create_partitions)
RUN(alter_configs)
RUN(incremental_alter_configs)
RUN(update_features)
RUN(allocate_producer_ids)
RUN(alter_partition)
RUN(assign_replicas_to_dirs)
RUN(controller_registration)
#undef RUN

#define CALLS                                                                                                \
    CALL(create_topics, run_create_topics)                                                                   \
    CALL(delete_topics, run_delete_topics)                                                                   \
    CALL(create_partitions, run_create_partitions)                                                           \
    CALL(alter_configs, run_alter_configs)                                                                   \
    CALL(incremental_alter_configs, run_incremental_alter_configs)                                           \
    CALL(update_features, run_update_features)                                                               \
    CALL(allocate_producer_ids, run_allocate_producer_ids)                                                   \
    CALL(alter_partition, run_alter_partition)                                                               \
    CALL(assign_replicas_to_dirs, run_assign_replicas_to_dirs)                                               \
    CALL(controller_registration, run_controller_registration)                                               \
    CALL(broker_registration, control_run_registration)                                                      \
    CALL(broker_heartbeat, control_run_heartbeat)                                                            \
    CALL(describe_quorum, run_describe_quorum)

static const struct call_row {
    int16_t key;
    const struct kp_message *response;
    int16_t (*run)(struct control *c, const struct decide *d, struct control_call *call);
} calls[] = {
#define CALL(name, run) {kp_key_##name, &kp_##name##_response_message, run},
    CALLS
#undef CALL
};

static const struct call_row *row_of(int16_t key)
{
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (calls[i].key == key)
            return &calls[i];
    }
    return NULL;
}

void control_call_run(struct control *c, struct control_call *call)
{
    const struct call_row *row = row_of(call->api_key);
    assert(row && "an API of the controller");
    struct decide d = control_decide(c, call->arena);
    assert(c->active);
    assert(c->records.n == 0);
    kp_init(row->response, call->response);
    call->error = row->run(c, &d, call);
    if (call->error)
        c->records.n = 0;
}

/* ---- one error for all ---- */

static void fail_create_topics(struct control_call *call, int16_t error)
{
    const struct kp_create_topics_request *q = call->request;
    struct kp_create_topics_response *r = call->response;
    r->topics = ARENA_NEWS(call->arena, struct kp_create_topics_response_topics, q->topics_n);
    for (; r->topics && r->topics_n < q->topics_n; r->topics_n++)
        r->topics[r->topics_n] =
            (struct kp_create_topics_response_topics){.name = q->topics[r->topics_n].name,
                                                      .error_code = error,
                                                      .num_partitions = -1,
                                                      .replication_factor = -1,
                                                      .configs_n = -1};
}

static void fail_delete_topics(struct control_call *call, int16_t error)
{
    const struct kp_delete_topics_request *q = call->request;
    struct kp_delete_topics_response *r = call->response;
    int32_t n = q->topics_n > 0 ? q->topics_n : q->topic_names_n > 0 ? q->topic_names_n : 0;
    r->responses = ARENA_NEWS(call->arena, struct kp_delete_topics_response_responses, n);
    for (; r->responses && r->responses_n < n; r->responses_n++) {
        struct kp_delete_topics_response_responses *to = &r->responses[r->responses_n];
        to->error_code = error;
        to->name = q->topics_n > 0 ? q->topics[r->responses_n].name : q->topic_names[r->responses_n];
        if (q->topics_n > 0)
            to->topic_id = q->topics[r->responses_n].topic_id;
    }
}

static void fail_create_partitions(struct control_call *call, int16_t error)
{
    const struct kp_create_partitions_request *q = call->request;
    struct kp_create_partitions_response *r = call->response;
    r->results = ARENA_NEWS(call->arena, struct kp_create_partitions_response_results, q->topics_n);
    for (; r->results && r->results_n < q->topics_n; r->results_n++)
        r->results[r->results_n] = (struct kp_create_partitions_response_results){
            .name = q->topics[r->results_n].name, .error_code = error};
}

static void fail_alter_configs(struct control_call *call, int16_t error)
{
    const struct kp_alter_configs_request *q = call->request;
    struct kp_alter_configs_response *r = call->response;
    r->responses = ARENA_NEWS(call->arena, struct kp_alter_configs_response_responses, q->resources_n);
    for (; r->responses && r->responses_n < q->resources_n; r->responses_n++)
        r->responses[r->responses_n] = (struct kp_alter_configs_response_responses){
            error, SLICE_NULL, q->resources[r->responses_n].resource_type,
            q->resources[r->responses_n].resource_name};
}

static void fail_incremental_alter_configs(struct control_call *call, int16_t error)
{
    const struct kp_incremental_alter_configs_request *q = call->request;
    struct kp_incremental_alter_configs_response *r = call->response;
    r->responses =
        ARENA_NEWS(call->arena, struct kp_incremental_alter_configs_response_responses, q->resources_n);
    for (; r->responses && r->responses_n < q->resources_n; r->responses_n++)
        r->responses[r->responses_n] = (struct kp_incremental_alter_configs_response_responses){
            error, SLICE_NULL, q->resources[r->responses_n].resource_type,
            q->resources[r->responses_n].resource_name};
}

void control_call_fail(struct control_call *call, int16_t error)
{
    const struct call_row *row = row_of(call->api_key);
    assert(row);
    assert(error != KE_NONE);
    kp_init(row->response, call->response);
    switch (call->api_key) {
    case kp_key_create_topics: fail_create_topics(call, error); break;
    case kp_key_delete_topics: fail_delete_topics(call, error); break;
    case kp_key_create_partitions: fail_create_partitions(call, error); break;
    case kp_key_alter_configs: fail_alter_configs(call, error); break;
    case kp_key_incremental_alter_configs: fail_incremental_alter_configs(call, error); break;
    case kp_key_update_features:
        ((struct kp_update_features_response *)call->response)->error_code = error;
        break;
    case kp_key_allocate_producer_ids:
        ((struct kp_allocate_producer_ids_response *)call->response)->error_code = error;
        break;
    case kp_key_alter_partition:
        ((struct kp_alter_partition_response *)call->response)->error_code = error;
        break;
    case kp_key_assign_replicas_to_dirs:
        ((struct kp_assign_replicas_to_dirs_response *)call->response)->error_code = error;
        break;
    case kp_key_controller_registration:
        ((struct kp_controller_registration_response *)call->response)->error_code = error;
        break;
    case kp_key_broker_registration:
        ((struct kp_broker_registration_response *)call->response)->error_code = error;
        break;
    case kp_key_broker_heartbeat:
        ((struct kp_broker_heartbeat_response *)call->response)->error_code = error;
        break;
    case kp_key_describe_quorum:
        ((struct kp_describe_quorum_response *)call->response)->error_code = error;
        break;
    default: assert(false && "an API of the controller");
    }
}
