/* OffsetForLeaderEpoch (KIP-101, 279, 320): where an epoch ended, for clients that look for truncation. */
#include "broker/api/lookup.h"
#include "broker/api/scatter.h"
#include "broker/log/log.h"

struct epoch_item {
    struct scatter_item item;
    const struct kp_offset_for_leader_epoch_request_partitions *in;
    struct kp_offset_for_leader_epoch_response_partitions *out;
};

struct epochs {
    struct scatter scatter;
    struct kp_offset_for_leader_epoch_response *out;
    struct epoch_item *items;
    size_t items_n;
};

static void look(struct scatter_item *item, struct partition *p)
{
    struct epoch_item *it = LIST_ENTRY(item, struct epoch_item, item);
    it->out->error_code = lookup_leader_error(p, it->in->current_leader_epoch);
    if (!it->out->error_code) {
        struct log_epoch_end end = log_epoch_end(partition_log(p), it->in->leader_epoch);
        it->out->leader_epoch = end.epoch;
        it->out->end_offset = end.end_offset;
    }
    scatter_done(item);
}

static void finished(struct api_request *req)
{
    struct epochs *e = req->state;
    api_respond(req, e->out);
}

static void add(struct epochs *e, const struct image_topic *t, int16_t error,
                const struct kp_offset_for_leader_epoch_request_partitions *in,
                struct kp_offset_for_leader_epoch_response_partitions *out)
{
    assert(error || t);
    struct epoch_item *it = &e->items[e->items_n++];
    if (!error && (in->partition < 0 || in->partition >= t->partitions_n))
        error = KE_UNKNOWN_TOPIC_OR_PARTITION;
    *it = (struct epoch_item){.in = in, .out = out};
    *out = (struct kp_offset_for_leader_epoch_response_partitions){
        .error_code = error, .partition = in->partition, .leader_epoch = -1, .end_offset = -1};
    if (error)
        return;
    it->item.topic_id = t->id;
    it->item.index = in->partition;
    scatter_add(&e->scatter, &it->item);
}

static bool prepare(struct api_request *req, struct epochs *e)
{
    const struct kp_offset_for_leader_epoch_request *in = req->body;
    size_t n = 0;
    for (int32_t t = 0; t < in->topics_n; t++)
        n += (size_t)in->topics[t].partitions_n;
    e->items = API_NEWS(req, struct epoch_item, n);
    e->out = API_NEW(req, struct kp_offset_for_leader_epoch_response);
    if (!e->items || !e->out || !scatter_init(&e->scatter))
        return false;
    e->out->topics_n = in->topics_n;
    e->out->topics = API_NEWS(req, struct kp_offset_for_leader_epoch_response_topics, in->topics_n);
    for (int32_t t = 0; t < in->topics_n && e->out->topics; t++) {
        const struct kp_offset_for_leader_epoch_request_topics *from = &in->topics[t];
        struct kp_offset_for_leader_epoch_response_topics *to = &e->out->topics[t];
        int16_t error;
        const struct image_topic *topic = lookup_topic(req, false, from->topic, NULL, &error);
        to->topic = from->topic;
        to->partitions_n = from->partitions_n;
        to->partitions =
            API_NEWS(req, struct kp_offset_for_leader_epoch_response_partitions, from->partitions_n);
        for (int32_t i = 0; i < from->partitions_n && to->partitions; i++)
            add(e, topic, error, &from->partitions[i], &to->partitions[i]);
    }
    assert(arena_failed(&req->arena) || e->items_n == n);
    return !arena_failed(&req->arena);
}

void handle_offset_for_leader_epoch(struct api_request *req)
{
    struct epochs *e = API_NEW(req, struct epochs);
    if (e)
        e->scatter = (struct scatter){.req = req, .run = look, .finished = finished};
    if (!e || !prepare(req, e)) {
        api_close(req, "out of memory");
        return;
    }
    req->state = e;
    scatter_start(&e->scatter);
}
