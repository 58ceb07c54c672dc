#include "broker/broker.h"

#include "base/runtime/log.h"
#include "broker/api/api.h"
#include "broker/api/config_statics.h"
#include "broker/api/producer_ids.h"
#include "broker/parts.h"
#include "broker/partition/checkpoint.h"
#include "broker/settle.h"

#include <stdio.h>
#include <stdlib.h>

/* Rounds of one turn: what the partitions finish is answered, what answers make room for is started. */
#define ROUNDS_MAX 8

/* ---- the turn ---- */

static void shard_ready(struct loop_msg *msg)
{
    struct broker_parts *p = LIST_ENTRY(msg, struct shard_parts, ready)->parts;
    assert(p->ready_n < p->broker.shards_n); /* once each */
    if (++p->ready_n == p->broker.shards_n)
        partition_host_opened(&p->host);
}

/* Tells shard 0, once, that every log the first image asks for is open. */
static void report_ready(struct shard_parts *s)
{
    if (s->reported || !s->shard.image || partitions_opening(s->shard.partitions) > 0)
        return;
    s->reported = true;
    s->ready.fn = shard_ready;
    if (s->shard.index == 0)
        shard_ready(&s->ready);
    else
        loop_post(s->parts->shards[0].shard.loop, &s->ready);
}

static void turn_end(void *arg)
{
    struct shard_parts *s = arg;
    bool more = true, later = false;
    for (int i = 0; more && i < ROUNDS_MAX; i++) {
        later = partitions_turn(s->shard.partitions);
        more = net_server_turn(s->shard.server, &later);
    }
    if (more || later)
        loop_timer_in(&s->again, 0);
    report_ready(s);
    if (partitions_misplaced(s->shard.partitions))
        directories_wanted(s->directories);
}

static void nothing(void *arg)
{
    (void)arg; /* the turn that it makes is what it is for */
}

static void on_image(void *arg, const struct image *was, const struct image *now)
{
    struct shard_parts *s = arg;
    assert(now);
    partitions_apply(s->shard.partitions, was, now);
    groups_on_image(s->shard.groups, was, now);
}

static const struct image *image_of(void *arg)
{
    return ((struct shard_parts *)arg)->shard.image;
}

static void collect_one(void *arg, struct partition *p)
{
    struct uuid dir;
    if (partition_misplaced(p, &dir))
        directories_add(arg, partition_topic_id(p), partition_index(p), &dir);
}

static void collect_misplaced(void *arg, struct directories *d)
{
    struct shard_parts *s = arg;
    partitions_each(s->shard.partitions, collect_one, d);
}

/* ---- what ends it, in part or as a whole ---- */

static void on_failed(void *arg, const char *why)
{
    struct broker_parts *p = arg;
    if (p->failed)
        p->failed(p->failed_arg, why);
}

static void count_dirs_offline(const struct broker_parts *p)
{
    int64_t offline = 0;
    for (unsigned i = 0; i < p->dirs_n; i++)
        offline += !log_dir_online(p->log_dirs, i);
    metric_set(metrics_cell(p->broker.metrics, 0, M_sundog_broker_log_dirs_offline), offline);
}

/* The controller takes its replicas out of election; without the metadata log there is no broker. */
static void dir_failed_here(struct broker_parts *p, unsigned dir)
{
    char why[ERR_TEXT_MAX + LOG_PATH_MAX];
    assert(dir < p->dirs_n);
    count_dirs_offline(p);
    lifecycle_dir_failed(p->lifecycle, &p->host.dir_ids[dir]);
    if (dir != p->metadata_dir)
        return;
    snprintf(why, sizeof why, "the log dir %s, which has the metadata log, has failed: %s", p->dirs[dir],
             log_dir_error(p->log_dirs, dir));
    on_failed(p, why);
}

/* On every shard: the turn that follows looks at its partitions. */
static void dir_news(struct loop_msg *msg)
{
    struct dir_news *news = LIST_ENTRY(msg, struct dir_news, msg);
    if (news->to->shard.index == 0)
        dir_failed_here(news->to->parts, news->dir);
}

static void on_dir_failed(void *arg, unsigned dir, const char *why)
{
    struct broker_parts *p = arg;
    assert(dir < p->dirs_n);
    (void)why;
    for (unsigned i = 0; i < p->broker.shards_n; i++) {
        struct dir_news *news = &p->shards[i].news[dir];
        assert(!news->to); /* its message goes once */
        *news = (struct dir_news){.msg.fn = dir_news, .to = &p->shards[i], .dir = dir};
        loop_post(p->shards[i].shard.loop, &news->msg);
    }
}

/* ---- building ---- */

_Static_assert(CONTROL_ENDPOINTS_MAX >= NET_LISTENERS_MAX, "the controller has room for its listeners");
_Static_assert(IDENTITY_ENDPOINTS_MAX >= NET_LISTENERS_MAX, "the voters' record, too");

static int open_dirs(struct broker_parts *p, struct err *err)
{
    const char *metadata = p->options->metadata_log_dir;
    int rc = settle_log_dirs(p->options, p->dirs, &p->dirs_n, err);
    if (rc)
        return rc;
    assert(p->dirs_n > 0);
    assert(p->dirs_n <= LOG_DIRS_MAX);
    while (metadata && p->metadata_dir < p->dirs_n && strcmp(p->dirs[p->metadata_dir], metadata) != 0)
        p->metadata_dir++;
    if (p->metadata_dir == p->dirs_n)
        return err_set(err, -E_CONFIG, "metadata.log.dir: %s is none of log.dirs; add it there", metadata);
    rc = log_dirs_open(p->disk, p->dirs, p->dirs_n, &p->log_dirs, err);
    if (rc) {
        err_wrap(err, "log.dirs");
        return rc == -E_CONFIG ? -E_INVALID : rc;
    }
    for (unsigned i = 0; i < p->dirs_n; i++)
        if (!log_dir_online(p->log_dirs, i))
            log_error("broker", "log dir is offline path=%s error=%s", p->dirs[i],
                      log_dir_error(p->log_dirs, i));
    if (!log_dir_online(p->log_dirs, p->metadata_dir))
        return err_set(err, -E_IO, "log.dirs: %s has the metadata log: %s", p->dirs[p->metadata_dir],
                       log_dir_error(p->log_dirs, p->metadata_dir));
    return 0;
}

static uint64_t random_of(void *arg)
{
    return loop_random(arg);
}

static void list_endpoints(struct broker_parts *p)
{
    for (int controller = 0; controller < 2; controller++) {
        for (size_t i = 0; i < p->listeners.n; i++) {
            const struct net_listen_at *at = &p->listeners.at[i];
            if (at->api.controller != (controller == 1))
                continue;
            assert(p->endpoints_n + p->controller_n < NET_LISTENERS_MAX);
            assert(controller || p->controller_n == 0); /* those are last */
            p->endpoints[p->endpoints_n + p->controller_n] = (struct control_endpoint){
                .listener = at->api.name, .host = at->api.advertised_host, .port = at->api.advertised_port};
            *(controller ? &p->controller_n : &p->endpoints_n) += 1;
        }
    }
}

/* Which cluster, which node, which directories: formats them at the first start. */
static int identify(struct broker_parts *p, struct err *err)
{
    struct loop *loop = p->shards[0].shard.loop;
    const char *online[LOG_DIRS_MAX];
    struct identity_endpoint endpoints[NET_LISTENERS_MAX];
    struct identity_options o = {.disk = p->disk,
                                 .dirs = online,
                                 .node_id = p->broker.node_id,
                                 .cluster_id = p->options->cluster_id,
                                 .endpoints = endpoints,
                                 .endpoints_n = p->controller_n,
                                 .wall_ms = loop_wall_ms(loop),
                                 .random = random_of,
                                 .random_arg = loop};
    for (unsigned i = 0; i < p->dirs_n; i++) {
        if (!log_dir_online(p->log_dirs, i))
            continue;
        if (i == p->metadata_dir)
            o.metadata_dir = o.dirs_n;
        online[o.dirs_n++] = p->dirs[i];
    }
    for (unsigned i = 0; i < p->controller_n; i++) {
        const struct control_endpoint *e = &p->endpoints[p->endpoints_n + i];
        endpoints[i] = (struct identity_endpoint){e->listener, e->host, e->port};
    }
    assert(o.dirs_n > 0); /* the metadata log's is online: open_dirs */
    p->incarnation = identity_uuid(random_of, loop);
    int rc = identity_prepare(&o, &p->identity, err);
    if (rc == -E_CONFIG) /* the directories are another's: not the file's fault alone */
        err->code = rc = -E_INVALID;
    return rc;
}

static struct quorum_options quorum_options(const struct broker_parts *p)
{
    const struct broker_options *o = p->options;
    struct quorum_options q = quorum_options_default();
    unsigned online = 0;
    for (unsigned i = 0; i < p->metadata_dir; i++)
        online += log_dir_online(p->log_dirs, i);
    assert(log_dir_online(p->log_dirs, p->metadata_dir));
    q.loop = p->shards[0].shard.loop;
    q.disk = p->disk;
    q.files = p->quorum_files;
    q.lane = LANE_FLUSH;
    q.metadata_dir = p->dirs[p->metadata_dir];
    q.cluster_id = slice_str(p->identity.cluster_id);
    q.node_id = p->broker.node_id;
    q.directory_id = p->identity.directory_ids[online];
    q.clean = log_dir_was_clean(p->log_dirs, p->metadata_dir);
    q.segment_bytes = o->metadata_log_segment_bytes;
    q.segment_ms = o->metadata_log_segment_ms;
    q.snapshot_bytes = o->metadata_log_max_record_bytes_between_snapshots;
    q.snapshot_ms = o->metadata_log_max_snapshot_interval_ms;
    q.retention_bytes = o->metadata_max_retention_bytes;
    q.retention_ms = o->metadata_max_retention_ms;
    q.election_timeout_ms = o->controller_quorum_election_timeout_ms;
    q.fetch_timeout_ms = o->controller_quorum_fetch_timeout_ms;
    return q;
}

static int open_control(struct broker_parts *p, struct err *err)
{
    const struct broker_options *o = p->options;
    char bootstrap[LOG_PATH_MAX];
    p->quorum_files = log_files_create(p->disk, 16);
    if (!p->quorum_files)
        return err_set(err, -E_NOMEM, "no memory for the quorum");
    snprintf(bootstrap, sizeof bootstrap, "%s/%s", p->dirs[p->metadata_dir], BOOTSTRAP_NAME);
    const struct control_options c = {
        .quorum = quorum_options(p),
        .rules = {.num_partitions = o->num_partitions,
                  .default_replication_factor = (int16_t)o->default_replication_factor,
                  .partitions_max = o->partitions_max,
                  .delete_topics = o->delete_topic_enable,
                  .offsets_partitions = o->offsets_topic_num_partitions,
                  .offsets_replication_factor = (int16_t)o->offsets_topic_replication_factor,
                  .offsets_segment_bytes = o->offsets_topic_segment_bytes,
                  .statics = {config_static_get, (void *)(uintptr_t)o}},
        .bootstrap = bootstrap,
        .idle_interval_ms = o->metadata_max_idle_interval_ms,
        .session_timeout_ms = o->broker_session_timeout_ms,
        .incarnation = p->incarnation,
        .endpoints = p->endpoints + p->endpoints_n,
        .endpoints_n = p->controller_n,
        .failed = on_failed,
        .stopped = broker_stop_control,
        .arg = p,
    };
    return control_open(&c, &p->broker.control, err);
}

static int64_t previous_epoch(const struct broker_parts *p)
{
    for (unsigned i = 0; i < p->dirs_n; i++)
        if (log_dir_online(p->log_dirs, i) && !log_dir_was_clean(p->log_dirs, i))
            return -1;
    return log_dir_broker_epoch(p->log_dirs, p->metadata_dir);
}

static bool logs_are_open(void *arg)
{
    struct broker_parts *p = arg;
    return p->ready_n == p->broker.shards_n;
}

static void resume(struct loop_msg *msg)
{
    struct shard_parts *s = LIST_ENTRY(msg, struct shard_parts, down);
    net_server_pause(s->shard.server, false);
}

static void on_serving(void *arg)
{
    struct broker_parts *p = arg;
    if (p->phase != BROKER_STARTING)
        return;
    assert(p->ready_n == p->broker.shards_n);
    assert(p->shards[0].shard.image);
    p->phase = BROKER_SERVING;
    log_info("broker", "serving node.id=%d cluster.id=%s partitions=%lld start_ms=%lld", p->broker.node_id,
             p->identity.cluster_id, (long long)image_partitions_n(p->shards[0].shard.image),
             (long long)(loop_now_us(p->shards[0].shard.loop) - p->started_us) / 1000);
    for (unsigned i = 0; i < p->broker.shards_n; i++) {
        p->shards[i].down.fn = resume;
        loop_post(p->shards[i].shard.loop, &p->shards[i].down);
    }
}

static int make_lifecycle(struct broker_parts *p, struct err *err)
{
    unsigned online = 0;
    for (unsigned i = 0; i < p->dirs_n; i++)
        online += log_dir_online(p->log_dirs, i);
    return lifecycle_create(
        &(struct lifecycle_options){.loop = p->shards[0].shard.loop,
                                    .control = p->broker.control,
                                    .node_id = p->broker.node_id,
                                    .cluster_id = p->identity.cluster_id,
                                    .rack = p->options->broker_rack,
                                    .incarnation = p->incarnation,
                                    .previous_epoch = previous_epoch(p),
                                    .listeners = p->endpoints,
                                    .listeners_n = p->endpoints_n,
                                    .directory_ids = p->identity.directory_ids,
                                    .directories_n = online,
                                    .heartbeat_ms = p->options->broker_heartbeat_interval_ms,
                                    .registration_timeout_ms =
                                        p->options->initial_broker_registration_timeout_ms,
                                    .ready = logs_are_open,
                                    .serving = on_serving,
                                    .failed = on_failed,
                                    .stopped = broker_stop_drained_lifecycle,
                                    .arg = p},
        &p->lifecycle, err);
}

static int make_shard(struct broker_parts *p, unsigned i, const struct broker_world *w,
                      const struct net_options *net, struct err *err)
{
    struct shard_parts *s = &p->shards[i];
    assert(i < p->broker.shards_n);
    s->parts = p;
    s->shard = (struct shard){.index = i,
                              .count = w->shards,
                              .all = p->shard_list,
                              .broker = &p->broker,
                              .loop = w->loops[i],
                              .net = w->nets[i],
                              .disk = w->disk,
                              .metrics = p->broker.metrics};
    s->shard.memory.limit_bytes = (size_t)p->options->memory_max_bytes / w->shards;
    assert(s->shard.memory.limit_bytes > 0);
    s->shard.requests = api_pool_create(&s->shard);
    if (!s->shard.requests || producer_ids_create(&s->shard))
        return err_set(err, -E_NOMEM, "no memory for a shard");
    loop_timer_init(&s->again, s->shard.loop, nothing, NULL);
    s->hook = (struct loop_hook){.fn = turn_end, .arg = s};
    s->images = (struct control_subscriber){.loop = s->shard.loop, .changed = on_image, .arg = s};
    int rc = net_server_create(&s->shard, net, &s->shard.server, err);
    if (!rc)
        rc = net_server_open(s->shard.server, p->listeners.at, p->listeners.n,
                             i ? p->shards[0].shard.server : NULL, err);
    if (!rc)
        net_server_pause(s->shard.server, true);
    return rc;
}

static int make_shards(struct broker_parts *p, const struct broker_world *w, struct err *err)
{
    struct net_options net = settle_net(p->options, w->fds);
    int rc = 0;
    net.connections = &p->connections;
    p->broker.metrics = metrics_create(broker_metric_rows, BROKER_METRICS, w->shards);
    p->shards = calloc(w->shards, sizeof *p->shards);
    p->shard_list = calloc(w->shards, sizeof(struct shard *));
    if (!p->broker.metrics || !p->shards || !p->shard_list)
        return err_set(err, -E_NOMEM, "no memory for the shards");
    p->broker.shards = p->shard_list;
    p->broker.shards_n = w->shards;
    for (unsigned i = 0; i < w->shards; i++)
        p->shard_list[i] = &p->shards[i].shard;
    for (unsigned i = 0; !rc && i < w->shards; i++)
        rc = make_shard(p, i, w, &net, err);
    return rc;
}

static int make_directories(struct broker_parts *p, struct shard_parts *s, struct err *err)
{
    s->directories = directories_create(&(struct directories_options){.loop = s->shard.loop,
                                                                      .control = p->broker.control,
                                                                      .node_id = p->broker.node_id,
                                                                      .image = image_of,
                                                                      .collect = collect_misplaced,
                                                                      .arg = s});
    return s->directories ? 0 : err_set(err, -E_NOMEM, "no memory for a shard");
}

static int make_partitions(struct broker_parts *p, struct err *err)
{
    assert(p->log_dirs);
    assert(p->broker.control); /* who lies elsewhere is told to it */
    unsigned online = 0;
    p->host = settle_partitions(p->options);
    p->host.disk = p->disk;
    p->host.dirs = p->log_dirs;
    p->host.dir_failed = on_dir_failed;
    p->host.dir_failed_arg = p;
    for (unsigned i = 0; i < p->dirs_n; i++)
        if (log_dir_online(p->log_dirs, i))
            p->host.dir_ids[i] = p->identity.directory_ids[online++];
    count_dirs_offline(p);
    int rc = partition_host_init(&p->host, err);
    if (!rc &&
        checkpoints_create(&p->host, p->shards[0].shard.loop, p->broker.shards_n, &p->host.checkpoints))
        rc = err_set(err, -E_NOMEM, "no memory for checkpoints");
    for (unsigned i = 0; !rc && i < p->broker.shards_n; i++) {
        const struct groups_options groups = settle_groups(p->options);
        rc = partitions_create(&p->shards[i].shard, &p->host, err);
        if (!rc && !groups_create(&p->shards[i].shard, &groups))
            rc = err_set(err, -E_NOMEM, "no memory for groups");
        rc = rc ? rc : make_directories(p, &p->shards[i], err);
        if (!rc)
            loop_hook_add(p->shards[i].shard.loop, &p->shards[i].hook);
    }
    return rc;
}

int broker_create(const struct broker_world *w, const struct broker_options *options, struct broker **out,
                  struct err *err)
{
    struct broker_parts *p = calloc(1, sizeof *p);
    assert(w->shards > 0);
    assert(w->loops);
    assert(w->nets);
    assert(w->disk);
    if (!p)
        return err_set(err, -E_NOMEM, "no memory for a broker");
    p->options = options;
    p->disk = w->disk;
    p->failed = w->failed;
    p->failed_arg = w->arg;
    p->epoch = -1;
    p->started_us = loop_now_us(w->loops[0]);
    p->broker = (struct broker){.options = options, .node_id = settle_node_id(options), .parts = p};
    /* In this order: what is wrong with the file first, then with its surroundings; nothing is written before the
     * directories are ours and the ports are bound. */
    int rc = settle_roles(options, err);
    rc = rc ? rc : settle_listeners(options, &p->listeners, err);
    rc = rc ? rc : open_dirs(p, err);
    rc = rc ? rc : make_shards(p, w, err);
    if (!rc)
        list_endpoints(p);
    rc = rc ? rc : identify(p, err);
    rc = rc ? rc : open_control(p, err);
    rc = rc ? rc : make_partitions(p, err);
    rc = rc ? rc : make_lifecycle(p, err);
    rc = rc ? rc : broker_admin_open(p, err);
    if (rc)
        return rc; /* the process ends: see broker.h */
    *out = &p->broker;
    return 0;
}

int broker_start(struct broker *b, struct err *err)
{
    struct broker_parts *p = b->parts;
    (void)err;
    assert(p->phase == BROKER_STARTING);
    assert(p->ready_n == 0);
    control_start(b->control);
    for (unsigned i = 0; i < b->shards_n; i++)
        control_subscribe(b->control, &p->shards[i].images);
    lifecycle_start(p->lifecycle);
    return 0;
}

void broker_refused(struct broker *b, const char *why)
{
    metric_add(metrics_cell(b->metrics, 0, M_sundog_broker_connections_closed_total, why), 1);
}

const char *broker_unready(const struct broker *b)
{
    const struct broker_parts *p = b->parts;
    if (p->phase == BROKER_SERVING)
        return NULL;
    if (p->phase != BROKER_STARTING)
        return "shutting down";
    if (!control_active(b->control))
        return "the quorum has no leader yet";
    return p->ready_n < b->shards_n ? "logs are being opened" : lifecycle_state(p->lifecycle);
}

void broker_stop(struct broker *b, void (*stopped)(void *arg), void *arg)
{
    struct broker_parts *p = b->parts;
    assert(p->phase == BROKER_STARTING || p->phase == BROKER_SERVING);
    assert(stopped);
    p->phase = BROKER_STOPPING;
    p->stopped = stopped;
    p->stopped_arg = arg;
    broker_stop_begin(p);
}
