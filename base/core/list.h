/* An intrusive doubly linked list with a sentinel; a node is in at most one list. */
#ifndef SUNDOG_BASE_CORE_LIST_H
#define SUNDOG_BASE_CORE_LIST_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *prev;
};

#define LIST_ENTRY(node, type, member) ((type *)(void *)((char *)(node) - offsetof(type, member)))
#define list_each(at, head) for (struct list *at = (head)->next; at != (head); at = at->next)
/* The body may remove `at`. */
#define list_each_safe(at, head) \
    for (struct list *at = (head)->next, *at##_next = at->next; at != (head); at = at##_next, at##_next = at->next)

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

static inline bool list_linked(const struct list *node)
{
    return node->next && node->next != node;
}

static inline void list_insert(struct list *before, struct list *node)
{
    node->prev = before->prev;
    node->next = before;
    before->prev->next = node;
    before->prev = node;
}

static inline void list_push(struct list *l, struct list *node)
{
    list_insert(l, node); /* at the tail */
}

static inline void list_push_front(struct list *l, struct list *node)
{
    list_insert(l->next, node);
}

static inline void list_remove(struct list *node)
{
    assert(node->prev->next == node);
    assert(node->next->prev == node);
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

static inline struct list *list_pop(struct list *l)
{
    assert(!list_empty(l));
    struct list *node = l->next;
    list_remove(node);
    return node;
}

#endif
