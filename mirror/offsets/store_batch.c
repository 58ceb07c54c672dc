#include "mirror/offsets/store_batch.h"

#include <assert.h>
#include <stdlib.h>

#include "mirror/offsets/store_internal.h"

struct store_batch {
    struct store *store;
    struct buf changes, message;
    int error; /* the first one */
};

#define MESSAGE_MAX (16u << 20) /* a position with very many lanes */

struct store_batch *store_batch_create(struct store *s)
{
    struct store_batch *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->store = s;
    buf_init(&b->changes, STORE_BATCH_MAX);
    buf_init(&b->message, MESSAGE_MAX);
    return b;
}

void store_batch_destroy(struct store_batch *b)
{
    if (!b)
        return;
    buf_fini(&b->changes);
    buf_fini(&b->message);
    free(b);
}

void store_batch_clear(struct store_batch *b)
{
    buf_clear(&b->changes);
    b->changes.failed = false;
    b->error = 0;
    assert(store_batch_empty(b));
}

bool store_batch_empty(const struct store_batch *b)
{
    return b->changes.n == 0;
}

size_t store_batch_bytes(const struct store_batch *b)
{
    return b->changes.n;
}

struct slice store_batch_changes(const struct store_batch *b)
{
    return buf_slice(&b->changes);
}

int store_batch_error(const struct store_batch *b, struct err *err)
{
    int rc = b->error ? b->error : b->changes.failed ? -E_LIMIT : 0;
    return rc ? err_set(err, rc, "store: a batch cannot be built: %s", err_str(rc)) : 0;
}

static void change(struct store_batch *b, unsigned table, const struct store_key *k, size_t value_n)
{
    assert(k->n > 0 && k->n <= STORE_KEY_MAX);
    assert((table & ~(unsigned)(CHANGE_DELETE | CHANGE_MERGE)) < TABLES_N);
    buf_put_u8(&b->changes, (uint8_t)table);
    buf_put_be16(&b->changes, (uint16_t)k->n);
    buf_put_be32(&b->changes, (uint32_t)value_n);
    buf_put(&b->changes, k->p, k->n);
}

/* Puts what stands in b->message; `rc` is what encoding it came to. */
static void put(struct store_batch *b, unsigned table, const struct store_key *k, int rc)
{
    struct slice message = buf_slice(&b->message);
    if (rc && !b->error)
        b->error = rc;
    if (!rc) {
        change(b, table, k, message.n + 4);
        buf_put_be32(&b->changes, value_crc(slice_of(k->p, k->n), message));
        buf_put(&b->changes, message.p, message.n);
    }
    buf_clear(&b->message);
    b->message.failed = false;
}

static void gone(struct store_batch *b, enum store_table table, const struct store_key *k)
{
    change(b, (unsigned)table | CHANGE_DELETE, k, 0);
}

void store_put_alias(struct store_batch *b, struct slice alias, struct slice cluster_id)
{
    struct store_key k;
    key_init(&k);
    bool fits = key_bytes(&k, SLICE_LIT("alias/")) && key_bytes(&k, alias);
    assert(fits); /* aliases are bounded by mirror/route */
    (void)fits;
    put(b, TABLE_meta, &k, stored_alias_encode(cluster_id, &b->message));
}

void store_put_flow(struct store_batch *b, const struct stored_flow *f)
{
    struct store_key k;
    key_init(&k);
    key_u32(&k, f->number);
    put(b, TABLE_flows, &k, stored_flow_encode(f, &b->message));
}

void store_put_topic(struct store_batch *b, const struct stored_topic *t)
{
    struct store_key k;
    assert(t->number > 0 && t->flow > 0);
    key_init(&k);
    key_u32(&k, t->number);
    put(b, TABLE_topics, &k, stored_topic_encode(t, &b->message));
}

void store_delete_topic(struct store_batch *b, uint32_t topic)
{
    struct store_key k;
    key_init(&k);
    key_u32(&k, topic);
    gone(b, TABLE_topics, &k);
}

static void key_position(struct store_key *k, uint32_t topic, int32_t p)
{
    assert(topic > 0 && p >= 0);
    key_init(k);
    key_u32(k, topic);
    key_u32(k, (uint32_t)p);
}

void store_put_position(struct store_batch *b, uint32_t topic, const struct map_position *p)
{
    struct store_key k;
    key_position(&k, topic, p->p);
    put(b, TABLE_positions, &k, position_encode(p, &b->message));
}

void store_delete_position(struct store_batch *b, uint32_t topic, int32_t p)
{
    struct store_key k;
    key_position(&k, topic, p);
    gone(b, TABLE_positions, &k);
}

void store_put_run(struct store_batch *b, uint32_t topic, int32_t p, const struct map_run *r)
{
    struct store_key k;
    assert(topic > 0 && r->count > 0);
    key_run(&k, topic, p, r->q, r->src_start);
    put(b, TABLE_runs, &k, stored_run_encode(r->dst_start, r->count, &b->message));
    key_run(&k, topic, r->q, p, r->dst_start);
    put(b, TABLE_reverse, &k, stored_run_encode(r->src_start, r->count, &b->message));
}

void store_merge_run(struct store_batch *b, uint32_t topic, int32_t p, const struct map_run *r)
{
    struct store_key k;
    assert(topic > 0 && r->count > 0);
    key_run(&k, topic, p, r->q, r->src_start);
    put(b, TABLE_runs | CHANGE_MERGE, &k, stored_run_encode(r->dst_start, r->count, &b->message));
}

void store_delete_run(struct store_batch *b, uint32_t topic, int32_t p, const struct map_run *r)
{
    struct store_key k;
    key_run(&k, topic, p, r->q, r->src_start);
    gone(b, TABLE_runs, &k);
    key_run(&k, topic, r->q, p, r->dst_start);
    gone(b, TABLE_reverse, &k);
}

void store_put_producer_id(struct store_batch *b, uint32_t flow, int32_t p, const struct map_producer_id *id)
{
    struct store_key k;
    assert(flow > 0 && p >= 0 && id->producer_id >= 0 && id->epoch >= 0);
    key_init(&k);
    key_u32(&k, flow);
    key_u32(&k, (uint32_t)p);
    put(b, TABLE_producers, &k, stored_producer_id_encode(id, &b->message));
}

void store_put_group(struct store_batch *b, uint32_t topic, const struct group_entry *g)
{
    struct store_key k;
    if (!key_group(&k, topic, g->group, g->q)) {
        b->error = b->error ? b->error : -E_LIMIT;
        return;
    }
    put(b, TABLE_groups, &k, stored_group_encode(g, &b->message));
}

void store_delete_group(struct store_batch *b, uint32_t topic, struct slice group, int32_t q)
{
    struct store_key k;
    if (key_group(&k, topic, group, q))
        gone(b, TABLE_groups, &k);
}

void store_put_event(struct store_batch *b, struct ledger_event *e)
{
    struct store_key k;
    e->number = b->store->event_next++;
    key_init(&k);
    key_u64(&k, e->number);
    put(b, TABLE_ledger, &k, stored_event_encode(e, &b->message));
    if (e->number > STORE_LEDGER_MAX) {
        key_init(&k);
        key_u64(&k, e->number - STORE_LEDGER_MAX);
        gone(b, TABLE_ledger, &k);
    }
}
