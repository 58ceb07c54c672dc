#include "base/core/jsonw.h"

#include "base/core/utf8.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

void jsonw_init(struct jsonw *j, struct buf *to)
{
    *j = (struct jsonw){.to = to};
}

/* The comma before a value or key, where one is due. */
static void separate(struct jsonw *j)
{
    if (j->after_key) {
        j->after_key = false;
        return;
    }
    if (j->depth == 0)
        return;
    if (j->some[j->depth - 1])
        buf_put_u8(j->to, ',');
    j->some[j->depth - 1] = true;
}

static void before_value(struct jsonw *j)
{
    assert(j->depth == 0 || j->open[j->depth - 1] == '[' || j->after_key);
    separate(j);
}

static void begin(struct jsonw *j, char bracket)
{
    assert(j->depth < JSONW_DEPTH_MAX);
    before_value(j);
    buf_put_u8(j->to, (uint8_t)bracket);
    j->open[j->depth] = bracket;
    j->some[j->depth++] = false;
}

void jsonw_object(struct jsonw *j)
{
    begin(j, '{');
}

void jsonw_array(struct jsonw *j)
{
    begin(j, '[');
}

void jsonw_end(struct jsonw *j)
{
    assert(j->depth > 0);
    assert(!j->after_key);
    buf_put_u8(j->to, j->open[--j->depth] == '{' ? '}' : ']');
}

static void put_string(struct buf *to, struct slice s)
{
    assert(s.p);
    buf_put_u8(to, '"');
    for (size_t i = 0; i < s.n;) {
        size_t n = utf8_length(s.p + i, s.n - i);
        uint8_t c = s.p[i];
        if (n == 0)
            buf_put(to, "\xEF\xBF\xBD", 3);
        else if (c == '"' || c == '\\')
            buf_printf(to, "\\%c", c);
        else if (c == '\n')
            buf_put(to, "\\n", 2);
        else if (c < 0x20 || c == 0x7F)
            buf_printf(to, "\\u%04x", c);
        else
            buf_put(to, s.p + i, n);
        i += n ? n : 1;
    }
    buf_put_u8(to, '"');
}

void jsonw_key(struct jsonw *j, const char *key)
{
    assert(key);
    assert(j->depth > 0);
    assert(j->open[j->depth - 1] == '{');
    assert(!j->after_key);
    separate(j);
    put_string(j->to, slice_str(key));
    buf_put_u8(j->to, ':');
    j->after_key = true;
}

void jsonw_slice(struct jsonw *j, struct slice text)
{
    before_value(j);
    if (slice_is_null(text))
        buf_put(j->to, "null", 4);
    else
        put_string(j->to, text);
}

void jsonw_str(struct jsonw *j, const char *text)
{
    jsonw_slice(j, slice_str(text));
}

void jsonw_int(struct jsonw *j, int64_t v)
{
    before_value(j);
    buf_printf(j->to, "%lld", (long long)v);
}

void jsonw_double(struct jsonw *j, double v)
{
    before_value(j);
    if (isfinite(v))
        buf_printf(j->to, "%.15g", v);
    else
        buf_put(j->to, "null", 4);
}

void jsonw_bool(struct jsonw *j, bool v)
{
    before_value(j);
    buf_printf(j->to, "%s", v ? "true" : "false");
}

void jsonw_null(struct jsonw *j)
{
    before_value(j);
    buf_put(j->to, "null", 4);
}

void jsonw_put_str(struct jsonw *j, const char *key, const char *text)
{
    jsonw_key(j, key);
    jsonw_str(j, text);
}

void jsonw_put_slice(struct jsonw *j, const char *key, struct slice text)
{
    jsonw_key(j, key);
    jsonw_slice(j, text);
}

void jsonw_put_int(struct jsonw *j, const char *key, int64_t v)
{
    jsonw_key(j, key);
    jsonw_int(j, v);
}

void jsonw_put_bool(struct jsonw *j, const char *key, bool v)
{
    jsonw_key(j, key);
    jsonw_bool(j, v);
}
