/* The parts of a flow, for the files of this folder. All of it belongs to the flow's loop but `public`. */
#ifndef SUNDOG_MIRROR_FLOW_INTERNAL_H
#define SUNDOG_MIRROR_FLOW_INTERNAL_H

#include <pthread.h>

#include "base/core/hash.h"
#include "base/core/list.h"
#include "base/core/sm.h"
#include "mirror/checkpoint/checkpoint.h"
#include "mirror/flow/flow.h"
#include "mirror/metrics.h"
#include "mirror/offsets/progress.h"
#include "mirror/offsets/run_tail.h"
#include "mirror/offsets/store_writer.h"
#include "mirror/route/partitioner.h"
#include "mirror/sync/sync.h"
#include "mirror/target/appender.h"

#define FLOW_AREA "mirror.flow"

/* Records of a partition acknowledged since its last progress record before one is written early (DESIGN.md §4); of
 * all partitions together. */
#define FLOW_PROGRESS_RECORDS 65536
#define FLOW_PROGRESS_ALL     (8 * FLOW_PROGRESS_RECORDS)
/* Deliveries handled in one turn of the loop. */
#define FLOW_DELIVERIES_PER_TURN 64
/* A partition that has nothing to do settles its ends after this long, and again when others have moved them. */
#define FLOW_SETTLE_US INT64_C(1000000)
/* A known cluster from which nothing came for so long, though something was asked, is silent: shown, and said once. */
#define FLOW_SILENT_US INT64_C(5000000)
/* What was last known of a partition's end is too old to be told. */
#define FLOW_END_OLD_US INT64_C(12000000)
/* So long nothing may come of a partition that has more, and nobody is told (rounded up to the next question for
 * its end). */
#define FLOW_STILL_US INT64_C(9000000)
/* Buffers that nothing needed for so long go back to the system. */
#define FLOW_REST_US INT64_C(10000000)
/* Requests for ends that are open at once. */
#define FLOW_ENDS_CALLS 8
/* Tries of what a source refused (no permission, a damaged batch) start anew after this long. */
#define FLOW_RETRY_US INT64_C(5000000)

/*   waiting ──► reading ──► running ──► stopping
 *      │                       ▲            ▲
 *      └──► halted ────────────┼────────────┘
 *  waiting: for the target; reading: its progress topic; running: the source may still be away. */
enum flow_state { FLOW_WAITING, FLOW_READING, FLOW_RUNNING, FLOW_HALTED, FLOW_STOPPING };
extern const struct sm_table flow_sm;

/*   starting ─► reconciling ─► mirroring ◄─► caught_up        paused: waits for what may heal
 *       └───────────►─────────────┘   └─► paused, halted ◄── (from everywhere)
 *  halted is for the operator: only a restart of the daemon leaves it. */
enum part_state {
    PART_STARTING,
    PART_RECONCILING,
    PART_MIRRORING,
    PART_CAUGHT_UP,
    PART_PAUSED,
    PART_HALTED,
    PART_STATES
};
extern const struct sm_table part_sm;

struct flow_topic;

/* How a partition is read (DESIGN.md D14); the names are shown. */
enum flow_engine { ENGINE_RECORD, ENGINE_BATCH, FLOW_ENGINES };

/* A delivery that waits for its partition's appender. */
struct held {
    struct list link;
    struct port_delivery d;
};

struct part {
    struct flow *flow;
    struct flow_topic *topic;
    int32_t p;
    struct sm sm;
    char *reason;     /* part_reason */
    struct list link; /* flow.parts */

    /* starting */
    bool wants_id, wants_start; /* a producer id, the source's log start */
    struct client_call *start_call;
    struct loop_timer retry;
    struct map_producer_id id;
    int32_t generation;

    enum flow_engine engine;
    const char *engine_reason; /* why this one: text that lives for ever */

    /* running */
    struct appender *appender;
    struct run_tail tail;
    bool assigned; /* the port reads it */
    bool parked;   /* taken from the port until the appender takes again, from here on: */
    int64_t resume_offset;
    int32_t resume_epoch;
    struct list held; /* struct held, in order */
    size_t held_bytes;
    bool at_end;          /* the source has said so after the last record */
    int64_t taken_next;   /* given to the appender: everything below */
    int64_t position;     /* S: acknowledged */
    int64_t source_end;   /* as last heard, -1 */
    int64_t end_known_us; /* when that was so for certain */
    int64_t end_asked_us;
    int64_t still_next, still_us; /* behind its end, and not moved from there since; -1: it is not */
    int64_t timestamp_ms;         /* of the newest record given, -1 */
    int64_t damaged_at;           /* the source offset that the ledger has as damaged, -1 */
    int64_t idle_since_us;
    bool settled, settling;
    uint64_t others_seen; /* topic.acked when it settled last */

    /* progress */
    struct list dirty;  /* flow.dirty while its position is to be written */
    struct list saving; /* flow.saving while it is being written */
    uint64_t unsaved;   /* records acknowledged since it was written last */
    bool anchor, anchor_saving;
    struct appender_counts counted; /* what the metrics have */
    struct metric_cell *lag_records, *lag_seconds;
};

struct flow_topic {
    struct flow *flow;
    char *source, *target;
    struct uuid source_id, target_id;
    uint32_t number; /* of the store */
    bool has_rule;
    struct route_rule rule;
    int32_t source_partitions, target_partitions;
    bool gone;
    int64_t gone_us; /* since when */
    bool again;      /* to be begun when progress has time for it */
    bool reborn;     /* another incarnation, next_id, follows when all of this one is saved */
    struct uuid next_id;
    char halted[ERR_TEXT_MAX]; /* the whole topic is: a rule or incarnation that does not fit */
    struct part **parts;       /* source_partitions of them, or fewer while it grows; NULL ones never */
    int32_t parts_n;
    uint64_t acked; /* records of all its partitions */
    struct metric_cell *records;
    UT_hash_handle hh;
};

/* A producer id per source partition number, shared by all topics of the flow. */
enum pid_state { PID_ASKING, PID_OFFERING, PID_HELD };
struct flow_pid {
    struct flow *flow;
    int32_t p;
    enum pid_state state;
    int64_t producer_id;
    int16_t epoch;
    bool offered; /* in the commit under way */
    struct loop_timer retry;
    UT_hash_handle hh;
};

/* Learns which cluster answers under an alias and holds it against the pin; then watches whether it still answers:
 * a line that is cut without a word breaks no connection for minutes. */
struct contact {
    struct flow *flow;
    struct client *client;
    const char *alias, *bootstrap;
    struct client_call *call;
    struct loop_timer again;
    bool known;
    bool silent;
    uint64_t responses; /* of the client, when it was heard last: */
    int64_t heard_us;
};

/* A question for the ends of partitions that one broker leads. */
struct ends_call {
    struct flow *flow;
    struct client_call *call;
    int64_t sent_us;
};

/* See retire.c. */
#define RETIRE_TOPICS 50
struct retire {
    struct loop_timer timer;
    struct client_call *call;
    struct client *asked;
    struct arena arena; /* the names */
    struct slice progress_topic;
    struct stored_topic topic[RETIRE_TOPICS];
    size_t n;
    bool decided;    /* those in `topic` are to be forgotten */
    uint32_t cursor; /* topics up to this number have been looked at in this round */
};

struct flow {
    struct flow_setup o;
    const char *name;
    struct policy policy;
    struct loop *loop;
    struct sm sm;
    char reason[ERR_TEXT_MAX]; /* of the state, or of what is wrong with it */
    char progress_trouble[ERR_TEXT_MAX], store_trouble[ERR_TEXT_MAX], source_trouble[ERR_TEXT_MAX];

    struct client *source, *target;
    struct contact source_contact, target_contact;
    struct store_writer *writer;
    struct progress *progress;
    struct port *ports[FLOW_ENGINES];            /* each made when the first partition wants it */
    struct pattern *engine_topics[FLOW_ENGINES]; /* sundog.engine.….topics */
    struct sync *sync;
    struct checkpoint *checkpoint;
    struct heartbeat *beat, *beat_back;
    struct offset_syncs *syncs;
    struct appender_budget *budget;
    int64_t rest_us; /* when it was asked to free what is not needed */
    struct appender_guard guard;
    struct loop_timer guard_timer;

    struct flow_topic *topics;
    struct flow_pid *pids;
    struct list parts;
    size_t parts_n;

    /* feed */
    struct loop_timer feed_timer;
    size_t held_bytes, held_max;
    bool feed_full; /* polling ended because of held_max: it goes on when there is room */

    struct ends_call ends[FLOW_ENDS_CALLS];

    /* progress */
    struct loop_timer progress_timer;
    struct list dirty, saving;
    uint64_t unsaved;
    bool hurry;                /* enough is unsaved for a commit before its time */
    bool offers_due, offering; /* producer ids wait for the next commit, are in the one under way */
    int64_t saved_us;

    /* runs that are no longer needed: the lane that is looked at */
    struct {
        struct loop_timer timer;
        struct client_call *call;
        unsigned part;
        uint32_t topic;
        int32_t lane, p, q;
        int64_t source_start;
    } prune;

    /* topics that are gone: forgotten when neither side has them */
    struct retire retire;

    /* stopping */
    struct loop_timer deadline, step;
    void (*stopped)(void *arg);
    void *stopped_arg;
    unsigned draining, closing; /* appenders and things whose end is waited for */
    bool late;                  /* the deadline has passed */

    struct loop_timer tick; /* status and metrics */
    size_t ticks;           /* since the document was made, itself included */
    struct {
        pthread_mutex_t lock;
        struct flow_snapshot snapshot;
        struct buf json;
    } public;
    struct metric_cell *m_up, *m_bytes, *m_duplicates, *m_resends, *m_reconciles, *m_strangers, *m_commits,
        *m_progress_age, *m_memory, *m_groups_age, *m_states[PART_STATES], *m_groups[GROUP_STATES_N];
};

/* flow.c */
void flow_set_reason(char reason[ERR_TEXT_MAX], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void flow_halt(struct flow *f, const char *line);
void flow_ledger(struct flow *f, enum ledger_kind kind, const char *topic, int32_t partition, int64_t from,
                 int64_t count, const char *fmt, ...) __attribute__((format(printf, 7, 8)));
void flow_free(struct flow *f);
size_t flow_data_bytes(const struct flow *f); /* what the partitions leave of memory_bytes */
void flow_share_memory(struct flow *f);       /* after parts_n has changed */

/* contact.c */
void contact_init(struct contact *c, struct flow *f, struct client *client, int cluster);
void contact_stop(struct contact *c);
void contact_watch(struct contact *c); /* with each tick */
void contact_heard(struct contact *c);
/* "" while it answers, else since when it does not. */
const char *contact_silence(const struct contact *c, char text[ERR_TEXT_MAX]);
void flow_contact_known(struct flow *f); /* flow.c: one more cluster is known */

/* topic.c */
extern const struct sync_events flow_sync_events;
void flow_topics_destroy(struct flow *f);
void flow_topic_destroy(struct flow_topic *t);
bool part_finished(const struct part *p); /* nothing of it is under way or unsaved */
void flow_topics_tick(struct flow *f);    /* what could not be done at once */
struct flow_topic *flow_topic_find(struct flow *f, const char *source);

/* part.c */
int part_create(struct flow_topic *t, int32_t p, struct part **out);
void part_destroy(struct part *p);
void part_start(struct part *p); /* what it waited for may be there now */
void part_halt(struct part *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void part_pause(struct part *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void part_trouble(struct part *p, const char *text);
const char *part_reason(const struct part *p); /* of its state; "" when all is well */
void part_mark(struct part *p);                /* its position is to be written */
void part_refresh(struct part *p);             /* mirroring or caught up, from what is known now */

/* feed.c */
void feed_soon(struct flow *f);
void feed_ready(void *flow);
void part_read_from(struct part *p, int64_t offset, int32_t epoch);
void part_stop_reading(struct part *p); /* nothing more comes, what is held is given back */
void part_park(struct part *p);
void part_room(struct part *p);

/* ends.c */
void ends_tick(struct flow *f);
void ends_stop(struct flow *f);
bool ends_known(const struct part *p); /* source_end was so a moment ago */

/* engine.c */
extern const char *const flow_engine_names[FLOW_ENGINES];
/* The port that reads the partition; NULL: it cannot be made now. */
struct port *part_port(struct part *p, struct err *err);
/* The lists of topics that the options name for an engine. */
int flow_engines_init(struct flow *f, struct err *err);
void flow_engines_fini(struct flow *f);
/* By its topic's name and rule, and the options; once, before it is read. */
void part_choose_engine(struct part *p);
/* What the batch engine does not read (segments older than record batches) the record engine does, from here on. False:
 * that is not it. */
bool part_change_engine(struct part *p, const struct port_delivery *d);

/* source_event.c */
void part_source_event(struct part *p, const struct port_delivery *d);
/* What the source has at the position cannot be read: once into the ledger. */
void part_damaged(struct part *p, int16_t error, const char *text);

/* save.c */
void save_start(struct flow *f);
bool save_idle(const struct flow *f); /* nothing is to be written */
void save_now(struct flow *f);
struct flow_pid *flow_pid_get(struct flow *f,
                              int32_t p); /* asks for one when there is none yet; NULL: not held yet */
void flow_pids_destroy(struct flow *f);
void flow_settle(struct flow *f);

/* prune.c */
void flow_prune_start(struct flow *f);
void flow_prune_stop(struct flow *f);

/* retire.c */
void flow_retire_start(struct flow *f);
void flow_retire_stop(struct flow *f);
void flow_retire_tick(struct flow *f);

/* status.c */
void flow_status_start(struct flow *f);
void flow_status_refresh(struct flow *f);
void flow_status_fini(struct flow *f);

#endif
