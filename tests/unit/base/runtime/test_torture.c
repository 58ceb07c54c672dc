/* Memory that runs out, at every allocation in turn: an error or a full answer, no leak, no crash. */
#include "base/core/arena.h"
#include "base/core/buf.h"
#include "base/core/hash.h"
#include "base/core/jsonw.h"
#include "base/runtime/admin_http.h"
#include "base/runtime/metrics.h"
#include "base/runtime/options.h"
#include "base/runtime/signals.h"
#include "base/world/disk_posix.h"
#include "base/world/net_posix.h"
#include "tests/support/heap.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROWS                                                                                                 \
    OPTION("listeners", LIST, listeners, OPTION_REQUIRED, 1, 10, "", FIXED, "Where to listen.")              \
    OPTION("rack", STRING, rack, "a", 0, 5, "", FIXED, "Where it stands.")                                   \
    OPTION("secret", PASSWORD, secret, NULL, 0, 64, "", FIXED, "What nobody may see.")

struct demo {
#define OPTION OPTION_FIELD
    ROWS
#undef OPTION
};
static const struct option_row option_rows[] = {
#define OPTION(...) OPTION_ROW(struct demo, __VA_ARGS__)
    ROWS
#undef OPTION
};
static const struct option_table table = OPTION_TABLE("demo", option_rows, struct demo);

static void run_options(void *arg)
{
    struct props p;
    struct demo d;
    struct err err = {0};
    props_init(&p);
    int rc = props_parse(&p, SLICE_LIT("listeners=a,b,c,d,e\nsecret=x\nrack=1\nrack=2\n"), "f", &err);
    if (rc == 0)
        rc = props_argument(&p, "rack=z", &err);
    if (rc == 0)
        rc = options_apply(&table, &p, &d, &err);
    if (rc == 0) {
        cr_expect(d.listeners.n == 5 && strcmp(d.rack, "z") == 0);
        struct buf shown;
        buf_init(&shown, 10000);
        options_help(&table, &shown);
        options_print(&option_rows[0], &d, &shown);
        buf_fini(&shown);
        options_fini(&table, &d);
    } else {
        cr_expect(err.text[0], "an error says what it is");
    }
    cr_expect(rc == 0 || heap_has_failed());
    props_fini(&p);
    (void)arg;
}

static const struct metric_row metric_rows[] = {
    {"a_total", METRIC_COUNTER, "x", "name", "h"},
    {"b_seconds", METRIC_HISTOGRAM, "seconds", "name", "h"},
};

static void run_metrics(void *arg)
{
    struct metrics *m = metrics_create(metric_rows, 2, 2);
    if (!m)
        return;
    for (unsigned i = 0; i < 30; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        metric_add(metrics_cell(m, i % 2, 0, name), 1);
        struct metric_cell *c = metrics_cell(m, i % 2, 1, name);
        metric_observe(c, i);
        metrics_release(m, c);
    }
    struct buf page;
    buf_init(&page, 1 << 20);
    metrics_page(m, &page);
    cr_expect(!page.failed || heap_has_failed());
    buf_fini(&page);
    metrics_destroy(m);
    (void)arg;
}

static void fill(void *arg, struct admin_reply *r)
{
    (void)arg;
    struct jsonw j;
    jsonw_init(&j, &r->body);
    jsonw_object(&j);
    jsonw_put_str(&j, "status", "ok");
    jsonw_end(&j);
}

static void nothing(void *arg)
{
    (void)arg;
}

static void failed(void *arg, int code)
{
    (void)arg;
    (void)code;
}

static const struct net_conn_events events = {nothing, nothing, nothing, failed};

static void on_signal(void *arg, int signo)
{
    (void)arg;
    (void)signo;
}

static void run_turns(struct loop_posix *lp, struct net *net)
{
    static const struct admin_route route = {"/", "application/json", fill};
    struct admin_options o = {.net = net, .host = "127.0.0.1", .routes = &route, .routes_n = 1};
    struct admin_http *a = NULL;
    struct signals *s = NULL;
    struct net_conn *c = NULL, *named = NULL;
    struct err err = {0};
    if (signals_watch(lp, on_signal, NULL, &s, &err) != 0)
        cr_expect(err.text[0]);
    if (admin_http_create(&o, &a, &err) == 0 &&
        net_connect(net, "127.0.0.1", admin_http_port(a), &events, NULL, &c, &err) == 0) {
        if (net_connect(net, "localhost", admin_http_port(a), &events, NULL, &named, &err) != 0)
            named = NULL;
        for (int i = 0; i < 3; i++)
            loop_posix_turn(lp, 2000);
        struct iovec v = {"GET / HTTP/1.0\r\n\r\n", 18};
        net_writev(c, &v, 1);
        for (int i = 0; i < 3; i++)
            loop_posix_turn(lp, 2000);
    }
    net_close(c);
    net_close(named);
    admin_http_destroy(a);
    signals_close(s);
}

static void run_world(void *arg)
{
    struct loop_posix *lp = NULL;
    struct job_pool *jobs = NULL;
    struct net *net = NULL;
    struct err err = {0};
    int rc = job_pool_create(4, &jobs, &err);
    if (rc == 0)
        rc = loop_posix_create(&(struct loop_posix_options){.jobs = jobs}, &lp, &err);
    if (rc == 0)
        rc = net_posix_create(lp, NULL, &net, &err);
    if (rc == 0)
        run_turns(lp, net);
    cr_expect(rc == 0 || (heap_has_failed() && err.text[0]));
    net_posix_destroy(net);
    loop_posix_destroy(lp);
    job_pool_destroy(jobs);
    (void)arg;
}

static void run_disk(void *arg)
{
    struct disk *d = disk_posix_create();
    struct err err = {0};
    struct slice s;
    char path[300];
    snprintf(path, sizeof path, "%s/x/y", (const char *)arg);
    if (!d)
        return;
    int rc = disk_make_dirs(d, path, &err);
    strcat(path, "/f");
    if (rc == 0)
        rc = disk_replace(d, path, SLICE_LIT("content"), &err);
    if (rc == 0)
        rc = disk_read_all(d, path, 100, &s, &err);
    if (rc == 0)
        free((void *)s.p);
    cr_expect(rc == 0 || heap_has_failed());
    struct disk_file *f;
    if (disk_lock(d, path, &f) == 0)
        disk_close(f);
    rc = disk_remove_tree(d, arg);
    cr_expect(rc == 0 || heap_has_failed());
    disk_posix_destroy(d);
}

Test(torture, options_without_memory)
{
    cr_expect_gt(heap_torture(run_options, NULL), 30);
}

Test(torture, metrics_without_memory)
{
    cr_expect_gt(heap_torture(run_metrics, NULL), 30);
}

Test(torture, the_world_without_memory)
{
    cr_expect_gt(heap_torture(run_world, NULL), 10);
}

Test(torture, disk_helpers_without_memory)
{
    char top[] = "/tmp/sundog-torture-XXXXXX";
    cr_assert(mkdtemp(top));
    cr_expect_gt(heap_torture(run_disk, top), 5);
    struct disk *d = disk_posix_create();
    disk_remove_tree(d, top);
    disk_posix_destroy(d);
}
