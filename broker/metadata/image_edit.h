/* The next image: an image and the records that follow it. apply(image, record) is pure; nothing here does I/O.
 *
 *     image_edit_begin(&e, img);
 *     image_edit_apply(&e, &record, err);  …
 *     next = image_edit_finish(&e, offset, epoch, timestamp_ms);   or   image_edit_drop(&e);
 *
 * One batch of the log is atomic: finish at its end only. Records between BeginTransaction and EndTransaction are
 * atomic over batches: while image_edit_in_transaction the edit goes on. An aborted transaction leaves nothing.
 * Images that share objects are edited, finished and freed by one thread. */
#ifndef SUNDOG_BROKER_METADATA_IMAGE_EDIT_H
#define SUNDOG_BROKER_METADATA_IMAGE_EDIT_H

#include "base/core/err.h"
#include "base/core/list.h"
#include "broker/metadata/image.h"
#include "broker/metadata/record.h"

struct image_edit {
    struct image *img;      /* nobody else sees it */
    struct image *txn_base; /* what an abort goes back to; NULL outside of a transaction */
    struct list editing;    /* topics that this edit has made and may change in place */
};

/* The image before the first record. NULL: out of memory. */
struct image *image_empty(struct slice cluster_id);

/* 0 or -E_NOMEM; then there is no edit. */
int image_edit_begin(struct image_edit *e, const struct image *base);
/* -E_CORRUPT: the record contradicts what is there (a partition of no topic); -E_VERSION: a type that must not be
 * skipped; -E_NOMEM. After an error the edit may only be dropped. */
int image_edit_apply(struct image_edit *e, const struct metadata_record *r, struct err *err);
bool image_edit_in_transaction(const struct image_edit *e);
/* Ends the edit; outside of a transaction only. The reference is the caller's. */
struct image *image_edit_finish(struct image_edit *e, int64_t offset, int32_t epoch, int64_t timestamp_ms);
void image_edit_drop(struct image_edit *e);

/* Who frees it. Images whose last reference went, on whatever thread, gather here; the thread that edits frees them
 * now and then. It outlives its images. Without a reaper an image is freed where its last reference goes. */
struct image_reaper {
    _Atomic(struct image *) dead;
};
void image_set_reaper(struct image *img, struct image_reaper *r);
void image_reaper_drain(struct image_reaper *r);

/* All of an image as records, in the order in which Kafka writes snapshots: features, brokers and controllers, topics,
 * configs, quotas, producer ids, ACLs, credentials, tokens. The bodies are valid during `each` only; it returns 0, or
 * an error that ends the walk. Versions follow the image's own metadata.version. */
int image_write(const struct image *img, int (*each)(void *arg, const struct metadata_record *r), void *arg,
                struct err *err);

/* Versions a writer may use at this metadata.version (KRAFT §8). */
int16_t metadata_version_of(int16_t type, int16_t metadata_version);

#define METADATA_VERSION_FEATURE "metadata.version"
#define METADATA_VERSION_MIN     25 /* 4.0-IV3: what we require */
#define METADATA_VERSION_MAX     30 /* 4.3-IV0: what we know */

#endif
