#include "tests/support/metadata_gen.h"

#include "base/core/rng.h"

#include <assert.h>
#include <stdio.h>

static int32_t *some_ints(struct rng *rng, struct arena *a, int32_t n)
{
    int32_t *v = ARENA_NEWS(a, int32_t, n);
    for (int32_t i = 0; i < n; i++)
        v[i] = i + (int32_t)rng_below(rng, 3);
    return v;
}

static struct uuid some_uuid(struct rng *rng)
{
    struct uuid u;
    rng_fill(rng, &u, sizeof u);
    u.b[0] |= 1;
    return u;
}

static const struct image_topic *some_topic(struct rng *rng, const struct image *img)
{
    size_t n = image_topics_n(img);
    const struct image_topic *t = NULL;
    for (size_t i = n ? rng_below(rng, n) + 1 : 0; i > 0; i--)
        t = image_topic_next(img, t);
    return t;
}

static void gen_topic(struct rng *rng, const struct image *img, struct metadata_records *to)
{
    struct slice name = arena_printf(to->arena, "topic-%u", (unsigned)rng_below(rng, 200));
    if (image_topic(img, name))
        return;
    struct kp_topic_record *r = metadata_records_add(to, kp_type_topic_record, 0);
    r->name = name;
    r->topic_id = some_uuid(rng);
}

static void gen_partition(struct rng *rng, const struct image *img, struct metadata_records *to)
{
    const struct image_topic *t = some_topic(rng, img);
    if (!t || t->partitions_n >= 20)
        return;
    struct kp_partition_record *r = metadata_records_add(to, kp_type_partition_record, 2);
    r->partition_id = t->partitions_n;
    r->topic_id = t->id;
    r->replicas_n = 1 + (int32_t)rng_below(rng, 3);
    r->replicas = some_ints(rng, to->arena, r->replicas_n);
    r->isr_n = r->replicas_n;
    r->isr = r->replicas;
    r->directories_n = r->replicas_n;
    r->directories = ARENA_NEWS(to->arena, struct uuid, r->directories_n);
    for (int32_t i = 0; i < r->directories_n; i++)
        r->directories[i] = some_uuid(rng);
    r->leader = r->replicas[0];
    r->leader_epoch = (int32_t)rng_below(rng, 10);
    r->partition_epoch = (int32_t)rng_below(rng, 10);
}

static void gen_change(struct rng *rng, const struct image *img, struct metadata_records *to)
{
    const struct image_topic *t = some_topic(rng, img);
    if (!t || t->partitions_n == 0)
        return;
    struct kp_partition_change_record *r = metadata_records_add(to, kp_type_partition_change_record, 2);
    r->partition_id = (int32_t)rng_below(rng, (uint64_t)t->partitions_n);
    r->topic_id = t->id;
    if (rng_chance(rng, 500000))
        r->leader = (int32_t)rng_range(rng, -1, 3);
    if (rng_chance(rng, 300000)) {
        r->isr_n = (int32_t)rng_below(rng, 3);
        r->isr = some_ints(rng, to->arena, r->isr_n);
    }
    if (rng_chance(rng, 200000)) {
        r->eligible_leader_replicas_n = (int32_t)rng_below(rng, 3);
        r->eligible_leader_replicas = some_ints(rng, to->arena, r->eligible_leader_replicas_n);
    }
    if (rng_chance(rng, 200000))
        r->leader_recovery_state = (int8_t)rng_below(rng, 2);
}

static void gen_remove(struct rng *rng, const struct image *img, struct metadata_records *to)
{
    const struct image_topic *t = some_topic(rng, img);
    if (!t)
        return;
    struct kp_remove_topic_record *r = metadata_records_add(to, kp_type_remove_topic_record, 0);
    r->topic_id = t->id;
}

static void gen_config(struct rng *rng, const struct image *img, struct metadata_records *to)
{
    const struct image_topic *t = some_topic(rng, img);
    struct kp_config_record *r = metadata_records_add(to, kp_type_config_record, 0);
    r->resource_type = t && rng_chance(rng, 700000) ? IMAGE_CONFIG_TOPIC : IMAGE_CONFIG_BROKER;
    r->resource_name =
        r->resource_type == IMAGE_CONFIG_TOPIC ? arena_dup(to->arena, t->name) : SLICE_LIT("1");
    r->name = arena_printf(to->arena, "key-%u", (unsigned)rng_below(rng, 6));
    r->value =
        rng_chance(rng, 300000) ? SLICE_NULL : arena_printf(to->arena, "%u", (unsigned)rng_below(rng, 9999));
}

static void gen_broker(struct rng *rng, const struct image *img, struct metadata_records *to)
{
    struct kp_register_broker_record *r = metadata_records_add(to, kp_type_register_broker_record, 3);
    r->broker_id = (int32_t)rng_below(rng, 4);
    r->incarnation_id = some_uuid(rng);
    r->broker_epoch = image_offset(img) + 1 + (int64_t)rng_below(rng, 1000);
    r->rack = rng_chance(rng, 500000) ? SLICE_LIT("r1") : SLICE_NULL;
    r->fenced = rng_chance(rng, 500000);
    r->end_points = ARENA_NEW(to->arena, struct kp_register_broker_record_end_points);
    r->end_points[0] =
        (struct kp_register_broker_record_end_points){SLICE_LIT("PLAINTEXT"), SLICE_LIT("h"), 9092, 0};
    r->end_points_n = 1;
    r->log_dirs = ARENA_NEW(to->arena, struct uuid);
    r->log_dirs[0] = some_uuid(rng);
    r->log_dirs_n = 1;
}

static void gen_broker_change(struct rng *rng, const struct image *img, struct metadata_records *to)
{
    const struct image_broker *b = image_broker(img, (int32_t)rng_below(rng, 4));
    if (!b)
        return;
    struct kp_broker_registration_change_record *r =
        metadata_records_add(to, kp_type_broker_registration_change_record, 2);
    r->broker_id = b->id;
    r->broker_epoch = b->epoch;
    r->fenced = (int8_t)rng_range(rng, -1, 1);
    r->in_controlled_shutdown = (int8_t)rng_below(rng, 2);
}

static void gen_others(struct rng *rng, const struct image *img, struct metadata_records *to)
{
    switch (rng_below(rng, 6)) {
    case 0: {
        struct kp_producer_ids_record *r = metadata_records_add(to, kp_type_producer_ids_record, 0);
        r->next_producer_id = image_producer_id_next(img) + 1000;
        break;
    }
    case 1: {
        struct kp_access_control_entry_record *r =
            metadata_records_add(to, kp_type_access_control_entry_record, 0);
        r->id = uuid_small(100 + rng_below(rng, 20));
        r->principal = SLICE_LIT("User:a");
        r->resource_name = r->host = SLICE_LIT("*");
        break;
    }
    case 2: {
        struct kp_remove_access_control_entry_record *r =
            metadata_records_add(to, kp_type_remove_access_control_entry_record, 0);
        r->id = uuid_small(100 + rng_below(rng, 20));
        break;
    }
    case 3: {
        struct kp_client_quota_record *r = metadata_records_add(to, kp_type_client_quota_record, 0);
        bool turned = rng_chance(rng, 500000);
        r->entity = ARENA_NEWS(to->arena, struct kp_client_quota_record_entity, 2);
        r->entity_n = 2;
        r->entity[turned] = (struct kp_client_quota_record_entity){SLICE_LIT("user"), SLICE_LIT("a")};
        r->entity[!turned] = (struct kp_client_quota_record_entity){SLICE_LIT("client-id"), SLICE_NULL};
        r->key = rng_chance(rng, 500000) ? SLICE_LIT("producer_byte_rate") : SLICE_LIT("consumer_byte_rate");
        r->value = (double)rng_below(rng, 1000);
        r->remove = rng_chance(rng, 300000);
        break;
    }
    case 4: {
        struct kp_user_scram_credential_record *r =
            metadata_records_add(to, kp_type_user_scram_credential_record, 0);
        r->name = rng_chance(rng, 500000) ? SLICE_LIT("alice") : SLICE_LIT("bob");
        r->mechanism = 1;
        r->iterations = 4096 + (int32_t)rng_below(rng, 100);
        r->salt = r->stored_key = r->server_key = SLICE_LIT("xyz");
        break;
    }
    default: {
        struct kp_feature_level_record *r = metadata_records_add(to, kp_type_feature_level_record, 0);
        r->name = SLICE_LIT("group.version");
        r->feature_level = (int16_t)rng_below(rng, 2);
    }
    }
}

void metadata_gen_record(struct rng *rng, const struct image *img, struct metadata_records *to)
{
    static void (*const gens[])(struct rng *, const struct image *, struct metadata_records *) = {
        gen_topic,  gen_topic,  gen_partition, gen_partition, gen_partition,     gen_change,
        gen_change, gen_remove, gen_config,    gen_broker,    gen_broker_change, gen_others};
    size_t before = to->n;
    while (to->n == before)
        gens[rng_below(rng, sizeof gens / sizeof *gens)](rng, img, to);
}

void metadata_gen_start(struct metadata_records *to)
{
    struct kp_feature_level_record *r = metadata_records_add(to, kp_type_feature_level_record, 0);
    r->name = SLICE_LIT(METADATA_VERSION_FEATURE);
    r->feature_level = METADATA_VERSION_MIN;
}

static int print_record(void *arg, const struct metadata_record *r)
{
    return metadata_record_encode(r, arg);
}

void metadata_gen_print(const struct image *img, struct buf *to)
{
    int rc = image_write(img, print_record, to, NULL);
    assert(rc == 0 && !to->failed);
    (void)rc;
}
