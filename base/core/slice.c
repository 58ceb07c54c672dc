#include "base/core/slice.h"

#include <assert.h>

char *slice_cstr(struct slice s, char *out, size_t cap)
{
    assert(cap > 0);
    size_t n = s.n < cap - 1 ? s.n : cap - 1;
    if (n)
        memcpy(out, s.p, n);
    out[n] = '\0';
    return out;
}
