/* Random metadata histories: records that are valid one after the other, of every type that a log may hold. */
#ifndef SUNDOG_TESTS_SUPPORT_METADATA_GEN_H
#define SUNDOG_TESTS_SUPPORT_METADATA_GEN_H

#include "broker/metadata/image_edit.h"
#include "base/core/buf.h"

struct rng;

/* Adds one record that may follow `img`. Transactions are the caller's. */
void metadata_gen_record(struct rng *rng, const struct image *img, struct metadata_records *to);
/* Everything an image says, as bytes: equal images have equal bytes. */
void metadata_gen_print(const struct image *img, struct buf *to);
/* FeatureLevel metadata.version and one broker: what a history begins with. */
void metadata_gen_start(struct metadata_records *to);

#endif
