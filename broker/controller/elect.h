/* Leaders and in-sync replicas when brokers come and go (KRAFT §9; INVARIANTS S14, S17, S18). Pure. */
#ifndef SUNDOG_BROKER_CONTROLLER_ELECT_H
#define SUNDOG_BROKER_CONTROLLER_ELECT_H

#include "broker/controller/decide.h"

enum broker_move {
    BROKER_LEAVES, /* fenced, or shutting down: no leader, out of the ISR unless it is the last there */
    BROKER_LEAVES_UNCLEAN, /* came back after an unclean stop, ELR on: out of ISR and ELR, even as the last */
    BROKER_JOINS,          /* unfenced: partitions without a leader may have one again */
};

/* PartitionChange records for every partition that the move concerns; the broker's own record is the caller's.
 * False: no memory. */
bool elect_after(const struct decide *d, int32_t broker_id, enum broker_move move);

/* A log dir of the broker has failed: the same for its replicas that lie there, as if it left them. */
bool elect_after_dir(const struct decide *d, int32_t broker_id, const struct uuid *directory);

/* Whether any partition is led by this broker. */
bool elect_leads(const struct image *img, int32_t broker_id);

#endif
