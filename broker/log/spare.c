#include "broker/log/spare.h"

#include "broker/log/log.h"

#include <assert.h>
#include <stdio.h>

#define SPARE_FILE ".sundog-spare"

static int spare_open(struct disk *disk, const char *log_dir, unsigned how, struct disk_file **out)
{
    char path[LOG_PATH_MAX];
    assert(log_dir && log_dir[0]);
    int n = snprintf(path, sizeof path, "%s/" SPARE_FILE, log_dir);
    return n > 0 && n < LOG_PATH_MAX ? disk_open(disk, path, DISK_WRITE | how, out, NULL) : -E_LIMIT;
}

int spare_fill(struct disk *disk, const char *log_dir)
{
    static const uint8_t nothing[SPARE_STEP / 8];
    struct disk_file *f;
    int rc = spare_open(disk, log_dir, DISK_CREATE, &f);
    if (rc)
        return rc;
    int64_t size = disk_size(f), before = size;
    rc = size < 0 ? (int)size : 0;
    while (!rc && size < SPARE_BYTES) {
        int64_t more =
            (int64_t)sizeof nothing < SPARE_BYTES - size ? (int64_t)sizeof nothing : SPARE_BYTES - size;
        ssize_t n = disk_pwrite(f, nothing, (size_t)more, size);
        rc = n < 0 ? (int)n : 0;
        size += rc ? 0 : more;
    }
    if (!rc && size != before)
        rc = disk_fdatasync(f); /* or the room is only promised */
    disk_close(f);
    return rc;
}

bool spare_give(struct disk *disk, const char *log_dir)
{
    struct disk_file *f;
    if (spare_open(disk, log_dir, 0, &f))
        return false;
    int64_t size = disk_size(f);
    /* The sync makes the file system give its room to others now. */
    bool given = size > 0 && disk_truncate(f, size > SPARE_STEP ? size - SPARE_STEP : 0) == 0 &&
                 disk_fdatasync(f) == 0;
    disk_close(f);
    return given;
}
