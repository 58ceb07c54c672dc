#include "mirror/sync/own_records.h"

#include <assert.h>

#define ASK_BYTES (1 << 20)
#define ASK_US    INT64_C(30000000)
#define EARLIEST  INT64_C(-2) /* ListOffsets' timestamp for it */

static void finish(struct own_records *o, enum own_records_answer answer, const char *why)
{
    assert(!o->call);
    o->done(o->arg, answer, why);
}

static bool is_marked(const struct record *r)
{
    struct slice rest = r->headers;
    struct record_header h;
    while (record_header_next(&rest, &h) == 1)
        if (slice_eq(h.key, SLICE_LIT(OWN_RECORDS_MARK)))
            return true;
    return false;
}

bool own_records_batch(const struct batch_header *h, struct slice batch)
{
    struct record_walk w;
    struct record r;
    int rc;
    if (h->records_n == 0)
        return true; /* compaction has left its frame */
    if (batch_codec(h) != CODEC_NONE || batch_is(h, BATCH_CONTROL))
        return false;
    record_walk_init(&w, h, slice_of(batch.p + BATCH_HEADER_BYTES, batch_size(h) - BATCH_HEADER_BYTES));
    while ((rc = record_next(&w, &r)) == 1)
        if (!is_marked(&r))
            return false;
    return rc == 0;
}

static struct client_call *call_of(struct own_records *o, int16_t api, int16_t min, int16_t max,
                                   void (*answered)(void *arg, const struct client_response *r))
{
    assert(!o->call);
    return client_ask(o->client,
                      &(struct client_ask){.api = api,
                                           .version_min = min,
                                           .version_max = max,
                                           .retry = CLIENT_RETRY_SAFE,
                                           .target = {.kind = CLIENT_LEADER, .name = slice_str(o->topic)},
                                           .timeout_us = ASK_US,
                                           .on_response = answered,
                                           .arg = o});
}

static void send(struct own_records *o, struct client_call *c, bool filled)
{
    if (c && filled) {
        o->call = c;
        client_send(o->client, c);
        return;
    }
    if (c)
        client_cancel(o->client, c);
    finish(o, OWN_RECORDS_UNKNOWN, "out of memory, or too many requests are under way");
}

static void fetch(struct own_records *o);

static void on_fetched(void *arg, const struct client_response *r)
{
    struct own_records *o = arg;
    const struct kp_fetch_response *m = r->status ? NULL : r->body;
    bool there = m && m->responses_n == 1 && m->responses[0].partitions_n == 1;
    int16_t error = there ? m->responses[0].partitions[0].error_code : KE_NONE;
    o->call = NULL;
    if (!there || error) {
        finish(o, OWN_RECORDS_UNKNOWN,
               error       ? kafka_error_name(error)
               : r->status ? r->err->text
                           : "no answer");
        return;
    }
    struct slice in = m->responses[0].partitions[0].records.bytes;
    int64_t before = o->at;
    while (o->at < o->until && in.n > 0) {
        struct batch_header h;
        int rc = batch_read(in, &h, NULL);
        if (rc == -E_TRUNCATED)
            break; /* the end of the answer */
        if (rc ||
            (batch_last_offset(&h) >= o->at && !own_records_batch(&h, slice_of(in.p, batch_size(&h))))) {
            finish(o, rc == -E_CORRUPT ? OWN_RECORDS_UNKNOWN : OWN_RECORDS_OTHERS,
                   "a batch that cannot be read");
            return;
        }
        if (batch_last_offset(&h) >= o->at)
            o->at = batch_last_offset(&h) + 1;
        in = slice_of(in.p + batch_size(&h), in.n - batch_size(&h));
    }
    if (o->at >= o->until)
        finish(o, OWN_RECORDS_ALL, NULL);
    else if (o->at == before)
        finish(o, OWN_RECORDS_UNKNOWN, "nothing could be read");
    else
        fetch(o);
}

static void fetch(struct own_records *o)
{
    struct client_call *c = call_of(o, kp_key_fetch, 4, 12, on_fetched); /* by name */
    struct kp_fetch_request_topics *t = c ? ARENA_NEW(c->arena, struct kp_fetch_request_topics) : NULL;
    struct kp_fetch_request_partitions *p =
        c ? ARENA_NEW(c->arena, struct kp_fetch_request_partitions) : NULL;
    if (t && p) {
        struct kp_fetch_request *r = c->body;
        *p = (struct kp_fetch_request_partitions){.current_leader_epoch = -1,
                                                  .fetch_offset = o->at,
                                                  .last_fetched_epoch = -1,
                                                  .log_start_offset = -1,
                                                  .partition_max_bytes = ASK_BYTES};
        *t = (struct kp_fetch_request_topics){
            .topic = slice_str(o->topic), .partitions = p, .partitions_n = 1};
        r->replica_id = -1;
        r->min_bytes = 1;
        r->max_bytes = ASK_BYTES;
        r->session_epoch = -1;
        r->topics = t;
        r->topics_n = 1;
    }
    send(o, c, t && p);
}

static void on_start(void *arg, const struct client_response *r)
{
    struct own_records *o = arg;
    const struct kp_list_offsets_response *m = r->status ? NULL : r->body;
    bool there = m && m->topics_n == 1 && m->topics[0].partitions_n == 1;
    int16_t error = there ? m->topics[0].partitions[0].error_code : KE_NONE;
    o->call = NULL;
    if (!there || error) {
        finish(o, OWN_RECORDS_UNKNOWN,
               error       ? kafka_error_name(error)
               : r->status ? r->err->text
                           : "no answer");
        return;
    }
    o->at = m->topics[0].partitions[0].offset;
    if (o->at >= o->until)
        finish(o, OWN_RECORDS_ALL, NULL);
    else
        fetch(o);
}

void own_records_look(struct own_records *o)
{
    assert(o->done && o->until >= 0);
    struct client_call *c = call_of(o, kp_key_list_offsets, 1, 7, on_start);
    struct kp_list_offsets_request_topics *t =
        c ? ARENA_NEW(c->arena, struct kp_list_offsets_request_topics) : NULL;
    struct kp_list_offsets_request_partitions *p =
        c ? ARENA_NEW(c->arena, struct kp_list_offsets_request_partitions) : NULL;
    if (t && p) {
        struct kp_list_offsets_request *r = c->body;
        *p = (struct kp_list_offsets_request_partitions){.current_leader_epoch = -1, .timestamp = EARLIEST};
        *t = (struct kp_list_offsets_request_topics){slice_str(o->topic), p, 1};
        r->replica_id = -1;
        r->topics = t;
        r->topics_n = 1;
    }
    send(o, c, t && p);
}

void own_records_cancel(struct own_records *o)
{
    if (o->call)
        client_cancel(o->client, o->call);
    o->call = NULL;
}
