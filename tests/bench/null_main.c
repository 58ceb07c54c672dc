/* bench_null: a broker that keeps nothing, to tell what the client and the network cost.
 *
 *   bench_null [ADDRESS:]PORT PARTITIONS RECORD_BYTES [BATCH_BYTES [CODEC [source|target TOPIC]]]
 * On 127.0.0.1 unless told otherwise, until killed.
 * Any topic is there and has so many partitions. Produce is acknowledged unread; Fetch answers endless batches from
 * memory, their base offsets patched in place (they lie outside the CRC). As a mirror's source or target (null.h) only
 * TOPIC is so, and the mirror's own topics are kept. One thread, one epoll; an answer is sent whole before the next
 * request is looked at. */
#include "tests/bench/null.h"

#include "base/core/bytes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define READ_BYTES ((size_t)1 << 20)
#define EVENTS     256
#define AT_ONCE    1024 /* of writev: IOV_MAX */
#define PIECES_MAX 32768

struct client {
    int fd;
    struct buf rest; /* the head of a frame whose tail has not come */
};

static void send_pieces(int fd, const struct kp_pieces *out)
{
    static struct iovec v[PIECES_MAX];
    struct iovec *at = v;
    int n = 0;
    if (out->n > PIECES_MAX)
        BENCH_DIE("an answer of %zu pieces", out->n);
    for (size_t i = 0; i < out->n; i++)
        v[n++] = (struct iovec){(void *)(uintptr_t)out->v[i].bytes.p, out->v[i].bytes.n};
    while (n > 0) {
        ssize_t sent = writev(fd, at, n < AT_ONCE ? n : AT_ONCE);
        if (sent < 0 && errno == EAGAIN) {
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
            continue;
        }
        if (sent < 0)
            return; /* gone: the next read says so */
        while (n > 0 && (size_t)sent >= at->iov_len) {
            sent -= (ssize_t)at->iov_len;
            at++, n--;
        }
        if (n > 0)
            at->iov_base = (uint8_t *)at->iov_base + sent, at->iov_len -= (size_t)sent;
    }
}

static void frame(struct null_broker *b, int fd, struct slice in)
{
    struct kp_request_header h;
    size_t used;
    struct err err = {0};
    arena_reset(&b->arena);
    if (kp_request_header_decode(in, &h, &used, &err))
        BENCH_DIE("request: %s", err.text);
    const struct kp_api *api = kp_api_find(h.api_key);
    void *request = arena_alloc(&b->arena, api->request.body->size_bytes);
    if (kp_decode(&api->request, h.api_version, slice_of(in.p + used, in.n - used), &b->arena, request, NULL,
                  &err))
        BENCH_DIE("%s v%d: %s", api->name, h.api_version, err.text);
    void *answer = null_answer(b, h.api_key, request);
    struct kp_pieces out;
    if (!answer)
        return;
    if (kp_response_pieces(api, h.api_version, h.correlation_id, answer, &b->arena, &out))
        BENCH_DIE("answer to %s v%d", api->name, h.api_version);
    send_pieces(fd, &out);
}

/* Serves the whole frames in front; returns their bytes. */
static size_t frames(struct null_broker *b, int fd, struct slice in)
{
    size_t at = 0;
    while (in.n - at >= 4 && in.n - at - 4 >= be32_get(in.p + at)) {
        size_t n = be32_get(in.p + at);
        frame(b, fd, slice_of(in.p + at + 4, n));
        at += 4 + n;
    }
    return at;
}

static void readable(struct null_broker *b, struct client *c)
{
    struct buf *in = c->rest.n ? &c->rest : &b->read;
    uint8_t *room = buf_room(in, READ_BYTES);
    if (!room)
        BENCH_DIE("a frame of more than %zu bytes", in->limit);
    ssize_t n = read(c->fd, room, READ_BYTES);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        close(c->fd);
        buf_fini(&c->rest);
        free(c);
        return;
    }
    buf_added(in, (size_t)n);
    buf_drop(in, frames(b, c->fd, buf_slice(in)));
    if (in == &b->read) {
        buf_put(&c->rest, in->p, in->n);
        buf_clear(in);
    }
}

static int listen_on(const char *address, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, address, &a.sin_addr) != 1)
        BENCH_DIE("'%s' is not an IPv4 address", address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096))
        BENCH_DIE("port %d", port);
    return fd;
}

static void accept_all(struct null_broker *b, int listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct client *c = calloc(1, sizeof *c);
        c->fd = fd;
        buf_init(&c->rest, 1u << 28);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (epoll_ctl(b->epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){EPOLLIN, {.ptr = c}}))
            BENCH_DIE("epoll");
    }
}

static void configure(struct null_broker *b, int argc, char **argv)
{
    size_t size = strtoul(argv[3], NULL, 10), batch_bytes = argc > 4 ? strtoul(argv[4], NULL, 10) : 64000;
    int32_t partitions = atoi(argv[2]), codec = argc > 5 ? atoi(argv[5]) : 0;
    b->role = argc < 8 ? NULL_ANY : !strcmp(argv[6], "source") ? NULL_SOURCE : NULL_TARGET;
    b->batch_records = batch_bytes > size + 12 ? (int)(batch_bytes / (size + 12)) : 1;
    buf_init(&b->batch, 1u << 28), buf_init(&b->read, 1u << 28);
    arena_init(&b->arena, (size_t)1 << 30);
    bench_batch(&b->batch, b->batch_records, size, codec);
    null_topics_init(b, argc < 8 ? "any" : argv[7], partitions);
}

int main(int argc, char **argv)
{
    if (argc < 4 || atoi(argv[2]) < 1)
        BENCH_DIE("[ADDRESS:]PORT PARTITIONS RECORD_BYTES [BATCH_BYTES [CODEC [source|target TOPIC]]]");
    char *colon = strrchr(argv[1], ':');
    struct null_broker b = {.host = "127.0.0.1", .port = atoi(colon ? colon + 1 : argv[1])};
    if (colon) {
        *colon = '\0';
        b.host = argv[1];
    }
    signal(SIGPIPE, SIG_IGN); /* who goes away while it is sent something */
    configure(&b, argc, argv);
    int listener = listen_on(b.host, b.port);
    b.epoll = epoll_create1(0);
    epoll_ctl(b.epoll, EPOLL_CTL_ADD, listener, &(struct epoll_event){EPOLLIN, {.ptr = NULL}});
    for (struct epoll_event e[EVENTS];;) {
        int n = epoll_wait(b.epoll, e, EVENTS, -1);
        for (int i = 0; i < n; i++)
            if (e[i].data.ptr)
                readable(&b, e[i].data.ptr);
            else
                accept_all(&b, listener);
    }
}
