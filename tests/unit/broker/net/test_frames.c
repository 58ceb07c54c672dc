/* RELIABILITY §4, rows 1, 2, 4, 6, 7: what a frame may be. */
#include "client.h"

static struct rig *listening(void)
{
    return rig_create(&(struct rig_options){.listen = true});
}

static void expect_closed(const void *bytes, size_t n)
{
    struct rig *r = listening();
    int fd = client_open(r);
    client_send(r, fd, bytes, n, RIG_PATIENCE_MS);
    cr_expect(client_closed(r, fd, RIG_PATIENCE_MS));
    close(fd);
    int other = client_open(r); /* nobody else minds */
    client_ask_versions(r, other, 5);
    cr_expect_eq(client_next(r, other, RIG_PATIENCE_MS), 5);
    close(other);
    rig_destroy(r, false);
}

Test(frames, impossible_sizes_close_at_once)
{
    const int32_t sizes[] = {INT32_MIN, -1, 0, 7, INT32_MAX, (100 << 20) + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t frame[16] = {0};
        be32_put(frame, (uint32_t)sizes[i]);
        expect_closed(frame, sizeof frame);
    }
}

Test(frames, other_protocols_are_closed)
{
    expect_closed("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
    expect_closed("SSH-2.0-OpenSSH_9.2\r\n", 21);
    expect_closed("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
}

static void expect_api_closed(int16_t key, int16_t version)
{
    uint8_t frame[64] = {0};
    be32_put(frame, 60);
    be16_put(frame + 4, (uint16_t)key);
    be16_put(frame + 6, (uint16_t)version);
    be32_put(frame + 8, 1);
    be16_put(frame + 12, UINT16_MAX);
    expect_closed(frame, sizeof frame);
}

Test(frames, what_is_not_served_is_closed)
{
    expect_api_closed(-1, 0);
    expect_api_closed(32767, 0);
    expect_api_closed(kp_key_metadata, -1);
    expect_api_closed(kp_key_metadata, 14);
    expect_api_closed(kp_key_produce, 0);  /* advertised for old clients' sake, not served */
    expect_api_closed(kp_key_produce, 12); /* has rows, is not advertised */
    expect_api_closed(kp_key_vote, 2);
    expect_api_closed(kp_key_api_versions, -1);
}

Test(frames, answers_before_a_refused_frame_still_leave)
{
    struct rig *r = listening();
    int fd = client_open(r);
    uint8_t bad[16] = {0, 0, 0, 12, 0x7f, 0xff};
    client_ask_versions(r, fd, 1);
    client_send(r, fd, bad, sizeof bad, RIG_PATIENCE_MS);
    cr_expect_eq(client_next(r, fd, RIG_PATIENCE_MS), 1);
    cr_expect(client_closed(r, fd, RIG_PATIENCE_MS));
    close(fd);
    rig_destroy(r, false);
}

Test(frames, a_later_api_versions_is_answered_as_version_0)
{
    struct rig *r = listening();
    int fd = client_open(r);
    uint8_t frame[20] = {0}, answer[14];
    be32_put(frame, 16);
    be16_put(frame + 4, kp_key_api_versions);
    be16_put(frame + 6, 99);
    be32_put(frame + 8, 42);
    client_send(r, fd, frame, sizeof frame, RIG_PATIENCE_MS);
    cr_assert_eq(client_read(r, fd, answer, sizeof answer, RIG_PATIENCE_MS), (ssize_t)sizeof answer);
    cr_expect_eq(be32_get(answer + 4), 42);
    cr_expect_eq(be16_get(answer + 8), KE_UNSUPPORTED_VERSION);
    cr_expect_gt(be32_get(answer + 10), 5, "the list of APIs");
    close(fd);
    rig_destroy(r, false);
}

Test(frames, a_frame_in_single_bytes_is_read)
{
    struct rig *r = listening();
    int fd = client_open(r);
    struct kp_api_versions_request q = {SLICE_LIT("test"), SLICE_LIT("1")};
    struct buf b = client_frame(kp_key_api_versions, 3, 9, &q);
    for (size_t i = 0; i < b.n; i++)
        cr_assert_eq(client_send(r, fd, b.p + i, 1, RIG_PATIENCE_MS), 1);
    cr_expect_eq(client_next(r, fd, RIG_PATIENCE_MS), 9);
    buf_fini(&b);
    close(fd);
    rig_destroy(r, false);
}

Test(frames, many_frames_cut_anywhere_are_all_answered_in_order)
{
    struct rig *r = listening();
    int fd = client_open(r);
    struct kp_api_versions_request q = {SLICE_LIT("test"), SLICE_LIT("1")};
    for (int32_t i = 0; i < 500; i++) {
        struct buf b = client_frame(kp_key_api_versions, 3, i, &q);
        size_t cut = (size_t)i % b.n;
        cr_assert_eq(client_send(r, fd, b.p, cut, RIG_PATIENCE_MS), cut);
        rig_turn(r, 0);
        cr_assert_eq(client_send(r, fd, b.p + cut, b.n - cut, RIG_PATIENCE_MS), b.n - cut);
        cr_assert_eq(client_next(r, fd, RIG_PATIENCE_MS), i);
        buf_fini(&b);
    }
    close(fd);
    rig_destroy(r, false);
}

Test(frames, every_cut_of_a_request_followed_by_the_end_leaves_nothing)
{
    struct rig *r = listening();
    struct kp_metadata_request q = {.topics_n = -1};
    struct buf b = client_frame(kp_key_metadata, 9, 1, &q);
    for (size_t n = 0; n < b.n; n++) {
        int fd = client_open(r);
        client_send(r, fd, b.p, n, RIG_PATIENCE_MS);
        close(fd);
        rig_turn(r, 5);
    }
    buf_fini(&b);
    rig_destroy(r, false); /* asserts that no memory is held */
}

Test(frames, a_body_that_is_cut_or_too_long_closes)
{
    /* Not Metadata: librdkafka 2.8 writes bytes behind its body, which are passed over as Kafka does. */
    struct kp_find_coordinator_request q = {.key = SLICE_LIT("g")};
    struct buf b = client_frame(kp_key_find_coordinator, 1, 1, &q);
    be32_put(b.p, (uint32_t)b.n - 4 - 1); /* one byte less */
    expect_closed(b.p, b.n - 1);
    buf_put_u8(&b, 0); /* one more */
    be32_put(b.p, (uint32_t)b.n - 4);
    expect_closed(b.p, b.n);
    buf_fini(&b);
}

Test(frames, a_slow_sender_is_cut_off_at_its_deadline)
{
    struct rig *r = rig_create(&(struct rig_options){.listen = true, .net = {.request_max_us = 1500000}});
    int fd = client_open(r);
    int64_t start = clock_now_us();
    const uint8_t size[4] = {0, 0, 1, 0};
    cr_assert_eq(client_send(r, fd, size, 4, RIG_PATIENCE_MS), 4);
    bool closed = false;
    while (!closed && clock_now_us() - start < 60000000) {
        client_send(r, fd, "", 1, 10);
        closed = client_closed(r, fd, 200);
    }
    cr_expect(closed);
    cr_expect_gt(clock_now_us() - start, 1400000);
    close(fd);
    rig_destroy(r, false);
}

Test(frames, client_ids_of_any_bytes_are_taken)
{
    struct rig *r = listening();
    int fd = client_open(r);
    static char id[32767];
    memset(id, '\033', sizeof id);
    struct kp_api_versions_request q = {SLICE_LIT("test"), SLICE_LIT("1")};
    struct kp_request_header h = {kp_key_api_versions, 3, 3, slice_of(id, sizeof id)};
    struct buf b;
    buf_init(&b, 1 << 20);
    cr_assert_eq(kp_request_frame(kp_api_find(kp_key_api_versions), &h, &q, &b), 0);
    cr_assert_eq(client_send(r, fd, b.p, b.n, RIG_PATIENCE_MS), b.n);
    cr_expect_eq(client_next(r, fd, RIG_PATIENCE_MS), 3);
    buf_fini(&b);
    close(fd);
    rig_destroy(r, false);
}
