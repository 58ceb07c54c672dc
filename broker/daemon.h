/* A broker as a process: loops on threads of their own, real sockets and disk, signals. The simulator does without. */
#ifndef SUNDOG_BROKER_DAEMON_H
#define SUNDOG_BROKER_DAEMON_H

#include "broker/broker.h"

/* Builds, runs until a signal has ended it, tears down. The exit code; a start that fails has said why in one line. */
int daemon_run(struct disk *disk, const struct broker_options *options);

#endif
