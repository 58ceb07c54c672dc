/* Where a partition stands: the offset to begin at, and whether the leader's log still has what we have read. */
#include "mirror/port/client_parts.h"

#include <stdio.h>

static struct client_call *ask(struct raw_part *part, int16_t api,
                               void (*answered)(void *arg, const struct client_response *r))
{
    struct client_call *call = client_call(part->port->client, api);
    if (!call)
        return NULL;
    call->target = (struct client_target){
        .kind = CLIENT_LEADER, .name = slice_str(part->topic), .number = part->a.partition};
    call->timeout_us = RAW_ASK_US;
    call->on_response = answered;
    call->arg = part;
    part->ask = call;
    return call;
}

static void cannot(struct raw_part *part)
{
    if (part->ask)
        client_cancel(part->port->client, part->ask);
    part->ask = NULL;
    raw_retry(part, "too many requests are open");
}

static bool ask_offset(struct raw_part *part, int64_t timestamp,
                       void (*answered)(void *arg, const struct client_response *r))
{
    struct client_call *call = ask(part, kp_key_list_offsets, answered);
    struct kp_list_offsets_request_topics *t =
        call ? ARENA_NEW(call->arena, struct kp_list_offsets_request_topics) : NULL;
    struct kp_list_offsets_request_partitions *p =
        call ? ARENA_NEW(call->arena, struct kp_list_offsets_request_partitions) : NULL;
    if (!t || !p) {
        cannot(part);
        return false;
    }
    struct kp_list_offsets_request *q = call->body;
    p->partition_index = part->a.partition;
    p->current_leader_epoch = part->leader_epoch;
    p->timestamp = timestamp;
    t->name = slice_str(part->topic);
    t->partitions = p;
    t->partitions_n = 1;
    q->replica_id = -1;
    q->isolation_level = part->port->read_uncommitted ? 0 : 1;
    q->topics = t;
    q->topics_n = 1;
    client_send(part->port->client, call);
    return true;
}

/* The offset of a ListOffsets answer; false: it is tried again later, and that is arranged. */
static bool offset_of(struct raw_part *part, const struct client_response *r, int64_t *out)
{
    const struct kp_list_offsets_response *m = r->body;
    bool there = m && m->topics_n == 1 && m->topics[0].partitions_n == 1;
    int16_t error = there ? m->topics[0].partitions[0].error_code : KE_NONE;
    part->ask = NULL;
    if (there && error == KE_NONE) {
        *out = m->topics[0].partitions[0].offset;
        return true;
    }
    if (error == KE_TOPIC_AUTHORIZATION_FAILED)
        raw_stop(part, PORT_FAILED, error, "ListOffsets: TOPIC_AUTHORIZATION_FAILED");
    else
        raw_retry(part, r->err ? r->err->text : kafka_error_name(error));
    raw_wake(part->port);
    return false;
}

/* ---- the beginning ---- */

static void begin_answered(void *arg, const struct client_response *r)
{
    struct raw_part *part = arg;
    int64_t offset;
    if (!offset_of(part, r, &offset))
        return;
    part->next = part->fetch_next = offset;
    part->state = RAW_FETCHING;
    assert(part->fetch_epoch < 0 && list_empty(&part->chunks));
    raw_event(part, PORT_POSITION, KE_NONE, NULL);
    raw_wake(part->port);
}

/* ---- out of range ---- */

static void range_end(void *arg, const struct client_response *r)
{
    struct raw_part *part = arg;
    int64_t offset;
    if (!offset_of(part, r, &offset))
        return;
    part->high_watermark = offset;
    if (part->next >= part->log_start && part->next <= offset) {
        raw_retry(part, NULL); /* a deposed leader's answer */
        raw_wake(part->port);
        return;
    }
    raw_stop(part, PORT_OUT_OF_RANGE, KE_OFFSET_OUT_OF_RANGE, "the offset is not in the log");
}

static void range_start(void *arg, const struct client_response *r)
{
    struct raw_part *part = arg;
    int64_t offset;
    if (!offset_of(part, r, &offset))
        return;
    part->log_start = offset;
    ask_offset(part, -1, range_end);
}

void raw_ask_range(struct raw_part *part)
{
    ask_offset(part, -2, range_start);
}

/* ---- KIP-320 ---- */

void raw_truncated(struct raw_part *part, int64_t end)
{
    char text[128];
    int64_t cut = end < part->next ? end : part->next;
    snprintf(text, sizeof text, "leader epoch %d ends at offset %lld now, %lld was read", part->last_epoch,
             (long long)end, (long long)part->next);
    raw_stop(part, PORT_TRUNCATED, KE_NONE, text);
    part->event.end = cut;
}

static void epoch_answered(void *arg, const struct client_response *r)
{
    struct raw_part *part = arg;
    const struct kp_offset_for_leader_epoch_response *m = r->body;
    bool there = m && m->topics_n == 1 && m->topics[0].partitions_n == 1;
    int16_t error = there ? m->topics[0].partitions[0].error_code : KE_NONE;
    part->ask = NULL;
    if (!there || error != KE_NONE) {
        raw_retry(part, r->err ? r->err->text : kafka_error_name(error));
        raw_wake(part->port);
        return;
    }
    int64_t end = m->topics[0].partitions[0].end_offset;
    if (end >= 0 && end < part->next) {
        raw_truncated(part, end);
        return;
    }
    part->state = RAW_FETCHING;
    raw_wake(part->port);
}

void raw_check(struct raw_part *part)
{
    assert(part->state == RAW_ASKING && !part->ask);
    if (part->next < 0) {
        ask_offset(part, part->next == PORT_FROM_START ? -2 : -1, begin_answered);
        return;
    }
    if (part->last_epoch < 0 || part->last_epoch == part->leader_epoch) {
        part->state = RAW_FETCHING;
        return;
    }
    struct client_call *call = ask(part, kp_key_offset_for_leader_epoch, epoch_answered);
    struct kp_offset_for_leader_epoch_request_topics *t =
        call ? ARENA_NEW(call->arena, struct kp_offset_for_leader_epoch_request_topics) : NULL;
    struct kp_offset_for_leader_epoch_request_partitions *p =
        call ? ARENA_NEW(call->arena, struct kp_offset_for_leader_epoch_request_partitions) : NULL;
    if (!t || !p) {
        cannot(part);
        return;
    }
    struct kp_offset_for_leader_epoch_request *q = call->body;
    p->partition = part->a.partition;
    p->current_leader_epoch = part->leader_epoch;
    p->leader_epoch = part->last_epoch;
    t->topic = slice_str(part->topic);
    t->partitions = p;
    t->partitions_n = 1;
    q->replica_id = -1;
    q->topics = t;
    q->topics_n = 1;
    client_send(part->port->client, call);
}
