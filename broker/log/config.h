/* The topic options that concern a log, as a plain value; filled by whoever knows the topic's configuration.
 * Names and defaults are Kafka's. */
#ifndef SUNDOG_BROKER_LOG_CONFIG_H
#define SUNDOG_BROKER_LOG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

enum log_timestamp_type { LOG_CREATE_TIME, LOG_APPEND_TIME };

struct log_config {
    int32_t segment_bytes;        /* segment.bytes */
    int64_t segment_ms;           /* segment.ms */
    int64_t segment_jitter_ms;    /* segment.jitter.ms */
    int32_t index_interval_bytes; /* index.interval.bytes */
    int32_t segment_index_bytes;  /* segment.index.bytes */
    int64_t retention_ms;         /* retention.ms; -1: no limit */
    int64_t retention_bytes;      /* retention.bytes; -1: no limit */
    bool cleanup_delete;          /* cleanup.policy has "delete" */
    bool cleanup_compact;         /* cleanup.policy has "compact" */
    int64_t delete_retention_ms;  /* delete.retention.ms */
    int64_t min_compaction_lag_ms;
    int64_t max_compaction_lag_ms;
    double min_cleanable_dirty_ratio;
    int32_t max_message_bytes;
    enum log_timestamp_type message_timestamp_type;
    int64_t file_delete_delay_ms; /* file.delete.delay.ms */
    bool preallocate;
    int64_t flush_messages; /* flush.messages: a flush is due after so many records */
    int64_t flush_ms;
    bool page_cache;                   /* acks do not wait for the disk (sundog.flush.before.ack=false) */
    int64_t producer_id_expiration_ms; /* the broker's producer.id.expiration.ms */
};

/* Kafka's defaults. */
static inline struct log_config log_config_default(void)
{
    return (struct log_config){
        .segment_bytes = 1073741824,
        .segment_ms = INT64_C(604800000),
        .index_interval_bytes = 4096,
        .segment_index_bytes = 10485760,
        .retention_ms = INT64_C(604800000),
        .retention_bytes = -1,
        .cleanup_delete = true,
        .delete_retention_ms = 86400000,
        .max_compaction_lag_ms = INT64_MAX,
        .min_cleanable_dirty_ratio = 0.5,
        .max_message_bytes = 1048588,
        .file_delete_delay_ms = 60000,
        .flush_messages = INT64_MAX,
        .flush_ms = INT64_MAX,
        .producer_id_expiration_ms = 86400000,
    };
}

#endif
