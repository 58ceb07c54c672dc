/* An array that grows by doubling: room for one more, or false and the array as it was. Counts and capacities are of
 * elements; how many there may be at most is the caller's to say before it asks. */
#ifndef SUNDOG_BASE_CORE_GROW_H
#define SUNDOG_BASE_CORE_GROW_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline void *grow_elements(void *array, size_t *cap, size_t each, size_t first)
{
    size_t more = *cap ? *cap * 2 : first;
    assert(first > 0 && each > 0);
    if (more < *cap || more > SIZE_MAX / each)
        return NULL;
    void *grown = realloc(array, more * each);
    if (grown)
        *cap = more;
    return grown;
}

/* `array` (an lvalue of pointer type) holds n of `cap` (an lvalue of type size_t) elements; the first room is for
 * `first`. */
#define GROW(array, n, cap, first)                                                                           \
    ((n) < (cap) || grow_took(&(array), grow_elements((array), &(cap), sizeof *(array), (first))))

static inline bool grow_took(void *at, void *grown)
{
    if (grown)
        memcpy(at, &grown, sizeof grown);
    return grown != NULL;
}

#endif
