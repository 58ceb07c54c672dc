#include "base/core/crc32c.h"

#include <assert.h>
#include <isa-l/crc.h>
#include <limits.h>

uint32_t crc32c_more(uint32_t crc, const void *p, size_t n)
{
    const unsigned char *at = p;
    uint32_t state = ~crc;
    while (n > 0) {
        int step = n > (size_t)INT_MAX ? INT_MAX : (int)n;
        /* ISA-L takes a pointer to non-const and does not write. */
        state = crc32_iscsi((unsigned char *)(uintptr_t)at, step, state);
        at += step;
        n -= (size_t)step;
    }
    return ~state;
}

uint32_t crc32c(const void *p, size_t n)
{
    return crc32c_more(0, p, n);
}

/* Polynomials over GF(2) of degree below 32, lowest power in the highest bit, modulo Castagnoli's. */
#define CASTAGNOLI 0x82f63b78u

/* x^(8·2^k): what 2^k bytes of zeros behind a message do to its CRC. */
static const uint32_t powers[32] = {
    0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7,
    0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a, 0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
    0xfe7740e6, 0xf946610b, 0x3c204f8f, 0x538586e3, 0x59726915, 0x734d5309, 0xbc1ac763, 0x7d0722cc,
    0xd289cabe, 0xe94ca9bc, 0x05b74f3f, 0xa51e1f42, 0x40000000, 0x20000000, 0x08000000, 0x00800000,
};

/* The four lowest bits of a polynomial, times x^4. */
static const uint32_t reduced[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

static uint32_t times_x(uint32_t a)
{
    return (a >> 1) ^ (a & 1 ? CASTAGNOLI : 0);
}

/* Four powers at a time, the highest first. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t of[16] = {[8] = b}, product = 0;
    for (unsigned n = 4; n; n /= 2)
        of[n] = times_x(of[2 * n]);
    for (unsigned n = 3; n < 16; n++)
        of[n] = of[n & (n - 1)] ^ of[n & -n];
    for (int n = 0; n < 8; n++, a >>= 4)
        product = (product >> 4) ^ reduced[product & 15] ^ of[a & 15];
    return product;
}

/* Moves `state` past `n` bytes of zeros. */
static uint32_t shift(uint32_t state, size_t n)
{
    assert(n <= UINT32_MAX);
    for (size_t k = 0; n; k++, n >>= 1)
        if (n & 1)
            state = multiply(state, powers[k]);
    return state;
}

uint32_t crc32c_concat(uint32_t crc_a, uint32_t crc_b, size_t b_bytes)
{
    return shift(crc_a, b_bytes) ^ crc_b;
}

uint32_t crc32c_replace(uint32_t crc, const void *before, const void *after, size_t n, size_t behind)
{
    return crc ^ shift(crc32c(before, n) ^ crc32c(after, n), behind);
}
