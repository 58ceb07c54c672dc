#include "broker/group/group_internal.h"

#include <stdlib.h>

/* A block's header: freed blocks wait on a list of the effects. Sixteen bytes, so that what follows is aligned. */
struct group_kept {
    struct group_kept *next;
    size_t size;
};

void group_effects_init(struct group_effects *fx)
{
    *fx = (struct group_effects){.v = fx->few, .cap = sizeof fx->few / sizeof *fx->few};
}

void group_effects_clear(struct group_effects *fx)
{
    assert(fx->v);
    assert(fx->n <= fx->cap);
    while (fx->kept) {
        struct group_kept *next = fx->kept->next;
        free(fx->kept);
        fx->kept = next;
    }
    fx->n = 0;
}

void group_effects_fini(struct group_effects *fx)
{
    group_effects_clear(fx);
    if (fx->v != fx->few)
        free(fx->v);
    *fx = (struct group_effects){0};
}

bool group_effects_reserve(struct group_effects *fx, size_t n)
{
    assert(fx->n <= fx->cap);
    if (fx->cap - fx->n >= n)
        return true;
    size_t cap = fx->n + n + 16;
    struct group_effect *v = calloc(cap, sizeof *v);
    if (!v)
        return false;
    memcpy(v, fx->v, fx->n * sizeof *v);
    if (fx->v != fx->few)
        free(fx->v);
    fx->v = v;
    fx->cap = cap;
    assert(fx->cap - fx->n >= n);
    return true;
}

struct group_effect *group_effect_push(struct group_effects *fx, enum group_effect_kind kind)
{
    assert(fx->n < fx->cap); /* group_step has reserved */
    struct group_effect *e = &fx->v[fx->n++];
    *e = (struct group_effect){.kind = kind};
    return e;
}

void *group_block(size_t size)
{
    struct group_kept *k = calloc(1, sizeof *k + size);
    if (!k)
        return NULL;
    k->size = size;
    return k + 1;
}

void group_block_free(void *p)
{
    if (p)
        free((struct group_kept *)p - 1);
}

void group_block_keep(struct group_effects *fx, void *p)
{
    if (!p)
        return;
    struct group_kept *k = (struct group_kept *)p - 1;
    assert(!k->next);
    k->next = fx->kept;
    fx->kept = k;
}

struct slice group_dup(struct slice s, bool *ok)
{
    if (slice_is_null(s) || s.n == 0)
        return slice_is_null(s) ? s : slice_of("", 0);
    uint8_t *p = group_block(s.n);
    if (!p) {
        *ok = false;
        return SLICE_NULL;
    }
    memcpy(p, s.p, s.n);
    return slice_of(p, s.n);
}

void group_dup_free(struct slice s)
{
    if (s.n)
        group_block_free((void *)(uintptr_t)s.p);
}

void group_dup_keep(struct group_effects *fx, struct slice s)
{
    if (s.n)
        group_block_keep(fx, (void *)(uintptr_t)s.p);
}

void group_answer(struct group_effects *fx, void *token, int16_t error)
{
    assert(token);
    struct group_effect *a = group_effect_push(fx, GROUP_ANSWER);
    a->token = token;
    a->error = error;
}

void group_answer_join_error(struct group_effects *fx, void *token, int16_t error, struct slice member_id)
{
    assert(token);
    assert(error != KE_NONE);
    struct group_effect *a = group_effect_push(fx, GROUP_ANSWER_JOIN);
    a->token = token;
    a->error = error;
    a->join.generation = -1;
    a->join.leader = slice_of("", 0);
    a->join.member_id = slice_is_null(member_id) ? slice_of("", 0) : member_id;
}

void group_answer_sync(struct group_effects *fx, void *token, int16_t error)
{
    assert(token);
    struct group_effect *a = group_effect_push(fx, GROUP_ANSWER_SYNC);
    a->token = token;
    a->error = error;
    a->sync.assignment = slice_of("", 0);
}
