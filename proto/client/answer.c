/* What comes back: frames to their calls, errors to what they mean for routing. */
#include "proto/client/client_internal.h"

#include "base/core/bytes.h"

/* Decoded structures are larger than their bytes; more than this factor is abuse. */
#define ANSWER_BLOAT     32
#define ANSWER_BYTES_MIN ((size_t)1 << 20)

/* ---- errors in a body ---- */

static void count_error(struct answer_errors *e, int16_t code)
{
    if (code == KE_NONE)
        return;
    if (e->first == KE_NONE)
        e->first = code;
    e->retriable = e->retriable || kafka_error_retriable(code);
    switch (code) {
    case KE_UNKNOWN_TOPIC_OR_PARTITION:
    case KE_LEADER_NOT_AVAILABLE:
    case KE_NOT_LEADER_OR_FOLLOWER:
    case KE_REPLICA_NOT_AVAILABLE:
    case KE_KAFKA_STORAGE_ERROR:
    case KE_FENCED_LEADER_EPOCH:
    case KE_UNKNOWN_LEADER_EPOCH:
    case KE_UNKNOWN_TOPIC_ID:
    case KE_INCONSISTENT_TOPIC_ID: e->metadata = true; break;
    case KE_COORDINATOR_NOT_AVAILABLE:
    case KE_NOT_COORDINATOR: e->coordinator = true; break;
    case KE_NOT_CONTROLLER: e->controller = true; break;
    default: break;
    }
}

static void look_into(const struct kp_struct *s, int16_t version, const void *body, struct answer_errors *e)
{
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++) {
        if (version < f->since || version > f->until)
            continue;
        const uint8_t *at = (const uint8_t *)body + f->at;
        if (f->kind == KP_I16 && strcmp(f->name, "error_code") == 0) {
            count_error(e, *(const int16_t *)(const void *)at);
        } else if (f->kind == KP_NEST) {
            look_into(f->child, version, at, e);
        } else if (f->kind == KP_ARRAY) {
            const uint8_t *element;
            int32_t n = *(const int32_t *)(const void *)((const uint8_t *)body + f->count_at);
            memcpy(&element, at, sizeof element);
            for (int32_t i = 0; i < n; i++)
                look_into(f->child, version, element + (size_t)i * f->child->size_bytes, e);
        }
    }
}

struct answer_errors client_answer_errors(const struct kp_api *api, int16_t version, const void *body)
{
    struct answer_errors e = {.first = KE_NONE};
    look_into(api->response.body, version, body, &e);
    return e;
}

/* ---- versions ---- */

static bool take_versions(struct client_conn *conn, const struct kp_api_versions_response *m, struct err *err)
{
    for (int i = 0; i < CONN_APIS; i++)
        conn->versions[i] = (struct version_range){0, -1};
    for (int32_t i = 0; i < m->api_keys_n; i++) {
        const struct kp_api_versions_response_api_keys *k = &m->api_keys[i];
        if (k->api_key >= 0 && k->api_key < CONN_APIS && k->min_version <= k->max_version)
            conn->versions[k->api_key] = (struct version_range){k->min_version, k->max_version};
    }
    if (m->error_code == KE_UNSUPPORTED_VERSION) {
        /* KIP-511: the answer is in version 0 and lists what the broker takes, at least of this API. */
        int16_t max = conn->versions[kp_key_api_versions].max;
        client_conn_ask_versions(conn, max > 0 ? max : 0);
        return true;
    }
    if (m->error_code != KE_NONE) {
        err_set(err, -E_INVALID, "ApiVersions: %s", kafka_error_name(m->error_code));
        return false;
    }
    client_conn_ready(conn);
    return true;
}

/* ---- answers ---- */

static void heed(struct client_core *core, struct call *call, const struct answer_errors *e)
{
    if (e->metadata || e->controller)
        client_metadata_want(core);
    if (e->coordinator)
        client_coordinator_forget(core, &call->pub.target);
}

static void conclude(struct client_core *core, struct call *call)
{
    assert(call->response.body && call->response.frame);
    struct answer_errors e = client_answer_errors(call->api, call->version, call->response.body);
    heed(core, call, &e);
    if (e.first != KE_NONE && e.retriable && call->pub.retry == CLIENT_RETRY_SAFE) {
        int64_t delay = client_core_backoff(core, call->attempts);
        if (core->now_us + delay < call->deadline_us) {
            call->attempts++;
            client_frame_unref(call->response.frame);
            call->response = (struct client_response){0};
            client_call_again(core, call, delay);
            return;
        }
    }
    client_call_finish(core, call, 0, "%s", "");
}

/* The body of an answer into the call's arena. */
static int decode(struct client_conn *conn, struct call *call, struct client_frame *frame, size_t at,
                  struct err *err)
{
    const struct kp_message *m = &call->api->response;
    struct slice bytes = slice_of(frame->bytes + at, frame->size - at);
    int16_t version = call->version;
    assert(at <= frame->size);
    assert(!call->response.frame);
    if (call->api->key == kp_key_api_versions && bytes.n >= 2 && be16_get(bytes.p) == KE_UNSUPPORTED_VERSION)
        version = 0;
    arena_reset(&call->answer);
    call->answer.limit_bytes = ANSWER_BYTES_MIN + frame->size * ANSWER_BLOAT;
    void *body = arena_alloc(&call->answer, m->body->size_bytes);
    if (!body)
        return err_set(err, -E_NOMEM, "%s: no memory for an answer", call->api->name);
    int rc = kp_decode(m, version, bytes, &call->answer, body, NULL, err);
    if (rc)
        return err_wrap(err, "%s v%d from %s:%u", call->api->name, version, conn->broker->host,
                        conn->broker->port);
    call->response.body = body;
    call->response.node_id = conn->broker->node_id;
    call->response.frame = client_frame_ref(frame);
    call->response.sent = true;
    return 0;
}

bool client_answer(struct client_conn *conn, struct client_frame *frame, struct err *err)
{
    struct client_core *core = conn->core;
    if (list_empty(&conn->calls)) {
        err_set(err, -E_CORRUPT, "a response to nothing");
        return false;
    }
    struct call *call = LIST_ENTRY(conn->calls.next, struct call, link);
    int32_t correlation;
    size_t at;
    int rc = kp_response_header_decode(call->api, call->version, slice_of(frame->bytes, frame->size),
                                       &correlation, &at);
    if (rc || correlation != call->correlation || !call->written) {
        err_set(err, -E_CORRUPT, "a response out of order");
        return false;
    }
    list_remove(&call->link);
    if (call->abandoned) {
        client_call_free(core, call);
        return true;
    }
    assert(call->state == CALL_QUEUED && call->conn == conn);
    assert(conn->writing != call);
    call->conn = NULL;
    rc = decode(conn, call, frame, at, err);
    if (call->handshake) {
        bool versions = call->api->key == kp_key_api_versions;
        bool good = !rc && (versions ? take_versions(conn, call->response.body, err)
                                     : client_secure_answer(conn, call));
        client_call_free(core, call);
        return good;
    }
    if (rc)
        client_call_finish(core, call, rc == -E_NOMEM ? rc : -E_CORRUPT, "%s", err->text);
    else
        conclude(core, call);
    return !rc;
}
