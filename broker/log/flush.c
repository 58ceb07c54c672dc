/* Making appends durable: the shard puts aside what is dirty, another thread syncs it, the shard takes note. One flush
 * of a log at a time; what is appended meanwhile is the next one's (group commit). An fdatasync that has failed is
 * never tried again: the kernel has dropped the pages and would say that all is well. */
#include "broker/log/log_internal.h"

#include "base/core/grow.h"
#include "base/core/mutant.h"

#include <stdio.h>
#include <stdlib.h>

struct flush_file {
    struct log_file *file;
    int64_t again_from, again_to; /* written again before the sync */
};

struct log_flush {
    struct log *l;
    struct disk *disk;
    enum log_flush_how how;
    int64_t offset;
    struct flush_file *files;
    unsigned files_n;
    size_t files_room;
    bool sync_names, sync_parent;
    char *dir;
    struct list snapshots; /* struct snapshot_wanted, taken from the log */
    int64_t snapshot_remove;
    bool epochs_write;
    struct buf epochs;
    int rc;
    int side_rc; /* no space for snapshot or epochs: the data is durable, the recovery point stays */
    struct err err;
};

static void flush_free(struct log_flush *f)
{
    assert(f->files_n <= f->files_room);
    for (unsigned i = 0; i < f->files_n; i++)
        log_file_drop(f->files[i].file);
    while (!list_empty(&f->snapshots)) {
        struct snapshot_wanted *w = LIST_ENTRY(list_pop(&f->snapshots), struct snapshot_wanted, link);
        buf_fini(&w->bytes);
        free(w);
    }
    buf_fini(&f->epochs);
    free(f->files);
    free(f->dir);
    free(f);
}

static int file_add(struct log_flush *f, struct log_file *file, int64_t again_from, int64_t again_to)
{
    assert(file && again_from <= again_to);
    if (!GROW(f->files, f->files_n, f->files_room, 4))
        return -E_NOMEM;
    f->files[f->files_n++] = (struct flush_file){log_file_take(file), again_from, again_to};
    return 0;
}

static int index_add(struct log_flush *f, struct log *l, struct segment *s, struct log_index *ix,
                     const char *suffix)
{
    assert(f->how == LOG_FLUSH_CHECKPOINT && ix->in_tail == 0);
    char path[LOG_PATH_MAX];
    struct log_file *file;
    int rc = log_handle_get(&ix->handle, l->disk, log_path(l, s->base_offset, suffix, "", path),
                            DISK_WRITE | DISK_CREATE, &file, &f->err);
    return rc ? rc : file_add(f, file, 0, 0);
}

static int segment_add(struct log_flush *f, struct log *l, struct segment *s)
{
    ASSERT_SEGMENT(s);
    struct log_file *file;
    int rc = 0;
    if (s->dirty && !(rc = segment_file(l, s, &file, &f->err)))
        rc = file_add(f, file, s->again_from, s->again_to);
    if (rc || f->how != LOG_FLUSH_CHECKPOINT || !s->index_dirty)
        return rc;
    if ((rc = segment_spill(l, s, false, &f->err)))
        return rc;
    /* An empty index needs no sync: one that is missing is made again. */
    if (s->offsets.in_file > 0)
        rc = index_add(f, l, s, &s->offsets, SUFFIX_INDEX);
    if (!rc && s->times.in_file > 0)
        rc = index_add(f, l, s, &s->times, SUFFIX_TIMEINDEX);
    return rc;
}

static bool is_segment_base(const struct log *l, int64_t offset)
{
    assert(offset >= 0);
    return l->segments[log_segment_at(l, offset)]->base_offset == offset;
}

/* Where nothing was ever written nothing is known of producers. */
static bool snapshot_lacking(const struct log *l)
{
    assert(l->segments_n > 0 && l->snapshot_newest <= l->end);
    bool untouched = l->snapshot_newest < 0 && l->segments[0]->base_offset == l->end &&
                     producers_count(&l->producers) == 0;
    return l->snapshot_newest != l->end && !untouched;
}

/* The checkpoint's own snapshot; the checkpoint's before last goes unless it stands at the start of a segment. */
static int snapshot_add(struct log_flush *f, struct log *l)
{
    assert(f->how == LOG_FLUSH_CHECKPOINT);
    if (!snapshot_lacking(l))
        return 0;
    int rc = log_snapshot_want(l, l->end);
    if (rc)
        return rc;
    if (l->snapshot_before >= 0 && !is_segment_base(l, l->snapshot_before))
        f->snapshot_remove = l->snapshot_before;
    l->snapshot_before = l->snapshot_newest;
    l->snapshot_newest = l->end;
    return 0;
}

/* Dirty segments are the last ones, but for old ones whose index was made again. */
static unsigned first_dirty(const struct log *l, enum log_flush_how how)
{
    assert(l->magic == LOG_MAGIC);
    unsigned i = l->segments_n;
    if (how == LOG_FLUSH_CHECKPOINT && l->old_index_dirty)
        return 0;
    while (i > 0 && (l->segments[i - 1]->dirty || l->segments[i - 1]->index_dirty || i == l->segments_n))
        i--;
    return i;
}

static int flush_gather(struct log_flush *f, struct log *l)
{
    assert(!l->flush && !l->fenced);
    int rc = 0;
    for (unsigned i = first_dirty(l, f->how); i < l->segments_n && !rc; i++)
        rc = segment_add(f, l, l->segments[i]);
    if (!rc && f->how == LOG_FLUSH_CHECKPOINT) {
        rc = snapshot_add(f, l);
        if (!rc && epochs_unsaved(&l->epochs, l->end)) {
            epochs_write(&l->epochs, &f->epochs);
            f->epochs_write = true;
            rc = f->epochs.failed ? -E_NOMEM : 0;
        }
    }
    return rc;
}

static bool is_dirty(const struct log *l, enum log_flush_how how)
{
    assert(l->magic == LOG_MAGIC);
    if (l->names_dirty || l->durable < l->end)
        return true;
    for (unsigned i = l->segments_n; i-- > 0;) {
        const struct segment *s = l->segments[i];
        if (s->dirty || (how == LOG_FLUSH_CHECKPOINT && s->index_dirty))
            return true;
        if (how == LOG_FLUSH_DATA)
            break; /* closed ones were dirty with it, or are clean */
    }
    return how == LOG_FLUSH_CHECKPOINT && (epochs_unsaved(&l->epochs, l->end) || l->recovery_point < l->end ||
                                           snapshot_lacking(l) || !list_empty(&l->snapshots));
}

/* Dirt of segments leaves with the flush; a failed one fences, so it need not come back. */
static void flush_take(struct log_flush *f, struct log *l)
{
    assert(!l->flush && l->end >= l->durable);
    for (unsigned i = first_dirty(l, f->how); i < l->segments_n; i++) {
        l->segments[i]->dirty = false;
        l->segments[i]->again_from = l->segments[i]->again_to = 0;
        if (f->how == LOG_FLUSH_CHECKPOINT)
            l->segments[i]->index_dirty = false;
    }
    if (f->how == LOG_FLUSH_CHECKPOINT)
        l->old_index_dirty = false;
    f->sync_names = l->names_dirty;
    f->sync_parent = l->folder_new;
    l->names_dirty = l->folder_new = false;
    while (!list_empty(&l->snapshots))
        list_push(&f->snapshots, list_pop(&l->snapshots));
    if (f->epochs_write)
        l->epochs.unsaved = INT64_MAX;
    l->unflushed_records = 0;
    f->offset = l->end;
    assert(list_empty(&l->snapshots) && !l->names_dirty);
    l->flush = f;
}

int log_flush_begin(struct log *l, enum log_flush_how how, struct log_flush **out)
{
    assert(l->magic == LOG_MAGIC);
    if (l->fenced)
        return -E_FENCED;
    if (l->flush)
        return -E_BUSY;
    if (!is_dirty(l, how))
        return 0;
    struct log_flush *f = calloc(1, sizeof *f);
    if (!f)
        return -E_NOMEM;
    f->l = l;
    f->disk = l->disk;
    f->how = how;
    f->snapshot_remove = -1;
    list_init(&f->snapshots);
    buf_init(&f->epochs, (size_t)EPOCHS_MAX * 32);
    f->dir = malloc(strlen(l->dir) + 1);
    int rc = f->dir ? 0 : -E_NOMEM;
    if (!rc) {
        memcpy(f->dir, l->dir, strlen(l->dir) + 1);
        rc = flush_gather(f, l);
    }
    if (rc) {
        if (rc != -E_NOMEM && rc != -E_NOSPACE)
            log_broken(l, rc, &f->err);
        flush_free(f);
        return rc;
    }
    flush_take(f, l);
    *out = f;
    return 1;
}

int64_t log_flush_offset(const struct log_flush *f)
{
    assert(f->offset >= 0);
    return f->offset;
}

/* ---- on another thread: only what is in `f` ---- */

static int snapshot_path(const struct log_flush *f, int64_t offset, char out[LOG_PATH_MAX])
{
    assert(offset >= 0);
    return snprintf(out, LOG_PATH_MAX, "%s/%020lld" SUFFIX_SNAPSHOT, f->dir, (long long)offset);
}

static int run_files(struct log_flush *f)
{
    assert(f->rc == 0);
    for (unsigned i = 0; i < f->files_n; i++) {
        const struct flush_file *it = &f->files[i];
        struct disk_file *file = log_file_disk(it->file);
        int rc = segment_write_again(file, it->again_from, it->again_to);
        if (rc)
            return err_set(&f->err, rc, "what a start has found in %s cannot be written again", f->dir);
        rc = MUTANT("no_fsync") ? 0 : disk_fdatasync(file);
        if (rc && MUTANT("retry_fsync"))
            rc = disk_fdatasync(file);
        if (rc)
            return err_set(&f->err, rc,
                           "fdatasync of a file of %s failed: what was written since the last one may be "
                           "gone; the log is fenced",
                           f->dir);
    }
    return 0;
}

/* As disk_replace, but the folder is synced once for all of them: run_names. */
static int replace_file(struct log_flush *f, const char *path, struct slice content)
{
    assert(path);
    char temporary[LOG_PATH_MAX];
    struct disk_file *file;
    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary)
        return err_set(&f->err, -E_LIMIT, "the path %s is too long", path);
    int rc = disk_open(f->disk, temporary, DISK_WRITE | DISK_CREATE | DISK_TRUNCATE, &file, &f->err);
    if (rc)
        return rc;
    ssize_t n = disk_pwrite(file, content.p, content.n, 0);
    rc = n < 0 ? (int)n : MUTANT("no_fsync") ? 0 : disk_fdatasync(file);
    disk_close(file);
    if (!rc)
        rc = disk_rename(f->disk, temporary, path);
    f->sync_names = true;
    return rc ? err_set(&f->err, rc, "cannot write %s", path) : 0;
}

static int run_side_files(struct log_flush *f)
{
    assert(f->rc == 0);
    char path[LOG_PATH_MAX];
    int rc = 0;
    list_each (at, &f->snapshots) {
        struct snapshot_wanted *w = LIST_ENTRY(at, struct snapshot_wanted, link);
        snapshot_path(f, w->offset, path);
        if ((rc = replace_file(f, path, buf_slice(&w->bytes))))
            return rc;
    }
    if (f->epochs_write) {
        snprintf(path, sizeof path, "%s/" EPOCHS_FILE, f->dir);
        rc = replace_file(f, path, buf_slice(&f->epochs));
    }
    if (!rc && f->snapshot_remove >= 0) {
        snapshot_path(f, f->snapshot_remove, path);
        (void)disk_unlink(f->disk, path);
    }
    return rc;
}

static int run_names(struct log_flush *f)
{
    assert(f->dir[0]);
    int rc = 0;
    if (f->sync_names && (rc = names_sync(f->disk, f->dir)))
        return err_set(&f->err, rc, "sync of the folder %s failed", f->dir);
    if (f->sync_parent) {
        char *slash = strrchr(f->dir, '/');
        if (slash && slash != f->dir) {
            *slash = 0;
            rc = names_sync(f->disk, f->dir);
            *slash = '/';
        }
    }
    return rc ? err_set(&f->err, rc, "sync of the folder above %s failed", f->dir) : 0;
}

void log_flush_run(struct log_flush *f)
{
    assert(f->rc == 0 && f->side_rc == 0);
    f->rc = run_files(f);
    if (!f->rc)
        f->side_rc = run_side_files(f);
    if (f->side_rc && f->side_rc != -E_NOSPACE)
        f->rc = f->side_rc;
    if (!f->rc)
        f->rc = run_names(f);
}

/* ---- on the shard again ---- */

int log_flush_done(struct log *l, struct log_flush *f, struct err *err)
{
    assert(l->magic == LOG_MAGIC && l->flush == f && f->l == l);
    int rc = f->rc;
    l->flush = NULL;
    if (rc) {
        log_broken(l, rc, &f->err);
        err_set(err, rc, "%s", f->err.text);
    } else {
        assert(f->offset >= l->durable && f->offset <= l->end);
        l->durable = f->offset;
        if (f->how == LOG_FLUSH_CHECKPOINT && !f->side_rc)
            l->recovery_point = f->offset;
        if (f->side_rc) { /* to be written by a later one */
            l->epochs.unsaved = -1;
            l->snapshot_newest = -1;
        }
    }
    flush_free(f);
    INVARIANT(l);
    return rc;
}

bool log_flush_due(const struct log *l, int64_t wall_ms)
{
    assert(l->magic == LOG_MAGIC);
    if (l->unflushed_records == 0 || l->fenced)
        return false;
    return l->unflushed_records >= l->config.flush_messages ||
           wall_ms - l->unflushed_since_ms >= l->config.flush_ms;
}
