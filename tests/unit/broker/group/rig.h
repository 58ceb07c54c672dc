/* Groups on a shard with a real log: requests and what is read out of their answers, restarts between. */
#ifndef SUNDOG_TESTS_UNIT_GROUP_RIG_H
#define SUNDOG_TESTS_UNIT_GROUP_RIG_H

#include "tests/support/serve/rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

struct who {
    const char *group, *member, *instance;
    int32_t generation;
};

struct got {
    int64_t offset;
    int16_t error;
    char metadata[32];
};

struct member {
    char id[128];
    int32_t generation;
    bool leader;
};

extern int64_t retention_ms; /* asked for by commits */
extern const struct slice to_orders;

struct groups_options options(void);
struct rig *begin_with(const char *dir, struct groups_options o);
struct rig *begin(void);
void wait_ms(struct rig *r, int ms);
struct rig *restart(struct rig *r, struct groups_options o);
int16_t commit_as(struct rig *r, int16_t version, struct who who, const char *topic, int32_t partition,
                  int64_t offset, const char *metadata);
int16_t commit(struct rig *r, const char *group, const char *topic, int32_t partition, int64_t offset);
struct got fetch(struct rig *r, const char *group, const char *topic, int32_t partition);
int64_t fetched(struct rig *r, const char *group, const char *topic, int32_t partition);
int16_t delete_group(struct rig *r, const char *group);
void state_of(struct rig *r, const char *group, char *out, size_t cap);
void send_join(struct rig *r, struct rig_call *c, int16_t version, const char *group, const char *member,
               struct slice metadata);
int16_t sync_as(struct rig *r, const char *group, const struct member *m, const char *assignment);
struct member only_member(struct rig *r, const char *group);
int16_t heartbeat(struct rig *r, const char *group, const struct member *m);
int16_t leave(struct rig *r, int16_t version, const char *group, const char *member);

#endif
