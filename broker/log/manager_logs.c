/* The logs in the folders of log.dirs: made, opened, deleted.
 *
 * Many logs are made at the price of one: all their files first, then one sync of the file system, and only then anybody
 * is told of them. Syncing each by itself costs a journal commit or two a log: 10,000 logs took half a minute, or
 * three on a disk that others use. */
#include "broker/log/manager_internal.h"

#include "broker/log/text.h"

#include <stdio.h>
#include <stdlib.h>

/* Fewer logs than this are synced one by one: a sync of the file system also waits for what is none of theirs,
 * which may be gigabytes where acks do not wait for the disk. __consumer_offsets, which a client waits for, has 50. */
#define SYNC_ALL_FROM 64

int dir_join(char out[LOG_PATH_MAX], const char *dir, const char *name)
{
    assert(dir && name);
    int n = snprintf(out, LOG_PATH_MAX, "%s/%s", dir, name);
    return n > 0 && n < LOG_PATH_MAX ? 0 : -E_LIMIT;
}

void folder_name(const char *topic, int32_t partition, char out[FOLDER_NAME_MAX])
{
    assert(partition >= 0);
    snprintf(out, FOLDER_NAME_MAX, "%s-%d", topic, partition);
}

/* ---- partition.metadata: "version: 0\ntopic_id: <22 characters>", with a line end or without ---- */

int folder_topic_id(struct disk *disk, const char *log_dir, struct uuid *out)
{
    assert(log_dir && out);
    char path[LOG_PATH_MAX];
    struct slice text, line;
    *out = (struct uuid){0};
    int rc = dir_join(path, log_dir, METADATA_FILE);
    if (!rc)
        rc = disk_read_all(disk, path, SMALL_FILE, &text, NULL);
    if (rc)
        return rc == -E_NOTFOUND ? 0 : rc;
    struct slice left = text;
    const struct slice version = SLICE_LIT("version: 0"), id = SLICE_LIT("topic_id: ");
    rc = -E_CORRUPT;
    bool known = text_word(&left, '\n', &line) && slice_eq(line, version);
    if (known && !text_word(&left, '\n', &line))
        line = left;
    if (known && line.n > id.n && memcmp(line.p, id.p, id.n) == 0)
        rc = uuid_parse(slice_of(line.p + id.n, line.n - id.n), out);
    free((void *)(uintptr_t)text.p);
    return rc;
}

/* The name is durable when the folder is synced, the bytes are at once when `sync`. */
static int metadata_write(struct disk *disk, const char *log_dir, const struct uuid *id, bool sync,
                          struct err *err)
{
    assert(!uuid_is_zero(id));
    char path[LOG_PATH_MAX], text[64], uuid[UUID_TEXT_SIZE];
    struct disk_file *f;
    int n = snprintf(text, sizeof text, "version: 0\ntopic_id: %s\n", uuid_text(id, uuid));
    assert(n > 0 && (size_t)n < sizeof text);
    int rc = dir_join(path, log_dir, METADATA_FILE);
    if (!rc)
        rc = disk_open(disk, path, DISK_WRITE | DISK_CREATE | DISK_TRUNCATE, &f, err);
    if (rc)
        return rc;
    ssize_t written = disk_pwrite(f, text, (size_t)n, 0);
    rc = written < 0 ? (int)written : sync ? disk_fdatasync(f) : 0;
    disk_close(f);
    return rc ? err_set(err, rc, "cannot write %s", path) : 0;
}

struct contents {
    struct disk *disk;
    const char *folder;
    bool others; /* what a log that is being made does not have yet, or cannot be read */
};

static void each_content(void *arg, const char *name)
{
    static const char *const first[] = {METADATA_FILE, "00000000000000000000.log",
                                        "00000000000000000000.index", "00000000000000000000.timeindex"};
    struct contents *c = arg;
    char path[LOG_PATH_MAX];
    struct slice text = {0};
    bool known = false;
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        known |= strcmp(name, first[i]) == 0;
    if (!known || dir_join(path, c->folder, name) || disk_read_all(c->disk, path, SMALL_FILE, &text, NULL)) {
        c->others = true;
        return;
    }
    for (size_t i = 0; i < text.n; i++) /* a name without its bytes: none, or zeroes */
        c->others |= text.p[i] != 0;
    free((void *)(uintptr_t)text.p);
}

bool folder_unfinished(struct disk *disk, const char *folder)
{
    struct contents c = {.disk = disk, .folder = folder};
    return disk_list(disk, folder, each_content, &c) == 0 && !c.others;
}

static int log_path_in(const struct log_dirs *d, unsigned dir, const char *topic, int32_t partition,
                       char out[LOG_PATH_MAX], struct err *err)
{
    assert(dir < d->n);
    char name[FOLDER_NAME_MAX];
    folder_name(topic, partition, name);
    return dir_join(out, d->dirs[dir].path, name) ? err_set(err, -E_LIMIT, "the path of %s is too long", name)
                                                  : 0;
}

int log_dirs_load(struct log_dirs *d, const struct log_found *found, const struct log_config *config,
                  struct log_files *files, int64_t wall_ms, struct log **out, struct err *err)
{
    assert(found->recovery_point >= 0 && found->start_offset >= 0);
    char path[LOG_PATH_MAX];
    assert(found->dir < d->n);
    int rc = log_path_in(d, found->dir, found->topic, found->partition, path, err);
    struct log_open_options o = {
        .files = files,
        .wall_ms = wall_ms,
        .clean = d->dirs[found->dir].was_clean,
        .kept = d->dirs[found->dir].kept,
        .recovery_point = found->recovery_point,
        .start_offset = found->start_offset,
    };
    return rc ? rc : log_open(d->disk, path, config, &o, out, err);
}

static int emptiest(const struct log_dirs *d, unsigned *out)
{
    assert(d->n > 0 && d->n <= LOG_DIRS_MAX);
    unsigned best = d->n;
    for (unsigned i = 0; i < d->n; i++)
        if (dir_is_online(&d->dirs[i]) && (best == d->n || d->dirs[i].logs < d->dirs[best].logs))
            best = i;
    *out = best;
    return best < d->n ? 0 : -E_IO;
}

/* Folder and files; what makes them last comes later, but the bytes when `alone`. */
static int make_files(struct log_dirs *d, struct log_new *it, bool alone)
{
    assert(it->topic && it->topic[0] && it->partition >= 0);
    char path[LOG_PATH_MAX];
    if (emptiest(d, &it->dir))
        return err_set(it->err, -E_IO, "every log dir is offline");
    for (unsigned i = 0; i < d->n; i++) {
        int rc = log_path_in(d, i, it->topic, it->partition, path, it->err);
        if (rc)
            return rc;
        if (dir_is_online(&d->dirs[i]) && disk_kind(d->disk, path) != DISK_NONE)
            return err_set(it->err, -E_EXISTS, "%s is there already", path);
    }
    int rc = log_path_in(d, it->dir, it->topic, it->partition, path, it->err);
    if (rc)
        return rc;
    if ((rc = disk_mkdir(d->disk, path)))
        return err_set(it->err, rc, "cannot make %s", path);
    it->begun = true;
    if (!uuid_is_zero(it->topic_id))
        rc = metadata_write(d->disk, path, it->topic_id, alone, it->err);
    struct log_open_options o = {
        .files = it->files, .wall_ms = it->wall_ms, .create = true, .names_later = !alone};
    if (!rc)
        rc = log_open(d->disk, path, it->config, &o, &it->log, it->err);
    d->dirs[it->dir].logs += rc == 0;
    return rc;
}

/* After an I/O error it stays: nobody touches that dir any more. */
static void make_undo(struct log_dirs *d, struct log_new *it)
{
    char path[LOG_PATH_MAX];
    if (it->log) {
        log_abandon(it->log);
        it->log = NULL;
        assert(d->dirs[it->dir].logs > 0);
        d->dirs[it->dir].logs--;
    }
    if (it->begun && it->rc != -E_IO && !log_path_in(d, it->dir, it->topic, it->partition, path, NULL))
        (void)disk_remove_tree(d->disk, path); /* it must not stand in the way of the next try */
}

void log_dirs_make(struct log_dirs *d, struct log_new *const *all, size_t n)
{
    bool alone = n < SYNC_ALL_FROM, touched[LOG_DIRS_MAX] = {false};
    int synced[LOG_DIRS_MAX] = {0};
    for (size_t i = 0; i < n; i++) {
        struct log_new *it = all[i];
        it->log = NULL;
        it->begun = false;
        it->rc = make_files(d, it, alone);
        if (it->rc == 0)
            touched[it->dir] = true;
    }
    for (unsigned i = 0; i < d->n; i++)
        if (touched[i])
            synced[i] =
                alone ? disk_sync_dir(d->disk, d->dirs[i].path) : disk_sync_all(d->disk, d->dirs[i].path);
    for (size_t i = 0; i < n; i++) {
        struct log_new *it = all[i];
        if (it->rc == 0 && synced[it->dir])
            it->rc = err_set(it->err, synced[it->dir], "cannot sync %s", d->dirs[it->dir].path);
        if (it->rc)
            make_undo(d, it);
        assert((it->rc == 0) == (it->log != NULL));
    }
}

void log_dirs_delete(struct log_dirs *d, struct log_gone *const *all, size_t n)
{
    bool touched[LOG_DIRS_MAX] = {false};
    int synced[LOG_DIRS_MAX] = {0};
    for (size_t i = 0; i < n; i++) {
        struct log_gone *it = all[i];
        char path[LOG_PATH_MAX];
        assert(it->dir < d->n && (it->log || it->found->dir == it->dir));
        if (it->log)
            it->rc = log_delete(it->log, it->random, it->err);
        else if (!(it->rc = log_path_in(d, it->dir, it->found->topic, it->found->partition, path, it->err)))
            it->rc = log_folder_delete(d->disk, path, it->random, it->err);
        touched[it->dir] |= it->rc == 0;
        if (d->dirs[it->dir].logs > 0)
            d->dirs[it->dir].logs--;
    }
    for (unsigned i = 0; i < d->n; i++)
        if (touched[i])
            synced[i] = disk_sync_dir(d->disk, d->dirs[i].path);
    for (size_t i = 0; i < n; i++)
        if (all[i]->rc == 0 && synced[all[i]->dir])
            all[i]->rc =
                err_set(all[i]->err, synced[all[i]->dir], "cannot sync %s", d->dirs[all[i]->dir].path);
}
