#include "mirror/sync/internal_topic.h"

#include "base/core/hash.h"
#include "base/core/said.h"
#include "base/runtime/log.h"
#include "mirror/sync/own_records.h"
#include "proto/kafka/batch.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define LINGER_US       5000
#define BACKOFF_MIN_US  200000
#define BACKOFF_MAX_US  5000000
#define BATCH_BYTES_MAX (512u << 10)
#define CALL_TIMEOUT_US 30000000

/* The newest value of one key that is not acknowledged yet. */
struct pending {
    UT_hash_handle hh;
    struct slice key, value; /* in the same allocation */
    uint64_t number;         /* rises with each put: an answer settles what was sent, not what came since */
};

struct internal_topic {
    struct loop *loop;
    struct client *client;
    char *name;
    int16_t factor;
    const char *factor_key;
    void (*trouble)(void *arg, const char *text);
    void *arg;
    struct pending *pending;
    size_t pending_n;
    uint64_t number, sent_to; /* puts so far; puts covered by the batch under way */
    struct buf batch;
    struct client_call *call;
    struct loop_timer timer;
    int64_t backoff_us;
    bool exists;
    int marks; /* headers of each record: where it is cut, 1 */
    struct said said;
    struct {
        bool able;               /* as far as is known */
        uint64_t from, until;    /* puts that count again; until 0: nothing is to be cut */
        int64_t at;              /* where the first of them stands in the log, -1: not yet acknowledged */
        struct own_records look; /* whether what stands before is all ours */
        bool looking;
    } cut;
};

static void pump(void *arg);

int internal_topic_create(const struct internal_topic_options *o, struct internal_topic **out,
                          struct err *err)
{
    struct internal_topic *t = calloc(1, sizeof *t);
    char *name = strdup(o->name);
    if (!t || !name) {
        free(t);
        free(name);
        return err_set(err, -E_NOMEM, "topic %s: out of memory", o->name);
    }
    *t = (struct internal_topic){.loop = o->loop,
                                 .client = o->client,
                                 .name = name,
                                 .factor = o->replication_factor,
                                 .factor_key = o->factor_key,
                                 .trouble = o->trouble,
                                 .arg = o->arg,
                                 .backoff_us = BACKOFF_MIN_US,
                                 .marks = o->cuts,
                                 .cut.able = o->cuts};
    buf_init(&t->batch, 2 * (size_t)BATCH_BYTES_MAX + (1u << 20));
    loop_timer_init(&t->timer, o->loop, pump, t);
    *out = t;
    return 0;
}

static void drop(struct internal_topic *t, struct pending *p)
{
    assert(t->pending_n > 0);
    assert(t->pending_n == HASH_COUNT(t->pending));
    HASH_DELETE(hh, t->pending, p);
    t->pending_n--;
    free(p);
}

void internal_topic_destroy(struct internal_topic *t)
{
    if (!t)
        return;
    loop_timer_stop(&t->timer);
    own_records_cancel(&t->cut.look);
    if (t->call)
        client_cancel(t->client, t->call);
    struct pending *p, *next;
    HASH_ITER (hh, t->pending, p, next)
        drop(t, p);
    buf_fini(&t->batch);
    free(t->name);
    free(t);
}

int internal_topic_put(struct internal_topic *t, struct slice key, struct slice value)
{
    assert(key.n > 0);
    struct pending *old;
    HASH_FIND(hh, t->pending, key.p, key.n, old);
    if (!old && t->pending_n >= INTERNAL_TOPIC_PENDING)
        return -E_LIMIT;
    struct pending *p = malloc(sizeof *p + key.n + value.n + 1);
    if (!p)
        return -E_NOMEM;
    uint8_t *bytes = (uint8_t *)(p + 1);
    *p = (struct pending){.key = slice_of(bytes, key.n), .number = ++t->number};
    memcpy(bytes, key.p, key.n);
    if (!slice_is_null(value)) {
        if (value.n)
            memcpy(bytes + key.n, value.p, value.n);
        p->value = slice_of(bytes + key.n, value.n);
    }
    if (old && old->number <= t->cut.until)
        t->cut.until = p->number; /* it stands for what was put again */
    if (old)
        drop(t, old);
    HASH_ADD_KEYPTR(hh, t->pending, p->key.p, p->key.n, p);
    if (!HASH_ADDED(p)) {
        free(p);
        return -E_NOMEM;
    }
    t->pending_n++;
    assert(t->pending_n <= INTERNAL_TOPIC_PENDING);
    assert(p->number > t->sent_to);
    if (!t->call && !t->cut.looking && !t->timer.armed)
        loop_timer_in(&t->timer, LINGER_US);
    return 0;
}

bool internal_topic_wants_cut(const struct internal_topic *t, size_t gone, size_t live)
{
    return t->cut.able && t->cut.until == 0 && !t->cut.looking && gone >= INTERNAL_TOPIC_CUT_MIN &&
           gone >= live;
}

uint64_t internal_topic_puts(const struct internal_topic *t)
{
    return t->number;
}

void internal_topic_cut(struct internal_topic *t, uint64_t from)
{
    assert(t->cut.able);
    assert(t->cut.until == 0);
    assert(!t->cut.looking);
    assert(from <= t->number);
    assert(t->sent_to <= from);
    if (from == t->number)
        return; /* nothing counts any more: there is no place to cut at */
    t->cut.from = from;
    t->cut.until = t->number;
    t->cut.at = -1;
}

static void say(struct internal_topic *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct internal_topic *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    bool news = said_new(&t->said, fmt, args);
    va_end(args);
    if (news && t->trouble)
        t->trouble(t->arg, t->said.text);
}

static void again_later(struct internal_topic *t, const char *what, const char *why, const char *remedy)
{
    say(t, "%s %s: %s%s%s", what, t->name, why, remedy ? ": " : "", remedy ? remedy : "");
    loop_timer_in(&t->timer, t->backoff_us);
    t->backoff_us = t->backoff_us * 2 < BACKOFF_MAX_US ? t->backoff_us * 2 : BACKOFF_MAX_US;
}

/* All that was put again stands in the log. */
static bool may_cut(const struct internal_topic *t)
{
    return t->cut.until > 0 && t->cut.at >= 0 && t->sent_to >= t->cut.until;
}

static void went_well(struct internal_topic *t)
{
    t->backoff_us = BACKOFF_MIN_US;
    said_over(&t->said);
    if (t->pending_n > 0 || may_cut(t))
        loop_timer_in(&t->timer, 0);
}

static void on_created(void *arg, const struct client_response *r)
{
    struct internal_topic *t = arg;
    t->call = NULL;
    if (r->status) {
        again_later(t, "cannot create topic", r->err->text, NULL);
        return;
    }
    const struct kp_create_topics_response *a = r->body;
    int16_t code = a->topics_n == 1 ? a->topics[0].error_code : KE_UNKNOWN_SERVER_ERROR;
    if (code == KE_NONE || code == KE_TOPIC_ALREADY_EXISTS) {
        t->exists = true;
        client_metadata_refresh(t->client);
        went_well(t);
        return;
    }
    if (t->cut.able && (code == KE_INVALID_CONFIG || code == KE_POLICY_VIOLATION)) {
        t->cut.able = false; /* made as MM2 makes it */
        loop_timer_in(&t->timer, 0);
        return;
    }
    char remedy[256];
    snprintf(remedy, sizeof remedy, "set %s to what the cluster can hold (1 on a single broker)",
             t->factor_key);
    again_later(t, "cannot create topic", kafka_error_name(code),
                code == KE_INVALID_REPLICATION_FACTOR ? remedy : NULL);
}

static void create(struct internal_topic *t)
{
    assert(!t->call);
    t->call = client_ask(t->client, &(struct client_ask){.api = kp_key_create_topics,
                                                         .version_min = 4,
                                                         .version_max = 7,
                                                         .retry = CLIENT_RETRY_SAFE,
                                                         .target = {.kind = CLIENT_CONTROLLER},
                                                         .timeout_us = CALL_TIMEOUT_US,
                                                         .on_response = on_created,
                                                         .arg = t});
    if (!t->call) {
        again_later(t, "cannot create topic", "too many requests are under way", NULL);
        return;
    }
    struct arena *a = t->call->arena;
    struct kp_create_topics_request *r = t->call->body;
    struct kp_create_topics_request_topics *topic = ARENA_NEW(a, struct kp_create_topics_request_topics);
    struct kp_create_topics_request_configs *config =
        ARENA_NEWS(a, struct kp_create_topics_request_configs, 3);
    if (!topic || !config) {
        client_cancel(t->client, t->call);
        t->call = NULL;
        again_later(t, "cannot create topic", "out of memory", NULL);
        return;
    }
    config[0] = (struct kp_create_topics_request_configs){
        SLICE_LIT("cleanup.policy"), t->cut.able ? SLICE_LIT("compact,delete") : SLICE_LIT("compact")};
    config[1] = (struct kp_create_topics_request_configs){SLICE_LIT("retention.ms"), SLICE_LIT("-1")};
    config[2] = (struct kp_create_topics_request_configs){SLICE_LIT("retention.bytes"), SLICE_LIT("-1")};
    *topic = (struct kp_create_topics_request_topics){.name = slice_str(t->name),
                                                      .num_partitions = 1,
                                                      .replication_factor = t->factor,
                                                      .configs = config,
                                                      .configs_n = t->cut.able ? 3 : 1};
    r->topics = topic;
    r->topics_n = 1;
    r->timeout_ms = CALL_TIMEOUT_US / 1000;
    client_send(t->client, t->call);
}

static void on_produced(void *arg, const struct client_response *r)
{
    struct internal_topic *t = arg;
    t->call = NULL;
    if (r->status) {
        t->exists = r->status != -E_NOTFOUND;
        again_later(t, "cannot write to topic", r->err->text, NULL);
        return;
    }
    const struct kp_produce_response *a = r->body;
    int16_t code = a->responses_n == 1 && a->responses[0].partition_responses_n == 1
                       ? a->responses[0].partition_responses[0].error_code
                       : KE_UNKNOWN_SERVER_ERROR;
    if (code) {
        t->exists = code != KE_UNKNOWN_TOPIC_OR_PARTITION && code != KE_UNKNOWN_TOPIC_ID;
        again_later(t, "cannot write to topic", kafka_error_name(code), NULL);
        return;
    }
    if (t->cut.until > 0 && t->cut.at < 0 && t->sent_to > t->cut.from)
        t->cut.at = a->responses[0].partition_responses[0].base_offset;
    struct pending *p, *next;
    HASH_ITER (hh, t->pending, p, next)
        if (p->number <= t->sent_to)
            drop(t, p);
    went_well(t);
}

/* The oldest puts in one batch; what does not fit goes in the next one. */
static int fill(struct internal_topic *t)
{
    const struct record_header mark = {.key = SLICE_LIT(OWN_RECORDS_MARK)};
    struct batch_options options = BATCH_OPTIONS;
    struct batch_builder b;
    buf_clear(&t->batch);
    batch_begin(&b, &t->batch, &options);
    int n = 0;
    /* uthash keeps the order of adding, and a replaced key is added anew: puts rise. */
    for (struct pending *p = t->pending; p && batch_bytes(&b) < BATCH_BYTES_MAX; p = p->hh.next) {
        struct record_new r = {.timestamp = loop_wall_ms(t->loop),
                               .key = p->key,
                               .value = p->value,
                               .headers = &mark,
                               .headers_n = t->marks};
        if (batch_add(&b, &r))
            break;
        assert(n == 0 || p->number > t->sent_to); /* in the order of the puts */
        t->sent_to = p->number;
        n++;
    }
    return n && batch_close(&b, NULL) == 0 ? 0 : -E_LIMIT;
}

static void produce(struct internal_topic *t)
{
    assert(!t->call);
    assert(t->exists);
    /* By name, in every version: the topic may be made again. */
    t->call = client_ask(t->client,
                         &(struct client_ask){.api = kp_key_produce,
                                              .version_min = 3,
                                              .version_max = 11,
                                              .retry = CLIENT_RETRY_SAFE,
                                              .target = {.kind = CLIENT_LEADER, .name = slice_str(t->name)},
                                              .timeout_us = CALL_TIMEOUT_US,
                                              .on_response = on_produced,
                                              .arg = t});
    struct kp_produce_request_topic_data *topic =
        t->call ? ARENA_NEW(t->call->arena, struct kp_produce_request_topic_data) : NULL;
    struct kp_produce_request_partition_data *p =
        t->call ? ARENA_NEW(t->call->arena, struct kp_produce_request_partition_data) : NULL;
    if (!topic || !p || fill(t)) {
        if (t->call)
            client_cancel(t->client, t->call);
        t->call = NULL;
        again_later(t, "cannot write to topic", "out of memory, or too many requests are under way", NULL);
        return;
    }
    struct kp_produce_request *r = t->call->body;
    p->records.bytes = buf_slice(&t->batch);
    *topic = (struct kp_produce_request_topic_data){
        .name = slice_str(t->name), .partition_data = p, .partition_data_n = 1};
    r->acks = -1;
    r->timeout_ms = CALL_TIMEOUT_US / 1000;
    r->topic_data = topic;
    r->topic_data_n = 1;
    client_send(t->client, t->call);
}

static void on_cut(void *arg, const struct client_response *r)
{
    struct internal_topic *t = arg;
    const struct kp_delete_records_response *a = r->body;
    t->call = NULL;
    if (r->status == 0) {
        int16_t code = a->topics_n == 1 && a->topics[0].partitions_n == 1
                           ? a->topics[0].partitions[0].error_code
                           : KE_UNKNOWN_SERVER_ERROR;
        /* It was made by somebody else, or the right to delete is missing: as with MM2 its keys stay. */
        if (code == KE_POLICY_VIOLATION || code == KE_TOPIC_AUTHORIZATION_FAILED)
            t->cut.able = false;
        if (code)
            log_info("mirror.sync", "topic keeps the keys of what is gone topic=%s error=%s", t->name,
                     kafka_error_name(code));
        else
            log_info("mirror.sync", "topic written anew topic=%s start=%lld", t->name,
                     (long long)a->topics[0].partitions[0].low_watermark);
    }
    went_well(t);
}

static void delete_before(struct internal_topic *t, int64_t at)
{
    struct client_call *c = client_ask(
        t->client, &(struct client_ask){.api = kp_key_delete_records,
                                        .version_max = 2,
                                        .retry = CLIENT_RETRY_LOST,
                                        .target = {.kind = CLIENT_LEADER, .name = slice_str(t->name)},
                                        .timeout_us = CALL_TIMEOUT_US,
                                        .on_response = on_cut,
                                        .arg = t});
    struct kp_delete_records_request_topics *topic =
        c ? ARENA_NEW(c->arena, struct kp_delete_records_request_topics) : NULL;
    struct kp_delete_records_request_partitions *p =
        c ? ARENA_NEW(c->arena, struct kp_delete_records_request_partitions) : NULL;
    assert(!t->call);
    assert(!t->cut.looking);
    if (!topic || !p) {
        if (c)
            client_cancel(t->client, c);
        went_well(t);
        return;
    }
    *p = (struct kp_delete_records_request_partitions){.offset = at};
    *topic = (struct kp_delete_records_request_topics){slice_str(t->name), p, 1};
    struct kp_delete_records_request *r = c->body;
    r->topics = topic;
    r->topics_n = 1;
    r->timeout_ms = CALL_TIMEOUT_US / 1000;
    t->call = c;
    client_send(t->client, c);
}

/* What somebody else wrote must not go, and none of ours alone can: such a topic keeps all its keys. */
static void on_looked(void *arg, enum own_records_answer answer, const char *why)
{
    struct internal_topic *t = arg;
    t->cut.looking = false;
    if (answer == OWN_RECORDS_ALL) {
        delete_before(t, t->cut.at);
        return;
    }
    if (answer == OWN_RECORDS_OTHERS)
        t->cut.able = false;
    log_info("mirror.sync", "topic keeps the keys of what is gone topic=%s error=%s", t->name,
             answer == OWN_RECORDS_OTHERS ? "somebody else has written to it" : why);
    went_well(t);
}

static void cut(struct internal_topic *t)
{
    assert(!t->call);
    assert(!t->cut.looking);
    assert(may_cut(t));
    t->cut.until = 0; /* tried once: the next time is as good */
    t->cut.looking = true;
    t->cut.look = (struct own_records){
        .client = t->client, .topic = t->name, .until = t->cut.at, .done = on_looked, .arg = t};
    own_records_look(&t->cut.look);
}

static void pump(void *arg)
{
    struct internal_topic *t = arg;
    if (!t->exists)
        t->cut.until = 0; /* another topic has come in its place */
    if (t->call || t->cut.looking || (t->pending_n == 0 && !may_cut(t)))
        return;
    if (may_cut(t))
        cut(t);
    else if (t->exists)
        produce(t);
    else
        create(t);
}
