#include "base/core/rng.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = (*x += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

void rng_init(struct rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        r->s[i] = splitmix(&seed);
}

static uint64_t rotl(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

uint64_t rng_next(struct rng *r)
{
    uint64_t *s = r->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    assert(n > 0);
    uint64_t least = (0 - n) % n; /* 2^64 mod n: what would be too much of the small results */
    uint64_t v;
    do
        v = rng_next(r);
    while (v < least);
    return v % n;
}

int64_t rng_range(struct rng *r, int64_t lo, int64_t hi)
{
    assert(lo <= hi);
    uint64_t span = (uint64_t)hi - (uint64_t)lo;
    uint64_t v = span == UINT64_MAX ? rng_next(r) : rng_below(r, span + 1);
    return (int64_t)((uint64_t)lo + v);
}

bool rng_chance(struct rng *r, uint32_t per_million)
{
    assert(per_million <= 1000000);
    return per_million > 0 && rng_below(r, 1000000) < per_million;
}

int64_t rng_exponential(struct rng *r, int64_t mean)
{
    assert(mean >= 0);
    if (mean == 0)
        return 0;
    double u = (double)((rng_next(r) >> 11) + 1) * 0x1p-53; /* 0 < u <= 1 */
    double v = -log(u);
    return (int64_t)((v < 20 ? v : 20) * (double)mean);
}

void rng_fill(struct rng *r, void *p, size_t n)
{
    assert(p || n == 0);
    uint8_t *to = p;
    while (n > 0) {
        uint64_t v = rng_next(r);
        size_t part = n < sizeof v ? n : sizeof v;
        memcpy(to, &v, part);
        to += part;
        n -= part;
    }
}
