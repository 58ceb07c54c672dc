/* The lanes of one source partition and what they share: one reading of the source, one anchor, one position. Pure, as
 * the lanes are; appender.c drives it.
 *
 * One reading serves all lanes: it begins at the lowest source offset that any of them needs, each passes over what it
 * has. A lane that must pair asks for a reading; when all of them know where they stand, one more begins from which
 * they append. `group_reading` says that the source stands where GROUP_READ_FROM wanted it; what is taken between is
 * dropped, since it will be read again. */
#ifndef SUNDOG_MIRROR_TARGET_GROUP_H
#define SUNDOG_MIRROR_TARGET_GROUP_H

#include "mirror/target/lane.h"

#define GROUP_LANES_MAX    10000
#define GROUP_EPOCHS       16 /* changes of the source's leader epoch that are remembered */
#define GROUP_UNSAVED      131072
#define GROUP_SCRATCH_MAX  (CODEC_BYTES_MAX_DEFAULT + ((size_t)1 << 20)) /* of one batch, decompressed */
#define GROUP_SCRATCH_KEPT ((size_t)64 << 10) /* larger ones are given back at once */

enum group_effect_kind {
    GROUP_NOTHING,
    GROUP_LANE, /* `lane` wants `effect` done */
    GROUP_ANCHOR,
    GROUP_READ_FROM, /* `from`, `epoch` */
    GROUP_STATE,
    GROUP_ROOM,
    GROUP_DRAINED,
    GROUP_SETTLED,
};

struct group_effect {
    enum group_effect_kind kind;
    struct lane *lane;
    struct lane_effect effect;
    int64_t from;
    int32_t epoch;
};

struct lane_group {
    struct lane *lanes;
    struct appender_point *points; /* for progress */
    size_t n;
    int64_t fed;      /* all source offsets below have been given */
    int64_t expected; /* the reading's next offset */
    int64_t missing;  /* offsets of this reading that were no records */
    bool awaiting;    /* GROUP_READ_FROM has been told, group_reading has not come */

    bool anchor_told, refused, draining, settling, changed; /* refused: GROUP_ROOM is owed */
    bool dirty;  /* a lane may have changed state since group_decide */
    size_t next; /* lane whose effects are asked next */
    struct {
        int64_t from; /* records from this source offset on have … */
        int32_t epoch;
    } epochs[GROUP_EPOCHS];
    size_t epochs_n;
    int64_t unsaved_max, saved, saving; /* numbers of all lanes together */
    struct appender_status status;
    char text[256];
    struct buf scratch; /* a batch's records, decompressed */
};

/* The options' points become lanes. -E_NOMEM, -E_LIMIT. */
int group_init(struct lane_group *g, const struct appender_options *o, uint64_t seed, int64_t now_us,
               int64_t now_ms);
void group_fini(struct lane_group *g);
/* The reading goes on to `to`: offsets passed over were no records. */
void group_advance(struct lane_group *g, int64_t to);
struct lane *group_lane(const struct lane_group *g, int32_t partition);

/* The next thing to do, GROUP_NOTHING when all is said. */
struct group_effect group_effect(struct lane_group *g);
/* After an event of a lane. */
void group_touched(struct lane_group *g);
void group_time(struct lane_group *g, int64_t now_us, int64_t now_ms);
int64_t group_due(const struct lane_group *g);

/* false is remembered: GROUP_ROOM follows when it has become true, however soon that is. */
bool group_can_take(struct lane_group *g);
int group_take(struct lane_group *g, int32_t q, const struct port_record *r);
void group_take_as(struct lane_group *g, struct lane *l, const struct port_record *r, int codec);
/* A whole batch for `q`, as it lies in the source's log (group_whole.c). What is before *next has been taken when it
 * cannot go on: -E_CORRUPT, -E_NOMEM, -E_LIMIT. */
int group_take_batch(struct lane_group *g, int32_t q, const struct port_batch *b, int64_t *next);
void group_covered(struct lane_group *g, int64_t source_next, int32_t source_epoch);
void group_reading(struct lane_group *g);
void group_source_end(struct lane_group *g, int64_t source_end);
void group_anchored(struct lane_group *g);
/* Runs that nobody has been told yet, lane by lane; false: none are left. Before each group_progress, whose positions
 * must not be ahead of their runs: a record that was taken just now may have ended a pairing. */
bool group_take_runs(struct lane_group *g, struct lane_effect *e);
void group_progress(struct lane_group *g, struct appender_progress *out);
void group_saved(struct lane_group *g);
void group_drain(struct lane_group *g);
void group_settle(struct lane_group *g);

#endif
