/* The table of topic options, held against Kafka's own (tests/data/kafka/configs.tsv), values and names. */
#include "broker/metadata/topic_config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

/* A value as it is stored, or NULL when it is refused. */
static const char *stored(const char *key, const char *value)
{
    static char text[256];
    struct buf b;
    struct err err = {0};
    buf_init(&b, sizeof text - 1);
    int rc = topic_config_normalize(topic_config_find(slice_str(key)), slice_str(value), &b, &err);
    cr_assert_eq(rc < 0, err.text[0] != 0);
    cr_assert(rc == 0 || strstr(err.text, key), "%s", err.text);
    slice_cstr(buf_slice(&b), text, sizeof text);
    buf_fini(&b);
    return rc == 0 ? text : NULL;
}

Test(topic_config, every_default_is_taken_as_it_stands)
{
    size_t n;
    const struct topic_config_row *rows = topic_config_rows(&n);
    for (size_t i = 0; i < n; i++) {
        cr_assert_str_eq(stored(rows[i].key, rows[i].value), rows[i].value, "%s", rows[i].key);
        cr_assert_gt(strlen(rows[i].help), 20u, "%s", rows[i].key);
        cr_assert_eq(topic_config_find(slice_str(rows[i].key)), &rows[i], "%s twice", rows[i].key);
        if (i > 0)
            cr_assert_lt(strcmp(rows[i - 1].key, rows[i].key), 0, "rows are sorted");
    }
}

Test(topic_config, values_are_checked_and_stored_without_white_space)
{
    cr_assert_str_eq(stored("retention.ms", " 5 "), "5");
    cr_assert_str_eq(stored("retention.ms", "-1"), "-1");
    cr_assert_null(stored("retention.ms", "-2"));
    cr_assert_null(stored("retention.ms", "5s"));
    cr_assert_null(stored("retention.ms", ""));
    cr_assert_null(stored("retention.ms", "9223372036854775808"));
    cr_assert_str_eq(stored("segment.bytes", "1048576"), "1048576");
    cr_assert_null(stored("segment.bytes", "1048575"));
    cr_assert_null(stored("segment.bytes", "2147483648"));
    cr_assert_str_eq(stored("preallocate", "TRUE"), "true");
    cr_assert_null(stored("preallocate", "yes"));
    cr_assert_null(stored("remote.storage.enable", "true"));
    cr_assert_str_eq(stored("cleanup.policy", " compact , delete"), "compact,delete");
    cr_assert_str_eq(stored("cleanup.policy", ""), "");
    cr_assert_null(stored("cleanup.policy", "compact,,delete"));
    cr_assert_null(stored("cleanup.policy", "compact,shred"));
    cr_assert_null(stored("cleanup.policy", "compact,compact,delete"));
    cr_assert_null(stored("message.timestamp.type", "createtime"));
    cr_assert_str_eq(stored("min.cleanable.dirty.ratio", "0.25"), "0.25");
    cr_assert_null(stored("min.cleanable.dirty.ratio", "1.1"));
    cr_assert_null(stored("min.cleanable.dirty.ratio", "nan"));
    cr_assert_str_eq(stored("leader.replication.throttled.replicas", "0:1, 1:2"), "0:1,1:2");
    cr_assert_str_eq(stored("leader.replication.throttled.replicas", "*"), "*");
    cr_assert_null(stored("leader.replication.throttled.replicas", "0:"));
}

Test(topic_config, broker_keys_name_the_default)
{
    const char *rest = topic_config_find(SLICE_LIT("retention.ms"))->broker_keys;
    struct topic_config_synonym s;
    cr_assert(topic_config_synonym_next(&rest, &s) && slice_eq_str(s.key, "log.retention.ms") &&
              s.factor == 1);
    cr_assert(topic_config_synonym_next(&rest, &s) && slice_eq_str(s.key, "log.retention.minutes") &&
              s.factor == 60000);
    cr_assert(topic_config_synonym_next(&rest, &s) && slice_eq_str(s.key, "log.retention.hours"));
    cr_assert_not(topic_config_synonym_next(&rest, &s));
    cr_assert_str_eq(topic_config_of_broker_key(SLICE_LIT("message.max.bytes"))->key, "max.message.bytes");
    cr_assert_null(topic_config_of_broker_key(SLICE_LIT("log.retention.hours")), "a number of another unit");
    cr_assert_null(topic_config_of_broker_key(SLICE_LIT("node.id")));
}

/* One line of Kafka's table: scope, key, type, default, valid values. */
static bool compare_line(char *line)
{
    char *column[5] = {line};
    int n = 1;
    for (char *p = line; *p && n < 5; p++) {
        if (*p == '\t') {
            *p = 0;
            column[n++] = p + 1;
        }
    }
    if (n < 4 || strcmp(column[0], "topic") != 0 || strncmp(column[1], "internal.", 9) == 0)
        return false;
    static const char *const types[] = {
        [TOPIC_CONFIG_BOOL] = "boolean", [TOPIC_CONFIG_STRING] = "string", [TOPIC_CONFIG_INT] = "int",
        [TOPIC_CONFIG_LONG] = "long",    [TOPIC_CONFIG_DOUBLE] = "double", [TOPIC_CONFIG_LIST] = "list"};
    const struct topic_config_row *row = topic_config_find(slice_str(column[1]));
    cr_assert_not_null(row, "%s is not in the table", column[1]);
    cr_assert_str_eq(types[row->type], column[2], "%s", row->key);
    char *value = column[3];
    if (row->type == TOPIC_CONFIG_LIST) { /* [delete] */
        value[strlen(value) - 1] = 0;
        value++;
    }
    cr_assert_str_eq(row->value, value, "%s", row->key);
    if (n == 5 && column[4][0] == '[' && strstr(column[4], ",...]") && row->min != INT64_MIN)
        cr_assert_eq(row->min, strtoll(column[4] + 1, NULL, 10), "%s", row->key);
    return true;
}

Test(topic_config, keys_types_defaults_and_lower_bounds_are_kafkas)
{
    FILE *f = fopen("tests/data/kafka/configs.tsv", "r");
    cr_assert_not_null(f);
    char line[4096];
    size_t seen = 0, n;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        seen += compare_line(line);
    }
    fclose(f);
    topic_config_rows(&n);
    cr_assert_eq(seen, n, "and none is ours alone");
}

Test(topic_name, kafkas_rules)
{
    char longest[251];
    memset(longest, 'x', 250);
    longest[250] = 0;
    cr_assert_eq(topic_name_check(SLICE_LIT("a.B_c-9"), NULL), 0);
    cr_assert_eq(topic_name_check(slice_of(longest, 249), NULL), 0);
    static const char *const bad[] = {"", ".", "..", "a b", "a/b", "a\xc3\xa4", "a:b", "a,b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(topic_name_check(slice_str(bad[i]), NULL), -E_INVALID, "%s", bad[i]);
    cr_assert_eq(topic_name_check(slice_of(longest, 250), NULL), -E_INVALID);
    cr_assert(topic_names_collide(SLICE_LIT("a.b"), SLICE_LIT("a_b")));
    cr_assert_not(topic_names_collide(SLICE_LIT("a.b"), SLICE_LIT("a.b")));
    cr_assert_not(topic_names_collide(SLICE_LIT("a.b"), SLICE_LIT("a-b")));
}
