#include "mirror/sync/internal.h"

#include "mirror/route/pattern.h"

#include <assert.h>

#define SETTINGS_ARENA_MAX (64u << 20)

int sync_ask_settings(struct client *c, int64_t timeout_us, const char *const *names, int n,
                      void (*on_response)(void *arg, const struct client_response *r), void *arg,
                      struct client_call **call)
{
    enum { TOPIC = 2 };
    assert(n > 0);
    assert(n <= SYNC_BATCH);
    /* Not SAFE: one may have been deleted since it was listed, and would be asked for until the deadline. */
    *call = client_ask(c, &(struct client_ask){.api = kp_key_describe_configs,
                                               .version_min = 1,
                                               .version_max = 4,
                                               .retry = CLIENT_RETRY_LOST,
                                               .target = {.kind = CLIENT_ANY},
                                               .timeout_us = timeout_us,
                                               .on_response = on_response,
                                               .arg = arg});
    if (!*call)
        return -E_NOMEM;
    struct arena *a = (*call)->arena;
    struct kp_describe_configs_request *r = (*call)->body;
    r->resources = ARENA_NEWS(a, struct kp_describe_configs_request_resources, n);
    for (int i = 0; r->resources && i < n; i++)
        r->resources[r->resources_n++] =
            (struct kp_describe_configs_request_resources){.resource_type = TOPIC,
                                                           .resource_name = arena_dup(a, slice_str(names[i])),
                                                           .configuration_keys_n = -1};
    if (arena_failed(a)) {
        client_cancel(c, *call);
        *call = NULL;
        return -E_NOMEM;
    }
    assert(r->resources_n == n);
    client_send(c, *call);
    return 0;
}

static bool follows(const struct kp_describe_configs_response_configs *c, bool all, struct pattern *exclude)
{
    enum { OF_TOPIC = 1 };
    return (c->config_source == OF_TOPIC || all) && !c->read_only && !c->is_sensitive &&
           !slice_is_null(c->value) && !pattern_matches(exclude, c->name);
}

int sync_take_settings(const struct kp_describe_configs_response *a, const char *const *names, int n,
                       bool all, struct pattern *exclude, struct sync_settings *out)
{
    assert(n <= SYNC_BATCH);
    arena_init(&out->arena, SETTINGS_ARENA_MAX);
    assert(n > 0);
    for (int i = 0; i < n; i++) {
        out->topic[i].list = NULL;
        out->topic[i].n = -1; /* not answered, or refused: nothing is known */
        for (int32_t k = 0; k < a->results_n; k++) {
            const struct kp_describe_configs_response_results *r = &a->results[k];
            if (r->error_code || !slice_eq_str(r->resource_name, names[i]))
                continue;
            out->topic[i].list = ARENA_NEWS(&out->arena, struct sync_setting, r->configs_n);
            out->topic[i].n = 0;
            for (int32_t c = 0; out->topic[i].list && c < r->configs_n; c++)
                if (follows(&r->configs[c], all, exclude))
                    out->topic[i].list[out->topic[i].n++] =
                        (struct sync_setting){arena_dup(&out->arena, r->configs[c].name),
                                              arena_dup(&out->arena, r->configs[c].value)};
        }
    }
    if (!arena_failed(&out->arena))
        return 0; /* the arena is the caller's from here on */
    arena_fini(&out->arena);
    return -E_NOMEM;
}
