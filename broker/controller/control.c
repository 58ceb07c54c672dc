/* Calls in, records out, answers when they are committed and seen by every shard. */
#include "broker/controller/control_internal.h"

#include "base/core/mutant.h"
#include "broker/metadata/batches.h"
#include "broker/metadata/image_edit.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- records ---- */

struct decide control_decide(struct control *c, struct arena *response)
{
    arena_reset(&c->arena);
    metadata_records_init(&c->records, &c->arena);
    return (struct decide){.img = quorum_image(c->quorum),
                           .offset_next = quorum_offset_next(c->quorum),
                           .node_id = c->o.quorum.node_id,
                           .rules = &c->o.rules,
                           .rng = &c->rng,
                           .arena = response,
                           .out = &c->records};
}

int16_t control_append_error(int rc)
{
    switch (rc) {
    case -E_AGAIN: return KE_NOT_CONTROLLER;
    case -E_LIMIT: return KE_POLICY_VIOLATION;
    case -E_NOSPACE: return KE_KAFKA_STORAGE_ERROR;
    default: return KE_UNKNOWN_SERVER_ERROR;
    }
}

static int64_t append_marker(struct control *c, int16_t type)
{
    struct metadata_records one;
    struct err err = {0};
    metadata_records_init(&one, &c->arena);
    if (!metadata_records_add(&one, type, 0))
        return -E_NOMEM;
    return quorum_append(c->quorum, one.v, 1, &err);
}

/* Atomic over batches (KIP-868): begun, then all, then ended; what was begun and cannot be ended is aborted. */
static int64_t append_transaction(struct control *c, struct err *err)
{
    assert(c->records.n > METADATA_BATCH_RECORDS_MAX);
    assert(!quorum_in_transaction(c->quorum));
    int64_t rc = append_marker(c, kp_type_begin_transaction_record);
    for (size_t at = 0; at < c->records.n && rc >= 0; at += METADATA_BATCH_RECORDS_MAX) {
        size_t n = c->records.n - at;
        rc = quorum_append(c->quorum, c->records.v + at,
                           n < METADATA_BATCH_RECORDS_MAX ? n : METADATA_BATCH_RECORDS_MAX, err);
    }
    if (rc >= 0)
        rc = append_marker(c, kp_type_end_transaction_record);
    if (rc < 0 && quorum_in_transaction(c->quorum) && append_marker(c, kp_type_abort_transaction_record) < 0)
        c->o.failed(c->o.arg, "cannot end a transaction of the metadata log");
    assert(rc < 0 || !quorum_in_transaction(c->quorum));
    return rc;
}

int64_t control_append(struct control *c)
{
    struct err err = {0};
    assert(c->records.n > 0);
    int64_t rc = c->records.n <= METADATA_BATCH_RECORDS_MAX
                     ? quorum_append(c->quorum, c->records.v, c->records.n, &err)
                     : append_transaction(c, &err);
    assert(rc < 0 || rc < quorum_offset_next(c->quorum));
    if (rc >= 0)
        c->appended_us = loop_now_us(c->loop);
    return rc < 0 ? -(int64_t)control_append_error((int)rc) : rc;
}

/* ---- calls ---- */

static void answer_at_home(struct loop_msg *msg)
{
    struct control_call *call = LIST_ENTRY(msg, struct control_call, msg);
    assert(call->done);
    assert(!list_linked(&call->link));
    call->done(call);
}

static void answer(struct control_call *call, int16_t error)
{
    assert(!list_linked(&call->link)); /* it waits for nothing any more */
    assert(call->home);
    call->error = error;
    if (error)
        control_call_fail(call, error);
    call->msg.fn = answer_at_home;
    loop_post(call->home, &call->msg);
}

static void take_out(struct control *c, struct control_call *call)
{
    list_remove(&call->link);
    assert(c->waiting_n > 0);
    c->waiting_n--;
}

void control_complete(struct control *c)
{
    int64_t seen = control_seen_offset(c);
    assert((c->waiting_n == 0) == list_empty(&c->waiting));
    assert(c->waiting_n <= CONTROL_CALLS_MAX);
    while (!list_empty(&c->waiting)) {
        struct control_call *call = LIST_ENTRY(c->waiting.next, struct control_call, link);
        if (call->offset > seen)
            break;
        take_out(c, call);
        answer(call, KE_NONE);
    }
}

static void on_deadline(void *arg)
{
    struct control *c = arg;
    int64_t now_us = loop_now_us(c->loop), next_us = INT64_MAX;
    list_each_safe(at, &c->waiting)
    {
        struct control_call *call = LIST_ENTRY(at, struct control_call, link);
        if (call->deadline_us <= now_us) {
            take_out(c, call);
            answer(call, KE_REQUEST_TIMED_OUT);
        } else if (call->deadline_us < next_us) {
            next_us = call->deadline_us;
        }
    }
    if (next_us < INT64_MAX)
        loop_timer_at(&c->deadline, next_us);
}

static void wait_for(struct control *c, struct control_call *call, int64_t offset)
{
    assert(offset >= 0);
    assert(offset < quorum_offset_next(c->quorum));
    assert(c->waiting_n < CONTROL_CALLS_MAX);
    call->offset = offset;
    assert(list_empty(&c->waiting) ||
           LIST_ENTRY(c->waiting.prev, struct control_call, link)->offset < offset);
    list_push(&c->waiting, &call->link);
    c->waiting_n++;
    if (!c->deadline.armed || c->deadline.due_us > call->deadline_us)
        loop_timer_at(&c->deadline, call->deadline_us);
}

static void on_call(struct loop_msg *msg)
{
    struct control_call *call = LIST_ENTRY(msg, struct control_call, msg);
    struct control *c = call->control;
    int64_t timeout_ms = call->timeout_ms > 0 ? call->timeout_ms : CONTROL_TIMEOUT_MS;
    call->deadline_us = loop_now_us(c->loop) + timeout_ms * 1000;
    if (!c->active || c->stopping) {
        answer(call, KE_NOT_CONTROLLER);
    } else if (c->waiting_n >= CONTROL_CALLS_MAX) {
        answer(call, KE_THROTTLING_QUOTA_EXCEEDED);
    } else {
        control_call_run(c, call);
        int64_t rc = call->error ? -(int64_t)call->error : c->records.n > 0 ? control_append(c) : -1;
        if (call->error || (rc < 0 && c->records.n > 0)) {
            answer(call, (int16_t)-rc);
        } else if (rc < 0 || MUTANT("ack_before_commit")) {
            answer(call, KE_NONE); /* nothing has changed */
        } else {
            control_broker_appended(c, call, rc);
            wait_for(c, call, rc);
        }
    }
}

void control_submit(struct control *c, struct control_call *call)
{
    assert(call->done);
    assert(call->home);
    assert(call->arena);
    assert(call->request);
    assert(call->response);
    call->control = c;
    call->error = KE_NONE;
    call->msg.fn = on_call;
    loop_post(c->loop, &call->msg);
}

void control_create_on_use(struct control *c, struct control_call *call, const struct slice *names,
                           int32_t names_n)
{
    assert(names_n > 0);
    struct kp_create_topics_response *r = ARENA_NEW(call->arena, struct kp_create_topics_response);
    const struct kp_create_topics_request *q = decide_create_on_use(&c->o.rules, names, names_n, call->arena);
    call->api_key = kp_key_create_topics;
    call->request = q;
    call->response = r;
    call->control = c;
    if (r && q) {
        control_submit(c, call);
        return;
    }
    call->error = KE_UNKNOWN_SERVER_ERROR;
    call->msg.fn = answer_at_home;
    loop_post(call->home, &call->msg);
}

/* ---- the quorum's news ---- */

static void on_leading(void *arg, int32_t epoch)
{
    struct control *c = arg;
    assert(!c->active);
    (void)epoch;
    control_activate(c);
}

static void drop_calls(struct control *c)
{
    while (!list_empty(&c->waiting)) {
        struct control_call *call = LIST_ENTRY(c->waiting.next, struct control_call, link);
        take_out(c, call);
        answer(call, KE_NOT_CONTROLLER);
    }
    loop_timer_stop(&c->deadline);
}

static void on_resigned(void *arg)
{
    struct control *c = arg;
    c->active = false;
    control_sessions_end(c);
    loop_timer_stop(&c->idle_timer);
    drop_calls(c);
    assert(c->waiting_n == 0);
    assert(!c->deadline.armed);
}

static void on_committed(void *arg, const struct image *img)
{
    struct control *c = arg;
    control_publish(c, img);
    control_complete(c);
}

static void on_failed(void *arg, const char *why)
{
    struct control *c = arg;
    c->active = false;
    c->o.failed(c->o.arg, why);
}

static void on_stopped(void *arg)
{
    struct control *c = arg;
    drop_calls(c);
    assert(c->stopping);
    assert(!c->active);
    assert(c->waiting_n == 0);
    c->o.stopped(c->o.arg);
}

static const struct quorum_listener listener = {on_leading, on_resigned, on_committed, on_failed, on_stopped};

/* An empty record after silence: who follows the log sees that its leader lives, and where it stands. */
static void on_idle(void *arg)
{
    struct control *c = arg;
    int64_t due_us = c->appended_us + c->o.idle_interval_ms * 1000;
    assert(c->o.idle_interval_ms > 0);
    if (!c->active || c->stopping)
        return;
    if (loop_now_us(c->loop) >= due_us) {
        struct decide d = control_decide(c, &c->arena);
        if (decide_record(&d, kp_type_no_op_record))
            (void)control_append(c); /* a full disk: the next one is tried after as much silence */
        due_us = loop_now_us(c->loop) + c->o.idle_interval_ms * 1000;
    }
    loop_timer_at(&c->idle_timer, due_us);
}

/* ---- life ---- */

static int keep_endpoints(struct control *c, const struct control_options *o)
{
    assert(o->endpoints_n <= CONTROL_ENDPOINTS_MAX);
    c->texts = calloc(CONTROL_ENDPOINTS_MAX, 2 * (size_t)CONTROL_TEXT_MAX);
    if (!c->texts)
        return -E_NOMEM;
    for (unsigned i = 0; i < o->endpoints_n; i++) {
        char *listener_name = c->texts + (size_t)(2 * i) * CONTROL_TEXT_MAX,
             *host = listener_name + CONTROL_TEXT_MAX;
        snprintf(listener_name, CONTROL_TEXT_MAX, "%s", o->endpoints[i].listener);
        snprintf(host, CONTROL_TEXT_MAX, "%s", o->endpoints[i].host);
        c->endpoints[i] = o->endpoints[i];
        c->endpoints[i].listener = listener_name;
        c->endpoints[i].host = host;
    }
    c->o.endpoints = c->endpoints;
    return 0;
}

static int check_level(const struct control *c, const struct image *img, struct err *err)
{
    int16_t level = decide_metadata_version(img);
    if (level == 0)
        level = control_bootstrap_level(c);
    if ((level >= METADATA_VERSION_MIN && level <= METADATA_VERSION_MAX))
        return 0;
    return err_set(
        err, -E_CONFIG,
        "%s has metadata.version %d, this version serves %d to %d: change it with the Kafka that wrote it "
        "(kafka-features upgrade --metadata)",
        c->o.quorum.metadata_dir, level, METADATA_VERSION_MIN, METADATA_VERSION_MAX);
}

static void release(struct control *c)
{
    arena_fini(&c->arena);
    arena_fini(&c->bootstrap_arena);
    free(c->texts);
    free(c);
}

int control_open(const struct control_options *o, struct control **out, struct err *err)
{
    struct control *c = calloc(1, sizeof *c);
    assert(o->quorum.loop);
    assert(o->failed);
    if (!c)
        return err_set(err, -E_NOMEM, "no memory for the control plane");
    c->o = *o;
    c->loop = o->quorum.loop;
    c->o.quorum.listener = &listener;
    c->o.quorum.arg = c;
    list_init(&c->waiting);
    list_init(&c->subscribers);
    arena_init(&c->arena, CONTROL_ARENA_MAX);
    arena_init(&c->bootstrap_arena, CONTROL_ARENA_MAX);
    loop_timer_init(&c->deadline, c->loop, on_deadline, c);
    loop_timer_init(&c->idle_timer, c->loop, on_idle, c);
    rng_init(&c->rng, loop_random(c->loop));
    int rc = keep_endpoints(c, o);
    if (rc == 0)
        rc = control_read_bootstrap(c, err);
    if (rc == 0)
        rc = quorum_open(&c->o.quorum, &c->quorum, err);
    if (rc < 0) {
        release(c);
        return rc;
    }
    rc = check_level(c, quorum_image(c->quorum), err);
    if (rc < 0) {
        quorum_abandon(c->quorum);
        release(c);
        return rc;
    }
    *out = c;
    return 0;
}

void control_start(struct control *c)
{
    quorum_start(c->quorum);
}

bool control_active(const struct control *c)
{
    return c->active;
}

const struct image *control_image(const struct control *c)
{
    return c->published;
}

struct quorum *control_quorum(const struct control *c)
{
    return c->quorum;
}

void control_stop(struct control *c)
{
    assert(!c->stopping);
    c->stopping = true;
    loop_timer_stop(&c->idle_timer);
    control_sessions_end(c);
    quorum_stop(c->quorum);
}

int control_close(struct control *c, bool clean, struct err *err)
{
    assert(list_empty(&c->subscribers));
    assert(list_empty(&c->waiting));
    image_unref(c->published);
    int rc = quorum_close(c->quorum, clean, err);
    release(c);
    return rc;
}

void control_abandon(struct control *c)
{
    if (!c)
        return;
    assert(list_empty(&c->subscribers));
    image_unref(c->published);
    quorum_abandon(c->quorum);
    release(c);
}
