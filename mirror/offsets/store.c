#include "mirror/offsets/store.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/core/crc32c.h"
#include "mirror/offsets/store_batch.h"
#include "mirror/offsets/store_internal.h"

#define STORE_MAP_DEFAULT (64u << 20)
#define STORE_MAP_MAX     (UINT64_C(1) << 40)
#define STORE_READERS_MAX 126

static const char *const table_names[] = {
#define X(name) #name,
    STORE_TABLES(X)
#undef X
};

/* ---- keys and values ---- */

bool key_bytes(struct store_key *k, struct slice s)
{
    if (s.n > sizeof k->p - k->n)
        return false;
    if (s.n)
        memcpy(k->p + k->n, s.p, s.n);
    k->n += s.n;
    return true;
}

void key_run(struct store_key *k, uint32_t topic, int32_t first, int32_t second, int64_t start)
{
    assert(first >= 0 && second >= 0 && start >= 0);
    key_init(k);
    key_u32(k, topic);
    key_u32(k, (uint32_t)first);
    key_u32(k, (uint32_t)second);
    key_u64(k, (uint64_t)start);
}

bool key_group(struct store_key *k, uint32_t topic, struct slice group, int32_t q)
{
    key_init(k);
    key_u32(k, topic);
    if (group.n > sizeof k->p - 16 || !key_bytes(k, group))
        return false;
    assert(q >= 0 && k->n < sizeof k->p);
    k->p[k->n++] = 0;
    key_u32(k, (uint32_t)q);
    return true;
}

uint32_t value_crc(struct slice key, struct slice message)
{
    return crc32c_more(crc32c(key.p, key.n), message.p, message.n);
}

int value_open(struct slice key, struct slice value, struct slice *message)
{
    if (value.n < 4)
        return -E_CORRUPT;
    *message = slice_of(value.p + 4, value.n - 4);
    return be32_get(value.p) == value_crc(key, *message) ? 0 : -E_CORRUPT;
}

int store_code(int code)
{
    switch (code) {
    case 0: return 0;
    case MDB_NOTFOUND: return -E_NOTFOUND;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL: return -E_NOSPACE;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_PANIC:
    case MDB_INVALID: return -E_CORRUPT;
    case MDB_VERSION_MISMATCH: return -E_VERSION;
    case MDB_READERS_FULL: return -E_BUSY;
    default: return code > 0 ? err_from_errno(code) : -E_IO;
    }
}

static int failed(struct store *s, int code, const char *what, struct err *err)
{
    const char *remedy =
        code == MDB_PANIC ? "; end the mirror and start it again: the store is as of its last commit" : "";
    return err_set(err, store_code(code), "store %s: %s: %s%s", s->path, what, mdb_strerror(code), remedy);
}

/* ---- transactions ---- */

int store_txn_begin(struct store *s, unsigned flags, MDB_txn **out, struct err *err)
{
    pthread_rwlock_rdlock(&s->growing);
    int rc = mdb_txn_begin(s->env, NULL, flags, out);
    if (rc == MDB_MAP_RESIZED) {
        /* The daemon has grown it: this reader follows, with no transaction of its own open. */
        pthread_rwlock_unlock(&s->growing);
        pthread_rwlock_wrlock(&s->growing);
        rc = mdb_env_set_mapsize(s->env, 0);
        pthread_rwlock_unlock(&s->growing);
        pthread_rwlock_rdlock(&s->growing);
        if (!rc)
            rc = mdb_txn_begin(s->env, NULL, flags, out);
    }
    if (!rc)
        return 0;
    pthread_rwlock_unlock(&s->growing);
    return failed(s, rc, "cannot begin a transaction", err);
}

void store_txn_unlock(struct store *s)
{
    pthread_rwlock_unlock(&s->growing);
}

static int grow(struct store *s, struct err *err)
{
    MDB_envinfo info;
    pthread_rwlock_wrlock(&s->growing);
    int rc = mdb_env_info(s->env, &info);
    if (!rc && info.me_mapsize >= STORE_MAP_MAX)
        rc = MDB_MAP_FULL;
    if (!rc)
        rc = mdb_env_set_mapsize(s->env, info.me_mapsize * 2);
    pthread_rwlock_unlock(&s->growing);
    return rc ? failed(s, rc, "cannot grow", err) : 0;
}

/* ---- open and close ---- */

static int take_lock(struct store *s, const struct store_options *o, struct err *err)
{
    if (!o->disk || o->mode == STORE_READER)
        return 0;
    int rc = disk_make_dirs(o->disk, o->path, err);
    if (rc)
        return err_wrap(err, "store");
    char lock[4096];
    snprintf(lock, sizeof lock, "%s/sundog.lock", o->path);
    rc = disk_lock(o->disk, lock, &s->lock);
    if (rc == -E_BUSY)
        return err_set(
            err, rc,
            "store %s: another sundog-mirror uses it: stop that one or choose another sundog.store.dir",
            o->path);
    return rc ? err_set(err, rc, "store %s: %s; choose a folder that this user can write", o->path,
                        err_str(rc))
              : 0;
}

static int open_env(struct store *s, const struct store_options *o, struct err *err)
{
    int rc = mdb_env_create(&s->env);
    if (rc)
        return failed(s, rc, "cannot be opened", err);
    unsigned flags = MDB_NOTLS | (o->mode == STORE_READER ? MDB_RDONLY : 0);
    if ((rc = mdb_env_set_maxdbs(s->env, TABLES_N)) ||
        (rc = mdb_env_set_maxreaders(s->env, STORE_READERS_MAX)) ||
        (o->mode == STORE_DAEMON &&
         (rc = mdb_env_set_mapsize(s->env, o->map_bytes ? o->map_bytes : STORE_MAP_DEFAULT))) ||
        (rc = mdb_env_open(s->env, o->path, flags, 0640))) {
        if (rc == ENOENT)
            return err_set(err, -E_NOTFOUND,
                           "store %s: there is none: give the sundog.store.dir of a sundog-mirror", o->path);
        return failed(s, rc, "cannot be opened", err);
    }
    int dead;
    mdb_reader_check(s->env, &dead); /* slots of processes that were killed */
    return 0;
}

static int open_tables(struct store *s, MDB_txn *txn, struct err *err)
{
    unsigned flags = s->mode == STORE_DAEMON ? MDB_CREATE : 0;
    for (int t = 0; t < TABLES_N; t++) {
        int rc = mdb_dbi_open(txn, table_names[t], flags, &s->dbi[t]);
        if (rc == MDB_NOTFOUND)
            return err_set(err, -E_NOTFOUND, "store %s: it is empty: has its sundog-mirror ever started?",
                           s->path);
        if (rc)
            return failed(s, rc, table_names[t], err);
    }
    return 0;
}

static int check_version(struct store *s, MDB_txn *txn, struct err *err)
{
    MDB_val key = {7, (void *)(uintptr_t) "version"}, value;
    struct slice k = slice_of(key.mv_data, key.mv_size), message;
    int rc = mdb_get(txn, s->dbi[TABLE_meta], &key, &value);
    if (rc == MDB_NOTFOUND && s->mode == STORE_DAEMON) {
        uint8_t fresh[8];
        be32_put(fresh + 4, STORE_VERSION);
        be32_put(fresh, value_crc(k, slice_of(fresh + 4, 4)));
        value = (MDB_val){sizeof fresh, fresh};
        rc = mdb_put(txn, s->dbi[TABLE_meta], &key, &value, 0);
        return rc ? failed(s, rc, "cannot write", err) : 0;
    }
    if (rc)
        return failed(s, rc, "no version", err);
    if (value_open(k, slice_of(value.mv_data, value.mv_size), &message) || message.n != 4)
        return err_set(err, -E_CORRUPT, "store %s: its version is damaged", s->path);
    uint32_t version = be32_get(message.p);
    if (version != STORE_VERSION)
        return err_set(err, -E_VERSION, "store %s: written in format %u, this program knows %u", s->path,
                       version, STORE_VERSION);
    return 0;
}

/* One more than the number at the front of the last key; 1 when the table is empty. */
static int next_number(struct store *s, MDB_txn *txn, enum store_table t, uint64_t *out)
{
    MDB_cursor *c;
    int rc = mdb_cursor_open(txn, s->dbi[t], &c);
    if (rc)
        return rc;
    MDB_val key, value;
    rc = mdb_cursor_get(c, &key, &value, MDB_LAST);
    *out = 1;
    if (!rc && key.mv_size >= 8 && t == TABLE_ledger)
        *out = be64_get(key.mv_data) + 1;
    else if (!rc && key.mv_size >= 4)
        *out = (uint64_t)be32_get(key.mv_data) + 1;
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int read_numbers(struct store *s, MDB_txn *txn, struct err *err)
{
    uint64_t topic, flow, event;
    int rc;
    if ((rc = next_number(s, txn, TABLE_topics, &topic)) || (rc = next_number(s, txn, TABLE_flows, &flow)) ||
        (rc = next_number(s, txn, TABLE_ledger, &event)))
        return failed(s, rc, "cannot be read", err);
    s->topic_next = (uint32_t)topic;
    s->flow_next = (uint32_t)flow;
    s->event_next = event;
    return 0;
}

static int open_content(struct store *s, struct err *err)
{
    MDB_txn *txn;
    int rc = store_txn_begin(s, s->mode == STORE_READER ? MDB_RDONLY : 0, &txn, err);
    if (rc)
        return rc;
    if (!(rc = open_tables(s, txn, err)) && !(rc = check_version(s, txn, err)))
        rc = read_numbers(s, txn, err);
    if (!rc) {
        int code = mdb_txn_commit(txn); /* a read-only one must be committed too: it opened the tables */
        rc = code ? failed(s, code, "cannot be written", err) : 0;
    } else {
        mdb_txn_abort(txn);
    }
    store_txn_unlock(s);
    return rc;
}

int store_open(const struct store_options *o, struct store **out, struct err *err)
{
    assert(o->path && *o->path);
    struct store *s = calloc(1, sizeof *s);
    if (!s || !(s->path = strdup(o->path))) {
        free(s);
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    }
    pthread_rwlock_init(&s->growing, NULL);
    s->mode = o->mode;
    int rc = take_lock(s, o, err);
    if (!rc)
        rc = open_env(s, o, err);
    if (!rc)
        rc = open_content(s, err);
    if (rc) {
        store_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    if (s->env)
        mdb_env_close(s->env);
    disk_close(s->lock);
    pthread_rwlock_destroy(&s->growing);
    free(s->path);
    free(s);
}

uint32_t store_new_topic(struct store *s)
{
    assert(s->mode == STORE_DAEMON);
    return s->topic_next++;
}

uint32_t store_new_flow(struct store *s)
{
    assert(s->mode == STORE_DAEMON);
    return s->flow_next++;
}

uint64_t store_commits(const struct store *s)
{
    return s->commits;
}

size_t store_bytes(struct store *s)
{
    MDB_envinfo info;
    MDB_stat stat;
    if (mdb_env_info(s->env, &info) || mdb_env_stat(s->env, &stat))
        return 0;
    return (info.me_last_pgno + 1) * stat.ms_psize;
}

/* ---- commit ---- */

static int apply(struct store *s, MDB_txn *txn, struct slice changes)
{
    while (changes.n) {
        assert(changes.n >= CHANGE_HEAD);
        unsigned table = changes.p[0] & CHANGE_TABLE, how = changes.p[0] & (CHANGE_DELETE | CHANGE_MERGE);
        MDB_val key = {be16_get(changes.p + 1), (void *)(uintptr_t)(changes.p + CHANGE_HEAD)};
        MDB_val value = {be32_get(changes.p + 3), (void *)(uintptr_t)(changes.p + CHANGE_HEAD + key.mv_size)};
        size_t n = CHANGE_HEAD + key.mv_size + value.mv_size;
        assert(how != (CHANGE_DELETE | CHANGE_MERGE) && key.mv_size > 0);
        assert(table < TABLES_N && n <= changes.n);
        int rc = how == CHANGE_DELETE  ? mdb_del(txn, s->dbi[table], &key, NULL)
                 : how == CHANGE_MERGE ? store_run_merge(s, txn, &key, &value)
                                       : mdb_put(txn, s->dbi[table], &key, &value, 0);
        if (rc && !(how == CHANGE_DELETE && rc == MDB_NOTFOUND))
            return rc;
        changes = slice_of(changes.p + n, changes.n - n);
    }
    return 0;
}

int store_commit(struct store *s, struct store_batch *b, struct err *err)
{
    assert(s->mode == STORE_DAEMON);
    int rc = store_batch_error(b, err);
    if (rc)
        return rc;
    /* Bounded: the map doubles each time, up to STORE_MAP_MAX. */
    for (;;) {
        MDB_txn *txn;
        if ((rc = store_txn_begin(s, 0, &txn, err)))
            return rc;
        int code = apply(s, txn, store_batch_changes(b));
        if (code)
            mdb_txn_abort(txn);
        else
            code = mdb_txn_commit(txn);
        store_txn_unlock(s);
        if (!code) {
            s->commits++;
            return 0;
        }
        if (code != MDB_MAP_FULL)
            return failed(s, code, "cannot commit", err);
        if ((rc = grow(s, err)))
            return rc;
    }
}
