/* What is deleted, and why: groups and offsets by request, offsets by age, offsets of topics that are gone.
 *
 * Deleting is writing tombstones; what readers see changes when they are committed. */
#include "broker/group/groups_internal.h"

#include <assert.h>

#include "base/runtime/log.h"

/* Tombstones of one batch: some 100 bytes each, far below max.message.bytes. */
#define TOMBSTONES_MAX 1000

void deletion_begin(struct deletion *d, struct hosted *h, struct groups_call *call)
{
    assert(!h->deleting);
    assert(h->at);
    *d = (struct deletion){.h = h, .call = call};
}

static void flush(struct deletion *d)
{
    struct group_op *op = d->op;
    assert(!op || op->builder.h.records_n > 0 || op->deletes_group);
    d->op = NULL;
    if (!op)
        return;
    if (d->call)
        d->call->left++;
    group_op_write(op);
}

static void next_batch(struct deletion *d)
{
    assert(d->rc == 0);
    assert(d->h->at);
    flush(d);
    d->op = group_op_begin(d->h, OP_DELETE, d->call);
    d->rc = d->op ? group_op_changes(d->op, TOMBSTONES_MAX) : -E_NOMEM;
}

void deletion_add(struct deletion *d, struct slice topic, int32_t partition)
{
    assert(offsets_known(&d->h->offsets, topic, partition));
    assert(!d->h->deleting);
    if (d->rc == 0 && (!d->op || d->op->changes_n == TOMBSTONES_MAX))
        next_batch(d);
    if (d->rc == 0)
        d->rc = group_op_change(d->op, topic, partition, NULL);
}

static void add_group(struct deletion *d)
{
    assert(group_idle(d->h->group)); /* with nobody in it */
    if (d->rc == 0 && !d->op)
        next_batch(d);
    if (d->rc == 0 && d->h->recorded)
        d->rc = group_record_put_group_tombstone(&d->op->builder, groups_now(d->h->gs).wall_ms,
                                                 group_id(d->h->group));
    if (d->rc == 0)
        d->op->deletes_group = true;
}

int16_t deletion_end(struct deletion *d, bool whole)
{
    if (whole)
        add_group(d);
    if (d->rc == 0) {
        d->h->deleting = whole;
        flush(d);
        return KE_NONE;
    }
    if (d->op)
        group_op_drop(d->op);
    if (!d->call || d->call->left == 0)
        return KE_COORDINATOR_NOT_AVAILABLE;
    d->call->error = KE_COORDINATOR_NOT_AVAILABLE; /* what has been given to the log will answer, with this */
    return KE_NONE;
}

static void add_all(struct deletion *d)
{
    struct offset_walk w = {0};
    while (offsets_next(&d->h->offsets, &w))
        deletion_add(d, w.name, w.partition);
}

/* ---- by request ---- */

static int16_t delete_all(struct hosted *h, struct groups_call *call)
{
    struct deletion d;
    deletion_begin(&d, h, call);
    add_all(&d);
    return deletion_end(&d, true);
}

void groups_delete(struct groups *gs, struct slice group, struct groups_call *call)
{
    struct coordinator *c;
    int16_t error;
    struct hosted *h = groups_find(gs, group, &c, &error);
    if (error == KE_NONE && !h)
        error = KE_GROUP_ID_NOT_FOUND;
    else if (error == KE_NONE && !group_idle(h->group))
        error = KE_NON_EMPTY_GROUP;
    if (error == KE_NONE && !h->recorded && h->offsets.entries_n == 0)
        hosted_drop(h, KE_COORDINATOR_NOT_AVAILABLE); /* the log knows nothing of it */
    else if (error == KE_NONE)
        error = delete_all(h, call);
    if (error != KE_NONE || call->left == 0)
        groups_answer(gs, call, error);
    groups_flush(gs);
}

static void fill_offset_delete(struct groups_call *call, int16_t error)
{
    ((struct kp_offset_delete_response *)call->response)->error_code = error;
}

/* The partitions asked for that may go: those of topics nobody in the group reads. */
static bool prepare(struct hosted *h, struct groups_call *call)
{
    const struct kp_offset_delete_request *in = call->request;
    struct kp_offset_delete_response *r = call->response;
    r->topics = ARENA_NEWS(call->arena, struct kp_offset_delete_response_topics, in->topics_n);
    for (int32_t t = 0; r->topics && t < in->topics_n; t++) {
        const struct kp_offset_delete_request_topics *from = &in->topics[t];
        struct kp_offset_delete_response_topics *to = &r->topics[t];
        bool read = group_subscribed(h->group, from->name);
        to->name = from->name;
        to->partitions =
            ARENA_NEWS(call->arena, struct kp_offset_delete_response_partitions, from->partitions_n);
        if (!to->partitions)
            return false;
        r->topics_n++;
        for (int32_t p = 0; p < from->partitions_n; p++)
            to->partitions[to->partitions_n++] = (struct kp_offset_delete_response_partitions){
                .partition_index = from->partitions[p].partition_index,
                .error_code = read ? KE_GROUP_SUBSCRIBED_TO_TOPIC : KE_NONE,
            };
    }
    return r->topics != NULL;
}

static int16_t delete_asked(struct hosted *h, struct groups_call *call)
{
    const struct kp_offset_delete_response *r = call->response;
    struct deletion d;
    deletion_begin(&d, h, call);
    for (int32_t t = 0; t < r->topics_n; t++)
        for (int32_t p = 0; p < r->topics[t].partitions_n; p++) {
            const struct kp_offset_delete_response_partitions *at = &r->topics[t].partitions[p];
            if (at->error_code == KE_NONE &&
                offsets_known(&h->offsets, r->topics[t].name, at->partition_index))
                deletion_add(&d, r->topics[t].name, at->partition_index);
        }
    return deletion_end(&d, false);
}

void groups_offset_delete(struct groups *gs, struct groups_call *call)
{
    const struct kp_offset_delete_request *in = call->request;
    struct coordinator *c;
    int16_t error;
    struct hosted *h = groups_find(gs, in->group_id, &c, &error);
    call->fill = fill_offset_delete;
    if (error == KE_NONE && !h)
        error = KE_GROUP_ID_NOT_FOUND;
    else if (error == KE_NONE && group_members_n(h->group) > 0 &&
             !slice_eq_str(group_protocol_type(h->group), "consumer"))
        error = KE_NON_EMPTY_GROUP; /* what its members read, nobody can tell */
    else if (error == KE_NONE && !prepare(h, call))
        error = KE_COORDINATOR_NOT_AVAILABLE;
    if (error == KE_NONE)
        error = delete_asked(h, call);
    if (error != KE_NONE || call->left == 0)
        groups_answer(gs, call, error);
    groups_flush(gs);
}

/* ---- by age ---- */

/* Kafka's three clocks: the group's last change while it is empty, the commit while nobody is known to manage it or the
 * topic is no longer subscribed, and what the client asked for, long ago. */
static bool is_expired(const struct hosted *h, const struct offset_walk *w)
{
    const struct group *g = h->group;
    int64_t now_ms = groups_now(h->gs).wall_ms;
    bool managed = group_protocol_type(g).n > 0;
    if (!w->at || w->pending)
        return false;
    if (w->at->expires_ms >= 0)
        return now_ms >= w->at->expires_ms;
    if (managed && !group_idle(g) && (!group_subscriptions_known(g) || group_subscribed(g, w->name)))
        return false;
    int64_t since_ms = w->at->committed_ms;
    if (managed && group_idle(g) && group_state_since_ms(g) >= 0)
        since_ms = group_state_since_ms(g);
    return now_ms - since_ms >= h->gs->options.retention_ms;
}

static void expire(struct hosted *h)
{
    struct offset_walk w = {0};
    struct deletion d;
    size_t old = 0, kept = 0;
    if (h->deleting || h->ops)
        return; /* the next round */
    deletion_begin(&d, h, NULL);
    while (offsets_next(&h->offsets, &w))
        if (is_expired(h, &w)) {
            deletion_add(&d, w.name, w.partition);
            old++;
        } else {
            kept++;
        }
    bool whole = kept == 0 && group_idle(h->group) && h->recorded;
    if (old > 0 || whole)
        log_info("broker.group", "offsets expired group=%.*s offsets=%zu group_deleted=%s",
                 SLICE_FMT(group_id(h->group)), old, whole ? "true" : "false");
    deletion_end(&d, whole);
}

static void each_hosted(struct groups *gs, void (*fn)(struct hosted *h, struct slice topic),
                        struct slice topic)
{
    for (struct coordinator *c = gs->coordinators; c; c = c->hh.next)
        if (sm_state(&c->state) == COORDINATOR_ACTIVE)
            for (struct hosted *h = c->hosted; h; h = h->hh.next)
                fn(h, topic);
}

static void expire_one(struct hosted *h, struct slice topic)
{
    (void)topic;
    expire(h);
}

void groups_expire(struct groups *gs)
{
    each_hosted(gs, expire_one, SLICE_NULL);
}

/* ---- because the topic is gone ---- */

static void forget_topic(struct hosted *h, struct slice topic)
{
    struct offset_walk w = {0};
    struct deletion d;
    if (h->deleting || offsets_topic_entries_n(&h->offsets, topic) == 0)
        return;
    deletion_begin(&d, h, NULL);
    while (offsets_next(&h->offsets, &w))
        if (slice_eq(w.name, topic))
            deletion_add(&d, w.name, w.partition);
    deletion_end(&d, false);
}

void groups_forget_topic(struct groups *gs, struct slice topic)
{
    each_hosted(gs, forget_topic, topic);
}
