#include "mirror/offsets/run_tail.h"

#include "base/core/grow.h"

#include <assert.h>
#include <stdlib.h>

#include "base/core/err.h"
#include "base/core/mutant.h"

struct run_lane {
    int32_t q;
    struct map_run last; /* count 0: none yet */
    bool changed;
};

void run_tail_init(struct run_tail *t)
{
    *t = (struct run_tail){0};
}

void run_tail_fini(struct run_tail *t)
{
    free(t->lanes);
    free(t->closed);
    *t = (struct run_tail){0};
}

/* Where q is, or would be. */
static size_t lane_index(const struct run_tail *t, int32_t q)
{
    size_t lo = 0, hi = t->lanes_n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (t->lanes[mid].q < q)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct run_lane *lane_find(const struct run_tail *t, int32_t q)
{
    size_t at = lane_index(t, q);
    return at < t->lanes_n && t->lanes[at].q == q ? &t->lanes[at] : NULL;
}

int run_tail_lane(struct run_tail *t, int32_t q, const struct map_run *last)
{
    struct run_lane *lane = lane_find(t, q);
    if (!lane) {
        struct run_lane *grown = realloc(t->lanes, (t->lanes_n + 1) * sizeof *grown);
        if (!grown)
            return -E_NOMEM;
        t->lanes = grown;
        size_t at = lane_index(t, q);
        memmove(grown + at + 1, grown + at, (t->lanes_n - at) * sizeof *grown);
        t->lanes_n++;
        lane = &grown[at];
        *lane = (struct run_lane){.q = q};
        assert((at == 0 || grown[at - 1].q < q) && (at + 1 == t->lanes_n || q < grown[at + 1].q));
    }
    assert(!lane->changed && (!last || (last->q == q && last->count > 0)));
    if (last)
        lane->last = *last;
    return 0;
}

static int close_run(struct run_tail *t, const struct map_run *r)
{
    if (!GROW(t->closed, t->closed_n, t->closed_cap, 16))
        return -E_NOMEM;
    t->closed[t->closed_n++] = *r;
    return 0;
}

static void cut_front(struct map_run *r, int64_t n)
{
    assert(n >= 0 && n <= r->count);
    r->src_start += n;
    r->dst_start += n;
    r->count -= n;
}

/* Takes off the front of `r` what is known: everything before the last run was recorded in its time (runs of a lane
 * come in order, also from a reconciliation that begins at an older position); about the last run the two must
 * agree. */
static int cut_known(const struct map_run *last, struct map_run *r)
{
    if (last->count == 0)
        return 0;
    int64_t before = last->src_start - r->src_start;
    if (before > 0)
        cut_front(r, before < r->count ? before : r->count);
    int64_t inside = last->src_start + last->count - r->src_start;
    if (r->count == 0 || inside <= 0)
        return 0;
    if (r->dst_start - last->dst_start != r->src_start - last->src_start)
        return -E_INVALID;
    cut_front(r, inside < r->count ? inside : r->count);
    return 0;
}

int run_tail_add(struct run_tail *t, const struct map_run *given)
{
    struct map_run r = *given;
    assert(r.count > 0 && r.src_start >= 0 && r.dst_start >= 0);
    struct run_lane *lane = lane_find(t, r.q);
    assert(lane); /* every q that p feeds has been announced */
    struct map_run *last = &lane->last;
    int rc = cut_known(last, &r);
    if (rc || r.count == 0)
        return rc;
    if (last->count && r.dst_start < last->dst_start + last->count)
        return -E_INVALID;
    /* In both logs the lane goes on behind what it has: this is what makes every later translation monotone. */
    assert(!last->count || r.src_start >= last->src_start + last->count);
    assert(!last->count || r.dst_start >= last->dst_start + last->count);
    bool extends = last->count && r.src_start == last->src_start + last->count &&
                   r.dst_start == last->dst_start + last->count;
    if (!extends && lane->changed)
        rc = close_run(t, last);
    if (rc)
        return rc;
    if (extends)
        last->count += r.count;
    else
        *last = r;
    assert(last->q == r.q && last->count > 0 && last->src_start + last->count == r.src_start + r.count &&
           last->dst_start + last->count == r.dst_start + r.count);
    lane->changed = true;
    if (MUTANT("run_extended_before_ack"))
        last->count++;
    return 0;
}

bool run_tail_full(const struct run_tail *t)
{
    return t->closed_n >= RUN_TAIL_MAX;
}

bool run_tail_changed(const struct run_tail *t)
{
    for (size_t i = 0; i < t->lanes_n; i++)
        if (t->lanes[i].changed)
            return true;
    return t->closed_n > 0;
}

void run_tail_take(struct run_tail *t, void (*each)(void *arg, const struct map_run *r), void *arg)
{
    for (size_t i = 0; i < t->closed_n; i++)
        each(arg, &t->closed[i]);
    t->closed_n = 0;
    for (size_t i = 0; i < t->lanes_n; i++) {
        if (t->lanes[i].changed)
            each(arg, &t->lanes[i].last);
        t->lanes[i].changed = false;
    }
    assert(!run_tail_changed(t) && !run_tail_full(t));
}
