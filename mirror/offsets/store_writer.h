/* Small changes to the store from a loop: groups, pinned aliases, ledger events. They gather in a batch while another
 * is being committed by a job; a commit starts WRITER_DELAY_MS after the first change. Loop thread. A commit that
 * fails is tried again for ever and said by `trouble`; what gathers meanwhile is bounded by the batch
 * (STORE_BATCH_MAX). */
#ifndef SUNDOG_MIRROR_OFFSETS_STORE_WRITER_H
#define SUNDOG_MIRROR_OFFSETS_STORE_WRITER_H

#include "base/core/list.h"
#include "base/world/loop.h"
#include "mirror/offsets/store.h"

#define WRITER_DELAY_MS 100

/* Somebody who waits until what was put before is on disk; taken back by removing the link. */
struct store_wait {
    struct list link;
    void (*done)(void *arg);
    void *arg;
};

struct store_writer;

int store_writer_create(struct loop *loop, struct store *s, unsigned lane,
                        void (*trouble)(void *arg, const char *text), void *arg, struct store_writer **out,
                        struct err *err);
/* The batch to put changes into; its commit follows by itself. */
struct store_batch *store_writer_batch(struct store_writer *w);
/* Commits at once, or next, what has been put so far, and calls `wait->done` when that is on disk: never before
 * this returns, and not at all where the writer ends first. */
void store_writer_sync(struct store_writer *w, struct store_wait *wait);
/* Commits what there is (once: a failure is told, not tried again), then calls `closed`. NULL: `closed` at once. */
void store_writer_close(struct store_writer *w, void (*closed)(void *arg), void *arg);
/* Frees at once, for a world that has ended: no job runs any more. */
void store_writer_abandon(struct store_writer *w);

#endif
