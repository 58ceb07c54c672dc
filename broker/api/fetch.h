/* Fetch as a small machine at its home shard and a part on each shard that owns partitions of it; see fetch.c. */
#ifndef SUNDOG_BROKER_API_FETCH_H
#define SUNDOG_BROKER_API_FETCH_H

#include "broker/api/api.h"
#include "broker/log/log.h"
#include "broker/partition/partition.h"

struct fetch;
struct fetch_part;

/* One partition of the request, in the request's order. */
struct fetch_item {
    struct fetch_item *next; /* of the same part */
    struct fetch_part *part;
    struct uuid topic_id; /* as it was asked for by id, else as it is known; zero: not known */
    const struct kp_fetch_request_partitions *in;
    struct kp_fetch_response_partitions *out;
    int64_t max_bytes;
    struct log_slice slice;
    struct kp_segment segment;
    /* While parked. */
    struct partition_wait wait;
    uint64_t read_at_bytes; /* partition_committed_bytes when it was read */
    int64_t coming_bytes;   /* what has come since, as far as it counts */
};

/* The items of one shard. READ and WATCH are calls to it; a watch ends when enough has come, something has changed, or
 * it is cancelled. */
struct fetch_part {
    struct shard_call call, cancel;
    struct fetch *fetch;
    struct fetch_item *first, **last;
    bool watching;      /* at home: a WATCH is under way */
    bool parked;        /* on the part's shard: its waits are set */
    int64_t need_bytes; /* that must come for the watch to end */
    int64_t coming_bytes;
    bool urgent; /* read: an error, or a divergence: the answer must not wait */
};

enum fetch_state { FETCH_READING, FETCH_WATCHING, FETCH_CANCELLING, FETCH_ANSWERED };

struct fetch {
    struct api_request *req;
    const struct kp_fetch_request *in;
    struct kp_fetch_response *out;
    struct fetch_item *items;
    size_t items_n;
    struct fetch_part *parts; /* by shard */
    enum fetch_state state;
    unsigned left; /* calls under way, and one while they are being made */
    int64_t min_bytes, max_bytes, deadline_us;
    enum partition_isolation isolation;
    bool refused;                      /* some item is answered by an error without being read */
    int32_t session_id, session_epoch; /* goes on with it, which is at this epoch then; else 0 */
    bool last;                         /* the next read is answered whatever it gives */
    struct loop_timer timer;
    struct api_release release;
};

/* fetch_session.c. The request's session is moved on; KE_NONE, or why it is not. `*session` NULL: all is in the
 * request. */
struct fetch_session;
int16_t fetch_session_request(struct fetch *f, struct fetch_session **session);
/* When the answer has been made: what of it is said. */
void fetch_session_answer(struct fetch *f);

/* fetch_read.c: on the part's shard. */
void fetch_part_read(struct fetch_part *part);
/* At home, after the parts: what of it fits in the request's limits; the bytes. */
int64_t fetch_limit(struct fetch *f);
void fetch_drop_slices(struct fetch *f);

#endif
