/* bench_e2e: from a producer at one cluster to a consumer at another, through whatever mirrors between them.
 *
 *   bench_e2e SOURCE TOPIC TARGET TARGET_TOPIC RECORD_BYTES RATE_PER_S COUNT [UNHEARD]
 * One record a request, sent when it is due whatever was answered (open loop), partition 0; each value begins with that
 * time. The consumer is a process of its own, one long poll after the other. The first UNHEARD records (a tenth) warm up;
 * COUNT count. One JSON line. */
#include "tests/bench/bench.h"

#include "base/core/bytes.h"
#include "proto/kafka/batch.h"
#include "proto/kafka/errors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void record_batch(struct buf *out, uint64_t due_ns, char *value, size_t size)
{
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    memcpy(value, &due_ns, sizeof due_ns);
    buf_clear(out);
    batch_begin(&b, out, &o);
    struct record_new r = {
        .timestamp = (int64_t)time(NULL) * 1000, .key = SLICE_NULL, .value = slice_of(value, size)};
    if (batch_add(&b, &r) || batch_close(&b, NULL))
        BENCH_DIE("batch");
}

/* Takes the answers that have come, or waits for the last ones; returns how many. */
static size_t take_acks(int fd, struct buf *in, size_t missing, bool all)
{
    size_t taken = 0, at = 0;
    do {
        ssize_t n = recv(fd, buf_room(in, 4096), 4096, all ? 0 : MSG_DONTWAIT);
        if (n == 0)
            BENCH_DIE("the broker closed the producer's connection");
        buf_added(in, n > 0 ? (size_t)n : 0);
        for (; in->n - at >= 4 && in->n - at - 4 >= be32_get(in->p + at); taken++) {
            int16_t code = bench_produce_error(slice_of(in->p + at + 4, be32_get(in->p + at)));
            if (code)
                BENCH_DIE("Produce: %s", kafka_error_name(code));
            at += 4 + be32_get(in->p + at);
        }
        buf_drop(in, at);
        at = 0;
    } while (all && taken < missing);
    return taken;
}

static void send_all(const char *bootstrap, const char *topic, size_t size, double rate, size_t count)
{
    int fd = bench_connect(bootstrap);
    struct buf batch, frame, in;
    char *value = malloc(size);
    buf_init(&batch, 1u << 24), buf_init(&frame, 1u << 24), buf_init(&in, 1u << 24);
    memset(value, 'e', size);
    size_t acked = 0;
    uint64_t begin = bench_now_ns();
    for (size_t i = 0; i < count; i++) {
        uint64_t due = begin + (uint64_t)((double)i * 1e9 / rate);
        while (bench_now_ns() < due)
            nanosleep(&(struct timespec){0, 20000}, NULL);
        record_batch(&batch, due, value, size);
        buf_clear(&frame);
        bench_produce_frame(&frame, topic, 0, buf_slice(&batch), -1);
        bench_write_all(fd, frame.p, frame.n);
        acked += take_acks(fd, &in, 0, false);
    }
    if (acked < count)
        take_acks(fd, &in, count - acked, true);
}

/* Takes the times out of one answer. */
static size_t take(struct slice records, int64_t *at, uint64_t *ns, size_t n, size_t count)
{
    uint64_t now = bench_now_ns();
    struct batch_header h;
    while (records.n && !batch_header_read(records, &h, NULL) && batch_size(&h) <= records.n) {
        struct record_walk w;
        struct record r;
        record_walk_init(&w, &h,
                         slice_of(records.p + BATCH_HEADER_BYTES, batch_size(&h) - BATCH_HEADER_BYTES));
        while (record_next(&w, &r) == 1 && n < count) {
            uint64_t due;
            memcpy(&due, r.value.p, sizeof due);
            ns[n++] = now - due;
        }
        *at = batch_last_offset(&h) + 1;
        records = slice_of(records.p + batch_size(&h), records.n - batch_size(&h));
    }
    return n;
}

static void consume(const char *bootstrap, const char *topic, size_t count, uint64_t *ns)
{
    int fd = bench_connect(bootstrap);
    const struct kp_api *api = kp_api_find(kp_key_fetch);
    int64_t at = 0;
    double until = bench_now() + 300;
    for (size_t n = 0; n < count;) {
        struct kp_fetch_request_partitions p = {.current_leader_epoch = -1,
                                                .fetch_offset = at,
                                                .log_start_offset = -1,
                                                .partition_max_bytes = 1 << 20};
        struct kp_fetch_request_topics t = {.topic = slice_str(topic), .partitions = &p, .partitions_n = 1};
        struct kp_fetch_request q;
        struct kp_fetch_response a;
        struct arena arena;
        arena_init(&arena, 64u << 20);
        kp_init(&api->request, &q);
        q.replica_id = -1, q.max_wait_ms = 500, q.min_bytes = 1, q.max_bytes = 8 << 20, q.topics = &t,
        q.topics_n = 1;
        bench_call(fd, api, 11, &q, &arena, &a);
        const struct kp_fetch_response_partitions *got = &a.responses[0].partitions[0];
        if (got->error_code == KE_UNKNOWN_TOPIC_OR_PARTITION || got->error_code == KE_NOT_LEADER_OR_FOLLOWER)
            usleep(10000); /* not mirrored, or not opened yet */
        else if (got->error_code)
            BENCH_DIE("Fetch: %s", kafka_error_name(got->error_code));
        n = take(got->records.bytes, &at, ns, n, count);
        arena_fini(&arena);
        if (bench_now() > until)
            BENCH_DIE("%zu of %zu records after five minutes", n, count);
    }
}

int main(int argc, char **argv)
{
    if (argc < 8)
        BENCH_DIE("SOURCE TOPIC TARGET TARGET_TOPIC RECORD_BYTES RATE COUNT [UNHEARD]");
    size_t size = strtoul(argv[5], NULL, 10), heard = strtoul(argv[7], NULL, 10);
    size_t warm = argc > 8 ? strtoul(argv[8], NULL, 10) : heard / 10, count = warm + heard;
    double rate = strtod(argv[6], NULL);
    if (size < sizeof(uint64_t) || rate <= 0 || heard < 100)
        BENCH_DIE("at least 8 bytes, some rate, 100 records");
    pid_t sender = fork();
    if (sender == 0) {
        send_all(argv[1], argv[2], size, rate, count);
        _exit(0);
    }
    uint64_t *ns = calloc(count, sizeof *ns);
    consume(argv[3], argv[4], count, ns);
    int status;
    if (waitpid(sender, &status, 0) != sender || status)
        BENCH_DIE("the producer failed");
    printf("{\"bench\":\"e2e\",\"record_bytes\":%zu,\"rate\":%.0f,\"n\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f,"
           "\"p999_us\":%.1f}\n",
           size, rate, heard, (double)bench_percentile(ns + warm, heard, 50) / 1e3,
           (double)bench_percentile(ns + warm, heard, 99) / 1e3,
           (double)bench_percentile(ns + warm, heard, 99.9) / 1e3);
    free(ns);
    return 0;
}
