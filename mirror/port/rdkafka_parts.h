/* What the files of the record engine share (port_rdkafka.c: life and delivery; rdkafka_assign.c: what is read from
 * where; rdkafka_check.c: whether that is our history; rdkafka_conf.c: the library's properties). librdkafka itself
 * appears in these files only. */
#ifndef SUNDOG_MIRROR_PORT_RDKAFKA_PARTS_H
#define SUNDOG_MIRROR_PORT_RDKAFKA_PARTS_H

#include "base/core/arena.h"
#include "base/core/hash.h"
#include "base/core/list.h"
#include "mirror/port/rdkafka_history.h"
#include "proto/client/client.h"

#include <librdkafka/rdkafka.h>
#include <stdatomic.h>

#define RDK_RECORDS_MAX 500          /* of one delivery */
#define RDK_BYTES_MAX   (512u << 10) /* the same */
#define RDK_EVENTS_MAX  100000       /* waiting; one partition has two at most */

struct part_key {
    int32_t partition;
    uint32_t topic_hash; /* not the identity: see part_of */
};

struct part {
    struct list link;   /* of all */
    struct list change; /* of those the library must be told of */
    struct port_rdk *port;
    struct part *same_hash; /* the next of its bucket */
    char *topic;
    struct port_assignment a;
    struct history h;
    bool in_library;                    /* the library has it, or is being told */
    bool dropped;                       /* unassigned: freed when the library has let it go */
    int64_t gap_from, gap_to;           /* the last offsets that were passed over */
    struct waiting_event *contradicted; /* what says that one of them came behind; until it is handed out */
    struct client_call *check;          /* the question of `h`, while it is under way */
};

/* An event that waits for the next poll. */
struct waiting_event {
    struct list link;
    struct part *part;
    struct port_delivery d;
    char text[256];
};

struct rdk_delivery {
    struct list link; /* of the free ones */
    struct waiting_event *event;
    rd_kafka_message_t *messages[RDK_RECORDS_MAX];
    struct port_record records[RDK_RECORDS_MAX];
    size_t n;
    struct arena headers;
};

#define RDK_BUCKETS 4096
#define RDK_BROKERS 64 /* more share a place */
/* What the library needs for a message beside its bytes: measured 250 to 300 with 2.0.2. */
#define RDK_MESSAGE_BYTES 300
#define RDK_QUEUE_BYTES   ((size_t)64 << 20) /* of the library's queue, where no bound is given */

struct port_rdk {
    struct port port;
    struct loop *loop;
    struct client *client;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    void (*ready)(void *arg);
    void *arg;
    struct list parts;
    struct part *bucket[RDK_BUCKETS];
    struct list events, free_deliveries;
    size_t events_n, out_n;       /* out_n: deliveries not released */
    rd_kafka_message_t *held;     /* taken from the queue, belongs to the next delivery */
    rd_kafka_topic_t *last_topic; /* of the message before, and its partition: most messages are its like */
    int32_t last_partition;
    struct part *last_part;
    bool hungry; /* the last poll found nothing: `ready` is owed */
    /* The library wakes us from a thread of its own. */
    struct loop_msg wake;
    atomic_bool waking;
    struct loop_timer tick;
    int64_t confirm_at_us;
    struct client_watch watch;
    /* Changes of assignment, applied on a helper thread, one lot at a time. */
    struct list changes;
    struct loop_job job;
    bool job_busy;
    rd_kafka_topic_partition_list_t *add, *drop;
    char job_error[256];
    /* rdkafka_kick.c */
    struct {
        size_t bytes, taken_bytes; /* half of the queue's bound; taken since the last one */
        int64_t last_us;
        struct loop_job job;
        bool busy;
        char *topic;
        int32_t partition;
    } kick;
    /* rdkafka_doubt.c */
    atomic_uint doubts;      /* raised so often; by any thread */
    unsigned cleared, asked; /* as many were raised when the answer that cleared them was asked for */
    struct client_call *doubt_call;
    int64_t patience_us;                  /* with the next broker that is asked; 0: as with the first */
    bool unsure_told;                     /* that the question fails; until it has succeeded */
    atomic_llong fetched_us[RDK_BROKERS]; /* when a broker's last fetch was answered */
    bool closing;
    void (*destroyed)(void *arg);
    void *destroyed_arg;
};

static inline struct port_rdk *port_rdk(struct port *p)
{
    return (struct port_rdk *)(void *)p;
}

/* rdkafka_conf.c: the consumer's configuration; reports what is ignored. */
int rdk_conf(const struct port_options *o, rd_kafka_conf_t **out, struct err *err);
/* One property of the library's, NULL: left as it is. -E_CONFIG names it, not its value: that may be a secret. */
int rdk_set(rd_kafka_conf_t *c, const char *key, const char *value, struct err *err);
/* rdkafka_security.c: how the source is reached. */
int rdk_conf_security(rd_kafka_conf_t *c, const struct client_security *s, struct err *err);
/* After the handle has been made of it. */
int rdk_start_security(rd_kafka_t *rk, const struct client_security *s, struct err *err);

/* rdkafka_assign.c */
int rdk_assign(struct port *p, const struct port_assignment *a, struct err *err);
void rdk_unassign(struct port *p, void *owner);
struct part *part_of(struct port_rdk *p, const char *topic, int32_t partition);
struct part *part_of_owner(struct port_rdk *p, const void *owner);
/* Leaves the library; the partition delivers nothing more. */
void part_stop(struct part *part);
void rdk_leave(struct part *part); /* of one whose history has been stopped */
/* The library is to be told of it: soon, with others of its kind. */
void rdk_change(struct part *part);
void rdk_apply_changes(struct port_rdk *p);
void rdk_drop_held(struct port_rdk *p, const struct part *part);
void rdk_free_parts(struct port_rdk *p);

/* rdkafka_check.c */
/* What metadata says now about id and leader epoch of every partition that is read. */
void rdk_look_at_metadata(void *arg);
void rdk_metadata_changed(void *arg); /* on each answer */
/* The partition has had a leader of this epoch: one that is read under an older one is checked anew. */
void rdk_epoch_seen(struct part *part, int32_t epoch);
/* Asks for metadata now and then while there are positions whose epoch is not known. */
void rdk_confirm_tick(struct port_rdk *p);
/* An epoch that is not older than that of the record before `next`, -1 when none is known: an older one would take the
 * records of a newer leader for a truncation. */
int32_t rdk_epoch(const struct part *part);
/* The offset asked for is not there: finds out where the log begins and ends, then says so; tries until it knows. */
void part_out_of_range(struct part *part);
void rdk_stop_with(struct part *part, enum port_event event, int64_t end, const char *text);
void rdk_handed_out(struct part *part, const rd_kafka_message_t *last);
/* Of a partition that owes a proof: what this message, which is not to be handed out, says of it. */
void rdk_prove(struct part *part, const rd_kafka_message_t *m);

/* rdkafka_kick.c: after so many bytes were taken from the queue; 0: it is empty. */
void rdk_kick(struct port_rdk *p, size_t taken_bytes);

/* rdkafka_doubt.c: nothing is handed out while rdk_sure says no; it asks by itself, and wakes the port. */
int rdk_doubt_conf(struct port_rdk *p, rd_kafka_conf_t *conf);
void rdk_doubt(struct port_rdk *p);
bool rdk_sure(struct port_rdk *p);
void rdk_doubt_stop(struct port_rdk *p);

/* port_rdkafka.c */
struct waiting_event *rdk_event(struct part *part, enum port_event event, const char *text);
void rdk_wake(struct port_rdk *p);

#endif
