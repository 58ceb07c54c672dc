/* Inside of a batch, for store.c. */
#ifndef SUNDOG_MIRROR_OFFSETS_STORE_BATCH_H
#define SUNDOG_MIRROR_OFFSETS_STORE_BATCH_H

#include "mirror/offsets/store.h"

/* One change: table (or'ed with CHANGE_DELETE), key length u16, value length u32; then key and value. */
#define CHANGE_DELETE 0x80
#define CHANGE_HEAD   7

struct slice store_batch_changes(const struct store_batch *b);
int store_batch_error(const struct store_batch *b, struct err *err);

#endif
