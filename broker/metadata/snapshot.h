/* A snapshot: the metadata image at the end of a batch, in a file of Kafka's layout (KIP-630).
 *
 *   <end offset, 20 digits>-<epoch, 10 digits>.checkpoint     everything below the end offset
 *   ….checkpoint.part       being written
 *   ….checkpoint.deleted    being deleted
 *
 *   control batch   SnapshotHeader; with kraft.version ≥ 1 also KRaftVersion and Voters
 *   data batches    metadata records, SNAPSHOT_BATCH_BYTES or a little more each
 *   control batch   SnapshotFooter: without it the file is incomplete
 *
 * Offsets inside begin at 0 and have no gaps; the batches' leader epoch is the snapshot's. bootstrap.checkpoint, which
 * formatting a directory leaves beside the log, has the same form.
 * Everything here blocks; any thread. */
#ifndef SUNDOG_BROKER_METADATA_SNAPSHOT_H
#define SUNDOG_BROKER_METADATA_SNAPSHOT_H

#include "base/core/err.h"
#include "base/world/disk.h"
#include "broker/metadata/image.h"
#include "broker/metadata/record.h"

#define SNAPSHOT_SUFFIX      ".checkpoint"
#define SNAPSHOT_NAME_MAX    64
#define SNAPSHOT_BATCH_BYTES (256u << 10)
#define SNAPSHOT_PATH_MAX    1280

struct snapshot_id {
    int64_t end_offset;
    int32_t epoch;
};

enum snapshot_file { SNAPSHOT_NONE, SNAPSHOT_COMPLETE, SNAPSHOT_PART, SNAPSHOT_DELETED };

/* What a file name says. */
enum snapshot_file snapshot_name_parse(const char *name, struct snapshot_id *out);
void snapshot_name(const struct snapshot_id *id, char out[SNAPSHOT_NAME_MAX]);

/* What the control batches say beside header and footer. */
struct snapshot_quorum {
    int16_t kraft_version;                 /* 0: neither record */
    const struct kp_voters_record *voters; /* with kraft_version ≥ 1 */
};

/* ---- writing ---- */

struct snapshot_writer;
/* A file at dir/name.part. `timestamp_ms` is that of the last record contained; all batches get it. */
int snapshot_writer_open(struct disk *disk, const char *dir, const char *name, int32_t epoch,
                         int64_t timestamp_ms, const struct snapshot_quorum *quorum,
                         struct snapshot_writer **out, struct err *err);
int snapshot_writer_add(struct snapshot_writer *w, const struct metadata_record *r, struct err *err);
/* Footer, sync, rename, sync of the folder; frees. On an error the part is removed. */
int snapshot_writer_close(struct snapshot_writer *w, struct err *err);
void snapshot_writer_abandon(struct snapshot_writer *w);

/* The whole of it: the image's own end offset and epoch are the snapshot's. `size_bytes` may be NULL. */
int snapshot_write(struct disk *disk, const char *dir, const struct image *img,
                   const struct snapshot_quorum *quorum, int64_t *size_bytes, struct err *err);

/* ---- reading ---- */

struct snapshot_reader {
    int (*record)(void *arg, const struct metadata_record *r); /* 0 or an error that ends the reading */
    /* Header, KRaftVersion and Voters (enum control_type); may be NULL. The value is a message of the rows. */
    int (*control)(void *arg, int type, struct slice value);
    void *arg;
};
/* Header, contiguous offsets, CRCs and footer are checked: -E_CORRUPT, -E_TRUNCATED without a footer. */
int snapshot_read(struct disk *disk, const char *path, const struct snapshot_reader *reader, struct err *err);

/* An image of it, as of `id`. `control` gets KRaftVersion and Voters; may be NULL. */
int snapshot_load(struct disk *disk, const char *dir, const struct snapshot_id *id, struct slice cluster_id,
                  int (*control)(void *arg, int type, struct slice value), void *arg, struct image **out,
                  struct err *err);

#endif
