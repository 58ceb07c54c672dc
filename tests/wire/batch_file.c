#include "tests/wire/batch_file.h"

#include "base/core/bytes.h"
#include "proto/kafka/batch_validate.h"

#include <stdio.h>

#define ROOM ((size_t)256 << 20)

int batch_entry_next(struct slice *rest, struct batch_entry *out)
{
    if (rest->n == 0)
        return 0;
    size_t n = rest->n < 8 ? 0 : be32_get(rest->p), size = n ? be32_get(rest->p + 4) : 0;
    if (n < 8 || n > rest->n - 4 || size > n - 8)
        return -1;
    out->batch = slice_of(rest->p + 8, size);
    out->listed = slice_of(rest->p + 8 + size, n - 4 - size);
    *rest = slice_of(rest->p + 4 + n, rest->n - 4 - n);
    return 1;
}

/* The lists are ours or Kafka's test's: well formed. */
static uint32_t take32(const uint8_t **p)
{
    uint32_t v = be32_get(*p);
    *p += 4;
    return v;
}

static int64_t take64(const uint8_t **p)
{
    int64_t v = (int64_t)be64_get(*p);
    *p += 8;
    return v;
}

static struct slice take_bytes(const uint8_t **p)
{
    int32_t n = (int32_t)take32(p);
    struct slice s = n < 0 ? SLICE_NULL : slice_of(*p, (size_t)n);
    *p += n < 0 ? 0 : n;
    return s;
}

static const char *same_record(const struct record *r, const uint8_t **p)
{
    struct slice rest = r->headers;
    struct record_header h;
    if (take64(p) != r->offset)
        return "another offset";
    if (take64(p) != r->timestamp)
        return "another timestamp";
    if (!slice_eq(take_bytes(p), r->key))
        return "another key";
    if (!slice_eq(take_bytes(p), r->value))
        return "another value";
    if (take32(p) != (uint32_t)r->headers_n)
        return "another number of headers";
    for (int32_t i = 0; i < r->headers_n; i++) {
        struct slice key, value;
        if (record_header_next(&rest, &h) != 1)
            return "a malformed header";
        key = take_bytes(p);
        value = take_bytes(p);
        if (!slice_eq(key, h.key) || !slice_eq(value, h.value))
            return "another header";
    }
    return NULL;
}

static const char *same_records(const struct batch_header *h, struct slice payload, struct slice listed)
{
    const uint8_t *p = listed.p;
    struct record_walk w;
    struct record r;
    int rc;
    if (take32(&p) != (uint32_t)h->records_n)
        return "another number of records";
    record_walk_init(&w, h, payload);
    while ((rc = record_next(&w, &r)) == 1) {
        const char *why = same_record(&r, &p);
        if (why)
            return why;
    }
    return rc ? "a malformed record" : p == listed.p + listed.n ? NULL : "the list is longer";
}

/* Kafka's builder and ours lay the same records out alike. */
static const char *same_bytes(const struct batch_header *h, struct slice batch, struct slice payload)
{
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    struct record_walk w;
    struct record r;
    struct buf out;
    buf_init(&out, ROOM);
    o.base_offset = h->base_offset;
    o.leader_epoch = h->leader_epoch;
    o.producer_id = h->producer_id;
    o.producer_epoch = h->producer_epoch;
    o.base_sequence = h->base_sequence;
    o.attributes = h->attributes & (BATCH_TRANSACTIONAL | BATCH_CONTROL);
    o.delete_horizon = batch_is(h, BATCH_DELETE_HORIZON) ? h->base_timestamp : BATCH_NO_TIMESTAMP;
    batch_begin(&b, &out, &o);
    record_walk_init(&w, h, payload);
    while (record_next(&w, &r) == 1) {
        struct record_new n = {.timestamp =
                                   (int64_t)((uint64_t)h->base_timestamp + (uint64_t)r.timestamp_delta),
                               .key = r.key,
                               .value = r.value,
                               .headers_n = r.headers_n,
                               .headers_encoded = r.headers};
        batch_add_at(&b, r.offset_delta, &n);
    }
    batch_last_offset_delta_set(&b, h->last_offset_delta);
    const char *why = batch_close(&b, NULL) ? "does not close" : NULL;
    if (!why && batch_is(h, BATCH_LOG_APPEND_TIME))
        batch_log_append_time_set(out.p, out.n, h->max_timestamp);
    else if (!why && h->records_n == 0)
        batch_max_timestamp_set(out.p, out.n, h->max_timestamp);
    if (!why && !slice_eq(buf_slice(&out), batch))
        why = "built again, it has other bytes";
    buf_fini(&out);
    return why;
}

int batch_entry_check(const struct batch_entry *e, char *why, size_t why_size)
{
    struct batch_header h;
    struct err err = {0};
    struct codec_limits limits = codec_limits_for(ROOM);
    struct buf scratch;
    struct slice payload;
    const char *problem = NULL;
    buf_init(&scratch, ROOM + 1);
    int rc = batch_read(e->batch, &h, &err);
    if (!rc && batch_size(&h) != e->batch.n)
        problem = "another length";
    if (!rc)
        rc = batch_payload(&h, e->batch, &limits, &scratch, &payload, &err);
    if (!rc)
        rc = batch_records_check(&h, e->batch, true, &limits, &err);
    if (!rc && !problem)
        problem = same_records(&h, payload, e->listed);
    if (!rc && !problem && batch_codec(&h) == CODEC_NONE)
        problem = same_bytes(&h, e->batch, payload);
    if (rc || problem)
        snprintf(why, why_size, "%s batch of %zu bytes: %s", codec_name(h.attributes & BATCH_CODEC),
                 e->batch.n, problem ? problem : err.text);
    buf_fini(&scratch);
    return rc || problem ? -1 : 0;
}
