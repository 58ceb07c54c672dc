#include "tests/bench/bench.h"

#include "base/core/bytes.h"
#include "proto/kafka/batch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void bench_die(const char *file, int line, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, fmt, args);
    fprintf(stderr, " (%s)\n", strerror(errno));
    va_end(args);
    exit(1);
}

uint64_t bench_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double bench_now(void)
{
    return (double)bench_now_ns() * 1e-9;
}

double bench_cpu(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
           (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1e-6;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

uint64_t bench_percentile(uint64_t *ns, size_t n, double percent)
{
    qsort(ns, n, sizeof *ns, compare_u64);
    size_t at = (size_t)((double)n * percent / 100.0);
    return ns[at < n ? at : n - 1];
}

int bench_connect(const char *bootstrap)
{
    char host[64];
    const char *colon = strrchr(bootstrap, ':');
    if (!colon || (size_t)(colon - bootstrap) >= sizeof host)
        BENCH_DIE("'%s' is not host:port", bootstrap);
    memcpy(host, bootstrap, (size_t)(colon - bootstrap));
    host[colon - bootstrap] = '\0';
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)strtol(colon + 1, NULL, 10))};
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
        BENCH_DIE("'%s' is not an IPv4 address", host);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
        BENCH_DIE("connect to %s", bootstrap);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

void bench_write_all(int fd, const void *p, size_t n)
{
    const char *at = p;
    while (n) {
        ssize_t r = write(fd, at, n);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0 && errno == EAGAIN) {
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
            continue;
        }
        if (r <= 0)
            BENCH_DIE("write");
        at += r;
        n -= (size_t)r;
    }
}

void bench_read_all(int fd, void *p, size_t n)
{
    char *at = p;
    while (n) {
        ssize_t r = read(fd, at, n);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            BENCH_DIE("read: the peer closed");
        at += r;
        n -= (size_t)r;
    }
}

void bench_read_frame(int fd, struct buf *buf)
{
    uint8_t size[4];
    bench_read_all(fd, size, 4);
    buf_clear(buf);
    uint8_t *to = buf_room(buf, be32_get(size));
    if (!to)
        BENCH_DIE("a frame of %u bytes", be32_get(size));
    bench_read_all(fd, to, be32_get(size));
    buf_added(buf, be32_get(size));
}

void bench_call(int fd, const struct kp_api *api, int16_t version, const void *request, struct arena *arena,
                void *response)
{
    struct kp_request_header h = {api->key, version, 1, SLICE_LIT("bench")};
    struct buf out, in;
    buf_init(&out, 1u << 24);
    buf_init(&in, 1u << 30);
    if (kp_request_frame(api, &h, request, &out))
        BENCH_DIE("encode %s", api->name);
    bench_write_all(fd, out.p, out.n);
    bench_read_frame(fd, &in);
    int32_t correlation;
    size_t used;
    struct err err = {0};
    struct slice frame = arena_dup(arena, buf_slice(&in));
    if (kp_response_header_decode(api, version, frame, &correlation, &used) ||
        kp_decode(&api->response, version, slice_of(frame.p + used, frame.n - used), arena, response, NULL,
                  &err))
        BENCH_DIE("response of %s: %s", api->name, err.text);
    buf_fini(&out);
    buf_fini(&in);
}

#define PRODUCE_VERSION 7

void bench_produce_frame(struct buf *out, const char *topic, int32_t partition, struct slice batch,
                         int16_t acks)
{
    struct kp_produce_request_partition_data p = {.index = partition, .records = {.bytes = batch}};
    struct kp_produce_request_topic_data t = {
        .name = slice_str(topic), .partition_data = &p, .partition_data_n = 1};
    struct kp_produce_request r = {.transactional_id = SLICE_NULL,
                                   .acks = acks,
                                   .timeout_ms = 30000,
                                   .topic_data = &t,
                                   .topic_data_n = 1};
    struct kp_request_header h = {kp_key_produce, PRODUCE_VERSION, 1, SLICE_LIT("bench")};
    if (kp_request_frame(kp_api_find(kp_key_produce), &h, &r, out))
        BENCH_DIE("encode Produce");
}

int16_t bench_produce_error(struct slice frame)
{
    const struct kp_api *api = kp_api_find(kp_key_produce);
    struct arena a;
    arena_init(&a, 1u << 20);
    int32_t correlation;
    size_t used;
    struct kp_produce_response r;
    if (kp_response_header_decode(api, PRODUCE_VERSION, frame, &correlation, &used) ||
        kp_decode(&api->response, PRODUCE_VERSION, slice_of(frame.p + used, frame.n - used), &a, &r, NULL,
                  NULL))
        BENCH_DIE("Produce response");
    int16_t code = r.responses[0].partition_responses[0].error_code;
    arena_fini(&a);
    return code;
}

void bench_batch(struct buf *out, int records, size_t size, int codec)
{
    struct batch_options options = BATCH_OPTIONS;
    options.codec = (enum codec)codec;
    struct batch_builder b;
    batch_begin(&b, out, &options);
    char *value = malloc(size + 64);
    uint64_t x = 88172645463325252ull;
    for (int i = 0; i < records; i++) {
        int n = snprintf(value, size + 64, "{\"ts\":%d,\"id\":\"%08x\",\"v\":", 1732000000 + i, (unsigned)x);
        while ((size_t)n + 1 < size) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            value[n++] = "0123456789abcdef"[x & 15];
        }
        value[n++] = '}';
        struct record_new r = {.timestamp = (int64_t)time(NULL) * 1000 + i,
                               .key = SLICE_NULL,
                               .value = slice_of(value, (size_t)n)};
        if (batch_add(&b, &r))
            BENCH_DIE("batch_add");
    }
    free(value);
    if (batch_close(&b, NULL))
        BENCH_DIE("batch_close");
}
