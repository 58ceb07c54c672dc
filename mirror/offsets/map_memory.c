#include "mirror/offsets/map_memory.h"

#include "base/core/grow.h"

#include <assert.h>
#include <stdlib.h>

#include "base/core/err.h"
#include "base/core/hash.h"
#include "mirror/offsets/run_merge.h"

struct pair {
    int32_t p, q;
};

struct row {
    struct pair key;
    struct map_run *runs; /* by src_start, and so by dst_start */
    size_t n, cap;
    bool has_lane;
    struct map_lane lane;
    int64_t next_offset;
    UT_hash_handle hh;
};

struct map_memory {
    struct map map;
    struct row *rows;
};

static struct row *row_find(struct map_memory *m, int32_t p, int32_t q)
{
    struct row *r;
    struct pair key = {p, q};
    HASH_FIND(hh, m->rows, &key, sizeof key, r);
    return r;
}

static struct row *row_make(struct map_memory *m, int32_t p, int32_t q)
{
    struct row *r = row_find(m, p, q);
    if (r)
        return r;
    r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->key = (struct pair){p, q};
    HASH_ADD(hh, m->rows, key, sizeof r->key, r);
    if (!HASH_ADDED(r)) {
        free(r);
        return NULL;
    }
    return r;
}

/* How many runs start at or before `at`. */
static size_t upper(const struct row *r, int64_t at, bool by_dst)
{
    size_t lo = 0, hi = r->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int64_t start = by_dst ? r->runs[mid].dst_start : r->runs[mid].src_start;
        if (start <= at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static int find(struct map *map, int32_t p, int32_t q, int64_t at, bool by_dst, bool after,
                struct map_run *out)
{
    const struct row *r = row_find((struct map_memory *)map, p, q);
    if (!r)
        return 0;
    size_t n = upper(r, at, by_dst);
    if (after ? n == r->n : n == 0)
        return 0;
    *out = r->runs[after ? n : n - 1];
    int64_t start = by_dst ? out->dst_start : out->src_start;
    assert(out->q == q && out->count > 0 && (after ? start > at : start <= at));
    return 1;
}

static int src_at_or_before(struct map *m, int32_t p, int32_t q, int64_t src, struct map_run *out)
{
    return find(m, p, q, src, false, false, out);
}

static int src_after(struct map *m, int32_t p, int32_t q, int64_t src, struct map_run *out)
{
    return find(m, p, q, src, false, true, out);
}

static int dst_at_or_before(struct map *m, int32_t p, int32_t q, int64_t dst, struct map_run *out)
{
    return find(m, p, q, dst, true, false, out);
}

static int dst_after(struct map *m, int32_t p, int32_t q, int64_t dst, struct map_run *out)
{
    return find(m, p, q, dst, true, true, out);
}

static int lane(struct map *m, int32_t p, int32_t q, struct map_lane *out, int64_t *next_offset)
{
    const struct row *r = row_find((struct map_memory *)m, p, q);
    if (!r || !r->has_lane)
        return 0;
    *out = r->lane;
    *next_offset = r->next_offset;
    return 1;
}

static const struct map_ops memory_ops = {src_at_or_before, src_after, dst_at_or_before, dst_after, lane};

struct map_memory *map_memory_create(void)
{
    struct map_memory *m = calloc(1, sizeof *m);
    if (m)
        m->map.ops = &memory_ops;
    return m;
}

void map_memory_destroy(struct map_memory *m)
{
    if (!m)
        return;
    struct row *r, *next;
    HASH_ITER (hh, m->rows, r, next) {
        HASH_DEL(m->rows, r);
        free(r->runs);
        free(r);
    }
    free(m);
}

struct map *map_memory_map(struct map_memory *m)
{
    return &m->map;
}

static void take_out(struct row *r, size_t at)
{
    assert(at < r->n);
    memmove(r->runs + at, r->runs + at + 1, (r->n - at - 1) * sizeof *r->runs);
    r->n--;
}

static int put_in(struct row *r, const struct map_run *run)
{
    if (!GROW(r->runs, r->n, r->cap, 8))
        return -E_NOMEM;
    size_t at = upper(r, run->src_start, false);
    memmove(r->runs + at + 1, r->runs + at, (r->n - at) * sizeof *r->runs);
    r->runs[at] = *run;
    r->n++;
    assert(at == 0 || run_src_end(&r->runs[at - 1]) <= run->src_start); /* none overlaps its neighbours */
    assert(at + 1 == r->n || run_src_end(run) <= r->runs[at + 1].src_start);
    return 0;
}

int map_memory_run(struct map_memory *m, int32_t p, const struct map_run *run)
{
    assert(run->count > 0 && run->src_start >= 0 && run->dst_start >= 0);
    assert(run->count <= INT64_MAX - run->src_start && run->count <= INT64_MAX - run->dst_start);
    struct row *r = row_make(m, p, run->q);
    if (!r)
        return -E_NOMEM;
    struct map_run fresh = *run;
    size_t at = upper(r, fresh.src_start, false);
    if (at > 0 && run_joins(&r->runs[at - 1], &fresh)) {
        fresh = run_union(&r->runs[at - 1], &fresh);
        take_out(r, --at);
    } else if (at > 0) {
        run_cut_front(&fresh, &r->runs[at - 1]);
    }
    while (fresh.count && at < r->n && run_joins(&fresh, &r->runs[at])) {
        fresh = run_union(&fresh, &r->runs[at]);
        take_out(r, at);
    }
    if (fresh.count && at < r->n)
        run_cut_back(&fresh, &r->runs[at]);
    return fresh.count ? put_in(r, &fresh) : 0;
}

void map_memory_forget(struct map_memory *m, int32_t p, int64_t src_start)
{
    struct row *r, *next;
    HASH_ITER (hh, m->rows, r, next) {
        size_t at = r->key.p == p ? upper(r, src_start, false) : 0;
        if (at == 0 || r->runs[at - 1].src_start != src_start)
            continue;
        memmove(r->runs + at - 1, r->runs + at, (r->n - at) * sizeof *r->runs);
        r->n--;
    }
}

int map_memory_position(struct map_memory *m, const struct map_position *pos)
{
    struct row *r, *next;
    HASH_ITER (hh, m->rows, r, next) {
        if (r->key.p == pos->p)
            r->has_lane = false;
    }
    for (size_t i = 0; i < pos->lanes_n; i++) {
        r = row_make(m, pos->p, pos->lanes[i].q);
        if (!r)
            return -E_NOMEM;
        assert(r->key.p == pos->p && r->key.q == pos->lanes[i].q);
        r->has_lane = true;
        r->lane = pos->lanes[i];
        r->next_offset = pos->next_offset;
    }
    return 0;
}
