/* A whole broker as a node of the simulator: broker_create on the node's loop, net and disk, one shard.
 *
 *     struct sim_broker_options o = {.properties = "sundog.flush.before.ack=false\n"};
 *     node = sim_node_add(sim, &(struct sim_node_options){.name = "broker", .boot = sim_broker_boot, .arg = &o});
 *
 * It listens on SIM_BROKER_PORT of its own name. A killed one's memory is left (see sim.h). */
#ifndef SUNDOG_TESTS_SUPPORT_SERVE_SIM_BROKER_H
#define SUNDOG_TESTS_SUPPORT_SERVE_SIM_BROKER_H

#include "broker/broker.h"
#include "tests/support/sim/sim.h"

#define SIM_BROKER_PORT 9092

struct sim_broker_options {
    const char *properties; /* lines beside listeners, log.dirs and sundog.insecure; NULL: none */
    const char *log_dirs;   /* NULL: /data */
    unsigned failures;      /* times that the broker said it cannot go on; also while it is dying */
    char refused[512];      /* why the last start was refused */
};

void *sim_broker_boot(void *arg, struct sim_node *node);
/* NULL while the node is down. */
struct broker *sim_broker(struct sim_node *node);
/* Clients are served. */
bool sim_broker_serving(void *node);

#endif
