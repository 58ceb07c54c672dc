#include "mirror/cli/move.h"

#include "base/core/grow.h"
#include "mirror/cli/group.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int move_args(struct args *args, struct move_what *out)
{
    *out = (struct move_what){args_option(args, "--to"), args_option(args, "--group"),
                              args_flag(args, "--partial")};
    if (!args_done(args))
        return cli_fail(CLI_USAGE, "%s", args->error);
    return out->to && out->group ? 0 : cli_fail(CLI_USAGE, "--to and --group are needed");
}

int move_init(struct move *m, struct cli *cli, const struct move_what *what)
{
    *m = (struct move){.cli = cli, .what = *what, .rows = json_array()};
    struct session_address address;
    int code = cli_cluster_address(cli, what->to, &address);
    if (code)
        return code;
    struct err err = {0};
    return session_open(&address, cli->timeout_ms, &m->to, &err) ? cli_fail_err(&err, "%s", address.bootstrap)
                                                                 : 0;
}

void move_fini(struct move *m)
{
    session_close(m->to);
    json_decref(m->rows);
    free(m->list);
    *m = (struct move){0};
}

int move_bounds(struct move *m, struct slice topic, int32_t partition, struct translate_bounds *out,
                struct err *err)
{
    int rc = session_offset(m->to, topic, partition, -2, &out->log_start, err);
    return rc ? rc : session_offset(m->to, topic, partition, -1, &out->end, err);
}

static const char *state_name(enum translate_state s)
{
    return s == TRANSLATE_EXACT ? "exact" : s == TRANSLATE_AHEAD ? "ahead" : "no map";
}

static json_t *number_or_null(int64_t v)
{
    return v < 0 ? json_null() : json_integer(v);
}

int move_add(struct move *m, const struct move_row *r, const struct translation *t, struct err *err)
{
    bool known = t->state != TRANSLATE_NO_MAP;
    json_array_append_new(m->rows, json_pack("{s:o, s:o, s:i, s:o, s:o, s:o, s:o, s:s}", "from_topic",
                                             cli_json_slice(r->from_topic), "topic", cli_json_slice(r->topic),
                                             "partition", r->partition, "from", number_or_null(r->from), "to",
                                             number_or_null(known ? t->offset : -1), "reread",
                                             number_or_null(known ? t->reread : -1), "missing",
                                             number_or_null(r->missing), "state", state_name(t->state)));
    if (!known) {
        m->lacking++;
        return 0;
    }
    if (m->n >= MOVE_PARTITIONS_MAX)
        return err_set(err, -E_LIMIT, "more than %d partitions", MOVE_PARTITIONS_MAX);
    if (!GROW(m->list, m->n, m->cap, 64))
        return err_set(err, -E_NOMEM, "out of memory");
    struct slice topic = arena_dup(session_keep(m->to), r->topic);
    m->list[m->n++] = (struct move_commit){topic, r->partition, t->offset};
    return slice_is_null(topic) ? err_set(err, -E_NOMEM, "out of memory") : 0;
}

void move_lacks(struct move *m, struct slice topic, const char *why)
{
    m->lacking++;
    json_array_append_new(m->rows, json_pack("{s:o, s:n, s:n, s:n, s:n, s:n, s:n, s:s, s:s}", "from_topic",
                                             cli_json_slice(topic), "topic", "partition", "from", "to",
                                             "reread", "missing", "state", "no map", "reason", why));
}

static int compare_commits(const void *a, const void *b)
{
    const struct move_commit *x = a, *y = b;
    int c = slice_cmp(x->topic, y->topic);
    return c ? c : (x->partition > y->partition) - (x->partition < y->partition);
}

/* One OffsetCommit for all; outside of any generation, without leader epochs (APPENDER.md rule 22). */
static int commit(struct move *m, struct err *err)
{
    struct arena *a = session_arena(m->to);
    qsort(m->list, m->n, sizeof *m->list, compare_commits);
    struct kp_offset_commit_request r;
    kp_init(&kp_offset_commit_request_message, &r);
    r.group_id = slice_str(m->what.group);
    r.member_id = SLICE_LIT("");
    r.topics = ARENA_NEWS(a, struct kp_offset_commit_request_topics, m->n);
    struct kp_offset_commit_request_partitions *p =
        ARENA_NEWS(a, struct kp_offset_commit_request_partitions, m->n);
    if (!r.topics || !p)
        return err_set(err, -E_NOMEM, "out of memory");
    for (size_t i = 0; i < m->n; i++) {
        if (r.topics_n == 0 || !slice_eq(r.topics[r.topics_n - 1].name, m->list[i].topic))
            r.topics[r.topics_n++] =
                (struct kp_offset_commit_request_topics){.name = m->list[i].topic, .partitions = &p[i]};
        p[i] = (struct kp_offset_commit_request_partitions){.partition_index = m->list[i].partition,
                                                            .committed_offset = m->list[i].offset,
                                                            .committed_leader_epoch = -1,
                                                            .committed_metadata = SLICE_LIT("")};
        r.topics[r.topics_n - 1].partitions_n++;
    }
    struct session_reply reply;
    struct client_target coordinator = session_group(m->what.group);
    int rc = session_call(m->to, &coordinator, kp_key_offset_commit, 2, 8, &r, &reply, err);
    const struct kp_offset_commit_response *got = rc ? NULL : reply.body;
    for (int32_t t = 0; !rc && t < got->topics_n; t++)
        for (int32_t i = 0; !rc && i < got->topics[t].partitions_n; i++)
            if (got->topics[t].partitions[i].error_code)
                rc = session_kafka_error(err, got->topics[t].partitions[i].error_code, SLICE_NULL,
                                         "commit of %.*s-%d", SLICE_FMT(got->topics[t].name),
                                         got->topics[t].partitions[i].partition_index);
    return rc;
}

static int print(struct move *m, bool applied)
{
    if (m->cli->json)
        return cli_print_json(json_pack("{s:s, s:s, s:b, s:O}", "group", m->what.group, "to", m->what.to,
                                        "applied", applied, "partitions", m->rows));
    size_t i;
    json_t *row;
    json_array_foreach(m->rows, i, row)
    {
        const char *topic = json_string_value(json_object_get(row, "topic"));
        if (!topic || json_is_null(json_object_get(row, "to"))) {
            printf("%s  no map\n", topic ? topic : json_string_value(json_object_get(row, "from_topic")));
            continue;
        }
        printf("%s-%" JSON_INTEGER_FORMAT "  %s %" JSON_INTEGER_FORMAT "  re-read %" JSON_INTEGER_FORMAT
               "  missing %" JSON_INTEGER_FORMAT "  %s\n",
               topic, json_integer_value(json_object_get(row, "partition")),
               applied ? "committed" : "would commit", json_integer_value(json_object_get(row, "to")),
               json_integer_value(json_object_get(row, "reread")),
               json_integer_value(json_object_get(row, "missing")),
               json_string_value(json_object_get(row, "state")));
    }
    return CLI_DONE;
}

int move_finish(struct move *m)
{
    const char *to_alias = m->what.to;
    struct err err = {0};
    struct slice state;
    int32_t members;
    if (m->n == 0 && m->lacking == 0)
        return cli_fail(
            CLI_FAILED,
            "group %s has no offsets that the mirror knows: nothing to move to %s; "
            "-c takes the file of the mirror that mirrored the records, and groups must cover the group",
            m->what.group, to_alias);
    if (m->lacking && !m->what.partial) {
        print(m, false);
        return cli_fail(CLI_REFUSED, "%d of its partitions or topics have no map; --partial moves the others",
                        m->lacking);
    }
    if (cli_group_state(m->to, m->what.group, &state, &members, NULL, &err))
        return cli_fail_err(&err, "group %s at %s", m->what.group, to_alias);
    if (members > 0)
        return cli_fail(CLI_REFUSED,
                        "group %s has %d active members at %s (state %.*s): stop its consumers there first",
                        m->what.group, members, to_alias, SLICE_FMT(state));
    if (m->n > 0 && commit(m, &err))
        return cli_fail_err(&err, "group %s at %s", m->what.group, to_alias);
    return print(m, m->n > 0);
}
