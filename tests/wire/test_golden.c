/* One frame of every API, version and direction and of every persisted record, as Kafka wrote it once. */
#include "tests/support/kp_random.h"
#include "tests/wire/batch_file.h"
#include "tests/wire/frame_file.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define GOLDEN "tests/data/kafka/frames.bin"

Test(golden, frames_of_kafka_come_back_byte_for_byte)
{
    struct slice file = file_read(GOLDEN), rest = file;
    struct frame_entry e;
    int rc, seen = 0;
    cr_assert(!slice_is_null(file), "no " GOLDEN);
    while ((rc = frame_entry_next(&rest, &e)) == 1) {
        char why[600];
        if (!e.message) /* an API that we have no rows for */
            continue;
        cr_assert_eq(frame_entry_check(&e, why, sizeof why), 0, "%s", why);
        seen++;
    }
    cr_assert_eq(rc, 0);
    cr_assert(seen > 300, "only %d frames", seen);
    free((void *)(uintptr_t)file.p);
}

Test(golden, every_version_of_ours_has_a_frame)
{
    struct slice file = file_read(GOLDEN);
    const struct kp_named *all;
    size_t n = kp_every_message(&all);
    cr_assert(!slice_is_null(file));
    for (size_t i = 0; i < n; i++)
        for (int16_t v = all[i].message->version_min; v <= all[i].message->version_max; v++) {
            struct slice rest = file;
            struct frame_entry e;
            bool found = false;
            while (!found && frame_entry_next(&rest, &e) == 1)
                found = e.message && e.message->body == all[i].message->body && e.version == v;
            cr_assert(found, "%s v%d has no golden frame", all[i].name, v);
        }
    free((void *)(uintptr_t)file.p);
}

/* RELIABILITY §4 row 3 with Kafka's own bytes. */
Test(golden, frames_of_kafka_cut_at_every_byte_are_refused)
{
    struct slice file = file_read(GOLDEN), rest = file;
    struct frame_entry e;
    struct arena arena;
    arena_init(&arena, (size_t)16 << 20);
    while (frame_entry_next(&rest, &e) == 1) {
        if (!e.message)
            continue;
        void *body = malloc(e.message->body->size_bytes);
        for (size_t n = 0; n <= e.bytes.n; n++) {
            size_t size = n < e.bytes.n ? n : n + 1; /* the last round: a byte too many */
            uint8_t *exact = calloc(1, size + 1);
            memcpy(exact, e.bytes.p, n);
            int rc = kp_decode(e.message, e.version, slice_of(exact, size), &arena, body, NULL, NULL);
            cr_assert_eq(rc, n < e.bytes.n ? -E_TRUNCATED : -E_INVALID, "%s v%d cut at %zu: %d", e.name,
                         e.version, n, rc);
            arena_reset(&arena);
            free(exact);
        }
        free(body);
    }
    arena_fini(&arena);
    free((void *)(uintptr_t)file.p);
}

Test(golden, batches_of_kafka_have_the_records_that_kafka_lists)
{
    struct slice file = file_read("tests/data/kafka/batches.bin"), rest = file;
    struct batch_entry e;
    int rc, seen = 0;
    cr_assert(!slice_is_null(file));
    while ((rc = batch_entry_next(&rest, &e)) == 1) {
        char why[600];
        cr_assert_eq(batch_entry_check(&e, why, sizeof why), 0, "batch %d: %s", seen, why);
        seen++;
    }
    cr_assert_eq(rc, 0);
    cr_assert(seen > 80, "only %d batches", seen);
    free((void *)(uintptr_t)file.p);
}
