#include "broker/daemon.h"

#include "base/runtime/log.h"
#include "base/runtime/signals.h"
#include "base/world/loop_posix.h"
#include "base/world/net_posix.h"
#include "base/world/process.h"
#include "base/world/thread.h"
#include "broker/settle.h"

#include <assert.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <unistd.h>

#define PROGRAM     "sundog-broker"
#define SHARDS_MAX  64
#define SHUTDOWN_US INT64_C(9500000)
#define SUMMARY_US  INT64_C(60000000)
/* Descriptors that connections leave to files: an eighth, this many at most. */
#define FDS_FOR_FILES 512
/* Larger buffers are the system's own again once they are free. glibc raises its threshold with each one that is
 * freed, up to 32 MiB, and the holes between them stay resident beyond the budget. */
#define MAPPED_FROM (256 << 10)

struct daemon {
    struct job_pool *jobs;
    unsigned shards, threads; /* loops made, threads running */
    struct loop_posix *posix[SHARDS_MAX];
    struct loop *loops[SHARDS_MAX];
    struct net *nets[SHARDS_MAX];
    pthread_t thread[SHARDS_MAX];
    struct signals *signals;
    struct broker *broker;
    struct loop_timer overdue, summary;
    bool stopping;
    int code;
};

static void complain(void *arg, const char *text)
{
    (void)arg;
    log_warn("broker.net", "%s", text);
}

static void refused(void *arg)
{
    const struct daemon *d = arg;
    if (d->broker)
        broker_refused(d->broker, "no file descriptors left");
}

static int make_world(struct daemon *d, unsigned shards, int64_t fds, struct err *err)
{
    assert(shards > 0);
    assert(shards <= SHARDS_MAX);
    int64_t kept = fds / 8 < FDS_FOR_FILES ? fds / 8 : FDS_FOR_FILES;
    const struct net_posix_options net = {.complain = complain,
                                          .refused = refused,
                                          .arg = d,
                                          .accept_below = fds < INT32_MAX ? (int)(fds - kept) : 0};
    int rc = job_pool_create(JOB_LANES, &d->jobs, err);
    for (unsigned i = 0; !rc && i < shards; i++) {
        rc = loop_posix_create(&(struct loop_posix_options){.jobs = d->jobs}, &d->posix[i], err);
        if (rc)
            break;
        d->shards = i + 1;
        d->loops[i] = loop_posix_loop(d->posix[i]);
        rc = net_posix_create(d->posix[i], &net, &d->nets[i], err);
    }
    return rc;
}

static void end_world(struct daemon *d)
{
    for (unsigned i = 0; i < d->shards; i++) {
        if (d->nets[i])
            net_posix_destroy(d->nets[i]);
        loop_posix_destroy(d->posix[i]);
    }
    if (d->jobs)
        job_pool_destroy(d->jobs);
}

static void on_overdue(void *arg)
{
    (void)arg;
    log_error("broker", "shutdown took too long; logs will be recovered at the next start");
    _exit(1); /* threads may hang in the disk: there is no orderly way left */
}

static void on_summary(void *arg)
{
    struct daemon *d = arg;
    log_summarize();
    loop_timer_in(&d->summary, SUMMARY_US);
}

static void on_stopped(void *arg)
{
    struct daemon *d = arg;
    assert(d->stopping);
    loop_timer_stop(&d->overdue);
    loop_timer_stop(&d->summary);
    for (unsigned i = 0; i < d->shards; i++)
        loop_posix_stop(d->posix[i]);
}

static void stop(struct daemon *d)
{
    if (d->stopping)
        return;
    assert(d->broker); /* nobody asks before the loops run */
    d->stopping = true;
    loop_timer_in(&d->overdue, SHUTDOWN_US);
    broker_stop(d->broker, on_stopped, d);
}

static void on_signal(void *arg, int signo)
{
    struct daemon *d = arg;
    if (signo == SIGHUP)
        return;
    log_info("broker", "shutting down signal=%d", signo);
    stop(d);
}

static void on_failed(void *arg, const char *why)
{
    struct daemon *d = arg;
    log_error("broker", "the broker cannot go on: %s", why);
    d->code = 1;
    stop(d);
}

static void run_loop(void *arg)
{
    loop_posix_run(arg);
}

static int start_threads(struct daemon *d, struct err *err)
{
    int rc = 0;
    for (unsigned i = 1; !rc && i < d->shards; i++) {
        char name[32];
        snprintf(name, sizeof name, "shard-%u", i);
        rc = thread_start(&d->thread[i], name, run_loop, d->posix[i], err);
        d->threads += !rc;
    }
    return rc;
}

static void run(struct daemon *d)
{
    assert(d->shards > 0);
    assert(d->threads == d->shards - 1);
    loop_timer_init(&d->overdue, d->loops[0], on_overdue, d);
    loop_timer_init(&d->summary, d->loops[0], on_summary, d);
    loop_timer_in(&d->summary, SUMMARY_US);
    log_release();
    loop_posix_run(d->posix[0]);
    for (unsigned i = 1; i <= d->threads; i++)
        thread_join(d->thread[i]);
}

int daemon_run(struct disk *disk, const struct broker_options *options)
{
    struct daemon d = {0};
    struct err err = {0};
    mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
    int64_t fds = process_raise_fds();
    unsigned shards = settle_shards(options, process_cpus());
    int rc = make_world(&d, shards < SHARDS_MAX ? shards : SHARDS_MAX, fds, &err);
    const struct broker_world w = {.shards = d.shards,
                                   .loops = d.loops,
                                   .nets = d.nets,
                                   .disk = disk,
                                   .fds = fds,
                                   .failed = on_failed,
                                   .arg = &d};
    if (!rc)
        rc = signals_watch(d.posix[0], on_signal, &d, &d.signals, &err);
    if (!rc)
        rc = broker_create(&w, options, &d.broker, &err);
    if (!rc)
        rc = broker_start(d.broker, &err);
    if (!rc)
        rc = start_threads(&d, &err);
    if (!rc)
        run(&d);
    else
        log_fatal_line(PROGRAM, "%s", err.text);
    if (!rc && broker_destroy(d.broker))
        d.code = 1;
    signals_close(d.signals);
    if (rc) /* what was half built goes with the process */
        return rc == -E_CONFIG ? 2 : 1;
    end_world(&d);
    return d.code;
}
