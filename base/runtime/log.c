#include "base/runtime/log.h"

#include "base/core/utf8.h"
#include "base/world/clock.h"

#include <assert.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define AREA_MAX 64

/* The process's one sink. `lock` guards everything but `level`, which is read before each line. */
static struct {
    pthread_mutex_t lock;
    _Atomic int level;
    enum log_format format;
    bool holding;
    size_t held;
    unsigned held_lost;
    char held_text[LOG_HELD_MAX];
    struct log_site *sites; /* all that ever spoke */
    struct log_sink sink;
} out = {.lock = PTHREAD_MUTEX_INITIALIZER, .level = LOG_INFO};

static const char *const level_names[] = {"debug", "info", "warn", "error", "off"};
static const char *const level_texts[] = {"DEBUG", "INFO", "WARN", "ERROR", "OFF"};

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&out.level, memory_order_relaxed);
}

void log_setup(enum log_format format, enum log_level level)
{
    assert(format <= LOG_JSON);
    assert(level <= LOG_OFF);
    pthread_mutex_lock(&out.lock);
    out.format = format;
    pthread_mutex_unlock(&out.lock);
    atomic_store_explicit(&out.level, (int)level, memory_order_relaxed);
}

bool log_format_parse(const char *text, enum log_format *to)
{
    assert(text);
    assert(to);
    if (strcmp(text, "text") != 0 && strcmp(text, "json") != 0)
        return false;
    *to = strcmp(text, "json") == 0 ? LOG_JSON : LOG_TEXT;
    return true;
}

bool log_level_parse(const char *text, enum log_level *to)
{
    assert(text);
    assert(to);
    for (int i = LOG_DEBUG; i <= LOG_OFF; i++)
        if (strcmp(text, level_names[i]) == 0) {
            *to = (enum log_level)i;
            return true;
        }
    return false;
}

/* ---- a line's bytes ---- */

struct line {
    char text[LOG_LINE_MAX + 64]; /* room for the counts and the end */
    size_t n;
};

static void put(struct line *l, const char *text, size_t n)
{
    assert(l->n <= LOG_LINE_MAX);
    size_t room = LOG_LINE_MAX - l->n;
    n = n < room ? n : room;
    memcpy(l->text + l->n, text, n);
    l->n += n;
}

static void put_text(struct line *l, const char *text)
{
    put(l, text, strlen(text));
}

/* Nothing that a terminal or a JSON reader would take for more than text. C1 controls (U+0080 to U+009F) too. */
static void put_escaped(struct line *l, const char *text, bool json)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n;) {
        const unsigned char *p = (const unsigned char *)text + i;
        size_t len = utf8_length(p, n - i);
        bool control = *p < 0x20 || *p == 0x7F || (*p == 0xC2 && len == 2 && p[1] < 0xA0);
        if (len && !control && !(json && (*p == '"' || *p == '\\'))) {
            if (l->n + len > LOG_LINE_MAX)
                return; /* never half a character */
            put(l, text + i, len);
            i += len;
            continue;
        }
        char escaped[8];
        if (*p == '\n' || *p == '\t' || *p == '\r')
            snprintf(escaped, sizeof escaped, "\\%c", *p == '\n' ? 'n' : *p == '\t' ? 't' : 'r');
        else if (json && (*p == '"' || *p == '\\'))
            snprintf(escaped, sizeof escaped, "\\%c", *p);
        else
            snprintf(escaped, sizeof escaped, json ? "\\u%04x" : "\\x%02x", *p);
        if (l->n + strlen(escaped) > LOG_LINE_MAX)
            return;
        put_text(l, escaped);
        i++;
    }
}

static void put_time(struct line *l, int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm t;
    char text[40] = "";
    if (gmtime_r(&seconds, &t)) {
        size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &t);
        snprintf(text + n, sizeof text - n, ".%03dZ", (int)(wall_ms % 1000));
    }
    put_text(l, text);
}

struct counts {
    unsigned repeated, suppressed;
};

static void make_line(struct line *l, enum log_level level, const char *area, const char *text,
                      struct counts c)
{
    assert(level < LOG_OFF);
    assert(l->n == 0);
    char tail[96];
    if (out.format == LOG_JSON) {
        put_text(l, "{\"time\":\"");
        put_time(l, clock_wall_ms());
        put_text(l, "\",\"level\":\"");
        put_text(l, level_names[level]);
        put_text(l, "\",\"area\":\"");
        put_escaped(l, area, true);
        put_text(l, "\",\"msg\":\"");
        put_escaped(l, text, true);
    } else {
        put_time(l, clock_wall_ms());
        put_text(l, " ");
        put_text(l, level_texts[level]);
        put_text(l, " ");
        put_escaped(l, area, false);
        put_text(l, ": ");
        put_escaped(l, text, false);
    }
    bool json = out.format == LOG_JSON;
    int n = snprintf(tail, sizeof tail, "%s", json ? "\"" : "");
    if (c.repeated)
        n += snprintf(tail + n, sizeof tail - (size_t)n, json ? ",\"repeated\":%u" : " repeated=%u",
                      c.repeated);
    if (c.suppressed)
        n += snprintf(tail + n, sizeof tail - (size_t)n, json ? ",\"suppressed\":%u" : " suppressed=%u",
                      c.suppressed);
    n += snprintf(tail + n, sizeof tail - (size_t)n, json ? "}\n" : "\n");
    assert((size_t)n < sizeof tail);
    assert(l->n + (size_t)n <= sizeof l->text);
    memcpy(l->text + l->n, tail, (size_t)n);
    l->n += (size_t)n;
}

/* ---- where lines go ---- */

static void to_stderr(const char *p, size_t n)
{
    while (n > 0) {
        ssize_t w = write(STDERR_FILENO, p, n);
        if (w <= 0)
            return; /* nobody can be told */
        p += w;
        n -= (size_t)w;
    }
}

static void hold(const struct line *l)
{
    assert(out.holding);
    assert(l->n <= LOG_HELD_MAX);
    assert(out.held <= LOG_HELD_MAX);
    while (LOG_HELD_MAX - out.held < l->n) {
        char *end = memchr(out.held_text, '\n', out.held);
        assert(end);
        size_t first = (size_t)(end + 1 - out.held_text);
        memmove(out.held_text, end + 1, out.held - first);
        out.held -= first;
        out.held_lost++;
    }
    memcpy(out.held_text + out.held, l->text, l->n);
    out.held += l->n;
}

static void emit(enum log_level level, const char *area, const char *text, struct counts c)
{
    struct line l;
    l.n = 0;
    make_line(&l, level, area, text, c);
    if (out.holding)
        hold(&l);
    else
        to_stderr(l.text, l.n);
}

/* ---- saying things once ---- */

static uint64_t hash_text(const char *area, const char *text)
{
    uint64_t h = 14695981039346656037ull;
    for (const char *p = area; *p; p++)
        h = (h ^ (unsigned char)*p) * 1099511628211ull;
    for (const char *p = text; *p; p++)
        h = (h ^ (unsigned char)*p) * 1099511628211ull;
    return h | 1; /* 0: an empty slot */
}

/* Whether the line is to be said now; then `c` has what went unsaid before. */
static bool admit(struct log_site *s, uint64_t hash, int64_t now_ms, struct counts *c)
{
    struct log_recent *r = NULL;
    for (unsigned i = 0; i < LOG_RECENT && !r; i++)
        if (s->recent[i].hash == hash)
            r = &s->recent[i];
    if (r && now_ms - r->said_ms < LOG_REPEAT_MS) {
        r->repeated++;
        return false;
    }
    if (now_ms - s->burst_start_ms >= LOG_BURST_MS) {
        s->burst_start_ms = now_ms;
        s->burst = 0;
    }
    if (s->burst >= LOG_BURST) {
        s->suppressed++;
        return false;
    }
    s->burst++;
    if (!r) {
        r = &s->recent[s->next_slot++ % LOG_RECENT];
        s->suppressed += r->repeated; /* its text is forgotten: count it among the unsaid */
        *r = (struct log_recent){.hash = hash};
    }
    *c = (struct counts){r->repeated, s->suppressed};
    r->repeated = s->suppressed = 0;
    r->said_ms = now_ms;
    return true;
}

void log_write(struct log_site *site, enum log_level level, const char *area, const char *fmt, ...)
{
    assert(site);
    assert(area);
    assert(level < LOG_OFF);
    char text[LOG_LINE_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);

    pthread_mutex_lock(&out.lock);
    if (out.sink.line) {
        out.sink.line(out.sink.arg, level, area, text);
        pthread_mutex_unlock(&out.lock);
        return;
    }
    if (!site->known) {
        site->known = true;
        site->next = out.sites;
        site->area = area;
        out.sites = site;
    }
    struct counts c;
    if (admit(site, hash_text(area, text), clock_now_us() / 1000, &c)) {
        snprintf(site->text, sizeof site->text, "%.*s", (int)sizeof site->text - 1, text);
        emit(level, area, text, c);
    }
    pthread_mutex_unlock(&out.lock);
}

void log_summarize(void)
{
    pthread_mutex_lock(&out.lock);
    for (struct log_site *s = out.sites; s; s = s->next) {
        struct counts c = {0, s->suppressed};
        for (unsigned i = 0; i < LOG_RECENT; i++) {
            c.repeated += s->recent[i].repeated;
            s->recent[i].repeated = 0;
        }
        s->suppressed = 0;
        if (c.repeated || c.suppressed) {
            char text[LOG_SITE_TEXT + 32];
            snprintf(text, sizeof text, "went on: %s", s->text);
            emit(LOG_INFO, s->area, text, c);
        }
    }
    pthread_mutex_unlock(&out.lock);
}

void log_hold(void)
{
    pthread_mutex_lock(&out.lock);
    out.holding = true;
    pthread_mutex_unlock(&out.lock);
}

void log_release(void)
{
    pthread_mutex_lock(&out.lock);
    to_stderr(out.held_text, out.held);
    unsigned lost = out.held_lost;
    out.held = out.held_lost = 0;
    out.holding = false;
    pthread_mutex_unlock(&out.lock);
    if (lost)
        log_warn("log", "lines of the start were dropped count=%u", lost);
}

void log_fatal_line(const char *program, const char *fmt, ...)
{
    assert(program);
    char text[LOG_LINE_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    pthread_mutex_lock(&out.lock);
    out.held = out.held_lost = 0;
    struct line l;
    l.n = 0;
    put_escaped(&l, program, false);
    put_text(&l, ": ");
    put_escaped(&l, text, false);
    l.text[l.n++] = '\n';
    to_stderr(l.text, l.n);
    pthread_mutex_unlock(&out.lock);
}

void log_sink_set(const struct log_sink *sink)
{
    pthread_mutex_lock(&out.lock);
    out.sink = sink ? *sink : (struct log_sink){0};
    pthread_mutex_unlock(&out.lock);
}
