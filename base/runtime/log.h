/* Log lines: one event, one line on stderr, `key=value` after a few words: what was being done, on whom, the
 * outcome.
 *
 *     log_warn("mirror.flow", "source unreachable flow=%s retry_ms=%d", name, delay_ms);
 *
 * text: 2026-11-21T04:28:56.123Z WARN mirror.flow: source unreachable flow=east->west retry_ms=500
 * json: {"time":"2026-11-21T04:28:56.123Z","level":"warn","area":"mirror.flow","msg":"source unreachable …"}
 *
 * What repeats is said once and counted: a call site that says the same text again within LOG_REPEAT_MS stays
 * silent, and one that says more than LOG_BURST different things in LOG_BURST_MS too; the next line of that
 * site (or log_summarize) ends in `repeated=N` and `suppressed=N`. Control bytes and broken UTF-8 are
 * escaped, a line is cut at LOG_LINE_MAX. Any thread; one lock, so nothing for a hot path. The sink is the
 * process's only global. */
#ifndef SUNDOG_BASE_RUNTIME_LOG_H
#define SUNDOG_BASE_RUNTIME_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_LINE_MAX  2048
#define LOG_REPEAT_MS 60000
#define LOG_BURST     50
#define LOG_BURST_MS  10000
#define LOG_RECENT    8 /* different texts a site remembers */
#define LOG_SITE_TEXT 160
#define LOG_HELD_MAX  (64 * 1024)

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF };
enum log_format { LOG_TEXT, LOG_JSON };

/* One per call site, static; the content is log.c's, under its lock. */
struct log_site {
    struct log_site *next;
    bool known;
    const char *area;
    char text[LOG_SITE_TEXT]; /* the last line said, for log_summarize */
    int64_t burst_start_ms;
    unsigned burst, suppressed;
    unsigned next_slot;
    struct log_recent {
        uint64_t hash;
        int64_t said_ms;
        unsigned repeated;
    } recent[LOG_RECENT];
};

#define LOG_AT(level, area, ...)                                                                             \
    do {                                                                                                     \
        static struct log_site log_site_;                                                                    \
        if (log_enabled(level))                                                                              \
            log_write(&log_site_, (level), (area), __VA_ARGS__);                                             \
    } while (0)

#define log_debug(area, ...) LOG_AT(LOG_DEBUG, area, __VA_ARGS__)
#define log_info(area, ...)  LOG_AT(LOG_INFO, area, __VA_ARGS__)
#define log_warn(area, ...)  LOG_AT(LOG_WARN, area, __VA_ARGS__)
#define log_error(area, ...) LOG_AT(LOG_ERROR, area, __VA_ARGS__)

bool log_enabled(enum log_level level);
void log_write(struct log_site *site, enum log_level level, const char *area, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* At start, before other threads. Default: text, LOG_INFO. */
void log_setup(enum log_format format, enum log_level level);
/* "text" or "json"; "debug", "info", "warn", "error", "off". False for anything else. */
bool log_format_parse(const char *text, enum log_format *out);
bool log_level_parse(const char *text, enum log_level *out);

/* While a start may still fail its lines are kept back (up to LOG_HELD_MAX, the oldest are dropped), so that
 * a bad start is exactly one line. */
void log_hold(void);
void log_release(void);
/* Forgets what was held and writes "PROGRAM: text" as one plain line to stderr. Does not exit. */
void log_fatal_line(const char *program, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Says the counts of what went on repeating since; call it now and then (each minute) and at the end. */
void log_summarize(void);

/* Instead of stderr and without any limit: the simulator's and the tests' sink. `line` is the message alone.
 * NULL gives stderr back. */
struct log_sink {
    void (*line)(void *arg, enum log_level level, const char *area, const char *line);
    void *arg;
};
void log_sink_set(const struct log_sink *sink);

#endif
