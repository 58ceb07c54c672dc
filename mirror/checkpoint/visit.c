/* One group of one round: its commits at the source, their translation, and, where that is asked for and something has
 * changed, the group at the target: its members, its offsets, where the partitions begin, one commit. */
#include "mirror/checkpoint/internal.h"

#include "base/core/grow.h"

#include "base/core/mutant.h"

#include <assert.h>
#include <stdlib.h>

#define VISIT_TIMEOUT_US INT64_C(10000000)
#define BOUND_WITHIN_US  INT64_C(1000000) /* a topic that the target has not has no leader */
#define VISIT_ARENA_MAX  (16u << 20)

struct wish {
    struct entry *entry;
    const struct watched *topic;
    struct decide_in in;
    struct decide_out out;
    int64_t log_start; /* of the target's partition, -1: not known */
};

struct visit {
    struct list link;
    struct checkpoint *c;
    struct group *g;
    struct client *asked;
    struct client_call *call;
    struct arena arena;
    struct wish *wishes; /* what the target must be asked about */
    size_t wishes_n, wishes_cap;
    size_t bound_at; /* the wish whose partition's start is asked for */
    struct store_wait wait;
    bool active;
};

static void end(struct visit *v, bool well)
{
    struct checkpoint *c = v->c;
    assert(!v->call && list_linked(&v->link)); /* once, and with nothing under way */
    list_remove(&v->link);
    arena_fini(&v->arena);
    free(v->wishes);
    free(v);
    visit_done(c, well);
}

void visit_cancel_all(struct checkpoint *c)
{
    list_each_safe(at, &c->visiting)
    {
        struct visit *v = LIST_ENTRY(at, struct visit, link);
        if (v->call)
            client_cancel(v->asked, v->call);
        list_remove(&v->wait.link);
        list_remove(&v->link);
        arena_fini(&v->arena);
        free(v->wishes);
        free(v);
    }
}

static void fail(struct visit *v, const char *what, const struct client_response *r, int16_t code)
{
    checkpoint_trouble(v->c, "group %s: cannot %s: %s", v->g->name, what,
                       r->status ? r->err->text : kafka_error_name(code));
    end(v, false);
}

/* A call to the group's coordinator at `client`, not yet sent; NULL when there is no room for it. */
static void *call_of(struct visit *v, struct client *client, int16_t key, int16_t version_min,
                     int16_t version_max, void (*on_response)(void *arg, const struct client_response *r))
{
    assert(!v->call); /* one question at a time */
    v->asked = client;
    v->call = client_call(client, key);
    if (!v->call)
        return NULL;
    v->call->target = (struct client_target){.kind = CLIENT_GROUP, .name = slice_str(v->g->name)};
    v->call->retry = CLIENT_RETRY_SAFE;
    v->call->version_min = version_min;
    v->call->version_max = version_max;
    v->call->timeout_us = VISIT_TIMEOUT_US;
    v->call->on_response = on_response;
    v->call->arg = v;
    return v->call->body;
}

/* The same in the middle of a visit, which ends without it. */
static void *begin(struct visit *v, struct client *client, int16_t key, int16_t version_min,
                   int16_t version_max, void (*on_response)(void *arg, const struct client_response *r))
{
    void *body = call_of(v, client, key, version_min, version_max, on_response);
    if (!body)
        end(v, false);
    return body;
}

static void no_room(struct visit *v)
{
    client_cancel(v->asked, v->call);
    v->call = NULL;
    end(v, false);
}

/* All committed offsets of the group. -E_NOMEM: nothing was asked. */
static int ask_offsets(struct visit *v, struct client *client,
                       void (*on_response)(void *arg, const struct client_response *r))
{
    struct kp_offset_fetch_request *r = call_of(v, client, kp_key_offset_fetch, 2, 8, on_response);
    if (r)
        r->groups = ARENA_NEW(v->call->arena, struct kp_offset_fetch_request_groups);
    if (!r || !r->groups) {
        if (r)
            client_cancel(client, v->call);
        v->call = NULL;
        return -E_NOMEM;
    }
    r->group_id = r->groups->group_id = slice_str(v->g->name);
    r->topics_n = r->groups->topics_n = -1;
    r->groups->member_epoch = -1;
    r->groups_n = 1;
    client_send(client, v->call);
    return 0;
}

/* ---- the answers' two shapes as one ---- */

struct committed {
    struct slice topic, metadata;
    int32_t partition;
    int64_t offset;
};

static int16_t offsets_error(const struct client_response *r)
{
    const struct kp_offset_fetch_response *a = r->body;
    if (r->version < 8)
        return a->error_code;
    return a->groups_n == 1 ? a->groups[0].error_code : KE_UNKNOWN_SERVER_ERROR;
}

/* Calls `each` for every partition with a commit. */
static void offsets_each(const struct client_response *r, void (*each)(void *arg, const struct committed *o),
                         void *arg)
{
    const struct kp_offset_fetch_response *a = r->body;
    int32_t topics = r->version < 8 ? a->topics_n : a->groups[0].topics_n;
    for (int32_t t = 0; t < topics; t++) {
        int32_t n = r->version < 8 ? a->topics[t].partitions_n : a->groups[0].topics[t].partitions_n;
        for (int32_t p = 0; p < n; p++) {
            struct committed o;
            if (r->version < 8)
                o = (struct committed){a->topics[t].name, a->topics[t].partitions[p].metadata,
                                       a->topics[t].partitions[p].partition_index,
                                       a->topics[t].partitions[p].committed_offset};
            else
                o = (struct committed){a->groups[0].topics[t].name,
                                       a->groups[0].topics[t].partitions[p].metadata,
                                       a->groups[0].topics[t].partitions[p].partition_index,
                                       a->groups[0].topics[t].partitions[p].committed_offset};
            if (o.offset >= 0 && o.partition >= 0)
                each(arg, &o);
        }
    }
}

/* ---- at the target ---- */

static void on_committed(void *arg, const struct client_response *r)
{
    struct visit *v = arg;
    v->call = NULL;
    const struct kp_offset_commit_response *a = r->body;
    if (r->status) {
        fail(v, "commit its offsets at the target", r, 0);
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
    end(v, true);
}

static void commit(void *arg)
{
    struct visit *v = arg;
    assert(v->bound_at == v->wishes_n);
    struct kp_offset_commit_request *q = begin(v, v->c->target, kp_key_offset_commit, 2, 8, on_committed);
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
        assert(w->in.now.offset >= 0 && w->in.target.known && !w->in.target.active);
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
        no_room(v);
        return;
    }
    assert(q->topics_n > 0);
    v->call->retry = CLIENT_RETRY_LOST; /* that a topic has been deleted is an answer */
    client_send(v->c->target, v->call);
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
            end(v, false);
            return;
        }
        v->c->events->save(v->c->arg, w->entry->key.topic, &w->entry->v);
        n++;
    }
    if (n == 0) {
        end(v, true);
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
        w->in.now.offset =
            a->topics[0]
                .partitions[0]
                .offset; /* the broker does not check: a commit below the log start would reset */
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
    struct kp_list_offsets_request *q = begin(v, v->c->target, kp_key_list_offsets, 1, 7, on_bound);
    if (!q)
        return;
    q->topics = ARENA_NEW(v->call->arena, struct kp_list_offsets_request_topics);
    struct kp_list_offsets_request_partitions *p =
        ARENA_NEW(v->call->arena, struct kp_list_offsets_request_partitions);
    if (!q->topics || !p) {
        no_room(v);
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
    client_send(v->c->target, v->call);
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
    assert(w->in.target.known && w->entry->v.q >= 0);
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
    int16_t code = r->status ? 0 : offsets_error(r);
    if (r->status || (code && code != KE_GROUP_ID_NOT_FOUND)) {
        fail(v, "read its offsets at the target", r, code);
        return;
    }
    if (!code)
        offsets_each(r, take_target_offset, v);
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
        fail(v, "look at it at the target", r, code);
        return;
    }
    v->active = !code && a->groups_n == 1 && a->groups[0].members_n > 0;
    if (ask_offsets(v, v->c->target, on_target_offsets))
        end(v, false);
}

static void look_at_target(struct visit *v)
{
    struct kp_describe_groups_request *q = begin(v, v->c->target, kp_key_describe_groups, 0, 5, on_described);
    if (!q)
        return;
    q->groups = ARENA_NEW(v->call->arena, struct slice);
    if (!q->groups) {
        no_room(v);
        return;
    }
    q->groups[0] = slice_str(v->g->name);
    q->groups_n = 1;
    client_send(v->c->target, v->call);
}

/* ---- at the source ---- */

struct gathered {
    struct visit *v;
    const char *topic;
    struct group_commit *list;
    size_t n, cap;
    struct slice metadata;
};

static void gather(void *arg, const struct committed *o)
{
    struct gathered *g = arg;
    if (!slice_eq_str(o->topic, g->topic))
        return;
    if (g->n == g->cap) {
        size_t cap = g->cap ? g->cap * 2 : 16;
        struct group_commit *more = ARENA_NEWS(&g->v->arena, struct group_commit, cap);
        if (!more)
            return;
        if (g->n)
            memcpy(more, g->list, g->n * sizeof *more);
        g->list = more;
        g->cap = cap;
    }
    assert(g->n < g->cap);
    g->list[g->n++] = (struct group_commit){o->partition, o->offset};
    g->metadata = o->metadata;
}

static int wish(struct visit *v, struct entry *e, const struct watched *w, const struct decide_in *in)
{
    if (!GROW(v->wishes, v->wishes_n, v->wishes_cap, 16))
        return -E_NOMEM;
    assert(e->v.q >= 0 && e->key.topic == w->number && in->now.state != TRANSLATE_NO_MAP);
    v->wishes[v->wishes_n++] = (struct wish){.entry = e, .topic = w, .in = *in, .log_start = -1};
    return 0;
}

static bool same_commits(const struct group_entry *a, const struct group_entry *b)
{
    if (a->commits_n != b->commits_n)
        return false;
    for (size_t i = 0; i < a->commits_n; i++)
        if (a->commits[i].p != b->commits[i].p || a->commits[i].offset != b->commits[i].offset)
            return false;
    return true;
}

/* One target partition: translated, kept when something has changed. */
static int translate_partition(struct visit *v, struct topic_map *m, const struct watched *w,
                               const struct gathered *g, int32_t q)
{
    struct checkpoint *c = v->c;
    struct translate_commits commits = {g->list, g->n, m->partitions};
    struct entry *e = entry_of(v->g, w->number, q);
    assert(q >= 0 && g->n > 0);
    struct decide_in in = {.apply = c->options->sync_group_offsets, .target = {.offset = -1}};
    struct decide_out out;
    int rc = e ? translate_forward(&m->map.map, m->rule, &commits, q, NULL, &in.now) : -E_NOMEM;
    if (rc)
        return rc;
    e->round = c->round;
    in.applied = e->v.applied;
    in.applied_offset = e->v.applied_offset;
    in.intends = e->v.intends;
    in.intended_offset = e->v.intended_offset;
    decide(&in, &out);
    struct group_entry n = e->v;
    n.group = slice_str(v->g->name);
    n.metadata = g->metadata;
    n.commits = g->list;
    n.commits_n = g->n;
    if (m->rule.mode == ROUTE_KEEP)
        for (size_t i = 0; i < g->n; i++)
            if (g->list[i].p == q) {
                n.commits = &g->list[i];
                n.commits_n = 1;
            }
    bool moved = n.offset != in.now.offset;
    n.offset = in.now.state == TRANSLATE_NO_MAP ? -1 : in.now.offset;
    n.reread = in.now.reread;
    bool waits = decide_needs_target(&in);
    /* What the target said last holds until something moves here or it is asked again. */
    if (moved || !waits || e->v.updated_ms == 0) {
        n.state = out.state;
        n.reason = slice_str(out.reason);
    }
    n.updated_ms = loop_wall_ms(c->loop);
    bool changed = moved || !same_commits(&n, &e->v) || n.state != e->v.state ||
                   !slice_eq(n.reason, e->v.reason) || e->v.updated_ms == 0;
    if (changed && (rc = entry_set(e, &n)))
        return rc;
    if (changed)
        c->events->save(c->arg, w->number, &e->v);
    return waits && c->apply_now ? wish(v, e, w, &in) : 0;
}

static int translate_topic(struct visit *v, struct store_view *view, const struct watched *w,
                           const struct gathered *g)
{
    struct topic_map m;
    int rc = topic_map_open(view, &w->stored, &m);
    if (rc <= 0)
        return rc;
    rc = 0;
    if (m.rule.mode == ROUTE_KEEP)
        for (size_t i = 0; !rc && i < g->n; i++)
            rc = translate_partition(v, &m, w, g, g->list[i].p);
    else
        for (int32_t q = 0; !rc && q < topic_map_targets(&m); q++)
            rc = translate_partition(v, &m, w, g, q);
    return rc;
}

static void forget_unseen(struct visit *v)
{
    struct entry *e, *next;
    HASH_ITER (hh, v->g->entries, e, next) {
        if (e->round != v->c->round)
            entry_forget(v->c, v->g, e);
    }
}

static void on_source_offsets(void *arg, const struct client_response *r)
{
    struct visit *v = arg;
    struct checkpoint *c = v->c;
    v->call = NULL;
    int16_t code = r->status ? 0 : offsets_error(r);
    if (r->status || code) {
        fail(v, "read its offsets at the source", r, code);
        return;
    }
    struct store_view *view = NULL;
    struct err err = {0};
    int rc = store_view_open(c->store, &view, &err);
    for (size_t i = 0; !rc && i < c->topics_n; i++) {
        struct gathered g = {.v = v, .topic = c->topics[i].source};
        offsets_each(r, gather, &g);
        if (g.n > 0)
            rc = translate_topic(v, view, &c->topics[i], &g);
        if (rc)
            err_set(&err, rc, "topic %s: %s", c->topics[i].source, err_str(rc));
    }
    if (view)
        store_view_close(view);
    if (rc) {
        checkpoint_trouble(c, "group %s: cannot translate: %s", v->g->name, err.text);
        end(v, false);
        return;
    }
    forget_unseen(v);
    if (v->wishes_n > 0)
        look_at_target(v);
    else
        end(v, true);
}

int visit_start(struct checkpoint *c, struct group *g)
{
    struct visit *v = calloc(1, sizeof *v);
    if (!v)
        return -E_NOMEM;
    v->c = c;
    v->g = g;
    list_init(&v->wait.link);
    arena_init(&v->arena, VISIT_ARENA_MAX);
    if (ask_offsets(v, c->source, on_source_offsets)) {
        free(v);
        return -E_NOMEM;
    }
    assert(v->call && g->round == c->round);
    list_push(&c->visiting, &v->link);
    return 0;
}
