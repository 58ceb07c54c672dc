/* DescribeProducers (KIP-664): the producer ids that a partition remembers. */
#include "broker/api/lookup.h"
#include "broker/api/scatter.h"
#include "broker/log/log.h"

#include <stdlib.h>

struct producers_item {
    struct scatter_item item;
    struct kp_describe_producers_response_partitions *out;
    struct kp_describe_producers_response_active_producers *found; /* the owner's; freed on release */
    size_t n, cap;
    bool failed;
};

struct producers {
    struct scatter scatter;
    struct kp_describe_producers_response *out;
    struct producers_item *items;
    size_t items_n;
    struct api_release release;
};

/* The arena is not the owner's alone while others run: what is found goes to the heap. */
static void found(void *arg, const struct log_producer *p)
{
    struct producers_item *it = arg;
    if (it->n == it->cap && !it->failed) {
        size_t cap = it->cap ? 2 * it->cap : 16;
        void *more = realloc(it->found, cap * sizeof *it->found);
        it->failed = !more;
        if (more) {
            it->found = more;
            it->cap = cap;
        }
    }
    if (it->failed)
        return;
    assert(it->n < it->cap);
    it->found[it->n++] = (struct kp_describe_producers_response_active_producers){
        .producer_id = p->producer_id,
        .producer_epoch = p->epoch,
        .last_sequence = p->last_sequence,
        .last_timestamp = p->last_timestamp_ms,
        .coordinator_epoch = p->coordinator_epoch,
        .current_txn_start_offset = p->txn_first_offset,
    };
}

static void describe(struct scatter_item *item, struct partition *p)
{
    struct producers_item *it = LIST_ENTRY(item, struct producers_item, item);
    it->out->error_code = lookup_leader_error(p, -1);
    if (!it->out->error_code)
        log_each_producer(partition_log(p), found, it);
    scatter_done(item);
}

static void release(struct api_release *r)
{
    struct producers *d = LIST_ENTRY(r, struct producers, release);
    for (size_t i = 0; i < d->items_n; i++)
        free(d->items[i].found);
}

static void finished(struct api_request *req)
{
    struct producers *d = req->state;
    for (size_t i = 0; i < d->items_n; i++) {
        struct producers_item *it = &d->items[i];
        it->out->active_producers = it->found;
        it->out->active_producers_n = (int32_t)it->n;
        if (it->failed)
            it->out->error_code = KE_KAFKA_STORAGE_ERROR;
    }
    api_respond(req, d->out);
}

static void add(struct producers *d, const struct image_topic *t, int16_t error, int32_t index,
                struct kp_describe_producers_response_partitions *out)
{
    assert(error || t);
    struct producers_item *it = &d->items[d->items_n++];
    if (!error && (index < 0 || index >= t->partitions_n))
        error = KE_UNKNOWN_TOPIC_OR_PARTITION;
    *it = (struct producers_item){.out = out};
    *out = (struct kp_describe_producers_response_partitions){.partition_index = index, .error_code = error};
    if (error)
        return;
    it->item.topic_id = t->id;
    it->item.index = index;
    scatter_add(&d->scatter, &it->item);
}

static bool prepare(struct api_request *req, struct producers *d)
{
    const struct kp_describe_producers_request *in = req->body;
    size_t n = 0;
    for (int32_t t = 0; t < in->topics_n; t++)
        n += (size_t)in->topics[t].partition_indexes_n;
    d->items = API_NEWS(req, struct producers_item, n);
    d->out = API_NEW(req, struct kp_describe_producers_response);
    if (!d->items || !d->out || !scatter_init(&d->scatter))
        return false;
    d->out->topics_n = in->topics_n;
    d->out->topics = API_NEWS(req, struct kp_describe_producers_response_topics, in->topics_n);
    for (int32_t t = 0; t < in->topics_n && d->out->topics; t++) {
        const struct kp_describe_producers_request_topics *from = &in->topics[t];
        struct kp_describe_producers_response_topics *to = &d->out->topics[t];
        int16_t error;
        const struct image_topic *topic = lookup_topic(req, false, from->name, NULL, &error);
        to->name = from->name;
        to->partitions_n = from->partition_indexes_n;
        to->partitions = API_NEWS(req, struct kp_describe_producers_response_partitions, to->partitions_n);
        for (int32_t i = 0; i < to->partitions_n && to->partitions; i++)
            add(d, topic, error, from->partition_indexes[i], &to->partitions[i]);
    }
    assert(arena_failed(&req->arena) || d->items_n == n);
    return !arena_failed(&req->arena);
}

void handle_describe_producers(struct api_request *req)
{
    struct producers *d = API_NEW(req, struct producers);
    if (d)
        d->scatter = (struct scatter){.req = req, .run = describe, .finished = finished};
    if (!d || !prepare(req, d)) {
        api_close(req, "out of memory");
        return;
    }
    d->release.fn = release;
    api_on_release(req, &d->release);
    req->state = d;
    scatter_start(&d->scatter);
}
