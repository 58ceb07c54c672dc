/* The file system behind a vtable, so that a simulated disk can lose unsynced writes, tear them and fail.
 *
 * Calls block; any thread may use a disk, but one file belongs to one thread at a time except for pread,
 * fdatasync and sendfile, which may run beside appends of the owner. Errors are -E_… codes; errno stops here.
 * What survives a power cut (measured on ext4 and XFS): data after fdatasync or fsync of the file; a new
 * file's name after fsync of the file; renames and unlinks after disk_sync_dir of their folder. */
#ifndef SUNDOG_BASE_WORLD_DISK_H
#define SUNDOG_BASE_WORLD_DISK_H

#include "base/core/err.h"
#include "base/core/slice.h"

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct disk;
struct disk_file;

enum disk_open {
    DISK_READ = 0,
    DISK_WRITE = 1,     /* read and write */
    DISK_CREATE = 2,    /* with DISK_WRITE: made if missing */
    DISK_EXCLUSIVE = 4, /* with DISK_CREATE: -E_EXISTS if there */
    DISK_TRUNCATE = 8,  /* with DISK_WRITE: emptied */
};

enum disk_kind { DISK_NONE, DISK_IS_FILE, DISK_IS_DIR, DISK_IS_OTHER };

#define DISK_MOUNT_TEXT 80

struct disk_ops {
    int (*open)(struct disk *d, const char *path, unsigned how, struct disk_file **out, struct err *err);
    void (*close)(struct disk_file *f);
    ssize_t (*pread)(struct disk_file *f, void *p, size_t n, int64_t at);
    ssize_t (*pwritev)(struct disk_file *f, const struct iovec *v, int n, int64_t at);
    int (*fdatasync)(struct disk_file *f);
    int (*truncate)(struct disk_file *f, int64_t size);
    int (*allocate)(struct disk_file *f, int64_t at, int64_t n);
    int64_t (*size)(struct disk_file *f);
    int (*fd)(struct disk_file *f);
    int (*rename)(struct disk *d, const char *from, const char *to);
    int (*unlink)(struct disk *d, const char *path);
    int (*mkdir)(struct disk *d, const char *path);
    int (*rmdir)(struct disk *d, const char *path);
    int (*sync_dir)(struct disk *d, const char *path);
    int (*sync_all)(struct disk *d, const char *path);
    int (*list)(struct disk *d, const char *path, void (*each)(void *arg, const char *name), void *arg);
    enum disk_kind (*kind)(struct disk *d, const char *path);
    int (*lock)(struct disk *d, const char *path, struct disk_file **out);
    int64_t (*free_bytes)(struct disk *d, const char *path);
    int64_t (*mtime_ms)(struct disk *d, const char *path);
    int (*mounted)(struct disk *d, const char *path, char out[DISK_MOUNT_TEXT]);
};

struct disk {
    const struct disk_ops *ops;
};
struct disk_file {
    struct disk *disk;
};

/* `how` is of enum disk_open. On error `err` (may be NULL) says what failed, with the path. */
static inline int disk_open(struct disk *d, const char *path, unsigned how, struct disk_file **out,
                            struct err *err)
{
    return d->ops->open(d, path, how, out, err);
}

static inline void disk_close(struct disk_file *f)
{
    if (f)
        f->disk->ops->close(f);
}

/* Bytes read, fewer only at the end of the file; or -E_…. */
static inline ssize_t disk_pread(struct disk_file *f, void *p, size_t n, int64_t at)
{
    return f->disk->ops->pread(f, p, n, at);
}

/* All of it is written, or an error: short writes are gone on with here. The vector is not changed. */
static inline ssize_t disk_pwritev(struct disk_file *f, const struct iovec *v, int n, int64_t at)
{
    return f->disk->ops->pwritev(f, v, n, at);
}

static inline ssize_t disk_pwrite(struct disk_file *f, const void *p, size_t n, int64_t at)
{
    struct iovec v = {(void *)(uintptr_t)p, n};
    return f->disk->ops->pwritev(f, &v, 1, at);
}

/* An error here means that written data may be gone: the caller fences its log and never calls again for this
 * file. */
static inline int disk_fdatasync(struct disk_file *f)
{
    return f->disk->ops->fdatasync(f);
}

static inline int disk_truncate(struct disk_file *f, int64_t size)
{
    return f->disk->ops->truncate(f, size);
}

/* Reserves room without changing the size where the file system can; else does nothing. */
static inline int disk_allocate(struct disk_file *f, int64_t at, int64_t n)
{
    return f->disk->ops->allocate(f, at, n);
}

static inline int64_t disk_size(struct disk_file *f)
{
    return f->disk->ops->size(f);
}

/* The descriptor for sendfile, or -1 when there is none (the simulator). */
static inline int disk_fd(struct disk_file *f)
{
    return f->disk->ops->fd(f);
}

static inline int disk_rename(struct disk *d, const char *from, const char *to)
{
    return d->ops->rename(d, from, to);
}

static inline int disk_unlink(struct disk *d, const char *path)
{
    return d->ops->unlink(d, path);
}

/* One level; -E_EXISTS when it is there. */
static inline int disk_mkdir(struct disk *d, const char *path)
{
    return d->ops->mkdir(d, path);
}

static inline int disk_rmdir(struct disk *d, const char *path)
{
    return d->ops->rmdir(d, path);
}

static inline int disk_sync_dir(struct disk *d, const char *path)
{
    return d->ops->sync_dir(d, path);
}

/* All that was done before to the file system that this folder lies in is durable, names and data of whichever file. For
 * many new files: others' data are waited for, too. Whose error it says is not known; a file's own sync says it again. */
static inline int disk_sync_all(struct disk *d, const char *path)
{
    return d->ops->sync_all(d, path);
}

/* Names without "." and "..", in no order. */
static inline int disk_list(struct disk *d, const char *path, void (*each)(void *arg, const char *name),
                            void *arg)
{
    return d->ops->list(d, path, each, arg);
}

static inline enum disk_kind disk_kind(struct disk *d, const char *path)
{
    return d->ops->kind(d, path);
}

/* An exclusive lock on a file, made if missing; held until closed. -E_BUSY when another process has it. */
static inline int disk_lock(struct disk *d, const char *path, struct disk_file **out)
{
    return d->ops->lock(d, path, out);
}

static inline int64_t disk_free_bytes(struct disk *d, const char *path)
{
    return d->ops->free_bytes(d, path);
}

static inline int64_t disk_mtime_ms(struct disk *d, const char *path)
{
    return d->ops->mtime_ms(d, path);
}

/* A text that tells this mount of the folder's file system from every other one, earlier or later, of this machine or of
 * another: while it stays, what a process has written is in the page cache or on disk, whatever became of the process.
 * -E_NOTFOUND where nobody can tell. */
static inline int disk_mounted(struct disk *d, const char *path, char out[DISK_MOUNT_TEXT])
{
    return d->ops->mounted(d, path, out);
}

/* Made of the above (disk.c). */

/* Every missing level. */
int disk_make_dirs(struct disk *d, const char *path, struct err *err);
/* Temporary file, write, fdatasync, rename, sync of the folder: the whole new content or the old one. */
int disk_replace(struct disk *d, const char *path, struct slice content, struct err *err);
/* The whole file, NUL-terminated, to be freed by the caller; -E_LIMIT above `limit` bytes. */
int disk_read_all(struct disk *d, const char *path, size_t limit, struct slice *out, struct err *err);
/* A folder and everything in it. */
int disk_remove_tree(struct disk *d, const char *path);

#endif
