/* The sparse indexes beside a segment, one entry for some index.interval.bytes of log (big-endian, as Kafka's):
 *
 *   .index      8 bytes an entry: int32 offset − base offset, of a batch's LAST record; int32 position of that batch
 *   .timeindex 12 bytes an entry: int64 largest timestamp so far; int32 offset − base offset of the last record of the
 *               batch that has it
 *
 * Keys rise strictly in .index and never fall in .timeindex. The first batch has no .index entry. A closed segment's
 * file has exactly its entries (Kafka preallocates and trims at close; trailing zero entries are not counted when
 * read).
 *
 * Entries of the active segment wait in memory and are written INDEX_TAIL at a time and by index_spill: an index is
 * never needed to recover what lies behind the recovery point. Shard's thread. */
#ifndef SUNDOG_BROKER_LOG_INDEX_H
#define SUNDOG_BROKER_LOG_INDEX_H

#include "broker/log/files.h"

enum index_kind { INDEX_OFFSETS, INDEX_TIMES };

#define INDEX_TAIL 512 /* entries kept back; more only while the disk is full */

struct index_entry {
    int64_t key;   /* offset (absolute), or timestamp */
    int64_t value; /* position, or offset (absolute) */
};

struct log_index {
    enum index_kind kind;
    int64_t base_offset;
    struct log_handle handle;
    bool loaded;      /* counts and last are known */
    uint32_t in_file; /* entries */
    uint32_t in_tail;
    uint32_t tail_room;
    uint8_t *tail;
    struct index_entry last; /* of the newest entry; meaningless when there is none */
};

void index_init(struct log_index *ix, enum index_kind kind, int64_t base_offset, struct log_files *files);
void index_fini(struct log_index *ix);

static inline uint32_t index_entries(const struct log_index *ix)
{
    return ix->in_file + ix->in_tail;
}

static inline size_t index_entry_bytes(enum index_kind kind)
{
    return kind == INDEX_OFFSETS ? 8 : 12;
}

/* Opens and counts. -E_NOTFOUND; -E_CORRUPT: not a whole number of entries, or the last does not fit the segment:
 * offsets below `end_offset`, positions below `log_bytes`. */
int index_load(struct log_index *ix, struct disk *disk, const char *path, int64_t end_offset,
               int64_t log_bytes, struct err *err);
/* As before index_load; entries that were not written are gone. */
void index_forget(struct log_index *ix);
/* Makes the file anew, empty. */
int index_reset(struct log_index *ix, struct disk *disk, const char *path, struct err *err);
/* Adds to the tail, which the caller spills when it has INDEX_TAIL entries. A key that does not rise is left out.
 * -E_NOMEM. */
int index_append(struct log_index *ix, struct index_entry e);
/* Writes the tail. */
int index_spill(struct log_index *ix, struct disk *disk, const char *path, struct err *err);
/* Entry `at` < index_entries. -E_IO, -E_CORRUPT when it lies before the base offset. */
int index_entry_at(struct log_index *ix, struct disk *disk, const char *path, uint32_t at,
                   struct index_entry *out, struct err *err);
/* The number of entries whose key (by_value: whose value) is ≤ `bound`, and the last of them in *out. */
int index_floor(struct log_index *ix, struct disk *disk, const char *path, int64_t bound, bool by_value,
                uint32_t *n, struct index_entry *out, struct err *err);
/* Keeps the first `n` entries, in the file too. */
int index_cut(struct log_index *ix, struct disk *disk, const char *path, uint32_t n, struct err *err);
/* All entries rise and lie below the ends; reads everything. 0 or -E_CORRUPT, -E_IO. */
int index_check(struct log_index *ix, struct disk *disk, const char *path, int64_t end_offset,
                int64_t log_bytes, struct err *err);

#endif
