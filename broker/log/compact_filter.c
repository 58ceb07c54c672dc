/* One batch under compaction (KIP-534 for tombstones): offsets, epochs, producer fields and the last offset stay what
 * they were, records go. */
#include "broker/log/compact_internal.h"

#include "base/core/bytes.h"

#include <stdlib.h>

int compact_records(const struct log_config *config, const struct batch_header *h, struct slice batch,
                    struct buf *scratch, int (*each)(void *arg, const struct record *r), void *arg)
{
    assert(batch.n == batch_size(h));
    struct slice payload;
    struct record_walk w;
    struct record r;
    size_t most = config->max_message_bytes > 0 ? (size_t)config->max_message_bytes : 0;
    struct codec_limits limits =
        codec_limits_for(most > CODEC_BYTES_MAX_DEFAULT ? most : CODEC_BYTES_MAX_DEFAULT);
    buf_clear(scratch);
    int rc = batch_payload(h, batch, &limits, scratch, &payload, NULL);
    if (rc)
        return rc;
    record_walk_init(&w, h, payload);
    while ((rc = record_next(&w, &r)) > 0)
        if ((rc = each(arg, &r)))
            break;
    return rc;
}

struct filtering {
    struct compact_filter *f;
    const struct batch_header *h;
    struct batch_builder *builder; /* NULL: only counting */
    unsigned kept, tombstones;
};

static bool horizon_passed(const struct filtering *x)
{
    return batch_is(x->h, BATCH_DELETE_HORIZON) && x->h->base_timestamp <= x->f->c->options.wall_ms;
}

static bool stays(const struct filtering *x, const struct record *r)
{
    assert(r->offset >= 0);
    if (slice_is_null(r->key) || r->offset >= x->f->c->map_end)
        return true;
    int64_t newest = key_map_get(x->f->map, r->key);
    if (newest > r->offset)
        return false;
    return !slice_is_null(r->value) || !horizon_passed(x);
}

static int count(void *arg, const struct record *r)
{
    struct filtering *x = arg;
    if (stays(x, r)) {
        x->kept++;
        x->tombstones += slice_is_null(r->value) && !slice_is_null(r->key);
    }
    return 0;
}

static int rebuild(void *arg, const struct record *r)
{
    assert(((struct filtering *)arg)->builder);
    struct filtering *x = arg;
    struct record_new new = {.timestamp = r->timestamp,
                             .key = r->key,
                             .value = r->value,
                             .headers_n = r->headers_n,
                             .headers_encoded = r->headers};
    return stays(x, r) ? batch_add_at(x->builder, r->offset_delta, &new) : 0;
}

void compact_put_empty(const struct batch_header *h, struct buf *out)
{
    assert(h->last_offset_delta >= 0);
    uint8_t raw[BATCH_HEADER_BYTES];
    struct batch_header e = *h;
    e.length = BATCH_HEADER_BYTES - BATCH_PREFIX_BYTES;
    e.attributes = (int16_t)(h->attributes & ~(BATCH_CODEC | BATCH_DELETE_HORIZON));
    e.base_timestamp = BATCH_NO_TIMESTAMP;
    e.records_n = 0;
    batch_header_write(&e, raw);
    be32_put(raw + BATCH_CRC_AT, batch_crc(slice_of(raw, sizeof raw)));
    buf_put(out, raw, sizeof raw);
}

static int by_id(const void *a, const void *b)
{
    const struct compact_keep *x = a, *y = b;
    return (x->producer_id > y->producer_id) - (x->producer_id < y->producer_id);
}

static bool is_producers_last(const struct log_compaction *c, const struct batch_header *h)
{
    struct compact_keep key = {.producer_id = h->producer_id};
    const struct compact_keep *k =
        h->producer_id >= 0 && c->keep_n ? bsearch(&key, c->keep, c->keep_n, sizeof key, by_id) : NULL;
    return k && k->last_offset == batch_last_offset(h);
}

static int put_rebuilt(struct filtering *x, struct slice batch, int64_t horizon, struct buf *out)
{
    assert(x->kept > 0 && x->kept <= (unsigned)x->h->records_n);
    const struct batch_header *h = x->h;
    struct batch_builder builder;
    struct batch_options o = BATCH_OPTIONS;
    o.codec = (enum codec)batch_codec(h);
    o.base_offset = h->base_offset;
    o.leader_epoch = h->leader_epoch;
    o.producer_id = h->producer_id;
    o.producer_epoch = h->producer_epoch;
    o.base_sequence = h->base_sequence;
    o.attributes = h->attributes & ~(BATCH_CODEC | BATCH_DELETE_HORIZON);
    o.delete_horizon = horizon;
    batch_begin(&builder, out, &o);
    x->builder = &builder;
    int rc = compact_records(&x->f->c->config, h, batch, &x->f->scratch, rebuild, x);
    if (rc) {
        batch_drop(&builder);
        return rc;
    }
    batch_last_offset_delta_set(&builder, h->last_offset_delta);
    return batch_close(&builder, NULL);
}

int compact_filter_batch(struct compact_filter *f, const struct batch_header *h, struct slice batch,
                         struct buf *out)
{
    assert(batch.n == batch_size(h));
    struct filtering x = {.f = f, .h = h};
    f->records_before += h->records_n;
    if (batch_is(h, BATCH_CONTROL) || h->base_offset >= f->c->map_end) {
        buf_put(out, batch.p, batch.n);
        f->records_after += h->records_n;
        return out->failed ? -E_NOMEM : 0;
    }
    int rc = compact_records(&f->c->config, h, batch, &f->scratch, count, &x);
    bool opaque = rc == -E_LIMIT; /* not to be looked into: it stays */
    if (rc && !opaque)
        return rc;
    bool has_horizon = batch_is(h, BATCH_DELETE_HORIZON);
    int64_t horizon = has_horizon ? h->base_timestamp : BATCH_NO_TIMESTAMP;
    bool marks = !opaque && x.tombstones > 0 && !has_horizon && batch_last_offset(h) < f->c->map_end;
    if (marks) /* the first round that could have removed them */
        horizon = f->c->options.wall_ms + f->c->config.delete_retention_ms;
    f->records_after += opaque ? h->records_n : (int64_t)x.kept;
    if (!opaque && x.kept == 0) {
        if (is_producers_last(f->c, h))
            compact_put_empty(h, out);
    } else if (opaque || (!marks && x.kept == (unsigned)h->records_n)) {
        buf_put(out, batch.p, batch.n);
    } else {
        return put_rebuilt(&x, batch, horizon, out);
    }
    return out->failed ? -E_NOMEM : 0;
}
