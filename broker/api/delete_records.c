/* DeleteRecords (PROTOCOL.md §2.11): moves a partition's start; answered when that is on disk. */
#include "broker/api/lookup.h"
#include "broker/api/scatter.h"

struct delete_item {
    struct scatter_item item;
    struct partition_deletion deletion;
    struct partition *partition;
    const struct kp_delete_records_request_partitions *in;
    struct kp_delete_records_response_partitions *out;
};

struct deletion {
    struct scatter scatter;
    struct kp_delete_records_response *out;
    struct delete_item *items;
    size_t items_n;
};

static void deleted(struct partition_deletion *deletion)
{
    struct delete_item *it = LIST_ENTRY(deletion, struct delete_item, deletion);
    assert(it->partition);
    it->out->error_code = deletion->error;
    it->out->low_watermark = deletion->error ? -1 : partition_log_start(it->partition);
    assert(deletion->error || it->out->low_watermark >= it->in->offset);
    scatter_done(&it->item);
}

static void delete_one(struct scatter_item *item, struct partition *p)
{
    struct delete_item *it = LIST_ENTRY(item, struct delete_item, item);
    int16_t error = lookup_leader_error(p, -1);
    if (error) {
        it->out->error_code = error;
        scatter_done(item);
        return;
    }
    it->partition = p;
    it->deletion = (struct partition_deletion){.offset = it->in->offset, .done = deleted};
    partition_delete_records(p, &it->deletion);
}

static void finished(struct api_request *req)
{
    struct deletion *d = req->state;
    api_respond(req, d->out);
}

static void add(struct deletion *d, const struct image_topic *t, int16_t error,
                const struct kp_delete_records_request_partitions *in,
                struct kp_delete_records_response_partitions *out)
{
    assert(error || t);
    struct delete_item *it = &d->items[d->items_n++];
    if (!error && (in->partition_index < 0 || in->partition_index >= t->partitions_n))
        error = KE_UNKNOWN_TOPIC_OR_PARTITION;
    if (!error && t->internal)
        error = KE_INVALID_TOPIC_EXCEPTION;
    *it = (struct delete_item){.in = in, .out = out};
    *out = (struct kp_delete_records_response_partitions){
        .partition_index = in->partition_index, .low_watermark = -1, .error_code = error};
    if (error)
        return;
    it->item.topic_id = t->id;
    it->item.index = in->partition_index;
    scatter_add(&d->scatter, &it->item);
}

static bool prepare(struct api_request *req, struct deletion *d)
{
    const struct kp_delete_records_request *in = req->body;
    size_t n = 0;
    for (int32_t t = 0; t < in->topics_n; t++)
        n += (size_t)in->topics[t].partitions_n;
    d->items = API_NEWS(req, struct delete_item, n);
    d->out = API_NEW(req, struct kp_delete_records_response);
    if (!d->items || !d->out || !scatter_init(&d->scatter))
        return false;
    d->out->topics_n = in->topics_n;
    d->out->topics = API_NEWS(req, struct kp_delete_records_response_topics, in->topics_n);
    for (int32_t t = 0; t < in->topics_n && d->out->topics; t++) {
        const struct kp_delete_records_request_topics *from = &in->topics[t];
        struct kp_delete_records_response_topics *to = &d->out->topics[t];
        int16_t error;
        const struct image_topic *topic = lookup_topic(req, false, from->name, NULL, &error);
        to->name = from->name;
        to->partitions_n = from->partitions_n;
        to->partitions = API_NEWS(req, struct kp_delete_records_response_partitions, from->partitions_n);
        for (int32_t i = 0; i < from->partitions_n && to->partitions; i++)
            add(d, topic, error, &from->partitions[i], &to->partitions[i]);
    }
    assert(arena_failed(&req->arena) || d->items_n == n); /* one to one */
    return !arena_failed(&req->arena);
}

void handle_delete_records(struct api_request *req)
{
    struct deletion *d = API_NEW(req, struct deletion);
    if (d)
        d->scatter = (struct scatter){.req = req, .run = delete_one, .finished = finished};
    if (!d || !prepare(req, d)) {
        api_close(req, "out of memory");
        return;
    }
    req->state = d;
    scatter_start(&d->scatter);
}
