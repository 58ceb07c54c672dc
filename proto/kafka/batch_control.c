/* Control records. Key: int16 version 0, int16 type. A transaction marker's value: int16 version, int32 coordinator
 * epoch; the others' values are messages whose first member is their version. */
#include "proto/kafka/batch.h"

#include "base/core/bytes.h"

#include <assert.h>

#define CONTROL_KEY_BYTES   4
#define CONTROL_VALUE_MAX   ((size_t)1 << 20)
#define END_TXN_VALUE_BYTES 6

int control_type_read(const struct record *r, enum control_type *out)
{
    if (slice_is_null(r->key) || r->key.n < CONTROL_KEY_BYTES || (int16_t)be16_get(r->key.p) < 0)
        return -E_CORRUPT;
    int16_t type = (int16_t)be16_get(r->key.p + 2);
    *out = type >= CONTROL_ABORT && type <= CONTROL_KRAFT_VOTERS ? (enum control_type)type : CONTROL_UNKNOWN;
    return 0;
}

static int add(struct batch_builder *b, int64_t timestamp, enum control_type type, struct slice value)
{
    assert(batch_is(&b->h, BATCH_CONTROL) && type != CONTROL_UNKNOWN);
    uint8_t key[CONTROL_KEY_BYTES];
    be16_put(key, 0);
    be16_put(key + 2, (uint16_t)type);
    struct record_new r = {.timestamp = timestamp, .key = slice_of(key, sizeof key), .value = value};
    return batch_add(b, &r);
}

int batch_add_control(struct batch_builder *b, int64_t timestamp, enum control_type type,
                      const struct kp_message *m, int16_t version, const void *body)
{
    struct buf value;
    buf_init(&value, CONTROL_VALUE_MAX);
    int rc = kp_encode(m, version, body, &value);
    if (!rc)
        rc = add(b, timestamp, type, buf_slice(&value));
    buf_fini(&value);
    return rc;
}

int batch_put_end_txn(struct buf *out, const struct batch_options *options, int64_t timestamp,
                      enum control_type commit_or_abort, int32_t coordinator_epoch)
{
    assert(commit_or_abort == CONTROL_COMMIT || commit_or_abort == CONTROL_ABORT);
    struct batch_options o = *options;
    struct batch_builder b;
    uint8_t value[END_TXN_VALUE_BYTES];
    be16_put(value, 0);
    be32_put(value + 2, (uint32_t)coordinator_epoch);
    o.attributes |= BATCH_TRANSACTIONAL | BATCH_CONTROL;
    o.codec = CODEC_NONE;
    o.base_sequence = BATCH_NO_SEQUENCE;
    batch_begin(&b, out, &o);
    int rc = add(&b, timestamp, commit_or_abort, slice_of(value, sizeof value));
    if (rc) {
        batch_drop(&b);
        return rc;
    }
    return batch_close(&b, NULL);
}

int control_end_txn_read(const struct record *r, int32_t *coordinator_epoch)
{
    if (slice_is_null(r->value) || r->value.n < END_TXN_VALUE_BYTES || (int16_t)be16_get(r->value.p) < 0)
        return -E_CORRUPT;
    *coordinator_epoch = (int32_t)be32_get(r->value.p + 2);
    return 0;
}
