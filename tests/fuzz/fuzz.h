/* What the targets share. A target aborts when a property does not hold; asserts of the product are on. */
#ifndef SUNDOG_TESTS_FUZZ_FUZZ_H
#define SUNDOG_TESTS_FUZZ_FUZZ_H

#include "proto/kafka/wire.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define FUZZ_MEMORY_MAX ((size_t)64 << 20)

/* What decodes also encodes, and what has been encoded once comes back unchanged; it prints too. */
static inline void fuzz_message(const struct kp_message *m, int16_t version, struct slice in)
{
    struct arena arena;
    struct buf first, second, text;
    struct err err = {0};
    arena_init(&arena, FUZZ_MEMORY_MAX);
    buf_init(&first, FUZZ_MEMORY_MAX);
    buf_init(&second, FUZZ_MEMORY_MAX);
    buf_init(&text, (size_t)1 << 20);
    void *body = malloc(m->body->size_bytes);
    int rc = kp_decode(m, version, in, &arena, body, NULL, &err);
    if (rc && (err.code != rc || !err.text[0]))
        abort(); /* every refusal says why */
    if (rc == 0) {
        struct kp_pieces pieces;
        if (kp_encode(m, version, body, &first) || kp_size(m, version, body) != (int64_t)first.n)
            abort();
        kp_print(m, version, body, &text);
        if (kp_encode_pieces(m, version, body, 0, &arena, &pieces) || pieces.size_bytes != first.n)
            abort();
        if (kp_decode(m, version, buf_slice(&first), &arena, body, NULL, NULL) ||
            kp_encode(m, version, body, &second) || !slice_eq(buf_slice(&first), buf_slice(&second)))
            abort();
    }
    free(body);
    arena_fini(&arena);
    buf_fini(&first);
    buf_fini(&second);
    buf_fini(&text);
}

#endif
