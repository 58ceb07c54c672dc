#include "broker/log/kept.h"

#include "base/core/mutant.h"
#include "broker/log/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define KEPT_FILE ".sundog-kept"

/* With a line end: half of a note names no mount. */
static bool note_of(struct disk *disk, const char *log_dir, char out[DISK_MOUNT_TEXT + 1])
{
    int rc = disk_mounted(disk, log_dir, out);
    size_t n = rc ? 0 : strnlen(out, DISK_MOUNT_TEXT - 1);
    memcpy(out + n, "\n", 2);
    return rc == 0;
}

static bool path_of(const char *log_dir, char out[LOG_PATH_MAX])
{
    assert(log_dir && log_dir[0]);
    int n = snprintf(out, LOG_PATH_MAX, "%s/" KEPT_FILE, log_dir);
    return n > 0 && n < LOG_PATH_MAX;
}

bool kept_take(struct disk *disk, const char *log_dir)
{
    char path[LOG_PATH_MAX], now[DISK_MOUNT_TEXT + 1];
    struct slice then;
    if (!path_of(log_dir, path) || disk_read_all(disk, path, DISK_MOUNT_TEXT, &then, NULL))
        return false;
    bool same = note_of(disk, log_dir, now) && (slice_eq_str(then, now) || MUTANT("kept_over_a_power_cut"));
    free((void *)(uintptr_t)then.p);
    return disk_unlink(disk, path) == 0 && same;
}

void kept_write(struct disk *disk, const char *log_dir)
{
    char path[LOG_PATH_MAX], now[DISK_MOUNT_TEXT + 1];
    struct disk_file *f;
    if (!path_of(log_dir, path) || !note_of(disk, log_dir, now) ||
        disk_open(disk, path, DISK_WRITE | DISK_CREATE | DISK_TRUNCATE, &f, NULL))
        return;
    (void)disk_pwrite(f, now, strlen(now), 0);
    disk_close(f);
}

void kept_remove(struct disk *disk, const char *log_dir)
{
    char path[LOG_PATH_MAX];
    if (path_of(log_dir, path))
        (void)disk_unlink(disk, path);
}
