/* Room of a log dir that is kept for the write that makes room: the file ".sundog-spare", SPARE_BYTES of nothing.
 * Where the disk is full it is given back bit by bit until a start of DeleteRecords can be written, and filled
 * again when there is room. On a file system that stores zeros in no room (compression) it holds nothing, and such
 * a write may fail as others do. One thread at a time. */
#ifndef SUNDOG_BROKER_LOG_SPARE_H
#define SUNDOG_BROKER_LOG_SPARE_H

#include "base/world/disk.h"

#define SPARE_BYTES (INT64_C(1) << 20)
#define SPARE_STEP  (INT64_C(128) << 10) /* a checkpoint file of 2,000 partitions and its name */

/* 0 when it is whole. -E_NOSPACE: it is as large as it can be now. */
int spare_fill(struct disk *disk, const char *log_dir);
/* False: there is nothing left to give. */
bool spare_give(struct disk *disk, const char *log_dir);

#endif
