/* Metrics as rows: METRIC(name, COUNTER|GAUGE|HISTOGRAM, unit, labels, help), in .def files.
 *
 *     METRIC(sundog_broker_requests_total, COUNTER, "requests", "api", "Requests answered.")
 *
 *     enum broker_metric {
 *     #define METRIC METRIC_ENUM
 *     #include "broker/metrics.def"
 *     #undef METRIC
 *     BROKER_METRICS };
 *     static const struct metric_row rows[] = {
 *     #define METRIC METRIC_ROW
 *     …
 *     };
 *
 *     m = metrics_create(rows, BROKER_METRICS, shards);
 *     c = metrics_cell(m, shard, M_sundog_broker_requests_total, "Produce");   (once, kept)
 *     metric_add(c, 1);                                                        (hot path: a relaxed atomic)
 *
 * A cell belongs to one (metric, label values) of one shard; the writer of a page sums over shards. Label
 * values come in the order of the row's comma separated label names. A metric has at most METRIC_SERIES_MAX
 * label sets a shard; beyond that one series with the value "other" takes the rest. Unit "seconds": cells
 * count microseconds, pages show seconds. Cells are acquired and released under a lock; values are relaxed
 * atomics, any thread. */
#ifndef SUNDOG_BASE_RUNTIME_METRICS_H
#define SUNDOG_BASE_RUNTIME_METRICS_H

#include "base/core/buf.h"
#include "base/core/err.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define METRIC_SERIES_MAX 20000
#define METRIC_LABELS_MAX 4
#define METRIC_BUCKETS    20

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric_row {
    const char *name;
    enum metric_kind kind;
    const char *unit;
    const char *labels; /* "topic,partition" or "" */
    const char *help;
};

#define METRIC_ENUM(name, kind, unit, labels, help) M_##name,
#define METRIC_ROW(name, kind, unit, labels, help)  {#name, METRIC_##kind, unit, labels, help},

struct metrics;

/* One series of one shard. */
struct metric_cell {
    _Atomic int64_t value;     /* counter, gauge; histogram: the sum */
    _Atomic uint64_t *buckets; /* histogram: METRIC_BUCKETS + 1 counts */
    const int64_t *bounds;     /* histogram: METRIC_BUCKETS upper bounds, rising */
    struct metric_series *series;
};

struct metrics *metrics_create(const struct metric_row *rows, size_t n, unsigned shards);
void metrics_destroy(struct metrics *m);

/* The cell of these label values (as many `const char *` as the row has labels), made if missing; never NULL:
 * out of memory or above the limit it is the "other" series. Acquired once more at each call; give each back.
 */
struct metric_cell *metrics_cell(struct metrics *m, unsigned shard, unsigned id, ...);
/* The series leaves the page when its last holder has released it. NULL is fine. */
void metrics_release(struct metrics *m, struct metric_cell *c);

/* Called, on the thread that writes the page, before each page: to set gauges that are only looked at then.
 * At most METRIC_HOOKS_MAX of them. */
#define METRIC_HOOKS_MAX 16
void metrics_on_page(struct metrics *m, void (*fn)(void *arg), void *arg);
/* The Prometheus text page (format 0.0.4), process metrics at its end. */
void metrics_page(struct metrics *m, struct buf *to);
/* The sum over shards of one series, for tests and status pages; 0 when there is none. */
int64_t metrics_value(struct metrics *m, unsigned id, ...);
/* The rows of the process metrics that every page has, for lint and documentation. */
const struct metric_row *metrics_process_rows(size_t *n);
/* Walks rows and finds what none may have: doubles, names that are not Prometheus's, an empty help, a counter
 * that does not end in _total. */
int metrics_lint(const struct metric_row *rows, size_t n, struct err *err);

static inline void metric_add(struct metric_cell *c, int64_t n)
{
    atomic_fetch_add_explicit(&c->value, n, memory_order_relaxed);
}

static inline void metric_set(struct metric_cell *c, int64_t value)
{
    atomic_store_explicit(&c->value, value, memory_order_relaxed);
}

/* One observation of a histogram. */
void metric_observe(struct metric_cell *c, int64_t value);

#endif
