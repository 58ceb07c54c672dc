/* What each partition waits for: a turn costs what there is to do in it, not what there is. */
#include "mirror/port/client_parts.h"

#include <stdlib.h>

static struct raw_node *node_of(struct raw_port *p, int32_t id)
{
    list_each (at, &p->nodes) {
        struct raw_node *n = LIST_ENTRY(at, struct raw_node, link);
        if (n->id == id)
            return n;
    }
    struct raw_node *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->id = id;
    n->port = p;
    raw_session_init(&n->session);
    n->pace_bytes = RAW_PACE_FIRST;
    list_init(&n->more.list);
    list_init(&n->tail.list);
    list_init(&n->fetches);
    list_push(&p->nodes, &n->link);
    return n;
}

void raw_nodes_free(struct raw_port *p)
{
    while (!list_empty(&p->nodes)) {
        struct raw_node *n = LIST_ENTRY(list_pop(&p->nodes), struct raw_node, link);
        assert(n->fetches_n == 0 && n->asked_bytes == 0 && list_empty(&n->more.list) &&
               list_empty(&n->tail.list));
        raw_session_fini(&n->session);
        free(n);
    }
}

void raw_unplace(struct raw_part *part)
{
    if (!list_linked(&part->todo))
        return;
    list_remove(&part->todo);
    if (part->turns)
        part->turns->n--;
    part->wanted_of = NULL;
    part->turns = NULL;
}

static bool has_room(const struct raw_part *part)
{
    size_t ahead = (size_t)part->asked_bytes * 2;
    return part->ahead_bytes < (ahead > RAW_AHEAD_BYTES ? ahead : RAW_AHEAD_BYTES);
}

static struct raw_turns *turns_of(struct raw_node *n, const struct raw_part *part)
{
    return part->fetch_next < raw_readable(part) ? &n->more : &n->tail;
}

void raw_place(struct raw_part *part)
{
    struct raw_port *p = part->port;
    if (part->replica >= 0 && part->replica_until_us <= loop_now_us(p->loop))
        part->replica = -1;
    if (part->still && raw_session_keeps(part) && has_room(part))
        return;
    if (part->still)
        raw_session_loosen(part);
    if (part->wanted_of && part->state == RAW_FETCHING && raw_reads_at(part) == part->wanted_of->id &&
        !part->ask && part->retry_at_us <= loop_now_us(p->loop) && has_room(part) &&
        part->turns == turns_of(part->wanted_of, part))
        return; /* keeps its turn */
    raw_unplace(part);
    if (part->dropped || part->state == RAW_STOPPED || part->ask || part->fetch)
        return;
    if (part->retry_at_us > loop_now_us(p->loop)) {
        list_push(&p->retrying, &part->todo);
    } else if (part->state == RAW_ASKING || part->leader < 0) {
        list_push(&p->attention, &part->todo);
    } else if (has_room(part)) {
        struct raw_node *n = node_of(p, raw_reads_at(part));
        struct raw_turns *turns = n ? turns_of(n, part) : NULL;
        list_push(turns ? &turns->list : &p->attention, &part->todo);
        part->wanted_of = n;
        part->turns = turns;
        if (turns)
            turns->n++;
    }
}
