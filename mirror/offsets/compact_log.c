#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "mirror/offsets/compact_log_internal.h"

static void look(void *arg);

/* ---- saying ---- */

void compact_say(struct compact_log *l, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    bool news = said_new(&l->said, fmt, args);
    va_end(args);
    if (news)
        l->trouble(l->arg, l->said.text);
}

void compact_healed(struct compact_log *l)
{
    l->backoff_us = BACKOFF_MIN_US;
    if (said_over(&l->said))
        l->trouble(l->arg, NULL);
}

int64_t compact_pause_us(struct compact_log *l)
{
    int64_t now = l->backoff_us;
    assert(now >= BACKOFF_MADE_US && now <= BACKOFF_MAX_US);
    l->backoff_us = now * 2 < BACKOFF_MAX_US ? now * 2 : BACKOFF_MAX_US;
    return now + (int64_t)(loop_random(l->loop) % (uint64_t)(now / 4 + 1));
}

static void open_later(struct compact_log *l)
{
    l->state = LOG_LOOKING;
    loop_timer_in(&l->open_again, compact_pause_us(l));
}

void compact_reopen(struct compact_log *l)
{
    if (l->state != LOG_READY)
        return;
    l->state = LOG_LOOKING;
    loop_timer_in(&l->open_again, 0);
}

/* ---- opening ---- */

struct client_call *compact_call(struct compact_log *l, int16_t api, enum client_target_kind kind,
                                 enum client_retry retry, int16_t version_max,
                                 void (*on)(void *arg, const struct client_response *r))
{
    return client_ask(l->client, &(struct client_ask){.api = api,
                                                      .version_max = version_max,
                                                      .retry = retry,
                                                      .target = {.kind = kind, .name = slice_str(l->name)},
                                                      .timeout_us = INT64_C(1000) * REQUEST_MS,
                                                      .on_response = on,
                                                      .arg = l});
}

static bool opened(struct compact_log *l, const struct client_response *r, const char *what)
{
    l->opening = NULL;
    if (r->status == 0)
        return true;
    compact_say(l, "topic %s: %s: %s", l->name, what, r->err ? r->err->text : err_str(r->status));
    open_later(l);
    return false;
}

/* One partition's offset: ListOffsets of `timestamp`. */
static struct client_call *offset_call(struct compact_log *l, int64_t timestamp,
                                       void (*on)(void *arg, const struct client_response *r))
{
    struct client_call *c = compact_call(l, kp_key_list_offsets, CLIENT_LEADER, CLIENT_RETRY_SAFE, 7, on);
    if (!c)
        return NULL;
    struct kp_list_offsets_request *q = c->body;
    q->replica_id = -1;
    q->topics = ARENA_NEWS(c->arena, struct kp_list_offsets_request_topics, 1);
    struct kp_list_offsets_request_partitions *p =
        ARENA_NEWS(c->arena, struct kp_list_offsets_request_partitions, 1);
    if (!q->topics || !p) {
        client_cancel(l->client, c);
        return NULL;
    }
    q->topics_n = 1;
    q->topics[0] = (struct kp_list_offsets_request_topics){slice_str(l->name), p, 1};
    *p = (struct kp_list_offsets_request_partitions){
        .partition_index = 0, .current_leader_epoch = -1, .timestamp = timestamp};
    return c;
}

/* 0 and the offset, or a Kafka error. */
static int16_t offset_answer(const struct client_response *r, int64_t *out)
{
    const struct kp_list_offsets_response *a = r->body;
    if (a->topics_n != 1 || a->topics[0].partitions_n != 1)
        return KE_UNKNOWN_SERVER_ERROR;
    *out = a->topics[0].partitions[0].offset;
    int16_t code = a->topics[0].partitions[0].error_code;
    return code || *out >= 0 ? code : KE_UNKNOWN_SERVER_ERROR; /* "none" is no answer here */
}

static void on_end(void *arg, const struct client_response *r)
{
    struct compact_log *l = arg;
    assert(l->state == LOG_END);
    if (!opened(l, r, "its end cannot be read"))
        return;
    int16_t code = offset_answer(r, &l->end);
    if (code) {
        compact_say(l, "topic %s: its end cannot be read: %s", l->name, kafka_error_name(code));
        open_later(l);
        return;
    }
    assert(l->end >= 0 && l->log_start >= 0 && !l->opening);
    l->state = LOG_READY;
    compact_healed(l);
    l->ready(l->arg, &l->id, l->log_start, l->end);
    if (l->append.active && !l->append.call && !l->append.again.armed)
        loop_timer_in(&l->append.again, 0);
}

static void ask_end(struct compact_log *l)
{
    l->state = LOG_END;
    l->opening = offset_call(l, OFFSET_LATEST, on_end);
    if (l->opening)
        client_send(l->client, l->opening);
    else
        open_later(l);
}

static void on_start(void *arg, const struct client_response *r)
{
    struct compact_log *l = arg;
    assert(l->state == LOG_START);
    if (!opened(l, r, "its start cannot be read"))
        return;
    int16_t code = offset_answer(r, &l->log_start);
    if (code) {
        compact_say(l, "topic %s: its start cannot be read: %s", l->name, kafka_error_name(code));
        open_later(l);
        return;
    }
    ask_end(l);
}

static void ask_start(struct compact_log *l)
{
    l->state = LOG_START;
    l->opening = offset_call(l, OFFSET_EARLIEST, on_start);
    if (l->opening)
        client_send(l->client, l->opening);
    else
        open_later(l);
}

static void on_created(void *arg, const struct client_response *r)
{
    struct compact_log *l = arg;
    assert(l->state == LOG_CREATING);
    if (!opened(l, r, "cannot be created"))
        return;
    const struct kp_create_topics_response *a = r->body;
    int16_t code = a->topics_n == 1 ? a->topics[0].error_code : KE_UNKNOWN_SERVER_ERROR;
    if (code == KE_INVALID_REPLICATION_FACTOR)
        compact_say(
            l,
            "%s = %d: topic %s cannot be created: the cluster has fewer brokers; set it to their number or "
            "to -1",
            l->replication_key, l->replication, l->name);
    else if (code && code != KE_TOPIC_ALREADY_EXISTS)
        compact_say(l, "topic %s cannot be created: %s: %.*s", l->name, kafka_error_name(code),
                    SLICE_FMT(a->topics_n == 1 ? a->topics[0].error_message : SLICE_NULL));
    else
        l->backoff_us = BACKOFF_MADE_US;
    client_metadata_refresh(l->client);
    open_later(l);
}

static void create(struct compact_log *l)
{
    static const char *const configs[][2] = {{"cleanup.policy", "compact"},
                                             {"unclean.leader.election.enable", "false"}};
    enum { CONFIGS = 2 };
    l->state = LOG_CREATING;
    struct client_call *c =
        compact_call(l, kp_key_create_topics, CLIENT_CONTROLLER, CLIENT_RETRY_SAFE, 7, on_created);
    struct kp_create_topics_request *q = c ? c->body : NULL;
    struct kp_create_topics_request_topics *t =
        c ? ARENA_NEWS(c->arena, struct kp_create_topics_request_topics, 1) : NULL;
    struct kp_create_topics_request_configs *v =
        c ? ARENA_NEWS(c->arena, struct kp_create_topics_request_configs, CONFIGS) : NULL;
    if (!t || !v) {
        if (c)
            client_cancel(l->client, c);
        open_later(l);
        return;
    }
    for (int i = 0; i < CONFIGS; i++)
        v[i] = (struct kp_create_topics_request_configs){slice_str(configs[i][0]), slice_str(configs[i][1])};
    *t = (struct kp_create_topics_request_topics){.name = slice_str(l->name),
                                                  .num_partitions = 1,
                                                  .replication_factor = l->replication,
                                                  .configs = v,
                                                  .configs_n = CONFIGS};
    q->topics = t;
    q->topics_n = 1;
    q->timeout_ms = REQUEST_MS;
    l->opening = c;
    client_send(l->client, c);
}

static void on_looked(void *arg, const struct client_response *r)
{
    struct compact_log *l = arg;
    assert(l->state == LOG_LOOKING);
    if (!opened(l, r, "cannot be looked up"))
        return;
    const struct kp_metadata_response *a = r->body;
    int16_t code = a->topics_n == 1 ? a->topics[0].error_code : KE_UNKNOWN_SERVER_ERROR;
    if (code == KE_UNKNOWN_TOPIC_OR_PARTITION) {
        create(l);
    } else if (code) {
        compact_say(l, "topic %s cannot be looked up: %s", l->name, kafka_error_name(code));
        open_later(l);
    } else if (a->topics[0].partitions_n != 1) {
        compact_say(l, "topic %s has %d partitions instead of 1: delete it, or give the flow another alias",
                    l->name, a->topics[0].partitions_n);
        open_later(l);
    } else {
        l->id = a->topics[0].topic_id;
        ask_start(l);
    }
}

static void look(void *arg)
{
    struct compact_log *l = arg;
    assert(!l->opening);
    l->state = LOG_LOOKING;
    /* Not RETRY_SAFE: "unknown topic" counts as retriable, and here it is the answer. */
    struct client_call *c = compact_call(l, kp_key_metadata, CLIENT_ANY, CLIENT_RETRY_UNSENT, 12, on_looked);
    struct kp_metadata_request *q = c ? c->body : NULL;
    struct kp_metadata_request_topics *t =
        c ? ARENA_NEWS(c->arena, struct kp_metadata_request_topics, 1) : NULL;
    if (!t) {
        if (c)
            client_cancel(l->client, c);
        open_later(l);
        return;
    }
    t->name = slice_str(l->name);
    q->topics = t;
    q->topics_n = 1;
    q->allow_auto_topic_creation = false;
    l->opening = c;
    client_send(l->client, c);
}

/* Made again under the same name: what we know of it is about another topic. */
static void metadata_changed(void *arg)
{
    struct compact_log *l = arg;
    const struct client_topic *t = client_topic(l->client, slice_str(l->name));
    if (l->state != LOG_READY || !t)
        return;
    bool gone = t->error == KE_UNKNOWN_TOPIC_OR_PARTITION;
    bool other = t->error == 0 && !uuid_is_zero(&t->id) && !uuid_eq(&t->id, &l->id);
    if (gone || other)
        compact_reopen(l);
}

int compact_log_open(const struct compact_log_options *o, struct compact_log **out, struct err *err)
{
    assert(o->ready && o->trouble && o->name.n > 0);
    struct compact_log *l = calloc(1, sizeof *l);
    if (!l || !(l->name = strndup((const char *)o->name.p, o->name.n))) {
        free(l);
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    }
    l->loop = o->loop;
    l->client = o->client;
    l->replication = o->replication;
    l->replication_key = o->replication_key;
    l->ready = o->ready;
    l->trouble = o->trouble;
    l->arg = o->arg;
    l->backoff_us = BACKOFF_MIN_US;
    loop_timer_init(&l->open_again, l->loop, look, l);
    loop_timer_init(&l->read.again, l->loop, compact_fetch, l);
    loop_timer_init(&l->append.again, l->loop, compact_produce, l);
    buf_init(&l->read.scratch, PAYLOAD_MAX);
    l->watch = (struct client_watch){.changed = metadata_changed, .arg = l};
    client_watch_add(l->client, &l->watch);
    int rc = client_topic_follow(l->client, slice_str(l->name));
    if (rc) {
        compact_log_close(l);
        return err_set(err, rc, "topic %.*s: %s", SLICE_FMT(o->name), err_str(rc));
    }
    loop_timer_in(&l->open_again, 0);
    *out = l;
    return 0;
}

static void cancel(struct compact_log *l, struct client_call **call)
{
    if (*call)
        client_cancel(l->client, *call);
    *call = NULL;
}

void compact_log_close(struct compact_log *l)
{
    if (!l)
        return;
    cancel(l, &l->opening);
    cancel(l, &l->read.call);
    cancel(l, &l->append.call);
    loop_timer_stop(&l->open_again);
    loop_timer_stop(&l->read.again);
    loop_timer_stop(&l->append.again);
    client_watch_remove(&l->watch);
    client_topic_forget(l->client, slice_str(l->name));
    buf_fini(&l->read.scratch);
    free(l->name);
    free(l);
}

bool compact_log_is_ready(const struct compact_log *l)
{
    return l->state == LOG_READY;
}
