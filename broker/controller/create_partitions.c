/* CreatePartitions: a topic grows; it never shrinks. */
#include "broker/controller/decide.h"

#include <assert.h>
#include <inttypes.h>

struct growing {
    const struct decide *d;
    const struct kp_create_partitions_request_topics *t;
    struct kp_create_partitions_response_results *r;
    const struct image_topic *topic;
    int32_t added, replication_factor;
    int32_t *placed;
};

static int16_t refuse(struct growing *g, int16_t error, struct slice text)
{
    assert(error != KE_NONE);
    g->r->error_code = error;
    g->r->error_message = text;
    return error;
}

static int16_t check_count(struct growing *g)
{
    g->topic = image_topic(g->d->img, g->t->name);
    if (!g->topic)
        return refuse(g, KE_UNKNOWN_TOPIC_OR_PARTITION,
                      SLICE_LIT("This server does not host this topic-partition."));
    int32_t now = g->topic->partitions_n;
    if (g->t->count == now)
        return refuse(g, KE_INVALID_PARTITIONS, decide_text(g->d, "Topic already has %d partition(s).", now));
    if (g->t->count < now)
        return refuse(
            g, KE_INVALID_PARTITIONS,
            decide_text(g->d, "The topic %.*s currently has %d partition(s); %d would not be an increase.",
                        SLICE_FMT(g->t->name), now, g->t->count));
    assert(now >= 0);
    assert(g->t->count > now);
    g->added = g->t->count - now;
    const struct image_partition *first = image_partition(g->topic, 0);
    g->replication_factor = first ? first->replicas_n : 1;
    return KE_NONE;
}

static int16_t check_room(struct growing *g, int64_t added_before)
{
    assert(g->added > 0);
    assert(added_before >= 0);
    struct slice why = SLICE_NULL;
    if (g->d->out->n + (size_t)g->added > DECIDE_RECORDS_MAX)
        return refuse(g, KE_POLICY_VIOLATION,
                      SLICE_LIT("Unable to perform excessively large batch operation."));
    if (!decide_room(g->d, added_before + g->added, &why))
        return refuse(g, KE_POLICY_VIOLATION, why);
    return KE_NONE;
}

static int16_t place(struct growing *g)
{
    assert(!g->placed);
    struct slice text = SLICE_NULL;
    if (g->t->assignments_n < 0) {
        int16_t error = decide_place(g->d, g->added, g->replication_factor, &g->placed, &text);
        return error ? refuse(g, error, text) : KE_NONE;
    }
    if (g->t->assignments_n != g->added)
        return refuse(
            g, KE_INVALID_REPLICA_ASSIGNMENT,
            decide_text(g->d,
                        "Attempted to add %d additional partition(s), but only %d assignment(s) were "
                        "specified.",
                        g->added, g->t->assignments_n));
    for (int32_t i = 0; i < g->added; i++) {
        const struct kp_create_partitions_request_assignments *a = &g->t->assignments[i];
        text = decide_assignment_fault(g->d, g->topic->partitions_n + i, a->broker_ids, a->broker_ids_n,
                                       g->replication_factor);
        if (!slice_is_null(text))
            return refuse(g, KE_INVALID_REPLICA_ASSIGNMENT, text);
    }
    return KE_NONE;
}

static int16_t grow_one(struct growing *g, int64_t *added)
{
    int16_t error = check_count(g);
    if (!error)
        error = check_room(g, *added);
    if (!error)
        error = place(g);
    if (error)
        return KE_NONE;
    assert(g->added > 0);
    assert(g->topic->partitions_n + g->added == g->t->count);
    for (int32_t i = 0; i < g->added; i++) {
        const int32_t *replicas =
            g->placed ? g->placed + (int64_t)i * g->replication_factor : g->t->assignments[i].broker_ids;
        if (!decide_partition(g->d, &g->topic->id, g->topic->partitions_n + i, replicas,
                              g->replication_factor))
            return KE_UNKNOWN_SERVER_ERROR;
    }
    *added += g->added;
    return KE_NONE;
}

/* By place in the request. NULL: no memory. */
static const bool *named_twice(const struct decide *d, const struct kp_create_partitions_request *q)
{
    size_t n = q->topics_n > 0 ? (size_t)q->topics_n : 0;
    struct slice *names = ARENA_NEWS(d->arena, struct slice, n + 1);
    for (size_t i = 0; names && i < n; i++)
        names[i] = q->topics[i].name;
    return names ? decide_repeated(d, names, n) : NULL;
}

int16_t decide_create_partitions(const struct decide *d, const struct kp_create_partitions_request *q,
                                 struct kp_create_partitions_response *r)
{
    assert(d->out->n == 0);
    int64_t added = 0;
    int16_t error = KE_NONE;
    r->results = ARENA_NEWS(d->arena, struct kp_create_partitions_response_results, q->topics_n);
    const bool *twice = named_twice(d, q);
    if (!r->results || !twice)
        return KE_UNKNOWN_SERVER_ERROR;
    for (r->results_n = 0; r->results_n < q->topics_n && !error; r->results_n++) {
        int32_t i = r->results_n;
        struct growing g = {.d = d, .t = &q->topics[i], .r = &r->results[i]};
        *g.r = (struct kp_create_partitions_response_results){.name = g.t->name, .error_message = SLICE_NULL};
        if (q->topics_n > DECIDE_RECORDS_MAX)
            refuse(&g, KE_POLICY_VIOLATION,
                   SLICE_LIT("Unable to perform excessively large batch operation."));
        else if (twice[i])
            refuse(&g, KE_INVALID_REQUEST, SLICE_LIT("Duplicate topic name."));
        else
            error = grow_one(&g, &added);
    }
    if (q->validate_only)
        d->out->n = 0;
    return arena_failed(d->arena) ? KE_UNKNOWN_SERVER_ERROR : error;
}
