#include "tests/support/heap.h"

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

static _Atomic uint64_t left; /* allocations until the failing one; 0: not armed */
static _Atomic int failing_on, has_failed;
static enum heap_fail mode;

void heap_fail_at(uint64_t k, enum heap_fail how)
{
    mode = how;
    atomic_store(&failing_on, 0);
    atomic_store(&has_failed, 0);
    atomic_store(&left, k);
}

bool heap_has_failed(void)
{
    return atomic_load(&has_failed);
}

static bool fails(void)
{
    if (atomic_load_explicit(&failing_on, memory_order_relaxed))
        return true;
    if (atomic_load_explicit(&left, memory_order_relaxed) == 0 || atomic_fetch_sub(&left, 1) != 1)
        return false;
    atomic_store(&has_failed, 1);
    atomic_store(&failing_on, mode == HEAP_FAIL_FROM_THERE);
    return true;
}

#define WRAP(type, name, parameters, arguments)                                                              \
    type __real_##name parameters;                                                                           \
    type __wrap_##name parameters;                                                                           \
    type __wrap_##name parameters                                                                            \
    {                                                                                                        \
        return fails() ? NULL : __real_##name arguments;                                                     \
    }

WRAP(void *, malloc, (size_t n), (n))
WRAP(void *, calloc, (size_t n, size_t size), (n, size))
WRAP(void *, realloc, (void *p, size_t n), (p, n))
WRAP(void *, aligned_alloc, (size_t to, size_t n), (to, n))
WRAP(char *, strdup, (const char *s), (s))
WRAP(char *, strndup, (const char *s, size_t n), (s, n))

uint64_t heap_torture(void (*run)(void *arg), void *arg)
{
    for (uint64_t k = 1; k <= HEAP_TORTURE_MAX; k++) {
        bool met = false;
        for (int how = HEAP_FAIL_ONCE; how <= HEAP_FAIL_FROM_THERE; how++) {
            heap_fail_at(k, (enum heap_fail)how);
            run(arg);
            met = met || heap_has_failed();
            heap_fail_at(0, HEAP_FAIL_ONCE);
        }
        if (!met)
            return k - 1;
    }
    assert(0 && "a run that allocates without end");
    return 0;
}
