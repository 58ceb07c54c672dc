/* The names that are shown. */
#include "mirror/target/appender.h"

const char *appender_reason_name(enum appender_reason r)
{
    static const char *const names[] = {
#define X(name, text) text,
        APPENDER_REASONS(X)
#undef X
    };
    return (unsigned)r < APPENDER_REASONS_N ? names[r] : "?";
}

const char *appender_state_name(enum appender_state s)
{
    static const char *const names[APPENDER_STATES] = {
        [APPENDER_STARTING] = "starting",       [APPENDER_ANCHORING] = "anchoring",
        [APPENDER_RECONCILING] = "reconciling", [APPENDER_APPENDING] = "appending",
        [APPENDER_WAITING] = "waiting",         [APPENDER_HALTED] = "halted",
    };
    return (unsigned)s < APPENDER_STATES ? names[s] : "?";
}
