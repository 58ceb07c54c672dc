#include "broker/log/dump.h"

#include "base/core/bytes.h"
#include "broker/log/epochs.h"
#include "broker/log/producers.h"
#include "broker/log/walk.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define LINE_MAX_BYTES 1024
#define SMALL_LIMIT    ((size_t)256 * 1024 * 1024)
#define RECORD_LIMIT   ((size_t)INT32_MAX)

struct dump {
    struct disk *disk;
    const char *path;
    unsigned how;
    void (*out)(void *arg, const char *line);
    void *arg;
    struct err *err;
    struct buf line, scratch;
};

static void say(struct dump *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct dump *d, const char *fmt, ...)
{
    char line[LINE_MAX_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    d->out(d->arg, line);
}

static bool json(const struct dump *d)
{
    return (d->how & LOG_DUMP_JSON) != 0;
}

/* ---- .log ---- */

static const char *kind_of(const struct batch_header *h)
{
    return batch_is(h, BATCH_CONTROL)         ? "control"
           : batch_is(h, BATCH_TRANSACTIONAL) ? "transactional"
                                              : "data";
}

static void say_batch(struct dump *d, const struct walk *w, bool crc_ok)
{
    assert(w->position >= 0);
    const struct batch_header *h = &w->h;
    const char *codec = codec_name(batch_codec(h)),
               *time = batch_is(h, BATCH_LOG_APPEND_TIME) ? "append" : "create";
    int64_t horizon = batch_is(h, BATCH_DELETE_HORIZON) ? h->base_timestamp : -1;
    say(d,
        json(d)
            ? "{\"position\":%lld,\"baseOffset\":%lld,\"lastOffset\":%lld,\"records\":%d,\"leaderEpoch\":%d,"
              "\"kind\":\"%s\",\"codec\":\"%s\",\"time\":\"%s\",\"maxTimestamp\":%lld,\"deleteHorizon\":%lld,"
              "\"producerId\":%lld,\"producerEpoch\":%d,\"baseSequence\":%d,\"bytes\":%zu,\"crc\":%u,"
              "\"crcOk\":%s}"
            : "position %lld offsets %lld..%lld records %d epoch %d %s codec %s time %s max %lld horizon "
              "%lld "
              "producer %lld/%d sequence %d bytes %zu crc %08x %s",
        (long long)w->position, (long long)h->base_offset, (long long)batch_last_offset(h), h->records_n,
        h->leader_epoch, kind_of(h), codec, time, (long long)h->max_timestamp, (long long)horizon,
        (long long)h->producer_id, h->producer_epoch, h->base_sequence, batch_size(h), h->crc,
        json(d) ? (crc_ok ? "true" : "false") : (crc_ok ? "ok" : "WRONG"));
}

/* As a quoted text, what is not printable escaped. */
static void put_text(struct buf *b, struct slice s)
{
    assert(b);
    if (slice_is_null(s)) {
        buf_put(b, "null", 4);
        return;
    }
    buf_put_u8(b, '"');
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"' || s.p[i] == '\\')
            buf_printf(b, "\\%c", s.p[i]);
        else if (s.p[i] < 0x20 || s.p[i] > 0x7e)
            buf_printf(b, "\\u%04x", s.p[i]);
        else
            buf_put_u8(b, s.p[i]);
    }
    buf_put_u8(b, '"');
}

static void say_record(struct dump *d, const struct record *r)
{
    assert(r->offset >= 0);
    struct slice headers = r->headers;
    struct record_header h;
    buf_clear(&d->line);
    buf_printf(&d->line,
               json(d) ? "{\"offset\":%lld,\"timestamp\":%lld,\"key\":" : "  offset %lld timestamp %lld key ",
               (long long)r->offset, (long long)r->timestamp);
    put_text(&d->line, r->key);
    buf_printf(&d->line, json(d) ? ",\"value\":" : " value ");
    put_text(&d->line, r->value);
    buf_printf(&d->line, json(d) ? ",\"headers\":[" : " headers [");
    for (int i = 0; record_header_next(&headers, &h) == 1; i++) {
        buf_printf(&d->line, json(d) ? "%s{\"key\":" : "%s", i ? ", " : "");
        put_text(&d->line, h.key);
        buf_printf(&d->line, json(d) ? ",\"value\":" : "=");
        put_text(&d->line, h.value);
        buf_printf(&d->line, json(d) ? "}" : "");
    }
    buf_printf(&d->line, json(d) ? "]}" : "]");
    buf_put_u8(&d->line, 0);
    if (d->line.failed)
        say(d, "  offset %lld: too large to print", (long long)r->offset);
    else
        d->out(d->arg, (const char *)d->line.p);
}

static int say_records(struct dump *d, struct walk *w)
{
    struct slice batch, payload;
    struct record_walk rw;
    struct record r;
    struct codec_limits limits = codec_limits_for(SMALL_LIMIT);
    buf_clear(&d->scratch);
    int rc = walk_batch(w, &batch);
    if (!rc)
        rc = batch_payload(&w->h, batch, &limits, &d->scratch, &payload, d->err);
    if (rc)
        return rc;
    record_walk_init(&rw, &w->h, payload);
    while ((rc = record_next(&rw, &r)) > 0)
        say_record(d, &r);
    return rc;
}

static int dump_batches(struct dump *d)
{
    struct disk_file *f;
    int rc = disk_open(d->disk, d->path, DISK_READ, &f, d->err), bad = 0;
    if (rc)
        return rc;
    struct walk w;
    int64_t bad_at = -1;
    walk_init(&w, f, 0, disk_size(f), WALK_WINDOW_SCAN);
    while ((rc = walk_next(&w)) > 0) {
        int ok = walk_crc_ok(&w);
        if (ok < 0) {
            rc = ok;
            break;
        }
        say_batch(d, &w, ok == 1);
        if (ok == 1 && (d->how & LOG_DUMP_RECORDS))
            ok = say_records(d, &w) == 0;
        if (!ok && !bad++)
            bad_at = w.position;
    }
    if (rc < 0) {
        bad_at = bad ? bad_at : w.position;
        bad++;
        say(d, json(d) ? "{\"position\":%lld,\"error\":\"%s\"}" : "position %lld: no batch: %s",
            (long long)w.position, err_str(rc));
    }
    walk_fini(&w);
    disk_close(f);
    return bad ? err_set(d->err, -E_CORRUPT, "%s position %lld: not a sound batch", d->path,
                         (long long)bad_at)
               : 0;
}

/* ---- the other files ---- */

static int whole_file(struct dump *d, struct slice *out)
{
    return disk_read_all(d->disk, d->path, SMALL_LIMIT, out, d->err);
}

static int dump_index(struct dump *d, bool times, int64_t base)
{
    assert(base >= 0);
    struct slice all;
    int rc = whole_file(d, &all);
    if (rc)
        return rc;
    size_t each = times ? 12 : 8;
    int64_t before = -1;
    for (size_t at = 0; at + each <= all.n; at += each) {
        const uint8_t *p = all.p + at;
        int64_t key = times ? (int64_t)be64_get(p) : base + (int32_t)be32_get(p);
        int64_t value = times ? base + (int32_t)be32_get(p + 8) : (int32_t)be32_get(p + 4);
        if (at > 0 && key == (times ? 0 : base))
            break; /* reserved room of a file that was not closed */
        say(d,
            json(d) ? (times ? "{\"timestamp\":%lld,\"offset\":%lld}" : "{\"offset\":%lld,\"position\":%lld}")
                    : (times ? "timestamp %lld offset %lld" : "offset %lld position %lld"),
            (long long)key, (long long)value);
        if (key <= before && !rc)
            rc = err_set(d->err, -E_CORRUPT, "%s: entry %zu does not rise", d->path, at / each);
        before = key;
    }
    free((void *)(uintptr_t)all.p);
    return rc;
}

static void say_producer(void *arg, const struct log_producer *p)
{
    struct dump *d = arg;
    say(d,
        json(d)
            ? "{\"producerId\":%lld,\"producerEpoch\":%d,\"lastSequence\":%d,\"lastOffset\":%lld,"
              "\"timestamp\":%lld,\"coordinatorEpoch\":%d,\"txnFirstOffset\":%lld}"
            : "producer %lld epoch %d last sequence %d last offset %lld timestamp %lld coordinator epoch %d "
              "txn first offset %lld",
        (long long)p->producer_id, p->epoch, p->last_sequence, (long long)p->last_offset,
        (long long)p->last_timestamp_ms, p->coordinator_epoch, (long long)p->txn_first_offset);
}

static int dump_snapshot(struct dump *d)
{
    struct slice all;
    struct producers producers;
    int rc = whole_file(d, &all);
    if (rc)
        return rc;
    producers_init(&producers);
    rc = producers_read(&producers, all, d->err);
    if (!rc)
        producers_each(&producers, say_producer, d);
    producers_fini(&producers);
    free((void *)(uintptr_t)all.p);
    return rc ? err_wrap(d->err, "%s", d->path) : 0;
}

static int dump_epochs(struct dump *d)
{
    struct slice all;
    struct epochs epochs = {0};
    int rc = whole_file(d, &all);
    if (rc)
        return rc;
    rc = epochs_read(&epochs, all, d->err);
    for (unsigned i = 0; i < epochs.n; i++)
        say(d, json(d) ? "{\"epoch\":%d,\"startOffset\":%lld}" : "epoch %d starts at offset %lld",
            epochs.v[i].epoch, (long long)epochs.v[i].start_offset);
    epochs_fini(&epochs);
    free((void *)(uintptr_t)all.p);
    return rc ? err_wrap(d->err, "%s", d->path) : 0;
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && strcmp(name + n - m, suffix) == 0;
}

int log_dump_print(struct disk *disk, const char *path, unsigned how,
                   void (*out)(void *arg, const char *line), void *arg, struct err *err)
{
    assert(path && out);
    struct err own = {0};
    struct dump d = {.disk = disk, .path = path, .how = how, .out = out, .arg = arg, .err = err ? err : &own};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    int64_t base = strtoll(name, NULL, 10);
    buf_init(&d.line, RECORD_LIMIT);
    buf_init(&d.scratch, RECORD_LIMIT);
    int rc;
    if (has_suffix(name, ".log") || has_suffix(name, ".checkpoint"))
        rc = dump_batches(&d);
    else if (has_suffix(name, ".index"))
        rc = dump_index(&d, false, base);
    else if (has_suffix(name, ".timeindex"))
        rc = dump_index(&d, true, base);
    else if (has_suffix(name, ".snapshot"))
        rc = dump_snapshot(&d);
    else if (strcmp(name, "leader-epoch-checkpoint") == 0)
        rc = dump_epochs(&d);
    else
        rc = err_set(d.err, -E_INVALID,
                     "%s: not a .log, .index, .timeindex, .snapshot, .checkpoint or "
                     "leader-epoch-checkpoint",
                     path);
    buf_fini(&d.line);
    buf_fini(&d.scratch);
    return rc;
}
