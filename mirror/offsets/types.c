#include "mirror/offsets/types.h"

#include <assert.h>

const char *mirror_group_state_name(enum group_state s)
{
    static const char *const names[] = {
#define X(name, text) [GROUP_##name] = text,
        GROUP_STATES(X)
#undef X
    };
    assert((unsigned)s < GROUP_STATES_N);
    return names[s];
}

const char *ledger_kind_name(enum ledger_kind k)
{
    static const char *const names[] = {
#define X(name, text) [LEDGER_##name] = text,
        LEDGER_KINDS(X)
#undef X
    };
    assert((unsigned)k < LEDGER_KINDS_N);
    return names[k];
}
