/* Opening a log: what is on disk becomes segments, producers and epochs again.
 *
 *   1. the folder: junk goes, an interrupted swap is finished
 *   2. a clean log dir: the active segment is read from its last index entry on, the rest is trusted
 *   3. else: from the recovery point on every byte is written again where it is (it may be in the page cache only, and
 *      clean) and every batch is checked; what is torn is cut, what is corrupt stops us
 *      where the log promises the page cache and the process before was killed in it (kept.h), its headers are enough,
 *      and the first flush writes again
 *   4. epochs and producers: from their files, brought up to the end by the batches' headers */
#include "broker/log/folder.h"
#include "broker/log/damage.h"

#include "base/core/mutant.h"

#include <stdio.h>
#include <stdlib.h>

#define REMEDY                                                                                               \
    "the partition stays offline; look with `sundog dump log`, restore the file, or cut it there yourself"

/* ---- the end of a log that was closed well ---- */

/* The last time entry is of a batch that the segment has, and a later time is of a later batch: else the file has been
 * exchanged, and the next entry would contradict that one. */
static bool times_agree(const struct segment *s)
{
    assert(s->times.loaded && s->times_known);
    if (index_entries(&s->times) == 0)
        return true;
    const struct index_entry *last = &s->times.last;
    return last->value < s->next_offset && s->max_timestamp_offset >= last->value;
}

/* 0: read. 1: not as a clean shutdown leaves it. */
static int clean_end(struct log *l, struct segment *s, struct err *err)
{
    ASSERT_SEGMENT(s);
    assert(s == log_active(l));
    struct log_file *f;
    int64_t size = segment_size(l, s, err);
    if (size < 0)
        return (int)size;
    s->next_offset = INT64_MAX; /* not known yet: any offset fits */
    int rc = segment_indexes(l, s, NULL);
    s->next_offset = s->base_offset;
    if (rc)
        return 1;
    int64_t from = 0;
    if (index_entries(&s->offsets) > 0) {
        from = s->offsets.last.value;
        s->next_offset = s->offsets.last.key;
    }
    if (index_entries(&s->times) > 0) {
        s->max_timestamp = s->times.last.key;
        s->max_timestamp_offset = s->times.last.value;
    }
    if ((rc = segment_file(l, s, &f, err)))
        return rc;
    struct walk w;
    int32_t epoch = -1;
    walk_init(&w, log_file_disk(f), from, size, WALK_WINDOW_HEADERS);
    while ((rc = walk_next(&w)) > 0) {
        if (w.h.base_offset < s->base_offset || batch_last_offset(&w.h) < s->next_offset ||
            batch_last_offset(&w.h) - s->base_offset > INT32_MAX) {
            rc = -E_CORRUPT;
            break;
        }
        s->next_offset = batch_last_offset(&w.h) + 1;
        epoch = w.h.leader_epoch;
        if (w.h.records_n > 0 && w.h.max_timestamp > s->max_timestamp) {
            s->max_timestamp = w.h.max_timestamp;
            s->max_timestamp_offset = batch_last_offset(&w.h);
        }
    }
    walk_fini(&w);
    s->since_index = size - from;
    s->times_known = true;
    if (rc == 0 && !times_agree(s))
        return 1;
    if (rc == 0 && epoch > epochs_latest(&l->epochs))
        rc = log_epochs_rebuild(l, err); /* the file is older than the log, or damaged */
    return rc == -E_IO || rc == -E_NOMEM ? rc : rc < 0;
}

/* ---- the scan behind the recovery point ---- */

#define KEPT_TAIL_BYTES                                                                                      \
    ((int64_t)4 << 20) /* at the end of a file whose bytes were kept: checked all the same */

struct scan {
    struct log *l;
    struct segment *s;
    bool kept;
    int64_t expected; /* next offset */
    int64_t point;    /* recovery point */
    int32_t epoch;    /* of the batch before */
    int32_t
        known_epoch; /* the newest one at the recovery point, by the epoch file; INT32_MAX: it does not tell */
    int64_t cut_at;  /* position, -1: the segment is whole */
    bool ends_early; /* the file is too short for the batch there */
    bool disorder;   /* a whole batch, but not one that may follow */
    enum damage damage;
    struct damage_found found;
};

static int scan_from(struct scan *c, int64_t *from, struct err *err)
{
    assert(c->s && c->point >= 0);
    struct log *l = c->l;
    struct segment *s = c->s;
    char path[LOG_PATH_MAX], path2[LOG_PATH_MAX];
    struct index_entry e = {0, 0};
    struct batch_header h;
    uint32_t n = 0, times = 0;
    int64_t next = s->next_offset;
    *from = 0;
    s->next_offset = INT64_MAX;
    /* Up to the recovery point the index is on disk too: the entry before it is where the scan may begin. */
    bool fine = c->point > s->base_offset && segment_indexes(l, s, NULL) == 0 &&
                index_floor(&s->offsets, l->disk, log_path(l, s->base_offset, SUFFIX_INDEX, "", path),
                            c->point - 1, false, &n, &e, NULL) == 0 &&
                n > 0;
    s->next_offset = next;
    if (fine && segment_header_at(l, s, e.value, &h, NULL) == 0 && batch_last_offset(&h) == e.key &&
        index_floor(&s->times, l->disk, log_path(l, s->base_offset, SUFFIX_TIMEINDEX, "", path2), e.key - 1,
                    true, &times, &(struct index_entry){0}, NULL) == 0) {
        int rc = index_cut(&s->offsets, l->disk, path, n, NULL);
        if (!rc)
            rc = index_cut(&s->times, l->disk, path2, times, NULL);
        if (!rc)
            rc = index_check(&s->offsets, l->disk, path, e.key + 1, e.value + 1, NULL);
        if (!rc)
            rc = index_check(&s->times, l->disk, path2, e.key + 1, INT64_MAX, NULL);
        if (rc == 0) {
            *from = e.value;
            c->expected = h.base_offset;
            s->max_timestamp = times ? s->times.last.key : -1;
            s->max_timestamp_offset = times ? s->times.last.value : -1;
            return 0;
        }
    }
    int rc = index_reset(&s->offsets, l->disk, log_path(l, s->base_offset, SUFFIX_INDEX, "", path), err);
    if (!rc)
        rc = index_reset(&s->times, l->disk, log_path(l, s->base_offset, SUFFIX_TIMEINDEX, "", path), err);
    l->recovery.indexes_rebuilt++;
    return rc;
}

/* Offsets and epochs lie outside the CRC. They never fall; and where nothing was compacted, an offset that is one bit
 * away from the expected one has been changed. */
static bool in_order(const struct scan *c, const struct batch_header *h, int64_t position)
{
    assert(c->expected >= c->s->base_offset);
    bool gaps = c->l->config.cleanup_compact || position == 0;
    if (h->base_offset < c->expected || batch_last_offset(h) - c->s->base_offset > INT32_MAX)
        return false;
    if (h->base_offset < c->point && h->leader_epoch > c->known_epoch)
        return false;
    return h->leader_epoch >= c->epoch &&
           (gaps || __builtin_popcountll((uint64_t)(h->base_offset ^ c->expected)) != 1);
}

/* A batch that is where and what it should be: 1, else 0; or an error of the outside. */
static int scan_batch(struct scan *c, struct walk *w)
{
    assert(w->position >= 0);
    const struct batch_header *h = &w->h;
    bool known = c->kept && w->at < c->s->size_bytes - KEPT_TAIL_BYTES;
    int rc = known || MUTANT("crc_ignored_on_recovery") ? 1 : walk_crc_ok(w);
    c->disorder = rc == 1 && !in_order(c, h, w->position);
    if (rc != 1 || c->disorder)
        return rc < 0 ? rc : 0;
    if ((rc = segment_note(c->l, c->s, h, w->position)) ||
        (rc = epochs_assign(&c->l->epochs, h->leader_epoch, h->base_offset)))
        return rc;
    c->expected = batch_last_offset(h) + 1;
    c->epoch = h->leader_epoch;
    return 1;
}

int segment_write_again(struct disk_file *file, int64_t from, int64_t to)
{
    assert(from >= 0 && from <= to);
    if (from == to || MUTANT("page_cache_trusted"))
        return 0;
    size_t room = to - from < (int64_t)WALK_WINDOW_SCAN ? (size_t)(to - from) : WALK_WINDOW_SCAN;
    uint8_t *bytes = malloc(room);
    if (!bytes)
        return -E_NOMEM;
    ssize_t n = 0;
    for (int64_t at = from; at < to && n >= 0; at += n) {
        n = disk_pread(file, bytes, to - at < (int64_t)room ? (size_t)(to - at) : room, at);
        if (n > 0)
            n = disk_pwrite(file, bytes, (size_t)n, at);
        else if (n == 0)
            n = -E_IO; /* shorter than it was */
    }
    free(bytes);
    return n < 0 ? (int)n : 0;
}

static int scan_damage(struct scan *c, struct disk_file *file, int64_t at, struct err *err)
{
    assert(at >= 0 && at <= c->s->size_bytes);
    struct damage_site site = {
        .file = file,
        .at = at,
        .size = c->s->size_bytes,
        .expected_offset = c->expected,
        .gaps = c->l->config.cleanup_compact,
    };
    if (c->expected < c->point)
        return segment_bad(c->l, c->s, at, -E_CORRUPT, "bad batch below the recovery point: " REMEDY, err);
    int64_t head = at + BATCH_HEADER_BYTES < site.size ? at + BATCH_HEADER_BYTES : site.size;
    int rc = c->disorder ? damage_sector_lost(&site, head) : 1;
    /* A whole batch in the wrong place has not been torn, unless the first bytes of its offset were lost. */
    if (rc > 0)
        rc = damage_judge(&site, &c->found);
    else if (rc == 0)
        rc = DAMAGE_CORRUPT;
    if (rc < 0)
        return segment_bad(c->l, c->s, at, rc, "cannot read what follows a bad batch", err);
    c->damage = (enum damage)rc;
    c->cut_at = at;
    if (c->damage != DAMAGE_LOST)
        c->found.batches = 0; /* a torn batch's payload, or not to be lost */
    if (c->damage != DAMAGE_CORRUPT)
        return 0;
    char what[160];
    snprintf(what, sizeof what, "bad batch before valid ones (from %lld on): " REMEDY,
             (long long)c->found.next_valid);
    return segment_bad(c->l, c->s, at, -E_CORRUPT, what, err);
}

static int scan_segment(struct scan *c, struct err *err)
{
    ASSERT_SEGMENT(c->s);
    struct log *l = c->l;
    struct segment *s = c->s;
    struct log_file *f;
    int64_t from = 0, size = segment_size(l, s, err);
    c->cut_at = -1;
    c->expected = s->base_offset;
    if (size < 0)
        return (int)size;
    int rc = scan_from(c, &from, err);
    if (!rc)
        rc = segment_file(l, s, &f, err);
    if (rc)
        return rc;
    f = log_file_take(f);
    struct walk w;
    char path[LOG_PATH_MAX];
    s->created_ms = disk_mtime_ms(l->disk, log_path(l, s->base_offset, SUFFIX_LOG, "", path));
    if (c->kept) {
        s->again_from = from;
        s->again_to = size;
    } else if ((rc = segment_write_again(log_file_disk(f), from, size))) {
        log_file_drop(f);
        return segment_bad(l, s, from, rc, "cannot be read and written again", err);
    }
    epochs_cut_end(&l->epochs, c->expected);
    c->epoch = epochs_latest(&l->epochs);
    s->since_index = 0;
    s->next_offset = c->expected;
    walk_init(&w, log_file_disk(f), from, size, c->kept ? WALK_WINDOW_HEADERS : WALK_WINDOW_SCAN);
    while ((rc = walk_next(&w)) > 0 && (rc = scan_batch(c, &w)) > 0)
        ;
    c->ends_early = rc == -E_TRUNCATED;
    if (rc == -E_IO || rc == -E_NOMEM)
        segment_bad(l, s, w.position, rc, "cannot be read", err);
    else if (rc != 0 || w.position != size) /* no header, cut off, or scan_batch said no */
        rc = scan_damage(c, log_file_disk(f), w.position, err);
    l->recovery.segments_scanned++;
    assert(w.position >= from && w.position <= size);
    l->recovery.bytes_scanned += w.position - from;
    s->times_known = true;
    s->dirty = s->index_dirty = true;
    walk_fini(&w);
    log_file_drop(f);
    return rc;
}

/* Segments behind a cut: what they hold was appended later, so it was not flushed either. */
static int later_batches(struct log *l, unsigned from, int64_t expected, int64_t *batches, struct err *err)
{
    assert(from <= l->segments_n && expected >= 0);
    *batches = 0;
    for (unsigned i = from; i < l->segments_n; i++) {
        struct log_file *f;
        int64_t size = segment_size(l, l->segments[i], err);
        int rc = size < 0 ? (int)size : segment_file(l, l->segments[i], &f, err);
        if (rc)
            return rc;
        struct walk w;
        walk_init(&w, log_file_disk(f), 0, size, WALK_WINDOW_SCAN);
        while (walk_next(&w) == 1 && w.h.base_offset >= expected && walk_crc_ok(&w) == 1)
            ++*batches;
        walk_fini(&w);
    }
    return 0;
}

/* Makes segment `at` the last one, ending at position `cut` (-1: as it is); on disk on return. */
static int cut_log(struct log *l, unsigned at, int64_t cut, struct err *err)
{
    assert(at < l->segments_n && cut <= l->segments[at]->size_bytes);
    struct segment *s = l->segments[at];
    char path[LOG_PATH_MAX];
    struct log_file *f;
    int rc = segment_file(l, s, &f, err);
    if (rc)
        return rc;
    l->recovery.cut_position = cut < 0 ? s->size_bytes : cut;
    snprintf(l->recovery.cut_file, sizeof l->recovery.cut_file, "%020lld.log", (long long)s->base_offset);
    if (cut >= 0) {
        l->recovery.bytes_cut += s->size_bytes - cut;
        segment_again_cut(s, cut);
        rc = disk_truncate(log_file_disk(f), cut);
        if (!rc)
            rc = disk_fdatasync(log_file_disk(f)); /* what is written there next must not mix with what was */
        if (rc)
            return err_set(err, rc, "cannot cut %s", log_path(l, s->base_offset, SUFFIX_LOG, "", path));
        s->size_bytes = cut;
    }
    for (unsigned i = at + 1; i < l->segments_n; i++)
        l->recovery.bytes_cut += l->segments[i]->size_bytes > 0 ? l->segments[i]->size_bytes : 0;
    return log_remove_from(l, at + 1, err);
}

/* Segment `at` is damaged at c->cut_at, or (-1) ends before the next one begins. */
static int scan_end_here(struct scan *c, unsigned at, struct err *err)
{
    assert(c->s == c->l->segments[at] && c->expected >= c->point);
    struct log *l = c->l;
    struct log_file *f;
    int64_t later;
    int rc = later_batches(l, at + 1, c->expected, &later, err);
    if (rc)
        return rc;
    if (c->cut_at >= 0 && c->damage == DAMAGE_TORN && later > 0 && !c->ends_early) {
        if ((rc = segment_file(l, c->s, &f, err)))
            return rc;
        struct damage_site site = {log_file_disk(f), c->cut_at, c->s->size_bytes, c->expected, true};
        rc = damage_sector_lost(&site, c->s->size_bytes);
        if (rc < 0)
            return segment_bad(l, c->s, c->cut_at, rc, "cannot be read", err);
        if (rc == 0 && !MUTANT("corrupt_middle_as_tail"))
            return segment_bad(l, c->s, c->cut_at, -E_CORRUPT,
                               "bad batch, and valid ones in the next segment: " REMEDY, err);
    }
    l->recovery.batches_lost += later + c->found.batches;
    return cut_log(l, at, c->cut_at, err);
}

static int scan_log(struct log *l, int64_t point, bool kept, int32_t known_epoch, struct err *err)
{
    assert(l->segments_n > 0 && point >= 0);
    struct scan c = {.l = l, .kept = kept, .point = point, .epoch = -1, .known_epoch = known_epoch};
    for (unsigned i = log_segment_at(l, point); i < l->segments_n; i++) {
        c.s = l->segments[i];
        int64_t next_base = i + 1 < l->segments_n ? l->segments[i + 1]->base_offset : INT64_MAX;
        int rc = scan_segment(&c, err);
        if (rc)
            return rc;
        c.s->next_offset = c.expected;
        if (c.expected > next_base && next_base != INT64_MAX)
            return segment_bad(l, c.s, c.s->size_bytes, -E_CORRUPT,
                               "it holds offsets of the next segment too: " REMEDY, err);
        bool hole = next_base != INT64_MAX && c.expected < next_base && !l->config.cleanup_compact &&
                    c.expected >= point;
        if (c.cut_at >= 0 || hole)
            return scan_end_here(&c, i, err);
        if (i + 1 < l->segments_n && (rc = segment_spill(l, c.s, true, err)))
            return rc;
    }
    return 0;
}

/* ---- opening ---- */

static int segments_enter(struct log *l, const struct folder *f, struct err *err)
{
    assert(l->segments_n == 0);
    for (unsigned i = 0; i < f->logs.n; i++) {
        struct segment *s = segment_create(l, f->logs.v[i]);
        if (!s || log_segments_insert(l, i, s)) {
            segment_destroy(s);
            return err_set(err, -E_NOMEM, "no memory for the segments of %s", l->dir);
        }
        if (i > 0)
            l->segments[i - 1]->next_offset = f->logs.v[i];
    }
    l->recovery.segments = l->segments_n;
    return 0;
}

static int epochs_load(struct log *l, bool *rebuild, struct err *err)
{
    assert(l->epochs.n == 0);
    char path[LOG_PATH_MAX];
    struct slice text;
    int rc =
        disk_read_all(l->disk, log_path_named(l, EPOCHS_FILE, path), (size_t)EPOCHS_MAX * 32, &text, err);
    *rebuild = rc == -E_NOTFOUND;
    if (rc)
        return rc == -E_NOTFOUND ? 0 : rc;
    rc = epochs_read(&l->epochs, text, NULL);
    free((void *)(uintptr_t)text.p);
    *rebuild = rc == -E_CORRUPT || rc == -E_VERSION;
    return *rebuild ? 0 : rc ? err_set(err, rc, "cannot read %s", path) : 0;
}

static int first_segment(struct log *l, const struct log_open_options *o, struct err *err)
{
    assert(l->segments_n == 0);
    int64_t base = o->start_offset > o->create_offset ? o->start_offset : o->create_offset;
    struct segment *s = segment_create(l, base);
    if (!s || log_segments_insert(l, 0, s)) {
        segment_destroy(s);
        return err_set(err, -E_NOMEM, "no memory for a segment of %s", l->dir);
    }
    int rc = segment_make(l, s, o->wall_ms, err);
    /* Its name is durable at once: else a power cut could keep a later segment and lose this one. */
    if (!rc && !o->names_later && (rc = names_sync(l->disk, l->dir)))
        err_set(err, rc, "cannot sync %s", l->dir);
    if (!rc)
        s->dirty = l->names_dirty = false; /* and with its name a file without bytes */
    return rc;
}

static int open_active(struct log *l, const struct log_open_options *o, struct err *err)
{
    assert(l->end == log_active(l)->next_offset);
    char path[LOG_PATH_MAX];
    struct log_file *f;
    struct segment *s = log_active(l);
    int rc = segment_file(l, s, &f, err);
    if (rc)
        return rc;
    if (!s->data.pinned)
        log_handle_pin(&s->data);
    if (s->created_ms <= 0) /* not scanned: that has written to it */
        s->created_ms = disk_mtime_ms(l->disk, log_path(l, s->base_offset, SUFFIX_LOG, "", path));
    if (s->created_ms <= 0 || s->created_ms > o->wall_ms)
        s->created_ms = o->wall_ms;
    return segment_indexes(l, s, err);
}

/* Segments, epochs and the end; 1 in *clean when nothing had to be checked. */
static int read_segments(struct log *l, const struct log_open_options *o, bool *clean, struct err *err)
{
    assert(l->segments_n > 0);
    bool rebuild = false;
    int rc = epochs_load(l, &rebuild, err);
    if (rc)
        return rc;
    if (rebuild && o->clean && (rc = log_epochs_rebuild(l, err)))
        return rc;
    *clean = o->clean;
    if (o->clean) {
        rc = clean_end(l, log_active(l), err);
        if (rc < 0)
            return rc;
        *clean = rc == 0;
    }
    if (!*clean) {
        index_forget(&log_active(l)->offsets); /* looking for a clean end may have begun to rebuild them */
        index_forget(&log_active(l)->times);
        l->names_dirty = true; /* as with pages: a sync of the folder that failed was the last one */
        rc = scan_log(l, o->recovery_point, o->kept && l->config.page_cache,
                      rebuild ? INT32_MAX : epochs_latest(&l->epochs), err);
        if (!rc && rebuild && o->recovery_point > l->segments[0]->base_offset)
            rc = log_epochs_rebuild(l, err); /* else the scan has seen all of it */
    }
    l->end = log_active(l)->next_offset;
    return rc;
}

int log_recover(struct log *l, const struct log_open_options *o, struct err *err)
{
    assert(l->segments_n == 0 && l->files);
    struct folder f;
    bool clean = false;
    if (disk_kind(l->disk, l->dir) == DISK_NONE) {
        if (!o->create)
            return err_set(err, -E_NOTFOUND, "no log in %s", l->dir);
        int rc = disk_mkdir(l->disk, l->dir);
        if (rc && rc != -E_EXISTS)
            return err_set(err, rc, "cannot make %s", l->dir);
        l->folder_new = l->names_dirty = true;
    }
    int rc = folder_read(&f, l, err);
    if (rc)
        return rc;
    if (!(rc = folder_tidy(&f, l, err)) && !(rc = segments_enter(l, &f, err)))
        rc = l->segments_n ? read_segments(l, o, &clean, err) : first_segment(l, o, err);
    if (rc)
        goto done;
    if (f.logs.n == 0)
        l->end = log_active(l)->base_offset;
    l->start = o->start_offset > l->segments[0]->base_offset ? o->start_offset : l->segments[0]->base_offset;
    if (l->end < o->recovery_point) {
        rc = err_set(err, -E_CORRUPT,
                     "%s ends at offset %lld, but all below %lld had been written to disk: " REMEDY, l->dir,
                     (long long)l->end, (long long)o->recovery_point);
        goto done;
    }
    epochs_cut_end(&l->epochs, l->end + 1);
    epochs_cut_start(&l->epochs, l->start);
    l->durable = l->recovery_point = clean || f.logs.n == 0 ? l->end : o->recovery_point;
    if (!(rc = open_active(l, o, err)))
        rc = log_producers_load(l, l->end, o->wall_ms, f.snapshots.v, f.snapshots.n, err);
    if (!rc && l->start > l->end)
        rc = log_truncate_fully(l, l->start, o->wall_ms, err);
done:
    folder_fini(&f);
    return rc;
}
