/* The mirror's page and tables. */
#include "mirror/metrics.h"
#include "mirror/mirror.h"
#include "mirror/options.h"

#include <criterion/criterion.h>

static const char status[] =
    "{\"flows\":[{\"flow\":\"east->west\",\"state\":\"running\",\"reason\":\"\",\"partitions\":["
    "{\"topic\":\"orders\",\"target_topic\":\"east.orders\",\"partition\":0,\"state\":\"caught "
    "up\",\"lag_records\":0,\"lag_seconds\":0.0,\"reason\":\"\",\"engine\":\"batch\"},"
    "{\"topic\":\"<b>\",\"target_topic\":\"x\",\"partition\":0,\"state\":\"halted\",\"lag_records\":null,"
    "\"lag_seconds\":null,\"reason\":\"hole & more\"},"
    "{\"topic\":\"orders\",\"target_topic\":\"east.orders\",\"partition\":1,\"state\":\"mirroring\",\"lag_"
    "records\":41,\"lag_seconds\":2.5,\"reason\":\"\",\"engine\":\"record\"}],"
    "\"groups\":[{\"group\":\"shop\",\"topic\":\"east.orders\",\"partition\":1,\"state\":\"ahead\",\"source_"
    "offset\":7,\"offset\":6,\"reread\":0,\"reason\":\"\"}]}]}";

static void has(struct slice page, const char *text)
{
    cr_assert_not_null(memmem(page.p, page.n, text, strlen(text)), "the page lacks %s", text);
}

Test(page, shows_flows_lag_per_topic_and_groups_and_needs_nothing_else)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    mirror_page(status, sizeof status - 1, &b);
    struct slice page = buf_slice(&b);
    has(page, "east-&gt;west");
    has(page, "<td>orders</td><td>east.orders</td><td class=\"n\">2</td><td class=\"ok\">mirroring</td><td "
              "class=\"n\">41</td>");
    has(page, "<td class=\"n\">2.5</td><td>both</td></tr>");
    has(page, "&lt;b&gt;");
    has(page, "hole &amp; more");
    has(page, "<td>shop</td>");
    has(page, "http-equiv=\"refresh\"");
    cr_assert_null(memmem(page.p, page.n, "<b>", 3), "what topics are called is not markup");
    cr_assert_null(memmem(page.p, page.n, "src=", 4));
    cr_assert_null(memmem(page.p, page.n, "http://", 7));
    cr_assert_null(memmem(page.p, page.n, "https://", 8));
    buf_fini(&b);
}

Test(page, a_status_that_cannot_be_read_is_said)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    mirror_page("{", 1, &b);
    has(buf_slice(&b), "cannot be read");
    buf_fini(&b);
}

Test(tables, options_and_metrics_are_sound)
{
    struct err e;
    cr_assert_eq(options_lint(&mirror_option_table, &e), 0, "%s", e.text);
    cr_assert_eq(metrics_lint(mirror_metric_rows, MIRROR_METRICS, &e), 0, "%s", e.text);
}
