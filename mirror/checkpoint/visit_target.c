/* The group at the target: its members, its offsets, where the partitions begin, what is kept here before, one commit. */
#include "mirror/checkpoint/visit.h"

#include "base/core/mutant.h"

#include <assert.h>

#define BOUND_WITHIN_US INT64_C(1000000) /* a topic that the target has not has no leader */

static void on_committed(void *arg, const struct client_response *r)
{
    struct visit *v = arg;
    v->call = NULL;
    const struct kp_offset_commit_response *a = r->body;
    if (r->status) {
        visit_fail(v, "commit its offsets at the target", r, 0);
        return;
    }
    for (size_t i = 0; i < v->wishes_n; i++) {
        struct wish *w = &v->wishes[i];
        for (int32_t t = 0; w->out.commit && t < a->topics_n; t++)
            for (int32_t p = 0;
                 slice_eq_str(a->topics[t].name, w->topic->target) && p < a->topics[t].partitions_n; p++) {
                if (a->topics[t].partitions[p].partition_index != w->entry->v.q)
                    continue;
                struct group_entry n = w->entry->v;
                int16_t code = a->topics[t].partitions[p].error_code;
                if (kafka_error_retriable(code) && code != KE_UNKNOWN_TOPIC_OR_PARTITION)
                    continue; /* the next round's coordinator takes it */
                if (code) {
                    n.state = GROUP_BLOCKED;
                    n.reason = slice_str(kafka_error_name(code));
                } else {
                    n.intends = false;
                    n.applied = true;
                    n.applied_offset = w->in.now.offset;
                    n.applied_ms = loop_wall_ms(v->c->loop);
                }
                if (entry_set(w->entry, &n) == 0)
                    v->c->events->save(v->c->arg, w->entry->key.topic, &w->entry->v);
            }
    }
    visit_end(v, true);
}

static void commit(void *arg)
{
    struct visit *v = arg;
    assert(v->bound_at == v->wishes_n);
    struct kp_offset_commit_request *q =
        visit_ask_or_end(v, v->c->target, kp_key_offset_commit, 2, 8, on_committed);
    if (!q)
        return;
    struct arena *a = v->call->arena;
    q->group_id = slice_str(v->g->name);
    q->member_id = SLICE_LIT("");
    q->topics = ARENA_NEWS(a, struct kp_offset_commit_request_topics, v->wishes_n);
    struct kp_offset_commit_request_partitions *p =
        ARENA_NEWS(a, struct kp_offset_commit_request_partitions, v->wishes_n);
    for (size_t i = 0; q->topics && p && i < v->wishes_n; i++) {
        struct wish *w = &v->wishes[i];
        if (!w->out.commit)
            continue;
        assert(w->in.now.offset >= 0);
        assert(w->in.target.known);
        assert(!w->in.target.active);
        /* Wishes of one topic stand together: they were made topic by topic. */
        struct slice name = slice_str(w->topic->target);
        if (q->topics_n == 0 || !slice_eq(q->topics[q->topics_n - 1].name, name))
            q->topics[q->topics_n++] =
                (struct kp_offset_commit_request_topics){.name = name, .partitions = p};
        int32_t epoch = MUTANT("source_leader_epoch_copied") ? 0 : -1; /* APPENDER.md rule 22 */
        *p++ = (struct kp_offset_commit_request_partitions){
            .partition_index = w->entry->v.q,
            .committed_offset = w->in.now.offset,
            .committed_leader_epoch = epoch,
            .committed_metadata =
                arena_dup(a, w->entry->v.metadata.n ? w->entry->v.metadata : SLICE_LIT(""))};
        q->topics[q->topics_n - 1].partitions_n++;
    }
    if (arena_failed(a)) {
        visit_no_room(v);
        return;
    }
    assert(q->topics_n > 0);
    v->call->retry = CLIENT_RETRY_LOST; /* that a topic has been deleted is an answer */
    visit_send(v);
}

/* What is to be committed at the target is on disk here before: a daemon that dies in between knows its own offset
 * again. */
static void intend(struct visit *v)
{
    size_t n = 0;
    for (size_t i = 0; i < v->wishes_n; i++) {
        struct wish *w = &v->wishes[i];
        struct group_entry e = w->entry->v;
        if (!w->out.commit)
            continue;
        e.intends = true;
        e.intended_offset = w->in.now.offset;
        if (entry_set(w->entry, &e)) {
            visit_end(v, false);
            return;
        }
        v->c->events->save(v->c->arg, w->entry->key.topic, &w->entry->v);
        n++;
    }
    if (n == 0) {
        visit_end(v, true);
        return;
    }
    v->wait.done = commit;
    v->wait.arg = v;
    v->c->events->keep(v->c->arg, &v->wait);
}

static void next_bound(struct visit *v);

static void on_bound(void *arg, const struct client_response *r)
{
    struct visit *v = arg;
    assert(v->bound_at < v->wishes_n);
    struct wish *w = &v->wishes[v->bound_at];
    v->call = NULL;
    const struct kp_list_offsets_response *a = r->body;
    bool good = !r->status && a->topics_n == 1 && a->topics[0].partitions_n == 1 &&
                !a->topics[0].partitions[0].error_code;
    if (good && a->topics[0].partitions[0].offset > w->in.now.offset)
        /* The broker does not check: a commit below the log start would reset. */
        w->in.now.offset = a->topics[0].partitions[0].offset;
    /* When nothing is known: in the next round. What the clamp gives may stand there already. */
    w->out.commit = good && w->in.now.offset != w->in.target.offset;
    v->bound_at++;
    if (r->status) /* the topic is not there, or does not answer: its others would wait as long, and the round for them */
        while (v->bound_at < v->wishes_n && v->wishes[v->bound_at].topic == w->topic)
            v->wishes[v->bound_at++].out.commit = false;
    next_bound(v);
}

/* Clamps what is to be committed to where the target's partition begins; its end is never passed: what is translated
 * has been acknowledged there. */
static void next_bound(struct visit *v)
{
    while (v->bound_at < v->wishes_n && !v->wishes[v->bound_at].out.commit)
        v->bound_at++;
    if (v->bound_at == v->wishes_n) {
        intend(v);
        return;
    }
    struct wish *w = &v->wishes[v->bound_at];
    struct kp_list_offsets_request *q =
        visit_ask_or_end(v, v->c->target, kp_key_list_offsets, 1, 7, on_bound);
    if (!q)
        return;
    q->topics = ARENA_NEW(v->call->arena, struct kp_list_offsets_request_topics);
    struct kp_list_offsets_request_partitions *p =
        ARENA_NEW(v->call->arena, struct kp_list_offsets_request_partitions);
    if (!q->topics || !p) {
        visit_no_room(v);
        return;
    }
    enum { EARLIEST = -2 };
    *p = (struct kp_list_offsets_request_partitions){
        .partition_index = w->entry->v.q, .current_leader_epoch = -1, .timestamp = EARLIEST};
    *q->topics = (struct kp_list_offsets_request_topics){
        .name = slice_str(w->topic->target), .partitions = p, .partitions_n = 1};
    q->topics_n = 1;
    q->replica_id = -1;
    v->call->target = (struct client_target){
        .kind = CLIENT_LEADER, .name = slice_str(w->topic->target), .number = w->entry->v.q};
    v->call->retry = CLIENT_RETRY_LOST;
    v->call->send_within_us = BOUND_WITHIN_US;
    visit_send(v);
}

static void take_target_offset(void *arg, const struct committed *o)
{
    struct visit *v = arg;
    for (size_t i = 0; i < v->wishes_n; i++)
        if (v->wishes[i].entry->v.q == o->partition && slice_eq_str(o->topic, v->wishes[i].topic->target))
            v->wishes[i].in.target.offset = o->offset;
}

/* The decision with the target known: state and reason are kept, a foreign commit is told once. */
static void settle(struct visit *v, struct wish *w)
{
    struct checkpoint *c = v->c;
    assert(w->in.target.known);
    assert(w->entry->v.q >= 0);
    decide(&w->in, &w->out);
    struct group_entry n = w->entry->v;
    n.state = w->out.state;
    n.reason = slice_str(w->out.reason);
    if (w->out.ours) {
        n.applied = true;
        n.applied_offset = w->in.now.offset;
    }
    if (w->out.foreign && w->entry->told_foreign != w->in.target.offset) {
        w->entry->told_foreign = w->in.target.offset;
        c->events->ledger(c->arg, LEDGER_FOREIGN_OFFSET, slice_str(w->topic->target), n.q, v->g->name);
    }
    bool changed = n.state != w->entry->v.state || n.applied != w->entry->v.applied ||
                   n.applied_offset != w->entry->v.applied_offset || !slice_eq(n.reason, w->entry->v.reason);
    if (changed && entry_set(w->entry, &n) == 0)
        c->events->save(c->arg, w->entry->key.topic, &w->entry->v);
}

static void on_target_offsets(void *arg, const struct client_response *r)
{
    struct visit *v = arg;
    v->call = NULL;
    int16_t code = r->status ? 0 : visit_offsets_error(r);
    if (r->status || (code && code != KE_GROUP_ID_NOT_FOUND)) {
        visit_fail(v, "read its offsets at the target", r, code);
        return;
    }
    if (!code)
        visit_offsets_each(r, take_target_offset, v);
    for (size_t i = 0; i < v->wishes_n; i++) {
        v->wishes[i].in.target.known = true;
        v->wishes[i].in.target.active = v->active;
        settle(v, &v->wishes[i]);
    }
    next_bound(v);
}

static void on_described(void *arg, const struct client_response *r)
{
    struct visit *v = arg;
    v->call = NULL;
    const struct kp_describe_groups_response *a = r->body;
    int16_t code = r->status || a->groups_n != 1 ? 0 : a->groups[0].error_code;
    if (r->status || (code && code != KE_GROUP_ID_NOT_FOUND)) {
        visit_fail(v, "look at it at the target", r, code);
        return;
    }
    v->active = !code && a->groups_n == 1 && a->groups[0].members_n > 0;
    if (visit_ask_offsets(v, v->c->target, on_target_offsets))
        visit_end(v, false);
}

void visit_target(struct visit *v)
{
    assert(v->wishes_n > 0);
    assert(v->bound_at == 0);
    struct kp_describe_groups_request *q =
        visit_ask_or_end(v, v->c->target, kp_key_describe_groups, 0, 5, on_described);
    if (!q)
        return;
    q->groups = ARENA_NEW(v->call->arena, struct slice);
    if (!q->groups) {
        visit_no_room(v);
        return;
    }
    q->groups[0] = slice_str(v->g->name);
    q->groups_n = 1;
    visit_send(v);
}
