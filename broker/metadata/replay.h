/* Follows a log of metadata: batches in, images out. The same for a node's start, a follower and the leader that
 * applies what it has just appended. One thread; images it gives out are counted and may be read anywhere. */
#ifndef SUNDOG_BROKER_METADATA_REPLAY_H
#define SUNDOG_BROKER_METADATA_REPLAY_H

#include "broker/metadata/image_edit.h"

#define REPLAY_ARENA_MAX ((size_t)256 << 20) /* one batch of 8 MiB decoded; far above what it needs */

struct replay {
    struct image *img; /* after the last batch that did not end inside a transaction */
    struct image_edit edit;
    bool open; /* a transaction goes on over batches: `edit` has what it did so far */
    int64_t offset_next;
    struct image_reaper *reaper; /* given to every image */
    struct arena arena;
};

/* Takes the reference to `base`; the log goes on at `offset_next`. */
void replay_init(struct replay *r, struct image *base_take, int64_t offset_next, struct image_reaper *reaper);
void replay_fini(struct replay *r);

/* One batch with a right CRC, in order. Control batches only move the offset. After an error the image is the one
 * before this batch and the replay may only be released. */
int replay_batch(struct replay *r, struct slice batch, struct err *err);
/* The quorum's kraft.version, for this image (which nobody else has seen yet) and those that follow. */
void replay_set_kraft_version(struct replay *r, int16_t kraft_version);

#endif
