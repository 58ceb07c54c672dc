#include "proto/kafka/frame_print.h"

#include "base/core/bytes.h"
#include "proto/kafka/wire_internal.h"

#include <inttypes.h>

#define SIZE_BYTES 4

static int print_body(const struct kp_message *m, int16_t version, struct slice body, struct buf *out,
                      struct err *err)
{
    struct arena arena;
    arena_init(&arena, FRAME_PRINT_ARENA_MAX);
    void *decoded = arena_alloc(&arena, m->body->size_bytes);
    int rc = decoded ? kp_decode(m, version, body, &arena, decoded, NULL, err) : -E_NOMEM;
    if (!rc)
        kp_print(m, version, decoded, out);
    arena_fini(&arena);
    return rc;
}

static int print_request(struct slice frame, struct buf *out, struct err *err)
{
    struct kp_request_header h;
    size_t used;
    int rc = kp_request_header_decode(frame, &h, &used, err);
    if (rc)
        return rc;
    const struct kp_api *api = kp_api_find(h.api_key);
    assert(api && used <= frame.n);
    buf_printf(out, "%s request v%d, correlation id %" PRId32 ", client id ", api->name, h.api_version,
               h.correlation_id);
    kp_print_bytes(h.client_id, out);
    buf_put_u8(out, '\n');
    return print_body(&api->request, h.api_version, slice_of(frame.p + used, frame.n - used), out, err);
}

static int print_response(struct slice frame, const struct frame_answers *a, struct buf *out, struct err *err)
{
    const struct kp_api *api = kp_api_find(a->api_key);
    int32_t correlation_id;
    size_t used;
    if (!api || !kp_has_version(&api->response, a->api_version))
        return err_set(err, -E_VERSION, "no rows for API %d version %d", a->api_key, a->api_version);
    int rc = kp_response_header_decode(api, a->api_version, frame, &correlation_id, &used);
    if (rc)
        return err_set(err, rc, "malformed response header");
    assert(used <= frame.n);
    buf_printf(out, "%s response v%d, correlation id %" PRId32 "\n", api->name, a->api_version,
               correlation_id);
    return print_body(&api->response, a->api_version, slice_of(frame.p + used, frame.n - used), out, err);
}

int frame_print(struct slice frame, const struct frame_answers *answers, struct buf *out, struct err *err)
{
    if (frame.n >= SIZE_BYTES && be32_get(frame.p) == frame.n - SIZE_BYTES)
        frame = slice_of(frame.p + SIZE_BYTES, frame.n - SIZE_BYTES);
    return answers ? print_response(frame, answers, out, err) : print_request(frame, out, err);
}
