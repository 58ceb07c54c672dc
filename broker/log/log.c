#include "broker/log/log_internal.h"

#include "base/core/grow.h"
#include "base/core/mutant.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- paths and the list of segments ---- */

const char *log_path(const struct log *l, int64_t base, const char *suffix, const char *suffix2,
                     char out[LOG_PATH_MAX])
{
    assert(base >= 0 && suffix && suffix2);
    int n = snprintf(out, LOG_PATH_MAX, "%s/%020lld%s%s", l->dir, (long long)base, suffix, suffix2);
    assert(n > 0 && n < LOG_PATH_MAX); /* log_open has checked the folder's length */
    return out;
}

const char *log_path_named(const struct log *l, const char *name, char out[LOG_PATH_MAX])
{
    assert(name && name[0] && !strchr(name, '/'));
    int n = snprintf(out, LOG_PATH_MAX, "%s/%s", l->dir, name);
    assert(n > 0 && n < LOG_PATH_MAX);
    return out;
}

unsigned log_segment_at(const struct log *l, int64_t offset)
{
    assert(l->magic == LOG_MAGIC);
    unsigned low = 0, high = l->segments_n;
    assert(high > 0);
    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;
        if (l->segments[middle]->base_offset <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int log_segments_insert(struct log *l, unsigned at, struct segment *s)
{
    assert(s->magic == SEGMENT_MAGIC && l->segments_n <= l->segments_room);
    assert(at <= l->segments_n);
    if (!GROW(l->segments, l->segments_n, l->segments_room, 2))
        return -E_NOMEM;
    memmove(l->segments + at + 1, l->segments + at, (l->segments_n - at) * sizeof(struct segment *));
    l->segments[at] = s;
    l->segments_n++;
    assert(at == 0 || l->segments[at - 1]->base_offset < s->base_offset);
    return 0;
}

void log_segments_remove(struct log *l, unsigned at, unsigned n)
{
    assert(at + n <= l->segments_n);
    if (n == 0)
        return;
    for (unsigned i = at; i < at + n; i++)
        segment_destroy(l->segments[i]);
    memmove(l->segments + at, l->segments + at + n, (l->segments_n - at - n) * sizeof(struct segment *));
    l->segments_n -= n;
}

void log_hints_clear(struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    for (unsigned i = 0; i < LOG_HINTS; i++)
        l->appends[i].offset = l->reads[i].offset = -1;
}

int names_sync(struct disk *disk, const char *dir)
{
    assert(dir && dir[0]);
    return MUTANT("no_dir_fsync") ? 0 : disk_sync_dir(disk, dir);
}

void log_check(const struct log *l)
{
    if (l->fenced)
        return; /* whatever failed may have left anything */
    const struct segment *active = log_active(l);
    assert(l->magic == LOG_MAGIC && l->disk && l->files && l->dir);
    assert(l->segments_n > 0 && l->segments_n <= l->segments_room);
    ASSERT_SEGMENT(active);
    assert(active->data.pinned && active->data.file && active->size_bytes >= 0);
    assert(active->next_offset == l->end);
    assert(l->start >= 0 && l->start <= l->end);
    assert(l->start >= l->segments[0]->base_offset);
    assert(l->durable <= l->end && l->recovery_point <= l->durable);
    assert(!l->producers.changing);
    assert(epochs_latest(&l->epochs) < 0 || l->epochs.v[l->epochs.n - 1].start_offset <= l->end);
    assert(active->times_known && active->offsets.loaded && active->times.loaded);
    if (l->segments_n > 1) {
        const struct segment *before = l->segments[l->segments_n - 2];
        ASSERT_SEGMENT(before);
        assert(before->next_offset <= active->base_offset && !before->data.pinned);
    }
}

/* ---- fencing ---- */

void log_fence(struct log *l, int code, const char *why)
{
    assert(l->magic == LOG_MAGIC && code < 0);
    if (l->fenced)
        return; /* the first reason counts */
    l->fenced = code;
    l->fence_text = malloc(strlen(why) + 1);
    if (l->fence_text)
        memcpy(l->fence_text, why, strlen(why) + 1);
}

bool log_fenced(const struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    return l->fenced != 0;
}

bool log_disk_failed(const struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    int code = -l->fenced;
    return code && code != E_CORRUPT && code != E_NOMEM && code != E_LIMIT;
}

const char *log_fence_text(const struct log *l)
{
    return l->fence_text ? l->fence_text : l->fenced ? err_str(l->fenced) : "";
}

int log_broken(struct log *l, int code, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    assert(code < 0);
    log_fence(l, code, err && err->code == code ? err->text : err_str(code));
    return code;
}

/* ---- open and close ---- */

#define DELETED_NAME_MAX     255
#define DELETED_SUFFIX_BYTES 40 /* .<32>-delete */

#define OWN_FILES            16 /* open at once while a log is opened or closed */

static struct log *allocate(struct disk *disk, const char *dir, const struct log_config *config)
{
    struct log *l = calloc(1, sizeof *l);
    char *copy = malloc(strlen(dir) + 1);
    if (!l || !copy) {
        free(l);
        free(copy);
        return NULL;
    }
    memcpy(copy, dir, strlen(dir) + 1);
    l->magic = LOG_MAGIC;
    l->disk = disk;
    l->dir = copy;
    l->config = *config;
    l->snapshot_newest = l->snapshot_before = -1;
    l->recovery.cut_position = -1;
    producers_init(&l->producers);
    epochs_init(&l->epochs);
    list_init(&l->snapshots);
    list_init(&l->deleted);
    log_hints_clear(l);
    return l;
}

void log_free(struct log *l)
{
    assert(l->magic == LOG_MAGIC && !l->flush && !l->compaction);
    log_segments_remove(l, 0, l->segments_n);
    free(l->segments);
    epochs_fini(&l->epochs);
    producers_fini(&l->producers);
    log_snapshots_drop(l);
    log_deleted_drop(l);
    free(l->fence_text);
    free(l->dir);
    l->magic = 0;
    free(l);
}

/* All handles to another set: of the shard (opened), or of one call (being opened or closed). */
static void move_files(struct log *l, struct log_files *to)
{
    assert(l->magic == LOG_MAGIC);
    assert(to);
    for (unsigned i = 0; i < l->segments_n; i++) {
        struct segment *s = l->segments[i];
        log_handle_move(&s->data, to);
        log_handle_move(&s->offsets.handle, to);
        log_handle_move(&s->times.handle, to);
    }
    l->files = to;
}

int log_open(struct disk *disk, const char *dir, const struct log_config *config,
             const struct log_open_options *options, struct log **out, struct err *err)
{
    assert(options->files && options->recovery_point >= 0 && options->start_offset >= 0);
    assert(config->segment_bytes > 0 && config->index_interval_bytes >= 0 &&
           config->segment_index_bytes >= 12);
    if (strlen(dir) + 64 > LOG_PATH_MAX)
        return err_set(err, -E_LIMIT, "the path %s is too long", dir);
    struct log_files own;
    struct log *l = allocate(disk, dir, config);
    if (!l || log_files_init(&own, disk, OWN_FILES)) {
        free(l ? l->dir : NULL);
        free(l);
        return err_set(err, -E_NOMEM, "no memory for the log %s", dir);
    }
    l->files = &own;
    int rc = log_recover(l, options, err);
    if (rc)
        log_free(l);
    else
        move_files(l, options->files);
    log_files_fini(&own);
    if (rc)
        return rc;
    INVARIANT(l);
    *out = l;
    return 0;
}

/* Index tails, the snapshot at the end, the epochs; then everything to disk by a checkpoint flush. */
static int finish(struct log *l, struct err *err)
{
    assert(!l->fenced && !l->flush && !l->compaction);
    struct segment *active = log_active(l);
    if (active->reserved_bytes > active->size_bytes)
        segment_trim(active);
    for (unsigned i = 0; i < l->segments_n; i++) {
        int rc = segment_spill(l, l->segments[i], true, err);
        if (rc)
            return rc;
    }
    struct log_flush *f;
    int rc = log_flush_begin(l, LOG_FLUSH_CHECKPOINT, &f);
    if (rc < 0)
        return err_set(err, rc, "cannot flush %s", l->dir);
    if (rc > 0) {
        log_flush_run(f);
        rc = log_flush_done(l, f, err);
    }
    return rc;
}

int log_close(struct log *l, struct err *err)
{
    assert(l->magic == LOG_MAGIC && !l->flush && !l->compaction);
    struct log_files own;
    int rc = log_files_init(&own, l->disk, OWN_FILES);
    if (rc) {
        log_free(l);
        return err_set(err, rc, "no memory to close a log");
    }
    move_files(l, &own);
    if (l->fenced)
        rc = err_set(err, -E_FENCED, "%s was fenced: %s", l->dir, log_fence_text(l));
    else
        rc = finish(l, err);
    log_free(l);
    log_files_fini(&own);
    return rc;
}

void log_abandon(struct log *l)
{
    log_free(l);
}

/* "<dir>/<topic>-<n>" to "<dir>/<topic>-<n>.<32 hex digits>-delete", as long as a name may be. */
int log_folder_delete(struct disk *disk, const char *dir, const uint64_t random[2], struct err *err)
{
    char to[LOG_PATH_MAX];
    const char *slash = strrchr(dir, '/'), *name = slash ? slash + 1 : dir;
    int keep = DELETED_NAME_MAX - DELETED_SUFFIX_BYTES;
    int n = snprintf(to, LOG_PATH_MAX, "%.*s%.*s.%016llx%016llx-delete", (int)(name - dir), dir, keep, name,
                     (unsigned long long)random[0], (unsigned long long)random[1]);
    assert(n > 0 && n < LOG_PATH_MAX);
    int rc = disk_rename(disk, dir, to);
    return rc ? err_set(err, rc, "cannot rename %s to %s", dir, to) : 0;
}

int log_delete(struct log *l, uint64_t random[2], struct err *err)
{
    assert(l->magic == LOG_MAGIC && !l->flush && !l->compaction);
    int rc = log_folder_delete(l->disk, l->dir, random, err);
    log_free(l);
    return rc;
}

void log_configure(struct log *l, const struct log_config *config)
{
    assert(l->magic == LOG_MAGIC && config->segment_bytes > 0 && config->segment_index_bytes >= 12);
    l->config = *config;
}

const char *log_dir_path(const struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    return l->dir;
}

const struct log_recovery *log_recovery(const struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    return &l->recovery;
}

/* ---- offsets ---- */

int64_t log_start_offset(const struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    assert(l->fenced || (l->start >= 0 && l->start <= l->end));
    return l->start;
}

int64_t log_end_offset(const struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    assert(l->fenced || l->end == log_active(l)->next_offset);
    return l->end;
}

int64_t log_durable_offset(const struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    assert(l->fenced || l->durable <= l->end);
    return l->durable;
}

int64_t log_recovery_point(const struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    assert(l->fenced || l->recovery_point <= l->durable);
    return l->recovery_point;
}

int64_t log_first_unstable_offset(const struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    return producers_first_unstable(&l->producers);
}

int64_t log_size_bytes(struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    int64_t sum = 0;
    for (unsigned i = 0; i < l->segments_n; i++) {
        int64_t n = segment_size(l, l->segments[i], NULL);
        if (n < 0)
            return n;
        sum += n;
    }
    return sum;
}

unsigned log_segments(const struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    assert(l->segments_n > 0);
    return l->segments_n;
}

/* ---- epochs and producers ---- */

int log_epoch_assign(struct log *l, int32_t epoch, int64_t start_offset)
{
    assert(l->magic == LOG_MAGIC);
    assert(start_offset <= l->end);
    return epochs_assign(&l->epochs, epoch, start_offset);
}

int32_t log_epoch_latest(const struct log *l)
{
    assert(l->magic == LOG_MAGIC);
    return epochs_latest(&l->epochs);
}

int32_t log_epoch_at(const struct log *l, int64_t offset)
{
    assert(l->magic == LOG_MAGIC);
    return epochs_at(&l->epochs, offset);
}

struct log_epoch_end log_epoch_end(const struct log *l, int32_t epoch)
{
    assert(l->magic == LOG_MAGIC);
    return epochs_end(&l->epochs, epoch, l->end);
}

void log_each_producer(const struct log *l, void (*each)(void *arg, const struct log_producer *p), void *arg)
{
    assert(l->magic == LOG_MAGIC);
    assert(each);
    producers_each(&l->producers, each, arg);
}

unsigned log_expire_producers(struct log *l, int64_t wall_ms)
{
    assert(l->magic == LOG_MAGIC);
    assert(l->config.producer_id_expiration_ms >= 0);
    return producers_expire(&l->producers, wall_ms - l->config.producer_id_expiration_ms);
}
