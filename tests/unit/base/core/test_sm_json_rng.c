#include "base/core/hash.h"
#include "base/core/jsonw.h"
#include "base/core/rng.h"
#include "base/core/sm.h"
#include "base/core/utf8.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>

enum { IDLE, BUSY, DONE };
static const struct sm_state states[] = {
    [IDLE] = {"idle", SM_TO(BUSY) | SM_TO(DONE)},
    [BUSY] = {"busy", SM_TO(IDLE)},
    [DONE] = {"done", SM_END},
};

static bool holds(const void *owner, unsigned state)
{
    return state != DONE || *(const int *)owner == 0;
}

static const struct sm_table table = SM_TABLE("demo", states, holds);

Test(sm, moves_as_declared)
{
    int owner = 0;
    struct sm m;
    sm_init(&m, &table, &owner, IDLE);
    cr_expect(sm_may(&m, BUSY));
    sm_move(&m, BUSY);
    cr_expect_str_eq(sm_name(&m), "busy");
    cr_expect_not(sm_may(&m, DONE));
    cr_expect_not(sm_may(&m, 99));
    sm_move(&m, IDLE);
    sm_move(&m, DONE);
    cr_expect_eq(sm_state(&m), DONE);
    cr_expect(sm_lint(&table));
    static const struct sm_state lost[] = {{"a", SM_END}, {"never reached", SM_TO(0)}};
    static const struct sm_table bad = SM_TABLE("bad", lost, NULL);
    cr_expect_not(sm_lint(&bad));
}

Test(sm, refuses_other_moves, .signal = SIGABRT)
{
    int owner = 0;
    struct sm m;
    sm_init(&m, &table, &owner, BUSY);
    sm_move(&m, DONE);
}

Test(sm, checks_the_invariant, .signal = SIGABRT)
{
    int owner = 1;
    struct sm m;
    sm_init(&m, &table, &owner, IDLE);
    sm_move(&m, DONE);
}

Test(json, writes_what_jansson_reads)
{
    struct buf b;
    struct jsonw j;
    buf_init(&b, 10000);
    jsonw_init(&j, &b);
    jsonw_object(&j);
    jsonw_put_str(&j, "text", "a\"b\\c\n\x01\x7f\xc3\xa4\xff");
    jsonw_put_str(&j, "none", NULL);
    jsonw_put_int(&j, "n", INT64_MIN);
    jsonw_put_bool(&j, "yes", true);
    jsonw_key(&j, "list");
    jsonw_array(&j);
    jsonw_int(&j, 1);
    jsonw_double(&j, 0.25);
    jsonw_double(&j, NAN);
    jsonw_null(&j);
    jsonw_object(&j);
    jsonw_end(&j);
    jsonw_array(&j);
    jsonw_end(&j);
    jsonw_end(&j);
    jsonw_put_slice(&j, "nul", SLICE_LIT("x\0y"));
    jsonw_end(&j);
    buf_put_u8(&b, 0);
    cr_expect_str_eq(
        (char *)b.p,
        "{\"text\":\"a\\\"b\\\\c\\n\\u0001\\u007f\xc3\xa4\xef\xbf\xbd\",\"none\":null,"
        "\"n\":-9223372036854775808,\"yes\":true,\"list\":[1,0.25,null,null,{},[]],\"nul\":\"x\\u0000y\"}");
    json_error_t error;
    json_t *read = json_loads((char *)b.p, JSON_ALLOW_NUL, &error);
    cr_expect(read, "%s", error.text);
    json_decref(read);
    buf_fini(&b);
}

Test(utf8, knows_characters_from_noise)
{
    static const struct {
        const char *bytes;
        size_t length;
    } cases[] = {{"a", 1},
                 {"\xc3\xa4", 2},
                 {"\xe2\x82\xac", 3},
                 {"\xf0\x9f\x98\x80", 4},
                 {"\x80", 0},
                 {"\xc0\x80", 0},
                 {"\xc3", 0},
                 {"\xe0\x80\x80", 0},
                 {"\xed\xa0\x80", 0},
                 {"\xff", 0},
                 {"\xc3(", 0},
                 {"\xf4\x90\x80\x80", 0},
                 {"\xf0\x80\x80\x80", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_expect_eq(utf8_length((const uint8_t *)cases[i].bytes, strlen(cases[i].bytes)), cases[i].length,
                     "%zu", i);
}

Test(rng, same_seed_same_numbers)
{
    struct rng a, b, c;
    rng_init(&a, 1);
    rng_init(&b, 1);
    rng_init(&c, 2);
    int equal = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t v = rng_next(&a);
        cr_expect_eq(v, rng_next(&b));
        equal += v == rng_next(&c);
    }
    cr_expect_eq(equal, 0);
}

Test(rng, stays_in_range_and_is_fair)
{
    struct rng r;
    rng_init(&r, 42);
    int count[7] = {0}, hits = 0;
    int64_t sum = 0;
    for (int i = 0; i < 70000; i++) {
        count[rng_below(&r, 7)]++;
        int64_t v = rng_range(&r, -3, 3);
        cr_assert(v >= -3 && v <= 3);
        rng_range(&r, INT64_MIN, INT64_MAX);
        hits += rng_chance(&r, 100000);
        int64_t x = rng_exponential(&r, 1000);
        cr_assert(x >= 0 && x <= 20000);
        sum += x;
    }
    for (int i = 0; i < 7; i++)
        cr_expect(count[i] > 9500 && count[i] < 10500);
    cr_expect(hits > 6500 && hits < 7500);
    cr_expect(sum / 70000 > 950 && sum / 70000 < 1050);
    cr_expect_not(rng_chance(&r, 0));
    cr_expect(rng_chance(&r, 1000000));
    uint8_t bytes[13] = {0}, none[13] = {0};
    rng_fill(&r, bytes, sizeof bytes);
    cr_expect_neq(memcmp(bytes, none, sizeof none), 0);
}

Test(hash, spreads_small_keys)
{
    int count[256] = {0};
    for (uint64_t i = 0; i < 25600; i++)
        count[hash_bytes(&i, sizeof i) % 256]++;
    for (int i = 0; i < 256; i++)
        cr_expect(count[i] > 50 && count[i] < 160, "%d: %d", i, count[i]);
    cr_expect_neq(hash_bytes("a", 1), hash_bytes("a\0", 2));
}
