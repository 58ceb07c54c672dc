#include "proto/kafka/batch_validate.h"

#include "proto/kafka/errors.h"
#include "proto/kafka/record_stream.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

/* Walks the records of one batch, all at once or as they come out of a decompressor. */
struct check {
    const struct batch_header *h;
    const struct batch_rules *rules; /* NULL: form only */
    struct batch_verdict *v;         /* NULL with rules */
    bool gaps;
    int32_t seen, delta_last;
    int64_t max_timestamp;
    int32_t max_timestamp_delta;
    struct buf carry;           /* an unfinished record and what follows it */
    struct record_stream large; /* it is too large to be kept */
    const char *why;
};

static void record_error(struct batch_verdict *v, int32_t index, const char *text)
{
    assert(index >= 0 && v->errors_n >= 0);
    if (v->errors_n < BATCH_RECORD_ERRORS_MAX)
        v->errors[v->errors_n++] = (struct batch_record_error){.index = index, .text = text};
}

/* Kafka takes a record without timestamp anywhere; else it may be so far behind and so far ahead. */
static bool timestamp_allowed(const struct batch_rules *rules, int64_t timestamp)
{
    int64_t behind, ahead;
    if (timestamp == BATCH_NO_TIMESTAMP)
        return true;
    if (timestamp <= rules->now_ms)
        return !__builtin_sub_overflow(rules->now_ms, timestamp, &behind) && behind <= rules->before_max_ms;
    return !__builtin_sub_overflow(timestamp, rules->now_ms, &ahead) && ahead <= rules->after_max_ms;
}

static void check_topic_rules(struct check *c, const struct record *r)
{
    const struct batch_rules *rules = c->rules;
    assert(rules && c->v);
    if (rules->needs_keys && slice_is_null(r->key)) {
        record_error(c->v, c->seen, "Compacted topic cannot accept message without key.");
        c->v->kafka_error = KE_INVALID_RECORD;
    } else if (rules->create_time && !timestamp_allowed(rules, r->timestamp)) {
        record_error(c->v, c->seen,
                     "The timestamp lies outside what message.timestamp.before.max.ms and "
                     "message.timestamp.after.max.ms allow.");
        if (c->v->kafka_error == KE_NONE)
            c->v->kafka_error = KE_INVALID_TIMESTAMP;
    }
}

static int malformed(struct check *c, const char *why)
{
    assert(!c->why);
    c->why = why;
    return -E_CORRUPT;
}

static inline int check_record(struct check *c, struct record *r)
{
    if (c->seen == c->h->records_n)
        return malformed(c, "more records than its header says");
    if (c->gaps ? r->offset_delta <= c->delta_last : r->offset_delta != c->delta_last + 1)
        return malformed(c, "offset deltas are not in order");
    if (r->offset_delta > c->h->last_offset_delta)
        return malformed(c, "an offset delta above the last");
    if (r->headers_n && record_headers_check(r))
        return malformed(c, "malformed record headers");
    r->timestamp = batch_is(c->h, BATCH_LOG_APPEND_TIME)
                       ? c->h->max_timestamp
                       : (int64_t)((uint64_t)c->h->base_timestamp + (uint64_t)r->timestamp_delta);
    if (c->max_timestamp_delta < 0 || r->timestamp > c->max_timestamp) {
        c->max_timestamp = r->timestamp;
        c->max_timestamp_delta = r->offset_delta;
    }
    if (c->rules)
        check_topic_rules(c, r);
    c->delta_last = r->offset_delta;
    c->seen++;
    return 0;
}

/* A varint of one to three bytes, all readable; false: it is longer. The lengths are branches, not sums: guessed by the
 * processor, they let it begin the next field and the next record before this one is decoded. */
static inline bool short_varint(const uint8_t **p, int32_t *out)
{
    const uint8_t *at = *p;
    uint32_t v = at[0];
    if (v < 0x80) {
        *p = at + 1;
    } else if (at[1] < 0x80) {
        v = (v & 0x7f) | (uint32_t)at[1] << 7;
        *p = at + 2;
    } else if (at[2] < 0x80) {
        v = (v & 0x7f) | (at[1] & 0x7fu) << 7 | (uint32_t)at[2] << 14;
        *p = at + 3;
    } else {
        return false;
    }
    *out = (int32_t)((v >> 1) ^ (0u - (v & 1)));
    return true;
}

enum { PLAIN_PREFIX_BYTES = 1 + 4 * 3 }; /* attributes; length, timestamp delta, offset delta, key length */

/* Most records are plain: short fields, no headers. false: nothing is known, record_read() decides. */
static inline bool read_plain(const uint8_t **p, const uint8_t *end, struct record *out)
{
    const uint8_t *at = *p, *record_end;
    int32_t n, timestamp_delta, key_n, value_n;
    if (end - at < PLAIN_PREFIX_BYTES || !short_varint(&at, &n) || n < 0 || n > end - at)
        return false;
    record_end = at + n;
    at++;
    if (!short_varint(&at, &timestamp_delta) || !short_varint(&at, &out->offset_delta) ||
        !short_varint(&at, &key_n) || key_n < -1 || key_n > end - at)
        return false;
    out->timestamp_delta = timestamp_delta;
    out->key = key_n < 0 ? SLICE_NULL : slice_of(at, (size_t)key_n);
    at += key_n < 0 ? 0 : key_n;
    if (end - at < 3 || !short_varint(&at, &value_n) || value_n < -1)
        return false;
    if (record_end - at != (value_n < 0 ? 0 : value_n) + 1 || record_end[-1] != 0)
        return false;
    out->headers_n = 0;
    *p = record_end;
    return true;
}

/* All whole records at the front of `in`; `used` gets their bytes. */
static int check_run(struct check *c, struct slice in, size_t *used)
{
    const uint8_t *p = in.p, *end = in.p + in.n;
    struct record r;
    int rc = 0;
    while (p < end && !rc) {
        rc = read_plain(&p, end, &r) ? 0 : record_read(&p, end, &r);
        if (rc == -E_TRUNCATED)
            break;
        rc = rc ? malformed(c, "malformed record") : check_record(c, &r);
    }
    assert(p >= in.p && p <= end);
    *used = (size_t)(p - in.p);
    return rc == -E_TRUNCATED ? 0 : rc;
}

/* What has come of a large record: 1 it has ended, 0 it goes on. */
static int check_large(struct check *c)
{
    int rc = record_stream_read(&c->large, &c->carry);
    if (rc < 0)
        return malformed(c, "malformed record");
    if (rc == 0)
        return 0;
    rc = check_record(c, &c->large.record);
    return rc ? rc : 1;
}

static int check_piece(void *ctx, struct slice piece)
{
    struct check *c = ctx;
    size_t used;
    int rc = 1;
    buf_put(&c->carry, piece.p, piece.n);
    if (c->carry.failed)
        return -E_NOMEM;
    while (rc > 0) {
        if (record_stream_open(&c->large) && (rc = check_large(c)) <= 0)
            return rc;
        rc = check_run(c, buf_slice(&c->carry), &used);
        buf_drop(&c->carry, used);
        if (rc == 0 && c->carry.n > RECORD_STREAM_FROM_BYTES) {
            record_stream_begin(&c->large);
            rc = 1;
        }
    }
    return rc;
}

static int check_records(struct check *c, struct slice batch, const struct codec_limits *limits,
                         struct err *err)
{
    struct slice payload = slice_of(batch.p + BATCH_HEADER_BYTES, batch_size(c->h) - BATCH_HEADER_BYTES);
    size_t left = 0, used;
    int rc = 0;
    assert(batch_codec(c->h) < CODEC_COUNT && c->seen == 0);
    c->delta_last = c->max_timestamp_delta = -1;
    c->max_timestamp = BATCH_NO_TIMESTAMP;
    if (batch_codec(c->h) == CODEC_NONE) {
        rc = check_run(c, payload, &used);
        left = payload.n - used;
    } else if (payload.n > 0 || c->h->records_n > 0) {
        buf_init(&c->carry, limits->bytes_max + 1);
        rc = codec_stream((enum codec)batch_codec(c->h), payload, limits, check_piece, c, err);
        left = c->carry.n + (record_stream_open(&c->large) ? 1 : 0);
        buf_fini(&c->carry);
    }
    if (!rc && left)
        rc = malformed(c, "the last record is cut");
    if (!rc && c->seen != c->h->records_n)
        rc = malformed(c, "fewer records than its header says");
    if (c->why)
        err_set(err, rc, "record %d: %s", c->seen, c->why);
    return rc;
}

int batch_records_check(const struct batch_header *h, struct slice batch, bool gaps,
                        const struct codec_limits *limits, struct err *err)
{
    assert(batch.n >= batch_size(h));
    struct check c = {.h = h, .gaps = gaps};
    if (batch_codec(h) >= CODEC_COUNT)
        return err_set(err, -E_CORRUPT, "unknown codec %d", batch_codec(h));
    return check_records(&c, batch, limits, err);
}

static __attribute__((format(printf, 4, 5))) int refuse(struct batch_verdict *v, int code,
                                                        enum kafka_error error, const char *fmt, ...)
{
    va_list args;
    assert(code < 0 && error != KE_NONE);
    v->kafka_error = (int16_t)error;
    va_start(args, fmt);
    vsnprintf(v->text, sizeof v->text, fmt, args);
    va_end(args);
    return code;
}

/* Length, magic, size, CRC: are the bytes one batch, as it was sent? */
static int validate_frame(struct slice in, const struct batch_rules *rules, struct batch_verdict *v)
{
    struct err err = {0};
    const struct batch_header *h = &v->header;
    if (in.n == 0)
        return refuse(v, -E_INVALID, KE_INVALID_RECORD, "there is no record batch");
    if (in.n > BATCH_MAGIC_AT && in.p[BATCH_MAGIC_AT] < 2)
        return refuse(v, -E_VERSION, KE_INVALID_RECORD,
                      "only record batches with magic 2 are taken, this has %d", in.p[BATCH_MAGIC_AT]);
    if (batch_header_read(in, &v->header, &err))
        return refuse(v, -E_CORRUPT, KE_CORRUPT_MESSAGE, "%.100s", err.text);
    if (batch_size(h) > in.n)
        return refuse(v, -E_CORRUPT, KE_CORRUPT_MESSAGE, "a record batch of %zu bytes in %zu", batch_size(h),
                      in.n);
    if (batch_size(h) < in.n)
        return refuse(v, -E_INVALID, KE_INVALID_RECORD, "more than one record batch");
    if (in.n > rules->size_max)
        return refuse(v, -E_LIMIT, KE_MESSAGE_TOO_LARGE, "record batch of %zu bytes, at most %zu are taken",
                      in.n, rules->size_max);
    assert(batch_size(h) == in.n);
    uint32_t crc = batch_crc(in);
    if (crc != h->crc)
        return refuse(v, -E_CORRUPT, KE_CORRUPT_MESSAGE, "record batch has CRC %08x, computed %08x", h->crc,
                      crc);
    return 0;
}

/* What no writer may say in a header. */
static int validate_header(struct batch_verdict *v)
{
    const struct batch_header *h = &v->header;
    if (batch_codec(h) >= CODEC_COUNT)
        return refuse(v, -E_INVALID, KE_UNSUPPORTED_COMPRESSION_TYPE, "unknown codec %d", batch_codec(h));
    if (h->attributes & ~BATCH_ATTRIBUTES)
        return refuse(v, -E_INVALID, KE_INVALID_RECORD, "unknown attributes %#x",
                      (unsigned)(uint16_t)h->attributes);
    if (h->records_n <= 0 || h->last_offset_delta < 0 || h->last_offset_delta != h->records_n - 1)
        return refuse(v, -E_INVALID, KE_INVALID_RECORD, "%d records, but last offset delta %d", h->records_n,
                      h->last_offset_delta);
    bool sequenced = batch_has_producer(h) && !batch_is(h, BATCH_CONTROL); /* markers have no sequence */
    if (h->producer_id < BATCH_NO_PRODUCER_ID ||
        (sequenced && (h->base_sequence < 0 || h->producer_epoch < 0)))
        return refuse(v, -E_INVALID, KE_INVALID_RECORD, "producer id %lld with epoch %d and sequence %d",
                      (long long)h->producer_id, h->producer_epoch, h->base_sequence);
    if (batch_is(h, BATCH_TRANSACTIONAL) && !batch_has_producer(h))
        return refuse(v, -E_INVALID, KE_INVALID_RECORD, "a transactional batch without producer id");
    return 0;
}

/* What a client may not, but the broker's own writers may. */
static int validate_client(const struct batch_rules *rules, struct batch_verdict *v)
{
    const struct batch_header *h = &v->header;
    if (rules->internal)
        return 0;
    if (h->base_offset != 0)
        return refuse(v, -E_INVALID, KE_INVALID_RECORD, "base offset must be 0, it is %lld",
                      (long long)h->base_offset);
    if (batch_is(h, BATCH_CONTROL))
        return refuse(v, -E_INVALID, KE_INVALID_RECORD, "clients may not write control records");
    if (batch_is(h, BATCH_DELETE_HORIZON))
        return refuse(v, -E_INVALID, KE_INVALID_RECORD, "clients may not set a delete horizon");
    if (batch_is(h, BATCH_LOG_APPEND_TIME))
        return refuse(v, -E_INVALID, KE_INVALID_TIMESTAMP,
                      "producers may not set the timestamp type to LogAppendTime");
    if (batch_codec(h) == CODEC_ZSTD && rules->produce_version < 7)
        return refuse(v, -E_INVALID, KE_UNSUPPORTED_COMPRESSION_TYPE,
                      "zstd needs Produce version 7, this is %d", rules->produce_version);
    return 0;
}

/* All that can be said of timestamps without reading them. */
static int validate_max_timestamp(const struct batch_rules *rules, struct batch_verdict *v)
{
    int64_t max = v->header.max_timestamp;
    if (rules->create_time && max > rules->now_ms && !timestamp_allowed(rules, max))
        return refuse(v, -E_INVALID, KE_INVALID_TIMESTAMP, "max timestamp %lld is too far ahead of %lld",
                      (long long)max, (long long)rules->now_ms);
    return 0;
}

static bool looks_at_records(const struct batch_rules *rules, const struct batch_header *h)
{
    if (batch_codec(h) == CODEC_NONE)
        return rules->depth != BATCH_CHECK_HEADER || rules->needs_keys;
    return rules->depth == BATCH_CHECK_ALL || rules->needs_keys;
}

int batch_validate(struct slice in, const struct batch_rules *rules, struct batch_verdict *v)
{
    struct err err = {0};
    *v = (struct batch_verdict){.max_timestamp_offset_delta = -1};
    int rc = validate_frame(in, rules, v);
    if (!rc)
        rc = validate_header(v);
    if (!rc)
        rc = validate_client(rules, v);
    v->max_timestamp = v->header.max_timestamp;
    if (rc)
        return rc;
    if (!looks_at_records(rules, &v->header))
        return validate_max_timestamp(rules, v);
    struct check c = {.h = &v->header, .rules = rules, .v = v};
    struct codec_limits limits = codec_limits_for(rules->size_max);
    rc = check_records(&c, in, &limits, &err);
    if (rc == -E_NOMEM)
        return refuse(v, rc, KE_KAFKA_STORAGE_ERROR, "%.100s", err.text);
    if (rc)
        return refuse(v, rc, rc == -E_LIMIT ? KE_MESSAGE_TOO_LARGE : KE_INVALID_RECORD, "%.100s", err.text);
    v->max_timestamp = c.max_timestamp;
    v->max_timestamp_offset_delta = c.max_timestamp_delta;
    if (v->errors_n)
        return refuse(v, -E_INVALID, (enum kafka_error)v->kafka_error, "record %d: %s", v->errors[0].index,
                      v->errors[0].text);
    return 0;
}
