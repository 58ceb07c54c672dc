/* What the files of this folder share. Nothing here is for others.
 *
 *   struct log ── segments[] sorted by base offset; the last one is active: appended to, its .log pinned open
 *              ── epochs, producers (follow each append)
 *              ── hints: positions of recent append ends and read ends, so that a consumer needs no index
 *
 * Invariants (log_check): segments_n ≥ 1; bases rise; start ≤ durable ≤ end or durable < start after DeleteRecords;
 * recovery_point ≤ durable; the active segment's next_offset == end. */
#ifndef SUNDOG_BROKER_LOG_LOG_INTERNAL_H
#define SUNDOG_BROKER_LOG_LOG_INTERNAL_H

#include "base/core/list.h"
#include "broker/log/epochs.h"
#include "broker/log/files.h"
#include "broker/log/index.h"
#include "broker/log/producers.h"
#include "broker/log/walk.h"

#include <assert.h>

#define LOG_MAGIC        UINT32_C(0x5d06106a)
#define LOG_HINTS        16
#define SEGMENT_MAGIC    UINT32_C(0x5d065e61)

#define SUFFIX_LOG       ".log"
#define SUFFIX_INDEX     ".index"
#define SUFFIX_TIMEINDEX ".timeindex"
#define SUFFIX_SNAPSHOT  ".snapshot"
#define SUFFIX_DELETED   ".deleted"
#define SUFFIX_TRIMMED   ".trimmed.deleted" /* of the newest .log that goes: all older ones go too (retain.c) */
#define SUFFIX_CLEANED   ".cleaned"
#define SUFFIX_SWAP      ".swap"
#define EPOCHS_FILE      "leader-epoch-checkpoint"

struct segment {
    uint32_t magic;
    int64_t base_offset;
    int64_t next_offset; /* behind its last record; a closed one that was not read: the next segment's base */
    int64_t size_bytes;  /* -1: not looked at yet */
    struct log_handle data;
    struct log_index offsets, times;
    int64_t max_timestamp, max_timestamp_offset; /* -1: none; of closed ones when times_known */
    int64_t first_timestamp; /* of its first batch, for segment.ms; -1 none, -2 not read */
    int64_t created_ms;
    int64_t since_index;          /* bytes since the last index entry */
    int64_t again_from, again_to; /* bytes that the next flush writes again first: recover.c */
    int64_t reserved_bytes;       /* of the active one: to where room on disk was asked for; 0: not known */
    int64_t rebuilt_ms;           /* the file's time when an index of it was last not believed; -1: never */
    bool times_known;
    bool dirty;       /* .log bytes that no flush has taken yet */
    bool index_dirty; /* index bytes that no checkpoint flush has taken yet */
    bool swapping;    /* a compaction is about to replace it */
};

struct log_hint {
    int64_t offset, base_offset, position; /* a batch begins (or the segment ends) there; offset -1: unused */
};

/* A producer snapshot that waits for a flush to write it. */
struct snapshot_wanted {
    struct list link;
    int64_t offset;
    struct buf bytes;
};

struct deleted_file {
    struct list link;
    int64_t due_ms;
    char name[64];
};

struct log {
    uint32_t magic;
    struct disk *disk;
    struct log_files *files;
    char *dir;
    struct log_config config;

    struct segment **segments;
    unsigned segments_n;
    size_t segments_room;
    int64_t start, end, durable, recovery_point;
    struct epochs epochs;
    struct producers producers;
    struct log_hint appends[LOG_HINTS], reads[LOG_HINTS];
    unsigned appends_at, reads_at;

    struct log_flush *flush; /* under way */
    bool names_dirty;        /* files were made or renamed since the folder was synced */
    bool folder_new;         /* and the folder itself */
    bool old_index_dirty;    /* the index of a closed segment was made again */
    struct list snapshots;   /* struct snapshot_wanted */
    int64_t snapshot_newest; /* the newest one written, -1 */
    int64_t snapshot_before; /* the one before it that belongs to no segment, to be removed; -1 */
    int64_t unflushed_records, unflushed_since_ms;

    struct log_compaction *compaction; /* under way */
    struct list deleted;               /* struct deleted_file */
    int fenced;                        /* 0 or -E_… */
    char *fence_text;
    struct log_recovery recovery;
};

static inline struct segment *log_active(const struct log *l)
{
    assert(l->magic == LOG_MAGIC && l->segments_n > 0);
    return l->segments[l->segments_n - 1];
}

/* What always holds for a segment, and between two calls for a log (log_check, in log.c). */
#define ASSERT_SEGMENT(s)                                                                                    \
    assert((s)->magic == SEGMENT_MAGIC && (s)->base_offset >= 0 && (s)->next_offset >= (s)->base_offset &&   \
           (s)->size_bytes >= -1 && (s)->since_index >= 0)
#define INVARIANT(l) log_check(l)

/* ---- log.c ---- */

void log_check(const struct log *l);

/* "<dir>/<20 digits of base><suffix><suffix2>". */
const char *log_path(const struct log *l, int64_t base, const char *suffix, const char *suffix2,
                     char out[LOG_PATH_MAX]);
const char *log_path_named(const struct log *l, const char *name, char out[LOG_PATH_MAX]);
/* The last segment with base ≤ offset; 0 when there is none. */
unsigned log_segment_at(const struct log *l, int64_t offset);
int log_segments_insert(struct log *l, unsigned at, struct segment *s);
void log_segments_remove(struct log *l, unsigned at, unsigned n);
/* Where it begins or ends for good: -E_IO and the like fence; returns code. */
int log_broken(struct log *l, int code, struct err *err);
void log_hints_clear(struct log *l);
/* Syncs a folder's names; all of this room's go through here. */
int names_sync(struct disk *disk, const char *dir);
void log_free(struct log *l);

/* ---- segment.c ---- */

struct segment *segment_create(struct log *l, int64_t base_offset);
void segment_destroy(struct segment *s); /* closes its files; NULL is fine */
/* Makes its files, empty; the .log is pinned. */
int segment_make(struct log *l, struct segment *s, int64_t wall_ms, struct err *err);
/* Before `bytes` are appended; the file is pinned. */
void segment_reserve(struct log *l, struct segment *s, int64_t bytes);
void segment_trim(struct segment *s);
int segment_file(struct log *l, struct segment *s, struct log_file **out, struct err *err);
/* Looks at the file when it is not known. */
int64_t segment_size(struct log *l, struct segment *s, struct err *err);
/* Both indexes usable: loaded, or made again from the log when missing or wrong. */
int segment_indexes(struct log *l, struct segment *s, struct err *err);
int segment_index_rebuild(struct log *l, struct segment *s, struct err *err);
/* Kafka's basis of segment.ms: the time of the first batch; -1 when it has none. */
int64_t segment_first_timestamp(struct log *l, struct segment *s);
/* max_timestamp(_offset) are set. */
int segment_times(struct log *l, struct segment *s, struct err *err);
/* A batch was appended at `position`: indexes, times. -E_NOMEM. */
int segment_note(struct log *l, struct segment *s, const struct batch_header *h, int64_t position);
/* Writes index tails; `closing`: with the last time entry, as a closed segment has it. */
int segment_spill(struct log *l, struct segment *s, bool closing, struct err *err);
/* The first batch whose last offset is ≥ offset: 1 with header and position; 0: none (position: the end). */
int segment_locate(struct log *l, struct segment *s, int64_t offset, struct batch_header *h,
                   int64_t *position, struct err *err);
int segment_header_at(struct log *l, struct segment *s, int64_t position, struct batch_header *h,
                      struct err *err);
/* For -E_CORRUPT and the like at a position of its .log. */
int segment_bad(const struct log *l, const struct segment *s, int64_t position, int code, const char *what,
                struct err *err);

/* ---- producer state (state.c) ---- */

/* A snapshot at `offset` (of the present state) waits for the next flush. */
int log_snapshot_want(struct log *l, int64_t offset);
void log_snapshots_drop(struct log *l);
/* From the newest snapshot at or below `upto`, and the headers from there to `upto`. Snapshots above are removed. */
int log_producers_load(struct log *l, int64_t upto, int64_t wall_ms, const int64_t *snapshots, unsigned n,
                       struct err *err);
/* From the headers of the whole log. */
int log_epochs_rebuild(struct log *l, struct err *err);

/* ---- recover.c ---- */

/* What is read there may be pages of the process before: a sync that failed leaves them clean and unwritten, and
 * the next one, which has nothing to write, says that all is well. Written again, the same bytes in place, they are
 * the next flush's. Where they are checked too, first this, then the check: a clean page may go at any time, and
 * what is read anew is what the platter has. Any thread; nobody else writes there. */
int segment_write_again(struct disk_file *file, int64_t from, int64_t to);

/* The segment ends at `size` now. */
static inline void segment_again_cut(struct segment *s, int64_t size)
{
    s->again_to = s->again_to < size ? s->again_to : size;
    s->again_from = s->again_from < s->again_to ? s->again_from : s->again_to;
}

struct folder;
int log_recover(struct log *l, const struct log_open_options *o, struct err *err);

/* ---- truncate.c ---- */

/* Segments from `at` on leave the list and the disk, one by one from the last: a crash never leaves a hole. */
int log_remove_from(struct log *l, unsigned at, struct err *err);

/* ---- retain.c ---- */

/* On disk on return: a crash from now on takes the first `n` segments as gone, whichever of their files are left. */
int log_trim_mark(struct log *l, unsigned n, struct err *err);
void log_deleted_drop(struct log *l);

#endif
