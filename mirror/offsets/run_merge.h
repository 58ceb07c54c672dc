/* Putting runs together that were written apart: two daemons on one flow cut the same records into different runs.
 * Pure. */
#ifndef SUNDOG_MIRROR_OFFSETS_RUN_MERGE_H
#define SUNDOG_MIRROR_OFFSETS_RUN_MERGE_H

#include <assert.h>

#include "mirror/offsets/types.h"

static inline int64_t run_src_end(const struct map_run *r)
{
    return r->src_start + r->count;
}

/* Both say the same of where records went, and touch or overlap. */
static inline bool run_joins(const struct map_run *a, const struct map_run *b)
{
    return a->dst_start - a->src_start == b->dst_start - b->src_start && a->src_start <= run_src_end(b) &&
           b->src_start <= run_src_end(a);
}

static inline struct map_run run_union(const struct map_run *a, const struct map_run *b)
{
    assert(a->q == b->q && run_joins(a, b));
    const struct map_run *first = a->src_start <= b->src_start ? a : b;
    int64_t end = run_src_end(a) > run_src_end(b) ? run_src_end(a) : run_src_end(b);
    return (struct map_run){first->q, first->src_start, first->dst_start, end - first->src_start};
}

/* What `fresh` says beyond `before`, which starts at or before it and contradicts it where they overlap: the older
 * word stands. */
static inline void run_cut_front(struct map_run *fresh, const struct map_run *before)
{
    int64_t n = run_src_end(before) - fresh->src_start;
    if (n <= 0)
        return;
    n = n < fresh->count ? n : fresh->count;
    fresh->src_start += n;
    fresh->dst_start += n;
    fresh->count -= n;
    assert(fresh->count >= 0);
}

/* The same at the other end, `behind` starting after it. */
static inline void run_cut_back(struct map_run *fresh, const struct map_run *behind)
{
    assert(fresh->src_start <= behind->src_start);
    if (run_src_end(fresh) > behind->src_start)
        fresh->count = behind->src_start - fresh->src_start;
}

#endif
