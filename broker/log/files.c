#include "broker/log/files.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#define LOG_FILE_MAGIC UINT32_C(0x10f11e01)

struct log_file {
    uint32_t magic;
    atomic_uint holders;
    struct disk_file *disk;
};

int log_files_init(struct log_files *files, struct disk *disk, unsigned max)
{
    assert(max >= 4); /* one lookup uses a .log and two indexes at once */
    *files = (struct log_files){.disk = disk, .max = max};
    list_init(&files->lru);
    return pthread_mutex_init(&files->lock, NULL) ? -E_NOMEM : 0;
}

void log_files_fini(struct log_files *files)
{
    assert(list_empty(&files->lru) && files->open == 0); /* logs go first */
    pthread_mutex_destroy(&files->lock);
}

struct log_files *log_files_create(struct disk *disk, unsigned max)
{
    struct log_files *files = malloc(sizeof *files);
    if (files && log_files_init(files, disk, max)) {
        free(files);
        return NULL;
    }
    return files;
}

void log_files_destroy(struct log_files *files)
{
    if (!files)
        return;
    log_files_fini(files);
    free(files);
}

struct log_file *log_file_create(struct disk_file *f)
{
    struct log_file *file = malloc(sizeof *file);
    if (!file)
        return NULL;
    *file = (struct log_file){.magic = LOG_FILE_MAGIC, .holders = 1, .disk = f};
    return file;
}

struct log_file *log_file_take(struct log_file *f)
{
    assert(f->magic == LOG_FILE_MAGIC);
    unsigned before = atomic_fetch_add_explicit(&f->holders, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
    return f;
}

void log_file_drop(struct log_file *f)
{
    if (!f)
        return;
    assert(f->magic == LOG_FILE_MAGIC);
    unsigned before = atomic_fetch_sub_explicit(&f->holders, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before > 1)
        return;
    disk_close(f->disk);
    f->magic = 0;
    free(f);
}

struct disk_file *log_file_disk(const struct log_file *f)
{
    assert(f->magic == LOG_FILE_MAGIC);
    return f->disk;
}

void log_handle_init(struct log_handle *h, struct log_files *files)
{
    *h = (struct log_handle){.files = files};
    list_init(&h->lru);
}

static void lock(struct log_files *files)
{
    int rc = pthread_mutex_lock(&files->lock);
    assert(rc == 0);
    (void)rc;
}

static void unlock(struct log_files *files)
{
    int rc = pthread_mutex_unlock(&files->lock);
    assert(rc == 0);
    (void)rc;
}

/* Out of the list; with the lock held. The reference is the caller's to drop. */
static struct log_file *take_out(struct log_handle *h)
{
    assert(h->files);
    struct log_file *file = h->file;
    assert(file && !h->pinned && h->files->open > 0);
    list_remove(&h->lru);
    h->files->open--;
    h->file = NULL;
    return file;
}

void log_handle_close(struct log_handle *h)
{
    struct log_file *file;
    if (h->pinned) { /* not in the list: nobody else sees it */
        file = h->file;
        h->file = NULL;
        h->pinned = false;
    } else {
        lock(h->files);
        file = h->file ? take_out(h) : NULL;
        unlock(h->files);
    }
    log_file_drop(file);
}

void log_handle_move(struct log_handle *h, struct log_files *to)
{
    assert(to);
    if (!h->pinned)
        log_handle_close(h);
    h->files = to;
}

/* Puts it first; what the bound pushes out is dropped. */
static void to_front(struct log_handle *h)
{
    assert(h->file && !h->pinned);
    struct log_files *files = h->files;
    struct log_file *out = NULL;
    lock(files);
    list_push_front(&files->lru, &h->lru);
    files->open++;
    if (files->open > files->max) {
        struct log_handle *last = LIST_ENTRY(files->lru.prev, struct log_handle, lru);
        assert(last != h && !last->pinned);
        out = take_out(last);
    }
    assert(files->open <= files->max);
    unlock(files);
    log_file_drop(out);
}

int log_handle_get(struct log_handle *h, struct disk *disk, const char *path, unsigned how,
                   struct log_file **out, struct err *err)
{
    assert(path && out);
    if (h->file) {
        if (!h->pinned) {
            lock(h->files);
            list_remove(&h->lru);
            list_push_front(&h->files->lru, &h->lru);
            unlock(h->files);
        }
        *out = h->file;
        return 0;
    }
    assert(!h->pinned);
    struct disk_file *f;
    int rc = disk_open(disk, path, how, &f, err);
    if (rc)
        return rc;
    struct log_file *file = log_file_create(f);
    if (!file) {
        disk_close(f);
        return err_set(err, -E_NOMEM, "no memory to open %s", path);
    }
    h->file = *out = file;
    to_front(h);
    return 0;
}

void log_handle_pin(struct log_handle *h)
{
    assert(h->file && !h->pinned);
    lock(h->files);
    struct log_file *file = take_out(h);
    unlock(h->files);
    h->file = file;
    h->pinned = true;
}

void log_handle_unpin(struct log_handle *h)
{
    assert(h->file && h->pinned);
    h->pinned = false;
    to_front(h);
}
