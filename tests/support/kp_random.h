/* Random messages of any row table, for round trips: every member that the version has gets a value, nulls where they
 * are allowed, defaults now and then so that tagged members also stay away. */
#ifndef SUNDOG_TESTS_SUPPORT_KP_RANDOM_H
#define SUNDOG_TESTS_SUPPORT_KP_RANDOM_H

#include "proto/kafka/wire.h"

struct kp_random {
    uint64_t state;
    struct arena *arena;
    int32_t list_max;  /* elements */
    size_t string_max; /* bytes */
    bool text;         /* strings are printable (Java's must be UTF-8) */
};

uint64_t kp_random_next(struct kp_random *r);
/* `n` > 0: one of 0..n-1. */
uint64_t kp_random_below(struct kp_random *r, uint64_t n);
/* Fills `body`, which is the message's struct. */
void kp_random_fill(struct kp_random *r, const struct kp_message *m, int16_t version, void *body);
/* Random bytes in the arena. */
struct slice kp_random_bytes(struct kp_random *r, size_t most);

/* Every message of the rows, requests, responses and records: 0..n-1. */
struct kp_named {
    const char *name;
    const struct kp_message *message;
};
size_t kp_every_message(const struct kp_named **out);

#endif
