/* RELIABILITY §4, rows 5 and 25, S3: what a connection may hold. */
#include "client.h"

#include "broker/api/lookup.h"

static struct buf produce_frame(struct rig *r, int32_t correlation, size_t value_bytes, int16_t acks)
{
    char *text = malloc(value_bytes + 1);
    memset(text, 'x', value_bytes);
    text[value_bytes] = '\0';
    struct slice batch = rig_batch(r, &(struct rig_batch){.n = 1, .text = text});
    struct kp_produce_request_partition_data data = {.index = 0, .records = {.bytes = batch}};
    struct kp_produce_request_topic_data t = {
        .name = SLICE_LIT("orders"), .partition_data = &data, .partition_data_n = 1};
    struct kp_produce_request q = {.acks = acks, .timeout_ms = 5000, .topic_data = &t, .topic_data_n = 1};
    struct buf b = client_frame(kp_key_produce, 9, correlation, &q);
    free(text);
    free((void *)(uintptr_t)batch.p);
    return b;
}

/* A small request with a large answer. */
static struct buf metadata_frame(struct rig *r)
{
    struct kp_metadata_request q = {.topics_n = -1};
    rig_topic(r, "wide", 64, NULL);
    return client_frame(kp_key_metadata, 9, 1, &q);
}

Test(limits, a_client_that_never_reads_is_no_longer_read)
{
    struct rig *r = rig_create(
        &(struct rig_options){.listen = true, .net = {.requests_max = 10, .queued_max_bytes = 65536}});
    int fd = client_open(r);
    struct buf b = metadata_frame(r);
    size_t sent = 0;
    struct net_counts counts;
    while (sent < (64u << 20)) { /* answers are larger than requests: the kernel's buffers fill, then ours */
        size_t n = client_send(r, fd, b.p, b.n, 300);
        sent += n;
        net_server_counts(rig_shard(r)->server, &counts);
        cr_assert_leq(counts.requests_waiting, 10);
        if (n < b.n)
            break;
    }
    cr_expect_lt(sent, 32u << 20, "reading must stop");
    cr_expect_lt(rig_shard(r)->memory.used_bytes, 2u << 20);
    buf_fini(&b);
    close(fd);
    rig_turn(r, 10);
    rig_destroy(r, false);
}

Test(limits, a_client_that_does_not_read_is_cut_off)
{
    struct rig *r = rig_create(
        &(struct rig_options){.listen = true, .net = {.requests_max = 100, .write_max_us = 1000000}});
    int fd = client_open(r);
    struct buf b = metadata_frame(r);
    while (client_send(r, fd, b.p, b.n, 300) == b.n)
        ;
    struct net_counts counts;
    for (int i = 0; i < 600; i++) {
        rig_turn(r, 100);
        net_server_counts(rig_shard(r)->server, &counts);
        if (counts.connections == 0)
            break;
    }
    cr_expect_eq(counts.connections, 0);
    buf_fini(&b);
    close(fd);
    rig_destroy(r, false);
}

Test(limits, idle_connections_are_closed)
{
    struct rig *r = rig_create(&(struct rig_options){.listen = true, .net = {.idle_max_us = 1000000}});
    int fd = client_open(r);
    client_ask_versions(r, fd, 1);
    cr_expect_eq(client_next(r, fd, RIG_PATIENCE_MS), 1);
    cr_expect(client_closed(r, fd, RIG_PATIENCE_MS));
    close(fd);
    rig_destroy(r, false);
}

Test(limits, connections_above_the_limit_are_refused_and_others_served)
{
    struct rig *r = rig_create(&(struct rig_options){.listen = true, .net = {.connections_max = 2}});
    int a = client_open(r), b = client_open(r), c = client_open(r);
    cr_expect(client_closed(r, c, RIG_PATIENCE_MS));
    client_ask_versions(r, a, 1);
    cr_expect_eq(client_next(r, a, RIG_PATIENCE_MS), 1);
    close(b);
    for (int i = 0; i < 10; i++)
        rig_turn(r, 10);
    int d = client_open(r);
    client_ask_versions(r, d, 2);
    cr_expect_eq(client_next(r, d, RIG_PATIENCE_MS), 2);
    close(a), close(c), close(d);
    rig_destroy(r, false);
}

Test(limits, idle_connections_hold_no_memory)
{
    struct rig *r = rig_create(&(struct rig_options){.listen = true});
    int fds[50];
    for (int i = 0; i < 50; i++) {
        fds[i] = client_open(r);
        client_ask_versions(r, fds[i], i);
        cr_expect_eq(client_next(r, fds[i], RIG_PATIENCE_MS), i);
        client_send(r, fds[i], "\0\0", 2, RIG_PATIENCE_MS); /* a frame that never comes */
    }
    rig_turn(r, 5);
    cr_expect_leq(rig_shard(r)->memory.used_bytes, 300000, "one buffer for all of them");
    for (int i = 0; i < 50; i++)
        close(fds[i]);
    rig_turn(r, 5);
    rig_destroy(r, false);
}

Test(limits, large_frames_grow_with_what_has_come)
{
    struct rig *r = rig_create(&(struct rig_options){.listen = true, .memory_bytes = 64 << 20});
    rig_topic(r, "orders", 1, "max.message.bytes=30000000");
    int fd = client_open(r);
    struct buf b = produce_frame(r, 1, 12 << 20, -1);
    size_t before = rig_shard(r)->memory.used_bytes;
    client_send(r, fd, b.p, 100000, RIG_PATIENCE_MS); /* claims 12 MiB, has sent a little */
    rig_turn(r, 5);
    cr_expect_leq(rig_shard(r)->memory.used_bytes - before, 1u << 20, "nothing is taken for a claim");
    cr_assert_eq(client_send(r, fd, b.p + 100000, b.n - 100000, RIG_PATIENCE_MS), b.n - 100000);
    cr_expect_eq(client_next(r, fd, RIG_PATIENCE_MS), 1);
    cr_expect_eq(partition_log_end(rig_partition(r, "orders", 0)), 1);
    buf_fini(&b);
    close(fd);
    rig_turn(r, 5);
    rig_destroy(r, false);
}

Test(limits, over_the_budget_sockets_wait_and_are_served_later)
{
    struct rig *r = rig_create(&(struct rig_options){.listen = true, .memory_bytes = 16 << 20});
    rig_topic(r, "orders", 1, "max.message.bytes=30000000");
    enum { N = 8 };
    int fds[N];
    size_t at[N] = {0};
    struct buf b = produce_frame(r, 1, 4 << 20, -1);
    for (int i = 0; i < N; i++)
        fds[i] = client_open(r);
    int open = N; /* 32 MiB in flight on 16 MiB */
    int64_t end = clock_now_us() + RIG_PATIENCE_MS * 1000;
    while (open > 0 && clock_now_us() < end) {
        for (int i = 0; i < N; i++) {
            if (at[i] == b.n)
                continue;
            size_t n = b.n - at[i] < 100000 ? b.n - at[i] : 100000;
            ssize_t k = send(fds[i], b.p + at[i], n, MSG_NOSIGNAL);
            at[i] += k > 0 ? (size_t)k : 0;
            open -= at[i] == b.n;
        }
        rig_turn(r, 0);
        cr_assert_leq(rig_shard(r)->memory.used_bytes, 18u << 20);
    }
    for (int i = 0; i < N; i++)
        cr_expect_eq(client_next(r, fds[i], RIG_PATIENCE_MS), 1);
    cr_expect_eq(partition_log_end(rig_partition(r, "orders", 0)), N);
    for (int i = 0; i < N; i++)
        close(fds[i]);
    rig_turn(r, 5);
    buf_fini(&b);
    rig_destroy(r, false);
}

/* RELIABILITY §4, rows 4 and 5: who holds memory and moves no further keeps nobody else out. */
Test(limits, small_requests_are_served_though_the_budget_is_spent)
{
    struct rig *r = rig_create(&(struct rig_options){.listen = true, .memory_bytes = 16 << 20});
    rig_topic(r, "orders", 1, "max.message.bytes=30000000");
    enum { N = 100 };
    int fds[N];
    struct buf b = produce_frame(r, 1, 4 << 20, -1);
    for (int i = 0; i < N; i++) { /* 100 KB each: a buffer of 256 KiB, 25 MiB if all had one */
        fds[i] = client_open(r);
        client_send(r, fds[i], b.p, 100000, 20);
        cr_assert_leq(rig_shard(r)->memory.used_bytes, 16u << 20);
    }
    struct net_counts counts;
    net_server_counts(rig_shard(r)->server, &counts);
    cr_expect_gt(counts.starved, 0);
    int late = client_open(r);
    for (int i = 0; i < 10; i++) {
        client_ask_versions(r, late, i);
        cr_expect_eq(client_next(r, late, RIG_PATIENCE_MS), i);
    }
    for (int i = 0; i < N; i++)
        close(fds[i]);
    close(late);
    rig_turn(r, 5);
    buf_fini(&b);
    rig_destroy(r, false);
}

Test(limits, pipelined_produces_keep_their_order)
{
    struct rig *r = rig_create(&(struct rig_options){.listen = true});
    rig_topic(r, "orders", 1, NULL);
    int fd = client_open(r);
    struct buf all;
    buf_init(&all, 64 << 20);
    for (int32_t i = 0; i < 200; i++) {
        struct buf b = produce_frame(r, i, (size_t)(i * 37 % 3000) + 1, i % 3 == 0 ? 1 : -1);
        buf_put(&all, b.p, b.n);
        buf_fini(&b);
    }
    cr_assert_eq(client_send(r, fd, all.p, all.n, RIG_PATIENCE_MS), all.n);
    for (int32_t i = 0; i < 200; i++)
        cr_assert_eq(client_next(r, fd, RIG_PATIENCE_MS), i);
    cr_expect_eq(partition_log_end(rig_partition(r, "orders", 0)), 200);
    buf_fini(&all);
    close(fd);
    rig_turn(r, 5);
    rig_destroy(r, false);
}

Test(limits, produces_without_acks_count_though_their_client_has_gone)
{
    struct rig *r = rig_create(&(struct rig_options){.listen = true, .net = {.requests_max = 5}});
    rig_topic(r, "orders", 1, NULL);
    int fd = client_open(r);
    for (int32_t i = 0; i < 50; i++) {
        struct buf b = produce_frame(r, i, 100, 0);
        ssize_t n = send(fd, b.p, b.n, MSG_NOSIGNAL);
        cr_assert_eq(n, (ssize_t)b.n);
        buf_fini(&b);
    }
    close(fd);
    for (int i = 0; i < 10000 && partition_log_end(rig_partition(r, "orders", 0)) < 50; i++)
        rig_turn(r, 5);
    cr_expect_eq(partition_log_end(rig_partition(r, "orders", 0)), 50);
    rig_destroy(r, false);
}

Test(limits, a_parked_fetch_is_given_up_when_its_client_goes)
{
    struct rig *r = rig_create(&(struct rig_options){.listen = true});
    rig_topic(r, "orders", 1, NULL);
    int fd = client_open(r);
    struct kp_fetch_request_partitions p = {.current_leader_epoch = -1,
                                            .last_fetched_epoch = -1,
                                            .log_start_offset = -1,
                                            .partition_max_bytes = 1 << 20};
    struct kp_fetch_request_topics t = {.topic = SLICE_LIT("orders"), .partitions = &p, .partitions_n = 1};
    struct kp_fetch_request q = {.replica_id = -1,
                                 .max_wait_ms = INT32_MAX,
                                 .min_bytes = 1,
                                 .max_bytes = 1 << 20,
                                 .session_epoch = -1,
                                 .topics = &t,
                                 .topics_n = 1};
    q.rack_id = SLICE_LIT("");
    struct buf b = client_frame(kp_key_fetch, 11, 1, &q);
    cr_assert_eq(client_send(r, fd, b.p, b.n, RIG_PATIENCE_MS), b.n);
    rig_turn(r, 5);
    close(fd);
    struct net_counts counts = {.connections = 1};
    for (int i = 0; i < 2000 && counts.connections > 0; i++) {
        rig_turn(r, 5);
        net_server_counts(rig_shard(r)->server, &counts);
    }
    cr_expect_eq(counts.requests_waiting, 0);
    cr_expect_eq(counts.connections, 0);
    buf_fini(&b);
    rig_destroy(r, false);
}
