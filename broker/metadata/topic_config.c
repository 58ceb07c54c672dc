#include "broker/metadata/topic_config.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

#define TOPIC_NAME_MAX   249
#define CONFIG_TEXT_MAX  4096  /* of one number or name */
#define CONFIG_VALUE_MAX 32767 /* as a string on the wire */

static const struct topic_config_row rows[] = {
#define TOPIC_CONFIG(key, type, value, min, max, allowed, broker_keys, use, help)                            \
    {key, TOPIC_CONFIG_##type, value, min, max, allowed, broker_keys, TOPIC_CONFIG_##use, help},
#include "broker/metadata/topic_configs.def"
#undef TOPIC_CONFIG
};
#define ROWS (sizeof rows / sizeof *rows)

const struct topic_config_row *topic_config_rows(size_t *n)
{
    *n = ROWS;
    return rows;
}

const struct topic_config_row *topic_config_find(struct slice key)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (slice_eq_str(key, rows[i].key))
            return &rows[i];
    }
    return NULL;
}

bool topic_config_synonym_next(const char **rest, struct topic_config_synonym *out)
{
    size_t n = strcspn(*rest, " ");
    if (n == 0)
        return false;
    const char *star = memchr(*rest, '*', n);
    out->key = slice_of(*rest, star ? (size_t)(star - *rest) : n);
    out->factor = star ? strtoll(star + 1, NULL, 10) : 1;
    assert(out->factor > 0);
    *rest += n + ((*rest)[n] == ' ');
    return true;
}

const struct topic_config_row *topic_config_of_broker_key(struct slice broker_key)
{
    for (size_t i = 0; i < ROWS; i++) {
        struct topic_config_synonym s;
        for (const char *rest = rows[i].broker_keys; topic_config_synonym_next(&rest, &s);) {
            if (s.factor == 1 && slice_eq(s.key, broker_key))
                return &rows[i];
        }
    }
    return NULL;
}

/* ---- values ---- */

static struct slice trim(struct slice s)
{
    while (s.n > 0 && isspace(s.p[0]))
        s = slice_of(s.p + 1, s.n - 1);
    while (s.n > 0 && isspace(s.p[s.n - 1]))
        s.n--;
    return s;
}

static int refuse(const struct topic_config_row *row, struct slice value, struct err *err)
{
    struct slice shown = slice_of(value.p, value.n > 100 ? 100 : value.n);
    switch (row->type) {
    case TOPIC_CONFIG_INT:
    case TOPIC_CONFIG_LONG:
        return err_set(err, -E_CONFIG,
                       "Invalid value %.*s for configuration %s: an integer from %" PRId64 " to %" PRId64
                       " is allowed",
                       SLICE_FMT(shown), row->key, row->min, row->max);
    case TOPIC_CONFIG_DOUBLE:
        return err_set(err, -E_CONFIG,
                       "Invalid value %.*s for configuration %s: a number from %" PRId64 " to %" PRId64
                       " is allowed",
                       SLICE_FMT(shown), row->key, row->min, row->max);
    case TOPIC_CONFIG_BOOL:
        return err_set(err, -E_CONFIG, "Invalid value %.*s for configuration %s: %s is allowed",
                       SLICE_FMT(shown), row->key, row->allowed[0] ? row->allowed : "true|false");
    case TOPIC_CONFIG_STRING:
    case TOPIC_CONFIG_LIST: break;
    }
    return err_set(err, -E_CONFIG, "Invalid value %.*s for configuration %s: %s is allowed", SLICE_FMT(shown),
                   row->key, row->allowed[0] ? row->allowed : "a list of partition:broker");
}

static bool is_allowed(const char *allowed, struct slice value)
{
    if (!allowed[0])
        return true;
    for (const char *p = allowed;; p++) {
        size_t n = strcspn(p, "|");
        if (slice_eq(slice_of(p, n), value))
            return true;
        p += n;
        if (!*p)
            return false;
    }
}

static bool whole_number(const char *text, const struct topic_config_row *row)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    return end != text && !*end && !errno && v >= row->min && v <= row->max;
}

static bool real_number(const char *text, const struct topic_config_row *row)
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    return end != text && !*end && !errno && isfinite(v) && v >= (double)row->min && v <= (double)row->max;
}

static bool scalar(const struct topic_config_row *row, const char *text)
{
    switch (row->type) {
    case TOPIC_CONFIG_INT:
    case TOPIC_CONFIG_LONG: return whole_number(text, row);
    case TOPIC_CONFIG_DOUBLE: return real_number(text, row);
    case TOPIC_CONFIG_BOOL:
        return (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) &&
               is_allowed(row->allowed, slice_str(text));
    case TOPIC_CONFIG_STRING: return is_allowed(row->allowed, slice_str(text));
    case TOPIC_CONFIG_LIST: break;
    }
    return false;
}

/* "*", or number:number, as the throttled replicas are named. */
static bool replica_entry(struct slice e)
{
    size_t digits = 0, colons = 0;
    if (slice_eq_str(e, "*"))
        return true;
    for (size_t i = 0; i < e.n; i++) {
        if (e.p[i] == ':')
            colons++;
        else if (isdigit(e.p[i]))
            digits++;
        else
            return false;
    }
    return colons == 1 && digits >= 2 && e.p[0] != ':' && e.p[e.n - 1] != ':';
}

static int list(const struct topic_config_row *row, struct slice value, struct buf *out, struct err *err)
{
    size_t start = out->n;
    int64_t n = 0;
    for (struct slice rest = trim(value); rest.n > 0;) {
        const uint8_t *comma = memchr(rest.p, ',', rest.n);
        struct slice entry = trim(slice_of(rest.p, comma ? (size_t)(comma - rest.p) : rest.n));
        rest = comma ? slice_of(comma + 1, rest.n - (size_t)(comma + 1 - rest.p)) : slice_of(rest.p, 0);
        bool fine = row->allowed[0] ? is_allowed(row->allowed, entry) : replica_entry(entry);
        if (entry.n == 0 || !fine || ++n > row->max) {
            out->n = start;
            return refuse(row, value, err);
        }
        if (n > 1)
            buf_put_u8(out, ',');
        buf_put(out, entry.p, entry.n);
    }
    return out->failed || out->n - start > CONFIG_VALUE_MAX
               ? err_set(err, -E_CONFIG, "The value for configuration %s is too long", row->key)
               : 0;
}

int topic_config_normalize(const struct topic_config_row *row, struct slice value, struct buf *out,
                           struct err *err)
{
    char text[CONFIG_TEXT_MAX];
    if (row->type == TOPIC_CONFIG_LIST)
        return list(row, value, out, err);
    struct slice v = trim(value);
    if (v.n >= sizeof text || memchr(v.p ? v.p : (const uint8_t *)"", '\0', v.n))
        return refuse(row, value, err);
    slice_cstr(v, text, sizeof text);
    if (row->type == TOPIC_CONFIG_BOOL) { /* Java takes any case */
        for (char *c = text; *c; c++)
            *c = (char)tolower((unsigned char)*c);
    }
    if (!scalar(row, text))
        return refuse(row, value, err);
    buf_put(out, text, strlen(text));
    return out->failed ? err_set(err, -E_NOMEM, "no memory") : 0;
}

/* ---- names ---- */

int topic_name_check(struct slice name, struct err *err)
{
    if (name.n == 0)
        return err_set(err, -E_INVALID, "Topic name is invalid: the empty string is not allowed");
    if (slice_eq_str(name, ".") || slice_eq_str(name, ".."))
        return err_set(err, -E_INVALID, "Topic name is invalid: '.' or '..' is not allowed");
    if (name.n > TOPIC_NAME_MAX)
        return err_set(err, -E_INVALID,
                       "Topic name is invalid: the length of '%.*s' is longer than the max allowed "
                       "length %d",
                       SLICE_FMT(slice_of(name.p, 100)), TOPIC_NAME_MAX);
    for (size_t i = 0; i < name.n; i++) {
        uint8_t c = name.p[i];
        if (!(c < 0x80 && isalnum(c)) && c != '.' && c != '_' && c != '-')
            return err_set(err, -E_INVALID,
                           "Topic name is invalid: '%.*s' contains one or more characters other than "
                           "ASCII alphanumerics, '.', '_' and '-'",
                           SLICE_FMT(name));
    }
    return 0;
}

bool topic_names_collide(struct slice a, struct slice b)
{
    if (a.n != b.n || slice_eq(a, b))
        return false;
    for (size_t i = 0; i < a.n; i++) {
        uint8_t x = a.p[i] == '.' ? '_' : a.p[i], y = b.p[i] == '.' ? '_' : b.p[i];
        if (x != y)
            return false;
    }
    return true;
}
