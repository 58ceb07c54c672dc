/* Files of record batches with the list of their records (tests/wire/java/WireBatches.java describes them). */
#ifndef SUNDOG_TESTS_WIRE_BATCH_FILE_H
#define SUNDOG_TESTS_WIRE_BATCH_FILE_H

#include "proto/kafka/batch.h"

struct batch_entry {
    struct slice batch, listed; /* the records: count, then one after the other */
};

/* Takes an entry off the front: 1, 0 at the end, -1 malformed. */
int batch_entry_next(struct slice *rest, struct batch_entry *out);
/* Walks the batch and compares; uncompressed ones are also built again and must give the same bytes. */
int batch_entry_check(const struct batch_entry *e, char *why, size_t why_size);

#endif
