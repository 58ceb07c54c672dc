#include "tests/support/sites.h"

#include "base/runtime/props.h"
#include "broker/broker.h"
#include "mirror/flow/flow.h"
#include "mirror/options.h"
#include "proto/kafka/batch.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#define ASK_US  (10 * SIM_SECOND)
#define NUMBERS 8 /* bytes of a number */

/* What must hold also where asserts would be the test's own. */
static void must(bool well, const char *what, const struct err *err)
{
    if (well)
        return;
    fprintf(stderr, "sites: %s: %s\n", what, err ? err->text : "");
    abort();
}

/* ---- a broker ---- */

struct broker_program {
    struct broker_options options;
    struct broker *broker;
};

static void *boot_broker(void *arg, struct sim_node *node)
{
    (void)arg;
    struct broker_program *b = calloc(1, sizeof *b);
    struct loop *loop = sim_node_loop(node);
    struct net *net = sim_node_net(node);
    struct props p;
    struct err err = {0};
    char listener[96];
    must(b != NULL, "memory", NULL);
    props_init(&p);
    snprintf(listener, sizeof listener, "listeners=PLAINTEXT://%s:9092", sim_node_address(node));
    const char *const settings[] = {listener,
                                    "log.dirs=/data",
                                    "sundog.insecure=true",
                                    "offsets.topic.num.partitions=3",
                                    "offsets.topic.replication.factor=1",
                                    "group.initial.rebalance.delay.ms=0"};
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof settings / sizeof *settings; i++)
        rc = props_argument(&p, settings[i], &err);
    if (!rc)
        rc = options_apply(&broker_option_table, &p, &b->options, &err);
    props_fini(&p);
    const struct broker_world w = {.shards = 1, .loops = &loop, .nets = &net, .disk = sim_node_disk(node)};
    if (!rc)
        rc = broker_create(&w, &b->options, &b->broker, &err);
    if (!rc)
        rc = broker_start(b->broker, &err);
    must(rc == 0, sim_node_name(node), &err);
    return b;
}

static bool broker_serves(void *arg)
{
    struct broker_program *b = sim_node_program(arg);
    return b && !broker_unready(b->broker);
}

void sites_serve(struct sites *s, int site)
{
    struct sim_node *n = s->broker[site];
    if (!sim_node_up(n))
        must(sim_start(n), "a broker starts", NULL);
    must(sim_run_until(s->sim, sim_now_us(s->sim) + 60 * SIM_SECOND, broker_serves, n) == SIM_TRUE,
         "a broker serves within a minute", NULL);
}

/* ---- the mirror ---- */

struct mirror_program {
    struct props props;
    struct mirror_config config;
    struct store *store;
    struct flow *flow;
};

static void no_warning(void *arg, const char *text)
{
    (void)arg;
    (void)text;
}

static const char mirror_file[] = "clusters = east, west\n"
                                  "east.bootstrap.servers = 10.0.0.1:9092\n"
                                  "west.bootstrap.servers = 10.0.0.2:9092\n"
                                  "east->west.enabled = true\n"
                                  "topics = orders\n"
                                  "sync.group.offsets.enabled = true\n"
                                  "replication.factor = 1\n"
                                  "checkpoints.topic.replication.factor = 1\n"
                                  "heartbeats.topic.replication.factor = 1\n"
                                  "offset-syncs.topic.replication.factor = 1\n";

/* The port gives its own memory back in a later turn, which a killed process does not have. */
static int create_port(const struct port_options *o, struct port **out, struct err *err)
{
    int rc = port_client_create(o, out, err);
#ifdef __SANITIZE_ADDRESS__
    if (!rc)
        __lsan_ignore_object(*out);
#endif
    return rc;
}

static const char *store_of(const struct sites *s, const struct sim_node *mirror)
{
    return mirror == s->other ? s->other_dir : s->store_dir;
}

static void *boot_mirror(void *arg, struct sim_node *node)
{
    struct sites *s = arg;
    struct mirror_program *m = calloc(1, sizeof *m);
    struct err err = {0};
    const struct config_warnings warn = {no_warning, NULL};
    must(m != NULL, "memory", NULL);
    props_init(&m->props);
    int rc = props_parse(&m->props, slice_str(mirror_file), "mm2.properties", &err);
    if (!rc && s->mirror_settings)
        rc = props_parse(&m->props, slice_str(s->mirror_settings), "settings", &err);
    if (!rc)
        rc = mirror_config_read(&m->props, NULL, 0, &mirror_option_table, &warn, &m->config, &err);
    if (!rc)
        rc = store_open(
            &(struct store_options){.path = store_of(s, node), .mode = STORE_DAEMON, .map_bytes = 4 << 20},
            &m->store, &err);
    if (!rc)
        rc = flow_create(&(struct flow_setup){.loop = sim_node_loop(node),
                                              .net = sim_node_net(node),
                                              .store = m->store,
                                              .config = &m->config,
                                              .flow = mirror_config_flow(&m->config, "east", "west"),
                                              .memory_bytes = 32 << 20,
                                              .port_create = create_port,
                                              .batch_port_create = create_port},
                         &m->flow, &err);
    must(rc == 0, "the mirror starts", &err);
    return m;
}

static void destroy_mirror(void *arg, void *program)
{
    (void)arg;
    struct mirror_program *m = program;
    flow_destroy(m->flow);
    store_close(m->store);
    mirror_config_fini(&m->config);
    props_fini(&m->props);
    free(m);
}

static void remove_store(const char *dir)
{
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    char path[512];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
}

void sites_lose_store(struct sites *s, struct sim_node *mirror)
{
    assert(!sim_node_up(mirror));
    remove_store(store_of(s, mirror));
}

/* ---- who asks ---- */

struct asked {
    struct client *client;
    const struct client_target *target;
    int16_t key, version_max;
    const void *body;
    void (*read)(void *arg, const void *body);
    void *arg;
    bool done, well;
};

struct ops_program {
    struct client *client[SITES_N];
    struct loop_timer kick; /* requests are made in a turn of the node's own, when its clock is right */
    struct asked *asked;
};

static void on_answer(void *arg, const struct client_response *r)
{
    struct asked *a = arg;
    a->done = true;
    a->well = r->status == 0;
    if (a->well && a->read)
        a->read(a->arg, r->body);
}

static void on_kick(void *arg)
{
    struct ops_program *o = arg;
    struct asked *a = o->asked;
    int rc = client_request(a->client, a->target, a->key, a->version_max, a->body, on_answer, a, ASK_US);
    must(rc == 0, "there is room for a request", NULL);
}

static void *boot_ops(void *arg, struct sim_node *node)
{
    struct sites *s = arg;
    struct ops_program *o = calloc(1, sizeof *o);
    struct err err = {0};
    must(o != NULL, "memory", NULL);
    for (int i = 0; i < SITES_N; i++) {
        char at[64];
        snprintf(at, sizeof at, "%s:9092", sim_node_address(s->broker[i]));
        const struct client_options co = {.bootstrap = at, .client_id = "ops", .request_timeout_us = ASK_US};
        int rc = client_create(sim_node_loop(node), sim_node_net(node), &co, &o->client[i], &err);
        must(rc == 0, "a client starts", &err);
    }
    loop_timer_init(&o->kick, sim_node_loop(node), on_kick, o);
    return o;
}

static void destroy_ops(void *arg, void *program)
{
    (void)arg;
    struct ops_program *o = program;
    for (int i = 0; i < SITES_N; i++)
        client_destroy(o->client[i]);
    free(o);
}

static bool is_done(void *arg)
{
    return ((struct asked *)arg)->done;
}

bool sites_ask(struct sites *s, int site, const struct client_target *target, int16_t key,
               int16_t version_max, const void *body, void (*read)(void *arg, const void *body), void *arg)
{
    struct ops_program *o = sim_node_program(s->ops);
    struct asked a = {.client = o->client[site],
                      .target = target,
                      .key = key,
                      .version_max = version_max,
                      .body = body,
                      .read = read,
                      .arg = arg};
    o->asked = &a;
    loop_timer_in(&o->kick, 0);
    must(sim_run_until(s->sim, sim_now_us(s->sim) + 2 * ASK_US, is_done, &a) == SIM_TRUE,
         "a request is answered or fails", NULL);
    return a.well;
}

/* ---- what is asked ---- */

static void read_created(void *arg, const void *body)
{
    const struct kp_create_topics_response *r = body;
    *(int16_t *)arg = r->topics_n == 1 ? r->topics[0].error_code : KE_UNKNOWN_SERVER_ERROR;
}

void sites_topic(struct sites *s, int site, const char *name, int32_t partitions)
{
    struct kp_create_topics_request_topics t = {
        .name = slice_str(name), .num_partitions = partitions, .replication_factor = 1};
    const struct kp_create_topics_request q = {.topics = &t, .topics_n = 1, .timeout_ms = 10000};
    int16_t error = KE_UNKNOWN_SERVER_ERROR;
    bool well = sites_ask(s, site, &(struct client_target){.kind = CLIENT_CONTROLLER}, kp_key_create_topics,
                          7, &q, read_created, &error);
    must(well && error == KE_NONE, "a topic is made", NULL);
}

static void read_deleted(void *arg, const void *body)
{
    const struct kp_delete_topics_response *r = body;
    *(int16_t *)arg = r->responses_n == 1 ? r->responses[0].error_code : KE_UNKNOWN_SERVER_ERROR;
}

void sites_topic_delete(struct sites *s, int site, const char *name)
{
    struct slice names[1] = {slice_str(name)};
    const struct kp_delete_topics_request q = {.topic_names = names, .topic_names_n = 1, .timeout_ms = 10000};
    int16_t error = KE_UNKNOWN_SERVER_ERROR;
    bool well = sites_ask(s, site, &(struct client_target){.kind = CLIENT_CONTROLLER}, kp_key_delete_topics,
                          5, &q, read_deleted, &error);
    must(well && error == KE_NONE, "a topic is deleted", NULL);
}

static void read_produced(void *arg, const void *body)
{
    const struct kp_produce_response *r = body;
    bool one = r->responses_n == 1 && r->responses[0].partition_responses_n == 1;
    *(int16_t *)arg = one ? r->responses[0].partition_responses[0].error_code : KE_UNKNOWN_SERVER_ERROR;
}

bool sites_produce(struct sites *s, int site, const char *topic, int32_t partition, uint64_t first, int n)
{
    struct buf out;
    struct batch_builder w;
    struct batch_options o = BATCH_OPTIONS;
    buf_init(&out, 1 << 20);
    batch_begin(&w, &out, &o);
    for (int i = 0; i < n; i++) {
        uint64_t number = first + (uint64_t)i;
        const struct slice text = slice_of(&number, NUMBERS);
        must(batch_add(&w, &(struct record_new){.timestamp = loop_wall_ms(sim_node_loop(s->ops)),
                                                .key = text,
                                                .value = text}) == 0,
             "a record is added", NULL);
    }
    must(batch_close(&w, NULL) == 0, "a batch is closed", NULL);
    struct kp_produce_request_partition_data data = {.index = partition,
                                                     .records = {.bytes = buf_slice(&out)}};
    struct kp_produce_request_topic_data t = {
        .name = slice_str(topic), .partition_data = &data, .partition_data_n = 1};
    const struct kp_produce_request q = {
        .transactional_id = SLICE_NULL, .acks = -1, .timeout_ms = 5000, .topic_data = &t, .topic_data_n = 1};
    const struct client_target to = {.kind = CLIENT_LEADER, .name = slice_str(topic), .number = partition};
    int16_t error = KE_UNKNOWN_SERVER_ERROR;
    bool well = sites_ask(s, site, &to, kp_key_produce, 9, &q, read_produced, &error);
    buf_fini(&out);
    return well && error == KE_NONE;
}

struct reading {
    void (*each)(void *arg, const struct record *r);
    void *arg;
    int64_t next;
    bool failed, ended;
};

static void take_batch(struct reading *g, const struct batch_header *h, struct slice batch)
{
    struct buf scratch;
    struct slice payload;
    struct record_walk w;
    struct record r;
    const struct codec_limits limits = {.bytes_max = 1 << 20};
    buf_init(&scratch, 1 << 20);
    must(batch_payload(h, batch, &limits, &scratch, &payload, NULL) == 0, "a batch is read", NULL);
    record_walk_init(&w, h, payload);
    while (record_next(&w, &r) == 1) {
        if (r.offset >= g->next)
            g->each(g->arg, &r);
    }
    g->next = batch_last_offset(h) + 1;
    buf_fini(&scratch);
}

static void read_fetched(void *arg, const void *body)
{
    struct reading *g = arg;
    const struct kp_fetch_response *r = body;
    g->failed = r->error_code || r->responses_n != 1 || r->responses[0].partitions_n != 1 ||
                r->responses[0].partitions[0].error_code;
    if (g->failed)
        return;
    const struct kp_fetch_response_partitions *p = &r->responses[0].partitions[0];
    struct slice left = p->records.bytes;
    struct batch_header h;
    while (left.n > 0 && batch_read(left, &h, NULL) == 0) {
        take_batch(g, &h, slice_of(left.p, batch_size(&h)));
        left = slice_of(left.p + batch_size(&h), left.n - batch_size(&h));
    }
    g->ended = g->next >= p->high_watermark;
}

static void read_start(void *arg, const void *body)
{
    const struct kp_list_offsets_response *r = body;
    if (r->topics_n == 1 && r->topics[0].partitions_n == 1 && !r->topics[0].partitions[0].error_code)
        *(int64_t *)arg = r->topics[0].partitions[0].offset;
}

static int64_t log_start(struct sites *s, int site, const char *topic, int32_t partition)
{
    enum { EARLIEST = -2 };
    struct kp_list_offsets_request_partitions p = {
        .partition_index = partition, .current_leader_epoch = -1, .timestamp = EARLIEST};
    struct kp_list_offsets_request_topics t = {.name = slice_str(topic), .partitions = &p, .partitions_n = 1};
    const struct kp_list_offsets_request q = {.replica_id = -1, .topics = &t, .topics_n = 1};
    const struct client_target at = {.kind = CLIENT_LEADER, .name = slice_str(topic), .number = partition};
    int64_t start = -1;
    return sites_ask(s, site, &at, kp_key_list_offsets, 7, &q, read_start, &start) ? start : -1;
}

static bool each_from(struct sites *s, int site, const char *topic, int32_t partition, struct reading *g)
{
    while (!g->ended && !g->failed) {
        struct kp_fetch_request_partitions p = {.partition = partition,
                                                .current_leader_epoch = -1,
                                                .fetch_offset = g->next,
                                                .last_fetched_epoch = -1,
                                                .log_start_offset = -1,
                                                .partition_max_bytes = 1 << 20};
        struct kp_fetch_request_topics t = {.topic = slice_str(topic), .partitions = &p, .partitions_n = 1};
        const struct kp_fetch_request q = {.replica_id = -1,
                                           .max_bytes = 1 << 20,
                                           .session_epoch = -1,
                                           .topics = &t,
                                           .topics_n = 1,
                                           .cluster_id = SLICE_NULL};
        const struct client_target at = {
            .kind = CLIENT_LEADER, .name = slice_str(topic), .number = partition};
        if (!sites_ask(s, site, &at, kp_key_fetch, 12, &q, read_fetched, g))
            return false;
    }
    return !g->failed;
}

bool sites_each(struct sites *s, int site, const char *topic, int32_t partition,
                void (*each)(void *arg, const struct record *r), void *arg)
{
    struct reading g = {.each = each, .arg = arg, .next = log_start(s, site, topic, partition)};
    return g.next >= 0 && each_from(s, site, topic, partition, &g);
}

struct numbers {
    uint64_t *out;
    int n, max;
};

static void take_number(void *arg, const struct record *r)
{
    struct numbers *g = arg;
    must(r->value.n == NUMBERS && g->n < g->max, "a record is one of ours, and there is room", NULL);
    memcpy(&g->out[g->n++], r->value.p, NUMBERS);
}

int sites_read(struct sites *s, int site, const char *topic, int32_t partition, uint64_t *out, int max)
{
    struct numbers n = {out, 0, max};
    struct reading g = {.each = take_number, .arg = &n};
    return each_from(s, site, topic, partition, &g) ? n.n : -1;
}

static void read_commit(void *arg, const void *body)
{
    const struct kp_offset_commit_response *r = body;
    bool one = r->topics_n == 1 && r->topics[0].partitions_n == 1;
    *(int16_t *)arg = one ? r->topics[0].partitions[0].error_code : KE_UNKNOWN_SERVER_ERROR;
}

bool sites_commit(struct sites *s, int site, const char *group, const char *topic, int32_t partition,
                  int64_t offset)
{
    struct kp_offset_commit_request_partitions p = {
        .partition_index = partition, .committed_offset = offset, .committed_leader_epoch = 0};
    struct kp_offset_commit_request_topics t = {
        .name = slice_str(topic), .partitions = &p, .partitions_n = 1};
    const struct kp_offset_commit_request q = {.group_id = slice_str(group),
                                               .generation_id_or_member_epoch = -1,
                                               .member_id = SLICE_LIT(""),
                                               .group_instance_id = SLICE_NULL,
                                               .retention_time_ms = -1,
                                               .topics = &t,
                                               .topics_n = 1};
    int16_t error = KE_UNKNOWN_SERVER_ERROR;
    bool well = sites_ask(s, site, &(struct client_target){.kind = CLIENT_GROUP, .name = slice_str(group)},
                          kp_key_offset_commit, 8, &q, read_commit, &error);
    return well && error == KE_NONE;
}

struct committed {
    int64_t offset;
    int32_t epoch;
};

static void read_offset(void *arg, const void *body)
{
    struct committed *c = arg;
    const struct kp_offset_fetch_response *r = body;
    if (r->topics_n != 1 || r->topics[0].partitions_n != 1 || r->topics[0].partitions[0].error_code)
        return;
    c->offset = r->topics[0].partitions[0].committed_offset;
    c->epoch = r->topics[0].partitions[0].committed_leader_epoch;
}

int64_t sites_committed(struct sites *s, int site, const char *group, const char *topic, int32_t partition,
                        int32_t *epoch)
{
    struct kp_offset_fetch_request_topics t = {
        .name = slice_str(topic), .partition_indexes = &partition, .partition_indexes_n = 1};
    const struct kp_offset_fetch_request q = {.group_id = slice_str(group), .topics = &t, .topics_n = 1};
    struct committed c = {-1, -1};
    sites_ask(s, site, &(struct client_target){.kind = CLIENT_GROUP, .name = slice_str(group)},
              kp_key_offset_fetch, 7, &q, read_offset, &c);
    *epoch = c.epoch;
    return c.offset;
}

/* ---- the world ---- */

static struct sim_node *add_mirror(struct sites *s, const char *name)
{
    return sim_node_add(s->sim, &(struct sim_node_options){
                                    .name = name, .boot = boot_mirror, .destroy = destroy_mirror, .arg = s});
}

#define FOLDER "sundog-sites."

static void remove_folder(const char *dir)
{
    remove_store(dir);
    rmdir(dir);
}

/* What a process has left here that aborted: its pid is in the name. */
static void sweep(const char *below)
{
    DIR *d = opendir(below);
    for (struct dirent *e; d && (e = readdir(d));) {
        long pid = strncmp(e->d_name, FOLDER, strlen(FOLDER)) == 0
                       ? strtol(e->d_name + strlen(FOLDER), NULL, 10)
                       : 0;
        char dir[128];
        if (pid > 0 && strlen(e->d_name) < 64 && kill((pid_t)pid, 0) != 0 && errno == ESRCH) {
            snprintf(dir, sizeof dir, "%s/%.64s", below, e->d_name);
            remove_folder(dir);
        }
    }
    if (d)
        closedir(d);
}

/* In memory where that can be had: nothing here dies with a real machine, and LMDB waits for each of its commits. */
static void make_folder(char *dir, size_t size)
{
    static const char *const below[] = {"/dev/shm", "/tmp"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(dir, size, "%s/" FOLDER "%ld-XXXXXX", below[i], (long)getpid());
        if (mkdtemp(dir))
            return;
    }
    must(false, "a folder for a store", NULL);
}

struct sites *sites_create(uint64_t seed)
{
    struct sites *s = calloc(1, sizeof *s);
    must(s != NULL, "memory", NULL);
    sweep("/dev/shm");
    sweep("/tmp");
    make_folder(s->store_dir, sizeof s->store_dir);
    make_folder(s->other_dir, sizeof s->other_dir);
    s->sim = sim_create(&(struct sim_options){.seed = seed});
    s->broker[EAST] = sim_node_add(s->sim, &(struct sim_node_options){.name = "east", .boot = boot_broker});
    s->broker[WEST] = sim_node_add(s->sim, &(struct sim_node_options){.name = "west", .boot = boot_broker});
    s->mirror = add_mirror(s, "mirror");
    s->other = add_mirror(s, "other");
    s->ops = sim_node_add(s->sim, &(struct sim_node_options){
                                      .name = "ops", .boot = boot_ops, .destroy = destroy_ops, .arg = s});
    sites_serve(s, EAST);
    sites_serve(s, WEST);
    must(sim_start(s->ops), "the client starts", NULL);
    return s;
}

void sites_destroy(struct sites *s)
{
    sim_destroy(s->sim);
    remove_folder(s->store_dir);
    remove_folder(s->other_dir);
    free(s);
}
