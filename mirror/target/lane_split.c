/* A batch that the target refuses as a whole is sent again as two halves, under the same numbers. */
#include "mirror/target/lane.h"

/* One half: records [from, to) of `b`, in a new batch before it. */
static struct lane_batch *half(struct lane *l, struct lane_batch *b, struct record_walk *w, int32_t from,
                               int32_t to)
{
    assert(from < to);
    assert(to <= b->count);
    struct lane_batch *n = lane_batch_take(l->c.budget);
    int rc = n ? lane_batch_begin(l, n, b->number + from, b->codec) : -E_NOMEM;
    for (int32_t i = from; !rc && i < to; i++) {
        struct record r;
        if (record_next(w, &r) != 1) {
            rc = -E_CORRUPT;
            break;
        }
        struct record_new again = {.timestamp = r.timestamp,
                                   .key = r.key,
                                   .value = r.value,
                                   .headers_n = r.headers_n,
                                   .headers_encoded = r.headers};
        rc = lane_batch_add(l, n, &again, lane_batch_src(b, i));
    }
    if (!rc)
        rc = lane_batch_seal(l, n);
    if (rc && n)
        lane_batch_give(l->c.budget, n);
    return rc ? NULL : n;
}

void lane_split(struct lane *l, struct lane_batch *b)
{
    struct codec_limits limits = codec_limits_for(CODEC_BYTES_MAX_DEFAULT);
    struct slice bytes = lane_batch_bytes(b), payload;
    struct batch_header h;
    struct record_walk w;
    struct buf scratch;
    struct lane_batch *first = NULL, *second = NULL;
    assert(b->count > 1);
    assert(l->inflight == 0);
    assert(b->state == LANE_BATCH_ANSWERED);
    buf_init(&scratch, (size_t)INT32_MAX);
    if (batch_header_read(bytes, &h, NULL) == 0 &&
        batch_payload(&h, bytes, &limits, &scratch, &payload, NULL) == 0) {
        record_walk_init(&w, &h, payload);
        first = half(l, b, &w, 0, b->count / 2);
        second = first ? half(l, b, &w, b->count / 2, b->count) : NULL;
    }
    buf_fini(&scratch);
    if (!second) {
        if (first)
            lane_batch_give(l->c.budget, first);
        lane_restart(l, "out of memory");
        return;
    }
    assert(first->count + second->count == b->count);
    assert(first->number == b->number && second->number == b->number + first->count);
    assert(first->src_first == b->src_first);
    assert(second->src_last == b->src_last);
    list_insert(&b->link, &first->link);
    list_insert(&b->link, &second->link);
    l->sealed += 2;
    lane_batch_give(l->c.budget, b);
    lane_unsend(l);
}
