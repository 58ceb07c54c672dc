/* uthash behind one file: an allocation failure drops the add instead of ending the process. Check the element's
 * `hh.tbl` (or HASH_ADDED) after an add where memory may run out. The hash function is ours: uthash's own falls
 * through its switch in a way that clang's warnings refuse. Iteration is in order of insertion. */
#ifndef SUNDOG_BASE_CORE_HASH_H
#define SUNDOG_BASE_CORE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Eight bytes a step; for tables in memory only, never for what is stored or sent. */
static inline uint64_t hash_step(uint64_t h, const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    memcpy(&v, p, n);
    h = (h ^ v) * UINT64_C(0xFF51AFD7ED558CCD);
    return h ^ h >> 32;
}

static inline unsigned hash_bytes(const void *key, size_t n)
{
    const uint8_t *p = (const uint8_t *)key;
    uint64_t h = UINT64_C(0x9E3779B97F4A7C15) ^ n;
    for (; n >= 8; n -= 8, p += 8)
        h = hash_step(h, p, 8);
    if (n > 0)
        h = hash_step(h, p, n);
    h *= UINT64_C(0xC4CEB9FE1A85EC53);
    return (unsigned)(h ^ (h >> 29) ^ (h >> 47));
}

#define HASH_FUNCTION(keyptr, keylen, hashv)                                                                 \
    do {                                                                                                     \
        (hashv) = hash_bytes((keyptr), (size_t)(keylen));                                                    \
    } while (0)
#define HASH_NONFATAL_OOM 1
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#include <uthash.h>
#pragma GCC diagnostic pop

#define HASH_ADDED(element) ((element)->hh.tbl != NULL)

#endif
