#include "broker/log/index.h"

#include "base/core/bytes.h"

#include <assert.h>
#include <stdlib.h>

#define BLOCK_ENTRIES 256 /* read at once when a search has come this close */

void index_init(struct log_index *ix, enum index_kind kind, int64_t base_offset, struct log_files *files)
{
    assert(base_offset >= 0);
    *ix = (struct log_index){.kind = kind, .base_offset = base_offset};
    log_handle_init(&ix->handle, files);
}

void index_fini(struct log_index *ix)
{
    log_handle_close(&ix->handle);
    free(ix->tail);
    ix->tail = NULL;
    ix->in_tail = ix->tail_room = 0;
}

static void encode(const struct log_index *ix, struct index_entry e, uint8_t *p)
{
    assert(p);
    if (ix->kind == INDEX_OFFSETS) {
        assert(e.key >= ix->base_offset && e.key - ix->base_offset <= INT32_MAX);
        assert(e.value >= 0 && e.value <= INT32_MAX);
        be32_put(p, (uint32_t)(e.key - ix->base_offset));
        be32_put(p + 4, (uint32_t)e.value);
    } else {
        assert(e.value >= ix->base_offset && e.value - ix->base_offset <= INT32_MAX);
        be64_put(p, (uint64_t)e.key);
        be32_put(p + 8, (uint32_t)(e.value - ix->base_offset));
    }
}

static struct index_entry decode(const struct log_index *ix, const uint8_t *p)
{
    if (ix->kind == INDEX_OFFSETS)
        return (struct index_entry){ix->base_offset + (int32_t)be32_get(p), (int32_t)be32_get(p + 4)};
    return (struct index_entry){(int64_t)be64_get(p), ix->base_offset + (int32_t)be32_get(p + 8)};
}

static int64_t entry_offset(const struct log_index *ix, struct index_entry e)
{
    return ix->kind == INDEX_OFFSETS ? e.key : e.value;
}

static bool entry_fits(const struct log_index *ix, struct index_entry e, int64_t end_offset,
                       int64_t log_bytes)
{
    assert(ix->base_offset >= 0);
    int64_t offset = entry_offset(ix, e);
    if (offset < ix->base_offset || offset >= end_offset)
        return false;
    return ix->kind == INDEX_TIMES ? e.key >= 0 : e.value >= 0 && e.value < log_bytes;
}

static int file_get(struct log_index *ix, struct disk *disk, const char *path, struct disk_file **out,
                    struct err *err)
{
    struct log_file *f;
    int rc = log_handle_get(&ix->handle, disk, path, DISK_WRITE | DISK_CREATE, &f, err);
    if (!rc)
        *out = log_file_disk(f);
    return rc;
}

static int file_read(struct log_index *ix, struct disk *disk, const char *path, uint32_t at, uint32_t n,
                     uint8_t *to, struct err *err)
{
    assert(n > 0 && at + n <= 1u << 30);
    struct disk_file *f;
    int rc = file_get(ix, disk, path, &f, err);
    if (rc)
        return rc;
    size_t each = index_entry_bytes(ix->kind);
    ssize_t got = disk_pread(f, to, n * each, (int64_t)(at * each));
    if (got != (ssize_t)(n * each))
        return err_set(err, got < 0 ? (int)got : -E_CORRUPT,
                       "read of %s ended early: remove it to have it rebuilt", path);
    return 0;
}

int index_load(struct log_index *ix, struct disk *disk, const char *path, int64_t end_offset,
               int64_t log_bytes, struct err *err)
{
    assert(end_offset >= ix->base_offset && log_bytes >= 0);
    assert(!ix->loaded && ix->in_tail == 0);
    struct log_file *file;
    int rc = log_handle_get(&ix->handle, disk, path, DISK_WRITE, &file, err);
    if (rc)
        return rc;
    int64_t bytes = disk_size(log_file_disk(file));
    size_t each = index_entry_bytes(ix->kind);
    if (bytes < 0)
        return err_set(err, (int)bytes, "cannot tell the size of %s", path);
    /* Kafka killed: zeroes up to the preallocated size. Entries rise, so from the first zero one on all are zero. */
    uint32_t n = (uint32_t)(bytes / (int64_t)each), low = 0;
    uint8_t raw[12], zero[12] = {0};
    if (n > 0 && (rc = file_read(ix, disk, path, n - 1, 1, raw, err)))
        return rc;
    bool padded = n > 0 && memcmp(raw, zero, each) == 0;
    if (padded && (n > 1 || ix->kind == INDEX_OFFSETS)) { /* a lone (0, 0) is a time */
        for (uint32_t high = n; low < high;) {
            uint32_t middle = low + (high - low) / 2;
            if ((rc = file_read(ix, disk, path, middle, 1, raw, err)))
                return rc;
            if (memcmp(raw, zero, each) == 0)
                high = middle;
            else
                low = middle + 1;
        }
        n = low;
        if (n > 0 && (rc = file_read(ix, disk, path, n - 1, 1, raw, err)))
            return rc;
    }
    if (n > 0) {
        ix->last = decode(ix, raw);
        if (!entry_fits(ix, ix->last, end_offset, log_bytes))
            return err_set(err, -E_CORRUPT, "%s points past its segment", path);
    } else if (bytes % (int64_t)each != 0) {
        return err_set(err, -E_CORRUPT, "%s has %lld bytes, no whole entry", path, (long long)bytes);
    }
    if ((int64_t)(n * each) != bytes && (rc = disk_truncate(log_file_disk(file), (int64_t)(n * each))))
        return err_set(err, rc, "cannot truncate %s", path);
    ix->in_file = n;
    ix->loaded = true;
    return 0;
}

void index_forget(struct log_index *ix)
{
    ix->loaded = false;
    ix->in_file = ix->in_tail = 0;
    ix->last = (struct index_entry){0};
}

int index_reset(struct log_index *ix, struct disk *disk, const char *path, struct err *err)
{
    assert(path);
    log_handle_close(&ix->handle);
    struct log_file *f;
    int rc = log_handle_get(&ix->handle, disk, path, DISK_WRITE | DISK_CREATE | DISK_TRUNCATE, &f, err);
    if (rc)
        return rc;
    ix->in_file = ix->in_tail = 0;
    ix->last = (struct index_entry){0};
    ix->loaded = true;
    return 0;
}

static int tail_grow(struct log_index *ix)
{
    assert(ix->in_tail <= ix->tail_room);
    uint32_t room = ix->tail_room ? ix->tail_room * 2 : 16;
    uint8_t *tail = realloc(ix->tail, room * index_entry_bytes(ix->kind));
    if (!tail)
        return -E_NOMEM;
    ix->tail = tail;
    ix->tail_room = room;
    return 0;
}

int index_append(struct log_index *ix, struct index_entry e)
{
    assert(e.value >= 0);
    assert(ix->loaded);
    if (ix->kind == INDEX_TIMES && e.key < 0)
        return 0; /* no timestamp */
    if (index_entries(ix) > 0) {
        if (e.key <= ix->last.key)
            return 0;
        assert(e.value >= ix->last.value);
    }
    if (ix->in_tail == ix->tail_room && tail_grow(ix))
        return -E_NOMEM;
    encode(ix, e, ix->tail + ix->in_tail * index_entry_bytes(ix->kind));
    ix->in_tail++;
    assert(ix->in_tail <= ix->tail_room);
    ix->last = e;
    return 0;
}

int index_spill(struct log_index *ix, struct disk *disk, const char *path, struct err *err)
{
    assert(path && ix->in_tail <= ix->tail_room);
    assert(ix->loaded);
    struct disk_file *f;
    if (ix->in_tail == 0)
        return 0;
    int rc = file_get(ix, disk, path, &f, err);
    if (rc)
        return rc;
    size_t each = index_entry_bytes(ix->kind);
    ssize_t n = disk_pwrite(f, ix->tail, ix->in_tail * each, (int64_t)(ix->in_file * each));
    if (n < 0)
        return err_set(err, (int)n, "cannot write %s", path);
    ix->in_file += ix->in_tail;
    ix->in_tail = 0;
    assert(index_entries(ix) == ix->in_file);
    return 0;
}

int index_entry_at(struct log_index *ix, struct disk *disk, const char *path, uint32_t at,
                   struct index_entry *out, struct err *err)
{
    assert(out);
    assert(ix->loaded && at < index_entries(ix));
    uint8_t raw[12];
    if (at >= ix->in_file) {
        *out = decode(ix, ix->tail + (at - ix->in_file) * index_entry_bytes(ix->kind));
    } else {
        int rc = file_read(ix, disk, path, at, 1, raw, err);
        if (rc)
            return rc;
        *out = decode(ix, raw);
    }
    if (entry_offset(ix, *out) < ix->base_offset)
        return err_set(err, -E_CORRUPT, "%s: entry %u lies before the segment", path, at);
    return 0;
}

/* Within a block in memory. */
static uint32_t block_floor(const struct log_index *ix, const uint8_t *block, uint32_t n, int64_t bound,
                            bool by_value)
{
    assert(n <= UINT32_MAX / 12);
    uint32_t low = 0;
    while (low < n) {
        uint32_t middle = low + (n - low) / 2;
        struct index_entry e = decode(ix, block + middle * index_entry_bytes(ix->kind));
        if ((by_value ? e.value : e.key) <= bound)
            low = middle + 1;
        else
            n = middle;
    }
    return low;
}

int index_floor(struct log_index *ix, struct disk *disk, const char *path, int64_t bound, bool by_value,
                uint32_t *n, struct index_entry *out, struct err *err)
{
    assert(n && out);
    assert(ix->loaded);
    uint8_t block[BLOCK_ENTRIES * 12];
    uint32_t low = 0, high = ix->in_file;
    struct index_entry e;
    if (ix->in_tail > 0) {
        uint32_t in_tail = block_floor(ix, ix->tail, ix->in_tail, bound, by_value);
        if (in_tail > 0)
            low = high = ix->in_file + in_tail;
    }
    while (high - low > BLOCK_ENTRIES) {
        uint32_t middle = low + (high - low) / 2;
        int rc = index_entry_at(ix, disk, path, middle, &e, err);
        if (rc)
            return rc;
        if ((by_value ? e.value : e.key) <= bound)
            low = middle + 1;
        else
            high = middle;
    }
    if (high > low) {
        int rc = file_read(ix, disk, path, low, high - low, block, err);
        if (rc)
            return rc;
        low += block_floor(ix, block, high - low, bound, by_value);
    }
    assert(low <= index_entries(ix));
    *n = low;
    return low > 0 ? index_entry_at(ix, disk, path, low - 1, out, err) : 0;
}

int index_cut(struct log_index *ix, struct disk *disk, const char *path, uint32_t n, struct err *err)
{
    assert(ix->loaded && n <= index_entries(ix));
    struct disk_file *f;
    int rc = file_get(ix, disk, path, &f, err);
    if (rc)
        return rc;
    if (n <= ix->in_file) {
        if ((rc = disk_truncate(f, (int64_t)(n * index_entry_bytes(ix->kind)))))
            return err_set(err, rc, "cannot truncate %s", path);
        ix->in_file = n;
        ix->in_tail = 0;
    } else {
        ix->in_tail = n - ix->in_file;
    }
    if (n == 0)
        ix->last = (struct index_entry){0};
    return n > 0 ? index_entry_at(ix, disk, path, n - 1, &ix->last, err) : 0;
}

int index_check(struct log_index *ix, struct disk *disk, const char *path, int64_t end_offset,
                int64_t log_bytes, struct err *err)
{
    assert(end_offset >= ix->base_offset);
    assert(ix->loaded && ix->in_tail == 0);
    uint8_t block[BLOCK_ENTRIES * 12];
    struct index_entry before = {0}, e;
    for (uint32_t at = 0; at < ix->in_file;) {
        uint32_t n = ix->in_file - at < BLOCK_ENTRIES ? ix->in_file - at : BLOCK_ENTRIES;
        int rc = file_read(ix, disk, path, at, n, block, err);
        if (rc)
            return rc;
        for (uint32_t i = 0; i < n; i++, before = e) {
            e = decode(ix, block + i * index_entry_bytes(ix->kind));
            bool rises = at + i == 0 || (e.key > before.key && e.value >= before.value);
            if (!rises || !entry_fits(ix, e, end_offset, log_bytes))
                return err_set(err, -E_CORRUPT, "%s: entry %u does not fit", path, at + i);
        }
        at += n;
    }
    return 0;
}
