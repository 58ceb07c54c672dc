#include "tests/support/serve/rig.h"

#include "base/world/clock.h"
#include "base/world/disk_posix.h"
#include "base/world/net_posix.h"
#include "broker/api/producer_ids.h"
#include "broker/controller/control.h"
#include "broker/partition/checkpoint.h"
#include "proto/kafka/batch_validate.h"

#include <stdio.h>
#include <stdlib.h>

struct rig {
    struct job_pool *jobs;
    struct loop_posix *loop;
    struct net *net;
    struct disk *disk;
    struct broker broker;
    struct broker_options options;
    struct shard shard, *shards[1];
    struct partition_host host;
    struct loop_hook hook;
    struct loop_timer again;
    struct image *image;
    char dir[256];
    const char *paths[1];
    _Atomic int32_t connections;
    struct net_listen_at at;
    uint64_t next_id;
    int64_t offset;
    bool closed, drained;
    int64_t producer_ids;
};

/* ---- the control plane, as far as handlers need one ---- */

__attribute__((weak)) void control_submit(struct control *c, struct control_call *call)
{
    struct rig *r = (struct rig *)(void *)c;
    assert(call->api_key == kp_key_allocate_producer_ids);
    struct kp_allocate_producer_ids_response *out = call->response;
    out->producer_id_start = r->producer_ids;
    out->producer_id_len = 1000;
    r->producer_ids += 1000;
    call->error = KE_NONE;
    call->done(call);
}

__attribute__((weak)) void control_create_on_use(struct control *c, struct control_call *call,
                                                 const struct slice *names, int32_t names_n)
{
    struct rig *r = (struct rig *)(void *)c;
    char name[250];
    for (int32_t i = 0; i < names_n; i++)
        rig_topic(r, slice_cstr(names[i], name, sizeof name), 1, NULL);
    call->error = KE_NONE;
    call->response = NULL;
    call->done(call);
}

/* ---- image ---- */

static void publish(struct rig *r, const struct metadata_record *records, size_t n)
{
    struct image_edit e;
    struct err err = {0};
    int rc = image_edit_begin(&e, r->image);
    for (size_t i = 0; !rc && i < n; i++)
        rc = image_edit_apply(&e, &records[i], &err);
    assert(!rc);
    r->offset += (int64_t)n;
    struct image *next = image_edit_finish(&e, r->offset, 1, loop_wall_ms(r->shard.loop)), *was = r->image;
    const struct image *shown = r->shard.image ? was : NULL;
    partitions_apply(r->shard.partitions, shown, next);
    if (r->shard.groups)
        groups_on_image(r->shard.groups, shown, next);
    r->image = next;
    image_unref(was);
}

static bool all_open(void *arg)
{
    struct rig *r = arg;
    return partitions_opening(r->shard.partitions) == 0;
}

struct uuid rig_topic(struct rig *r, const char *name, int32_t partitions, const char *config)
{
    struct kp_topic_record topic;
    struct kp_partition_record parts[64];
    struct kp_config_record conf;
    struct metadata_record records[66];
    size_t n = 0;
    int32_t self = RIG_NODE;
    char key[100];
    assert(partitions <= 64);
    kp_init(&kp_topic_record_message, &topic);
    topic.name = slice_str(name);
    topic.topic_id = uuid_small(1000 + r->next_id++);
    records[n++] = (struct metadata_record){kp_type_topic_record, 0, &topic};
    for (int32_t i = 0; i < partitions; i++) {
        struct kp_partition_record *p = &parts[i];
        kp_init(&kp_partition_record_message, p);
        p->partition_id = i;
        p->topic_id = topic.topic_id;
        p->replicas = p->isr = &self;
        p->replicas_n = p->isr_n = 1;
        p->leader = RIG_NODE;
        p->leader_epoch = p->partition_epoch = 0;
        records[n++] = (struct metadata_record){kp_type_partition_record, 0, p};
    }
    if (config) {
        const char *eq = strchr(config, '=');
        snprintf(key, sizeof key, "%.*s", (int)(eq - config), config);
        kp_init(&kp_config_record_message, &conf);
        conf.resource_type = IMAGE_CONFIG_TOPIC;
        conf.resource_name = slice_str(name);
        conf.name = slice_str(key);
        conf.value = slice_str(eq + 1);
        records[n++] = (struct metadata_record){kp_type_config_record, 0, &conf};
    }
    publish(r, records, n);
    bool open = rig_until(r, all_open, r, RIG_PATIENCE_MS);
    assert(open);
    (void)open;
    return topic.topic_id;
}

void rig_remove_topic(struct rig *r, const char *name)
{
    struct kp_remove_topic_record gone;
    kp_init(&kp_remove_topic_record_message, &gone);
    gone.topic_id = image_topic(r->image, slice_str(name))->id;
    publish(r, &(struct metadata_record){kp_type_remove_topic_record, 0, &gone}, 1);
}

struct partition *rig_partition(struct rig *r, const char *topic, int32_t index)
{
    const struct image_topic *t = image_topic(r->image, slice_str(topic));
    return t ? partition_find(&r->shard, &t->id, index) : NULL;
}

/* ---- life ---- */

static void on_turn_end(void *arg)
{
    struct rig *r = arg;
    for (int i = 0; i < 8; i++) {
        bool more = partitions_turn(r->shard.partitions);
        bool later = false;
        more |= r->shard.server && net_server_turn(r->shard.server, &later);
        more |= later;
        if (!more)
            return;
    }
    loop_timer_in(&r->again, 0);
}

static void nothing(void *arg)
{
    (void)arg; /* the turn that it makes is what it is for */
}

static void register_node(struct rig *r)
{
    struct kp_register_broker_record b;
    kp_init(&kp_register_broker_record_message, &b);
    b.broker_id = RIG_NODE;
    b.fenced = false;
    struct uuid dir = uuid_small(500);
    b.log_dirs = &dir;
    b.log_dirs_n = 1;
    publish(r, &(struct metadata_record){kp_type_register_broker_record, 3, &b}, 1);
}

static void open_server(struct rig *r, const struct rig_options *o)
{
    struct net_options n = o->net;
    struct err err = {0};
    n.connections = &r->connections;
    n.connections_max = n.connections_max ? n.connections_max : 1000;
    n.request_max_bytes = n.request_max_bytes ? n.request_max_bytes : 100 << 20;
    n.idle_max_us = n.idle_max_us ? n.idle_max_us : 600000000;
    n.request_max_us = n.request_max_us ? n.request_max_us : 30000000;
    n.write_max_us = n.write_max_us ? n.write_max_us : 30000000;
    n.requests_max = n.requests_max ? n.requests_max : 100;
    n.queued_max_bytes = n.queued_max_bytes ? n.queued_max_bytes : 4 << 20;
    r->at = (struct net_listen_at){
        .api = {.name = "PLAINTEXT", .protocol = "PLAINTEXT", .advertised_host = "127.0.0.1"},
        .host = "127.0.0.1"};
    int rc = net_server_create(&r->shard, &n, &r->shard.server, &err);
    rc = rc ? rc : net_server_open(r->shard.server, &r->at, 1, NULL, &err);
    if (rc)
        fprintf(stderr, "rig: %s\n", err.text);
    assert(!rc);
}

static void open_world(struct rig *r)
{
    struct err err = {0};
    int rc = job_pool_create(JOB_LANES, &r->jobs, &err);
    rc = rc ? rc : loop_posix_create(&(struct loop_posix_options){.jobs = r->jobs}, &r->loop, &err);
    rc = rc ? rc : net_posix_create(r->loop, &(struct net_posix_options){0}, &r->net, &err);
    assert(!rc);
    (void)rc;
    r->disk = disk_posix_create();
    assert(r->disk);
}

struct rig *rig_create(const struct rig_options *o)
{
    struct rig *r = calloc(1, sizeof *r);
    struct err err = {0};
    assert(r);
    open_world(r);
    if (o->dir)
        snprintf(r->dir, sizeof r->dir, "%s", o->dir);
    else
        snprintf(r->dir, sizeof r->dir, "/tmp/sundog-rig-XXXXXX");
    if (!o->dir && !mkdtemp(r->dir))
        abort();
    r->paths[0] = r->dir;
    r->options.fetch_max_bytes = 57671680;
    r->options.auto_create_topics_enable = true;
    r->shards[0] = &r->shard;
    r->broker = (struct broker){.options = &r->options,
                                .node_id = RIG_NODE,
                                .control = (struct control *)(void *)r,
                                .shards = r->shards,
                                .shards_n = 1};
    r->broker.metrics = metrics_create(broker_metric_rows, BROKER_METRICS, 1);
    r->shard = (struct shard){.count = 1,
                              .all = r->shards,
                              .broker = &r->broker,
                              .loop = loop_posix_loop(r->loop),
                              .net = r->net,
                              .disk = r->disk,
                              .metrics = r->broker.metrics};
    r->shard.memory.limit_bytes = o->memory_bytes ? o->memory_bytes : 64 << 20;
    r->host = (struct partition_host){.node_id = RIG_NODE,
                                      .flush_before_ack = !o->page_cache,
                                      .check_depth = BATCH_CHECK_ALL,
                                      .defaults = log_config_default(),
                                      .min_insync_replicas = 1,
                                      .before_max_ms = INT64_MAX,
                                      .after_max_ms = 3600000,
                                      .retention_interval_us = 300000000,
                                      .recovery_interval_us = 60000000,
                                      .watermark_interval_us = 5000000,
                                      .cleaner_backoff_us = 100000,
                                      .cleaner_map_bytes = 1 << 20,
                                      .disk = r->disk,
                                      .files_max = LOG_FILES_DEFAULT};
    int rc = log_dirs_open(r->disk, r->paths, 1, &r->host.dirs, &err);
    rc = rc ? rc : partition_host_init(&r->host, &err);
    rc = rc ? rc : checkpoints_create(&r->host, r->shard.loop, 1, &r->host.checkpoints);
    r->shard.requests = api_pool_create(&r->shard);
    rc = rc ? rc : producer_ids_create(&r->shard);
    rc = rc ? rc : partitions_create(&r->shard, &r->host, &err);
    if (rc)
        fprintf(stderr, "rig: %s\n", err.text);
    assert(!rc && r->shard.requests);
    if (o->groups && !groups_create(&r->shard, o->groups))
        abort();
    r->image = image_empty(SLICE_LIT("rig"));
    loop_timer_init(&r->again, r->shard.loop, nothing, r);
    r->hook = (struct loop_hook){.fn = on_turn_end, .arg = r};
    loop_hook_add(r->shard.loop, &r->hook);
    rig_turn(r, 0);
    register_node(r);
    if (o->listen)
        open_server(r, o);
    return r;
}

static void on_closed(void *arg)
{
    ((struct rig *)arg)->closed = true;
}

static bool is_closed(void *arg)
{
    struct rig *r = arg;
    return r->closed && !checkpoints_busy(r->host.checkpoints);
}

void rig_destroy(struct rig *r, bool keep)
{
    net_server_destroy(r->shard.server);
    r->shard.server = NULL;
    if (r->shard.groups)
        groups_stop(r->shard.groups);
    checkpoints_end(r->host.checkpoints);
    partitions_close(r->shard.partitions, on_closed, r);
    bool closed = rig_until(r, is_closed, r, RIG_PATIENCE_MS);
    assert(closed);
    (void)closed;
    checkpoints_write_last(r->host.checkpoints);
    checkpoints_destroy(r->host.checkpoints);
    log_dirs_close(r->host.dirs, partitions_clean(r->shard.partitions), 1);
    partitions_destroy(r->shard.partitions);
    groups_destroy(r->shard.groups);
    partition_host_fini(&r->host);
    producer_ids_destroy(r->shard.producer_ids);
    api_pool_destroy(r->shard.requests);
    assert(r->shard.memory.used_bytes == 0);
    loop_hook_remove(&r->hook);
    image_unref(r->image);
    metrics_destroy(r->broker.metrics);
    net_posix_destroy(r->net);
    loop_posix_destroy(r->loop);
    job_pool_destroy(r->jobs);
    if (!keep)
        disk_remove_tree(r->disk, r->dir);
    disk_posix_destroy(r->disk);
    free(r);
}

const char *rig_dir(const struct rig *r)
{
    return r->dir;
}

struct shard *rig_shard(struct rig *r)
{
    return &r->shard;
}

uint16_t rig_port(const struct rig *r)
{
    return r->at.port;
}

void rig_turn(struct rig *r, int wait_ms)
{
    loop_posix_turn(r->loop, wait_ms < 0 ? -1 : (int64_t)wait_ms * 1000);
}

bool rig_until(struct rig *r, bool (*done)(void *arg), void *arg, int limit_ms)
{
    int64_t end = clock_now_us() + (int64_t)limit_ms * 1000;
    while (!done(arg)) {
        if (clock_now_us() >= end)
            return false;
        rig_turn(r, 10);
    }
    return true;
}

/* ---- requests ---- */

static void on_answered(struct api_request *req)
{
    struct rig_call *c = req->connection;
    c->answered = true;
    c->dropped = req->silent;
    if (req->silent)
        return;
    c->bytes_n = req->out.size_bytes;
    c->bytes = malloc(c->bytes_n);
    size_t at = 0;
    for (size_t i = 0; i < req->out.n; i++) {
        const struct kp_piece *p = &req->out.v[i];
        if (p->segment.file) {
            ssize_t n =
                disk_pread(p->segment.file, c->bytes + at, p->segment.size_bytes, p->segment.position);
            assert(n == (ssize_t)p->segment.size_bytes);
            at += p->segment.size_bytes;
        } else {
            memcpy(c->bytes + at, p->bytes.p, p->bytes.n);
            at += p->bytes.n;
        }
    }
    assert(at == c->bytes_n);
}

static void on_failed(struct api_request *req, const char *why)
{
    struct rig_call *c = req->connection;
    c->answered = c->failed = true;
    c->why = why;
}

static const struct api_transport transport = {.answered = on_answered, .failed = on_failed};

void rig_send(struct rig *r, struct rig_call *c, int16_t key, int16_t version, const void *body)
{
    struct buf frame;
    struct err err = {0};
    static const struct api_listener listener = {"PLAINTEXT", "PLAINTEXT", "127.0.0.1", 9092, false};
    *c = (struct rig_call){.rig = r, .api = kp_api_find(key), .version = version};
    arena_init(&c->arena, 64 << 20);
    buf_init(&frame, 64 << 20);
    struct kp_request_header h = {key, version, 7, SLICE_LIT("rig")};
    int rc = kp_request_frame(c->api, &h, body, &frame);
    assert(!rc);
    c->frame = frame.p;
    c->req = api_take(&r->shard);
    c->req->connection = c;
    c->req->client_host = "127.0.0.1";
    c->req->listener = &listener;
    c->req->transport = &transport;
    c->req->frame = slice_of(frame.p + 4, frame.n - 4);
    rc = api_read_header(c->req, &err);
    if (rc) {
        c->answered = c->failed = true;
        return;
    }
    api_start(c->req);
}

static bool is_answered(void *arg)
{
    return ((struct rig_call *)arg)->answered;
}

void *rig_answer(struct rig_call *c, int limit_ms)
{
    int32_t correlation;
    size_t used;
    struct err err = {0};
    if (!rig_until(c->rig, is_answered, c, limit_ms) || c->failed || c->dropped)
        return NULL;
    struct slice frame = slice_of(c->bytes + 4, c->bytes_n - 4);
    int rc = kp_response_header_decode(c->api, c->version, frame, &correlation, &used);
    assert(!rc && correlation == 7);
    c->response = arena_alloc(&c->arena, c->api->response.body->size_bytes);
    rc = kp_decode(&c->api->response, c->version, slice_of(frame.p + used, frame.n - used), &c->arena,
                   c->response, NULL, &err);
    if (rc)
        fprintf(stderr, "rig: response: %s\n", err.text);
    assert(!rc);
    return c->response;
}

void rig_release(struct rig_call *c)
{
    if (c->req) {
        assert(c->answered);
        api_finish(c->req);
    }
    free(c->frame);
    free(c->bytes);
    arena_fini(&c->arena);
    *c = (struct rig_call){0};
}

void *rig_ask(struct rig *r, struct rig_call *c, int16_t key, int16_t version, const void *body)
{
    rig_send(r, c, key, version, body);
    return rig_answer(c, RIG_PATIENCE_MS);
}

struct slice rig_batch(struct rig *r, const struct rig_batch *b)
{
    struct buf out;
    struct batch_builder w;
    struct batch_options o = BATCH_OPTIONS;
    struct batch_header h;
    o.codec = b->codec;
    if (b->producer_id > 0) {
        o.producer_id = b->producer_id;
        o.producer_epoch = b->epoch;
        o.base_sequence = b->sequence;
    }
    buf_init(&out, 16 << 20);
    batch_begin(&w, &out, &o);
    for (int i = 0; i < b->n; i++) {
        struct record_new rec = {.timestamp = b->timestamp ? b->timestamp : loop_wall_ms(r->shard.loop),
                                 .value = slice_str(b->text ? b->text : "value")};
        int rc = batch_add(&w, &rec);
        assert(!rc);
        (void)rc;
    }
    int rc = batch_close(&w, &h);
    assert(!rc);
    (void)rc;
    return slice_of(out.p, out.n);
}

struct kp_produce_response_partition_responses rig_produce(struct rig *r, const char *topic, int32_t index,
                                                           int16_t acks, struct slice batch)
{
    struct kp_produce_request_partition_data data = {.index = index, .records = {.bytes = batch}};
    struct kp_produce_request_topic_data t = {
        .name = slice_str(topic), .partition_data = &data, .partition_data_n = 1};
    struct kp_produce_request q = {.acks = acks, .timeout_ms = 5000, .topic_data = &t, .topic_data_n = 1};
    struct rig_call c;
    struct kp_produce_response_partition_responses out = {.error_code = -1};
    struct kp_produce_response *a = rig_ask(r, &c, kp_key_produce, 9, &q);
    if (a) {
        assert(a->responses_n == 1 && a->responses[0].partition_responses_n == 1);
        out = a->responses[0].partition_responses[0];
        out.error_message = SLICE_NULL; /* lies in the answer */
        out.record_errors = NULL;
    }
    rig_release(&c);
    return out;
}
