/* sundog translate: one offset by the store alone, or all of a group's as the mirror follows them. */
#include "mirror/cli/commands.h"
#include "mirror/cli/stores.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *state_name(enum translate_state s)
{
    return s == TRANSLATE_EXACT ? "exact" : s == TRANSLATE_AHEAD ? "ahead" : "no map";
}

struct wanted {
    const char *flow, *topic;
    int64_t partition, offset;
};

static json_t *row_of(struct slice topic, int32_t q, const struct translation *t)
{
    return json_pack("{s:o, s:i, s:I, s:I, s:s}", "topic", cli_json_slice(topic), "partition", q, "offset",
                     (json_int_t)t->offset, "reread", (json_int_t)t->reread, "state", state_name(t->state));
}

/* Where keys are hashed, one source partition feeds several of the target: each of them is told. JSON, --json or not:
 * this is what scripts ask. */
static int translate_one(const struct wanted *w, struct topic_map *m)
{
    struct group_commit commit = {(int32_t)w->partition, w->offset};
    struct translate_commits commits = {&commit, 1, m->rule.mode == ROUTE_KEEP ? m->partitions : 0};
    int32_t from = (int32_t)w->partition, to = from + 1;
    if (m->rule.mode == ROUTE_HASH) {
        from = 0;
        to = m->rule.target_partitions;
        commits.partitions = m->partitions;
    }
    json_t *rows = json_array();
    int known = 0;
    for (int32_t q = from; q < to; q++) {
        struct translation t;
        int rc = translate_forward(&m->map.map, m->rule, &commits, q, NULL, &t);
        if (rc) {
            json_decref(rows);
            return cli_fail(CLI_FAILED, "the store: %s", err_str(rc));
        }
        if (t.state != TRANSLATE_NO_MAP)
            known++, json_array_append_new(rows, row_of(m->topic.target_topic, q, &t));
    }
    if (!known) {
        json_decref(rows);
        return cli_fail(CLI_FAILED, "no map: nothing of %s-%" PRId64 " has been mirrored by %s", w->topic,
                        w->partition, w->flow);
    }
    if (m->rule.mode == ROUTE_KEEP) {
        json_t *only = json_incref(json_array_get(rows, 0));
        json_decref(rows);
        return cli_print_json(only);
    }
    return cli_print_json(
        json_pack("{s:o, s:o}", "topic", cli_json_slice(m->topic.target_topic), "partitions", rows));
}

static int translate_offset(struct cli *cli, const char *dir, const struct wanted *w)
{
    struct cli_store s;
    int code = cli_store_open_path(cli, dir, &s);
    if (code)
        return code;
    struct stored_flow flow;
    struct stored_topic topic;
    struct topic_map m;
    int rc = store_flow(s.view, slice_str(w->flow), &flow);
    if (rc == 0)
        code = cli_fail(CLI_FAILED, "%s holds no flow '%s'", dir, w->flow);
    else if (rc > 0 && (rc = store_topic_named(s.view, flow.number, slice_str(w->topic), false, &topic)) == 0)
        code = cli_fail(CLI_FAILED, "flow %s has mirrored no topic '%s'", w->flow, w->topic);
    else if (rc > 0 && (rc = topic_map_open(s.view, &topic, &m)) == 0)
        code = cli_fail(CLI_FAILED, "no map: nothing of topic %s has been mirrored by %s", w->topic, w->flow);
    else if (rc > 0)
        code = translate_one(w, &m);
    if (rc < 0)
        code = cli_fail(CLI_FAILED, "%s: %s", dir, err_str(rc));
    cli_store_close(&s);
    return code;
}

/* ---- a group ---- */

struct group_walk {
    struct cli *cli;
    struct store_view *view;
    const char *group;
    struct slice flow;
    uint32_t flow_number;
    json_t *rows;
};

static json_t *entry_row(const struct group_walk *w, const struct stored_topic *t,
                         const struct group_entry *g)
{
    json_t *commits = json_array();
    json_int_t source = -1;
    for (size_t i = 0; i < g->commits_n; i++) {
        json_array_append_new(commits, json_pack("{s:i, s:I}", "partition", g->commits[i].p, "offset",
                                                 (json_int_t)g->commits[i].offset));
        if (g->commits[i].p == g->q || g->commits_n == 1)
            source = g->commits[i].offset;
    }
    return json_pack("{s:o, s:o, s:o, s:i, s:I, s:I, s:I, s:s, s:o, s:b, s:o}", "flow",
                     cli_json_slice(w->flow), "source_topic", cli_json_slice(t->topic.name), "topic",
                     cli_json_slice(t->target_topic), "partition", g->q, "source_offset", source, "offset",
                     (json_int_t)g->offset, "reread", (json_int_t)g->reread, "state",
                     mirror_group_state_name(g->state), "reason", cli_json_slice(g->reason), "applied",
                     g->applied, "source_commits", commits);
}

static int on_topic(void *arg, const struct stored_topic *t)
{
    struct group_walk *w = arg;
    if (t->flow != w->flow_number)
        return 0;
    struct cli_followed f;
    int rc = cli_followed(w->view, t->number, w->group, &f);
    for (size_t i = 0; !rc && i < f.entries_n; i++)
        json_array_append_new(w->rows, entry_row(w, t, &f.entries[i]));
    cli_followed_fini(&f);
    return rc;
}

static int on_flow(void *arg, const struct stored_flow *f)
{
    struct group_walk *w = arg;
    w->flow = f->name;
    w->flow_number = f->number;
    return store_topics_each(w->view, on_topic, w);
}

static int translate_group(struct cli *cli, const char *group)
{
    struct cli_aliases aliases;
    int code = cli_aliases(cli, &aliases);
    if (code)
        return code;
    struct group_walk w = {.cli = cli, .group = group, .rows = json_array()};
    const char *seen[CLI_ALIASES_MAX];
    int stores = 0;
    for (int i = 0; !code && i < aliases.n; i++) {
        const char *dir = cli_store_dir(cli, aliases.alias[i]);
        bool again = false;
        for (int k = 0; k < stores; k++)
            again |= strcmp(seen[k], dir) == 0;
        if (again || disk_kind(cli->disk, dir) != DISK_IS_DIR)
            continue; /* a mirror that runs elsewhere */
        seen[stores++] = dir;
        struct cli_store s;
        if ((code = cli_store_open_path(cli, dir, &s)))
            break;
        w.view = s.view;
        int rc = store_flows_each(s.view, on_flow, &w);
        if (rc)
            code = cli_fail(CLI_FAILED, "%s: %s", dir, err_str(rc));
        cli_store_close(&s);
    }
    if (!code && stores == 0)
        code = cli_fail(CLI_FAILED, "%s: no store of a mirror is here (sundog.store.dir)", cli->file);
    if (!code && json_array_size(w.rows) == 0)
        code = cli_fail(CLI_FAILED,
                        "no mirror here follows a group '%s': it has no commits on mirrored topics, or "
                        "groups excludes it",
                        group);
    if (code) {
        json_decref(w.rows);
        return code;
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:s, s:o}", "group", group, "partitions", w.rows));
    size_t i;
    json_t *row;
    json_array_foreach(w.rows, i, row) printf(
        "%s  %s-%" JSON_INTEGER_FORMAT "  at %" JSON_INTEGER_FORMAT "  offset %" JSON_INTEGER_FORMAT
        "  re-read %" JSON_INTEGER_FORMAT "  %s%s%s\n",
        json_string_value(json_object_get(row, "flow")), json_string_value(json_object_get(row, "topic")),
        json_integer_value(json_object_get(row, "partition")),
        json_integer_value(json_object_get(row, "source_offset")),
        json_integer_value(json_object_get(row, "offset")),
        json_integer_value(json_object_get(row, "reread")), json_string_value(json_object_get(row, "state")),
        json_string_length(json_object_get(row, "reason")) ? ": " : "",
        json_string_length(json_object_get(row, "reason")) ? json_string_value(json_object_get(row, "reason"))
                                                           : "");
    json_decref(w.rows);
    return CLI_DONE;
}

int cli_translate(struct cli *cli, struct args *args)
{
    const char *group = args_option(args, "--group"), *dir = args_option(args, "--store");
    struct wanted w = {.flow = args_option(args, "--flow"), .topic = args_option(args, "--topic")};
    w.partition = args_number(args, "--partition", 0, INT32_MAX, -1);
    w.offset = args_number(args, "--offset", 0, INT64_MAX, -1);
    if (!args_done(args))
        return cli_fail(CLI_USAGE, "%s", args->error);
    if (group)
        return dir || w.flow || w.topic || w.offset >= 0
                   ? cli_fail(CLI_USAGE, "--group goes with -c FILE only")
                   : translate_group(cli, group);
    if (!dir || !w.flow || !w.topic || w.partition < 0 || w.offset < 0)
        return cli_fail(
            CLI_USAGE,
            "--store, --flow, --topic, --partition and --offset are needed, or -c FILE and --group");
    return translate_offset(cli, dir, &w);
}
