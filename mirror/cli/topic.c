/* sundog topic create|list|describe|delete */
#include "mirror/cli/commands.h"
#include "mirror/cli/session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOPIC_CONFIGS_MAX 64

struct creation {
    const char *name;
    struct kp_create_topics_request_topics *topic;
};

static int create(struct cli *cli, struct session *s, const void *arg)
{
    const struct creation *c = arg;
    const char *name = c->name;
    struct kp_create_topics_request r;
    kp_init(&kp_create_topics_request_message, &r);
    c->topic->name = slice_str(name);
    r.topics = c->topic;
    r.topics_n = 1;
    r.timeout_ms = (int32_t)cli->timeout_ms;
    struct session_reply reply;
    struct err err = {0};
    struct client_target controller = {.kind = CLIENT_CONTROLLER};
    if (session_call(s, &controller, kp_key_create_topics, 4, 7, &r, &reply, &err))
        return cli_fail_err(&err, "topic %s", name);
    const struct kp_create_topics_response *a = reply.body;
    if (a->topics_n != 1)
        return cli_fail(CLI_FAILED, "topic %s: the broker answered about %d topics", name, a->topics_n);
    if (a->topics[0].error_code) {
        session_kafka_error(&err, a->topics[0].error_code, a->topics[0].error_message, "topic %s", name);
        return cli_fail(CLI_FAILED, "%s", err.text);
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:s, s:i, s:i}", "topic", name, "partitions",
                                        a->topics[0].num_partitions, "replication_factor",
                                        a->topics[0].replication_factor));
    printf("created topic %s\n", name);
    return CLI_DONE;
}

int cli_topic_create(struct cli *cli, struct args *args)
{
    struct kp_create_topics_request_topics t;
    struct kp_create_topics_request_configs configs[TOPIC_CONFIGS_MAX];
    memset(&t, 0, sizeof t);
    memset(configs, 0, sizeof configs);
    t.num_partitions = (int32_t)args_number(args, "--partitions", 1, 1000000, -1);
    t.replication_factor = (int16_t)args_number(args, "--replication-factor", 1, INT16_MAX, -1);
    const char *pair;
    while (t.configs_n < TOPIC_CONFIGS_MAX && (pair = args_option_next(args, "--config"))) {
        const char *equals = strchr(pair, '=');
        if (!equals)
            return cli_fail(CLI_USAGE, "--config %s: KEY=VALUE is expected", pair);
        configs[t.configs_n++] = (struct kp_create_topics_request_configs){
            .name = slice_of(pair, (size_t)(equals - pair)), .value = slice_str(equals + 1)};
    }
    t.configs = configs;
    const char *name = args_word(args, "the topic's name");
    return cli_on_cluster(cli, args, create, &(struct creation){name, &t});
}

static int list(struct cli *cli, struct session *s, const void *arg)
{
    (void)arg;
    struct session_topic *topics;
    int32_t n;
    struct err err = {0};
    if (session_topics(s, &topics, &n, &err))
        return cli_fail_err(&err, "topics");
    json_t *rows = json_array();
    for (int32_t i = 0; i < n; i++) {
        if (cli->json)
            json_array_append_new(rows, json_pack("{s:o, s:i, s:b}", "topic", cli_json_slice(topics[i].name),
                                                  "partitions", topics[i].partitions_n, "internal",
                                                  topics[i].internal));
        else
            printf("%.*s\n", SLICE_FMT(topics[i].name));
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:o}", "topics", rows));
    json_decref(rows);
    return CLI_DONE;
}

int cli_topic_list(struct cli *cli, struct args *args)
{
    return cli_on_cluster(cli, args, list, NULL);
}

/* The topic's own settings, not the defaults. */
static int settings(struct session *s, struct slice topic, json_t *to, struct err *err)
{
    struct kp_describe_configs_request_resources resource = {
        .resource_type = 2, .resource_name = topic, .configuration_keys_n = -1};
    struct kp_describe_configs_request r;
    kp_init(&kp_describe_configs_request_message, &r);
    r.resources = &resource;
    r.resources_n = 1;
    struct session_reply reply;
    struct client_target any = session_any();
    int rc = session_call(s, &any, kp_key_describe_configs, 1, 4, &r, &reply, err);
    if (rc)
        return rc;
    const struct kp_describe_configs_response *a = reply.body;
    enum { OF_TOPIC = 1 };
    for (int32_t i = 0; a->results_n == 1 && i < a->results[0].configs_n; i++) {
        const struct kp_describe_configs_response_configs *c = &a->results[0].configs[i];
        if (c->config_source == OF_TOPIC) {
            char key[256];
            json_object_set_new(to, slice_cstr(c->name, key, sizeof key), cli_json_slice(c->value));
        }
    }
    return 0;
}

static int describe(struct cli *cli, struct session *s, const void *arg)
{
    const char *name = arg;
    struct session_topic t;
    struct err err = {0};
    if (session_topic(s, name, &t, &err))
        return cli_fail_err(&err, "topic %s", name);
    json_t *rows = json_array(), *config = json_object();
    int rc = settings(s, t.name, config, &err);
    for (int32_t i = 0; !rc && i < t.partitions_n; i++) {
        const struct kp_metadata_response_partitions *p = &t.partitions[i];
        int64_t start = -1, end = -1;
        if (p->error_code == 0 && p->leader_id >= 0) {
            rc = session_offset(s, t.name, p->partition_index, -2, &start, &err);
            rc = rc ? rc : session_offset(s, t.name, p->partition_index, -1, &end, &err);
        }
        json_t *isr = json_array();
        for (int32_t k = 0; k < p->isr_nodes_n; k++)
            json_array_append_new(isr, json_integer(p->isr_nodes[k]));
        json_array_append_new(rows, json_pack("{s:i, s:i, s:i, s:o, s:I, s:I}", "partition",
                                              p->partition_index, "leader", p->leader_id, "leader_epoch",
                                              p->leader_epoch, "isr", isr, "log_start_offset",
                                              (json_int_t)start, "end_offset", (json_int_t)end));
    }
    if (rc) {
        json_decref(rows);
        json_decref(config);
        return cli_fail_err(&err, "topic %s", name);
    }
    char id[UUID_TEXT_SIZE];
    json_t *document = json_pack("{s:s, s:s, s:o, s:o}", "topic", name, "topic_id", uuid_text(&t.id, id),
                                 "config", config, "partitions", rows);
    if (cli->json)
        return cli_print_json(document);
    printf("topic %s  id %s  partitions %d\n", name, id, t.partitions_n);
    const char *key;
    json_t *value;
    json_object_foreach(config, key, value)
        printf("  %s=%s\n", key, json_string_value(value) ? json_string_value(value) : "");
    size_t i;
    json_array_foreach(rows, i, value)
        printf("  partition %" JSON_INTEGER_FORMAT "  leader %" JSON_INTEGER_FORMAT
               "  log start %" JSON_INTEGER_FORMAT "  end %" JSON_INTEGER_FORMAT "\n",
               json_integer_value(json_object_get(value, "partition")),
               json_integer_value(json_object_get(value, "leader")),
               json_integer_value(json_object_get(value, "log_start_offset")),
               json_integer_value(json_object_get(value, "end_offset")));
    json_decref(document);
    return CLI_DONE;
}

int cli_topic_describe(struct cli *cli, struct args *args)
{
    const char *name = args_word(args, "the topic's name");
    return cli_on_cluster(cli, args, describe, name);
}

static int delete (struct cli *cli, struct session *s, const void *arg)
{
    const char *name = arg;
    struct slice names[] = {slice_str(name)};
    struct kp_delete_topics_request r;
    kp_init(&kp_delete_topics_request_message, &r);
    r.topic_names = names;
    r.topic_names_n = 1;
    r.timeout_ms = (int32_t)cli->timeout_ms;
    struct session_reply reply;
    struct session_topic t;
    struct err err = {0};
    struct client_target controller = {.kind = CLIENT_CONTROLLER};
    if (session_topic(s, name, &t, &err))
        return cli_fail_err(&err, "topic %s", name);
    if (t.internal)
        return cli_fail(CLI_REFUSED, "topic %s is internal: the cluster keeps its groups' offsets there",
                        name);
    if (session_call(s, &controller, kp_key_delete_topics, 1, 5, &r, &reply, &err))
        return cli_fail_err(&err, "topic %s", name);
    const struct kp_delete_topics_response *a = reply.body;
    if (a->responses_n != 1 || a->responses[0].error_code) {
        session_kafka_error(&err, a->responses_n ? a->responses[0].error_code : KE_UNKNOWN_SERVER_ERROR,
                            a->responses_n ? a->responses[0].error_message : SLICE_NULL, "topic %s", name);
        return cli_fail(CLI_FAILED, "%s", err.text);
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:s, s:b}", "topic", name, "deleted", 1));
    printf("deleted topic %s\n", name);
    return CLI_DONE;
}

int cli_topic_delete(struct cli *cli, struct args *args)
{
    const char *name = args_word(args, "the topic's name");
    return cli_on_cluster(cli, args, delete, name);
}
