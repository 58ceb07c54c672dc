/* What goes at the end of a log (a follower reconciles with its leader), and all of it (a snapshot takes its place). On
 * disk on return: later appends must not mix with what was there. */
#include "broker/log/folder.h"

#include <stdlib.h>

static const char *const SUFFIXES[] = {SUFFIX_LOG, SUFFIX_INDEX, SUFFIX_TIMEINDEX, SUFFIX_SNAPSHOT};

static int may_truncate(const struct log *l, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    if (l->fenced)
        return err_set(err, -E_FENCED, "%s is fenced: %s", l->dir, log_fence_text(l));
    if (l->flush || l->compaction)
        return err_set(err, -E_BUSY, "%s is being %s", l->dir, l->flush ? "flushed" : "compacted");
    return 0;
}

static int remove_files(struct log *l, int64_t base, struct err *err)
{
    assert(base >= 0);
    char path[LOG_PATH_MAX];
    for (unsigned k = 0; k < sizeof SUFFIXES / sizeof *SUFFIXES; k++) {
        int rc = disk_unlink(l->disk, log_path(l, base, SUFFIXES[k], "", path));
        if (rc && rc != -E_NOTFOUND)
            return err_set(err, rc, "cannot remove %s", path);
    }
    return 0;
}

static int sync_names(struct log *l, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    int rc = names_sync(l->disk, l->dir);
    return rc ? err_set(err, rc, "cannot sync %s", l->dir) : 0;
}

int log_remove_from(struct log *l, unsigned at, struct err *err)
{
    assert(at <= l->segments_n);
    for (unsigned i = l->segments_n; i-- > at;) {
        int64_t base = l->segments[i]->base_offset;
        log_segments_remove(l, i, 1);
        int rc = remove_files(l, base, err);
        if (rc || (rc = sync_names(l, err)))
            return rc;
    }
    return 0;
}

/* All of them: what is behind the mark may go in any order. */
static int remove_all(struct log *l, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    char path[LOG_PATH_MAX];
    if (l->segments_n == 0)
        return 0;
    int64_t newest = log_active(l)->base_offset;
    int rc = log_trim_mark(l, l->segments_n, err);
    for (unsigned i = 0; i < l->segments_n && !rc; i++)
        rc = remove_files(l, l->segments[i]->base_offset, err);
    log_segments_remove(l, 0, l->segments_n);
    if (!rc)
        rc = sync_names(l, err);
    if (!rc && (rc = disk_unlink(l->disk, log_path(l, newest, SUFFIX_LOG, SUFFIX_TRIMMED, path))))
        return err_set(err, rc, "cannot remove %s", path);
    return rc ? rc : sync_names(l, err);
}

/* Cuts one segment's files so that `offset` is its end; no batch that reaches over it stays. */
static int cut_segment(struct log *l, struct segment *s, int64_t offset, struct err *err)
{
    ASSERT_SEGMENT(s);
    assert(s == log_active(l) && offset > s->base_offset);
    char path[LOG_PATH_MAX];
    struct batch_header h;
    struct log_file *f;
    int64_t position;
    uint32_t n, times;
    struct index_entry e = {0, 0};
    int64_t size = segment_size(l, s, err);
    int rc = size < 0 ? (int)size : segment_locate(l, s, offset, &h, &position, err);
    if (rc < 0 || (rc = segment_file(l, s, &f, err)))
        return rc;
    if (!s->data.pinned)
        log_handle_pin(&s->data);
    if ((rc = disk_truncate(log_file_disk(f), position)) || (rc = disk_fdatasync(log_file_disk(f))))
        return segment_bad(l, s, position, rc, "cannot truncate", err);
    s->size_bytes = position;
    segment_again_cut(s, position);
    s->reserved_bytes = 0;
    log_path(l, s->base_offset, SUFFIX_INDEX, "", path);
    if ((rc = index_floor(&s->offsets, l->disk, path, offset - 1, false, &n, &e, err)) ||
        (rc = index_cut(&s->offsets, l->disk, path, n, err)))
        return rc;
    s->since_index = position - (n > 0 ? e.value : 0);
    log_path(l, s->base_offset, SUFFIX_TIMEINDEX, "", path);
    if ((rc = index_floor(&s->times, l->disk, path, offset - 1, true, &times, &e, err)) ||
        (rc = index_cut(&s->times, l->disk, path, times, err)))
        return rc;
    s->max_timestamp = times > 0 ? e.key : -1;
    s->max_timestamp_offset = times > 0 ? e.value : -1;
    s->dirty = s->index_dirty = true;
    return 0;
}

/* Its end and largest timestamp, from the last index entries on. */
static int reread_end(struct log *l, struct segment *s, struct err *err)
{
    ASSERT_SEGMENT(s);
    assert(s->data.pinned);
    int64_t from = index_entries(&s->offsets) > 0 ? s->offsets.last.value : 0;
    struct walk w;
    int rc;
    if (from < 0 || from > s->size_bytes)
        from = 0; /* the index lies */
    s->next_offset = s->base_offset;
    walk_init(&w, log_file_disk(s->data.file), from, s->size_bytes, WALK_WINDOW_HEADERS);
    while ((rc = walk_next(&w)) > 0) {
        s->next_offset = batch_last_offset(&w.h) + 1;
        if (w.h.records_n > 0 && w.h.max_timestamp > s->max_timestamp) {
            s->max_timestamp = w.h.max_timestamp;
            s->max_timestamp_offset = batch_last_offset(&w.h);
        }
    }
    walk_fini(&w);
    s->times_known = true;
    return rc ? segment_bad(l, s, w.position, walk_code(rc), "no batch where one should begin", err) : 0;
}

static int reload_producers(struct log *l, int64_t wall_ms, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    struct folder f;
    log_snapshots_drop(l); /* of the part that is gone, perhaps */
    int rc = folder_read(&f, l, err);
    if (!rc)
        rc = log_producers_load(l, l->end, wall_ms, f.snapshots.v, f.snapshots.n, err);
    folder_fini(&f);
    return rc;
}

static int truncate_to(struct log *l, int64_t offset, int64_t wall_ms, struct err *err)
{
    assert(offset > l->segments[0]->base_offset && offset < l->end);
    unsigned at = log_segment_at(l, offset);
    /* A segment that begins there goes too, so that the one before is active again; but the first one stays. */
    if (at > 0 && l->segments[at]->base_offset == offset)
        at--;
    int rc = log_remove_from(l, at + 1, err);
    struct segment *s = log_active(l);
    if (!rc)
        rc = cut_segment(l, s, offset, err);
    if (!rc)
        rc = reread_end(l, s, err);
    if (rc)
        return rc;
    s->created_ms = wall_ms; /* of segment.ms, for batches without a time */
    l->end = s->next_offset;
    if (l->end < l->start)
        l->start = l->end;
    l->durable = l->durable < l->end ? l->durable : l->end;
    l->recovery_point = l->recovery_point < l->end ? l->recovery_point : l->end;
    log_hints_clear(l);
    epochs_cut_end(&l->epochs, l->end);
    assert(l->end <= offset && l->start <= l->end);
    return reload_producers(l, wall_ms, err);
}

int log_truncate(struct log *l, int64_t offset, int64_t wall_ms, struct err *err)
{
    assert(offset >= 0);
    int rc = may_truncate(l, err);
    if (rc || offset >= l->end)
        return rc;
    if (offset <= l->segments[0]->base_offset)
        return log_truncate_fully(l, offset, wall_ms, err);
    if ((rc = truncate_to(l, offset, wall_ms, err)))
        log_broken(l, rc, err);
    INVARIANT(l);
    return rc;
}

int log_truncate_fully(struct log *l, int64_t offset, int64_t wall_ms, struct err *err)
{
    int rc = may_truncate(l, err);
    assert(offset >= 0);
    if (rc)
        return rc;
    struct segment *s = segment_create(l, offset); /* first: a log is never without one */
    if (!s)
        return err_set(err, -E_NOMEM, "no memory for a segment of %s", l->dir);
    rc = remove_all(l, err);
    if (log_segments_insert(l, 0, s))
        abort(); /* there is room where at least one has been */
    if (!rc)
        rc = segment_make(l, s, wall_ms, err);
    if (!rc)
        rc = names_sync(l->disk, l->dir);
    if (rc)
        log_broken(l, rc, err);
    l->start = l->end = l->durable = l->recovery_point = offset;
    log_hints_clear(l);
    epochs_clear(&l->epochs);
    assert(l->segments_n == 1 && log_active(l)->base_offset == offset);
    return rc ? rc : reload_producers(l, wall_ms, err);
}
