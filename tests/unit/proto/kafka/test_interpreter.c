/* Every message of the rows through the interpreter: there and back, cut, lengthened, starved. */
#include "proto/kafka/wire.h"

#include "tests/support/kp_random.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define ROUNDS      6
#define ARENA_LIMIT ((size_t)4 << 20)
#define FRAME_LIMIT ((size_t)4 << 20)

struct rig {
    struct arena arena, back_arena;
    struct buf bytes, again;
    struct kp_random random;
    void *body, *back;
};

static void rig_init(struct rig *g, uint64_t seed)
{
    memset(g, 0, sizeof *g);
    arena_init(&g->arena, ARENA_LIMIT);
    arena_init(&g->back_arena, ARENA_LIMIT);
    buf_init(&g->bytes, FRAME_LIMIT);
    buf_init(&g->again, FRAME_LIMIT);
    g->random = (struct kp_random){.state = seed, .arena = &g->arena, .list_max = 3, .string_max = 12};
}

static void rig_fini(struct rig *g)
{
    free(g->body);
    free(g->back);
    arena_fini(&g->arena);
    arena_fini(&g->back_arena);
    buf_fini(&g->bytes);
    buf_fini(&g->again);
}

/* A fresh random message, encoded into g->bytes. */
static void make(struct rig *g, const struct kp_named *m, int16_t version)
{
    arena_reset(&g->arena);
    arena_reset(&g->back_arena);
    buf_clear(&g->bytes);
    buf_clear(&g->again);
    g->body = realloc(g->body, m->message->body->size_bytes);
    g->back = realloc(g->back, m->message->body->size_bytes);
    kp_random_fill(&g->random, m->message, version, g->body);
    int rc = kp_encode(m->message, version, g->body, &g->bytes);
    cr_assert_eq(rc, 0, "%s v%d: encode gives %d", m->name, version, rc);
    cr_assert_eq(kp_size(m->message, version, g->body), (int64_t)g->bytes.n);
}

static int decode_copy(struct rig *g, const struct kp_named *m, int16_t version, size_t n, struct err *err)
{
    uint8_t *exact = malloc(n ? n : 1); /* so that ASan sees a step too far */
    memcpy(exact, g->bytes.p ? g->bytes.p : (uint8_t *)"", n);
    arena_reset(&g->back_arena);
    int rc = kp_decode(m->message, version, slice_of(exact, n), &g->back_arena, g->back, NULL, err);
    free(exact);
    return rc;
}

typedef void each_fn(struct rig *g, const struct kp_named *m, int16_t version);

static void each_message(each_fn *f, uint64_t seed, int rounds)
{
    const struct kp_named *all;
    size_t n = kp_every_message(&all);
    struct rig g;
    rig_init(&g, seed);
    for (size_t i = 0; i < n; i++)
        for (int16_t v = all[i].message->version_min; v <= all[i].message->version_max; v++)
            for (int k = 0; k < rounds; k++) {
                make(&g, &all[i], v);
                f(&g, &all[i], v);
            }
    rig_fini(&g);
}

static void round_trip(struct rig *g, const struct kp_named *m, int16_t v)
{
    struct err err = {0};
    int rc = kp_decode(m->message, v, buf_slice(&g->bytes), &g->back_arena, g->back, NULL, &err);
    cr_assert_eq(rc, 0, "%s v%d: %s", m->name, v, err.text);
    cr_assert_eq(kp_encode(m->message, v, g->back, &g->again), 0);
    cr_assert(slice_eq(buf_slice(&g->bytes), buf_slice(&g->again)), "%s v%d changed on its way", m->name, v);
}

Test(interpreter, every_message_comes_back_byte_for_byte)
{
    each_message(round_trip, 1, ROUNDS);
}

static void as_pieces(struct rig *g, const struct kp_named *m, int16_t v)
{
    struct kp_pieces pieces;
    static const size_t reserve = 9;
    cr_assert_eq(kp_encode_pieces(m->message, v, g->body, reserve, &g->arena, &pieces), 0);
    cr_assert_eq(pieces.size_bytes, g->bytes.n + reserve);
    for (size_t i = 0; i < pieces.n; i++) {
        cr_assert(pieces.v[i].bytes.n > 0 || pieces.v[i].segment.file);
        buf_put(&g->again, pieces.v[i].bytes.p, pieces.v[i].bytes.n);
    }
    cr_assert_eq(g->again.n, g->bytes.n + reserve);
    cr_assert(slice_eq(slice_of(g->again.p + reserve, g->bytes.n), buf_slice(&g->bytes)), "%s v%d", m->name,
              v);
}

Test(interpreter, pieces_are_the_same_bytes)
{
    each_message(as_pieces, 2, ROUNDS);
}

static void cut(struct rig *g, const struct kp_named *m, int16_t v)
{
    for (size_t n = 0; n < g->bytes.n; n++) {
        struct err err = {0};
        int rc = decode_copy(g, m, v, n, &err);
        cr_assert_eq(rc, -E_TRUNCATED, "%s v%d cut at %zu of %zu gives %d (%s)", m->name, v, n, g->bytes.n,
                     rc, err.text);
        cr_assert_neq(err.text[0], 0);
    }
    struct err err = {0};
    buf_put_u8(&g->bytes, 0);
    cr_assert_eq(decode_copy(g, m, v, g->bytes.n, &err), -E_INVALID, "%s v%d takes a byte too many", m->name,
                 v);
    size_t used = 0;
    arena_reset(&g->back_arena);
    cr_assert_eq(kp_decode(m->message, v, buf_slice(&g->bytes), &g->back_arena, g->back, &used, &err), 0);
    cr_assert_eq(used, g->bytes.n - 1);
}

Test(interpreter, every_message_cut_at_every_byte_is_refused)
{
    each_message(cut, 3, 1);
}

static void flip(struct rig *g, const struct kp_named *m, int16_t v)
{
    for (int k = 0; k < 40 && g->bytes.n; k++) {
        size_t at = (size_t)kp_random_below(&g->random, g->bytes.n);
        uint8_t old = g->bytes.p[at];
        g->bytes.p[at] = (uint8_t)kp_random_next(&g->random);
        if (decode_copy(g, m, v, g->bytes.n, NULL) == 0 && k % 4 == 0) {
            /* Whatever decodes also encodes and prints (slices still point to the freed copy: decode again). */
            arena_reset(&g->back_arena);
            buf_clear(&g->again);
            cr_assert_eq(kp_decode(m->message, v, buf_slice(&g->bytes), &g->back_arena, g->back, NULL, NULL),
                         0);
            int rc = kp_encode(m->message, v, g->back, &g->again);
            cr_assert_eq(rc, 0, "%s v%d decodes but does not encode: %d", m->name, v, rc);
            kp_print(m->message, v, g->back, &g->again);
        }
        g->bytes.p[at] = old;
    }
}

Test(interpreter, changed_bytes_are_refused_or_decode_to_something_sound)
{
    each_message(flip, 4, 2);
}

static void starve(struct rig *g, const struct kp_named *m, int16_t v)
{
    struct err err = {0};
    cr_assert_eq(decode_copy(g, m, v, g->bytes.n, &err), 0);
    size_t needs = g->back_arena.used_bytes;
    for (size_t limit = 0; limit < needs; limit += 1 + needs / 7) {
        arena_fini(&g->back_arena);
        arena_init(&g->back_arena, limit);
        cr_assert_eq(decode_copy(g, m, v, g->bytes.n, &err), -E_LIMIT, "%s v%d within %zu bytes", m->name, v,
                     limit);
    }
    arena_fini(&g->back_arena);
    arena_init(&g->back_arena, ARENA_LIMIT);
    if (g->bytes.n == 0)
        return;
    buf_fini(&g->again);
    buf_init(&g->again, g->bytes.n - 1);
    cr_assert_eq(kp_encode(m->message, v, g->body, &g->again), -E_LIMIT);
    buf_fini(&g->again);
    buf_init(&g->again, FRAME_LIMIT);
}

Test(interpreter, want_of_memory_is_an_error_not_a_crash)
{
    each_message(starve, 5, 1);
}

static void no_such_version(struct rig *g, const struct kp_named *m, int16_t v)
{
    static const int16_t far[] = {-1, INT16_MIN, INT16_MAX};
    (void)v;
    for (size_t i = 0; i < 5; i++) {
        int16_t bad =
            i < 3 ? far[i] : (int16_t)(i == 3 ? m->message->version_min - 1 : m->message->version_max + 1);
        cr_assert_eq(decode_copy(g, m, bad, g->bytes.n, NULL), -E_VERSION);
        cr_assert_eq(kp_encode(m->message, bad, g->body, &g->again), -E_VERSION);
        cr_assert_eq(kp_size(m->message, bad, g->body), -E_VERSION);
    }
}

Test(interpreter, a_version_without_rows_is_refused)
{
    each_message(no_such_version, 6, 1);
}

Test(interpreter, defaults_are_those_of_kafka)
{
    struct kp_fetch_request f;
    kp_init(&kp_fetch_request_message, &f);
    cr_assert_eq(f.replica_id, -1);
    cr_assert_eq(f.max_bytes, INT32_MAX);
    cr_assert_eq(f.session_epoch, -1);
    cr_assert_eq(f.replica_state.replica_epoch, -1);
    cr_assert(slice_is_null(f.cluster_id));
    cr_assert(!slice_is_null(f.rack_id) && f.rack_id.n == 0);
    struct kp_join_group_request j;
    kp_init(&kp_join_group_request_message, &j);
    cr_assert(slice_is_null(j.group_instance_id));
    struct kp_partition_change_record p;
    kp_init(&kp_partition_change_record_message, &p);
    cr_assert_eq(p.isr_n, -1);
    cr_assert_eq(p.leader, -2);
}

Test(interpreter, a_member_outside_the_version_gets_its_default)
{
    struct arena a;
    struct buf b;
    arena_init(&a, ARENA_LIMIT);
    buf_init(&b, FRAME_LIMIT);
    struct kp_join_group_request j, back;
    kp_init(&kp_join_group_request_message, &j);
    j.group_instance_id = SLICE_LIT("static-1");
    j.rebalance_timeout_ms = 7;
    cr_assert_eq(kp_encode(&kp_join_group_request_message, 0, &j, &b), 0);
    memset(&back, 0xee, sizeof back);
    cr_assert_eq(kp_decode(&kp_join_group_request_message, 0, buf_slice(&b), &a, &back, NULL, NULL), 0);
    cr_assert(slice_is_null(back.group_instance_id));
    cr_assert_eq(back.rebalance_timeout_ms, -1);
    buf_fini(&b);
    arena_fini(&a);
}

Test(interpreter, a_null_string_goes_out_as_empty_where_null_may_not_be)
{
    struct arena a;
    struct buf b;
    arena_init(&a, ARENA_LIMIT);
    buf_init(&b, FRAME_LIMIT);
    struct kp_find_coordinator_request f, back;
    kp_init(&kp_find_coordinator_request_message, &f);
    f.key = SLICE_NULL;
    for (int16_t v = 0; v <= 3; v++) {
        buf_clear(&b);
        cr_assert_eq(kp_encode(&kp_find_coordinator_request_message, v, &f, &b), 0);
        cr_assert_eq(kp_decode(&kp_find_coordinator_request_message, v, buf_slice(&b), &a, &back, NULL, NULL),
                     0);
        cr_assert(!slice_is_null(back.key) && back.key.n == 0);
    }
    f.coordinator_keys_n = -1; /* but a null list does not */
    cr_assert_eq(kp_encode(&kp_find_coordinator_request_message, 4, &f, &b), -E_INVALID);
    buf_fini(&b);
    arena_fini(&a);
}

Test(interpreter, strings_longer_than_kafka_reads_are_not_written)
{
    struct buf b;
    buf_init(&b, FRAME_LIMIT);
    static char longer[INT16_MAX + 2];
    memset(longer, 'x', sizeof longer);
    struct kp_find_coordinator_request f;
    kp_init(&kp_find_coordinator_request_message, &f);
    for (int16_t v = 0; v <= 3; v++) {
        f.key = slice_of(longer, INT16_MAX);
        cr_assert_eq(kp_encode(&kp_find_coordinator_request_message, v, &f, &b), 0);
        f.key.n++;
        cr_assert_eq(kp_encode(&kp_find_coordinator_request_message, v, &f, &b), -E_INVALID);
    }
    buf_fini(&b);
}

Test(interpreter, segments_go_out_as_pieces_in_their_place)
{
    struct arena a;
    struct buf b;
    arena_init(&a, ARENA_LIMIT);
    buf_init(&b, FRAME_LIMIT);
    int dummy;
    struct disk_file *file = (struct disk_file *)(void *)&dummy;
    struct kp_segment segments[2] = {{file, 4096, 1000}, {file, 0, 500}};
    struct kp_fetch_response_partitions p[2] = {
        {.partition_index = 1, .records = {.segments = segments, .segments_n = 2}},
        {.partition_index = 2, .records = {.bytes = SLICE_LIT("abc")}}};
    struct kp_fetch_response_responses t = {.topic = SLICE_LIT("t"), .partitions = p, .partitions_n = 2};
    struct kp_fetch_response r;
    kp_init(&kp_fetch_response_message, &r);
    r.responses = &t;
    r.responses_n = 1;
    for (int16_t v = 4; v <= 18; v++) {
        struct kp_pieces pieces;
        cr_assert_eq(kp_encode(&kp_fetch_response_message, v, &r, &b), -E_INVALID,
                     "segments cannot be copied");
        cr_assert_eq(kp_encode_pieces(&kp_fetch_response_message, v, &r, 0, &a, &pieces), 0);
        cr_assert_eq((int64_t)pieces.size_bytes, kp_size(&kp_fetch_response_message, v, &r));
        size_t sum = 0, found = 0;
        for (size_t i = 0; i < pieces.n; i++) {
            sum += pieces.v[i].segment.file ? pieces.v[i].segment.size_bytes : pieces.v[i].bytes.n;
            if (pieces.v[i].segment.file)
                cr_assert_eq(pieces.v[i].segment.position, segments[found++].position);
        }
        cr_assert_eq(found, 2);
        cr_assert_eq(sum, pieces.size_bytes);
    }
    buf_fini(&b);
    arena_fini(&a);
}
