/* What the control plane reads from disk. First byte: 0 quorum-state, 1 meta.properties, 2 a metadata record applied to
 * an image, 3 a batch of the metadata log (its CRC is corrected, or nothing would get past it). */
#include "base/core/bytes.h"
#include "broker/lifecycle/identity.h"
#include "broker/metadata/image_edit.h"
#include "broker/metadata/replay.h"
#include "broker/quorum/quorum_state.h"
#include "proto/kafka/batch.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void quorum_state(struct slice in)
{
    struct quorum_state s, again;
    struct err err = {0};
    int rc = quorum_state_parse(in, &s, &err);
    if ((rc != 0) != (err.text[0] != 0))
        abort();
    for (int16_t v = 0; rc == 0 && v < 2; v++) {
        struct buf text;
        buf_init(&text, QUORUM_STATE_BYTES_MAX);
        quorum_state_print(&s, v, &s.voted_id, 1, &text);
        if (quorum_state_parse(buf_slice(&text), &again, NULL) || again.epoch != s.epoch ||
            again.leader_id != s.leader_id || again.voted_id != s.voted_id)
            abort();
        buf_fini(&text);
    }
}

static void meta_properties(struct slice in)
{
    struct meta_properties m;
    struct err err = {0};
    int rc = meta_properties_parse(in, "meta.properties", &m, &err);
    if ((rc != 0) != (err.text[0] != 0) || (rc == 0 && (m.node_id < 0 || !m.cluster_id[0])))
        abort();
}

static int print(void *arg, const struct metadata_record *r)
{
    return metadata_record_encode(r, arg);
}

static int apply(void *arg, const struct metadata_record *r)
{
    return image_edit_apply(arg, r, NULL);
}

/* An image written and applied is the same image. */
static void check_image(const struct image *img)
{
    struct image_edit e;
    struct buf first, second;
    struct image *none = image_empty(SLICE_LIT("c"));
    buf_init(&first, FUZZ_MEMORY_MAX);
    buf_init(&second, FUZZ_MEMORY_MAX);
    if (image_edit_begin(&e, none) || image_write(img, apply, &e, NULL))
        abort();
    struct image *again = image_edit_finish(&e, 1, 1, 0);
    if (image_write(img, print, &first, NULL) || image_write(again, print, &second, NULL) ||
        !slice_eq(buf_slice(&first), buf_slice(&second)))
        abort();
    image_unref(again);
    image_unref(none);
    buf_fini(&first);
    buf_fini(&second);
}

/* Records, each behind two bytes of its length. */
static void records(struct slice in)
{
    struct image *none = image_empty(SLICE_LIT("c"));
    struct image_edit e;
    struct arena arena;
    int rc = image_edit_begin(&e, none);
    arena_init(&arena, FUZZ_MEMORY_MAX);
    while (rc == 0 && in.n >= 2) {
        size_t n = be16_get(in.p);
        struct metadata_record r;
        in = slice_of(in.p + 2, in.n - 2);
        if (n > in.n)
            break;
        rc = metadata_record_decode(slice_of(in.p, n), &arena, &r, NULL);
        if (rc == 0)
            rc = image_edit_apply(&e, &r, NULL);
        in = slice_of(in.p + n, in.n - n);
    }
    if (rc == 0 && !image_edit_in_transaction(&e)) {
        struct image *img = image_edit_finish(&e, 1, 1, 0);
        check_image(img);
        image_unref(img);
    } else {
        image_edit_drop(&e);
    }
    image_unref(none);
    arena_fini(&arena);
}

static void batch(struct slice in)
{
    struct batch_header h;
    struct replay r;
    uint8_t *bytes = malloc(in.n + 1);
    memcpy(bytes, in.p, in.n);
    if (in.n >= BATCH_HEADER_BYTES) {
        be64_put(bytes, 0);
        be32_put(bytes + BATCH_LENGTH_AT, (uint32_t)(in.n - BATCH_PREFIX_BYTES));
        be32_put(bytes + BATCH_CRC_AT, batch_crc(slice_of(bytes, in.n)));
    }
    replay_init(&r, image_empty(SLICE_LIT("c")), 0, NULL);
    if (batch_read(slice_of(bytes, in.n), &h, NULL) == 0 && h.leader_epoch >= 0 && h.last_offset_delta >= 0 &&
        replay_batch(&r, slice_of(bytes, in.n), NULL) == 0)
        check_image(r.img);
    replay_fini(&r);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    struct slice in = slice_of(data + 1, n - 1);
    switch (data[0] % 4) {
    case 0: quorum_state(in); break;
    case 1: meta_properties(in); break;
    case 2: records(in); break;
    default: batch(in);
    }
    return 0;
}
