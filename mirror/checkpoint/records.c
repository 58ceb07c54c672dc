#include "mirror/checkpoint/records.h"

static void put_string(struct buf *out, struct slice s)
{
    size_t n = s.n < INT16_MAX ? s.n : INT16_MAX;
    buf_put_be16(out, (uint16_t)n);
    buf_put(out, s.p ? s.p : (const uint8_t *)"", n);
}

void checkpoint_key_put(struct buf *out, struct slice group, struct slice topic, int32_t partition)
{
    put_string(out, group);
    put_string(out, topic);
    buf_put_be32(out, (uint32_t)partition);
}

void checkpoint_value_put(struct buf *out, int64_t upstream_offset, int64_t offset, struct slice metadata)
{
    buf_put_be16(out, 0); /* version */
    buf_put_be64(out, (uint64_t)upstream_offset);
    buf_put_be64(out, (uint64_t)offset);
    put_string(out, metadata); /* never null: an empty one is written so */
}

void heartbeat_key_put(struct buf *out, struct slice source_alias, struct slice target_alias)
{
    put_string(out, source_alias);
    put_string(out, target_alias);
}

void heartbeat_value_put(struct buf *out, int64_t timestamp_ms)
{
    buf_put_be16(out, 0); /* version */
    buf_put_be64(out, (uint64_t)timestamp_ms);
}

void offset_sync_key_put(struct buf *out, struct slice topic, int32_t partition)
{
    put_string(out, topic);
    buf_put_be32(out, (uint32_t)partition);
}

void offset_sync_value_put(struct buf *out, int64_t upstream_offset, int64_t offset)
{
    buf_put_be64(out, (uint64_t)upstream_offset);
    buf_put_be64(out, (uint64_t)offset);
}
