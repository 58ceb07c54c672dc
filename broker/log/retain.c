/* What goes at the front of a log: by time, by size, by DeleteRecords. A segment leaves the list at once, its files are
 * renamed and unlinked later; who still reads one holds its file. After a power cut a renamed file may be back under its
 * old name: then the log begins earlier than it did, unless log-start-offset-checkpoint says otherwise. */
#include "broker/log/log_internal.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const SUFFIXES[] = {SUFFIX_LOG, SUFFIX_INDEX, SUFFIX_TIMEINDEX, SUFFIX_SNAPSHOT};

int log_files_retire(struct log *l, int64_t base, int64_t wall_ms, struct err *err)
{
    char from[LOG_PATH_MAX], to[LOG_PATH_MAX];
    for (unsigned i = 0; i < sizeof SUFFIXES / sizeof *SUFFIXES; i++) {
        int rc = disk_rename(l->disk, log_path(l, base, SUFFIXES[i], "", from),
                             log_path(l, base, SUFFIXES[i], SUFFIX_DELETED, to));
        if (rc == -E_NOTFOUND && i > 0)
            continue;
        if (rc)
            return err_set(err, rc, "cannot rename %s", from);
        struct deleted_file *d = calloc(1, sizeof *d);
        if (!d)
            return err_set(err, -E_NOMEM, "no memory to delete %s", from); /* the next start removes it */
        d->due_ms = wall_ms + l->config.file_delete_delay_ms;
        snprintf(d->name, sizeof d->name, "%020lld%s" SUFFIX_DELETED, (long long)base, SUFFIXES[i]);
        list_push(&l->deleted, &d->link);
    }
    return 0;
}

void log_deleted_drop(struct log *l)
{
    while (!list_empty(&l->deleted))
        free(LIST_ENTRY(list_pop(&l->deleted), struct deleted_file, link));
}

unsigned log_sweep(struct log *l, int64_t wall_ms)
{
    unsigned left = 0;
    bool synced = false;
    list_each_safe(at, &l->deleted)
    {
        struct deleted_file *d = LIST_ENTRY(at, struct deleted_file, link);
        char path[LOG_PATH_MAX];
        if (wall_ms < d->due_ms) {
            left++;
            continue;
        }
        if (!synced && disk_sync_dir(l->disk, l->dir))
            return left + 1; /* the renames first: half of a deletion must not come back */
        synced = true;
        (void)disk_unlink(l->disk, log_path_named(l, d->name, path));
        list_remove(&d->link);
        free(d);
    }
    return left;
}

int log_set_start(struct log *l, int64_t offset)
{
    assert(l->magic == LOG_MAGIC);
    if (offset > l->end)
        return -E_RANGE;
    if (offset > l->start) {
        l->start = offset;
        epochs_cut_start(&l->epochs, offset);
    }
    return 0;
}

/* ---- retention ---- */

struct retaining {
    struct log *l;
    int64_t wall_ms, limit;
    int64_t excess; /* bytes above retention.bytes */
    bool by_policy;
};

/* Kafka's basis of retention.ms: the largest timestamp, or the file's time when it has none. */
static int expired(struct retaining *r, struct segment *s, struct err *err)
{
    struct log *l = r->l;
    char path[LOG_PATH_MAX];
    if (!r->by_policy || l->config.retention_ms < 0)
        return 0;
    int rc = segment_times(l, s, err);
    if (rc)
        return rc;
    int64_t time = s->max_timestamp >= 0
                       ? s->max_timestamp
                       : disk_mtime_ms(l->disk, log_path(l, s->base_offset, SUFFIX_LOG, "", path));
    return r->wall_ms - time > l->config.retention_ms;
}

/* May this segment, the oldest, go? 1, 0 or an error. */
static int may_go(struct retaining *r, struct segment *s, struct err *err)
{
    struct log *l = r->l;
    int64_t size = segment_size(l, s, err);
    if (size < 0)
        return (int)size;
    if (s->next_offset > r->limit || s->swapping || (s == log_active(l) && size == 0))
        return 0;
    if (s->next_offset <= l->start)
        return 1;
    if (r->excess >= size && size > 0)
        return 1;
    return expired(r, s, err);
}

/* The oldest segment leaves; the active one is rolled first. */
static int let_go(struct retaining *r, struct log_retained *out, struct err *err)
{
    struct log *l = r->l;
    struct segment *s = l->segments[0];
    int rc = 0;
    if (s == log_active(l) && (rc = log_roll(l, r->wall_ms, err)))
        return rc;
    assert(l->segments_n > 1 && s == l->segments[0]);
    int64_t base = s->base_offset, size = s->size_bytes;
    rc = log_files_retire(l, base, r->wall_ms, err);
    if (rc && rc != -E_NOMEM)
        return log_broken(l, rc, err);
    log_segments_remove(l, 0, 1);
    r->excess -= size;
    out->segments++;
    out->bytes += size;
    return log_set_start(l, l->segments[0]->base_offset);
}

int log_retain(struct log *l, int64_t wall_ms, int64_t limit_offset, struct log_retained *out,
               struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    *out = (struct log_retained){0};
    if (l->fenced)
        return err_set(err, -E_FENCED, "%s is fenced: %s", l->dir, log_fence_text(l));
    struct retaining r = {
        .l = l, .wall_ms = wall_ms, .limit = limit_offset, .by_policy = l->config.cleanup_delete};
    if (r.by_policy && l->config.retention_bytes >= 0) {
        int64_t size = log_size_bytes(l);
        if (size < 0)
            return err_set(err, (int)size, "cannot tell the size of %s", l->dir);
        r.excess = size - l->config.retention_bytes;
    }
    int rc;
    while ((rc = may_go(&r, l->segments[0], err)) > 0)
        if ((rc = let_go(&r, out, err)))
            break;
    return rc;
}
