#include "broker/quorum/store.h"

#include "broker/quorum/store_internal.h"
#include "proto/kafka/batch.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define VOTERS_BYTES_MAX ((size_t)1 << 20)

int64_t quorum_store_end(const struct quorum_store *s)
{
    return log_end_offset(s->log);
}

void quorum_store_check(const struct quorum_store *s)
{
    int64_t start = log_start_offset(s->log), end = log_end_offset(s->log);
    unsigned n = s->snapshots_n;
    assert(n <= QUORUM_SNAPSHOTS_MAX);
    assert(s->snapshot_appended_bytes >= 0);
    assert(s->kraft_version == 0 || s->kraft_version == 1);
    assert(start >= 0);
    assert(start <= end);
    assert(s->replay.offset_next == end);
    assert(s->replay.img);
    assert(image_offset(s->replay.img) < end);
    /* S28: the log begins where a snapshot ends or before, so that one of them leads up to it. */
    assert(start == 0 || (n > 0 && s->snapshots[n - 1].id.end_offset >= start));
    assert(n == 0 || s->snapshots[n - 1].id.end_offset <= end);
}

int32_t quorum_store_last_epoch(const struct quorum_store *s)
{
    int32_t epoch = log_epoch_latest(s->log);
    if (log_end_offset(s->log) > log_start_offset(s->log) && epoch >= 0)
        return epoch;
    return s->snapshots_n ? s->snapshots[s->snapshots_n - 1].id.epoch : 0;
}

/* ---- voters and kraft.version ---- */

/* Replaces what was known; texts and arrays are copied, since `value` is borrowed. */
static int set_voters(struct quorum_store *s, struct slice value, struct err *err)
{
    arena_reset(&s->voters_arena);
    value = arena_dup(&s->voters_arena, value);
    int rc = kp_decode(&kp_voters_record_message, 0, value, &s->voters_arena, &s->voters, NULL, err);
    return rc < 0 ? err_wrap(err, "voters record") : 0;
}

int quorum_store_control(struct quorum_store *s, int type, struct slice value, struct err *err)
{
    if (type == CONTROL_KRAFT_VERSION) {
        struct arena none;
        struct kp_kraft_version_record r;
        arena_init(&none, sizeof r);
        int rc = kp_decode(&kp_kraft_version_record_message, 0, value, &none, &r, NULL, err);
        arena_fini(&none);
        if (rc == 0 && (r.kraft_version < 0 || r.kraft_version > 1))
            rc = err_set(err, -E_VERSION, "kraft.version %d is not known", r.kraft_version);
        if (rc == 0)
            s->kraft_version = r.kraft_version;
        return rc;
    }
    return type == CONTROL_KRAFT_VOTERS ? set_voters(s, value, err) : 0;
}

static int control_batch(struct quorum_store *s, const struct batch_header *h, struct slice batch,
                         struct err *err)
{
    struct record_walk w;
    struct record r;
    int rc;
    record_walk_init(&w, h, slice_of(batch.p + BATCH_HEADER_BYTES, batch.n - BATCH_HEADER_BYTES));
    while ((rc = record_next(&w, &r)) > 0) {
        enum control_type type;
        rc = control_type_read(&r, &type);
        if (rc == 0)
            rc = quorum_store_control(s, (int)type, r.value, err);
        if (rc < 0)
            return err_set(err, rc, "control record at offset %" PRId64 ": %s", r.offset, err_str(rc));
        s->voters_in_log |= type == CONTROL_KRAFT_VOTERS;
    }
    return rc < 0 ? err_set(err, rc, "the control batch at offset %" PRId64 " is damaged", h->base_offset)
                  : 0;
}

int quorum_store_replay(struct quorum_store *s, struct slice batch, struct err *err)
{
    struct batch_header h;
    int rc = batch_read(batch, &h, err);
    if (rc == 0)
        rc = replay_batch(&s->replay, batch, err);
    if (rc == 0 && batch_is(&h, BATCH_CONTROL))
        rc = control_batch(s, &h, batch, err);
    s->snapshot_appended_bytes += (int64_t)batch.n;
    return rc;
}

/* ---- appending ---- */

int quorum_store_append(struct quorum_store *s, struct slice batches, int64_t wall_ms, struct err *err)
{
    assert(s->replay.offset_next == log_end_offset(s->log));
    assert(batches.n > 0);
    int rc = log_append_as_is(s->log, batches, wall_ms, err);
    if (rc < 0)
        return rc;
    /* what is applied is what was written: the same bytes */
    while (batches.n > 0) {
        struct batch_header h;
        rc = batch_header_read(batches, &h, err);
        if (rc == 0)
            rc = quorum_store_replay(s, slice_of(batches.p, batch_size(&h)), err);
        if (rc < 0)
            return err_set(err, -E_CORRUPT, "metadata was written that cannot be applied: %s",
                           err ? err->text : "");
        batches = slice_of(batches.p + batch_size(&h), batches.n - batch_size(&h));
    }
    quorum_store_check(s);
    return 0;
}

/* ---- snapshots ---- */

void quorum_snapshot_run(struct quorum_snapshot_job *job)
{
    job->rc = snapshot_write(job->disk, job->dir, job->img, &job->quorum, &job->size_bytes, &job->err);
}

void quorum_store_snapshot_made(struct quorum_store *s, const struct snapshot_id *id, int64_t size_bytes,
                                int64_t wall_ms)
{
    assert(id->end_offset <= log_end_offset(s->log));
    assert(s->snapshots_n == 0 || id->end_offset > s->snapshots[s->snapshots_n - 1].id.end_offset);
    assert(s->snapshots_n < QUORUM_SNAPSHOTS_MAX); /* retention follows each */
    assert(size_bytes > 0);
    assert(id->end_offset > 0);
    assert(id->epoch >= 0);
    s->snapshots[s->snapshots_n++] = (struct quorum_snapshot){*id, size_bytes, wall_ms};
}

static int drop_oldest(struct quorum_store *s, struct err *err)
{
    char name[SNAPSHOT_NAME_MAX], path[SNAPSHOT_PATH_MAX + SNAPSHOT_NAME_MAX], gone[sizeof path + 16];
    assert(s->snapshots_n > 1); /* the last one stays: the log needs it */
    snapshot_name(&s->snapshots[0].id, name);
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    snprintf(gone, sizeof gone, "%s.deleted", path);
    int rc = disk_rename(s->disk, path, gone);
    if (rc == 0)
        rc = disk_unlink(s->disk, gone);
    if (rc < 0)
        return err_set(err, rc, "%s: cannot delete: %s", path, err_str(rc));
    s->snapshots_n--;
    for (unsigned i = 0; i < s->snapshots_n; i++)
        s->snapshots[i] = s->snapshots[i + 1];
    return log_set_start(s->log, s->snapshots[0].id.end_offset);
}

static bool too_much(struct quorum_store *s, int64_t bytes, int64_t ms, int64_t wall_ms)
{
    if (s->snapshots_n < 2)
        return false;
    if (s->snapshots_n > QUORUM_SNAPSHOTS_KEPT)
        return true;
    if (ms >= 0 && wall_ms - s->snapshots[0].made_ms > ms)
        return true;
    int64_t total = log_size_bytes(s->log);
    for (unsigned i = 0; i < s->snapshots_n; i++)
        total += s->snapshots[i].size_bytes;
    return bytes >= 0 && total > bytes;
}

int quorum_store_retain(struct quorum_store *s, int64_t bytes, int64_t ms, int64_t wall_ms,
                        int64_t high_watermark, struct err *err)
{
    int dropped = 0;
    while (too_much(s, bytes, ms, wall_ms)) {
        int rc = drop_oldest(s, err);
        if (rc < 0)
            return rc;
        dropped++;
        struct log_retained gone;
        rc = log_retain(s->log, wall_ms, high_watermark, &gone, err);
        if (rc < 0)
            return rc;
    }
    (void)log_sweep(s->log, wall_ms);
    assert(s->snapshots_n <= QUORUM_SNAPSHOTS_KEPT || dropped == 0);
    quorum_store_check(s);
    return dropped;
}
