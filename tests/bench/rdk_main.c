/* bench_rdk: what librdkafka's client can do against a broker, and the bare consume-produce loop that a record mirror
 * is held against.
 *
 *   bench_rdk produce BOOTSTRAP TOPIC PARTITIONS RECORD_BYTES COUNT [codec]
 *   bench_rdk consume BOOTSTRAP TOPIC PARTITIONS COUNT
 *   bench_rdk loop    SOURCE TARGET TOPIC TARGET_TOPIC PARTITIONS COUNT    consume and produce, record by record
 * One JSON line. */
#include "tests/bench/bench.h"

#include <librdkafka/rdkafka.h>
#include <stdlib.h>
#include <string.h>

static long delivered, failed;

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    (void)rk, (void)opaque;
    if (m->err)
        failed++;
    else
        delivered++;
}

static void set(rd_kafka_conf_t *c, const char *key, const char *value)
{
    char text[256];
    if (rd_kafka_conf_set(c, key, value, text, sizeof text))
        BENCH_DIE("%s", text);
}

static rd_kafka_t *producer(const char *bootstrap, const char *codec)
{
    rd_kafka_conf_t *c = rd_kafka_conf_new();
    set(c, "bootstrap.servers", bootstrap);
    set(c, "acks", "all");
    set(c, "linger.ms", "5");
    set(c, "batch.size", "1000000");
    set(c, "batch.num.messages", "100000");
    set(c, "queue.buffering.max.messages", "2000000");
    set(c, "queue.buffering.max.kbytes", "1000000");
    set(c, "compression.codec", codec);
    rd_kafka_conf_set_dr_msg_cb(c, on_delivery);
    char text[256];
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, c, text, sizeof text);
    if (!rk)
        BENCH_DIE("%s", text);
    return rk;
}

static rd_kafka_t *consumer(const char *bootstrap, const char *topic, int partitions)
{
    rd_kafka_conf_t *c = rd_kafka_conf_new();
    set(c, "bootstrap.servers", bootstrap);
    set(c, "group.id", "bench");
    set(c, "enable.auto.commit", "false");
    set(c, "auto.offset.reset", "earliest");
    set(c, "check.crcs", "true");
    set(c, "queued.min.messages", "10000000");
    set(c, "queued.max.messages.kbytes", "131072");
    char text[256];
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, c, text, sizeof text);
    if (!rk)
        BENCH_DIE("%s", text);
    rd_kafka_poll_set_consumer(rk);
    rd_kafka_topic_partition_list_t *l = rd_kafka_topic_partition_list_new(partitions);
    for (int p = 0; p < partitions; p++)
        rd_kafka_topic_partition_list_add(l, topic, p)->offset = RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_assign(rk, l);
    rd_kafka_topic_partition_list_destroy(l);
    return rk;
}

static void report(const char *what, long n, double bytes, double took, double cpu)
{
    printf("{\"bench\":\"%s\",\"records\":%ld,\"seconds\":%.3f,\"records_per_s\":%.0f,\"mb_per_s\":%.1f,"
           "\"bytes\":%.0f,"
           "\"client_cpu_s\":%.3f,\"failed\":%ld}\n",
           what, n, took, (double)n / took, bytes / took / 1e6, bytes, cpu, failed);
}

static void produce(char **argv, int argc)
{
    int partitions = atoi(argv[4]);
    size_t size = strtoul(argv[5], NULL, 10);
    long count = atol(argv[6]);
    rd_kafka_t *rk = producer(argv[2], argc > 7 ? argv[7] : "none");
    rd_kafka_topic_t *t = rd_kafka_topic_new(rk, argv[3], NULL);
    char *payload = malloc(size);
    for (size_t i = 0; i < size; i++)
        payload[i] = (char)('a' + (i * 7 + i / 13) % 26);
    enum { BATCH = 1000 };
    rd_kafka_message_t *m = calloc(BATCH, sizeof *m);
    double start = bench_now(), cpu = bench_cpu();
    for (long sent = 0; sent < count;) {
        int n = count - sent < BATCH ? (int)(count - sent) : BATCH;
        for (int i = 0; i < n; i++)
            m[i] = (rd_kafka_message_t){
                .payload = payload, .len = size, .partition = (int)((sent / BATCH) % partitions)};
        int ok = rd_kafka_produce_batch(t, (int32_t)((sent / BATCH) % partitions), 0, m, n);
        sent += ok;
        rd_kafka_poll(rk, ok < n ? 1 : 0);
    }
    while (delivered + failed < count)
        rd_kafka_poll(rk, 10);
    report("rdk_produce", count, (double)count * (double)size, bench_now() - start, bench_cpu() - cpu);
    rd_kafka_topic_destroy(t);
    rd_kafka_destroy(rk);
}

static void consume(char **argv)
{
    long count = atol(argv[5]), n = 0;
    rd_kafka_t *rk = consumer(argv[2], argv[3], atoi(argv[4]));
    rd_kafka_queue_t *q = rd_kafka_queue_get_consumer(rk);
    rd_kafka_message_t *m[1000];
    double start = 0, cpu = 0, bytes = 0; /* from the first record on: finding the broker is another matter */
    while (n < count) {
        ssize_t got = rd_kafka_consume_batch_queue(q, 100, m, 1000);
        if (got > 0 && !start)
            start = bench_now(), cpu = bench_cpu();
        for (ssize_t i = 0; i < got; i++) {
            if (!m[i]->err) {
                n++;
                bytes += (double)m[i]->len;
            }
            rd_kafka_message_destroy(m[i]);
        }
    }
    report("rdk_consume", n, bytes, bench_now() - start, bench_cpu() - cpu);
    rd_kafka_queue_destroy(q);
    rd_kafka_destroy(rk);
}

static void loop(char **argv)
{
    long count = atol(argv[7]), n = 0;
    rd_kafka_t *in = consumer(argv[2], argv[4], atoi(argv[6])), *out = producer(argv[3], "none");
    double start = bench_now(), cpu = bench_cpu(), bytes = 0;
    while (n < count) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(in, 100);
        if (!m)
            continue;
        if (!m->err) {
            rd_kafka_resp_err_t e;
            while ((e = rd_kafka_producev(out, RD_KAFKA_V_TOPIC(argv[5]), RD_KAFKA_V_PARTITION(m->partition),
                                          RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                          RD_KAFKA_V_KEY(m->key, m->key_len),
                                          RD_KAFKA_V_VALUE(m->payload, m->len),
                                          RD_KAFKA_V_TIMESTAMP(rd_kafka_message_timestamp(m, NULL)),
                                          RD_KAFKA_V_END)) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
                rd_kafka_poll(out, 1);
            n++;
            bytes += (double)m->len;
        }
        rd_kafka_message_destroy(m);
        if (n % 1000 == 0)
            rd_kafka_poll(out, 0);
    }
    while (delivered + failed < count)
        rd_kafka_poll(out, 10);
    report("rdk_loop", n, bytes, bench_now() - start, bench_cpu() - cpu);
    rd_kafka_destroy(out);
    rd_kafka_destroy(in);
}

int main(int argc, char **argv)
{
    if (argc >= 7 && !strcmp(argv[1], "produce"))
        produce(argv, argc);
    else if (argc >= 6 && !strcmp(argv[1], "consume"))
        consume(argv);
    else if (argc >= 8 && !strcmp(argv[1], "loop"))
        loop(argv);
    else
        BENCH_DIE("produce|consume|loop ...: see the head of rdk_main.c");
    return 0;
}
