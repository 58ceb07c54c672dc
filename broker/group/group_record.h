/* The records of __consumer_offsets, as Kafka writes and reads them (PROTOCOL.md §2.8):
 *
 *   key: version (int16), then   0 or 1: OffsetCommitKey {group, topic, partition}; 2: GroupMetadataKey {group}
 *   value: version (int16), then OffsetCommitValue 0 to 4 (1: the only one with an expiry), GroupMetadataValue 0 to 4;
 *   null: the offset, or the group, is deleted
 *
 * We write key versions 1 and 2, values of version 3 (1 where there is an expiry of its own), as Kafka does. Keys of
 * other versions belong to protocols that are not served and are told apart, not refused. Pure. */
#ifndef SUNDOG_BROKER_GROUP_GROUP_RECORD_H
#define SUNDOG_BROKER_GROUP_GROUP_RECORD_H

#include "broker/group/group.h"
#include "broker/group/offsets.h"
#include "proto/kafka/batch.h"

/* Adds one record; 0, -E_LIMIT, -E_NOMEM. `at` NULL: a tombstone. */
int group_record_put_offset(struct batch_builder *b, int64_t wall_ms, struct slice group, struct slice topic,
                            int32_t partition, const struct offset *at);
/* The group as it stands. */
int group_record_put_group(struct batch_builder *b, int64_t wall_ms, const struct group *g);
int group_record_put_group_tombstone(struct batch_builder *b, int64_t wall_ms, struct slice group);

enum group_record_kind { GROUP_RECORD_OFFSET, GROUP_RECORD_GROUP, GROUP_RECORD_OTHER };

struct group_record {
    enum group_record_kind kind;
    struct slice group;
    bool tombstone;
    /* OFFSET */
    struct slice topic;
    int32_t partition;
    struct offset at;
    /* GROUP: to be read with group_record_read_group */
    struct slice value;
};

/* Slices point into the record. 0, -E_CORRUPT, -E_VERSION (of a value), -E_LIMIT (the arena). */
int group_record_read(const struct record *r, struct arena *arena, struct group_record *out, struct err *err);
int group_record_read_group(struct slice value, struct arena *arena, struct group_restored *out,
                            struct err *err);

#endif
