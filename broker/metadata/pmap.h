/* A persistent ordered map: a copy costs nothing, a change copies only the path to what changed.
 *
 * An AVL tree of counted nodes and counted items. Maps that share nodes are made with pmap_share; a change of one is
 * not seen in the other. Nodes that only one map holds are changed in place, so a long run of changes to one map
 * (a log being replayed) costs no more than in an ordinary tree.
 * Threading: counts are plain, so all maps that share nodes are changed, shared and released by one thread; others may
 * read a map that nobody changes. Depth is below 1.45 log2(n), the recursion with it. */
#ifndef SUNDOG_BROKER_METADATA_PMAP_H
#define SUNDOG_BROKER_METADATA_PMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* First member of what a map holds. */
struct pmap_item {
    uint32_t refs;
};

struct pmap_type {
    const void *(*key)(const struct pmap_item *item);
    int (*compare)(const void *a, const void *b); /* of keys */
    void (*free)(struct pmap_item *item);
};

struct pmap_node;

struct pmap {
    const struct pmap_type *type;
    struct pmap_node *root;
};

void pmap_init(struct pmap *m, const struct pmap_type *type);
/* `to` becomes a copy of `from`; it must not hold anything. */
void pmap_share(struct pmap *to, const struct pmap *from);
void pmap_fini(struct pmap *m);

size_t pmap_n(const struct pmap *m);
struct pmap_item *pmap_find(const struct pmap *m, const void *key);
/* The item with the smallest key above `key`; NULL key: the first. */
struct pmap_item *pmap_after(const struct pmap *m, const void *key);

/* Adds, or replaces the item of the same key; takes a reference of its own. -E_NOMEM: some part of the change may be
 * missing and the map may only be released. */
int pmap_put(struct pmap *m, struct pmap_item *item);
/* 0, also when the key is not there, or -E_NOMEM as above. */
int pmap_remove(struct pmap *m, const void *key);

/* Calls `each` for every key whose items are not the same one, first what is only in `was` (now == NULL), then, in key
 * order, what is new (was == NULL) or replaced. Costs about what has changed since the maps parted. */
void pmap_diff(const struct pmap *was, const struct pmap *now,
               void (*each)(void *arg, const struct pmap_item *was, const struct pmap_item *now), void *arg);

struct pmap_item *pmap_item_ref(struct pmap_item *item);
void pmap_item_unref(const struct pmap_type *type, struct pmap_item *item);

/* For tests: heights, order and sizes are right. */
bool pmap_sound(const struct pmap *m);

#endif
