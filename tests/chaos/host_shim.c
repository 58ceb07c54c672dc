/* In front of libc, for tests/chaos/host*.py (LD_PRELOAD): a wall clock that steps and disks whose syncs fail,
 * while the daemon runs. What happens is said by a file that SUNDOG_SHIM names, mapped by all: struct orders below,
 * written by the test. fdatasync, fsync and msync of what lies under `folder` fail with `error`; each such call is
 * a line "name path" in <file>.calls, so that a test sees who asked again. CLOCK_REALTIME is the real one plus
 * `shift_ns`; waits for a moment of that clock follow its steps as they do in the kernel. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS 20000000 /* how soon a wait notices a step */

struct orders {
    _Atomic int64_t shift_ns;
    _Atomic int32_t error;
    char folder[512];
};

static struct orders *orders;
static int calls = -1;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SUNDOG_SHIM");
    char beside[PATH_MAX];
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *at = mmap(NULL, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        abort();
    orders = at;
    snprintf(beside, sizeof beside, "%s.calls", path);
    calls = open(beside, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

/* ---- disks ---- */

static int fails(const char *path, const char *call)
{
    int error = orders ? orders->error : 0;
    if (error == 0 || strncmp(path, orders->folder, strlen(orders->folder)) != 0)
        return 0;
    dprintf(calls, "%s %s\n", call, path);
    return error;
}

static int fails_fd(int fd, const char *call)
{
    char link[64], path[PATH_MAX];
    if (!orders || orders->error == 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return 0;
    path[n] = 0;
    return fails(path, call);
}

int fdatasync(int fd)
{
    int error = fails_fd(fd, "fdatasync");
    if (error) {
        errno = error;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    int error = fails_fd(fd, "fsync");
    if (error) {
        errno = error;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int msync(void *p, size_t n, int how)
{
    int error = orders && orders->error ? fails(orders->folder, "msync") : 0;
    if (error) {
        errno = error;
        return -1;
    }
    return (int)syscall(SYS_msync, p, n, how);
}

/* ---- the clock ---- */

static void shift(struct timespec *t)
{
    int64_t ns = orders ? orders->shift_ns : 0;
    t->tv_sec += ns / 1000000000;
    t->tv_nsec += ns % 1000000000;
    if (t->tv_nsec >= 1000000000) {
        t->tv_nsec -= 1000000000;
        t->tv_sec++;
    } else if (t->tv_nsec < 0) {
        t->tv_nsec += 1000000000;
        t->tv_sec--;
    }
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int rc = real(clock, t);
    if (rc == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        shift(t);
    return rc;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec t;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    *tv = (struct timeval){t.tv_sec, t.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *out)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out)
        *out = t.tv_sec;
    return t.tv_sec;
}

int timespec_get(struct timespec *t, int base)
{
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, t) == 0 ? base : 0;
}

/* Waits whose deadline is of the wall clock: in slices, each looking at the clock anew. */
int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict until)
{
    for (;;) {
        struct timespec now, slice;
        clock_gettime(CLOCK_REALTIME, &now);
        int64_t left = (until->tv_sec - now.tv_sec) * 1000000000LL + until->tv_nsec - now.tv_nsec;
        if (left <= 0)
            return ETIMEDOUT;
        clock_gettime(CLOCK_MONOTONIC, &slice);
        slice.tv_nsec += left < SLICE_NS ? left : SLICE_NS;
        if (slice.tv_nsec >= 1000000000) {
            slice.tv_nsec -= 1000000000;
            slice.tv_sec++;
        }
        int rc = pthread_cond_clockwait(c, m, CLOCK_MONOTONIC, &slice);
        if (rc != ETIMEDOUT)
            return rc;
    }
}

int cnd_timedwait(void *restrict c, void *restrict m, const struct timespec *restrict until)
{
    int rc = pthread_cond_timedwait(c, m, until);
    return rc == 0 ? 0 : rc == ETIMEDOUT ? 4 /* thrd_timedout */ : 2 /* thrd_error */;
}
