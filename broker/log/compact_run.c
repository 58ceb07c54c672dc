/* The job of a compaction: read the dirty part into the key map, then write each group of segments anew. */
#include "broker/log/compact_internal.h"

#include "base/core/bytes.h"

#include <stdio.h>
#include <stdlib.h>

#define WRITE_BUFFER  ((size_t)1024 * 1024)
#define RECORDS_LIMIT ((size_t)INT32_MAX)

static const char *path_of(const struct log_compaction *c, int64_t base, const char *suffix,
                           const char *suffix2, char out[LOG_PATH_MAX])
{
    assert(base >= 0);
    int n = snprintf(out, LOG_PATH_MAX, "%s/%020lld%s%s", c->dir, (long long)base, suffix, suffix2);
    assert(n > 0 && n < LOG_PATH_MAX);
    return out;
}

static bool stopped(const struct log_compaction *c)
{
    return atomic_load_explicit(&c->stop, memory_order_relaxed);
}

/* Calls `each` for every batch of a source, its CRC checked. */
static int each_batch(struct log_compaction *c, const struct compact_source *s,
                      int (*each)(void *arg, const struct batch_header *h, struct slice batch), void *arg)
{
    assert(s->next_offset > s->base_offset && s->size_bytes >= 0);
    char path[LOG_PATH_MAX];
    struct disk_file *file;
    int rc = disk_open(c->disk, path_of(c, s->base_offset, SUFFIX_LOG, "", path), DISK_READ, &file, &c->err);
    if (rc)
        return rc;
    struct walk w;
    int64_t expected = s->base_offset;
    walk_init(&w, file, 0, s->size_bytes, WALK_WINDOW_SCAN);
    while ((rc = walk_next(&w)) > 0) {
        struct slice batch;
        if (stopped(c))
            rc = -E_AGAIN;
        else if ((rc = walk_batch(&w, &batch)) == 0)
            rc = walk_crc_ok(&w) == 1 && w.h.base_offset >= expected &&
                         batch_last_offset(&w.h) < s->next_offset
                     ? each(arg, &w.h, batch)
                     : -E_CORRUPT;
        if (rc)
            break;
        expected = batch_last_offset(&w.h) + 1;
    }
    if (rc < 0 && rc != -E_AGAIN)
        rc = err_set(&c->err, walk_code(rc), "%s position %lld: %s; not compacted", path,
                     (long long)w.position, err_str(walk_code(rc)));
    walk_fini(&w);
    disk_close(file);
    return rc;
}

/* ---- the map ---- */

struct mapping {
    struct log_compaction *c;
    struct key_map map;
    struct buf scratch;
    bool full;
};

static int map_record(void *arg, const struct record *r)
{
    struct mapping *m = arg;
    assert(!m->full && r->offset >= 0);
    if (slice_is_null(r->key) || r->offset < m->c->dirty_from)
        return 0;
    m->full = !key_map_put(&m->map, r->key, r->offset);
    return m->full ? 1 : 0;
}

/* 1 when the map is full: `map_end` stays before this batch, so all of it stays; those of its keys that are in the map
 * rightly replace older ones. */
static int map_batch(void *arg, const struct batch_header *h, struct slice batch)
{
    struct mapping *m = arg;
    assert(m->c->map_end <= h->base_offset || h->base_offset < m->c->dirty_from);
    if (batch_last_offset(h) >= m->c->dirty_from && !batch_is(h, BATCH_CONTROL) && h->records_n > 0) {
        int rc = compact_records(&m->c->config, h, batch, &m->scratch, map_record, m);
        if (m->full)
            return 1;
        if (rc && rc != -E_LIMIT)
            return rc;
    }
    m->c->map_end = batch_last_offset(h) + 1;
    return 0;
}

static int fill_map(struct log_compaction *c, struct mapping *m)
{
    assert(c->sources_n > 0 && c->options.map_bytes > 0);
    int64_t dirty = 0;
    for (unsigned i = 0; i < c->sources_n; i++)
        if (c->sources[i].next_offset > c->dirty_from)
            dirty += c->sources[i].size_bytes;
    buf_init(&m->scratch, RECORDS_LIMIT);
    c->map_end = c->dirty_from;
    int rc = key_map_init(&m->map, c->options.map_bytes, (size_t)dirty / 8 + 16, c->options.seed);
    for (unsigned i = 0; i < c->sources_n && !rc; i++) {
        if (c->sources[i].next_offset <= c->dirty_from)
            continue;
        rc = each_batch(c, &c->sources[i], map_batch, m);
        if (!rc)
            c->map_end = c->sources[i].next_offset;
    }
    if (m->full)
        rc = c->map_end > c->dirty_from
                 ? 0
                 : err_set(&c->err, -E_LIMIT,
                           "the keys of one batch at offset %lld of %s do not fit into %zu bytes: "
                           "raise log.cleaner.dedupe.buffer.size",
                           (long long)c->map_end, c->dir, c->options.map_bytes);
    return rc;
}

/* ---- writing ---- */

struct writing {
    struct log_compaction *c;
    struct compact_group *g;
    struct compact_filter filter;
    struct disk_file *file;
    struct buf out, offsets, times; /* waiting bytes of .log; the whole indexes */
    int64_t at;                     /* size of the new .log, without `out` */
    int64_t since_index, last_time;
    bool dropped; /* the last batch so far, with this header */
    struct batch_header dropped_head;
};

/* As segment_note, into memory. */
static void note(struct writing *w, const struct batch_header *h, int64_t position)
{
    assert(position >= 0 && h->base_offset >= w->g->base_offset);
    uint8_t raw[12];
    int64_t last = batch_last_offset(h);
    if (position == 0)
        w->g->first_timestamp = h->max_timestamp >= 0 ? h->max_timestamp : -1;
    if (h->records_n > 0 && h->max_timestamp > w->g->max_timestamp) {
        w->g->max_timestamp = h->max_timestamp;
        w->g->max_timestamp_offset = last;
    }
    if (w->since_index > w->c->config.index_interval_bytes) {
        be32_put(raw, (uint32_t)(last - w->g->base_offset));
        be32_put(raw + 4, (uint32_t)position);
        buf_put(&w->offsets, raw, 8);
        w->since_index = 0;
    }
    w->since_index += (int64_t)batch_size(h);
}

static void note_time(struct writing *w)
{
    assert(w->g->max_timestamp_offset >= -1);
    if (w->g->max_timestamp <= w->last_time)
        return;
    buf_put_be64(&w->times, (uint64_t)w->g->max_timestamp);
    buf_put_be32(&w->times, (uint32_t)(w->g->max_timestamp_offset - w->g->base_offset));
    w->last_time = w->g->max_timestamp;
}

static int write_out(struct writing *w)
{
    assert(w->at >= 0);
    if (w->out.n == 0)
        return 0;
    ssize_t n = disk_pwrite(w->file, w->out.p, w->out.n, w->at);
    if (n < 0)
        return (int)n;
    w->at += (int64_t)w->out.n;
    buf_clear(&w->out);
    return 0;
}

/* What lies in `out` from `from` on is one batch that stays. */
static int keep_batch(struct writing *w, size_t from)
{
    assert(from < w->out.n);
    struct batch_header kept;
    size_t entries = w->offsets.n;
    int rc = batch_header_read(slice_of(w->out.p + from, w->out.n - from), &kept, NULL);
    assert(rc == 0 && batch_size(&kept) == w->out.n - from);
    if (w->at + (int64_t)w->out.n > INT32_MAX)
        return err_set(&w->c->err, -E_LIMIT, "segment %lld of %s would grow beyond 2 GiB",
                       (long long)w->g->base_offset, w->c->dir);
    note(w, &kept, w->at + (int64_t)from);
    if (w->offsets.n > entries)
        note_time(w);
    return rc;
}

static int write_batch(void *arg, const struct batch_header *h, struct slice batch)
{
    assert(batch.n == batch_size(h));
    struct writing *w = arg;
    size_t before = w->out.n;
    int rc = compact_filter_batch(&w->filter, h, batch, &w->out);
    if (rc)
        return rc;
    w->dropped = w->out.n == before;
    w->dropped_head = *h;
    if (!w->dropped && (rc = keep_batch(w, before)))
        return rc;
    return w->out.n >= WRITE_BUFFER ? write_out(w) : 0;
}

/* The last batch of a group stays, empty: the segment must end where the ones it replaces ended, so that a swap that
 * was interrupted knows what it replaces, and no hole is left before the next segment. */
static int write_end(struct writing *w)
{
    assert(w->g->n > 0);
    size_t before = w->out.n;
    int rc = 0;
    if (w->dropped) {
        compact_put_empty(&w->dropped_head, &w->out);
        rc = w->out.failed ? -E_NOMEM : keep_batch(w, before);
    }
    return rc ? rc : write_out(w);
}

static int write_whole(struct log_compaction *c, int64_t base, const char *suffix, struct slice content)
{
    assert(base >= 0);
    char path[LOG_PATH_MAX];
    struct disk_file *f;
    int rc = disk_open(c->disk, path_of(c, base, suffix, SUFFIX_CLEANED, path),
                       DISK_WRITE | DISK_CREATE | DISK_TRUNCATE, &f, &c->err);
    if (rc)
        return rc;
    ssize_t n = content.n ? disk_pwrite(f, content.p, content.n, 0) : 0;
    rc = n < 0 ? (int)n : disk_fdatasync(f);
    disk_close(f);
    return rc ? err_set(&c->err, rc, "cannot write %s", path) : 0;
}

static int write_group(struct writing *w)
{
    assert(w->g->n > 0 && w->at == 0);
    struct log_compaction *c = w->c;
    struct compact_group *g = w->g;
    char path[LOG_PATH_MAX], to[LOG_PATH_MAX];
    int rc = disk_open(c->disk, path_of(c, g->base_offset, SUFFIX_LOG, SUFFIX_CLEANED, path),
                       DISK_WRITE | DISK_CREATE | DISK_TRUNCATE, &w->file, &c->err);
    if (rc)
        return rc;
    for (unsigned i = g->first; i < g->first + g->n && !rc; i++)
        rc = each_batch(c, &c->sources[i], write_batch, w);
    if (!rc && !(rc = write_end(w)))
        rc = disk_fdatasync(w->file);
    disk_close(w->file);
    if (rc)
        return c->err.code == rc ? rc : err_set(&c->err, rc, "cannot write %s", path);
    note_time(w);
    g->size_bytes = w->at;
    assert(g->size_bytes > 0 && w->out.n == 0);
    rc = w->offsets.failed || w->times.failed ? -E_NOMEM : 0;
    if (!rc)
        rc = write_whole(c, g->base_offset, SUFFIX_INDEX, buf_slice(&w->offsets));
    if (!rc)
        rc = write_whole(c, g->base_offset, SUFFIX_TIMEINDEX, buf_slice(&w->times));
    if (!rc && (rc = disk_rename(c->disk, path, path_of(c, g->base_offset, SUFFIX_LOG, SUFFIX_SWAP, to))))
        err_set(&c->err, rc, "cannot rename %s", path);
    g->swapped = rc == 0;
    return rc;
}

static int run_group(struct log_compaction *c, struct compact_group *g, const struct key_map *map)
{
    assert(g->n > 0 && !g->swapped);
    struct writing w = {.c = c, .g = g, .last_time = -1, .filter = {.c = c, .map = map}};
    buf_init(&w.out, RECORDS_LIMIT);
    buf_init(&w.offsets, RECORDS_LIMIT);
    buf_init(&w.times, RECORDS_LIMIT);
    buf_init(&w.filter.scratch, RECORDS_LIMIT);
    int rc = write_group(&w);
    c->records_before += w.filter.records_before;
    c->records_after += w.filter.records_after;
    buf_fini(&w.out);
    buf_fini(&w.offsets);
    buf_fini(&w.times);
    buf_fini(&w.filter.scratch);
    return rc;
}

/* Neighbours whose sum is no larger than a segment may be become one. */
static int make_groups(struct log_compaction *c)
{
    assert(c->groups_n == 0);
    c->groups = calloc(c->sources_n, sizeof *c->groups);
    if (!c->groups)
        return -E_NOMEM;
    int64_t most = c->config.segment_index_bytes / 12 * (int64_t)(c->config.index_interval_bytes + 1);
    most = most < c->config.segment_bytes ? most : c->config.segment_bytes;
    for (unsigned i = 0; i < c->sources_n; i++) {
        const struct compact_source *s = &c->sources[i];
        struct compact_group *g = c->groups_n ? &c->groups[c->groups_n - 1] : NULL;
        if (s->base_offset >= c->map_end)
            break;
        if (!g || g->size_bytes + s->size_bytes > most || s->next_offset - g->base_offset > INT32_MAX) {
            g = &c->groups[c->groups_n++];
            *g = (struct compact_group){.first = i,
                                        .base_offset = s->base_offset,
                                        .max_timestamp = -1,
                                        .max_timestamp_offset = -1,
                                        .first_timestamp = -1};
        }
        g->n++;
        g->next_offset = s->next_offset;
        g->size_bytes += s->size_bytes;
    }
    return 0;
}

void log_compact_run(struct log_compaction *c)
{
    assert(c->rc == 0 && c->groups_n == 0);
    struct mapping m = {.c = c};
    int rc = fill_map(c, &m);
    if (!rc)
        rc = make_groups(c);
    for (unsigned i = 0; i < c->groups_n && !rc; i++)
        rc = run_group(c, &c->groups[i], &m.map);
    /* From here on recovery would finish the swap. */
    if (!rc && (rc = names_sync(c->disk, c->dir)))
        err_set(&c->err, rc, "cannot sync %s", c->dir);
    key_map_fini(&m.map);
    buf_fini(&m.scratch);
    if (rc && c->err.code != rc)
        err_set(&c->err, rc, "compaction of %s: %s", c->dir, err_str(rc));
    c->rc = rc;
}

void log_compact_stop(struct log_compaction *c)
{
    atomic_store_explicit(&c->stop, true, memory_order_relaxed);
}
