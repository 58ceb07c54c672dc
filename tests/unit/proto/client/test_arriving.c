/* Answers that come in pieces, and the memory they come into. */
#include "tests/unit/proto/client/rig.h"

static struct rig r;
static struct got g, h;

static void up(void)
{
    g = h = (struct got){0};
    rig_init(&r, NULL);
}

static void down(void)
{
    rig_fini(&r);
}

TestSuite(client_arriving, .init = up, .fini = down);

static const uint8_t zeros[1 << 20];

/* A fetch that has been sent, and the bytes of its answer with so many of records. */
static struct request fetch(struct got *got, size_t bytes, struct buf *out)
{
    struct kp_fetch_response_partitions p = {.records.bytes = slice_of(zeros, bytes)};
    struct kp_fetch_response_responses t = {.topic_id = uuid_small(7), .partitions = &p, .partitions_n = 1};
    struct kp_fetch_response a = {.responses = &t, .responses_n = 1};
    struct client_call *f = rig_call(&r, kp_key_fetch, got);
    f->target = (struct client_target){.kind = CLIENT_LEADER, .name = SLICE_LIT("t"), .number = 0};
    f->timeout_us = 15 * SEC;
    rig_send(&r, f);
    rig_run(&r);
    struct request q = rig_take(&r);
    buf_init(out, 4 << 20);
    cr_assert_eq(kp_response_frame(q.api, q.h.api_version, q.h.correlation_id, &a, out), 0);
    return q;
}

static void piece(const struct request *q, const struct buf *out, size_t from, size_t to)
{
    rig_bytes(&r, q->conn, slice_of(out->p + from, to - from), to - from);
    rig_run(&r);
}

Test(client_arriving, an_answer_that_comes_is_not_late)
{
    struct buf one, other;
    struct request q = fetch(&g, 500000, &one), q2 = fetch(&h, 100, &other);
    for (size_t at = 0; at < 10; at++) {
        piece(&q, &one, at * 40000, (at + 1) * 40000);
        rig_pass(&r, 6 * SEC);
    }
    cr_assert_eq(g.n + h.n + r.closes, 0, "after a minute: the second one waits for the first");
    piece(&q, &one, 400000, one.n);
    piece(&q2, &other, 0, other.n);
    cr_assert(g.n == 1 && g.status == 0 && h.n == 1 && h.status == 0);
    buf_fini(&one);
    buf_fini(&other);
}

Test(client_arriving, one_that_stops_coming_costs_the_connection)
{
    struct buf one;
    struct request q = fetch(&g, 500000, &one);
    rig_pass(&r, 14 * SEC);
    piece(&q, &one, 0, 40000);
    rig_pass(&r, 9 * SEC);
    cr_assert_eq(g.n + r.closes, 0);
    rig_pass(&r, 2 * SEC);
    cr_assert_eq(g.status, -E_TIMEOUT);
    cr_assert_eq(r.closes, 1);
    buf_fini(&one);
}

Test(client_arriving, what_is_kept_is_part_of_the_bound)
{
    struct client_options o = {.memory_max_bytes = 1 << 20};
    struct got gots[8] = {{0}};
    struct buf out;
    size_t most = 0;
    rig_fini(&r);
    rig_init(&r, &o);
    for (size_t i = 0; i < 8; i++) {
        gots[i].keep = i % 3 == 0;
        struct request q = fetch(&gots[i], (i + 1) * 80000, &out);
        piece(&q, &out, 0, out.n);
        cr_assert_eq(gots[i].n, 1);
        struct client_frames *f = r.core->frames;
        most = f->used_bytes + f->kept_bytes > most ? f->used_bytes + f->kept_bytes : most;
        cr_assert_leq(most, 1 << 20);
        buf_fini(&out);
        if (gots[i].keep)
            client_frame_unref(gots[i].frame);
    }
    cr_assert_geq(most, 640000, "some are kept");
}

Test(client_arriving, frames_that_stay_leave_room_for_what_comes)
{
    struct client_frames *f = client_frames_create(1 << 20, NULL, NULL);
    struct client_frame *v[4];
    for (size_t i = 0; i < 4; i++) {
        cr_assert(client_frames_room(f, 200000));
        v[i] = client_frame_new(f, 200000);
        cr_assert_eq(client_frame_stay(v[i]), i < 3, "three of four quarters");
    }
    cr_assert(client_frame_stay(v[0]), "it has been counted");
    client_frame_unref(v[0]);
    client_frame_unref(v[0]);
    cr_assert_not(client_frame_stay(v[3]), "somebody has it still");
    client_frame_unref(v[0]);
    cr_assert(client_frame_stay(v[3]));
    client_frame_unref(v[3]);
    for (size_t i = 1; i < 4; i++) {
        client_frame_unref(v[i]);
        if (i < 3)
            client_frame_unref(v[i]);
    }
    cr_assert_eq(f->used_bytes + f->staying_bytes, 0);
    client_frames_destroy(f);
}

Test(client_arriving, one_larger_than_the_bound_is_let_in_alone)
{
    struct client_options o = {.memory_max_bytes = 300000};
    struct buf out;
    rig_fini(&r);
    rig_init(&r, &o);
    struct request q = fetch(&g, 200000, &out);
    piece(&q, &out, 0, out.n);
    buf_fini(&out);
    q = fetch(&h, 900000, &out);
    piece(&q, &out, 0, out.n);
    cr_assert(h.n == 1 && h.status == 0);
    cr_assert_eq(r.core->frames->kept_bytes + r.core->frames->used_bytes, 0, "and not kept");
    buf_fini(&out);
}
