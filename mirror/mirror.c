#include "mirror/mirror.h"

#include <assert.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/core/jsonw.h"
#include "base/runtime/admin_http.h"
#include "base/runtime/log.h"
#include "base/runtime/signals.h"
#include "base/world/thread.h"
#include "base/world/clock.h"
#include "base/world/disk_posix.h"
#include "base/world/net_posix.h"
#include "mirror/flow/flow.h"
#include "mirror/metrics.h"
#include "mirror/options.h"
#include "mirror/route/pattern.h"

#define AREA        "mirror"
#define STATUS_MAX  ((size_t)128 << 20)
#define JOB_THREADS 4
#define SUMMARY_US  INT64_C(60000000)

/* A flow and the thread it lives on. */
struct flow_thread {
    struct mirror *mirror;
    const struct mirror_flow *flow;
    unsigned index;
    bool heartbeats_back;
    pthread_t thread;
    bool started;
    sem_t ready; /* its loop is there, or it has failed */
    int status;
    struct err err;
    struct loop_posix *loop;
    struct net *net;
    struct flow *running;
    struct loop_msg stop, stopped, misconfigured;
    char misconfigured_line[ERR_TEXT_MAX];
    bool told;
    bool ended; /* main thread: its `stopped` has come */
};

struct mirror {
    struct props props;
    struct mirror_config config;
    bool configured, own_read;
    struct mirror_options own;
    struct disk *disk;
    struct store *store;
    struct metrics *metrics;
    struct metric_cell *store_bytes, *store_commits;
    int64_t commits_counted;
    struct job_pool *jobs;
    struct loop_posix *loop;
    struct net *net;
    struct admin_http *admin;
    struct signals *signals;
    struct loop_timer end, first, summary;
    struct flow_thread *flows;
    unsigned flows_n, running;
    int64_t start_us;
    bool settled, stopping; /* settled: the start has succeeded, log lines are no longer held back */
    int status;
    struct err err;
};

/* ---- one flow's thread ---- */

static void thread_stopped(void *arg)
{
    struct flow_thread *t = arg;
    loop_stop(loop_posix_loop(t->loop));
}

static void thread_stop(struct loop_msg *msg)
{
    struct flow_thread *t = LIST_ENTRY(msg, struct flow_thread, stop);
    struct flow *f = t->running;
    flow_stop(f, MIRROR_DRAIN_MS, thread_stopped, t);
}

static void misconfigured_on_main(struct loop_msg *msg);

static void thread_misconfigured(void *arg, const char *line)
{
    struct flow_thread *t = arg;
    if (t->told)
        return;
    t->told = true;
    snprintf(t->misconfigured_line, sizeof t->misconfigured_line, "%s", line);
    t->misconfigured.fn = misconfigured_on_main;
    loop_post(loop_posix_loop(t->mirror->loop), &t->misconfigured);
}

static int thread_build(struct flow_thread *t)
{
    struct mirror *m = t->mirror;
    struct loop_posix_options lo = {.jobs = m->jobs};
    int rc = loop_posix_create(&lo, &t->loop, &t->err);
    if (!rc)
        rc = net_posix_create(t->loop, NULL, &t->net, &t->err);
    struct flow_setup setup = {.loop = rc ? NULL : loop_posix_loop(t->loop),
                               .net = t->net,
                               .store = m->store,
                               .lane = t->index,
                               .config = &m->config,
                               .flow = t->flow,
                               .memory_bytes =
                                   (size_t)m->own.memory_max_bytes / (m->flows_n ? m->flows_n : 1),
                               .port_create = port_record_create,
                               .batch_port_create = port_client_create,
                               .metrics = m->metrics,
                               .heartbeats_back = t->heartbeats_back,
                               .misconfigured = thread_misconfigured,
                               .arg = t};
    if (!rc)
        rc = flow_create(&setup, &t->running, &t->err);
    return rc;
}

static void stopped_on_main(struct loop_msg *msg)
{
    struct flow_thread *t = LIST_ENTRY(msg, struct flow_thread, stopped);
    struct mirror *m = t->mirror;
    t->ended = true;
    assert(m->running > 0);
    if (--m->running == 0)
        loop_stop(loop_posix_loop(m->loop));
}

static void thread_main(void *arg)
{
    struct flow_thread *t = arg;
    t->status = thread_build(t);
    int status = t->status;
    sem_post(&t->ready);
    if (!status)
        loop_posix_run(t->loop);
    if (t->net)
        net_posix_destroy(t->net);
    if (t->loop)
        loop_posix_destroy(t->loop);
    if (!status) {
        t->stopped.fn = stopped_on_main;
        loop_post(loop_posix_loop(t->mirror->loop), &t->stopped);
    }
}

/* ---- the admin port ---- */

static bool healthy(struct mirror *m, struct buf *why)
{
    bool all = true;
    for (unsigned i = 0; i < m->flows_n; i++) {
        struct flow_snapshot s = {0};
        if (!m->stopping) /* then a flow may be gone at any moment */
            flow_snapshot(m->flows[i].running, &s, NULL);
        if (s.serving)
            continue;
        all = false;
        buf_printf(why, "%s: %s\n", m->flows[i].flow->name, m->stopping ? "stopping" : s.reason);
    }
    return all;
}

static void reply_health(void *arg, struct admin_reply *r)
{
    struct buf why;
    buf_init(&why, 65536);
    bool yes = healthy(arg, &why);
    r->status = yes ? 200 : 503;
    if (yes)
        buf_printf(&r->body, "ok\n");
    else
        buf_put(&r->body, why.p, why.n);
    buf_fini(&why);
}

static void write_status(struct mirror *m, struct buf *to)
{
    struct jsonw j;
    struct buf head;
    buf_init(&head, 65536);
    jsonw_init(&j, &head);
    jsonw_object(&j);
    jsonw_put_str(&j, "program", "sundog-mirror");
    jsonw_put_str(&j, "store", m->own.store_dir);
    jsonw_put_int(&j, "uptime_seconds", (clock_now_us() - m->start_us) / 1000000);
    jsonw_end(&j);
    /* The flows wrote their objects themselves: they are put in before the closing brace. */
    buf_put(to, head.p, head.n - 1);
    buf_printf(to, ",\"flows\":[");
    for (unsigned i = 0; i < m->flows_n; i++) {
        struct flow_snapshot s;
        if (i)
            buf_put_u8(to, ',');
        if (!m->stopping)
            flow_snapshot(m->flows[i].running, &s, to);
        else
            buf_printf(to, "{}");
    }
    buf_printf(to, "]}");
    buf_fini(&head);
}

static void reply_status(void *arg, struct admin_reply *r)
{
    write_status(arg, &r->body);
    buf_put_u8(&r->body, '\n');
}

static void reply_metrics(void *arg, struct admin_reply *r)
{
    metrics_page(((struct mirror *)arg)->metrics, &r->body);
}

static void reply_page(void *arg, struct admin_reply *r)
{
    struct buf status;
    buf_init(&status, STATUS_MAX);
    write_status(arg, &status);
    mirror_page((const char *)buf_slice(&status).p, status.n, &r->body);
    buf_fini(&status);
}

static const struct admin_route routes[] = {
    {"/healthz", "text/plain; charset=utf-8", reply_health},
    {"/status", "application/json", reply_status},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", reply_metrics},
    {"/", "text/html; charset=utf-8", reply_page},
};

static void on_metrics_page(void *arg)
{
    struct mirror *m = arg;
    int64_t commits = (int64_t)store_commits(m->store);
    metric_set(m->store_bytes, (int64_t)store_bytes(m->store));
    metric_add(m->store_commits, commits - m->commits_counted);
    m->commits_counted = commits;
}

static int open_admin(struct mirror *m, struct err *err)
{
    char host[ADMIN_HOST_MAX];
    struct admin_options o = {.net = m->net,
                              .host = host,
                              .anywhere = m->own.insecure,
                              .routes = routes,
                              .routes_n = sizeof routes / sizeof *routes,
                              .arg = m};
    if (!m->own.admin_listener || !*m->own.admin_listener)
        return 0;
    int rc = admin_listener_parse(m->own.admin_listener, host, &o.port, err);
    if (!rc)
        rc = admin_http_create(&o, &m->admin, err); /* its errors name the key */
    return rc;
}

/* ---- signals and the end ---- */

static void end_now(void *arg)
{
    (void)arg;
    log_warn(AREA, "not everything has ended in time: what is in flight is found out by the next start");
    log_summarize();
    _exit(0);
}

static void stop_all(struct mirror *m)
{
    if (m->stopping)
        return;
    m->stopping = true;
    loop_timer_in(&m->end, MIRROR_END_MS * INT64_C(1000));
    for (unsigned i = 0; i < m->flows_n; i++) {
        struct flow_thread *t = &m->flows[i];
        t->stop.fn = thread_stop;
        if (t->running)
            loop_post(loop_posix_loop(t->loop), &t->stop);
    }
    if (m->running == 0)
        loop_stop(loop_posix_loop(m->loop));
}

static void on_signal(void *arg, int signo)
{
    struct mirror *m = arg;
    if (signo == SIGHUP)
        return; /* nothing is reloaded while running */
    log_info(AREA, "signal %d: draining", signo);
    stop_all(m);
}

static void start_settled(void *arg)
{
    struct mirror *m = arg;
    m->settled = true;
    log_release();
}

static void misconfigured_on_main(struct loop_msg *msg)
{
    struct flow_thread *t = LIST_ENTRY(msg, struct flow_thread, misconfigured);
    struct mirror *m = t->mirror;
    if (m->settled)
        return; /* the flow has halted and says why; the others go on */
    m->status = err_set(&m->err, -E_CONFIG, "%s", t->misconfigured_line);
    stop_all(m);
}

static void summarize(void *arg)
{
    struct mirror *m = arg;
    log_summarize();
    /* Free pages between those in use stay resident otherwise: batches and frames come in all sizes. */
    malloc_trim(0);
    loop_timer_in(&m->summary, SUMMARY_US);
}

/* ---- opening ---- */

static void warn_line(void *arg, const char *text)
{
    (void)arg;
    log_warn(AREA, "configuration: %s", text);
}

static int read_props(struct mirror *m, const struct mirror_arguments *a, struct err *err)
{
    int rc = props_load(&m->props, m->disk, a->file, err);
    for (size_t i = 0; i < a->settings_n && !rc; i++)
        rc = props_argument(&m->props, a->settings[i], err);
    if (rc)
        return rc;
    struct config_warnings w = {.line = warn_line};
    rc = mirror_config_read(&m->props, a->targets, a->targets_n, &mirror_option_table, &w, &m->config, err);
    if (rc)
        return rc;
    m->configured = true;
    const char *alias = a->targets_n == 1 ? a->targets[0] : mirror_config_only_target(&m->config);
    rc = mirror_config_own(&m->props, &mirror_option_table, alias, &m->own, err);
    m->own_read = rc == 0;
    return rc;
}

static int check_list(const char *flow, const char *key, const struct option_list *l, struct err *err)
{
    struct pattern *p;
    int rc = pattern_compile((const char *const *)l->item, l->n, &p, err);
    if (rc) {
        err_wrap(err, "%s (flow %s)", key, flow);
        return rc;
    }
    pattern_destroy(p);
    return 0;
}

/* Expressions are read when a flow starts; a wrong one is the file's fault and said before. */
static int check_lists(struct mirror *m, struct err *err)
{
    for (int i = 0; i < m->config.flows_n; i++) {
        const struct mirror_flow *f = &m->config.flows[i];
        int rc;
        if ((rc = check_list(f->name, "topics", &f->o.topics, err)) ||
            (rc = check_list(f->name, "topics.exclude", &f->o.topics_exclude, err)) ||
            (rc = check_list(f->name, "groups", &f->o.groups, err)) ||
            (rc = check_list(f->name, "groups.exclude", &f->o.groups_exclude, err)) ||
            (rc = check_list(f->name, "config.properties.exclude", &f->o.config_exclude, err)) ||
            (rc = check_list(f->name, "sundog.engine.record.topics", &f->o.engine_record, err)) ||
            (rc = check_list(f->name, "sundog.engine.batch.topics", &f->o.engine_batch, err)))
            return rc;
    }
    return 0;
}

static void setup_log(const struct mirror *m)
{
    enum log_format format = LOG_TEXT;
    enum log_level level = LOG_INFO;
    log_format_parse(m->own.log_format, &format); /* the options' rows allow nothing else */
    log_level_parse(m->own.log_level, &level);
    log_setup(format, level);
}

static int open_store(struct mirror *m, struct err *err)
{
    struct store_options o = {.path = m->own.store_dir, .mode = STORE_DAEMON, .disk = m->disk};
    int rc = store_open(&o, &m->store, err);
    if (rc)
        return err_wrap(err, "sundog.store.dir");
    m->metrics = metrics_create(mirror_metric_rows, MIRROR_METRICS, 1);
    if (!m->metrics)
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    m->store_bytes = metrics_cell(m->metrics, 0, M_sundog_mirror_store_bytes);
    m->store_commits = metrics_cell(m->metrics, 0, M_sundog_mirror_store_commits_total);
    metrics_on_page(m->metrics, on_metrics_page, m);
    return 0;
}

static int open_loop(struct mirror *m, struct err *err)
{
    int rc = job_pool_create(JOB_THREADS, &m->jobs, err);
    struct loop_posix_options o = {.jobs = m->jobs};
    if (!rc)
        rc = loop_posix_create(&o, &m->loop, err);
    if (!rc)
        rc = net_posix_create(m->loop, NULL, &m->net, err);
    if (!rc)
        rc = signals_watch(m->loop, on_signal, m, &m->signals, err);
    if (rc)
        return rc;
    struct loop *l = loop_posix_loop(m->loop);
    loop_timer_init(&m->end, l, end_now, m);
    loop_timer_init(&m->first, l, start_settled, m);
    loop_timer_init(&m->summary, l, summarize, m);
    return open_admin(m, err);
}

/* MM2 has a worker for every ordered pair; where the reverse flow is not served here, its heartbeats are ours to
 * write. */
static bool heartbeats_back(const struct mirror *m, const struct mirror_flow *f)
{
    for (int i = 0; i < m->config.flows_n; i++) {
        const struct mirror_flow *back = &m->config.flows[i];
        if (back->source == f->target && back->target == f->source)
            return !back->served && back->o.emit_heartbeats;
    }
    return false;
}

static int start_flows(struct mirror *m, struct err *err)
{
    unsigned n = 0;
    for (int i = 0; i < m->config.flows_n; i++)
        n += m->config.flows[i].served;
    m->flows = calloc(n ? n : 1, sizeof *m->flows);
    if (!m->flows)
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    m->flows_n = n;
    n = 0;
    for (int i = 0; i < m->config.flows_n; i++) {
        const struct mirror_flow *f = &m->config.flows[i];
        if (!f->served)
            continue;
        struct flow_thread *t = &m->flows[n];
        *t = (struct flow_thread){
            .mirror = m, .flow = f, .index = n, .heartbeats_back = heartbeats_back(m, f)};
        n++;
        sem_init(&t->ready, 0, 0);
        int rc = thread_start(&t->thread, f->name, thread_main, t, err);
        if (rc)
            return rc;
        t->started = true;
        while (sem_wait(&t->ready))
            ;
        if (t->status) {
            *err = t->err;
            return err_wrap(err, "flow %s", f->name);
        }
        m->running++;
    }
    if (n == 0)
        log_warn(AREA, "no flow is enabled for these clusters: set A->B.enabled = true");
    return 0;
}

int mirror_open(const struct mirror_arguments *a, struct mirror **out, struct err *err)
{
    struct mirror *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    m->start_us = clock_now_us();
    props_init(&m->props);
    int rc = (m->disk = disk_posix_create()) ? 0 : err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    if (!rc && ((rc = read_props(m, a, err)) || (rc = check_lists(m, err)))) {
        /* All of it is the operator's file or command line: usage. */
        mirror_close(m);
        return rc == -E_NOMEM ? rc : -E_CONFIG;
    }
    if (!rc) {
        setup_log(m);
        rc = open_store(m, err);
    }
    if (!rc)
        rc = open_loop(m, err);
    if (!rc)
        rc = start_flows(m, err);
    if (rc) {
        mirror_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

int mirror_run(struct mirror *m, struct err *err)
{
    loop_timer_in(&m->first, m->flows_n ? MIRROR_FIRST_MS * INT64_C(1000) : 0);
    loop_timer_in(&m->summary, SUMMARY_US);
    log_info(AREA, "mirror runs flows=%u store=%s", m->flows_n, m->own.store_dir);
    loop_posix_run(m->loop);
    if (!m->status) {
        log_info(AREA, "mirror ends");
        start_settled(m);
        log_summarize();
    }
    *err = m->err;
    return m->status;
}

static void stop_threads(struct mirror *m)
{
    for (unsigned i = 0; i < m->flows_n; i++) {
        struct flow_thread *t = &m->flows[i];
        if (!t->started)
            continue;
        if (t->running && !t->ended && !m->stopping) {
            t->stop.fn = thread_stop; /* a start that failed half-way */
            loop_post(loop_posix_loop(t->loop), &t->stop);
        }
        thread_join(t->thread);
        sem_destroy(&t->ready);
    }
}

void mirror_close(struct mirror *m)
{
    if (!m)
        return;
    stop_threads(m);
    admin_http_destroy(m->admin);
    if (m->signals)
        signals_close(m->signals);
    if (m->loop) {
        loop_timer_stop(&m->end);
        loop_timer_stop(&m->first);
        loop_timer_stop(&m->summary);
    }
    if (m->net)
        net_posix_destroy(m->net);
    if (m->loop)
        loop_posix_destroy(m->loop);
    if (m->jobs)
        job_pool_destroy(m->jobs);
    store_close(m->store);
    if (m->metrics)
        metrics_destroy(m->metrics);
    if (m->own_read)
        options_fini(&mirror_option_table, &m->own);
    if (m->configured)
        mirror_config_fini(&m->config);
    props_fini(&m->props);
    if (m->disk)
        disk_posix_destroy(m->disk);
    free(m->flows);
    free(m);
}
