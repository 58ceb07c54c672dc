#include "mirror/cli/stores.h"

#include "base/core/grow.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cli_aliases(struct cli *cli, struct cli_aliases *out)
{
    int code = cli_load(cli);
    if (code)
        return code;
    const char *clusters = props_get(&cli->props, "clusters");
    if (!clusters || strlen(clusters) >= sizeof out->text)
        return cli_fail(CLI_USAGE, "%s: clusters is %s", cli->file, clusters ? "too long" : "missing");
    memcpy(out->text, clusters, strlen(clusters) + 1);
    out->n = 0;
    char *at = out->text;
    while (*at && out->n < CLI_ALIASES_MAX) {
        at += strspn(at, ", \t");
        size_t n = strcspn(at, ", \t");
        if (n == 0)
            break;
        out->alias[out->n++] = at;
        at += n;
        if (*at)
            *at++ = '\0';
    }
    return 0;
}

const char *cli_store_dir(struct cli *cli, const char *alias)
{
    const char *path = cli_own_key(cli, alias, "sundog.store.dir");
    return path ? path : STORE_DIR_DEFAULT;
}

int cli_store_open_path(struct cli *cli, const char *path, struct cli_store *out)
{
    (void)cli;
    struct err err = {0};
    struct store_options o = {.path = path, .mode = STORE_READER, .disk = cli->disk};
    *out = (struct cli_store){0};
    int rc = store_open(&o, &out->store, &err);
    if (!rc)
        rc = store_view_open(out->store, &out->view, &err);
    if (rc) {
        cli_store_close(out);
        return cli_fail_err(&err, "the mirror's store");
    }
    return 0;
}

int cli_store_open(struct cli *cli, const char *alias, struct cli_store *out)
{
    int code = cli_load(cli);
    if (code)
        return code;
    return cli_store_open_path(cli, cli_store_dir(cli, alias), out);
}

void cli_store_close(struct cli_store *s)
{
    if (s->view)
        store_view_close(s->view);
    if (s->store)
        store_close(s->store);
    *s = (struct cli_store){0};
}

bool cli_flow_aliases(struct slice name, struct slice *source, struct slice *target)
{
    for (size_t i = 0; i + 1 < name.n; i++)
        if (name.p[i] == '-' && name.p[i + 1] == '>') {
            *source = slice_of(name.p, i);
            *target = slice_of(name.p + i + 2, name.n - i - 2);
            return source->n > 0 && target->n > 0;
        }
    return false;
}

struct gathering {
    struct slice group;
    struct cli_followed *out;
    size_t list_cap, entries_cap;
};

static int on_group(void *arg, const struct group_entry *g)
{
    struct gathering *at = arg;
    struct cli_followed *out = at->out;
    if (!slice_eq(g->group, at->group))
        return 0;
    if (out->entries_n >= CLI_COMMITS_MAX)
        return -E_LIMIT;
    if (!GROW(out->entries, out->entries_n, at->entries_cap, 64))
        return -E_NOMEM;
    out->entries[out->entries_n++] = *g;
    for (size_t i = 0; i < g->commits_n; i++) {
        size_t k = 0;
        while (k < out->n && out->list[k].p != g->commits[i].p)
            k++;
        if (k < out->n)
            continue;
        if (out->n >= CLI_COMMITS_MAX)
            return -E_LIMIT;
        if (!GROW(out->list, out->n, at->list_cap, 64))
            return -E_NOMEM;
        out->list[out->n++] = g->commits[i];
    }
    return 0;
}

int cli_followed(struct store_view *v, uint32_t topic, const char *group, struct cli_followed *out)
{
    *out = (struct cli_followed){0};
    struct gathering at = {.group = slice_str(group), .out = out};
    int rc = store_groups_each(v, topic, on_group, &at);
    if (rc)
        cli_followed_fini(out);
    return rc;
}

void cli_followed_fini(struct cli_followed *f)
{
    free(f->list);
    free(f->entries);
    *f = (struct cli_followed){0};
}
