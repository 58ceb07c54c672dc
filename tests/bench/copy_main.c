/* bench_copy: a bare raw mirror, the yardstick of the batch engine: batches go from Fetch answers into Produce
 * requests as they lie, with producer, sequence and CRC written anew. One connection each way, one Fetch and five
 * Produce requests under way, one batch a request. No position is kept, nothing is checked, any error ends it.
 *
 *   bench_copy SOURCE TOPIC TARGET TARGET_TOPIC PARTITIONS SECONDS [COUNT]
 * Ends after so many seconds or records, the first tenth of either unheard. One JSON line.
 *
 *     source ─► frames[reading] ─► (full) frames[taking] ─► batches[] ─► out[] ─► target
 * The next Fetch leaves as soon as an answer has been looked through; its bytes are free once the kernel has them. */
#include "tests/bench/bench.h"

#include "base/core/bytes.h"
#include "proto/kafka/batch.h"
#include "proto/kafka/errors.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define INFLIGHT_MAX    5
#define PARTITION_BYTES (1 << 20)
#define FETCH_BYTES     (50 << 20)
#define HEAD_BYTES      512 /* of a Produce request, in front of its batch */
#define FETCH_VERSION   11
#define PRODUCE_VERSION 7
#define PRODUCER_TRIES  300
#define NONE            (-1)

struct frame {
    uint8_t *bytes;
    size_t have, size, room; /* size 0: not known yet; without its four bytes */
};

struct part {
    int64_t next;
    int32_t sequence;
};

struct head {
    uint8_t bytes[HEAD_BYTES];
    size_t n;
};

struct copy {
    const char *topic, *target_topic;
    int source, target, partitions;
    struct part *parts;
    struct frame frames[2];
    int reading, taking; /* of `frames`; NONE */
    int first;           /* the partition that the next Fetch names first */
    bool asked;
    struct batch {
        uint8_t *p;
        size_t n;
        int partition, records;
    } * batches;
    size_t batches_n, batches_room, at; /* of frames[taking]; those before `at` have been queued */
    struct iovec out[2 * INFLIGHT_MAX];
    int out_n, out_at;
    struct head heads[INFLIGHT_MAX];
    struct buf request, answers;
    struct arena arena;
    int64_t producer_id, records, bytes, sent, acked;
};

/* ---- source ---- */

static void ask(struct copy *c)
{
    const struct kp_api *api = kp_api_find(kp_key_fetch);
    struct kp_request_header h = {kp_key_fetch, FETCH_VERSION, 1, SLICE_LIT("copy")};
    struct kp_fetch_request q;
    arena_reset(&c->arena);
    struct kp_fetch_request_partitions *p =
        ARENA_NEWS(&c->arena, struct kp_fetch_request_partitions, c->partitions);
    for (int i = 0; i < c->partitions; i++) {
        int index = (c->first + i) % c->partitions;
        p[i] = (struct kp_fetch_request_partitions){.partition = index,
                                                    .current_leader_epoch = -1,
                                                    .fetch_offset = c->parts[index].next,
                                                    .log_start_offset = -1,
                                                    .partition_max_bytes = PARTITION_BYTES};
    }
    struct kp_fetch_request_topics t = {
        .topic = slice_str(c->topic), .partitions = p, .partitions_n = c->partitions};
    kp_init(&api->request, &q);
    q.replica_id = -1, q.max_wait_ms = 500, q.min_bytes = 1, q.max_bytes = FETCH_BYTES;
    q.topics = &t, q.topics_n = 1;
    buf_clear(&c->request);
    if (kp_request_frame(api, &h, &q, &c->request))
        BENCH_DIE("encode Fetch");
    bench_write_all(c->source, c->request.p, c->request.n);
    c->asked = true;
}

static void add_batches(struct copy *c, int partition, struct slice rest)
{
    struct batch_header h;
    while (rest.n && !batch_header_read(rest, &h, NULL) && batch_size(&h) <= rest.n) {
        if (c->batches_n == c->batches_room) {
            c->batches_room = c->batches_room ? 2 * c->batches_room : 1024;
            c->batches = realloc(c->batches, c->batches_room * sizeof *c->batches);
        }
        c->batches[c->batches_n++] =
            (struct batch){(uint8_t *)(uintptr_t)rest.p, batch_size(&h), partition, h.records_n};
        c->parts[partition].next = batch_last_offset(&h) + 1;
        rest = slice_of(rest.p + batch_size(&h), rest.n - batch_size(&h));
    }
}

/* Looks through the full frame. */
static void take_frame(struct copy *c)
{
    const struct kp_api *api = kp_api_find(kp_key_fetch);
    struct slice in = slice_of(c->frames[c->taking].bytes + 4, c->frames[c->taking].size);
    struct kp_fetch_response a;
    int32_t correlation;
    size_t used;
    arena_reset(&c->arena);
    c->batches_n = c->at = 0;
    if (kp_response_header_decode(api, FETCH_VERSION, in, &correlation, &used) ||
        kp_decode(&api->response, FETCH_VERSION, slice_of(in.p + used, in.n - used), &c->arena, &a, NULL,
                  NULL))
        BENCH_DIE("Fetch response");
    for (int32_t i = 0; a.responses_n == 1 && i < a.responses[0].partitions_n; i++) {
        const struct kp_fetch_response_partitions *p = &a.responses[0].partitions[i];
        if (p->error_code)
            BENCH_DIE("Fetch: %s", kafka_error_name(p->error_code));
        if (p->records.bytes.n)
            c->first = (p->partition_index + 1) % c->partitions;
        add_batches(c, p->partition_index, p->records.bytes);
    }
}

/* Some bytes of an answer; false: there are none at present. */
static bool read_some(struct copy *c)
{
    struct frame *f = &c->frames[c->reading];
    size_t want = f->size ? 4 + f->size - f->have : f->room - f->have;
    ssize_t n = read(c->source, f->bytes + f->have, want);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0)
        BENCH_DIE("the source closed the connection");
    f->have += (size_t)n;
    if (f->size || f->have < 4)
        return true;
    f->size = be32_get(f->bytes);
    if (f->size + 4 > f->room) {
        f->room = f->size + 4;
        f->bytes = realloc(f->bytes, f->room);
    }
    return true;
}

static bool frame_full(const struct frame *f)
{
    return f->size && f->have == 4 + f->size;
}

/* ---- target ---- */

/* Before the batch itself come the rows of its request, written by hand: the batch is not to be copied. */
static void write_head(struct copy *c, struct head *h, const struct batch *b)
{
    size_t name = strlen(c->target_topic);
    uint8_t *p = h->bytes + 4;
    be16_put(p, kp_key_produce), be16_put(p + 2, PRODUCE_VERSION), be32_put(p + 4, (uint32_t)c->sent);
    be16_put(p + 8, 4), memcpy(p + 10, "copy", 4);
    be16_put(p + 14, UINT16_MAX); /* no transactional id */
    be16_put(p + 16, UINT16_MAX); /* acks=all */
    be32_put(p + 18, 30000), be32_put(p + 22, 1), be16_put(p + 26, (uint16_t)name);
    memcpy(p + 28, c->target_topic, name);
    p += 28 + name;
    be32_put(p, 1), be32_put(p + 4, (uint32_t)b->partition), be32_put(p + 8, (uint32_t)b->n);
    h->n = (size_t)(p + 12 - h->bytes);
    be32_put(h->bytes, (uint32_t)(h->n - 4 + b->n));
}

static void queue_batches(struct copy *c)
{
    c->out_n = c->out_at = 0;
    for (int n = 0; c->at < c->batches_n && c->sent - c->acked < INFLIGHT_MAX; n++) {
        struct batch *b = &c->batches[c->at++];
        struct part *p = &c->parts[b->partition];
        batch_offset_set(b->p, 0);
        batch_leader_epoch_set(b->p, -1);
        be64_put(b->p + 43, (uint64_t)c->producer_id);
        be16_put(b->p + 51, 0);
        be32_put(b->p + 53, (uint32_t)p->sequence);
        be32_put(b->p + BATCH_CRC_AT, batch_crc(slice_of(b->p, b->n)));
        p->sequence = batch_sequence_add(p->sequence, b->records);
        write_head(c, &c->heads[n], b);
        c->out[c->out_n++] = (struct iovec){c->heads[n].bytes, c->heads[n].n};
        c->out[c->out_n++] = (struct iovec){b->p, b->n};
        c->sent++;
        c->records += b->records;
        c->bytes += (int64_t)b->n;
    }
}

static bool write_some(struct copy *c)
{
    ssize_t n = writev(c->target, c->out + c->out_at, c->out_n - c->out_at);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n < 0)
        BENCH_DIE("the target closed the connection");
    for (size_t left = (size_t)n; left;) {
        struct iovec *v = &c->out[c->out_at];
        size_t part = left < v->iov_len ? left : v->iov_len;
        v->iov_base = (uint8_t *)v->iov_base + part;
        v->iov_len -= part;
        left -= part;
        c->out_at += v->iov_len == 0;
    }
    return true;
}

static bool take_acks(struct copy *c)
{
    uint8_t *room = buf_room(&c->answers, 65536);
    ssize_t n = read(c->target, room, 65536);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0)
        BENCH_DIE("the target closed the connection");
    buf_added(&c->answers, (size_t)n);
    size_t at = 0;
    while (c->answers.n - at >= 4 && c->answers.n - at - 4 >= be32_get(c->answers.p + at)) {
        size_t size = be32_get(c->answers.p + at);
        int16_t code = bench_produce_error(slice_of(c->answers.p + at + 4, size));
        if (code)
            BENCH_DIE("Produce: %s", kafka_error_name(code));
        at += 4 + size;
        c->acked++;
    }
    buf_drop(&c->answers, at);
    return true;
}

/* ---- the whole ---- */

/* All that can be done now; false: nothing. */
static bool turn(struct copy *c)
{
    bool moved = false;
    if (c->taking == NONE && frame_full(&c->frames[c->reading])) {
        c->taking = c->reading;
        c->reading ^= 1;
        c->frames[c->reading].have = c->frames[c->reading].size = 0;
        take_frame(c);
        ask(c);
        moved = true;
    }
    if (c->asked && !frame_full(&c->frames[c->reading]))
        moved |= read_some(c);
    if (c->out_at == c->out_n && c->taking != NONE) {
        queue_batches(c);
        if (c->out_n == 0 && c->at == c->batches_n)
            c->taking = NONE;
        moved |= c->out_n > 0 || c->taking == NONE;
    }
    if (c->out_at < c->out_n)
        moved |= write_some(c);
    if (c->sent > c->acked)
        moved |= take_acks(c);
    return moved;
}

static void wait_for_more(const struct copy *c)
{
    bool reading = c->asked && !frame_full(&c->frames[c->reading]);
    struct pollfd fds[2] = {{.fd = c->source, .events = (short)(reading ? POLLIN : 0)},
                            {.fd = c->target, .events = POLLIN}};
    if (c->out_at < c->out_n)
        fds[1].events |= POLLOUT;
    poll(fds, 2, 1000);
}

struct mark {
    double at, cpu;
    int64_t records, bytes;
};

static struct mark mark(const struct copy *c)
{
    return (struct mark){bench_now(), bench_cpu(), c->records, c->bytes};
}

static void run(struct copy *c, double seconds, int64_t count)
{
    struct mark begin = mark(c), from = {0}, to;
    ask(c);
    for (;;) {
        double late = (bench_now() - begin.at) / seconds, done = (double)c->records / (double)count;
        if (!from.at && (late >= 0.1 || done >= 0.1))
            from = mark(c);
        if (late >= 1 || (done >= 1 && c->acked == c->sent))
            break;
        if (!turn(c))
            wait_for_more(c);
    }
    to = mark(c);
    double took = to.at - from.at, records = (double)(to.records - from.records),
           bytes = (double)(to.bytes - from.bytes), cpu = to.cpu - from.cpu;
    printf("{\"bench\":\"copy\",\"records\":%lld,\"seconds\":%.3f,\"records_per_s\":%.0f,\"mb_per_s\":%.1f,"
           "\"cpu_s_per_million\":%.5f,\"cpu_s_per_gb\":%.4f}\n",
           (long long)to.records, took, records / took, bytes / took / 1e6, cpu / records * 1e6,
           cpu / bytes * 1e9);
}

static int64_t new_producer(int fd)
{
    struct kp_init_producer_id_request q;
    struct kp_init_producer_id_response a;
    struct arena arena;
    arena_init(&arena, 1u << 20);
    kp_init(&kp_api_find(kp_key_init_producer_id)->request, &q);
    q.transactional_id = SLICE_NULL;
    for (int tries = 0; tries < PRODUCER_TRIES; tries++) {
        bench_call(fd, kp_api_find(kp_key_init_producer_id), 1, &q, &arena, &a);
        if (a.error_code != KE_COORDINATOR_LOAD_IN_PROGRESS)
            break;
        usleep(100000); /* a node that is new */
    }
    if (a.error_code)
        BENCH_DIE("InitProducerId: %s", kafka_error_name(a.error_code));
    arena_fini(&arena);
    return a.producer_id;
}

int main(int argc, char **argv)
{
    if (argc < 7 || atoi(argv[5]) < 1)
        BENCH_DIE("SOURCE TOPIC TARGET TARGET_TOPIC PARTITIONS SECONDS [COUNT]");
    struct copy c = {.topic = argv[2], .target_topic = argv[4], .partitions = atoi(argv[5]), .taking = NONE};
    if (strlen(c.target_topic) > 249)
        BENCH_DIE("a topic's name has 249 bytes at most");
    c.source = bench_connect(argv[1]);
    c.target = bench_connect(argv[3]);
    c.parts = calloc((size_t)c.partitions, sizeof *c.parts);
    for (int i = 0; i < 2; i++) {
        c.frames[i].room = 4 + (size_t)PARTITION_BYTES;
        c.frames[i].bytes = malloc(c.frames[i].room);
    }
    buf_init(&c.request, 1u << 26), buf_init(&c.answers, 1u << 26), arena_init(&c.arena, 1u << 28);
    c.producer_id = new_producer(c.target);
    fcntl(c.source, F_SETFL, O_NONBLOCK);
    fcntl(c.target, F_SETFL, O_NONBLOCK);
    run(&c, strtod(argv[6], NULL), argc > 7 ? strtoll(argv[7], NULL, 10) : INT64_MAX);
    return 0;
}
