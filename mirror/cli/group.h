/* A group's committed offsets and state, as one session sees them. */
#ifndef SUNDOG_MIRROR_CLI_GROUP_H
#define SUNDOG_MIRROR_CLI_GROUP_H

#include "base/core/err.h"
#include "base/core/slice.h"

#include <jansson.h>

struct session;

struct group_offset {
    struct slice topic;
    int32_t partition;
    int64_t offset;
    struct slice metadata;
};

struct group_commits {
    struct group_offset *list; /* in the session's arena */
    size_t n;
};

/* Every committed offset of the group; none is not an error. */
int group_commits(struct session *s, const char *group, struct group_commits *out, struct err *err);
/* "Empty", "Stable", "Dead" for a group that is not there, … `rows` (may be NULL) gets an object per member. */
int cli_group_state(struct session *s, const char *group, struct slice *state, int32_t *members, json_t *rows,
                    struct err *err);

#endif
