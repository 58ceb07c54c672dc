/* The linear shortcuts of CRC-32C against the plain way. */
#include "base/core/crc32c.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES 70000

static uint32_t state = 12345;

static uint32_t next(void)
{
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

Test(crc32c, replacing_bytes_gives_what_a_new_walk_gives)
{
    static uint8_t before[MESSAGE_BYTES], after[MESSAGE_BYTES];
    for (int round = 0; round < 400; round++) {
        size_t n = 1 + next() % (round % 10 ? 300 : MESSAGE_BYTES - 1), at = next() % n,
               m = next() % (n - at + 1);
        for (size_t i = 0; i < n; i++)
            before[i] = (uint8_t)next();
        memcpy(after, before, n);
        for (size_t i = at; i < at + m; i++)
            after[i] = (uint8_t)next();
        cr_assert_eq(crc32c_replace(crc32c(before, n), before + at, after + at, m, n - at - m),
                     crc32c(after, n));
        cr_assert_eq(crc32c_concat(crc32c(before, at), crc32c(before + at, n - at), n - at),
                     crc32c(before, n));
    }
}

Test(crc32c, a_wrong_crc_stays_wrong_by_the_same_difference)
{
    uint8_t a[100] = {1, 2, 3}, b[100] = {1, 2, 3};
    b[7] = 0xff;
    uint32_t good = crc32c(a, 100);
    cr_assert_eq(crc32c_replace(good ^ 0x10, a + 7, b + 7, 1, 92), crc32c(b, 100) ^ 0x10);
}

Test(crc32c, far_distances_use_every_power)
{
    /* Doubling by concatenation: the CRC of 2^k zeros, against a walk over them for the small ones. */
    uint8_t zero[4096] = {0};
    uint32_t crc = crc32c(zero, 1);
    for (size_t k = 0; k < 31; k++) {
        size_t n = (size_t)1 << k;
        if (n <= sizeof zero)
            cr_assert_eq(crc, crc32c(zero, n));
        crc = crc32c_concat(crc, crc, n);
    }
    /* 2^31 zeros: known from a plain walk. */
    uint32_t walked = 0;
    uint8_t *many = calloc(1, (size_t)1 << 24);
    cr_assert(many);
    for (int i = 0; i < 128; i++)
        walked = crc32c_more(walked, many, (size_t)1 << 24);
    free(many);
    cr_assert_eq(crc, walked);
}
