/* What the kernel knows of this process, for metrics and limits. Any thread. */
#ifndef SUNDOG_BASE_WORLD_PROCESS_H
#define SUNDOG_BASE_WORLD_PROCESS_H

#include <stdint.h>

struct process_usage {
    int64_t resident_bytes;
    int64_t virtual_bytes;
    int64_t cpu_us;
    int64_t open_fds, max_fds;
    int64_t threads;
    int64_t start_wall_ms;
};

/* What cannot be read is 0. */
void process_usage_read(struct process_usage *out);
/* Online CPUs, at least 1. */
unsigned process_cpus(void);
/* Raises the soft limit of open files to the hard one; returns it. */
int64_t process_raise_fds(void);
/* From the kernel's generator. */
uint64_t process_random(void);

#endif
