/* What a flow asks of its target for all its appenders: fresh producer ids, and how long ids are remembered. */
#include "mirror/target/appender.h"

#include "base/core/arena.h"
#include "mirror/target/lane.h"

#include <stdlib.h>

#define ASK_US (INT64_C(30) * 1000000)
/* A key that only our own broker has: it keeps producer ids by the wall clock (APPENDER.md §1). */
#define OWN_KEY "sundog.flush.before.ack"

struct id_ask {
    void (*done)(void *arg, int status, int64_t producer_id, int16_t epoch, const struct err *err);
    void *arg;
};

static void id_answered(void *arg, const struct client_response *r)
{
    struct id_ask *ask = arg;
    const struct kp_init_producer_id_response *m = r->body;
    struct err err = {0};
    if (r->status) {
        ask->done(ask->arg, r->status, -1, -1, r->err);
        return;
    }
    if (m->error_code != KE_NONE) {
        err_set(&err, -E_ACCESS, "InitProducerId: %s", kafka_error_name(m->error_code));
        ask->done(ask->arg, err.code, -1, -1, &err);
        return;
    }
    if (m->producer_id < 0 || m->producer_epoch < 0) {
        err_set(&err, -E_CORRUPT, "InitProducerId: an answer without a producer id");
        ask->done(ask->arg, err.code, -1, -1, &err);
        return;
    }
    ask->done(ask->arg, 0, m->producer_id, m->producer_epoch, &err);
}

int appender_producer_id(struct client *target,
                         void (*done)(void *arg, int status, int64_t producer_id, int16_t epoch,
                                      const struct err *err),
                         void *arg)
{
    struct client_call *call = client_ask(target, &(struct client_ask){.api = kp_key_init_producer_id,
                                                                       .retry = CLIENT_RETRY_SAFE,
                                                                       .timeout_us = ASK_US,
                                                                       .on_response = id_answered});
    struct id_ask *ask = call ? ARENA_NEW(call->arena, struct id_ask) : NULL;
    if (!ask) {
        if (call)
            client_cancel(target, call);
        return -E_NOMEM;
    }
    *ask = (struct id_ask){done, arg};
    struct kp_init_producer_id_request *q = call->body;
    q->transactional_id = SLICE_NULL;
    q->transaction_timeout_ms = INT32_MAX;
    q->producer_id = -1;
    q->producer_epoch = -1;
    call->arg = ask;
    client_send(target, call);
    return 0;
}

/* ---- how long ids are remembered ---- */

struct guard_ask {
    struct client *client;
    struct appender_guard *guard;
    void (*done)(void *arg);
    void *arg;
};

static void guard_done(const struct guard_ask *ask)
{
    if (ask->done)
        ask->done(ask->arg);
}

static void take_config(struct appender_guard *g, const struct kp_describe_configs_response_configs *c)
{
    char text[32];
    if (slice_eq_str(c->name, OWN_KEY))
        g->wall_clock = true;
    if (!slice_eq_str(c->name, "producer.id.expiration.ms") || slice_is_null(c->value))
        return;
    long long ms = strtoll(slice_cstr(c->value, text, sizeof text), NULL, 10);
    if (ms > 0)
        g->expiration_ms = ms;
}

static void configs_answered(void *arg, const struct client_response *r)
{
    const struct guard_ask *ask = arg;
    const struct kp_describe_configs_response *m = r->body;
    for (int32_t i = 0; m && i < m->results_n; i++)
        for (int32_t k = 0; m->results[i].error_code == KE_NONE && k < m->results[i].configs_n; k++)
            take_config(ask->guard, &m->results[i].configs[k]);
    guard_done(ask);
}

static bool ask_configs(const struct guard_ask *from, int32_t node_id)
{
    struct client_call *call =
        client_ask(from->client, &(struct client_ask){.api = kp_key_describe_configs,
                                                      .retry = CLIENT_RETRY_SAFE,
                                                      .target = {.kind = CLIENT_BROKER, .number = node_id},
                                                      .timeout_us = ASK_US,
                                                      .on_response = configs_answered});
    if (!call)
        return false;
    struct guard_ask *ask = ARENA_NEW(call->arena, struct guard_ask);
    struct kp_describe_configs_request *q = call->body;
    struct kp_describe_configs_request_resources *res =
        ARENA_NEW(call->arena, struct kp_describe_configs_request_resources);
    struct slice *keys = ARENA_NEWS(call->arena, struct slice, 2);
    struct slice name = arena_printf(call->arena, "%d", node_id);
    if (!ask || !res || !keys || slice_is_null(name)) {
        client_cancel(from->client, call);
        return false;
    }
    *ask = *from;
    keys[0] = SLICE_LIT("producer.id.expiration.ms");
    keys[1] = SLICE_LIT(OWN_KEY);
    res->resource_type = 4; /* broker */
    res->resource_name = name;
    res->configuration_keys = keys;
    res->configuration_keys_n = 2;
    q->resources = res;
    q->resources_n = 1;
    call->arg = ask;
    client_send(from->client, call);
    return true;
}

/* Any broker will do: the key is set for all alike. */
static void brokers_answered(void *arg, const struct client_response *r)
{
    const struct guard_ask *ask = arg;
    const struct kp_metadata_response *m = r->body;
    if (!m || m->brokers_n < 1 || !ask_configs(ask, m->brokers[0].node_id))
        guard_done(ask);
}

int appender_guard_refresh(struct client *target, struct appender_guard *g, void (*done)(void *arg),
                           void *arg)
{
    struct client_call *call = client_ask(target, &(struct client_ask){.api = kp_key_metadata,
                                                                       .version_min = 4,
                                                                       .retry = CLIENT_RETRY_SAFE,
                                                                       .timeout_us = ASK_US,
                                                                       .on_response = brokers_answered});
    struct guard_ask *ask = call ? ARENA_NEW(call->arena, struct guard_ask) : NULL;
    if (!ask) {
        if (call)
            client_cancel(target, call);
        return -E_NOMEM;
    }
    *ask = (struct guard_ask){target, g, done, arg};
    struct kp_metadata_request *q = call->body;
    q->topics_n = 0;
    q->allow_auto_topic_creation = false;
    call->arg = ask;
    client_send(target, call);
    return 0;
}
