/* sundog dump store: everything in a mirror's checkpoint store, checked value by value. */
#include "mirror/cli/commands.h"
#include "mirror/cli/stores.h"

#include <inttypes.h>
#include <stdio.h>

struct dumping {
    struct store_view *view;
    json_t *flows, *topics, *aliases, *events;
    json_t *positions, *runs, *groups; /* of the topic at hand */
};

static int on_alias(void *arg, struct slice alias, struct slice cluster_id)
{
    struct dumping *d = arg;
    return json_array_append_new(d->aliases, json_pack("{s:o, s:o}", "alias", cli_json_slice(alias),
                                                       "cluster_id", cli_json_slice(cluster_id)));
}

static int on_flow(void *arg, const struct stored_flow *f)
{
    struct dumping *d = arg;
    char id[UUID_TEXT_SIZE];
    return json_array_append_new(d->flows, json_pack("{s:I, s:o, s:s, s:I}", "number", (json_int_t)f->number,
                                                     "flow", cli_json_slice(f->name), "progress_topic_id",
                                                     uuid_text(&f->progress_topic_id, id), "progress_next",
                                                     (json_int_t)f->progress_next));
}

static int on_position(void *arg, const struct map_position *p)
{
    struct dumping *d = arg;
    json_t *lanes = json_array();
    for (size_t i = 0; i < p->lanes_n; i++)
        json_array_append_new(lanes, json_pack("{s:i, s:I, s:I, s:I, s:I}", "partition", p->lanes[i].q,
                                               "number_next", (json_int_t)p->lanes[i].number_next,
                                               "end_offset", (json_int_t)p->lanes[i].end_offset,
                                               "source_next", (json_int_t)p->lanes[i].source_next,
                                               "source_idle", (json_int_t)p->lanes[i].source_idle));
    return json_array_append_new(
        d->positions, json_pack("{s:i, s:I, s:i, s:I, s:I, s:I, s:o}", "partition", p->p, "next_offset",
                                (json_int_t)p->next_offset, "leader_epoch", p->leader_epoch, "producer_id",
                                (json_int_t)p->producer_id, "fingerprint", (json_int_t)p->fingerprint,
                                "written_ms", (json_int_t)p->written_ms, "lanes", lanes));
}

static int on_run(void *arg, int32_t p, const struct map_run *r)
{
    struct dumping *d = arg;
    return json_array_append_new(d->runs,
                                 json_pack("{s:i, s:I, s:i, s:I, s:I}", "partition", p, "source_start",
                                           (json_int_t)r->src_start, "target_partition", r->q, "target_start",
                                           (json_int_t)r->dst_start, "count", (json_int_t)r->count));
}

static int on_group(void *arg, const struct group_entry *g)
{
    struct dumping *d = arg;
    return json_array_append_new(d->groups, json_pack("{s:o, s:i, s:I, s:I, s:s, s:o, s:b}", "group",
                                                      cli_json_slice(g->group), "partition", g->q, "offset",
                                                      (json_int_t)g->offset, "reread", (json_int_t)g->reread,
                                                      "state", mirror_group_state_name(g->state), "reason",
                                                      cli_json_slice(g->reason), "applied", g->applied));
}

static int on_topic(void *arg, const struct stored_topic *t)
{
    struct dumping *d = arg;
    d->positions = json_array();
    d->runs = json_array();
    d->groups = json_array();
    int rc = store_positions_each(d->view, t->number, on_position, d);
    rc = rc ? rc : store_runs_each(d->view, t->number, -1, on_run, d);
    rc = rc ? rc : store_groups_each(d->view, t->number, on_group, d);
    char id[UUID_TEXT_SIZE], target_id[UUID_TEXT_SIZE];
    json_t *row =
        json_pack("{s:I, s:I, s:o, s:s, s:o, s:s, s:o, s:o, s:o}", "number", (json_int_t)t->number, "flow",
                  (json_int_t)t->flow, "source_topic", cli_json_slice(t->topic.name), "source_topic_id",
                  uuid_text(&t->topic.id, id), "topic", cli_json_slice(t->target_topic), "topic_id",
                  uuid_text(&t->target_topic_id, target_id), "positions", d->positions, "runs", d->runs,
                  "groups", d->groups);
    return rc ? (json_decref(row), rc) : json_array_append_new(d->topics, row);
}

static int on_event(void *arg, const struct ledger_event *e)
{
    struct dumping *d = arg;
    return json_array_append_new(
        d->events,
        json_pack("{s:I, s:I, s:o, s:o, s:o, s:i, s:I, s:I, s:o}", "number", (json_int_t)e->number, "wall_ms",
                  (json_int_t)e->wall_ms, "flow", cli_json_slice(e->flow), "kind", cli_json_slice(e->kind),
                  "topic", cli_json_slice(e->topic), "partition", e->partition, "from", (json_int_t)e->from,
                  "count", (json_int_t)e->count, "text", cli_json_slice(e->text)));
}

int cli_dump_store(struct cli *cli, struct args *args)
{
    const char *path = args_word(args, "the store's directory");
    if (!args_done(args))
        return cli_fail(CLI_USAGE, "%s", args->error);
    struct cli_store s;
    int code = cli_store_open_path(cli, path, &s);
    if (code)
        return code;
    struct dumping d = {.view = s.view,
                        .flows = json_array(),
                        .topics = json_array(),
                        .aliases = json_array(),
                        .events = json_array()};
    struct err err = {0};
    int rc = store_verify(s.view, &err);
    if (!rc)
        rc = store_aliases_each(s.view, on_alias, &d);
    if (!rc)
        rc = store_flows_each(s.view, on_flow, &d);
    if (!rc)
        rc = store_topics_each(s.view, on_topic, &d);
    if (!rc)
        rc = store_events_each(s.view, 0, on_event, &d);
    json_t *document = json_pack("{s:o, s:o, s:o, s:o}", "aliases", d.aliases, "flows", d.flows, "topics",
                                 d.topics, "ledger", d.events);
    cli_store_close(&s);
    if (rc) {
        json_decref(document);
        return err.text[0] ? cli_fail_err(&err, "%s", path)
                           : cli_fail(CLI_FAILED, "%s: %s", path, err_str(rc));
    }
    return cli_print_json(document); /* text and JSON are one here: the store is a tree */
}
