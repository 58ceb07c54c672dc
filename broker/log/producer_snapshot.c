/* <20 digits>.snapshot: the producers known at that offset (Kafka's ProducerSnapshot v1, big-endian):
 *
 *   at  bytes
 *    0  2  version, 1
 *    2  4  CRC-32C of all that follows it
 *    6  4  number of producers, each:
 *           0  8  producer id                26  8  timestamp: here the wall clock of the last append
 *           8  2  epoch                      34  4  coordinator epoch, -1
 *          10  4  last sequence, -1          38  8  first offset of its open transaction, -1
 *          14  8  last offset, -1
 *          22  4  offset delta of the last batch, 0
 *
 * Only the last batch of each is kept: after a restart a repeat of an older one is out of order, as in Kafka. */
#include "broker/log/producers.h"

#include "base/core/bytes.h"
#include "base/core/crc32c.h"
#include "base/core/mutant.h"

#include <assert.h>
#include <stdlib.h>

enum { SNAPSHOT_VERSION = 1, CRC_AT = 2, CRC_FROM = 6, HEAD_BYTES = 10, ENTRY_BYTES = 46 };

int producers_write(const struct producers *p, struct buf *out)
{
    assert(!p->changing);
    size_t start = out->n;
    buf_put_be16(out, SNAPSHOT_VERSION);
    buf_put_be32(out, 0);
    buf_put_be32(out, MUTANT("dedupe_state_lost") ? 0 : producers_count(p));
    list_each (at, &p->by_age) {
        const struct producer *one = LIST_ENTRY(at, struct producer, age);
        const struct producer_batch none = {.last_offset = -1, .last_sequence = BATCH_NO_SEQUENCE};
        const struct producer_batch *last = one->batches_n ? &one->batches[one->batches_n - 1] : &none;
        if (MUTANT("dedupe_state_lost"))
            break;
        buf_put_be64(out, (uint64_t)one->id);
        buf_put_be16(out, (uint16_t)one->epoch);
        buf_put_be32(out, (uint32_t)last->last_sequence);
        buf_put_be64(out, (uint64_t)last->last_offset);
        buf_put_be32(out, (uint32_t)last->offset_delta);
        buf_put_be64(out, (uint64_t)one->wall_ms);
        buf_put_be32(out, (uint32_t)one->coordinator_epoch);
        buf_put_be64(out, (uint64_t)one->txn_first_offset);
    }
    if (out->failed)
        return -E_NOMEM;
    assert((out->n - start - HEAD_BYTES) % ENTRY_BYTES == 0);
    be32_put(out->p + start + CRC_AT, crc32c(out->p + start + CRC_FROM, out->n - start - CRC_FROM));
    return 0;
}

static int entry_read(struct producers *p, const uint8_t *e)
{
    struct producer one = {
        .id = (int64_t)be64_get(e),
        .epoch = (int16_t)be16_get(e + 8),
        .wall_ms = (int64_t)be64_get(e + 26),
        .coordinator_epoch = (int32_t)be32_get(e + 34),
        .txn_first_offset = (int64_t)be64_get(e + 38),
    };
    struct producer_batch last = {
        .last_sequence = (int32_t)be32_get(e + 10),
        .last_offset = (int64_t)be64_get(e + 14),
        .offset_delta = (int32_t)be32_get(e + 22),
        .wall_ms = one.wall_ms,
    };
    if (one.id < 0 || last.offset_delta < 0)
        return -E_CORRUPT;
    if (last.last_sequence >= 0)
        one.batches[one.batches_n++] = last;
    return producers_enter(p, &one);
}

int producers_read(struct producers *p, struct slice in, struct err *err)
{
    assert(producers_count(p) == 0 && !p->changing);
    if (in.n < HEAD_BYTES)
        return err_set(err, -E_CORRUPT, "producer snapshot of %zu bytes", in.n);
    if (be16_get(in.p) != SNAPSHOT_VERSION)
        return err_set(err, -E_VERSION, "producer snapshot of version %u", be16_get(in.p));
    if (be32_get(in.p + CRC_AT) != crc32c(in.p + CRC_FROM, in.n - CRC_FROM))
        return err_set(err, -E_CORRUPT, "producer snapshot with a wrong CRC");
    uint32_t n = be32_get(in.p + CRC_FROM);
    if ((uint64_t)n * ENTRY_BYTES != in.n - HEAD_BYTES)
        return err_set(err, -E_CORRUPT, "producer snapshot of %u entries in %zu bytes", n, in.n);
    for (uint32_t i = 0; i < n; i++) {
        int rc = entry_read(p, in.p + HEAD_BYTES + (size_t)i * ENTRY_BYTES);
        if (rc) {
            producers_clear(p);
            return err_set(err, rc, "producer snapshot: entry %u is impossible", i);
        }
    }
    return 0;
}
