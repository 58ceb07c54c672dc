/* Scenarios of one group in virtual time: clients by one-letter names send requests, what comes back is a trace.
 *
 *     struct group_script *s = group_script_create(NULL);
 *     script_join(s, "A", NULL);
 *     script_run(s, 3000);
 *     script_expect(s, "0 A join MEMBER_ID_REQUIRED id=A1\n" …);
 *
 * A client remembers its member id and generation as a real one does. Member ids are its name and a count. Asserts that
 * every request is answered once and that group_check holds after each step. */
#ifndef SUNDOG_TESTS_SUPPORT_GROUP_SCRIPT_H
#define SUNDOG_TESTS_SUPPORT_GROUP_SCRIPT_H

#include "broker/group/group.h"

#define SCRIPT_CLIENTS_MAX 64

struct group_script;

struct script_join {
    const char *instance;             /* static member */
    const char *protocols;            /* "range:topics roundrobin:topics"; default "range:t" */
    const char *type;                 /* default "test" */
    int32_t session_ms, rebalance_ms; /* default 10000, 60000 */
    int version;                      /* default 9 */
    const char *member_id;            /* instead of the one remembered; "" is unknown */
};

struct group_script *group_script_create(const struct group_config *config);
/* Unloads, checks that nothing is left waiting. */
void group_script_destroy(struct group_script *s);
struct group *script_group(struct group_script *s);
int64_t script_now_ms(const struct group_script *s);

void script_join(struct group_script *s, const char *who, const struct script_join *how);
/* As the leader gives "A1=x B1=y"; NULL or "" as a follower. Generation: the client's, plus `off`. */
void script_sync(struct group_script *s, const char *who, const char *assignments);
void script_heartbeat(struct group_script *s, const char *who);
void script_leave(struct group_script *s, const char *who);
/* The error of a commit under the client's member id and generation plus `off`. */
int16_t script_commit(struct group_script *s, const char *who, int32_t off);
int16_t script_simple_commit(struct group_script *s);
/* Answers the oldest record that is being written. */
void script_persisted(struct group_script *s, int16_t error);
/* Records are written at once from now on (the default), or wait for script_persisted. */
void script_auto_persist(struct group_script *s, bool on);
/* Lets time pass, with the ticks that fall due. */
void script_run(struct group_script *s, int64_t until_ms);
/* What has happened since the last look; lines of "MS CLIENT REQUEST RESULT". */
const char *script_trace(struct group_script *s);
/* Asserts that the trace is this, and shows both when not. */
void script_expect(struct group_script *s, const char *trace);

/* Of a client: what it holds. */
const char *script_member_id(struct group_script *s, const char *who);
void script_member_id_set(struct group_script *s, const char *who, const char *id);
int32_t script_generation(struct group_script *s, const char *who);
const char *script_assignment(struct group_script *s, const char *who);
bool script_waiting(struct group_script *s, const char *who);
bool script_is_leader(struct group_script *s, const char *who);
/* The last error that the client was told. */
int16_t script_error(struct group_script *s, const char *who);
/* The members the leader was told, "A1 B1 "; empty for followers. */
const char *script_told_members(struct group_script *s, const char *who);

#endif
