/* A source read to its end: port_probe raw|rdkafka|batches BOOTSTRAP TOPIC [FROM]. One JSON line: records, bytes, a
 * CRC over all of them, the position, and what it cost. The engines must say the same. */
#include "base/core/crc32c.h"
#include "base/world/loop_posix.h"
#include "base/world/net_posix.h"
#include "mirror/port/port.h"
#include "proto/client/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

struct probe {
    struct loop *loop;
    struct port *port;
    struct loop_timer timer;
    int64_t records, bytes, position, disorder, started_us, ended_us, deliveries, batches;
    uint32_t crc;
    bool done, gone;
    const char *event;
    int64_t log_start, log_end; /* as the last event says */
};

static const char *const event_names[] = {"position",  "end",  "out of range", "truncated",
                                          "recreated", "gone", "failed",       "trouble"};

static void on_poll(void *arg)
{
    struct probe *p = arg;
    struct port_delivery d;
    for (int i = 0; i < 64 && !p->done; i++) {
        if (!port_poll(p->port, &d))
            return;
        p->deliveries++;
        for (size_t k = 0; k < d.n && d.what == PORT_RECORDS; k++) {
            const struct port_record *r = &d.records[k];
            p->disorder += r->offset < p->position;
            p->position = r->offset + 1;
            p->records++;
            p->bytes += (int64_t)(r->key.n + r->value.n);
            p->crc = crc32c_more(p->crc, r->key.p, r->key.n);
            p->crc = crc32c_more(p->crc, r->value.p, r->value.n);
            p->crc = crc32c_more(p->crc, &r->timestamp_ms, sizeof r->timestamp_ms);
            p->crc = crc32c_more(p->crc, r->headers.p, r->headers.n);
        }
        for (size_t k = 0; k < d.n && d.what == PORT_BATCHES; k++) {
            p->batches++;
            p->records += d.batches[k].records_n;
            p->bytes += (int64_t)d.batches[k].bytes.n;
        }
        if (d.what == PORT_EVENT && d.event != PORT_POSITION && d.event != PORT_TROUBLE) {
            p->done = true;
            p->event = event_names[d.event];
            p->log_start = d.log_start;
            p->log_end = d.end;
        }
        if (d.what == PORT_EVENT && d.event == PORT_TROUBLE)
            fprintf(stderr, "trouble: %s\n", d.text ? d.text : "");
        p->disorder += d.next_offset < p->position;
        p->position = d.next_offset;
        port_release(p->port, &d);
    }
    if (p->done) {
        p->ended_us = loop_now_us(p->loop);
        loop_stop(p->loop);
    } else {
        loop_timer_in(&p->timer, 0);
    }
}

static void on_ready(void *arg)
{
    struct probe *p = arg;
    if (!p->timer.armed)
        loop_timer_in(&p->timer, 0);
}

static void on_destroyed(void *arg)
{
    struct probe *p = arg;
    p->gone = true;
    loop_stop(p->loop);
}

int main(int argc, char **argv)
{
    struct probe p = {.crc = 0};
    struct err err = {0};
    struct job_pool *jobs = NULL;
    struct loop_posix *posix = NULL;
    struct net *net = NULL;
    struct client *client = NULL;
    if (argc < 4)
        return 2;
    if (job_pool_create(1, &jobs, &err) ||
        loop_posix_create(&(struct loop_posix_options){.jobs = jobs}, &posix, &err) ||
        net_posix_create(posix, &(struct net_posix_options){0}, &net, &err) ||
        client_create(loop_posix_loop(posix), net, &(struct client_options){.bootstrap = argv[2]}, &client,
                      &err)) {
        fprintf(stderr, "port_probe: %s\n", err.text);
        return 1;
    }
    p.loop = loop_posix_loop(posix);
    loop_timer_init(&p.timer, p.loop, on_poll, &p);
    struct port_options o = {.loop = p.loop,
                             .client = client,
                             .bootstrap = argv[2],
                             .client_id = "probe",
                             .ready = on_ready,
                             .arg = &p};
    int rc = strcmp(argv[1], "rdkafka") == 0 ? port_rdkafka_create(&o, &p.port, &err)
                                             : port_client_create(&o, &p.port, &err);
    struct port_assignment a = {.topic = slice_str(argv[3]),
                                .offset = argc > 4 ? strtoll(argv[4], NULL, 10) : PORT_FROM_START,
                                .leader_epoch = -1,
                                .whole_batches = strcmp(argv[1], "batches") == 0,
                                .owner = &p};
    if (rc || port_assign(p.port, &a, &err)) {
        fprintf(stderr, "port_probe: %s\n", err.text);
        return 1;
    }
    p.started_us = loop_now_us(p.loop);
    loop_timer_in(&p.timer, 0);
    loop_posix_run(posix);
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    printf("{\"records\":%lld,\"bytes\":%lld,\"batches\":%lld,\"crc\":\"%08x\",\"position\":%lld,"
           "\"disorder\":%lld,"
           "\"deliveries\":%lld,\"end\":\"%s\",\"log_start\":%lld,\"log_end\":%lld,\"seconds\":%.3f,\"cpu_"
           "s\":%.3f}\n",
           (long long)p.records, (long long)p.bytes, (long long)p.batches, p.crc, (long long)p.position,
           (long long)p.disorder, (long long)p.deliveries, p.event, (long long)p.log_start,
           (long long)p.log_end, (double)(p.ended_us - p.started_us) / 1e6,
           (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
               (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
    port_unassign(p.port, &p);
    port_destroy(p.port, on_destroyed, &p);
    while (!p.gone)
        loop_posix_run(posix);
    client_destroy(client);
    net_posix_destroy(net);
    loop_posix_destroy(posix);
    job_pool_destroy(jobs);
    return p.disorder ? 1 : 0;
}
