/* apply(image, record) for brokers, configs, features and producer ids. */
#include "broker/metadata/apply_internal.h"
#include "broker/metadata/image_internal.h"

#include <assert.h>
#include <stdlib.h>

/* ---- brokers ---- */

static int put_broker(struct image_edit *e, const struct image_broker *value)
{
    struct image_broker_item *b = image_broker_create(value);
    if (!b)
        return -E_NOMEM;
    int rc = pmap_put(&e->img->brokers, &b->head);
    pmap_item_unref(&image_broker_type, &b->head);
    return rc;
}

int apply_register_broker(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_register_broker_record *r = body;
    if (r->broker_id < 0)
        return err_set(err, -E_CORRUPT, "broker id %d", r->broker_id);
    size_t endpoints_n = (size_t)r->end_points_n, features_n = (size_t)r->features_n;
    struct image_endpoint *endpoints = calloc(endpoints_n + 1, sizeof *endpoints);
    struct image_feature_range *features = calloc(features_n + 1, sizeof *features);
    int rc = -E_NOMEM;
    if (!endpoints || !features)
        goto free_lists;
    for (size_t i = 0; i < endpoints_n; i++)
        endpoints[i] = (struct image_endpoint){r->end_points[i].name, r->end_points[i].host,
                                               r->end_points[i].port, r->end_points[i].security_protocol};
    for (size_t i = 0; i < features_n; i++)
        features[i] = (struct image_feature_range){r->features[i].name, r->features[i].min_supported_version,
                                                   r->features[i].max_supported_version};
    struct image_broker value = {
        .id = r->broker_id,
        .epoch = r->broker_epoch,
        .incarnation = r->incarnation_id,
        .rack = r->rack,
        .fenced = r->fenced,
        .in_controlled_shutdown = r->in_controlled_shutdown,
        .endpoints = endpoints,
        .features = features,
        .log_dirs = r->log_dirs,
        .cordoned_log_dirs = r->cordoned_log_dirs,
        .endpoints_n = r->end_points_n,
        .features_n = r->features_n,
        .log_dirs_n = r->log_dirs_n,
        .cordoned_log_dirs_n = r->cordoned_log_dirs_n < 0 ? 0 : r->cordoned_log_dirs_n,
    };
    rc = put_broker(e, &value);
free_lists:
    free(endpoints);
    free(features);
    return rc;
}

static const struct image_broker *broker_at(struct image_edit *e, int32_t id, int64_t epoch, struct err *err)
{
    const struct image_broker *b = image_broker(e->img, id);
    assert(!b || b->id == id);
    if (!b)
        err_set(err, -E_CORRUPT, "broker %d is not registered", id);
    else if (b->epoch != epoch)
        err_set(err, -E_CORRUPT, "broker %d has epoch %lld, a record says %lld", id, (long long)b->epoch,
                (long long)epoch);
    return b && b->epoch == epoch ? b : NULL;
}

int apply_unregister_broker(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_unregister_broker_record *r = body;
    if (!broker_at(e, r->broker_id, r->broker_epoch, err))
        return -E_CORRUPT;
    return pmap_remove(&e->img->brokers, &r->broker_id);
}

static int set_fenced(struct image_edit *e, int32_t id, int64_t epoch, bool fenced, struct err *err)
{
    const struct image_broker *b = broker_at(e, id, epoch, err);
    if (!b)
        return -E_CORRUPT;
    struct image_broker value = *b;
    value.fenced = fenced;
    return put_broker(e, &value);
}

int apply_fence_broker(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_fence_broker_record *r = body;
    return set_fenced(e, r->id, r->epoch, true, err);
}

int apply_unfence_broker(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_unfence_broker_record *r = body;
    return set_fenced(e, r->id, r->epoch, false, err);
}

int apply_broker_change(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_broker_registration_change_record *r = body;
    const struct image_broker *b = broker_at(e, r->broker_id, r->broker_epoch, err);
    if (!b)
        return -E_CORRUPT;
    struct image_broker value = *b;
    if (r->fenced != 0)
        value.fenced = r->fenced > 0;
    if (r->in_controlled_shutdown != 0)
        value.in_controlled_shutdown = r->in_controlled_shutdown > 0;
    if (r->log_dirs_n > 0) {
        value.log_dirs = r->log_dirs;
        value.log_dirs_n = r->log_dirs_n;
    }
    if (r->cordoned_log_dirs_n >= 0) {
        value.cordoned_log_dirs = r->cordoned_log_dirs;
        value.cordoned_log_dirs_n = r->cordoned_log_dirs_n;
    }
    return put_broker(e, &value);
}

/* ---- configs ---- */

int apply_config(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_config_record *r = body;
    if (r->name.n == 0)
        return err_set(err, -E_CORRUPT, "a config without a key");
    struct image_config_key key = {r->resource_type, r->resource_name};
    const struct image_config *was =
        image_config(e->img, (enum image_config_type)r->resource_type, r->resource_name);
    bool is_set = !slice_is_null(image_config_value(was, r->name));
    if (slice_is_null(r->value) && !is_set)
        return 0;
    if (slice_is_null(r->value) && was->entries_n == 1)
        return pmap_remove(&e->img->configs, &key);
    assert(is_set || !slice_is_null(r->value));
    struct image_config_item *c = image_config_create(&key, was, r->name, r->value);
    if (!c)
        return -E_NOMEM;
    int rc = pmap_put(&e->img->configs, &c->head);
    pmap_item_unref(&image_config_type, &c->head);
    return rc;
}

/* ---- features, producer ids ---- */

int apply_feature_level(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_feature_level_record *r = body;
    if (r->feature_level < 0)
        return err_set(err, -E_CORRUPT, "feature %.*s has level %d", SLICE_FMT(r->name), r->feature_level);
    if (r->feature_level == 0)
        return pmap_remove(&e->img->features, &r->name);
    struct image_feature_item *f = image_feature_create(r->name, r->feature_level);
    if (!f)
        return -E_NOMEM;
    int rc = pmap_put(&e->img->features, &f->head);
    pmap_item_unref(&image_feature_type, &f->head);
    return rc;
}

int apply_producer_ids(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_producer_ids_record *r = body;
    if (r->next_producer_id < e->img->producer_id_next)
        return err_set(err, -E_CORRUPT, "producer ids go back from %lld to %lld",
                       (long long)e->img->producer_id_next, (long long)r->next_producer_id);
    assert(r->next_producer_id >= e->img->producer_id_next); /* S34: no id is given twice */
    e->img->producer_id_next = r->next_producer_id;
    e->img->producer_ids_broker = r->broker_id;
    e->img->producer_ids_broker_epoch = r->broker_epoch;
    return 0;
}
