/* Whether a topic of the mirror's own has records that somebody else wrote (a MirrorMaker 2 whose flow has the same
 * names, say): those may not be deleted with ours. Ours carry OWN_RECORDS_MARK as a header, which Kafka's readers pass
 * over; what a topic holds below an offset is read once, a megabyte at a time, nothing is kept. Loop thread. */
#ifndef SUNDOG_MIRROR_SYNC_OWN_RECORDS_H
#define SUNDOG_MIRROR_SYNC_OWN_RECORDS_H

#include "proto/client/client.h"
#include "proto/kafka/batch.h"

#define OWN_RECORDS_MARK "sundog.mirror"

enum own_records_answer {
    OWN_RECORDS_ALL,
    OWN_RECORDS_OTHERS,
    OWN_RECORDS_UNKNOWN, /* could not be read, `why` says it: asked again another time */
};

struct own_records {
    struct client *client;
    const char *topic; /* partition 0 of it; as long as it looks */
    int64_t at, until;
    struct client_call *call; /* NULL: it does not look */
    void (*done)(void *arg, enum own_records_answer answer, const char *why);
    void *arg;
};

/* `done` comes later, once, or before it returns. */
void own_records_look(struct own_records *o);
void own_records_cancel(struct own_records *o);

/* What a batch read from the log says. False: a record in it is not ours, or it cannot be read. */
bool own_records_batch(const struct batch_header *h, struct slice batch);

#endif
