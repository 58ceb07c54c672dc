/* What store.c (environment, batches, commits) and store_view.c (reading) share: keys, and the CRC in front of values.
 *
 * Keys are big-endian, so that LMDB's byte order is the numbers' order; numbers are never negative.
 *   flows      u32 flow                                        StoreFlow
 *   topics     u32 topic                                       StoreTopic
 *   positions  u32 topic, u32 p                                Position
 *   runs       u32 topic, u32 p, u32 q, u64 src_start          StoreRun (dst_start, count)
 *   reverse    u32 topic, u32 q, u32 p, u64 dst_start          StoreRun (src_start, count)
 *   groups     u32 topic, group's bytes, 0, u32 q              StoreGroup
 *   producers  u32 flow, u32 p                                 StoreProducerId
 *   ledger     u64 number                                      StoreEvent
 *   meta       "version" → u32; "alias/<alias>"                StoreAlias
 * Value: CRC32C (u32) of key and message, then the message. */
#ifndef SUNDOG_MIRROR_OFFSETS_STORE_INTERNAL_H
#define SUNDOG_MIRROR_OFFSETS_STORE_INTERNAL_H

#include <assert.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/core/bytes.h"
#include "mirror/offsets/store.h"

#define STORE_VERSION 1u
/* LMDB's own limit of a key. */
#define STORE_KEY_MAX 511

#define STORE_TABLES(X)                                                                                      \
    X(meta) X(flows) X(topics) X(positions) X(runs) X(reverse) X(groups) X(producers) X(ledger)
enum store_table {
#define X(name) TABLE_##name,
    STORE_TABLES(X)
#undef X
        TABLES_N
};

struct store {
    MDB_env *env;
    MDB_dbi dbi[TABLES_N];
    pthread_rwlock_t growing; /* read: any transaction; write: changing the map's size */
    struct disk_file *lock;
    char *path;
    enum store_mode mode;
    _Atomic uint32_t topic_next, flow_next;
    _Atomic uint64_t event_next, commits;
};

struct store_key {
    uint8_t p[STORE_KEY_MAX];
    size_t n;
};

static inline void key_init(struct store_key *k)
{
    k->n = 0;
}

static inline void key_u32(struct store_key *k, uint32_t v)
{
    assert(k->n + 4 <= sizeof k->p);
    be32_put(k->p + k->n, v);
    k->n += 4;
}

static inline void key_u64(struct store_key *k, uint64_t v)
{
    assert(k->n + 8 <= sizeof k->p);
    be64_put(k->p + k->n, v);
    k->n += 8;
}

/* False when it does not fit. */
bool key_bytes(struct store_key *k, struct slice s);
void key_run(struct store_key *k, uint32_t topic, int32_t first, int32_t second, int64_t start);
bool key_group(struct store_key *k, uint32_t topic, struct slice group, int32_t q);

uint32_t value_crc(struct slice key, struct slice message);
/* The message behind a good CRC; -E_CORRUPT. */
int value_open(struct slice key, struct slice value, struct slice *message);

int store_code(int lmdb_code);
/* A transaction under the read lock; -E_… with the path in `err`. Ended by store_txn_end or after mdb_txn_commit. */
int store_txn_begin(struct store *s, unsigned flags, MDB_txn **out, struct err *err);
void store_txn_unlock(struct store *s);

/* Row of `runs` (or of `reverse`) ⇄ run. */
#define RUN_KEY_BYTES 20
int store_run_of(bool forward, struct slice key, struct slice message, struct arena *a, struct map_run *out);
/* store_merge.c: puts a run in, merged; an LMDB code. */
int store_run_merge(struct store *s, MDB_txn *txn, const MDB_val *key, const MDB_val *value);

#endif
