/* Log files as text, for `sundog dump log`: .log, .index, .timeindex, .snapshot, leader-epoch-checkpoint.
 * Reads only; any thread. What is damaged is said and, where it can be, passed over. */
#ifndef SUNDOG_BROKER_LOG_DUMP_H
#define SUNDOG_BROKER_LOG_DUMP_H

#include "base/core/buf.h"
#include "base/core/err.h"
#include "base/world/disk.h"

enum log_dump { LOG_DUMP_BATCHES = 0, LOG_DUMP_RECORDS = 1, LOG_DUMP_JSON = 2 };

/* By the file's suffix; `out` is called with each line (without its newline). `how` is of enum log_dump. 0:
 * all of it is sound; -E_CORRUPT: it is not, and where; -E_INVALID: not a file of a log. */
int log_dump_print(struct disk *disk, const char *path, unsigned how,
                   void (*out)(void *arg, const char *line), void *arg, struct err *err);

#endif
