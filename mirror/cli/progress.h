/* A flow's map read from its progress topic at its target (`sundog-progress.<source>.internal`), without any store. */
#ifndef SUNDOG_MIRROR_CLI_PROGRESS_H
#define SUNDOG_MIRROR_CLI_PROGRESS_H

#include "mirror/cli/session.h"
#include "mirror/offsets/translate.h"

struct progress;

/* Reads the topic to the end it has now. *out is NULL when there is no such topic. */
int cli_progress_read(struct session *s, struct slice source_alias, struct progress **out, struct err *err);
void cli_progress_free(struct progress *p);

struct progress_topic {
    struct map *map;
    struct route_rule rule;
    int32_t partitions; /* of the source topic */
    struct slice target_topic;
};
/* False when nothing of the source topic has been mirrored. */
bool cli_progress_topic(struct progress *p, struct slice source_topic, struct progress_topic *out);

#endif
