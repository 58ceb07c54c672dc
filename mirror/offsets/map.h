/* Reading an offset map, wherever it lies: in the store (store_map) or in memory (map_memory.h). One map is that of one
 * source topic. Runs of one (p, q) rise in src_start and in dst_start alike, and do not overlap.
 *
 * Lookups give 1 (found), 0 (there is none) or -E_…. */
#ifndef SUNDOG_MIRROR_OFFSETS_MAP_H
#define SUNDOG_MIRROR_OFFSETS_MAP_H

#include "mirror/offsets/types.h"

struct map;

struct map_ops {
    int (*src_at_or_before)(struct map *m, int32_t p, int32_t q, int64_t src, struct map_run *out);
    int (*src_after)(struct map *m, int32_t p, int32_t q, int64_t src, struct map_run *out);
    int (*dst_at_or_before)(struct map *m, int32_t p, int32_t q, int64_t dst, struct map_run *out);
    int (*dst_after)(struct map *m, int32_t p, int32_t q, int64_t dst, struct map_run *out);
    int (*lane)(struct map *m, int32_t p, int32_t q, struct map_lane *out, int64_t *next_offset);
};

struct map {
    const struct map_ops *ops;
};

/* The last run of p → q that starts at or before `src`; the first that starts after it; the same by target offset. */
static inline int map_src_at_or_before(struct map *m, int32_t p, int32_t q, int64_t src, struct map_run *out)
{
    return m->ops->src_at_or_before(m, p, q, src, out);
}

static inline int map_src_after(struct map *m, int32_t p, int32_t q, int64_t src, struct map_run *out)
{
    return m->ops->src_after(m, p, q, src, out);
}

static inline int map_dst_at_or_before(struct map *m, int32_t p, int32_t q, int64_t dst, struct map_run *out)
{
    return m->ops->dst_at_or_before(m, p, q, dst, out);
}

static inline int map_dst_after(struct map *m, int32_t p, int32_t q, int64_t dst, struct map_run *out)
{
    return m->ops->dst_after(m, p, q, dst, out);
}

/* The lane p → q of p's position, and p's own next_offset (S); 0 when p has no position or no such lane. */
static inline int map_lane(struct map *m, int32_t p, int32_t q, struct map_lane *out, int64_t *next_offset)
{
    return m->ops->lane(m, p, q, out, next_offset);
}

#endif
