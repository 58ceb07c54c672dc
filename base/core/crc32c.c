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
