#include "mirror/route/config.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "mirror/route/place.h"
#include "mirror/route/security.h"

static const struct option_row flow_rows[] = {
#define OPTION(...) OPTION_ROW(struct flow_options, __VA_ARGS__)
#include "mirror/route/flow_options.def"
#undef OPTION
};
const struct option_table flow_option_table = OPTION_TABLE("mirror flow", flow_rows, struct flow_options);

__attribute__((format(printf, 2, 3))) static void warn_line(const struct config_warnings *w, const char *fmt,
                                                            ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (w && w->line)
        w->line(w->arg, text);
}

static bool aliases_char(char c)
{
    return isalnum((unsigned char)c) || c == '.' || c == '_' || c == '-';
}

static int add_cluster(struct mirror_config *c, const char *alias, struct err *err)
{
    size_t n = strlen(alias);
    bool good = n > 0 && n <= MIRROR_ALIAS_MAX;
    for (size_t i = 0; i < n; i++)
        good = good && aliases_char(alias[i]);
    if (!good)
        return err_set(err, -E_CONFIG,
                       "clusters: \"%s\" cannot be an alias: it begins the names of topics; use up to %d of "
                       "a-z, A-Z, 0-9, '.', '_' and '-'",
                       alias, MIRROR_ALIAS_MAX);
    if (mirror_config_cluster(c, alias) >= 0)
        return err_set(err, -E_CONFIG, "clusters: \"%s\" is listed twice", alias);
    if (!(c->clusters[c->clusters_n].alias = strdup(alias)))
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    c->clusters_n++;
    return 0;
}

static int read_clusters(struct props *p, struct mirror_config *c, struct err *err)
{
    const char *list = props_get(p, "clusters");
    if (!list)
        return err_set(err, -E_CONFIG, "clusters is missing: list the aliases, as in clusters = east, west");
    c->clusters = calloc(MIRROR_CLUSTERS_MAX, sizeof *c->clusters);
    if (!c->clusters)
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, ",");
        size_t from = strspn(at, " \t"), to = n;
        while (to > from && (at[to - 1] == ' ' || at[to - 1] == '\t'))
            to--;
        char alias[PLACE_KEY_MAX];
        snprintf(alias, sizeof alias, "%.*s", (int)(to > from ? to - from : 0), at + (from < n ? from : n));
        if (c->clusters_n == MIRROR_CLUSTERS_MAX)
            return err_set(err, -E_LIMIT, "clusters: more than %d", MIRROR_CLUSTERS_MAX);
        int rc = add_cluster(c, alias, err);
        if (rc)
            return rc;
        at += n + (at[n] == ',');
    }
    if (c->clusters_n == 0)
        return err_set(err, -E_CONFIG, "clusters is empty: list the aliases, as in clusters = east, west");
    return 0;
}

static int refuse_provider(const struct prop *prop, struct err *err)
{
    const char *open = strstr(prop->value, "${");
    if (!open || !strchr(open, '}'))
        return 0;
    return err_set(err, -E_CONFIG, "%s = %s (%s): config providers are not served; write the value itself",
                   prop->key, prop->value, prop->origin);
}

static int read_bootstrap(struct props *p, struct mirror_config *c, struct err *err)
{
    for (int i = 0; i < c->clusters_n; i++) {
        char key[PLACE_KEY_MAX];
        snprintf(key, sizeof key, "%s.bootstrap.servers", c->clusters[i].alias);
        const char *value = props_get(p, key);
        if (!value || !*value)
            return err_set(err, -E_CONFIG, "%s is missing: where cluster %s is reached, as HOST:PORT", key,
                           c->clusters[i].alias);
        int rc = refuse_provider(props_find(p, key), err);
        if (rc)
            return rc;
        if (!(c->clusters[i].bootstrap = strdup(value)))
            return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    }
    return 0;
}

/* The value under the table's key; the file's own key goes into the origin, which errors show. */
static int resolve_as(struct props *resolved, const struct option_row *row, const struct prop *from,
                      struct err *err)
{
    char origin[PLACE_KEY_MAX * 2];
    bool same = strcmp(from->key, row->key) == 0;
    snprintf(origin, sizeof origin, "%s%s%s", same ? "" : from->key, same ? "" : ", ", from->origin);
    int rc = props_set(resolved, row->key, from->value, origin);
    return rc ? err_set(err, rc, "%s", err_str(rc)) : 0;
}

static int resolve_option(const struct mirror_config *c, const struct mirror_flow *f, struct props *file,
                          const struct option_row *row, struct props *resolved, struct err *err)
{
    const struct prop *best = NULL;
    int rank = 0;
    for (size_t i = 0; i < file->n; i++) {
        struct place at;
        if (!strstr(file->list[i].key, row->key) && !strstr(file->list[i].key, "blacklist") &&
            !strstr(file->list[i].key, "override."))
            continue;
        int rc = place_key(c, file->list[i].key, &at, err);
        if (rc)
            return rc;
        if (strcmp(at.option, row->key) != 0)
            continue;
        int its = place_rank(&at, f->source, f->target);
        if (its > rank) {
            rank = its;
            best = &file->list[i];
        }
    }
    if (!best)
        return 0;
    return resolve_as(resolved, row, best, err);
}

/* The strongest setting of each consumer key for this flow, the options' own keys aside. */
static int add_consumer(const struct mirror_config *c, struct mirror_flow *f, const struct props *file,
                        size_t from)
{
    struct place at, other;
    if (place_key(c, file->list[from].key, &at, NULL) || at.parts.of != OF_CONSUMER ||
        security_key(at.parts.key) || options_find(&flow_option_table, at.option))
        return 0;
    int rank = place_rank(&at, f->source, f->target);
    if (rank == 0)
        return 0;
    for (size_t i = 0; i < file->n; i++) {
        if (i == from || place_key(c, file->list[i].key, &other, NULL) ||
            strcmp(other.option, at.option) != 0)
            continue;
        int its = place_rank(&other, f->source, f->target);
        if (its > rank || (its == rank && i > from))
            return 0;
    }
    struct config_property *grown = realloc(f->consumer, (size_t)(f->consumer_n + 1) * sizeof *grown);
    if (!grown)
        return -E_NOMEM;
    f->consumer = grown;
    struct config_property *p = &grown[f->consumer_n++];
    p->key = strdup(at.parts.key);
    p->value = strdup(file->list[from].value);
    return p->key && p->value ? 0 : -E_NOMEM;
}

static int read_consumer(const struct mirror_config *c, struct mirror_flow *f, const struct props *file,
                         struct err *err)
{
    int rc = 0;
    for (size_t i = 0; i < file->n && !rc; i++)
        if (strstr(file->list[i].key, "consumer."))
            rc = add_consumer(c, f, file, i);
    return rc ? err_set(err, rc, "%s", err_str(rc)) : 0;
}

/* Whoever means the broker's default writes -1. */
static int check_factors(const struct flow_options *o, struct err *err)
{
    const struct {
        const char *key;
        int value;
    } factors[] = {{"replication.factor", (int)o->replication_factor},
                   {"checkpoints.topic.replication.factor", (int)o->checkpoints_factor},
                   {"heartbeats.topic.replication.factor", (int)o->heartbeats_factor},
                   {"offset-syncs.topic.replication.factor", (int)o->offset_syncs_factor}};
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++)
        if (factors[i].value == 0)
            return err_set(err, -E_CONFIG, "%s=0: allowed is 1 and up, or -1 for the broker's default",
                           factors[i].key);
    return 0;
}

static int read_flow(struct props *file, const struct mirror_config *c, struct mirror_flow *f,
                     struct err *err)
{
    struct props resolved;
    props_init(&resolved);
    int rc = 0;
    for (size_t i = 0; i < flow_option_table.n && !rc; i++)
        rc = resolve_option(c, f, file, &flow_option_table.rows[i], &resolved, err);
    if (!rc)
        rc = options_apply(&flow_option_table, &resolved, &f->o, err);
    props_fini(&resolved);
    if (rc)
        return rc;
    enum policy_kind kind;
    if (policy_kind_parse(f->o.policy_class, &kind))
        rc = err_set(
            err, -E_CONFIG,
            "replication.policy.class = %s: only DefaultReplicationPolicy and IdentityReplicationPolicy are "
            "served",
            f->o.policy_class);
    if (!rc)
        rc = check_factors(&f->o, err);
    if (rc)
        options_fini(&flow_option_table, &f->o);
    return rc;
}

static bool target_asked(const struct mirror_config *c, int target, const char *const *targets, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(targets[i], c->clusters[target].alias) == 0)
            return true;
    return n == 0;
}

static int read_flows(struct props *file, const char *const *targets, size_t targets_n,
                      struct mirror_config *c, struct err *err)
{
    c->flows = calloc((size_t)c->clusters_n * (size_t)c->clusters_n, sizeof *c->flows);
    if (!c->flows)
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    for (int s = 0; s < c->clusters_n; s++)
        for (int t = 0; t < c->clusters_n; t++) {
            if (s == t)
                continue;
            struct mirror_flow *f = &c->flows[c->flows_n];
            char name[2 * MIRROR_ALIAS_MAX + 3];
            snprintf(name, sizeof name, "%s->%s", c->clusters[s].alias, c->clusters[t].alias);
            *f = (struct mirror_flow){.source = s, .target = t};
            int rc = read_flow(file, c, f, err);
            if (rc)
                return rc;
            c->flows_n++;
            if ((rc = read_consumer(c, f, file, err)))
                return rc;
            if (!(f->name = strdup(name)))
                return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
            f->served = f->o.enabled && target_asked(c, t, targets, targets_n);
        }
    return 0;
}

/* Identity naming both ways would send each record round for ever: the name no longer tells where it came from. */
static int check_loops(const struct mirror_config *c, struct err *err)
{
    for (int i = 0; i < c->flows_n; i++) {
        const struct mirror_flow *f = &c->flows[i];
        const struct mirror_flow *back =
            mirror_config_flow(c, c->clusters[f->target].alias, c->clusters[f->source].alias);
        assert(back);
        if (!f->o.enabled || !back->o.enabled)
            continue;
        if (mirror_flow_policy(c, f).kind == POLICY_IDENTITY)
            return err_set(
                err, -E_CONFIG,
                "%s: replication.policy.class = IdentityReplicationPolicy with %s enabled too would send "
                "records round in circles: use DefaultReplicationPolicy or one way only",
                f->name, back->name);
    }
    return 0;
}

static int refuse_unknown(const struct prop *prop, const char *option, struct err *err)
{
    static const char tail[] = ".bootstrap.servers";
    size_t n = strlen(prop->key), t = sizeof tail - 1;
    if (n > t && strcmp(prop->key + n - t, tail) == 0)
        return err_set(err, -E_CONFIG,
                       "%s (%s): `clusters` does not list %.*s; add it there, or remove the key", prop->key,
                       prop->origin, (int)(n - t), prop->key);
    const char *nearest = known_key_nearest(option);
    return err_set(err, -E_CONFIG, "%s (%s): unknown key%s%s%s", prop->key, prop->origin,
                   nearest ? "; did you mean " : "; remove it or see --help for the keys",
                   nearest ? nearest : "", nearest ? "?" : "");
}

/* A key that nobody has taken: served, warned of, or refused. */
static int finish_key(const struct mirror_config *c, struct prop *prop, const struct option_table *own,
                      const struct config_warnings *w, struct err *err)
{
    struct place at;
    int rc = place_key(c, prop->key, &at, err);
    if (rc)
        return rc;
    if ((rc = refuse_provider(prop, err)))
        return rc;
    prop->used = true;
    if (own && at.scope != SCOPE_FLOW && options_find(own, at.option))
        return 0;
    bool option = options_find(&flow_option_table, at.option) != NULL;
    if (at.old_name)
        warn_line(w, "%s (%s) is an old name: write %s", prop->key, prop->origin, at.option);
    bool consumer = at.parts.of == OF_CONSUMER && known_key(at.parts.key) & OF_CONSUMER;
    if ((option || consumer) && place_speaks(&at))
        return 0;
    if (option)
        warn_line(w, "%s (%s) has no effect here: write it as %s or FLOW.%s", prop->key, prop->origin,
                  at.option, at.option);
    else if (known_key(at.parts.key) & at.parts.of || (at.parts.of_cluster && known_key(at.parts.key)) ||
             (at.scope == SCOPE_CLUSTER && known_key(at.parts.key)))
        warn_line(w, "%s (%s) is not served and changes nothing", prop->key, prop->origin);
    else
        return refuse_unknown(prop, at.option, err);
    return 0;
}

static int check_targets(const struct mirror_config *c, const char *const *targets, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (mirror_config_cluster(c, targets[i]) < 0)
            return err_set(err, -E_CONFIG, "--clusters: \"%s\" is not in `clusters`", targets[i]);
    return 0;
}

int mirror_config_read(struct props *p, const char *const *targets, size_t targets_n,
                       const struct option_table *own, const struct config_warnings *warn,
                       struct mirror_config *out, struct err *err)
{
    *out = (struct mirror_config){0};
    int rc = read_clusters(p, out, err);
    if (!rc)
        rc = check_targets(out, targets, targets_n, err);
    if (!rc)
        rc = read_bootstrap(p, out, err);
    if (!rc)
        rc = security_read(p, out, err);
    for (size_t i = 0; i < p->n && !rc; i++)
        if (!p->list[i].used && strcmp(p->list[i].key, "clusters") != 0)
            rc = finish_key(out, &p->list[i], own, warn, err);
    if (!rc)
        rc = read_flows(p, targets, targets_n, out, err);
    if (!rc)
        rc = check_loops(out, err);
    if (rc)
        mirror_config_fini(out);
    return rc;
}

int mirror_config_addresses(struct props *p, struct mirror_config *out, struct err *err)
{
    *out = (struct mirror_config){0};
    int rc = read_clusters(p, out, err);
    if (!rc)
        rc = read_bootstrap(p, out, err);
    if (!rc)
        rc = security_read(p, out, err);
    if (rc)
        mirror_config_fini(out);
    return rc;
}

void mirror_config_fini(struct mirror_config *c)
{
    for (int i = 0; i < c->flows_n; i++) {
        options_fini(&flow_option_table, &c->flows[i].o);
        for (int k = 0; k < c->flows[i].consumer_n; k++) {
            free(c->flows[i].consumer[k].key);
            free(c->flows[i].consumer[k].value);
        }
        free(c->flows[i].consumer);
        free(c->flows[i].name);
    }
    for (int i = 0; i < c->clusters_n; i++) {
        free(c->clusters[i].alias);
        free(c->clusters[i].bootstrap);
        client_security_fini(&c->clusters[i].security);
    }
    free(c->flows);
    free(c->clusters);
    *c = (struct mirror_config){0};
}

int mirror_config_own(const struct props *p, const struct option_table *own, const char *alias, void *out,
                      struct err *err)
{
    struct props resolved;
    props_init(&resolved);
    int rc = 0;
    for (size_t i = 0; i < own->n && !rc; i++) {
        char key[PLACE_KEY_MAX];
        snprintf(key, sizeof key, "%s.%s", alias ? alias : "", own->rows[i].key);
        const struct prop *prop = alias ? props_find(p, key) : NULL;
        if (!prop)
            prop = props_find(p, own->rows[i].key);
        if (prop)
            rc = resolve_as(&resolved, &own->rows[i], prop, err);
    }
    if (!rc)
        rc = options_apply(own, &resolved, out, err);
    props_fini(&resolved);
    return rc;
}

const char *mirror_config_only_target(const struct mirror_config *c)
{
    const char *only = NULL;
    for (int i = 0; i < c->flows_n; i++) {
        const char *target = c->clusters[c->flows[i].target].alias;
        if (!c->flows[i].served)
            continue;
        if (only && strcmp(only, target) != 0)
            return NULL;
        only = target;
    }
    return only;
}

int mirror_config_cluster(const struct mirror_config *c, const char *alias)
{
    for (int i = 0; i < c->clusters_n; i++)
        if (strcmp(c->clusters[i].alias, alias) == 0)
            return i;
    return -1;
}

struct mirror_flow *mirror_config_flow(const struct mirror_config *c, const char *source, const char *target)
{
    for (int i = 0; i < c->flows_n; i++) {
        struct mirror_flow *f = &c->flows[i];
        if (strcmp(c->clusters[f->source].alias, source) == 0 &&
            strcmp(c->clusters[f->target].alias, target) == 0)
            return f;
    }
    return NULL;
}

struct policy mirror_flow_policy(const struct mirror_config *c, const struct mirror_flow *f)
{
    struct policy p = {.kind = POLICY_DEFAULT,
                       .separator = slice_str(f->o.separator),
                       .source = slice_str(c->clusters[f->source].alias),
                       .target = slice_str(c->clusters[f->target].alias)};
    int rc = policy_kind_parse(f->o.policy_class, &p.kind);
    assert(rc == 0); /* read_flow has refused any other */
    (void)rc;
    p.internal_separator = f->o.internal_separator ? p.separator : SLICE_LIT(".");
    return p;
}
