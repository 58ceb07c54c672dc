/* The appender against a real broker: appender_probe BOOTSTRAP TOPIC RECORDS PROGRESS-FILE FIRST-TIMESTAMP-MS [BYTES]
 * appends a source that it makes up (record i has offset 1000+i) to partition 0, from the progress in the file on, and
 * ends when all is acknowledged. Killed and started again, as often as one likes, it must leave each record there once
 * and in order: tests/interop/appender looks. Prints one JSON line. */
#include "base/world/loop_posix.h"
#include "base/world/net_posix.h"
#include "mirror/target/appender.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define SOURCE_START 1000
#define SAVE_US      (50 * 1000)
#define FEED         2000

struct probe {
    struct loop_posix *posix;
    struct loop *loop;
    struct net *net;
    struct client *client;
    struct appender *appender;
    struct appender_budget *budget;
    struct appender_guard guard;
    struct loop_timer save, feed;
    const char *topic, *file;
    int64_t records, first_ms, at, started_us;
    size_t bytes;
    char *value;
    int64_t producer_id;
    int16_t epoch;
    struct appender_point point;
    struct appender_progress saved;
    bool reading, done;
    int reads;
};

static void fail(const char *what)
{
    fprintf(stderr, "appender_probe: %s\n", what);
    exit(1);
}

static void write_progress(struct probe *p, const struct appender_progress *a)
{
    char tmp[600];
    snprintf(tmp, sizeof tmp, "%s.new", p->file);
    FILE *f = fopen(tmp, "w");
    const struct appender_point *q = &a->points[0];
    if (!f)
        fail("the progress file cannot be written");
    fprintf(f, "%lld %d %lld %lld %d %lld %lld\n", (long long)p->producer_id, p->epoch,
            (long long)q->number_next, (long long)q->end_offset, q->end_epoch, (long long)q->source_next,
            (long long)q->timestamp_max);
    if (fclose(f) || rename(tmp, p->file))
        fail("the progress file cannot be written");
}

static bool read_progress(struct probe *p)
{
    long long id, number, end, source, ts;
    int epoch, end_epoch;
    FILE *f = fopen(p->file, "r");
    p->point = (struct appender_point){.partition = 0, .end_epoch = -1};
    if (!f)
        return false;
    int n = fscanf(f, "%lld %d %lld %lld %d %lld %lld", &id, &epoch, &number, &end, &end_epoch, &source, &ts);
    fclose(f);
    if (n != 7)
        return false;
    p->producer_id = id;
    p->epoch = (int16_t)epoch;
    p->point = (struct appender_point){0, number >= 0, number, end, end_epoch, source, ts, 0};
    return true;
}

static void summary(struct probe *p)
{
    struct appender_counts c;
    struct rusage u;
    appender_counts(p->appender, &c);
    getrusage(RUSAGE_SELF, &u);
    double cpu = (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
                 (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    printf("{\"records\":%llu,\"batches\":%llu,\"resends\":%llu,\"reconciles\":%llu,\"reads\":%d,\"seconds\":"
           "%.3f,"
           "\"cpu_s\":%.3f}\n",
           (unsigned long long)c.records, (unsigned long long)c.batches, (unsigned long long)c.resends,
           (unsigned long long)c.reconciles, p->reads, (double)(loop_now_us(p->loop) - p->started_us) / 1e6,
           cpu);
}

static void on_save(void *arg)
{
    struct probe *p = arg;
    struct appender_progress a;
    appender_progress(p->appender, &a);
    if (a.points[0].known) {
        write_progress(p, &a);
        appender_saved(p->appender);
    }
    if (a.points[0].known && a.source_next == SOURCE_START + p->records) {
        p->done = true;
        loop_stop(p->loop);
        return;
    }
    loop_timer_in(&p->save, SAVE_US);
}

static void on_feed(void *arg)
{
    struct probe *p = arg;
    if (!p->reading || p->at == p->records || !appender_can_take(p->appender))
        return;
    for (int i = 0; i < FEED && p->at < p->records; i++, p->at++) {
        char key[32];
        int n = snprintf(p->value, p->bytes, "v%lld ", (long long)p->at);
        p->value[n] = '.';
        struct port_record r = {.offset = SOURCE_START + p->at,
                                .timestamp_ms = p->first_ms + p->at,
                                .value = slice_of(p->value, p->bytes)};
        r.key = slice_of(key, (size_t)snprintf(key, sizeof key, "k%lld", (long long)(p->at % 97)));
        if (appender_take(p->appender, 0, &r))
            fail("a record was not taken");
    }
    appender_covered(p->appender, SOURCE_START + p->at, 0);
    if (p->at == p->records)
        appender_source_end(p->appender, SOURCE_START + p->at);
    loop_timer_in(&p->feed, 0);
}

static void on_anchor(void *arg, const struct appender_progress *a)
{
    struct probe *p = arg;
    write_progress(p, a);
    appender_anchored(p->appender);
}

static void on_read_from(void *arg, int64_t offset, int32_t epoch)
{
    struct probe *p = arg;
    (void)epoch;
    p->reads++;
    p->at = offset - SOURCE_START;
    p->reading = true;
    appender_reading(p->appender);
    loop_timer_in(&p->feed, 0);
}

static void on_runs(void *arg, const struct appender_run *runs, size_t n)
{
    (void)arg;
    (void)runs;
    (void)n;
}

static void on_state(void *arg, const struct appender_status *s)
{
    struct probe *p = arg;
    if (s->text[0])
        fprintf(stderr, "%s: %s: %s\n", appender_state_name(s->state), appender_reason_name(s->reason),
                s->text);
    if (s->state == APPENDER_HALTED)
        exit(3);
    if (p->reading)
        loop_timer_in(&p->feed, 0);
}

static void on_note(void *arg, const struct appender_note *n)
{
    (void)arg;
    fprintf(stderr, "note %d: number %lld offset %lld count %lld\n", n->kind, (long long)n->number,
            (long long)n->offset, (long long)n->count);
}

static void on_room(void *arg)
{
    on_feed(arg);
}

static const struct appender_events events = {.anchor = on_anchor,
                                              .read_from = on_read_from,
                                              .runs = on_runs,
                                              .state = on_state,
                                              .note = on_note,
                                              .room = on_room};

static void start(struct probe *p)
{
    const struct client_topic *t = client_topic(p->client, slice_str(p->topic));
    struct err err;
    struct appender_options o = {.loop = p->loop,
                                 .client = p->client,
                                 .topic = slice_str(p->topic),
                                 .topic_id = t->id,
                                 .producer_id = p->producer_id,
                                 .producer_epoch = p->epoch,
                                 .codec_level = INT32_MIN,
                                 .budget = p->budget,
                                 .guard = &p->guard,
                                 .points = &p->point,
                                 .points_n = 1,
                                 .source_next = p->point.known ? p->point.source_next : SOURCE_START,
                                 .fresh_needs_empty = true,
                                 .events = &events,
                                 .arg = p};
    if (appender_create(&o, &p->appender, &err))
        fail(err.text);
    loop_timer_in(&p->save, SAVE_US);
}

static void got_id(void *arg, int status, int64_t id, int16_t epoch, const struct err *err)
{
    struct probe *p = arg;
    if (status)
        fail(err->text);
    p->producer_id = id;
    p->epoch = epoch;
    start(p);
}

static void on_metadata(void *arg)
{
    struct probe *p = arg;
    const struct client_topic *t = client_topic(p->client, slice_str(p->topic));
    if (p->appender || p->producer_id != -1 || !t || t->error != KE_NONE)
        return;
    p->producer_id = -2;
    if (read_progress(p))
        start(p);
    else if (appender_producer_id(p->client, got_id, p))
        fail("no producer id");
}

int main(int argc, char **argv)
{
    struct probe p = {.producer_id = -1};
    struct err err = {0};
    struct client_watch watch = {.changed = on_metadata, .arg = &p};
    if (argc < 6)
        fail("BOOTSTRAP TOPIC RECORDS PROGRESS-FILE FIRST-TIMESTAMP-MS [BYTES]");
    p.topic = argv[2];
    p.records = strtoll(argv[3], NULL, 10);
    p.file = argv[4];
    p.first_ms = strtoll(argv[5], NULL, 10);
    p.bytes = argc > 6 ? (size_t)strtoul(argv[6], NULL, 10) : 100;
    p.value = malloc(p.bytes);
    memset(p.value, '.', p.bytes);
    p.budget = appender_budget_create((size_t)64 << 20);
    struct job_pool *jobs = NULL;
    if (job_pool_create(1, &jobs, &err) ||
        loop_posix_create(&(struct loop_posix_options){.jobs = jobs}, &p.posix, &err))
        fail(err.text);
    p.loop = loop_posix_loop(p.posix);
    p.started_us = loop_now_us(p.loop);
    if (net_posix_create(p.posix, &(struct net_posix_options){0}, &p.net, &err) ||
        client_create(p.loop, p.net, &(struct client_options){.bootstrap = argv[1]}, &p.client, &err))
        fail(err.text);
    loop_timer_init(&p.save, p.loop, on_save, &p);
    loop_timer_init(&p.feed, p.loop, on_feed, &p);
    client_watch_add(p.client, &watch);
    client_topic_follow(p.client, slice_str(p.topic));
    appender_guard_refresh(p.client, &p.guard, NULL, NULL);
    loop_posix_run(p.posix);
    summary(&p);
    appender_destroy(p.appender);
    client_destroy(p.client);
    appender_budget_destroy(p.budget);
    net_posix_destroy(p.net);
    loop_posix_destroy(p.posix);
    job_pool_destroy(jobs);
    free(p.value);
    return p.done ? 0 : 1;
}
