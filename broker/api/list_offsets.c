/* ListOffsets (PROTOCOL.md §2.4): the ends, or the first record of a time. */
#include "broker/api/lookup.h"
#include "broker/api/scatter.h"
#include "broker/log/log.h"

enum {
    LATEST = -1,
    EARLIEST = -2,
    MAX_TIMESTAMP = -3,
    EARLIEST_LOCAL = -4,
    LATEST_TIERED = -5 /* nothing is tiered */
};

struct list_item {
    struct scatter_item item;
    enum partition_isolation isolation;
    const struct kp_list_offsets_request_partitions *in;
    struct kp_list_offsets_response_partitions *out;
};

struct listing {
    struct scatter scatter;
    struct kp_list_offsets_response *out;
    struct list_item *items;
    size_t items_n;
};

/* Special timestamps came with versions of their own. */
static bool known(int64_t timestamp, int16_t version)
{
    if (timestamp >= EARLIEST)
        return true;
    return (timestamp == MAX_TIMESTAMP && version >= 7) || (timestamp == EARLIEST_LOCAL && version >= 8) ||
           (timestamp == LATEST_TIERED && version >= 9);
}

static int16_t find(struct partition *p, const struct list_item *it, struct log_time_offset *out)
{
    struct log *log = partition_log(p);
    int64_t limit = partition_limit(p, it->isolation);
    int rc = 0;
    *out = (struct log_time_offset){-1, -1, -1};
    switch (it->in->timestamp) {
    case LATEST: *out = (struct log_time_offset){limit, -1, log_epoch_latest(log)}; break;
    case EARLIEST:
    case EARLIEST_LOCAL:
        out->offset = log_start_offset(log);
        assert(out->offset <= partition_high_watermark(p));
        out->leader_epoch = log_epoch_at(log, out->offset);
        break;
    case LATEST_TIERED: break;
    case MAX_TIMESTAMP: rc = log_find_max_time(log, limit, out, NULL); break;
    default: rc = log_find_time(log, it->in->timestamp, limit, out, NULL);
    }
    return rc ? KE_KAFKA_STORAGE_ERROR : KE_NONE;
}

static void list_one(struct scatter_item *item, struct partition *p)
{
    struct list_item *it = LIST_ENTRY(item, struct list_item, item);
    struct log_time_offset found = {-1, -1, -1};
    int16_t error = lookup_leader_error(p, it->in->current_leader_epoch);
    if (!error)
        error = find(p, it, &found);
    it->out->error_code = error;
    it->out->offset = found.offset;
    it->out->timestamp = found.timestamp_ms;
    it->out->leader_epoch = found.leader_epoch;
    scatter_done(item);
}

static void finished(struct api_request *req)
{
    struct listing *l = req->state;
    api_respond(req, l->out);
}

static void add(struct api_request *req, struct listing *l, const struct image_topic *t, int16_t error,
                const struct kp_list_offsets_request_partitions *in,
                struct kp_list_offsets_response_partitions *out)
{
    assert(error || t);
    const struct kp_list_offsets_request *body = req->body;
    struct list_item *it = &l->items[l->items_n++];
    if (!error && (in->partition_index < 0 || in->partition_index >= t->partitions_n))
        error = KE_UNKNOWN_TOPIC_OR_PARTITION;
    if (!error && !known(in->timestamp, req->version))
        error = KE_UNSUPPORTED_VERSION;
    *it = (struct list_item){.in = in, .out = out};
    it->isolation = body->isolation_level ? PARTITION_COMMITTED : PARTITION_HIGH_WATERMARK;
    it->item.index = in->partition_index;
    *out = (struct kp_list_offsets_response_partitions){.partition_index = in->partition_index,
                                                        .error_code = error,
                                                        .timestamp = -1,
                                                        .offset = -1,
                                                        .leader_epoch = -1};
    if (error)
        return;
    it->item.topic_id = t->id;
    scatter_add(&l->scatter, &it->item);
}

static bool prepare(struct api_request *req, struct listing *l)
{
    const struct kp_list_offsets_request *in = req->body;
    size_t n = 0;
    for (int32_t t = 0; t < in->topics_n; t++)
        n += (size_t)in->topics[t].partitions_n;
    l->items = API_NEWS(req, struct list_item, n);
    l->out = API_NEW(req, struct kp_list_offsets_response);
    if (!l->items || !l->out || !scatter_init(&l->scatter))
        return false;
    l->out->topics_n = in->topics_n;
    l->out->topics = API_NEWS(req, struct kp_list_offsets_response_topics, in->topics_n);
    for (int32_t t = 0; t < in->topics_n && l->out->topics; t++) {
        const struct kp_list_offsets_request_topics *from = &in->topics[t];
        struct kp_list_offsets_response_topics *to = &l->out->topics[t];
        int16_t error;
        const struct image_topic *topic = lookup_topic(req, false, from->name, NULL, &error);
        to->name = from->name;
        to->partitions_n = from->partitions_n;
        to->partitions = API_NEWS(req, struct kp_list_offsets_response_partitions, from->partitions_n);
        for (int32_t i = 0; i < from->partitions_n && to->partitions; i++)
            add(req, l, topic, error, &from->partitions[i], &to->partitions[i]);
    }
    assert(arena_failed(&req->arena) || l->items_n == n);
    return !arena_failed(&req->arena);
}

void handle_list_offsets(struct api_request *req)
{
    struct listing *l = API_NEW(req, struct listing);
    if (l)
        l->scatter = (struct scatter){.req = req, .run = list_one, .finished = finished};
    if (!l || !prepare(req, l)) {
        api_close(req, "out of memory");
        return;
    }
    req->state = l;
    scatter_start(&l->scatter);
}
