/* What follows from the log and is kept beside it: producer snapshots and the epoch file. Both can be made again from
 * the batches' headers. */
#include "broker/log/log_internal.h"

#include <stdlib.h>

#define SNAPSHOT_LIMIT ((size_t)64 * 1024 * 1024)

int log_snapshot_want(struct log *l, int64_t offset)
{
    assert(offset >= 0 && offset <= l->end);
    struct snapshot_wanted *w = calloc(1, sizeof *w);
    if (!w)
        return -E_NOMEM;
    buf_init(&w->bytes, SNAPSHOT_LIMIT);
    w->offset = offset;
    int rc = producers_write(&l->producers, &w->bytes);
    if (rc) {
        buf_fini(&w->bytes);
        free(w);
        return rc;
    }
    list_push(&l->snapshots, &w->link);
    return 0;
}

void log_snapshots_drop(struct log *l)
{
    while (!list_empty(&l->snapshots)) {
        struct snapshot_wanted *w = LIST_ENTRY(list_pop(&l->snapshots), struct snapshot_wanted, link);
        buf_fini(&w->bytes);
        free(w);
    }
}

/* The state at `offset` from its file; any fault means "not that one". */
static int snapshot_load(struct log *l, int64_t offset)
{
    assert(producers_count(&l->producers) == 0);
    char path[LOG_PATH_MAX];
    struct slice text;
    int rc =
        disk_read_all(l->disk, log_path(l, offset, SUFFIX_SNAPSHOT, "", path), SNAPSHOT_LIMIT, &text, NULL);
    if (rc)
        return rc;
    rc = producers_read(&l->producers, text, NULL);
    free((void *)(uintptr_t)text.p);
    return rc;
}

/* Headers (whole batches where they are control batches) of one segment, offsets in [from, upto). */
static int replay_segment(struct log *l, struct segment *s, int64_t from, int64_t upto, int64_t wall_ms,
                          struct err *err)
{
    ASSERT_SEGMENT(s);
    assert(from < upto);
    struct batch_header h;
    int64_t position;
    struct log_file *f;
    int rc = segment_locate(l, s, from, &h, &position, err);
    if (rc <= 0)
        return rc;
    if ((rc = segment_file(l, s, &f, err)))
        return rc;
    struct walk w;
    walk_init(&w, log_file_disk(f), position, s->size_bytes, WALK_WINDOW_HEADERS);
    while ((rc = walk_next(&w)) > 0 && w.h.base_offset < upto) {
        struct slice batch = SLICE_NULL;
        if (w.h.base_offset < from)
            continue;
        if (batch_is(&w.h, BATCH_CONTROL) && (rc = walk_batch(&w, &batch)))
            break;
        if ((rc = producers_replay(&l->producers, &w.h, batch, wall_ms)))
            break;
    }
    if (rc < 0)
        rc = segment_bad(l, s, w.position, walk_code(rc), "producer state cannot be replayed", err);
    walk_fini(&w);
    return rc < 0 ? rc : 0;
}

int log_producers_load(struct log *l, int64_t upto, int64_t wall_ms, const int64_t *snapshots, unsigned n,
                       struct err *err)
{
    assert(l->segments_n > 0 && upto >= l->segments[0]->base_offset);
    char path[LOG_PATH_MAX];
    bool removed = false;
    int64_t from = l->segments[0]->base_offset;
    producers_clear(&l->producers);
    l->snapshot_newest = l->snapshot_before = -1;
    for (unsigned i = n; i-- > 0;) {
        assert(i == 0 || snapshots[i - 1] < snapshots[i]);
        if (snapshots[i] <= upto && snapshot_load(l, snapshots[i]) == 0) {
            l->snapshot_newest = snapshots[i];
            l->snapshot_before = i > 0 ? snapshots[i - 1] : -1;
            from = snapshots[i] > from ? snapshots[i] : from;
            break;
        }
        (void)disk_unlink(l->disk, log_path(l, snapshots[i], SUFFIX_SNAPSHOT, "", path));
        l->recovery.files_removed++;
        removed = true;
    }
    /* Offsets above are given anew: a snapshot of the old ones must never be back. */
    if (removed && names_sync(l->disk, l->dir))
        return err_set(err, -E_IO, "cannot sync %s", l->dir);
    for (unsigned i = log_segment_at(l, from); i < l->segments_n && from < upto; i++) {
        int rc = replay_segment(l, l->segments[i], from, upto, wall_ms, err);
        if (rc)
            return rc;
    }
    l->recovery.producers = producers_count(&l->producers);
    assert(l->snapshot_newest <= upto);
    return 0;
}

int log_epochs_rebuild(struct log *l, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    int rc = 0;
    epochs_clear(&l->epochs);
    for (unsigned i = 0; i < l->segments_n && rc >= 0; i++) {
        struct segment *s = l->segments[i];
        struct log_file *f;
        int64_t size = segment_size(l, s, err);
        rc = size < 0 ? (int)size : segment_file(l, s, &f, err);
        if (rc)
            return rc;
        struct walk w;
        walk_init(&w, log_file_disk(f), 0, size, WALK_WINDOW_SCAN);
        while ((rc = walk_next(&w)) > 0)
            if ((rc = epochs_assign(&l->epochs, w.h.leader_epoch, w.h.base_offset)))
                break;
        if (rc < 0)
            rc = segment_bad(l, s, w.position, walk_code(rc), "epochs cannot be read", err);
        walk_fini(&w);
    }
    l->epochs.unsaved = l->epochs.n > 0 ? -1 : INT64_MAX; /* no file says as much as an empty one */
    return rc;
}
