/* Plain values ⇄ protobuf bytes: the only place that packs and unpacks proto/sundog. Decoding copies into the arena;
 * what cannot be decoded, or makes no sense (negative offsets, a count of 0), is -E_CORRUPT. Pure. */
#ifndef SUNDOG_MIRROR_OFFSETS_CODEC_H
#define SUNDOG_MIRROR_OFFSETS_CODEC_H

#include "base/core/buf.h"
#include "mirror/offsets/types.h"

enum progress_kind { PROGRESS_POSITION = 1, PROGRESS_RUN = 2, PROGRESS_PRODUCER_ID = 3 };

#define PROGRESS_NONCE_BYTES 16

struct progress_key {
    enum progress_kind kind;
    struct topic_key topic; /* POSITION, RUN; the name only where there is no id */
    int32_t p;
    int64_t src_start;                   /* RUN */
    uint8_t nonce[PROGRESS_NONCE_BYTES]; /* PRODUCER_ID */
};

int progress_key_encode(const struct progress_key *k, struct buf *out);
int progress_key_decode(struct slice in, struct arena *a, struct progress_key *out);

/* Values of the progress topic; positions also in the store. */
int position_encode(const struct map_position *p, struct buf *out);
int position_decode(struct slice in, struct arena *a, struct map_position *out);
int run_encode(const struct map_run *r, struct buf *out);
int run_decode(struct slice in, struct arena *a, int64_t src_start, struct map_run *out);
int producer_id_encode(const struct map_producer_id *id, struct buf *out);
int producer_id_decode(struct slice in, struct arena *a, struct map_producer_id *out);

/* Values of the store alone. */
struct stored_flow {
    uint32_t number;
    struct slice name;
    struct uuid progress_topic_id;
    int64_t progress_next;
};
struct stored_topic {
    uint32_t number, flow;
    struct topic_key topic;
    struct slice target_topic;
    struct uuid target_topic_id;
};

int stored_flow_encode(const struct stored_flow *f, struct buf *out);
int stored_flow_decode(struct slice in, struct arena *a, struct stored_flow *out);
int stored_topic_encode(const struct stored_topic *t, struct buf *out);
int stored_topic_decode(struct slice in, struct arena *a, struct stored_topic *out);
int stored_alias_encode(struct slice cluster_id, struct buf *out);
int stored_alias_decode(struct slice in, struct arena *a, struct slice *cluster_id);
int stored_run_encode(int64_t other_start, int64_t count, struct buf *out);
int stored_run_decode(struct slice in, struct arena *a, int64_t *other_start, int64_t *count);
int stored_producer_id_encode(const struct map_producer_id *id, struct buf *out);
int stored_producer_id_decode(struct slice in, struct arena *a, struct map_producer_id *out);
int stored_group_encode(const struct group_entry *g, struct buf *out);
int stored_group_decode(struct slice in, struct arena *a, struct group_entry *out);
int stored_event_encode(const struct ledger_event *e, struct buf *out);
int stored_event_decode(struct slice in, struct arena *a, struct ledger_event *out);

#endif
