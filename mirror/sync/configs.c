/* Topic configurations follow the source: each interval both sides are read, lot by lot, and only what differs is sent
 * (IncrementalAlterConfigs, KIP-339). */
#include "mirror/sync/internal.h"

#include "mirror/route/pattern.h"

#include <assert.h>
#include <stdlib.h>

struct configs {
    struct sync *s;
    struct loop_timer timer;
    struct client *asked;
    struct client_call *call;
    struct known *lot[SYNC_BATCH]; /* NULL: forgotten meanwhile */
    char *source_names[SYNC_BATCH], *target_names[SYNC_BATCH];
    int lot_n;
    char *after; /* the lot before ended with this source topic */
    struct sync_settings source, target;
    bool have_source;
};

static void next_lot(void *arg);

static void clear_lot(struct configs *c)
{
    for (int i = 0; i < c->lot_n; i++) {
        free(c->source_names[i]);
        free(c->target_names[i]);
    }
    c->lot_n = 0;
    if (c->have_source)
        arena_fini(&c->source.arena);
    c->have_source = false;
}

static void wait_for_next_round(struct configs *c)
{
    clear_lot(c);
    free(c->after);
    c->after = NULL;
    loop_timer_in(&c->timer, (int64_t)c->s->flow->sync_configs_s * 1000000);
}

static void on_altered(void *arg, const struct client_response *r)
{
    struct configs *c = arg;
    assert(c->lot_n > 0);
    c->call = NULL;
    const struct kp_incremental_alter_configs_response *a = r->body;
    if (r->status)
        sync_trouble(c->s, NULL, "cannot alter topic configurations at the target: %s", r->err->text);
    for (int32_t i = 0; !r->status && i < a->responses_n; i++)
        for (int k = 0; k < c->lot_n; k++)
            if (c->lot[k] && a->responses[i].error_code &&
                a->responses[i].error_code !=
                    KE_UNKNOWN_TOPIC_OR_PARTITION && /* deleted: the listings say so */
                slice_eq_str(a->responses[i].resource_name, c->target_names[k]))
                sync_trouble(c->s, c->lot[k], "the target refuses the configuration of %s: %s%s%.*s",
                             c->target_names[k], kafka_error_name(a->responses[i].error_code),
                             a->responses[i].error_message.n ? ": " : "",
                             SLICE_FMT(a->responses[i].error_message));
    clear_lot(c);
    loop_timer_in(&c->timer, 0);
}

static const struct sync_setting *find(const struct sync_setting *list, int32_t n, struct slice name)
{
    for (int32_t i = 0; i < n; i++)
        if (slice_eq(list[i].name, name))
            return &list[i];
    return NULL;
}

/* SET what differs or is missing, DELETE what the source does not set: into `out`, whose room is for all of both. */
static int32_t differences(const struct configs *c, int i,
                           struct kp_incremental_alter_configs_request_configs *out)
{
    enum { SET = 0, DELETE = 1 };
    int32_t n = 0, have = c->target.topic[i].n, want = c->source.topic[i].n;
    for (int32_t k = 0; k < want; k++) {
        const struct sync_setting *w = &c->source.topic[i].list[k],
                                  *h = find(c->target.topic[i].list, have, w->name);
        if (!h || !slice_eq(h->value, w->value))
            out[n++] = (struct kp_incremental_alter_configs_request_configs){
                .name = w->name, .config_operation = SET, .value = w->value};
    }
    assert(n <= want);
    for (int32_t k = 0; k < have; k++) {
        const struct sync_setting *h = &c->target.topic[i].list[k];
        if (!find(c->source.topic[i].list, want, h->name))
            out[n++] = (struct kp_incremental_alter_configs_request_configs){.name = h->name,
                                                                             .config_operation = DELETE};
    }
    assert(n <= want + have);
    return n;
}

static int build(struct configs *c, struct kp_incremental_alter_configs_request *q, struct arena *a)
{
    enum { TOPIC = 2 };
    q->resources = ARENA_NEWS(a, struct kp_incremental_alter_configs_request_resources, c->lot_n);
    for (int i = 0; q->resources && i < c->lot_n; i++) {
        if (!c->lot[i] || c->source.topic[i].n < 0 || c->target.topic[i].n < 0)
            continue;
        struct kp_incremental_alter_configs_request_resources *r = &q->resources[q->resources_n];
        r->configs = ARENA_NEWS(a, struct kp_incremental_alter_configs_request_configs,
                                c->source.topic[i].n + c->target.topic[i].n);
        if (!r->configs)
            return -E_NOMEM;
        r->resource_type = TOPIC;
        r->resource_name = slice_str(c->target_names[i]);
        r->configs_n = differences(c, i, r->configs);
        q->resources_n += r->configs_n > 0;
        /* The values must outlive the lot's settings. */
        for (int32_t k = 0; k < r->configs_n; k++) {
            r->configs[k].name = arena_dup(a, r->configs[k].name);
            r->configs[k].value = arena_dup(a, r->configs[k].value);
        }
    }
    return q->resources && !arena_failed(a) ? 0 : -E_NOMEM;
}

static void on_target(void *arg, const struct client_response *r)
{
    struct configs *c = arg;
    struct sync *s = c->s;
    c->call = NULL;
    bool all = strcmp(s->flow->defaults_from, "source") == 0;
    int rc = r->status ? r->status
                       : sync_take_settings(r->body, (const char *const *)c->target_names, c->lot_n, all,
                                            s->config_exclude, &c->target);
    if (rc) {
        sync_trouble(s, NULL, "cannot read topic configurations of the target: %s",
                     r->status ? r->err->text : err_str(rc));
        wait_for_next_round(c);
        return;
    }
    c->asked = s->target;
    /* Not SAFE: one may have been deleted since its settings were asked for, and the others would wait for it. */
    c->call =
        client_ask(s->target, &(struct client_ask){.api = kp_key_incremental_alter_configs,
                                                   .version_max = 1,
                                                   .retry = CLIENT_RETRY_LOST,
                                                   .target = {.kind = CLIENT_CONTROLLER},
                                                   .timeout_us = (int64_t)s->flow->admin_timeout_ms * 1000,
                                                   .on_response = on_altered,
                                                   .arg = c});
    struct kp_incremental_alter_configs_request *q = c->call ? c->call->body : NULL;
    rc = q ? build(c, q, c->call->arena) : -E_NOMEM;
    arena_fini(&c->target.arena);
    if (rc || q->resources_n == 0) {
        if (c->call)
            client_cancel(s->target, c->call);
        c->call = NULL;
        clear_lot(c);
        loop_timer_in(&c->timer, 0);
        return;
    }
    client_send(s->target, c->call);
}

static void on_source(void *arg, const struct client_response *r)
{
    struct configs *c = arg;
    struct sync *s = c->s;
    c->call = NULL;
    bool all = strcmp(s->flow->defaults_from, "source") == 0;
    int rc = r->status ? r->status
                       : sync_take_settings(r->body, (const char *const *)c->source_names, c->lot_n, all,
                                            s->config_exclude, &c->source);
    if (rc) {
        sync_trouble(s, NULL, "cannot read topic configurations of the source: %s",
                     r->status ? r->err->text : err_str(rc));
        wait_for_next_round(c);
        return;
    }
    assert(!c->have_source);
    c->have_source = true;
    c->asked = s->target;
    if (sync_ask_settings(s->target, (int64_t)s->flow->admin_timeout_ms * 1000,
                          (const char *const *)c->target_names, c->lot_n, on_target, c, &c->call))
        wait_for_next_round(c);
}

/* Whether `k` comes behind the lot before, which ended with `after`: topics are taken in the order of the table, which
 * keeps the order in which they were found. */
static void next_lot(void *arg)
{
    struct configs *c = arg;
    struct sync *s = c->s;
    struct known *k = s->by_source;
    assert(c->lot_n == 0);
    assert(!c->call);
    assert(!c->have_source);
    if (c->after) {
        HASH_FIND(by_source, s->by_source, c->after, strlen(c->after), k);
        k = k ? k->by_source.next : NULL; /* it is gone: the rest waits for the next round */
    }
    for (; k && c->lot_n < SYNC_BATCH; k = k->by_source.next) {
        if (k->target_partitions <= 0)
            continue; /* not there yet */
        char *source = strdup(k->source), *target = strdup(k->target), *after = strdup(k->source);
        if (!source || !target || !after) {
            free(source);
            free(target);
            free(after);
            break;
        }
        c->source_names[c->lot_n] = source;
        c->target_names[c->lot_n] = target;
        c->lot[c->lot_n++] = k;
        free(c->after);
        c->after = after;
    }
    if (c->lot_n == 0) {
        wait_for_next_round(c);
        return;
    }
    c->asked = s->source;
    if (sync_ask_settings(s->source, (int64_t)s->flow->admin_timeout_ms * 1000,
                          (const char *const *)c->source_names, c->lot_n, on_source, c, &c->call))
        wait_for_next_round(c);
}

int configs_create(struct sync *s, struct configs **out, struct err *err)
{
    struct configs *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(err, -E_NOMEM, "out of memory");
    c->s = s;
    loop_timer_init(&c->timer, s->loop, next_lot, c);
    loop_timer_in(&c->timer, (int64_t)s->flow->sync_configs_s * 1000000);
    *out = c;
    return 0;
}

void configs_destroy(struct configs *c)
{
    if (!c)
        return;
    loop_timer_stop(&c->timer);
    if (c->call)
        client_cancel(c->asked, c->call);
    clear_lot(c);
    free(c->after);
    free(c);
}

void configs_forget(struct configs *c, const struct known *k)
{
    for (int i = 0; c && i < c->lot_n; i++)
        if (c->lot[i] == k)
            c->lot[i] = NULL;
}
