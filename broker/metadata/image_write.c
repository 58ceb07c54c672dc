/* An image as records, in the order of Kafka's own snapshots (MetadataImage.write). */
#include "broker/metadata/image_edit.h"
#include "broker/metadata/image_internal.h"

#include <assert.h>

#define WRITE_ARENA_MAX ((size_t)16 << 20) /* of one record */

struct writer {
    int (*each)(void *arg, const struct metadata_record *r);
    void *arg;
    struct arena arena;
    int16_t metadata_version;
    struct err *err;
};

int16_t metadata_version_of(int16_t type, int16_t metadata_version)
{
    switch (type) {
    case kp_type_register_broker_record: return metadata_version >= 30 ? 4 : metadata_version >= 17 ? 3 : 1;
    case kp_type_broker_registration_change_record:
        return metadata_version >= 30 ? 3 : metadata_version >= 17 ? 2 : 1;
    case kp_type_partition_record:
    case kp_type_partition_change_record: return metadata_version >= 23 ? 2 : metadata_version >= 17 ? 1 : 0;
    default: return 0;
    }
}

static int put(struct writer *w, int16_t type, const void *body)
{
    struct metadata_record r = {type, metadata_version_of(type, w->metadata_version), body};
    int rc = w->each(w->arg, &r);
    arena_reset(&w->arena);
    return rc;
}

static int put_feature(struct writer *w, const struct image_feature *f)
{
    struct kp_feature_level_record r;
    kp_init(&kp_feature_level_record_message, &r);
    r.name = f->name;
    r.feature_level = f->level;
    return put(w, kp_type_feature_level_record, &r);
}

/* metadata.version first: it says how to read the rest (KRAFT §2). */
static int write_features(struct writer *w, const struct image *img)
{
    struct slice first = SLICE_LIT(METADATA_VERSION_FEATURE);
    struct pmap_item *item = pmap_find(&img->features, &first);
    int rc = item ? put_feature(w, &IMAGE_ITEM(item, image_feature_item)->value) : 0;
    for (const struct image_feature *f = image_feature_next(img, NULL); f && rc == 0;
         f = image_feature_next(img, f)) {
        if (!slice_eq(f->name, first))
            rc = put_feature(w, f);
    }
    return rc;
}

static int put_broker(struct writer *w, const struct image_broker *b)
{
    struct kp_register_broker_record r;
    kp_init(&kp_register_broker_record_message, &r);
    r.broker_id = b->id;
    r.incarnation_id = b->incarnation;
    r.broker_epoch = b->epoch;
    r.rack = b->rack;
    r.fenced = b->fenced;
    r.in_controlled_shutdown = b->in_controlled_shutdown;
    r.log_dirs = (struct uuid *)(uintptr_t)b->log_dirs;
    r.log_dirs_n = b->log_dirs_n;
    r.cordoned_log_dirs = (struct uuid *)(uintptr_t)b->cordoned_log_dirs;
    r.cordoned_log_dirs_n = b->cordoned_log_dirs_n > 0 ? b->cordoned_log_dirs_n : -1;
    r.end_points = ARENA_NEWS(&w->arena, struct kp_register_broker_record_end_points, b->endpoints_n);
    r.features = ARENA_NEWS(&w->arena, struct kp_register_broker_record_features, b->features_n);
    if (!r.end_points || !r.features)
        return -E_NOMEM;
    for (r.end_points_n = 0; r.end_points_n < b->endpoints_n; r.end_points_n++) {
        const struct image_endpoint *e = &b->endpoints[r.end_points_n];
        r.end_points[r.end_points_n] = (struct kp_register_broker_record_end_points){
            e->listener, e->host, e->port, e->security_protocol};
    }
    for (r.features_n = 0; r.features_n < b->features_n; r.features_n++) {
        const struct image_feature_range *f = &b->features[r.features_n];
        r.features[r.features_n] =
            (struct kp_register_broker_record_features){f->name, f->level_min, f->level_max};
    }
    return put(w, kp_type_register_broker_record, &r);
}

static int write_brokers(struct writer *w, const struct image *img)
{
    int rc = 0;
    for (const struct image_broker *b = image_broker_next(img, NULL); b && rc == 0;
         b = image_broker_next(img, b))
        rc = put_broker(w, b);
    return rc;
}

static int put_partition(struct writer *w, const struct image_topic *t, int32_t index)
{
    const struct image_partition *p = image_partition(t, index);
    if (!p)
        return 0;
    struct kp_partition_record r;
    kp_init(&kp_partition_record_message, &r);
#define LIST_OF(to, from, type)                                                                              \
    r.to = (type *)(uintptr_t)p->from;                                                                       \
    r.to##_n = p->from##_n
    LIST_OF(replicas, replicas, int32_t);
    LIST_OF(isr, isr, int32_t);
    LIST_OF(removing_replicas, removing, int32_t);
    LIST_OF(adding_replicas, adding, int32_t);
    LIST_OF(directories, directories, struct uuid);
    if (p->elr_n > 0) {
        LIST_OF(eligible_leader_replicas, elr, int32_t);
    }
    if (p->last_known_elr_n > 0) {
        LIST_OF(last_known_elr, last_known_elr, int32_t);
    }
#undef LIST_OF
    r.partition_id = index;
    r.topic_id = t->id;
    r.leader = p->leader;
    r.leader_epoch = p->leader_epoch;
    r.partition_epoch = p->partition_epoch;
    r.leader_recovery_state = p->recovering;
    return put(w, kp_type_partition_record, &r);
}

static int write_topics(struct writer *w, const struct image *img)
{
    int rc = 0;
    for (const struct image_topic *t = image_topic_next(img, NULL); t && rc == 0;
         t = image_topic_next(img, t)) {
        rc = put(w, kp_type_topic_record, &(struct kp_topic_record){t->name, t->id});
        for (int32_t i = 0; i < t->partitions_n && rc == 0; i++)
            rc = put_partition(w, t, i);
    }
    return rc;
}

static int write_configs(struct writer *w, const struct image *img)
{
    int rc = 0;
    for (const struct image_config *c = image_config_next(img, NULL); c && rc == 0;
         c = image_config_next(img, c)) {
        for (int32_t i = 0; i < c->entries_n && rc == 0; i++)
            rc = put(w, kp_type_config_record,
                     &(struct kp_config_record){c->type, c->name, c->entries[i].key, c->entries[i].value});
    }
    return rc;
}

static int write_kept(struct writer *w, const struct image *img, int16_t type)
{
    struct image_kept_key key = {type, SLICE_NULL};
    int rc = 0;
    for (struct pmap_item *item = pmap_after(&img->kept, &key); item && rc == 0;
         item = pmap_after(&img->kept, &key)) {
        const struct image_kept_item *k = IMAGE_ITEM(item, image_kept_item);
        if (k->key.type != type)
            break;
        key = k->key;
        struct metadata_record r;
        rc = metadata_record_decode(k->value, &w->arena, &r, w->err);
        if (rc == 0)
            rc = put(w, r.type, r.body);
    }
    return rc;
}

static int write_producer_ids(struct writer *w, const struct image *img)
{
    if (img->producer_id_next == 0)
        return 0;
    return put(w, kp_type_producer_ids_record,
               &(struct kp_producer_ids_record){img->producer_ids_broker, img->producer_ids_broker_epoch,
                                                img->producer_id_next});
}

int image_write(const struct image *img, int (*each)(void *arg, const struct metadata_record *r), void *arg,
                struct err *err)
{
    struct writer w = {.each = each, .arg = arg, .err = err};
    assert(img->magic == IMAGE_MAGIC);
    arena_init(&w.arena, WRITE_ARENA_MAX);
    w.metadata_version = image_feature_level(img, SLICE_LIT(METADATA_VERSION_FEATURE));
    int rc = write_features(&w, img);
    if (rc == 0)
        rc = write_brokers(&w, img);
    if (rc == 0)
        rc = write_kept(&w, img, kp_type_register_controller_record);
    if (rc == 0)
        rc = write_topics(&w, img);
    if (rc == 0)
        rc = write_configs(&w, img);
    if (rc == 0)
        rc = write_kept(&w, img, kp_type_client_quota_record);
    if (rc == 0)
        rc = write_producer_ids(&w, img);
    static const int16_t rest[] = {kp_type_access_control_entry_record, kp_type_user_scram_credential_record,
                                   kp_type_delegation_token_record};
    for (size_t i = 0; i < sizeof rest / sizeof *rest && rc == 0; i++)
        rc = write_kept(&w, img, rest[i]);
    arena_fini(&w.arena);
    return rc;
}
