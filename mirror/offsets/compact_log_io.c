#include <assert.h>

#include "mirror/offsets/compact_log_internal.h"

/* ---- reading ---- */

static void read_done(struct compact_log *l, int status)
{
    assert(l->read.active && !l->read.call && l->read.next <= l->read.upto);
    l->read.active = false;
    compact_healed(l);
    l->read.done(l->read.arg, status, l->read.next);
}

static void read_later(struct compact_log *l, const char *why)
{
    compact_say(l, "topic %s cannot be read: %s", l->name, why);
    loop_timer_in(&l->read.again, compact_pause_us(l));
}

/* Hands out the records of one batch at or after `next`. */
static int read_batch(struct compact_log *l, const struct batch_header *h, struct slice batch)
{
    struct slice payload;
    struct codec_limits limits = codec_limits_for(PAYLOAD_MAX);
    struct record_walk w;
    struct record r;
    buf_clear(&l->read.scratch);
    int rc = batch_payload(h, batch, &limits, &l->read.scratch, &payload, NULL);
    if (rc)
        return rc;
    record_walk_init(&w, h, payload);
    while ((rc = record_next(&w, &r)) == 1) {
        if (r.offset < l->read.next || r.offset >= l->read.upto || batch_is(h, BATCH_CONTROL))
            continue;
        struct compact_record out = {r.offset, r.timestamp, r.key, r.value};
        l->read.each(l->read.arg, &out);
    }
    return rc;
}

static int read_batches(struct compact_log *l, struct slice bytes)
{
    while (bytes.n >= BATCH_HEADER_BYTES) {
        struct batch_header h;
        int rc = batch_read(bytes, &h, NULL);
        if (rc == -E_TRUNCATED)
            return 0; /* the rest comes with the next fetch */
        if (!rc)
            rc = read_batch(l, &h, slice_of(bytes.p, batch_size(&h)));
        if (rc)
            return rc;
        if (batch_last_offset(&h) >= l->read.next)
            l->read.next = batch_last_offset(&h) + 1;
        if (l->read.next >= l->read.upto) {
            l->read.next = l->read.upto;
            return 0;
        }
        bytes = slice_of(bytes.p + batch_size(&h), bytes.n - batch_size(&h));
    }
    return 0;
}

static void fetched(struct compact_log *l, const struct kp_fetch_response_partitions *p)
{
    if (p->error_code == KE_OFFSET_OUT_OF_RANGE) {
        bool below = l->read.next < p->log_start_offset && p->log_start_offset <= l->read.upto;
        if (below)
            l->read.next = p->log_start_offset;
        read_done(l, below ? 0 : -E_RANGE);
        return;
    }
    if (p->error_code) {
        read_later(l, kafka_error_name(p->error_code));
        return;
    }
    int64_t before = l->read.next;
    int rc = read_batches(l, p->records.bytes);
    if (rc)
        read_done(l, -E_CORRUPT);
    else if (l->read.next > before)
        read_done(l, 0);
    else if (p->high_watermark >= l->read.upto && p->records.bytes.n == 0) {
        l->read.next = l->read.upto; /* compacted away up to there */
        read_done(l, 0);
    } else
        loop_timer_in(&l->read.again, BACKOFF_MIN_US);
}

static void on_fetched(void *arg, const struct client_response *r)
{
    struct compact_log *l = arg;
    l->read.call = NULL;
    if (r->status) {
        read_later(l, r->err ? r->err->text : err_str(r->status));
        return;
    }
    const struct kp_fetch_response *a = r->body;
    if (a->error_code || a->responses_n != 1 || a->responses[0].partitions_n != 1) {
        read_later(l, kafka_error_name(a->error_code ? a->error_code : KE_UNKNOWN_SERVER_ERROR));
        return;
    }
    fetched(l, &a->responses[0].partitions[0]);
}

static struct client_call *fetch_call(struct compact_log *l)
{
    struct client_call *c = compact_call(l, kp_key_fetch, CLIENT_LEADER, CLIENT_RETRY_SAFE, 12, on_fetched);
    struct kp_fetch_request *q = c ? c->body : NULL;
    struct kp_fetch_request_topics *t = c ? ARENA_NEWS(c->arena, struct kp_fetch_request_topics, 1) : NULL;
    struct kp_fetch_request_partitions *p =
        c ? ARENA_NEWS(c->arena, struct kp_fetch_request_partitions, 1) : NULL;
    if (!t || !p) {
        if (c)
            client_cancel(l->client, c);
        return NULL;
    }
    *p = (struct kp_fetch_request_partitions){.current_leader_epoch = -1,
                                              .fetch_offset = l->read.next,
                                              .last_fetched_epoch = -1,
                                              .log_start_offset = -1,
                                              .partition_max_bytes = FETCH_BYTES,
                                              .high_watermark = INT64_MAX};
    *t = (struct kp_fetch_request_topics){.topic = slice_str(l->name), .partitions = p, .partitions_n = 1};
    q->replica_id = -1;
    q->max_wait_ms = 100;
    q->min_bytes = 1;
    q->max_bytes = FETCH_BYTES;
    q->session_epoch = -1;
    q->topics = t;
    q->topics_n = 1;
    return c;
}

void compact_fetch(void *arg)
{
    struct compact_log *l = arg;
    assert(l->read.active && !l->read.call);
    l->read.call = fetch_call(l);
    if (l->read.call)
        client_send(l->client, l->read.call);
    else
        read_later(l, "too many requests are open");
}

int compact_log_read(struct compact_log *l, int64_t from, int64_t upto,
                     void (*each)(void *arg, const struct compact_record *r),
                     void (*done)(void *arg, int status, int64_t next), void *arg)
{
    assert(from >= 0 && from < upto);
    if (l->read.active)
        return -E_BUSY;
    l->read.active = true;
    l->read.next = from;
    l->read.upto = upto;
    l->read.each = each;
    l->read.done = done;
    l->read.arg = arg;
    loop_timer_in(&l->read.again, 0);
    return 0;
}

/* ---- appending ---- */

static void append_later(struct compact_log *l, const char *why)
{
    compact_say(l, "topic %s cannot be written: %s", l->name, why);
    loop_timer_in(&l->append.again, compact_pause_us(l));
}

static void on_produced(void *arg, const struct client_response *r)
{
    struct compact_log *l = arg;
    l->append.call = NULL;
    if (r->status) {
        append_later(l, r->err ? r->err->text : err_str(r->status));
        return;
    }
    const struct kp_produce_response *a = r->body;
    if (a->responses_n != 1 || a->responses[0].partition_responses_n != 1) {
        append_later(l, "an answer without its partition");
        return;
    }
    const struct kp_produce_response_partition_responses *p = &a->responses[0].partition_responses[0];
    if (p->error_code) {
        if (p->error_code == KE_UNKNOWN_TOPIC_OR_PARTITION || p->error_code == KE_UNKNOWN_TOPIC_ID)
            compact_reopen(l);
        append_later(l, kafka_error_name(p->error_code));
        return;
    }
    if (p->base_offset < 0 || p->base_offset > INT64_MAX / 2) {
        append_later(l, "an answer without its offset");
        return;
    }
    compact_healed(l);
    assert(l->append.active);
    l->append.active = false;
    l->append.done(l->append.arg, p->base_offset);
}

static struct client_call *produce_call(struct compact_log *l)
{
    struct client_call *c =
        compact_call(l, kp_key_produce, CLIENT_LEADER, CLIENT_RETRY_UNSENT, 9, on_produced);
    struct kp_produce_request *q = c ? c->body : NULL;
    struct kp_produce_request_topic_data *t =
        c ? ARENA_NEWS(c->arena, struct kp_produce_request_topic_data, 1) : NULL;
    struct kp_produce_request_partition_data *p =
        c ? ARENA_NEWS(c->arena, struct kp_produce_request_partition_data, 1) : NULL;
    if (!t || !p) {
        if (c)
            client_cancel(l->client, c);
        return NULL;
    }
    p->records.bytes = l->append.batch;
    *t = (struct kp_produce_request_topic_data){
        .name = slice_str(l->name), .partition_data = p, .partition_data_n = 1};
    q->acks = -1;
    q->timeout_ms = REQUEST_MS;
    q->topic_data = t;
    q->topic_data_n = 1;
    return c;
}

void compact_produce(void *arg)
{
    struct compact_log *l = arg;
    assert(l->append.active && !l->append.call);
    if (l->state != LOG_READY)
        return; /* on_end goes on with it */
    l->append.call = produce_call(l);
    if (l->append.call)
        client_send(l->client, l->append.call);
    else
        append_later(l, "too many requests are open");
}

int compact_log_append(struct compact_log *l, struct slice batch,
                       void (*done)(void *arg, int64_t base_offset), void *arg)
{
    assert(batch.n >= BATCH_HEADER_BYTES);
    if (l->append.active)
        return -E_BUSY;
    l->append.active = true;
    l->append.batch = batch;
    l->append.done = done;
    l->append.arg = arg;
    loop_timer_in(&l->append.again, 0);
    return 0;
}
