/* What broker.c, stop.c and status.c share: every room of a broker, in the order in which it is built. */
#ifndef SUNDOG_BROKER_PARTS_H
#define SUNDOG_BROKER_PARTS_H

#include "base/runtime/admin_http.h"
#include "broker/broker.h"
#include "broker/controller/control.h"
#include "broker/lifecycle/directories.h"
#include "broker/lifecycle/identity.h"
#include "broker/lifecycle/lifecycle.h"
#include "broker/log/manager.h"
#include "broker/net/listeners.h"
#include "broker/partition/partitions.h"

/* A shard with what the composition keeps of it. */
struct shard_parts {
    struct shard shard;
    struct broker_parts *parts;
    struct loop_hook hook;
    struct loop_timer again; /* work was left at the end of a turn */
    struct control_subscriber images;
    struct directories *directories;
    struct loop_msg down, up; /* one step at a time: from shard 0, and the word that it is done */
    struct loop_msg ready;
    bool reported;    /* its logs are open, and shard 0 knows */
    struct dir_news { /* a log dir has failed; each does once */
        struct loop_msg msg;
        struct shard_parts *to;
        unsigned dir;
    } news[LOG_DIRS_MAX];
};

enum broker_phase { BROKER_STARTING, BROKER_SERVING, BROKER_STOPPING, BROKER_STOPPED };

struct broker_parts {
    struct broker broker;
    const struct broker_options *options;
    struct disk *disk;
    void (*failed)(void *arg, const char *why);
    void *failed_arg;

    const char *dirs[LOG_DIRS_MAX];
    unsigned dirs_n, metadata_dir; /* its index */
    struct log_dirs *log_dirs;
    struct identity identity;
    struct uuid incarnation;
    struct net_listeners listeners;
    struct control_endpoint endpoints[NET_LISTENERS_MAX]; /* brokers' first, then the controller's */
    unsigned endpoints_n, controller_n;
    _Atomic int32_t connections;
    struct partition_host host;
    struct log_files *quorum_files;
    struct shard_parts *shards; /* broker.shards_n of them */
    struct shard **shard_list;
    struct lifecycle *lifecycle;
    struct admin_http *admin;
    int64_t started_us;

    enum broker_phase phase;
    unsigned ready_n;   /* shards whose logs are open */
    unsigned waiting_n; /* shards that the present step of the stop waits for */
    void (*next_step)(struct broker_parts *p);
    void (*stopped)(void *arg);
    void *stopped_arg;
    struct loop_timer quiet;
    int64_t epoch; /* for the marker */
};

/* stop.c: clients drained, logs closed, quorum stopped; each step on every shard, then the next. */
void broker_stop_begin(struct broker_parts *p);
void broker_stop_drained_lifecycle(void *arg, int64_t epoch);
void broker_stop_control(void *arg);
/* status.c */
int broker_admin_open(struct broker_parts *p, struct err *err);

#endif
