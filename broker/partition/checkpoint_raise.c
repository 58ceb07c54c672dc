/* Start offsets that cannot wait for their time (DeleteRecords): the file is read, some rows are raised, and it is
 * written. */
#include "broker/partition/checkpoint_internal.h"

#include "base/runtime/log.h"
#include "broker/log/spare.h"

struct raised {
    UT_hash_handle hh;
    struct log_checkpoint_row row;
    char name[CHECKPOINT_NAME_MAX];
};

struct raise {
    struct raised *all; /* uthash; not in the file's rows yet */
    struct file_rows file;
};

static void raise_want(struct raise *u, const struct log_checkpoint_row *row)
{
    assert(row->offset >= 0);
    char name[CHECKPOINT_NAME_MAX];
    struct raised *r = NULL;
    checkpoint_name(row->topic, row->partition, name);
    HASH_FIND_STR(u->all, name, r);
    if (r) {
        r->row.offset = row->offset > r->row.offset ? row->offset : r->row.offset;
        return;
    }
    r = ARENA_NEW(&u->file.arena, struct raised);
    if (!r)
        return;
    r->row = *row;
    memcpy(r->name, name, sizeof r->name);
    HASH_ADD_STR(u->all, name, r);
    if (!HASH_ADDED(r))
        u->file.arena.failed = true;
}

static void raise_keep(void *arg, const struct log_checkpoint_row *row)
{
    struct raise *u = arg;
    int64_t offset = row->offset;
    char name[CHECKPOINT_NAME_MAX];
    struct raised *r = NULL;
    checkpoint_name(row->topic, row->partition, name);
    HASH_FIND_STR(u->all, name, r);
    if (r) {
        offset = r->row.offset > offset ? r->row.offset : offset;
        HASH_DEL(u->all, r);
    }
    file_rows_add(&u->file, row->topic, row->partition, offset);
}

static int raise_dir(struct checkpoints *c, unsigned dir, struct raise *u, struct err *err)
{
    assert(dir < LOG_DIRS_MAX);
    struct partition_host *h = c->host;
    const char *path = log_dir_of(h->dirs, dir);
    int rc = log_checkpoint_read(h->disk, path, LOG_CHECKPOINT_START, raise_keep, u, err);
    assert(rc <= 0);
    struct raised *r, *next;
    HASH_ITER (hh, u->all, r, next)
        file_rows_add(&u->file, r->row.topic, r->row.partition, r->row.offset);
    if (!rc && arena_failed(&u->file.arena))
        rc = err_set(err, -E_NOMEM, "no memory for the rows of %s", path);
    c->gather[LOG_CHECKPOINT_START].written[dir] = 0;
    if (rc)
        return rc;
    do {
        rc = log_checkpoint_write(h->disk, path, LOG_CHECKPOINT_START, u->file.rows, u->file.n, err);
        c->spare[dir] &= rc != -E_NOSPACE;
    } while (rc == -E_NOSPACE && spare_give(h->disk, path)); /* on a full disk this is what makes room */
    return rc;
}

void checkpoint_raise(struct checkpoints *c, const struct checkpoint_row *rows, size_t n,
                      int rc[LOG_DIRS_MAX])
{
    struct partition_host *h = c->host;
    assert(n > 0);
    for (unsigned dir = 0; dir < log_dirs_count(h->dirs); dir++) {
        struct raise u = {0};
        struct err err = {0};
        arena_init(&u.file.arena, CHECKPOINT_ROWS_MAX);
        for (size_t i = 0; i < n; i++)
            if (rows[i].dir == dir)
                raise_want(&u, &rows[i].row);
        rc[dir] = 0;
        if (u.all || arena_failed(&u.file.arena))
            rc[dir] = log_dir_online(h->dirs, dir) ? raise_dir(c, dir, &u, &err) : -E_FENCED;
        HASH_CLEAR(hh, u.all);
        arena_fini(&u.file.arena);
        if (rc[dir] && rc[dir] != -E_FENCED)
            log_error("broker.partition", "checkpoint failed error=%s", err.text);
        if (rc[dir] == -E_IO)
            partition_dir_failed(h, dir, err.text);
    }
}

void checkpoint_raising(struct partitions *ps)
{
    assert(ps->shard->index < ps->host->checkpoints->shards);
    atomic_fetch_add(&ps->host->checkpoints->raises[ps->shard->index], 1);
}
