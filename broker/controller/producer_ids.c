/* AllocateProducerIds (KIP-730): blocks of ids, each given to one broker once. */
#include "broker/controller/decide.h"

int16_t decide_allocate_producer_ids(const struct decide *d, const struct kp_allocate_producer_ids_request *q,
                                     struct kp_allocate_producer_ids_response *r)
{
    const struct image_broker *b = image_broker(d->img, q->broker_id);
    int64_t start = image_producer_id_next(d->img);
    if (!b || b->epoch != q->broker_epoch)
        return r->error_code = KE_STALE_BROKER_EPOCH;
    if (start > INT64_MAX - PRODUCER_ID_BLOCK)
        return r->error_code = KE_UNKNOWN_SERVER_ERROR;
    struct kp_producer_ids_record *p = decide_record(d, kp_type_producer_ids_record);
    if (!p)
        return r->error_code = KE_UNKNOWN_SERVER_ERROR;
    *p = (struct kp_producer_ids_record){q->broker_id, q->broker_epoch, start + PRODUCER_ID_BLOCK};
    r->producer_id_start = start;
    r->producer_id_len = PRODUCER_ID_BLOCK;
    return KE_NONE;
}
