/* One visit: its life and its questions (visit.c), committed offsets off the wire (visit_offsets.c), their translation
 * (visit_translate.c), and the group at the target (visit_target.c). Loop thread; a visit belongs to the round that has
 * begun it, one question at a time, and ends once: in visit_end, or with all others in visit_cancel_all. */
#ifndef SUNDOG_MIRROR_CHECKPOINT_VISIT_H
#define SUNDOG_MIRROR_CHECKPOINT_VISIT_H

#include "mirror/checkpoint/internal.h"

/* An offset that may be committed at the target, once the group has been looked at there. */
struct wish {
    struct entry *entry;
    const struct watched *topic;
    struct decide_in in;
    struct decide_out out;
};

struct visit {
    struct list link;
    struct checkpoint *c;
    struct group *g;
    struct client *asked;
    struct client_call *call;
    struct arena arena;
    struct wish *wishes; /* what the target must be asked about */
    size_t wishes_n, wishes_cap;
    size_t bound_at; /* the wish whose partition's start is asked for */
    struct store_wait wait;
    bool active; /* the group has members at the target */
};

/* Frees the visit and tells the round. */
void visit_end(struct visit *v, bool well);
/* Says what could not be done, from the answer's status or else `code`, and ends. */
void visit_fail(struct visit *v, const char *what, const struct client_response *r, int16_t code);

/* A question to the group's coordinator at `client`, not yet sent: v->call, with its body; NULL when there is no room
 * for it. */
void *visit_ask(struct visit *v, struct client *client, int16_t api, int16_t version_min, int16_t version_max,
                void (*on_response)(void *arg, const struct client_response *r));
/* The same in the middle of a visit, which ends without it. */
void *visit_ask_or_end(struct visit *v, struct client *client, int16_t api, int16_t version_min,
                       int16_t version_max, void (*on_response)(void *arg, const struct client_response *r));
void visit_send(struct visit *v);
/* Gives back the question, which found no room for its rows, and ends. */
void visit_no_room(struct visit *v);

/* ---- committed offsets ---- */

struct committed {
    struct slice topic, metadata;
    int32_t partition;
    int64_t offset;
};

/* Asks for all committed offsets of the group. -E_NOMEM: nothing was asked. */
int visit_ask_offsets(struct visit *v, struct client *client,
                      void (*on_response)(void *arg, const struct client_response *r));
/* Of an answer with a body. */
int16_t visit_offsets_error(const struct client_response *r);
/* Calls `each` for every partition with a commit, of an answer without an error. */
void visit_offsets_each(const struct client_response *r, void (*each)(void *arg, const struct committed *o),
                        void *arg);

/* Translates the commits in the source's answer, keeps what has changed, and leaves in `wishes` what the target must be
 * asked about. */
int visit_translate(struct visit *v, const struct client_response *r, struct err *err);
/* Asks the target about the wishes, commits what may be committed, and ends. */
void visit_target(struct visit *v);

#endif
