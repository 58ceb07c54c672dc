/* The null broker's parts: topics (null_topics.c), what each API answers (null_answers.c), frames (null_main.c).
 * One thread; topics and what they keep live as long as the process. */
#ifndef SUNDOG_TESTS_BENCH_NULL_H
#define SUNDOG_TESTS_BENCH_NULL_H

#include "base/core/arena.h"
#include "base/core/buf.h"
#include "tests/bench/bench.h"

#include <stdbool.h>

enum null_role {
    NULL_ANY,    /* any topic is there: read endlessly, written to nowhere */
    NULL_SOURCE, /* one topic is there and is read endlessly; others are made, and keep what they get */
    NULL_TARGET, /* one topic is there, keeps the first batches of each partition and where it ends; others as above */
};

#define NULL_HEAD_BATCHES 6 /* of a partition at a target: a mirror reads its first five back */
#define NULL_TOPICS_MAX   64

struct null_partition {
    uint8_t *canned; /* whole batches, made at the first Fetch */
    int64_t end;     /* records it was sent */
    struct null_batch {
        int64_t base, end;
        struct slice bytes;
    } * kept;
    size_t kept_n, kept_room;
    int64_t producer_id, timestamp; /* of the last batch that had a producer; 0 of them: the id is -1 */
    int16_t producer_epoch;
    int32_t sequence;
};

struct null_topic {
    struct slice name;
    int32_t partitions_n;
    struct null_partition *partitions;
    bool keeps, canned;
};

struct null_broker {
    int epoll, port;
    const char *host; /* as it is told to clients */
    enum null_role role;
    struct null_topic topics[NULL_TOPICS_MAX]; /* the first is the null one */
    int topics_n;
    struct buf batch; /* one, as all of them */
    int batch_records, canned_n;
    struct buf read; /* of a connection that has nothing left over */
    struct arena arena;
    int64_t producers;
};

void null_topics_init(struct null_broker *b, const char *name, int32_t partitions);
/* NULL: it is not there. */
struct null_topic *null_topic(struct null_broker *b, struct slice name);
/* NULL: there is no room for more. */
struct null_topic *null_topic_make(struct null_broker *b, struct slice name, int32_t partitions);
/* NULL: it has no such partition. */
struct null_partition *null_partition(struct null_topic *t, int32_t index);
/* Takes whole batches; the offset of the first. */
int64_t null_append(struct null_topic *t, struct null_partition *p, struct slice batches);
/* Whole batches from the one around `offset` on: at least one, where there is one, and at most `bytes`. */
struct slice null_read(struct null_broker *b, struct null_topic *t, struct null_partition *p, int64_t offset,
                       size_t bytes);
int64_t null_end(const struct null_topic *t, const struct null_partition *p);

/* The answer to a decoded request, in the arena; NULL: none is due (acks=0). */
void *null_answer(struct null_broker *b, int16_t key, const void *request);

#endif
