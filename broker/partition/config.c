/* A topic's options as its log and its appends need them: the topic's own entry, else this broker's dynamic one, else
 * the cluster's dynamic one, else the default from the broker's properties. The controller has checked the values;
 * one that does not parse all the same leaves the default. */
#include "broker/partition/internal.h"

#include "base/runtime/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum kind { INT32, INT64, DOUBLE, BOOL };

struct settings {
    struct log_config log;
    int32_t min_insync_replicas;
    int64_t before_max_ms, after_max_ms;
};

static const struct row {
    const char *topic_key, *broker_key;
    enum kind kind;
    size_t at;
} rows[] = {
#define ROW(topic, broker, kind, member)                                                                     \
    {                                                                                                        \
        topic, broker, kind, offsetof(struct settings, member)                                               \
    }
    ROW("segment.bytes", "log.segment.bytes", INT32, log.segment_bytes),
    ROW("segment.ms", "log.roll.ms", INT64, log.segment_ms),
    ROW("segment.jitter.ms", "log.roll.jitter.ms", INT64, log.segment_jitter_ms),
    ROW("index.interval.bytes", "log.index.interval.bytes", INT32, log.index_interval_bytes),
    ROW("segment.index.bytes", "log.index.size.max.bytes", INT32, log.segment_index_bytes),
    ROW("retention.ms", "log.retention.ms", INT64, log.retention_ms),
    ROW("retention.bytes", "log.retention.bytes", INT64, log.retention_bytes),
    ROW("delete.retention.ms", "log.cleaner.delete.retention.ms", INT64, log.delete_retention_ms),
    ROW("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", INT64, log.min_compaction_lag_ms),
    ROW("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", INT64, log.max_compaction_lag_ms),
    ROW("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio", DOUBLE,
        log.min_cleanable_dirty_ratio),
    ROW("max.message.bytes", "message.max.bytes", INT32, log.max_message_bytes),
    ROW("file.delete.delay.ms", "log.segment.delete.delay.ms", INT64, log.file_delete_delay_ms),
    ROW("preallocate", "log.preallocate", BOOL, log.preallocate),
    ROW("flush.messages", "log.flush.interval.messages", INT64, log.flush_messages),
    ROW("flush.ms", "log.flush.interval.ms", INT64, log.flush_ms),
    ROW("min.insync.replicas", "min.insync.replicas", INT32, min_insync_replicas),
    ROW("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms", INT64, before_max_ms),
    ROW("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms", INT64, after_max_ms),
#undef ROW
};

/* Where values come from, first to last. */
struct sources {
    const struct image_config *topic, *broker, *cluster;
};

static struct slice lookup(const struct sources *s, const char *topic_key, const char *broker_key)
{
    struct slice v = image_config_value(s->topic, slice_str(topic_key));
    if (slice_is_null(v))
        v = image_config_value(s->broker, slice_str(broker_key));
    if (slice_is_null(v))
        v = image_config_value(s->cluster, slice_str(broker_key));
    return v;
}

static void set(const struct row *row, struct slice v, struct settings *out)
{
    void *at = (uint8_t *)out + row->at;
    const char *text = (const char *)v.p; /* the image's slices end in a NUL */
    char *end;
    errno = 0;
    switch (row->kind) {
    case BOOL: *(bool *)at = slice_eq_str(v, "true"); return;
    case DOUBLE: {
        double d = strtod(text, &end);
        if (end > text && !*end)
            *(double *)at = d;
        return;
    }
    case INT32:
    case INT64: {
        long long n = strtoll(text, &end, 10);
        if (end == text || *end || errno)
            return;
        if (row->kind == INT64)
            *(int64_t *)at = n;
        else if (n >= INT32_MIN && n <= INT32_MAX)
            *(int32_t *)at = (int32_t)n;
        return;
    }
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

static struct settings settle(const struct partition_host *h, const struct sources *s)
{
    struct settings out = {h->defaults, h->min_insync_replicas, h->before_max_ms, h->after_max_ms};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct slice v = lookup(s, rows[i].topic_key, rows[i].broker_key);
        if (!slice_is_null(v))
            set(&rows[i], v, &out);
    }
    struct slice policy = lookup(s, "cleanup.policy", "log.cleanup.policy");
    if (!slice_is_null(policy)) {
        out.log.cleanup_delete = names(policy, "delete");
        out.log.cleanup_compact = names(policy, "compact");
    }
    struct slice type = lookup(s, "message.timestamp.type", "log.message.timestamp.type");
    if (!slice_is_null(type))
        out.log.message_timestamp_type =
            slice_eq_str(type, "LogAppendTime") ? LOG_APPEND_TIME : LOG_CREATE_TIME;
    return out;
}

void partition_configure(struct partition *p, const struct image *image)
{
    struct sources from = {0};
    char id[16];
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
