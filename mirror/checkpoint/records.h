/* MM2's record formats, byte for byte (MIRRORING.md 2.4): big-endian Kafka types, STRING = int16 length and UTF-8.
 * Pure. */
#ifndef SUNDOG_MIRROR_CHECKPOINT_RECORDS_H
#define SUNDOG_MIRROR_CHECKPOINT_RECORDS_H

#include "base/core/buf.h"

/* <source>.checkpoints.internal: where a group stands at the target. `topic` is the target's name. */
void checkpoint_key_put(struct buf *out, struct slice group, struct slice topic, int32_t partition);
void checkpoint_value_put(struct buf *out, int64_t upstream_offset, int64_t offset, struct slice metadata);
/* heartbeats */
void heartbeat_key_put(struct buf *out, struct slice source_alias, struct slice target_alias);
void heartbeat_value_put(struct buf *out, int64_t timestamp_ms);
/* mm2-offset-syncs.<x>.internal; `topic` is the source's name. */
void offset_sync_key_put(struct buf *out, struct slice topic, int32_t partition);
void offset_sync_value_put(struct buf *out, int64_t upstream_offset, int64_t offset);

#endif
