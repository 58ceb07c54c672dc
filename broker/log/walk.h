/* Walks the batches of a .log file from a position on, through a window of memory: headers only, or whole batches, or
 * their CRCs. Owns its window, not the file; one thread. */
#ifndef SUNDOG_BROKER_LOG_WALK_H
#define SUNDOG_BROKER_LOG_WALK_H

#include "base/world/disk.h"
#include "proto/kafka/batch.h"

#define WALK_WINDOW_HEADERS ((size_t)8 * 1024)   /* to look something up */
#define WALK_WINDOW_SCAN    ((size_t)512 * 1024) /* to read everything */
#define WALK_OFFSET_MAX     (INT64_MAX / 2)

struct walk {
    struct disk_file *file;
    int64_t at, end;       /* next batch; the file's (valid) size */
    struct batch_header h; /* of the batch walk_next has found */
    int64_t position;      /* where it lies */
    uint8_t *window;
    size_t window_bytes, have;
    int64_t window_at;
};

void walk_init(struct walk *w, struct disk_file *file, int64_t at, int64_t end, size_t window_bytes);
void walk_fini(struct walk *w);
/* batch_header_read for bytes that nobody has checked: offsets that cannot be added to are -E_CORRUPT too. */
int walk_header(struct slice in, struct batch_header *out);
/* 1: a batch with a possible header that lies wholly before `end`; `at` is behind it. 0: at the end.
 * -E_TRUNCATED: the batch, or its header, ends beyond `end`; -E_CORRUPT, -E_VERSION: no header. On these `position`
 * and `at` are where it should begin. -E_IO, -E_NOMEM. */
int walk_next(struct walk *w);
/* What walk_next's error means for a file that should be whole: the outside's errors as they are, else -E_CORRUPT. */
int walk_code(int rc);
/* The batch found is as its CRC says: 1 or 0; -E_IO. */
int walk_crc_ok(struct walk *w);
/* The whole batch found, in memory until the next call. -E_IO, -E_NOMEM. */
int walk_batch(struct walk *w, struct slice *out);
/* `n` bytes at `at` in memory until the next call; they must lie before `end`. */
int walk_bytes(struct walk *w, int64_t at, size_t n, const uint8_t **out);

#endif
