#include "mirror/cli/session.h"

#include "proto/kafka/batch.h"

#include <limits.h>

#define SESSION_FETCH_BYTES (1 << 20)

typedef int each_batch(void *arg, const struct batch_header *h, struct slice payload, struct err *err);

static int walk(const struct kp_fetch_response_partitions *p, int64_t *next, each_batch *each, void *arg,
                struct err *err)
{
    struct slice rest = p->records.bytes;
    struct batch_header h;
    struct codec_limits limits = codec_limits_for(INT_MAX / 4);
    struct buf scratch;
    buf_init(&scratch, INT_MAX);
    int rc = 0;
    while (!rc && rest.n >= BATCH_HEADER_BYTES && batch_header_read(rest, &h, NULL) == 0 &&
           batch_size(&h) <= rest.n) {
        struct slice bytes = slice_of(rest.p, batch_size(&h)), payload;
        rest = slice_of(rest.p + bytes.n, rest.n - bytes.n);
        rc = batch_read(bytes, &h, err);
        if (!rc && !batch_is(&h, BATCH_CONTROL) && batch_last_offset(&h) >= *next) {
            buf_clear(&scratch);
            rc = batch_payload(&h, bytes, &limits, &scratch, &payload, err);
            rc = rc ? rc : each(arg, &h, payload, err);
        }
        if (!rc)
            *next = batch_last_offset(&h) + 1;
    }
    buf_fini(&scratch);
    return rc;
}

int session_fetch(struct session *s, struct slice topic, int32_t partition, int64_t *next,
                  int32_t max_wait_ms, each_batch *each, void *arg, struct err *err)
{
    struct kp_fetch_request_partitions p = {.partition = partition,
                                            .current_leader_epoch = -1,
                                            .fetch_offset = *next,
                                            .last_fetched_epoch = -1,
                                            .log_start_offset = -1,
                                            .partition_max_bytes = SESSION_FETCH_BYTES};
    struct kp_fetch_request_topics t = {.topic = topic, .partitions = &p, .partitions_n = 1};
    struct kp_fetch_request r;
    kp_init(&kp_fetch_request_message, &r);
    r.replica_id = -1;
    r.max_wait_ms = max_wait_ms;
    r.min_bytes = 1;
    r.max_bytes = SESSION_FETCH_BYTES;
    r.isolation_level = 1; /* read_committed */
    r.session_epoch = -1;
    r.topics = &t;
    r.topics_n = 1;
    struct session_reply reply;
    struct client_target leader = session_leader(topic, partition);
    int rc = session_call(s, &leader, kp_key_fetch, 4, 12, &r, &reply, err);
    if (rc)
        return rc;
    const struct kp_fetch_response *a = reply.body;
    if (a->responses_n != 1 || a->responses[0].partitions_n != 1)
        return err_set(err, -E_CORRUPT, "the broker's Fetch answer is not about %.*s-%d", SLICE_FMT(topic),
                       partition);
    const struct kp_fetch_response_partitions *got = &a->responses[0].partitions[0];
    if (got->error_code)
        return session_kafka_error(err, got->error_code, SLICE_NULL, "%.*s-%d", SLICE_FMT(topic), partition);
    return walk(got, next, each, arg, err);
}

int session_read(struct session *s, struct slice topic, int32_t partition, each_batch *each, void *arg,
                 struct err *err)
{
    enum { WAIT_MS = 50 };
    int64_t next, end;
    struct slice name = arena_dup(session_keep(s), topic);
    if (slice_is_null(name))
        return err_set(err, -E_NOMEM, "out of memory");
    int rc = session_offset(s, name, partition, -2, &next, err);
    rc = rc ? rc : session_offset(s, name, partition, -1, &end, err);
    while (!rc && next < end) {
        rc = session_fetch(s, name, partition, &next, WAIT_MS, each, arg, err);
        session_forget(s);
        if (!rc && session_left_ms(s) == 0)
            rc = err_set(err, -E_TIMEOUT, "%.*s-%d: read up to %lld of %lld", SLICE_FMT(name), partition,
                         (long long)next, (long long)end);
    }
    return rc;
}
