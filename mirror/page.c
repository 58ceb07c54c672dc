#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/core/buf.h"
#include "mirror/mirror.h"

/* Written by the server on each request; the page asks for itself again every PAGE_REFRESH_S. Topics are shown as one
 * row with the sum of their partitions; a partition has a row of its own only when it is not well. */
#define PAGE_REFRESH_S "2"

static const char head[] =
    "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>sundog mirror</title>"
    "<meta http-equiv=\"refresh\" content=\"" PAGE_REFRESH_S
    "\"><meta name=\"viewport\" content=\"width=device-width\">"
    "<style>body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:70em;color:#222;background:#fff}"
    "h1{font-size:1.4em}h2{font-size:1.15em;margin:1.6em 0 .3em}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.25em .7em;border-bottom:1px solid #ddd}th{color:#666;font-weight:600}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}.ok{color:#176b2c}.wait{color:#8a5a00}.bad{"
    "color:#a11}"
    "small{color:#777}@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}th,td{border-"
    "color:#333}"
    ".ok{color:#6fce86}.wait{color:#e3b341}.bad{color:#ff7b72}}</style></head><body><h1>sundog mirror</h1>";

static void text(struct buf *to, const char *s)
{
    for (; s && *s; s++)
        switch (*s) {
        case '<': buf_printf(to, "&lt;"); break;
        case '>': buf_printf(to, "&gt;"); break;
        case '&': buf_printf(to, "&amp;"); break;
        case '"': buf_printf(to, "&quot;"); break;
        default: buf_put_u8(to, (uint8_t)*s);
        }
}

static const char *str(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static const char *colour(const char *state)
{
    static const char *const good[] = {"running", "mirroring", "caught up", "synced", "ahead"};
    static const char *const bad[] = {"halted", "no map"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (strcmp(state, good[i]) == 0)
            return "ok";
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (strcmp(state, bad[i]) == 0)
            return "bad";
    return "wait";
}

static void cell(struct buf *to, const char *s)
{
    buf_printf(to, "<td>");
    text(to, s);
    buf_printf(to, "</td>");
}

static void state_cell(struct buf *to, const char *state)
{
    buf_printf(to, "<td class=\"%s\">", colour(state));
    text(to, state);
    buf_printf(to, "</td>");
}

static void number_cell(struct buf *to, const json_t *v)
{
    if (json_is_integer(v))
        buf_printf(to, "<td class=\"n\">%" JSON_INTEGER_FORMAT "</td>", json_integer_value(v));
    else if (json_is_real(v))
        buf_printf(to, "<td class=\"n\">%.1f</td>", json_real_value(v));
    else
        buf_printf(to, "<td class=\"n\">?</td>");
}

/* ---- topics ---- */

struct sum {
    json_int_t partitions, lag;
    double seconds;
    bool lag_unknown;
    const char *state;  /* the least well of its partitions */
    const char *engine; /* who reads them */
};

static int badness(const char *state)
{
    const char *c = colour(state);
    return strcmp(c, "bad") == 0 ? 3 : strcmp(c, "wait") == 0 ? 2 : strcmp(state, "mirroring") == 0 ? 1 : 0;
}

static void add(struct sum *s, const json_t *row)
{
    const json_t *lag = json_object_get(row, "lag_records"), *seconds = json_object_get(row, "lag_seconds");
    s->partitions +=
        json_integer_value(json_object_get(row, "partition")) >= 0; /* -1: the topic as a whole */
    s->lag += json_integer_value(lag);
    s->lag_unknown |= !json_is_integer(lag);
    if (json_number_value(seconds) > s->seconds)
        s->seconds = json_number_value(seconds);
    const char *engine = str(row, "engine");
    if (engine[0] && s->engine)
        s->engine = strcmp(s->engine, engine) == 0 ? engine : "both";
    else if (engine[0])
        s->engine = engine;
    if (!s->state || badness(str(row, "state")) > badness(s->state))
        s->state = str(row, "state");
}

static void topic_row(struct buf *to, const char *topic, const char *target, const struct sum *s)
{
    buf_printf(to, "<tr>");
    cell(to, topic);
    cell(to, target);
    buf_printf(to, "<td class=\"n\">%" JSON_INTEGER_FORMAT "</td>", s->partitions);
    state_cell(to, s->state);
    if (s->lag_unknown)
        buf_printf(to, "<td class=\"n\">?</td><td class=\"n\">?</td>");
    else
        buf_printf(to, "<td class=\"n\">%" JSON_INTEGER_FORMAT "</td><td class=\"n\">%.1f</td>", s->lag,
                   s->seconds);
    cell(to, s->engine ? s->engine : "");
    buf_printf(to, "</tr>");
}

/* Partitions of a topic need not stand together: the first one of each gathers the others. */
static void topics(struct buf *to, const json_t *rows)
{
    size_t i, k;
    json_t *row, *other;
    json_t *done = json_object();
    buf_printf(to, "<table><tr><th>topic</th><th>at the target</th><th>partitions</th><th>state</th><th>lag, "
                   "records</th>"
                   "<th>lag, seconds</th><th>engine</th></tr>");
    json_array_foreach(rows, i, row)
    {
        struct sum s = {0};
        const char *name = str(row, "topic");
        if (json_object_get(done, name))
            continue;
        json_object_set_new(done, name, json_true());
        json_array_foreach(rows, k, other) if (strcmp(str(other, "topic"), name) == 0) add(&s, other);
        topic_row(to, name, str(row, "target_topic"), &s);
    }
    buf_printf(to, "</table>");
    json_decref(done);
    json_array_foreach(rows, i, row)
    {
        if (!str(row, "reason")[0])
            continue;
        buf_printf(to, "<p class=\"%s\">", colour(str(row, "state")));
        text(to, str(row, "topic"));
        if (json_integer_value(json_object_get(row, "partition")) >= 0)
            buf_printf(to, "-%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(row, "partition")));
        buf_printf(to, " ");
        text(to, str(row, "state"));
        buf_printf(to, ": ");
        text(to, str(row, "reason"));
        buf_printf(to, "</p>");
    }
}

static void groups(struct buf *to, const json_t *rows)
{
    size_t i;
    json_t *row;
    if (json_array_size(rows) == 0)
        return;
    buf_printf(to, "<h3>groups</h3><table><tr><th>group</th><th>topic</th><th>partition</th><th>state</th>"
                   "<th>at the source</th><th>translated</th><th>read again</th><th></th></tr>");
    json_array_foreach(rows, i, row)
    {
        buf_printf(to, "<tr>");
        cell(to, str(row, "group"));
        cell(to, str(row, "topic"));
        number_cell(to, json_object_get(row, "partition"));
        state_cell(to, str(row, "state"));
        number_cell(to, json_object_get(row, "source_offset"));
        number_cell(to, json_object_get(row, "offset"));
        number_cell(to, json_object_get(row, "reread"));
        cell(to, str(row, "reason"));
        buf_printf(to, "</tr>");
    }
    buf_printf(to, "</table>");
}

void mirror_page(const char *status_json, size_t n, struct buf *to)
{
    json_error_t where;
    json_t *status = json_loadb(status_json, n, 0, &where), *flow;
    size_t i;
    buf_put(to, head, sizeof head - 1);
    if (!status)
        buf_printf(to, "<p class=\"bad\">the status cannot be read: %s</p>", where.text);
    json_array_foreach(json_object_get(status, "flows"), i, flow)
    {
        buf_printf(to, "<h2>");
        text(to, str(flow, "flow"));
        buf_printf(to, " <span class=\"%s\">", colour(str(flow, "state")));
        text(to, str(flow, "state"));
        buf_printf(to, "</span></h2>");
        if (str(flow, "reason")[0]) {
            buf_printf(to, "<p class=\"wait\">");
            text(to, str(flow, "reason"));
            buf_printf(to, "</p>");
        }
        topics(to, json_object_get(flow, "partitions"));
        groups(to, json_object_get(flow, "groups"));
    }
    buf_printf(to, "<p><small>every " PAGE_REFRESH_S
                   " s; also <a href=\"/status\">/status</a>, <a href=\"/metrics\">/metrics</a>, "
                   "<a href=\"/healthz\">/healthz</a></small></p></body></html>\n");
    json_decref(status);
}
