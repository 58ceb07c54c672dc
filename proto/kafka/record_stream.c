#include "proto/kafka/record_stream.h"

#include "base/core/varint.h"

#include <assert.h>

/* A number at the front, inside the record: 1, 0 more is needed, -E_CORRUPT. */
static int take_number(struct record_stream *s, struct buf *from, int64_t *out)
{
    bool inside = s->at != RECORD_STREAM_LENGTH;
    size_t max = s->at == RECORD_STREAM_TIMESTAMP ? UVARINT64_MAX_BYTES : UVARINT32_MAX_BYTES;
    size_t room = inside && (int64_t)max > s->left ? (size_t)s->left : max,
           have = from->n < room ? from->n : room;
    int32_t narrow = 0;
    size_t n = max == UVARINT64_MAX_BYTES ? varint64_get(from->p, from->p + have, out)
                                          : varint32_get(from->p, from->p + have, &narrow);
    if (max != UVARINT64_MAX_BYTES)
        *out = narrow;
    if (n == 0)
        return have == room ? -E_CORRUPT : 0;
    buf_drop(from, n);
    if (inside)
        s->left -= (int64_t)n;
    return 1;
}

static void pass(struct record_stream *s, struct buf *from)
{
    size_t n = (uint64_t)s->passing < from->n ? (size_t)s->passing : from->n;
    assert(s->passing <= s->left);
    buf_drop(from, n);
    s->passing -= (int64_t)n;
    s->left -= (int64_t)n;
}

/* A length of bytes that pass; `null` tells whether there are none (-1). */
static int begin_bytes(struct record_stream *s, int64_t n, bool *null)
{
    *null = n == -1;
    if (n < -1 || n > s->left)
        return -E_CORRUPT;
    s->passing = *null ? 0 : n;
    return 0;
}

/* What a number means where the stream is; then it goes on to the next. */
static int step(struct record_stream *s, int64_t v)
{
    bool null;
    int rc = 0;
    switch (s->at) {
    case RECORD_STREAM_LENGTH:
        s->left = v;
        rc = v > 0 ? 0 : -E_CORRUPT;
        break;
    case RECORD_STREAM_TIMESTAMP: s->record.timestamp_delta = v; break;
    case RECORD_STREAM_OFFSET: s->record.offset_delta = (int32_t)v; break;
    case RECORD_STREAM_KEY:
        rc = begin_bytes(s, v, &null);
        s->record.key = null ? SLICE_NULL : slice_of("", 0);
        break;
    case RECORD_STREAM_VALUE: rc = begin_bytes(s, v, &null); break;
    case RECORD_STREAM_HEADERS:
        s->headers_left = (int32_t)v;
        rc = v < 0 || v > s->left / RECORD_HEADER_BYTES_MIN ? -E_CORRUPT : 0;
        break;
    case RECORD_STREAM_HEADER_KEY:
        rc = begin_bytes(s, v, &null);
        rc = rc || null ? -E_CORRUPT : 0;
        break;
    case RECORD_STREAM_HEADER_VALUE:
        rc = begin_bytes(s, v, &null);
        s->headers_left--;
        break;
    case RECORD_STREAM_IDLE:
    case RECORD_STREAM_ATTRIBUTES:
    case RECORD_STREAM_END: assert(false); break;
    }
    if (s->at == RECORD_STREAM_HEADERS || s->at == RECORD_STREAM_HEADER_VALUE)
        s->at = s->headers_left ? RECORD_STREAM_HEADER_KEY : RECORD_STREAM_END;
    else
        s->at = (enum record_stream_at)(s->at + 1);
    return rc;
}

int record_stream_read(struct record_stream *s, struct buf *from)
{
    assert(record_stream_open(s));
    for (;;) {
        int64_t v;
        int rc;
        pass(s, from);
        if (s->passing)
            return 0;
        if (s->at == RECORD_STREAM_END) {
            s->at = RECORD_STREAM_IDLE;
            return s->left == 0 ? 1 : -E_CORRUPT;
        }
        if (from->n == 0)
            return s->left == 0 && s->at != RECORD_STREAM_LENGTH ? -E_CORRUPT : 0;
        if (s->at == RECORD_STREAM_ATTRIBUTES) { /* one byte, none of its bits in use */
            s->passing = 1;
            s->at = RECORD_STREAM_TIMESTAMP;
        } else if ((rc = take_number(s, from, &v)) <= 0 || (rc = step(s, v)) < 0) {
            return rc;
        }
    }
}
