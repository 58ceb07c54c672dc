/* struct net on sockets: non-blocking, TCP_NODELAY, every read, writev and sendfile one system call of the
 * caller. One per loop, used on its thread. At EMFILE a listener answers one waiting client through a spare
 * descriptor (by closing it), pauses 100 ms and complains once. */
#ifndef SUNDOG_BASE_WORLD_NET_POSIX_H
#define SUNDOG_BASE_WORLD_NET_POSIX_H

#include "base/world/loop_posix.h"
#include "base/world/net.h"

#define NET_BACKLOG          1024
#define NET_ACCEPTS_PER_TURN 64
#define NET_EMFILE_PAUSE_MS  100
#define NET_ADDRESSES_MAX    8 /* of one name, tried in turn */

/* An outgoing connection is dead when the peer's machine has acknowledged nothing for so long, though it was asked to: a
 * line that was cut without a word would otherwise be noticed after minutes, and its end too. */
#define NET_DEAD_MS 10000

struct net_posix_options {
    /* Told of what is not any call's error (no descriptors left); may be NULL. */
    void (*complain)(void *arg, const char *text);
    /* A waiting client was closed for lack of descriptors; may be NULL. */
    void (*refused)(void *arg);
    void *arg;
    /* An accepted socket of this number or above is refused, as if it were the last: files need some too.
     * 0: none is. */
    int accept_below;
};

int net_posix_create(struct loop_posix *l, const struct net_posix_options *o, struct net **out,
                     struct err *err);
/* Every connection and listener must be closed before. */
void net_posix_destroy(struct net *n);

/* socket(2) for an outgoing connection as they are made here, for libraries that make their own. Any thread. */
int net_posix_socket(int domain, int type, int protocol);

#endif
