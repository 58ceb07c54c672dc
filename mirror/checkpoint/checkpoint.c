/* Rounds: which topics the store has, which groups the source has, a visit for each of them, checkpoints for what has
 * changed. */
#include "mirror/checkpoint/internal.h"

#include "base/core/grow.h"

#include "mirror/route/pattern.h"
#include "mirror/sync/internal_topic.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define ROUND_RETRY_US  1000000
#define LIST_TIMEOUT_US 10000000

static void start_round(void *arg);
static void list_next(struct checkpoint *c);

void checkpoint_trouble(struct checkpoint *c, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    bool news = said_new(&c->said, fmt, args);
    va_end(args);
    if (news)
        c->events->trouble(c->arg, c->said.text);
}

/* ---- entries ---- */

struct entry *entry_of(struct group *g, uint32_t topic, int32_t q)
{
    struct entry *e, probe = {.key = {topic, q}};
    assert(topic > 0);
    assert(q >= 0);
    HASH_FIND(hh, g->entries, &probe.key, sizeof probe.key, e);
    if (e || !(e = calloc(1, sizeof *e)))
        return e;
    e->key.topic = topic;
    e->key.q = q;
    e->v.q = q;
    e->v.offset = e->v.applied_offset = e->emitted_offset = e->emitted_upstream = e->told_foreign = -1;
    HASH_ADD(hh, g->entries, key, sizeof e->key, e);
    if (HASH_ADDED(e))
        return e;
    free(e);
    return NULL;
}

int entry_set(struct entry *e, const struct group_entry *v)
{
    size_t commits = v->commits_n * sizeof *v->commits;
    uint8_t *at = malloc(commits + v->group.n + v->reason.n + v->metadata.n + 1);
    if (!at)
        return -E_NOMEM;
    void *old = e->memory;
    e->memory = at;
    struct group_entry n = *v;
    if (commits)
        memcpy(at, v->commits, commits);
    n.commits = (const struct group_commit *)(void *)at;
    at += commits;
    const struct slice *from[] = {&v->group, &v->reason, &v->metadata};
    struct slice *to[] = {&n.group, &n.reason, &n.metadata};
    for (int i = 0; i < 3; i++) {
        if (from[i]->n)
            memcpy(at, from[i]->p, from[i]->n);
        *to[i] = slice_is_null(*from[i]) ? SLICE_NULL : slice_of(at, from[i]->n);
        at += from[i]->n;
    }
    assert(n.q == e->key.q);
    assert(at == (uint8_t *)e->memory + commits + n.group.n + n.reason.n + n.metadata.n);
    e->v = n;
    free(old);
    return 0;
}

static void entry_free(struct group *g, struct entry *e)
{
    HASH_DELETE(hh, g->entries, e);
    free(e->memory);
    free(e);
}

void entry_forget(struct checkpoint *c, struct group *g, struct entry *e)
{
    c->events->forget(c->arg, e->key.topic, slice_str(g->name), e->v.q);
    c->gone += e->emitted_offset >= 0;
    entry_free(g, e);
}

static struct group *group_of(struct checkpoint *c, struct slice name)
{
    struct group *g;
    HASH_FIND(hh, c->groups, name.p, name.n, g);
    if (g || c->groups_n >= CHECKPOINT_GROUPS_MAX || !(g = calloc(1, sizeof *g)))
        return g;
    g->name = strndup((const char *)name.p, name.n);
    if (g->name) {
        HASH_ADD_KEYPTR(hh, c->groups, g->name, strlen(g->name), g);
        if (HASH_ADDED(g)) {
            c->groups_n++;
            assert(c->groups_n <= CHECKPOINT_GROUPS_MAX);
            assert(c->groups_n == HASH_COUNT(c->groups));
            return g;
        }
    }
    free(g->name);
    free(g);
    return NULL;
}

static void group_free(struct checkpoint *c, struct group *g)
{
    struct entry *e, *next;
    HASH_ITER (hh, g->entries, e, next)
        entry_free(g, e);
    assert(c->groups_n > 0);
    assert(!g->entries);
    HASH_DELETE(hh, c->groups, g);
    c->groups_n--;
    free(g->name);
    free(g);
}

/* ---- topics, as the store has them ---- */

struct looking {
    struct checkpoint *c;
    struct store_view *view;
    struct watched *list;
    size_t n, cap;
};

static void watched_fini(struct watched *w)
{
    free(w->source);
    free(w->target);
}

static int on_topic(void *arg, const struct stored_topic *t)
{
    struct looking *l = arg;
    struct stored_topic newest;
    struct topic_map map;
    if (t->flow != l->c->flow || store_topic_named(l->view, t->flow, t->topic.name, false, &newest) != 1 ||
        newest.number != t->number)
        return 0;
    int rc = topic_map_open(l->view, t, &map);
    if (rc <= 0)
        return rc;
    if (!GROW(l->list, l->n, l->cap, 64))
        return -E_NOMEM;
    struct watched w = {.number = t->number,
                        .source = strndup((const char *)t->topic.name.p, t->topic.name.n),
                        .target = strndup((const char *)t->target_topic.p, t->target_topic.n),
                        .stored = *t,
                        .rule = map.rule,
                        .partitions = map.partitions};
    if (!w.source || !w.target) {
        watched_fini(&w);
        return -E_NOMEM;
    }
    w.stored.topic.name = slice_str(w.source);
    w.stored.target_topic = slice_str(w.target);
    for (size_t i = 0; i < l->c->topics_n; i++)
        w.loaded |= l->c->topics[i].number == w.number && l->c->topics[i].loaded;
    l->list[l->n++] = w;
    return 0;
}

/* What an earlier run has left: applied marks and the last translation. */
static int on_stored_group(void *arg, const struct group_entry *v)
{
    struct looking *l = arg;
    struct group *g = group_of(l->c, v->group);
    struct entry *e = g ? entry_of(g, l->list[l->n - 1].number, v->q) : NULL;
    return e ? entry_set(e, v) : -E_NOMEM;
}

static int look_at_store(struct checkpoint *c, struct err *err)
{
    struct looking l = {.c = c};
    /* visits point to the topics */
    assert(c->visits == 0);
    assert(list_empty(&c->visiting));
    int rc = store_view_open(c->store, &l.view, err);
    if (rc)
        return rc;
    rc = store_topics_each(l.view, on_topic, &l);
    size_t n = l.n;
    for (size_t i = 0; !rc && i < n; i++) {
        if (l.list[i].loaded)
            continue;
        l.n = i + 1; /* on_stored_group's topic */
        rc = store_groups_each(l.view, l.list[i].number, on_stored_group, &l);
        l.list[i].loaded = true;
    }
    store_view_close(l.view);
    struct watched *drop = rc ? l.list : c->topics;
    size_t drop_n = rc ? n : c->topics_n;
    for (size_t i = 0; i < drop_n; i++)
        watched_fini(&drop[i]);
    free(drop);
    if (rc)
        return err_set(err, rc, "the store: %s", err_str(rc));
    c->topics = l.list;
    c->topics_n = n;
    return 0;
}

/* ---- a round ---- */

static void round_ends(struct checkpoint *c, bool well)
{
    assert(c->visits == 0);
    assert(list_empty(&c->visiting));
    assert(!c->call);
    if (well) {
        c->round_ended_us = loop_now_us(c->loop);
        said_over(&c->said);
    }
    emit(c, well);
    loop_timer_in(&c->timer, well ? (int64_t)c->options->refresh_groups_s * 1000000 : ROUND_RETRY_US);
}

/* Groups that the source does not have any more. */
static void forget_gone(struct checkpoint *c)
{
    struct group *g, *gn;
    struct entry *e, *en;
    HASH_ITER (hh, c->groups, g, gn) {
        if (g->round == c->round)
            continue;
        HASH_ITER (hh, g->entries, e, en)
            entry_forget(c, g, e);
        group_free(c, g);
    }
}

static void visit_some(struct checkpoint *c)
{
    while (c->next_visit && c->visits < CHECKPOINT_CALLS) {
        struct group *g = c->next_visit;
        c->next_visit = g->hh.next;
        if (g->round != c->round)
            continue;
        if (visit_start(c, g)) {
            checkpoint_trouble(c, "cannot follow group %s: too many requests are under way", g->name);
            break;
        }
        c->visits++;
    }
    assert(c->visits >= 0);
    assert(c->visits <= CHECKPOINT_CALLS);
    if (c->visits > 0)
        return;
    if (c->apply_now)
        c->synced_us = loop_now_us(c->loop);
    round_ends(c, true);
}

void visit_done(struct checkpoint *c, bool well)
{
    assert(c->visits > 0);
    assert(c->visits <= CHECKPOINT_CALLS);
    (void)well; /* a group that failed is visited again in the next round */
    c->visits--;
    visit_some(c);
}

static void on_groups(void *arg, const struct client_response *r)
{
    struct checkpoint *c = arg;
    c->call = NULL;
    const struct kp_list_groups_response *a = r->body;
    if (r->status || a->error_code) {
        c->listed_all = false;
        checkpoint_trouble(c, "cannot list the groups of the source: %s",
                           r->status ? r->err->text : kafka_error_name(a->error_code));
    }
    for (int32_t i = 0; !r->status && !a->error_code && i < a->groups_n; i++) {
        struct slice name = a->groups[i].group_id;
        bool plain =
            a->groups[i].protocol_type.n == 0 || slice_eq_str(a->groups[i].protocol_type, "consumer");
        if (!plain || name.n == 0 || !pattern_matches(c->groups_take, name) ||
            pattern_matches(c->groups_exclude, name))
            continue;
        struct group *g = group_of(c, name);
        if (g)
            g->round = c->round;
    }
    list_next(c);
}

static bool start_call(struct checkpoint *c, int16_t key, struct client_target target, int16_t version_min,
                       int16_t version_max, void (*on_response)(void *arg, const struct client_response *r))
{
    assert(!c->call);
    c->call = client_ask(c->source, &(struct client_ask){.api = key,
                                                         .version_min = version_min,
                                                         .version_max = version_max,
                                                         .retry = CLIENT_RETRY_SAFE,
                                                         .target = target,
                                                         .timeout_us = LIST_TIMEOUT_US,
                                                         .on_response = on_response,
                                                         .arg = c});
    if (!c->call) {
        checkpoint_trouble(c, "cannot follow groups: too many requests are under way");
        round_ends(c, false);
        return false;
    }
    return true;
}

static void list_next(struct checkpoint *c)
{
    assert(!c->call);
    assert(c->broker_at <= c->brokers_n);
    if (c->broker_at == c->brokers_n) {
        if (c->listed_all)
            forget_gone(c);
        c->next_visit = c->groups;
        visit_some(c);
        return;
    }
    struct client_target broker = {.kind = CLIENT_BROKER, .number = c->brokers[c->broker_at++]};
    if (start_call(c, kp_key_list_groups, broker, 0, 4, on_groups))
        client_send(c->source, c->call);
}

static void on_brokers(void *arg, const struct client_response *r)
{
    struct checkpoint *c = arg;
    c->call = NULL;
    if (r->status) {
        checkpoint_trouble(c, "cannot ask the source for its groups: %s", r->err->text);
        round_ends(c, false);
        return;
    }
    const struct kp_metadata_response *a = r->body;
    c->brokers_n = c->broker_at = 0;
    for (int32_t i = 0; i < a->brokers_n && c->brokers_n < (int)(sizeof c->brokers / sizeof *c->brokers); i++)
        c->brokers[c->brokers_n++] = a->brokers[i].node_id;
    c->listed_all = c->brokers_n > 0 && c->brokers_n == a->brokers_n;
    list_next(c);
}

static void start_round(void *arg)
{
    struct checkpoint *c = arg;
    struct err err = {0};
    if (c->call || c->visits > 0)
        return;
    c->round++;
    c->apply_now = c->options->sync_group_offsets &&
                   loop_now_us(c->loop) - c->synced_us >= (int64_t)c->options->sync_group_offsets_s * 900000;
    if (look_at_store(c, &err)) {
        checkpoint_trouble(c, "cannot read the store: %s", err.text);
        round_ends(c, false);
        return;
    }
    if (start_call(c, kp_key_metadata, (struct client_target){.kind = CLIENT_ANY}, 4, 12, on_brokers)) {
        struct kp_metadata_request *r = c->call->body;
        r->topics_n = 0;
        r->allow_auto_topic_creation = false;
        client_send(c->source, c->call);
    }
}

/* ---- life ---- */

static int compile(struct checkpoint *c, struct err *err)
{
    const struct flow_options *o = c->options;
    int rc = pattern_compile((const char *const *)o->groups.item, o->groups.n, &c->groups_take, err);
    if (rc) {
        err_wrap(err, "groups");
        return rc;
    }
    rc = pattern_compile((const char *const *)o->groups_exclude.item, o->groups_exclude.n, &c->groups_exclude,
                         err);
    if (rc)
        err_wrap(err, "groups.exclude");
    return rc;
}

int checkpoint_create(const struct checkpoint_options *o, struct checkpoint **out, struct err *err)
{
    struct checkpoint *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(err, -E_NOMEM, "out of memory");
    *c = (struct checkpoint){.loop = o->loop,
                             .source = o->source,
                             .target = o->target,
                             .store = o->store,
                             .flow = o->flow,
                             .options = o->options,
                             .policy = o->policy,
                             .events = o->events,
                             .arg = o->arg,
                             .round_ended_us = -1};
    list_init(&c->visiting);
    loop_timer_init(&c->timer, o->loop, start_round, c);
    c->emitted_us = c->synced_us = INT64_MIN / 2;
    int rc = compile(c, err);
    if (!rc && o->options->emit_checkpoints) {
        struct buf name;
        buf_init(&name, 1024);
        policy_checkpoints_topic(&c->policy, &name);
        buf_put_u8(&name, 0);
        struct internal_topic_options t = {.loop = o->loop,
                                           .client = o->target,
                                           .name = (const char *)name.p,
                                           .replication_factor = (int16_t)o->options->checkpoints_factor,
                                           .factor_key = "checkpoints.topic.replication.factor",
                                           .cuts = true,
                                           .trouble = o->events->trouble,
                                           .arg = o->arg};
        rc = name.failed ? err_set(err, -E_NOMEM, "out of memory")
                         : internal_topic_create(&t, &c->checkpoints, err);
        buf_fini(&name);
    }
    if (rc) {
        checkpoint_destroy(c);
        return rc;
    }
    loop_timer_in(&c->timer, 0);
    *out = c;
    return 0;
}

void checkpoint_destroy(struct checkpoint *c)
{
    if (!c)
        return;
    loop_timer_stop(&c->timer);
    if (c->call)
        client_cancel(c->source, c->call);
    visit_cancel_all(c);
    struct group *g, *next;
    HASH_ITER (hh, c->groups, g, next)
        group_free(c, g);
    for (size_t i = 0; i < c->topics_n; i++)
        watched_fini(&c->topics[i]);
    free(c->topics);
    internal_topic_destroy(c->checkpoints);
    pattern_destroy(c->groups_take);
    pattern_destroy(c->groups_exclude);
    free(c);
}

void checkpoint_wake(struct checkpoint *c)
{
    if (!c->call && c->visits == 0)
        loop_timer_in(&c->timer, 0);
}

void checkpoint_each(const struct checkpoint *c, void (*each)(void *arg, const struct checkpoint_row *row),
                     void *arg)
{
    struct group *g, *gn;
    struct entry *e, *en;
    HASH_ITER (hh, c->groups, g, gn)
        HASH_ITER (hh, g->entries, e, en) {
            const struct watched *w = watched_of(c, e->key.topic);
            if (!w)
                continue;
            struct checkpoint_row row = {
                slice_str(g->name), slice_str(w->target), e->v.q,
                e->v.commits_n == 1 || w->rule.mode == ROUTE_KEEP ? upstream_of(e) : -1, &e->v};
            each(arg, &row);
        }
}

int64_t checkpoint_age_ms(const struct checkpoint *c)
{
    return c->round_ended_us < 0 ? -1 : (loop_now_us(c->loop) - c->round_ended_us) / 1000;
}
