/* base/core: the small things that everything stands on. */
#include "base/core/arena.h"
#include "base/core/buf.h"
#include "base/core/crc32c.h"
#include "base/core/err.h"
#include "base/core/list.h"
#include "base/core/uuid.h"
#include "base/core/varint.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <stdlib.h>

Test(core, varints_round_trip_at_their_edges)
{
    static const int64_t edges[] = {0, 1, -1, 63, 64, -64, -65, 8191, 8192, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        uint8_t b[UVARINT64_MAX_BYTES];
        size_t n = varint_put(b, edges[i]);
        cr_assert_eq(n, varint_size(edges[i]));
        int64_t back;
        cr_assert_eq(varint64_get(b, b + n, &back), n);
        cr_assert_eq(back, edges[i]);
        for (size_t cut = 0; cut < n; cut++)
            cr_assert_eq(varint64_get(b, b + cut, &back), 0, "a cut varint is refused");
    }
}

Test(core, a_fifth_byte_with_high_bits_is_refused)
{
    static const uint8_t over[] = {0xff, 0xff, 0xff, 0xff, 0x1f}, most[] = {0xff, 0xff, 0xff, 0xff, 0x0f};
    uint32_t v;
    cr_assert_eq(uvarint32_get(over, over + 5, &v), 0);
    cr_assert_eq(uvarint32_get(most, most + 5, &v), 5);
    cr_assert_eq(v, UINT32_MAX);
}

Test(core, crc32c_knows_the_check_value_and_chains)
{
    cr_assert_eq(crc32c("123456789", 9), 0xe3069283u); /* RFC 3720's check value */
    cr_assert_eq(crc32c_more(crc32c("1234", 4), "56789", 5), 0xe3069283u);
}

Test(core, an_arena_fails_for_good_at_its_limit)
{
    struct arena a;
    arena_init(&a, 1000);
    cr_assert_not_null(arena_alloc(&a, 900));
    cr_assert_null(arena_alloc(&a, 200));
    cr_assert(arena_failed(&a));
    cr_assert_null(arena_alloc(&a, 1), "overflow is sticky");
    cr_assert_null(arena_array(&a, SIZE_MAX / 2, 16));
    arena_reset(&a);
    cr_assert_not(arena_failed(&a));
    uint8_t *p = arena_alloc(&a, 64);
    for (int i = 0; i < 64; i++)
        cr_assert_eq(p[i], 0, "memory is zeroed after a reset");
    arena_fini(&a);
}

Test(core, a_buffer_stops_at_its_limit)
{
    struct buf b;
    buf_init(&b, 10);
    buf_put(&b, "0123456789", 10);
    cr_assert_not(b.failed);
    buf_put_u8(&b, 'x');
    cr_assert(b.failed);
    cr_assert_eq(b.n, 10);
    buf_fini(&b);
}

Test(core, uuids_print_as_kafka_prints_them)
{
    struct uuid one = uuid_small(1), back;
    char text[UUID_TEXT_SIZE];
    cr_assert_str_eq(uuid_text(&one, text), "AAAAAAAAAAAAAAAAAAAAAQ");
    cr_assert_eq(uuid_parse(slice_str(text), &back), 0);
    cr_assert(uuid_eq(&one, &back));
    cr_assert_eq(uuid_parse(SLICE_LIT("AAAAAAAAAAAAAAAAAAAAA"), &back), -E_INVALID);
    cr_assert_eq(uuid_parse(SLICE_LIT("AAAAAAAAAAAAAAAAAAAA!Q"), &back), -E_INVALID);
}

Test(core, an_error_gathers_context_on_the_way_up)
{
    struct err e = {0};
    cr_assert_eq(err_set(&e, -E_NOSPACE, "write of %d bytes", 7), -E_NOSPACE);
    cr_assert_eq(err_wrap(&e, "segment %s", "42.log"), -E_NOSPACE);
    cr_assert_str_eq(e.text, "segment 42.log: write of 7 bytes");
}

Test(core, room_for_nothing_is_not_a_failure)
{
    struct buf b;
    buf_init(&b, 0);
    cr_assert_not_null(buf_room(&b, 0));
    cr_assert(!b.failed);
    cr_assert_null(buf_room(&b, 1));
    cr_assert(b.failed);
    buf_fini(&b);
}
