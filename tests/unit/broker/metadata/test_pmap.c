/* The persistent map against a plain array, with old versions kept alive beside it. */
#include "broker/metadata/pmap.h"

#include "base/core/rng.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 300

struct thing {
    struct pmap_item head;
    int key, value;
};

static int living;

static const void *thing_key(const struct pmap_item *i)
{
    return &((const struct thing *)(const void *)i)->key;
}

static int thing_compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void thing_free(struct pmap_item *i)
{
    living--;
    free(i);
}

static const struct pmap_type type = {thing_key, thing_compare, thing_free};

static void put(struct pmap *m, int key, int value)
{
    struct thing *t = calloc(1, sizeof *t);
    *t = (struct thing){{1}, key, value};
    living++;
    cr_assert_eq(pmap_put(m, &t->head), 0);
    pmap_item_unref(&type, &t->head);
}

static int get(const struct pmap *m, int key)
{
    struct pmap_item *i = pmap_find(m, &key);
    return i ? ((struct thing *)(void *)i)->value : 0;
}

static void check(const struct pmap *m, const int *model)
{
    size_t n = 0;
    cr_assert(pmap_sound(m));
    for (int k = 0; k < KEYS; k++) {
        cr_assert_eq(get(m, k), model[k]);
        n += model[k] != 0;
    }
    cr_assert_eq(pmap_n(m), n);
    int last = -1;
    for (struct pmap_item *i = pmap_after(m, NULL); i; i = pmap_after(m, thing_key(i))) {
        int key = ((struct thing *)(void *)i)->key;
        cr_assert_gt(key, last);
        last = key;
        n--;
    }
    cr_assert_eq(n, 0u);
}

struct diffed {
    int now[KEYS];
    bool come;
};

static void on_diff(void *arg, const struct pmap_item *was, const struct pmap_item *now)
{
    struct diffed *d = arg;
    const struct thing *w = (const void *)was, *n = (const void *)now;
    cr_assert(w || n);
    int key = n ? n->key : w->key;
    cr_assert_eq(d->now[key], w ? w->value : 0);
    cr_assert(n || !d->come, "what is gone is told first");
    d->come |= n != NULL;
    d->now[key] = n ? n->value : 0;
}

/* Applying the difference to the old content gives the new one. */
static void check_diff(const struct pmap *was, const int *old, const struct pmap *now, const int *new)
{
    struct diffed d = {.come = false};
    memcpy(d.now, old, sizeof d.now);
    pmap_diff(was, now, on_diff, &d);
    cr_assert_eq(memcmp(d.now, new, sizeof d.now), 0);
}

Test(pmap, versions_stay_what_they_were_whatever_happens_to_later_ones)
{
    enum { VERSIONS = 40 };
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct rng rng;
        static struct pmap maps[VERSIONS];
        static int models[VERSIONS][KEYS];
        rng_init(&rng, seed);
        memset(models, 0, sizeof models);
        pmap_init(&maps[0], &type);
        for (int v = 1; v < VERSIONS; v++) {
            pmap_share(&maps[v], &maps[v - 1]);
            memcpy(models[v], models[v - 1], sizeof models[v]);
            for (uint64_t i = rng_below(&rng, 60); i > 0; i--) {
                int key = (int)rng_below(&rng, KEYS);
                if (rng_chance(&rng, 600000)) {
                    models[v][key] = 1 + (int)rng_below(&rng, 1000);
                    put(&maps[v], key, models[v][key]);
                } else {
                    models[v][key] = 0;
                    cr_assert_eq(pmap_remove(&maps[v], &key), 0);
                }
            }
        }
        for (int v = 0; v < VERSIONS; v++)
            check(&maps[v], models[v]);
        for (int i = 0; i < 60; i++) {
            int a = (int)rng_below(&rng, VERSIONS), b = (int)rng_below(&rng, VERSIONS);
            check_diff(&maps[a], models[a], &maps[b], models[b]);
        }
        for (int v = 0; v < VERSIONS; v++)
            pmap_fini(&maps[(v * 7 + 3) % VERSIONS]);
        cr_assert_eq(living, 0, "seed %llu: every item is given back", (unsigned long long)seed);
    }
}

static void count(void *arg, const struct pmap_item *was, const struct pmap_item *now)
{
    (void)was, (void)now;
    (*(int *)arg)++;
}

Test(pmap, sorted_and_reverse_insertion_stay_balanced)
{
    struct pmap up, down;
    pmap_init(&up, &type);
    pmap_init(&down, &type);
    for (int i = 0; i < 2000; i++) {
        put(&up, i, 1);
        put(&down, 2000 - i, 1);
    }
    cr_assert(pmap_sound(&up) && pmap_sound(&down));
    struct pmap shared;
    int n = 0;
    pmap_share(&shared, &up);
    put(&shared, 1000, 2);
    pmap_diff(&up, &shared, count, &n);
    cr_assert_eq(n, 1);
    pmap_fini(&up);
    cr_assert_eq(get(&shared, 999), 1);
    pmap_fini(&shared);
    pmap_fini(&down);
    cr_assert_eq(living, 0);
}
