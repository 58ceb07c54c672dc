#include "base/runtime/options.h"

#include "base/runtime/log.h"
#include "base/runtime/options_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char option_required[] = "(required)";

static void *field(const struct option_row *row, void *in)
{
    return (char *)in + row->at;
}

const struct option_row *options_find(const struct option_table *t, const char *key)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->rows[i].key, key) == 0)
            return &t->rows[i];
    return NULL;
}

/* Frees what the field holds and empties it. */
static void drop_field(const struct option_row *row, void *in)
{
    if (row->type == OPTION_STRING || row->type == OPTION_PASSWORD) {
        char **s = field(row, in);
        free(*s);
        *s = NULL;
    } else if (row->type == OPTION_LIST) {
        struct option_list *l = field(row, in);
        for (size_t i = 0; i < l->n; i++)
            free(l->item[i]);
        free(l->item);
        *l = (struct option_list){0};
    }
}

void options_fini(const struct option_table *t, void *out)
{
    for (size_t i = 0; i < t->n; i++)
        drop_field(&t->rows[i], out);
}

static void move_field(const struct option_row *row, void *to, void *from)
{
    drop_field(row, to);
    switch (row->type) {
    case OPTION_BOOL: *(bool *)field(row, to) = *(bool *)field(row, from); break;
    case OPTION_INT: *(int32_t *)field(row, to) = *(int32_t *)field(row, from); break;
    case OPTION_LONG: *(int64_t *)field(row, to) = *(int64_t *)field(row, from); break;
    case OPTION_DOUBLE: *(double *)field(row, to) = *(double *)field(row, from); break;
    case OPTION_STRING:
    case OPTION_PASSWORD:
        *(char **)field(row, to) = *(char **)field(row, from);
        *(char **)field(row, from) = NULL;
        break;
    case OPTION_LIST:
        *(struct option_list *)field(row, to) = *(struct option_list *)field(row, from);
        *(struct option_list *)field(row, from) = (struct option_list){0};
        break;
    }
}

static void store(const struct option_row *row, void *out, struct option_value *v)
{
    drop_field(row, out);
    switch (row->type) {
    case OPTION_BOOL: *(bool *)field(row, out) = v->integer != 0; break;
    case OPTION_INT: *(int32_t *)field(row, out) = (int32_t)v->integer; break;
    case OPTION_LONG: *(int64_t *)field(row, out) = v->integer; break;
    case OPTION_DOUBLE: *(double *)field(row, out) = v->real; break;
    case OPTION_STRING:
    case OPTION_PASSWORD: *(char **)field(row, out) = v->text; break;
    case OPTION_LIST: *(struct option_list *)field(row, out) = v->list; break;
    }
    *v = (struct option_value){0};
}

int options_set(const struct option_row *row, void *out, const char *text, struct err *err)
{
    assert(row);
    assert(out);
    assert(text);
    struct option_value v = {0};
    int rc = option_value_parse(row, text, &v, err);
    if (rc == 0)
        store(row, out, &v);
    option_value_fini(&v);
    return rc;
}

int options_check(const struct option_row *row, const char *text, struct err *err)
{
    struct option_value v = {0};
    int rc = option_value_parse(row, text, &v, err);
    option_value_fini(&v);
    return rc;
}

static int apply_row(const struct option_row *row, struct props *p, void *out, struct err *err)
{
    const struct prop *given = props_find(p, row->key);
    const char *text = props_get(p, row->key);
    if (!text && row->value == option_required)
        return err_set(err, -E_CONFIG, "%s is missing: it must be set (%s)", row->key, row->help);
    if (!text)
        return row->value ? options_set(row, out, row->value, err) : 0;
    int rc = options_set(row, out, text, err);
    if (rc)
        err_wrap(err, "%s", given->origin);
    return rc;
}

int options_apply(const struct option_table *t, struct props *p, void *out, struct err *err)
{
    assert(t);
    assert(p);
    assert(out);
    memset(out, 0, t->struct_bytes);
    for (size_t i = 0; i < t->n; i++) {
        assert(t->rows[i].at < t->struct_bytes);
        int rc = apply_row(&t->rows[i], p, out, err);
        if (rc) {
            options_fini(t, out);
            return rc;
        }
    }
    return 0;
}

/* Edits that turn one word into the other, counted up to a cap of 64 letters. */
static unsigned distance(const char *a, const char *b)
{
    assert(a);
    assert(b);
    unsigned row[65];
    size_t n = strnlen(a, 64), m = strnlen(b, 64);
    for (unsigned j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned replace = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            unsigned least = row[j] < row[j - 1] ? row[j] : row[j - 1];
            row[j] = replace < least + 1 ? replace : least + 1;
        }
    }
    return row[m];
}

/* The most similar key of the tables, NULL when none is at all alike. */
static const char *nearest(const struct option_table *const *tables, size_t n, const char *key)
{
    const char *best = NULL;
    unsigned best_distance = (unsigned)strlen(key) / 3 + 1;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < tables[i]->n; j++) {
            unsigned d = distance(key, tables[i]->rows[j].key);
            if (d < best_distance) {
                best_distance = d;
                best = tables[i]->rows[j].key;
            }
        }
    return best;
}

static bool listed(const char *const *list, const char *key)
{
    for (; list && *list; list++)
        if (strcmp(*list, key) == 0)
            return true;
    return false;
}

int options_finish(const struct option_table *const *tables, size_t n, const char *const *unserved,
                   struct props *p, struct err *err)
{
    for (size_t i = 0; i < p->n; i++) {
        struct prop *prop = &p->list[i];
        if (prop->used || listed(unserved, prop->key))
            continue;
        const char *near = nearest(tables, n, prop->key);
        if (near)
            return err_set(err, -E_CONFIG, "%s: unknown key %s; did you mean %s?", prop->origin, prop->key,
                           near);
        return err_set(err, -E_CONFIG, "%s: unknown key %s; remove it or see --help for the keys",
                       prop->origin, prop->key);
    }
    for (size_t i = 0; i < p->n; i++)
        if (!p->list[i].used)
            log_warn("options", "key is not served and has no effect key=%s at=%s", p->list[i].key,
                     p->list[i].origin);
    return 0;
}

int options_reload(const struct option_table *t, void *now, void *fresh, const char **fixed_changed)
{
    assert(now != fresh);
    assert(fixed_changed);
    int changed = 0;
    *fixed_changed = NULL;
    for (size_t i = 0; i < t->n; i++) {
        const struct option_row *row = &t->rows[i];
        if (options_same(row, now, fresh))
            continue;
        if (row->reload == OPTION_RELOADABLE) {
            move_field(row, now, fresh);
            changed++;
        } else if (!*fixed_changed) {
            *fixed_changed = row->key;
        }
    }
    return changed;
}
