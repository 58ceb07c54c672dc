/* What goes at the front of a log: by time, by size, by DeleteRecords. Segments leave the list at once; their files are
 * renamed to *.deleted and unlinked later; who still reads one holds its file.
 *
 * A power cut may undo any of several renames, and a hole where a newer segment is gone and an older one is back would
 * look like a lost tail. So the newest .log that goes is renamed first, to *.log.trimmed.deleted, and the folder
 * synced: with it all older ones are gone, whatever names they have. (Apache Kafka removes either kind of file.) */
#include "broker/log/log_internal.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const SUFFIXES[] = {SUFFIX_LOG, SUFFIX_INDEX, SUFFIX_TIMEINDEX, SUFFIX_SNAPSHOT};

static int deleted_add(struct log *l, int64_t base, const char *suffix, const char *suffix2, int64_t wall_ms)
{
    assert(base >= 0);
    struct deleted_file *d = calloc(1, sizeof *d);
    if (!d)
        return -E_NOMEM; /* the next start removes it */
    d->due_ms = wall_ms + l->config.file_delete_delay_ms;
    snprintf(d->name, sizeof d->name, "%020lld%s%s", (long long)base, suffix, suffix2);
    list_push(&l->deleted, &d->link);
    return 0;
}

int log_trim_mark(struct log *l, unsigned n, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    char from[LOG_PATH_MAX], to[LOG_PATH_MAX];
    assert(n > 0 && n <= l->segments_n);
    int64_t base = l->segments[n - 1]->base_offset;
    int rc = disk_rename(l->disk, log_path(l, base, SUFFIX_LOG, "", from),
                         log_path(l, base, SUFFIX_LOG, SUFFIX_TRIMMED, to));
    if (!rc)
        rc = names_sync(l->disk, l->dir);
    return rc ? err_set(err, rc, "cannot rename %s", from) : 0;
}

/* The files of the first `n` segments, marked before. */
static int retire_files(struct log *l, unsigned n, int64_t wall_ms, struct err *err)
{
    assert(n > 0 && n < l->segments_n);
    char from[LOG_PATH_MAX], to[LOG_PATH_MAX];
    (void)deleted_add(l, l->segments[n - 1]->base_offset, SUFFIX_LOG, SUFFIX_TRIMMED, wall_ms);
    for (unsigned k = 0; k < n; k++) {
        int64_t base = l->segments[k]->base_offset;
        for (unsigned i = k == n - 1; i < sizeof SUFFIXES / sizeof *SUFFIXES; i++) {
            int rc = disk_rename(l->disk, log_path(l, base, SUFFIXES[i], "", from),
                                 log_path(l, base, SUFFIXES[i], SUFFIX_DELETED, to));
            if (rc == -E_NOTFOUND && i > 0)
                continue;
            if (rc)
                return err_set(err, rc, "cannot rename %s", from);
            (void)deleted_add(l, base, SUFFIXES[i], SUFFIX_DELETED, wall_ms);
        }
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
    assert(l->magic == LOG_MAGIC);
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
        if (!synced && names_sync(l->disk, l->dir))
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
    ASSERT_SEGMENT(s);
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
    ASSERT_SEGMENT(s);
    assert(r->limit >= 0);
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

/* The first `n` segments leave. */
static int let_go(struct retaining *r, unsigned n, struct log_retained *out, struct err *err)
{
    assert(n > 0 && n <= r->l->segments_n);
    struct log *l = r->l;
    int rc = 0;
    if (n == l->segments_n && (rc = log_roll(l, r->wall_ms, err)))
        return rc;
    assert(n < l->segments_n);
    if ((rc = log_trim_mark(l, n, err)) || (rc = retire_files(l, n, r->wall_ms, err)))
        return log_broken(l, rc, err);
    for (unsigned i = 0; i < n; i++)
        out->bytes += l->segments[i]->size_bytes;
    out->segments = n;
    log_segments_remove(l, 0, n);
    assert(l->segments_n > 0 && l->segments[0]->base_offset <= r->limit);
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
    int rc = 0;
    unsigned n = 0;
    while (n < l->segments_n && (rc = may_go(&r, l->segments[n], err)) > 0)
        r.excess -= l->segments[n++]->size_bytes;
    if (rc >= 0)
        rc = n > 0 ? let_go(&r, n, out, err) : 0;
    INVARIANT(l);
    return rc;
}
