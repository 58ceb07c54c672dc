/* The committed offsets of one group, by topic and partition; pure.
 *
 * What readers see is what is committed in the log. A change goes through two steps, so that the log's order decides
 * and nothing can fail in the second: offsets_prepare when its record is given to the log, offsets_settle when that is
 * committed or refused. A partition with changes under way is known (offsets_next shows it) though it may have no
 * offset yet: whoever deletes a group must delete that too. One thread at a time. */
#ifndef SUNDOG_BROKER_GROUP_OFFSETS_H
#define SUNDOG_BROKER_GROUP_OFFSETS_H

#include "base/core/slice.h"

#include <stdint.h>

#define OFFSET_NO_EXPIRY INT64_C(-1)

struct offset {
    int64_t offset;
    int32_t leader_epoch; /* -1: not told */
    struct slice metadata;
    int64_t committed_ms; /* since 1970 */
    int64_t expires_ms;   /* what an old client asked for; OFFSET_NO_EXPIRY: the broker's retention */
};

struct offset_topic;
struct offset_entry;

struct offsets {
    struct offset_topic *topics;
    size_t entries_n; /* partitions known */
    size_t bytes;
};

/* A change on its way. */
struct offset_change {
    struct offset_entry *entry;
    struct offset *next; /* NULL: the offset is deleted */
};

void offsets_init(struct offsets *o);
/* No change may be under way. */
void offsets_fini(struct offsets *o);

/* The committed offset, NULL: none. Good until the next settle. */
const struct offset *offsets_find(const struct offsets *o, struct slice topic, int32_t partition);

/* Has it an offset, or changes under way? */
bool offsets_known(const struct offsets *o, struct slice topic, int32_t partition);

/* Copies all; `at` NULL deletes. 0 or -E_NOMEM, with nothing changed. */
int offsets_prepare(struct offsets *o, struct slice topic, int32_t partition, const struct offset *at,
                    struct offset_change *out);
/* `record_offset`: where the log has it, or -1 when it was refused. A later record's change is not undone by an earlier
 * one's. The change is used up. */
void offsets_settle(struct offsets *o, struct offset_change *change, int64_t record_offset);

/* Walks everything known: start with a zeroed walk; false at the end. Meanwhile no settle, and no prepare of what is
 * not known. */
struct offset_walk {
    struct offset_topic *topic;
    struct offset_entry *entry;
    struct slice name;
    int32_t partition;
    const struct offset *at; /* NULL: none committed (yet) */
    bool pending;            /* changes are under way */
};
bool offsets_next(const struct offsets *o, struct offset_walk *w);
/* Topics, and how many entries each has: to size answers. */
size_t offsets_topics_n(const struct offsets *o);
size_t offsets_topic_entries_n(const struct offsets *o, struct slice topic);

#endif
