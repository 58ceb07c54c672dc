/* apply(image, record), lookups, sharing and differences. */
#include "broker/metadata/image.h"

#include "broker/metadata/image_edit.h"
#include "base/core/rng.h"
#include "tests/support/metadata_gen.h"

#include <criterion/criterion.h>

#define ARENA_MAX ((size_t)1 << 24)

struct world {
    struct arena arena;
    struct metadata_records records;
    struct image *img;
};

static void world_init(struct world *w)
{
    arena_init(&w->arena, ARENA_MAX);
    metadata_records_init(&w->records, &w->arena);
    w->img = image_empty(SLICE_LIT("cluster"));
}

static void world_fini(struct world *w)
{
    image_unref(w->img);
    arena_fini(&w->arena);
}

/* All records so far as one batch; then the list is empty again. */
static int apply(struct world *w)
{
    struct image_edit e;
    struct err err = {0};
    cr_assert_eq(image_edit_begin(&e, w->img), 0);
    for (size_t i = 0; i < w->records.n; i++) {
        int rc = image_edit_apply(&e, &w->records.v[i], &err);
        if (rc < 0) {
            cr_assert(err.text[0], "errors say what is wrong");
            image_edit_drop(&e);
            w->records.n = 0;
            return rc;
        }
    }
    struct image *next = image_edit_finish(&e, image_offset(w->img) + (int64_t)w->records.n, 1, 0);
    image_unref(w->img);
    w->img = next;
    w->records.n = 0;
    return 0;
}

static struct uuid topic(struct world *w, const char *name, int32_t partitions)
{
    struct kp_topic_record *t = metadata_records_add(&w->records, kp_type_topic_record, 0);
    t->name = slice_str(name);
    memcpy(t->topic_id.b, name, strlen(name) < 16 ? strlen(name) : 16);
    static int32_t one[] = {1};
    for (int32_t i = 0; i < partitions; i++) {
        struct kp_partition_record *p = metadata_records_add(&w->records, kp_type_partition_record, 1);
        p->topic_id = t->topic_id;
        p->partition_id = i;
        p->replicas = p->isr = one;
        p->replicas_n = p->isr_n = 1;
        p->leader = 1;
        p->leader_epoch = p->partition_epoch = 0;
    }
    return t->topic_id;
}

static struct kp_partition_change_record *change(struct world *w, struct uuid id, int32_t index)
{
    struct kp_partition_change_record *c =
        metadata_records_add(&w->records, kp_type_partition_change_record, 2);
    c->topic_id = id;
    c->partition_id = index;
    return c;
}

Test(image, a_leader_in_a_change_raises_the_leader_epoch_even_when_it_is_the_same)
{
    struct world w;
    world_init(&w);
    struct uuid id = topic(&w, "orders", 2);
    cr_assert_eq(apply(&w), 0);
    const struct image_topic *t = image_topic(w.img, SLICE_LIT("orders"));
    cr_assert_eq(image_partition(t, 1)->leader_epoch, 0);
    change(&w, id, 1)->leader = 1;
    cr_assert_eq(apply(&w), 0);
    change(&w, id, 1); /* nothing but the partition epoch */
    cr_assert_eq(apply(&w), 0);
    t = image_topic_by_id(w.img, &id);
    cr_assert_eq(image_partition(t, 1)->leader_epoch, 1);
    cr_assert_eq(image_partition(t, 1)->partition_epoch, 2);
    cr_assert_eq(image_partition(t, 1)->isr_n, 1);
    cr_assert_eq(image_partition(t, 0)->partition_epoch, 0);
    cr_assert_null(image_partition(t, 2));
    cr_assert_null(image_partition(t, -1));
    cr_assert_eq(image_partitions_n(w.img), 2);
    world_fini(&w);
}

Test(image, an_older_image_does_not_change)
{
    struct world w;
    world_init(&w);
    struct uuid id = topic(&w, "orders", 3);
    cr_assert_eq(apply(&w), 0);
    struct image *old = image_ref(w.img);
    change(&w, id, 0)->leader = -1;
    topic(&w, "more", 1);
    cr_assert_eq(apply(&w), 0);
    cr_assert_eq(image_partition(image_topic(old, SLICE_LIT("orders")), 0)->leader, 1);
    cr_assert_null(image_topic(old, SLICE_LIT("more")));
    cr_assert_eq(image_partition(image_topic(w.img, SLICE_LIT("orders")), 0)->leader, -1);
    cr_assert_eq(image_partition(image_topic(w.img, SLICE_LIT("orders")), 2),
                 image_partition(image_topic(old, SLICE_LIT("orders")), 2), "what is unchanged is shared");
    image_unref(old);
    world_fini(&w);
}

Test(image, removing_a_topic_takes_its_configs)
{
    struct world w;
    world_init(&w);
    struct uuid id = topic(&w, "orders", 3);
    struct kp_config_record *c = metadata_records_add(&w.records, kp_type_config_record, 0);
    *c = (struct kp_config_record){IMAGE_CONFIG_TOPIC, SLICE_LIT("orders"), SLICE_LIT("retention.ms"),
                                   SLICE_LIT("5")};
    cr_assert_eq(apply(&w), 0);
    const struct image_config *set = image_config(w.img, IMAGE_CONFIG_TOPIC, SLICE_LIT("orders"));
    cr_assert(slice_eq_str(image_config_value(set, SLICE_LIT("retention.ms")), "5"));
    cr_assert(slice_is_null(image_config_value(set, SLICE_LIT("retention.m"))));
    struct kp_remove_topic_record *r = metadata_records_add(&w.records, kp_type_remove_topic_record, 0);
    r->topic_id = id;
    cr_assert_eq(apply(&w), 0);
    cr_assert_null(image_config(w.img, IMAGE_CONFIG_TOPIC, SLICE_LIT("orders")));
    cr_assert_eq(image_partitions_n(w.img), 0);
    world_fini(&w);
}

Test(image, records_that_contradict_the_image_are_refused)
{
    struct world w;
    world_init(&w);
    topic(&w, "orders", 1);
    cr_assert_eq(apply(&w), 0);
    struct uuid none = {.b = {9}};
    change(&w, none, 0);
    cr_assert_eq(apply(&w), -E_CORRUPT);
    change(&w, image_topic(w.img, SLICE_LIT("orders"))->id, 7);
    cr_assert_eq(apply(&w), -E_CORRUPT);
    topic(&w, "orders", 0);
    cr_assert_eq(apply(&w), -E_CORRUPT);
    metadata_records_add(&w.records, kp_type_end_transaction_record, 0);
    cr_assert_eq(apply(&w), -E_CORRUPT);
    struct kp_broker_registration_change_record *b =
        metadata_records_add(&w.records, kp_type_broker_registration_change_record, 1);
    b->broker_id = 3;
    cr_assert_eq(apply(&w), -E_CORRUPT);
    cr_assert_eq(image_topics_n(w.img), 1u);
    world_fini(&w);
}

Test(image, an_aborted_transaction_leaves_nothing_and_a_finished_one_all)
{
    for (int abort = 0; abort < 2; abort++) {
        struct world w;
        world_init(&w);
        topic(&w, "before", 1);
        metadata_records_add(&w.records, kp_type_begin_transaction_record, 0);
        topic(&w, "inside", 2);
        metadata_records_add(&w.records,
                             abort ? kp_type_abort_transaction_record : kp_type_end_transaction_record, 0);
        topic(&w, "behind", 1);
        cr_assert_eq(apply(&w), 0);
        cr_assert(image_topic(w.img, SLICE_LIT("before")) && image_topic(w.img, SLICE_LIT("behind")));
        cr_assert_eq(image_topic(w.img, SLICE_LIT("inside")) == NULL, abort);
        cr_assert_eq(image_partitions_n(w.img), abort ? 2 : 4);
        world_fini(&w);
    }
}

/* ---- differences ---- */

struct told {
    struct world w; /* rebuilt from what image_diff tells */
};

static void told_removed(void *arg, const struct image_topic *was)
{
    struct told *t = arg;
    struct kp_remove_topic_record *r = metadata_records_add(&t->w.records, kp_type_remove_topic_record, 0);
    r->topic_id = was->id;
}

static void told_added(void *arg, const struct image_topic *now)
{
    struct told *t = arg;
    struct kp_topic_record *r = metadata_records_add(&t->w.records, kp_type_topic_record, 0);
    r->topic_id = now->id;
    r->name = now->name;
}

static void told_partition(void *arg, const struct image_topic *topic, int32_t index,
                           const struct image_partition *was, const struct image_partition *now)
{
    struct told *t = arg;
    const struct image_topic *here = image_topic_by_id(t->w.img, &topic->id);
    cr_assert_eq(here && image_partition(here, index), was != NULL);
    struct kp_partition_record *r = metadata_records_add(&t->w.records, kp_type_partition_record, 2);
    r->topic_id = topic->id;
    r->partition_id = index;
    r->leader = now->leader;
    r->leader_epoch = now->leader_epoch;
    r->partition_epoch = now->partition_epoch;
    r->replicas = (int32_t *)(uintptr_t)now->replicas;
    r->replicas_n = now->replicas_n;
    r->isr = (int32_t *)(uintptr_t)now->isr;
    r->isr_n = now->isr_n;
    r->directories = (struct uuid *)(uintptr_t)now->directories;
    r->directories_n = now->directories_n;
    r->leader_recovery_state = now->recovering;
    r->eligible_leader_replicas = (int32_t *)(uintptr_t)now->elr;
    r->eligible_leader_replicas_n = now->elr_n;
}

/* The topics of an image, printed. */
static int print_topics(void *arg, const struct metadata_record *r)
{
    if (r->type != kp_type_topic_record && r->type != kp_type_partition_record)
        return 0;
    return metadata_record_encode(r, arg);
}

static void assert_same_topics(const struct image *a, const struct image *b)
{
    struct buf x, y;
    buf_init(&x, ARENA_MAX);
    buf_init(&y, ARENA_MAX);
    cr_assert_eq(image_write(a, print_topics, &x, NULL), 0);
    cr_assert_eq(image_write(b, print_topics, &y, NULL), 0);
    cr_assert(slice_eq(buf_slice(&x), buf_slice(&y)));
    buf_fini(&x);
    buf_fini(&y);
}

Test(image, differences_applied_to_the_old_topics_give_the_new_ones)
{
    static const struct image_changes changes = {
        .topic_removed = told_removed, .topic_added = told_added, .partition = told_partition};
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct world w;
        struct told told;
        struct rng rng;
        rng_init(&rng, seed);
        world_init(&w);
        world_init(&told.w);
        metadata_gen_start(&told.w.records);
        cr_assert_eq(apply(&told.w), 0);
        metadata_gen_start(&w.records);
        cr_assert_eq(apply(&w), 0);
        struct image *seen = NULL;
        for (int batch = 0; batch < 150; batch++) {
            metadata_gen_record(&rng, w.img, &w.records);
            cr_assert_eq(apply(&w), 0);
            if (!rng_chance(&rng, 200000))
                continue;
            image_diff(seen, w.img, &changes, &told);
            cr_assert_eq(apply(&told.w), 0);
            assert_same_topics(w.img, told.w.img);
            image_unref(seen);
            seen = image_ref(w.img);
        }
        image_unref(seen);
        world_fini(&told.w);
        world_fini(&w);
    }
}

/* What image_write says rebuilds the image, whatever its history. */
static int apply_again(void *arg, const struct metadata_record *r)
{
    struct err err = {0};
    int rc = image_edit_apply(arg, r, &err);
    cr_assert_eq(rc, 0, "%s", err.text);
    return rc;
}

Test(image, an_image_written_as_records_and_applied_is_the_same_image)
{
    for (uint64_t seed = 100; seed < 120; seed++) {
        struct world w, v;
        struct rng rng;
        struct buf first, second;
        struct image_edit e;
        rng_init(&rng, seed);
        world_init(&w);
        world_init(&v);
        buf_init(&first, ARENA_MAX);
        buf_init(&second, ARENA_MAX);
        metadata_gen_start(&w.records);
        cr_assert_eq(apply(&w), 0);
        for (int i = 0; i < 300; i++) {
            metadata_gen_record(&rng, w.img, &w.records);
            cr_assert_eq(apply(&w), 0);
        }
        cr_assert_eq(image_edit_begin(&e, v.img), 0);
        cr_assert_eq(image_write(w.img, apply_again, &e, NULL), 0);
        image_unref(v.img);
        v.img = image_edit_finish(&e, image_offset(w.img), image_epoch(w.img), 0);
        metadata_gen_print(w.img, &first);
        metadata_gen_print(v.img, &second);
        cr_assert_gt(first.n, 100u);
        cr_assert(slice_eq(buf_slice(&first), buf_slice(&second)), "seed %llu", (unsigned long long)seed);
        buf_fini(&first);
        buf_fini(&second);
        world_fini(&v);
        world_fini(&w);
    }
}

Test(image, ten_thousand_partitions_share_what_a_change_leaves)
{
    struct world w;
    world_init(&w);
    struct uuid wide = topic(&w, "wide", 5000);
    cr_assert_eq(apply(&w), 0);
    for (int i = 0; i < 1000; i++) {
        struct slice name = arena_printf(&w.arena, "t%d", i);
        topic(&w, (const char *)name.p, 5);
    }
    cr_assert_eq(apply(&w), 0);
    cr_assert_eq(image_partitions_n(w.img), 10000);
    struct image *was = image_ref(w.img);
    change(&w, wide, 4999)->leader = 1;
    cr_assert_eq(apply(&w), 0);
    int64_t shared = 0;
    for (const struct image_topic *t = image_topic_next(w.img, NULL); t; t = image_topic_next(w.img, t)) {
        for (int32_t i = 0; i < t->partitions_n; i++)
            shared += image_partition(t, i) == image_partition(image_topic(was, t->name), i);
    }
    cr_assert_eq(shared, 9999);
    image_unref(was);
    world_fini(&w);
}
