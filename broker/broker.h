/* The broker as one thing: made of a world's parts, started, stopped. The composition root (broker.c) is the only place
 * that knows every room; handlers and rooms reach what they share through this struct.
 *
 * Threading: create, start, stop and destroy on shard 0's thread (or before the loops run); the members are constant
 * while the loops run. */
#ifndef SUNDOG_BROKER_BROKER_H
#define SUNDOG_BROKER_BROKER_H

#include "broker/options.h"
#include "broker/shard.h"

struct broker_parts;
struct control;

/* What a broker runs on: one loop and net per shard. The simulator gives one of each. */
struct broker_world {
    unsigned shards;
    struct loop *const *loops;
    struct net *const *nets;
    struct disk *disk;
};

struct broker {
    const struct broker_options *options;
    int32_t node_id;
    struct control *control; /* broker/controller/control.h */
    struct metrics *metrics;
    struct shard *const *shards;
    unsigned shards_n;
    struct broker_parts *parts; /* broker.c's own */
};

/* Checks the options, opens the log dirs, builds every room; nothing listens yet. `options` must outlive it. On error
 * nothing is left, and `err` names key, path or address. */
int broker_create(const struct broker_world *w, const struct broker_options *options, struct broker **out,
                  struct err *err);
/* Opens listeners and begins: serving starts when quorum and logs are ready (broker_ready). */
int broker_start(struct broker *b, struct err *err);
/* NULL once every partition is there and clients are served; else why not. Any time on shard 0. */
const char *broker_unready(const struct broker *b);
/* Drains, closes logs, writes the clean-shutdown markers; then calls `stopped` on shard 0. Within 10 s. */
void broker_stop(struct broker *b, void (*stopped)(void *arg, int code), void *arg);
/* After `stopped`, when the loops no longer run. */
void broker_destroy(struct broker *b);

#endif
