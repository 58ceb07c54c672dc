/* Declared state machines: a table of states with the successors each may have. State changes only through
 * sm_move, which asserts that the table allows them.
 *
 *     enum { CONN_HANDSHAKE, CONN_READY, CONN_CLOSING };
 *     static const struct sm_state states[] = {
 *         [CONN_HANDSHAKE] = {"handshake", SM_TO(CONN_READY) | SM_TO(CONN_CLOSING)},
 *         [CONN_READY] = {"ready", SM_TO(CONN_CLOSING)},
 *         [CONN_CLOSING] = {"closing", SM_END},
 *     };
 *     static const struct sm_table conn_sm = SM_TABLE("connection", states, conn_invariant);
 */
#ifndef SUNDOG_BASE_CORE_SM_H
#define SUNDOG_BASE_CORE_SM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SM_STATES_MAX 64
#define SM_TO(state)  (UINT64_C(1) << (state))
#define SM_END        UINT64_C(0)

struct sm_state {
    const char *name;
    uint64_t next; /* SM_TO(…) or'ed */
};

struct sm_table {
    const char *name;
    const struct sm_state *states;
    unsigned n;
    /* Holds after every move; may be NULL. `owner` is what sm_init was given. */
    bool (*invariant)(const void *owner, unsigned state);
};

#define SM_TABLE(name, states, invariant)                                                                    \
    {                                                                                                        \
        name, states, sizeof(states) / sizeof *(states), invariant                                           \
    }

struct sm {
    const struct sm_table *table;
    const void *owner;
    unsigned state;
};

void sm_init(struct sm *m, const struct sm_table *table, const void *owner, unsigned state);
/* Aborts, naming machine and both states, when the table does not allow it. */
void sm_move(struct sm *m, unsigned state);
bool sm_may(const struct sm *m, unsigned state);
const char *sm_name(const struct sm *m);
const char *sm_state_name(const struct sm_table *t, unsigned state);
/* Every state but the first has a way in, every successor exists; for a test that walks all tables. */
bool sm_lint(const struct sm_table *t);

static inline unsigned sm_state(const struct sm *m)
{
    return m->state;
}

#endif
