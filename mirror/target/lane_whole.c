/* Batches that pass as they lie in the source's log, still compressed: only their header is written anew. What a broker
 * would refuse from a producer, or what is better sent with others, is packed anew record by record instead; both kinds
 * follow each other under the same numbers. */
#include "mirror/target/lane.h"

#include <stdio.h>

/* Smaller ones cost more as requests of their own than as records of one. A compressed one saves its codec's work both
 * ways. */
#define WHOLE_MIN_BYTES        ((size_t)16 * 1024)
#define WHOLE_PACKED_MIN_BYTES ((size_t)4 * 1024)

int lane_whole_codec(const struct lane *l, const struct batch_header *h)
{
    return l->c.codec == CODEC_NONE ? batch_codec(h) : l->c.codec;
}

/* Worth a request of its own; what nothing waits for or goes before is sent at once in any case. */
static bool worth_it(const struct lane *l, const struct batch_header *h)
{
    size_t least = batch_codec(h) == CODEC_NONE ? WHOLE_MIN_BYTES : WHOLE_PACKED_MIN_BYTES;
    least = l->c.whole_min_bytes ? l->c.whole_min_bytes : least;
    return list_empty(&l->batches) || batch_size(h) >= least;
}

bool lane_whole_may_pass(const struct lane *l, const struct batch_header *h)
{
    bool contiguous = h->records_n > 0 && h->records_n == h->last_offset_delta + 1;
    bool own_times = !batch_is(h, BATCH_LOG_APPEND_TIME);
    bool takes_it = l->limit_bytes == 0 || batch_size(h) <= l->limit_bytes;
    return lane_keeps(l) && contiguous && own_times && takes_it && !batch_is(h, BATCH_CONTROL) &&
           h->base_offset >= l->taken_next && lane_whole_codec(l, h) == batch_codec(h) && worth_it(l, h);
}

static int pass(struct lane *l, const struct batch_header *h, const struct port_batch *whole)
{
    int rc = lane_seal_open(l);
    struct lane_batch *b = rc ? NULL : lane_batch_take(l->c.budget);
    if (!b)
        return rc ? rc : -E_NOMEM;
    if ((rc = lane_batch_pass(l, b, l->number_built, h, whole))) {
        lane_batch_give(l->c.budget, b);
        return rc;
    }
    assert(b->state == LANE_BATCH_SEALED);
    assert(b->src_first >= l->taken_next);
    list_push(&l->batches, &b->link);
    l->sealed++;
    lane_numbered(l, b->count);
    l->taken_next = b->src_last + 1;
    return 0;
}

void lane_take_whole(struct lane *l, const struct batch_header *h, const struct port_batch *whole)
{
    assert(lane_whole_may_pass(l, h));
    if (pass(l, h, whole))
        lane_restart(l, "out of memory");
}
