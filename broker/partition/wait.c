/* Parked fetches: woken at the end of the turn in which the committed end of one of their partitions has moved. */
#include "broker/partition/internal.h"

uint64_t partition_committed_bytes(const struct partition *p)
{
    return p->committed_bytes;
}

void partition_wait(struct partition *p, struct partition_wait *w)
{
    assert(p->magic == PARTITION_MAGIC);
    assert(w->wake);
    assert(!list_linked(&w->link));
    w->partition = p;
    w->since_bytes = p->committed_bytes;
    w->changed = false;
    list_push(&p->waits, &w->link);
}

void partition_wait_stop(struct partition_wait *w)
{
    assert(!list_linked(&w->link) || w->partition);
    if (list_linked(&w->link))
        list_remove(&w->link);
    w->partition = NULL;
}

void wait_mark(struct partition *p)
{
    if (!list_empty(&p->waits) && !list_linked(&p->advanced))
        list_push(&p->set->advanced, &p->advanced);
}

/* A wake may stop this wait and any others, so each is taken off the front of a list of its own and put back first. */
void wait_wake(struct partition *p)
{
    struct list now;
    assert(p->magic == PARTITION_MAGIC);
    assert(!list_linked(&p->advanced));
    bool changed = p->changed;
    p->changed = false;
    list_init(&now);
    while (!list_empty(&p->waits))
        list_push(&now, list_pop(&p->waits));
    while (!list_empty(&now)) {
        struct partition_wait *w = LIST_ENTRY(list_pop(&now), struct partition_wait, link);
        assert(w->partition == p);
        list_push(&p->waits, &w->link);
        w->changed |= changed;
        w->wake(w);
    }
}

void wait_end(struct partition *p)
{
    while (!list_empty(&p->waits)) {
        struct partition_wait *w = LIST_ENTRY(list_pop(&p->waits), struct partition_wait, link);
        assert(w->partition == p);
        w->partition = NULL;
        w->changed = true;
        w->wake(w);
    }
    if (list_linked(&p->advanced))
        list_remove(&p->advanced);
}
