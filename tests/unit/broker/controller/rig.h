/* An image and what decides on it, without a controller: a request in, its records applied at once. */
#ifndef SUNDOG_TESTS_UNIT_BROKER_CONTROLLER_RIG_H
#define SUNDOG_TESTS_UNIT_BROKER_CONTROLLER_RIG_H

#include "broker/controller/brokers.h"
#include "broker/controller/decide.h"
#include "broker/metadata/image_edit.h"

#include <criterion/criterion.h>

#define ARENA_MAX ((size_t)64 << 20)

struct world {
    struct arena arena, response;
    struct metadata_records records;
    struct image *img;
    struct rng rng;
    struct decide_rules rules;
    int64_t next;
};

static inline struct decide decide(struct world *w)
{
    metadata_records_init(&w->records, &w->arena);
    return (struct decide){.img = w->img,
                           .offset_next = w->next,
                           .node_id = 1,
                           .rules = &w->rules,
                           .rng = &w->rng,
                           .arena = &w->response,
                           .out = &w->records};
}

/* What was decided is committed. */
static inline void commit(struct world *w)
{
    struct image_edit e;
    struct err err = {0};
    cr_assert_eq(image_edit_begin(&e, w->img), 0);
    for (size_t i = 0; i < w->records.n; i++)
        cr_assert_eq(image_edit_apply(&e, &w->records.v[i], &err), 0, "%s", err.text);
    w->next += (int64_t)w->records.n;
    struct image *next = image_edit_finish(&e, w->next - 1, 1, 0);
    image_unref(w->img);
    w->img = next;
    w->records.n = 0;
}

static inline void world_level(struct world *w, const char *feature, int16_t level)
{
    struct decide d = decide(w);
    *(struct kp_feature_level_record *)decide_record(&d, kp_type_feature_level_record) =
        (struct kp_feature_level_record){slice_str(feature), level};
    commit(w);
}

static inline void world_begin(struct world *w, const struct decide_rules *rules)
{
    *w = (struct world){.rules = *rules};
    arena_init(&w->arena, ARENA_MAX);
    arena_init(&w->response, ARENA_MAX);
    rng_init(&w->rng, 5);
    w->img = image_empty(SLICE_LIT("cluster"));
    world_level(w, METADATA_VERSION_FEATURE, 25);
}

static inline void world_fini(struct world *w)
{
    image_unref(w->img);
    arena_fini(&w->arena);
    arena_fini(&w->response);
}

#endif
