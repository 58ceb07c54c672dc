/* Frames: size, header (KIP-482), body. Request header v1 or v2, response header v0 or v1. */
#include "proto/kafka/wire_internal.h"

#include "base/core/bytes.h"
#include "base/core/varint.h"

#define SIZE_BYTES 4
/* As in decode.c: nobody sends tagged fields in headers yet. */
#define HEADER_TAGS_MAX 256

/* ApiVersions' response header stays v0: a client must read it before it knows what the broker speaks. */
static bool response_header_flexible(const struct kp_api *api, int16_t version)
{
    return api->key != kp_key_api_versions && kp_is_flexible(&api->response, version);
}

/* Skips a tagged section; 0 when it is malformed. */
static size_t tags_skip(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *at = p;
    uint32_t count, tag, size;
    int64_t before = -1;
    size_t n = uvarint32_get(at, end, &count);
    if (!n || count > HEADER_TAGS_MAX)
        return 0;
    for (at += n; count > 0; count--) {
        if (!(n = uvarint32_get(at, end, &tag)) || (int64_t)tag <= before)
            return 0;
        at += n;
        before = tag;
        if (!(n = uvarint32_get(at, end, &size)) || size > (size_t)(end - at) - n)
            return 0;
        at += n + size;
    }
    assert(at <= end);
    return (size_t)(at - p);
}

int kp_request_header_decode(struct slice frame, struct kp_request_header *out, size_t *used, struct err *err)
{
    *out = (struct kp_request_header){0};
    if (frame.n < 8)
        return err_set(err, -E_TRUNCATED, "request header: %zu bytes", frame.n);
    const uint8_t *p = frame.p, *end = p + frame.n;
    out->api_key = (int16_t)be16_get(p);
    out->api_version = (int16_t)be16_get(p + 2);
    out->correlation_id = (int32_t)be32_get(p + 4);
    const struct kp_api *api = kp_api_find(out->api_key);
    if (!api || !kp_has_version(&api->request, out->api_version))
        return err_set(err, -E_VERSION, "no rows for API %d (%s) version %d", out->api_key,
                       api ? api->name : "unknown", out->api_version);
    p += 8;
    if (end - p < 2)
        return err_set(err, -E_TRUNCATED, "request header: no client id");
    int16_t n = (int16_t)be16_get(p);
    p += 2;
    if (n < -1)
        return err_set(err, -E_INVALID, "request header: client id of %d bytes", n);
    if (n > end - p)
        return err_set(err, -E_TRUNCATED, "request header: client id cut");
    if (n >= 0) {
        out->client_id = slice_of(p, (size_t)n);
        p += n;
    }
    if (kp_is_flexible(&api->request, out->api_version)) {
        size_t tags = tags_skip(p, end);
        if (!tags)
            return err_set(err, -E_INVALID, "request header: malformed tagged fields");
        p += tags;
    }
    assert(p <= end);
    *used = (size_t)(p - frame.p);
    return 0;
}

/* Fills in the size of the frame that begins at `start`, or takes it back on an error. */
static int frame_close(struct buf *out, size_t start, int rc)
{
    if (!rc && out->failed)
        rc = -E_LIMIT;
    assert(rc || out->n >= start + SIZE_BYTES);
    size_t size = out->n - start - SIZE_BYTES;
    if (!rc && size > INT32_MAX)
        rc = -E_LIMIT;
    if (rc)
        out->n = start;
    else
        be32_put(out->p + start, (uint32_t)size);
    return rc;
}

int kp_request_frame(const struct kp_api *api, const struct kp_request_header *h, const void *body,
                     struct buf *out)
{
    assert(h->api_key == api->key);
    if (!kp_has_version(&api->request, h->api_version))
        return -E_VERSION;
    if (h->client_id.n > KP_STR_MAX)
        return -E_INVALID;
    size_t start = out->n;
    buf_put_be32(out, 0);
    buf_put_be16(out, (uint16_t)h->api_key);
    buf_put_be16(out, (uint16_t)h->api_version);
    buf_put_be32(out, (uint32_t)h->correlation_id);
    buf_put_be16(out, slice_is_null(h->client_id) ? UINT16_MAX : (uint16_t)h->client_id.n);
    buf_put(out, h->client_id.p, h->client_id.n);
    if (kp_is_flexible(&api->request, h->api_version))
        buf_put_u8(out, 0);
    if (out->failed) {
        out->n = start;
        return -E_LIMIT;
    }
    return frame_close(out, start, kp_encode(&api->request, h->api_version, body, out));
}

int kp_response_frame(const struct kp_api *api, int16_t version, int32_t correlation_id, const void *body,
                      struct buf *out)
{
    size_t start = out->n;
    buf_put_be32(out, 0);
    buf_put_be32(out, (uint32_t)correlation_id);
    if (response_header_flexible(api, version))
        buf_put_u8(out, 0);
    if (out->failed) {
        out->n = start;
        return -E_LIMIT;
    }
    return frame_close(out, start, kp_encode(&api->response, version, body, out));
}

int kp_response_pieces(const struct kp_api *api, int16_t version, int32_t correlation_id, const void *body,
                       struct arena *arena, struct kp_pieces *out)
{
    bool flexible = response_header_flexible(api, version);
    size_t header = SIZE_BYTES + 4 + (size_t)flexible;
    int rc = kp_encode_pieces(&api->response, version, body, header, arena, out);
    if (rc)
        return rc;
    assert(out->n > 0 && out->v[0].bytes.n >= header && out->size_bytes >= header);
    /* The first piece begins with the room reserved in the arena. */
    uint8_t *p = (uint8_t *)(uintptr_t)out->v[0].bytes.p;
    be32_put(p, (uint32_t)(out->size_bytes - SIZE_BYTES));
    be32_put(p + 4, (uint32_t)correlation_id);
    if (flexible)
        p[8] = 0;
    return 0;
}

int kp_response_header_decode(const struct kp_api *api, int16_t version, struct slice frame,
                              int32_t *correlation_id, size_t *used)
{
    if (frame.n < 4)
        return -E_TRUNCATED;
    *correlation_id = (int32_t)be32_get(frame.p);
    *used = 4;
    if (response_header_flexible(api, version)) {
        size_t tags = tags_skip(frame.p + 4, frame.p + frame.n);
        if (!tags)
            return -E_INVALID;
        *used += tags;
    }
    return 0;
}
