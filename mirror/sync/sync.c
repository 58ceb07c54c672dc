#include "mirror/sync/internal.h"

#include "mirror/route/pattern.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define RETRY_US 1000000 /* after a round that could not be finished */

static void next_step(struct sync *s);
static void start_round(void *arg);

void sync_trouble(struct sync *s, struct known *k, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    const char *said = k ? (k->said ? k->said : "") : s->said;
    if (strcmp(said, text) == 0)
        return; /* once per cause */
    if (k) {
        free(k->said);
        k->said = strdup(text);
    } else {
        memcpy(s->said, text, sizeof text);
    }
    s->events->trouble(s->arg, k ? slice_str(k->source) : SLICE_NULL, text);
}

static void round_ends(struct sync *s, bool well)
{
    assert(s->step != SYNC_IDLE);
    assert(!s->call);
    assert(s->known_n == HASH_CNT(by_source, s->by_source));
    s->step = SYNC_IDLE;
    if (well) {
        s->said[0] = '\0';
        if (!s->settled) {
            s->settled = true;
            s->events->settled(s->arg);
        }
        if (s->flow->refresh_topics)
            loop_timer_in(&s->timer, (int64_t)s->flow->refresh_topics_s * 1000000);
    } else {
        loop_timer_in(&s->timer, RETRY_US);
    }
    if (s->woken)
        loop_timer_in(&s->timer, 0);
    s->woken = false;
}

static int64_t timeout_us(const struct sync *s)
{
    return (int64_t)s->flow->admin_timeout_ms * 1000;
}

/* ---- what the clusters have ---- */

static void forget(struct sync *s, struct known *k)
{
    configs_forget(s->configs, k);
    HASH_DELETE(by_source, s->by_source, k);
    HASH_DELETE(by_target, s->by_target, k);
    assert(s->known_n > 0);
    s->known_n--;
    free(k->source);
    free(k->target);
    free(k->said);
    free(k);
}

static struct known *known_of(struct sync *s, struct slice topic)
{
    struct known *k;
    HASH_FIND(by_source, s->by_source, topic.p, topic.n, k);
    if (k || s->known_n >= SYNC_TOPICS_MAX)
        return k;
    struct buf name;
    buf_init(&name, 4096);
    policy_remote_topic(&s->policy, topic, &name);
    k = calloc(1, sizeof *k);
    if (k) {
        k->source = strndup((const char *)topic.p, topic.n);
        k->target = strndup((const char *)buf_slice(&name).p, name.n);
    }
    buf_fini(&name);
    if (k && k->source && k->target) {
        HASH_ADD_KEYPTR(by_source, s->by_source, k->source, strlen(k->source), k);
        HASH_ADD_KEYPTR(by_target, s->by_target, k->target, strlen(k->target), k);
        s->known_n++;
        return k;
    }
    if (k) {
        free(k->source);
        free(k->target);
    }
    free(k);
    return NULL;
}

static void note_source(struct sync *s, const struct kp_metadata_response *m)
{
    bool full = false;
    for (int32_t i = 0; i < m->topics_n; i++) {
        const struct kp_metadata_response_topics *t = &m->topics[i];
        if (t->error_code || t->partitions_n == 0 || !sync_filter_takes(s->filter, &s->policy, t->name))
            continue;
        struct known *k = known_of(s, t->name);
        if (!k) {
            full = true; /* those behind it may be known, and those that are gone make room */
            continue;
        }
        if (!uuid_eq(&k->source_id, &t->topic_id) || k->source_partitions != t->partitions_n)
            k->told = false;
        k->source_id = t->topic_id;
        k->source_partitions = t->partitions_n;
        k->seen_source = s->round;
    }
    if (full)
        sync_trouble(s, NULL, "more than %d topics: the rest is not mirrored", SYNC_TOPICS_MAX);
    struct known *k, *next;
    HASH_ITER (by_source, s->by_source, k, next) {
        if (k->seen_source == s->round)
            continue;
        s->events->gone(s->arg, slice_str(k->source));
        forget(s, k);
    }
}

static void note_target(struct sync *s, const struct kp_metadata_response *m)
{
    for (int32_t i = 0; i < m->topics_n; i++) {
        const struct kp_metadata_response_topics *t = &m->topics[i];
        struct known *k;
        HASH_FIND(by_target, s->by_target, t->name.p, t->name.n, k);
        if (!k || t->error_code || t->partitions_n == 0)
            continue;
        if (!uuid_eq(&k->target_id, &t->topic_id) || k->target_partitions != t->partitions_n)
            k->told = false;
        k->target_id = t->topic_id;
        k->target_partitions = t->partitions_n;
        k->seen_target = s->round;
        k->kept |= k->target_partitions == k->source_partitions;
    }
}

static void tell(struct sync *s)
{
    struct known *k, *next;
    HASH_ITER (by_source, s->by_source, k, next) {
        if (k->told || k->seen_target != s->round)
            continue;
        k->told = true;
        assert(k->seen_source == s->round);
        assert(k->source_partitions > 0);
        assert(k->target_partitions > 0);
        struct sync_topic t = {slice_str(k->source), slice_str(k->target), k->source_id,
                               k->target_id,         k->source_partitions, k->target_partitions};
        s->events->topic(s->arg, &t);
    }
}

static void on_metadata(void *arg, const struct client_response *r)
{
    struct sync *s = arg;
    assert(s->step == SYNC_SOURCE || s->step == SYNC_TARGET || s->step == SYNC_AGAIN);
    s->call = NULL;
    if (r->status) {
        sync_trouble(s, NULL, "cannot list the topics of the %s: %s",
                     s->step == SYNC_SOURCE ? "source" : "target", r->err->text);
        round_ends(s, false);
        return;
    }
    if (s->step == SYNC_SOURCE)
        note_source(s, r->body);
    else
        note_target(s, r->body);
    next_step(s);
}

/* The round's next question, not yet sent: its body; NULL when there is no room for it. */
static void *ask(struct sync *s, struct client *c, int16_t api, int16_t version_min, int16_t version_max,
                 enum client_retry retry, enum client_target_kind whom,
                 void (*on_response)(void *arg, const struct client_response *r))
{
    assert(!s->call); /* one at a time */
    s->asked = c;
    s->call = client_ask(c, &(struct client_ask){.api = api,
                                                 .version_min = version_min,
                                                 .version_max = version_max,
                                                 .retry = retry,
                                                 .target = {.kind = whom},
                                                 .timeout_us = timeout_us(s),
                                                 .on_response = on_response,
                                                 .arg = s});
    return s->call ? s->call->body : NULL;
}

static void ask_metadata(struct sync *s, struct client *c)
{
    if (!ask(s, c, kp_key_metadata, 4, 12, CLIENT_RETRY_SAFE, CLIENT_ANY, on_metadata)) {
        sync_trouble(s, NULL, "cannot list topics: too many requests are under way");
        round_ends(s, false);
        return;
    }
    struct kp_metadata_request *r = s->call->body;
    r->topics_n = -1;
    r->allow_auto_topic_creation = false;
    client_send(c, s->call);
}

/* ---- making topics ---- */

static void create_refused(struct sync *s, struct known *k, const struct kp_create_topics_response_topics *t)
{
    switch (t->error_code) {
    case KE_NONE:
    case KE_TOPIC_ALREADY_EXISTS: s->changed_target = true; return;
    case KE_INVALID_CONFIG:
        sync_trouble(s, k, "the target refuses the configuration of %s (%.*s): it is made without", k->target,
                     SLICE_FMT(t->error_message));
        k->plain = true;
        return;
    case KE_INVALID_REPLICATION_FACTOR:
        sync_trouble(s, k,
                     "cannot create %s: replication.factor=%d is more than the target has brokers; set "
                     "replication.factor",
                     k->target, s->flow->replication_factor);
        return;
    default:
        sync_trouble(s, k, "cannot create %s: %s%s%.*s", k->target, kafka_error_name(t->error_code),
                     t->error_message.n ? ": " : "", SLICE_FMT(t->error_message));
    }
}

static void on_created(void *arg, const struct client_response *r)
{
    struct sync *s = arg;
    assert(s->step == SYNC_CREATE);
    assert(s->lot_n > 0);
    assert(s->lot_n <= SYNC_BATCH);
    s->call = NULL;
    if (r->status) {
        sync_trouble(s, NULL, "cannot create topics at the target: %s", r->err->text);
        round_ends(s, false);
        return;
    }
    const struct kp_create_topics_response *a = r->body;
    for (int32_t i = 0; i < a->topics_n; i++)
        for (int k = 0; k < s->lot_n; k++)
            if (slice_eq_str(a->topics[i].name, s->lot[k]->target))
                create_refused(s, s->lot[k], &a->topics[i]);
    next_step(s);
}

static int fill_topic(struct sync *s, int i, struct arena *a, struct kp_create_topics_request_topics *out)
{
    struct known *k = s->lot[i];
    assert(k->source_partitions > 0);
    assert(k->target_partitions < 0); /* not there, as far as this round knows */
    *out =
        (struct kp_create_topics_request_topics){.name = slice_str(k->target),
                                                 .num_partitions = k->source_partitions,
                                                 .replication_factor = (int16_t)s->flow->replication_factor};
    int32_t n = k->plain || s->settings->topic[i].n < 0 ? 0 : s->settings->topic[i].n;
    out->configs = ARENA_NEWS(a, struct kp_create_topics_request_configs, n);
    if (!out->configs)
        return -E_NOMEM;
    for (int32_t c = 0; c < n; c++)
        out->configs[out->configs_n++] =
            (struct kp_create_topics_request_configs){arena_dup(a, s->settings->topic[i].list[c].name),
                                                      arena_dup(a, s->settings->topic[i].list[c].value)};
    return arena_failed(a) ? -E_NOMEM : 0; /* a value that is null would be the target's default */
}

static void on_settings(void *arg, const struct client_response *r)
{
    struct sync *s = arg;
    const char *names[SYNC_BATCH];
    assert(s->step == SYNC_CREATE);
    assert(s->lot_n > 0);
    assert(s->lot_n <= SYNC_BATCH);
    for (int i = 0; i < s->lot_n; i++)
        names[i] = s->lot[i]->source;
    s->call = NULL;
    int rc = r->status;
    if (!rc)
        rc = sync_take_settings(r->body, names, s->lot_n, strcmp(s->flow->defaults_from, "source") == 0,
                                s->config_exclude, s->settings);
    if (rc) {
        sync_trouble(s, NULL, "cannot read topic configurations of the source: %s",
                     r->status ? r->err->text : err_str(rc));
        round_ends(s, false);
        return;
    }
    struct kp_create_topics_request *q =
        ask(s, s->target, kp_key_create_topics, 4, 7, CLIENT_RETRY_SAFE, CLIENT_CONTROLLER, on_created);
    if (q)
        q->topics = ARENA_NEWS(s->call->arena, struct kp_create_topics_request_topics, s->lot_n);
    rc = q && q->topics ? 0 : -E_NOMEM;
    for (int i = 0; !rc && i < s->lot_n; i++)
        rc = fill_topic(s, i, s->call->arena, &q->topics[q->topics_n++]);
    arena_fini(&s->settings->arena);
    if (rc) {
        if (s->call)
            client_cancel(s->target, s->call);
        s->call = NULL;
        round_ends(s, false);
        return;
    }
    q->timeout_ms = s->flow->admin_timeout_ms;
    client_send(s->target, s->call);
}

/* The next topics that the target does not have; false when there are none. Each is tried once a round. */
static bool create_some(struct sync *s)
{
    const char *names[SYNC_BATCH];
    struct known *k, *next;
    s->lot_n = 0;
    HASH_ITER (by_source, s->by_source, k, next) {
        if (k->seen_target == s->round || s->lot_n == SYNC_BATCH)
            continue;
        k->seen_target = s->round; /* counts as seen until the target is read again */
        k->target_partitions = -1;
        k->told = true;
        names[s->lot_n] = k->source;
        s->lot[s->lot_n++] = k;
    }
    if (s->lot_n == 0)
        return false;
    s->asked = s->source;
    if (sync_ask_settings(s->source, timeout_us(s), names, s->lot_n, on_settings, s, &s->call))
        round_ends(s, false);
    return true;
}

/* ---- growing ---- */

static void on_grown(void *arg, const struct client_response *r)
{
    struct sync *s = arg;
    assert(s->step == SYNC_GROW);
    s->call = NULL;
    if (r->status) {
        sync_trouble(s, NULL, "cannot add partitions at the target: %s", r->err->text);
        round_ends(s, false);
        return;
    }
    const struct kp_create_partitions_response *a = r->body;
    for (int32_t i = 0; i < a->results_n; i++) {
        struct known *k;
        HASH_FIND(by_target, s->by_target, a->results[i].name.p, a->results[i].name.n, k);
        if (a->results[i].error_code && k)
            sync_trouble(s, k, "cannot add partitions to %s: %s", k->target,
                         kafka_error_name(a->results[i].error_code));
        else
            s->changed_target = true;
    }
    next_step(s);
}

static bool must_grow(struct sync *s, const struct known *k)
{
    if (k->target_partitions < 0 || k->target_partitions >= k->source_partitions)
        return false;
    return k->kept ||
           (s->events->keeps_partitions && s->events->keeps_partitions(s->arg, slice_str(k->source)));
}

static bool grow_some(struct sync *s)
{
    struct kp_create_partitions_request_topics *list = NULL;
    struct kp_create_partitions_request *q = NULL;
    struct known *k, *next;
    HASH_ITER (by_source, s->by_source, k, next) {
        if (!must_grow(s, k) || (q && q->topics_n == SYNC_BATCH))
            continue;
        if (!q) {
            /* A second one would be refused for having nothing to add. */
            q = ask(s, s->target, kp_key_create_partitions, 0, 3, CLIENT_RETRY_UNSENT, CLIENT_CONTROLLER,
                    on_grown);
            list =
                q ? ARENA_NEWS(s->call->arena, struct kp_create_partitions_request_topics, SYNC_BATCH) : NULL;
            if (!list)
                break;
            q->topics = list;
        }
        assert(q->topics_n < SYNC_BATCH);
        assert(k->source_partitions > k->target_partitions);
        list[q->topics_n++] = (struct kp_create_partitions_request_topics){
            .name = arena_dup(s->call->arena, slice_str(k->target)),
            .count = k->source_partitions,
            .assignments_n = -1};
    }
    if (!q)
        return false;
    if (!list || arena_failed(s->call->arena)) {
        client_cancel(s->target, s->call);
        s->call = NULL;
        round_ends(s, false);
        return true;
    }
    q->timeout_ms = s->flow->admin_timeout_ms;
    client_send(s->target, s->call);
    return true;
}

/* ---- a round: source, target, create, grow, and the target again where it has changed ---- */

static void next_step(struct sync *s)
{
    switch (s->step) {
    case SYNC_SOURCE:
        s->step = SYNC_TARGET;
        ask_metadata(s, s->target);
        return;
    case SYNC_TARGET:
        tell(s);
        s->step = SYNC_CREATE;
        __attribute__((fallthrough));
    case SYNC_CREATE:
        if (create_some(s))
            return;
        s->step = SYNC_GROW;
        if (grow_some(s))
            return;
        __attribute__((fallthrough));
    case SYNC_GROW:
        if (!s->changed_target) {
            round_ends(s, true);
            return;
        }
        s->step = SYNC_AGAIN;
        ask_metadata(s, s->target);
        return;
    case SYNC_AGAIN:
        tell(s);
        round_ends(s, true);
        return;
    case SYNC_IDLE: assert(false && "a step while idle");
    }
}

static void start_round(void *arg)
{
    struct sync *s = arg;
    if (s->step != SYNC_IDLE)
        return;
    s->round++;
    s->changed_target = false;
    s->step = SYNC_SOURCE;
    ask_metadata(s, s->source);
}

int sync_create(const struct sync_options *o, struct sync **out, struct err *err)
{
    struct sync *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, -E_NOMEM, "out of memory");
    *s = (struct sync){.loop = o->loop,
                       .source = o->source,
                       .target = o->target,
                       .flow = o->flow,
                       .policy = o->policy,
                       .events = o->events,
                       .arg = o->arg};
    loop_timer_init(&s->timer, o->loop, start_round, s);
    s->settings = calloc(1, sizeof *s->settings);
    int rc =
        s->settings ? sync_filter_create(o->flow, &s->filter, err) : err_set(err, -E_NOMEM, "out of memory");
    if (!rc) {
        rc = pattern_compile((const char *const *)o->flow->config_exclude.item, o->flow->config_exclude.n,
                             &s->config_exclude, err);
        if (rc)
            err_wrap(err, "config.properties.exclude");
    }
    if (!rc && o->flow->sync_configs)
        rc = configs_create(s, &s->configs, err);
    if (rc) {
        sync_destroy(s);
        return rc;
    }
    loop_timer_in(&s->timer, 0);
    *out = s;
    return 0;
}

void sync_destroy(struct sync *s)
{
    if (!s)
        return;
    loop_timer_stop(&s->timer);
    if (s->call)
        client_cancel(s->asked, s->call);
    struct known *k, *next;
    HASH_ITER (by_source, s->by_source, k, next)
        forget(s, k);
    configs_destroy(s->configs);
    sync_filter_destroy(s->filter);
    pattern_destroy(s->config_exclude);
    free(s->settings);
    free(s);
}

void sync_wake(struct sync *s)
{
    if (s->step == SYNC_IDLE)
        loop_timer_in(&s->timer, 0);
    else
        s->woken = true; /* what this round asks may have been answered already */
}

size_t sync_topics(const struct sync *s)
{
    return s->known_n;
}

void sync_each_waiting(const struct sync *s,
                       void (*each)(void *arg, const char *source, const char *target, const char *reason),
                       void *arg)
{
    struct known *k, *next;
    HASH_ITER (by_source, s->by_source, k, next)
        if (k->target_partitions <= 0 && k->said) /* none seen at the target */
            each(arg, k->source, k->target, k->said);
}
