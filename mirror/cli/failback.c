/* sundog failback: a group that has moved on at a target returns to the source. Mirrored topics go back through the
 * reverse of the map that brought them; topics of the target's own through the return flow's progress topic at the
 * source. */
#include "mirror/cli/commands.h"
#include "mirror/cli/group.h"
#include "mirror/cli/move.h"
#include "mirror/cli/progress.h"
#include "mirror/cli/stores.h"

#include <stdlib.h>
#include <string.h>

struct failback {
    struct move move;
    const char *to; /* the source alias */
    struct cli_store store;
    uint32_t flow; /* of this target */
    struct group_commits commits;
    bool *taken;           /* per commit: its topic has been dealt with */
    struct progress *back; /* the return flow's map, NULL when there is none */
    struct err err;
};

/* The group's commits on one topic, as translation wants them. */
static size_t commits_of(const struct failback *f, struct slice topic, struct group_commit *out)
{
    size_t n = 0;
    for (size_t i = 0; i < f->commits.n; i++)
        if (slice_eq(f->commits.list[i].topic, topic)) {
            out[n++] = (struct group_commit){f->commits.list[i].partition, f->commits.list[i].offset};
            f->taken[i] = true;
        }
    return n;
}

struct leg {
    struct map *map;
    struct route_rule rule;
    bool reverse;
    struct slice from_topic, topic;
    int32_t partitions_from, partitions_to;
};

static int move_leg(struct failback *f, const struct leg *l, const struct group_commit *list, size_t n)
{
    struct translate_commits commits = {list, n, l->partitions_from};
    bool keep = l->rule.mode == ROUTE_KEEP;
    int32_t many = keep ? (int32_t)n : l->partitions_to;
    for (int32_t i = 0; i < many; i++) {
        int32_t here = keep ? list[i].p : i;
        struct translate_bounds bounds;
        struct translation t;
        struct move_row row = {l->from_topic, l->topic, here, keep ? list[i].offset : -1, 0};
        int rc = move_bounds(&f->move, l->topic, here, &bounds, &f->err);
        if (rc)
            return rc;
        rc = l->reverse ? translate_back(l->map, l->rule, &commits, here, &bounds, &t)
                        : translate_forward(l->map, l->rule, &commits, here, &bounds, &t);
        if (rc)
            return err_set(&f->err, rc, "the map of %.*s: %s", SLICE_FMT(l->from_topic), err_str(rc));
        if ((rc = move_add(&f->move, &row, &t, &f->err)))
            return rc;
    }
    return 0;
}

/* One topic that the group has commits on at the target. */
static int move_topic(struct failback *f, struct slice topic, struct group_commit *list)
{
    size_t n = commits_of(f, topic, list);
    struct stored_topic stored;
    int found = store_topic_named(f->store.view, f->flow, topic, true, &stored);
    if (found < 0)
        return err_set(&f->err, found, "the store: %s", err_str(found));
    if (found) {
        struct topic_map m;
        int rc = topic_map_open(f->store.view, &stored, &m);
        if (rc < 0)
            return err_set(&f->err, rc, "the store: %s", err_str(rc));
        if (rc == 0) {
            move_lacks(&f->move, topic, "nothing of it has been mirrored");
            return 0;
        }
        int32_t here = topic_map_targets(&m);
        struct leg l = {&m.map.map, m.rule, true, topic, stored.topic.name, here, m.partitions};
        return move_leg(f, &l, list, n);
    }
    struct progress_topic own;
    if (!f->back || !cli_progress_topic(f->back, topic, &own)) {
        move_lacks(&f->move, topic,
                   f->back ? "the return flow has not mirrored it"
                           : "the return flow has left no progress at the source");
        return 0;
    }
    int32_t there = own.rule.mode == ROUTE_KEEP ? own.partitions : own.rule.target_partitions;
    struct leg l = {own.map, own.rule, false, topic, own.target_topic, own.partitions, there};
    return move_leg(f, &l, list, n);
}

static int on_flow(void *arg, const struct stored_flow *flow)
{
    struct failback *f = arg;
    struct slice source, target;
    if (!cli_flow_aliases(flow->name, &source, &target) || !slice_eq_str(source, f->to))
        return 0;
    char alias[256];
    struct session_address address;
    slice_cstr(target, alias, sizeof alias);
    struct session *from = NULL;
    if (cli_cluster_address(f->move.cli, alias, &address))
        return err_set(&f->err, -E_CONFIG, "the file has no cluster '%s'", alias);
    int rc = session_open(&address, f->move.cli->timeout_ms, &from, &f->err);
    rc = rc ? rc : group_commits(from, f->move.what.group, &f->commits, &f->err);
    if (!rc)
        rc = cli_progress_read(f->move.to, target, &f->back, &f->err);
    f->flow = flow->number;
    f->taken = calloc(f->commits.n + 1, sizeof *f->taken);
    struct group_commit *list = calloc(f->commits.n + 1, sizeof *list);
    if (!rc && (!f->taken || !list))
        rc = err_set(&f->err, -E_NOMEM, "out of memory");
    for (size_t i = 0; !rc && i < f->commits.n; i++)
        if (!f->taken[i])
            rc = move_topic(f, f->commits.list[i].topic, list);
    cli_progress_free(f->back);
    f->back = NULL;
    free(f->taken);
    free(list);
    session_close(from);
    f->commits = (struct group_commits){0};
    return rc;
}

/* Every store of the file that is here: the mirrors that brought the source's records to their targets. */
static int gather(struct failback *f, struct cli *cli)
{
    struct cli_aliases aliases;
    int code = cli_aliases(cli, &aliases), stores = 0;
    const char *seen[CLI_ALIASES_MAX];
    for (int i = 0; !code && i < aliases.n; i++) {
        const char *dir = cli_store_dir(cli, aliases.alias[i]);
        bool again = strcmp(aliases.alias[i], f->to) == 0;
        for (int k = 0; k < stores; k++)
            again |= strcmp(seen[k], dir) == 0;
        if (again || disk_kind(cli->disk, dir) != DISK_IS_DIR)
            continue;
        seen[stores++] = dir;
        if ((code = cli_store_open_path(cli, dir, &f->store)))
            break;
        if (store_flows_each(f->store.view, on_flow, f))
            code = cli_fail_err(&f->err, "group %s", f->move.what.group);
        cli_store_close(&f->store);
    }
    if (!code && stores == 0)
        code = cli_fail(CLI_FAILED, "no store of a mirror is here: use the file of the mirror that mirrored "
                                    "the records (sundog.store.dir)");
    return code;
}

int cli_failback(struct cli *cli, struct args *args)
{
    struct move_what what;
    int code = move_args(args, &what);
    if (!code)
        code = cli_load(cli);
    if (code)
        return code;
    struct failback f = {.to = what.to};
    code = move_init(&f.move, cli, &what);
    if (!code)
        code = gather(&f, cli);
    if (!code)
        code = move_finish(&f.move);
    move_fini(&f.move);
    return code;
}
