/* sundog consume: records of a topic, one a line, without a group. Stops at the end there was when it began, after
 * --count records, or never with --follow. */
#include "mirror/cli/commands.h"
#include "mirror/cli/session.h"
#include "proto/kafka/batch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONSUME_PARTITIONS_MAX 10000
#define CONSUME_FETCH_BYTES    (1 << 20)

struct reading {
    int64_t next, end;
};

struct consuming {
    struct cli *cli;
    struct session *s;
    struct slice topic;
    int32_t partitions;
    struct reading *at;
    int64_t left; /* records still wanted, -1: no limit */
    bool follow, keys;
    struct buf scratch;
};

static void print_record(struct consuming *c, int32_t partition, const struct record *r)
{
    if (!c->cli->json) {
        if (c->keys)
            printf("%.*s\t", SLICE_FMT(r->key));
        fwrite(r->value.n ? (const char *)r->value.p : "", 1, r->value.n, stdout);
        putchar('\n');
        return;
    }
    json_t *headers = json_array();
    struct slice rest = r->headers;
    struct record_header h;
    while (record_header_next(&rest, &h) == 1)
        json_array_append_new(headers, json_pack("{s:o, s:o}", "name", cli_json_slice(h.key), "value",
                                                 cli_json_slice(h.value)));
    json_t *row = json_pack("{s:i, s:I, s:I, s:o, s:o, s:o}", "partition", partition, "offset",
                            (json_int_t)r->offset, "timestamp", (json_int_t)r->timestamp, "key",
                            cli_json_slice(r->key), "value", cli_json_slice(r->value), "headers", headers);
    json_dumpf(row, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
    putchar('\n');
    json_decref(row);
}

/* Prints the records of one batch from the position on; the position moves behind it. */
static int print_batch(struct consuming *c, int32_t partition, struct slice bytes,
                       const struct batch_header *h, struct err *err)
{
    struct reading *at = &c->at[partition];
    if (batch_is(h, BATCH_CONTROL)) {
        at->next = batch_last_offset(h) + 1;
        return 0;
    }
    struct codec_limits limits = codec_limits_for(INT32_MAX / 4);
    struct slice payload;
    buf_clear(&c->scratch);
    int rc = batch_payload(h, bytes, &limits, &c->scratch, &payload, err);
    struct record_walk walk;
    if (!rc)
        record_walk_init(&walk, h, payload);
    struct record r;
    int more = 0;
    while (!rc && c->left != 0 && (more = record_next(&walk, &r)) == 1) {
        if (r.offset < at->next)
            continue;
        print_record(c, partition, &r);
        at->next = r.offset + 1;
        if (c->left > 0)
            c->left--;
    }
    if (!rc && more < 0)
        rc = err_set(err, more, "partition %d: a malformed record in the batch at offset %" PRId64, partition,
                     h->base_offset);
    if (!rc && c->left != 0)
        at->next = batch_last_offset(h) + 1;
    return rc;
}

static int print_answer(struct consuming *c, const struct kp_fetch_response *a, struct err *err)
{
    for (int32_t t = 0; t < a->responses_n; t++) {
        for (int32_t i = 0; i < a->responses[t].partitions_n; i++) {
            const struct kp_fetch_response_partitions *p = &a->responses[t].partitions[i];
            if (p->error_code)
                return session_kafka_error(err, p->error_code, SLICE_NULL, "partition %d",
                                           p->partition_index);
            struct slice rest = p->records.bytes;
            struct batch_header h;
            while (c->left != 0 && rest.n >= BATCH_HEADER_BYTES && p->partition_index < c->partitions &&
                   batch_header_read(rest, &h, NULL) == 0 && batch_size(&h) <= rest.n) {
                struct slice bytes = slice_of(rest.p, batch_size(&h));
                int rc = batch_read(bytes, &h, err);
                rc = rc ? rc : print_batch(c, p->partition_index, bytes, &h, err);
                if (rc)
                    return rc;
                rest = slice_of(rest.p + bytes.n, rest.n - bytes.n);
            }
        }
    }
    return 0;
}

/* One Fetch of one partition. */
static int fetch(struct consuming *c, int32_t partition, struct err *err)
{
    struct kp_fetch_request_partitions p;
    memset(&p, 0, sizeof p);
    p.partition = partition;
    p.current_leader_epoch = p.last_fetched_epoch = -1;
    p.fetch_offset = c->at[partition].next;
    p.log_start_offset = -1;
    p.partition_max_bytes = CONSUME_FETCH_BYTES;
    struct kp_fetch_request_topics t = {.topic = c->topic, .partitions = &p, .partitions_n = 1};
    struct kp_fetch_request r;
    kp_init(&kp_fetch_request_message, &r);
    r.replica_id = -1;
    r.max_wait_ms = c->follow && c->partitions == 1 ? 500 : 50;
    r.min_bytes = 1;
    r.max_bytes = CONSUME_FETCH_BYTES;
    r.isolation_level = 1;
    r.session_epoch = -1;
    r.topics = &t;
    r.topics_n = 1;
    struct session_reply reply;
    struct client_target leader = session_leader(c->topic, partition);
    int rc = session_call(c->s, &leader, kp_key_fetch, 4, 12, &r, &reply, err);
    if (!rc)
        rc = print_answer(c, reply.body, err);
    session_forget(c->s);
    return rc;
}

static int run(struct consuming *c, struct err *err)
{
    for (bool more = true; more && c->left != 0;) {
        more = c->follow;
        for (int32_t i = 0; i < c->partitions && c->left != 0; i++) {
            if (c->at[i].next < 0 || (!c->follow && c->at[i].next >= c->at[i].end))
                continue;
            int rc = fetch(c, i, err);
            if (rc)
                return rc;
            more = true;
        }
        if (fflush(stdout))
            return err_set(err, -E_IO, "cannot write to standard output");
        session_extend(c->s, c->cli->timeout_ms);
    }
    return 0;
}

struct from {
    int64_t only, offset;
    bool beginning;
};

static int consume(struct consuming *c, const char *topic, const struct from *from)
{
    struct session_topic t;
    struct err err = {0};
    if (session_topic(c->s, topic, &t, &err))
        return cli_fail_err(&err, "topic %s", topic);
    if (from->only >= t.partitions_n || t.partitions_n > CONSUME_PARTITIONS_MAX)
        return cli_fail(CLI_FAILED, "topic %s has partitions 0 to %d", topic, t.partitions_n - 1);
    c->topic = arena_dup(session_keep(c->s), t.name);
    c->partitions = t.partitions_n;
    c->at = calloc((size_t)c->partitions, sizeof *c->at);
    if (!c->at || slice_is_null(c->topic))
        return cli_fail(CLI_FAILED, "out of memory");
    int rc = 0;
    for (int32_t i = 0; !rc && i < c->partitions; i++) {
        struct reading *at = &c->at[i];
        at->next = -1;
        if (from->only >= 0 && from->only != i)
            continue;
        rc = session_offset(c->s, c->topic, i, -1, &at->end, &err);
        at->next = from->offset >= 0 ? from->offset : at->end;
        if (!rc && from->beginning)
            rc = session_offset(c->s, c->topic, i, -2, &at->next, &err);
    }
    buf_init(&c->scratch, INT32_MAX);
    rc = rc ? rc : run(c, &err);
    buf_fini(&c->scratch);
    free(c->at);
    return rc ? cli_fail_err(&err, "topic %s", topic) : CLI_DONE;
}

int cli_consume(struct cli *cli, struct args *args)
{
    struct consuming c = {.cli = cli};
    struct from from = {.only = args_number(args, "--partition", 0, INT32_MAX, -1),
                        .offset = args_number(args, "--offset", 0, INT64_MAX, -1),
                        .beginning = args_flag(args, "--from-beginning")};
    c.left = args_number(args, "--count", 0, INT64_MAX, -1);
    c.follow = args_flag(args, "--follow");
    c.keys = args_flag(args, "--keys");
    if (from.offset < 0 && !from.beginning && !c.follow)
        from.beginning = true;
    const char *topic = args_word(args, "the topic");
    if (!args_done(args))
        return cli_fail(CLI_USAGE, "%s", args->error);
    if (from.offset >= 0 && from.beginning)
        return cli_fail(CLI_USAGE, "--offset and --from-beginning exclude each other");
    int code = cli_open(cli, &c.s);
    if (code)
        return code;
    code = consume(&c, topic, &from);
    session_close(c.s);
    return code;
}
