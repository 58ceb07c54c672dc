#include "mirror/route/partitioner.h"

#include <assert.h>

#include "base/core/err.h"
#include "base/core/mutant.h"

struct route_rule route_rule_for(int32_t source_partitions, int32_t target_partitions)
{
    assert(source_partitions > 0 && target_partitions > 0);
    if (source_partitions == target_partitions && !MUTANT("partition_by_key_hash"))
        return (struct route_rule){ROUTE_KEEP, 0};
    return (struct route_rule){ROUTE_HASH, target_partitions};
}

/* The count in the low bits, the mode above: no two rules alike, and a reader can tell what differs. */
#define FINGERPRINT_MODE_SHIFT 28

uint32_t route_rule_fingerprint(struct route_rule rule)
{
    uint32_t count = rule.mode == ROUTE_HASH ? (uint32_t)rule.target_partitions : 0;
    assert(rule.mode == ROUTE_KEEP || rule.target_partitions > 0);
    assert(count < 1u << FINGERPRINT_MODE_SHIFT);
    return (uint32_t)rule.mode << FINGERPRINT_MODE_SHIFT | count;
}

int route_rule_of_fingerprint(uint32_t fingerprint, struct route_rule *out)
{
    uint32_t mode = fingerprint >> FINGERPRINT_MODE_SHIFT;
    uint32_t count = fingerprint & ((1u << FINGERPRINT_MODE_SHIFT) - 1);
    if (!(mode == ROUTE_KEEP && count == 0) &&
        !(mode == ROUTE_HASH && count > 0 && count <= ROUTE_PARTITIONS_MAX))
        return -E_INVALID;
    *out = (struct route_rule){(enum route_mode)mode, (int32_t)count};
    return 0;
}

int32_t route_partition(struct route_rule rule, int32_t source_partition, struct slice key)
{
    assert(source_partition >= 0);
    if (rule.mode == ROUTE_KEEP)
        return source_partition;
    assert(rule.mode == ROUTE_HASH && rule.target_partitions > 0);
    if (slice_is_null(key))
        return source_partition % rule.target_partitions;
    int32_t q = (int32_t)(murmur2(key) & 0x7fffffff) % rule.target_partitions;
    assert(q >= 0 && q < rule.target_partitions);
    return q;
}

uint32_t murmur2(struct slice bytes)
{
    const uint32_t m = 0x5bd1e995;
    uint32_t h = 0x9747b28c ^ (uint32_t)bytes.n;
    const uint8_t *p = bytes.p;
    size_t n = bytes.n;
    for (; n >= 4; n -= 4, p += 4) {
        uint32_t k = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        k *= m;
        k ^= k >> 24;
        h = h * m ^ k * m;
    }
    if (n == 3)
        h ^= (uint32_t)p[2] << 16;
    if (n >= 2)
        h ^= (uint32_t)p[1] << 8;
    if (n >= 1) {
        h ^= p[0];
        h *= m;
    }
    h ^= h >> 13;
    h *= m;
    return h ^ h >> 15;
}
