/* Building batches at the end of a buffer: room for the header first, records behind it, compression at the close. */
#include "proto/kafka/batch.h"

#include "base/core/bytes.h"
#include "base/core/crc32c.h"
#include "base/core/varint.h"

#include <assert.h>

void batch_begin(struct batch_builder *b, struct buf *out, const struct batch_options *o)
{
    assert((o->attributes & (BATCH_CODEC | BATCH_DELETE_HORIZON)) == 0 && o->codec < CODEC_COUNT);
    bool horizon = o->delete_horizon != BATCH_NO_TIMESTAMP;
    *b = (struct batch_builder){
        .out = out,
        .start = out->n,
        .codec = o->codec,
        .level = o->level,
        .timestamps = horizon,
        .h = {.base_offset = o->base_offset,
              .leader_epoch = o->leader_epoch,
              .attributes = (int16_t)(o->attributes | (horizon ? BATCH_DELETE_HORIZON : 0)),
              .base_timestamp = o->delete_horizon,
              .max_timestamp = BATCH_NO_TIMESTAMP,
              .last_offset_delta = -1,
              .producer_id = o->producer_id,
              .producer_epoch = o->producer_epoch,
              .base_sequence = o->base_sequence},
    };
    if (buf_room(out, BATCH_HEADER_BYTES))
        buf_added(out, BATCH_HEADER_BYTES);
    else
        b->failed = -E_LIMIT;
}

static size_t bytes_size(struct slice s)
{
    return slice_is_null(s) ? varint_size(-1) : varint_size((int64_t)s.n) + s.n;
}

static size_t headers_size(const struct record_new *r)
{
    if (!r->headers)
        return r->headers_encoded.n;
    size_t n = 0;
    for (int32_t i = 0; i < r->headers_n; i++)
        n += bytes_size(r->headers[i].key) + bytes_size(r->headers[i].value);
    return n;
}

static size_t body_size(const struct record_new *r, int64_t timestamp_delta, int32_t offset_delta)
{
    return 1 + varint_size(timestamp_delta) + varint_size(offset_delta) + bytes_size(r->key) +
           bytes_size(r->value) + varint_size(r->headers_n) + headers_size(r);
}

size_t batch_record_bound(const struct record_new *r)
{
    return UVARINT32_MAX_BYTES + UVARINT64_MAX_BYTES + UVARINT32_MAX_BYTES + body_size(r, 0, 0);
}

static uint8_t *put_bytes(uint8_t *p, struct slice s)
{
    p += varint_put(p, slice_is_null(s) ? -1 : (int64_t)s.n);
    if (s.n)
        memcpy(p, s.p, s.n);
    return p + s.n;
}

static uint8_t *put_headers(uint8_t *p, const struct record_new *r)
{
    p += varint_put(p, r->headers_n);
    if (!r->headers) {
        if (r->headers_encoded.n)
            memcpy(p, r->headers_encoded.p, r->headers_encoded.n);
        return p + r->headers_encoded.n;
    }
    for (int32_t i = 0; i < r->headers_n; i++) {
        p = put_bytes(p, r->headers[i].key);
        p = put_bytes(p, r->headers[i].value);
    }
    return p;
}

static bool legal(const struct record_new *r)
{
    for (int32_t i = 0; r->headers && i < r->headers_n; i++)
        if (slice_is_null(r->headers[i].key))
            return false;
    return r->headers_n >= 0 && (r->headers || r->headers_n == 0 || r->headers_encoded.n > 0);
}

/* Records' timestamps are deltas to the batch's base: the first record's, or the delete horizon. */
static int64_t take_timestamp(struct batch_builder *b, int64_t timestamp)
{
    if (!b->timestamps) {
        b->h.base_timestamp = timestamp;
        b->timestamps = true;
    }
    if (timestamp > b->h.max_timestamp)
        b->h.max_timestamp = timestamp;
    return (int64_t)((uint64_t)timestamp - (uint64_t)b->h.base_timestamp);
}

int batch_add_at(struct batch_builder *b, int32_t offset_delta, const struct record_new *r)
{
    assert(offset_delta > b->h.last_offset_delta || b->failed);
    if (b->failed)
        return b->failed;
    if (!legal(r))
        return -E_INVALID;
    if (batch_record_bound(r) > (size_t)INT32_MAX - batch_bytes(b) || b->h.records_n == INT32_MAX)
        return -E_LIMIT;
    struct batch_header before = b->h;
    bool timestamps = b->timestamps;
    int64_t timestamp_delta = take_timestamp(b, r->timestamp);
    size_t body = body_size(r, timestamp_delta, offset_delta), size = varint_size((int64_t)body) + body;
    uint8_t *p = b->out->failed ? NULL : buf_room(b->out, size), *end = p + size;
    if (!p) {
        b->out->failed = false; /* the batch so far is whole: the caller may close it and begin another */
        b->h = before;
        b->timestamps = timestamps;
        return -E_LIMIT;
    }
    p += varint_put(p, (int64_t)body);
    *p++ = 0;
    p += varint_put(p, timestamp_delta);
    p += varint_put(p, offset_delta);
    p = put_bytes(p, r->key);
    p = put_bytes(p, r->value);
    p = put_headers(p, r);
    assert(p == end);
    (void)end;
    buf_added(b->out, size);
    b->h.last_offset_delta = offset_delta;
    b->h.records_n++;
    return 0;
}

int batch_add(struct batch_builder *b, const struct record_new *r)
{
    if (b->h.last_offset_delta == INT32_MAX)
        return -E_LIMIT;
    return batch_add_at(b, b->h.last_offset_delta + 1, r);
}

void batch_last_offset_delta_set(struct batch_builder *b, int32_t delta)
{
    assert(delta >= b->h.last_offset_delta);
    b->h.last_offset_delta = delta;
}

size_t batch_bytes(const struct batch_builder *b)
{
    return b->out->n - b->start;
}

/* Puts the compressed records in the place of the plain ones. */
static int pack(struct batch_builder *b)
{
    struct buf *out = b->out, packed;
    size_t records_at = b->start + BATCH_HEADER_BYTES;
    buf_init(&packed, INT32_MAX);
    int rc = codec_compress(b->codec, b->level, slice_of(out->p + records_at, out->n - records_at), &packed);
    if (!rc) {
        out->n = records_at;
        buf_put(out, packed.p, packed.n);
        if (out->failed)
            rc = -E_LIMIT;
        b->h.attributes = (int16_t)(b->h.attributes | (int)b->codec);
    }
    buf_fini(&packed);
    return rc;
}

int batch_close(struct batch_builder *b, struct batch_header *h)
{
    int rc = b->failed ? b->failed : b->out->failed ? -E_LIMIT : 0;
    if (!rc && b->codec != CODEC_NONE && b->h.records_n > 0)
        rc = pack(b);
    if (!rc && batch_bytes(b) > INT32_MAX)
        rc = -E_LIMIT;
    if (rc) {
        batch_drop(b);
        return rc;
    }
    if (b->h.last_offset_delta < 0)
        b->h.last_offset_delta = 0; /* an empty batch still has one offset */
    uint8_t *batch = b->out->p + b->start;
    size_t n = batch_bytes(b);
    b->h.length = (int32_t)(n - BATCH_PREFIX_BYTES);
    batch_header_write(&b->h, batch);
    b->h.crc = batch_crc(slice_of(batch, n));
    be32_put(batch + BATCH_CRC_AT, b->h.crc);
    if (h)
        *h = b->h;
    return 0;
}

void batch_drop(struct batch_builder *b)
{
    assert(b->out->n >= b->start);
    b->out->n = b->start;
}
