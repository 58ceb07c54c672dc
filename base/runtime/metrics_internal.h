/* What metrics.c (cells) and metrics_page.c (the page) share. */
#ifndef SUNDOG_BASE_RUNTIME_METRICS_INTERNAL_H
#define SUNDOG_BASE_RUNTIME_METRICS_INTERNAL_H

#include "base/core/hash.h"
#include "base/runtime/metrics.h"

#include <pthread.h>

#define METRIC_LINE 64 /* a cache line: shards do not write into each other's */

struct metric_shard {
    _Alignas(METRIC_LINE) struct metric_cell cell;
};

struct metric_series {
    struct metric *metric;
    UT_hash_handle hh;
    char *key; /* label values, each with its NUL; behind the shards */
    size_t key_n;
    unsigned holders; /* under the lock */
    struct metric_shard shards[];
};

struct metric {
    const struct metric_row *row;
    unsigned labels;
    struct metric_series *series; /* a hash, under the lock */
    struct metric_series *other;  /* the only one of a metric without labels */
};

struct metric_hook {
    void (*fn)(void *arg);
    void *arg;
};

struct metrics {
    pthread_mutex_t lock;
    unsigned shards;
    struct metric_hook hooks[METRIC_HOOKS_MAX];
    unsigned hooks_n;
    size_t n;
    struct metric metrics[];
};

int64_t metric_series_value(const struct metrics *m, const struct metric_series *s);

#endif
