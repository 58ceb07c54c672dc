/* sundog failover: a group goes on at the mirrors' target. The store there is all it needs: the source may be dead. */
#include "mirror/cli/commands.h"
#include "mirror/cli/move.h"
#include "mirror/cli/stores.h"

#include <stdlib.h>
#include <string.h>

#define SOURCE_PATIENCE_MS 2000

struct failover {
    struct move move;
    struct store_view *view;
    const char *to;
    uint32_t flow;          /* of this walk */
    struct session *source; /* NULL: not reachable */
    struct err err;
};

/* Records at the source that have not arrived: what its log holds behind our position, or, with the source away, at
 * least those that the group has consumed. */
static int64_t missing(struct failover *f, const struct topic_map *m, const struct translate_commits *commits,
                       int32_t p)
{
    struct map_position position;
    int64_t end = -1,
            next = store_position(f->view, m->topic.number, p, &position) == 1 ? position.next_offset : 0;
    struct err err = {0};
    if (f->source && session_offset(f->source, m->topic.topic.name, p, -1, &end, &err))
        end = -1;
    for (size_t i = 0; end < 0 && i < commits->n; i++)
        if (commits->list[i].p == p)
            end = commits->list[i].offset;
    return end > next ? end - next : 0;
}

static int move_partition(struct failover *f, struct topic_map *m, const struct translate_commits *commits,
                          int32_t q, const struct group_commit *only)
{
    struct translate_bounds bounds;
    struct translation t;
    struct move_row row = {m->topic.topic.name, m->topic.target_topic, q, only ? only->offset : -1, 0};
    int rc = move_bounds(&f->move, m->topic.target_topic, q, &bounds, &f->err);
    if (rc)
        return rc;
    rc = translate_forward(&m->map.map, m->rule, commits, q, &bounds, &t);
    if (rc)
        return err_set(&f->err, rc, "the store: %s", err_str(rc));
    if (only)
        row.missing = missing(f, m, commits, only->p);
    else
        for (int32_t p = 0; p < m->partitions; p++)
            row.missing += missing(f, m, commits, p);
    return move_add(&f->move, &row, &t, &f->err);
}

static int on_topic(void *arg, const struct stored_topic *topic)
{
    struct failover *f = arg;
    struct stored_topic newest;
    if (topic->flow != f->flow ||
        store_topic_named(f->view, f->flow, topic->topic.name, false, &newest) != 1 ||
        newest.number != topic->number)
        return 0;
    struct cli_followed followed;
    struct topic_map m;
    int rc = cli_followed(f->view, topic->number, f->move.what.group, &followed);
    if (rc)
        return err_set(&f->err, rc, "the store: %s", err_str(rc));
    if (followed.n > 0 && (rc = topic_map_open(f->view, topic, &m)) == 0)
        move_lacks(&f->move, topic->topic.name, "nothing of it has been mirrored");
    else if (followed.n > 0 && rc > 0) {
        struct translate_commits commits = {followed.list, followed.n, m.partitions};
        rc = 0;
        if (m.rule.mode == ROUTE_KEEP)
            for (size_t i = 0; !rc && i < followed.n; i++)
                rc = move_partition(f, &m, &commits, followed.list[i].p, &followed.list[i]);
        else
            for (int32_t q = 0; !rc && q < m.rule.target_partitions; q++)
                rc = move_partition(f, &m, &commits, q, NULL);
    }
    cli_followed_fini(&followed);
    return rc;
}

static int on_flow(void *arg, const struct stored_flow *flow)
{
    struct failover *f = arg;
    struct slice source, target;
    if (!cli_flow_aliases(flow->name, &source, &target) || !slice_eq_str(target, f->to))
        return 0;
    char alias[256];
    struct session_address address;
    struct err ignored = {0};
    f->source = NULL;
    f->flow = flow->number;
    slice_cstr(source, alias, sizeof alias);
    if (cli_cluster_address(f->move.cli, alias, &address) == 0 &&
        session_open(&address, SOURCE_PATIENCE_MS, &f->source, &ignored) == 0) {
        struct session_topic *topics;
        int32_t n;
        if (session_topics(f->source, &topics, &n, &ignored)) {
            session_close(f->source);
            f->source = NULL;
        }
    }
    int rc = store_topics_each(f->view, on_topic, f);
    session_close(f->source);
    f->source = NULL;
    return rc;
}

int cli_failover(struct cli *cli, struct args *args)
{
    struct move_what what;
    int code = move_args(args, &what);
    if (code)
        return code;
    struct failover f = {.to = what.to};
    struct cli_store s;
    code = cli_store_open(cli, what.to, &s);
    if (code)
        return code;
    f.view = s.view;
    code = move_init(&f.move, cli, &what);
    if (!code) {
        int rc = store_flows_each(s.view, on_flow, &f);
        code = rc ? cli_fail_err(&f.err, "group %s", what.group) : move_finish(&f.move);
    }
    move_fini(&f.move);
    cli_store_close(&s);
    return code;
}
