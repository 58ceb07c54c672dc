#include "tests/support/log/log_rig.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

void rig_init(struct log_rig *r, struct disk *disk, const char *root)
{
    *r = (struct log_rig){.disk = disk, .config = log_config_default(), .wall_ms = INT64_C(1700000000000)};
    snprintf(r->dir, sizeof r->dir, "%s/t-0", root);
    int rc = disk_make_dirs(disk, root, &r->err);
    assert(rc == 0);
    rc = disk_sync_dir(disk, "/");
    r->files = log_files_create(disk, 8);
    assert(r->files && !rc);
    r->config.retention_ms = -1;
}

void rig_fini(struct log_rig *r)
{
    if (r->l)
        log_abandon(r->l);
    r->l = NULL;
    log_files_destroy(r->files);
}

int rig_open(struct log_rig *r, bool clean, int64_t recovery_point)
{
    assert(!r->l);
    r->err = (struct err){0};
    struct log_open_options o = {.files = r->files,
                                 .wall_ms = r->wall_ms,
                                 .create = true,
                                 .clean = clean,
                                 .kept = r->kept,
                                 .recovery_point = recovery_point};
    return log_open(r->disk, r->dir, &r->config, &o, &r->l, &r->err);
}

void rig_reopen(struct log_rig *r)
{
    int64_t start = log_start_offset(r->l), point = log_end_offset(r->l);
    int rc = log_close(r->l, &r->err);
    r->l = NULL;
    assert(rc == 0);
    struct log_open_options o = {.files = r->files,
                                 .wall_ms = r->wall_ms,
                                 .clean = true,
                                 .recovery_point = point,
                                 .start_offset = start};
    rc = log_open(r->disk, r->dir, &r->config, &o, &r->l, &r->err);
    if (rc)
        fprintf(stderr, "reopen: %s\n", r->err.text);
    assert(rc == 0);
}

int rig_crash(struct log_rig *r, int64_t recovery_point)
{
    if (r->l)
        log_abandon(r->l);
    r->l = NULL;
    return rig_open(r, false, recovery_point);
}

void rig_flush(struct log_rig *r, enum log_flush_how how)
{
    struct log_flush *f;
    int rc = log_flush_begin(r->l, how, &f);
    assert(rc >= 0);
    if (rc == 0)
        return;
    log_flush_run(f);
    rc = log_flush_done(r->l, f, &r->err);
    assert(rc == 0);
}

void rig_batch_put(struct buf *out, const struct rig_batch *b)
{
    struct batch_builder w;
    struct batch_options o = BATCH_OPTIONS;
    o.codec = b->codec;
    o.base_offset = b->offset;
    o.leader_epoch = b->epoch;
    o.attributes = b->attributes;
    if (b->producer_id > 0) {
        o.producer_id = b->producer_id;
        o.producer_epoch = b->producer_epoch;
        o.base_sequence = b->sequence;
    }
    batch_begin(&w, out, &o);
    for (int32_t i = 0; i < (b->records ? b->records : 1); i++) {
        char key[64], value[8192];
        int n = snprintf(value, sizeof value, "%lld.%d.", (long long)b->tag, i);
        assert(n > 0 && b->value_bytes < (int32_t)sizeof value);
        for (; n < b->value_bytes; n++)
            value[n] = (char)('a' + (n * 7 + (int)b->tag) % 26);
        struct record_new r = {.timestamp = b->timestamp + i, .value = slice_of(value, (size_t)n)};
        if (b->key) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(key, sizeof key, b->key, i);
#pragma GCC diagnostic pop
            r.key = slice_str(key);
        }
        if (b->tombstone)
            r.value = SLICE_NULL;
        int rc = batch_add(&w, &r);
        assert(rc == 0);
        (void)rc;
    }
    int rc = batch_close(&w, NULL);
    assert(rc == 0);
    (void)rc;
}

int rig_try_append(struct log_rig *r, const struct rig_batch *b, struct log_batch *out)
{
    struct buf bytes;
    buf_init(&bytes, 1 << 24);
    rig_batch_put(&bytes, b);
    *out = (struct log_batch){.bytes = bytes.p, .size_bytes = bytes.n};
    struct log_append_options o = {.leader_epoch = b->epoch, .wall_ms = r->wall_ms};
    int rc = log_append(r->l, out, 1, &o, &r->err);
    buf_fini(&bytes);
    out->bytes = NULL;
    return rc;
}

struct log_batch rig_append(struct log_rig *r, const struct rig_batch *b)
{
    struct log_batch out;
    int rc = rig_try_append(r, b, &out);
    if (rc)
        fprintf(stderr, "append: %s\n", r->err.text);
    assert(rc == 0);
    return out;
}

static int keep(void *arg, struct slice batch)
{
    buf_put(arg, batch.p, batch.n);
    return 0;
}

int rig_read(struct log_rig *r, int64_t from, int64_t to, struct buf *out)
{
    return log_each(r->l, from, to, keep, out, &r->err);
}

struct records_each {
    void (*each)(void *arg, const struct batch_header *h, const struct record *rec);
    void *arg;
};

static int batch_records(void *arg, struct slice batch)
{
    struct records_each *e = arg;
    struct batch_header h;
    struct codec_limits limits = codec_limits_for(1 << 24);
    struct buf scratch;
    struct slice payload;
    struct record_walk w;
    struct record rec;
    buf_init(&scratch, 1 << 26);
    int rc = batch_read(batch, &h, NULL);
    if (!rc)
        rc = batch_payload(&h, batch, &limits, &scratch, &payload, NULL);
    if (!rc) {
        record_walk_init(&w, &h, payload);
        while ((rc = record_next(&w, &rec)) > 0)
            e->each(e->arg, &h, &rec);
    }
    buf_fini(&scratch);
    return rc;
}

int rig_each_record(struct log_rig *r, int64_t from, int64_t to,
                    void (*each)(void *arg, const struct batch_header *h, const struct record *rec),
                    void *arg)
{
    struct records_each e = {each, arg};
    return log_each(r->l, from, to, batch_records, &e, &r->err);
}
