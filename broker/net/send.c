/* Answers leave in the order of their requests: memory in gathered writes, log segments by sendfile. */
#include "broker/net/internal.h"

#define IOV_PIECES    64
#define SEGMENT_MAX   ((size_t)1 << 20) /* of one sendfile */
#define SEND_PER_TURN ((size_t)4 << 20) /* then the other connections have their turn */

/* An answer that the front of the queue has: what may be sent now. */
static struct api_request *sendable(const struct connection *c, struct list *at)
{
    if (at == &c->queue)
        return NULL;
    struct api_request *req = LIST_ENTRY(at, struct api_request, link);
    return req->answered && !req->failure ? req : NULL;
}

/* Memory pieces up to the first segment, of as many answers as are ready. */
static int gather(const struct connection *c, struct iovec v[IOV_PIECES])
{
    int n = 0;
    size_t piece = c->piece, at = c->piece_at;
    for (struct list *l = c->queue.next;; l = l->next, piece = 0) {
        struct api_request *req = sendable(c, l);
        if (!req)
            return n;
        assert(piece < req->out.n); /* an answer that is out is not in the queue */
        for (; piece < req->out.n; piece++, at = 0) {
            const struct kp_piece *p = &req->out.v[piece];
            assert(n <= IOV_PIECES);
            if (p->segment.file || n == IOV_PIECES)
                return n;
            assert(at < p->bytes.n);
            v[n++] = (struct iovec){(void *)(uintptr_t)(p->bytes.p + at), p->bytes.n - at};
        }
    }
}

static size_t piece_bytes(const struct kp_piece *p)
{
    return p->segment.file ? p->segment.size_bytes : p->bytes.n;
}

/* `n` more bytes have left: requests whose answer is out are finished. */
static void advance(struct connection *c, size_t n)
{
    while (n > 0) {
        struct api_request *req = sendable(c, c->queue.next);
        assert(req);
        assert(c->piece < req->out.n);
        assert(c->piece_at < piece_bytes(&req->out.v[c->piece]));
        size_t left = piece_bytes(&req->out.v[c->piece]) - c->piece_at;
        size_t take = n < left ? n : left;
        n -= take;
        c->piece_at += take;
        if (take < left)
            return;
        c->piece_at = 0;
        if (++c->piece == req->out.n) {
            c->piece = 0;
            connection_finish(c, req);
        }
    }
}

static ssize_t send_some(struct connection *c, const struct api_request *front)
{
    struct iovec v[IOV_PIECES];
    int n = gather(c, v);
    if (n > 0)
        return net_writev(c->socket, v, n);
    const struct kp_segment *s = &front->out.v[c->piece].segment;
    assert(s->file);
    assert(c->piece_at < s->size_bytes);
    assert(s->position >= 0);
    size_t left = s->size_bytes - c->piece_at;
    ssize_t sent = net_sendfile(c->socket, s->file, s->position + (int64_t)c->piece_at,
                                left < SEGMENT_MAX ? left : SEGMENT_MAX);
    return sent == 0 ? -E_TRUNCATED : sent; /* the log has fewer bytes than its index said */
}

void send_answers(struct connection *c)
{
    size_t total = 0;
    assert(c->socket);
    while (!list_empty(&c->queue)) {
        struct api_request *front = LIST_ENTRY(c->queue.next, struct api_request, link);
        if (front->started && !front->answered)
            return; /* it may be at another shard: nothing else of it is looked at */
        if (front->failure) {
            connection_close(c, front->failure);
            return;
        }
        if (!front->answered)
            return;
        if (total >= SEND_PER_TURN) {
            connection_work(c);
            return;
        }
        ssize_t sent = send_some(c, front);
        if (sent == -E_AGAIN) {
            if (!c->blocked_since_us)
                c->blocked_since_us = server_now(c->server);
            return;
        }
        if (sent < 0) {
            connection_close(c, sent == -E_TRUNCATED ? "a log segment ends early" : NULL);
            return;
        }
        c->blocked_since_us = 0;
        c->active_us = server_now(c->server);
        metric_add(c->server->sent, sent);
        total += (size_t)sent;
        advance(c, (size_t)sent);
    }
}
