#include "broker/metadata/batches.h"

#include "proto/kafka/batch.h"

#include <assert.h>

int metadata_batch_put(const struct metadata_batch *b, const struct metadata_record *v, size_t n,
                       struct buf *out, struct err *err)
{
    assert(n > 0);
    assert(b->base_offset >= 0);
    assert(b->epoch >= 0);
    if (n > METADATA_BATCH_RECORDS_MAX)
        return err_set(err, -E_LIMIT, "%zu metadata records in one batch, at most %d", n,
                       METADATA_BATCH_RECORDS_MAX);
    struct batch_options o = BATCH_OPTIONS;
    o.base_offset = b->base_offset;
    o.leader_epoch = b->epoch;
    struct batch_builder builder;
    struct buf value;
    buf_init(&value, METADATA_BATCH_BYTES_MAX);
    batch_begin(&builder, out, &o);
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        buf_clear(&value);
        rc = metadata_record_encode(&v[i], &value);
        if (rc == 0)
            rc = batch_add(&builder,
                           &(struct record_new){.timestamp = b->timestamp_ms, .value = buf_slice(&value)});
        if (rc == 0 && batch_bytes(&builder) > METADATA_BATCH_BYTES_MAX)
            rc = -E_LIMIT;
    }
    buf_fini(&value);
    assert(rc || (size_t)builder.h.records_n == n);
    if (rc == 0)
        rc = batch_close(&builder, NULL);
    else
        batch_drop(&builder);
    return rc < 0 ? err_set(err, rc, "a batch of %zu metadata records: %s", n, err_str(rc)) : 0;
}

int metadata_batch_each(struct slice batch, struct arena *arena,
                        int (*each)(void *arg, int64_t offset, const struct metadata_record *r), void *arg,
                        struct err *err)
{
    struct batch_header h;
    int rc = batch_header_read(batch, &h, err);
    if (rc < 0)
        return rc;
    assert(!batch_is(&h, BATCH_CONTROL));
    assert(batch.n == batch_size(&h));
    if (batch_codec(&h) != 0)
        return err_set(err, -E_CORRUPT, "the metadata batch at offset %lld is compressed",
                       (long long)h.base_offset);
    struct record_walk w;
    struct record r;
    record_walk_init(&w, &h, slice_of(batch.p + BATCH_HEADER_BYTES, batch.n - BATCH_HEADER_BYTES));
    while ((rc = record_next(&w, &r)) > 0) {
        struct metadata_record m;
        rc = metadata_record_decode(r.value, arena, &m, err);
        if (rc == 0)
            rc = each(arg, r.offset, &m);
        if (rc < 0) {
            err_wrap(err, "metadata record at offset %lld", (long long)r.offset);
            return rc;
        }
    }
    return rc < 0 ? err_set(err, rc, "the metadata batch at offset %lld is damaged", (long long)h.base_offset)
                  : 0;
}
