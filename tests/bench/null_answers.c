/* One function an API: a decoded request to an answer in the arena. */
#include "tests/bench/null.h"

#include "proto/kafka/errors.h"

#include <stdlib.h>

#define ANSWER_BYTES ((size_t)64 << 20) /* records in one Fetch answer, whatever is asked for */

/* What is said to be served: versions without topic ids. */
static const int16_t served[][3] = {
    {kp_key_produce, 3, 9},
    {kp_key_fetch, 4, 11},
    {kp_key_list_offsets, 1, 5},
    {kp_key_metadata, 1, 8},
    {kp_key_find_coordinator, 0, 2},
    {kp_key_list_groups, 0, 2},
    {kp_key_create_topics, 2, 4},
    {kp_key_init_producer_id, 0, 4},
    {kp_key_offset_for_leader_epoch, 2, 3},
    {kp_key_describe_producers, 0, 0},
    {kp_key_api_versions, 0, 3},
};
#define SERVED_N ((int)(sizeof served / sizeof *served))

static int32_t node = 1;

static void *api_versions(struct null_broker *b, const void *request)
{
    (void)request;
    struct kp_api_versions_response *a = ARENA_NEW(&b->arena, struct kp_api_versions_response);
    kp_init(&kp_api_versions_response_message, a);
    a->api_keys = ARENA_NEWS(&b->arena, struct kp_api_versions_response_api_keys, SERVED_N);
    for (a->api_keys_n = 0; a->api_keys_n < SERVED_N; a->api_keys_n++) {
        const int16_t *row = served[a->api_keys_n];
        a->api_keys[a->api_keys_n] = (struct kp_api_versions_response_api_keys){row[0], row[1], row[2]};
    }
    return a;
}

static void describe_topic(struct null_broker *b, struct slice name, struct kp_metadata_response_topics *t)
{
    const struct null_topic *topic = null_topic(b, name);
    *t = (struct kp_metadata_response_topics){.name = name, .topic_authorized_operations = INT32_MIN};
    if (!topic) {
        t->error_code = KE_UNKNOWN_TOPIC_OR_PARTITION;
        return;
    }
    t->partitions = ARENA_NEWS(&b->arena, struct kp_metadata_response_partitions, topic->partitions_n);
    for (t->partitions_n = 0; t->partitions_n < topic->partitions_n; t->partitions_n++)
        t->partitions[t->partitions_n] =
            (struct kp_metadata_response_partitions){.partition_index = t->partitions_n,
                                                     .leader_id = node,
                                                     .replica_nodes = &node,
                                                     .replica_nodes_n = 1,
                                                     .isr_nodes = &node,
                                                     .isr_nodes_n = 1};
}

static void *metadata(struct null_broker *b, const void *request)
{
    const struct kp_metadata_request *q = request;
    struct kp_metadata_response *a = ARENA_NEW(&b->arena, struct kp_metadata_response);
    kp_init(&kp_metadata_response_message, a);
    a->brokers = ARENA_NEW(&b->arena, struct kp_metadata_response_brokers);
    a->brokers_n = 1;
    *a->brokers = (struct kp_metadata_response_brokers){node, slice_str(b->host), b->port, SLICE_NULL};
    a->controller_id = node;
    a->cluster_id = arena_printf(&b->arena, "null-%d", b->port);
    bool all = q->topics_n < 0 && b->role != NULL_ANY;
    int32_t n = all ? b->topics_n : q->topics_n > 0 ? q->topics_n : 0;
    a->topics = ARENA_NEWS(&b->arena, struct kp_metadata_response_topics, n);
    for (a->topics_n = 0; a->topics_n < n; a->topics_n++)
        describe_topic(b, all ? b->topics[a->topics_n].name : q->topics[a->topics_n].name,
                       &a->topics[a->topics_n]);
    return a;
}

static void *create_topics(struct null_broker *b, const void *request)
{
    const struct kp_create_topics_request *q = request;
    struct kp_create_topics_response *a = ARENA_NEW(&b->arena, struct kp_create_topics_response);
    kp_init(&kp_create_topics_response_message, a);
    a->topics = ARENA_NEWS(&b->arena, struct kp_create_topics_response_topics, q->topics_n);
    for (a->topics_n = 0; a->topics_n < q->topics_n; a->topics_n++) {
        const struct kp_create_topics_request_topics *from = &q->topics[a->topics_n];
        int16_t code = KE_NONE;
        if (null_topic(b, from->name))
            code = KE_TOPIC_ALREADY_EXISTS;
        else if (!q->validate_only && !null_topic_make(b, from->name, from->num_partitions))
            code = KE_INVALID_PARTITIONS;
        a->topics[a->topics_n] = (struct kp_create_topics_response_topics){
            .name = from->name, .error_code = code, .error_message = SLICE_NULL};
    }
    return a;
}

static void *list_offsets(struct null_broker *b, const void *request)
{
    const struct kp_list_offsets_request *q = request;
    struct kp_list_offsets_response *a = ARENA_NEW(&b->arena, struct kp_list_offsets_response);
    kp_init(&kp_list_offsets_response_message, a);
    a->topics = ARENA_NEWS(&b->arena, struct kp_list_offsets_response_topics, q->topics_n);
    for (a->topics_n = 0; a->topics_n < q->topics_n; a->topics_n++) {
        const struct kp_list_offsets_request_topics *from = &q->topics[a->topics_n];
        struct kp_list_offsets_response_topics *t = &a->topics[a->topics_n];
        struct null_topic *topic = null_topic(b, from->name);
        t->name = from->name;
        t->partitions = ARENA_NEWS(&b->arena, struct kp_list_offsets_response_partitions, from->partitions_n);
        for (; t->partitions_n < from->partitions_n; t->partitions_n++) {
            const struct kp_list_offsets_request_partitions *f = &from->partitions[t->partitions_n];
            const struct null_partition *p = null_partition(topic, f->partition_index);
            t->partitions[t->partitions_n] = (struct kp_list_offsets_response_partitions){
                .partition_index = f->partition_index,
                .error_code = p ? KE_NONE : KE_UNKNOWN_TOPIC_OR_PARTITION,
                .timestamp = -1,
                .offset = !p                   ? -1
                          : f->timestamp == -1 ? null_end(topic, p)
                                               : 0};
        }
    }
    return a;
}

static void *offset_for_leader_epoch(struct null_broker *b, const void *request)
{
    const struct kp_offset_for_leader_epoch_request *q = request;
    struct kp_offset_for_leader_epoch_response *a =
        ARENA_NEW(&b->arena, struct kp_offset_for_leader_epoch_response);
    kp_init(&kp_offset_for_leader_epoch_response_message, a);
    a->topics = ARENA_NEWS(&b->arena, struct kp_offset_for_leader_epoch_response_topics, q->topics_n);
    for (a->topics_n = 0; a->topics_n < q->topics_n; a->topics_n++) {
        const struct kp_offset_for_leader_epoch_request_topics *from = &q->topics[a->topics_n];
        struct kp_offset_for_leader_epoch_response_topics *t = &a->topics[a->topics_n];
        struct null_topic *topic = null_topic(b, from->topic);
        t->topic = from->topic;
        t->partitions =
            ARENA_NEWS(&b->arena, struct kp_offset_for_leader_epoch_response_partitions, from->partitions_n);
        for (; t->partitions_n < from->partitions_n; t->partitions_n++) {
            int32_t index = from->partitions[t->partitions_n].partition;
            const struct null_partition *p = null_partition(topic, index);
            t->partitions[t->partitions_n] = (struct kp_offset_for_leader_epoch_response_partitions){
                .partition = index,
                .error_code = p ? KE_NONE : KE_UNKNOWN_TOPIC_OR_PARTITION,
                .end_offset = p ? null_end(topic, p) : -1};
        }
    }
    return a;
}

static void *find_coordinator(struct null_broker *b, const void *request)
{
    (void)request;
    struct kp_find_coordinator_response *a = ARENA_NEW(&b->arena, struct kp_find_coordinator_response);
    kp_init(&kp_find_coordinator_response_message, a);
    a->node_id = node;
    a->host = slice_str(b->host);
    a->port = b->port;
    return a;
}

static void *list_groups(struct null_broker *b, const void *request)
{
    (void)request;
    struct kp_list_groups_response *a = ARENA_NEW(&b->arena, struct kp_list_groups_response);
    kp_init(&kp_list_groups_response_message, a);
    return a;
}

static void *init_producer_id(struct null_broker *b, const void *request)
{
    (void)request;
    struct kp_init_producer_id_response *a = ARENA_NEW(&b->arena, struct kp_init_producer_id_response);
    kp_init(&kp_init_producer_id_response_message, a);
    a->producer_id = b->producers++;
    return a;
}

static void describe_partition(struct null_broker *b, struct null_topic *topic, int32_t index,
                               struct kp_describe_producers_response_partitions *to)
{
    const struct null_partition *p = null_partition(topic, index);
    *to = (struct kp_describe_producers_response_partitions){.partition_index = index,
                                                             .error_code =
                                                                 p ? KE_NONE : KE_UNKNOWN_TOPIC_OR_PARTITION,
                                                             .error_message = SLICE_NULL};
    if (!p || p->producer_id < 0)
        return;
    to->active_producers = ARENA_NEW(&b->arena, struct kp_describe_producers_response_active_producers);
    to->active_producers_n = 1;
    *to->active_producers =
        (struct kp_describe_producers_response_active_producers){.producer_id = p->producer_id,
                                                                 .producer_epoch = p->producer_epoch,
                                                                 .last_sequence = p->sequence,
                                                                 .last_timestamp = p->timestamp,
                                                                 .current_txn_start_offset = -1};
}

static void *describe_producers(struct null_broker *b, const void *request)
{
    const struct kp_describe_producers_request *q = request;
    struct kp_describe_producers_response *a = ARENA_NEW(&b->arena, struct kp_describe_producers_response);
    kp_init(&kp_describe_producers_response_message, a);
    a->topics = ARENA_NEWS(&b->arena, struct kp_describe_producers_response_topics, q->topics_n);
    for (a->topics_n = 0; a->topics_n < q->topics_n; a->topics_n++) {
        const struct kp_describe_producers_request_topics *from = &q->topics[a->topics_n];
        struct kp_describe_producers_response_topics *t = &a->topics[a->topics_n];
        t->name = from->name;
        t->partitions = ARENA_NEWS(&b->arena, struct kp_describe_producers_response_partitions,
                                   from->partition_indexes_n);
        for (; t->partitions_n < from->partition_indexes_n; t->partitions_n++)
            describe_partition(b, null_topic(b, from->name), from->partition_indexes[t->partitions_n],
                               &t->partitions[t->partitions_n]);
    }
    return a;
}

static void *produce(struct null_broker *b, const void *request)
{
    const struct kp_produce_request *q = request;
    struct kp_produce_response *a = ARENA_NEW(&b->arena, struct kp_produce_response);
    kp_init(&kp_produce_response_message, a);
    a->responses = ARENA_NEWS(&b->arena, struct kp_produce_response_responses, q->topic_data_n);
    for (a->responses_n = 0; a->responses_n < q->topic_data_n; a->responses_n++) {
        const struct kp_produce_request_topic_data *from = &q->topic_data[a->responses_n];
        struct kp_produce_response_responses *t = &a->responses[a->responses_n];
        struct null_topic *topic = null_topic(b, from->name);
        t->name = from->name;
        t->partition_responses =
            ARENA_NEWS(&b->arena, struct kp_produce_response_partition_responses, from->partition_data_n);
        for (int32_t i = 0; i < from->partition_data_n; i++) {
            const struct kp_produce_request_partition_data *f = &from->partition_data[i];
            struct null_partition *p = null_partition(topic, f->index);
            t->partition_responses[t->partition_responses_n++] =
                (struct kp_produce_response_partition_responses){
                    .index = f->index,
                    .error_code = p ? KE_NONE : KE_UNKNOWN_TOPIC_OR_PARTITION,
                    .base_offset = p ? null_append(topic, p, f->records.bytes) : -1,
                    .log_append_time_ms = -1,
                    .error_message = SLICE_NULL};
        }
    }
    return q->acks ? a : NULL;
}

/* `left`: how many bytes the answer may still grow by; the first partition that has any is given some all the same. */
static void fetch_one(struct null_broker *b, struct null_topic *topic,
                      const struct kp_fetch_request_partitions *f, size_t *left,
                      struct kp_fetch_response_partitions *to)
{
    struct null_partition *p = null_partition(topic, f->partition);
    *to = (struct kp_fetch_response_partitions){.partition_index = f->partition,
                                                .error_code = p ? KE_NONE : KE_UNKNOWN_TOPIC_OR_PARTITION,
                                                .preferred_read_replica = -1};
    if (!p)
        return;
    to->high_watermark = to->last_stable_offset = null_end(topic, p);
    if (*left == 0)
        return;
    size_t most = f->partition_max_bytes > 0 ? (size_t)f->partition_max_bytes : 0;
    to->records.bytes = null_read(b, topic, p, f->fetch_offset, most < *left ? most : *left);
    *left -= to->records.bytes.n < *left ? to->records.bytes.n : *left;
}

static void *fetch(struct null_broker *b, const void *request)
{
    const struct kp_fetch_request *q = request;
    struct kp_fetch_response *a = ARENA_NEW(&b->arena, struct kp_fetch_response);
    size_t left =
        q->max_bytes > 0 && (size_t)q->max_bytes < ANSWER_BYTES ? (size_t)q->max_bytes : ANSWER_BYTES;
    kp_init(&kp_fetch_response_message, a);
    a->responses = ARENA_NEWS(&b->arena, struct kp_fetch_response_responses, q->topics_n);
    for (a->responses_n = 0; a->responses_n < q->topics_n; a->responses_n++) {
        const struct kp_fetch_request_topics *from = &q->topics[a->responses_n];
        struct kp_fetch_response_responses *t = &a->responses[a->responses_n];
        struct null_topic *topic = null_topic(b, from->topic);
        t->topic = from->topic;
        t->partitions = ARENA_NEWS(&b->arena, struct kp_fetch_response_partitions, from->partitions_n);
        for (; t->partitions_n < from->partitions_n; t->partitions_n++)
            fetch_one(b, topic, &from->partitions[t->partitions_n], &left, &t->partitions[t->partitions_n]);
    }
    return a;
}

void *null_answer(struct null_broker *b, int16_t key, const void *request)
{
    switch (key) {
    case kp_key_produce: return produce(b, request);
    case kp_key_fetch: return fetch(b, request);
    case kp_key_list_offsets: return list_offsets(b, request);
    case kp_key_metadata: return metadata(b, request);
    case kp_key_find_coordinator: return find_coordinator(b, request);
    case kp_key_list_groups: return list_groups(b, request);
    case kp_key_create_topics: return create_topics(b, request);
    case kp_key_init_producer_id: return init_producer_id(b, request);
    case kp_key_offset_for_leader_epoch: return offset_for_leader_epoch(b, request);
    case kp_key_describe_producers: return describe_producers(b, request);
    case kp_key_api_versions: return api_versions(b, request);
    default: BENCH_DIE("API %d is not served", key);
    }
}
