#include "broker/log/manager_internal.h"

#include "base/core/buf.h"
#include "base/core/hash.h"
#include "broker/log/kept.h"
#include "broker/log/text.h"

#include <stdio.h>
#include <stdlib.h>

#define LOCK_FILE            ".lock"
#define CLEAN_FILE           ".kafka_cleanshutdown"

#define UNFINISHED_BYTES_MAX ((size_t)64 << 20)

struct known {
    UT_hash_handle hh;
    char name[FOLDER_NAME_MAX]; /* "<topic>-<partition>" */
    struct log_found found;
};

/* While a dir is read. */
struct reading {
    struct log_dirs *d;
    unsigned dir;
    struct known *known;   /* of all dirs, by name */
    struct buf unfinished; /* names of folders to be removed, each with its NUL */
    int rc;
    struct err *err;
};

/* ---- names ---- */

int log_folder_parse(const char *name, char topic[LOG_TOPIC_MAX + 1], int32_t *partition)
{
    assert(name && topic && partition);
    const char *dash = strrchr(name, '-');
    if (!dash || dash == name || dash - name > LOG_TOPIC_MAX || dash[1] == 0 || strlen(dash + 1) > 10)
        return -E_INVALID;
    int64_t v = 0;
    for (const char *p = dash + 1; *p; p++) {
        if (*p < '0' || *p > '9')
            return -E_INVALID;
        v = v * 10 + (*p - '0');
    }
    if (v > INT32_MAX || (dash[1] == '0' && dash[2] != 0))
        return -E_INVALID;
    for (const char *p = name; p < dash; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '.' ||
              *p == '_' || *p == '-'))
            return -E_INVALID;
    memcpy(topic, name, (size_t)(dash - name));
    topic[dash - name] = 0;
    *partition = (int32_t)v;
    return 0;
}

/* ---- the clean-shutdown marker: {"version":0,"brokerEpoch":N} ---- */

static int64_t marker_epoch(struct slice text)
{
    static const char key[] = "\"brokerEpoch\":";
    const uint8_t *at = memmem(text.p, text.n, key, sizeof key - 1), *end = text.p + text.n;
    int64_t v = 0;
    bool negative = false;
    if (!at)
        return -1;
    for (at += sizeof key - 1; at < end && *at == ' '; at++)
        ;
    if (at < end && *at == '-') {
        negative = true;
        at++;
    }
    for (; at < end && *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *at - '0', &v))
            return -1;
    return negative ? -1 : v;
}

/* Reads and removes it, on disk: a crash from now on is unclean. */
static int marker_take(struct disk *disk, struct dir *dir, struct err *err)
{
    assert(dir->lock && dir_is_online(dir));
    char path[LOG_PATH_MAX];
    struct slice text;
    dir->broker_epoch = -1;
    int rc = dir_join(path, dir->path, CLEAN_FILE);
    if (!rc)
        rc = disk_read_all(disk, path, SMALL_FILE, &text, err);
    if (rc)
        return rc == -E_NOTFOUND ? 0 : rc;
    dir->was_clean = true;
    dir->broker_epoch = marker_epoch(text);
    free((void *)(uintptr_t)text.p);
    rc = disk_unlink(disk, path);
    if (!rc)
        rc = disk_sync_dir(disk, dir->path);
    return rc ? err_set(err, rc, "cannot remove %s", path) : 0;
}

static void marker_write(struct disk *disk, const struct dir *dir, int64_t broker_epoch)
{
    assert(dir_is_online(dir));
    char path[LOG_PATH_MAX], text[64];
    int n = snprintf(text, sizeof text, "{\"version\":0,\"brokerEpoch\":%lld}", (long long)broker_epoch);
    if (dir_join(path, dir->path, CLEAN_FILE) == 0)
        (void)disk_replace(disk, path, slice_of(text, (size_t)n),
                           NULL); /* without it the next start checks more */
}

/* ---- what is in a dir ---- */

static void each_folder(void *arg, const char *name)
{
    assert(name);
    struct reading *r = arg;
    struct dir *dir = &r->d->dirs[r->dir];
    char topic[LOG_TOPIC_MAX + 1], path[LOG_PATH_MAX];
    int32_t partition;
    struct known *k;
    if (r->rc || log_folder_parse(name, topic, &partition) || dir_join(path, dir->path, name) ||
        disk_kind(r->d->disk, path) != DISK_IS_DIR)
        return;
    HASH_FIND_STR(r->known, name, k);
    if (k) {
        r->rc = err_set(r->err, -E_EXISTS, "%s is in %s and in %s: remove one of them", name,
                        r->d->dirs[k->found.dir].path, dir->path);
        return;
    }
    struct uuid id;
    int rc = folder_topic_id(r->d->disk, path, &id);
    if (rc == -E_CORRUPT && folder_unfinished(r->d->disk, path)) {
        buf_put(&r->unfinished, name, strlen(name) + 1);
        return;
    }
    k = calloc(1, sizeof *k);
    if (k) {
        folder_name(topic, partition, k->name);
        k->found = (struct log_found){.dir = r->dir, .partition = partition, .topic_id = id};
        memcpy(k->found.topic, topic, sizeof topic);
        HASH_ADD_STR(r->known, name, k);
    }
    if (!k || !HASH_ADDED(k)) {
        free(k);
        r->rc = err_set(r->err, -E_NOMEM, "no memory to list %s", dir->path);
        return;
    }
    if (rc)
        r->rc =
            err_set(r->err, -E_CORRUPT, "%s/" METADATA_FILE " cannot be read: restore or remove it", path);
    dir->logs++;
}

struct row_target {
    struct reading *r;
    enum log_checkpoint which;
};

static void each_row(void *arg, const struct log_checkpoint_row *row)
{
    struct row_target *t = arg;
    char name[FOLDER_NAME_MAX];
    struct known *k;
    folder_name(row->topic, row->partition, name);
    HASH_FIND_STR(t->r->known, name, k);
    if (!k || k->found.dir != t->r->dir || row->offset < 0)
        return;
    if (t->which == LOG_CHECKPOINT_RECOVERY)
        k->found.recovery_point = row->offset;
    else if (t->which == LOG_CHECKPOINT_START)
        k->found.start_offset = row->offset;
    else
        k->found.high_watermark = row->offset;
}

/* Nobody was told that they are there: they are made anew when the metadata log says so. */
static int remove_unfinished(struct reading *r)
{
    const char *dir = r->d->dirs[r->dir].path;
    if (r->unfinished.failed)
        return err_set(r->err, -E_NOMEM, "no memory to list %s", dir);
    for (size_t at = 0; at < r->unfinished.n; at += strlen((const char *)r->unfinished.p + at) + 1) {
        char path[LOG_PATH_MAX];
        int rc = dir_join(path, dir, (const char *)r->unfinished.p + at);
        if (!rc)
            rc = disk_remove_tree(r->d->disk, path);
        if (rc)
            return err_set(r->err, rc, "cannot remove %s, which a power cut left half made", path);
    }
    return r->unfinished.n > 0 ? disk_sync_dir(r->d->disk, dir) : 0;
}

static int dir_read(struct reading *r)
{
    assert(dir_is_online(&r->d->dirs[r->dir]));
    struct log_dirs *d = r->d;
    struct dir *dir = &d->dirs[r->dir];
    int rc = marker_take(d->disk, dir, r->err);
    buf_clear(&r->unfinished);
    dir->kept = kept_take(d->disk, dir->path) && !dir->was_clean;
    /* After a kill the names there (folders, checkpoint files) may be known to the page cache only. */
    if (!rc && !dir->was_clean && (rc = disk_sync_dir(d->disk, dir->path)))
        err_set(r->err, rc, "cannot sync %s", dir->path);
    if (!rc && (rc = disk_list(d->disk, dir->path, each_folder, r)))
        err_set(r->err, rc, "cannot list %s", dir->path);
    if (!rc)
        rc = r->rc;
    if (!rc)
        rc = remove_unfinished(r);
    for (int which = LOG_CHECKPOINT_RECOVERY; !rc && which <= LOG_CHECKPOINT_REPLICATION; which++) {
        struct row_target t = {r, (enum log_checkpoint)which};
        rc = log_checkpoint_read(d->disk, dir->path, t.which, each_row, &t, r->err);
    }
    return rc;
}

static int by_name(const void *a, const void *b)
{
    const struct log_found *x = a, *y = b;
    int c = strcmp(x->topic, y->topic);
    return c ? c : (x->partition > y->partition) - (x->partition < y->partition);
}

static int found_keep(struct log_dirs *d, struct known *known, struct err *err)
{
    assert(!d->found);
    size_t n = HASH_COUNT(known);
    d->found = calloc(n + 1, sizeof *d->found);
    if (!d->found)
        return err_set(err, -E_NOMEM, "no memory for %zu logs", n);
    for (struct known *k = known; k; k = k->hh.next)
        if (dir_is_online(&d->dirs[k->found.dir]))
            d->found[d->found_n++] = k->found;
    assert(d->found_n <= n);
    qsort(d->found, d->found_n, sizeof *d->found, by_name);
    return 0;
}

/* ---- opening and closing ---- */

static int dir_lock(struct log_dirs *d, unsigned i, struct err *err)
{
    assert(i < d->n && !d->dirs[i].lock);
    char path[LOG_PATH_MAX];
    struct dir *dir = &d->dirs[i];
    int rc = disk_make_dirs(d->disk, dir->path, err);
    if (!rc && (rc = dir_join(path, dir->path, LOCK_FILE)))
        return err_set(err, rc, "the path %s is too long", dir->path);
    if (!rc && (rc = disk_lock(d->disk, path, &dir->lock))) {
        dir->lock = NULL;
        if (rc == -E_BUSY)
            return err_set(err, rc, "%s is held: another process uses the folder; end it, or choose another",
                           path);
        return err_set(err, rc, "cannot lock %s: %s; let this user write there, or choose another folder",
                       path, err_str(rc));
    }
    return rc;
}

static void known_free(struct known *known)
{
    struct known *k, *next;
    HASH_ITER (hh, known, k, next) {
        HASH_DEL(known, k);
        free(k);
    }
}

static void dirs_free(struct log_dirs *d)
{
    for (unsigned i = 0; i < d->n; i++) {
        disk_close(d->dirs[i].lock);
        free(d->dirs[i].path);
    }
    free(d->found);
    free(d);
}

static int dirs_open(struct log_dirs *d, struct err *err)
{
    struct reading r = {.d = d, .err = err};
    int rc = 0;
    unsigned online = 0;
    for (unsigned i = 0; i < d->n; i++) /* all locks before anything is changed */
        if ((rc = dir_lock(d, i, err)) == -E_BUSY)
            return rc;
        else if (rc)
            log_dir_fail(d, i, err ? err->text : err_str(rc));
    buf_init(&r.unfinished, UNFINISHED_BYTES_MAX);
    for (unsigned i = 0; i < d->n; i++) {
        if (!dir_is_online(&d->dirs[i]))
            continue;
        r.dir = i;
        r.rc = 0;
        rc = dir_read(&r);
        if (rc == -E_EXISTS || rc == -E_NOMEM)
            break;
        if (rc)
            log_dir_fail(d, i, err ? err->text : err_str(rc));
        online += dir_is_online(&d->dirs[i]);
    }
    if (rc != -E_EXISTS && rc != -E_NOMEM)
        rc = online > 0 ? found_keep(d, r.known, err) : rc ? rc : -E_IO;
    known_free(r.known);
    buf_fini(&r.unfinished);
    return rc;
}

int log_dirs_open(struct disk *disk, const char *const *paths, unsigned n, struct log_dirs **out,
                  struct err *err)
{
    if (n == 0 || n > LOG_DIRS_MAX)
        return err_set(err, -E_CONFIG, "log.dirs names %u folders; 1 to %d may be", n, LOG_DIRS_MAX);
    struct err own = {0};
    struct log_dirs *d = calloc(1, sizeof *d);
    if (!d)
        return err_set(err, -E_NOMEM, "no memory for the log dirs");
    d->disk = disk;
    int rc = 0;
    for (; d->n < n && !rc; d->n++) {
        struct dir *dir = &d->dirs[d->n];
        atomic_init(&dir->state, DIR_ONLINE);
        dir->broker_epoch = -1;
        dir->path = malloc(strlen(paths[d->n]) + 1);
        if (!dir->path)
            rc = err_set(&own, -E_NOMEM, "no memory for the log dirs");
        else
            memcpy(dir->path, paths[d->n], strlen(paths[d->n]) + 1);
    }
    if (!rc)
        rc = dirs_open(d, &own);
    if (rc) {
        dirs_free(d);
        return err_set(err, rc, "%s", own.text);
    }
    *out = d;
    return 0;
}

void log_dirs_close(struct log_dirs *d, const bool *clean, int64_t broker_epoch)
{
    assert(d->n > 0);
    for (unsigned i = 0; i < d->n; i++)
        log_dir_doubt(d, i);
    for (unsigned i = 0; i < d->n; i++)
        if (dir_is_online(&d->dirs[i]) && clean && clean[i])
            marker_write(d->disk, &d->dirs[i], broker_epoch);
    dirs_free(d);
}

unsigned log_dirs_count(const struct log_dirs *d)
{
    return d->n;
}

const char *log_dir_of(const struct log_dirs *d, unsigned dir)
{
    assert(dir < d->n);
    return d->dirs[dir].path;
}

bool log_dir_online(const struct log_dirs *d, unsigned dir)
{
    assert(dir < d->n);
    return dir_is_online(&d->dirs[dir]);
}

const char *log_dir_error(const struct log_dirs *d, unsigned dir)
{
    assert(dir < d->n);
    return atomic_load_explicit(&d->dirs[dir].state, memory_order_acquire) == DIR_OFFLINE ? d->dirs[dir].why
                                                                                          : "";
}

bool log_dir_was_clean(const struct log_dirs *d, unsigned dir)
{
    assert(dir < d->n);
    return d->dirs[dir].was_clean;
}

int64_t log_dir_broker_epoch(const struct log_dirs *d, unsigned dir)
{
    assert(dir < d->n);
    return d->dirs[dir].broker_epoch;
}

bool log_dir_fail(struct log_dirs *d, unsigned dir, const char *why)
{
    assert(dir < d->n);
    struct dir *it = &d->dirs[dir];
    int was = DIR_ONLINE;
    if (!atomic_compare_exchange_strong(&it->state, &was, DIR_FAILING))
        return false;
    log_dir_doubt(d, dir);
    snprintf(it->why, sizeof it->why, "%s", why);
    atomic_store_explicit(&it->state, DIR_OFFLINE, memory_order_release);
    return true;
}

void log_dir_keep(struct log_dirs *d, unsigned dir)
{
    assert(dir < d->n);
    struct dir *it = &d->dirs[dir];
    if (!dir_is_online(it) || atomic_load(&it->doubted))
        return;
    kept_write(d->disk, it->path);
    if (atomic_load(&it->doubted)) /* meanwhile */
        kept_remove(d->disk, it->path);
}

void log_dir_doubt(struct log_dirs *d, unsigned dir)
{
    assert(dir < d->n);
    atomic_store(&d->dirs[dir].doubted, true);
    kept_remove(d->disk, d->dirs[dir].path);
}

const struct log_found *log_dirs_found(const struct log_dirs *d, size_t *n)
{
    assert(n);
    *n = d->found_n;
    return d->found;
}
