/* The folders of deleted logs: what is left of them is removed, by a job, whenever one was renamed and at the start. */
#include "broker/log/manager.h"

#include <assert.h>
#include <stdio.h>

static bool is_delete(const char *name)
{
    static const char suffix[] = "-delete";
    size_t n = strlen(name), m = sizeof suffix - 1;
    return n > m + 33 && memcmp(name + n - m, suffix, m) == 0 && name[n - m - 33] == '.';
}

struct sweeping {
    struct disk *disk;
    const char *dir;
    struct buf names; /* each with its NUL */
};

static void each_deleted(void *arg, const char *name)
{
    assert(name);
    struct sweeping *s = arg;
    if (is_delete(name))
        buf_put(&s->names, name, strlen(name) + 1);
}

void log_dirs_sweep(struct disk *disk, const char *dir_path)
{
    assert(dir_path && dir_path[0]);
    struct sweeping s = {.disk = disk, .dir = dir_path};
    buf_init(&s.names, (size_t)64 * 1024 * 1024);
    if (disk_list(disk, dir_path, each_deleted, &s) == 0) {
        for (size_t at = 0; at < s.names.n;) {
            const char *name = (const char *)s.names.p + at;
            char path[LOG_PATH_MAX];
            int n = snprintf(path, sizeof path, "%s/%s", dir_path, name);
            if (n > 0 && (size_t)n < sizeof path)
                (void)disk_remove_tree(disk, path); /* what stays is tried again later */
            at += strlen(name) + 1;
        }
    }
    buf_fini(&s.names);
}
