#include "base/runtime/metrics.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEMO_ROWS                                                                                            \
    METRIC(demo_requests_total, COUNTER, "requests", "api,code", "Requests answered.")                       \
    METRIC(demo_queue, GAUGE, "messages", "", "Waiting now.")                                                \
    METRIC(demo_latency_seconds, HISTOGRAM, "seconds", "api", "How long it took.")                           \
    METRIC(demo_busy_seconds_total, COUNTER, "seconds", "", "Time spent.")

enum demo_metric {
#define METRIC METRIC_ENUM
    DEMO_ROWS
#undef METRIC
        DEMO_METRICS
};
static const struct metric_row rows[] = {
#define METRIC METRIC_ROW
    DEMO_ROWS
#undef METRIC
};

static const char *page(struct metrics *m)
{
    static char text[200000];
    struct buf b;
    buf_init(&b, sizeof text - 1);
    metrics_page(m, &b);
    cr_assert_not(b.failed);
    memcpy(text, b.p, b.n);
    text[b.n] = 0;
    buf_fini(&b);
    return text;
}

static int64_t queue_now;
static void look(void *arg)
{
    metric_set(arg, queue_now);
}

Test(metrics, the_page_sums_over_shards)
{
    struct metrics *m = metrics_create(rows, DEMO_METRICS, 2);
    struct metric_cell *a = metrics_cell(m, 0, M_demo_requests_total, "Produce", "0");
    struct metric_cell *b = metrics_cell(m, 1, M_demo_requests_total, "Produce", "0");
    struct metric_cell *odd = metrics_cell(m, 1, M_demo_requests_total, "a\"\\\n\x01\xff\xc3\xa4", "7");
    struct metric_cell *queue = metrics_cell(m, 0, M_demo_queue);
    struct metric_cell *busy = metrics_cell(m, 0, M_demo_busy_seconds_total);
    struct metric_cell *latency = metrics_cell(m, 1, M_demo_latency_seconds, "Fetch");
    cr_expect_neq(a, b);
    cr_expect_eq(metrics_cell(m, 0, M_demo_requests_total, "Produce", "0"), a);
    metrics_on_page(m, look, queue);
    queue_now = -3;
    metric_add(a, 40);
    metric_add(b, 2);
    metric_add(odd, 1);
    metric_add(busy, 1500000);
    metric_observe(latency, 50);
    metric_observe(latency, 51);
    metric_observe(latency, 1000000000);
    const char *s = page(m);
    cr_expect(strstr(s, "# HELP demo_requests_total Requests answered.\n# TYPE demo_requests_total counter\n"
                        "demo_requests_total{api=\"Produce\",code=\"0\"} 42\n"));
    cr_expect(strstr(s, "demo_requests_total{api=\"a\\\"\\\\\\n??\xc3\xa4\",code=\"7\"} 1\n"), "%s", s);
    cr_expect(strstr(s, "\ndemo_queue -3\n"));
    cr_expect(strstr(s, "\ndemo_busy_seconds_total 1.5\n"));
    cr_expect(strstr(s, "demo_latency_seconds_bucket{api=\"Fetch\",le=\"5e-05\"} 1\n"
                        "demo_latency_seconds_bucket{api=\"Fetch\",le=\"0.0001\"} 2\n"));
    cr_expect(strstr(s, "demo_latency_seconds_bucket{api=\"Fetch\",le=\"300\"} 2\n"
                        "demo_latency_seconds_bucket{api=\"Fetch\",le=\"+Inf\"} 3\n"
                        "demo_latency_seconds_sum{api=\"Fetch\"} 1000.000101\n"
                        "demo_latency_seconds_count{api=\"Fetch\"} 3\n"));
    cr_expect(strstr(s, "\nprocess_resident_memory_bytes "));
    cr_expect_null(strstr(s, "process_resident_memory_bytes 0\n"));
    cr_expect_null(strstr(s, "process_open_fds 0\n"));
    cr_expect_null(strstr(s, "\"other\""));
    cr_expect_eq(metrics_value(m, M_demo_requests_total, "Produce", "0"), 42);
    cr_expect_eq(metrics_value(m, M_demo_requests_total, "None", "0"), 0);
    cr_expect_eq(metrics_value(m, M_demo_queue), -3);
    metrics_destroy(m);
}

Test(metrics, a_series_leaves_with_its_last_holder)
{
    struct metrics *m = metrics_create(rows, DEMO_METRICS, 1);
    struct metric_cell *a = metrics_cell(m, 0, M_demo_requests_total, "Produce", "0");
    struct metric_cell *b = metrics_cell(m, 0, M_demo_requests_total, "Produce", "0");
    metric_add(a, 5);
    metrics_release(m, a);
    cr_expect_eq(metrics_value(m, M_demo_requests_total, "Produce", "0"), 5);
    metrics_release(m, b);
    cr_expect_eq(metrics_value(m, M_demo_requests_total, "Produce", "0"), 0);
    cr_expect_null(strstr(page(m), "Produce"));
    metrics_release(m, NULL);
    metrics_destroy(m);
    metrics_destroy(NULL);
}

Test(metrics, label_sets_are_bounded)
{
    struct metrics *m = metrics_create(rows, DEMO_METRICS, 1);
    char name[32];
    for (int i = 0; i < METRIC_SERIES_MAX + 10; i++) {
        snprintf(name, sizeof name, "%d", i);
        metric_add(metrics_cell(m, 0, M_demo_requests_total, name, "0"), 1);
    }
    struct buf b;
    buf_init(&b, 10 << 20);
    metrics_page(m, &b);
    buf_put_u8(&b, 0);
    cr_expect(strstr((char *)b.p, "demo_requests_total{api=\"other\",code=\"other\"} 10\n"));
    buf_fini(&b);
    metrics_destroy(m);
}

Test(metrics, lint_finds_bad_rows)
{
    struct err err = {0};
    size_t n;
    const struct metric_row *process = metrics_process_rows(&n);
    cr_expect_eq(metrics_lint(rows, DEMO_METRICS, &err), 0, "%s", err.text);
    cr_expect_eq(metrics_lint(process, n, &err), 0, "%s", err.text);
    static const struct metric_row bad[] = {
        {"9a", METRIC_GAUGE, "x", "", "h"},         {"a-b", METRIC_GAUGE, "x", "", "h"},
        {"a", METRIC_COUNTER, "x", "", "h"},        {"a_total", METRIC_GAUGE, "x", "", "h"},
        {"a", METRIC_GAUGE, "x", "b,,c", "h"},      {"a", METRIC_GAUGE, "x", "le", "h"},
        {"a", METRIC_GAUGE, "x", "a,b,c,d,e", "h"}, {"a", METRIC_GAUGE, "x", "", ""},
        {"a", METRIC_GAUGE, "", "", "h"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(metrics_lint(&bad[i], 1, &err), -E_INVALID, "row %zu", i);
    struct metric_row twice[] = {rows[1], rows[1]};
    cr_expect_eq(metrics_lint(twice, 2, &err), -E_EXISTS);
}
