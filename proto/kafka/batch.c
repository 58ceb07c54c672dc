#include "proto/kafka/batch.h"

#include "base/core/bytes.h"
#include "base/core/crc32c.h"
#include "base/core/varint.h"

#include <assert.h>


int batch_header_read(struct slice in, struct batch_header *out, struct err *err)
{
    *out = (struct batch_header){0};
    if (in.n < BATCH_HEADER_BYTES)
        return err_set(err, -E_TRUNCATED, "a batch header takes %d bytes, there are %zu", BATCH_HEADER_BYTES,
                       in.n);
    const uint8_t *p = in.p;
    if (p[BATCH_MAGIC_AT] != 2)
        return err_set(err, -E_VERSION, "record batch of magic %d", (int8_t)p[BATCH_MAGIC_AT]);
    *out = (struct batch_header){
        .base_offset = (int64_t)be64_get(p),
        .length = (int32_t)be32_get(p + BATCH_LENGTH_AT),
        .leader_epoch = (int32_t)be32_get(p + BATCH_LEADER_EPOCH_AT),
        .crc = be32_get(p + BATCH_CRC_AT),
        .attributes = (int16_t)be16_get(p + BATCH_ATTRIBUTES_AT),
        .last_offset_delta = (int32_t)be32_get(p + 23),
        .base_timestamp = (int64_t)be64_get(p + 27),
        .max_timestamp = (int64_t)be64_get(p + 35),
        .producer_id = (int64_t)be64_get(p + 43),
        .producer_epoch = (int16_t)be16_get(p + 51),
        .base_sequence = (int32_t)be32_get(p + 53),
        .records_n = (int32_t)be32_get(p + 57),
    };
    if (out->length < BATCH_HEADER_BYTES - BATCH_PREFIX_BYTES)
        return err_set(err, -E_CORRUPT, "record batch of length %d", out->length);
    return 0;
}

void batch_header_write(const struct batch_header *h, uint8_t to[BATCH_HEADER_BYTES])
{
    be64_put(to, (uint64_t)h->base_offset);
    be32_put(to + BATCH_LENGTH_AT, (uint32_t)h->length);
    be32_put(to + BATCH_LEADER_EPOCH_AT, (uint32_t)h->leader_epoch);
    to[BATCH_MAGIC_AT] = 2;
    be32_put(to + BATCH_CRC_AT, h->crc);
    be16_put(to + BATCH_ATTRIBUTES_AT, (uint16_t)h->attributes);
    be32_put(to + 23, (uint32_t)h->last_offset_delta);
    be64_put(to + 27, (uint64_t)h->base_timestamp);
    be64_put(to + 35, (uint64_t)h->max_timestamp);
    be64_put(to + 43, (uint64_t)h->producer_id);
    be16_put(to + 51, (uint16_t)h->producer_epoch);
    be32_put(to + 53, (uint32_t)h->base_sequence);
    be32_put(to + 57, (uint32_t)h->records_n);
}

uint32_t batch_crc(struct slice batch)
{
    assert(batch.n >= BATCH_HEADER_BYTES);
    return crc32c(batch.p + BATCH_ATTRIBUTES_AT, batch.n - BATCH_ATTRIBUTES_AT);
}

int batch_read(struct slice in, struct batch_header *out, struct err *err)
{
    int rc = batch_header_read(in, out, err);
    if (rc)
        return rc;
    if (batch_size(out) > in.n)
        return err_set(err, -E_TRUNCATED, "record batch of %zu bytes, %zu are there", batch_size(out), in.n);
    uint32_t crc = batch_crc(slice_of(in.p, batch_size(out)));
    if (crc != out->crc)
        return err_set(err, -E_CORRUPT, "record batch at offset %lld has CRC %08x, computed %08x",
                       (long long)out->base_offset, out->crc, crc);
    if (out->last_offset_delta < 0 || out->records_n < 0)
        return err_set(err, -E_CORRUPT, "record batch at offset %lld: %d records, last delta %d",
                       (long long)out->base_offset, out->records_n, out->last_offset_delta);
    return 0;
}

/* One and two bytes are what records mostly have; the rest goes to varint.h. */
static inline bool get_varint32(const uint8_t **p, const uint8_t *end, int32_t *out)
{
    const uint8_t *at = *p;
    uint32_t v;
    if (end - at >= 2 && !(at[0] & at[1] & 0x80)) {
        bool two = at[0] & 0x80;
        v = (at[0] & 0x7fu) | (two ? (uint32_t)at[1] << 7 : 0);
        *out = (int32_t)((v >> 1) ^ (0u - (v & 1)));
        *p = at + 1 + two;
        return true;
    }
    size_t n = varint32_get(at, end, out);
    *p = at + n;
    return n > 0;
}

static inline bool get_varint64(const uint8_t **p, const uint8_t *end, int64_t *out)
{
    const uint8_t *at = *p;
    int32_t narrow;
    if (end - at >= 2 && !(at[0] & at[1] & 0x80)) {
        bool got = get_varint32(p, end, &narrow);
        *out = narrow;
        return got;
    }
    size_t n = varint64_get(at, end, out);
    *p = at + n;
    return n > 0;
}

/* Length and bytes; -1 is null. */
static inline bool get_bytes(const uint8_t **p, const uint8_t *end, struct slice *out)
{
    int32_t n;
    if (!get_varint32(p, end, &n) || n < -1 || n > end - *p)
        return false;
    *out = n < 0 ? SLICE_NULL : slice_of(*p, (size_t)n);
    *p += n < 0 ? 0 : n;
    return true;
}

/* One record that fills p..end: attributes (none is in use), timestamp delta, offset delta, key, value, headers. */
static inline bool read_body(const uint8_t *p, const uint8_t *end, struct record *out)
{
    if (p == end)
        return false;
    p++;
    if (!get_varint64(&p, end, &out->timestamp_delta) || !get_varint32(&p, end, &out->offset_delta) ||
        !get_bytes(&p, end, &out->key) || !get_bytes(&p, end, &out->value) ||
        !get_varint32(&p, end, &out->headers_n))
        return false;
    if (out->headers_n < 0 || out->headers_n > (end - p) / RECORD_HEADER_BYTES_MIN)
        return false;
    out->headers = slice_of(p, (size_t)(end - p));
    return out->headers_n > 0 || p == end;
}

int record_read(const uint8_t **p, const uint8_t *end, struct record *out)
{
    const uint8_t *at = *p;
    int32_t n;
    assert(at <= end);
    if (!get_varint32(&at, end, &n))
        return end - *p < UVARINT32_MAX_BYTES ? -E_TRUNCATED : -E_CORRUPT;
    if (n < 0)
        return -E_CORRUPT;
    if (n > end - at)
        return -E_TRUNCATED;
    if (!read_body(at, at + n, out))
        return -E_CORRUPT;
    out->raw = slice_of(*p, (size_t)(at + n - *p));
    out->offset = out->offset_delta;
    out->timestamp = out->timestamp_delta;
    *p = at + n;
    return 0;
}

/* Offsets and timestamps of strangers may be anything: sums wrap instead of being undefined. */
static int64_t sum(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

void record_walk_init(struct record_walk *w, const struct batch_header *h, struct slice payload)
{
    *w = (struct record_walk){
        .p = payload.p,
        .end = payload.p + payload.n,
        .base_offset = h->base_offset,
        .base_timestamp = h->base_timestamp,
        .append_timestamp = h->max_timestamp,
        .log_append_time = batch_is(h, BATCH_LOG_APPEND_TIME),
        .left = h->records_n,
    };
}

int record_next(struct record_walk *w, struct record *out)
{
    assert(w->p <= w->end);
    if (w->left <= 0)
        return w->p == w->end && w->left == 0 ? 0 : -E_CORRUPT;
    if (record_read(&w->p, w->end, out))
        return -E_CORRUPT;
    w->left--;
    out->offset = sum(w->base_offset, out->offset_delta);
    out->timestamp = w->log_append_time ? w->append_timestamp : sum(w->base_timestamp, out->timestamp_delta);
    return 1;
}

int record_header_next(struct slice *rest, struct record_header *out)
{
    const uint8_t *p = rest->p, *end = p + rest->n;
    if (p == end)
        return 0;
    if (!get_bytes(&p, end, &out->key) || slice_is_null(out->key) || !get_bytes(&p, end, &out->value))
        return -E_CORRUPT;
    *rest = slice_of(p, (size_t)(end - p));
    return 1;
}

int record_headers_check(const struct record *r)
{
    struct slice rest = r->headers;
    struct record_header h;
    for (int32_t i = 0; i < r->headers_n; i++)
        if (record_header_next(&rest, &h) != 1)
            return -E_CORRUPT;
    return rest.n == 0 ? 0 : -E_CORRUPT;
}

int batch_payload(const struct batch_header *h, struct slice batch, const struct codec_limits *limits,
                  struct buf *scratch, struct slice *payload, struct err *err)
{
    assert(batch.n >= batch_size(h));
    struct slice packed = slice_of(batch.p + BATCH_HEADER_BYTES, batch_size(h) - BATCH_HEADER_BYTES);
    *payload = packed;
    if (batch_codec(h) == CODEC_NONE || (h->records_n == 0 && packed.n == 0))
        return 0;
    if (batch_codec(h) >= CODEC_COUNT)
        return err_set(err, -E_CORRUPT, "record batch with unknown codec %d", batch_codec(h));
    size_t before = scratch->n;
    int rc = codec_decompress((enum codec)batch_codec(h), packed, limits, scratch, err);
    if (!rc)
        *payload = slice_of(scratch->p ? (const void *)(scratch->p + before) : "", scratch->n - before);
    return rc;
}

void batch_offset_set(uint8_t *batch, int64_t base_offset)
{
    be64_put(batch, (uint64_t)base_offset);
}

void batch_leader_epoch_set(uint8_t *batch, int32_t leader_epoch)
{
    be32_put(batch + BATCH_LEADER_EPOCH_AT, (uint32_t)leader_epoch);
}

#define CHECKED_BYTES (BATCH_HEADER_BYTES - BATCH_ATTRIBUTES_AT) /* of the header, under the CRC */

static struct batch_header header_of(const uint8_t *batch, size_t n)
{
    struct batch_header h;
    int rc = batch_header_read(slice_of(batch, n), &h, NULL);
    assert(rc == 0 && batch_size(&h) == n);
    (void)rc;
    return h;
}

/* Puts the header's new bytes in place; the CRC follows from the difference of these 40 and their distance from the
 * end. */
static void rewrite_header(uint8_t *batch, size_t n, struct batch_header *h)
{
    uint8_t header[BATCH_HEADER_BYTES];
    batch_header_write(h, header);
    h->crc = crc32c_replace(h->crc, batch + BATCH_ATTRIBUTES_AT, header + BATCH_ATTRIBUTES_AT, CHECKED_BYTES,
                            n - BATCH_HEADER_BYTES);
    batch_header_write(h, batch);
}

void batch_producer_set(uint8_t *batch, size_t n, const struct batch_patch *patch)
{
    assert((patch->attributes_set & ~BATCH_ATTRIBUTES) == 0);
    struct batch_header h = header_of(batch, n);
    h.producer_id = patch->producer_id;
    h.producer_epoch = patch->producer_epoch;
    h.base_sequence = patch->base_sequence;
    h.attributes = (int16_t)((h.attributes & ~patch->attributes_clear) | patch->attributes_set);
    rewrite_header(batch, n, &h);
}

void batch_log_append_time_set(uint8_t *batch, size_t n, int64_t timestamp)
{
    struct batch_header h = header_of(batch, n);
    h.attributes |= BATCH_LOG_APPEND_TIME;
    h.max_timestamp = timestamp;
    rewrite_header(batch, n, &h);
}

void batch_max_timestamp_set(uint8_t *batch, size_t n, int64_t timestamp)
{
    struct batch_header h = header_of(batch, n);
    h.max_timestamp = timestamp;
    rewrite_header(batch, n, &h);
}
