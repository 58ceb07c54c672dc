/* Translation held against a model that knows every record: which source record each target record is. */
#include "mirror/offsets/map_memory.h"
#include "mirror/offsets/run_tail.h"
#include "mirror/offsets/translate.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/core/err.h"
#include "base/core/rng.h"

#define PARTS_MAX   6
#define RECORDS_MAX 4000

/* A source record of a model, and where it went. */
struct record {
    int64_t src;
    int32_t q;
    int64_t dst; /* -1: not yet */
};

struct model {
    struct rng rng;
    struct route_rule rule;
    int32_t n, m;
    struct record records[PARTS_MAX][RECORDS_MAX]; /* per p, in source order */
    int records_n[PARTS_MAX], sent[PARTS_MAX];
    int64_t src_next[PARTS_MAX];   /* where the source would put the next record */
    int64_t dst_next[PARTS_MAX];   /* the end of each q */
    struct map_lane lanes[PARTS_MAX][PARTS_MAX];
    int64_t position[PARTS_MAX];
    struct run_tail tails[PARTS_MAX];
    struct map_memory *map;
};

static struct model *model_create(uint64_t seed, int32_t n, int32_t m)
{
    struct model *w = calloc(1, sizeof *w);
    rng_init(&w->rng, seed);
    w->n = n, w->m = m;
    w->rule = route_rule_for(n, m);
    w->map = map_memory_create();
    for (int32_t p = 0; p < n; p++) {
        run_tail_init(&w->tails[p]);
        w->src_next[p] = (int64_t)rng_below(&w->rng, 3) * 1000;
        for (int32_t q = 0; q < m; q++) {
            cr_assert_eq(run_tail_lane(&w->tails[p], q, NULL), 0);
            w->lanes[p][q] = (struct map_lane){.q = q};
        }
    }
    for (int32_t q = 0; q < m; q++)
        w->dst_next[q] = (int64_t)rng_below(&w->rng, 3) * 500;
    return w;
}

static void model_destroy(struct model *w)
{
    for (int32_t p = 0; p < w->n; p++)
        run_tail_fini(&w->tails[p]);
    map_memory_destroy(w->map);
    free(w);
}

/* The source: records with keys, compaction gaps and markers between them. */
static void produce(struct model *w, int count)
{
    for (int i = 0; i < count; i++) {
        int32_t p = (int32_t)rng_below(&w->rng, (uint64_t)w->n);
        if (w->records_n[p] == RECORDS_MAX)
            continue;
        if (rng_chance(&w->rng, 100000))
            w->src_next[p] += (int64_t)rng_below(&w->rng, 50);
        uint8_t key = (uint8_t)rng_below(&w->rng, 40);
        struct slice k = rng_chance(&w->rng, 200000) ? SLICE_NULL : slice_of(&key, 1);
        w->records[p][w->records_n[p]++] = (struct record){w->src_next[p]++, route_partition(w->rule, p, k), -1};
    }
}

/* The mirror: sends on in source order, strangers write in between; then saves positions, ends and runs. */
static void send_one(struct model *w, int32_t p)
{
    struct record *r = &w->records[p][w->sent[p]];
    if (rng_chance(&w->rng, 30000))
        w->dst_next[r->q] += 1 + (int64_t)rng_below(&w->rng, 5);
    r->dst = w->dst_next[r->q]++;
    cr_assert_eq(run_tail_add(&w->tails[p], &(struct map_run){r->q, r->src, r->dst, 1}), 0);
    w->sent[p]++;
    w->lanes[p][r->q].end_offset = r->dst + 1;
}

static void save_run(void *arg, const struct map_run *r)
{
    struct model *w = ((void **)arg)[0];
    cr_assert_eq(map_memory_run(w->map, *(int32_t *)((void **)arg)[1], r), 0);
}

/* `settle`: idle partitions move their ends to the end as it is (rule 16). */
static void save(struct model *w, bool settle)
{
    for (int32_t p = 0; p < w->n; p++) {
        bool all = w->sent[p] == w->records_n[p];
        int64_t s = all ? w->src_next[p] : w->records[p][w->sent[p]].src;
        w->position[p] = s;
        for (int32_t q = 0; q < w->m; q++) {
            w->lanes[p][q].source_next = s;
            if (settle && all)
                w->lanes[p][q].end_offset = w->dst_next[q];
        }
        struct map_position pos = {.p = p, .next_offset = s, .lanes = w->lanes[p], .lanes_n = (size_t)w->m};
        if (w->rule.mode == ROUTE_KEEP)
            pos.lanes = &w->lanes[p][p], pos.lanes_n = 1;
        cr_assert_eq(map_memory_position(w->map, &pos), 0);
        run_tail_take(&w->tails[p], save_run, (void *[]){w, &p});
    }
}

static void mirror(struct model *w, int count)
{
    for (int i = 0; i < count; i++) {
        int32_t p = (int32_t)rng_below(&w->rng, (uint64_t)w->n);
        if (w->sent[p] < w->records_n[p])
            send_one(w, p);
    }
    save(w, rng_chance(&w->rng, 700000));
}

static void mirror_all(struct model *w)
{
    for (int32_t p = 0; p < w->n; p++)
        while (w->sent[p] < w->records_n[p])
            send_one(w, p);
    save(w, true);
}

static int64_t offset_of(const struct translate_commits *c, int32_t p)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->list[i].p == p)
            return c->list[i].offset;
    return 0;
}

static bool consumed_from(const struct model *w, int32_t p, int32_t q)
{
    return w->rule.mode == ROUTE_HASH || p == q;
}

/* A stale end may lie before records of others that the group has: only exhausted partitions excuse a re-read. */
static bool excused(struct model *w, const struct translate_commits *c, int32_t q, int64_t dst)
{
    for (int32_t p = 0; p < w->n; p++) {
        if (!consumed_from(w, p, q))
            continue;
        bool exhausted = true;
        for (int i = 0; i < w->records_n[p]; i++) {
            const struct record *r = &w->records[p][i];
            if (r->q != q || r->src < offset_of(c, p))
                continue;
            if (r->dst >= 0)
                exhausted = false;
            if (r->dst >= 0 && r->dst < dst)
                return true;
        }
        if (exhausted && w->lanes[p][q].end_offset <= dst)
            return true;
    }
    return false;
}

/* The three promises, for one answer. */
static void check(struct model *w, const struct translate_commits *c, int32_t q, const struct translation *t)
{
    int64_t reread = 0;
    for (int32_t p = 0; p < w->n; p++)
        for (int i = 0; i < w->records_n[p]; i++) {
            const struct record *r = &w->records[p][i];
            if (r->q != q || !consumed_from(w, p, q) || r->dst < 0)
                continue;
            bool consumed = r->src < offset_of(c, p);
            if (!consumed)
                cr_assert(r->dst >= t->offset, "unread record %d:%ld is at %ld, before %ld", p, r->src,
                          r->dst, t->offset);
            else if (r->dst >= t->offset) {
                reread++;
                cr_assert(excused(w, c, q, r->dst), "record %d:%ld at %ld is read again for nothing", p,
                          r->src, r->dst);
            }
        }
    cr_assert_eq(reread, t->reread, "%ld re-read, not %ld", reread, t->reread);
}

static int random_commits(struct model *w, struct group_commit *list, uint32_t left_out)
{
    int n = 0;
    for (int32_t p = 0; p < w->n; p++)
        if (n == 0 || !rng_chance(&w->rng, left_out)) {
            int64_t top = w->src_next[p] + 3;
            list[n++] = (struct group_commit){p, (int64_t)rng_below(&w->rng, (uint64_t)top + 1)};
        }
    return n;
}

/* Translates at `positions` random places; then everything arrives, and no unread record may lie before the answer. */
static unsigned try_forward(uint64_t seed, int32_t n, int32_t m, int positions)
{
    struct model *w = model_create(seed, n, m);
    unsigned tried = 0;
    for (int round = 0; round < 10; round++) {
        produce(w, 150);
        mirror(w, 140);
        for (int i = 0; i < positions / 10; i++) {
            struct group_commit list[PARTS_MAX];
            struct translate_commits c = {list, (size_t)random_commits(w, list, 150000), n};
            int32_t q = (int32_t)rng_below(&w->rng, (uint64_t)m);
            struct translation t;
            cr_assert_eq(translate_forward(map_memory_map(w->map), w->rule, &c, q, NULL, &t), 0);
            if (t.state == TRANSLATE_NO_MAP) {
                cr_assert(w->rule.mode == ROUTE_KEEP && offset_of(&c, q) == 0, "only without a commit");
                continue;
            }
            check(w, &c, q, &t);
            tried++;
            if (i == 0 && round % 3 == 0) {
                mirror_all(w);
                for (int32_t p = 0; p < n; p++)
                    for (int k = 0; k < w->records_n[p]; k++)
                        if (w->records[p][k].q == q && consumed_from(w, p, q) &&
                            w->records[p][k].src >= offset_of(&c, p))
                            cr_assert(w->records[p][k].dst >= t.offset,
                                      "a record that came later lies before the answer");
            }
        }
    }
    model_destroy(w);
    return tried;
}

static void positions_of_equal_counts(unsigned n)
{
    unsigned tried = 0;
    for (uint64_t seed = 1; tried < n; seed++)
        tried += try_forward(seed, 1 + (int32_t)(seed % 3), 1 + (int32_t)(seed % 3), 300);
}

static void positions_of_other_counts(unsigned n)
{
    static const int32_t counts[][2] = {{1, 4}, {4, 1}, {3, 2}, {2, 5}, {6, 3}};
    unsigned tried = 0;
    for (uint64_t seed = 1; tried < n; seed++)
        tried += try_forward(seed, counts[seed % 5][0], counts[seed % 5][1], 300);
}

Test(translate, ten_thousand_positions_of_equal_partition_counts)
{
    positions_of_equal_counts(10000);
}

Test(translate, ten_thousand_positions_of_more_and_fewer_partitions)
{
    positions_of_other_counts(10000);
}

Test(translate, in_one_partition_nothing_is_ever_read_again)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct model *w = model_create(seed, 1, 1);
        produce(w, 500);
        mirror(w, 400);
        for (int64_t o = 0; o < w->src_next[0] + 2; o++) {
            struct group_commit one = {0, o};
            struct translation t;
            cr_assert_eq(translate_forward(map_memory_map(w->map), w->rule,
                                           &(struct translate_commits){&one, 1, 1}, 0, NULL, &t),
                         0);
            cr_assert_eq(t.reread, 0);
            cr_assert_eq(t.state, o > w->position[0] ? TRANSLATE_AHEAD : TRANSLATE_EXACT, "at %ld of %ld", o,
                         w->position[0]);
        }
        model_destroy(w);
    }
}

/* Failback: the group consumed t_q of each q at the target; every record it has not must be at or after the answer. */
static unsigned try_back(uint64_t seed, int32_t n, int32_t m)
{
    struct model *w = model_create(seed, n, m);
    unsigned tried = 0;
    for (int round = 0; round < 10; round++) {
        produce(w, 150);
        mirror(w, 140);
        for (int i = 0; i < 30; i++) {
            struct group_commit list[PARTS_MAX];
            size_t k = 0;
            for (int32_t q = 0; q < m; q++)
                if (k == 0 || !rng_chance(&w->rng, 150000))
                    list[k++] = (struct group_commit){q, (int64_t)rng_below(&w->rng, (uint64_t)w->dst_next[q] + 2)};
            struct translate_commits c = {list, k, m};
            int32_t p = (int32_t)rng_below(&w->rng, (uint64_t)n);
            struct translation t;
            cr_assert_eq(translate_back(map_memory_map(w->map), w->rule, &c, p, NULL, &t), 0);
            if (t.state == TRANSLATE_NO_MAP)
                continue;
            tried++;
            int64_t reread = 0, first_unread = w->position[p];
            for (int j = 0; j < w->records_n[p]; j++) {
                const struct record *r = &w->records[p][j];
                if (r->dst < 0)
                    cr_assert(r->src >= t.offset, "a record that never arrived lies before the answer");
                else if (r->dst >= offset_of(&c, r->q)) {
                    cr_assert(r->src >= t.offset, "an unread record lies before the answer");
                    first_unread = r->src < first_unread ? r->src : first_unread;
                } else if (r->src >= t.offset) {
                    reread++;
                    cr_assert(r->src > first_unread || r->src >= w->position[p], "read again for nothing");
                }
            }
            cr_assert_eq(reread, t.reread);
        }
    }
    model_destroy(w);
    return tried;
}

static void positions_back(unsigned n)
{
    static const int32_t counts[][2] = {{1, 1}, {3, 3}, {1, 4}, {4, 1}, {3, 2}, {2, 5}};
    unsigned tried = 0;
    for (uint64_t seed = 1; tried < n; seed++)
        tried += try_back(seed, counts[seed % 6][0], counts[seed % 6][1]);
}

Test(translate, back_again_ten_thousand_positions)
{
    positions_back(10000);
}

/* SUNDOG_POSITIONS=n of each kind: a longer search; a million takes two minutes. */
Test(translate, positions_of_the_environment, .timeout = 3600)
{
    const char *said = getenv("SUNDOG_POSITIONS");
    unsigned n = 0;
    if (said && sscanf(said, "%u", &n) != 1)
        cr_assert_fail("SUNDOG_POSITIONS=number");
    positions_of_equal_counts(n);
    positions_of_other_counts(n);
    positions_back(n);
}

Test(translate, there_and_back_is_the_same_offset)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct model *w = model_create(seed, 1, 1);
        produce(w, 300);
        mirror_all(w);
        for (int i = 0; i < w->records_n[0]; i++) {
            struct group_commit one = {0, w->records[0][i].src};
            struct translation there, back;
            cr_assert_eq(translate_forward(map_memory_map(w->map), w->rule,
                                           &(struct translate_commits){&one, 1, 1}, 0, NULL, &there),
                         0);
            one.offset = there.offset;
            cr_assert_eq(translate_back(map_memory_map(w->map), w->rule,
                                        &(struct translate_commits){&one, 1, 1}, 0, NULL, &back),
                         0);
            cr_assert_eq(back.offset, w->records[0][i].src);
        }
        model_destroy(w);
    }
}

/* Single facts, with numbers. */
static struct map_memory *two_runs(void)
{
    struct map_memory *m = map_memory_create();
    map_memory_run(m, 0, &(struct map_run){0, 100, 10, 5}); /* 100…104 → 10…14 */
    map_memory_run(m, 0, &(struct map_run){0, 200, 20, 5}); /* 200…204 → 20…24 */
    struct map_lane lane = {.q = 0, .end_offset = 30, .source_next = 300};
    map_memory_position(m, &(struct map_position){.p = 0, .next_offset = 300, .lanes = &lane, .lanes_n = 1});
    return m;
}

static struct translation at(struct map_memory *m, int64_t o, const struct translate_bounds *b)
{
    struct group_commit one = {0, o};
    struct translation t;
    cr_assert_eq(translate_forward(map_memory_map(m), (struct route_rule){ROUTE_KEEP, 0},
                                   &(struct translate_commits){&one, 1, 1}, 0, b, &t),
                 0);
    return t;
}

Test(translate, inside_before_between_and_behind_runs)
{
    struct map_memory *m = two_runs();
    static const int64_t facts[][2] = {{0, 10},   {99, 10},  {100, 10}, {103, 13}, {104, 14}, {105, 20},
                                       {199, 20}, {204, 24}, {205, 30}, {300, 30}, {301, 30}};
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        struct translation t = at(m, facts[i][0], NULL);
        cr_assert_eq(t.offset, facts[i][1], "%ld gives %ld", facts[i][0], t.offset);
        cr_assert_eq(t.state, facts[i][0] > 300 ? TRANSLATE_AHEAD : TRANSLATE_EXACT);
    }
    map_memory_destroy(m);
}

Test(translate, answers_are_kept_inside_the_targets_log)
{
    struct map_memory *m = two_runs();
    struct translate_bounds b = {12, 22};
    cr_assert_eq(at(m, 0, &b).offset, 12);
    cr_assert_eq(at(m, 104, &b).offset, 14);
    cr_assert_eq(at(m, 300, &b).offset, 22);
    static const struct translate_bounds nothing[] = {{-1, 22}, {12, 11}, {-1, -1}};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++)
        cr_assert_eq(at(m, 0, &nothing[i]).offset, 10, "what a broker says that cannot be bounds nothing");
    map_memory_destroy(m);
}

Test(translate, without_a_position_or_a_commit_there_is_no_number)
{
    struct map_memory *m = map_memory_create();
    struct translation t = at(m, 5, NULL);
    cr_assert_eq(t.state, TRANSLATE_NO_MAP);
    map_memory_destroy(m);
    m = two_runs();
    cr_assert_eq(translate_forward(map_memory_map(m), (struct route_rule){ROUTE_KEEP, 0},
                                   &(struct translate_commits){NULL, 0, 1}, 0, NULL, &t),
                 0);
    cr_assert_eq(t.state, TRANSLATE_NO_MAP);
    struct group_commit one = {0, 100};
    cr_assert_eq(translate_forward(map_memory_map(m), (struct route_rule){ROUTE_HASH, 1},
                                   &(struct translate_commits){&one, 1, 2}, 0, NULL, &t),
                 0);
    cr_assert_eq(t.state, TRANSLATE_NO_MAP, "the second partition has no position yet: its records may lie anywhere");
    cr_assert_eq(t.because, 1);
    map_memory_destroy(m);
}

Test(run_tail, acknowledgements_extend_or_open_runs_and_repeats_change_nothing)
{
    struct run_tail t;
    run_tail_init(&t);
    cr_assert_eq(run_tail_lane(&t, 0, NULL), 0);
    cr_assert_eq(run_tail_add(&t, &(struct map_run){0, 10, 0, 5}), 0);
    cr_assert_eq(run_tail_add(&t, &(struct map_run){0, 15, 5, 5}), 0);
    cr_assert_eq(run_tail_add(&t, &(struct map_run){0, 12, 2, 8}), 0);
    cr_assert_eq(run_tail_add(&t, &(struct map_run){0, 18, 8, 4}), 0);
    cr_assert_eq(run_tail_add(&t, &(struct map_run){0, 30, 12, 1}), 0);
    cr_assert_eq(run_tail_add(&t, &(struct map_run){0, 30, 13, 1}), -E_INVALID);
    cr_assert_eq(run_tail_add(&t, &(struct map_run){0, 31, 12, 1}), -E_INVALID);
    cr_assert_eq(run_tail_add(&t, &(struct map_run){0, 20, 10, 2}), 0, "older than the last run: recorded in its time");
    cr_assert_eq(run_tail_add(&t, &(struct map_run){0, 8, 0, 14}), 0);
    struct map_memory *m = map_memory_create();
    struct model fake = {.map = m};
    int32_t p = 0;
    cr_assert(run_tail_changed(&t));
    run_tail_take(&t, save_run, (void *[]){&fake, &p});
    cr_assert(!run_tail_changed(&t));
    struct map_run r;
    cr_assert_eq(map_src_at_or_before(map_memory_map(m), 0, 0, 29, &r), 1);
    cr_assert(r.src_start == 10 && r.dst_start == 0 && r.count == 12);
    cr_assert_eq(map_src_after(map_memory_map(m), 0, 0, 29, &r), 1);
    cr_assert(r.src_start == 30 && r.dst_start == 12 && r.count == 1);
    map_memory_destroy(m);
    run_tail_fini(&t);
}
