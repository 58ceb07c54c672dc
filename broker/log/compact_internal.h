/* What the steps of a compaction share: compact.c (the shard's side), compact_run.c (the job: map, files),
 * compact_filter.c (one batch). */
#ifndef SUNDOG_BROKER_LOG_COMPACT_INTERNAL_H
#define SUNDOG_BROKER_LOG_COMPACT_INTERNAL_H

#include "broker/log/compact.h"
#include "broker/log/key_map.h"
#include "broker/log/log_internal.h"

#include <stdatomic.h>

struct compact_source {
    int64_t base_offset, next_offset, size_bytes;
};

/* The last batch of a producer id: it stays, if only as an empty one, or the id would be forgotten with it. */
struct compact_keep {
    int64_t producer_id, last_offset;
};

/* Consecutive sources that become one segment. */
struct compact_group {
    unsigned first, n;
    int64_t base_offset, next_offset, size_bytes;
    int64_t max_timestamp, max_timestamp_offset, first_timestamp;
    bool swapped; /* its new file is in the folder under the name .swap */
};

struct log_compaction {
    struct log *l;
    struct disk *disk;
    char *dir;
    struct log_config config;
    struct log_compact_options options;
    struct compact_source *sources;
    unsigned sources_n;
    struct compact_keep *keep; /* by producer id */
    unsigned keep_n;
    int64_t dirty_from; /* offsets below were cleaned before */
    int64_t map_end;    /* the map holds the keys of [dirty_from, map_end) */
    struct compact_group *groups;
    unsigned groups_n;
    int64_t records_before, records_after;
    atomic_bool stop;
    int rc;
    struct err err;
};

/* ---- compact_filter.c ---- */

struct compact_filter {
    const struct log_compaction *c;
    const struct key_map *map;
    struct buf scratch;
    int64_t records_before, records_after;
};

/* Decides on one batch (its CRC was checked) and appends what stays of it to `out`: all, a part, its header, nothing.
 * 0 or -E_…. */
int compact_filter_batch(struct compact_filter *f, const struct batch_header *h, struct slice batch,
                         struct buf *out);
/* Offsets, epochs, sequence and times, but no record. */
void compact_put_empty(const struct batch_header *h, struct buf *out);
/* Calls `each` for the records of a batch, decompressed into `scratch`. -E_LIMIT: too large to look into. */
int compact_records(const struct log_config *config, const struct batch_header *h, struct slice batch,
                    struct buf *scratch, int (*each)(void *arg, const struct record *r), void *arg);

#endif
