/* Produce: split by partition, appended on the owning shards, answered when all have their answer (PROTOCOL.md §2.5).
 *
 * Record bytes stay in the receive buffer, which the request holds; shards write base offset and epoch into them. */
#include "base/core/mutant.h"
#include "broker/api/lookup.h"
#include "broker/api/scatter.h"

#include <stdlib.h>

struct produce_item {
    struct scatter_item item;
    struct partition_append append;
    struct kp_produce_response_partition_responses *out;
    struct produce *produce;
};

struct produce {
    struct scatter scatter;
    const struct kp_produce_request *in;
    struct kp_produce_response *out;
    struct produce_item *items;
    size_t items_n;
};

/* ---- on the owning shard ---- */

static void appended(struct partition_append *a)
{
    struct produce_item *it = LIST_ENTRY(a, struct produce_item, append);
    struct kp_produce_response_partition_responses *out = it->out;
    assert(out);
    assert(a->error || a->acks == 0 || MUTANT("ack_before_append") || a->base_offset >= 0);
    assert(a->error || a->acks == 0 || MUTANT("ack_before_append") || a->last_offset >= a->base_offset);
    out->error_code = a->error;
    out->base_offset = a->base_offset;
    out->log_append_time_ms = a->log_append_time_ms;
    out->log_start_offset = a->log_start_offset;
    if (a->error_text)
        out->error_message = slice_str(a->error_text);
    scatter_done(&it->item);
}

static void append_one(struct scatter_item *item, struct partition *p)
{
    struct produce_item *it = LIST_ENTRY(item, struct produce_item, item);
    assert(!it->out->error_code); /* those with an error are not sent here */
    if (!p) {
        it->out->error_code = KE_NOT_LEADER_OR_FOLLOWER;
        scatter_done(item);
        return;
    }
    it->append.done = appended;
    partition_append(p, &it->append);
}

/* ---- at home ---- */

static void add_record_error(struct api_request *req, struct produce_item *it)
{
    struct kp_produce_response_record_errors *e;
    if (it->append.bad_record < 0 || req->version < 8)
        return;
    e = API_NEW(req, struct kp_produce_response_record_errors);
    if (!e)
        return;
    e->batch_index = it->append.bad_record;
    e->batch_index_error_message = it->out->error_message;
    it->out->record_errors = e;
    it->out->record_errors_n = 1;
}

/* Who leads now, and where to find it (KIP-951). */
static void add_leader(struct api_request *req, struct produce *p, struct produce_item *it)
{
    int32_t leader, epoch;
    if (req->version < 10 || !lookup_current_leader(req, &it->item.topic_id, it->item.index, &leader, &epoch))
        return;
    it->out->current_leader = (struct kp_produce_response_current_leader){leader, epoch};
    const struct image_endpoint *at = lookup_endpoint(req, leader);
    for (int32_t i = 0; i < p->out->node_endpoints_n; i++)
        if (p->out->node_endpoints[i].node_id == leader)
            return;
    if (!at)
        return;
    if (!p->out->node_endpoints)
        p->out->node_endpoints = API_NEWS(req, struct kp_produce_response_node_endpoints, p->items_n);
    struct slice host = arena_dup(&req->arena, at->host);
    if (p->out->node_endpoints && !arena_failed(&req->arena))
        p->out->node_endpoints[p->out->node_endpoints_n++] =
            (struct kp_produce_response_node_endpoints){.node_id = leader, .host = host, .port = at->port};
}

static void finished(struct api_request *req)
{
    struct produce *p = req->state;
    bool failed = false;
    for (size_t i = 0; i < p->items_n; i++) {
        struct produce_item *it = &p->items[i];
        int16_t error = it->out->error_code;
        assert(error || it->out->base_offset >= 0 || p->in->acks == 0); /* success has a place */
        failed |= error != KE_NONE;
        if (!error)
            continue;
        it->out->base_offset = -1;
        add_record_error(req, it);
        if (error == KE_NOT_LEADER_OR_FOLLOWER || error == KE_FENCED_LEADER_EPOCH)
            add_leader(req, p, it);
    }
    if (p->in->acks != 0)
        api_respond(req, p->out);
    else if (failed) /* the only way to tell a client that does not listen */
        api_close(req, "produce with acks=0 failed");
    else
        api_drop(req);
}

/* The error of every partition of the request, or KE_NONE. */
static int16_t request_error(const struct kp_produce_request *in)
{
    if (in->acks < -1 || in->acks > 1)
        return KE_INVALID_REQUIRED_ACKS;
    /* There are no transactions: final for every client. */
    return slice_is_null(in->transactional_id) ? KE_NONE : KE_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
}

static int by_partition(const void *a, const void *b)
{
    const struct produce_item *x = *(struct produce_item *const *)a, *y = *(struct produce_item *const *)b;
    int c = memcmp(&x->item.topic_id, &y->item.topic_id, sizeof(struct uuid));
    return c ? c : (x->item.index > y->item.index) - (x->item.index < y->item.index);
}

/* A partition that is named twice has no order of its own: none of the two is appended. */
static void refuse_doubles(struct api_request *req, struct produce *p)
{
    if (p->items_n < 2)
        return;
    struct produce_item **sorted = API_NEWS(req, struct produce_item *, p->items_n);
    if (!sorted)
        return;
    for (size_t i = 0; i < p->items_n; i++)
        sorted[i] = &p->items[i];
    qsort(sorted, p->items_n, sizeof *sorted, by_partition);
    for (size_t i = 1; i < p->items_n; i++)
        if (!sorted[i]->out->error_code && by_partition(&sorted[i - 1], &sorted[i]) == 0)
            sorted[i - 1]->out->error_code = sorted[i]->out->error_code = KE_INVALID_REQUEST;
}

static void add_partition(struct api_request *req, struct produce *p, const struct image_topic *t,
                          int16_t error, const struct kp_produce_request_partition_data *in,
                          struct kp_produce_response_partition_responses *out)
{
    struct produce_item *it = &p->items[p->items_n++];
    assert(!it->out);
    assert(error || t);
    it->out = out;
    it->produce = p;
    it->item.index = in->index;
    if (t)
        it->item.topic_id = t->id;
    if (!error && t->internal)
        error = KE_INVALID_TOPIC_EXCEPTION;
    if (!error && (in->index < 0 || in->index >= t->partitions_n))
        error = KE_UNKNOWN_TOPIC_OR_PARTITION;
    if (!error && in->records.bytes.n == 0)
        error = KE_INVALID_RECORD;
    *out = (struct kp_produce_response_partition_responses){.index = in->index,
                                                            .error_code = error,
                                                            .base_offset = -1,
                                                            .log_append_time_ms = -1,
                                                            .log_start_offset = -1,
                                                            .current_leader = {-1, -1}};
    it->append = (struct partition_append){
        .batch = (uint8_t *)(uintptr_t)in->records.bytes.p,
        .batch_bytes = in->records.bytes.n,
        .origin = PARTITION_CLIENT,
        .acks = p->in->acks,
        .leader_epoch = -1,
        .timeout_us = (int64_t)(p->in->timeout_ms > 0 ? p->in->timeout_ms : 1) * 1000,
        .produce_version = req->version,
        .bad_record = -1};
}

/* Items and response, one to one. False: out of memory. */
static bool prepare(struct api_request *req, struct produce *p)
{
    const struct kp_produce_request *in = p->in;
    size_t n = 0;
    for (int32_t t = 0; t < in->topic_data_n; t++)
        n += (size_t)in->topic_data[t].partition_data_n;
    int32_t topics = in->topic_data_n > 0 ? in->topic_data_n : 0;
    p->items = API_NEWS(req, struct produce_item, n);
    p->out = API_NEW(req, struct kp_produce_response);
    if (!p->items || !p->out)
        return false;
    p->out->responses = API_NEWS(req, struct kp_produce_response_responses, topics);
    p->out->responses_n = topics;
    int16_t refused = request_error(in);
    for (int32_t t = 0; t < topics && p->out->responses; t++) {
        const struct kp_produce_request_topic_data *from = &in->topic_data[t];
        struct kp_produce_response_responses *to = &p->out->responses[t];
        int16_t error;
        const struct image_topic *topic =
            lookup_topic(req, req->version >= 13, from->name, &from->topic_id, &error);
        to->name = from->name;
        to->topic_id = from->topic_id;
        to->partition_responses =
            API_NEWS(req, struct kp_produce_response_partition_responses, from->partition_data_n);
        if (!to->partition_responses)
            return false;
        to->partition_responses_n = from->partition_data_n;
        for (int32_t i = 0; i < from->partition_data_n; i++)
            add_partition(req, p, topic, refused ? refused : error, &from->partition_data[i],
                          &to->partition_responses[i]);
    }
    assert(arena_failed(&req->arena) || p->items_n == n); /* one to one */
    return !arena_failed(&req->arena);
}

void handle_produce(struct api_request *req)
{
    struct produce *p = API_NEW(req, struct produce);
    if (p) {
        p->in = req->body;
        p->scatter = (struct scatter){.req = req, .run = append_one, .finished = finished};
    }
    if (!p || !prepare(req, p) || !scatter_init(&p->scatter)) {
        api_close(req, "out of memory");
        return;
    }
    req->state = p;
    refuse_doubles(req, p);
    for (size_t i = 0; i < p->items_n; i++)
        if (!p->items[i].out->error_code)
            scatter_add(&p->scatter, &p->items[i].item);
    scatter_start(&p->scatter);
}
