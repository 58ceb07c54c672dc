/* The history of leader epochs: at which offset each began (KIP-101, KIP-279).
 *
 * leader-epoch-checkpoint is text: "0\n", the number of entries, then "<epoch> <start offset>\n" each. Both rise
 * strictly. It is written by the checkpoint flush and on close; what is newer follows from the batches' own epochs. An
 * epoch at the end, without records yet, is not worth a write: the next one that begins there takes its place
 * anyway. */
#ifndef SUNDOG_BROKER_LOG_EPOCHS_H
#define SUNDOG_BROKER_LOG_EPOCHS_H

#include "base/core/buf.h"
#include "broker/log/log.h"

struct epoch_entry {
    int32_t epoch;
    int64_t start_offset;
};

struct epochs {
    struct epoch_entry *v;
    unsigned n;
    size_t room;
    int64_t
        unsaved; /* the file lacks what begins here; -1: it is another altogether, INT64_MAX: it has all */
};

#define EPOCHS_MAX (1u << 20) /* entries a file may have */

void epochs_init(struct epochs *e);
void epochs_fini(struct epochs *e);
void epochs_clear(struct epochs *e);
int32_t epochs_latest(const struct epochs *e);
int32_t epochs_at(const struct epochs *e, int64_t offset);
/* Larger than the latest: entered. Entries that begin at or after start_offset are dropped for it. -E_NOMEM. */
int epochs_assign(struct epochs *e, int32_t epoch, int64_t start_offset);
struct log_epoch_end epochs_end(const struct epochs *e, int32_t epoch, int64_t log_end);
/* The file lacks an epoch that has records in a log that ends there. */
bool epochs_unsaved(const struct epochs *e, int64_t log_end);
/* Drops what begins at or after `offset`. */
void epochs_cut_end(struct epochs *e, int64_t offset);
/* The log begins at `offset` now: what ended before goes, what spans it begins there. */
void epochs_cut_start(struct epochs *e, int64_t offset);

void epochs_write(const struct epochs *e, struct buf *out);
/* Replaces the content. -E_CORRUPT, -E_VERSION: it is empty then. */
int epochs_read(struct epochs *e, struct slice text, struct err *err);

#endif
