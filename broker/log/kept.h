/* The note ".sundog-kept" in a log dir: every log there is open, and none of them has failed. It names the mount
 * (disk_mounted), is written without a sync, and is taken away by the next start and by the first failure. So a
 * start that finds it, in the same mount, follows a process that was killed while all was well: the page cache
 * still has every byte of it, in the order written, and of the last write at least a beginning. A power cut, an
 * umount, a write or an fdatasync that failed: no note, or one of another mount.
 *
 * A log that does not promise the disk (log_config.page_cache) is then opened by its headers alone, and what is
 * beyond its recovery point is written again by its first flush rather than by its opening. Any thread, one at a
 * time per folder but for kept_remove. */
#ifndef SUNDOG_BROKER_LOG_KEPT_H
#define SUNDOG_BROKER_LOG_KEPT_H

#include "base/world/disk.h"

/* Whether it is there and names this mount; in any case it is gone. */
bool kept_take(struct disk *disk, const char *log_dir);
/* Without it the next start checks more: nothing is said of errors. */
void kept_write(struct disk *disk, const char *log_dir);
void kept_remove(struct disk *disk, const char *log_dir);

#endif
