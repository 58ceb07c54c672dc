#include "base/runtime/metrics.h"

#include "base/core/hash.h"
#include "base/runtime/metrics_internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_MAX 256 /* bytes of one label's value; the rest is cut */

/* Microseconds for "seconds", else plain powers: what a request, a batch or a queue can be. */
static const int64_t bounds_us[METRIC_BUCKETS] = {
    50,     100,    250,    500,     1000,    2500,    5000,     10000,    25000,    50000,
    100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000, 60000000, 300000000};
static const int64_t bounds_plain[METRIC_BUCKETS] = {
    1,      4,      16,      64,      256,     1024,    4096,     16384,    65536,     131072,
    262144, 524288, 1048576, 2097152, 4194304, 8388608, 16777216, 67108864, 268435456, 1073741824};

static unsigned count_labels(const struct metric_row *row)
{
    unsigned n = row->labels[0] != 0;
    for (const char *c = row->labels; *c; c++)
        n += *c == ',';
    assert(n <= METRIC_LABELS_MAX);
    return n;
}

static void free_series(struct metrics *m, struct metric_series *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < m->shards; i++)
        free((void *)s->shards[i].cell.buckets);
    free(s);
}

/* `key` is the label values, each with its NUL. */
static struct metric_series *make_series(struct metrics *m, struct metric *metric, const char *key, size_t n)
{
    assert(m->shards > 0);
    assert(n <= METRIC_LABELS_MAX * LABEL_MAX);
    size_t bytes = sizeof(struct metric_series) + m->shards * sizeof(struct metric_shard);
    struct metric_series *s =
        aligned_alloc(METRIC_LINE, (bytes + n + METRIC_LINE) / METRIC_LINE * METRIC_LINE);
    if (!s)
        return NULL;
    memset(s, 0, bytes);
    s->metric = metric;
    s->key = (char *)s + bytes;
    s->key_n = n;
    memcpy(s->key, key, n);
    bool whole = true;
    for (unsigned i = 0; i < m->shards; i++) {
        struct metric_cell *c = &s->shards[i].cell;
        c->series = s;
        if (metric->row->kind != METRIC_HISTOGRAM)
            continue;
        c->bounds = strcmp(metric->row->unit, "seconds") == 0 ? bounds_us : bounds_plain;
        c->buckets = calloc(METRIC_BUCKETS + 1, sizeof *c->buckets);
        whole = whole && c->buckets;
    }
    if (whole)
        return s;
    free_series(m, s);
    return NULL;
}

static struct metric_series *make_other(struct metrics *m, struct metric *metric)
{
    static const char others[METRIC_LABELS_MAX * 6] = "other\0other\0other\0other";
    return make_series(m, metric, others, metric->labels * 6);
}

struct metrics *metrics_create(const struct metric_row *rows, size_t n, unsigned shards)
{
    assert(shards > 0);
    struct metrics *m = calloc(1, sizeof *m + n * sizeof *m->metrics);
    if (!m)
        return NULL;
    pthread_mutex_init(&m->lock, NULL);
    m->n = n;
    m->shards = shards;
    for (size_t i = 0; i < n; i++) {
        struct metric *metric = &m->metrics[i];
        metric->row = &rows[i];
        metric->labels = count_labels(&rows[i]);
        metric->other = make_other(m, metric);
        if (!metric->other) {
            metrics_destroy(m);
            return NULL;
        }
    }
    return m;
}

void metrics_destroy(struct metrics *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n; i++) {
        struct metric_series *s, *next;
        HASH_ITER (hh, m->metrics[i].series, s, next) {
            HASH_DEL(m->metrics[i].series, s);
            free_series(m, s);
        }
        free_series(m, m->metrics[i].other);
    }
    pthread_mutex_destroy(&m->lock);
    free(m);
}

/* The label values, each with its NUL, into `out`; returns the bytes. */
static size_t make_key(const struct metric *metric, va_list values, char out[METRIC_LABELS_MAX * LABEL_MAX])
{
    size_t n = 0;
    for (unsigned i = 0; i < metric->labels; i++) {
        const char *value = va_arg(values, const char *);
        assert(value);
        size_t bytes = strnlen(value, LABEL_MAX - 1);
        memcpy(out + n, value, bytes);
        n += bytes;
        out[n++] = 0;
    }
    return n;
}

/* Under the lock. */
static struct metric_series *find_or_make(struct metrics *m, struct metric *metric, const char *key, size_t n)
{
    assert(metric->other);
    struct metric_series *s;
    if (metric->labels == 0)
        return metric->other;
    HASH_FIND(hh, metric->series, key, n, s);
    if (s)
        return s;
    if (HASH_COUNT(metric->series) >= METRIC_SERIES_MAX || !(s = make_series(m, metric, key, n)))
        return metric->other;
    HASH_ADD_KEYPTR(hh, metric->series, s->key, s->key_n, s);
    if (HASH_ADDED(s))
        return s;
    free_series(m, s);
    return metric->other;
}

struct metric_cell *metrics_cell(struct metrics *m, unsigned shard, unsigned id, ...)
{
    assert(id < m->n);
    assert(shard < m->shards);
    struct metric *metric = &m->metrics[id];
    char key[METRIC_LABELS_MAX * LABEL_MAX];
    va_list values;
    va_start(values, id);
    size_t n = make_key(metric, values, key);
    va_end(values);
    pthread_mutex_lock(&m->lock);
    struct metric_series *s = find_or_make(m, metric, key, n);
    s->holders++;
    pthread_mutex_unlock(&m->lock);
    return &s->shards[shard].cell;
}

void metrics_release(struct metrics *m, struct metric_cell *c)
{
    if (!c)
        return;
    struct metric_series *s = c->series;
    pthread_mutex_lock(&m->lock);
    assert(s->holders > 0);
    if (--s->holders == 0 && s != s->metric->other) {
        HASH_DEL(s->metric->series, s);
        free_series(m, s);
    }
    pthread_mutex_unlock(&m->lock);
}

void metrics_on_page(struct metrics *m, void (*fn)(void *arg), void *arg)
{
    assert(fn);
    assert(m->hooks_n < METRIC_HOOKS_MAX);
    m->hooks[m->hooks_n++] = (struct metric_hook){fn, arg};
}

void metric_observe(struct metric_cell *c, int64_t value)
{
    assert(c->buckets);
    unsigned i = 0;
    while (i < METRIC_BUCKETS && value > c->bounds[i])
        i++;
    atomic_fetch_add_explicit(&c->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->value, value, memory_order_relaxed);
}

int64_t metric_series_value(const struct metrics *m, const struct metric_series *s)
{
    int64_t sum = 0;
    for (unsigned i = 0; i < m->shards; i++)
        sum += atomic_load_explicit(&s->shards[i].cell.value, memory_order_relaxed);
    return sum;
}

int64_t metrics_value(struct metrics *m, unsigned id, ...)
{
    assert(id < m->n);
    struct metric *metric = &m->metrics[id];
    char key[METRIC_LABELS_MAX * LABEL_MAX];
    va_list values;
    va_start(values, id);
    size_t n = make_key(metric, values, key);
    va_end(values);
    struct metric_series *s = metric->other;
    pthread_mutex_lock(&m->lock);
    if (metric->labels > 0)
        HASH_FIND(hh, metric->series, key, n, s);
    int64_t value = s ? metric_series_value(m, s) : 0;
    pthread_mutex_unlock(&m->lock);
    return value;
}
