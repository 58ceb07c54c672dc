/* Rows of what is deleted leave the checkpoint files before a log of such a name can be made: it would be trusted further
 * than it is durable. */
#include "broker/partition/checkpoint_internal.h"

#include <stdio.h>
#include <stdlib.h>

void checkpoint_name(const char *topic, int32_t index, char name[CHECKPOINT_NAME_MAX])
{
    snprintf(name, CHECKPOINT_NAME_MAX, "%s-%d", topic, index);
}

void file_rows_add(struct file_rows *f, const char *topic, int32_t partition, int64_t offset)
{
    assert(f->n <= f->cap);
    if (f->n == f->cap) {
        struct log_checkpoint_row *more = ARENA_NEWS(&f->arena, struct log_checkpoint_row, 2 * f->cap + 64);
        if (!more)
            return;
        if (f->n)
            memcpy(more, f->rows, f->n * sizeof *more);
        f->rows = more;
        f->cap = 2 * f->cap + 64;
    }
    assert(f->n < f->cap);
    char *copy = arena_cstr(&f->arena, slice_str(topic));
    if (copy)
        f->rows[f->n++] = (struct log_checkpoint_row){copy, partition, offset};
}

void checkpoint_forget_deleted(struct checkpoints *c)
{
    struct deleted *d, *next;
    HASH_ITER (hh, c->deleted, d, next) {
        HASH_DEL(c->deleted, d);
        free(d);
    }
}

void checkpoint_deleting(struct checkpoints *c)
{
    atomic_fetch_add(&c->deletions, 1);
}

void checkpoint_deleted(struct checkpoints *c, const char *topic, int32_t index)
{
    struct deleted *d = calloc(1, sizeof *d), *same = NULL;
    if (!d)
        return;
    checkpoint_name(topic, index, d->name);
    HASH_FIND_STR(c->deleted, d->name, same);
    if (!same)
        HASH_ADD_STR(c->deleted, name, d);
    if (same || !HASH_ADDED(d))
        free(d);
}

struct purge {
    struct checkpoints *c;
    struct file_rows file;
    size_t dropped;
};

static void keep_row(void *arg, const struct log_checkpoint_row *row)
{
    struct purge *u = arg;
    char name[CHECKPOINT_NAME_MAX];
    struct deleted *d = NULL;
    checkpoint_name(row->topic, row->partition, name);
    HASH_FIND_STR(u->c->deleted, name, d);
    if (d || (!u->c->looked && !host_found(u->c->host, row->topic, row->partition))) {
        u->dropped++;
        return;
    }
    file_rows_add(&u->file, row->topic, row->partition, row->offset);
}

int checkpoint_purge(struct checkpoints *c, struct err *err)
{
    struct partition_host *h = c->host;
    int rc = 0;
    for (unsigned dir = 0; (c->deleted || !c->looked) && dir < log_dirs_count(h->dirs); dir++) {
        for (int which = 0; log_dir_online(h->dirs, dir) && which < LOG_CHECKPOINTS; which++) {
            struct purge u = {.c = c};
            arena_init(&u.file.arena, CHECKPOINT_ROWS_MAX);
            const char *path = log_dir_of(h->dirs, dir);
            int r = log_checkpoint_read(h->disk, path, (enum log_checkpoint)which, keep_row, &u, err);
            if (!r && arena_failed(&u.file.arena))
                r = -E_NOMEM;
            if (!r && u.dropped > 0) {
                c->gather[which].written[dir] = 0;
                r = log_checkpoint_write(h->disk, path, (enum log_checkpoint)which, u.file.rows, u.file.n,
                                         err);
            }
            arena_fini(&u.file.arena);
            rc = rc ? rc : r;
        }
    }
    if (!rc) {
        checkpoint_forget_deleted(c);
        c->looked = true;
    }
    return rc;
}
