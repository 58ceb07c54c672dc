#include "base/runtime/props.h"

#include "base/core/grow.h"

#include "base/core/buf.h"

#include <assert.h>
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORIGIN_MAX 512

void props_init(struct props *p)
{
    *p = (struct props){0};
}

void props_fini(struct props *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->list[i].key);
        free(p->list[i].value);
        free(p->list[i].origin);
    }
    free(p->list);
    *p = (struct props){0};
}

struct prop *props_find(const struct props *p, const char *key)
{
    assert(key);
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->list[i].key, key) == 0)
            return &p->list[i];
    return NULL;
}

const char *props_get(struct props *p, const char *key)
{
    struct prop *found = props_find(p, key);
    if (!found)
        return NULL;
    found->used = true;
    return found->value;
}

void props_each(struct props *p, void (*fn)(void *arg, struct prop *prop), void *arg)
{
    for (size_t i = 0; i < p->n; i++)
        fn(arg, &p->list[i]);
}

const char *props_suffix(const char *key, const char *prefix)
{
    assert(key);
    assert(prefix);
    size_t n = strlen(prefix);
    return strncmp(key, prefix, n) == 0 ? key + n : NULL;
}

/* A free element at the end of the list, or NULL. */
static struct prop *grow(struct props *p)
{
    if (!GROW(p->list, p->n, p->cap, 32))
        return NULL;
    return &p->list[p->n];
}

int props_set(struct props *p, const char *key, const char *value, const char *origin)
{
    assert(key);
    assert(value);
    assert(origin);
    struct prop fresh = {strdup(key), strdup(value), strdup(origin), false};
    struct prop *to = props_find(p, key);
    bool added = !to;
    if (added && p->n < PROPS_KEYS_MAX)
        to = grow(p);
    if (!to || !fresh.key || !fresh.value || !fresh.origin) {
        free(fresh.key);
        free(fresh.value);
        free(fresh.origin);
        return p->n < PROPS_KEYS_MAX ? -E_NOMEM : -E_LIMIT;
    }
    if (added) {
        p->n++;
    } else {
        free(to->key);
        free(to->value);
        free(to->origin);
    }
    *to = fresh;
    return 0;
}

int props_argument(struct props *p, const char *argument, struct err *err)
{
    assert(argument);
    const char *equals = strchr(argument, '=');
    if (!equals || equals == argument)
        return err_set(err, -E_CONFIG, "argument \"%.100s\" is not of the form key=value", argument);
    char *key = strndup(argument, (size_t)(equals - argument));
    int rc = key ? props_set(p, key, equals + 1, "command line") : -E_NOMEM;
    free(key);
    return rc ? err_set(err, rc, "argument \"%.100s\": %s", argument, err_str(rc)) : 0;
}

/* ---- the file format ---- */

struct reader {
    const char *p, *end;
    int line; /* of the line being read */
    struct buf key, value;
    const char *wrong; /* the first thing that is wrong, or NULL */
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\f';
}

static void skip_blanks(struct reader *r)
{
    while (r->p < r->end && is_blank(*r->p))
        r->p++;
}

/* Over \n, \r or \r\n. */
static void skip_newline(struct reader *r)
{
    if (r->p < r->end && *r->p == '\r')
        r->p++;
    if (r->p < r->end && *r->p == '\n')
        r->p++;
    r->line++;
}

static bool at_newline(const struct reader *r)
{
    return r->p == r->end || *r->p == '\n' || *r->p == '\r';
}

static void put_utf8(struct buf *b, uint32_t c)
{
    if (c < 0x80) {
        buf_put_u8(b, (uint8_t)c);
    } else if (c < 0x800) {
        buf_put_u8(b, (uint8_t)(0xC0 | c >> 6));
        buf_put_u8(b, (uint8_t)(0x80 | (c & 0x3F)));
    } else if (c < 0x10000) {
        buf_put_u8(b, (uint8_t)(0xE0 | c >> 12));
        buf_put_u8(b, (uint8_t)(0x80 | (c >> 6 & 0x3F)));
        buf_put_u8(b, (uint8_t)(0x80 | (c & 0x3F)));
    } else {
        buf_put_u8(b, (uint8_t)(0xF0 | c >> 18));
        buf_put_u8(b, (uint8_t)(0x80 | (c >> 12 & 0x3F)));
        buf_put_u8(b, (uint8_t)(0x80 | (c >> 6 & 0x3F)));
        buf_put_u8(b, (uint8_t)(0x80 | (c & 0x3F)));
    }
}

/* Four hexadecimal digits; UINT32_MAX when they are not there. */
static uint32_t take_hex4(struct reader *r)
{
    uint32_t v = 0;
    if (r->end - r->p < 4)
        return UINT32_MAX;
    for (int i = 0; i < 4; i++) {
        char c = r->p[i];
        if (!isxdigit((unsigned char)c))
            return UINT32_MAX;
        v = v << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    r->p += 4;
    return v;
}

/* Behind "\u": one character, a surrogate pair as one. U+0000 is refused: values are C strings. */
static void take_unicode(struct reader *r, struct buf *to)
{
    uint32_t c = take_hex4(r);
    if (c >= 0xD800 && c < 0xDC00 && r->end - r->p >= 6 && r->p[0] == '\\' && r->p[1] == 'u') {
        r->p += 2;
        uint32_t low = take_hex4(r);
        c = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00) : UINT32_MAX;
    }
    if (c == 0 || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
        r->wrong = "\\u needs four hexadecimal digits of a character";
    else
        put_utf8(to, c);
}

/* Behind a backslash. At the end of a line: the value goes on with the next one. */
static void take_escape(struct reader *r, struct buf *to)
{
    assert(r->p <= r->end);
    if (at_newline(r)) {
        if (r->p < r->end)
            skip_newline(r);
        skip_blanks(r);
        return;
    }
    char c = *r->p++;
    switch (c) {
    case 't': buf_put_u8(to, '\t'); break;
    case 'n': buf_put_u8(to, '\n'); break;
    case 'r': buf_put_u8(to, '\r'); break;
    case 'f': buf_put_u8(to, '\f'); break;
    case 'u': take_unicode(r, to); break;
    default: buf_put_u8(to, (uint8_t)c); break;
    }
}

static void take_key(struct reader *r)
{
    while (!at_newline(r) && *r->p != '=' && *r->p != ':' && !is_blank(*r->p) && !r->wrong) {
        char c = *r->p++;
        if (c == '\\')
            take_escape(r, &r->key);
        else
            buf_put_u8(&r->key, (uint8_t)c);
    }
    skip_blanks(r);
    if (!at_newline(r) && (*r->p == '=' || *r->p == ':')) {
        r->p++;
        skip_blanks(r);
    }
}

static void take_value(struct reader *r)
{
    size_t keep = 0; /* up to the last character that is not a bare blank */
    while (!at_newline(r) && !r->wrong) {
        char c = *r->p++;
        if (c == '\\')
            take_escape(r, &r->value);
        else
            buf_put_u8(&r->value, (uint8_t)c);
        if (!is_blank(c))
            keep = r->value.n;
    }
    r->value.n = keep;
}

static void take_line(struct reader *r, struct props *p, const char *origin)
{
    skip_blanks(r);
    if (at_newline(r))
        return;
    if (*r->p == '#' || *r->p == '!') {
        while (!at_newline(r))
            r->p++;
        return;
    }
    int line = r->line;
    buf_clear(&r->key);
    buf_clear(&r->value);
    take_key(r);
    take_value(r);
    if (r->wrong)
        return;
    if (r->key.n == 0) {
        r->wrong = "a line without a key";
        return;
    }
    buf_put_u8(&r->key, 0);
    buf_put_u8(&r->value, 0);
    char where[ORIGIN_MAX];
    snprintf(where, sizeof where, "%s:%d", origin, line);
    bool full = r->key.failed || r->value.failed;
    int rc = full ? -E_LIMIT : props_set(p, (const char *)r->key.p, (const char *)r->value.p, where);
    if (rc)
        r->wrong = err_str(rc);
}

int props_parse(struct props *p, struct slice text, const char *origin, struct err *err)
{
    assert(origin);
    assert((text.p || text.n == 0));
    if (text.n && memchr(text.p, 0, text.n))
        return err_set(err, -E_CONFIG, "%s: not a text file (it has a NUL byte)", origin);
    struct reader r = {.p = (const char *)text.p, .end = (const char *)text.p + text.n, .line = 1};
    if (text.n >= 3 && memcmp(text.p, "\xEF\xBB\xBF", 3) == 0)
        r.p += 3; /* a byte order mark */
    buf_init(&r.key, PROPS_FILE_MAX);
    buf_init(&r.value, PROPS_FILE_MAX);
    int rc = 0;
    while (r.p < r.end && rc == 0) {
        take_line(&r, p, origin);
        if (r.wrong)
            rc = err_set(err, -E_CONFIG, "%s:%d: %s", origin, r.line, r.wrong);
        else if (r.p < r.end)
            skip_newline(&r);
    }
    buf_fini(&r.key);
    buf_fini(&r.value);
    return rc;
}

int props_load(struct props *p, struct disk *d, const char *path, struct err *err)
{
    struct slice text;
    int rc = disk_read_all(d, path, PROPS_FILE_MAX, &text, err);
    if (rc) {
        char why[ERR_TEXT_MAX];
        snprintf(why, sizeof why, "%s", err->text);
        return err_set(err, rc, "%s; give the path of a properties file that this user can read", why);
    }
    rc = props_parse(p, text, path, err);
    free((void *)(uintptr_t)text.p);
    return rc;
}
