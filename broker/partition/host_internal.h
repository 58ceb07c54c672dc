/* What host.c and host_group.c know of each other. */
#ifndef SUNDOG_BROKER_PARTITION_HOST_INTERNAL_H
#define SUNDOG_BROKER_PARTITION_HOST_INTERNAL_H

#include "broker/partition/internal.h"

/* What was found in the log dirs at the start, by folder name. */
struct found {
    const struct log_found *row;
    _Atomic bool claimed; /* by a partition that opened it */
    UT_hash_handle hh;
    char name[LOG_TOPIC_MAX + 16];
};

enum host_what { HOST_LOAD, HOST_CREATE, HOST_CLOSE, HOST_DELETE };

struct host_job {
    struct loop_job job; /* of LOAD and CLOSE */
    struct list link;    /* of CREATE and DELETE: set->to_group, then in the group's */
    struct partition *p;
    enum host_what what;
    struct found *found;
    struct log_config config;
    int64_t wall_ms;
    uint64_t random[2];
    struct log *log;
    unsigned dir;
    bool skipped; /* the broker ends: there is no log */
    bool again;   /* it lacked room the last time */
    int rc;
    struct err err;
};

/* A partition's job has ended: what follows from it. */
void host_job_ended(struct host_job *j);

#endif
