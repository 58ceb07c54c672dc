#include "base/world/process.h"

#include "base/world/clock.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

/* The file's text, NUL-terminated, or an empty one. */
static void read_proc(const char *path, char *out, size_t cap)
{
    assert(cap > 1);
    out[0] = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, out, cap - 1);
    out[n > 0 ? n : 0] = 0;
    close(fd);
}

static int64_t count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    if (!d)
        return 0;
    int64_t n = 0;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n > 0 ? n - 1 : 0; /* without this very listing */
}

/* Fields of /proc/self/stat behind the program's name: 1 is the state. 0 when missing. */
static int64_t stat_field(const char *after_name, int field)
{
    assert(field >= 0);
    const char *p = after_name;
    for (int i = 0; i < field && p; i++) {
        p = strchr(p, ' ');
        p = p ? p + 1 : NULL;
    }
    return p ? strtoll(p, NULL, 10) : 0;
}

void process_usage_read(struct process_usage *out)
{
    *out = (struct process_usage){0};
    char text[1024];
    long page = sysconf(_SC_PAGESIZE), tick = sysconf(_SC_CLK_TCK);
    assert(page > 0);
    assert(tick > 0);
    read_proc("/proc/self/statm", text, sizeof text);
    char *rest = text;
    out->virtual_bytes = strtoll(rest, &rest, 10) * page;
    out->resident_bytes = strtoll(rest, NULL, 10) * page;

    read_proc("/proc/self/stat", text, sizeof text);
    const char *after = strrchr(text, ')');
    if (after) {
        out->threads = stat_field(after, 18);
        int64_t started_us = stat_field(after, 20) * (1000000 / tick); /* since boot */
        out->start_wall_ms = clock_wall_ms() - (clock_now_us() - started_us) / 1000;
    }
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        out->cpu_us = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * INT64_C(1000000) +
                      usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
    out->open_fds = count_fds();
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        out->max_fds = limit.rlim_cur == RLIM_INFINITY ? INT64_MAX : (int64_t)limit.rlim_cur;
}

unsigned process_cpus(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (unsigned)n;
}

int64_t process_raise_fds(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    if (limit.rlim_cur != limit.rlim_max) {
        struct rlimit raised = {limit.rlim_max, limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
            limit = raised;
    }
    return limit.rlim_cur == RLIM_INFINITY ? INT64_MAX : (int64_t)limit.rlim_cur;
}

uint64_t process_random(void)
{
    uint64_t v = 0;
    ssize_t n;
    do
        n = getrandom(&v, sizeof v, 0);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof v) {
        fputs("the kernel gives no random numbers\n", stderr);
        abort();
    }
    return v;
}
