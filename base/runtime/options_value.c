/* One option's value: from text, to text, and what is allowed, in words. */
#include "base/runtime/options_internal.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LIST_MAX 100000

void option_value_fini(struct option_value *v)
{
    free(v->text);
    for (size_t i = 0; i < v->list.n; i++)
        free(v->list.item[i]);
    free(v->list.item);
    *v = (struct option_value){0};
}

static bool bounded(const struct option_row *row)
{
    return row->min != 0 || row->max != 0;
}

/* Whether `unit` lists the values of a STRING or LIST. */
static bool enumerated(const struct option_row *row)
{
    assert(row->unit);
    return (row->type == OPTION_STRING || row->type == OPTION_LIST) && strchr(row->unit, '|');
}

static bool in_enumeration(const char *values, const char *word, size_t n)
{
    for (const char *at = values;; at++) {
        const char *end = strchrnul(at, '|');
        if ((size_t)(end - at) == n && strncmp(at, word, n) == 0)
            return true;
        if (!*end)
            return false;
        at = end;
    }
}

void options_allowed(const struct option_row *row, struct buf *to)
{
    static const char *const nouns[] = {"true or false", "an integer", "an integer", "a number",
                                        "a text",        "a list",     "a password"};
    if (enumerated(row)) {
        buf_printf(to, "%s ", row->type == OPTION_LIST ? "a list of" : "one of");
        for (const char *c = row->unit; *c; c++)
            buf_put(to, *c == '|' ? ", " : c, *c == '|' ? 2 : 1);
    } else {
        buf_printf(to, "%s", nouns[row->type]);
    }
    if (bounded(row) && row->type != OPTION_BOOL) {
        bool length = row->type == OPTION_STRING || row->type == OPTION_PASSWORD || row->type == OPTION_LIST;
        const char *of = row->type == OPTION_LIST ? " entries" : length ? " characters" : "";
        bool upper = row->max != INT64_MAX && !(row->type == OPTION_INT && row->max == INT32_MAX);
        bool lower = !(length && row->min == 0) && row->min != INT64_MIN &&
                     !(row->type == OPTION_INT && row->min == INT32_MIN);
        const char *with = length ? "with" : "of", *range = length ? "with " : "";
        if (lower && upper)
            buf_printf(to, " %sfrom %lld to %lld%s", range, (long long)row->min, (long long)row->max, of);
        else if (lower)
            buf_printf(to, " %s at least %lld%s", with, (long long)row->min, of);
        else if (upper)
            buf_printf(to, " %s at most %lld%s", with, (long long)row->max, of);
    }
    if (row->unit[0] && !enumerated(row))
        buf_printf(to, " (%s)", row->unit);
}

static int refuse(const struct option_row *row, const char *text, struct err *err)
{
    struct buf allowed;
    buf_init(&allowed, 4096);
    options_allowed(row, &allowed);
    const char *shown = row->type == OPTION_PASSWORD ? "[hidden]" : text;
    int rc = err_set(err, -E_CONFIG, "%s=%.120s: allowed is %.*s", row->key, shown,
                     SLICE_FMT(buf_slice(&allowed)));
    buf_fini(&allowed);
    return rc;
}

static bool in_bounds(const struct option_row *row, int64_t v)
{
    return !bounded(row) || (v >= row->min && v <= row->max);
}

static bool parse_integer(const struct option_row *row, const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno)
        return false;
    if (row->type == OPTION_INT && (v < INT32_MIN || v > INT32_MAX))
        return false;
    *out = v;
    return in_bounds(row, v);
}

static bool parse_real(const struct option_row *row, const char *text, double *out)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v) || strpbrk(text, "xX")) /* decimal only */
        return false;
    *out = v;
    return !bounded(row) || (v >= (double)row->min && v <= (double)row->max);
}

static bool parse_bool(const char *text, int64_t *out)
{
    *out = strcasecmp(text, "true") == 0;
    return *out || strcasecmp(text, "false") == 0;
}

static int list_add(struct option_list *l, const char *p, size_t n)
{
    assert(p);
    assert(n > 0);
    if ((l->n & (l->n - 1)) == 0) { /* full at every power of two */
        char **item = realloc(l->item, (l->n ? l->n * 2 : 1) * sizeof *item);
        if (!item)
            return -E_NOMEM;
        l->item = item;
    }
    l->item[l->n] = strndup(p, n);
    if (!l->item[l->n])
        return -E_NOMEM;
    l->n++;
    return 0;
}

/* Entries without the white space around them; empty ones are dropped. */
static int parse_list(const struct option_row *row, const char *text, struct option_list *l, bool *fits)
{
    *fits = true;
    for (const char *at = text;; at++) {
        const char *end = strchrnul(at, ',');
        const char *from = at, *to = end;
        while (from < to && isspace((unsigned char)*from))
            from++;
        while (to > from && isspace((unsigned char)to[-1]))
            to--;
        if (to > from) {
            *fits = *fits && l->n < LIST_MAX &&
                    (!enumerated(row) || in_enumeration(row->unit, from, (size_t)(to - from)));
            int rc = *fits ? list_add(l, from, (size_t)(to - from)) : 0;
            if (rc)
                return rc;
        }
        if (!*end)
            break;
        at = end;
    }
    *fits = *fits && in_bounds(row, (int64_t)l->n);
    return 0;
}

int option_value_parse(const struct option_row *row, const char *text, struct option_value *v,
                       struct err *err)
{
    assert(row);
    assert(text);
    bool fits = false;
    int rc = 0;
    *v = (struct option_value){0};
    switch (row->type) {
    case OPTION_BOOL: fits = parse_bool(text, &v->integer); break;
    case OPTION_INT:
    case OPTION_LONG: fits = parse_integer(row, text, &v->integer); break;
    case OPTION_DOUBLE: fits = parse_real(row, text, &v->real); break;
    case OPTION_STRING:
    case OPTION_PASSWORD:
        fits = in_bounds(row, (int64_t)strlen(text)) &&
               (!enumerated(row) || in_enumeration(row->unit, text, strlen(text)));
        v->text = strdup(text);
        rc = v->text ? 0 : -E_NOMEM;
        break;
    case OPTION_LIST: rc = parse_list(row, text, &v->list, &fits); break;
    }
    if (rc == 0 && fits)
        return 0;
    option_value_fini(v);
    return rc ? err_set(err, rc, "%s: %s", row->key, err_str(rc)) : refuse(row, text, err);
}

void options_print(const struct option_row *row, const void *in, struct buf *to)
{
    assert(row);
    assert(in);
    assert(to);
    const void *at = (const char *)in + row->at;
    switch (row->type) {
    case OPTION_BOOL: buf_printf(to, "%s", *(const bool *)at ? "true" : "false"); break;
    case OPTION_INT: buf_printf(to, "%d", *(const int32_t *)at); break;
    case OPTION_LONG: buf_printf(to, "%lld", (long long)*(const int64_t *)at); break;
    case OPTION_DOUBLE: buf_printf(to, "%.15g", *(const double *)at); break;
    case OPTION_STRING: buf_printf(to, "%s", *(char *const *)at ? *(char *const *)at : ""); break;
    case OPTION_PASSWORD: buf_printf(to, "%s", *(char *const *)at ? "[hidden]" : ""); break;
    case OPTION_LIST: {
        const struct option_list *l = at;
        for (size_t i = 0; i < l->n; i++)
            buf_printf(to, "%s%s", i ? "," : "", l->item[i]);
        break;
    }
    }
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

bool options_same(const struct option_row *row, const void *a, const void *b)
{
    const void *x = (const char *)a + row->at, *y = (const char *)b + row->at;
    switch (row->type) {
    case OPTION_BOOL: return *(const bool *)x == *(const bool *)y;
    case OPTION_INT: return *(const int32_t *)x == *(const int32_t *)y;
    case OPTION_LONG: return *(const int64_t *)x == *(const int64_t *)y;
    case OPTION_DOUBLE: return memcmp(x, y, sizeof(double)) == 0;
    case OPTION_STRING:
    case OPTION_PASSWORD: return same_text(*(char *const *)x, *(char *const *)y);
    case OPTION_LIST: break;
    }
    const struct option_list *l = x, *m = y;
    if (l->n != m->n)
        return false;
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->item[i], m->item[i]) != 0)
            return false;
    return true;
}

void options_help(const struct option_table *t, struct buf *to)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct option_row *row = &t->rows[i];
        buf_printf(to, "%s", row->key);
        if (row->value == option_required)
            buf_printf(to, "  (required)");
        else if (row->value)
            buf_printf(to, "=%s", row->value);
        buf_printf(to, "\n    %s\n    ", row->help);
        options_allowed(row, to);
        buf_printf(to, "%s\n", row->reload == OPTION_RELOADABLE ? "; can be reloaded" : "");
    }
}

int options_lint(const struct option_table *t, struct err *err)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct option_row *row = &t->rows[i];
        if (!row->key[0] || !row->unit || !row->help || row->help[0] == 0 || row->min > row->max)
            return err_set(err, -E_INVALID,
                           "table %s: row %zu (%s) lacks a key, a unit, a sentence or has min > max", t->name,
                           i, row->key);
        for (size_t j = 0; j < i; j++)
            if (strcmp(t->rows[j].key, row->key) == 0)
                return err_set(err, -E_EXISTS, "table %s: key %s stands twice", t->name, row->key);
        if (row->value && row->value != option_required && options_check(row, row->value, err))
            return err_wrap(err, "table %s: a default that its own row refuses", t->name);
    }
    return 0;
}
