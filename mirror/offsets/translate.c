#include "mirror/offsets/translate.h"

#include <assert.h>

#include "base/core/mutant.h"

/* No commit: as if at the first record (auto.offset.reset=earliest). */
static int64_t commit_of(const struct translate_commits *c, int32_t partition, bool *found)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->list[i].p == partition) {
            *found = true;
            return c->list[i].offset;
        }
    *found = false;
    return 0;
}

/* One p's share in the answer for q: every record of p at or after `o` lies at or after it. */
static int forward_share(struct map *m, int32_t p, int32_t q, int64_t o, const struct map_lane *lane,
                         int64_t *out)
{
    struct map_run run;
    int rc = map_src_at_or_before(m, p, q, o, &run);
    if (rc < 0)
        return rc;
    if (rc && o < run.src_start + run.count) {
        assert(o >= run.src_start);
        *out = run.dst_start + (o - run.src_start) + (MUTANT("translation_off_by_one") ? 1 : 0);
        return 0;
    }
    struct map_run last = run;
    bool some = rc > 0;
    if ((rc = map_src_after(m, p, q, o, &run)) < 0)
        return rc;
    if (rc)
        *out = run.dst_start; /* in a gap: where the next record went */
    else if (some && MUTANT("exhausted_p_at_last_run"))
        *out = last.dst_start + last.count;
    else if (some && MUTANT("exhausted_p_ignored"))
        *out = INT64_MAX;
    else
        *out = lane->end_offset; /* exhausted: whatever comes lies behind the end sampled with the position */
    return 0;
}

static int back_share(struct map *m, int32_t p, int32_t q, int64_t t, const struct map_lane *lane,
                      int64_t *out)
{
    struct map_run run;
    int rc = map_dst_at_or_before(m, p, q, t, &run);
    if (rc < 0)
        return rc;
    if (rc && t < run.dst_start + run.count) {
        assert(t >= run.dst_start);
        *out = run.src_start + (t - run.dst_start);
        return 0;
    }
    if ((rc = map_dst_after(m, p, q, t, &run)) < 0)
        return rc;
    *out = rc ? run.src_start : lane->source_next;
    return 0;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Records of p → q with a target offset ≥ dst and a source offset < src. */
static int count_forward(struct map *m, int32_t p, int32_t q, int64_t dst, int64_t src, int64_t *count)
{
    struct map_run run;
    int rc = map_dst_at_or_before(m, p, q, dst, &run);
    if (rc == 0)
        rc = map_dst_after(m, p, q, dst, &run);
    while (rc > 0 && run.src_start < src) {
        int64_t from = most(0, dst - run.dst_start), to = least(run.count, src - run.src_start);
        *count += most(0, to - from);
        int64_t at = run.src_start;
        rc = map_src_after(m, p, q, at, &run);
        assert(rc <= 0 || run.src_start > at); /* the walk ends */
    }
    return rc < 0 ? rc : 0;
}

/* Records of p → q with a source offset ≥ src and a target offset < dst. */
static int count_back(struct map *m, int32_t p, int32_t q, int64_t src, int64_t dst, int64_t *count)
{
    struct map_run run;
    int rc = map_src_at_or_before(m, p, q, src, &run);
    if (rc == 0)
        rc = map_src_after(m, p, q, src, &run);
    while (rc > 0 && run.dst_start < dst) {
        int64_t from = most(0, src - run.src_start), to = least(run.count, dst - run.dst_start);
        *count += most(0, to - from);
        int64_t at = run.src_start;
        rc = map_src_after(m, p, q, at, &run);
        assert(rc <= 0 || run.src_start > at); /* the walk ends */
    }
    return rc < 0 ? rc : 0;
}

/* The partitions of the other side that matter for `here`: all of them where keys are hashed, else only its like. */
static void range(struct route_rule rule, int32_t partitions, int32_t here, int32_t *from, int32_t *to)
{
    bool keep = rule.mode == ROUTE_KEEP;
    assert(here >= 0 && partitions >= 0);
    *from = keep ? here : 0;
    *to = keep ? here + 1 : partitions;
}

static void no_map(struct translation *out, int32_t because)
{
    *out = (struct translation){.state = TRANSLATE_NO_MAP, .offset = -1, .because = because};
}

static void join(struct translation *out, int64_t share, bool ahead, int32_t partition, bool first)
{
    if (ahead)
        out->state = TRANSLATE_AHEAD;
    if (first || share < out->offset) {
        out->offset = share;
        out->because = partition;
    }
}

static void clamp(struct translation *t, const struct translate_bounds *b)
{
    if (!b || b->log_start < 0 || b->end < b->log_start)
        return; /* a broker's word: what says nothing bounds nothing */
    t->offset = most(b->log_start, least(b->end, t->offset));
}

/* One direction of one topic: from commits of `there`s to the offset of one `here`. */
struct way {
    struct map *map;
    bool back; /* from the target to the source: `here` is a p, else a q */
    int32_t here;
};

/* What the commit `at` of `there` comes to; 0: there is no map. */
static int share_of(const struct way *w, int32_t there, int64_t at, int64_t *share, int64_t *next)
{
    struct map_lane lane;
    int32_t p = w->back ? w->here : there, q = w->back ? there : w->here;
    int rc = map_lane(w->map, p, q, &lane, next);
    if (rc <= 0)
        return rc;
    assert(lane.q == q);
    rc = w->back ? back_share(w->map, p, q, at, &lane, share) : forward_share(w->map, p, q, at, &lane, share);
    return rc < 0 ? rc : 1;
}

static int count_reread(const struct way *w, const struct translate_commits *commits, int32_t from,
                        int32_t to, struct translation *out)
{
    int rc = 0;
    for (int32_t there = from; there < to && rc == 0; there++) {
        bool committed;
        int64_t at = commit_of(commits, there, &committed);
        if (committed)
            rc = w->back ? count_back(w->map, w->here, there, out->offset, at, &out->reread)
                         : count_forward(w->map, there, w->here, out->offset, at, &out->reread);
    }
    assert(out->reread >= 0);
    return rc;
}

static int translate(const struct way *w, struct route_rule rule, const struct translate_commits *commits,
                     const struct translate_bounds *bounds, struct translation *out)
{
    int32_t from, to;
    range(rule, commits->partitions, w->here, &from, &to);
    *out = (struct translation){.state = TRANSLATE_EXACT, .because = -1};
    bool first = true, any_commit = false;
    for (int32_t there = from; there < to; there++) {
        int64_t next, share;
        bool committed;
        int64_t at = commit_of(commits, there, &committed);
        any_commit |= committed;
        if (!committed && MUTANT("uncommitted_p_left_out"))
            continue;
        int rc = share_of(w, there, at, &share, &next);
        if (rc < 0)
            return rc;
        if (rc == 0) {
            no_map(out, there);
            return 0;
        }
        join(out, share, !w->back && committed && at > next, there, first);
        first = false;
    }
    if (first || !any_commit) {
        no_map(out, from);
        return 0;
    }
    clamp(out, bounds);
    assert(out->offset >= 0 && out->because >= from && out->because < to);
    return count_reread(w, commits, from, to, out);
}

int translate_forward(struct map *m, struct route_rule rule, const struct translate_commits *commits,
                      int32_t q, const struct translate_bounds *bounds, struct translation *out)
{
    return translate(&(struct way){m, false, q}, rule, commits, bounds, out);
}

int translate_back(struct map *m, struct route_rule rule, const struct translate_commits *commits, int32_t p,
                   const struct translate_bounds *bounds, struct translation *out)
{
    return translate(&(struct way){m, true, p}, rule, commits, bounds, out);
}
