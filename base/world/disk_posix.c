#include "base/world/disk_posix.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define FILE_MODE 0644
#define DIR_MODE  0755
/* A process that was killed holds its locks until the kernel has taken it apart: its successor waits a second. */
#define LOCK_TRIES   20
#define LOCK_WAIT_NS 50000000
#define VECTOR_MAX   64 /* buffers of one pwritev that are copied to go on after a short write */

struct file {
    struct disk_file base;
    int fd;
};

static struct file *of(struct disk_file *f)
{
    struct file *file = (struct file *)f;
    assert(file->fd >= 0);
    return file;
}

static int open_fd(const char *path, int flags)
{
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC, FILE_MODE);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int make_file(struct disk *d, int fd, struct disk_file **out)
{
    struct file *f = malloc(sizeof *f);
    if (!f) {
        close(fd);
        return -E_NOMEM;
    }
    *f = (struct file){{d}, fd};
    *out = &f->base;
    return 0;
}

static int posix_open(struct disk *d, const char *path, unsigned how, struct disk_file **out, struct err *err)
{
    assert(path);
    assert(out);
    assert((how & DISK_WRITE) || how == DISK_READ);
    int flags = how & DISK_WRITE ? O_RDWR : O_RDONLY;
    flags |= how & DISK_CREATE ? O_CREAT : 0;
    flags |= how & DISK_EXCLUSIVE ? O_EXCL : 0;
    flags |= how & DISK_TRUNCATE ? O_TRUNC : 0;
    int fd = open_fd(path, flags);
    if (fd < 0)
        return err_set(err, err_from_errno(errno), "%s: cannot open: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || S_ISDIR(st.st_mode)) {
        close(fd);
        return err_set(err, -E_INVALID, "%s: cannot open: it is a folder", path);
    }
    int rc = make_file(d, fd, out);
    return rc ? err_set(err, rc, "%s: cannot open: %s", path, err_str(rc)) : 0;
}

static void posix_close(struct disk_file *file)
{
    struct file *f = of(file);
    close(f->fd);
    f->fd = -1;
    free(f);
}

static ssize_t posix_pread(struct disk_file *file, void *p, size_t n, int64_t at)
{
    assert(at >= 0);
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(of(file)->fd, (char *)p + done, n - done, at + (int64_t)done);
        if (got == 0)
            break;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_from_errno(errno);
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static ssize_t total(const struct iovec *v, int n)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += v[i].iov_len;
    assert(sum <= SSIZE_MAX);
    return (ssize_t)sum;
}

/* The rest of `v` behind its first `skip` bytes, as far as it fits `out`; returns the entries. */
static int vector_rest(const struct iovec *v, int n, size_t skip, struct iovec out[VECTOR_MAX])
{
    int m = 0;
    for (int i = 0; i < n && m < VECTOR_MAX; i++) {
        if (skip >= v[i].iov_len) {
            skip -= v[i].iov_len;
            continue;
        }
        out[m++] = (struct iovec){(char *)v[i].iov_base + skip, v[i].iov_len - skip};
        skip = 0;
    }
    return m;
}

static ssize_t posix_pwritev(struct disk_file *file, const struct iovec *v, int n, int64_t at)
{
    assert(at >= 0);
    assert(n >= 0);
    ssize_t all = total(v, n), done = 0;
    struct iovec rest[VECTOR_MAX];
    while (done < all) {
        bool whole = done == 0 && n <= IOV_MAX;
        int count = whole ? n : vector_rest(v, n, (size_t)done, rest);
        ssize_t w = pwritev(of(file)->fd, whole ? v : rest, count, at + done);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return w == 0 ? -E_IO : err_from_errno(errno);
        done += w;
    }
    return all;
}

static int done_or_errno(int rc)
{
    return rc == 0 ? 0 : err_from_errno(errno);
}

static int posix_fdatasync(struct disk_file *file)
{
    /* Never retried, whatever the error: the kernel has marked the pages clean. */
    return done_or_errno(fdatasync(of(file)->fd));
}

static int posix_truncate(struct disk_file *file, int64_t size)
{
    assert(size >= 0);
    int rc;
    do
        rc = ftruncate(of(file)->fd, size);
    while (rc != 0 && errno == EINTR);
    return done_or_errno(rc);
}

static int posix_allocate(struct disk_file *file, int64_t at, int64_t n)
{
    assert(at >= 0);
    assert(n >= 0);
    if (n == 0)
        return 0;
    int rc;
    do
        rc = fallocate(of(file)->fd, FALLOC_FL_KEEP_SIZE, at, n);
    while (rc != 0 && errno == EINTR);
    return rc != 0 && (errno == EOPNOTSUPP || errno == ENOSYS) ? 0 : done_or_errno(rc);
}

static int64_t posix_size(struct disk_file *file)
{
    struct stat st;
    return fstat(of(file)->fd, &st) == 0 ? (int64_t)st.st_size : err_from_errno(errno);
}

static int posix_fd(struct disk_file *file)
{
    return of(file)->fd;
}

static int posix_rename(struct disk *d, const char *from, const char *to)
{
    assert(from);
    assert(to);
    (void)d;
    return done_or_errno(rename(from, to));
}

static int posix_unlink(struct disk *d, const char *path)
{
    (void)d;
    return done_or_errno(unlink(path));
}

static int posix_mkdir(struct disk *d, const char *path)
{
    (void)d;
    return done_or_errno(mkdir(path, DIR_MODE));
}

static int posix_rmdir(struct disk *d, const char *path)
{
    (void)d;
    return done_or_errno(rmdir(path));
}

static int sync_by(int (*sync)(int fd), const char *path)
{
    int fd = open_fd(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return err_from_errno(errno);
    int rc = done_or_errno(sync(fd));
    close(fd);
    return rc;
}

static int posix_sync_dir(struct disk *d, const char *path)
{
    (void)d;
    return sync_by(fsync, path);
}

/* Says what could not be written since Linux 5.8. */
static int posix_sync_all(struct disk *d, const char *path)
{
    (void)d;
    return sync_by(syncfs, path);
}

static int posix_list(struct disk *d, const char *path, void (*each)(void *arg, const char *name), void *arg)
{
    assert(path);
    assert(each);
    (void)d;
    DIR *dir = opendir(path);
    if (!dir)
        return err_from_errno(errno);
    int rc = 0;
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(dir);
        if (!e) {
            rc = err_from_errno(errno);
            break;
        }
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            each(arg, e->d_name);
    }
    closedir(dir);
    return rc;
}

static enum disk_kind posix_kind(struct disk *d, const char *path)
{
    (void)d;
    struct stat st;
    if (stat(path, &st) != 0)
        return lstat(path, &st) == 0 ? DISK_IS_OTHER : DISK_NONE; /* a dangling link is something */
    return S_ISREG(st.st_mode) ? DISK_IS_FILE : S_ISDIR(st.st_mode) ? DISK_IS_DIR : DISK_IS_OTHER;
}

static int posix_lock(struct disk *d, const char *path, struct disk_file **out)
{
    assert(path);
    assert(out);
    int fd = open_fd(path, O_RDWR | O_CREAT);
    if (fd < 0)
        return err_from_errno(errno);
    int held = flock(fd, LOCK_EX | LOCK_NB);
    for (int i = 0; held != 0 && errno == EWOULDBLOCK && i < LOCK_TRIES; i++) {
        nanosleep(&(struct timespec){.tv_nsec = LOCK_WAIT_NS}, NULL);
        held = flock(fd, LOCK_EX | LOCK_NB);
    }
    if (held != 0) {
        int rc = errno == EWOULDBLOCK ? -E_BUSY : err_from_errno(errno);
        close(fd);
        return rc;
    }
    return make_file(d, fd, out);
}

static int64_t posix_free_bytes(struct disk *d, const char *path)
{
    (void)d;
    struct statvfs st;
    if (statvfs(path, &st) != 0)
        return err_from_errno(errno);
    return (int64_t)st.f_bavail * (int64_t)st.f_frsize;
}

static int64_t posix_mtime_ms(struct disk *d, const char *path)
{
    (void)d;
    struct stat st;
    if (stat(path, &st) != 0)
        return err_from_errno(errno);
    return (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
}

/* Linux 6.8: ids of mounts, never given twice while the machine runs. The C library's struct need not name it yet. */
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u
#endif
#define STATX_MNT_ID_AT 144

static int posix_mounted(struct disk *d, const char *path, char out[DISK_MOUNT_TEXT])
{
    (void)d;
    struct statx st;
    if (statx(AT_FDCWD, path, 0, STATX_MNT_ID_UNIQUE, &st) != 0)
        return err_from_errno(errno);
    if (!(st.stx_mask & STATX_MNT_ID_UNIQUE))
        return -E_NOTFOUND;
    uint64_t id;
    static_assert(STATX_MNT_ID_AT + sizeof id <= sizeof st, "it lies in the kernel's struct");
    memcpy(&id, (const char *)&st + STATX_MNT_ID_AT, sizeof id);
    char boot[48];
    int fd = open_fd("/proc/sys/kernel/random/boot_id", O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, boot, sizeof boot - 1);
    if (fd >= 0)
        close(fd);
    if (n < 36) /* a UUID */
        return -E_NOTFOUND;
    boot[36] = '\0';
    snprintf(out, DISK_MOUNT_TEXT, "%s %llu", boot, (unsigned long long)id);
    return 0;
}

static const struct disk_ops posix_ops = {
    .open = posix_open,
    .close = posix_close,
    .pread = posix_pread,
    .pwritev = posix_pwritev,
    .fdatasync = posix_fdatasync,
    .truncate = posix_truncate,
    .allocate = posix_allocate,
    .size = posix_size,
    .fd = posix_fd,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .mkdir = posix_mkdir,
    .rmdir = posix_rmdir,
    .sync_dir = posix_sync_dir,
    .sync_all = posix_sync_all,
    .list = posix_list,
    .kind = posix_kind,
    .lock = posix_lock,
    .free_bytes = posix_free_bytes,
    .mtime_ms = posix_mtime_ms,
    .mounted = posix_mounted,
};

struct disk *disk_posix_create(void)
{
    struct disk *d = malloc(sizeof *d);
    if (d)
        d->ops = &posix_ops;
    return d;
}

void disk_posix_destroy(struct disk *d)
{
    free(d);
}
