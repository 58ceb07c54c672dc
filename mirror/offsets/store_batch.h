/* Inside of a batch, for store.c. */
#ifndef SUNDOG_MIRROR_OFFSETS_STORE_BATCH_H
#define SUNDOG_MIRROR_OFFSETS_STORE_BATCH_H

#include "mirror/offsets/store.h"

/* One change: table (or'ed with how), key length u16, value length u32; then key and value. A merge has the key of a
 * run and its value. */
#define CHANGE_DELETE 0x80
#define CHANGE_MERGE  0x40
#define CHANGE_TABLE  0x3f
#define CHANGE_HEAD   7

struct slice store_batch_changes(const struct store_batch *b);
int store_batch_error(const struct store_batch *b, struct err *err);

#endif
