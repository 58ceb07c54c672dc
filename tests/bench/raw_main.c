/* bench_raw: pre-built batches over one connection, what a broker can do when the client costs next to nothing.
 *
 *   bench_raw produce BOOTSTRAP TOPIC PARTITIONS BATCH_BYTES RECORD_BYTES SECONDS [acks=-1] [inflight=5]
 *   bench_raw ack     BOOTSTRAP TOPIC RECORD_BYTES COUNT [RATE_PER_S]     one record in flight, or paced (open loop)
 *   bench_raw first   BOOTSTRAP TOPIC                            one record of 100 B, acknowledged, and no more
 *   bench_raw fetch   BOOTSTRAP TOPIC PARTITIONS FETCH_BYTES SECONDS
 * One JSON line. */
#include "tests/bench/bench.h"

#include "base/core/bytes.h"
#include "proto/kafka/batch.h"
#include "proto/kafka/errors.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const int16_t produce_version = 7, fetch_version = 11;

static void produce_frame(struct buf *out, const char *topic, int32_t partition, struct slice batch, int16_t acks)
{
    struct kp_produce_request_partition_data p = {.index = partition, .records = {.bytes = batch}};
    struct kp_produce_request_topic_data t = {.name = slice_str(topic), .partition_data = &p, .partition_data_n = 1};
    struct kp_produce_request r = {.transactional_id = SLICE_NULL,
                                   .acks = acks,
                                   .timeout_ms = 30000,
                                   .topic_data = &t,
                                   .topic_data_n = 1};
    struct kp_request_header h = {kp_key_produce, produce_version, 1, SLICE_LIT("bench")};
    if (kp_request_frame(kp_api_find(kp_key_produce), &h, &r, out))
        BENCH_DIE("encode Produce");
}

/* The error code of the only partition in a Produce response. */
static int16_t produce_error(const struct buf *frame)
{
    const struct kp_api *api = kp_api_find(kp_key_produce);
    struct arena a;
    arena_init(&a, 1u << 20);
    int32_t correlation;
    size_t used;
    struct kp_produce_response r;
    struct slice in = buf_slice(frame);
    if (kp_response_header_decode(api, produce_version, in, &correlation, &used) ||
        kp_decode(&api->response, produce_version, slice_of(in.p + used, in.n - used), &a, &r, NULL, NULL))
        BENCH_DIE("Produce response");
    int16_t code = r.responses[0].partition_responses[0].error_code;
    arena_fini(&a);
    return code;
}

static void read_ack(int fd, struct buf *in)
{
    bench_read_frame(fd, in);
    int16_t code = produce_error(in);
    if (code)
        BENCH_DIE("Produce: %s", kafka_error_name(code));
}

static void produce(int argc, char **argv)
{
    if (argc < 8)
        BENCH_DIE("produce BOOTSTRAP TOPIC PARTITIONS BATCH_BYTES RECORD_BYTES SECONDS [acks] [inflight]");
    const char *topic = argv[3];
    int partitions = atoi(argv[4]), inflight = argc > 9 ? atoi(argv[9]) : 5;
    size_t batch_bytes = strtoul(argv[5], NULL, 10), size = strtoul(argv[6], NULL, 10);
    double seconds = atof(argv[7]);
    int16_t acks = (int16_t)(argc > 8 ? atoi(argv[8]) : -1);
    int records = (int)(batch_bytes / (size + 12));
    struct buf batch, *frames = calloc((size_t)partitions, sizeof *frames), in;
    buf_init(&batch, 1u << 28);
    buf_init(&in, 1u << 28);
    bench_batch(&batch, records < 1 ? 1 : records, size, 0);
    for (int p = 0; p < partitions; p++) {
        buf_init(&frames[p], 1u << 28);
        produce_frame(&frames[p], topic, p, buf_slice(&batch), acks);
    }
    int fd = bench_connect(argv[2]);
    double start = bench_now(), cpu = bench_cpu();
    int64_t sent = 0, acked = 0;
    while (bench_now() - start < seconds || acked < sent) {
        while (sent - acked < inflight && bench_now() - start < seconds) {
            struct buf *f = &frames[sent % partitions];
            bench_write_all(fd, f->p, f->n);
            sent++;
        }
        if (acked < sent) {
            read_ack(fd, &in);
            acked++;
        }
    }
    double took = bench_now() - start;
    double bytes = (double)acked * (double)batch.n;
    printf("{\"bench\":\"raw_produce\",\"batch_bytes\":%zu,\"record_bytes\":%zu,\"partitions\":%d,\"acks\":%"
           "d,\"seconds\":%.3f,"
           "\"mb_per_s\":%.1f,\"records_per_s\":%.0f,\"bytes\":%.0f,\"client_cpu_s\":%.3f}\n",
           batch.n, size, partitions, acks, took, bytes / took / 1e6, (double)acked * records / took, bytes,
           bench_cpu() - cpu);
}

static void ack(int argc, char **argv)
{
    if (argc < 6)
        BENCH_DIE("ack BOOTSTRAP TOPIC RECORD_BYTES COUNT [RATE]");
    size_t size = strtoul(argv[4], NULL, 10), count = strtoul(argv[5], NULL, 10);
    double rate = argc > 6 ? atof(argv[6]) : 0;
    struct buf batch, frame, in;
    buf_init(&batch, 1u << 24), buf_init(&frame, 1u << 24), buf_init(&in, 1u << 24);
    bench_batch(&batch, 1, size, 0);
    produce_frame(&frame, argv[3], 0, buf_slice(&batch), -1);
    int fd = bench_connect(argv[2]);
    uint64_t *ns = calloc(count, sizeof *ns);
    for (int i = 0; i < 200; i++) { /* warm-up */
        bench_write_all(fd, frame.p, frame.n);
        read_ack(fd, &in);
    }
    uint64_t begin = bench_now_ns();
    for (size_t i = 0; i < count; i++) {
        uint64_t due = begin + (uint64_t)((double)i * 1e9 / (rate > 0 ? rate : 1));
        if (rate > 0)
            while (bench_now_ns() < due) {
                struct timespec t = {0, 20000};
                nanosleep(&t, NULL);
            }
        else
            due = bench_now_ns();
        bench_write_all(fd, frame.p, frame.n);
        read_ack(fd, &in);
        ns[i] = bench_now_ns() - due; /* from when it was due: no coordinated omission */
    }
    printf("{\"bench\":\"ack\",\"record_bytes\":%zu,\"rate\":%.0f,\"n\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f,"
           "\"p999_us\":%.1f}\n",
           size, rate, count, (double)bench_percentile(ns, count, 50) / 1e3,
           (double)bench_percentile(ns, count, 99) / 1e3, (double)bench_percentile(ns, count, 99.9) / 1e3);
    free(ns);
}

static void first(char **argv)
{
    struct buf batch, frame, in;
    buf_init(&batch, 1u << 20), buf_init(&frame, 1u << 20), buf_init(&in, 1u << 20);
    bench_batch(&batch, 1, 100, 0);
    produce_frame(&frame, argv[3], 0, buf_slice(&batch), -1);
    int fd = bench_connect(argv[2]);
    bench_write_all(fd, frame.p, frame.n);
    read_ack(fd, &in);
    printf("{\"bench\":\"first\"}\n");
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
        struct kp_fetch_request_partitions part = {.partition = p, .current_leader_epoch = -1, .fetch_offset = at[p],
                                                   .log_start_offset = -1, .partition_max_bytes = bytes};
        struct kp_fetch_request_topics t = {.topic = slice_str(argv[3]), .partitions = &part, .partitions_n = 1};
        struct kp_fetch_request r;
        kp_init(&api->request, &r);
        r.replica_id = -1, r.max_wait_ms = 100, r.min_bytes = 1, r.max_bytes = bytes, r.topics = &t, r.topics_n = 1;
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
        BENCH_DIE("produce|ack|first|fetch BOOTSTRAP TOPIC ...");
    if (!strcmp(argv[1], "produce"))
        produce(argc, argv);
    else if (!strcmp(argv[1], "ack"))
        ack(argc, argv);
    else if (!strcmp(argv[1], "first"))
        first(argv);
    else if (!strcmp(argv[1], "fetch"))
        fetch(argc, argv);
    else
        BENCH_DIE("no mode '%s'", argv[1]);
    return 0;
}
