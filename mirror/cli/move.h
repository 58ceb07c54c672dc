/* Moving a group: what is to be committed where, gathered first, shown, then committed in one request. */
#ifndef SUNDOG_MIRROR_CLI_MOVE_H
#define SUNDOG_MIRROR_CLI_MOVE_H

#include "mirror/cli/cli.h"
#include "mirror/cli/session.h"
#include "mirror/offsets/translate.h"

#define MOVE_PARTITIONS_MAX 100000

struct move_commit {
    struct slice topic; /* in the session's keep */
    int32_t partition;
    int64_t offset;
};

/* Of the command line. */
struct move_what {
    const char *to, *group; /* an alias of the file; a consumer group */
    bool partial;
};

struct move {
    struct cli *cli;
    struct move_what what;
    struct session *to; /* the cluster the group goes to */
    struct move_commit *list;
    size_t n, cap;
    json_t *rows;
    int lacking; /* rows without a map */
};

/* What one row says beyond its translation. */
struct move_row {
    struct slice from_topic, topic;
    int32_t partition;
    int64_t from;    /* the group's offset where it comes from, -1: several partitions decide */
    int64_t missing; /* records that had not arrived, as far as is known */
};

/* --to, --group and --partial, both of the first needed, and nothing else. 0 or an exit code. */
int move_args(struct args *args, struct move_what *out);
/* Opens the session with `what->to`. 0 or an exit code; move_fini in any case. */
int move_init(struct move *m, struct cli *cli, const struct move_what *what);
void move_fini(struct move *m);
/* Where the partition begins and ends at the destination, for the clamp. */
int move_bounds(struct move *m, struct slice topic, int32_t partition, struct translate_bounds *out,
                struct err *err);
/* One translated partition; TRANSLATE_NO_MAP is shown and counted, not committed. */
int move_add(struct move *m, const struct move_row *r, const struct translation *t, struct err *err);
/* A topic without any map. */
void move_lacks(struct move *m, struct slice topic, const char *why);
/* Refuses when the group is active there or rows lack a map (unless `partial`), else commits and prints. An exit
 * code. */
int move_finish(struct move *m);

#endif
