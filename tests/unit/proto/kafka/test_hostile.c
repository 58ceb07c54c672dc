/* Frames of strangers: refused before memory is spent (RELIABILITY §4, rows 6 to 10). */
#include "proto/kafka/wire.h"

#include "base/core/bytes.h"

#include <criterion/criterion.h>
#include <stdlib.h>

struct rig {
    struct arena arena;
    struct buf b;
};

static void rig_init(struct rig *g)
{
    arena_init(&g->arena, (size_t)64 << 20);
    buf_init(&g->b, (size_t)64 << 20);
}

static void rig_fini(struct rig *g)
{
    arena_fini(&g->arena);
    buf_fini(&g->b);
}

#define DECODE(g, name, version, body)                                                                       \
    kp_decode(&kp_##name##_message, version, buf_slice(&(g)->b), &(g)->arena, body, NULL, NULL)

Test(hostile, a_count_above_the_bytes_left_takes_no_memory)
{
    static const uint32_t counts[] = {2, 9, 1000, 65535, 100000000, INT32_MAX};
    struct rig g;
    rig_init(&g);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct kp_metadata_request m;
        buf_clear(&g.b);
        buf_put_be32(&g.b, counts[i]); /* topics, v1: two bytes each at least */
        buf_put_be16(&g.b, 0);
        cr_assert_eq(DECODE(&g, metadata_request, 1, &m), -E_TRUNCATED);
        cr_assert(g.arena.used_bytes < 1024, "%zu bytes for a count of %u", g.arena.used_bytes, counts[i]);
    }
    rig_fini(&g);
}

Test(hostile, the_smallest_element_counts_not_one_byte)
{
    struct rig g;
    struct kp_produce_request p;
    rig_init(&g);
    /* 10,000 topics of one byte each; a topic of v3 takes at least 2 + 4. */
    buf_put_be16(&g.b, UINT16_MAX);
    buf_put_be16(&g.b, 1);
    buf_put_be32(&g.b, 0);
    buf_put_be32(&g.b, 10000);
    memset(buf_room(&g.b, 10000), 0, 10000);
    buf_added(&g.b, 10000);
    cr_assert_eq(DECODE(&g, produce_request, 3, &p), -E_TRUNCATED);
    cr_assert_eq(g.arena.used_bytes, 0);
    rig_fini(&g);
}

Test(hostile, many_small_elements_are_charged_to_the_arena)
{
    struct rig g;
    struct kp_metadata_request m;
    rig_init(&g);
    static const uint32_t count = 1000000;
    arena_fini(&g.arena);
    arena_init(&g.arena, 1 << 20);
    buf_put_uvarint(&g.b, count + 1);
    memset(buf_room(&g.b, 2 * count + 3), 1, 2 * count + 3);
    buf_added(&g.b, 2 * count + 3);
    cr_assert_eq(DECODE(&g, metadata_request, 9, &m), -E_LIMIT);
    cr_assert(g.arena.used_bytes <= 1 << 20);
    rig_fini(&g);
}

Test(hostile, nested_counts_of_65535_end_at_the_first_cut)
{
    struct rig g;
    struct kp_produce_request p;
    rig_init(&g);
    buf_put_be16(&g.b, UINT16_MAX);
    buf_put_be16(&g.b, 1);
    buf_put_be32(&g.b, 0);
    for (int level = 0; level < 2; level++) {
        buf_put_be32(&g.b, 65535);
        buf_put_be16(&g.b, 0);
    }
    buf_put_be32(&g.b, 65535);
    cr_assert_eq(DECODE(&g, produce_request, 3, &p), -E_TRUNCATED);
    cr_assert_eq(g.arena.used_bytes, 0);
    rig_fini(&g);
}

Test(hostile, null_where_none_may_be_is_refused)
{
    struct rig g;
    struct kp_find_coordinator_request f;
    struct kp_delete_topics_request d;
    rig_init(&g);
    buf_put_be16(&g.b, UINT16_MAX); /* key */
    buf_put_u8(&g.b, 0);
    cr_assert_eq(DECODE(&g, find_coordinator_request, 1, &f), -E_INVALID);
    buf_clear(&g.b);
    buf_put_be32(&g.b, UINT32_MAX); /* names */
    buf_put_be32(&g.b, 0);
    cr_assert_eq(DECODE(&g, delete_topics_request, 1, &d), -E_INVALID);
    buf_clear(&g.b);
    buf_put_uvarint(&g.b, 0);
    buf_put_be32(&g.b, 0);
    buf_put_u8(&g.b, 0);
    cr_assert_eq(DECODE(&g, delete_topics_request, 4, &d), -E_INVALID);
    rig_fini(&g);
}

Test(hostile, lengths_below_minus_one_are_refused)
{
    struct rig g;
    struct kp_find_coordinator_request f;
    struct kp_metadata_request m;
    rig_init(&g);
    buf_put_be16(&g.b, 0x8000);
    buf_put_u8(&g.b, 0);
    cr_assert_eq(DECODE(&g, find_coordinator_request, 1, &f), -E_INVALID);
    buf_clear(&g.b);
    buf_put_be32(&g.b, 0x80000000u);
    cr_assert_eq(DECODE(&g, metadata_request, 1, &m), -E_INVALID);
    rig_fini(&g);
}

Test(hostile, overlong_varints_are_refused)
{
    static const uint8_t fifth[] = {0xff, 0xff, 0xff, 0xff, 0x1f},
                         six[] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x01}, endless[] = {0x80, 0x80};
    struct rig g;
    struct kp_metadata_request m;
    rig_init(&g);
    buf_put(&g.b, fifth, sizeof fifth);
    cr_assert_eq(DECODE(&g, metadata_request, 9, &m), -E_INVALID);
    buf_clear(&g.b);
    buf_put(&g.b, six, sizeof six);
    cr_assert_eq(DECODE(&g, metadata_request, 9, &m), -E_INVALID);
    buf_clear(&g.b);
    buf_put(&g.b, endless, sizeof endless);
    cr_assert_eq(DECODE(&g, metadata_request, 9, &m), -E_TRUNCATED);
    rig_fini(&g);
}

Test(hostile, a_compact_string_above_32767_is_refused)
{
    struct rig g;
    struct kp_find_coordinator_request f;
    rig_init(&g);
    buf_put_uvarint(&g.b, 32768 + 1);
    memset(buf_room(&g.b, 40000), 'x', 40000);
    buf_added(&g.b, 40000);
    cr_assert_eq(DECODE(&g, find_coordinator_request, 3, &f), -E_INVALID);
    rig_fini(&g);
}

/* Heartbeat v4: group, generation, member, instance, then the tagged section. */
static int with_tags(struct rig *g, const uint8_t *tags, size_t n)
{
    struct kp_heartbeat_request h;
    buf_clear(&g->b);
    buf_put(&g->b, "\x02g\0\0\0\1\x02m\0", 9);
    buf_put(&g->b, tags, n);
    return DECODE(g, heartbeat_request, 4, &h);
}

#define TAGS(g, ...) with_tags(g, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

Test(hostile, tagged_sections)
{
    struct rig g;
    rig_init(&g);
    cr_assert_eq(TAGS(&g, 0), 0);
    cr_assert_eq(TAGS(&g, 1, 5, 2, 'a', 'b'), 0, "an unknown tag is skipped");
    cr_assert_eq(TAGS(&g, 2, 5, 0, 0x80, 0x01, 1, 'x'), 0, "two, rising");
    cr_assert_eq(TAGS(&g, 2, 5, 0, 4, 0), -E_INVALID, "unsorted");
    cr_assert_eq(TAGS(&g, 2, 5, 0, 5, 0), -E_INVALID, "twice");
    cr_assert_eq(TAGS(&g, 1, 5, 3, 'a', 'b'), -E_TRUNCATED, "its size goes past the end");
    cr_assert_eq(TAGS(&g, 0xff, 0xff, 0xff, 0xff, 0x07), -E_TRUNCATED, "2^31-1 tags");
    cr_assert_eq(TAGS(&g, 0xff, 0xff, 0xff, 0xff, 0x0f), -E_TRUNCATED, "2^32-1 tags");
    cr_assert_eq(TAGS(&g, 1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f), -E_TRUNCATED, "a size of 2^32-1");
    rig_fini(&g);
}

Test(hostile, a_million_unknown_tags_are_refused_early)
{
    struct rig g;
    struct buf tags;
    rig_init(&g);
    buf_init(&tags, (size_t)8 << 20);
    buf_put_uvarint(&tags, 1000000);
    for (uint32_t i = 0; i < 1000000; i++) {
        buf_put_uvarint(&tags, 100 + i);
        buf_put_uvarint(&tags, 0);
    }
    cr_assert_eq(with_tags(&g, tags.p, tags.n), -E_INVALID);
    buf_fini(&tags);
    rig_fini(&g);
}

Test(hostile, a_known_tag_must_fill_its_size)
{
    struct rig g;
    struct kp_api_versions_response r;
    rig_init(&g);
    /* v3: error, no keys, throttle; tag 1 is an int64 */
    buf_put(&g.b, "\0\0\1\0\0\0\0", 7);
    buf_put(&g.b, "\1\1\x08\0\0\0\0\0\0\0\x2a", 11);
    cr_assert_eq(DECODE(&g, api_versions_response, 3, &r), 0);
    cr_assert_eq(r.finalized_features_epoch, 42);
    buf_clear(&g.b);
    buf_put(&g.b, "\0\0\1\0\0\0\0", 7);
    buf_put(&g.b, "\1\1\x09\0\0\0\0\0\0\0\x2a\0", 12);
    cr_assert_eq(DECODE(&g, api_versions_response, 3, &r), -E_INVALID, "a byte too many in the tag");
    buf_clear(&g.b);
    buf_put(&g.b, "\0\0\1\0\0\0\0", 7);
    buf_put(&g.b, "\1\1\x07\0\0\0\0\0\0\0\x2a", 11);
    cr_assert_eq(DECODE(&g, api_versions_response, 3, &r), -E_TRUNCATED, "a byte too few");
    rig_fini(&g);
}

/* ---- headers ---- */

static int header(const void *p, size_t n, struct kp_request_header *h, size_t *used)
{
    uint8_t *exact = malloc(n ? n : 1);
    memcpy(exact, p, n);
    int rc = kp_request_header_decode(slice_of(exact, n), h, used, NULL);
    if (!slice_is_null(h->client_id))
        h->client_id.p = (const uint8_t *)p + (h->client_id.p - exact);
    free(exact);
    return rc;
}

static size_t plain_header(uint8_t *to, int16_t key, int16_t version, int16_t client_n)
{
    be16_put(to, (uint16_t)key);
    be16_put(to + 2, (uint16_t)version);
    be32_put(to + 4, 77);
    be16_put(to + 8, (uint16_t)client_n);
    return 10;
}

Test(hostile, request_headers)
{
    static uint8_t frame[40000];
    struct kp_request_header h;
    size_t used = 0;
    for (size_t n = 0; n < 8; n++)
        cr_assert_eq(header(frame, n, &h, &used), -E_TRUNCATED);
    plain_header(frame, 3, 1, -1);
    cr_assert_eq(header(frame, 9, &h, &used), -E_TRUNCATED);
    cr_assert_eq(header(frame, 10, &h, &used), 0);
    cr_assert(slice_is_null(h.client_id) && used == 10 && h.correlation_id == 77);
    plain_header(frame, 3, 1, -2);
    cr_assert_eq(header(frame, 10, &h, &used), -E_INVALID);
    plain_header(frame, 3, 1, 32767);
    cr_assert_eq(header(frame, 10 + 32766, &h, &used), -E_TRUNCATED);
    cr_assert_eq(header(frame, 10 + 32767, &h, &used), 0, "a long client id is somebody else's business");
    cr_assert_eq(h.client_id.n, 32767);
}

Test(hostile, unknown_keys_and_versions_are_named_with_their_correlation_id)
{
    static const int16_t bad[][2] = {{-1, 0}, {32767, 0}, {4, 0},  {3, -1},
                                     {3, 14}, {0, 2},     {18, 5}, {18, 32767}};
    uint8_t frame[16] = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kp_request_header h;
        size_t used;
        plain_header(frame, bad[i][0], bad[i][1], -1);
        cr_assert_eq(header(frame, 10, &h, &used), -E_VERSION);
        cr_assert_eq(h.api_key, bad[i][0]);
        cr_assert_eq(h.api_version, bad[i][1]);
        cr_assert_eq(h.correlation_id, 77);
    }
}

Test(hostile, flexible_headers_have_tags_and_apiversions_responses_none)
{
    struct kp_request_header h;
    size_t used;
    uint8_t frame[32] = {0};
    size_t n = plain_header(frame, 18, 3, -1);
    cr_assert_eq(header(frame, n, &h, &used), -E_INVALID, "the tagged section is missing");
    cr_assert_eq(header(frame, n + 1, &h, &used), 0);
    cr_assert_eq(used, n + 1);
    memcpy(frame + n, "\2\5\1x\5\0", 6);
    cr_assert_eq(header(frame, n + 6, &h, &used), -E_INVALID, "twice the same tag");
    memcpy(frame + n, "\2\5\1x\6\0", 6);
    cr_assert_eq(header(frame, n + 6, &h, &used), 0);
    cr_assert_eq(used, n + 6);

    int32_t id;
    const struct kp_api *versions = kp_api_find(kp_key_api_versions), *fetch = kp_api_find(kp_key_fetch);
    cr_assert_eq(kp_response_header_decode(versions, 3, slice_of("\0\0\0\5", 4), &id, &used), 0);
    cr_assert_eq(used, 4);
    cr_assert_eq(id, 5);
    cr_assert_eq(kp_response_header_decode(fetch, 12, slice_of("\0\0\0\5\0", 5), &id, &used), 0);
    cr_assert_eq(used, 5);
    cr_assert_eq(kp_response_header_decode(fetch, 12, slice_of("\0\0\0\5", 4), &id, &used), -E_INVALID);
    cr_assert_eq(kp_response_header_decode(fetch, 4, slice_of("\0\0\0", 3), &id, &used), -E_TRUNCATED);
}

Test(hostile, frames_carry_their_size_and_header)
{
    struct rig g;
    rig_init(&g);
    size_t apis_n;
    const struct kp_api *apis = kp_api_table(&apis_n);
    for (size_t i = 0; i < apis_n; i++) {
        cr_assert_eq(kp_api_find(apis[i].key), &apis[i]);
        cr_assert(i == 0 || apis[i].key > apis[i - 1].key);
        for (int16_t v = apis[i].request.version_min; v <= apis[i].request.version_max; v++) {
            void *body = calloc(1, apis[i].response.body->size_bytes);
            struct kp_pieces pieces;
            int32_t id;
            size_t used;
            kp_init(&apis[i].response, body);
            buf_clear(&g.b);
            cr_assert_eq(kp_response_frame(&apis[i], v, 4711, body, &g.b), 0);
            cr_assert_eq(be32_get(g.b.p), g.b.n - 4);
            cr_assert_eq(kp_response_header_decode(&apis[i], v, slice_of(g.b.p + 4, g.b.n - 4), &id, &used),
                         0);
            cr_assert_eq(id, 4711);
            cr_assert_eq(kp_response_pieces(&apis[i], v, 4711, body, &g.arena, &pieces), 0);
            cr_assert_eq(pieces.n, 1);
            cr_assert(slice_eq(pieces.v[0].bytes, buf_slice(&g.b)), "%s v%d", apis[i].name, v);
            free(body);
        }
    }
    rig_fini(&g);
}
