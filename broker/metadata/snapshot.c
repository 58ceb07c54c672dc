#include "broker/metadata/snapshot.h"

#include "broker/metadata/batches.h"
#include "broker/metadata/image_edit.h"
#include "broker/metadata/image_internal.h"
#include "proto/kafka/batch.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- names ---- */

static bool digits(const char *p, int n, int64_t *out)
{
    int64_t v = 0;
    for (int i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9' || v > (INT64_MAX - 9) / 10)
            return false;
        v = v * 10 + (p[i] - '0');
    }
    *out = v;
    return true;
}

enum snapshot_file snapshot_name_parse(const char *name, struct snapshot_id *out)
{
    int64_t offset, epoch;
    if (strlen(name) < 31 || !digits(name, 20, &offset) || name[20] != '-' ||
        !digits(name + 21, 10, &epoch) || epoch > INT32_MAX)
        return SNAPSHOT_NONE;
    *out = (struct snapshot_id){offset, (int32_t)epoch};
    const char *rest = name + 31;
    if (strcmp(rest, SNAPSHOT_SUFFIX) == 0)
        return SNAPSHOT_COMPLETE;
    if (strcmp(rest, SNAPSHOT_SUFFIX ".part") == 0)
        return SNAPSHOT_PART;
    return strcmp(rest, SNAPSHOT_SUFFIX ".deleted") == 0 ? SNAPSHOT_DELETED : SNAPSHOT_NONE;
}

void snapshot_name(const struct snapshot_id *id, char out[SNAPSHOT_NAME_MAX])
{
    assert(id->end_offset >= 0);
    assert(id->epoch >= 0);
    snprintf(out, SNAPSHOT_NAME_MAX, "%020" PRId64 "-%010" PRId32 SNAPSHOT_SUFFIX, id->end_offset, id->epoch);
}

/* ---- writing ---- */

struct snapshot_writer {
    struct disk *disk;
    struct disk_file *file;
    char dir[SNAPSHOT_PATH_MAX], part[SNAPSHOT_PATH_MAX], path[SNAPSHOT_PATH_MAX];
    int32_t epoch;
    int64_t timestamp_ms;
    int64_t offset_next, position;
    struct buf batch, value;
    struct batch_builder builder;
    bool building;
};

static int writer_flush(struct snapshot_writer *w, struct err *err)
{
    struct batch_header h;
    int rc = batch_close(&w->builder, &h);
    w->building = false;
    if (rc < 0)
        return err_set(err, rc, "%s: %s", w->part, err_str(rc));
    struct slice bytes = buf_slice(&w->batch);
    ssize_t n = disk_pwrite(w->file, bytes.p, bytes.n, w->position);
    if (n < 0)
        return err_set(err, (int)n, "%s: cannot write: %s", w->part, err_str((int)n));
    w->position += (int64_t)bytes.n;
    w->offset_next = batch_last_offset(&h) + 1;
    buf_clear(&w->batch);
    return 0;
}

static void writer_begin(struct snapshot_writer *w, int attributes)
{
    struct batch_options o = BATCH_OPTIONS;
    o.base_offset = w->offset_next;
    o.leader_epoch = w->epoch;
    o.attributes = attributes;
    assert(!w->building);
    assert(w->batch.n == 0);
    batch_begin(&w->builder, &w->batch, &o);
    w->building = true;
}

static int writer_header(struct snapshot_writer *w, const struct snapshot_quorum *q, struct err *err)
{
    struct kp_snapshot_header_record header = {.last_contained_log_timestamp = w->timestamp_ms};
    writer_begin(w, BATCH_CONTROL);
    int rc = batch_add_control(&w->builder, w->timestamp_ms, CONTROL_SNAPSHOT_HEADER,
                               &kp_snapshot_header_record_message, 0, &header);
    if (rc == 0 && q && q->kraft_version > 0) {
        struct kp_kraft_version_record version = {.kraft_version = q->kraft_version};
        rc = batch_add_control(&w->builder, w->timestamp_ms, CONTROL_KRAFT_VERSION,
                               &kp_kraft_version_record_message, 0, &version);
        assert(q->voters);
        if (rc == 0)
            rc = batch_add_control(&w->builder, w->timestamp_ms, CONTROL_KRAFT_VOTERS,
                                   &kp_voters_record_message, 0, q->voters);
    }
    return rc < 0 ? err_set(err, rc, "%s: %s", w->part, err_str(rc)) : writer_flush(w, err);
}

int snapshot_writer_open(struct disk *disk, const char *dir, const char *name, int32_t epoch,
                         int64_t timestamp_ms, const struct snapshot_quorum *quorum,
                         struct snapshot_writer **out, struct err *err)
{
    struct snapshot_writer *w = calloc(1, sizeof *w);
    if (!w)
        return err_set(err, -E_NOMEM, "no memory for a snapshot");
    *w = (struct snapshot_writer){.disk = disk, .epoch = epoch, .timestamp_ms = timestamp_ms};
    buf_init(&w->batch, METADATA_BATCH_BYTES_MAX * 2);
    buf_init(&w->value, METADATA_BATCH_BYTES_MAX);
    int n = snprintf(w->part, sizeof w->part, "%s/%s.part", dir, name);
    assert(n > 0);
    assert((size_t)n < sizeof w->part);
    snprintf(w->path, sizeof w->path, "%s/%s", dir, name);
    snprintf(w->dir, sizeof w->dir, "%s", dir);
    int rc = disk_open(disk, w->part, DISK_WRITE | DISK_CREATE | DISK_TRUNCATE, &w->file, err);
    if (rc == 0)
        rc = writer_header(w, quorum, err);
    if (rc < 0) {
        snapshot_writer_abandon(w);
        return rc;
    }
    *out = w;
    return 0;
}

int snapshot_writer_add(struct snapshot_writer *w, const struct metadata_record *r, struct err *err)
{
    buf_clear(&w->value);
    int rc = metadata_record_encode(r, &w->value);
    if (!w->building)
        writer_begin(w, 0);
    if (rc == 0)
        rc = batch_add(&w->builder,
                       &(struct record_new){.timestamp = w->timestamp_ms, .value = buf_slice(&w->value)});
    if (rc < 0)
        return err_set(err, rc, "%s: %s", w->part, err_str(rc));
    return batch_bytes(&w->builder) >= SNAPSHOT_BATCH_BYTES ? writer_flush(w, err) : 0;
}

static int writer_footer(struct snapshot_writer *w, struct err *err)
{
    struct kp_snapshot_footer_record footer = {0};
    int rc = w->building ? writer_flush(w, err) : 0;
    if (rc < 0)
        return rc;
    writer_begin(w, BATCH_CONTROL);
    rc = batch_add_control(&w->builder, w->timestamp_ms, CONTROL_SNAPSHOT_FOOTER,
                           &kp_snapshot_footer_record_message, 0, &footer);
    return rc < 0 ? err_set(err, rc, "%s: %s", w->part, err_str(rc)) : writer_flush(w, err);
}

int snapshot_writer_close(struct snapshot_writer *w, struct err *err)
{
    int rc = writer_footer(w, err);
    if (rc == 0) {
        rc = disk_fdatasync(w->file);
        if (rc == 0) {
            disk_close(w->file);
            w->file = NULL;
            rc = disk_rename(w->disk, w->part, w->path);
        }
        if (rc == 0)
            rc = disk_sync_dir(w->disk, w->dir);
        if (rc < 0)
            err_set(err, rc, "%s: %s", w->path, err_str(rc));
    }
    snapshot_writer_abandon(w); /* after the rename there is no part to remove */
    return rc;
}

void snapshot_writer_abandon(struct snapshot_writer *w)
{
    if (w->building)
        batch_drop(&w->builder);
    disk_close(w->file);
    (void)disk_unlink(w->disk, w->part);
    buf_fini(&w->batch);
    buf_fini(&w->value);
    free(w);
}

struct image_to_writer {
    struct snapshot_writer *w;
    struct err *err;
};

static int write_one(void *arg, const struct metadata_record *r)
{
    const struct image_to_writer *to = arg;
    return snapshot_writer_add(to->w, r, to->err);
}

int snapshot_write(struct disk *disk, const char *dir, const struct image *img,
                   const struct snapshot_quorum *quorum, int64_t *size_bytes, struct err *err)
{
    struct snapshot_id id = {image_offset(img) + 1, image_epoch(img)};
    struct snapshot_writer *w;
    char name[SNAPSHOT_NAME_MAX];
    snapshot_name(&id, name);
    int rc = snapshot_writer_open(disk, dir, name, id.epoch, img->timestamp_ms, quorum, &w, err);
    if (rc < 0)
        return rc;
    rc = image_write(img, write_one, &(struct image_to_writer){w, err}, err);
    if (rc < 0) {
        snapshot_writer_abandon(w);
        return rc;
    }
    if (size_bytes)
        *size_bytes = w->position;
    return snapshot_writer_close(w, err);
}

/* ---- reading ---- */

struct reading {
    struct disk_file *file;
    const char *path;
    const struct snapshot_reader *to;
    int64_t position, offset_next;
    struct buf batch;
    struct arena arena;
    bool header, footer;
    struct err *err;
};

/* 1 and a batch in r->batch; 0 at the end of the file. */
static int reading_next(struct reading *r, struct batch_header *h)
{
    buf_clear(&r->batch);
    uint8_t *head = buf_room(&r->batch, BATCH_HEADER_BYTES);
    if (!head)
        return -E_NOMEM;
    ssize_t n = disk_pread(r->file, head, BATCH_HEADER_BYTES, r->position);
    if (n <= 0)
        return (int)n;
    if (n < BATCH_HEADER_BYTES)
        return -E_TRUNCATED;
    buf_added(&r->batch, BATCH_HEADER_BYTES);
    int rc = batch_header_read(buf_slice(&r->batch), h, r->err);
    if (rc < 0)
        return rc;
    if (batch_size(h) > r->batch.limit)
        return -E_CORRUPT;
    size_t rest = batch_size(h) - BATCH_HEADER_BYTES;
    uint8_t *room = buf_room(&r->batch, rest);
    if (!room)
        return -E_NOMEM;
    n = disk_pread(r->file, room, rest, r->position + BATCH_HEADER_BYTES);
    if (n < 0)
        return (int)n;
    if ((size_t)n < rest)
        return -E_TRUNCATED;
    buf_added(&r->batch, rest);
    rc = batch_read(buf_slice(&r->batch), h, r->err);
    r->position += (int64_t)batch_size(h);
    return rc < 0 ? rc : 1;
}

static int reading_control_record(struct reading *r, const struct record *record)
{
    enum control_type type;
    int rc = control_type_read(record, &type);
    if (rc < 0)
        return rc;
    if (!r->header && type != CONTROL_SNAPSHOT_HEADER)
        return err_set(r->err, -E_CORRUPT, "it does not begin with a header");
    r->header = true;
    if (type == CONTROL_SNAPSHOT_FOOTER)
        r->footer = true;
    if (type != CONTROL_SNAPSHOT_FOOTER && r->to->control)
        return r->to->control(r->to->arg, (int)type, record->value);
    return 0;
}

static int reading_control(struct reading *r, const struct batch_header *h)
{
    struct slice batch = buf_slice(&r->batch);
    struct record_walk w;
    struct record record;
    int rc;
    record_walk_init(&w, h, slice_of(batch.p + BATCH_HEADER_BYTES, batch.n - BATCH_HEADER_BYTES));
    while ((rc = record_next(&w, &record)) > 0) {
        rc = reading_control_record(r, &record);
        if (rc < 0)
            return rc;
    }
    return rc;
}

static int reading_record(void *arg, int64_t offset, const struct metadata_record *record)
{
    const struct reading *r = arg;
    (void)offset;
    return r->to->record(r->to->arg, record);
}

static int reading_batch(struct reading *r, const struct batch_header *h)
{
    if (r->footer)
        return err_set(r->err, -E_CORRUPT, "bytes behind the footer");
    if (h->base_offset != r->offset_next)
        return err_set(r->err, -E_CORRUPT, "a batch at offset %" PRId64 ", expected %" PRId64, h->base_offset,
                       r->offset_next);
    r->offset_next = batch_last_offset(h) + 1;
    if (batch_is(h, BATCH_CONTROL))
        return reading_control(r, h);
    if (!r->header)
        return err_set(r->err, -E_CORRUPT, "it does not begin with a header");
    int rc = metadata_batch_each(buf_slice(&r->batch), &r->arena, reading_record, r, r->err);
    arena_reset(&r->arena);
    return rc;
}

int snapshot_read(struct disk *disk, const char *path, const struct snapshot_reader *reader, struct err *err)
{
    struct err local = {0};
    struct reading r = {.path = path, .to = reader, .err = err ? err : &local};
    struct batch_header h;
    r.err->text[0] = '\0';
    int rc = disk_open(disk, path, DISK_READ, &r.file, r.err);
    if (rc < 0)
        return rc;
    buf_init(&r.batch, METADATA_BATCH_BYTES_MAX * 2);
    arena_init(&r.arena, (size_t)METADATA_BATCH_BYTES_MAX * 32);
    while ((rc = reading_next(&r, &h)) > 0) {
        rc = reading_batch(&r, &h);
        if (rc < 0)
            break;
    }
    if (rc == 0 && !r.footer)
        rc = err_set(r.err, -E_TRUNCATED, "it ends without a footer");
    if (rc < 0) {
        if (!r.err->text[0])
            err_set(r.err, rc, "%s at byte %" PRId64, err_str(rc), r.position);
        err_wrap(r.err, "snapshot %s", path);
    }
    disk_close(r.file);
    buf_fini(&r.batch);
    arena_fini(&r.arena);
    return rc;
}

struct loading {
    struct image_edit edit;
    struct err *err;
    int64_t timestamp_ms;
    int (*control)(void *arg, int type, struct slice value);
    void *arg;
};

static int load_record(void *arg, const struct metadata_record *r)
{
    struct loading *l = arg;
    return image_edit_apply(&l->edit, r, l->err);
}

static int load_header(struct loading *l, struct slice value)
{
    struct arena none;
    struct kp_snapshot_header_record header;
    arena_init(&none, sizeof header);
    int rc = kp_decode(&kp_snapshot_header_record_message, 0, value, &none, &header, NULL, l->err);
    l->timestamp_ms = rc < 0 ? 0 : header.last_contained_log_timestamp;
    arena_fini(&none);
    return rc;
}

static int load_control(void *arg, int type, struct slice value)
{
    struct loading *l = arg;
    if (type == CONTROL_SNAPSHOT_HEADER)
        return load_header(l, value);
    return l->control ? l->control(l->arg, type, value) : 0;
}

int snapshot_load(struct disk *disk, const char *dir, const struct snapshot_id *id, struct slice cluster_id,
                  int (*control)(void *arg, int type, struct slice value), void *arg, struct image **out,
                  struct err *err)
{
    struct err local = {0};
    struct loading l = {.err = err ? err : &local, .control = control, .arg = arg};
    char name[SNAPSHOT_NAME_MAX], path[SNAPSHOT_PATH_MAX];
    snapshot_name(id, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    struct image *base = image_empty(cluster_id);
    int rc = base ? image_edit_begin(&l.edit, base) : -E_NOMEM;
    image_unref(base);
    if (rc < 0)
        return err_set(err, rc, "no memory for the metadata image");
    rc = snapshot_read(disk, path, &(struct snapshot_reader){load_record, load_control, &l}, l.err);
    if (rc == 0 && image_edit_in_transaction(&l.edit))
        rc = err_set(err, -E_CORRUPT, "snapshot %s ends in a transaction", path);
    if (rc < 0) {
        image_edit_drop(&l.edit);
        return rc;
    }
    *out = image_edit_finish(&l.edit, id->end_offset - 1, id->epoch, l.timestamp_ms);
    return 0;
}
