/* A topic's options as its log and its appends need them: the topic's own entry, else this broker's dynamic one, else
 * the cluster's dynamic one, else the default from the broker's properties. The controller has checked the values;
 * one that does not parse all the same leaves the default. */
#include "broker/partition/internal.h"

#include "broker/metadata/topic_config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct settings {
    struct log_config log;
    int32_t min_insync_replicas;
    int64_t before_max_ms, after_max_ms;
};

/* The member that an option of a topic is kept in; its broker keys and its type are those of topic_configs.def. */
static const struct row {
    const char *key;
    size_t at, size;
} rows[] = {
#define ROW(key, member)                                                                                     \
    {                                                                                                        \
        key, offsetof(struct settings, member), sizeof(((struct settings *)0)->member)                       \
    }
    ROW("segment.bytes", log.segment_bytes),
    ROW("segment.ms", log.segment_ms),
    ROW("segment.jitter.ms", log.segment_jitter_ms),
    ROW("index.interval.bytes", log.index_interval_bytes),
    ROW("segment.index.bytes", log.segment_index_bytes),
    ROW("retention.ms", log.retention_ms),
    ROW("retention.bytes", log.retention_bytes),
    ROW("delete.retention.ms", log.delete_retention_ms),
    ROW("min.compaction.lag.ms", log.min_compaction_lag_ms),
    ROW("max.compaction.lag.ms", log.max_compaction_lag_ms),
    ROW("min.cleanable.dirty.ratio", log.min_cleanable_dirty_ratio),
    ROW("max.message.bytes", log.max_message_bytes),
    ROW("file.delete.delay.ms", log.file_delete_delay_ms),
    ROW("preallocate", log.preallocate),
    ROW("flush.messages", log.flush_messages),
    ROW("flush.ms", log.flush_ms),
    ROW("min.insync.replicas", min_insync_replicas),
    ROW("message.timestamp.before.max.ms", before_max_ms),
    ROW("message.timestamp.after.max.ms", after_max_ms),
#undef ROW
};

/* Where values come from, first to last. */
struct sources {
    const struct image_config *topic, *broker, *cluster;
};

/* Of the broker's keys those count that say the same in the same unit: only they may be set in the cluster. The order
 * is that of DescribeConfigs (controller/effective.c). */
static struct slice lookup(const struct sources *s, const struct topic_config_row *option)
{
    struct topic_config_synonym key;
    struct slice v = image_config_value(s->topic, slice_str(option->key));
    for (const char *rest = option->broker_keys;
         slice_is_null(v) && topic_config_synonym_next(&rest, &key);) {
        if (key.factor != 1)
            continue;
        v = image_config_value(s->broker, key.key);
        if (slice_is_null(v))
            v = image_config_value(s->cluster, key.key);
    }
    return v;
}

static void set_number(enum topic_config_type type, const char *text, void *at)
{
    assert(type == TOPIC_CONFIG_LONG || type == TOPIC_CONFIG_INT);
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (end == text || *end || errno)
        return;
    if (type == TOPIC_CONFIG_LONG)
        *(int64_t *)at = n;
    else if (n >= INT32_MIN && n <= INT32_MAX)
        *(int32_t *)at = (int32_t)n;
}

static void set(const struct row *row, enum topic_config_type type, struct slice v, struct settings *out)
{
    static const size_t sizes[] = {[TOPIC_CONFIG_BOOL] = sizeof(bool),
                                   [TOPIC_CONFIG_INT] = sizeof(int32_t),
                                   [TOPIC_CONFIG_LONG] = sizeof(int64_t),
                                   [TOPIC_CONFIG_DOUBLE] = sizeof(double),
                                   [TOPIC_CONFIG_LIST] = 0};
    void *at = (uint8_t *)out + row->at;
    const char *text = (const char *)v.p; /* the image's slices end in a NUL */
    char *end;
    assert(row->size == sizes[type]);
    assert(row->at + row->size <= sizeof *out);
    assert(text);
    if (type == TOPIC_CONFIG_BOOL) {
        *(bool *)at = slice_eq_str(v, "true");
    } else if (type == TOPIC_CONFIG_DOUBLE) {
        double d = strtod(text, &end);
        if (end > text && !*end)
            *(double *)at = d;
    } else {
        set_number(type, text, at);
    }
}

/* One of a comma separated list. */
static bool names(struct slice list, const char *name)
{
    size_t n = strlen(name);
    for (size_t at = 0; at + n <= list.n; at++) {
        bool begins = at == 0 || list.p[at - 1] == ',' || list.p[at - 1] == ' ';
        bool ends = at + n == list.n || list.p[at + n] == ',' || list.p[at + n] == ' ';
        if (begins && ends && memcmp(list.p + at, name, n) == 0)
            return true;
    }
    return false;
}

static const struct topic_config_row *option(const char *key)
{
    const struct topic_config_row *o = topic_config_find(slice_str(key));
    assert(o);
    assert(o->use == TOPIC_CONFIG_SERVED);
    return o;
}

static struct settings settle(const struct partition_host *h, const struct sources *s)
{
    struct settings out = {h->defaults, h->min_insync_replicas, h->before_max_ms, h->after_max_ms};
    if (!s->topic && !s->broker && !s->cluster)
        return out;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct topic_config_row *o = option(rows[i].key);
        struct slice v = lookup(s, o);
        if (!slice_is_null(v))
            set(&rows[i], o->type, v, &out);
    }
    struct slice policy = lookup(s, option("cleanup.policy"));
    if (!slice_is_null(policy)) {
        out.log.cleanup_delete = names(policy, "delete");
        out.log.cleanup_compact = names(policy, "compact");
    }
    struct slice type = lookup(s, option("message.timestamp.type"));
    if (!slice_is_null(type))
        out.log.message_timestamp_type =
            slice_eq_str(type, "LogAppendTime") ? LOG_APPEND_TIME : LOG_CREATE_TIME;
    return out;
}

void partition_configure(struct partition *p, const struct image *image)
{
    struct sources from = {0};
    char id[16];
    assert(sm_state(&p->state) != PARTITION_CLOSING); /* its log is in the hands of a job */
    if (image) {
        snprintf(id, sizeof id, "%d", p->set->host->node_id);
        from.topic = image_config(image, IMAGE_CONFIG_TOPIC, slice_str(p->topic));
        from.broker = image_config(image, IMAGE_CONFIG_BROKER, slice_str(id));
        from.cluster = image_config(image, IMAGE_CONFIG_BROKER, SLICE_LIT(""));
    }
    struct settings s = settle(p->set->host, &from);
    p->config = s.log;
    p->min_insync_replicas = s.min_insync_replicas;
    p->rules =
        (struct batch_rules){.depth = (enum batch_depth)p->set->host->check_depth,
                             .size_max = (size_t)(s.log.max_message_bytes > 0 ? s.log.max_message_bytes : 0),
                             .needs_keys = s.log.cleanup_compact,
                             .create_time = s.log.message_timestamp_type == LOG_CREATE_TIME,
                             .before_max_ms = s.before_max_ms,
                             .after_max_ms = s.after_max_ms};
    if (p->log)
        log_configure(p->log, &p->config);
}
