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
    list_init(&n->wanting);
    list_push(&p->nodes, &n->link);
    return n;
}

void raw_nodes_free(struct raw_port *p)
{
    while (!list_empty(&p->nodes)) {
        struct raw_node *n = LIST_ENTRY(list_pop(&p->nodes), struct raw_node, link);
        assert(!n->fetch && list_empty(&n->wanting));
        free(n);
    }
}

void raw_unplace(struct raw_part *part)
{
    if (!list_linked(&part->todo))
        return;
    list_remove(&part->todo);
    if (part->wanted_of)
        part->wanted_of->wanting_n--;
    part->wanted_of = NULL;
}

static bool has_room(const struct raw_part *part)
{
    size_t ahead = (size_t)part->asked_bytes * 2;
    return part->ahead_bytes < (ahead > RAW_AHEAD_BYTES ? ahead : RAW_AHEAD_BYTES);
}

void raw_place(struct raw_part *part)
{
    struct raw_port *p = part->port;
    if (part->wanted_of && part->state == RAW_FETCHING && part->leader == part->wanted_of->id && !part->ask &&
        part->retry_at_us <= loop_now_us(p->loop) && has_room(part))
        return; /* keeps its turn */
    raw_unplace(part);
    if (part->dropped || part->state == RAW_STOPPED || part->ask || part->fetch)
        return;
    if (part->retry_at_us > loop_now_us(p->loop)) {
        list_push(&p->retrying, &part->todo);
    } else if (part->state == RAW_ASKING || part->leader < 0) {
        list_push(&p->attention, &part->todo);
    } else if (has_room(part)) {
        struct raw_node *n = node_of(p, part->leader);
        list_push(n ? &n->wanting : &p->attention, &part->todo);
        part->wanted_of = n;
        if (n)
            n->wanting_n++;
    }
}
