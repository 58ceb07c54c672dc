/* A source of records: the vtable that both engines stand behind (DESIGN.md D14).
 *
 *   record engine   port_rdkafka.c, librdkafka's consumer: wherever records must be looked at
 *   on our client   port_client.c, raw fetches: runs on the simulator too; hands out records or whole batches
 *
 * A port serves any number of partitions of one cluster for one worker. `port_assign` starts a partition at
 * an exact offset; whatever does not follow from there without a gap is an event, never silent: loss by
 * retention, truncation, a recreated topic. Such a partition delivers nothing more until it is assigned
 * again; the others go on.
 *
 * Polling: `ready` is called once when there is something after a poll that found nothing; then poll until it
 * returns false. Backpressure is not polling: the port then holds at most `memory_max_bytes` and stops
 * reading its sockets. Deliveries are valid until released; they may be released in any order, and outlive
 * their assignment, not the port. After port_unassign, or a new port_assign of the partition, no delivery of
 * the old assignment is given out. Loop thread only. */
#ifndef SUNDOG_MIRROR_PORT_PORT_H
#define SUNDOG_MIRROR_PORT_PORT_H

#include "base/core/err.h"
#include "base/core/slice.h"
#include "base/core/uuid.h"
#include "base/world/loop.h"

#include <stdbool.h>
#include <stdint.h>

struct client;
struct port;

#define PORT_FROM_START INT64_C(-2)
#define PORT_FROM_END   INT64_C(-1)

struct port_assignment {
    struct slice topic;   /* copied */
    struct uuid topic_id; /* zero: whatever has the name; else another id is a PORT_RECREATED */
    int32_t partition;
    int64_t offset; /* the next one wanted, or PORT_FROM_… */
    int32_t
        leader_epoch; /* of the record before `offset`, -1 if not known: checked against the log (KIP-320) */
    bool whole_batches; /* deliver PORT_BATCHES where the engine can; records otherwise */
    void *owner;        /* comes back with each delivery */
};

/* One record. Headers lie as in a record batch, without their count: proto/kafka/batch.h's
 * record_header_next. */
struct port_record {
    int64_t offset;
    int64_t timestamp_ms;    /* -1: none */
    struct slice key, value; /* null or not */
    struct slice headers;
    int32_t headers_n;
};

/* What a batch lies in, for who would rather keep it there than copy it. Kept bytes are the keeper's alone: nobody else
 * reads them again, he may change them in place. */
struct port_memory {
    bool (*keep)(void *of); /* false: so much is kept already that it must be copied */
    void (*let_go)(void *of);
};

/* One batch as it lies in the source's log: never a control batch, nor one of an aborted transaction under
 * read_committed. CRC checked. */
struct port_batch {
    struct slice bytes;
    int64_t base_offset, last_offset, timestamp_max_ms;
    int32_t records_n;
    bool trim;                        /* begins before the offset wanted: re-pack from there */
    bool gaps;                        /* records_n is less than the offsets it spans */
    const struct port_memory *memory; /* NULL: it is to be copied */
    void *of;                         /* for `memory` */
};

enum port_event {
    PORT_POSITION,     /* nothing to deliver up to next_offset: control, aborted, compacted */
    PORT_END,          /* the same, and next_offset is the end (last stable offset) at present */
    PORT_OUT_OF_RANGE, /* the offset is not in [log_start, end], or was not when it was asked for; stopped */
    PORT_TRUNCATED,    /* the log has been cut to `end` below our position (unclean election); stopped */
    PORT_RECREATED,    /* another topic has the name, its id in topic_id; stopped */
    PORT_GONE,         /* no such topic or partition; stopped */
    PORT_FAILED,  /* `text` says why: authorisation, corrupt data, what the library gave up on; stopped */
    PORT_TROUBLE, /* `text` says what is tried again (source away, no leader); not stopped, said once per
                     cause */
};

enum port_what { PORT_RECORDS, PORT_BATCHES, PORT_EVENT };

struct port_delivery {
    enum port_what what;
    struct port *port; /* whose it is: to be released there */
    void *owner;
    int64_t next_offset;  /* covered up to here: the position after this delivery (APPENDER.md rule 17) */
    int32_t leader_epoch; /* of the last record, -1 if not known */
    /* PORT_RECORDS */
    const struct port_record *records;
    /* PORT_BATCHES */
    const struct port_batch *batches;
    size_t n; /* of either */
    size_t size_bytes;
    /* PORT_EVENT */
    enum port_event event;
    int64_t log_start, end; /* as far as known, else -1 */
    struct uuid topic_id;
    int16_t kafka_error;
    const char *text; /* may be NULL */
    void *impl;
};

/* What the source said last; -1: not known yet. */
struct port_marks {
    int64_t position; /* next offset to be delivered */
    int64_t log_start, high_watermark, last_stable;
    int32_t leader_epoch;
};

struct port_ops {
    int (*assign)(struct port *p, const struct port_assignment *a, struct err *err);
    void (*unassign)(struct port *p, void *owner);
    bool (*poll)(struct port *p, struct port_delivery *out);
    void (*release)(struct port *p, struct port_delivery *d);
    bool (*marks)(struct port *p, void *owner, struct port_marks *out);
    void (*destroy)(struct port *p, void (*destroyed)(void *arg), void *arg);
    void (*memory)(struct port *p, size_t max_bytes); /* NULL: as it was made */
};

struct port {
    const struct port_ops *ops;
};

/* `owner` names the partition from now on; one assignment per owner, a second replaces the first. */
static inline int port_assign(struct port *p, const struct port_assignment *a, struct err *err)
{
    return p->ops->assign(p, a, err);
}

static inline void port_unassign(struct port *p, void *owner)
{
    p->ops->unassign(p, owner);
}

/* True with a delivery, to be released; false: wait for `ready`. */
static inline bool port_poll(struct port *p, struct port_delivery *out)
{
    bool some = p->ops->poll(p, out);
    if (some)
        out->port = p;
    return some;
}

static inline void port_release(struct port *p, struct port_delivery *d)
{
    p->ops->release(p, d);
}

/* False when the owner has no assignment. */
static inline bool port_marks(struct port *p, void *owner, struct port_marks *out)
{
    return p->ops->marks(p, owner, out);
}

/* Everything must have been released. `destroyed` comes on the loop when threads have ended and memory is
 * free: for librdkafka that may take a second, port_client calls it before this returns. No other callback comes
 * after this call. */
static inline void port_destroy(struct port *p, void (*destroyed)(void *arg), void *arg)
{
    p->ops->destroy(p, destroyed, arg);
}

/* Another `memory_max_bytes` from now on, where the engine can; what it holds beyond stays until it is released. */
static inline void port_memory_limit(struct port *p, size_t max_bytes)
{
    if (p->ops->memory)
        p->ops->memory(p, max_bytes);
}

/* ---- making one ---- */

struct port_property {
    const char *key, *value;
};

struct port_options {
    struct loop *loop;
    struct client
        *client; /* of the source cluster: metadata, leader epochs, offsets; fetches of port_client */
    const char *bootstrap;                  /* for librdkafka, as is */
    const struct client_security *security; /* NULL: PLAINTEXT; outlives the port */
    const char *client_id;
    bool read_uncommitted;                  /* MM2's consumer.isolation.level; read_committed otherwise */
    size_t memory_max_bytes;                /* 64 MiB when 0 */
    const struct port_property *properties; /* consumer.* of the mirror's file, prefix off */
    size_t properties_n;
    void (*ready)(void *arg);
    void *arg;
    /* Keys that the engine does not know or does not allow; NULL: not asked. In port_…_create, once per key.
     */
    void (*ignored)(void *arg, const char *key, const char *why);
};

/* The record engine: librdkafka, or our own client where the library cannot log in. */
int port_record_create(const struct port_options *o, struct port **out, struct err *err);
int port_rdkafka_create(const struct port_options *o, struct port **out, struct err *err);
int port_client_create(const struct port_options *o, struct port **out, struct err *err);

#endif
