/* <20 digits of the base offset>.log: record batches one behind the other (proto/kafka/batch.h has their bytes),
 * offsets rising, nothing else; its size is the end. Behind a kill there may be part of a batch, behind a power cut
 * zeroes. */
#include "broker/log/log_internal.h"

#include <stdlib.h>

struct segment *segment_create(struct log *l, int64_t base_offset)
{
    assert(l->magic == LOG_MAGIC);
    assert(base_offset >= 0 && l->files);
    struct segment *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->magic = SEGMENT_MAGIC;
    s->base_offset = s->next_offset = base_offset;
    s->size_bytes = -1;
    s->max_timestamp = s->max_timestamp_offset = -1;
    s->first_timestamp = -2;
    s->rebuilt_ms = -1;
    log_handle_init(&s->data, l->files);
    index_init(&s->offsets, INDEX_OFFSETS, base_offset, l->files);
    index_init(&s->times, INDEX_TIMES, base_offset, l->files);
    return s;
}

void segment_destroy(struct segment *s)
{
    if (!s)
        return;
    assert(s->magic == SEGMENT_MAGIC);
    log_handle_close(&s->data);
    index_fini(&s->offsets);
    index_fini(&s->times);
    s->magic = 0;
    free(s);
}

int segment_bad(const struct log *l, const struct segment *s, int64_t position, int code, const char *what,
                struct err *err)
{
    assert(code < 0 && what);
    char path[LOG_PATH_MAX];
    return err_set(err, code, "%s position %lld: %s", log_path(l, s->base_offset, SUFFIX_LOG, "", path),
                   (long long)position, what);
}

int segment_make(struct log *l, struct segment *s, int64_t wall_ms, struct err *err)
{
    ASSERT_SEGMENT(s);
    assert(l->magic == LOG_MAGIC && s->next_offset == s->base_offset);
    char path[LOG_PATH_MAX];
    struct log_file *f;
    assert(s->size_bytes < 0 && !s->data.file);
    int rc = log_handle_get(&s->data, l->disk, log_path(l, s->base_offset, SUFFIX_LOG, "", path),
                            DISK_WRITE | DISK_CREATE | DISK_TRUNCATE, &f, err);
    if (rc)
        return rc;
    log_handle_pin(&s->data);
    if (l->config.preallocate) {
        (void)disk_allocate(log_file_disk(f), 0, l->config.segment_bytes);
        s->reserved_bytes = l->config.segment_bytes;
    }
    rc = index_reset(&s->offsets, l->disk, log_path(l, s->base_offset, SUFFIX_INDEX, "", path), err);
    if (!rc)
        rc = index_reset(&s->times, l->disk, log_path(l, s->base_offset, SUFFIX_TIMEINDEX, "", path), err);
    if (rc)
        return rc;
    s->size_bytes = 0;
    s->first_timestamp = -1;
    s->created_ms = wall_ms;
    s->times_known = true;
    s->dirty = s->index_dirty = true;
    l->names_dirty = true;
    return 0;
}

int segment_file(struct log *l, struct segment *s, struct log_file **out, struct err *err)
{
    ASSERT_SEGMENT(s);
    char path[LOG_PATH_MAX];
    assert(s->magic == SEGMENT_MAGIC);
    return log_handle_get(&s->data, l->disk, log_path(l, s->base_offset, SUFFIX_LOG, "", path), DISK_WRITE,
                          out, err);
}

/* Room on disk asked for in steps that grow with the segment: an append into reserved room costs the file system
 * about half (ext4: no block is looked for at each page), and small logs reserve nothing. A disk that cannot
 * is no error: the append itself will say so. */
void segment_reserve(struct log *l, struct segment *s, int64_t bytes)
{
    enum { FROM = 1 << 20, STEP_MAX = 32 << 20 };
    ASSERT_SEGMENT(s);
    assert(bytes > 0 && s->data.pinned);
    int64_t end = s->size_bytes + bytes;
    if (end <= s->reserved_bytes || s->size_bytes < FROM)
        return;
    int64_t to = end + (s->size_bytes < STEP_MAX ? s->size_bytes : STEP_MAX);
    if (to > l->config.segment_bytes)
        to = l->config.segment_bytes > end ? l->config.segment_bytes : end;
    (void)disk_allocate(log_file_disk(s->data.file), s->size_bytes, to - s->size_bytes);
    s->reserved_bytes = to; /* not asked for again, whatever the answer */
}

/* Gives back what is reserved behind the end, by whichever run of the program. */
void segment_trim(struct segment *s)
{
    ASSERT_SEGMENT(s);
    assert(s->size_bytes >= 0 && s->data.pinned);
    (void)disk_truncate(log_file_disk(s->data.file), s->size_bytes);
    s->reserved_bytes = 0;
}

int64_t segment_size(struct log *l, struct segment *s, struct err *err)
{
    ASSERT_SEGMENT(s);
    if (s->size_bytes >= 0)
        return s->size_bytes;
    struct log_file *f;
    int rc = segment_file(l, s, &f, err);
    if (rc)
        return rc;
    int64_t size = disk_size(log_file_disk(f));
    if (size < 0)
        return err_set(err, (int)size, "cannot tell the size of segment %lld", (long long)s->base_offset);
    if (size > INT32_MAX)
        return segment_bad(l, s, size, -E_CORRUPT, "a segment has less than 2 GiB", err);
    return s->size_bytes = size;
}

int segment_note(struct log *l, struct segment *s, const struct batch_header *h, int64_t position)
{
    ASSERT_SEGMENT(s);
    assert(h->last_offset_delta >= 0 && h->base_offset >= s->base_offset);
    int64_t last = batch_last_offset(h);
    assert(last >= s->base_offset && position >= 0);
    if (s->first_timestamp < 0 && position == 0)
        s->first_timestamp = h->max_timestamp >= 0 ? h->max_timestamp : -1;
    if (h->records_n > 0 && h->max_timestamp > s->max_timestamp) {
        s->max_timestamp = h->max_timestamp;
        s->max_timestamp_offset = last;
    }
    if (s->since_index > l->config.index_interval_bytes) {
        if (s->offsets.in_tail >= INDEX_TAIL || s->times.in_tail >= INDEX_TAIL)
            (void)segment_spill(l, s, false,
                                NULL); /* when that fails the tails grow, and the next one tries again */
        int rc = index_append(&s->offsets, (struct index_entry){last, position});
        if (!rc && s->max_timestamp >= 0)
            rc = index_append(&s->times, (struct index_entry){s->max_timestamp, s->max_timestamp_offset});
        if (rc)
            return rc;
        s->since_index = 0;
        s->index_dirty = true;
    }
    s->since_index += (int64_t)batch_size(h);
    s->next_offset = last + 1;
    return 0;
}

int segment_spill(struct log *l, struct segment *s, bool closing, struct err *err)
{
    ASSERT_SEGMENT(s);
    char path[LOG_PATH_MAX];
    if (!s->offsets.loaded || !s->times.loaded)
        return 0; /* untouched since it was opened */
    int rc = index_spill(&s->offsets, l->disk, log_path(l, s->base_offset, SUFFIX_INDEX, "", path), err);
    log_path(l, s->base_offset, SUFFIX_TIMEINDEX, "", path);
    if (!rc && closing && s->max_timestamp >= 0) {
        struct index_entry time = {s->max_timestamp, s->max_timestamp_offset};
        rc = index_append(&s->times, time);
        s->index_dirty = s->index_dirty || s->times.in_tail > 0;
    }
    return rc ? rc : index_spill(&s->times, l->disk, path, err);
}

int segment_index_rebuild(struct log *l, struct segment *s, struct err *err)
{
    ASSERT_SEGMENT(s);
    char path[LOG_PATH_MAX];
    struct log_file *f;
    int64_t size = segment_size(l, s, err);
    if (size < 0)
        return (int)size;
    int rc = segment_file(l, s, &f, err);
    if (!rc)
        rc = index_reset(&s->offsets, l->disk, log_path(l, s->base_offset, SUFFIX_INDEX, "", path), err);
    if (!rc)
        rc = index_reset(&s->times, l->disk, log_path(l, s->base_offset, SUFFIX_TIMEINDEX, "", path), err);
    if (rc)
        return rc;
    f = log_file_take(f); /* the indexes may push it out of the LRU */
    struct walk w;
    int64_t next = s->next_offset, end = s->base_offset;
    s->max_timestamp = s->max_timestamp_offset = -1;
    s->since_index = 0;
    walk_init(&w, log_file_disk(f), 0, size, WALK_WINDOW_SCAN);
    while ((rc = walk_next(&w)) > 0) {
        if (w.h.base_offset < end || batch_last_offset(&w.h) >= next ||
            batch_last_offset(&w.h) - s->base_offset > INT32_MAX)
            rc = -E_CORRUPT;
        else
            rc = segment_note(l, s, &w.h, w.position);
        end = batch_last_offset(&w.h) + 1;
        if (rc)
            break;
    }
    if (rc < 0)
        rc = segment_bad(l, s, w.position, walk_code(rc), "no batch of this segment where one should begin",
                         err);
    walk_fini(&w);
    log_file_drop(f);
    s->next_offset = next;
    s->times_known = rc == 0;
    l->recovery.indexes_rebuilt++;
    s->index_dirty = l->old_index_dirty = true;
    return rc ? rc : segment_spill(l, s, s != log_active(l), err);
}

int segment_indexes(struct log *l, struct segment *s, struct err *err)
{
    ASSERT_SEGMENT(s);
    if (s->offsets.loaded && s->times.loaded)
        return 0;
    char path[LOG_PATH_MAX];
    int64_t size = segment_size(l, s, err);
    if (size < 0)
        return (int)size;
    int rc = 0;
    if (!s->offsets.loaded)
        rc = index_load(&s->offsets, l->disk, log_path(l, s->base_offset, SUFFIX_INDEX, "", path),
                        s->next_offset, size, NULL);
    if (!rc && !s->times.loaded)
        rc = index_load(&s->times, l->disk, log_path(l, s->base_offset, SUFFIX_TIMEINDEX, "", path),
                        s->next_offset, size, NULL);
    if (rc == -E_CORRUPT || rc == -E_NOTFOUND)
        rc = segment_index_rebuild(l, s, err);
    else if (rc)
        err_set(err, rc, "cannot read the indexes of segment %lld", (long long)s->base_offset);
    return rc;
}

int64_t segment_first_timestamp(struct log *l, struct segment *s)
{
    ASSERT_SEGMENT(s);
    struct batch_header h;
    if (s->first_timestamp == -2 && segment_size(l, s, NULL) > 0)
        s->first_timestamp =
            segment_header_at(l, s, 0, &h, NULL) == 0 && h.max_timestamp >= 0 ? h.max_timestamp : -1;
    return s->first_timestamp;
}

int segment_times(struct log *l, struct segment *s, struct err *err)
{
    ASSERT_SEGMENT(s);
    if (s->times_known)
        return 0;
    int rc = segment_indexes(l, s, err);
    if (rc)
        return rc;
    if (!s->times_known && index_entries(&s->times) > 0) {
        s->max_timestamp = s->times.last.key;
        s->max_timestamp_offset = s->times.last.value;
    }
    s->times_known = true;
    return 0;
}

int segment_header_at(struct log *l, struct segment *s, int64_t position, struct batch_header *h,
                      struct err *err)
{
    ASSERT_SEGMENT(s);
    struct log_file *f;
    uint8_t raw[BATCH_HEADER_BYTES];
    if (position < 0 || position >= s->size_bytes)
        return segment_bad(l, s, position, -E_CORRUPT, "no such position", err);
    int rc = segment_file(l, s, &f, err);
    if (rc)
        return rc;
    ssize_t n = disk_pread(log_file_disk(f), raw, sizeof raw, position);
    if (n < 0)
        return segment_bad(l, s, position, (int)n, "read failed", err);
    rc = n < (ssize_t)sizeof raw ? -E_CORRUPT : walk_header(slice_of(raw, sizeof raw), h);
    if (!rc && position + (int64_t)batch_size(h) > s->size_bytes)
        rc = -E_CORRUPT;
    return rc ? segment_bad(l, s, position, -E_CORRUPT, "no batch where one should begin", err) : 0;
}

/* Walks from `from` on. */
static int locate_from(struct log *l, struct segment *s, int64_t from, int64_t offset, struct batch_header *h,
                       int64_t *position, struct err *err)
{
    assert(from >= 0 && from <= s->size_bytes);
    struct log_file *f;
    int rc = segment_file(l, s, &f, err);
    if (rc)
        return rc;
    struct walk w;
    walk_init(&w, log_file_disk(f), from, s->size_bytes, WALK_WINDOW_HEADERS);
    int64_t behind = s->base_offset; /* offsets rise, or what is passed over here has been damaged */
    while ((rc = walk_next(&w)) > 0 && w.h.base_offset >= behind && batch_last_offset(&w.h) < offset)
        behind = batch_last_offset(&w.h) + 1;
    if (rc > 0 && w.h.base_offset < behind)
        rc = -E_CORRUPT;
    *h = w.h;
    *position = w.position;
    walk_fini(&w);
    return rc < 0 ? segment_bad(l, s, *position, walk_code(rc), "no batch where one should begin", err) : rc;
}

static int64_t changed_ms(struct log *l, const struct segment *s)
{
    char path[LOG_PATH_MAX];
    return disk_mtime_ms(l->disk, log_path(l, s->base_offset, SUFFIX_LOG, "", path));
}

/* Not when it has been made of this very file: then it is a batch that is damaged, and who fetches there would have the
 * segment read from its beginning each time. The active one's file changes with each append, and its index along. */
static bool index_may_lie(struct log *l, struct segment *s)
{
    if (s == log_active(l) && s->rebuilt_ms >= 0)
        return false;
    int64_t now = changed_ms(l, s), before = s->rebuilt_ms;
    s->rebuilt_ms = now > 0 ? now : 0;
    return before < 0 || now != before;
}

int segment_locate(struct log *l, struct segment *s, int64_t offset, struct batch_header *h,
                   int64_t *position, struct err *err)
{
    ASSERT_SEGMENT(s);
    assert(offset >= 0);
    char path[LOG_PATH_MAX];
    uint32_t n = 0;
    struct index_entry e = {0, 0};
    int rc = segment_indexes(l, s, err);
    if (!rc)
        rc = index_floor(&s->offsets, l->disk, log_path(l, s->base_offset, SUFFIX_INDEX, "", path), offset,
                         false, &n, &e, err);
    if (rc)
        return rc;
    int64_t from = n > 0 ? e.value : 0;
    if (n > 0 && (from < 0 || from >= s->size_bytes))
        rc = -E_CORRUPT;
    if (!rc)
        rc = locate_from(l, s, from, offset, h, position, n > 0 ? NULL : err);
    if (rc == -E_CORRUPT && n > 0 && index_may_lie(l, s)) {
        rc = segment_index_rebuild(l, s, err);
        if (rc && rc != -E_CORRUPT)
            s->rebuilt_ms = -1;
        if (!rc)
            rc = locate_from(l, s, 0, offset, h, position, err);
    } else if (rc == -E_CORRUPT && n > 0) {
        rc = locate_from(l, s, from, offset, h, position, err); /* for its text */
    }
    return rc;
}
