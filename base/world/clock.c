#include "base/world/clock.h"

#include <assert.h>
#include <time.h>

static int64_t read_clock(clockid_t id, int64_t per_second)
{
    struct timespec t;
    int rc = clock_gettime(id, &t);
    assert(rc == 0);
    (void)rc;
    return (int64_t)t.tv_sec * per_second + (int64_t)t.tv_nsec / (INT64_C(1000000000) / per_second);
}

int64_t clock_now_us(void)
{
    return read_clock(CLOCK_MONOTONIC, 1000000);
}

int64_t clock_wall_ms(void)
{
    return read_clock(CLOCK_REALTIME, 1000);
}
