#include "mirror/port/port_ask.h"

#include <assert.h>

static struct client_call *call_of(struct client *c, const struct port_question *q, int16_t api,
                                   int16_t version_min, int16_t version_max)
{
    assert(!*q->call && q->answered && q->partition >= 0 && q->topic.n > 0);
    return client_ask(
        c, &(struct client_ask){.api = api,
                                .version_min = version_min,
                                .version_max = version_max,
                                .retry = q->retry,
                                .target = {.kind = CLIENT_LEADER, .name = q->topic, .number = q->partition},
                                .timeout_us = PORT_ASK_US,
                                .on_response = q->answered,
                                .arg = q->arg});
}

/* Rows may have found no room in the call's arena: then it is given back. */
static bool send(struct client *c, const struct port_question *q, struct client_call *call, bool filled)
{
    if (!filled) {
        client_cancel(c, call);
        return false;
    }
    *q->call = call;
    client_send(c, call);
    return true;
}

bool port_ask_offset(struct client *c, const struct port_question *q, int64_t timestamp, bool stable)
{
    struct client_call *call = call_of(c, q, kp_key_list_offsets, 1, 7);
    if (!call)
        return false;
    struct kp_list_offsets_request *r = call->body;
    struct kp_list_offsets_request_topics *t = ARENA_NEW(call->arena, struct kp_list_offsets_request_topics);
    struct kp_list_offsets_request_partitions *p =
        ARENA_NEW(call->arena, struct kp_list_offsets_request_partitions);
    bool filled = t && p;
    if (filled) {
        *p = (struct kp_list_offsets_request_partitions){.partition_index = q->partition,
                                                         .current_leader_epoch = q->current_leader_epoch,
                                                         .timestamp = timestamp};
        *t = (struct kp_list_offsets_request_topics){.name = q->topic, .partitions = p, .partitions_n = 1};
        r->replica_id = -1;
        r->isolation_level = stable ? 1 : 0;
        r->topics = t;
        r->topics_n = 1;
    }
    return send(c, q, call, filled);
}

bool port_ask_epoch_end(struct client *c, const struct port_question *q, int32_t epoch)
{
    assert(epoch >= 0);
    struct client_call *call = call_of(c, q, kp_key_offset_for_leader_epoch, 2, 4);
    if (!call)
        return false;
    struct kp_offset_for_leader_epoch_request *r = call->body;
    struct kp_offset_for_leader_epoch_request_topics *t =
        ARENA_NEW(call->arena, struct kp_offset_for_leader_epoch_request_topics);
    struct kp_offset_for_leader_epoch_request_partitions *p =
        ARENA_NEW(call->arena, struct kp_offset_for_leader_epoch_request_partitions);
    bool filled = t && p;
    if (filled) {
        *p = (struct kp_offset_for_leader_epoch_request_partitions){.partition = q->partition,
                                                                    .current_leader_epoch =
                                                                        q->current_leader_epoch,
                                                                    .leader_epoch = epoch};
        *t = (struct kp_offset_for_leader_epoch_request_topics){
            .topic = q->topic, .partitions = p, .partitions_n = 1};
        r->replica_id = -1;
        r->topics = t;
        r->topics_n = 1;
    }
    return send(c, q, call, filled);
}

/* What an answer comes to; `there`: it has the one row that was asked for, with this error. */
static enum port_answer judge(const struct client_response *r, bool there, int16_t error, const char **why)
{
    *why = NULL;
    if (there && error == KE_NONE)
        return PORT_ANSWER_KNOWN;
    if (r->status == -E_VERSION)
        return PORT_ANSWER_NONE;
    *why = there                 ? kafka_error_name(error)
           : r->status && r->err ? r->err->text
                                 : "an answer without the partition";
    return there && error == KE_TOPIC_AUTHORIZATION_FAILED ? PORT_ANSWER_REFUSED : PORT_ANSWER_AGAIN;
}

enum port_answer port_answer_offset(const struct client_response *r, int64_t *offset, const char **why)
{
    const struct kp_list_offsets_response *m = r->status ? NULL : r->body;
    bool there = m && m->topics_n == 1 && m->topics[0].partitions_n == 1;
    enum port_answer a = judge(r, there, there ? m->topics[0].partitions[0].error_code : KE_NONE, why);
    if (a != PORT_ANSWER_KNOWN)
        return a;
    *offset = m->topics[0].partitions[0].offset;
    if (*offset >= 0)
        return a;
    *why = "an answer without an offset"; /* no log has none: earliest and latest are always there */
    return PORT_ANSWER_AGAIN;
}

enum port_answer port_answer_epoch_end(const struct client_response *r, int64_t *end, const char **why)
{
    const struct kp_offset_for_leader_epoch_response *m = r->status ? NULL : r->body;
    bool there = m && m->topics_n == 1 && m->topics[0].partitions_n == 1;
    enum port_answer a = judge(r, there, there ? m->topics[0].partitions[0].error_code : KE_NONE, why);
    if (a == PORT_ANSWER_KNOWN)
        *end = m->topics[0].partitions[0].end_offset;
    return a;
}

bool port_recreated(const struct port_assignment *a, const struct client_topic *t)
{
    return !uuid_is_zero(&a->topic_id) && !uuid_is_zero(&t->id) && !uuid_eq(&a->topic_id, &t->id);
}
