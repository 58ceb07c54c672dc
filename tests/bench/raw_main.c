/* bench_raw: pre-built batches over one connection, what a broker can do when the client costs next to nothing.
 *
 *   bench_raw produce BOOTSTRAP TOPIC PARTITIONS BATCH_BYTES RECORD_BYTES MEGABYTES [acks=-1 [inflight=5 [codec=0]]]
 *   bench_raw ack     BOOTSTRAP TOPIC RECORD_BYTES COUNT         one record in flight
 *   bench_raw first   BOOTSTRAP TOPIC                            one record of 100 B, acknowledged, and no more
 *   bench_raw ends    BOOTSTRAP TOPIC PARTITIONS COUNT           waits until the end offsets come to COUNT
 *   bench_raw ready   BOOTSTRAP TOPIC PARTITIONS                 waits until the leader answers for all of them
 *   bench_raw fetch   BOOTSTRAP TOPIC PARTITIONS FETCH_BYTES SECONDS
 * One JSON line. */
#include "tests/bench/bench.h"

#include "base/core/bytes.h"
#include "proto/kafka/batch.h"
#include "proto/kafka/errors.h"

#include <stdlib.h>
#include <unistd.h>

#define ENDS_SECONDS  240
#define READY_SECONDS 180

static const int16_t fetch_version = 11;

static void read_ack(int fd, struct buf *in)
{
    bench_read_frame(fd, in);
    int16_t code = bench_produce_error(buf_slice(in));
    if (code)
        BENCH_DIE("Produce: %s", kafka_error_name(code));
}

static void produce(int argc, char **argv)
{
    if (argc < 8)
        BENCH_DIE("produce BOOTSTRAP TOPIC PARTITIONS BATCH_BYTES RECORD_BYTES MEGABYTES [acks [inflight "
                  "[codec]]]");
    const char *topic = argv[3];
    int partitions = atoi(argv[4]), inflight = argc > 9 ? atoi(argv[9]) : 5;
    size_t batch_bytes = strtoul(argv[5], NULL, 10), size = strtoul(argv[6], NULL, 10);
    double most = atof(argv[7]) * 1e6;
    int16_t acks = (int16_t)(argc > 8 ? atoi(argv[8]) : -1);
    int records = (int)(batch_bytes / (size + 12));
    struct buf batch, *frames = calloc((size_t)partitions, sizeof *frames), in;
    buf_init(&batch, 1u << 28);
    buf_init(&in, 1u << 28);
    records = records < 1 ? 1 : records;
    bench_batch(&batch, records, size, argc > 10 ? atoi(argv[10]) : 0);
    for (int p = 0; p < partitions; p++) {
        buf_init(&frames[p], 1u << 28);
        bench_produce_frame(&frames[p], topic, p, buf_slice(&batch), acks);
    }
    int fd = bench_connect(argv[2]);
    double start = bench_now(), cpu = bench_cpu();
    int64_t sent = 0, acked = 0;
    const int64_t all = (int64_t)(most / (double)batch.n) + 1;
    while (acked < all) {
        while (sent - acked < inflight && sent < all) {
            struct buf *f = &frames[sent % partitions];
            bench_write_all(fd, f->p, f->n);
            sent++;
        }
        read_ack(fd, &in);
        acked++;
    }
    double took = bench_now() - start;
    double bytes = (double)acked * (double)batch.n;
    printf(
        "{\"bench\":\"raw_produce\",\"batch_bytes\":%zu,\"record_bytes\":%zu,\"partitions\":%d,\"acks\":%"
        "d,\"seconds\":%.3f,"
        "\"mb_per_s\":%.1f,\"records_per_s\":%.0f,\"records\":%.0f,\"bytes\":%.0f,\"client_cpu_s\":%.3f}\n",
        batch.n, size, partitions, acks, took, bytes / took / 1e6, (double)acked * records / took,
        (double)acked * records, bytes, bench_cpu() - cpu);
}

static void ack(int argc, char **argv)
{
    if (argc < 6)
        BENCH_DIE("ack BOOTSTRAP TOPIC RECORD_BYTES COUNT");
    size_t size = strtoul(argv[4], NULL, 10), count = strtoul(argv[5], NULL, 10);
    struct buf batch, frame, in;
    buf_init(&batch, 1u << 24), buf_init(&frame, 1u << 24), buf_init(&in, 1u << 24);
    bench_batch(&batch, 1, size, 0);
    bench_produce_frame(&frame, argv[3], 0, buf_slice(&batch), -1);
    int fd = bench_connect(argv[2]);
    uint64_t *ns = calloc(count, sizeof *ns);
    for (int i = 0; i < 200; i++) { /* warm-up */
        bench_write_all(fd, frame.p, frame.n);
        read_ack(fd, &in);
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t sent = bench_now_ns();
        bench_write_all(fd, frame.p, frame.n);
        read_ack(fd, &in);
        ns[i] = bench_now_ns() - sent;
    }
    printf("{\"bench\":\"ack\",\"record_bytes\":%zu,\"n\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%."
           "1f}\n",
           size, count, (double)bench_percentile(ns, count, 50) / 1e3,
           (double)bench_percentile(ns, count, 99) / 1e3, (double)bench_percentile(ns, count, 99.9) / 1e3);
    free(ns);
}

static void first(char **argv)
{
    struct buf batch, frame, in;
    buf_init(&batch, 1u << 20), buf_init(&frame, 1u << 20), buf_init(&in, 1u << 20);
    bench_batch(&batch, 1, 100, 0);
    bench_produce_frame(&frame, argv[3], 0, buf_slice(&batch), -1);
    int fd = bench_connect(argv[2]);
    bench_write_all(fd, frame.p, frame.n);
    read_ack(fd, &in);
    printf("{\"bench\":\"first\"}\n");
}

/* The sum of the topic's end offsets, and of how many partitions there is none. */
static int64_t end_sum(int fd, const char *topic, int partitions, int *missing)
{
    struct arena a;
    arena_init(&a, 1u << 24);
    struct kp_list_offsets_request_partitions *p =
        ARENA_NEWS(&a, struct kp_list_offsets_request_partitions, partitions);
    for (int i = 0; i < partitions; i++)
        p[i] = (struct kp_list_offsets_request_partitions){
            .partition_index = i, .current_leader_epoch = -1, .timestamp = -1};
    struct kp_list_offsets_request_topics t = {
        .name = slice_str(topic), .partitions = p, .partitions_n = partitions};
    struct kp_list_offsets_request q = {.replica_id = -1, .topics = &t, .topics_n = 1};
    struct kp_list_offsets_response r;
    bench_call(fd, kp_api_find(kp_key_list_offsets), 5, &q, &a, &r);
    int64_t sum = 0;
    *missing = 0;
    for (int i = 0; i < partitions; i++)
        if (!r.topics[0].partitions[i].error_code)
            sum += r.topics[0].partitions[i].offset;
        else
            ++*missing;
    arena_fini(&a);
    return sum;
}

static void ends(int argc, char **argv)
{
    if (argc < 6)
        BENCH_DIE("ends BOOTSTRAP TOPIC PARTITIONS COUNT");
    int64_t count = strtoll(argv[5], NULL, 10), sum;
    int fd = bench_connect(argv[2]), partitions = atoi(argv[4]), missing;
    double until = bench_now() + ENDS_SECONDS;
    while ((sum = end_sum(fd, argv[3], partitions, &missing)) < count) {
        if (bench_now() > until)
            BENCH_DIE("%lld of %lld records", (long long)sum, (long long)count);
        usleep(2000);
    }
    printf("{\"bench\":\"ends\",\"records\":%lld}\n", (long long)sum);
}

static void ready(int argc, char **argv)
{
    if (argc < 5)
        BENCH_DIE("ready BOOTSTRAP TOPIC PARTITIONS");
    int fd = bench_connect(argv[2]), partitions = atoi(argv[4]), missing = partitions;
    for (double until = bench_now() + READY_SECONDS; end_sum(fd, argv[3], partitions, &missing), missing;) {
        if (bench_now() > until)
            BENCH_DIE("%d of %d partitions are not there", missing, partitions);
        usleep(10000);
    }
    printf("{\"bench\":\"ready\"}\n");
}

static void fetch(int argc, char **argv)
{
    if (argc < 7)
        BENCH_DIE("fetch BOOTSTRAP TOPIC PARTITIONS FETCH_BYTES SECONDS");
    int partitions = atoi(argv[4]);
    int32_t bytes = atoi(argv[5]);
    double seconds = atof(argv[6]);
    int fd = bench_connect(argv[2]);
    const struct kp_api *api = kp_api_find(kp_key_fetch);
    struct buf frame, in;
    buf_init(&frame, 1u << 24), buf_init(&in, 1u << 30);
    int64_t *at = calloc((size_t)partitions, sizeof *at), total = 0, requests = 0;
    double start = bench_now(), cpu = bench_cpu();
    for (int p = 0; bench_now() - start < seconds; p = (p + 1) % partitions) {
        struct kp_fetch_request_partitions part = {.partition = p,
                                                   .current_leader_epoch = -1,
                                                   .fetch_offset = at[p],
                                                   .log_start_offset = -1,
                                                   .partition_max_bytes = bytes};
        struct kp_fetch_request_topics t = {
            .topic = slice_str(argv[3]), .partitions = &part, .partitions_n = 1};
        struct kp_fetch_request r;
        kp_init(&api->request, &r);
        r.replica_id = -1, r.max_wait_ms = 100, r.min_bytes = 1, r.max_bytes = bytes, r.topics = &t,
        r.topics_n = 1;
        struct kp_request_header h = {kp_key_fetch, fetch_version, 1, SLICE_LIT("bench")};
        buf_clear(&frame);
        if (kp_request_frame(api, &h, &r, &frame))
            BENCH_DIE("encode Fetch");
        bench_write_all(fd, frame.p, frame.n);
        bench_read_frame(fd, &in);
        struct arena a;
        arena_init(&a, 1u << 20);
        int32_t correlation;
        size_t used;
        struct kp_fetch_response resp;
        struct slice s = buf_slice(&in);
        if (kp_response_header_decode(api, fetch_version, s, &correlation, &used) ||
            kp_decode(&api->response, fetch_version, slice_of(s.p + used, s.n - used), &a, &resp, NULL, NULL))
            BENCH_DIE("Fetch response");
        struct kp_fetch_response_partitions *got = &resp.responses[0].partitions[0];
        if (got->error_code)
            BENCH_DIE("Fetch: %s", kafka_error_name(got->error_code));
        struct slice rest = got->records.bytes;
        struct batch_header b;
        while (rest.n && !batch_header_read(rest, &b, NULL) && batch_size(&b) <= rest.n) {
            at[p] = batch_last_offset(&b) + 1;
            rest = slice_of(rest.p + batch_size(&b), rest.n - batch_size(&b));
        }
        if (got->records.bytes.n == 0)
            at[p] = 0; /* the end: round again */
        total += (int64_t)got->records.bytes.n;
        requests++;
        arena_fini(&a);
    }
    double took = bench_now() - start;
    printf("{\"bench\":\"raw_fetch\",\"fetch_bytes\":%d,\"partitions\":%d,\"seconds\":%.3f,\"mb_per_s\":%.1f,"
           "\"bytes\":%lld,\"requests\":%lld,\"client_cpu_s\":%.3f}\n",
           bytes, partitions, took, (double)total / took / 1e6, (long long)total, (long long)requests,
           bench_cpu() - cpu);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        BENCH_DIE("produce|ack|first|ends|ready|fetch BOOTSTRAP TOPIC ...");
    if (!strcmp(argv[1], "produce"))
        produce(argc, argv);
    else if (!strcmp(argv[1], "ack"))
        ack(argc, argv);
    else if (!strcmp(argv[1], "first"))
        first(argv);
    else if (!strcmp(argv[1], "ends"))
        ends(argc, argv);
    else if (!strcmp(argv[1], "ready"))
        ready(argc, argv);
    else if (!strcmp(argv[1], "fetch"))
        fetch(argc, argv);
    else
        BENCH_DIE("no mode '%s'", argv[1]);
    return 0;
}
