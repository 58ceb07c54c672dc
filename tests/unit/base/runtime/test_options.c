#include "base/runtime/options.h"

#include "base/runtime/log.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define DEMO_ROWS                                                                                            \
    OPTION("listeners", LIST, listeners, OPTION_REQUIRED, 1, 10, "", FIXED, "Where to listen.")              \
    OPTION("num.threads", INT, num_threads, "3", 1, 16, "threads", RELOADABLE, "How many threads.")          \
    OPTION("retention.ms", LONG, retention_ms, "604800000", -1, INT64_MAX, "ms", RELOADABLE, "How long.")    \
    OPTION("ratio", DOUBLE, ratio, "0.5", 0, 1, "", FIXED, "How full.")                                      \
    OPTION("auto", BOOL, automatic, "true", 0, 0, "", FIXED, "Whether by itself.")                           \
    OPTION("format", STRING, format, "text", 0, 0, "text|json", FIXED, "How it looks.")                      \
    OPTION("policy", LIST, policy, "delete", 0, 2, "delete|compact", RELOADABLE, "What to do.")              \
    OPTION("rack", STRING, rack, NULL, 0, 5, "", FIXED, "Where it stands.")                                  \
    OPTION("secret", PASSWORD, secret, NULL, 4, 64, "", FIXED, "What nobody may see.")

struct demo {
#define OPTION OPTION_FIELD
    DEMO_ROWS
#undef OPTION
};
static const struct option_row rows[] = {
#define OPTION(...) OPTION_ROW(struct demo, __VA_ARGS__)
    DEMO_ROWS
#undef OPTION
};
static const struct option_table demo_table = OPTION_TABLE("demo", rows, struct demo);

static struct props props_of(const char *text)
{
    struct props p;
    struct err err = {0};
    props_init(&p);
    cr_assert_eq(props_parse(&p, slice_str(text), "test.properties", &err), 0, "%s", err.text);
    return p;
}

static void expect_refused(const char *text, const char *expected)
{
    struct props p = props_of(text);
    struct demo d;
    struct err err = {0};
    const struct option_table *tables[] = {&demo_table};
    static const char *const unserved[] = {"zookeeper.connect", NULL};
    int rc = options_apply(&demo_table, &p, &d, &err);
    if (rc == 0) {
        rc = options_finish(tables, 1, unserved, &p, &err);
        options_fini(&demo_table, &d);
    }
    cr_expect_eq(rc, -E_CONFIG);
    cr_expect_str_eq(err.text, expected);
    props_fini(&p);
}

static void count_line(void *arg, enum log_level level, const char *area, const char *line)
{
    (void)area;
    cr_expect_eq(level, LOG_WARN);
    cr_expect_str_eq(line, "key is not served and has no effect key=zookeeper.connect at=test.properties:2");
    ++*(int *)arg;
}

Test(options, values_arrive_typed)
{
    struct props p = props_of("listeners= a:1 , ,b:2\nzookeeper.connect=x\nnum.threads=16\nretention.ms=-1\n"
                              "ratio=0.25\nauto=FALSE\nformat=json\npolicy=compact,delete\nsecret=abcd\n");
    struct err err = {0};
    cr_assert_eq(props_argument(&p, "num.threads=2", &err), 0);
    struct demo d;
    cr_assert_eq(options_apply(&demo_table, &p, &d, &err), 0, "%s", err.text);
    cr_expect_eq(d.listeners.n, 2);
    cr_expect_str_eq(d.listeners.item[1], "b:2");
    cr_expect_eq(d.num_threads, 2);
    cr_expect_eq(d.retention_ms, -1);
    cr_expect_eq(d.ratio, 0.25);
    cr_expect_not(d.automatic);
    cr_expect_str_eq(d.format, "json");
    cr_expect_eq(d.policy.n, 2);
    cr_expect_null(d.rack);
    cr_expect_str_eq(d.secret, "abcd");

    struct buf text;
    buf_init(&text, 1000);
    options_print(options_find(&demo_table, "secret"), &d, &text);
    options_print(options_find(&demo_table, "policy"), &d, &text);
    options_print(options_find(&demo_table, "ratio"), &d, &text);
    cr_expect(slice_eq_str(buf_slice(&text), "[hidden]compact,delete0.25"));
    buf_fini(&text);

    static const char *const unserved[] = {"zookeeper.connect", NULL};
    const struct option_table *tables[] = {&demo_table};
    int lines = 0;
    log_sink_set(&(struct log_sink){count_line, &lines});
    cr_expect_eq(options_finish(tables, 1, unserved, &p, &err), 0);
    log_sink_set(NULL);
    cr_expect_eq(lines, 1);
    options_fini(&demo_table, &d);
    props_fini(&p);
}

Test(options, errors_name_key_value_and_what_is_allowed)
{
    expect_refused("", "listeners is missing: it must be set (Where to listen.)");
    expect_refused("listeners=a\n\nnum.threads=17",
                   "test.properties:3: num.threads=17: allowed is an integer from 1 to 16 (threads)");
    expect_refused("listeners=a\nnum.threads=2x",
                   "test.properties:2: num.threads=2x: allowed is an integer from 1 to 16 (threads)");
    expect_refused(
        "listeners=a\nretention.ms=9223372036854775808",
        "test.properties:2: retention.ms=9223372036854775808: allowed is an integer of at least -1 (ms)");
    expect_refused("listeners=a\nratio=nan", "test.properties:2: ratio=nan: allowed is a number from 0 to 1");
    expect_refused("listeners=a\nratio=0x1p-1",
                   "test.properties:2: ratio=0x1p-1: allowed is a number from 0 to 1");
    expect_refused("listeners=a\nauto=yes", "test.properties:2: auto=yes: allowed is true or false");
    expect_refused("listeners=a\nformat=tex", "test.properties:2: format=tex: allowed is one of text, json");
    expect_refused(
        "listeners=a\npolicy=compact,x",
        "test.properties:2: policy=compact,x: allowed is a list of delete, compact with at most 2 entries");
    expect_refused("listeners=\n",
                   "test.properties:1: listeners=: allowed is a list with from 1 to 10 entries");
    expect_refused("listeners=a\nsecret=abc",
                   "test.properties:2: secret=[hidden]: allowed is a password with from 4 to 64 characters");
    expect_refused("listeners=a\nnum.thread=3",
                   "test.properties:2: unknown key num.thread; did you mean num.threads?");
    expect_refused("listeners=a\nsomething.else=3",
                   "test.properties:2: unknown key something.else; remove it or see --help for the keys");
}

Test(options, reload_takes_what_may_change)
{
    struct props p = props_of("listeners=a"), q = props_of("listeners=b\nnum.threads=4\npolicy=compact");
    struct demo now, fresh;
    struct err err = {0};
    const char *fixed;
    cr_assert_eq(options_apply(&demo_table, &p, &now, &err), 0);
    cr_assert_eq(options_apply(&demo_table, &q, &fresh, &err), 0);
    cr_expect_eq(options_reload(&demo_table, &now, &fresh, &fixed), 2);
    cr_expect_str_eq(fixed, "listeners");
    cr_expect_str_eq(now.listeners.item[0], "a");
    cr_expect_eq(now.num_threads, 4);
    cr_expect_str_eq(now.policy.item[0], "compact");
    options_fini(&demo_table, &now);
    options_fini(&demo_table, &fresh);
    props_fini(&p);
    props_fini(&q);
}

Test(options, lint_finds_bad_rows)
{
    struct err err = {0};
    cr_expect_eq(options_lint(&demo_table, &err), 0, "%s", err.text);
    struct option_row bad[] = {rows[1], rows[1]};
    struct option_table t = {"bad", bad, 2, sizeof(struct demo)};
    cr_expect_eq(options_lint(&t, &err), -E_EXISTS);
    bad[1].key = "other";
    bad[1].value = "99";
    cr_expect_eq(options_lint(&t, &err), -E_CONFIG);
    cr_expect_str_eq(err.text,
                     "table bad: a default that its own row refuses: other=99: allowed is an integer from "
                     "1 to 16 (threads)");
    bad[1].value = "2";
    bad[1].help = "";
    cr_expect_eq(options_lint(&t, &err), -E_INVALID);
    struct buf help;
    buf_init(&help, 10000);
    options_help(&demo_table, &help);
    buf_put_u8(&help, 0);
    cr_expect(strstr((char *)help.p,
                     "num.threads=3\n    How many threads.\n    an integer from 1 to 16 (threads); can "
                     "be reloaded\n"));
    buf_fini(&help);
}
