/* From a record's key to the offset of its last value, for compaction: 24 bytes a key, whatever its length.
 *
 * A key is known by a 128-bit keyed hash (SipHash-2-4): the seed is random for each round, so that nobody can choose
 * two keys that collide; by chance 10^9 keys collide with probability 10^-21. Bounded: full means full. One thread. */
#ifndef SUNDOG_BROKER_LOG_KEY_MAP_H
#define SUNDOG_BROKER_LOG_KEY_MAP_H

#include "base/core/slice.h"

struct key_slot {
    uint64_t hash[2];
    int64_t offset; /* -1: free */
};

struct key_map {
    struct key_slot *slots;
    size_t slots_n, used, used_max; /* slots_n is a power of two */
    uint64_t seed[2];
};

/* At most `bytes` of memory, no more than `keys` need. -E_NOMEM. */
int key_map_init(struct key_map *m, size_t bytes, size_t keys, uint64_t seed);
void key_map_fini(struct key_map *m);
/* The newest offset wins. False: full, and the key is not there. */
bool key_map_put(struct key_map *m, struct slice key, int64_t offset);
/* -1: not there. */
int64_t key_map_get(const struct key_map *m, struct slice key);

#endif
