#include "base/core/grow.h"

#include <criterion/criterion.h>

Test(grow, doubles_and_keeps_what_is_there)
{
    int64_t *v = NULL;
    size_t cap = 0;
    for (size_t n = 0; n < 1000; n++) {
        cr_assert(GROW(v, n, cap, 3));
        cr_assert_gt(cap, n);
        v[n] = (int64_t)n;
    }
    cr_expect_eq(cap, 1536);
    for (size_t n = 0; n < 1000; n++)
        cr_assert_eq(v[n], (int64_t)n);
    free(v);
}

Test(grow, what_cannot_be_had_leaves_the_array)
{
    int64_t one = 7, *v = &one;
    size_t cap = ((size_t)1 << 60) + 4; /* doubled, its bytes would wrap to 64 */
    cr_expect_not(GROW(v, cap, cap, 3));
    cap = SIZE_MAX / 2 + 2; /* and here the doubling itself */
    cr_expect_not(GROW(v, cap, cap, 3));
    cr_expect_eq(v, &one);
    cr_expect_eq(cap, SIZE_MAX / 2 + 2);
}
