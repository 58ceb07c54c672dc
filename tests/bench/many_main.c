/* bench_many: many connections, or many partitions, or a paced load; one record a request.
 *
 *   bench_many BOOTSTRAP TOPIC PARTITIONS CONNECTIONS INFLIGHT RECORD_BYTES SECONDS [RATE_PER_S]
 * Without a rate each connection keeps INFLIGHT requests under way. With one, requests leave when they are due
 * whatever has been answered (open loop), and a latency counts from then; INFLIGHT does not matter. Partitions and
 * connections take turns. The first tenth of the time warms up. One thread, one epoll. One JSON line. */
#include "tests/bench/bench.h"

#include "base/core/bytes.h"
#include "proto/kafka/errors.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EVENTS   256
#define OPEN_MAX (1u << 17) /* requests under way on one connection, open loop */

struct conn {
    int fd;
    uint64_t *due; /* ring, by `sent` */
    uint64_t sent, acked;
    struct buf in;
};

struct load {
    const char *topic;
    int partitions, connections;
    size_t ring;
    struct buf *frames; /* one a partition */
    struct conn *conns;
    uint64_t begin_ns, warm_ns, end_ns;
    uint64_t sent, acked, *ns;
    size_t ns_n, ns_room, counted;
};

static void take_answer(struct load *l, struct conn *c, struct slice frame)
{
    int16_t code = bench_produce_error(frame);
    if (code)
        BENCH_DIE("Produce: %s", kafka_error_name(code));
    uint64_t due = c->due[c->acked++ % l->ring], now = bench_now_ns();
    l->acked++;
    if (now < l->warm_ns || now >= l->end_ns)
        return;
    l->counted++;
    if (l->ns_n < l->ns_room)
        l->ns[l->ns_n++] = now - due;
}

static void readable(struct load *l, struct conn *c)
{
    uint8_t *room = buf_room(&c->in, 4096);
    ssize_t n = recv(c->fd, room, 4096, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        BENCH_DIE("the broker closed a connection");
    buf_added(&c->in, (size_t)n);
    size_t at = 0;
    while (c->in.n - at >= 4 && c->in.n - at - 4 >= be32_get(c->in.p + at)) {
        size_t size = be32_get(c->in.p + at);
        take_answer(l, c, slice_of(c->in.p + at + 4, size));
        at += 4 + size;
    }
    buf_drop(&c->in, at);
}

/* Answers are taken while it waits: a broker that is behind stops reading once nobody reads what it says. */
static void send_all(struct load *l, struct conn *c, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t sent = send(c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            poll(&(struct pollfd){.fd = c->fd, .events = POLLIN | POLLOUT}, 1, -1);
            readable(l, c);
            continue;
        }
        if (sent < 0)
            BENCH_DIE("the broker closed a connection");
        p += sent;
        n -= (size_t)sent;
    }
}

static void send_one(struct load *l, struct conn *c, uint64_t due)
{
    if (c->sent - c->acked >= l->ring)
        BENCH_DIE("%zu requests wait for an answer: the rate is too high", l->ring);
    c->due[c->sent++ % l->ring] = due;
    struct buf *f = &l->frames[l->sent++ % (uint64_t)l->partitions];
    send_all(l, c, f->p, f->n);
}

static void prepare(struct load *l, const char *bootstrap, size_t size, int inflight, int epoll)
{
    struct buf batch;
    buf_init(&batch, 1u << 28);
    bench_batch(&batch, 1, size, 0);
    l->frames = calloc((size_t)l->partitions, sizeof *l->frames);
    for (int p = 0; p < l->partitions; p++) {
        buf_init(&l->frames[p], 1u << 28);
        bench_produce_frame(&l->frames[p], l->topic, p, buf_slice(&batch), -1);
    }
    l->ring = inflight > 0 ? (size_t)inflight : OPEN_MAX;
    l->conns = calloc((size_t)l->connections, sizeof *l->conns);
    for (int i = 0; i < l->connections; i++) {
        struct conn *c = &l->conns[i];
        c->fd = bench_connect(bootstrap);
        c->due = calloc(l->ring, sizeof *c->due);
        buf_init(&c->in, 1u << 20);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &(struct epoll_event){EPOLLIN, {.ptr = c}}))
            BENCH_DIE("epoll");
    }
    buf_fini(&batch);
}

/* What is due by now; connections take turns. */
static void send_due(struct load *l, double period_ns)
{
    for (;;) {
        uint64_t due = l->begin_ns + (uint64_t)((double)l->sent * period_ns);
        if (due > bench_now_ns() || due >= l->end_ns)
            return;
        send_one(l, &l->conns[l->sent % (uint64_t)l->connections], due);
    }
}

static void fill_all(struct load *l, struct conn *c)
{
    while (c->sent - c->acked < l->ring && bench_now_ns() < l->end_ns)
        send_one(l, c, bench_now_ns());
}

static void run(struct load *l, int epoll, int timer, double period_ns)
{
    struct epoll_event e[EVENTS];
    for (int i = 0; i < l->connections && timer < 0; i++)
        fill_all(l, &l->conns[i]);
    while (bench_now_ns() < l->end_ns || l->acked < l->sent) {
        int n = epoll_wait(epoll, e, EVENTS, 1000);
        for (int i = 0; i < n; i++) {
            uint64_t ticks;
            struct conn *c = e[i].data.ptr;
            if (!c) {
                ssize_t got = read(timer, &ticks, sizeof ticks);
                (void)got;
                send_due(l, period_ns);
                continue;
            }
            readable(l, c);
            if (timer < 0)
                fill_all(l, c);
        }
    }
}

static int timer_of(int epoll, double period_ns)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct timespec t = {(time_t)(period_ns / 1e9), (long)period_ns % 1000000000};
    if (timer < 0 || timerfd_settime(timer, 0, &(struct itimerspec){t, t}, NULL) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &(struct epoll_event){EPOLLIN, {.ptr = NULL}}))
        BENCH_DIE("timer");
    return timer;
}

int main(int argc, char **argv)
{
    if (argc < 8)
        BENCH_DIE("BOOTSTRAP TOPIC PARTITIONS CONNECTIONS INFLIGHT RECORD_BYTES SECONDS [RATE]");
    struct load l = {.topic = argv[2], .partitions = atoi(argv[3]), .connections = atoi(argv[4])};
    size_t size = strtoul(argv[6], NULL, 10);
    double seconds = strtod(argv[7], NULL), rate = argc > 8 ? strtod(argv[8], NULL) : 0;
    int epoll = epoll_create1(0), timer = -1;
    prepare(&l, argv[1], size, rate > 0 ? 0 : atoi(argv[5]), epoll);
    l.ns_room = rate > 0 ? (size_t)(rate * seconds) + 1 : (size_t)4 << 20;
    l.ns = calloc(l.ns_room, sizeof *l.ns);
    l.begin_ns = bench_now_ns();
    l.warm_ns = l.begin_ns + (uint64_t)(seconds * 1e8);
    l.end_ns = l.begin_ns + (uint64_t)(seconds * 1e9);
    if (rate > 0)
        timer = timer_of(epoll, 1e9 / rate);
    double cpu = bench_cpu();
    run(&l, epoll, timer, rate > 0 ? 1e9 / rate : 0);
    printf("{\"bench\":\"many\",\"partitions\":%d,\"connections\":%d,\"record_bytes\":%zu,\"rate\":%.0f,"
           "\"acks\":%llu,"
           "\"acks_per_s\":%.0f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"bytes\":%.0f,\"client_cpu_"
           "s\":%.3f}\n",
           l.partitions, l.connections, size, rate, (unsigned long long)l.acked,
           (double)l.counted / (seconds * 0.9), (double)bench_percentile(l.ns, l.ns_n, 50) / 1e3,
           (double)bench_percentile(l.ns, l.ns_n, 99) / 1e3,
           (double)bench_percentile(l.ns, l.ns_n, 99.9) / 1e3, (double)l.acked * (double)size,
           bench_cpu() - cpu);
    return 0;
}
