/* sundog group list|describe */
#include "mirror/cli/commands.h"
#include "mirror/cli/group.h"
#include "mirror/cli/session.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GROUP_BROKERS_MAX 1024

/* ListGroups of every broker: each knows the groups it coordinates. */
static int list(struct cli *cli, struct session *s, const void *arg)
{
    (void)arg;
    struct kp_metadata_request md;
    kp_init(&kp_metadata_request_message, &md);
    struct session_reply reply;
    struct err err = {0};
    struct client_target any = session_any();
    if (session_call(s, &any, kp_key_metadata, 1, 12, &md, &reply, &err))
        return cli_fail_err(&err, "groups");
    const struct kp_metadata_response *m = reply.body;
    json_t *rows = json_array();
    for (int32_t b = 0; b < m->brokers_n && b < GROUP_BROKERS_MAX; b++) {
        struct kp_list_groups_request r;
        kp_init(&kp_list_groups_request_message, &r);
        struct client_target broker = {.kind = CLIENT_BROKER, .number = m->brokers[b].node_id};
        if (session_call(s, &broker, kp_key_list_groups, 0, 4, &r, &reply, &err)) {
            json_decref(rows);
            return cli_fail_err(&err, "groups of broker %d", m->brokers[b].node_id);
        }
        const struct kp_list_groups_response *a = reply.body;
        for (int32_t i = 0; i < a->groups_n; i++)
            json_array_append_new(rows,
                                  json_pack("{s:o, s:o, s:o}", "group", cli_json_slice(a->groups[i].group_id),
                                            "state", cli_json_slice(a->groups[i].group_state),
                                            "protocol_type", cli_json_slice(a->groups[i].protocol_type)));
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:o}", "groups", rows));
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) printf("%s  %s\n", json_string_value(json_object_get(row, "group")),
                                            json_string_value(json_object_get(row, "state")));
    json_decref(rows);
    return CLI_DONE;
}

int cli_group_list(struct cli *cli, struct args *args)
{
    return cli_on_cluster(cli, args, list, NULL);
}

int group_commits(struct session *s, const char *group, struct group_commits *out, struct err *err)
{
    struct kp_offset_fetch_request r;
    kp_init(&kp_offset_fetch_request_message, &r);
    r.group_id = slice_str(group);
    r.topics_n = -1; /* all */
    struct session_reply reply;
    struct client_target coordinator = session_group(group);
    /* Of one group: from version 8 on there are several in an answer. */
    int rc = session_call(s, &coordinator, kp_key_offset_fetch, 2, 7, &r, &reply, err);
    if (rc)
        return rc;
    const struct kp_offset_fetch_response *a = reply.body;
    if (a->error_code)
        return session_kafka_error(err, a->error_code, SLICE_NULL, "group %s", group);
    size_t n = 0;
    for (int32_t t = 0; t < a->topics_n; t++)
        n += (size_t)a->topics[t].partitions_n;
    *out = (struct group_commits){.list = ARENA_NEWS(session_arena(s), struct group_offset, n)};
    if (!out->list)
        return err_set(err, -E_NOMEM, "out of memory");
    for (int32_t t = 0; t < a->topics_n; t++)
        for (int32_t i = 0; i < a->topics[t].partitions_n; i++) {
            const struct kp_offset_fetch_response_topics_partitions *p = &a->topics[t].partitions[i];
            if (p->committed_offset >= 0 && p->partition_index >= 0)
                out->list[out->n++] = (struct group_offset){a->topics[t].name, p->partition_index,
                                                            p->committed_offset, p->metadata};
        }
    assert(out->n <= n);
    return 0;
}

int cli_group_state(struct session *s, const char *group, struct slice *state, int32_t *members, json_t *rows,
                    struct err *err)
{
    struct slice names[] = {slice_str(group)};
    struct kp_describe_groups_request r;
    kp_init(&kp_describe_groups_request_message, &r);
    r.groups = names;
    r.groups_n = 1;
    struct session_reply reply;
    struct client_target coordinator = session_group(group);
    int rc = session_call(s, &coordinator, kp_key_describe_groups, 0, 5, &r, &reply, err);
    if (rc)
        return rc;
    const struct kp_describe_groups_response *a = reply.body;
    if (a->groups_n != 1)
        return err_set(err, -E_CORRUPT, "the broker answered about %d groups", a->groups_n);
    if (a->groups[0].error_code && a->groups[0].error_code != KE_GROUP_ID_NOT_FOUND)
        return session_kafka_error(err, a->groups[0].error_code, SLICE_NULL, "group %s", group);
    *state = a->groups[0].group_state;
    *members = a->groups[0].members_n;
    for (int32_t i = 0; rows && i < a->groups[0].members_n; i++)
        json_array_append_new(rows, json_pack("{s:o, s:o, s:o}", "member_id",
                                              cli_json_slice(a->groups[0].members[i].member_id), "client_id",
                                              cli_json_slice(a->groups[0].members[i].client_id), "host",
                                              cli_json_slice(a->groups[0].members[i].client_host)));
    return 0;
}

static int describe(struct cli *cli, struct session *s, const void *arg)
{
    const char *name = arg;
    struct err err = {0};
    struct slice state;
    int32_t members;
    struct group_commits commits;
    json_t *rows = json_array(), *who = json_array();
    int rc = cli_group_state(s, name, &state, &members, who, &err);
    rc = rc ? rc : group_commits(s, name, &commits, &err);
    if (!rc && commits.n == 0 && members == 0 && (slice_eq_str(state, "Dead") || state.n == 0))
        rc = err_set(&err, -E_NOTFOUND, "there is no such group (sundog group list shows them)");
    for (size_t i = 0; !rc && i < commits.n; i++) {
        const struct group_offset *c = &commits.list[i];
        int64_t end = -1;
        struct err gone = {0};
        if (session_offset(s, c->topic, c->partition, -1, &end, &gone))
            end = -1; /* a topic that is not there any more has no lag */
        json_array_append_new(
            rows, json_pack("{s:o, s:i, s:I, s:I, s:I, s:o}", "topic", cli_json_slice(c->topic), "partition",
                            c->partition, "committed_offset", (json_int_t)c->offset, "end_offset",
                            (json_int_t)end, "lag", (json_int_t)(end < 0 ? -1 : end - c->offset), "metadata",
                            cli_json_slice(c->metadata)));
    }
    json_t *document = rc ? NULL
                          : json_pack("{s:s, s:o, s:O, s:O}", "group", name, "state", cli_json_slice(state),
                                      "members", who, "partitions", rows);
    if (!rc && cli->json) {
        rc = cli_print_json(document);
    } else if (!rc) {
        printf("group %s  state %.*s  members %d\n", name, SLICE_FMT(state), members);
        size_t i;
        json_t *row;
        json_array_foreach(rows, i, row)
            printf("  %s-%" JSON_INTEGER_FORMAT "  committed %" JSON_INTEGER_FORMAT
                   "  end %" JSON_INTEGER_FORMAT "  lag %" JSON_INTEGER_FORMAT "\n",
                   json_string_value(json_object_get(row, "topic")),
                   json_integer_value(json_object_get(row, "partition")),
                   json_integer_value(json_object_get(row, "committed_offset")),
                   json_integer_value(json_object_get(row, "end_offset")),
                   json_integer_value(json_object_get(row, "lag")));
        json_decref(document);
    } else {
        rc = cli_fail_err(&err, "group %s", name);
    }
    json_decref(rows);
    json_decref(who);
    return rc;
}

int cli_group_describe(struct cli *cli, struct args *args)
{
    const char *name = args_word(args, "the group's name");
    return cli_on_cluster(cli, args, describe, name);
}
