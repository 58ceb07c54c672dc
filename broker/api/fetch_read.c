/* Reading for a Fetch: one partition after the other, in the request's order (PROTOCOL.md §2.3). */
#include "broker/api/fetch.h"

#include "broker/api/lookup.h"
#include "proto/kafka/batch.h"

static void refuse(struct fetch_item *it, int16_t error)
{
    assert(error != KE_NONE);
    it->out->error_code = error;
    it->out->high_watermark = -1;
    it->out->last_stable_offset = -1;
    it->out->log_start_offset = -1;
    it->part->urgent = true;
}

/* The caller's last epoch does not reach so far here: it has records that we have not (KIP-595). True: told. */
static bool diverges(struct fetch_item *it, struct log *log)
{
    int32_t last = it->in->last_fetched_epoch;
    if (last < 0)
        return false;
    struct log_epoch_end end = log_epoch_end(log, last);
    if (end.epoch < 0 || end.end_offset < 0) {
        refuse(it, KE_OFFSET_OUT_OF_RANGE);
        return true;
    }
    if (end.epoch >= last && end.end_offset >= it->in->fetch_offset)
        return false;
    it->out->diverging_epoch =
        (struct kp_fetch_response_diverging_epoch){.epoch = end.epoch, .end_offset = end.end_offset};
    it->part->urgent = true;
    return true;
}

/* zstd goes to old versions too, as from Kafka, which refuses only topics whose own compression.type is zstd: clients
 * that could read it (kafka-python 2.0.2) ask in version 4. */
static void read_records(struct fetch_item *it, struct partition *p, int64_t budget, bool first)
{
    struct fetch *f = it->part->fetch;
    int64_t limit = partition_limit(p, f->isolation);
    int64_t max = it->max_bytes < budget ? it->max_bytes : budget;
    if (it->in->fetch_offset >= limit || (max <= 0 && !first))
        return;
    assert(it->slice.size_bytes == 0);
    int rc = log_read(partition_log(p), it->in->fetch_offset, limit, (size_t)(max > 0 ? max : 0),
                      first ? LOG_READ_AT_LEAST_ONE : LOG_READ_WITHIN, &it->slice, NULL);
    if (rc)
        refuse(it, rc == -E_RANGE     ? KE_OFFSET_OUT_OF_RANGE
                   : rc == -E_CORRUPT ? KE_CORRUPT_MESSAGE
                                      : KE_KAFKA_STORAGE_ERROR);
    assert(rc <= 0);
    /* P6: nothing at or above the limit is given. */
    assert(it->slice.size_bytes == 0 || it->slice.next_offset <= limit);
}

static void read_one(struct fetch_item *it, struct shard *shard, int64_t budget, bool first)
{
    struct fetch *f = it->part->fetch;
    struct partition *p = partition_find(shard, &it->topic_id, it->in->partition);
    int16_t error = lookup_leader_error(p, it->in->current_leader_epoch);
    it->read_at_bytes = p ? partition_committed_bytes(p) : 0;
    it->coming_bytes = 0;
    if (error) {
        refuse(it, error);
        return;
    }
    int64_t offset = it->in->fetch_offset;
    it->out->error_code = KE_NONE;
    it->out->high_watermark = partition_high_watermark(p);
    it->out->last_stable_offset = partition_limit(p, PARTITION_COMMITTED);
    it->out->log_start_offset = partition_log_start(p);
    assert(it->out->last_stable_offset <= it->out->high_watermark); /* S33 */
    assert(it->out->log_start_offset <= it->out->high_watermark);
    assert(it->out->high_watermark <= partition_log_end(p));
    it->out->diverging_epoch = (struct kp_fetch_response_diverging_epoch){-1, -1};
    it->out->aborted_transactions_n = f->isolation == PARTITION_COMMITTED ? 0 : -1;
    if (diverges(it, partition_log(p)))
        return;
    if (offset < partition_log_start(p) || offset > partition_log_end(p)) {
        it->out->error_code = KE_OFFSET_OUT_OF_RANGE;
        it->part->urgent = true;
        return;
    }
    read_records(it, p, budget, first);
}

void fetch_part_read(struct fetch_part *part)
{
    assert(!part->parked);
    int64_t budget = part->fetch->max_bytes;
    bool first = true;
    part->urgent = false;
    for (struct fetch_item *it = part->first; it; it = it->next) {
        log_slice_drop(&it->slice);
        read_one(it, part->call.to, budget, first);
        if (it->slice.size_bytes > 0) {
            assert(first || (int64_t)it->slice.size_bytes <= budget); /* only the first may be larger */
            first = false;
            budget -= (int64_t)it->slice.size_bytes;
        }
    }
}

/* With several shards each has read as if it were alone: in the request's order, what no longer fits is left out. The
 * first that has records keeps them, however large. */
int64_t fetch_limit(struct fetch *f)
{
    assert(f->items || f->items_n == 0);
    int64_t total = 0;
    for (size_t i = 0; i < f->items_n; i++) {
        struct fetch_item *it = &f->items[i];
        int64_t n = (int64_t)it->slice.size_bytes;
        if (n > 0 && total > 0 && total + n > f->max_bytes)
            log_slice_drop(&it->slice);
        else
            total += n;
    }
    return total;
}

void fetch_drop_slices(struct fetch *f)
{
    for (size_t i = 0; i < f->items_n; i++)
        log_slice_drop(&f->items[i].slice);
}
