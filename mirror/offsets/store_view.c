#include <assert.h>
#include <stdlib.h>

#include "mirror/offsets/store.h"
#include "mirror/offsets/store_internal.h"

/* What is decoded lives in the view's arena, that is as long as the view; runs and events, of which there may be very
 * many, in one that is emptied for each element. */
#define VIEW_ARENA_MAX ((size_t)256 << 20)
#define EACH_ARENA_MAX ((size_t)32 << 20)

struct store_view {
    struct store *store;
    MDB_txn *txn;
    struct arena arena;
};

int store_view_open(struct store *s, struct store_view **out, struct err *err)
{
    struct store_view *v = calloc(1, sizeof *v);
    if (!v)
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    int rc = store_txn_begin(s, MDB_RDONLY, &v->txn, err);
    if (rc) {
        free(v);
        return rc;
    }
    v->store = s;
    arena_init(&v->arena, VIEW_ARENA_MAX);
    *out = v;
    return 0;
}

void store_view_close(struct store_view *v)
{
    if (!v)
        return;
    assert(v->txn && v->store);
    mdb_txn_abort(v->txn);
    store_txn_unlock(v->store);
    arena_fini(&v->arena);
    free(v);
}

/* 1 and the message, 0, or -E_…. */
static int get(struct store_view *v, enum store_table t, const struct store_key *k, struct slice *message)
{
    assert(k->n > 0 && t < TABLES_N);
    MDB_val key = {k->n, (void *)(uintptr_t)k->p}, value;
    int rc = mdb_get(v->txn, v->store->dbi[t], &key, &value);
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc)
        return store_code(rc);
    rc = value_open(slice_of(k->p, k->n), slice_of(value.mv_data, value.mv_size), message);
    return rc ? rc : 1;
}

static int found(int rc)
{
    return rc < 0 ? rc : 1;
}

typedef int alias_fn(void *arg, struct slice alias, struct slice cluster_id);
typedef int flow_fn(void *arg, const struct stored_flow *f);
typedef int topic_fn(void *arg, const struct stored_topic *t);
typedef int position_fn(void *arg, const struct map_position *p);
typedef int producer_fn(void *arg, int32_t p, const struct map_producer_id *id);
typedef int group_fn(void *arg, const struct group_entry *g);
typedef int event_fn(void *arg, const struct ledger_event *e);
typedef int run_fn(void *arg, int32_t p, const struct map_run *r);

/* Walks the keys that begin with `prefix`. */
struct walk {
    struct store_view *view;
    enum store_table table;
    struct store_key prefix, from; /* from: the first key, at or after the prefix */
    int (*each)(struct walk *w, struct slice key, struct slice message);
    bool passing; /* what is decoded dies with the next element: for tables of any length */
    struct arena passing_arena;
    struct arena *arena;
    union {
        alias_fn *alias;
        flow_fn *flow;
        topic_fn *topic;
        position_fn *position;
        producer_fn *producer;
        group_fn *group;
        event_fn *event;
        run_fn *run;
    } fn; /* the caller's, by table */
    void *arg;
};

static bool begins(struct slice key, const struct store_key *prefix)
{
    return key.n >= prefix->n && memcmp(key.p, prefix->p, prefix->n) == 0;
}

static int walk(struct walk *w)
{
    MDB_cursor *c;
    assert(w->each && w->table < TABLES_N && w->from.n >= w->prefix.n);
    int rc = mdb_cursor_open(w->view->txn, w->view->store->dbi[w->table], &c);
    if (rc)
        return store_code(rc);
    arena_init(&w->passing_arena, EACH_ARENA_MAX);
    w->arena = w->passing ? &w->passing_arena : &w->view->arena;
    MDB_val key = {w->from.n, w->from.p}, value;
    rc = mdb_cursor_get(c, &key, &value, w->from.n ? MDB_SET_RANGE : MDB_FIRST);
    int result = 0;
    while (!rc && !result) {
        struct slice k = slice_of(key.mv_data, key.mv_size), message;
        if (!begins(k, &w->prefix))
            break;
        result = value_open(k, slice_of(value.mv_data, value.mv_size), &message);
        if (!result)
            result = w->each(w, k, message);
        arena_reset(&w->passing_arena);
        rc = mdb_cursor_get(c, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(c);
    arena_fini(&w->passing_arena);
    return result ? result : rc && rc != MDB_NOTFOUND ? store_code(rc) : 0;
}

/* ---- aliases, flows, topics ---- */

int store_alias(struct store_view *v, struct slice alias, struct slice *cluster_id)
{
    struct store_key k;
    struct slice message;
    key_init(&k);
    if (!key_bytes(&k, SLICE_LIT("alias/")) || !key_bytes(&k, alias))
        return 0;
    int rc = get(v, TABLE_meta, &k, &message);
    return rc <= 0 ? rc : found(stored_alias_decode(message, &v->arena, cluster_id));
}

static int each_alias(struct walk *w, struct slice key, struct slice message)
{
    struct slice id;
    int rc = stored_alias_decode(message, w->arena, &id);
    return rc ? rc : w->fn.alias(w->arg, slice_of(key.p + w->prefix.n, key.n - w->prefix.n), id);
}

int store_aliases_each(struct store_view *v, alias_fn *each, void *arg)
{
    struct walk w = {.view = v, .table = TABLE_meta, .each = each_alias, .fn.alias = each, .arg = arg};
    key_bytes(&w.prefix, SLICE_LIT("alias/"));
    w.from = w.prefix;
    return walk(&w);
}

static int each_flow(struct walk *w, struct slice key, struct slice message)
{
    struct stored_flow f;
    int rc = key.n == 4 ? stored_flow_decode(message, w->arena, &f) : -E_CORRUPT;
    if (rc)
        return rc;
    f.number = be32_get(key.p);
    return w->fn.flow(w->arg, &f);
}

int store_flows_each(struct store_view *v, flow_fn *each, void *arg)
{
    struct walk w = {.view = v, .table = TABLE_flows, .each = each_flow, .fn.flow = each, .arg = arg};
    return walk(&w);
}

struct named_flow {
    struct store_view *v;
    struct slice name;
    struct stored_flow *out;
};

static int is_named(void *arg, const struct stored_flow *f)
{
    struct named_flow *n = arg;
    if (!slice_eq(f->name, n->name))
        return 0;
    *n->out = *f;
    n->out->name = arena_dup(&n->v->arena, f->name);
    return 1;
}

int store_flow(struct store_view *v, struct slice name, struct stored_flow *out)
{
    struct named_flow n = {v, name, out};
    return store_flows_each(v, is_named, &n);
}

static int each_topic(struct walk *w, struct slice key, struct slice message)
{
    struct stored_topic t;
    int rc = key.n == 4 ? stored_topic_decode(message, w->arena, &t) : -E_CORRUPT;
    if (rc)
        return rc;
    t.number = be32_get(key.p);
    return w->fn.topic(w->arg, &t);
}

int store_topics_each(struct store_view *v, topic_fn *each, void *arg)
{
    struct walk w = {.view = v, .table = TABLE_topics, .each = each_topic, .fn.topic = each, .arg = arg};
    return walk(&w);
}

struct named_topic {
    struct store_view *v;
    uint32_t flow;
    struct slice name;
    bool target, found;
    struct stored_topic *out;
};

/* Numbers rise with each incarnation: the last one found is the newest. */
static int newest_named(void *arg, const struct stored_topic *t)
{
    struct named_topic *n = arg;
    if (t->flow != n->flow || !slice_eq(n->target ? t->target_topic : t->topic.name, n->name))
        return 0;
    *n->out = *t;
    n->out->topic.name = arena_dup(&n->v->arena, t->topic.name);
    n->out->target_topic = arena_dup(&n->v->arena, t->target_topic);
    n->found = true;
    return 0;
}

int store_topic_named(struct store_view *v, uint32_t flow, struct slice name, bool target,
                      struct stored_topic *out)
{
    struct named_topic n = {v, flow, name, target, false, out};
    int rc = store_topics_each(v, newest_named, &n);
    return rc ? rc : n.found;
}

/* ---- positions and producer ids ---- */

int store_position(struct store_view *v, uint32_t topic, int32_t p, struct map_position *out)
{
    struct store_key k;
    struct slice message;
    key_init(&k);
    key_u32(&k, topic);
    key_u32(&k, (uint32_t)p);
    int rc = get(v, TABLE_positions, &k, &message);
    return rc <= 0 ? rc : found(position_decode(message, &v->arena, out));
}

static int each_position(struct walk *w, struct slice key, struct slice message)
{
    struct map_position p;
    int rc = key.n == 8 ? position_decode(message, w->arena, &p) : -E_CORRUPT;
    return rc ? rc : w->fn.position(w->arg, &p);
}

int store_positions_each(struct store_view *v, uint32_t topic, position_fn *each, void *arg)
{
    struct walk w = {
        .view = v, .table = TABLE_positions, .each = each_position, .fn.position = each, .arg = arg};
    key_u32(&w.prefix, topic);
    w.from = w.prefix;
    return walk(&w);
}

int store_producer_id(struct store_view *v, uint32_t flow, int32_t p, struct map_producer_id *out)
{
    struct store_key k;
    struct slice message;
    key_init(&k);
    key_u32(&k, flow);
    key_u32(&k, (uint32_t)p);
    int rc = get(v, TABLE_producers, &k, &message);
    return rc <= 0 ? rc : found(stored_producer_id_decode(message, &v->arena, out));
}

static int each_producer(struct walk *w, struct slice key, struct slice message)
{
    struct map_producer_id id;
    int32_t p = key.n == 8 ? (int32_t)be32_get(key.p + 4) : -1;
    int rc = p >= 0 ? stored_producer_id_decode(message, w->arena, &id) : -E_CORRUPT;
    return rc ? rc : w->fn.producer(w->arg, p, &id);
}

int store_producer_ids_each(struct store_view *v, uint32_t flow, producer_fn *each, void *arg)
{
    struct walk w = {
        .view = v, .table = TABLE_producers, .each = each_producer, .fn.producer = each, .arg = arg};
    key_u32(&w.prefix, flow);
    w.from = w.prefix;
    return walk(&w);
}

/* ---- groups and the ledger ---- */

int store_group(struct store_view *v, uint32_t topic, struct slice group, int32_t q, struct group_entry *out)
{
    struct store_key k;
    struct slice message;
    if (!key_group(&k, topic, group, q))
        return 0;
    int rc = get(v, TABLE_groups, &k, &message);
    out->q = q;
    return rc <= 0 ? rc : found(stored_group_decode(message, &v->arena, out));
}

static int each_group(struct walk *w, struct slice key, struct slice message)
{
    struct group_entry g = {.q = key.n >= 9 ? (int32_t)be32_get(key.p + key.n - 4) : -1};
    int rc = g.q >= 0 ? stored_group_decode(message, w->arena, &g) : -E_CORRUPT;
    return rc ? rc : w->fn.group(w->arg, &g);
}

int store_groups_each(struct store_view *v, uint32_t topic, group_fn *each, void *arg)
{
    struct walk w = {.view = v, .table = TABLE_groups, .each = each_group, .fn.group = each, .arg = arg};
    key_u32(&w.prefix, topic);
    w.from = w.prefix;
    return walk(&w);
}

static int each_event(struct walk *w, struct slice key, struct slice message)
{
    struct ledger_event e;
    int rc = key.n == 8 ? stored_event_decode(message, w->arena, &e) : -E_CORRUPT;
    if (rc)
        return rc;
    e.number = be64_get(key.p);
    return w->fn.event(w->arg, &e);
}

int store_events_each(struct store_view *v, uint64_t from, event_fn *each, void *arg)
{
    struct walk w = {
        .view = v, .table = TABLE_ledger, .passing = true, .each = each_event, .fn.event = each, .arg = arg};
    key_u64(&w.from, from);
    return walk(&w);
}

/* ---- runs ---- */

int store_run_of(bool forward, struct slice key, struct slice message, struct arena *a, struct map_run *out)
{
    int64_t other, count;
    int rc = key.n == RUN_KEY_BYTES ? stored_run_decode(message, a, &other, &count) : -E_CORRUPT;
    if (rc)
        return rc;
    int64_t start = (int64_t)be64_get(key.p + 12);
    int32_t q = (int32_t)be32_get(key.p + (forward ? 8 : 4)),
            p = (int32_t)be32_get(key.p + (forward ? 4 : 8));
    if (start < 0 || count > INT64_MAX - start || p < 0 || q < 0)
        return -E_CORRUPT;
    *out = (struct map_run){q, forward ? start : other, forward ? other : start, count};
    return 0;
}

/* The row at or before `start` (after: behind it) among those with the same first 12 bytes of key. */
static int seek(struct store_view *v, bool forward, uint32_t topic, int32_t first, int32_t second,
                int64_t start, bool after, struct map_run *out)
{
    struct store_key k;
    if (after ? start == INT64_MAX : start < 0)
        return 0;
    if (start < 0)
        start = -1;
    key_run(&k, topic, first, second, after ? start + 1 : start);
    MDB_cursor *c;
    int rc = mdb_cursor_open(v->txn, v->store->dbi[forward ? TABLE_runs : TABLE_reverse], &c);
    if (rc)
        return store_code(rc);
    MDB_val key = {k.n, k.p}, value;
    rc = mdb_cursor_get(c, &key, &value, MDB_SET_RANGE);
    bool exact = !rc && key.mv_size == k.n && memcmp(key.mv_data, k.p, k.n) == 0;
    if (!after && !exact && (!rc || rc == MDB_NOTFOUND))
        rc = mdb_cursor_get(c, &key, &value, rc ? MDB_LAST : MDB_PREV);
    struct slice message, at = slice_of(key.mv_data, key.mv_size);
    int result = rc == MDB_NOTFOUND ? 0 : rc ? store_code(rc) : 1;
    if (result == 1 && (at.n != RUN_KEY_BYTES || memcmp(at.p, k.p, 12) != 0))
        result = 0;
    if (result == 1)
        result = found(value_open(at, slice_of(value.mv_data, value.mv_size), &message));
    if (result == 1) {
        struct arena scratch; /* the run is a plain value: nothing of it need stay */
        arena_init(&scratch, 4096);
        result = found(store_run_of(forward, at, message, &scratch, out));
        arena_fini(&scratch);
    }
    mdb_cursor_close(c);
    return result;
}

int store_last_run(struct store_view *v, uint32_t topic, int32_t p, int32_t q, struct map_run *out)
{
    return seek(v, true, topic, p, q, INT64_MAX, false, out);
}

static int each_run(struct walk *w, struct slice key, struct slice message)
{
    struct map_run r;
    int rc = store_run_of(true, key, message, w->arena, &r);
    return rc ? rc : w->fn.run(w->arg, (int32_t)be32_get(key.p + 4), &r);
}

int store_runs_each(struct store_view *v, uint32_t topic, int32_t p, run_fn *each, void *arg)
{
    struct walk w = {
        .view = v, .table = TABLE_runs, .passing = true, .each = each_run, .fn.run = each, .arg = arg};
    key_u32(&w.prefix, topic);
    if (p >= 0)
        key_u32(&w.prefix, (uint32_t)p);
    w.from = w.prefix;
    return walk(&w);
}

static int src_at_or_before(struct map *map, int32_t p, int32_t q, int64_t src, struct map_run *out)
{
    struct store_map *m = (struct store_map *)map;
    return seek(m->view, true, m->topic, p, q, src, false, out);
}

static int src_after(struct map *map, int32_t p, int32_t q, int64_t src, struct map_run *out)
{
    struct store_map *m = (struct store_map *)map;
    return seek(m->view, true, m->topic, p, q, src, true, out);
}

static int dst_at_or_before(struct map *map, int32_t p, int32_t q, int64_t dst, struct map_run *out)
{
    struct store_map *m = (struct store_map *)map;
    return seek(m->view, false, m->topic, q, p, dst, false, out);
}

static int dst_after(struct map *map, int32_t p, int32_t q, int64_t dst, struct map_run *out)
{
    struct store_map *m = (struct store_map *)map;
    return seek(m->view, false, m->topic, q, p, dst, true, out);
}

static int lane(struct map *map, int32_t p, int32_t q, struct map_lane *out, int64_t *next_offset)
{
    struct store_map *m = (struct store_map *)map;
    struct map_position pos;
    int rc = store_position(m->view, m->topic, p, &pos);
    if (rc <= 0)
        return rc;
    for (size_t i = 0; i < pos.lanes_n; i++)
        if (pos.lanes[i].q == q) {
            *out = pos.lanes[i];
            *next_offset = pos.next_offset;
            return 1;
        }
    return 0;
}

static const struct map_ops store_map_ops = {src_at_or_before, src_after, dst_at_or_before, dst_after, lane};

struct map *store_map_init(struct store_map *m, struct store_view *v, uint32_t topic)
{
    *m = (struct store_map){{&store_map_ops}, v, topic};
    return &m->map;
}

/* ---- everything ---- */

static int any_value(struct walk *w, struct slice key, struct slice message)
{
    (void)w;
    (void)key;
    (void)message;
    return 0;
}

int store_verify(struct store_view *v, struct err *err)
{
    static const char *const names[] = {
#define X(name) #name,
        STORE_TABLES(X)
#undef X
    };
    for (int t = 0; t < TABLES_N; t++) {
        struct walk w = {.view = v, .table = (enum store_table)t, .each = any_value};
        int rc = walk(&w);
        if (rc)
            return err_set(err, rc, "store %s: table %s is damaged: %s", v->store->path, names[t],
                           err_str(rc));
    }
    return 0;
}
