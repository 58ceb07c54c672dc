/* A disk in memory that knows what a power cut may leave: each unsynced 512-byte sector on its own keeps any content it
 * had since the last fdatasync, a file any size it had, a folder any subset of the names made, renamed and unlinked
 * since it was synced. (A file's first name is on disk with its fdatasync, as base/world/disk.h says.)
 *
 * A hook runs after every call that changes something, so that a test can look at the crash states of every moment.
 * Faults: the nth call of a kind fails; a capacity. A failed fdatasync drops what it should have written, for good,
 * while reads still show it. One thread. */
#ifndef SUNDOG_TESTS_SUPPORT_LOG_CRASH_DISK_H
#define SUNDOG_TESTS_SUPPORT_LOG_CRASH_DISK_H

#include "base/core/rng.h"
#include "base/world/disk.h"

#include <stdbool.h>

enum crash_op {
    CRASH_READ,
    CRASH_WRITE,
    CRASH_SYNC,
    CRASH_TRUNCATE,
    CRASH_OPEN,
    CRASH_RENAME,
    CRASH_UNLINK,
    CRASH_SYNC_DIR,
    CRASH_SYNC_ALL,
    CRASH_MKDIR,
    CRASH_OPS
};

struct crash_disk;

struct crash_disk *crash_disk_create(void);
void crash_disk_destroy(struct crash_disk *d);
struct disk *crash_disk_disk(struct crash_disk *d);

/* After each call that has changed something. */
void crash_disk_hook(struct crash_disk *d, void (*hook)(void *arg, enum crash_op op), void *arg);
uint64_t crash_disk_calls(const struct crash_disk *d, enum crash_op op);
/* The nth call from now (1: the next) fails with `code`, `times` times (0: for ever); `part` of the path, or NULL. */
void crash_disk_fail(struct crash_disk *d, enum crash_op op, uint64_t nth, uint64_t times, int code,
                     const char *part);
void crash_disk_capacity(struct crash_disk *d, int64_t bytes);
void crash_disk_time(struct crash_disk *d, int64_t wall_ms);

/* The machine loses power now: a new disk with what is left. keep_per_million: the chance of each sector to be newer
 * than synced, and of each name. Open files belong to the old one. */
struct crash_disk *crash_disk_cut(const struct crash_disk *d, struct rng *r, uint32_t keep_per_million);
/* The process dies now: all is there, but of the last write only its first `last_write_bytes` (-1: all). */
struct crash_disk *crash_disk_kill(const struct crash_disk *d, int64_t last_write_bytes);
int64_t crash_disk_last_write(const struct crash_disk *d);

/* Looking and damaging. */
int64_t crash_disk_size(const struct crash_disk *d, const char *path); /* -1: not there */
bool crash_disk_flip(struct crash_disk *d, const char *path, int64_t at, uint8_t mask);
void crash_disk_set(struct crash_disk *d, const char *path, int64_t at, const void *p, size_t n);
void crash_disk_resize(struct crash_disk *d, const char *path, int64_t size);

#endif
