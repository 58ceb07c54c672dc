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

struct printing {
    struct consuming *c;
    int32_t partition;
    int64_t from;
};

static int print_batch(void *arg, const struct batch_header *h, struct slice payload, struct err *err)
{
    struct printing *p = arg;
    struct record_walk walk;
    struct record r;
    int more = 0;
    record_walk_init(&walk, h, payload);
    while (p->c->left != 0 && (more = record_next(&walk, &r)) == 1) {
        if (r.offset < p->from)
            continue;
        print_record(p->c, p->partition, &r);
        if (p->c->left > 0)
            p->c->left--;
    }
    if (more < 0)
        return err_set(err, more, "partition %d: a malformed record in the batch at offset %" PRId64,
                       p->partition, h->base_offset);
    return 0;
}

/* One Fetch of one partition. */
static int fetch(struct consuming *c, int32_t partition, struct err *err)
{
    struct reading *at = &c->at[partition];
    struct printing p = {c, partition, at->next};
    int32_t wait_ms = c->follow && c->partitions == 1 ? 500 : 50;
    int rc = session_fetch(c->s, c->topic, partition, &at->next, wait_ms, print_batch, &p, err);
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
    rc = rc ? rc : run(c, &err);
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
