/* A client of the rig's listener, on the rig's own thread: it turns the loop while it waits. */
#ifndef SUNDOG_TESTS_UNIT_BROKER_NET_CLIENT_H
#define SUNDOG_TESTS_UNIT_BROKER_NET_CLIENT_H

#include "tests/support/serve/rig.h"

#include "base/core/bytes.h"
#include "base/world/clock.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static inline int client_open(struct rig *r)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(rig_port(r)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    rig_turn(r, 10);
    return fd;
}

/* As much as the broker takes within `limit_ms`. */
static inline size_t client_send(struct rig *r, int fd, const void *p, size_t n, int limit_ms)
{
    size_t sent = 0;
    int64_t end = clock_now_us() + limit_ms * 1000;
    while (sent < n && clock_now_us() < end) {
        ssize_t k = send(fd, (const uint8_t *)p + sent, n - sent, MSG_NOSIGNAL);
        if (k > 0)
            sent += (size_t)k;
        else if (errno != EAGAIN)
            break;
        rig_turn(r, k > 0 ? 0 : 5);
    }
    return sent;
}

/* Bytes read, fewer when the time is up; -1: the broker has closed. */
static inline ssize_t client_read(struct rig *r, int fd, void *p, size_t n, int limit_ms)
{
    size_t got = 0;
    int64_t end = clock_now_us() + limit_ms * 1000;
    while (got < n && clock_now_us() < end) {
        ssize_t k = recv(fd, (uint8_t *)p + got, n - got, 0);
        if (k == 0 || (k < 0 && errno != EAGAIN))
            return -1;
        if (k > 0)
            got += (size_t)k;
        else
            rig_turn(r, 5);
    }
    return (ssize_t)got;
}

static inline bool client_closed(struct rig *r, int fd, int limit_ms)
{
    uint8_t byte[64];
    int64_t end = clock_now_us() + limit_ms * 1000;
    while (clock_now_us() < end) {
        if (client_read(r, fd, byte, sizeof byte, 5) < 0)
            return true;
    }
    return false;
}

static inline struct buf client_frame(int16_t key, int16_t version, int32_t correlation, const void *body)
{
    struct buf b;
    struct kp_request_header h = {key, version, correlation, SLICE_LIT("test")};
    buf_init(&b, 128 << 20);
    cr_assert_eq(kp_request_frame(kp_api_find(key), &h, body, &b), 0);
    return b;
}

static inline void client_ask_versions(struct rig *r, int fd, int32_t correlation)
{
    struct kp_api_versions_request q = {SLICE_LIT("test"), SLICE_LIT("1")};
    struct buf b = client_frame(kp_key_api_versions, 3, correlation, &q);
    cr_assert_eq(client_send(r, fd, b.p, b.n, RIG_PATIENCE_MS), b.n);
    buf_fini(&b);
}

/* The correlation id of the next answer; -1: closed, -2: none in time. The body is thrown away. */
static inline int32_t client_next(struct rig *r, int fd, int limit_ms)
{
    uint8_t head[8], rest[4096];
    ssize_t n = client_read(r, fd, head, sizeof head, limit_ms);
    if (n < (ssize_t)sizeof head)
        return n < 0 ? -1 : -2;
    for (size_t left = be32_get(head) - 4; left > 0;) {
        n = client_read(r, fd, rest, left < sizeof rest ? left : sizeof rest, limit_ms);
        cr_assert_gt(n, 0);
        left -= (size_t)n;
    }
    return (int32_t)be32_get(head + 4);
}

#endif
