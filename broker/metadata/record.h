/* One metadata record (KIP-631): the frame around a message of the rows.
 *
 *   unsigned varint 1 (frame version), varint type, varint version, then the message in flexible encoding
 *
 * Keys are null, there are no headers. Plain values; no state. */
#ifndef SUNDOG_BROKER_METADATA_RECORD_H
#define SUNDOG_BROKER_METADATA_RECORD_H

#include "base/core/arena.h"
#include "base/core/buf.h"
#include "base/core/err.h"
#include "proto/kafka/wire.h"

#define RECORD_FRAME_VERSION 1

struct metadata_record {
    int16_t type; /* kp_type_… */
    int16_t version;
    const void *body; /* struct kp_…_record */
};

/* Arrays lie in the arena, texts in `value`. -E_VERSION: a type or version we do not know, which nobody may skip;
 * -E_CORRUPT. */
int metadata_record_decode(struct slice value, struct arena *arena, struct metadata_record *out,
                           struct err *err);
/* Appends the frame. -E_INVALID: a type without rows, or a body that cannot be encoded. */
int metadata_record_encode(const struct metadata_record *r, struct buf *out);

/* A list of records on its way into the log; the bodies lie in `arena`. Overflow is the arena's. */
struct metadata_records {
    struct arena *arena;
    struct metadata_record *v;
    size_t n, capacity;
};

void metadata_records_init(struct metadata_records *list, struct arena *arena);
/* Appends one with its defaults set and returns the body to fill; NULL when the arena is full. */
void *metadata_records_add(struct metadata_records *list, int16_t type, int16_t version);

#endif
