#include "broker/log/walk.h"

#include "base/core/bytes.h"
#include "base/core/crc32c.h"

#include <assert.h>
#include <stdlib.h>

void walk_init(struct walk *w, struct disk_file *file, int64_t at, int64_t end, size_t window_bytes)
{
    assert(at >= 0 && at <= end && window_bytes >= BATCH_HEADER_BYTES);
    if ((int64_t)window_bytes > end - at) /* many a file is small */
        window_bytes = end - at > BATCH_HEADER_BYTES ? (size_t)(end - at) : BATCH_HEADER_BYTES;
    *w = (struct walk){.file = file, .at = at, .end = end, .position = at, .window_bytes = window_bytes};
}

void walk_fini(struct walk *w)
{
    free(w->window);
    w->window = NULL;
    w->have = 0;
}

int walk_bytes(struct walk *w, int64_t at, size_t n, const uint8_t **out)
{
    assert(at >= 0 && at <= w->end && n <= (size_t)(w->end - at));
    if (w->window && at >= w->window_at && at + (int64_t)n <= w->window_at + (int64_t)w->have) {
        *out = w->window + (at - w->window_at);
        return 0;
    }
    if (!w->window || n > w->window_bytes) {
        size_t bytes = n > w->window_bytes ? n : w->window_bytes;
        uint8_t *window = realloc(w->window, bytes);
        if (!window)
            return -E_NOMEM;
        w->window = window;
        w->window_bytes = bytes;
    }
    size_t want = w->window_bytes;
    if ((int64_t)want > w->end - at)
        want = (size_t)(w->end - at);
    w->have = 0;
    ssize_t got = disk_pread(w->file, w->window, want, at);
    if (got < 0)
        return (int)got;
    if ((size_t)got < n)
        return -E_IO; /* shorter than it was: truncated behind our back, or a bad disk */
    w->window_at = at;
    w->have = (size_t)got;
    assert(w->have <= w->window_bytes);
    *out = w->window;
    return 0;
}

int walk_header(struct slice in, struct batch_header *out)
{
    assert(in.p && out);
    int rc = batch_header_read(in, out, NULL);
    if (!rc && (out->base_offset < 0 || out->base_offset > WALK_OFFSET_MAX || out->last_offset_delta < 0))
        rc = -E_CORRUPT;
    return rc;
}

int walk_next(struct walk *w)
{
    assert(w->at >= 0 && w->at <= w->end);
    w->position = w->at;
    int64_t left = w->end - w->at;
    assert(left >= 0);
    if (left == 0)
        return 0;
    if (left < BATCH_HEADER_BYTES)
        return -E_TRUNCATED;
    const uint8_t *p;
    int rc = walk_bytes(w, w->at, BATCH_HEADER_BYTES, &p);
    if (rc)
        return rc;
    rc = walk_header(slice_of(p, BATCH_HEADER_BYTES), &w->h);
    if (rc)
        return rc;
    if ((int64_t)batch_size(&w->h) > left)
        return -E_TRUNCATED;
    w->at += (int64_t)batch_size(&w->h);
    return 1;
}

int walk_code(int rc)
{
    assert(rc <= 1);
    return rc == -E_TRUNCATED || rc == -E_VERSION ? -E_CORRUPT : rc;
}

int walk_crc_ok(struct walk *w)
{
    int64_t at = w->position + BATCH_ATTRIBUTES_AT, end = w->position + (int64_t)batch_size(&w->h);
    assert(end <= w->end && end - at >= BATCH_HEADER_BYTES - BATCH_ATTRIBUTES_AT);
    uint32_t crc = 0;
    while (at < end) {
        size_t n = w->window_bytes;
        if ((int64_t)n > end - at)
            n = (size_t)(end - at);
        const uint8_t *p;
        int rc = walk_bytes(w, at, n, &p);
        if (rc)
            return rc;
        crc = crc32c_more(crc, p, n);
        at += (int64_t)n;
    }
    return crc == w->h.crc;
}

int walk_batch(struct walk *w, struct slice *out)
{
    assert(batch_size(&w->h) <= (size_t)(w->end - w->position));
    const uint8_t *p;
    int rc = walk_bytes(w, w->position, batch_size(&w->h), &p);
    if (!rc)
        *out = slice_of(p, batch_size(&w->h));
    return rc;
}
