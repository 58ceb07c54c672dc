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
        rc = map_src_after(m, p, q, run.src_start, &run);
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
        rc = map_src_after(m, p, q, run.src_start, &run);
    }
    return rc < 0 ? rc : 0;
}

/* The partitions of the other side that matter for `here`: all of them where keys are hashed, else only its like. */
static void range(struct route_rule rule, int32_t partitions, int32_t here, int32_t *from, int32_t *to)
{
    bool keep = rule.mode == ROUTE_KEEP;
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
    if (!b)
        return;
    assert(b->log_start >= 0 && b->log_start <= b->end);
    t->offset = most(b->log_start, least(b->end, t->offset));
}

int translate_forward(struct map *m, struct route_rule rule, const struct translate_commits *commits,
                      int32_t q, const struct translate_bounds *bounds, struct translation *out)
{
    int32_t from, to;
    range(rule, commits->partitions, q, &from, &to);
    *out = (struct translation){.state = TRANSLATE_EXACT, .because = -1};
    bool first = true, any_commit = false;
    for (int32_t p = from; p < to; p++) {
        struct map_lane lane;
        int64_t next, share;
        bool committed;
        int64_t o = commit_of(commits, p, &committed);
        any_commit |= committed;
        if (!committed && MUTANT("uncommitted_p_left_out"))
            continue;
        int rc = map_lane(m, p, q, &lane, &next);
        if (rc == 0) {
            no_map(out, p);
            return 0;
        }
        if (rc > 0)
            rc = forward_share(m, p, q, o, &lane, &share);
        if (rc < 0)
            return rc;
        join(out, share, committed && o > next, p, first);
        first = false;
    }
    if (first || !any_commit) {
        no_map(out, from);
        return 0;
    }
    clamp(out, bounds);
    int rc = 0;
    for (int32_t p = from; p < to && rc == 0; p++) {
        bool committed;
        int64_t o = commit_of(commits, p, &committed);
        if (committed)
            rc = count_forward(m, p, q, out->offset, o, &out->reread);
    }
    assert(out->reread >= 0);
    return rc;
}

int translate_back(struct map *m, struct route_rule rule, const struct translate_commits *commits, int32_t p,
                   const struct translate_bounds *bounds, struct translation *out)
{
    int32_t from, to;
    range(rule, commits->partitions, p, &from, &to);
    *out = (struct translation){.state = TRANSLATE_EXACT, .because = -1};
    bool first = true, any_commit = false;
    for (int32_t q = from; q < to; q++) {
        struct map_lane lane;
        int64_t next, share;
        bool committed;
        int64_t t = commit_of(commits, q, &committed);
        any_commit |= committed;
        int rc = map_lane(m, p, q, &lane, &next);
        if (rc == 0) {
            no_map(out, q);
            return 0;
        }
        if (rc > 0)
            rc = back_share(m, p, q, t, &lane, &share);
        if (rc < 0)
            return rc;
        join(out, share, false, q, first);
        first = false;
    }
    if (first || !any_commit) {
        no_map(out, from);
        return 0;
    }
    clamp(out, bounds);
    int rc = 0;
    for (int32_t q = from; q < to && rc == 0; q++) {
        bool committed;
        int64_t t = commit_of(commits, q, &committed);
        if (committed)
            rc = count_back(m, p, q, out->offset, t, &out->reread);
    }
    assert(out->reread >= 0);
    return rc;
}
