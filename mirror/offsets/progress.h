/* A flow's progress: the compacted topic sundog-progress.<source>.internal at the target, which is the truth, and the
 * store, which follows it (APPENDER.md §4).
 *
 * Opening makes the topic when it is missing, reads it from where the store ends (all of it into a store that was
 * lost), and writes it again from the store when the topic itself was lost. Then changes are put together and
 * committed: to the topic first, with acks=all, then to the store by a job; `done` when both have them.
 *
 * Other daemons may write the same topic: of two positions the one with the larger (generation, next offset) holds, of
 * two producer ids for a partition the one offered first; a smaller position that a stale daemon has put over ours is
 * told by `stale`, and written again by its owner.
 *
 * Loop thread only. One commit at a time; trouble with topic or store is tried again for ever and said. */
#ifndef SUNDOG_MIRROR_OFFSETS_PROGRESS_H
#define SUNDOG_MIRROR_OFFSETS_PROGRESS_H

#include "mirror/offsets/compact_log.h"
#include "mirror/offsets/store.h"

struct progress;

struct progress_options {
    struct loop *loop;
    struct client *target;
    struct store *store;
    unsigned lane;                                /* of the job that commits the store */
    struct slice flow;                            /* "east->west"; copied */
    struct slice topic;                           /* copied */
    void (*ready)(void *arg);                     /* once */
    void (*trouble)(void *arg, const char *text); /* one line, once per cause; NULL: healed */
    void (*stale)(void *arg, uint32_t topic, int32_t p);
    void *arg;
};

int progress_open(const struct progress_options *o, struct progress **out, struct err *err);
/* A commit of the store that is under way is waited for by `closed`; nothing else is called back. NULL is fine
 * (`closed` is called at once). */
void progress_close(struct progress *p, void (*closed)(void *arg), void *arg);

/* Frees at once, for a world that has ended: no job runs any more. */
void progress_abandon(struct progress *p);

bool progress_is_ready(const struct progress *p);
uint32_t progress_flow_number(const struct progress *p);
/* The number of a source topic's incarnation; new ones are entered with the next commit. */
uint32_t progress_topic(struct progress *p, const struct topic_key *key, struct slice target_topic,
                        const struct uuid *target_topic_id);
/* False when the topic has no number yet. */
bool progress_topic_find(struct progress *p, const struct topic_key *key, uint32_t *number);
/* The producer id that holds for source partition `partition`; false when none was offered yet. */
bool progress_producer_id(struct progress *p, int32_t partition, struct map_producer_id *out);

/* ---- one commit ---- */

bool progress_busy(const struct progress *p);
/* Fill, while ready and not busy; then commit. Runs before the positions that stand on them. */
void progress_put_run(struct progress *p, uint32_t topic, const struct topic_key *key, int32_t partition,
                      const struct map_run *r);
void progress_put_position(struct progress *p, uint32_t topic, const struct map_position *pos);
/* A tombstone, and out of the store. */
void progress_forget_run(struct progress *p, uint32_t topic, const struct topic_key *key, int32_t partition,
                         const struct map_run *r);
/* All there is of a topic that neither side has any more: tombstones for its runs, at most `runs_max` of them, and when
 * no more are left for its positions, which *positions counts; out of the store with its groups and its number. False:
 * runs are left, for another commit; or the store cannot be read. */
bool progress_forget_topic(struct progress *p, const struct stored_topic *t, size_t runs_max,
                           size_t *positions);
/* An offer; progress_producer_id tells, after the commit, which one holds. */
void progress_offer(struct progress *p, int32_t partition, int64_t producer_id, int16_t epoch);
/* Bytes of records put so far. */
size_t progress_bytes(const struct progress *p);
/* `done` when topic and store have it all; an empty commit is done soon. */
void progress_commit(struct progress *p, void (*done)(void *arg), void *arg);

#endif
