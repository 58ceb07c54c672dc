/* What compact_log.c (opening) and compact_log_io.c (reading, appending) share. */
#ifndef SUNDOG_MIRROR_OFFSETS_COMPACT_LOG_INTERNAL_H
#define SUNDOG_MIRROR_OFFSETS_COMPACT_LOG_INTERNAL_H

#include "base/core/said.h"
#include "mirror/offsets/compact_log.h"
#include "proto/kafka/batch.h"

#define BACKOFF_MADE_US INT64_C(5000) /* the topic has just been made: its leader is about to be known */
#define BACKOFF_MIN_US  INT64_C(50000)
#define BACKOFF_MAX_US  INT64_C(5000000)
#define REQUEST_MS      10000
#define FETCH_BYTES     (4 << 20)
#define PAYLOAD_MAX     ((size_t)64 << 20)
#define OFFSET_EARLIEST (-2)
#define OFFSET_LATEST   (-1)

/* opening: look → (missing: create → look) → log start → end → ready; any failure: wait, then look again. */
enum log_state { LOG_LOOKING, LOG_CREATING, LOG_START, LOG_END, LOG_READY };

struct compact_log {
    struct loop *loop;
    struct client *client;
    char *name;
    int16_t replication;
    const char *replication_key;
    void (*ready)(void *arg, const struct uuid *id, int64_t log_start, int64_t end);
    void (*trouble)(void *arg, const char *text);
    void *arg;

    enum log_state state;
    struct uuid id;
    int64_t log_start, end;
    struct client_call *opening; /* the request under way, if any */
    struct loop_timer open_again;
    int64_t backoff_us;
    struct said said;
    struct client_watch watch;

    struct {
        bool active;
        int64_t next, upto;
        void (*each)(void *arg, const struct compact_record *r);
        void (*done)(void *arg, int status, int64_t next);
        void *arg;
        struct client_call *call;
        struct loop_timer again;
        struct buf scratch;
    } read;

    struct {
        bool active;
        struct slice batch;
        void (*done)(void *arg, int64_t base_offset);
        void *arg;
        struct client_call *call;
        struct loop_timer again;
    } append;
};

/* compact_log.c */
void compact_say(struct compact_log *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void compact_healed(struct compact_log *l);
int64_t compact_pause_us(struct compact_log *l);
void compact_reopen(struct compact_log *l);
struct client_call *compact_call(struct compact_log *l, int16_t api, enum client_target_kind kind,
                                 enum client_retry retry, int16_t version_max,
                                 void (*on)(void *arg, const struct client_response *r));

/* compact_log_io.c: timers */
void compact_fetch(void *arg);
void compact_produce(void *arg);

#endif
