/* The page in Prometheus's text format 0.0.4, and the rules for rows. */
#include "base/core/utf8.h"
#include "base/runtime/metrics_internal.h"
#include "base/world/process.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[] = {"counter", "gauge", "histogram"};

static void put_head(struct buf *to, const struct metric_row *row)
{
    buf_printf(to, "# HELP %s ", row->name);
    for (const char *c = row->help; *c; c++)
        buf_put(to, *c == '\n' ? " " : c, 1);
    buf_printf(to, "\n# TYPE %s %s\n", row->name, kind_names[row->kind]);
}

/* In a page nothing but text: what is not UTF-8, and control bytes, become '?'. */
static void put_label_value(struct buf *to, const char *value)
{
    for (size_t i = 0, n = strlen(value); i < n;) {
        const uint8_t *p = (const uint8_t *)value + i;
        size_t bytes = utf8_length(p, n - i);
        if (*p == '"' || *p == '\\')
            buf_printf(to, "\\%c", *p);
        else if (*p == '\n')
            buf_printf(to, "\\n");
        else if (bytes == 0 || *p < 0x20 || *p == 0x7F)
            buf_put_u8(to, '?');
        else
            buf_put(to, p, bytes);
        i += bytes ? bytes : 1;
    }
}

/* {topic="orders",partition="3"}; `le` adds a histogram's own label. */
static void put_labels(struct buf *to, const struct metric_series *s, const char *le)
{
    const char *name = s->metric->row->labels, *value = s->key;
    const char *open = "{";
    for (unsigned i = 0; i < s->metric->labels; i++) {
        size_t n = strcspn(name, ",");
        buf_printf(to, "%s%.*s=\"", open, (int)n, name);
        put_label_value(to, value);
        buf_put_u8(to, '"');
        name += n + (name[n] == ',');
        value += strlen(value) + 1;
        open = ",";
    }
    if (le)
        buf_printf(to, "%sle=\"%s\"", open, le);
    if (s->metric->labels || le)
        buf_put_u8(to, '}');
}

static void format_value(char out[48], const struct metric_row *row, int64_t v)
{
    if (strcmp(row->unit, "seconds") == 0)
        snprintf(out, 48, "%.15g", (double)v / 1e6);
    else
        snprintf(out, 48, "%lld", (long long)v);
}

static void put_plain(struct buf *to, const struct metrics *m, const struct metric_series *s)
{
    char value[48];
    format_value(value, s->metric->row, metric_series_value(m, s));
    buf_printf(to, "%s", s->metric->row->name);
    put_labels(to, s, NULL);
    buf_printf(to, " %s\n", value);
}

static void put_histogram(struct buf *to, const struct metrics *m, const struct metric_series *s)
{
    assert(s->metric->row->kind == METRIC_HISTOGRAM);
    const struct metric_row *row = s->metric->row;
    uint64_t count = 0;
    char text[48];
    for (unsigned i = 0; i <= METRIC_BUCKETS; i++) {
        for (unsigned shard = 0; shard < m->shards; shard++)
            count += atomic_load_explicit(&s->shards[shard].cell.buckets[i], memory_order_relaxed);
        if (i < METRIC_BUCKETS)
            format_value(text, row, s->shards[0].cell.bounds[i]);
        buf_printf(to, "%s_bucket", row->name);
        put_labels(to, s, i < METRIC_BUCKETS ? text : "+Inf");
        buf_printf(to, " %llu\n", (unsigned long long)count);
    }
    format_value(text, row, metric_series_value(m, s));
    buf_printf(to, "%s_sum", row->name);
    put_labels(to, s, NULL);
    buf_printf(to, " %s\n%s_count", text, row->name);
    put_labels(to, s, NULL);
    buf_printf(to, " %llu\n", (unsigned long long)count);
}

static void put_series(struct buf *to, const struct metrics *m, const struct metric_series *s)
{
    if (s->metric->row->kind == METRIC_HISTOGRAM)
        put_histogram(to, m, s);
    else
        put_plain(to, m, s);
}

/* ---- the process ---- */

static const struct metric_row process_rows[] = {
    {"process_resident_memory_bytes", METRIC_GAUGE, "bytes", "", "Resident memory of the process."},
    {"process_virtual_memory_bytes", METRIC_GAUGE, "bytes", "", "Virtual memory of the process."},
    {"process_cpu_seconds_total", METRIC_COUNTER, "seconds", "", "User and system CPU time spent."},
    {"process_open_fds", METRIC_GAUGE, "descriptors", "", "Open file descriptors."},
    {"process_max_fds", METRIC_GAUGE, "descriptors", "", "Most file descriptors that may be open."},
    {"process_threads", METRIC_GAUGE, "threads", "", "Threads of the process."},
    {"process_start_time_seconds", METRIC_GAUGE, "seconds", "", "Start of the process since the epoch."},
};

const struct metric_row *metrics_process_rows(size_t *n)
{
    *n = sizeof process_rows / sizeof *process_rows;
    return process_rows;
}

static void put_process(struct buf *to)
{
    struct process_usage u;
    process_usage_read(&u);
    const int64_t values[] = {u.resident_bytes, u.virtual_bytes,       u.cpu_us, u.open_fds, u.max_fds,
                              u.threads,        u.start_wall_ms * 1000};
    static_assert(sizeof values / sizeof *values == sizeof process_rows / sizeof *process_rows,
                  "a value a row");
    for (size_t i = 0; i < sizeof process_rows / sizeof *process_rows; i++) {
        char value[48];
        format_value(value, &process_rows[i], values[i]);
        put_head(to, &process_rows[i]);
        buf_printf(to, "%s %s\n", process_rows[i].name, value);
    }
}

void metrics_page(struct metrics *m, struct buf *to)
{
    assert(m);
    assert(to);
    for (unsigned i = 0; i < m->hooks_n; i++)
        m->hooks[i].fn(m->hooks[i].arg);
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n; i++) {
        struct metric *metric = &m->metrics[i];
        put_head(to, metric->row);
        for (struct metric_series *s = metric->series; s; s = s->hh.next)
            put_series(to, m, s);
        if (metric->labels == 0 || metric->other->holders)
            put_series(to, m, metric->other);
    }
    pthread_mutex_unlock(&m->lock);
    put_process(to);
}

/* ---- rules for rows ---- */

static bool good_name(const char *s)
{
    if (!isalpha((unsigned char)*s) && *s != '_')
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && *s != '_')
            return false;
    return true;
}

static bool ends_in(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool good_labels(const char *s)
{
    unsigned n = 0;
    if (!*s)
        return true;
    for (;; s++) {
        size_t bytes = strcspn(s, ",");
        char one[64];
        if (++n > METRIC_LABELS_MAX || bytes == 0 || bytes >= sizeof one)
            return false;
        memcpy(one, s, bytes);
        one[bytes] = 0;
        if (!good_name(one) || strcmp(one, "le") == 0)
            return false;
        s += bytes;
        if (!*s)
            return true;
    }
}

int metrics_lint(const struct metric_row *rows, size_t n, struct err *err)
{
    assert(rows || n == 0);
    for (size_t i = 0; i < n; i++) {
        const struct metric_row *r = &rows[i];
        if (!good_name(r->name))
            return err_set(err, -E_INVALID, "metric \"%s\": not a name", r->name);
        if (!good_labels(r->labels))
            return err_set(err, -E_INVALID, "metric %s: bad labels \"%s\"", r->name, r->labels);
        if (!r->help[0] || !r->unit[0])
            return err_set(err, -E_INVALID, "metric %s: a unit and a sentence of help are missing", r->name);
        if ((r->kind == METRIC_COUNTER) != ends_in(r->name, "_total"))
            return err_set(err, -E_INVALID, "metric %s: counters, and they alone, end in _total", r->name);
        for (size_t j = 0; j < i; j++)
            if (strcmp(rows[j].name, r->name) == 0)
                return err_set(err, -E_EXISTS, "metric %s stands twice", r->name);
    }
    return 0;
}
