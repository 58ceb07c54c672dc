/* What the bench programs share: clocks, percentiles, a blocking Kafka connection, one JSON line out. Test code: it
 * ends the process on any error. */
#ifndef SUNDOG_TESTS_BENCH_H
#define SUNDOG_TESTS_BENCH_H

#include "proto/kafka/wire.h"

#include <stdint.h>
#include <stdio.h>

#define BENCH_DIE(...) bench_die(__FILE__, __LINE__, __VA_ARGS__)
void bench_die(const char *file, int line, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 3, 4)));

double bench_now(void); /* monotonic seconds */
double bench_cpu(void); /* user and system seconds of this process */
uint64_t bench_now_ns(void);

/* Sorts and takes a percentile, 0 to 100. */
uint64_t bench_percentile(uint64_t *ns, size_t n, double percent);

/* "host:port" */
int bench_connect(const char *bootstrap);
void bench_write_all(int fd, const void *p, size_t n);
void bench_read_all(int fd, void *p, size_t n);

/* Sends a request and reads its response's body into `arena`; the struct is the API's response. */
void bench_call(int fd, const struct kp_api *api, int16_t version, const void *request, struct arena *arena,
                void *response);
/* Reads one frame (without its size) into `buf`, whose old content is dropped. */
void bench_read_frame(int fd, struct buf *buf);

/* Appends a whole Produce request of one batch. */
void bench_produce_frame(struct buf *out, const char *topic, int32_t partition, struct slice batch,
                         int16_t acks);
/* The error code of the only partition in a Produce response (without its size). */
int16_t bench_produce_error(struct slice frame);

/* `records` JSON-like records of `size` bytes in one batch v2, with what compression codec 0..4 makes of them. */
void bench_batch(struct buf *out, int records, size_t size, int codec);

#endif
