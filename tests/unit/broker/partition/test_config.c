/* Every option of a topic that is said to be served reaches the partition, from wherever it may be set. */
#include "broker/metadata/image_edit.h"
#include "broker/metadata/topic_config.h"
#include "broker/partition/internal.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define NODE 7

static struct partition_host host;
static struct partitions set;
static struct partition p;

static void setup(void)
{
    host = (struct partition_host){.node_id = NODE,
                                   .defaults = log_config_default(),
                                   .min_insync_replicas = 1,
                                   .before_max_ms = INT64_MAX,
                                   .after_max_ms = 3600000};
    set.host = &host;
    p = (struct partition){.magic = PARTITION_MAGIC, .set = &set, .topic = "orders"};
}

TestSuite(config, .init = setup);

struct entry {
    int8_t type;
    const char *resource, *key, *value;
};

/* The partition as it is configured where these are set. */
static void configure(const struct entry *entries, size_t n)
{
    struct image *none = image_empty(SLICE_LIT("cluster"));
    struct image_edit e;
    struct err err = {0};
    cr_assert_eq(image_edit_begin(&e, none), 0);
    for (size_t i = 0; i < n; i++) {
        struct kp_config_record c;
        kp_init(&kp_config_record_message, &c);
        c.resource_type = entries[i].type;
        c.resource_name = slice_str(entries[i].resource);
        c.name = slice_str(entries[i].key);
        c.value = slice_str(entries[i].value);
        struct metadata_record r = {kp_type_config_record, 0, &c};
        cr_assert_eq(image_edit_apply(&e, &r, &err), 0, "%s", err.text);
    }
    struct image *img = image_edit_finish(&e, 1, 1, 0);
    partition_configure(&p, img);
    image_unref(img);
    image_unref(none);
}

/* What an option may change. */
static bool differs(const struct partition *a, const struct partition *b)
{
#define SAME(member) (a->member >= b->member && a->member <= b->member)
    return !(SAME(config.segment_bytes) && SAME(config.segment_ms) && SAME(config.segment_jitter_ms) &&
             SAME(config.index_interval_bytes) && SAME(config.segment_index_bytes) &&
             SAME(config.retention_ms) && SAME(config.retention_bytes) && SAME(config.cleanup_delete) &&
             SAME(config.cleanup_compact) && SAME(config.delete_retention_ms) &&
             SAME(config.min_compaction_lag_ms) && SAME(config.max_compaction_lag_ms) &&
             SAME(config.min_cleanable_dirty_ratio) && SAME(config.max_message_bytes) &&
             SAME(config.message_timestamp_type) && SAME(config.file_delete_delay_ms) &&
             SAME(config.preallocate) && SAME(config.flush_messages) && SAME(config.flush_ms) &&
             SAME(min_insync_replicas) && SAME(rules.size_max) && SAME(rules.create_time) &&
             SAME(rules.before_max_ms) && SAME(rules.after_max_ms) && SAME(rules.needs_keys));
#undef SAME
}

static const char *another_value(const struct topic_config_row *row)
{
    switch (row->type) {
    case TOPIC_CONFIG_BOOL: return "true";
    case TOPIC_CONFIG_DOUBLE: return "0.25";
    case TOPIC_CONFIG_LIST: return "compact";
    case TOPIC_CONFIG_STRING: return "LogAppendTime";
    default: return "1234567";
    }
}

static bool concerns_partitions(const struct topic_config_row *row)
{
    return row->use == TOPIC_CONFIG_SERVED && strcmp(row->key, "unclean.leader.election.enable") != 0;
}

Test(config, each_served_option_arrives_from_topic_broker_and_cluster)
{
    size_t n, seen = 0;
    const struct topic_config_row *rows = topic_config_rows(&n);
    configure(NULL, 0);
    const struct partition plain = p;
    for (size_t i = 0; i < n; i++) {
        if (!concerns_partitions(&rows[i]))
            continue;
        const char *value = another_value(&rows[i]);
        configure(&(struct entry){IMAGE_CONFIG_TOPIC, "orders", rows[i].key, value}, 1);
        cr_expect(differs(&p, &plain), "%s", rows[i].key);
        configure(&(struct entry){IMAGE_CONFIG_TOPIC, "others", rows[i].key, value}, 1);
        cr_expect_not(differs(&p, &plain), "%s of another topic", rows[i].key);
        struct topic_config_synonym s;
        for (const char *rest = rows[i].broker_keys; topic_config_synonym_next(&rest, &s); seen++) {
            char key[100];
            slice_cstr(s.key, key, sizeof key);
            configure(&(struct entry){IMAGE_CONFIG_BROKER, "7", key, value}, 1);
            cr_expect_eq(differs(&p, &plain), s.factor == 1, "%s of the broker", key);
            configure(&(struct entry){IMAGE_CONFIG_BROKER, "", key, value}, 1);
            cr_expect_eq(differs(&p, &plain), s.factor == 1, "%s of the cluster", key);
            configure(&(struct entry){IMAGE_CONFIG_BROKER, "8", key, value}, 1);
            cr_expect_not(differs(&p, &plain), "%s of another broker", key);
        }
    }
    cr_expect_gt(seen, 20);
}

Test(config, the_topic_comes_before_the_broker_and_that_before_the_cluster)
{
    const struct entry all[] = {{IMAGE_CONFIG_BROKER, "", "log.retention.ms", "3000"},
                                {IMAGE_CONFIG_BROKER, "7", "log.retention.ms", "2000"},
                                {IMAGE_CONFIG_TOPIC, "orders", "retention.ms", "1000"}};
    for (size_t n = 1; n <= 3; n++) {
        configure(all, n);
        cr_expect_eq(p.config.retention_ms, 4000 - (int64_t)n * 1000);
    }
    configure(NULL, 0);
    cr_expect_eq(p.config.retention_ms, log_config_default().retention_ms, "gone again");
}

Test(config, what_is_no_value_leaves_the_default)
{
    static const struct entry odd[] = {{IMAGE_CONFIG_TOPIC, "orders", "retention.ms", "1x"},
                                       {IMAGE_CONFIG_TOPIC, "orders", "segment.bytes", "99999999999"},
                                       {IMAGE_CONFIG_TOPIC, "orders", "flush.ms", ""},
                                       {IMAGE_CONFIG_TOPIC, "orders", "min.cleanable.dirty.ratio", "."}};
    configure(NULL, 0);
    const struct partition plain = p;
    configure(odd, sizeof odd / sizeof *odd);
    cr_expect_not(differs(&p, &plain));
}
