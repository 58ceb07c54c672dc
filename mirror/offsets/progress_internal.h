/* What progress.c (opening, reading, the store's commit) and progress_write.c (one commit, writing all again) share. */
#ifndef SUNDOG_MIRROR_OFFSETS_PROGRESS_INTERNAL_H
#define SUNDOG_MIRROR_OFFSETS_PROGRESS_INTERNAL_H

#include "base/core/hash.h"
#include "mirror/offsets/progress.h"
#include "proto/kafka/batch.h"

/* reading → opened; reading → rewriting → opened when the topic was lost, opened → rewriting when it is lost later. */
enum progress_state { PROGRESS_READING, PROGRESS_OPENED, PROGRESS_REWRITING };

/* A topic's id, or '/' and its name. */
struct topic_hash_key {
    uint8_t bytes[512];
};

struct topic_entry {
    struct topic_hash_key key;
    uint32_t number;
    bool named; /* the store knows its names: a run that is read before its position has but the id */
    UT_hash_handle hh;
};

struct offer_entry {
    int32_t partition;
    struct map_producer_id id;
    UT_hash_handle hh;
};

/* An offer of our own in a commit: its offset is known when its batch has been appended. */
struct own_offer {
    int32_t partition;
    struct map_producer_id id;
    size_t piece;
    int32_t index;
};

/* One batch of a commit, in `records`. */
struct piece {
    size_t at, n;
    int32_t records;
    int64_t base; /* once appended */
};

struct progress {
    struct loop *loop;
    struct store *store;
    struct compact_log *log;
    char *flow_name, *topic;
    void (*ready)(void *arg);
    void (*trouble)(void *arg, const char *text);
    void (*stale)(void *arg, uint32_t topic, int32_t p);
    void *arg;
    void (*closed)(void *arg);
    void *closed_arg;

    enum progress_state state;
    bool said_ready, stored, failed, log_seen;
    bool rewrite; /* the topic is another one: everything must be written to it */
    struct uuid topic_id;
    struct stored_flow flow; /* the name is flow_name */
    int64_t read_next, read_upto, records_read, unreadable;
    struct topic_entry *topics;
    struct offer_entry *offers;

    struct store_batch *batch, *job_batch; /* filling; being committed */
    struct loop_job job;
    bool job_running, store_failing;
    int job_status;
    struct err job_err;
    struct loop_timer store_again;

    /* the commit being filled or under way */
    bool committing;
    void (*done)(void *arg);
    void *done_arg;
    struct buf records, key, value;
    struct piece *pieces;
    size_t pieces_n, pieces_cap, appended;
    bool building;
    struct batch_builder builder;
    struct own_offer *own_offers;
    size_t own_offers_n, own_offers_cap;
    int64_t foreign_from; /* others have written from here on, -1: nobody has */
};

void progress_dispose(struct progress *p);
/* Commits the batch to the store; progress_stored follows. */
void progress_store(struct progress *p);
void progress_stored(struct progress *p);
void progress_rewrite(struct progress *p);
void progress_topic_drop(struct progress *p, const struct topic_key *key);
void progress_offer_enter(struct progress *p, int32_t partition, const struct map_producer_id *id);
void progress_apply_foreign(struct progress *p, const struct compact_record *r);

#endif
