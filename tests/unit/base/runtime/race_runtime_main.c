/* Log lines, metric cells and pages from several threads at once: what the thread sanitizer must find clean. */
#include "base/runtime/log.h"
#include "base/runtime/metrics.h"
#include "base/world/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 4
#define ROUNDS  3000

static const struct metric_row rows[] = {
    {"race_total", METRIC_COUNTER, "things", "name", "Counted."},
    {"race_seconds", METRIC_HISTOGRAM, "seconds", "", "Timed."},
};

struct worker {
    struct metrics *metrics;
    unsigned number;
    pthread_t thread;
};

static void work(void *arg)
{
    struct worker *w = arg;
    struct metric_cell *kept = metrics_cell(w->metrics, w->number % 2, 0, "kept");
    struct metric_cell *timed = metrics_cell(w->metrics, w->number % 2, 1);
    for (int i = 0; i < ROUNDS; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i % 10);
        struct metric_cell *c = metrics_cell(w->metrics, w->number % 2, 0, name);
        metric_add(c, 1);
        metric_add(kept, 1);
        metric_observe(timed, i);
        metrics_release(w->metrics, c);
        if (i % 100 == 0)
            log_info("race", "round=%d of=%d", i, ROUNDS);
        log_debug("race", "never said");
    }
}

static void read_pages(void *arg)
{
    struct worker *w = arg;
    for (int i = 0; i < 30; i++) {
        struct buf page;
        buf_init(&page, 1 << 20);
        metrics_page(w->metrics, &page);
        if (page.failed)
            abort();
        buf_fini(&page);
        log_summarize();
        log_setup(i % 2 ? LOG_TEXT : LOG_JSON, LOG_INFO);
    }
}

static void swallow(void *arg, enum log_level level, const char *area, const char *line)
{
    (void)level, (void)area, (void)line;
    ++*(int *)arg; /* under the log's lock */
}

int main(void)
{
    struct worker w[THREADS + 1];
    int lines = 0;
    log_sink_set(&(struct log_sink){swallow, &lines});
    struct metrics *m = metrics_create(rows, 2, 2);
    if (!m)
        return 1;
    for (unsigned i = 0; i <= THREADS; i++) {
        w[i] = (struct worker){m, i, 0};
        if (thread_start(&w[i].thread, "race", i < THREADS ? work : read_pages, &w[i], NULL) != 0)
            return 1;
    }
    for (unsigned i = 0; i <= THREADS; i++)
        thread_join(w[i].thread);
    int64_t kept = metrics_value(m, 0, "kept");
    metrics_destroy(m);
    log_sink_set(NULL);
    printf("kept=%lld lines=%d\n", (long long)kept, lines);
    return kept == THREADS * ROUNDS && lines == THREADS * (ROUNDS / 100) ? 0 : 1;
}
