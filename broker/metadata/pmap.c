#include "broker/metadata/pmap.h"

#include "base/core/err.h"

#include <assert.h>
#include <stdlib.h>

struct pmap_node {
    uint32_t refs;
    uint32_t n; /* items in this subtree */
    int height; /* 1: a leaf */
    struct pmap_node *left, *right;
    struct pmap_item *item;
};

struct pmap_item *pmap_item_ref(struct pmap_item *item)
{
    assert(item->refs < UINT32_MAX);
    item->refs++;
    return item;
}

void pmap_item_unref(const struct pmap_type *type, struct pmap_item *item)
{
    if (!item)
        return;
    assert(item->refs > 0);
    if (--item->refs == 0)
        type->free(item);
}

static int height_of(const struct pmap_node *n)
{
    return n ? n->height : 0;
}

static struct pmap_node *node_ref(struct pmap_node *n)
{
    if (n) {
        assert(n->refs > 0);
        assert(n->refs < UINT32_MAX);
        n->refs++;
    }
    return n;
}

static void node_unref(const struct pmap_type *type, struct pmap_node *n)
{
    while (n) {
        assert(n->refs > 0);
        if (--n->refs > 0)
            return;
        struct pmap_node *right = n->right;
        node_unref(type, n->left);
        pmap_item_unref(type, n->item);
        free(n);
        n = right;
    }
}

static void node_measure(struct pmap_node *n)
{
    int left = height_of(n->left), right = height_of(n->right);
    assert(n->refs == 1); /* what is shared does not change */
    assert(n->item);
    n->height = 1 + (left > right ? left : right);
    n->n = 1 + (n->left ? n->left->n : 0) + (n->right ? n->right->n : 0);
}

/* Turns one reference to `n` into a node that nobody else holds: `n` itself, or a copy. Out of memory: `*failed`, and
 * `n` comes back as it is, which the caller must not change. */
static struct pmap_node *node_own(struct pmap_node *n, bool *failed)
{
    if (n->refs == 1)
        return n;
    struct pmap_node *copy = malloc(sizeof *copy);
    if (!copy) {
        *failed = true;
        return n;
    }
    *copy = *n;
    copy->refs = 1;
    node_ref(copy->left);
    node_ref(copy->right);
    pmap_item_ref(copy->item);
    assert(n->refs > 1);
    n->refs--; /* others hold it */
    return copy;
}

static struct pmap_node *rotate_left(struct pmap_node *n, bool *failed)
{
    struct pmap_node *up = n->right = node_own(n->right, failed);
    if (*failed)
        return n;
    assert(up->refs == 1);
    n->right = up->left;
    up->left = n;
    node_measure(n);
    node_measure(up);
    return up;
}

static struct pmap_node *rotate_right(struct pmap_node *n, bool *failed)
{
    struct pmap_node *up = n->left = node_own(n->left, failed);
    if (*failed)
        return n;
    assert(up->refs == 1);
    n->left = up->right;
    up->right = n;
    node_measure(n);
    node_measure(up);
    return up;
}

/* `n` is ours alone; its subtrees are balanced and differ in height by at most 2. */
static struct pmap_node *node_balance(struct pmap_node *n, bool *failed)
{
    node_measure(n);
    int lean = height_of(n->left) - height_of(n->right);
    assert(*failed || (lean >= -2 && lean <= 2));
    if (lean < -1) {
        n->right = node_own(n->right, failed);
        if (!*failed && height_of(n->right->left) > height_of(n->right->right))
            n->right = rotate_right(n->right, failed);
        return *failed ? n : rotate_left(n, failed);
    }
    if (lean > 1) {
        n->left = node_own(n->left, failed);
        if (!*failed && height_of(n->left->right) > height_of(n->left->left))
            n->left = rotate_left(n->left, failed);
        return *failed ? n : rotate_right(n, failed);
    }
    return n;
}

static struct pmap_node *leaf_create(struct pmap_item *item, bool *failed)
{
    struct pmap_node *n = malloc(sizeof *n);
    if (!n) {
        *failed = true;
        return NULL;
    }
    *n = (struct pmap_node){.refs = 1, .n = 1, .height = 1, .item = pmap_item_ref(item)};
    return n;
}

/* The put and remove functions take a reference to `n` and give one to what takes its place. */
static struct pmap_node *node_put(const struct pmap_type *type, struct pmap_node *n, const void *key,
                                  struct pmap_item *item, bool *failed)
{
    if (!n)
        return leaf_create(item, failed);
    n = node_own(n, failed);
    if (*failed)
        return n;
    int c = type->compare(key, type->key(n->item));
    if (c == 0) {
        struct pmap_item *was = n->item;
        n->item = pmap_item_ref(item);
        pmap_item_unref(type, was);
        return n;
    }
    if (c < 0)
        n->left = node_put(type, n->left, key, item, failed);
    else
        n->right = node_put(type, n->right, key, item, failed);
    return node_balance(n, failed);
}

/* Unlinks the first node of the subtree; it comes out, owned, in *first. */
static struct pmap_node *node_take_first(struct pmap_node *n, struct pmap_node **first, bool *failed)
{
    n = node_own(n, failed);
    if (*failed)
        return n;
    if (!n->left) {
        struct pmap_node *rest = n->right;
        n->right = NULL;
        *first = n;
        return rest;
    }
    n->left = node_take_first(n->left, first, failed);
    return node_balance(n, failed);
}

static struct pmap_node *node_drop(const struct pmap_type *type, struct pmap_node *n, bool *failed)
{
    assert(n->refs == 1);
    struct pmap_node *left = n->left, *right = n->right, *first = NULL;
    if (left && right) {
        n->right = node_take_first(right, &first, failed);
        if (!first)
            return n; /* out of memory: nothing is unlinked */
        first->left = left;
        first->right = n->right;
        n->left = n->right = NULL;
        node_unref(type, n);
        return node_balance(first, failed);
    }
    n->left = n->right = NULL;
    node_unref(type, n);
    return left ? left : right;
}

static struct pmap_node *node_remove(const struct pmap_type *type, struct pmap_node *n, const void *key,
                                     bool *failed)
{
    assert(n); /* the key is there */
    n = node_own(n, failed);
    if (*failed)
        return n;
    int c = type->compare(key, type->key(n->item));
    if (c == 0)
        return node_drop(type, n, failed);
    if (c < 0)
        n->left = node_remove(type, n->left, key, failed);
    else
        n->right = node_remove(type, n->right, key, failed);
    return node_balance(n, failed);
}

void pmap_init(struct pmap *m, const struct pmap_type *type)
{
    *m = (struct pmap){.type = type};
}

void pmap_share(struct pmap *to, const struct pmap *from)
{
    *to = (struct pmap){from->type, node_ref(from->root)};
}

void pmap_fini(struct pmap *m)
{
    node_unref(m->type, m->root);
    m->root = NULL;
}

size_t pmap_n(const struct pmap *m)
{
    return m->root ? m->root->n : 0;
}

static const struct pmap_node *node_find(const struct pmap *m, const void *key)
{
    const struct pmap_node *n = m->root;
    while (n) {
        int c = m->type->compare(key, m->type->key(n->item));
        if (c == 0)
            break;
        n = c < 0 ? n->left : n->right;
    }
    return n;
}

struct pmap_item *pmap_find(const struct pmap *m, const void *key)
{
    const struct pmap_node *n = node_find(m, key);
    assert(!n || n->item); /* readers are on any thread: references are not theirs to look at */
    return n ? n->item : NULL;
}

struct pmap_item *pmap_after(const struct pmap *m, const void *key)
{
    struct pmap_item *best = NULL;
    for (const struct pmap_node *n = m->root; n;) {
        if (key && m->type->compare(key, m->type->key(n->item)) >= 0) {
            n = n->right;
        } else {
            best = n->item;
            n = n->left;
        }
    }
    return best;
}

int pmap_put(struct pmap *m, struct pmap_item *item)
{
    bool failed = false;
    size_t n = pmap_n(m);
    m->root = node_put(m->type, m->root, m->type->key(item), item, &failed);
    assert(failed || (pmap_n(m) >= n && pmap_n(m) <= n + 1 && item->refs > 1));
    return failed ? -E_NOMEM : 0;
}

int pmap_remove(struct pmap *m, const void *key)
{
    bool failed = false;
    size_t n = pmap_n(m);
    if (!node_find(m, key))
        return 0;
    m->root = node_remove(m->type, m->root, key, &failed);
    assert(failed || pmap_n(m) == n - 1);
    return failed ? -E_NOMEM : 0;
}

struct diff {
    const struct pmap *other;
    void (*each)(void *arg, const struct pmap_item *was, const struct pmap_item *now);
    void *arg;
};

/* A node that both trees hold has one subtree in both: nothing below it differs. */
static void diff_gone(const struct diff *d, const struct pmap_node *n)
{
    if (!n)
        return;
    const struct pmap_node *there = node_find(d->other, d->other->type->key(n->item));
    if (there == n)
        return;
    diff_gone(d, n->left);
    if (!there)
        d->each(d->arg, n->item, NULL);
    diff_gone(d, n->right);
}

static void diff_come(const struct diff *d, const struct pmap_node *n)
{
    if (!n)
        return;
    const struct pmap_node *there = node_find(d->other, d->other->type->key(n->item));
    if (there == n)
        return;
    diff_come(d, n->left);
    if (!there || there->item != n->item)
        d->each(d->arg, there ? there->item : NULL, n->item);
    diff_come(d, n->right);
}

void pmap_diff(const struct pmap *was, const struct pmap *now,
               void (*each)(void *arg, const struct pmap_item *was, const struct pmap_item *now), void *arg)
{
    assert(was->type == now->type);
    diff_gone(&(struct diff){now, each, arg}, was->root);
    diff_come(&(struct diff){was, each, arg}, now->root);
}

static bool node_sound(const struct pmap_type *type, const struct pmap_node *n, const void *above,
                       const void *below)
{
    if (!n)
        return true;
    int left = height_of(n->left), right = height_of(n->right);
    const void *key = type->key(n->item);
    bool here = n->refs > 0 && n->item->refs > 0 && left - right >= -1 && left - right <= 1 &&
                n->height == 1 + (left > right ? left : right) &&
                n->n == 1 + (n->left ? n->left->n : 0) + (n->right ? n->right->n : 0) &&
                (!above || type->compare(above, key) < 0) && (!below || type->compare(key, below) < 0);
    return here && node_sound(type, n->left, above, key) && node_sound(type, n->right, key, below);
}

bool pmap_sound(const struct pmap *m)
{
    return node_sound(m->type, m->root, NULL, NULL);
}
