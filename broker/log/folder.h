/* What lies in a log's folder when it is opened, and the work that a crash left half done: files being deleted go, the
 * swap of a compaction is finished. One thread; lives as long as one log_open. */
#ifndef SUNDOG_BROKER_LOG_FOLDER_H
#define SUNDOG_BROKER_LOG_FOLDER_H

#include "broker/log/log_internal.h"

struct offsets_list {
    int64_t *v; /* rising */
    unsigned n;
    size_t room;
};

struct folder {
    struct offsets_list logs, indexes, snapshots, swaps;
    int64_t trimmed;  /* the newest segment that was being deleted, and all older ones with it; -1 */
    char (*junk)[64]; /* names to remove */
    unsigned junk_n;
    size_t junk_room;
    int rc;
};

/* Reads the folder; -E_NOTFOUND when there is none. */
int folder_read(struct folder *f, const struct log *l, struct err *err);
void folder_fini(struct folder *f);
/* Removes junk; finishes swaps: `logs` then says what is really there. */
int folder_tidy(struct folder *f, struct log *l, struct err *err);

#endif
