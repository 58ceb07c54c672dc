/* A record batch: depth, then the batch. Length and CRC are corrected, or nothing would get past them. */
#include "proto/kafka/batch_print.h"
#include "proto/kafka/batch_validate.h"

#include "base/core/bytes.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#define ROOM ((size_t)8 << 20)

static const struct codec_limits limits = {.bytes_max = ROOM, .ratio_from_bytes = ROOM / 8, .ratio_max = 100};

/* What has passed all checks walks to its end. */
static void walk(struct slice batch, const struct batch_header *h)
{
    struct buf scratch;
    struct slice payload;
    struct record_walk w;
    struct record r;
    int rc, n = 0;
    buf_init(&scratch, ROOM + 1);
    if (batch_payload(h, batch, &limits, &scratch, &payload, NULL) == 0) {
        record_walk_init(&w, h, payload);
        while ((rc = record_next(&w, &r)) == 1)
            if (r.offset_delta != n++ || record_headers_check(&r))
                abort();
        if (rc || n != h->records_n)
            abort();
    }
    buf_fini(&scratch);
}

static void patch(uint8_t *batch, size_t n)
{
    struct batch_header h;
    struct batch_patch p = {
        .producer_id = 1, .producer_epoch = 2, .base_sequence = 3, .attributes_set = 0x10};
    batch_producer_set(batch, n, &p);
    batch_log_append_time_set(batch, n, 5);
    if (be32_get(batch + BATCH_CRC_AT) != batch_crc(slice_of(batch, n)))
        abort();
    (void)batch_read(slice_of(batch, n), &h, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 1)
        return 0;
    struct batch_rules rules = {.depth = (enum batch_depth)(data[0] % 3),
                                .size_max = 1 << 20,
                                .needs_keys = data[0] & 4,
                                .create_time = data[0] & 8,
                                .before_max_ms = INT64_MAX,
                                .after_max_ms = 3600000,
                                .now_ms = 1700000000000,
                                .produce_version = 9,
                                .internal = data[0] & 16};
    struct batch_verdict v;
    struct buf text;
    size_t size = n - 1;
    uint8_t *batch = malloc(size + 1);
    memcpy(batch, data + 1, size);
    if (size >= BATCH_HEADER_BYTES && !(data[0] & 32)) {
        be32_put(batch + BATCH_LENGTH_AT, (uint32_t)(size - BATCH_PREFIX_BYTES));
        batch[BATCH_MAGIC_AT] = 2;
        be32_put(batch + BATCH_CRC_AT, batch_crc(slice_of(batch, size)));
    }
    int rc = batch_validate(slice_of(batch, size), &rules, &v);
    if ((rc == 0) != (v.kafka_error == 0))
        abort();
    if (rc == 0 && rules.depth == BATCH_CHECK_ALL)
        walk(slice_of(batch, size), &v.header);
    buf_init(&text, 1 << 20);
    batch_print(slice_of(batch, size), 0, &text);
    buf_fini(&text);
    if (rc == 0)
        patch(batch, size);
    free(batch);
    return 0;
}
