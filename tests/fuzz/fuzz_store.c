/* The mirror's store. First byte, even: one value: which one, then its bytes, decoded and encoded again. Odd: rows of an
 * LMDB environment, each with a right CRC (or nothing would get past it): table, length of the key (u8) and of the
 * message (u16), key, message; then everything is read, translated through, and written on. */
#include "mirror/offsets/codec.h"
#include "mirror/offsets/topic_map.h"
#include "mirror/offsets/translate.h"
#include "tests/fuzz/store_env.h"

#define TOPIC 1

/* ---- one value ---- */

struct value {
    struct progress_key key;
    struct map_position position;
    struct map_run run;
    struct map_producer_id id;
    struct stored_flow flow;
    struct stored_topic topic;
    struct slice alias;
    int64_t other, count;
    struct group_entry group;
    struct ledger_event event;
};

static int decode(unsigned which, struct slice in, struct arena *a, struct value *v)
{
    switch (which) {
    case 0: return progress_key_decode(in, a, &v->key);
    case 1: return position_decode(in, a, &v->position);
    case 2: return run_decode(in, a, 5, &v->run);
    case 3: return producer_id_decode(in, a, &v->id);
    case 4: return stored_flow_decode(in, a, &v->flow);
    case 5: return stored_topic_decode(in, a, &v->topic);
    case 6: return stored_alias_decode(in, a, &v->alias);
    case 7: return stored_run_decode(in, a, &v->other, &v->count);
    case 8: return stored_producer_id_decode(in, a, &v->id);
    case 9: return stored_group_decode(in, a, &v->group);
    default: return stored_event_decode(in, a, &v->event);
    }
}

static int encode(unsigned which, const struct value *v, struct buf *out)
{
    switch (which) {
    case 0: return progress_key_encode(&v->key, out);
    case 1: return position_encode(&v->position, out);
    case 2: return run_encode(&v->run, out);
    case 3: return producer_id_encode(&v->id, out);
    case 4: return stored_flow_encode(&v->flow, out);
    case 5: return stored_topic_encode(&v->topic, out);
    case 6: return stored_alias_encode(v->alias, out);
    case 7: return stored_run_encode(v->other, v->count, out);
    case 8: return stored_producer_id_encode(&v->id, out);
    case 9: return stored_group_encode(&v->group, out);
    default: return stored_event_encode(&v->event, out);
    }
}

static void one_value(unsigned which, struct slice in)
{
    struct arena a;
    struct buf first, second;
    struct value v = {0}, again = {0};
    arena_init(&a, FUZZ_MEMORY_MAX);
    buf_init(&first, FUZZ_MEMORY_MAX);
    buf_init(&second, FUZZ_MEMORY_MAX);
    if (decode(which, in, &a, &v) == 0) {
        if (encode(which, &v, &first) || decode(which, buf_slice(&first), &a, &again) ||
            encode(which, &again, &second) || !slice_eq(buf_slice(&first), buf_slice(&second)))
            abort();
    }
    arena_fini(&a);
    buf_fini(&first);
    buf_fini(&second);
}

/* ---- rows ---- */

static struct store *store;

static void put_row(MDB_txn *txn, unsigned table, struct slice k, struct slice message)
{
    uint8_t bytes[65540];
    be32_put(bytes, value_crc(k, message));
    memcpy(bytes + 4, message.p, message.n);
    MDB_val key = {k.n, (void *)(uintptr_t)k.p}, value = {message.n + 4, bytes};
    if (mdb_put(txn, store->dbi[table], &key, &value, 0))
        abort();
}

static void put_rows(struct slice in)
{
    MDB_txn *txn = store_env_empty(store);
    while (in.n >= 4) {
        unsigned table = in.p[0] % TABLES_N;
        size_t key_n = in.p[1], n = be16_get(in.p + 2);
        in = slice_of(in.p + 4, in.n - 4);
        if (key_n == 0 || key_n + n > in.n)
            break;
        put_row(txn, table, slice_of(in.p, key_n), slice_of(in.p + key_n, n));
        in = slice_of(in.p + key_n + n, in.n - key_n - n);
    }
    if (mdb_txn_commit(txn))
        abort();
}

/* ---- reading everything ---- */

static void check(bool good)
{
    if (!good)
        abort();
}

static int alias(void *arg, struct slice name, struct slice id)
{
    (void)arg, (void)name;
    check(id.n > 0);
    return 0;
}

static int flow(void *arg, const struct stored_flow *f)
{
    (void)arg;
    check(f->name.n > 0 && f->progress_next >= 0);
    return 0;
}

static int topic(void *arg, const struct stored_topic *t)
{
    (void)arg;
    check(t->topic.name.n > 0 || !uuid_is_zero(&t->topic.id));
    return 0;
}

static int position(void *arg, const struct map_position *p)
{
    (void)arg;
    check(p->p >= 0 && p->next_offset >= 0);
    return 0;
}

static int run(void *arg, int32_t p, const struct map_run *r)
{
    int64_t end;
    (void)arg;
    check(p >= 0 && r->q >= 0 && r->src_start >= 0 && r->dst_start >= 0 && r->count > 0);
    check(!__builtin_add_overflow(r->src_start, r->count, &end) &&
          !__builtin_add_overflow(r->dst_start, r->count, &end));
    return 0;
}

static int group(void *arg, const struct group_entry *g)
{
    (void)arg;
    check(g->state < GROUP_STATES_N && g->q >= 0);
    return 0;
}

static int producer(void *arg, int32_t p, const struct map_producer_id *id)
{
    (void)arg;
    check(p >= 0 && id->producer_id >= 0);
    return 0;
}

static int event(void *arg, const struct ledger_event *e)
{
    (void)arg, (void)e;
    return 0;
}

static void translate(struct store_view *v)
{
    struct topic_map tm;
    if (topic_map_open(v, &(struct stored_topic){.number = TOPIC}, &tm) == 1)
        check(tm.partitions > 0 && topic_map_targets(&tm) >= 0);
    struct store_map m;
    struct map *map = store_map_init(&m, v, TOPIC);
    struct translation t;
    struct translate_bounds bounds = {0, INT64_MAX};
    static const int64_t at[] = {0, 1, 100, INT64_MAX - 1};
    for (int32_t i = 0; i < 4; i++) {
        struct group_commit list[] = {{0, at[i]}, {1, at[3 - i]}};
        struct translate_commits c = {list, 1 + (size_t)(i & 1), 2};
        struct route_rule rule = route_rule_for(2, 2 + (i & 2));
        for (int32_t p = 0; p < 2; p++) {
            if (translate_forward(map, rule, &c, p, i & 1 ? &bounds : NULL, &t) == 0)
                check(t.state == TRANSLATE_NO_MAP || (t.offset >= 0 && t.reread >= 0));
            if (translate_back(map, rule, &c, p, i & 1 ? &bounds : NULL, &t) == 0)
                check(t.state == TRANSLATE_NO_MAP || (t.offset >= 0 && t.reread >= 0));
        }
    }
}

static void read_everything(void)
{
    struct store_view *v;
    struct stored_topic t;
    struct stored_flow f;
    struct map_position pos;
    struct map_producer_id id;
    struct group_entry g;
    struct map_run r;
    struct slice s;
    check(store_view_open(store, &v, NULL) == 0);
    check(store_verify(v, NULL) == 0); /* the CRCs are right */
    (void)store_aliases_each(v, alias, NULL);
    (void)store_flows_each(v, flow, NULL);
    (void)store_topics_each(v, topic, NULL);
    (void)store_positions_each(v, TOPIC, position, NULL);
    (void)store_runs_each(v, TOPIC, -1, run, NULL);
    (void)store_runs_each(v, TOPIC, 0, run, NULL);
    (void)store_groups_each(v, TOPIC, group, NULL);
    (void)store_producer_ids_each(v, 1, producer, NULL);
    (void)store_events_each(v, 0, event, NULL);
    (void)store_alias(v, SLICE_LIT("east"), &s);
    (void)store_flow(v, SLICE_LIT("e->w"), &f);
    (void)store_topic_named(v, 1, SLICE_LIT("t"), false, &t);
    (void)store_topic_named(v, 1, SLICE_LIT("e.t"), true, &t);
    (void)store_position(v, TOPIC, 0, &pos);
    (void)store_producer_id(v, 1, 0, &id);
    (void)store_group(v, TOPIC, SLICE_LIT("g"), 0, &g);
    (void)store_last_run(v, TOPIC, 0, 0, &r);
    translate(v);
    store_view_close(v);
}

/* A daemon goes on from what it found: runs are merged into the map. */
static void write_on(void)
{
    struct store_batch *b = store_batch_create(store);
    check(b != NULL);
    store_merge_run(b, TOPIC, 0, &(struct map_run){0, 10, 1000, 50});
    store_merge_run(b, TOPIC, 0, &(struct map_run){0, 60, 1050, 40});
    store_merge_run(b, TOPIC, 0, &(struct map_run){0, 0, 0, INT64_MAX});
    (void)store_commit(store, b, NULL);
    store_batch_destroy(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2 || n > 65000)
        return 0;
    if (!(data[0] & 1)) {
        one_value(data[1] % 11, slice_of(data + 2, n - 2));
        return 0;
    }
    if (!store)
        store = store_env_open();
    put_rows(slice_of(data + 1, n - 1));
    read_everything();
    write_on();
    read_everything();
    return 0;
}
