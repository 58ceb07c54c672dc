/* bench_null: a broker that keeps nothing, to tell what the client and the network cost.
 *
 *   bench_null PORT PARTITIONS RECORD_BYTES [BATCH_BYTES]      on 127.0.0.1, until killed
 * Any topic is there and has so many partitions. Produce is acknowledged unread; Fetch answers endless batches from
 * memory, their base offsets patched in place (they lie outside the CRC). One thread, one epoll; an answer is sent whole
 * before the next request is looked at. */
#include "tests/bench/bench.h"

#include "base/core/bytes.h"
#include "proto/kafka/batch.h"
#include "proto/kafka/errors.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define READ_BYTES   ((size_t)1 << 20)
#define CANNED_BYTES ((size_t)1 << 20)
#define EVENTS       256
#define PIECES_MAX   1024

/* What is said to be served: versions without topic ids. */
static const int16_t served[][3] = {
    {kp_key_produce, 3, 9},      {kp_key_fetch, 4, 11},           {kp_key_list_offsets, 1, 5},
    {kp_key_metadata, 1, 8},     {kp_key_find_coordinator, 0, 2}, {kp_key_init_producer_id, 0, 4},
    {kp_key_api_versions, 0, 3},
};
#define SERVED_N ((int)(sizeof served / sizeof *served))

struct null_partition {
    uint8_t *canned; /* made at the first Fetch */
    int64_t end;     /* records it was sent */
};

struct null_broker {
    int epoll, port, partitions_n;
    struct null_partition *partitions;
    struct buf batch; /* one, as all of them */
    int batch_records, canned_n;
    struct buf read; /* of a connection that has nothing left over */
    struct arena arena;
    int64_t producers;
};

struct client {
    int fd;
    struct buf rest; /* the head of a frame whose tail has not come */
};

static const struct slice host = SLICE_LIT("127.0.0.1");
static int32_t node = 1;

static int32_t partitions_of(const struct null_broker *b, int32_t index)
{
    if (index < 0 || index >= b->partitions_n)
        BENCH_DIE("partition %d of %d", index, b->partitions_n);
    return index;
}

/* ---- one function an API: a decoded request to an answer in the arena ---- */

static void *api_versions(struct null_broker *b, const void *request)
{
    (void)request;
    struct kp_api_versions_response *a = ARENA_NEW(&b->arena, struct kp_api_versions_response);
    kp_init(&kp_api_versions_response_message, a);
    a->api_keys = ARENA_NEWS(&b->arena, struct kp_api_versions_response_api_keys, SERVED_N);
    for (a->api_keys_n = 0; a->api_keys_n < SERVED_N; a->api_keys_n++) {
        const int16_t *row = served[a->api_keys_n];
        a->api_keys[a->api_keys_n] = (struct kp_api_versions_response_api_keys){row[0], row[1], row[2]};
    }
    return a;
}

static void *metadata(struct null_broker *b, const void *request)
{
    const struct kp_metadata_request *q = request;
    struct kp_metadata_response *a = ARENA_NEW(&b->arena, struct kp_metadata_response);
    kp_init(&kp_metadata_response_message, a);
    a->brokers = ARENA_NEW(&b->arena, struct kp_metadata_response_brokers);
    a->brokers_n = 1;
    *a->brokers = (struct kp_metadata_response_brokers){node, host, b->port, SLICE_NULL};
    a->controller_id = node;
    int32_t n = q->topics_n > 0 ? q->topics_n : 0;
    a->topics = ARENA_NEWS(&b->arena, struct kp_metadata_response_topics, n);
    for (a->topics_n = 0; a->topics_n < n; a->topics_n++) {
        struct kp_metadata_response_topics *t = &a->topics[a->topics_n];
        t->name = q->topics[a->topics_n].name;
        t->partitions = ARENA_NEWS(&b->arena, struct kp_metadata_response_partitions, b->partitions_n);
        for (t->partitions_n = 0; t->partitions_n < b->partitions_n; t->partitions_n++)
            t->partitions[t->partitions_n] =
                (struct kp_metadata_response_partitions){.partition_index = t->partitions_n,
                                                         .leader_id = node,
                                                         .replica_nodes = &node,
                                                         .replica_nodes_n = 1,
                                                         .isr_nodes = &node,
                                                         .isr_nodes_n = 1};
    }
    return a;
}

static void *list_offsets(struct null_broker *b, const void *request)
{
    const struct kp_list_offsets_request *q = request;
    struct kp_list_offsets_response *a = ARENA_NEW(&b->arena, struct kp_list_offsets_response);
    kp_init(&kp_list_offsets_response_message, a);
    a->topics = ARENA_NEWS(&b->arena, struct kp_list_offsets_response_topics, q->topics_n);
    for (a->topics_n = 0; a->topics_n < q->topics_n; a->topics_n++) {
        const struct kp_list_offsets_request_topics *from = &q->topics[a->topics_n];
        struct kp_list_offsets_response_topics *t = &a->topics[a->topics_n];
        t->name = from->name;
        t->partitions = ARENA_NEWS(&b->arena, struct kp_list_offsets_response_partitions, from->partitions_n);
        for (t->partitions_n = 0; t->partitions_n < from->partitions_n; t->partitions_n++)
            t->partitions[t->partitions_n] = (struct kp_list_offsets_response_partitions){
                .partition_index = from->partitions[t->partitions_n].partition_index,
                .timestamp = -1,
                .offset = 0,
                .leader_epoch = -1};
    }
    return a;
}

static void *find_coordinator(struct null_broker *b, const void *request)
{
    (void)request;
    struct kp_find_coordinator_response *a = ARENA_NEW(&b->arena, struct kp_find_coordinator_response);
    kp_init(&kp_find_coordinator_response_message, a);
    a->node_id = node;
    a->host = host;
    a->port = b->port;
    return a;
}

static void *init_producer_id(struct null_broker *b, const void *request)
{
    (void)request;
    struct kp_init_producer_id_response *a = ARENA_NEW(&b->arena, struct kp_init_producer_id_response);
    kp_init(&kp_init_producer_id_response_message, a);
    a->producer_id = b->producers++;
    return a;
}

static void produced(struct null_broker *b, const struct kp_produce_request_partition_data *from,
                     struct kp_produce_response_partition_responses *to)
{
    struct null_partition *p = &b->partitions[partitions_of(b, from->index)];
    struct batch_header h;
    *to = (struct kp_produce_response_partition_responses){
        .index = from->index, .base_offset = p->end, .log_append_time_ms = -1, .error_message = SLICE_NULL};
    for (struct slice rest = from->records.bytes; rest.n && !batch_header_read(rest, &h, NULL);) {
        p->end += h.last_offset_delta + 1;
        size_t n = batch_size(&h) < rest.n ? batch_size(&h) : rest.n;
        rest = slice_of(rest.p + n, rest.n - n);
    }
}

/* NULL: acks=0 is not answered. */
static void *produce(struct null_broker *b, const void *request)
{
    const struct kp_produce_request *q = request;
    struct kp_produce_response *a = ARENA_NEW(&b->arena, struct kp_produce_response);
    kp_init(&kp_produce_response_message, a);
    a->responses = ARENA_NEWS(&b->arena, struct kp_produce_response_responses, q->topic_data_n);
    for (a->responses_n = 0; a->responses_n < q->topic_data_n; a->responses_n++) {
        const struct kp_produce_request_topic_data *from = &q->topic_data[a->responses_n];
        struct kp_produce_response_responses *t = &a->responses[a->responses_n];
        t->name = from->name;
        t->partition_responses =
            ARENA_NEWS(&b->arena, struct kp_produce_response_partition_responses, from->partition_data_n);
        for (int32_t i = 0; i < from->partition_data_n; i++)
            produced(b, &from->partition_data[i], &t->partition_responses[t->partition_responses_n++]);
    }
    return q->acks ? a : NULL;
}

/* Whole batches from `offset` on, at least one. */
static struct slice canned(struct null_broker *b, int32_t index, int64_t offset, int32_t bytes_max)
{
    struct null_partition *p = &b->partitions[partitions_of(b, index)];
    size_t each = b->batch.n;
    if (!p->canned) {
        p->canned = malloc(each * (size_t)b->canned_n);
        for (int i = 0; i < b->canned_n; i++)
            memcpy(p->canned + (size_t)i * each, b->batch.p, each);
    }
    size_t n = bytes_max > 0 ? (size_t)bytes_max / each : 0;
    n = n < 1 ? 1 : n < (size_t)b->canned_n ? n : (size_t)b->canned_n;
    for (size_t i = 0; i < n; i++)
        batch_offset_set(p->canned + i * each, offset + (int64_t)i * b->batch_records);
    return slice_of(p->canned, n * each);
}

static void *fetch(struct null_broker *b, const void *request)
{
    const struct kp_fetch_request *q = request;
    struct kp_fetch_response *a = ARENA_NEW(&b->arena, struct kp_fetch_response);
    kp_init(&kp_fetch_response_message, a);
    a->responses = ARENA_NEWS(&b->arena, struct kp_fetch_response_responses, q->topics_n);
    for (a->responses_n = 0; a->responses_n < q->topics_n; a->responses_n++) {
        const struct kp_fetch_request_topics *from = &q->topics[a->responses_n];
        struct kp_fetch_response_responses *t = &a->responses[a->responses_n];
        t->topic = from->topic;
        t->partitions = ARENA_NEWS(&b->arena, struct kp_fetch_response_partitions, from->partitions_n);
        for (int32_t i = 0; i < from->partitions_n; i++) {
            const struct kp_fetch_request_partitions *f = &from->partitions[i];
            t->partitions[t->partitions_n++] = (struct kp_fetch_response_partitions){
                .partition_index = f->partition,
                .high_watermark = INT64_MAX / 2,
                .last_stable_offset = INT64_MAX / 2,
                .preferred_read_replica = -1,
                .records = {.bytes = canned(b, f->partition, f->fetch_offset, f->partition_max_bytes)}};
        }
    }
    return a;
}

/* ---- frames ---- */

static void send_pieces(int fd, const struct kp_pieces *out)
{
    struct iovec v[PIECES_MAX], *at = v;
    int n = 0;
    if (out->n > PIECES_MAX)
        BENCH_DIE("an answer of %zu pieces", out->n);
    for (size_t i = 0; i < out->n; i++)
        v[n++] = (struct iovec){(void *)(uintptr_t)out->v[i].bytes.p, out->v[i].bytes.n};
    while (n > 0) {
        ssize_t sent = writev(fd, at, n);
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

static void *answer_of(struct null_broker *b, int16_t key, const void *request)
{
    switch (key) {
    case kp_key_produce: return produce(b, request);
    case kp_key_fetch: return fetch(b, request);
    case kp_key_list_offsets: return list_offsets(b, request);
    case kp_key_metadata: return metadata(b, request);
    case kp_key_find_coordinator: return find_coordinator(b, request);
    case kp_key_init_producer_id: return init_producer_id(b, request);
    case kp_key_api_versions: return api_versions(b, request);
    default: BENCH_DIE("API %d is not served", key);
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
    void *answer = answer_of(b, h.api_key, request);
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

static int listen_on(int port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
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

int main(int argc, char **argv)
{
    if (argc < 4)
        BENCH_DIE("PORT PARTITIONS RECORD_BYTES [BATCH_BYTES]");
    size_t size = strtoul(argv[3], NULL, 10), batch_bytes = argc > 4 ? strtoul(argv[4], NULL, 10) : 64000;
    struct null_broker b = {.port = atoi(argv[1]), .partitions_n = atoi(argv[2])};
    b.batch_records = (int)(batch_bytes / (size + 12)) > 0 ? (int)(batch_bytes / (size + 12)) : 1;
    buf_init(&b.batch, 1u << 28), buf_init(&b.read, 1u << 28);
    arena_init(&b.arena, 1u << 28);
    bench_batch(&b.batch, b.batch_records, size, 0);
    b.canned_n = (int)(CANNED_BYTES / b.batch.n) > 0 ? (int)(CANNED_BYTES / b.batch.n) : 1;
    b.partitions = calloc((size_t)b.partitions_n, sizeof *b.partitions);
    int listener = listen_on(b.port);
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
