/* The progress topic at the target, which anybody with rights there may write to: a flow's progress is opened over
 * records that say anything. The topic is the input: first byte: how many of the last
 * are read while running; then length of
 * the key (u8; 255: null) and of the value (u16; 65535: null), key, value. The real progress.c and store, a topic of
 * ours in compact_log's place. */
#include "base/core/bytes.h"
#include "base/world/loop_posix.h"
#include "mirror/offsets/compact_log.h"
#include "mirror/offsets/progress.h"
#include "proto/kafka/batch.h"
#include "tests/fuzz/store_env.h"

#define RECORDS_MAX 1000

struct compact_log {
    struct compact_log_options o;
};

static struct compact_record records[RECORDS_MAX + 64]; /* with room for what is appended */
static int64_t records_n;
static struct compact_log *the_log;

int compact_log_open(const struct compact_log_options *o, struct compact_log **out, struct err *err)
{
    (void)err;
    the_log = *out = malloc(sizeof **out);
    *the_log = (struct compact_log){*o};
    return 0;
}

void compact_log_close(struct compact_log *l)
{
    free(l);
}

bool compact_log_is_ready(const struct compact_log *l)
{
    (void)l;
    return true;
}

int compact_log_read(struct compact_log *l, int64_t from, int64_t upto,
                     void (*each)(void *arg, const struct compact_record *r),
                     void (*done)(void *arg, int status, int64_t next), void *arg)
{
    (void)l;
    for (; from < upto; from++)
        each(arg, &records[from]);
    done(arg, 0, from);
    return 0;
}

int compact_log_append(struct compact_log *l, struct slice batch,
                       void (*done)(void *arg, int64_t base_offset), void *arg)
{
    struct batch_header h;
    (void)l;
    if (batch_read(batch, &h, NULL))
        abort();
    int64_t base = records_n;
    for (int32_t i = 0; i < h.records_n && records_n < RECORDS_MAX + 64; i++) {
        records[records_n] =
            (struct compact_record){.offset = records_n}; /* ours: not read again by content */
        records_n++;
    }
    done(arg, base);
    return 0;
}

static void parse(struct slice in)
{
    records_n = 0;
    while (in.n >= 3 && records_n < RECORDS_MAX) {
        size_t key_n = in.p[0], n = be16_get(in.p + 1);
        bool no_key = key_n == 255, no_value = n == 65535;
        key_n = no_key ? 0 : key_n;
        n = no_value ? 0 : n;
        in = slice_of(in.p + 3, in.n - 3);
        if (key_n + n > in.n)
            break;
        records[records_n] = (struct compact_record){
            .offset = records_n, .key = slice_of(in.p, key_n), .value = slice_of(in.p + key_n, n)};
        if (no_key)
            records[records_n].key = SLICE_NULL;
        if (no_value)
            records[records_n].value = SLICE_NULL;
        in = slice_of(in.p + key_n + n, in.n - key_n - n);
        records_n++;
    }
}

static struct loop_posix *loop;
static struct store *store;

static void open_world(void)
{
    struct job_pool *jobs;
    if (job_pool_create(1, &jobs, NULL) ||
        loop_posix_create(&(struct loop_posix_options){.jobs = jobs}, &loop, NULL))
        abort();
    store = store_env_open();
}

static void empty_store(void)
{
    if (mdb_txn_commit(store_env_empty(store)))
        abort();
    store->topic_next = store->flow_next = 1;
    store->event_next = 1;
}

static void set(void *arg)
{
    *(bool *)arg = true;
}

static void trouble(void *arg, const char *text)
{
    (void)arg;
    if (text && !*text)
        abort();
}

static void stale(void *arg, uint32_t topic, int32_t p)
{
    (void)arg, (void)topic;
    if (p < 0)
        abort();
}

static void turn_until(const bool *done)
{
    for (int i = 0; !*done; i++) {
        if (i == 10000)
            abort();
        loop_posix_turn(loop, 1000);
    }
}

static int each_run(void *arg, int32_t p, const struct map_run *r)
{
    int64_t end;
    (void)arg;
    if (p < 0 || r->q < 0 || r->src_start < 0 || r->dst_start < 0 || r->count <= 0 ||
        __builtin_add_overflow(r->src_start, r->count, &end) ||
        __builtin_add_overflow(r->dst_start, r->count, &end))
        abort();
    return 0;
}

static int each_topic(void *arg, const struct stored_topic *t)
{
    if (store_runs_each(arg, t->number, -1, each_run, NULL))
        abort();
    return 0;
}

/* Whatever the topic said, the store can be read. */
static void look(void)
{
    struct store_view *v;
    if (store_view_open(store, &v, NULL) || store_verify(v, NULL) || store_topics_each(v, each_topic, v))
        abort();
    store_view_close(v);
}

static struct progress *open_progress(bool *ready)
{
    struct progress *p;
    struct progress_options o = {.loop = loop_posix_loop(loop),
                                 .store = store,
                                 .flow = SLICE_LIT("east->west"),
                                 .topic = SLICE_LIT("sundog-progress.east.internal"),
                                 .ready = set,
                                 .trouble = trouble,
                                 .stale = stale,
                                 .arg = ready};
    *ready = false;
    if (progress_open(&o, &p, NULL))
        abort();
    return p;
}

static void commit(struct progress *p, bool *done)
{
    struct map_lane lane = {.q = 0, .number_next = 10, .end_offset = 10, .source_next = 10};
    struct map_position pos = {.topic = {SLICE_LIT("t"), uuid_small(7)},
                               .next_offset = 10,
                               .producer_id = 3,
                               .target_topic = SLICE_LIT("east.t"),
                               .lanes = &lane,
                               .lanes_n = 1};
    struct map_run r = {0, 0, 0, 10};
    uint32_t number = progress_topic(p, &pos.topic, pos.target_topic, NULL);
    *done = false;
    progress_put_run(p, number, &pos.topic, 0, &r);
    progress_put_position(p, number, &pos);
    progress_offer(p, 0, 3, 0);
    progress_commit(p, set, done);
    turn_until(done);
    struct map_producer_id id;
    if (!progress_producer_id(p, 0, &id) || id.offered_at < 0)
        abort();
}

static void closed(struct progress *p, bool *done)
{
    *done = false;
    progress_close(p, set, done);
    turn_until(done);
}

/* Opened over the topic as it is now; 0: to its end. */
static struct progress *ready_progress(uint64_t topic_id, int64_t upto, bool *flag)
{
    struct progress *p = open_progress(flag);
    struct uuid id = uuid_small(topic_id);
    the_log->o.ready(the_log->o.arg, &id, 0, upto);
    turn_until(flag);
    return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    bool flag;
    if (n < 1 || n > 65000)
        return 0;
    if (!loop)
        open_world();
    empty_store();
    parse(slice_of(data + 1, n - 1));
    int64_t all = records_n;
    struct progress *p = ready_progress(1, all - (data[0] < all ? data[0] : all), &flag);
    look();
    commit(p, &flag); /* what lies between is read as others' */
    look();
    closed(p, &flag);
    p = ready_progress(data[0] & 1 ? 1 : 2, records_n,
                       &flag); /* 2: the topic was made again, and is written anew */
    look();
    closed(p, &flag);
    return 0;
}
