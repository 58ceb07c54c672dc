/* Whole batches of the source: passed on as they are where they may be, else taken record by record. */
#include "mirror/target/group.h"

/* Its CRC says that the batch came as it was sent, not that its writer knew what it did. */
static bool in_place(const struct record *r, const struct batch_header *h, int64_t expected)
{
    return r->offset >= expected && r->offset <= batch_last_offset(h) && record_headers_check(r) == 0;
}

static int take_records(struct lane_group *g, int32_t q, const struct batch_header *h, struct slice payload,
                        int64_t *next)
{
    struct lane *l = group_lane(g, q);
    int codec = lane_whole_codec(l, h), rc;
    int64_t expected = h->base_offset;
    struct record_walk w;
    struct record r;
    record_walk_init(&w, h, payload);
    while ((rc = record_next(&w, &r)) == 1) {
        if (!in_place(&r, h, expected))
            return -E_CORRUPT;
        expected = r.offset + 1;
        if (r.offset < *next)
            continue;
        const struct port_record record = {.offset = r.offset,
                                           .timestamp_ms = r.timestamp,
                                           .key = r.key,
                                           .value = r.value,
                                           .headers = r.headers,
                                           .headers_n = r.headers_n};
        group_take_as(g, l, &record, codec);
        *next = expected;
    }
    return rc;
}

static int unpack(struct lane_group *g, int32_t q, const struct batch_header *h, struct slice batch,
                  int64_t *next)
{
    struct codec_limits limits = codec_limits_for(CODEC_BYTES_MAX_DEFAULT);
    struct slice payload;
    int rc = batch_payload(h, batch, &limits, &g->scratch, &payload, NULL);
    if (!rc)
        rc = take_records(g, q, h, payload, next);
    buf_clear(&g->scratch);
    if (g->scratch.cap > GROUP_SCRATCH_KEPT) {
        buf_fini(&g->scratch);
        buf_init(&g->scratch, GROUP_SCRATCH_MAX);
    }
    return rc;
}

int group_take_batch(struct lane_group *g, int32_t q, const struct port_batch *b, int64_t *next)
{
    struct lane *l = group_lane(g, q);
    struct slice batch = b->bytes;
    struct batch_header h;
    if (!l)
        return -E_NOTFOUND;
    if (g->awaiting)
        return 0;
    int rc = batch_header_read(batch, &h, NULL);
    if (rc || batch_size(&h) != batch.n || batch_is(&h, BATCH_CONTROL))
        return rc ? rc : -E_CORRUPT;
    if (h.base_offset < *next || !lane_whole_may_pass(l, &h))
        return unpack(g, q, &h, batch, next);
    group_advance(g, h.base_offset);
    if (batch_last_offset(&h) + 1 > g->expected)
        g->expected = batch_last_offset(&h) + 1;
    lane_take_whole(l, &h, b);
    *next = batch_last_offset(&h) + 1;
    if (lane_state(l) != LANE_APPENDING)
        g->dirty = true;
    return 0;
}
