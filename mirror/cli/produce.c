/* sundog produce: the lines of standard input as records. A full batch is sent and acknowledged before more is read;
 * the rest goes at the end of the input. Lines are not lost in silence: the first refused batch ends the command. */
#include "mirror/cli/commands.h"
#include "mirror/cli/session.h"
#include "mirror/route/partitioner.h"
#include "proto/kafka/batch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRODUCE_BATCH_BYTES (512u << 10)
#define PRODUCE_BUFFER_MAX  (64u << 20)
#define PRODUCE_HEADERS_MAX 64

struct filling {
    struct buf out;
    struct batch_builder builder;
    bool open;
};

struct producing {
    struct session *s;
    struct slice topic;
    int32_t partitions, only; /* only: -1 for any */
    int separator;            /* -1: no keys */
    int64_t wall_ms;
    struct record_header headers[PRODUCE_HEADERS_MAX];
    int32_t headers_n;
    struct filling *filling; /* per partition */
    int64_t records;
};

static int send_batch(struct producing *p, int32_t partition, struct err *err)
{
    struct filling *f = &p->filling[partition];
    if (!f->open)
        return 0;
    f->open = false;
    int rc = batch_close(&f->builder, NULL);
    if (rc)
        return err_set(err, rc, "a batch for partition %d: %s", partition, err_str(rc));
    struct kp_produce_request_partition_data data = {.index = partition,
                                                     .records = {.bytes = buf_slice(&f->out)}};
    struct kp_produce_request_topic_data t = {
        .name = p->topic, .partition_data = &data, .partition_data_n = 1};
    struct kp_produce_request r;
    kp_init(&kp_produce_request_message, &r);
    r.acks = -1;
    r.timeout_ms = 30000;
    r.topic_data = &t;
    r.topic_data_n = 1;
    struct session_reply reply;
    struct client_target leader = session_leader(p->topic, partition);
    rc = session_call_once(p->s, &leader, kp_key_produce, 3, 11, &r, &reply, err);
    buf_clear(&f->out);
    if (rc)
        return rc;
    const struct kp_produce_response *a = reply.body;
    if (a->responses_n != 1 || a->responses[0].partition_responses_n != 1)
        return err_set(err, -E_CORRUPT, "the broker's answer is not about partition %d", partition);
    const struct kp_produce_response_partition_responses *got = &a->responses[0].partition_responses[0];
    return got->error_code
               ? session_kafka_error(err, got->error_code, got->error_message, "partition %d", partition)
               : 0;
}

static int add_line(struct producing *p, struct slice line, struct err *err)
{
    struct slice key = SLICE_NULL, value = line;
    const uint8_t *at = p->separator < 0 || line.n == 0 ? NULL : memchr(line.p, p->separator, line.n);
    if (at) {
        key = slice_of(line.p, (size_t)(at - line.p));
        value = slice_of(at + 1, line.n - key.n - 1);
    }
    struct route_rule rule = {ROUTE_HASH, p->partitions};
    int32_t to = p->only >= 0 ? p->only : route_partition(rule, 0, key);
    struct filling *f = &p->filling[to];
    struct record_new r = {.timestamp = p->wall_ms,
                           .key = key,
                           .value = value,
                           .headers = p->headers,
                           .headers_n = p->headers_n};
    if (f->open && batch_bytes(&f->builder) + batch_record_bound(&r) > PRODUCE_BATCH_BYTES) {
        int rc = send_batch(p, to, err);
        if (rc)
            return rc;
    }
    if (!f->open) {
        struct batch_options options = BATCH_OPTIONS;
        batch_begin(&f->builder, &f->out, &options);
        f->open = true;
    }
    int rc = batch_add(&f->builder, &r);
    if (rc)
        return err_set(err, rc, "record %" PRId64 ": %s", p->records + 1, err_str(rc));
    p->records++;
    return 0;
}

static int run(struct producing *p, struct err *err)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int rc = 0;
    while (!rc && (n = getline(&line, &cap, stdin)) >= 0) {
        if (n > 0 && line[n - 1] == '\n')
            n--;
        p->wall_ms = loop_wall_ms(session_loop(p->s));
        rc = add_line(p, slice_of(line, (size_t)n), err);
    }
    free(line);
    if (!rc && ferror(stdin))
        rc = err_set(err, -E_IO, "cannot read standard input");
    for (int32_t i = 0; !rc && i < p->partitions; i++)
        rc = send_batch(p, i, err);
    return rc;
}

static int produce(struct cli *cli, struct producing *p, const char *topic)
{
    struct session_topic t;
    struct err err = {0};
    if (session_topic(p->s, topic, &t, &err))
        return cli_fail_err(&err, "topic %s", topic);
    if (p->only >= t.partitions_n)
        return cli_fail(CLI_FAILED, "topic %s has partitions 0 to %d", topic, t.partitions_n - 1);
    p->topic = t.name;
    p->partitions = t.partitions_n;
    p->filling = calloc((size_t)t.partitions_n, sizeof *p->filling);
    if (!p->filling)
        return cli_fail(CLI_FAILED, "out of memory");
    for (int32_t i = 0; i < p->partitions; i++)
        buf_init(&p->filling[i].out, PRODUCE_BUFFER_MAX);
    int rc = run(p, &err);
    for (int32_t i = 0; i < p->partitions; i++)
        buf_fini(&p->filling[i].out);
    free(p->filling);
    if (rc)
        return cli_fail_err(&err, "topic %s, after %" PRId64 " records read", topic, p->records);
    if (cli->json)
        return cli_print_json(json_pack("{s:s, s:I}", "topic", topic, "records", (json_int_t)p->records));
    return CLI_DONE;
}

int cli_produce(struct cli *cli, struct args *args)
{
    struct producing p = {.separator = -1};
    const char *separator = args_option(args, "--key-separator"), *pair;
    if (separator && strlen(separator) != 1)
        return cli_fail(CLI_USAGE, "--key-separator %s: one character is expected", separator);
    if (separator)
        p.separator = (unsigned char)separator[0];
    p.only = (int32_t)args_number(args, "--partition", 0, INT32_MAX, -1);
    while (p.headers_n < PRODUCE_HEADERS_MAX && (pair = args_option_next(args, "--header"))) {
        const char *equals = strchr(pair, '=');
        if (!equals)
            return cli_fail(CLI_USAGE, "--header %s: NAME=VALUE is expected", pair);
        p.headers[p.headers_n++] =
            (struct record_header){slice_of(pair, (size_t)(equals - pair)), slice_str(equals + 1)};
    }
    const char *topic = args_word(args, "the topic");
    if (!args_done(args))
        return cli_fail(CLI_USAGE, "%s", args->error);
    int code = cli_open(cli, &p.s);
    if (code)
        return code;
    code = produce(cli, &p, topic);
    session_close(p.s);
    return code;
}
