#include "base/runtime/log.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char text[256 * 1024];
static int file = -1, saved = -1;

/* stderr into a file, until `said`. */
static void listen_in(void)
{
    char name[] = "/tmp/sundog-log-XXXXXX";
    file = mkstemp(name);
    cr_assert_geq(file, 0);
    unlink(name);
    fflush(stderr);
    saved = dup(2);
    dup2(file, 2);
}

static const char *said(void)
{
    dup2(saved, 2);
    close(saved);
    ssize_t n = pread(file, text, sizeof text - 1, 0);
    cr_assert_geq(n, 0);
    text[n] = 0;
    close(file);
    return text;
}

static unsigned lines(const char *s)
{
    unsigned n = 0;
    for (; *s; s++)
        n += *s == '\n';
    return n;
}

Test(log, a_line_is_one_line)
{
    listen_in();
    log_debug("area", "not said");
    log_warn("mirror.flow", "bad name=%s n=%d", "a\nb\x1b[31m\xff\xc3\xa4\xc2\x85", 7);
    const char *s = said();
    cr_expect_eq(lines(s), 1);
    cr_expect(s[4] == '-' && s[10] == 'T' && s[23] == 'Z', "%s", s);
    cr_expect_str_eq(s + 24, " WARN mirror.flow: bad name=a\\nb\\x1b[31m\\xff\xc3\xa4\\xc2\\x85 n=7\n");
}

Test(log, json_is_escaped)
{
    log_setup(LOG_JSON, LOG_DEBUG);
    listen_in();
    log_debug("area", "say \"%s\"", "\\\t\x01");
    const char *s = said();
    cr_expect(strstr(s, "\"level\":\"debug\",\"area\":\"area\",\"msg\":\"say \\\"\\\\\\t\\u0001\\\"\"}\n"),
              "%s", s);
}

static void say(const char *what)
{
    log_info("test", "%s", what);
}

Test(log, what_repeats_is_said_once_and_counted)
{
    listen_in();
    for (int i = 0; i < 1000; i++)
        say(i % 2 ? "source unreachable" : "target unreachable");
    log_summarize();
    log_summarize();
    const char *s = said();
    cr_expect_eq(lines(s), 3, "%s", s);
    cr_expect(strstr(s, "went on: source unreachable repeated=998\n"), "%s", s);
}

Test(log, a_site_that_floods_is_cut_off_and_counted)
{
    listen_in();
    for (int i = 0; i < LOG_BURST + 100; i++)
        log_info("test", "n=%d", i);
    log_summarize();
    const char *s = said();
    cr_expect_eq(lines(s), LOG_BURST + 1);
    cr_expect(strstr(s, "suppressed=100\n"), "%s", s);
}

Test(log, a_bad_start_is_one_line)
{
    listen_in();
    log_hold();
    log_info("options", "key is not served");
    log_fatal_line("sundog-broker", "listeners=%s: bad\nvalue", "x");
    log_release();
    cr_expect_str_eq(said(), "sundog-broker: listeners=x: bad\\nvalue\n");
}

Test(log, a_good_start_says_what_was_held)
{
    listen_in();
    log_hold();
    char big[1500];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    for (int i = 0; i < LOG_BURST; i++) /* more than LOG_HELD_MAX */
        log_info("test", "%d %s", i, big);
    log_release();
    log_info("test", "after");
    const char *s = said();
    cr_expect_not(strstr(s, " test: 0 "));
    cr_expect(strstr(s, " test: 49 "));
    cr_expect(strstr(s, "lines of the start were dropped count="));
    cr_expect(strstr(s, "after\n"));
}

Test(log, long_lines_are_cut)
{
    char *big = malloc(10000);
    memset(big, 'y', 9999);
    big[9999] = 0;
    listen_in();
    log_info("test", "%s", big);
    const char *s = said();
    cr_expect_eq(lines(s), 1);
    cr_expect_leq(strlen(s), LOG_LINE_MAX + 1);
    free(big);
}

Test(log, names)
{
    enum log_level level;
    enum log_format format;
    cr_expect(log_level_parse("error", &level) && level == LOG_ERROR);
    cr_expect_not(log_level_parse("loud", &level));
    cr_expect(log_format_parse("json", &format) && format == LOG_JSON);
    cr_expect_not(log_format_parse("xml", &format));
}
