/* Which target partition a record goes to, so that the records of one key stay in order (DESIGN.md §4): the source's
 * number where both topics have the same count, else murmur2 of the key as Java's default partitioner and librdkafka's
 * murmur2_random take it; without a key, the source partition modulo the target's count. Pure. */
#ifndef SUNDOG_MIRROR_ROUTE_PARTITIONER_H
#define SUNDOG_MIRROR_ROUTE_PARTITIONER_H

#include "base/core/slice.h"

enum route_mode { ROUTE_KEEP = 1, ROUTE_HASH = 2 };

/* Of a topic: what reads a rule from a store or a progress topic counts up to it. */
#define ROUTE_PARTITIONS_MAX 1000000

struct route_rule {
    enum route_mode mode;
    int32_t target_partitions; /* meaningful for ROUTE_HASH */
};

/* The rule of a topic that has no rule yet. A rule once used is kept for good: it decides the sequence of records
 * (APPENDER.md rule 11), so its fingerprint stands in every position record. */
struct route_rule route_rule_for(int32_t source_partitions, int32_t target_partitions);
/* A stable number of the rule; 0 is never given. */
uint32_t route_rule_fingerprint(struct route_rule rule);
/* The other way, for a reader of positions: 0, or -E_INVALID for a number that no rule has. */
int route_rule_of_fingerprint(uint32_t fingerprint, struct route_rule *out);

int32_t route_partition(struct route_rule rule, int32_t source_partition, struct slice key);

/* Java's Utils.murmur2 (seed 0x9747b28c). */
uint32_t murmur2(struct slice bytes);

#endif
