/* What quorum.c (running) and quorum_open.c (how it begins) share. */
#ifndef SUNDOG_BROKER_QUORUM_QUORUM_INTERNAL_H
#define SUNDOG_BROKER_QUORUM_QUORUM_INTERNAL_H

#include "broker/quorum/quorum.h"
#include "broker/quorum/raft.h"
#include "broker/quorum/store.h"

#define EFFECTS_MAX (RAFT_EFFECTS_MAX * 4) /* waiting for a write of quorum-state */

/* An image that waits for the high watermark to pass it. */
struct waiting_image {
    struct list link;
    struct image *img;
};

struct quorum {
    struct quorum_options o;
    char metadata_dir[SNAPSHOT_PATH_MAX];
    struct image_reaper reaper;
    struct quorum_store store;
    struct raft raft;

    struct raft_effect effects[EFFECTS_MAX]; /* still to be carried out, in order */
    unsigned effects_n;
    bool running; /* run_effects is on the stack */

    struct loop_timer timer;
    struct loop_hook turn_end;
    bool hooked;

    struct loop_job state_job; /* writes quorum-state */
    struct quorum_state state_writing;
    int state_rc;
    struct err state_err;
    bool state_busy;

    struct loop_job flush_job;
    struct log_flush *flush;

    struct loop_job snapshot_job;
    struct quorum_snapshot_job snapshot;
    bool snapshot_busy;
    int64_t snapshot_us; /* when the last one was made, or tried */

    struct list waiting;     /* of struct waiting_image, by offset */
    struct image *committed; /* what committed() was told last; NULL: nothing yet */
    bool leading;            /* the listener has been told */
    bool stopping, stopped, failed;
};

/* Time has come for raft. */
void quorum_on_timer(void *arg);

#endif
