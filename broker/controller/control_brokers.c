/* Sessions of brokers: who has spoken when. The active controller's memory, begun afresh with each one. */
#include "broker/controller/control_internal.h"

#include "base/runtime/log.h"

#include <assert.h>

static int64_t timeout_us(const struct control *c)
{
    assert(c->o.session_timeout_ms > 0);
    return c->o.session_timeout_ms * 1000;
}

struct broker_session *control_session(struct control *c, int32_t broker_id)
{
    for (int32_t i = 0; i < c->sessions_n; i++) {
        if (c->sessions[i].id == broker_id)
            return &c->sessions[i];
    }
    return NULL;
}

static struct broker_session *add_session(struct control *c, int32_t broker_id, int64_t registered_offset)
{
    struct broker_session *s = control_session(c, broker_id);
    assert(broker_id >= 0);
    assert(c->sessions_n <= BROKER_SESSIONS_MAX);
    if (!s && c->sessions_n == BROKER_SESSIONS_MAX)
        return NULL;
    if (!s)
        s = &c->sessions[c->sessions_n++];
    *s = (struct broker_session){.id = broker_id,
                                 .contact_us = loop_now_us(c->loop),
                                 .metadata_offset = -1,
                                 .registered_offset = registered_offset,
                                 .shutdown_offset = -1};
    return s;
}

/* A session runs out only by the controller's own watch: while this process stood still nobody could have spoken. */
static void forgive_own_absence(struct control *c, int64_t now_us)
{
    int64_t interval_us = timeout_us(c) / CONTROL_SESSION_PART;
    int64_t absent_us = now_us - c->sessions_checked_us - interval_us;
    assert(interval_us > 0);
    assert(now_us >= c->sessions_checked_us);
    c->sessions_checked_us = now_us;
    if (absent_us < interval_us)
        return;
    for (int32_t i = 0; i < c->sessions_n; i++)
        c->sessions[i].contact_us += absent_us;
}

static bool is_silent(const struct control *c, const struct broker_session *s, int64_t now_us)
{
    const struct image_broker *b = image_broker(quorum_image(c->quorum), s->id);
    return b && !b->fenced && now_us - s->contact_us > timeout_us(c);
}

static void on_sessions(void *arg)
{
    struct control *c = arg;
    int64_t now_us = loop_now_us(c->loop);
    if (!c->active || c->stopping)
        return;
    forgive_own_absence(c, now_us);
    assert(c->sessions_n <= BROKER_SESSIONS_MAX);
    for (int32_t i = 0; i < c->sessions_n; i++) {
        if (!is_silent(c, &c->sessions[i], now_us))
            continue;
        struct arena scratch;
        arena_init(&scratch, CONTROL_ARENA_MAX);
        struct decide d = control_decide(c, &scratch);
        log_warn("broker.controller", "fencing a silent broker id=%d silent_ms=%lld", c->sessions[i].id,
                 (long long)((now_us - c->sessions[i].contact_us) / 1000));
        if (decide_fence(&d, c->sessions[i].id) == KE_NONE && c->records.n > 0)
            (void)control_append(c); /* if it cannot be written now: looked at again at the next check */
        arena_fini(&scratch);
    }
    loop_timer_in(&c->session_timer, timeout_us(c) / CONTROL_SESSION_PART);
}

void control_sessions_begin(struct control *c)
{
    const struct image *img = quorum_image(c->quorum);
    c->sessions_n = 0;
    for (const struct image_broker *b = image_broker_next(img, NULL); b; b = image_broker_next(img, b))
        (void)add_session(c, b->id, b->epoch);
    c->sessions_checked_us = loop_now_us(c->loop);
    loop_timer_init(&c->session_timer, c->loop, on_sessions, c);
    loop_timer_in(&c->session_timer, timeout_us(c) / CONTROL_SESSION_PART);
}

void control_sessions_end(struct control *c)
{
    if (c->session_timer.loop)
        loop_timer_stop(&c->session_timer);
    c->sessions_n = 0;
}

/* ---- calls ---- */

int16_t control_run_registration(struct control *c, const struct decide *d, struct control_call *call)
{
    const struct kp_broker_registration_request *q = call->request;
    const struct broker_session *s = control_session(c, q->broker_id);
    const struct image_broker *was = image_broker(d->img, q->broker_id);
    /* a fenced broker holds its id no longer; nor does one of this very process, which is its own proof */
    bool live = s && was && !was->fenced && loop_now_us(c->loop) - s->contact_us <= timeout_us(c) &&
                q->broker_id != c->o.quorum.node_id;
    return decide_broker_registration(d, q, s, live, call->response);
}

static int64_t lowest_offset(const struct control *c, const struct image *img, int32_t without)
{
    int64_t lowest = INT64_MAX;
    for (int32_t i = 0; i < c->sessions_n; i++) {
        const struct broker_session *s = &c->sessions[i];
        if (s->id != without && broker_is_active(image_broker(img, s->id)) && s->metadata_offset < lowest)
            lowest = s->metadata_offset;
    }
    return lowest;
}

int16_t control_run_heartbeat(struct control *c, const struct decide *d, struct control_call *call)
{
    const struct kp_broker_heartbeat_request *q = call->request;
    struct kp_broker_heartbeat_response *r = call->response;
    struct broker_session *s = control_session(c, q->broker_id);
    const struct image_broker *b = image_broker(d->img, q->broker_id);
    if (!s || !b)
        return r->error_code = KE_BROKER_ID_NOT_REGISTERED;
    if (b->epoch == q->broker_epoch) {
        s->contact_us = loop_now_us(c->loop);
        s->metadata_offset = q->current_metadata_offset;
    }
    return decide_broker_heartbeat(d, q, s, lowest_offset(c, d->img, q->broker_id), r);
}

void control_broker_appended(struct control *c, const struct control_call *call, int64_t offset)
{
    assert(offset >= 0);
    if (call->api_key == kp_key_broker_registration) {
        const struct kp_broker_registration_request *q = call->request;
        if (!add_session(c, q->broker_id, offset))
            log_error("broker.controller", "too many brokers: id=%d cannot be watched", q->broker_id);
    } else if (call->api_key == kp_key_broker_heartbeat) {
        const struct kp_broker_heartbeat_request *q = call->request;
        struct broker_session *s = control_session(c, q->broker_id);
        if (s && q->want_shut_down)
            s->shutdown_offset = offset;
    }
}
