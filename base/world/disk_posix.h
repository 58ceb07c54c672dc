/* struct disk on the file system of this machine. Stateless: one may serve all threads. */
#ifndef SUNDOG_BASE_WORLD_DISK_POSIX_H
#define SUNDOG_BASE_WORLD_DISK_POSIX_H

#include "base/world/disk.h"

struct disk *disk_posix_create(void);
void disk_posix_destroy(struct disk *d);

#endif
