/* Batches to deliveries: checked, control and aborted ones passed over, records before the offset wanted left out. */
#include "mirror/port/client_parts.h"

#include "base/core/grow.h"

#include <stdio.h>
#include <stdlib.h>

void raw_chunk_free(struct raw_part *part, struct raw_chunk *c)
{
    assert(part->ahead_bytes >= c->bytes && part->port->buffered_bytes >= c->bytes);
    part->ahead_bytes -= c->bytes;
    part->port->buffered_bytes -= c->bytes;
    list_remove(&c->link);
    client_frame_unref(c->frame);
    free(c->aborted);
    free(c);
}

/* A marker ends its producer's transaction: what follows is another one. */
static void marker(struct raw_chunk *c, const struct batch_header *h)
{
    for (int32_t i = 0; i < c->aborted_n; i++)
        if (c->aborted[i].producer_id == h->producer_id && c->aborted[i].first_offset <= h->base_offset)
            c->aborted[i].producer_id = BATCH_NO_PRODUCER_ID;
}

static bool is_aborted(const struct raw_chunk *c, const struct batch_header *h)
{
    if (!batch_is(h, BATCH_TRANSACTIONAL))
        return false;
    for (int32_t i = 0; i < c->aborted_n; i++)
        if (c->aborted[i].producer_id == h->producer_id && c->aborted[i].first_offset <= batch_last_offset(h))
            return true;
    return false;
}

static bool add_record(struct raw_delivery *d, size_t n, const struct record *r)
{
    if (!GROW(d->records, n, d->records_cap, RAW_RECORDS_MAX))
        return false;
    d->records[n] = (struct port_record){.offset = r->offset,
                                         .timestamp_ms = r->timestamp,
                                         .key = r->key,
                                         .value = r->value,
                                         .headers = r->headers,
                                         .headers_n = r->headers_n};
    return true;
}

static bool keep(void *frame)
{
    return client_frame_stay(frame);
}

static void let_go(void *frame)
{
    client_frame_unref(frame);
}

static const struct port_memory in_frame = {keep, let_go};

static bool add_batch(struct raw_delivery *d, size_t n, const struct batch_header *h, struct slice batch,
                      const struct raw_part *part, struct client_frame *frame)
{
    int64_t next = part->next;
    if (!GROW(d->batches, n, d->batches_cap, 16))
        return false;
    d->batches[n] = (struct port_batch){.bytes = batch,
                                        .base_offset = h->base_offset,
                                        .last_offset = batch_last_offset(h),
                                        .timestamp_max_ms = h->max_timestamp,
                                        .records_n = h->records_n,
                                        .trim = h->base_offset < next,
                                        .gaps = h->records_n != h->last_offset_delta + 1,
                                        .memory = &in_frame,
                                        .of = frame};
    return true;
}

/* The records of one batch; 0 or -E_…. */
static int add_records(struct raw_part *part, struct raw_delivery *d, const struct batch_header *h,
                       struct slice batch, size_t *n)
{
    struct codec_limits limits = codec_limits_for(CODEC_BYTES_MAX_DEFAULT);
    struct slice payload;
    struct record_walk w;
    struct record r;
    int rc = batch_payload(h, batch, &limits, &d->payload, &payload, NULL);
    if (rc)
        return rc;
    int64_t expected = h->base_offset;
    record_walk_init(&w, h, payload);
    while ((rc = record_next(&w, &r)) == 1) {
        /* Its CRC says that it came as it was sent, not that its writer knew what it did. */
        if (r.offset < expected || r.offset > batch_last_offset(h))
            return -E_CORRUPT;
        expected = r.offset + 1;
        if (r.offset < part->next)
            continue;
        if (record_headers_check(&r))
            return -E_CORRUPT;
        if (!add_record(d, *n, &r))
            return -E_NOMEM;
        ++*n;
    }
    return rc;
}

static void corrupt(struct raw_part *part, int64_t offset, int rc)
{
    char text[128];
    snprintf(text, sizeof text, "the batch at offset %lld cannot be read: %s", (long long)offset,
             err_str(rc));
    raw_stop(part, PORT_FAILED, KE_CORRUPT_MESSAGE, text);
}

bool raw_deliver(struct raw_part *part, struct raw_delivery *d, struct port_delivery *out)
{
    assert(!list_empty(&part->chunks) && part->state != RAW_STOPPED && d->held_bytes == 0 && !d->frame);
    struct raw_chunk *c = LIST_ENTRY(part->chunks.next, struct raw_chunk, link);
    struct batch_header h;
    size_t n = 0, bytes = 0;
    bool whole = part->a.whole_batches, one = false;
    int rc = 0;
    buf_clear(&d->payload);
    int64_t start = part->next;
    while (c->rest.n && n < RAW_RECORDS_MAX && bytes < RAW_BYTES_MAX && !one) {
        if ((rc = batch_read(c->rest, &h, NULL)))
            break;
        struct slice batch = slice_of(c->rest.p, batch_size(&h));
        bool skip = batch_last_offset(&h) < part->next;
        bool control = batch_is(&h, BATCH_CONTROL);
        if (control)
            marker(c, &h);
        skip = skip || control || h.records_n == 0 || (!part->port->read_uncommitted && is_aborted(c, &h));
        one = !skip && !whole && batch_codec(&h) != CODEC_NONE; /* its payload fills the buffer */
        if (one && n)
            break; /* first in the next delivery */
        size_t before = n;
        if (!skip && whole)
            rc = add_batch(d, n++, &h, batch, part, c->frame) ? 0 : -E_NOMEM;
        else if (!skip)
            rc = add_records(part, d, &h, batch, &n);
        if (rc) {
            n = before;
            break;
        }
        bytes += skip ? 0 : batch.n;
        part->next = batch_last_offset(&h) + 1 > part->next ? batch_last_offset(&h) + 1 : part->next;
        part->last_epoch = h.leader_epoch >= 0 ? h.leader_epoch : part->last_epoch;
        c->rest = slice_of(c->rest.p + batch.n, c->rest.n - batch.n);
    }
    if (n) {
        d->frame = client_frame_ref(c->frame);
        d->held_bytes = bytes + d->payload.n;
        part->port->buffered_bytes += d->held_bytes;
    }
    if (c->rest.n == 0)
        raw_chunk_free(part, c);
    else if (rc && !n)
        corrupt(part, part->next, rc);
    *out = (struct port_delivery){.what = whole ? PORT_BATCHES : PORT_RECORDS,
                                  .owner = part->a.owner,
                                  .next_offset = part->next,
                                  .leader_epoch = part->last_epoch,
                                  .records = d->records,
                                  .batches = d->batches,
                                  .n = n,
                                  .size_bytes = bytes + d->payload.n,
                                  .log_start = part->log_start,
                                  .end = part->high_watermark};
    assert(part->next >= start && (part->state == RAW_STOPPED || part->next <= part->fetch_next));
    assert(n == 0 || whole || (d->records[0].offset >= start && d->records[n - 1].offset < part->next));
    return n > 0;
}
