#include "broker/group/group_record.h"
#include "broker/group/offsets.h"

#include <criterion/criterion.h>
#include <stdio.h>

static const struct slice orders = {(const uint8_t *)"orders", 6}, users = {(const uint8_t *)"users", 5};

static struct offset at(int64_t offset, const char *metadata)
{
    return (struct offset){.offset = offset,
                           .leader_epoch = 3,
                           .metadata = slice_str(metadata),
                           .committed_ms = 9,
                           .expires_ms = OFFSET_NO_EXPIRY};
}

static struct offset_change change(struct offsets *o, struct slice topic, int32_t p, const struct offset *to)
{
    struct offset_change c;
    cr_assert_eq(offsets_prepare(o, topic, p, to, &c), 0);
    return c;
}

Test(offsets, what_is_under_way_is_not_seen_until_it_is_settled)
{
    struct offsets o;
    offsets_init(&o);
    struct offset five = at(5, "five");
    struct offset_change c = change(&o, orders, 0, &five);
    cr_assert_null(offsets_find(&o, orders, 0));
    cr_assert(offsets_known(&o, orders, 0) && !offsets_known(&o, orders, 1) && !offsets_known(&o, users, 0));
    offsets_settle(&o, &c, 100);
    const struct offset *is = offsets_find(&o, orders, 0);
    cr_assert_eq(is->offset, 5);
    cr_assert_eq(is->leader_epoch, 3);
    cr_assert(slice_eq_str(is->metadata, "five"));
    offsets_fini(&o);
}

Test(offsets, the_logs_order_decides_whatever_ends_first)
{
    struct offsets o;
    offsets_init(&o);
    struct offset five = at(5, ""), six = at(6, "");
    struct offset_change a = change(&o, orders, 0, &five), b = change(&o, orders, 0, &six);
    offsets_settle(&o, &b, 101);
    offsets_settle(&o, &a, 100);
    cr_assert_eq(offsets_find(&o, orders, 0)->offset, 6);
    offsets_fini(&o);
}

Test(offsets, a_refused_change_leaves_no_trace)
{
    struct offsets o;
    offsets_init(&o);
    struct offset five = at(5, "x");
    struct offset_change c = change(&o, orders, 0, &five);
    offsets_settle(&o, &c, -1);
    cr_assert_eq(o.entries_n, 0);
    cr_assert_eq(o.bytes, 0);
    cr_assert_eq(offsets_topics_n(&o), 0);
    offsets_fini(&o);
}

Test(offsets, a_tombstone_after_a_commit_under_way_deletes_it)
{
    struct offsets o;
    offsets_init(&o);
    struct offset five = at(5, "");
    struct offset_change c = change(&o, orders, 0, &five), d = change(&o, orders, 0, NULL);
    offsets_settle(&o, &c, 100);
    offsets_settle(&o, &d, 101);
    cr_assert_null(offsets_find(&o, orders, 0));
    cr_assert_eq(o.entries_n, 0);
    offsets_fini(&o);
}

Test(offsets, the_walk_sees_each_partition_once)
{
    struct offsets o;
    offsets_init(&o);
    for (int32_t p = 0; p < 100; p++) {
        struct offset v = at(p, "m");
        struct offset_change c = change(&o, p % 3 ? orders : users, p, &v);
        if (p % 10)
            offsets_settle(&o, &c, p);
        else
            offsets_settle(&o, &c, -1);
    }
    bool seen[100] = {false};
    struct offset_walk w = {0};
    size_t n = 0;
    while (offsets_next(&o, &w)) {
        cr_assert(!seen[w.partition] && w.at && !w.pending);
        cr_assert(slice_eq(w.name, w.partition % 3 ? orders : users));
        seen[w.partition] = true;
        n++;
    }
    cr_assert_eq(n, 90);
    cr_assert_eq(offsets_topic_entries_n(&o, orders) + offsets_topic_entries_n(&o, users), 90);
    offsets_fini(&o);
}

/* ---- records ---- */

static struct slice hex(struct slice s, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += (size_t)snprintf(out + n, cap - n, "%02x", s.p[i]);
    return slice_of(out, n);
}

static struct record only_record(struct buf *b, struct record_walk *w)
{
    static struct batch_header h;
    struct record r;
    cr_assert_eq(batch_read(buf_slice(b), &h, NULL), 0);
    record_walk_init(w, &h, slice_of(b->p + BATCH_HEADER_BYTES, b->n - BATCH_HEADER_BYTES));
    cr_assert_eq(record_next(w, &r), 1);
    return r;
}

static void begin(struct batch_builder *b, struct buf *out)
{
    static const struct batch_options plain = BATCH_OPTIONS;
    buf_init(out, 1 << 20);
    batch_begin(b, out, &plain);
}

/* Kafka's bytes: taken from a __consumer_offsets of an Apache Kafka 4 broker, commit of orders-7 at 42 by group g1. */
Test(group_record, an_offset_is_written_as_kafka_writes_it)
{
    struct batch_builder b;
    struct buf out;
    struct record_walk w;
    char text[512];
    begin(&b, &out);
    struct offset v = {.offset = 42,
                       .leader_epoch = -1,
                       .metadata = slice_str("m"),
                       .committed_ms = 0x0102030405,
                       .expires_ms = OFFSET_NO_EXPIRY};
    cr_assert_eq(group_record_put_offset(&b, 1000, slice_str("g1"), slice_str("orders"), 7, &v), 0);
    cr_assert_eq(batch_close(&b, NULL), 0);
    struct record r = only_record(&out, &w);
    cr_assert(slice_eq_str(hex(r.key, text, sizeof text), "0001"
                                                          "00026731"
                                                          "00066f7264657273"
                                                          "00000007"));
    cr_assert(slice_eq_str(hex(r.value, text, sizeof text), "0003"
                                                            "000000000000002a"
                                                            "ffffffff"
                                                            "00016d"
                                                            "0000000102030405"));
    buf_fini(&out);
}

Test(group_record, an_expiry_of_its_own_makes_it_version_1)
{
    struct batch_builder b;
    struct buf out;
    struct record_walk w;
    struct arena arena;
    struct group_record g;
    char text[512];
    arena_init(&arena, 1 << 20);
    begin(&b, &out);
    struct offset v = {
        .offset = 42, .leader_epoch = 5, .metadata = slice_str(""), .committed_ms = 7, .expires_ms = 8};
    cr_assert_eq(group_record_put_offset(&b, 1000, slice_str("g"), slice_str("t"), 0, &v), 0);
    cr_assert_eq(batch_close(&b, NULL), 0);
    struct record r = only_record(&out, &w);
    cr_assert(slice_eq_str(hex(r.value, text, sizeof text), "0001"
                                                            "000000000000002a"
                                                            "0000"
                                                            "0000000000000007"
                                                            "0000000000000008"));
    cr_assert_eq(group_record_read(&r, &arena, &g, NULL), 0);
    cr_assert(g.kind == GROUP_RECORD_OFFSET && !g.tombstone && g.at.expires_ms == 8 &&
              g.at.leader_epoch == -1);
    arena_fini(&arena);
    buf_fini(&out);
}

Test(group_record, tombstones_and_foreign_keys_are_told_apart)
{
    struct batch_builder b;
    struct buf out;
    struct record_walk w;
    struct record r;
    struct arena arena;
    struct group_record g;
    arena_init(&arena, 1 << 20);
    begin(&b, &out);
    cr_assert_eq(group_record_put_offset(&b, 1000, slice_str("g"), slice_str("t"), 3, NULL), 0);
    cr_assert_eq(group_record_put_group_tombstone(&b, 1000, slice_str("g")), 0);
    struct record_new foreign = {.key = SLICE_LIT("\0\3xyz"), .value = SLICE_LIT("?")};
    cr_assert_eq(batch_add(&b, &foreign), 0);
    struct record_new old = {.key = SLICE_LIT("\0\0\0\1g\0\1t\0\0\0\1"), .value = SLICE_NULL};
    cr_assert_eq(batch_add(&b, &old), 0);
    cr_assert_eq(batch_close(&b, NULL), 0);
    r = only_record(&out, &w);
    cr_assert_eq(group_record_read(&r, &arena, &g, NULL), 0);
    cr_assert(g.kind == GROUP_RECORD_OFFSET && g.tombstone && g.partition == 3 && slice_eq_str(g.topic, "t"));
    cr_assert(record_next(&w, &r) == 1 && group_record_read(&r, &arena, &g, NULL) == 0);
    cr_assert(g.kind == GROUP_RECORD_GROUP && g.tombstone && slice_eq_str(g.group, "g"));
    cr_assert(record_next(&w, &r) == 1 && group_record_read(&r, &arena, &g, NULL) == 0);
    cr_assert_eq(g.kind, GROUP_RECORD_OTHER);
    cr_assert(record_next(&w, &r) == 1 && group_record_read(&r, &arena, &g, NULL) == 0);
    cr_assert(g.kind == GROUP_RECORD_OFFSET && g.partition == 1);
    arena_fini(&arena);
    buf_fini(&out);
}

Test(group_record, what_cannot_be_read_is_an_error_never_a_guess)
{
    struct arena arena;
    struct group_record g;
    arena_init(&arena, 1 << 20);
    const struct slice key = SLICE_LIT("\0\1\0\1g\0\1t\0\0\0\1");
    struct record bad[] = {
        {.key = SLICE_NULL, .value = SLICE_LIT("x")},
        {.key = SLICE_LIT("\0"), .value = SLICE_LIT("x")},
        {.key = SLICE_LIT("\0\1\0\1g\0\1t\0\0\0"), .value = SLICE_LIT("x")},     /* key ends early */
        {.key = SLICE_LIT("\0\1\0\1g\0\1t\0\0\0\1\1"), .value = SLICE_LIT("x")}, /* and late */
        {.key = key, .value = SLICE_LIT("")},
        {.key = key, .value = SLICE_LIT("\0\3\0\0")},
        {.key = key, .value = SLICE_LIT("\0\5\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")}, /* version 5 */
        {.key = key, .value = SLICE_LIT("\xff\xff\0\0")},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_neq(group_record_read(&bad[i], &arena, &g, NULL), 0, "%zu", i);
    arena_fini(&arena);
}

Test(group_record, a_group_comes_back_as_it_was)
{
    struct group_config c = {1, 1000000, 3000, 300000, 1000};
    struct group_now now = {0, 77};
    struct group *g = group_create(slice_str("g"), &c, now), *back = group_create(slice_str("g"), &c, now);
    struct group_restored_member m[2] = {
        {.id = slice_str("m1"),
         .client_id = slice_str("c1"),
         .client_host = slice_str("/h"),
         .subscription = slice_str("s1"),
         .assignment = slice_str("a1"),
         .session_timeout_ms = 10000,
         .rebalance_timeout_ms = 60000},
        {.id = slice_str("m2"),
         .client_id = slice_str("c2"),
         .client_host = slice_str("/h"),
         .instance_id = slice_str("i"),
         .subscription = slice_str("s2"),
         .assignment = slice_str(""),
         .session_timeout_ms = 20000,
         .rebalance_timeout_ms = 70000},
    };
    struct group_restored from = {.protocol_type = slice_str("consumer"),
                                  .protocol_name = slice_str("range"),
                                  .leader = slice_str("m2"),
                                  .generation = 7,
                                  .state_since_ms = 55,
                                  .members = m,
                                  .members_n = 2};
    cr_assert_eq(group_restore(g, &from, now), 0);
    struct batch_builder b;
    struct buf out;
    struct record_walk w;
    begin(&b, &out);
    cr_assert_eq(group_record_put_group(&b, 1000, g), 0);
    cr_assert_eq(batch_close(&b, NULL), 0);
    struct record r = only_record(&out, &w);
    struct arena arena;
    struct group_record rec;
    struct group_restored got;
    arena_init(&arena, 1 << 20);
    cr_assert_eq(group_record_read(&r, &arena, &rec, NULL), 0);
    cr_assert_eq(group_record_read_group(rec.value, &arena, &got, NULL), 0);
    cr_assert_eq(group_restore(back, &got, now), 0);
    group_check(back);
    cr_assert(group_generation(back) == 7 && group_state(back) == GROUP_STABLE &&
              group_state_since_ms(back) == 55);
    cr_assert(slice_eq_str(group_leader(back), "m2") && slice_eq_str(group_protocol_name(back), "range"));
    const struct group_member *x = NULL;
    for (size_t i = 0; i < 2; i++) {
        x = group_member_next(back, x);
        struct group_member_view v = group_member_view(back, x);
        cr_assert(slice_eq(v.id, m[i].id) && slice_eq(v.client_id, m[i].client_id) &&
                  slice_eq(v.instance_id, m[i].instance_id) && slice_eq(v.subscription, m[i].subscription) &&
                  slice_eq(v.assignment, m[i].assignment) &&
                  v.session_timeout_ms == m[i].session_timeout_ms &&
                  v.rebalance_timeout_ms == m[i].rebalance_timeout_ms);
    }
    arena_fini(&arena);
    buf_fini(&out);
    group_destroy(g);
    group_destroy(back);
}
