#include "base/core/sm.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

void sm_init(struct sm *m, const struct sm_table *table, const void *owner, unsigned state)
{
    assert(table->states);
    assert(table->n > 0);
    assert(table->n <= SM_STATES_MAX);
    assert(state < table->n);
    *m = (struct sm){table, owner, state};
}

bool sm_may(const struct sm *m, unsigned state)
{
    assert(m->state < m->table->n);
    return state < m->table->n && (m->table->states[m->state].next & SM_TO(state)) != 0;
}

const char *sm_state_name(const struct sm_table *t, unsigned state)
{
    return state < t->n ? t->states[state].name : "no such state";
}

const char *sm_name(const struct sm *m)
{
    return sm_state_name(m->table, m->state);
}

void sm_move(struct sm *m, unsigned state)
{
    if (!sm_may(m, state)) {
        fprintf(stderr, "%s: no way from %s to %s\n", m->table->name, sm_name(m),
                sm_state_name(m->table, state));
        abort();
    }
    m->state = state;
    if (m->table->invariant && !m->table->invariant(m->owner, state)) {
        fprintf(stderr, "%s: the invariant does not hold in %s\n", m->table->name, sm_name(m));
        abort();
    }
}

bool sm_lint(const struct sm_table *t)
{
    uint64_t reached = SM_TO(0), all = t->n < 64 ? SM_TO(t->n) - 1 : UINT64_MAX;
    if (t->n == 0 || t->n > SM_STATES_MAX)
        return false;
    for (unsigned i = 0; i < t->n; i++) {
        if (!t->states[i].name || (t->states[i].next & ~all))
            return false;
        reached |= t->states[i].next;
    }
    return reached == all;
}
