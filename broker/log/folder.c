#include "broker/log/folder.h"

#include "base/core/grow.h"

#include <stdio.h>
#include <stdlib.h>

static int offsets_add(struct offsets_list *o, int64_t offset)
{
    assert(offset >= 0 && o->n <= o->room);
    if (!GROW(o->v, o->n, o->room, 8))
        return -E_NOMEM;
    o->v[o->n++] = offset;
    return 0;
}

static int rising(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void offsets_sort(struct offsets_list *o)
{
    if (o->n > 1)
        qsort(o->v, o->n, sizeof *o->v, rising);
}

static int junk_add(struct folder *f, const char *name)
{
    assert(f->junk_n <= f->junk_room);
    if (strlen(name) >= sizeof *f->junk)
        return 0; /* not one of ours */
    if (!GROW(f->junk, f->junk_n, f->junk_room, 8))
        return -E_NOMEM;
    memcpy(f->junk[f->junk_n++], name, strlen(name) + 1);
    return 0;
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && memcmp(name + n - m, suffix, m) == 0;
}

static void each_name(void *arg, const char *name)
{
    assert(name && name[0]);
    struct folder *f = arg;
    int64_t base = 0;
    size_t digits = 0;
    if (f->rc)
        return;
    for (; digits < 20 && name[digits] >= '0' && name[digits] <= '9'; digits++)
        if (__builtin_mul_overflow(base, 10, &base) ||
            __builtin_add_overflow(base, name[digits] - '0', &base))
            return;
    const char *suffix = name + digits;
    if (ends_with(name, SUFFIX_DELETED) || ends_with(name, SUFFIX_CLEANED) || ends_with(name, ".tmp"))
        f->rc = junk_add(f, name);
    if (digits != 20 || base > WALK_OFFSET_MAX)
        return;
    if (strcmp(suffix, SUFFIX_LOG SUFFIX_TRIMMED) == 0 && base > f->trimmed)
        f->trimmed = base;
    if (strcmp(suffix, SUFFIX_LOG) == 0)
        f->rc = offsets_add(&f->logs, base);
    else if (strcmp(suffix, SUFFIX_INDEX) == 0 || strcmp(suffix, SUFFIX_TIMEINDEX) == 0)
        f->rc = offsets_add(&f->indexes, base);
    else if (strcmp(suffix, SUFFIX_SNAPSHOT) == 0)
        f->rc = offsets_add(&f->snapshots, base);
    else if (strcmp(suffix, SUFFIX_LOG SUFFIX_SWAP) == 0)
        f->rc = offsets_add(&f->swaps, base);
    else if (ends_with(name, SUFFIX_SWAP))
        f->rc = junk_add(f, name); /* indexes are made again */
}

int folder_read(struct folder *f, const struct log *l, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    *f = (struct folder){.trimmed = -1};
    int rc = disk_list(l->disk, l->dir, each_name, f);
    if (!rc)
        rc = f->rc;
    if (rc) {
        folder_fini(f);
        return err_set(err, rc, "cannot list %s", l->dir);
    }
    offsets_sort(&f->logs);
    offsets_sort(&f->indexes);
    offsets_sort(&f->snapshots);
    offsets_sort(&f->swaps);
    return 0;
}

void folder_fini(struct folder *f)
{
    free(f->logs.v);
    free(f->indexes.v);
    free(f->snapshots.v);
    free(f->swaps.v);
    free(f->junk);
    *f = (struct folder){0};
}

/* The offset behind the last batch of a .swap: it was synced before it got that name, so it must be whole. */
static int swap_end(struct log *l, int64_t base, int64_t *end, struct err *err)
{
    assert(base >= 0);
    char path[LOG_PATH_MAX];
    struct disk_file *file;
    log_path(l, base, SUFFIX_LOG, SUFFIX_SWAP, path);
    int rc = disk_open(l->disk, path, DISK_READ, &file, err);
    if (rc)
        return rc;
    struct walk w;
    walk_init(&w, file, 0, disk_size(file), WALK_WINDOW_SCAN);
    *end = base;
    while ((rc = walk_next(&w)) > 0) {
        if (w.h.base_offset < *end || (rc = walk_crc_ok(&w)) != 1) {
            rc = rc < 0 ? rc : -E_CORRUPT;
            break;
        }
        *end = batch_last_offset(&w.h) + 1;
    }
    walk_fini(&w);
    disk_close(file);
    if (rc)
        return err_set(err, walk_code(rc),
                       "%s is damaged: the segments it replaces are still there; remove it", path);
    return 0;
}

static void remove_file(struct log *l, int64_t base, const char *suffix)
{
    assert(base >= 0);
    char path[LOG_PATH_MAX];
    if (disk_unlink(l->disk, log_path(l, base, suffix, "", path)) == 0)
        l->recovery.files_removed++;
}

/* A compaction has made its new segment durable under the name .swap: what it replaces goes, it takes the name. The
 * order of names on disk is kept by the two syncs: never the new segment beside one that it replaces. */
static int swap_finish(struct folder *f, struct log *l, int64_t base, struct err *err)
{
    assert(base >= 0 && l->segments_n == 0);
    char from[LOG_PATH_MAX], to[LOG_PATH_MAX];
    int64_t end;
    int rc = swap_end(l, base, &end, err);
    if (rc)
        return rc;
    unsigned kept = 0;
    for (unsigned i = 0; i < f->logs.n; i++) {
        int64_t other = f->logs.v[i];
        if (other != base && (other < base || other >= end)) {
            f->logs.v[kept++] = other;
            continue;
        }
        remove_file(l, other, SUFFIX_LOG);
        remove_file(l, other, SUFFIX_INDEX);
        remove_file(l, other, SUFFIX_TIMEINDEX);
    }
    f->logs.n = kept;
    remove_file(l, base, SUFFIX_INDEX);
    remove_file(l, base, SUFFIX_TIMEINDEX);
    rc = names_sync(l->disk, l->dir);
    if (!rc)
        rc = disk_rename(l->disk, log_path(l, base, SUFFIX_LOG, SUFFIX_SWAP, from),
                         log_path(l, base, SUFFIX_LOG, "", to));
    if (!rc)
        rc = names_sync(l->disk, l->dir);
    if (!rc)
        rc = offsets_add(&f->logs, base);
    offsets_sort(&f->logs);
    return rc ? err_set(err, rc, "cannot finish the swap of %s", from) : 0;
}

/* What an interrupted deletion at the front has left: on disk before its mark goes. */
static int finish_trim(struct folder *f, struct log *l, struct err *err)
{
    assert(f->trimmed >= 0 && l->segments_n == 0);
    unsigned gone = 0;
    while (gone < f->logs.n && f->logs.v[gone] <= f->trimmed) {
        int64_t base = f->logs.v[gone++];
        remove_file(l, base, SUFFIX_LOG);
        remove_file(l, base, SUFFIX_INDEX);
        remove_file(l, base, SUFFIX_TIMEINDEX);
    }
    if (gone > 0)
        memmove(f->logs.v, f->logs.v + gone, (f->logs.n - gone) * sizeof *f->logs.v);
    f->logs.n -= gone;
    int rc = names_sync(l->disk, l->dir);
    return rc ? err_set(err, rc, "cannot sync %s", l->dir) : 0;
}

int folder_tidy(struct folder *f, struct log *l, struct err *err)
{
    assert(l->segments_n == 0);
    if (f->trimmed >= 0) {
        int rc = finish_trim(f, l, err);
        if (rc)
            return rc;
    }
    for (unsigned i = 0; i < f->junk_n; i++) {
        char path[LOG_PATH_MAX];
        int rc = disk_unlink(l->disk, log_path_named(l, f->junk[i], path));
        if (rc && rc != -E_NOTFOUND)
            return err_set(err, rc, "cannot remove %s", path);
        l->recovery.files_removed++;
    }
    for (unsigned i = 0; i < f->swaps.n; i++) {
        int rc = swap_finish(f, l, f->swaps.v[i], err);
        if (rc)
            return rc;
    }
    for (unsigned i = 0; i < f->indexes.n; i++) { /* of segments that are gone */
        int64_t base = f->indexes.v[i];
        if (!f->logs.n || !bsearch(&base, f->logs.v, f->logs.n, sizeof base, rising)) {
            remove_file(l, base, SUFFIX_INDEX);
            remove_file(l, base, SUFFIX_TIMEINDEX);
        }
    }
    return 0;
}
