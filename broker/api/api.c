#include "broker/api/api.h"

static const struct api_row rows[] = {
#define SERVE(api, first_version, last_version, flag_set)                                                    \
    {.key = kp_key_##api,                                                                                    \
     .first = (first_version),                                                                               \
     .last = (last_version),                                                                                 \
     .flags = (flag_set),                                                                                    \
     .handler = handle_##api,                                                                                \
     .name = #api},
#include "broker/api/apis.def"
#undef SERVE
};
#define ROWS_N (sizeof rows / sizeof rows[0])

const struct api_row *api_rows(size_t *n)
{
    *n = ROWS_N;
    return rows;
}

const struct api_row *api_row_find(int16_t key)
{
    for (size_t i = 0; i < ROWS_N; i++)
        if (rows[i].key == key)
            return &rows[i];
    return NULL;
}

int api_read_header(struct api_request *req, struct err *err)
{
    struct kp_request_header h;
    size_t used = 0;
    assert(!req->started);
    assert(!req->body);
    int rc = kp_request_header_decode(req->frame, &h, &used, err);
    if (rc && rc != -E_VERSION)
        return rc;
    req->row = api_row_find(h.api_key);
    req->api = kp_api_find(h.api_key);
    req->version = h.api_version;
    req->correlation_id = h.correlation_id;
    bool here = req->row && (!req->listener->controller || (req->row->flags & API_ON_CONTROLLER));
    if (!here || !req->api)
        return err_set(err, -E_VERSION, "API %d is not served", h.api_key);
    if (rc || h.api_version > req->row->last) {
        if (h.api_key != kp_key_api_versions || h.api_version < 0)
            return err_set(err, -E_VERSION, "%s version %d is not served", req->api->name, h.api_version);
        req->version = 0; /* what every client can read */
        req->version_unknown = true;
        return 0;
    }
    req->client_id = h.client_id;
    req->header_bytes = used;
    return 0;
}

void api_charge(struct api_request *req)
{
    assert(req->shard == req->home);
    assert(!req->away);
    size_t held = sizeof *req + (req->arena.used_bytes + ARENA_GRAIN - 1) / ARENA_GRAIN * ARENA_GRAIN;
    if (held > req->charged_bytes) {
        shard_memory_take(req->home, held - req->charged_bytes);
        req->charged_bytes = held;
    }
}

void api_start(struct api_request *req)
{
    assert(req->row);
    assert(!req->started);
    assert(req->shard == req->home);
    req->started = true;
    const struct kp_message *m = &req->api->request;
    req->arena.limit_bytes = req->arena.used_bytes + m->body->size_bytes + 4 * req->frame.n + API_DECODE_ROOM;
    req->body = arena_alloc(&req->arena, m->body->size_bytes);
    if (!req->body) {
        api_close(req, "out of memory");
        return;
    }
    if (req->version_unknown) {
        kp_init(m, req->body);
    } else {
        assert(req->header_bytes > 0);
        assert(req->header_bytes <= req->frame.n);
        struct slice body = slice_of(req->frame.p + req->header_bytes, req->frame.n - req->header_bytes);
        struct err err = {0};
        size_t used;
        /* librdkafka 2.8's flexible Metadata for all topics ends in three bytes too many, and Kafka reads no further
         * than the body: bytes left over are refused in every request but this one. */
        bool lenient = req->api->key == kp_key_metadata;
        if (kp_decode(m, req->version, body, &req->arena, req->body, lenient ? &used : NULL, &err)) {
            api_close(req, "malformed request");
            return;
        }
    }
    req->arena.limit_bytes += API_ARENA_MAX;
    api_charge(req);
    req->row->handler(req);
}

/* On the home shard: to the transport. `answered` is the home shard's to read and write. */
static void hand_over(struct api_request *req)
{
    assert(req->shard == req->home);
    assert(!req->away);
    assert(req->started);
    assert(!req->answered);
    assert(req->transport);
    req->answered = true;
    req->abandoned = NULL;
    api_charge(req);
    assert(req->failure || req->silent || req->out.n > 0);
    if (req->failure)
        req->transport->failed(req, req->failure);
    else
        req->transport->answered(req);
}

static void come_home(struct loop_msg *msg)
{
    struct api_request *req = LIST_ENTRY(msg, struct api_request, msg);
    assert(req->away);
    assert(req->shard != req->home);
    req->shard = req->home;
    req->away = false;
    hand_over(req);
}

static void answered(struct api_request *req)
{
    if (req->shard == req->home) {
        hand_over(req);
        return;
    }
    assert(req->msg.fn != come_home); /* once */
    req->msg.fn = come_home;
    loop_post(req->home->loop, &req->msg);
}

void api_respond(struct api_request *req, const void *body)
{
    int rc =
        body && !arena_failed(&req->arena)
            ? kp_response_pieces(req->api, req->version, req->correlation_id, body, &req->arena, &req->out)
            : -E_NOMEM;
    assert(rc != -E_INVALID);
    assert(rc != -E_VERSION);
    if (rc)
        req->failure = "the response does not fit in memory";
    answered(req);
}

void api_drop(struct api_request *req)
{
    assert(!req->answered);
    assert(!req->failure);
    req->silent = true;
    answered(req);
}

void api_close(struct api_request *req, const char *why)
{
    assert(why);
    assert(!req->answered);
    assert(!req->failure);
    req->failure = why;
    answered(req);
}

void api_error(struct api_request *req, int16_t code)
{
    const struct kp_message *m = &req->api->response;
    assert(code != KE_NONE);
    assert(!req->answered);
    void *body = arena_alloc(&req->arena, m->body->size_bytes);
    if (!body) {
        api_close(req, "out of memory");
        return;
    }
    kp_init(m, body);
    for (size_t i = 0; i < m->body->fields_n; i++) {
        const struct kp_field *f = &m->body->fields[i];
        if (f->kind != KP_I16 || strcmp(f->name, "error_code") != 0 || req->version < f->since ||
            req->version > f->until)
            continue;
        memcpy((uint8_t *)body + f->at, &code, sizeof code);
        api_respond(req, body);
        return;
    }
    api_close(req, "an error that this response cannot carry");
}

static void arrive(struct loop_msg *msg)
{
    struct api_request *req = LIST_ENTRY(msg, struct api_request, msg);
    assert(req->moved_to);
    assert(!req->answered);
    if (req->shard == req->home)
        req->away = false;
    req->moved_to(req);
}

void api_move(struct api_request *req, struct shard *to, api_handler fn)
{
    assert(to);
    assert(fn);
    assert(!req->abandoned);
    assert(!req->answered);
    if (req->shard == to) {
        fn(req);
        return;
    }
    if (req->shard == req->home)
        req->away = true;
    req->shard = to;
    req->moved_to = fn;
    req->msg.fn = arrive;
    loop_post(to->loop, &req->msg);
}

void api_abandon(struct api_request *req)
{
    assert(!req->gone);
    req->gone = true;
    if (req->away || req->answered || !req->abandoned)
        return;
    void (*abandoned)(struct api_request *) = req->abandoned;
    req->abandoned = NULL;
    abandoned(req);
}

void api_on_release(struct api_request *req, struct api_release *r)
{
    assert(r->fn);
    assert(r != req->releases);
    assert(!req->answered);
    r->next = req->releases;
    req->releases = r;
}
