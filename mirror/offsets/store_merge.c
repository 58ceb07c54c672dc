#include <assert.h>
#include <errno.h>

#include "mirror/offsets/run_merge.h"
#include "mirror/offsets/store_internal.h"

/* Inside one write transaction: what stands on either side is looked at, joined or cut, and both indexes follow. */
struct merge {
    struct store *s;
    MDB_txn *txn;
    uint32_t topic;
    int32_t p;
    struct map_run fresh;
};

static int put_row(struct merge *m, enum store_table t, const struct store_key *k, int64_t other)
{
    struct buf b;
    assert(m->fresh.count > 0 && (t == TABLE_runs || t == TABLE_reverse));
    buf_init(&b, 256);
    buf_put_be32(&b, 0);
    int rc = stored_run_encode(other, m->fresh.count, &b) ? ENOMEM : 0;
    if (!rc) {
        be32_put(b.p, value_crc(slice_of(k->p, k->n), slice_of(b.p + 4, b.n - 4)));
        MDB_val key = {k->n, (void *)(uintptr_t)k->p}, value = {b.n, b.p};
        rc = mdb_put(m->txn, m->s->dbi[t], &key, &value, 0);
    }
    buf_fini(&b);
    return rc;
}

static int remove_run(struct merge *m, const struct map_run *r)
{
    struct store_key k;
    assert(r->q == m->fresh.q);
    key_run(&k, m->topic, m->p, r->q, r->src_start);
    MDB_val key = {k.n, k.p};
    int rc = mdb_del(m->txn, m->s->dbi[TABLE_runs], &key, NULL);
    if (rc)
        return rc;
    key_run(&k, m->topic, r->q, m->p, r->dst_start);
    rc = mdb_del(m->txn, m->s->dbi[TABLE_reverse], &key, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The row at the cursor, if it is one of this (topic, p, q): 1, 0, or an LMDB code below 0. */
static int row_at(struct merge *m, const MDB_val *key, const MDB_val *value, struct map_run *out)
{
    struct store_key k;
    key_run(&k, m->topic, m->p, m->fresh.q, 0);
    if (key->mv_size != RUN_KEY_BYTES || memcmp(key->mv_data, k.p, 12) != 0)
        return 0;
    struct arena a;
    arena_init(&a, 65536);
    struct slice at = slice_of(key->mv_data, key->mv_size), message;
    int rc = value_open(at, slice_of(value->mv_data, value->mv_size), &message);
    if (!rc)
        rc = store_run_of(true, at, message, &a, out);
    arena_fini(&a);
    return rc ? MDB_CORRUPTED : 1;
}

/* An errno among LMDB's own codes, which are negative: 1 means "found" here. */
static int below_zero(int rc)
{
    return rc > 0 ? MDB_BAD_TXN : rc;
}

/* The run at or before (after: behind) `src`: 1, 0, or an LMDB code below 0. */
static int neighbour(struct merge *m, int64_t src, bool after, struct map_run *out)
{
    MDB_cursor *c;
    int rc = mdb_cursor_open(m->txn, m->s->dbi[TABLE_runs], &c);
    if (rc)
        return below_zero(rc);
    struct store_key k;
    key_run(&k, m->topic, m->p, m->fresh.q, src + 1);
    MDB_val key = {k.n, k.p}, value;
    rc = mdb_cursor_get(c, &key, &value, MDB_SET_RANGE);
    if (!after && (!rc || rc == MDB_NOTFOUND))
        rc = mdb_cursor_get(c, &key, &value, rc ? MDB_LAST : MDB_PREV);
    int result = rc == MDB_NOTFOUND ? 0 : rc ? below_zero(rc) : row_at(m, &key, &value, out);
    mdb_cursor_close(c);
    return result;
}

static int merge_back(struct merge *m)
{
    struct map_run next;
    int rc;
    while ((rc = neighbour(m, m->fresh.src_start, true, &next)) == 1) {
        if (!run_joins(&m->fresh, &next)) {
            run_cut_back(&m->fresh, &next);
            return 0;
        }
        int64_t start = m->fresh.src_start;
        m->fresh = run_union(&m->fresh, &next);
        assert(m->fresh.src_start == start && run_src_end(&m->fresh) >= run_src_end(&next));
        if ((rc = remove_run(m, &next)))
            return rc;
    }
    return rc;
}

int store_run_merge(struct store *s, MDB_txn *txn, const MDB_val *key, const MDB_val *value)
{
    struct merge m = {.s = s, .txn = txn};
    assert(key->mv_size == RUN_KEY_BYTES);
    m.topic = be32_get(key->mv_data);
    m.p = (int32_t)be32_get((uint8_t *)key->mv_data + 4);
    m.fresh.q = (int32_t)be32_get((uint8_t *)key->mv_data + 8);
    if (row_at(&m, key, value, &m.fresh) != 1)
        return MDB_CORRUPTED;
    struct map_run before;
    int rc = neighbour(&m, m.fresh.src_start, false, &before);
    if (rc < 0)
        return rc;
    if (rc && run_joins(&before, &m.fresh)) {
        m.fresh = run_union(&before, &m.fresh);
        if ((rc = remove_run(&m, &before)))
            return rc;
    } else if (rc) {
        run_cut_front(&m.fresh, &before);
    }
    if (m.fresh.count && (rc = merge_back(&m)))
        return rc;
    if (m.fresh.count <= 0)
        return 0;
    struct store_key k;
    key_run(&k, m.topic, m.p, m.fresh.q, m.fresh.src_start);
    if ((rc = put_row(&m, TABLE_runs, &k, m.fresh.dst_start)))
        return rc;
    key_run(&k, m.topic, m.fresh.q, m.p, m.fresh.dst_start);
    return put_row(&m, TABLE_reverse, &k, m.fresh.src_start);
}
