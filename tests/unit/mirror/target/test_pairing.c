/* Pairing: the position by content, never by count; nothing guessed. */
#include "mirror/target/pairing.h"

#include "base/core/buf.h"
#include "base/core/err.h"
#include "base/core/rng.h"

#include <criterion/criterion.h>

/* A record in the source's history: its offset, what it looks like; gone: lost since. */
struct origin {
    int64_t offset;
    uint32_t look;
    bool gone;
};

struct outcome {
    enum pairing_state state;
    int64_t position, orphans;
    struct pairing_run runs[64];
    size_t runs_n;
    char why[256];
};

/* The first `m` of the origins are at the target, at 1000 + index; absent_mask: compacted there. */
static struct outcome pair(const struct origin *o, int n, int m, int64_t start, int64_t end,
                           uint64_t absent_mask)
{
    struct pairing p;
    struct outcome out = {0};
    int t = 0, s = 0;
    int64_t missing = 0, expected = start;
    bool source_ended = false;
    cr_assert_eq(pairing_init(&p, 50, start, false), 0);
    for (int guard = 0; guard < 10000; guard++) {
        if (pairing_state(&p) == PAIRING_WANTS_TARGET) {
            if (t == m) {
                pairing_target_end(&p);
            } else {
                bool present = !(absent_mask >> t & 1);
                cr_assert(
                    pairing_target(&p, 50 + t, 1000 + t, present, (struct pairing_content){7, o[t].look}));
                t++;
            }
        } else if (pairing_state(&p) == PAIRING_WANTS_SOURCE) {
            while (s < n && o[s].gone)
                s++;
            if (s == n) {
                cr_assert_not(source_ended, "it wants more than there is");
                pairing_source_end(&p, missing + (end - expected));
                source_ended = true;
            } else {
                missing += o[s].offset - expected;
                expected = o[s].offset + 1;
                pairing_source(&p, o[s].offset, missing, (struct pairing_content){7, o[s].look});
                s++;
            }
        } else {
            break;
        }
    }
    out.state = pairing_state(&p);
    out.position = p.position;
    out.orphans = p.orphans;
    out.runs_n = p.runs_n;
    memcpy(out.why, p.why, sizeof out.why);
    for (size_t i = 0; i < p.runs_n && i < 64; i++)
        out.runs[i] = p.runs[i];
    cr_assert_neq(out.state, PAIRING_WANTS_TARGET);
    cr_assert_neq(out.state, PAIRING_WANTS_SOURCE);
    pairing_fini(&p);
    return out;
}

Test(pairing, a_contiguous_source_gives_one_run)
{
    struct origin o[] = {{10, 1, 0}, {11, 2, 0}, {12, 3, 0}, {13, 4, 0}};
    struct outcome r = pair(o, 4, 3, 10, 14, 0);
    cr_assert_eq(r.state, PAIRING_DONE);
    cr_assert_eq(r.position, 13);
    cr_assert_eq(r.runs_n, 1);
    cr_assert_eq(r.runs[0].src_start, 10);
    cr_assert_eq(r.runs[0].dst_start, 1000);
    cr_assert_eq(r.runs[0].count, 3);
    cr_assert_eq(r.orphans, 0);
}

Test(pairing, records_that_look_alike_are_told_apart_by_offsets)
{
    struct origin o[] = {{10, 1, 0}, {11, 1, 0}, {12, 1, 0}, {13, 1, 0}};
    struct outcome r = pair(o, 4, 2, 10, 14, 0);
    cr_assert_eq(r.state, PAIRING_DONE);
    cr_assert_eq(r.position, 12, "no offset is missing, so two records are the first two");
}

Test(pairing, a_compacted_source_is_not_counted)
{
    struct origin o[] = {{10, 1, 1}, {11, 2, 1}, {12, 3, 0}, {13, 4, 0}, {14, 5, 0}};
    struct outcome r = pair(o, 5, 3, 10, 15, 0);
    cr_assert_eq(r.state, PAIRING_DONE);
    cr_assert_eq(r.position, 13, "by count it would be 15, and two records would be lost");
    cr_assert_eq(r.orphans, 2);
}

Test(pairing, the_last_of_ours_is_gone_from_the_source)
{
    struct origin o[] = {{10, 1, 0}, {11, 2, 0}, {12, 3, 1}, {13, 4, 0}};
    struct outcome r = pair(o, 4, 3, 10, 14, 0);
    cr_assert_eq(r.state, PAIRING_DONE);
    cr_assert_eq(r.position, 12);
}

Test(pairing, all_of_ours_are_gone_from_the_source)
{
    struct origin o[] = {{10, 1, 1}, {11, 2, 1}, {12, 3, 0}};
    struct outcome r = pair(o, 3, 2, 10, 13, 0);
    cr_assert_eq(r.state, PAIRING_DONE);
    cr_assert_eq(r.position, 10);
    cr_assert_eq(r.runs_n, 0);
}

Test(pairing, alike_in_a_compacted_source_is_uncertain)
{
    struct origin o[] = {{10, 1, 1}, {11, 1, 0}, {12, 1, 0}, {13, 2, 0}};
    struct outcome r = pair(o, 4, 2, 10, 14, 0);
    cr_assert_eq(r.state, PAIRING_UNCERTAIN);
    cr_assert_not_null(strstr(r.why, "look alike"));
}

Test(pairing, a_source_that_lost_its_tail_is_uncertain)
{
    struct origin o[] = {{10, 1, 0}, {11, 2, 0}};
    struct outcome r = pair(o, 2, 2, 10, 11, 0);
    o[1].gone = true;
    r = pair(o, 2, 2, 10, 11, 0);
    cr_assert_eq(r.state, PAIRING_UNCERTAIN, "nothing is missing there: the source was truncated");
}

Test(pairing, a_target_that_was_compacted)
{
    struct origin o[] = {{10, 1, 0}, {11, 2, 0}, {12, 3, 0}, {13, 4, 0}};
    struct outcome r = pair(o, 4, 3, 10, 14, 1 | 2);
    cr_assert_eq(r.state, PAIRING_DONE);
    cr_assert_eq(r.position, 13);
    cr_assert_eq(r.runs_n, 1, "offsets of what was compacted away are known");
    cr_assert_eq(r.runs[0].count, 3);
}

Test(pairing, other_content_at_the_same_place_is_uncertain)
{
    struct origin o[] = {{10, 1, 0}, {11, 9, 0}, {12, 3, 0}};
    struct pairing p;
    cr_assert_eq(pairing_init(&p, 0, 10, false), 0);
    pairing_target(&p, 0, 1000, true, (struct pairing_content){7, 5});
    pairing_target(&p, 1, 1001, true, (struct pairing_content){7, 6});
    pairing_target_end(&p);
    pairing_source(&p, o[0].offset, 0, (struct pairing_content){7, o[0].look});
    cr_assert_eq(pairing_state(&p), PAIRING_UNCERTAIN);
    pairing_fini(&p);
}

Test(pairing, timestamps_count_unless_the_target_stamps)
{
    for (int ignore = 0; ignore < 2; ignore++) {
        struct pairing p;
        cr_assert_eq(pairing_init(&p, 0, 10, ignore), 0);
        pairing_target(&p, 0, 1000, true, (struct pairing_content){8, 5});
        pairing_target_end(&p);
        pairing_source(&p, 10, 0, (struct pairing_content){7, 5});
        cr_assert_eq(pairing_state(&p), ignore ? PAIRING_DONE : PAIRING_UNCERTAIN);
        pairing_fini(&p);
    }
}

/* Ten times the window: the target is read as the source goes on. */
Test(pairing, more_than_the_window)
{
    int64_t m = 3 * PAIRING_WINDOW, given = 0, s = 0;
    struct pairing p;
    cr_assert_eq(pairing_init(&p, 0, 100, false), 0);
    while (pairing_state(&p) != PAIRING_DONE) {
        cr_assert_neq(pairing_state(&p), PAIRING_UNCERTAIN, "%s", p.why);
        while (given < m &&
               pairing_target(&p, given, given, true, (struct pairing_content){1, (uint32_t)given % 3}))
            given++;
        if (given == m && !p.target_ended)
            pairing_target_end(&p);
        for (int i = 0; i < 1000 && pairing_state(&p) == PAIRING_WANTS_SOURCE; i++, s++)
            pairing_source(&p, 100 + s, 0, (struct pairing_content){1, (uint32_t)s % 3});
    }
    cr_assert_eq(p.position, 100 + m);
    cr_assert_eq(p.runs_n, 1);
    pairing_fini(&p);
}

/* A chunk of the target goes on behind the record that shows that nothing fits. */
Test(pairing, records_behind_the_one_that_ended_it_are_passed_over)
{
    struct pairing p;
    int64_t n = 0;
    cr_assert_eq(pairing_init(&p, 0, 100, false), 0);
    for (; n < 4; n++)
        cr_assert(pairing_target(&p, n, n, true, (struct pairing_content){1, 1}));
    pairing_source(&p, 105, 5, (struct pairing_content){1, 2}); /* its mate may lie further on */
    cr_assert_eq(pairing_state(&p), PAIRING_WANTS_TARGET);
    for (; n < 20; n++)
        cr_assert(pairing_target(&p, n, n, true, (struct pairing_content){1, 1}));
    cr_assert_eq(pairing_state(&p), PAIRING_UNCERTAIN);
    pairing_fini(&p);
}

/* Random histories. What comes out, if anything, must be right: no source record that is not at the target lies below
 * the position, unless one just like it is there; none that is at the target lies behind it. */
static void check_random(uint64_t seed, uint32_t looks, int *certain)
{
    struct rng r;
    struct origin o[24];
    rng_init(&r, seed);
    int n = (int)rng_range(&r, 1, 24), m = (int)rng_range(&r, 1, n);
    int64_t at = 100;
    uint32_t loss = (uint32_t)rng_range(&r, 0, 500000), gaps = (uint32_t)rng_range(&r, 0, 300000);
    for (int i = 0; i < n; i++) {
        at += rng_chance(&r, gaps) ? rng_range(&r, 1, 3) : 0;
        o[i] = (struct origin){at++, (uint32_t)rng_below(&r, looks), rng_chance(&r, loss)};
    }
    uint64_t absent = rng_chance(&r, 300000) ? rng_next(&r) & rng_next(&r) : 0;
    struct outcome out = pair(o, n, m, 100, at, absent);
    if (out.state != PAIRING_DONE)
        return;
    ++*certain;
    for (int i = 0; i < n; i++) {
        if (o[i].gone)
            continue;
        bool there = i < m, below = o[i].offset < out.position, alike = false;
        for (int j = 0; j < m; j++)
            alike = alike || o[j].look == o[i].look || (absent >> j & 1);
        cr_assert(!below || there || alike, "seed %llu: source offset %lld would be lost",
                  (unsigned long long)seed, (long long)o[i].offset);
        cr_assert(below || !there || alike, "seed %llu: source offset %lld would be doubled",
                  (unsigned long long)seed, (long long)o[i].offset);
    }
    for (size_t i = 0; i < out.runs_n; i++) {
        for (int64_t k = 0; k < out.runs[i].count; k++) {
            int64_t src = out.runs[i].src_start + k, dst = out.runs[i].dst_start + k - 1000;
            cr_assert_lt(src, out.position);
            cr_assert(dst >= 0 && dst < m);
            bool good = false;
            for (int j = 0; j < n; j++)
                good = good || (o[j].offset == src && (o[j].look == o[dst].look || (absent >> dst & 1)));
            cr_assert(good, "seed %llu: run at %lld pairs what does not look alike", (unsigned long long)seed,
                      (long long)src);
        }
    }
}

Test(pairing, random_histories_never_lose_or_double)
{
    int certain = 0;
    for (uint64_t seed = 1; seed <= 20000; seed++)
        check_random(seed, seed % 2 ? 1000000 : 4, &certain);
    cr_assert_gt(certain, 12000, "only %d of 20000 were decided", certain);
}

/* With all records unlike each other, and the target whole, everything must be decided and exactly so. */
Test(pairing, unlike_records_are_always_decided)
{
    for (uint64_t seed = 1; seed <= 5000; seed++) {
        struct rng r;
        struct origin o[24];
        rng_init(&r, seed);
        int n = (int)rng_range(&r, 2, 24), m = (int)rng_range(&r, 1, n - 1);
        for (int i = 0; i < n; i++)
            o[i] = (struct origin){100 + i, (uint32_t)i, rng_chance(&r, 400000)};
        struct outcome out = pair(o, n, m, 100, 100 + n, 0);
        cr_assert_eq(out.state, PAIRING_DONE, "seed %llu: %s", (unsigned long long)seed, out.why);
        int64_t last = 99;
        for (int i = 0; i < m; i++)
            last = o[i].gone ? last : o[i].offset;
        cr_assert_eq(out.position, last + 1, "seed %llu", (unsigned long long)seed);
    }
}

Test(pairing, prints_tell_null_from_empty_and_where_parts_end)
{
    struct slice a = SLICE_LIT("a"), b = SLICE_LIT("b"), ab = SLICE_LIT("ab"), empty = SLICE_LIT("");
    uint32_t prints[] = {
        pairing_print(SLICE_NULL, ab, SLICE_NULL, 0), pairing_print(empty, ab, SLICE_NULL, 0),
        pairing_print(a, b, SLICE_NULL, 0),           pairing_print(ab, SLICE_NULL, SLICE_NULL, 0),
        pairing_print(ab, empty, SLICE_NULL, 0),      pairing_print(b, a, SLICE_NULL, 0)};
    for (size_t i = 0; i < 6; i++)
        for (size_t j = 0; j < i; j++)
            cr_assert_neq(prints[i], prints[j]);
    /* one header k=v, its length once as one byte and once, needlessly, as two */
    static const uint8_t one[] = {2, 'k', 2, 'v'}, two[] = {0x82, 0, 'k', 2, 'v'};
    cr_assert_eq(pairing_print(a, b, slice_of(one, sizeof one), 1),
                 pairing_print(a, b, slice_of(two, sizeof two), 1));
}
