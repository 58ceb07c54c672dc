/* Reading: an offset becomes a position by hint, index and a short walk; bytes stay in the file. */
#include "broker/log/log_internal.h"

#include <stdlib.h>

static void hint_keep(struct log *l, const struct segment *s, int64_t offset, int64_t position)
{
    assert(position >= 0 && offset >= s->base_offset);
    l->reads[l->reads_at++ % LOG_HINTS] = (struct log_hint){offset, s->base_offset, position};
}

static int64_t hint_find(const struct log *l, const struct segment *s, int64_t offset)
{
    ASSERT_SEGMENT(s);
    for (unsigned i = 0; i < LOG_HINTS; i++) {
        if (l->appends[i].offset == offset && l->appends[i].base_offset == s->base_offset)
            return l->appends[i].position;
        if (l->reads[i].offset == offset && l->reads[i].base_offset == s->base_offset)
            return l->reads[i].position;
    }
    return -1;
}

/* As segment_locate, but without index and walk when a batch is known to begin at `offset`. A base offset is under
 * no CRC: a batch that does not lie within its segment is damaged, and must not look like a gap up to the end. */
static int locate(struct log *l, struct segment *s, int64_t offset, struct batch_header *h, int64_t *position,
                  struct err *err)
{
    assert(offset >= 0);
    int64_t size = segment_size(l, s, err), hint = hint_find(l, s, offset);
    int rc;
    if (size < 0)
        return (int)size;
    if (hint >= 0 && hint <= size) {
        *position = hint;
        if (hint == size)
            return 0;
        rc = segment_header_at(l, s, hint, h, err);
        if (!rc && batch_last_offset(h) < offset)
            rc = segment_bad(l, s, hint, -E_CORRUPT, "a batch has changed", err);
        rc = rc ? rc : 1;
    } else {
        rc = segment_locate(l, s, offset, h, position, err);
    }
    if (rc > 0 && (h->base_offset < s->base_offset || batch_last_offset(h) >= s->next_offset))
        return segment_bad(l, s, *position, -E_CORRUPT, "a batch has offsets of another segment", err);
    return rc;
}

/* Where the batches that end at or below `limit` end in this segment, and the offset to go on from. */
static int limit_position(struct log *l, struct segment *s, int64_t limit, int64_t *position, int64_t *next,
                          struct err *err)
{
    assert(limit > s->base_offset && s->size_bytes >= 0);
    if (limit >= s->next_offset) {
        *position = s->size_bytes;
        *next = s->next_offset;
        return 0;
    }
    struct batch_header h;
    int rc = locate(l, s, limit, &h, position, err);
    if (rc < 0)
        return rc;
    *next = rc == 0 ? s->next_offset : h.base_offset > limit ? limit : h.base_offset;
    return 0;
}

/* The last batch boundary at or below `most`, for batches from `from` on: by the index, then batch by batch. */
static int cut_at_batch(struct log *l, struct segment *s, int64_t from, int64_t most, int64_t *end,
                        int64_t *next, struct err *err)
{
    assert(from >= 0 && most >= from && most < s->size_bytes);
    char path[LOG_PATH_MAX];
    struct index_entry e = {0, 0};
    uint32_t n = 0;
    int rc = segment_indexes(l, s, err);
    if (!rc)
        rc = index_floor(&s->offsets, l->disk, log_path(l, s->base_offset, SUFFIX_INDEX, "", path), most,
                         true, &n, &e, err);
    if (rc)
        return rc;
    struct log_file *f;
    if ((rc = segment_file(l, s, &f, err)))
        return rc;
    struct walk w;
    walk_init(&w, log_file_disk(f), n > 0 && e.value > from ? e.value : from, s->size_bytes,
              WALK_WINDOW_HEADERS);
    while ((rc = walk_next(&w)) > 0 && w.at <= most)
        ;
    /* The batch that does not fit tells where to go on. */
    *end = w.position;
    *next = rc > 0 ? w.h.base_offset : s->next_offset;
    walk_fini(&w);
    return rc < 0 ? segment_bad(l, s, *end, walk_code(rc), "no batch where one should begin", err) : 0;
}

static int slice_fill(struct log *l, struct segment *s, const struct batch_header *first, int64_t position,
                      int64_t limit, size_t max_bytes, struct log_slice *out, struct err *err)
{
    assert(batch_last_offset(first) < limit && position >= 0);
    int64_t end, next;
    int rc = limit_position(l, s, limit, &end, &next, err);
    if (rc)
        return rc;
    if (end < position + (int64_t)batch_size(first))
        return segment_bad(l, s, position, -E_CORRUPT, "a batch reaches over the next one", err);
    if ((uint64_t)(end - position) > max_bytes) {
        if (batch_size(first) >= max_bytes) {
            end = position + (int64_t)batch_size(first);
            next = batch_last_offset(first) + 1;
        } else if ((rc = cut_at_batch(l, s, position, position + (int64_t)max_bytes, &end, &next, err))) {
            return rc;
        }
    }
    struct log_file *f;
    if ((rc = segment_file(l, s, &f, err)))
        return rc;
    if (end <= position || next <= first->base_offset)
        return segment_bad(l, s, position, -E_CORRUPT, "offsets do not rise", err);
    assert(out->size_bytes == 0 && end <= s->size_bytes);
    hint_keep(l, s, next, end);
    *out = (struct log_slice){.file = log_file_take(f),
                              .position = position,
                              .size_bytes = (size_t)(end - position),
                              .first_offset = first->base_offset,
                              .next_offset = next};
    return 0;
}

int log_read(struct log *l, int64_t offset, int64_t limit_offset, size_t max_bytes, enum log_read how,
             struct log_slice *out, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    int64_t limit = limit_offset < l->end ? limit_offset : l->end;
    *out = (struct log_slice){.first_offset = offset, .next_offset = offset};
    if (offset < l->start || offset > l->end)
        return err_set(err, -E_RANGE, "offset %lld of %s, which has [%lld, %lld)", (long long)offset, l->dir,
                       (long long)l->start, (long long)l->end);
    if (offset >= limit)
        return 0;
    struct batch_header h;
    int64_t position;
    for (unsigned i = log_segment_at(l, offset); i < l->segments_n; i++) {
        struct segment *s = l->segments[i];
        int rc = locate(l, s, offset, &h, &position, err);
        if (rc < 0)
            return rc;
        if (rc == 0)
            continue; /* compacted away up to the segment's end */
        if (batch_last_offset(&h) >= limit || (batch_size(&h) > max_bytes && how != LOG_READ_AT_LEAST_ONE))
            return 0;
        return slice_fill(l, s, &h, position, limit, max_bytes, out, err);
    }
    return 0;
}

int log_slice_load(const struct log_slice *s, struct buf *to)
{
    assert(s->size_bytes == 0 || s->file);
    if (s->size_bytes == 0)
        return 0;
    uint8_t *room = buf_room(to, s->size_bytes);
    if (!room)
        return -E_LIMIT;
    ssize_t n = disk_pread(log_file_disk(s->file), room, s->size_bytes, s->position);
    if (n != (ssize_t)s->size_bytes)
        return n < 0 ? (int)n : -E_CORRUPT;
    buf_added(to, s->size_bytes);
    return 0;
}

int log_each(struct log *l, int64_t offset, int64_t limit_offset, int (*each)(void *arg, struct slice batch),
             void *arg, struct err *err)
{
    assert(l->magic == LOG_MAGIC && each);
    struct buf bytes;
    int rc = 0;
    buf_init(&bytes, (size_t)INT32_MAX);
    while (!rc) {
        struct log_slice s;
        rc = log_read(l, offset, limit_offset, LOG_EACH_BYTES, LOG_READ_AT_LEAST_ONE, &s, err);
        if (rc || s.size_bytes == 0)
            break;
        buf_clear(&bytes);
        rc = log_slice_load(&s, &bytes);
        log_slice_drop(&s);
        if (rc) {
            err_set(err, rc, "cannot read offset %lld of %s", (long long)offset, l->dir);
            break;
        }
        for (struct slice left = buf_slice(&bytes); left.n > 0 && !rc;) {
            struct batch_header h;
            rc = walk_header(left, &h);
            if (rc || batch_size(&h) > left.n || batch_last_offset(&h) < offset) {
                rc = err_set(err, -E_CORRUPT, "%s: no batch where offset %lld should be", l->dir,
                             (long long)offset);
                break;
            }
            rc = each(arg, slice_of(left.p, batch_size(&h)));
            offset = batch_last_offset(&h) + 1;
            left = slice_of(left.p + batch_size(&h), left.n - batch_size(&h));
        }
    }
    buf_fini(&bytes);
    return rc;
}
