/* A seeded generator (xoshiro256**): the same seed gives the same numbers, everywhere. Not for secrets. */
#ifndef SUNDOG_BASE_CORE_RNG_H
#define SUNDOG_BASE_CORE_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t s[4];
};

void rng_init(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);
/* 0 ≤ result < n; n > 0. Without bias. */
uint64_t rng_below(struct rng *r, uint64_t n);
/* lo ≤ result ≤ hi. */
int64_t rng_range(struct rng *r, int64_t lo, int64_t hi);
/* True in `per_million` of 1,000,000 cases. */
bool rng_chance(struct rng *r, uint32_t per_million);
/* Exponentially distributed with this mean, cut at 20 means. */
int64_t rng_exponential(struct rng *r, int64_t mean);
void rng_fill(struct rng *r, void *p, size_t n);

#endif
