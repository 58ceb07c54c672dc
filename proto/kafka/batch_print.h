/* Record batches as text for people: a line for each header, a line for each record. Any thread. */
#ifndef SUNDOG_PROTO_KAFKA_BATCH_PRINT_H
#define SUNDOG_PROTO_KAFKA_BATCH_PRINT_H

#include "base/core/buf.h"
#include "base/core/slice.h"

#define BATCH_PRINT_RECORDS_MAX 1000 /* of one batch; how many more there are is said */

/* All batches in `bytes`, each line `indent` columns in. What is malformed is said in its place and ends the text. */
void batch_print(struct slice bytes, int indent, struct buf *out);

#endif
