/* The mirror's store: one LMDB environment per daemon with positions, the offset map and its reverse, groups, producer
 * ids, pinned aliases and the ledger. It is an index: everything but the ledger and the groups' "applied" marks can be
 * built again from the progress topic.
 *
 * Threading: any thread may commit or open a view; a thread never commits while it holds a view of its own (growing the
 * map waits for all views). One daemon at a time has a store open (a lock file); any number of readers, of other
 * processes too, see the last commit. Views are short: a long one keeps old pages from being used again.
 *
 * Durability: LMDB's default flags; a commit that returned 0 survives kill -9 and a power cut. Every value carries a
 * CRC32C of its key and itself: a flipped bit is -E_CORRUPT, never a wrong number. Limits: STORE_BATCH_MAX bytes in one
 * batch, STORE_LEDGER_MAX events (the oldest go). The map grows by doubling up to what the disk holds.
 *
 * LMDB's caveats kept here: no environment twice in one process, no fork with it open, no network file system. */
#ifndef SUNDOG_MIRROR_OFFSETS_STORE_H
#define SUNDOG_MIRROR_OFFSETS_STORE_H

#include "base/world/disk.h"
#include "mirror/offsets/codec.h"
#include "mirror/offsets/map.h"

#define STORE_BATCH_MAX  (64u << 20)
#define STORE_LEDGER_MAX 100000u

enum store_mode { STORE_DAEMON, STORE_READER };

struct store_options {
    const char *path;
    enum store_mode mode;
    struct disk *disk; /* for the folder and the lock; NULL: the folder is there, and nobody else uses it */
    size_t map_bytes;  /* to begin with; 64 MiB when 0 */
};

struct store;

/* STORE_DAEMON makes the folder. `err` names the path: -E_BUSY another daemon has it, -E_NOTFOUND a reader finds none,
 * -E_VERSION a newer program wrote it, -E_CORRUPT. */
int store_open(const struct store_options *o, struct store **out, struct err *err);
void store_close(struct store *s);
/* A number that no topic, or no flow, has had. Daemon only; any thread. */
uint32_t store_new_topic(struct store *s);
uint32_t store_new_flow(struct store *s);
uint64_t store_commits(const struct store *s);
size_t store_bytes(struct store *s);

/* ---- writing ---- */

/* Changes that are made together. One thread at a time; an error while filling is kept and told by the commit. */
struct store_batch;
struct store_batch *store_batch_create(struct store *s);
void store_batch_destroy(struct store_batch *b);
void store_batch_clear(struct store_batch *b);
bool store_batch_empty(const struct store_batch *b);
size_t store_batch_bytes(const struct store_batch *b);

void store_put_alias(struct store_batch *b, struct slice alias, struct slice cluster_id);
void store_put_flow(struct store_batch *b, const struct stored_flow *f);
void store_put_topic(struct store_batch *b, const struct stored_topic *t);
void store_delete_topic(struct store_batch *b, uint32_t topic);
void store_put_position(struct store_batch *b, uint32_t topic, const struct map_position *p);
void store_delete_position(struct store_batch *b, uint32_t topic, int32_t p);
/* A run whose (p, q, src_start) is there replaces it: it has grown. */
void store_put_run(struct store_batch *b, uint32_t topic, int32_t p, const struct map_run *r);
/* A run as it was read from the progress topic, perhaps another daemon's: merged with those it touches. */
void store_merge_run(struct store_batch *b, uint32_t topic, int32_t p, const struct map_run *r);
void store_delete_run(struct store_batch *b, uint32_t topic, int32_t p, const struct map_run *r);
void store_put_producer_id(struct store_batch *b, uint32_t flow, int32_t p, const struct map_producer_id *id);
void store_put_group(struct store_batch *b, uint32_t topic, const struct group_entry *g);
void store_delete_group(struct store_batch *b, uint32_t topic, struct slice group, int32_t q);
/* Numbers the event. */
void store_put_event(struct store_batch *b, struct ledger_event *e);

/* All of it or nothing, durable when 0. Blocks for an fsync: from a job. -E_NOSPACE, -E_IO, -E_LIMIT (batch too
 * large). */
int store_commit(struct store *s, struct store_batch *b, struct err *err);

/* ---- reading ---- */

/* The store as of one commit. Decoded values live until the view is closed. One thread at a time. */
struct store_view;
int store_view_open(struct store *s, struct store_view **out, struct err *err);
void store_view_close(struct store_view *v);

/* 1 found, 0 not, -E_…. */
int store_alias(struct store_view *v, struct slice alias, struct slice *cluster_id);
int store_flow(struct store_view *v, struct slice name, struct stored_flow *out);
/* The newest incarnation of a topic by its name at the source (target: false) or at the target. */
int store_topic_named(struct store_view *v, uint32_t flow, struct slice name, bool target,
                      struct stored_topic *out);
int store_position(struct store_view *v, uint32_t topic, int32_t p, struct map_position *out);
int store_producer_id(struct store_view *v, uint32_t flow, int32_t p, struct map_producer_id *out);
/* The last run of any q that p feeds, by source offset: where it may grow. */
int store_last_run(struct store_view *v, uint32_t topic, int32_t p, int32_t q, struct map_run *out);
int store_group(struct store_view *v, uint32_t topic, struct slice group, int32_t q, struct group_entry *out);

/* In key order; an `each` that gives anything but 0 ends the walk with that. Runs and events live only for the call. */
int store_aliases_each(struct store_view *v,
                       int (*each)(void *arg, struct slice alias, struct slice cluster_id), void *arg);
int store_flows_each(struct store_view *v, int (*each)(void *arg, const struct stored_flow *f), void *arg);
int store_topics_each(struct store_view *v, int (*each)(void *arg, const struct stored_topic *t), void *arg);
int store_positions_each(struct store_view *v, uint32_t topic,
                         int (*each)(void *arg, const struct map_position *p), void *arg);
int store_runs_each(struct store_view *v, uint32_t topic, int32_t p,
                    int (*each)(void *arg, int32_t p, const struct map_run *r), void *arg); /* p -1: all */
int store_groups_each(struct store_view *v, uint32_t topic,
                      int (*each)(void *arg, const struct group_entry *g), void *arg);
int store_producer_ids_each(struct store_view *v, uint32_t flow,
                            int (*each)(void *arg, int32_t p, const struct map_producer_id *id), void *arg);
int store_events_each(struct store_view *v, uint64_t from,
                      int (*each)(void *arg, const struct ledger_event *e), void *arg);

/* One topic's map, for translate.h; valid as long as the view. */
struct store_map {
    struct map map;
    struct store_view *view;
    uint32_t topic;
};
struct map *store_map_init(struct store_map *m, struct store_view *v, uint32_t topic);

/* Reads every value: 0, or -E_CORRUPT and where. */
int store_verify(struct store_view *v, struct err *err);

#endif
