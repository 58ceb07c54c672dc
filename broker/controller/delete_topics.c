/* DeleteTopics: by name, or from version 6 by id. */
#include "broker/controller/decide.h"

#include <assert.h>

struct deleting {
    const struct decide *d;
    struct kp_delete_topics_response_responses *r;
    const struct image_topic *topic; /* NULL: refused */
};

static void refuse(struct deleting *x, int16_t error, struct slice text)
{
    assert(error != KE_NONE);
    x->r->error_code = error;
    x->r->error_message = text;
}

static void find(struct deleting *x, bool by_id)
{
    char text[UUID_TEXT_SIZE];
    x->topic = by_id ? image_topic_by_id(x->d->img, &x->r->topic_id) : image_topic(x->d->img, x->r->name);
    if (!x->topic && by_id)
        refuse(x, KE_UNKNOWN_TOPIC_ID,
               decide_text(x->d, "No topic has the id %s.", uuid_text(&x->r->topic_id, text)));
    else if (!x->topic)
        refuse(x, KE_UNKNOWN_TOPIC_OR_PARTITION,
               SLICE_LIT("This server does not host this topic-partition."));
    else if (!x->d->rules->delete_topics)
        refuse(x, KE_TOPIC_DELETION_DISABLED, SLICE_LIT("Topic deletion is disabled (delete.topic.enable)."));
    if (!x->topic)
        return;
    x->r->name = arena_dup(x->d->arena, x->topic->name);
    x->r->topic_id = x->topic->id;
    if (x->r->error_code)
        x->topic = NULL;
}

static const struct uuid no_id;

static int32_t wanted_n(const struct kp_delete_topics_request *q)
{
    return q->topics_n > 0 ? q->topics_n : q->topic_names_n > 0 ? q->topic_names_n : 0;
}

static struct slice wanted_name(const struct kp_delete_topics_request *q, int32_t i)
{
    return q->topics_n > 0 ? q->topics[i].name : q->topic_names[i];
}

static const struct uuid *wanted_id(const struct kp_delete_topics_request *q, int32_t i)
{
    return q->topics_n > 0 ? &q->topics[i].topic_id : &no_id;
}

/* By place in the request, whether its topic is named twice, by name or id: as in Kafka neither deletes it. NULL: no
 * memory. */
static const bool *named_twice(const struct decide *d, const struct kp_delete_topics_request *q)
{
    size_t n = (size_t)wanted_n(q);
    struct slice *ids = ARENA_NEWS(d->arena, struct slice, 2 * n + 1);
    for (size_t i = 0; ids && i < n; i++) { /* what names both is refused, but counts for the others */
        struct slice name = wanted_name(q, (int32_t)i);
        const struct image_topic *by_name = slice_is_null(name) ? NULL : image_topic(d->img, name);
        const struct uuid *id = wanted_id(q, (int32_t)i);
        if (by_name)
            ids[2 * i] = slice_of(&by_name->id, sizeof by_name->id);
        if (!uuid_is_zero(id))
            ids[2 * i + 1] = slice_of(id, sizeof *id);
    }
    const bool *repeated = ids ? decide_repeated(d, ids, 2 * n) : NULL;
    bool *twice = ARENA_NEWS(d->arena, bool, n + 1);
    for (size_t i = 0; repeated && twice && i < n; i++)
        twice[i] = repeated[2 * i] || repeated[2 * i + 1];
    return repeated ? twice : NULL;
}

static int16_t delete_one(const struct decide *d, const struct kp_delete_topics_request *q, int32_t at,
                          bool twice, struct kp_delete_topics_response_responses *r)
{
    assert(at >= 0);
    assert(at < wanted_n(q));
    struct slice name = wanted_name(q, at);
    const struct uuid *id = wanted_id(q, at);
    struct deleting x = {.d = d, .r = r};
    *r = (struct kp_delete_topics_response_responses){
        .name = name, .topic_id = *id, .error_message = SLICE_NULL};
    bool by_id = !uuid_is_zero(id);
    if (wanted_n(q) > DECIDE_RECORDS_MAX)
        refuse(&x, KE_POLICY_VIOLATION, SLICE_LIT("Unable to perform excessively large batch operation."));
    else if (by_id && !slice_is_null(name))
        refuse(&x, KE_INVALID_REQUEST, SLICE_LIT("You may not specify both topic name and topic id."));
    else if (!by_id && slice_is_null(name))
        refuse(&x, KE_INVALID_REQUEST, SLICE_LIT("Neither topic name nor id were specified."));
    else
        find(&x, by_id);
    if (x.topic && twice) {
        refuse(&x, KE_INVALID_REQUEST, SLICE_LIT("Duplicate topic name or id."));
        x.topic = NULL;
    }
    if (!x.topic)
        return KE_NONE;
    struct kp_remove_topic_record *record = decide_record(d, kp_type_remove_topic_record);
    if (!record)
        return KE_UNKNOWN_SERVER_ERROR;
    assert(!uuid_is_zero(&x.topic->id));
    record->topic_id = x.topic->id;
    return KE_NONE;
}

int16_t decide_delete_topics(const struct decide *d, const struct kp_delete_topics_request *q,
                             struct kp_delete_topics_response *r)
{
    int32_t n = wanted_n(q);
    int16_t error = KE_NONE;
    r->responses = ARENA_NEWS(d->arena, struct kp_delete_topics_response_responses, n);
    const bool *twice = named_twice(d, q);
    if (!r->responses || !twice)
        return KE_UNKNOWN_SERVER_ERROR;
    for (; r->responses_n < n && !error; r->responses_n++)
        error = delete_one(d, q, r->responses_n, twice[r->responses_n], &r->responses[r->responses_n]);
    return arena_failed(d->arena) ? KE_UNKNOWN_SERVER_ERROR : error;
}
