/* Shared by store.c and store_open.c. */
#ifndef SUNDOG_BROKER_QUORUM_STORE_INTERNAL_H
#define SUNDOG_BROKER_QUORUM_STORE_INTERNAL_H

#include "broker/quorum/store.h"

/* A control record of log or snapshot that concerns the quorum. */
int quorum_store_control(struct quorum_store *s, int type, struct slice value, struct err *err);
/* What holds once it is open, between calls. */
void quorum_store_check(const struct quorum_store *s);
/* The next batch, into image and voters. */
int quorum_store_replay(struct quorum_store *s, struct slice batch, struct err *err);

#endif
