/* The lanes' questions as requests, and the answers back to them. */
#include "mirror/target/appender_internal.h"

#include "base/core/arena.h"

#include <stdio.h>

static void finish(struct ask *ask)
{
    assert(list_linked(&ask->link)); /* sent, and not ended before */
    assert(!ask->batch || ask->batch->driver == ask);
    list_remove(&ask->link);
    if (ask->batch)
        ask->batch->driver = NULL;
}

/* One of the lane's questions, to the leader of its partition; NULL when there is no room for it. */
static struct ask *begin(struct appender *a, struct lane *l, const struct lane_effect *e, int16_t api,
                         void (*answered)(void *arg, const struct client_response *r))
{
    struct client_target leader = {CLIENT_LEADER, slice_str(a->topic), l->c.partition, CLIENT_LANE_AUTO};
    struct client_call *call = client_ask(a->client, &(struct client_ask){.api = api,
                                                                          .target = leader,
                                                                          .timeout_us = APPENDER_ASK_US,
                                                                          .send_within_us = APPENDER_SEND_US,
                                                                          .on_response = answered});
    struct ask *ask = call ? ARENA_NEW(call->arena, struct ask) : NULL;
    if (!ask) {
        if (call)
            client_cancel(a->client, call);
        return NULL;
    }
    *ask = (struct ask){
        .appender = a, .lane = l, .call = call, .kind = e->kind, .ticket = e->ticket, .from = e->from};
    call->arg = ask; /* it lies in the call's own arena */
    return ask;
}

static void send(struct ask *ask)
{
    assert(!list_linked(&ask->link));
    assert((ask->batch != NULL) == (ask->kind == LANE_PRODUCE));
    list_push(&ask->appender->asks, &ask->link);
    client_send(ask->appender->client, ask->call);
}

/* No memory for the call's own structures, or no free call. */
static void give_up(struct ask *ask)
{
    client_cancel(ask->appender->client, ask->call);
}

static struct lane_trouble trouble_of(const struct client_response *r)
{
    return (struct lane_trouble){.status = r->status, .text = r->err ? r->err->text : NULL};
}

static const struct lane_trouble malformed = {.status = -E_CORRUPT,
                                              .text = "an answer without the partition asked for"};

static int32_t leader_epoch(const struct appender *a, const struct lane *l)
{
    const struct client_topic *t = appender_topic(a);
    return t && l->c.partition < t->partitions_n ? t->partitions[l->c.partition].leader_epoch : -1;
}

/* ---- Produce ---- */

static void produced(void *arg, const struct client_response *r)
{
    struct ask *ask = arg;
    struct appender *a = ask->appender;
    const struct kp_produce_response *m = r->body;
    struct lane_answer answer = {.status = r->status,
                                 .sent = r->sent,
                                 .base_offset = -1,
                                 .append_time_ms = -1,
                                 .text = r->err ? r->err->text : NULL};
    char words[256];
    finish(ask);
    if (m && m->responses_n == 1 && m->responses[0].partition_responses_n == 1) {
        const struct kp_produce_response_partition_responses *p = &m->responses[0].partition_responses[0];
        answer.error = p->error_code;
        answer.base_offset = p->base_offset;
        answer.append_time_ms = p->log_append_time_ms;
        if (!slice_is_null(p->error_message)) {
            snprintf(words, sizeof words, "%s: %.*s", kafka_error_name(p->error_code),
                     (int)(p->error_message.n < 200 ? p->error_message.n : 200),
                     (const char *)p->error_message.p);
            answer.text = words;
        }
    } else if (r->status == 0) {
        answer.status = -E_CORRUPT;
        answer.sent = true;
    }
    lane_produced(ask->lane, ask->batch, &answer);
    appender_answered(a);
}

static bool build_produce(struct appender *a, struct ask *ask, const struct lane_batch *b)
{
    struct arena *arena = ask->call->arena;
    struct kp_produce_request *q = ask->call->body;
    struct kp_produce_request_topic_data *t = ARENA_NEW(arena, struct kp_produce_request_topic_data);
    struct kp_produce_request_partition_data *p = ARENA_NEW(arena, struct kp_produce_request_partition_data);
    if (!t || !p)
        return false;
    assert(lane_batch_bytes(b).n > 0);
    p->index = ask->lane->c.partition;
    p->records.bytes = lane_batch_bytes(b);
    t->name = slice_str(a->topic);
    t->topic_id = a->topic_id;
    t->partition_data = p;
    t->partition_data_n = 1;
    q->acks = -1;
    q->timeout_ms = (int32_t)(a->request_timeout_us / 1000);
    q->topic_data = t;
    q->topic_data_n = 1;
    /* Rule 5: by id where there is one, so that a topic created again does not take it. */
    if (uuid_is_zero(&a->topic_id))
        ask->call->version_max = 12;
    ask->call->timeout_us = a->request_timeout_us + APPENDER_SEND_US;
    return true;
}

static void produce(struct appender *a, struct lane *l, const struct lane_effect *e)
{
    struct ask *ask = begin(a, l, e, kp_key_produce, produced);
    assert(e->batch->state == LANE_BATCH_SENT);
    assert(!e->batch->driver);
    if (ask && build_produce(a, ask, e->batch)) {
        ask->batch = e->batch;
        e->batch->driver = ask;
        send(ask);
        return;
    }
    if (ask)
        give_up(ask);
    lane_produced(l, e->batch,
                  &(struct lane_answer){.status = -E_LIMIT, .text = "too many requests are open"});
}

void appender_cancel(struct appender *a, struct lane_batch *b)
{
    struct ask *ask = b->driver;
    assert(b->state == LANE_BATCH_CANCELLED);
    if (ask) {
        finish(ask);
        client_cancel(a->client, ask->call);
    }
    lane_batch_give(a->budget, b);
}

/* ---- ListOffsets: the start, then the end ---- */

static bool build_offsets(struct appender *a, struct ask *ask, int64_t timestamp)
{
    struct arena *arena = ask->call->arena;
    struct kp_list_offsets_request *q = ask->call->body;
    struct kp_list_offsets_request_topics *t = ARENA_NEW(arena, struct kp_list_offsets_request_topics);
    struct kp_list_offsets_request_partitions *p =
        ARENA_NEW(arena, struct kp_list_offsets_request_partitions);
    if (!t || !p)
        return false;
    p->partition_index = ask->lane->c.partition;
    p->current_leader_epoch = leader_epoch(a, ask->lane);
    p->timestamp = timestamp;
    t->name = slice_str(a->topic);
    t->partitions = p;
    t->partitions_n = 1;
    q->replica_id = -1;
    q->topics = t;
    q->topics_n = 1;
    q->timeout_ms = APPENDER_ASK_US / 1000;
    ask->call->version_min = 4; /* leader epochs */
    return true;
}

static void offsets_answered(void *arg, const struct client_response *r);

static bool ask_end(struct ask *first, int64_t log_start)
{
    struct lane_effect e = {.kind = LANE_OFFSETS, .ticket = first->ticket};
    struct ask *ask = begin(first->appender, first->lane, &e, kp_key_list_offsets, offsets_answered);
    if (!ask)
        return false;
    ask->log_start = log_start;
    if (!build_offsets(first->appender, ask, -1)) {
        give_up(ask);
        return false;
    }
    send(ask);
    return true;
}

static void offsets_answered(void *arg, const struct client_response *r)
{
    struct ask *ask = arg;
    struct appender *a = ask->appender;
    const struct kp_list_offsets_response *m = r->body;
    struct lane_trouble t = trouble_of(r);
    int64_t offset = -1;
    int32_t epoch = -1;
    finish(ask);
    if (m && m->topics_n == 1 && m->topics[0].partitions_n == 1) {
        t.error = m->topics[0].partitions[0].error_code;
        offset = m->topics[0].partitions[0].offset;
        epoch = m->topics[0].partitions[0].leader_epoch;
    } else if (!r->status) {
        t = malformed;
    }
    bool good = !t.status && t.error == KE_NONE;
    if (good && offset < 0) { /* no log has none: its start and its end are always there */
        t = malformed;
        good = false;
    }
    if (good && ask->log_start < 0) {
        if (ask_end(ask, offset))
            return;
        t = (struct lane_trouble){.status = -E_LIMIT};
    }
    lane_offsets(ask->lane, ask->ticket, &t, ask->log_start, offset, epoch);
    appender_answered(a);
}

static bool ask_offsets(struct appender *a, struct lane *l, const struct lane_effect *e)
{
    struct ask *ask = begin(a, l, e, kp_key_list_offsets, offsets_answered);
    if (!ask)
        return false;
    ask->log_start = -1;
    if (!build_offsets(a, ask, -2)) {
        give_up(ask);
        return false;
    }
    send(ask);
    return true;
}

/* ---- OffsetForLeaderEpoch ---- */

static void epoch_answered(void *arg, const struct client_response *r)
{
    struct ask *ask = arg;
    const struct kp_offset_for_leader_epoch_response *m = r->body;
    struct lane_trouble t = trouble_of(r);
    int64_t end = -1;
    finish(ask);
    if (m && m->topics_n == 1 && m->topics[0].partitions_n == 1) {
        t.error = m->topics[0].partitions[0].error_code;
        end = m->topics[0].partitions[0].end_offset;
    } else if (!r->status) {
        t = malformed;
    }
    lane_epoch_end(ask->lane, ask->ticket, &t, end);
    appender_answered(ask->appender);
}

static bool ask_epoch(struct appender *a, struct lane *l, const struct lane_effect *e)
{
    struct ask *ask = begin(a, l, e, kp_key_offset_for_leader_epoch, epoch_answered);
    if (!ask)
        return false;
    struct arena *arena = ask->call->arena;
    struct kp_offset_for_leader_epoch_request *q = ask->call->body;
    struct kp_offset_for_leader_epoch_request_topics *t =
        ARENA_NEW(arena, struct kp_offset_for_leader_epoch_request_topics);
    struct kp_offset_for_leader_epoch_request_partitions *p =
        ARENA_NEW(arena, struct kp_offset_for_leader_epoch_request_partitions);
    if (!t || !p) {
        give_up(ask);
        return false;
    }
    p->partition = l->c.partition;
    p->current_leader_epoch = leader_epoch(a, l);
    p->leader_epoch = e->epoch;
    t->topic = slice_str(a->topic);
    t->partitions = p;
    t->partitions_n = 1;
    q->replica_id = -1;
    q->topics = t;
    q->topics_n = 1;
    send(ask);
    return true;
}

/* ---- DescribeProducers ---- */

static void producers_answered(void *arg, const struct client_response *r)
{
    struct ask *ask = arg;
    const struct kp_describe_producers_response *m = r->body;
    const struct kp_describe_producers_response_active_producers none = {.last_sequence = -1,
                                                                         .last_timestamp = -1};
    const struct kp_describe_producers_response_active_producers *ours = NULL;
    struct lane_trouble t = trouble_of(r);
    finish(ask);
    if (m && m->topics_n == 1 && m->topics[0].partitions_n == 1) {
        const struct kp_describe_producers_response_partitions *p = &m->topics[0].partitions[0];
        t.error = p->error_code;
        for (int32_t i = 0; i < p->active_producers_n; i++)
            if (p->active_producers[i].producer_id == ask->lane->c.producer_id)
                ours = &p->active_producers[i];
    } else if (!r->status) {
        t = malformed;
    }
    const struct kp_describe_producers_response_active_producers *p = ours ? ours : &none;
    lane_producers(ask->lane, ask->ticket, &t, ours != NULL, p->producer_epoch, p->last_sequence,
                   p->last_timestamp);
    appender_answered(ask->appender);
}

static bool ask_producers(struct appender *a, struct lane *l, const struct lane_effect *e)
{
    struct ask *ask = begin(a, l, e, kp_key_describe_producers, producers_answered);
    if (!ask)
        return false;
    struct arena *arena = ask->call->arena;
    struct kp_describe_producers_request *q = ask->call->body;
    struct kp_describe_producers_request_topics *t =
        ARENA_NEW(arena, struct kp_describe_producers_request_topics);
    int32_t *index = ARENA_NEW(arena, int32_t);
    if (!t || !index) {
        give_up(ask);
        return false;
    }
    *index = l->c.partition;
    t->name = slice_str(a->topic);
    t->partition_indexes = index;
    t->partition_indexes_n = 1;
    q->topics = t;
    q->topics_n = 1;
    send(ask);
    return true;
}

/* ---- Fetch ---- */

static void read_answered(void *arg, const struct client_response *r)
{
    struct ask *ask = arg;
    const struct kp_fetch_response *m = r->body;
    struct lane_trouble t = trouble_of(r);
    struct slice batches = SLICE_NULL;
    int64_t next = ask->from, log_start = -1;
    finish(ask);
    if (m && m->error_code != KE_NONE) {
        t.error = m->error_code;
    } else if (m && m->responses_n == 1 && m->responses[0].partitions_n == 1) {
        const struct kp_fetch_response_partitions *p = &m->responses[0].partitions[0];
        t.error = p->error_code;
        log_start = p->log_start_offset;
        batches = p->records.bytes;
        if (t.error == KE_OFFSET_OUT_OF_RANGE && log_start > ask->from) {
            t.error = KE_NONE;
            batches = SLICE_NULL;
            next = log_start;
        }
    } else if (!r->status) {
        t = malformed;
    }
    lane_read(ask->lane, ask->ticket, &t, batches, next, log_start);
    appender_answered(ask->appender);
}

static bool ask_read(struct appender *a, struct lane *l, const struct lane_effect *e)
{
    struct ask *ask = begin(a, l, e, kp_key_fetch, read_answered);
    if (!ask)
        return false;
    struct arena *arena = ask->call->arena;
    struct kp_fetch_request *q = ask->call->body;
    struct kp_fetch_request_topics *t = ARENA_NEW(arena, struct kp_fetch_request_topics);
    struct kp_fetch_request_partitions *p = ARENA_NEW(arena, struct kp_fetch_request_partitions);
    if (!t || !p) {
        give_up(ask);
        return false;
    }
    p->partition = l->c.partition;
    p->current_leader_epoch = leader_epoch(a, l);
    p->fetch_offset = e->from;
    p->last_fetched_epoch = -1;
    p->log_start_offset = -1;
    p->partition_max_bytes = APPENDER_READ_BYTES;
    p->high_watermark = INT64_MAX;
    t->topic = slice_str(a->topic);
    t->topic_id = a->topic_id;
    t->partitions = p;
    t->partitions_n = 1;
    q->max_wait_ms = APPENDER_FETCH_WAIT_MS;
    q->min_bytes = 1;
    q->max_bytes = APPENDER_READ_BYTES;
    q->topics = t;
    q->topics_n = 1;
    q->rack_id = SLICE_LIT("");
    if (uuid_is_zero(&a->topic_id))
        ask->call->version_max = 12;
    send(ask);
    return true;
}

/* ---- */

void appender_ask(struct appender *a, struct lane *l, const struct lane_effect *e)
{
    static const struct lane_trouble busy = {.status = -E_LIMIT, .text = "too many requests are open"};
    switch (e->kind) {
    case LANE_PRODUCE: produce(a, l, e); break;
    case LANE_OFFSETS:
        if (!ask_offsets(a, l, e))
            lane_offsets(l, e->ticket, &busy, 0, 0, -1);
        break;
    case LANE_EPOCH_END:
        if (!ask_epoch(a, l, e))
            lane_epoch_end(l, e->ticket, &busy, -1);
        break;
    case LANE_PRODUCERS:
        if (!ask_producers(a, l, e))
            lane_producers(l, e->ticket, &busy, false, -1, -1, -1);
        break;
    case LANE_READ:
        if (!ask_read(a, l, e))
            lane_read(l, e->ticket, &busy, SLICE_NULL, e->from, -1);
        break;
    default: assert(false && "not a question"); break;
    }
}
