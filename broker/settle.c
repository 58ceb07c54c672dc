#include "broker/settle.h"

#include "proto/kafka/batch_validate.h"

#include <assert.h>

#define NODE_ID_DEFAULT 1 /* of node.id in options.def: as good as not given */

/* Descriptors that are not for clients: logs, indexes, the quorum, the admin port. */
#define FDS_RESERVED (LOG_FILES_DEFAULT + 256)
#define FDS_MIN      64
#define HOUR_MS      INT64_C(3600000)
#define MINUTE_MS    INT64_C(60000)

unsigned settle_shards(const struct broker_options *o, unsigned cpus)
{
    if (o->shards > 0)
        return (unsigned)o->shards;
    return cpus > 1 ? cpus - 1 : 1;
}

int settle_log_dirs(const struct broker_options *o, const char *paths[LOG_DIRS_MAX], unsigned *n,
                    struct err *err)
{
    const struct option_list *from = o->log_dirs.n ? &o->log_dirs : &o->log_dir;
    *n = 0;
    for (size_t i = 0; i < from->n && *n < LOG_DIRS_MAX; i++)
        paths[(*n)++] = from->item[i];
    return *n > 0
               ? 0
               : err_set(err, -E_CONFIG, "log.dirs: not set; give the folder that the records are kept in");
}

int32_t settle_node_id(const struct broker_options *o)
{
    return o->broker_id >= 0 ? o->broker_id : o->node_id;
}

static bool has(const struct option_list *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->item[i], name) == 0)
            return true;
    return false;
}

/* ID@HOST:PORT; the id, or -1. */
static int64_t voter_id(const char *text)
{
    int64_t id = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9' && id <= INT32_MAX; at++)
        id = id * 10 + (*at - '0');
    const char *colon = *at == '@' ? strrchr(at, ':') : NULL;
    return at > text && id <= INT32_MAX && colon && colon > at + 1 && colon[1] ? id : -1;
}

int settle_roles(const struct broker_options *o, struct err *err)
{
    const struct option_list *voters = &o->controller_quorum_voters;
    if (o->broker_id >= 0 && o->node_id != o->broker_id && o->node_id != NODE_ID_DEFAULT)
        return err_set(err, -E_CONFIG,
                       "broker.id=%d, but node.id=%d: it is the old name of the same; give one", o->broker_id,
                       o->node_id);
    if (o->process_roles.n > 0 &&
        (!has(&o->process_roles, "broker") || !has(&o->process_roles, "controller")))
        return err_set(err, -E_CONFIG,
                       "process.roles: only broker,controller in one process is served; leave it out");
    for (size_t i = 0; i < voters->n; i++)
        if (voter_id(voters->item[i]) < 0)
            return err_set(err, -E_CONFIG, "controller.quorum.voters: \"%s\" is not ID@HOST:PORT",
                           voters->item[i]);
    if (voters->n > 1)
        return err_set(err, -E_CONFIG,
                       "controller.quorum.voters: only a quorum of this node alone is served; leave it out");
    if (voters->n == 1 && voter_id(voters->item[0]) != settle_node_id(o))
        return err_set(err, -E_CONFIG,
                       "controller.quorum.voters: %s does not name this node, whose node.id is %d: give both "
                       "the same number, or leave the voters out",
                       voters->item[0], settle_node_id(o));
    return 0;
}

int settle_listeners(const struct broker_options *o, struct net_listeners *out, struct err *err)
{
    return net_listeners_parse(
        &(struct net_listeners_options){.listeners = &o->listeners,
                                        .advertised = &o->advertised_listeners,
                                        .controller_names = &o->controller_listener_names,
                                        .protocol_map = o->listener_security_protocol_map,
                                        .insecure = o->insecure},
        out, err);
}

/* As a timer takes it: longer ones, some hundred thousand years, would overflow its clock. */
#define INTERVAL_MAX_MS (INT64_MAX / 4000)

static int64_t interval_ms(int64_t ms)
{
    assert(ms >= 0);
    return ms < INTERVAL_MAX_MS ? ms : INTERVAL_MAX_MS;
}

static int64_t interval_us(int64_t ms)
{
    return interval_ms(ms) * 1000;
}

struct net_options settle_net(const struct broker_options *o, int64_t fds)
{
    struct net_options n = {.request_max_bytes = o->socket_request_max_bytes,
                            .idle_max_us = interval_us(o->connections_max_idle_ms),
                            .request_max_us = interval_us(o->request_timeout_ms),
                            .write_max_us = interval_us(o->write_timeout_ms),
                            .connections_max = o->max_connections,
                            .requests_max = o->connection_requests_max,
                            .queued_max_bytes = o->connection_queued_max_bytes};
    int64_t room = fds - FDS_RESERVED;
    room = room > fds / 2 ? room : fds / 2; /* few descriptors: half of them */
    room = room > FDS_MIN ? room : FDS_MIN;
    if (fds > 0 && room < n.connections_max)
        n.connections_max = (int32_t)room;
    return n;
}

/* The first that is set: milliseconds, minutes, hours. */
static int64_t first_set(int64_t ms, int64_t minutes, int64_t hours)
{
    if (ms)
        return ms;
    if (minutes)
        return minutes < 0 ? -1 : minutes * MINUTE_MS;
    return hours < 0 ? -1 : hours * HOUR_MS;
}

static struct log_config settle_log(const struct broker_options *o)
{
    struct log_config c = log_config_default();
    c.segment_bytes = o->log_segment_bytes;
    c.segment_ms = first_set(o->log_roll_ms, 0, o->log_roll_hours);
    c.segment_jitter_ms = first_set(o->log_roll_jitter_ms, 0, o->log_roll_jitter_hours);
    c.index_interval_bytes = o->log_index_interval_bytes;
    c.segment_index_bytes = o->log_index_size_max_bytes;
    c.retention_ms = first_set(o->log_retention_ms, o->log_retention_minutes, o->log_retention_hours);
    c.retention_bytes = o->log_retention_bytes;
    c.cleanup_delete = has(&o->log_cleanup_policy, "delete");
    c.cleanup_compact = has(&o->log_cleanup_policy, "compact");
    c.delete_retention_ms = o->log_cleaner_delete_retention_ms;
    c.min_compaction_lag_ms = o->log_cleaner_min_compaction_lag_ms;
    c.max_compaction_lag_ms = o->log_cleaner_max_compaction_lag_ms;
    c.min_cleanable_dirty_ratio = o->log_cleaner_min_cleanable_ratio;
    c.max_message_bytes = o->message_max_bytes;
    c.message_timestamp_type =
        strcmp(o->log_message_timestamp_type, "LogAppendTime") == 0 ? LOG_APPEND_TIME : LOG_CREATE_TIME;
    c.file_delete_delay_ms = o->log_segment_delete_delay_ms;
    c.preallocate = o->log_preallocate;
    c.flush_messages = o->log_flush_interval_messages;
    c.flush_ms = o->log_flush_interval_ms ? o->log_flush_interval_ms : INT64_MAX;
    c.page_cache = !o->flush_before_ack;
    c.producer_id_expiration_ms = o->producer_id_expiration_ms;
    return c;
}

static int check_depth(const char *text)
{
    if (strcmp(text, "header") == 0)
        return BATCH_CHECK_HEADER;
    return strcmp(text, "records") == 0 ? BATCH_CHECK_RECORDS : BATCH_CHECK_ALL;
}

struct partition_host settle_partitions(const struct broker_options *o)
{
    return (struct partition_host){
        .node_id = settle_node_id(o),
        .flush_before_ack = o->flush_before_ack,
        .check_depth = check_depth(o->produce_check),
        .defaults = settle_log(o),
        .min_insync_replicas = o->min_insync_replicas,
        .before_max_ms = o->log_message_timestamp_before_max_ms,
        .after_max_ms = o->log_message_timestamp_after_max_ms,
        .retention_interval_us = interval_us(o->log_retention_check_interval_ms),
        .recovery_interval_us = interval_us(o->log_flush_offset_checkpoint_interval_ms),
        .watermark_interval_us = interval_us(o->replica_high_watermark_checkpoint_interval_ms),
        .cleaner_backoff_us = o->log_cleaner_enable ? interval_us(o->log_cleaner_backoff_ms) : 0,
        .cleaner_map_bytes = (size_t)o->log_cleaner_dedupe_buffer_size,
        .files_max = LOG_FILES_DEFAULT,
    };
}

/* A new member's join that is not answered within five minutes is given up, as in Kafka. */
#define NEW_MEMBER_JOIN_MS 300000

struct groups_options settle_groups(const struct broker_options *o)
{
    return (struct groups_options){
        .node_id = settle_node_id(o),
        .group = {.session_min_ms = o->group_min_session_timeout_ms,
                  .session_max_ms = o->group_max_session_timeout_ms,
                  .initial_rebalance_delay_ms = o->group_initial_rebalance_delay_ms,
                  .new_member_join_timeout_ms = NEW_MEMBER_JOIN_MS,
                  .members_max = o->group_max_size},
        .offset_metadata_max_bytes = o->offset_metadata_max_bytes,
        .commit_timeout_ms = o->offsets_commit_timeout_ms,
        .retention_ms = (int64_t)o->offsets_retention_minutes * 60000,
        .retention_check_ms = interval_ms(o->offsets_retention_check_interval_ms),
    };
}
