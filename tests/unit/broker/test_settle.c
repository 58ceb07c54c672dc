/* The options' table, and what follows from several of them. */
#include "broker/settle.h"

#include "broker/metrics.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct broker_options options(const char *lines)
{
    struct props p;
    struct broker_options o;
    struct err err = {0};
    const struct option_table *tables[] = {&broker_option_table};
    props_init(&p);
    cr_assert_eq(props_parse(&p, slice_str("listeners=PLAINTEXT://127.0.0.1:9092\n"), "t", &err), 0);
    cr_assert_eq(props_parse(&p, slice_str(lines), "t", &err), 0, "%s", err.text);
    cr_assert_eq(options_apply(&broker_option_table, &p, &o, &err), 0, "%s", err.text);
    cr_assert_eq(options_finish(tables, 1, broker_unserved_keys, &p, &err), 0, "%s", err.text);
    props_fini(&p);
    return o;
}

Test(settle, the_tables_are_sound)
{
    struct err err = {0};
    cr_expect_eq(options_lint(&broker_option_table, &err), 0, "%s", err.text);
    cr_expect_eq(metrics_lint(broker_metric_rows, BROKER_METRICS, &err), 0, "%s", err.text);
    for (size_t i = 0; broker_unserved_keys[i]; i++)
        cr_expect_not(options_find(&broker_option_table, broker_unserved_keys[i]), "%s is served",
                      broker_unserved_keys[i]);
}

static struct log_config log_of(const char *lines)
{
    struct broker_options o = options(lines);
    struct log_config c = settle_partitions(&o).defaults;
    broker_options_fini(&o);
    return c;
}

Test(settle, defaults_are_kafkas)
{
    struct log_config c = log_of(""), d = log_config_default();
    cr_expect_eq(c.segment_bytes, d.segment_bytes);
    cr_expect_eq(c.segment_ms, d.segment_ms);
    cr_expect_eq(c.segment_jitter_ms, d.segment_jitter_ms);
    cr_expect_eq(c.index_interval_bytes, d.index_interval_bytes);
    cr_expect_eq(c.segment_index_bytes, d.segment_index_bytes);
    cr_expect_eq(c.retention_ms, d.retention_ms);
    cr_expect_eq(c.retention_bytes, d.retention_bytes);
    cr_expect(c.cleanup_delete && !c.cleanup_compact);
    cr_expect_eq(c.delete_retention_ms, d.delete_retention_ms);
    cr_expect_eq(c.min_compaction_lag_ms, d.min_compaction_lag_ms);
    cr_expect_eq(c.max_compaction_lag_ms, d.max_compaction_lag_ms);
    cr_expect_float_eq(c.min_cleanable_dirty_ratio, d.min_cleanable_dirty_ratio, 1e-9);
    cr_expect_eq(c.max_message_bytes, d.max_message_bytes);
    cr_expect_eq(c.message_timestamp_type, d.message_timestamp_type);
    cr_expect_eq(c.file_delete_delay_ms, d.file_delete_delay_ms);
    cr_expect_eq(c.flush_messages, d.flush_messages);
    cr_expect_eq(c.flush_ms, d.flush_ms);
    cr_expect_eq(c.producer_id_expiration_ms, d.producer_id_expiration_ms);
}

Test(settle, the_finer_unit_wins)
{
    cr_expect_eq(log_of("log.retention.hours=2\n").retention_ms, 7200000);
    cr_expect_eq(log_of("log.retention.hours=2\nlog.retention.minutes=3\n").retention_ms, 180000);
    cr_expect_eq(log_of("log.retention.minutes=3\nlog.retention.ms=5\n").retention_ms, 5);
    cr_expect_eq(log_of("log.retention.hours=-1\n").retention_ms, -1);
    cr_expect_eq(log_of("log.retention.ms=-1\n").retention_ms, -1);
    cr_expect_eq(log_of("log.roll.hours=1\n").segment_ms, 3600000);
    cr_expect_eq(log_of("log.roll.hours=1\nlog.roll.ms=9\n").segment_ms, 9);
}

Test(settle, the_longest_intervals_are_long)
{
    struct broker_options o = options("log.retention.check.interval.ms=9223372036854775807\n"
                                      "replica.high.watermark.checkpoint.interval.ms=9223372036854775807\n"
                                      "log.cleaner.backoff.ms=9223372036854775807\n"
                                      "connections.max.idle.ms=9223372036854775807\n"
                                      "offsets.retention.check.interval.ms=9223372036854775807\n");
    struct partition_host h = settle_partitions(&o);
    const int64_t year_us = INT64_C(31536000000000), most = INT64_MAX / 2;
    const int64_t us[] = {h.retention_interval_us, h.watermark_interval_us, h.cleaner_backoff_us,
                          settle_net(&o, 1000).idle_max_us, settle_groups(&o).retention_check_ms * 1000};
    for (size_t i = 0; i < sizeof us / sizeof *us; i++)
        cr_expect(us[i] > 1000 * year_us && us[i] < most, "%zu: %lld", i, (long long)us[i]);
    broker_options_fini(&o);
}

Test(settle, shards_follow_the_processors)
{
    struct broker_options o = options("");
    cr_expect_eq(settle_shards(&o, 1), 1);
    cr_expect_eq(settle_shards(&o, 2), 1);
    cr_expect_eq(settle_shards(&o, 8), 7);
    broker_options_fini(&o);
    o = options("sundog.shards=2\n");
    cr_expect_eq(settle_shards(&o, 8), 2);
    broker_options_fini(&o);
}

Test(settle, clients_never_take_every_descriptor)
{
    struct broker_options o = options("");
    cr_expect_eq(settle_net(&o, 0).connections_max, INT32_MAX);
    cr_expect_eq(settle_net(&o, 1024).connections_max, 512);
    cr_expect_lt(settle_net(&o, 20000).connections_max, 20000 - 512);
    cr_expect_geq(settle_net(&o, 64).connections_max, 64);
    broker_options_fini(&o);
}

Test(settle, old_names_are_known)
{
    const char *paths[LOG_DIRS_MAX];
    unsigned n;
    struct err err = {0};
    struct broker_options o = options("broker.id=7\nlog.dir=/a\n");
    cr_expect_eq(settle_node_id(&o), 7);
    cr_assert_eq(settle_log_dirs(&o, paths, &n, &err), 0);
    cr_expect(n == 1 && strcmp(paths[0], "/a") == 0);
    broker_options_fini(&o);
    o = options("node.id=3\nlog.dirs=/a, /b\nlog.dir=/c\n");
    cr_expect_eq(settle_node_id(&o), 3);
    cr_assert_eq(settle_log_dirs(&o, paths, &n, &err), 0);
    cr_expect_eq(n, 2);
    broker_options_fini(&o);
    o = options("");
    cr_expect_eq(settle_log_dirs(&o, paths, &n, &err), -E_CONFIG);
    broker_options_fini(&o);
}

/* NULL: served. */
static void roles(const char *lines, const char *refused)
{
    struct err err = {0};
    struct broker_options o = options(lines);
    int rc = settle_roles(&o, &err);
    cr_expect_eq(rc, refused ? -E_CONFIG : 0, "%s", lines);
    cr_expect(!refused || strstr(err.text, refused), "%s: %s", lines, err.text);
    broker_options_fini(&o);
}

Test(settle, a_node_is_its_own_quorum)
{
    roles("", NULL);
    roles("process.roles=controller,broker\n", NULL);
    roles("process.roles=broker\n", "process.roles: ");
    roles("node.id=7\ncontroller.quorum.voters=7@localhost:9093\n", NULL);
    roles("broker.id=7\ncontroller.quorum.voters=7@[::1]:9093\n", NULL);
    roles("node.id=7\ncontroller.quorum.voters=1@localhost:9093\n",
          "1@localhost:9093 does not name this node, whose node.id is 7");
    roles("controller.quorum.voters=1@a:1,2@b:1\n", "only a quorum of this node alone");
    static const char *const malformed[] = {"a:1",  "@a:1",   "1@a",    "1@:1",
                                            "1@a:", "-1@a:1", "x1@a:1", "99999999999@a:1"};
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        char line[100];
        snprintf(line, sizeof line, "controller.quorum.voters=%s\n", malformed[i]);
        roles(line, "is not ID@HOST:PORT");
    }
}
