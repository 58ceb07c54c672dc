/* Whether what has been read of a partition is still the source's history: the decisions of rdkafka_check.c, which puts
 * the questions and carries out the effects. Pure: no clock, no library, no call. One per partition; not thread-safe.
 *
 *   CHECKING --answered--> ADDING --the library has it--> READING
 *      ^                                                     |
 *      +------- a newer leader epoch, out of range ----------+        any --an event that ends it--> STOPPED
 *
 * A question is asked one at a time and again until it is answered: HISTORY_RETRY_US apart, never in silence for
 * longer than HISTORY_TELL_US. */
#ifndef SUNDOG_MIRROR_PORT_RDKAFKA_HISTORY_H
#define SUNDOG_MIRROR_PORT_RDKAFKA_HISTORY_H

#include "mirror/port/port_ask.h"

#define HISTORY_RETRY_US (INT64_C(200) * 1000)
#define HISTORY_TELL_US  (INT64_C(2) * 1000000) /* a check that takes longer is told */
#define HISTORY_END_US   (INT64_C(2) * 1000000) /* an end in front of the proof is believed no sooner */

enum part_state {
    PART_CHECKING, /* asks the source about id and epoch before anything is read */
    PART_ADDING,   /* waits for the library to take it */
    PART_READING,
    PART_STOPPED, /* an event has ended it */
};

enum history_question {
    HISTORY_NOTHING,
    HISTORY_EPOCH_END, /* where the log of `epoch` ends; of the leader whose epoch is `asked_epoch` */
    HISTORY_LOG_START, /* after it follows: */
    HISTORY_LOG_END,
};

/* What tells a record from another one at its place. */
struct history_record {
    int64_t offset; /* -1: none was handed out */
    int64_t timestamp_ms;
    uint32_t crc; /* of key and value */
    size_t key_bytes;
};

/* What metadata says of the partition. */
struct history_leader {
    int32_t id;    /* -1: none */
    int32_t epoch; /* -1: an old cluster */
};

struct history {
    enum part_state state;
    int64_t next;         /* the next offset wanted; PORT_FROM_… until the first record */
    int32_t epoch;        /* of our history: where does the log of it end? -1: there is nothing to ask */
    int32_t leader_epoch; /* the last one that was checked; the library may have read on under a newer one */
    int32_t seen_epoch;   /* the newest one that anybody named */
    int32_t asked_epoch;  /* of the leader that is asked */
    int32_t record_epoch; /* of the record before `next`, where the library tells (2.1 and up); else -1 */
    struct history_record last; /* the last record handed out */
    bool proof; /* the log of our epoch ends at `cut_to`, below us: unless `last` is there, it was cut */
    int64_t cut_to;
    int64_t confirmed; /* records below were delivered before that answer: their epochs are no newer */
    enum history_question asking;
    int64_t checking_us; /* since when */
    int64_t retry_at_us; /* for the next question */
    bool out_of_range;   /* or the log seems to end in front of the proof: where does it begin and end? */
    bool troubled;       /* that this does not succeed has been said */
    int64_t range_start; /* the first answer to that */
};

/* To be carried out in this order; at most one thing is told. */
struct history_effect {
    bool forget; /* what was fetched and not handed out */
    bool tells;
    enum port_event event;
    int16_t kafka_error;
    int64_t log_start, end;
    bool stops;   /* no question is open any more: a call under way is to be cancelled */
    bool changes; /* the library is to be told of the partition */
    bool refresh; /* newer metadata is wanted */
    enum history_question ask;
    char text[160];
};

void history_begin(struct history *h, int64_t next, int32_t epoch, int64_t now_us);
/* False: it was so before. */
bool history_stop(struct history *h);

/* On each metadata answer and tick. NULL: metadata does not have it. */
struct history_effect history_look(struct history *h, const struct history_leader *m, int64_t now_us);
/* The partition has had a leader of this epoch: one that is read under an older one is checked anew. */
struct history_effect history_seen(struct history *h, int32_t epoch, int64_t now_us);
/* A reading is at an offset that is not there. */
struct history_effect history_out_of_range(struct history *h);

/* What the question that was asked last came to. */
struct history_effect history_unsent(struct history *h, int64_t now_us);
struct history_effect history_epoch_end(struct history *h, enum port_answer answer, int64_t end,
                                        const char *why, int64_t now_us);
struct history_effect history_offset(struct history *h, enum port_answer answer, int64_t offset,
                                     const char *why, int64_t now_us);

/* The last record of a delivery. */
void history_handed_out(struct history *h, const struct history_record *last);
/* While a proof is owed: what the library brings, which is not to be handed out. `end`: no record, the log's end. */
struct history_effect history_prove(struct history *h, const struct history_record *r, bool end,
                                    int64_t now_us);

/* What has been delivered by now was read under the epoch that this answer shows, or under an older one. */
struct history_effect history_confirm(struct history *h, const struct history_leader *m);
bool history_wants_confirming(const struct history *h);
/* An epoch that is not older than that of the record before `next`, -1 when none is known: an older one would take the
 * records of a newer leader for a truncation. */
int32_t history_epoch(const struct history *h);

#endif
