/* Records of __consumer_offsets: length of the key (u16; 65535: null) and of the value (likewise), key, value. What is
 * read and restored is what a coordinator would serve; written again it is read as the same. */
#include "broker/group/group_internal.h"
#include "broker/group/group_record.h"

#include "base/core/bytes.h"
#include "tests/fuzz/fuzz.h"

static const struct group_config config = {.session_min_ms = 1,
                                           .session_max_ms = 1800000,
                                           .new_member_join_timeout_ms = 300000,
                                           .members_max = INT32_MAX};
static const struct group_now now = {.us = 1000000, .wall_ms = 1700000000000};

/* The one record of a batch that was just built. */
static struct record only_record(struct batch_builder *b, struct buf *out, struct buf *scratch)
{
    struct batch_header h;
    struct record_walk w;
    struct record r;
    struct slice payload;
    struct codec_limits limits = codec_limits_for(FUZZ_MEMORY_MAX);
    if (batch_close(b, &h) || batch_payload(&h, buf_slice(out), &limits, scratch, &payload, NULL))
        abort();
    record_walk_init(&w, &h, payload);
    if (record_next(&w, &r) != 1)
        abort();
    return r;
}

static void offset_again(const struct group_record *g)
{
    struct buf out, scratch;
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    struct group_record again;
    struct arena arena;
    struct offset at = g->at;
    if (slice_is_null(at.metadata))
        at.metadata = slice_of("", 0);
    arena_init(&arena, FUZZ_MEMORY_MAX);
    buf_init(&out, FUZZ_MEMORY_MAX);
    buf_init(&scratch, FUZZ_MEMORY_MAX);
    batch_begin(&b, &out, &o);
    if (group_record_put_offset(&b, now.wall_ms, g->group, g->topic, g->partition, g->tombstone ? NULL : &at))
        abort();
    struct record r = only_record(&b, &out, &scratch);
    if (group_record_read(&r, &arena, &again, NULL) || again.kind != g->kind ||
        again.tombstone != g->tombstone || !slice_eq(again.group, g->group) ||
        !slice_eq(again.topic, g->topic) || again.partition != g->partition ||
        again.at.offset != g->at.offset || again.at.expires_ms != g->at.expires_ms ||
        (!g->tombstone && !slice_eq(again.at.metadata, at.metadata)))
        abort();
    buf_fini(&out);
    buf_fini(&scratch);
    arena_fini(&arena);
}

static void group_again(const struct group *g)
{
    struct buf out, scratch;
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    struct group_record again;
    struct group_restored from;
    struct arena arena;
    arena_init(&arena, FUZZ_MEMORY_MAX);
    buf_init(&out, FUZZ_MEMORY_MAX);
    buf_init(&scratch, FUZZ_MEMORY_MAX);
    batch_begin(&b, &out, &o);
    if (group_record_put_group(&b, now.wall_ms, g))
        abort();
    struct record r = only_record(&b, &out, &scratch);
    struct group *second = group_create(group_id(g), &config, now);
    if (group_record_read(&r, &arena, &again, NULL) || again.kind != GROUP_RECORD_GROUP ||
        group_record_read_group(again.value, &arena, &from, NULL) || group_restore(second, &from, now))
        abort();
    group_check(second);
    if (group_generation(second) != group_generation(g) || group_members_n(second) != group_members_n(g) ||
        group_state(second) != group_state(g))
        abort();
    group_destroy(second);
    buf_fini(&out);
    buf_fini(&scratch);
    arena_fini(&arena);
}

/* A session runs out, a member comes back: the restored group lives on. */
static void live(struct group *g)
{
    struct group_effects fx;
    struct group_now at = now;
    group_effects_init(&fx);
    for (int i = 0; i < 4 && group_due_us(g) != GROUP_NEVER; i++) {
        at.us = group_due_us(g) > at.us ? group_due_us(g) : at.us;
        group_effects_clear(&fx);
        group_step(g, &(struct group_event){.kind = GROUP_TICK}, at, &fx);
        group_check(g);
    }
    group_effects_clear(&fx);
    group_step(g, &(struct group_event){.kind = GROUP_UNLOAD, .unload_error = KE_NOT_COORDINATOR}, at, &fx);
    group_check(g);
    group_effects_fini(&fx);
}

static void restore(const struct group_record *r, struct arena *arena)
{
    struct group_restored from;
    struct err err = {0};
    if (r->tombstone)
        return;
    if (group_record_read_group(r->value, arena, &from, &err)) {
        if (!err.text[0])
            abort();
        return;
    }
    struct group *g = group_create(r->group, &config, now);
    if (group_restore(g, &from, now) == 0) {
        group_check(g);
        (void)group_subscribed(g, SLICE_LIT("orders"));
        (void)group_subscriptions_known(g);
        group_again(g);
        live(g);
    }
    group_destroy(g);
}

static struct slice piece(struct slice *in, size_t n)
{
    if (n == 65535)
        return SLICE_NULL;
    n = n < in->n ? n : in->n;
    struct slice s = slice_of(in->p, n);
    *in = slice_of(in->p + n, in->n - n);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct offsets offsets;
    struct arena arena;
    struct slice in = slice_of(data, n);
    offsets_init(&offsets);
    arena_init(&arena, FUZZ_MEMORY_MAX);
    for (int64_t at = 0; in.n >= 4; at++) {
        size_t key_n = be16_get(in.p), value_n = be16_get(in.p + 2);
        struct group_record g;
        struct offset_change change;
        struct err err = {0};
        in = slice_of(in.p + 4, in.n - 4);
        struct record r = {.offset = at, .key = piece(&in, key_n), .value = piece(&in, value_n)};
        int rc = group_record_read(&r, &arena, &g, &err);
        if (rc && !err.text[0])
            abort();
        if (rc == 0 && g.kind == GROUP_RECORD_GROUP)
            restore(&g, &arena);
        if (rc || g.kind != GROUP_RECORD_OFFSET)
            continue;
        offset_again(&g);
        if (offsets_prepare(&offsets, g.topic, g.partition, g.tombstone ? NULL : &g.at, &change))
            abort();
        offsets_settle(&offsets, &change, at);
        const struct offset *o = offsets_find(&offsets, g.topic, g.partition);
        if (g.tombstone ? o != NULL : !o || o->offset != g.at.offset)
            abort();
    }
    offsets_fini(&offsets);
    arena_fini(&arena);
    return 0;
}
