/* A client in the simulator that a test drives call by call: each one runs the world until its answer is there.
 *
 *     struct sim_client *c = sim_client_add(sim, "client", "broker:9092");
 *     const struct kp_metadata_response *m =
 *         sim_client_ask(c, CLIENT_ANY, kp_key_metadata, 12, &request, 5 * SIM_SECOND);
 *
 * The answer lives until the next call. NULL: no answer in time, or an error (sim_client_status). */
#ifndef SUNDOG_TESTS_SUPPORT_SERVE_SIM_CLIENT_H
#define SUNDOG_TESTS_SUPPORT_SERVE_SIM_CLIENT_H

#include "proto/client/client.h"
#include "tests/support/sim/sim.h"

struct sim_client;

struct sim_client *sim_client_add(struct sim *s, const char *name, const char *bootstrap);
/* Before sim_destroy. */
void sim_client_free(struct sim_client *c);
const void *sim_client_ask(struct sim_client *c, enum client_target_kind kind, int16_t key, int16_t version,
                           const void *request, int64_t limit_us);
int sim_client_status(const struct sim_client *c);

/* CreateTopics of one topic on one node; the error. */
int16_t sim_client_create_topic(struct sim_client *c, const char *name, int32_t partitions);
/* One batch of `n` records, acks −1, to a partition; the error, -1 without an answer. */
int16_t sim_client_produce(struct sim_client *c, const char *topic, int32_t partition, int n,
                           int64_t *offset);
/* ListOffsets of the end (-1) or the start (-2); -1 without an answer. */
int64_t sim_client_offset(struct sim_client *c, const char *topic, int32_t partition, int64_t which);
/* Bytes that a fetch from `offset` gives, without waiting; negative: minus the error. */
int64_t sim_client_fetch(struct sim_client *c, const char *topic, int32_t partition, int64_t offset);

#endif
