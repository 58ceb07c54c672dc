/* The shard's side of a compaction: what is to be cleaned, and putting the new segments in the place of the old.
 *
 * Names, in order, so that a crash at any point is understood (folder.c):
 *   job:    X.log.cleaned, X.index.cleaned, X.timeindex.cleaned written and synced   a crash: removed, nothing happened
 *           X.log.cleaned → X.log.swap, folder synced                                a crash: the swap is finished
 *   shard:  the old files unlinked, folder synced                                    from here on the shard's renames
 *           X.log.swap → X.log, the indexes likewise; the next flush syncs the folder
 * While it runs the segments concerned are marked: retention and truncation leave them alone. */
#include "broker/log/compact_internal.h"

#include <stdlib.h>

/* So many dirty segments are cleaned whatever their share when all that is cleanable fits in one segment. A log
 * whose keys grow in number while little is written to it (one for each topic that ever was) would be cleaned ever
 * later, and have ever more small segments open: with the ratio alone its segments are a share of its keys. */
#define SMALL_SEGMENTS_MAX 8

static const char *const SUFFIXES[] = {SUFFIX_LOG, SUFFIX_INDEX, SUFFIX_TIMEINDEX};

/* ---- choosing ---- */

/* How many segments from the first on may be cleaned: closed, on disk, below the limit, past min.compaction.lag.ms. */
static int cleanable(struct log *l, const struct log_compact_options *o, unsigned *n, struct err *err)
{
    assert(o->limit_offset >= 0);
    int64_t unstable = producers_first_unstable(&l->producers);
    int64_t limit = o->limit_offset < l->recovery_point ? o->limit_offset : l->recovery_point;
    limit = unstable >= 0 && unstable < limit ? unstable : limit;
    for (*n = 0; *n + 1 < l->segments_n; ++*n) {
        struct segment *s = l->segments[*n];
        if (s->next_offset > limit)
            break;
        int rc = l->config.min_compaction_lag_ms > 0 ? segment_times(l, s, err) : 0;
        if (rc)
            return rc;
        if (l->config.min_compaction_lag_ms > 0 &&
            s->max_timestamp > o->wall_ms - l->config.min_compaction_lag_ms)
            break;
    }
    return 0;
}

static int64_t dirty_from(const struct log *l, const struct log_compact_options *o)
{
    assert(o->clean_offset >= 0);
    int64_t first = l->segments[0]->base_offset;
    return o->clean_offset > first && o->clean_offset <= l->end ? o->clean_offset : first;
}

int log_dirtiness(struct log *l, const struct log_compact_options *o, struct log_dirtiness *out,
                  struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    unsigned n, dirty = 0;
    int64_t from = dirty_from(l, o), earliest = -1;
    *out = (struct log_dirtiness){0};
    int rc = cleanable(l, o, &n, err);
    for (unsigned i = 0; i < n && !rc; i++) {
        struct segment *s = l->segments[i];
        int64_t size = segment_size(l, s, err), first;
        if (size < 0)
            return (int)size;
        if (s->next_offset <= from) {
            out->clean_bytes += size;
            continue;
        }
        out->dirty_bytes += size;
        dirty++;
        first = segment_first_timestamp(l, s);
        if (first >= 0 && (earliest < 0 || first < earliest))
            earliest = first;
    }
    if (rc || out->dirty_bytes == 0)
        return rc;
    double ratio = (double)out->dirty_bytes / (double)(out->dirty_bytes + out->clean_bytes);
    bool too_old = earliest >= 0 && l->config.max_compaction_lag_ms < INT64_MAX &&
                   o->wall_ms - earliest > l->config.max_compaction_lag_ms;
    bool many = dirty >= SMALL_SEGMENTS_MAX && out->dirty_bytes + out->clean_bytes <= l->config.segment_bytes;
    out->due = ratio > l->config.min_cleanable_dirty_ratio || too_old || many;
    return 0;
}

/* ---- begin ---- */

static void compaction_free(struct log_compaction *c)
{
    free(c->dir);
    free(c->sources);
    free(c->keep);
    free(c->groups);
    free(c);
}

struct keeping {
    struct log_compaction *c;
    unsigned room;
};

static void keep_producer(void *arg, const struct log_producer *p)
{
    assert(p->producer_id >= 0);
    struct keeping *k = arg;
    if (p->last_offset >= 0 && k->c->keep_n < k->room)
        k->c->keep[k->c->keep_n++] = (struct compact_keep){p->producer_id, p->last_offset};
}

static int compaction_fill(struct log_compaction *c, struct log *l, unsigned n, struct err *err)
{
    assert(n > 0 && n < l->segments_n);
    unsigned producers = producers_count(&l->producers);
    struct keeping k = {c, producers};
    c->dir = malloc(strlen(l->dir) + 1);
    c->sources = calloc(n, sizeof *c->sources);
    c->keep = calloc(producers + 1, sizeof *c->keep);
    if (!c->dir || !c->sources || !c->keep)
        return err_set(err, -E_NOMEM, "no memory to compact %s", l->dir);
    memcpy(c->dir, l->dir, strlen(l->dir) + 1);
    producers_each(&l->producers, keep_producer, &k);
    if (producers > 0 && c->keep_n == 0 && !list_empty(&l->producers.by_age)) {
        /* No memory to list them, or only markers are known: the former must not make us forget ids. */
        list_each (at, &l->producers.by_age)
            if (LIST_ENTRY(at, struct producer, age)->batches_n)
                return -E_NOMEM;
    }
    for (unsigned i = 0; i < n; i++) {
        struct segment *s = l->segments[i];
        int64_t size = segment_size(l, s, err);
        if (size < 0)
            return (int)size;
        c->sources[c->sources_n++] = (struct compact_source){s->base_offset, s->next_offset, size};
    }
    return 0;
}

int log_compact_begin(struct log *l, const struct log_compact_options *o, struct log_compaction **out,
                      struct err *err)
{
    unsigned n;
    assert(l->magic == LOG_MAGIC && o->map_bytes > 0);
    if (l->fenced)
        return err_set(err, -E_FENCED, "%s is fenced: %s", l->dir, log_fence_text(l));
    if (l->compaction)
        return -E_BUSY;
    int rc = cleanable(l, o, &n, err);
    if (rc || n == 0 || l->segments[n - 1]->next_offset <= dirty_from(l, o))
        return rc;
    struct log_compaction *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(err, -E_NOMEM, "no memory to compact %s", l->dir);
    c->l = l;
    c->disk = l->disk;
    c->config = l->config;
    c->options = *o;
    c->dirty_from = dirty_from(l, o);
    if ((rc = compaction_fill(c, l, n, err))) {
        compaction_free(c);
        return rc;
    }
    for (unsigned i = 0; i < n; i++)
        l->segments[i]->swapping = true;
    l->compaction = c;
    *out = c;
    return 1;
}

/* ---- done ---- */

static void remove_new_files(struct log *l, const struct log_compaction *c)
{
    assert(!l->compaction);
    char path[LOG_PATH_MAX];
    for (unsigned i = 0; i < c->groups_n; i++) {
        int64_t base = c->groups[i].base_offset;
        (void)disk_unlink(l->disk, log_path(l, base, SUFFIX_LOG, SUFFIX_SWAP, path));
        for (unsigned k = 0; k < 3; k++)
            (void)disk_unlink(l->disk, log_path(l, base, SUFFIXES[k], SUFFIX_CLEANED, path));
    }
}

/* The files that the groups replace leave the folder, for good. */
static int unlink_old(struct log *l, const struct log_compaction *c, struct err *err)
{
    assert(c->groups_n > 0);
    char path[LOG_PATH_MAX];
    for (unsigned i = 0; i < c->groups_n; i++) {
        const struct compact_group *g = &c->groups[i];
        assert(g->swapped);
        for (unsigned k = g->first; k < g->first + g->n; k++) {
            int64_t base = c->sources[k].base_offset;
            for (unsigned m = 0; m < 3; m++) {
                int rc = disk_unlink(l->disk, log_path(l, base, SUFFIXES[m], "", path));
                if (rc && !(rc == -E_NOTFOUND && m > 0))
                    return err_set(err, rc, "cannot remove %s", path);
            }
            if (k > g->first && base != l->snapshot_newest && base != l->snapshot_before)
                (void)disk_unlink(l->disk, log_path(l, base, SUFFIX_SNAPSHOT, "", path));
        }
    }
    int rc = names_sync(l->disk, l->dir);
    return rc ? err_set(err, rc, "cannot sync %s", l->dir) : 0;
}

static int rename_new(struct log *l, const struct compact_group *g, struct err *err)
{
    assert(g->swapped);
    char from[LOG_PATH_MAX], to[LOG_PATH_MAX];
    for (unsigned k = 0; k < 3; k++) {
        log_path(l, g->base_offset, SUFFIXES[k], k == 0 ? SUFFIX_SWAP : SUFFIX_CLEANED, from);
        int rc = disk_rename(l->disk, from, log_path(l, g->base_offset, SUFFIXES[k], "", to));
        if (rc)
            return err_set(err, rc, "cannot rename %s", from);
    }
    l->names_dirty = true;
    return 0;
}

/* One group's segments leave the list, the new one comes. */
static int replace_segments(struct log *l, const struct log_compaction *c, const struct compact_group *g,
                            struct err *err)
{
    unsigned at = log_segment_at(l, g->base_offset);
    assert(l->segments[at]->base_offset == g->base_offset && at + g->n < l->segments_n);
    assert(l->segments[at + g->n - 1]->base_offset == c->sources[g->first + g->n - 1].base_offset);
    struct segment *s = segment_create(l, g->base_offset);
    if (!s)
        return err_set(err, -E_NOMEM, "no memory for a segment of %s", l->dir);
    s->next_offset = g->next_offset;
    s->size_bytes = g->size_bytes;
    s->max_timestamp = g->max_timestamp;
    s->max_timestamp_offset = g->max_timestamp_offset;
    s->first_timestamp = g->first_timestamp;
    s->times_known = true;
    assert(g->size_bytes > 0 && !s->data.file);
    log_segments_remove(l, at, g->n);
    return log_segments_insert(l, at, s); /* there is room: n ≥ 1 left */
}

static int install(struct log *l, struct log_compaction *c, struct log_compacted *out, struct err *err)
{
    assert(!l->fenced && !l->compaction);
    int rc = unlink_old(l, c, err);
    for (unsigned i = 0; i < c->groups_n && !rc; i++) {
        const struct compact_group *g = &c->groups[i];
        for (unsigned k = g->first; k < g->first + g->n; k++)
            out->bytes_before += c->sources[k].size_bytes;
        out->bytes_after += g->size_bytes;
        if (!(rc = rename_new(l, g, err)))
            rc = replace_segments(l, c, g, err);
    }
    log_hints_clear(l);
    out->clean_offset = c->map_end;
    out->records_before = c->records_before;
    out->records_after = c->records_after;
    return rc ? log_broken(l, rc, err) : 0; /* the next start finishes the swap */
}

int log_compact_done(struct log *l, struct log_compaction *c, struct log_compacted *out, struct err *err)
{
    assert(out);
    assert(l->magic == LOG_MAGIC && l->compaction == c);
    *out = (struct log_compacted){0};
    int rc = c->rc;
    l->compaction = NULL;
    for (unsigned i = 0; i < l->segments_n; i++)
        l->segments[i]->swapping = false;
    if (!rc && (l->fenced || atomic_load(&c->stop)))
        rc = err_set(err, -E_AGAIN, "compaction of %s was stopped", l->dir);
    else if (rc)
        err_set(err, rc, "%s", c->err.text);
    if (rc)
        remove_new_files(l, c);
    else
        rc = install(l, c, out, err);
    compaction_free(c);
    INVARIANT(l);
    return rc;
}
