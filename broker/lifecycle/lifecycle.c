#include "broker/lifecycle/lifecycle.h"

#include "base/core/sm.h"
#include "base/runtime/log.h"
#include "broker/controller/brokers.h"
#include "broker/log/manager.h"
#include "proto/kafka/errors.h"
#include "proto/kafka/wire.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define START_INTERVAL_US  10000 /* between heartbeats and retries while starting or stopping */
#define CALL_TIMEOUT_MS    5000
#define ARENA_MAX          ((size_t)4 << 20)
#define RECOVERED_MAX      1000 /* partitions reported at once */
#define LIFECYCLE_DIRS_MAX 64

_Static_assert(LIFECYCLE_DIRS_MAX >= LOG_DIRS_MAX, "each of them may fail");

enum life { LIFE_WAITING, LIFE_REGISTERING, LIFE_STARTING, LIFE_RUNNING, LIFE_STOPPING, LIFE_STOPPED };

static const struct sm_state states[] = {
    [LIFE_WAITING] = {"waiting for a controller", SM_TO(LIFE_REGISTERING) | SM_TO(LIFE_STOPPING)},
    [LIFE_REGISTERING] = {"registering", SM_TO(LIFE_STARTING) | SM_TO(LIFE_STOPPING)},
    [LIFE_STARTING] = {"starting", SM_TO(LIFE_RUNNING) | SM_TO(LIFE_STOPPING)},
    [LIFE_RUNNING] = {"running", SM_TO(LIFE_STOPPING)},
    [LIFE_STOPPING] = {"stopping", SM_TO(LIFE_STOPPED)},
    [LIFE_STOPPED] = {"stopped", SM_END},
};

struct lifecycle {
    struct lifecycle_options o;
    struct sm sm;
    int64_t epoch;
    int64_t begun_us, stop_us;
    struct loop_timer timer;
    bool calling;                            /* `call` is under way */
    struct uuid offline[LIFECYCLE_DIRS_MAX]; /* log dirs that have failed */
    int32_t offline_n;
    bool failed;
    struct control_call call;
    struct arena arena;
    union {
        struct kp_broker_registration_request registration;
        struct kp_broker_heartbeat_request heartbeat;
        struct kp_alter_partition_request alter;
    } q;
    union {
        struct kp_broker_registration_response registration;
        struct kp_broker_heartbeat_response heartbeat;
        struct kp_alter_partition_response alter;
    } r;
};

static bool sound(const void *owner, unsigned state)
{
    const struct lifecycle *l = owner;
    bool registered = state == LIFE_STARTING || state == LIFE_RUNNING;
    return (!registered || l->epoch >= 0) && l->offline_n >= 0 && l->offline_n <= LIFECYCLE_DIRS_MAX;
}

static const struct sm_table life_sm = SM_TABLE("broker life", states, sound);

static void fail(struct lifecycle *l, const char *why)
{
    if (l->failed)
        return;
    assert(sm_state(&l->sm) != LIFE_STOPPED);
    l->failed = true;
    loop_timer_stop(&l->timer);
    l->o.failed(l->o.arg, why);
}

static void finish(struct lifecycle *l)
{
    assert(!l->calling);
    assert(sm_state(&l->sm) == LIFE_STOPPING);
    sm_move(&l->sm, LIFE_STOPPED);
    loop_timer_stop(&l->timer);
    l->o.stopped(l->o.arg, l->epoch);
}

static void again(struct lifecycle *l, int64_t in_us)
{
    assert(in_us >= 0);
    bool on = sm_state(&l->sm) == LIFE_STOPPING || (!l->failed && sm_state(&l->sm) != LIFE_STOPPED);
    if (on)
        loop_timer_in(&l->timer, in_us);
}

static void submit(struct lifecycle *l, int16_t key, void (*done)(struct control_call *call))
{
    assert(!l->calling);
    assert(!l->failed || sm_state(&l->sm) == LIFE_STOPPING);
    l->calling = true;
    l->call = (struct control_call){.api_key = key,
                                    .request = &l->q,
                                    .response = &l->r,
                                    .arena = &l->arena,
                                    .home = l->o.loop,
                                    .timeout_ms = CALL_TIMEOUT_MS,
                                    .done = done,
                                    .arg = l};
    control_submit(l->o.control, &l->call);
}

/* ---- registration ---- */

static bool fill_registration(struct lifecycle *l, struct kp_broker_registration_request *q)
{
    assert(l->o.directories_n > 0);
    assert(l->epoch == -1); /* once: who is forgotten ends */
    size_t n;
    const struct feature_claim *claims = feature_claims(&n);
    kp_init(&kp_broker_registration_request_message, q);
    q->broker_id = l->o.node_id;
    q->cluster_id = slice_str(l->o.cluster_id);
    q->incarnation_id = l->o.incarnation;
    q->rack = slice_str(l->o.rack);
    q->previous_broker_epoch = l->o.previous_epoch;
    q->log_dirs = (struct uuid *)(uintptr_t)l->o.directory_ids;
    q->log_dirs_n = (int32_t)l->o.directories_n;
    q->listeners = ARENA_NEWS(&l->arena, struct kp_broker_registration_request_listeners, l->o.listeners_n);
    q->features = ARENA_NEWS(&l->arena, struct kp_broker_registration_request_features, n);
    if (!q->listeners || !q->features)
        return false;
    for (unsigned i = 0; i < l->o.listeners_n; i++)
        q->listeners[q->listeners_n++] = (struct kp_broker_registration_request_listeners){
            slice_str(l->o.listeners[i].listener), slice_str(l->o.listeners[i].host), l->o.listeners[i].port,
            l->o.listeners[i].security_protocol};
    for (size_t i = 0; i < n; i++)
        q->features[q->features_n++] = (struct kp_broker_registration_request_features){
            slice_str(claims[i].name), claims[i].level_min, claims[i].level_max};
    return true;
}

/* A finalized feature that we do not claim, for the line that says why the start failed. */
static void refuse_level(struct lifecycle *l)
{
    char why[256];
    size_t n;
    const struct feature_claim *claims = feature_claims(&n);
    const struct image *img = control_image(l->o.control);
    for (const struct image_feature *f = img ? image_feature_next(img, NULL) : NULL; f;
         f = image_feature_next(img, f)) {
        bool fine = false;
        for (size_t i = 0; i < n; i++)
            fine |= slice_eq_str(f->name, claims[i].name) && claims[i].level_min <= f->level &&
                    f->level <= claims[i].level_max;
        if (fine)
            continue;
        snprintf(why, sizeof why, "the metadata has %.*s at level %d, which this version does not serve",
                 SLICE_FMT(f->name), f->level);
        fail(l, why);
        return;
    }
    fail(l, "the controller refuses this broker's features");
}

static void on_registered(struct control_call *call)
{
    struct lifecycle *l = call->arg;
    assert(l->calling);
    l->calling = false;
    int16_t error = call->error ? call->error : l->r.registration.error_code;
    char why[128];
    if (sm_state(&l->sm) != LIFE_REGISTERING) {
        again(l, 0); /* a stop waits for this answer */
        return;
    }
    switch (error) {
    case KE_NONE:
        l->epoch = l->r.registration.broker_epoch;
        sm_move(&l->sm, LIFE_STARTING);
        again(l, 0);
        return;
    case KE_NOT_CONTROLLER:
    case KE_REQUEST_TIMED_OUT:
    case KE_KAFKA_STORAGE_ERROR:
    case KE_THROTTLING_QUOTA_EXCEEDED:
    case KE_DUPLICATE_BROKER_REGISTRATION: again(l, START_INTERVAL_US); return;
    case KE_UNSUPPORTED_VERSION: refuse_level(l); return;
    default:
        snprintf(why, sizeof why, "the controller refuses to register node %d: error %d", l->o.node_id,
                 error);
        fail(l, why);
    }
}

static void register_broker(struct lifecycle *l)
{
    assert(sm_state(&l->sm) == LIFE_REGISTERING);
    arena_reset(&l->arena);
    if (loop_now_us(l->o.loop) - l->begun_us > l->o.registration_timeout_ms * 1000)
        fail(l, "no controller has registered this broker within initial.broker.registration.timeout.ms");
    else if (fill_registration(l, &l->q.registration))
        submit(l, kp_key_broker_registration, on_registered);
    else
        fail(l, "no memory to register");
}

/* ---- partitions that were elected uncleanly ---- */

static void on_recovered(struct control_call *call)
{
    struct lifecycle *l = call->arg;
    assert(l->calling);
    l->calling = false; /* what was refused is seen again after the next heartbeat */
    again(l, sm_state(&l->sm) == LIFE_RUNNING ? l->o.heartbeat_ms * 1000 : 0);
}

static int32_t recovering_of(const struct lifecycle *l, const struct image_topic *t,
                             struct kp_alter_partition_request_partitions *out, struct arena *a)
{
    int32_t n = 0;
    for (int32_t i = 0; i < t->partitions_n && n < RECOVERED_MAX; i++) {
        const struct image_partition *p = image_partition(t, i);
        if (!p || !p->recovering || p->leader != l->o.node_id)
            continue;
        if (out) {
            struct kp_alter_partition_request_new_isr_with_epochs *isr =
                ARENA_NEW(a, struct kp_alter_partition_request_new_isr_with_epochs);
            if (!isr)
                return 0;
            *isr = (struct kp_alter_partition_request_new_isr_with_epochs){l->o.node_id, l->epoch};
            out[n] = (struct kp_alter_partition_request_partitions){.partition_index = i,
                                                                    .leader_epoch = p->leader_epoch,
                                                                    .new_isr_with_epochs = isr,
                                                                    .new_isr_with_epochs_n = 1,
                                                                    .partition_epoch = p->partition_epoch};
        }
        n++;
    }
    assert(n <= RECOVERED_MAX);
    return n;
}

/* The first topic that has some; the next one after the next heartbeat. False: there is none. */
static bool report_recovered(struct lifecycle *l)
{
    assert(!l->calling);
    assert(sm_state(&l->sm) == LIFE_RUNNING);
    const struct image *img = control_image(l->o.control);
    if (!img || !decide_elr(img))
        return false;
    for (const struct image_topic *t = image_topic_next(img, NULL); t; t = image_topic_next(img, t)) {
        int32_t n = recovering_of(l, t, NULL, NULL);
        if (n == 0)
            continue;
        arena_reset(&l->arena);
        struct kp_alter_partition_request_topics *topic =
            ARENA_NEW(&l->arena, struct kp_alter_partition_request_topics);
        struct kp_alter_partition_request_partitions *v =
            ARENA_NEWS(&l->arena, struct kp_alter_partition_request_partitions, n);
        if (!topic || !v)
            return false;
        *topic = (struct kp_alter_partition_request_topics){t->id, v, recovering_of(l, t, v, &l->arena)};
        kp_init(&kp_alter_partition_request_message, &l->q.alter);
        l->q.alter.broker_id = l->o.node_id;
        l->q.alter.broker_epoch = l->epoch;
        l->q.alter.topics = topic;
        l->q.alter.topics_n = 1;
        submit(l, kp_key_alter_partition, on_recovered);
        return true;
    }
    return false;
}

/* ---- heartbeats ---- */

static void on_beat_accepted(struct lifecycle *l)
{
    const struct kp_broker_heartbeat_response *r = &l->r.heartbeat;
    switch ((enum life)sm_state(&l->sm)) {
    case LIFE_STARTING:
        if (!r->is_fenced) {
            sm_move(&l->sm, LIFE_RUNNING);
            log_info("broker.lifecycle", "unfenced node=%d epoch=%lld", l->o.node_id, (long long)l->epoch);
            l->o.serving(l->o.arg);
            again(l, 0);
            return;
        }
        again(l, START_INTERVAL_US);
        return;
    case LIFE_RUNNING:
        if (!report_recovered(l))
            again(l, l->o.heartbeat_ms * 1000);
        return;
    case LIFE_STOPPING:
        if (r->should_shut_down)
            finish(l);
        else
            again(l, START_INTERVAL_US);
        return;
    case LIFE_WAITING:
    case LIFE_REGISTERING:
    case LIFE_STOPPED: return;
    }
}

static void on_beat(struct control_call *call)
{
    struct lifecycle *l = call->arg;
    int16_t error = call->error ? call->error : l->r.heartbeat.error_code;
    assert(l->calling);
    l->calling = false;
    if (error == KE_NONE)
        on_beat_accepted(l);
    else if (sm_state(&l->sm) == LIFE_STOPPING)
        finish(l); /* nobody to wait for */
    else if (error == KE_STALE_BROKER_EPOCH || error == KE_BROKER_ID_NOT_REGISTERED)
        fail(l, "another process has registered under this node.id, or the broker was unregistered");
    else
        again(l, START_INTERVAL_US * 10);
}

static void beat(struct lifecycle *l)
{
    struct kp_broker_heartbeat_request *q = &l->q.heartbeat;
    assert(l->epoch >= 0);
    assert(l->offline_n <= LIFECYCLE_DIRS_MAX);
    arena_reset(&l->arena);
    kp_init(&kp_broker_heartbeat_request_message, q);
    q->broker_id = l->o.node_id;
    q->broker_epoch = l->epoch;
    q->current_metadata_offset = control_seen_offset(l->o.control);
    q->want_fence = sm_state(&l->sm) == LIFE_STARTING && !l->o.ready(l->o.arg);
    q->want_shut_down = sm_state(&l->sm) == LIFE_STOPPING;
    q->offline_log_dirs = l->offline;
    q->offline_log_dirs_n = l->offline_n;
    submit(l, kp_key_broker_heartbeat, on_beat);
}

static void on_timer(void *arg)
{
    struct lifecycle *l = arg;
    if (l->calling)
        return; /* its answer goes on */
    switch ((enum life)sm_state(&l->sm)) {
    case LIFE_WAITING:
        if (control_active(l->o.control))
            sm_move(&l->sm, LIFE_REGISTERING);
        again(l, control_active(l->o.control) ? 0 : START_INTERVAL_US);
        break;
    case LIFE_REGISTERING: register_broker(l); break;
    case LIFE_STOPPING:
        if (l->epoch < 0 || l->failed || loop_now_us(l->o.loop) - l->stop_us > LIFECYCLE_STOP_MS * 1000)
            finish(l); /* nothing to hand over, or no time left */
        else
            beat(l);
        break;
    case LIFE_STARTING:
    case LIFE_RUNNING: beat(l); break;
    case LIFE_STOPPED: break;
    }
}

/* ---- life ---- */

int lifecycle_create(const struct lifecycle_options *o, struct lifecycle **out, struct err *err)
{
    struct lifecycle *l = calloc(1, sizeof *l);
    if (!l)
        return err_set(err, -E_NOMEM, "no memory for the broker's life cycle");
    assert(o->listeners_n > 0);
    assert(o->directories_n > 0);
    assert(o->heartbeat_ms > 0);
    assert(o->ready);
    assert(o->serving);
    assert(o->failed);
    assert(o->stopped);
    l->o = *o;
    l->epoch = -1;
    arena_init(&l->arena, ARENA_MAX);
    sm_init(&l->sm, &life_sm, l, LIFE_WAITING);
    loop_timer_init(&l->timer, o->loop, on_timer, l);
    *out = l;
    return 0;
}

void lifecycle_start(struct lifecycle *l)
{
    assert(sm_state(&l->sm) == LIFE_WAITING);
    assert(!l->calling);
    l->begun_us = loop_now_us(l->o.loop);
    again(l, 0);
}

void lifecycle_stop(struct lifecycle *l)
{
    enum life now = (enum life)sm_state(&l->sm);
    if (now == LIFE_STOPPING || now == LIFE_STOPPED)
        return;
    l->stop_us = loop_now_us(l->o.loop);
    sm_move(&l->sm, LIFE_STOPPING);
    again(l, 0);
}

void lifecycle_dir_failed(struct lifecycle *l, const struct uuid *directory_id)
{
    if (uuid_is_zero(directory_id) || l->offline_n == LIFECYCLE_DIRS_MAX)
        return;
    l->offline[l->offline_n++] = *directory_id;
    if (sm_state(&l->sm) == LIFE_RUNNING)
        again(l, 0); /* one that is under way has gone without it: the next says it */
}

void lifecycle_destroy(struct lifecycle *l)
{
    if (!l)
        return;
    loop_timer_stop(&l->timer);
    arena_fini(&l->arena);
    free(l);
}

int64_t lifecycle_epoch(const struct lifecycle *l)
{
    return l->epoch;
}

const char *lifecycle_state(const struct lifecycle *l)
{
    return sm_name(&l->sm);
}
