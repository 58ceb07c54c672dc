/* Translation of a consumer group's offsets through an offset map (DESIGN.md §4, APPENDER.md rules 22, 23, 25). Pure
 * but for reading the map.
 *
 * What holds: every record the group has not consumed at the one side is at or after the translated offset at the
 * other, and nothing it has consumed is read again unless one of those records lies before it. */
#ifndef SUNDOG_MIRROR_OFFSETS_TRANSLATE_H
#define SUNDOG_MIRROR_OFFSETS_TRANSLATE_H

#include "mirror/offsets/map.h"
#include "mirror/route/partitioner.h"

/* The group's offsets on the side it comes from: the next record it wants, one per partition at most. A partition that
 * is not listed has no commit: the group will begin at its first record. */
struct translate_commits {
    const struct group_commit *list;
    size_t n;
    int32_t partitions; /* of that side's topic: 0 … partitions-1 */
};

enum translate_state {
    TRANSLATE_EXACT,
    TRANSLATE_AHEAD,  /* exact for what has arrived; to be done again when the mirror gets there */
    TRANSLATE_NO_MAP, /* nothing is known: never a number */
};

struct translation {
    enum translate_state state;
    int64_t offset;  /* not for TRANSLATE_NO_MAP */
    int64_t reread;  /* records consumed at the one side that lie at or after `offset` at the other: exact */
    int32_t because; /* the partition that decided: the least offset came from it, or it has no map */
};

/* The log of the side that the group goes to, as it is now: the offset is kept inside. */
struct translate_bounds {
    int64_t log_start, end;
};

/* Source commits → target partition q. `rule` is the topic's routing rule, `bounds` may be NULL. 0 or what the map's
 * reader said (-E_…). */
int translate_forward(struct map *m, struct route_rule rule, const struct translate_commits *commits,
                      int32_t q, const struct translate_bounds *bounds, struct translation *out);
/* Target commits → source partition p (failback). */
int translate_back(struct map *m, struct route_rule rule, const struct translate_commits *commits, int32_t p,
                   const struct translate_bounds *bounds, struct translation *out);

#endif
