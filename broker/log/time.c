/* Offsets by time: the time index leads near, batch headers nearer, the records decide (KIP-79, KIP-734). */
#include "broker/log/log_internal.h"

#include <stdlib.h>

struct time_search {
    struct log *l;
    struct segment *s;
    int64_t timestamp; /* at least this */
    int64_t limit;
    struct log_time_offset *out;
    struct err *err;
};

/* The first record of this batch that is at or after the start, below the limit, and late enough: 1 or 0. */
static int search_batch(const struct time_search *t, struct slice batch)
{
    /* Only its length has been looked at; what is on disk may have rotted. */
    struct batch_header checked, *h = &checked;
    int found = 0, rc = batch_read(batch, h, t->err);
    if (rc)
        return rc;
    struct buf scratch;
    struct slice payload;
    struct record_walk w;
    struct record r;
    struct codec_limits limits = codec_limits_for((size_t)t->l->config.max_message_bytes);
    buf_init(&scratch, (size_t)INT32_MAX);
    rc = batch_payload(h, batch, &limits, &scratch, &payload, t->err);
    if (!rc) {
        record_walk_init(&w, h, payload);
        while (!found && (rc = record_next(&w, &r)) > 0)
            found = r.timestamp >= t->timestamp && r.offset >= t->l->start && r.offset < t->limit;
    }
    if (found)
        *t->out = (struct log_time_offset){r.offset, r.timestamp, h->leader_epoch};
    buf_fini(&scratch);
    return found ? 1 : rc;
}

/* From a position on, the first batch that may have it and does. */
static int search_from(const struct time_search *t, int64_t position)
{
    assert(position >= 0 && position <= t->s->size_bytes);
    struct log_file *f;
    int rc = segment_file(t->l, t->s, &f, t->err);
    if (rc)
        return rc;
    struct walk w;
    walk_init(&w, log_file_disk(f), position, t->s->size_bytes, WALK_WINDOW_HEADERS);
    while ((rc = walk_next(&w)) > 0 && w.h.base_offset < t->limit) {
        if (w.h.max_timestamp < t->timestamp || w.h.records_n == 0 || batch_last_offset(&w.h) < t->l->start)
            continue;
        struct slice batch;
        if ((rc = walk_batch(&w, &batch)) || (rc = search_batch(t, batch)))
            break;
    }
    if (rc < 0)
        rc = segment_bad(t->l, t->s, w.position, walk_code(rc), "cannot be searched by time", t->err);
    else if (rc > 0 && w.h.base_offset >= t->limit)
        rc = 0;
    walk_fini(&w);
    return rc;
}

/* Where to begin: the batch of the last time entry below the timestamp. */
static int search_segment(const struct time_search *t)
{
    assert(t->s->base_offset < t->limit);
    struct log *l = t->l;
    struct segment *s = t->s;
    char path[LOG_PATH_MAX];
    struct index_entry e;
    struct batch_header h;
    uint32_t n = 0;
    int64_t position = 0;
    int rc = segment_indexes(l, s, t->err);
    if (!rc && t->timestamp > 0)
        rc = index_floor(&s->times, l->disk, log_path(l, s->base_offset, SUFFIX_TIMEINDEX, "", path),
                         t->timestamp - 1, false, &n, &e, t->err);
    if (!rc && n > 0)
        rc = segment_locate(l, s, e.value, &h, &position, t->err);
    if (rc < 0)
        return rc;
    return n > 0 && rc == 0 ? 0 : search_from(t, position);
}

int log_find_time(struct log *l, int64_t timestamp_ms, int64_t limit_offset, struct log_time_offset *out,
                  struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    *out = (struct log_time_offset){-1, -1, -1};
    struct time_search t = {.l = l,
                            .timestamp = timestamp_ms,
                            .limit = limit_offset < l->end ? limit_offset : l->end,
                            .out = out,
                            .err = err};
    for (unsigned i = log_segment_at(l, l->start); i < l->segments_n; i++) {
        t.s = l->segments[i];
        if (t.s->base_offset >= t.limit)
            break;
        int rc = segment_times(l, t.s, err);
        if (!rc && t.s->max_timestamp >= timestamp_ms)
            rc = search_segment(&t);
        if (rc)
            return rc < 0 ? rc : 0;
    }
    return 0;
}

/* The largest timestamp of this segment's batches below the limit, by headers, if it is above *most. */
static int max_time_below(struct log *l, struct segment *s, int64_t limit, int64_t *most, struct err *err)
{
    ASSERT_SEGMENT(s);
    assert(limit > s->base_offset);
    char path[LOG_PATH_MAX];
    struct index_entry e = {-1, 0};
    struct batch_header h;
    uint32_t n = 0;
    int64_t position = 0;
    struct log_file *f;
    int rc = segment_indexes(l, s, err);
    if (!rc)
        rc = index_floor(&s->times, l->disk, log_path(l, s->base_offset, SUFFIX_TIMEINDEX, "", path),
                         limit - 1, true, &n, &e, err);
    if (!rc && n > 0) {
        *most = e.key > *most ? e.key : *most;
        rc = segment_locate(l, s, e.value, &h, &position, err);
    }
    if (rc < 0 || (rc = segment_file(l, s, &f, err)))
        return rc;
    struct walk w;
    walk_init(&w, log_file_disk(f), position, s->size_bytes, WALK_WINDOW_HEADERS);
    while ((rc = walk_next(&w)) > 0 && batch_last_offset(&w.h) < limit)
        if (w.h.records_n > 0 && w.h.max_timestamp > *most)
            *most = w.h.max_timestamp;
    walk_fini(&w);
    return rc < 0 ? segment_bad(l, s, w.position, walk_code(rc), "cannot be searched by time", err) : 0;
}

int log_find_max_time(struct log *l, int64_t limit_offset, struct log_time_offset *out, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    int64_t most = -1, limit = limit_offset < l->end ? limit_offset : l->end;
    *out = (struct log_time_offset){-1, -1, -1};
    for (unsigned i = log_segment_at(l, l->start); i < l->segments_n; i++) {
        struct segment *s = l->segments[i];
        if (s->base_offset >= limit)
            break;
        int rc = segment_times(l, s, err);
        if (rc)
            return rc;
        if (s->next_offset > limit)
            rc = max_time_below(l, s, limit, &most, err);
        else if (s->max_timestamp > most)
            most = s->max_timestamp;
        if (rc)
            return rc;
    }
    return most < 0 ? 0 : log_find_time(l, most, limit, out, err);
}
