/* The broker as one thing: made of a world's parts, started, stopped. The composition root (broker.c) is the only
 * place that knows every room; handlers and rooms reach what they share through this struct.
 *
 * Threading: create, start, stop and destroy on shard 0's thread (or before the loops run); the members are constant
 * while the loops run. */
#ifndef SUNDOG_BROKER_BROKER_H
#define SUNDOG_BROKER_BROKER_H

#include "broker/options.h"
#include "broker/shard.h"

struct broker_parts;
struct control;

/* What a broker runs on: one loop and net per shard. The simulator gives one of each. Borrowed until broker_destroy,
 * but for the struct itself and its arrays. */
struct broker_world {
    unsigned shards;
    struct loop *const *loops;
    struct net *const *nets;
    struct disk *disk;
    int64_t fds; /* the process's limit of open files; 0: none */
    void (*failed)(void *arg,
                   const char *why); /* the broker cannot go on: stop it. On shard 0; may be NULL */
    void *arg;
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

/* Checks the options, opens log dirs and metadata log, builds every room, binds the listeners; nobody is served yet.
 * Blocks; before the loops run. `options` must outlive it. On error nothing is left but what ends with the process,
 * and `err` names key, path or address; -E_CONFIG where the configuration is at fault. */
int broker_create(const struct broker_world *w, const struct broker_options *options, struct broker **out,
                  struct err *err);
/* Begins: elections, registration, logs; clients are served when all is ready. */
int broker_start(struct broker *b, struct err *err);
/* NULL once clients are served; else why not yet. Shard 0. */
const char *broker_unready(const struct broker *b);
/* Counts a client that was closed before it became a connection. Any thread. */
void broker_refused(struct broker *b, const char *why);
/* Drains, closes logs, writes the clean-shutdown markers; then calls `stopped`, once, on shard 0. */
void broker_stop(struct broker *b, void (*stopped)(void *arg), void *arg);
/* After `stopped`, when the loops no longer run. Negative: not all was closed well, the next start recovers. */
int broker_destroy(struct broker *b);

#endif
