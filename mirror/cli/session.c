#include "mirror/cli/session.h"

#include "base/world/loop_posix.h"
#include "base/world/net_posix.h"
#include "mirror/cli/refusals.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define SESSION_ARENA_MAX (256u << 20)

struct session {
    struct job_pool *jobs; /* for name resolution */
    struct loop_posix *posix;
    struct net *net;
    struct refusals *refusals;
    struct client *client;
    int64_t deadline_us;
    struct arena arena, keep;
    char *bootstrap;
    size_t addresses; /* in it */
};

/* An address that stands there twice counts twice: then the deadline decides. */
static size_t count_addresses(const char *list)
{
    size_t n = 0;
    for (const char *at = list; *at; at += *at == ',') {
        size_t blank = strspn(at, " "), all = strcspn(at, ",");
        n += all > blank;
        at += all;
    }
    return n;
}

int session_open(const struct session_address *at, int64_t timeout_ms, struct session **out, struct err *err)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, -E_NOMEM, "out of memory");
    arena_init(&s->arena, SESSION_ARENA_MAX);
    arena_init(&s->keep, SESSION_ARENA_MAX);
    s->bootstrap = strdup(at->bootstrap);
    int rc = s->bootstrap ? job_pool_create(1, &s->jobs, err) : err_set(err, -E_NOMEM, "out of memory");
    struct loop_posix_options lo = {.jobs = s->jobs};
    if (!rc)
        rc = loop_posix_create(&lo, &s->posix, err);
    if (!rc)
        rc = net_posix_create(s->posix, &(struct net_posix_options){0}, &s->net, err);
    if (!rc && !(s->refusals = refusals_create(s->net)))
        rc = err_set(err, -E_NOMEM, "out of memory");
    struct client_options co = {.bootstrap = at->bootstrap,
                                .security = at->security,
                                .client_id = "sundog",
                                .backoff_max_us = 500000};
    if (!rc)
        rc = client_create(loop_posix_loop(s->posix), refusals_net(s->refusals), &co, &s->client, err);
    if (rc) {
        session_close(s);
        return rc;
    }
    s->addresses = count_addresses(at->bootstrap);
    assert(s->addresses > 0); /* or the client would not have been made */
    s->deadline_us = loop_now_us(loop_posix_loop(s->posix)) + timeout_ms * 1000;
    *out = s;
    return 0;
}

void session_close(struct session *s)
{
    if (!s)
        return;
    client_destroy(s->client);
    refusals_destroy(s->refusals);
    if (s->net)
        net_posix_destroy(s->net);
    if (s->posix)
        loop_posix_destroy(s->posix);
    if (s->jobs)
        job_pool_destroy(s->jobs);
    arena_fini(&s->arena);
    arena_fini(&s->keep);
    free(s->bootstrap);
    free(s);
}

struct loop *session_loop(struct session *s)
{
    return loop_posix_loop(s->posix);
}

struct arena *session_arena(struct session *s)
{
    return &s->arena;
}

struct arena *session_keep(struct session *s)
{
    return &s->keep;
}

void session_forget(struct session *s)
{
    arena_reset(&s->arena);
}

void session_extend(struct session *s, int64_t timeout_ms)
{
    s->deadline_us = loop_now_us(session_loop(s)) + timeout_ms * 1000;
}

int64_t session_left_ms(const struct session *s)
{
    int64_t left = s->deadline_us - loop_now_us(loop_posix_loop(s->posix));
    return left > 0 ? left / 1000 : 0;
}

int session_wait(struct session *s, bool (*done)(void *arg), void *arg, struct err *err)
{
    enum { TURN_US = 50000 };
    while (!done(arg)) {
        const struct err *last = client_last_error(s->client);
        if (last->code == -E_ACCESS && client_state(s->client) != CLIENT_UP)
            return err_set(err, -E_ACCESS, "%s", last->text);
        if (loop_now_us(session_loop(s)) >= s->deadline_us) {
            return err_set(err, -E_TIMEOUT, "no answer from %s%s%s", s->bootstrap, last->text[0] ? ": " : "",
                           last->text);
        }
        if (refusals_all(s->refusals, s->addresses))
            return err_set(err, -E_REFUSED, "connection refused by %s", s->bootstrap);
        loop_posix_turn(s->posix, TURN_US);
    }
    return 0;
}

struct waiting {
    struct session *s;
    bool done;
    int status;
    struct session_reply *out;
    struct err *err;
    const struct kp_message *message;
};

static bool waiting_done(void *arg)
{
    return ((struct waiting *)arg)->done;
}

/* The reply outlives the callback: it is decoded again into the session's arena, over the frame that is kept. */
static void on_response(void *arg, const struct client_response *r)
{
    struct waiting *w = arg;
    w->done = true;
    w->status = r->status;
    if (r->status) {
        *w->err = *r->err;
        w->err->code = r->status;
        return;
    }
    struct buf copy;
    buf_init(&copy, SESSION_ARENA_MAX);
    void *body = arena_alloc(&w->s->arena, w->message->body->size_bytes);
    struct slice bytes = SLICE_NULL;
    if (body && kp_encode(w->message, r->version, r->body, &copy) == 0)
        bytes = arena_dup(&w->s->arena, buf_slice(&copy));
    if (slice_is_null(bytes) || kp_decode(w->message, r->version, bytes, &w->s->arena, body, NULL, w->err))
        w->status = err_set(w->err, -E_NOMEM, "the answer is too large to keep");
    buf_fini(&copy);
    *w->out = (struct session_reply){r->version, body};
}

static int ask(struct session *s, const struct client_target *target, enum client_retry retry,
               int16_t api_key, int16_t version_min, int16_t version_max, const void *body,
               struct session_reply *out, struct err *err)
{
    const struct kp_api *api = kp_api_find(api_key);
    assert(api);
    struct waiting w = {.s = s, .out = out, .err = err, .message = &api->response};
    int64_t left_us = s->deadline_us - loop_now_us(session_loop(s));
    struct client_call *call =
        client_ask(s->client, &(struct client_ask){.api = api_key,
                                                   .version_min = version_min,
                                                   .version_max = version_max,
                                                   .retry = retry,
                                                   .target = *target,
                                                   .timeout_us = left_us < 1000 ? 1000 : left_us,
                                                   .on_response = on_response,
                                                   .arg = &w});
    if (!call)
        return err_set(err, -E_NOMEM, "out of memory");
    memcpy(call->body, body, api->request.body->size_bytes);
    client_send(s->client, call);
    int rc = session_wait(s, waiting_done, &w, err);
    if (rc) {
        if (!w.done)
            client_cancel(s->client, call);
        return rc;
    }
    return w.status;
}

int session_call(struct session *s, const struct client_target *target, int16_t api_key, int16_t version_min,
                 int16_t version_max, const void *body, struct session_reply *out, struct err *err)
{
    return ask(s, target, CLIENT_RETRY_SAFE, api_key, version_min, version_max, body, out, err);
}

int session_call_once(struct session *s, const struct client_target *target, int16_t api_key,
                      int16_t version_min, int16_t version_max, const void *body, struct session_reply *out,
                      struct err *err)
{
    return ask(s, target, CLIENT_RETRY_UNSENT, api_key, version_min, version_max, body, out, err);
}

int session_kafka_error(struct err *err, int16_t code, struct slice message, const char *fmt, ...)
{
    char what[ERR_TEXT_MAX / 2];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    int ours = code == KE_UNKNOWN_TOPIC_OR_PARTITION || code == KE_GROUP_ID_NOT_FOUND ? -E_NOTFOUND
               : code == KE_REQUEST_TIMED_OUT                                         ? -E_TIMEOUT
                                                                                      : -E_INVALID;
    return err_set(err, ours, "%s: %s%s%.*s", what, kafka_error_name(code), message.n ? ": " : "",
                   SLICE_FMT(message));
}

static int compare_topics(const void *a, const void *b)
{
    return slice_cmp(((const struct session_topic *)a)->name, ((const struct session_topic *)b)->name);
}

static int ask_metadata(struct session *s, const char *name, const struct kp_metadata_response **out,
                        struct err *err)
{
    struct kp_metadata_request r;
    struct kp_metadata_request_topics one;
    kp_init(&kp_metadata_request_message, &r);
    memset(&one, 0, sizeof one);
    r.allow_auto_topic_creation = false;
    r.topics_n = -1;
    if (name) {
        one.name = slice_str(name);
        r.topics = &one;
        r.topics_n = 1;
    }
    struct session_reply reply;
    struct client_target any = session_any();
    int rc = session_call(s, &any, kp_key_metadata, 4, 12, &r, &reply, err);
    *out = rc ? NULL : reply.body;
    return rc;
}

static struct session_topic topic_of(const struct kp_metadata_response_topics *t)
{
    return (struct session_topic){t->name, t->topic_id, t->partitions_n, t->partitions, t->is_internal};
}

int session_topics(struct session *s, struct session_topic **out, int32_t *n, struct err *err)
{
    const struct kp_metadata_response *m;
    int rc = ask_metadata(s, NULL, &m, err);
    if (rc)
        return rc;
    struct session_topic *list = ARENA_NEWS(&s->arena, struct session_topic, m->topics_n);
    if (!list)
        return err_set(err, -E_NOMEM, "out of memory");
    *n = 0;
    for (int32_t i = 0; i < m->topics_n; i++)
        if (!m->topics[i].error_code)
            list[(*n)++] = topic_of(&m->topics[i]);
    qsort(list, (size_t)*n, sizeof *list, compare_topics);
    *out = list;
    return 0;
}

int session_topic(struct session *s, const char *name, struct session_topic *out, struct err *err)
{
    struct session_topic *all;
    int32_t n;
    /* Asked by name the client would try an unknown topic again until the deadline. */
    int rc = session_topics(s, &all, &n, err);
    if (rc)
        return rc;
    struct session_topic key = {.name = slice_str(name)};
    const struct session_topic *found = bsearch(&key, all, (size_t)n, sizeof *all, compare_topics);
    if (!found)
        return err_set(err, -E_NOTFOUND, "there is no topic '%s' (sundog topic list shows them)", name);
    *out = *found;
    return 0;
}

int session_offset(struct session *s, struct slice topic, int32_t partition, int64_t timestamp, int64_t *out,
                   struct err *err)
{
    struct kp_list_offsets_request_partitions p;
    memset(&p, 0, sizeof p);
    p.partition_index = partition;
    p.current_leader_epoch = -1;
    p.timestamp = timestamp;
    struct kp_list_offsets_request_topics t = {.name = topic, .partitions = &p, .partitions_n = 1};
    struct kp_list_offsets_request r;
    kp_init(&kp_list_offsets_request_message, &r);
    r.replica_id = -1;
    r.topics = &t;
    r.topics_n = 1;
    struct session_reply reply;
    struct client_target leader = session_leader(topic, partition);
    int rc = session_call(s, &leader, kp_key_list_offsets, 1, 7, &r, &reply, err);
    if (rc)
        return rc;
    const struct kp_list_offsets_response *a = reply.body;
    if (a->topics_n != 1 || a->topics[0].partitions_n != 1)
        return err_set(err, -E_CORRUPT, "the broker's ListOffsets answer is not about %.*s-%d",
                       SLICE_FMT(topic), partition);
    if (a->topics[0].partitions[0].error_code)
        return session_kafka_error(err, a->topics[0].partitions[0].error_code, SLICE_NULL, "%.*s-%d",
                                   SLICE_FMT(topic), partition);
    *out = a->topics[0].partitions[0].offset;
    return 0;
}
