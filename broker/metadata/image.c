#include "broker/metadata/image_internal.h"

#include <assert.h>
#include <stdlib.h>

/* ---- life ---- */

struct image *image_create(struct slice cluster_id)
{
    struct image *img = calloc(1, sizeof *img + cluster_id.n + 1);
    if (!img)
        return NULL;
    uint8_t *text = (uint8_t *)(img + 1);
    if (cluster_id.n)
        memcpy(text, cluster_id.p, cluster_id.n);
    *img = (struct image){.magic = IMAGE_MAGIC,
                          .cluster_id = slice_of(text, cluster_id.n),
                          .offset = -1,
                          .producer_ids_broker = -1,
                          .producer_ids_broker_epoch = -1};
    atomic_init(&img->refs, 1);
    pmap_init(&img->topics, &image_topic_type);
    pmap_init(&img->topics_by_id, &image_topic_id_type);
    pmap_init(&img->brokers, &image_broker_type);
    pmap_init(&img->configs, &image_config_type);
    pmap_init(&img->features, &image_feature_type);
    pmap_init(&img->kept, &image_kept_type);
    return img;
}

struct image *image_clone(const struct image *img)
{
    assert(img->magic == IMAGE_MAGIC);
    struct image *c = image_create(img->cluster_id);
    if (!c)
        return NULL;
    assert(pmap_n(&img->topics) == pmap_n(&img->topics_by_id));
    assert(img->partitions_n >= 0);
    c->offset = img->offset;
    c->epoch = img->epoch;
    c->timestamp_ms = img->timestamp_ms;
    c->producer_id_next = img->producer_id_next;
    c->producer_ids_broker = img->producer_ids_broker;
    c->producer_ids_broker_epoch = img->producer_ids_broker_epoch;
    c->partitions_n = img->partitions_n;
    c->kraft_version = img->kraft_version;
    pmap_share(&c->topics, &img->topics);
    pmap_share(&c->topics_by_id, &img->topics_by_id);
    pmap_share(&c->brokers, &img->brokers);
    pmap_share(&c->configs, &img->configs);
    pmap_share(&c->features, &img->features);
    pmap_share(&c->kept, &img->kept);
    return c;
}

void image_free(struct image *img)
{
    assert(img->magic == IMAGE_MAGIC);
    assert(atomic_load(&img->refs) == 0);
    img->magic = IMAGE_MAGIC_END;
    pmap_fini(&img->topics);
    pmap_fini(&img->topics_by_id);
    pmap_fini(&img->brokers);
    pmap_fini(&img->configs);
    pmap_fini(&img->features);
    pmap_fini(&img->kept);
    free(img);
}

struct image *image_ref(const struct image *img)
{
    struct image *i = (struct image *)(uintptr_t)img;
    assert(i->magic == IMAGE_MAGIC);
    uint32_t was = atomic_fetch_add_explicit(&i->refs, 1, memory_order_relaxed);
    assert(was > 0);
    assert(was < UINT32_MAX);
    (void)was;
    return i;
}

void image_unref(const struct image *img)
{
    struct image *i = (struct image *)(uintptr_t)img;
    if (!i)
        return;
    assert(i->magic == IMAGE_MAGIC);
    uint32_t was = atomic_fetch_sub_explicit(&i->refs, 1, memory_order_acq_rel);
    assert(was > 0);
    if (was > 1)
        return;
    struct image_reaper *r = i->reaper;
    if (!r) {
        image_free(i);
        return;
    }
    i->dead_next = atomic_load_explicit(&r->dead, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&r->dead, &i->dead_next, i, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

void image_set_reaper(struct image *img, struct image_reaper *r)
{
    assert(img->magic == IMAGE_MAGIC);
    img->reaper = r;
}

void image_reaper_drain(struct image_reaper *r)
{
    struct image *img = atomic_exchange_explicit(&r->dead, NULL, memory_order_acquire);
    while (img) {
        struct image *next = img->dead_next;
        image_free(img);
        img = next;
    }
}

/* ---- what it says ---- */

struct slice image_cluster_id(const struct image *img)
{
    assert(img->magic == IMAGE_MAGIC);
    return img->cluster_id;
}

int64_t image_offset(const struct image *img)
{
    assert(img->magic == IMAGE_MAGIC);
    return img->offset;
}

int16_t image_kraft_version(const struct image *img)
{
    assert(img->magic == IMAGE_MAGIC);
    return img->kraft_version;
}

int32_t image_epoch(const struct image *img)
{
    assert(img->magic == IMAGE_MAGIC);
    return img->epoch;
}

int64_t image_producer_id_next(const struct image *img)
{
    assert(img->magic == IMAGE_MAGIC);
    return img->producer_id_next;
}

/* Public values lie behind the item's head, at one place for each type. */
#define VALUE(item, type) ((item) ? &IMAGE_ITEM(item, type)->value : NULL)

const struct image_topic *image_topic(const struct image *img, struct slice name)
{
    assert(img->magic == IMAGE_MAGIC);
    struct pmap_item *item = pmap_find(&img->topics, &name);
    return VALUE(item, image_topic_item);
}

const struct image_topic *image_topic_by_id(const struct image *img, const struct uuid *id)
{
    assert(img->magic == IMAGE_MAGIC);
    struct pmap_item *item = pmap_find(&img->topics_by_id, id);
    return VALUE(item, image_topic_item);
}

const struct image_topic *image_topic_next(const struct image *img, const struct image_topic *after)
{
    struct pmap_item *item = pmap_after(&img->topics, after ? &after->name : NULL);
    return VALUE(item, image_topic_item);
}

const struct image_partition *image_partition(const struct image_topic *t, int32_t index)
{
    const struct image_topic_item *item = LIST_ENTRY((uintptr_t)t, struct image_topic_item, value);
    assert(t->partitions_n <= item->capacity);
    if (index < 0 || index >= t->partitions_n)
        return NULL;
    return VALUE(item->partitions[index], image_partition_item);
}

size_t image_topics_n(const struct image *img)
{
    assert(img->magic == IMAGE_MAGIC);
    return pmap_n(&img->topics);
}

int64_t image_partitions_n(const struct image *img)
{
    assert(img->magic == IMAGE_MAGIC);
    return img->partitions_n;
}

const struct image_broker *image_broker(const struct image *img, int32_t id)
{
    assert(img->magic == IMAGE_MAGIC);
    struct pmap_item *item = pmap_find(&img->brokers, &id);
    return VALUE(item, image_broker_item);
}

const struct image_broker *image_broker_next(const struct image *img, const struct image_broker *after)
{
    struct pmap_item *item = pmap_after(&img->brokers, after ? &after->id : NULL);
    return VALUE(item, image_broker_item);
}

size_t image_brokers_n(const struct image *img)
{
    assert(img->magic == IMAGE_MAGIC);
    return pmap_n(&img->brokers);
}

const struct image_endpoint *image_endpoint(const struct image_broker *b, struct slice listener)
{
    for (int32_t i = 0; i < b->endpoints_n; i++) {
        if (slice_eq(b->endpoints[i].listener, listener))
            return &b->endpoints[i];
    }
    return NULL;
}

const struct image_config *image_config(const struct image *img, enum image_config_type type,
                                        struct slice name)
{
    assert(img->magic == IMAGE_MAGIC);
    struct image_config_key key = {(int8_t)type, name};
    struct pmap_item *item = pmap_find(&img->configs, &key);
    return VALUE(item, image_config_item);
}

const struct image_config *image_config_next(const struct image *img, const struct image_config *after)
{
    struct image_config_key key = after ? (struct image_config_key){after->type, after->name}
                                        : (struct image_config_key){0, SLICE_NULL};
    struct pmap_item *item = pmap_after(&img->configs, after ? &key : NULL);
    return VALUE(item, image_config_item);
}

struct slice image_config_value(const struct image_config *c, struct slice key)
{
    int32_t lo = 0, hi = c ? c->entries_n : 0;
    while (lo < hi) {
        int32_t mid = lo + (hi - lo) / 2;
        int order = slice_cmp(c->entries[mid].key, key);
        if (order == 0)
            return c->entries[mid].value;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return SLICE_NULL;
}

int16_t image_feature_level(const struct image *img, struct slice name)
{
    assert(img->magic == IMAGE_MAGIC);
    struct pmap_item *item = pmap_find(&img->features, &name);
    return item ? IMAGE_ITEM(item, image_feature_item)->value.level : 0;
}

const struct image_feature *image_feature_next(const struct image *img, const struct image_feature *after)
{
    struct pmap_item *item = pmap_after(&img->features, after ? &after->name : NULL);
    return VALUE(item, image_feature_item);
}

/* ---- differences ---- */

struct differ {
    const struct image_changes *to;
    void *arg;
};

#define WAS_NOW(type)                                                                                        \
    was ? &((const struct type *)(const void *)was)->value : NULL,                                           \
        now ? &((const struct type *)(const void *)now)->value : NULL

static void differ_broker(void *arg, const struct pmap_item *was, const struct pmap_item *now)
{
    const struct differ *d = arg;
    d->to->broker(d->arg, WAS_NOW(image_broker_item));
}

static void differ_config(void *arg, const struct pmap_item *was, const struct pmap_item *now)
{
    const struct differ *d = arg;
    d->to->config(d->arg, WAS_NOW(image_config_item));
}

static void differ_feature(void *arg, const struct pmap_item *was, const struct pmap_item *now)
{
    const struct differ *d = arg;
    d->to->feature(d->arg, WAS_NOW(image_feature_item));
}

static void differ_topic_removed(void *arg, const struct pmap_item *was, const struct pmap_item *now)
{
    const struct differ *d = arg;
    if (!now)
        d->to->topic_removed(d->arg, &((const struct image_topic_item *)(const void *)was)->value);
}

static void differ_partitions(const struct differ *d, const struct image_topic_item *was,
                              const struct image_topic_item *now)
{
    for (int32_t i = 0; d->to->partition && i < now->value.partitions_n; i++) {
        const struct image_partition_item *p = now->partitions[i];
        const struct image_partition_item *q = was && i < was->value.partitions_n ? was->partitions[i] : NULL;
        if (p && p != q)
            d->to->partition(d->arg, &now->value, i, VALUE(q, image_partition_item), &p->value);
    }
}

static void differ_topic_come(void *arg, const struct pmap_item *was, const struct pmap_item *now)
{
    const struct differ *d = arg;
    if (!now || was)
        return;
    const struct image_topic_item *t = (const struct image_topic_item *)(const void *)now;
    if (d->to->topic_added)
        d->to->topic_added(d->arg, &t->value);
    differ_partitions(d, NULL, t);
}

static void differ_topic_stays(void *arg, const struct pmap_item *was, const struct pmap_item *now)
{
    const struct differ *d = arg;
    if (was && now)
        differ_partitions(d, (const struct image_topic_item *)(const void *)was,
                          (const struct image_topic_item *)(const void *)now);
}

void image_diff(const struct image *was, const struct image *now, const struct image_changes *changes,
                void *arg)
{
    struct differ d = {changes, arg};
    const struct image nothing = {.topics_by_id = {&image_topic_id_type, NULL},
                                  .brokers = {&image_broker_type, NULL},
                                  .configs = {&image_config_type, NULL},
                                  .features = {&image_feature_type, NULL}};
    if (!was)
        was = &nothing;
    if (changes->broker)
        pmap_diff(&was->brokers, &now->brokers, differ_broker, &d);
    /* by id: a topic made again under its old name is another topic */
    if (changes->topic_removed)
        pmap_diff(&was->topics_by_id, &now->topics_by_id, differ_topic_removed, &d);
    if (changes->topic_added || changes->partition)
        pmap_diff(&was->topics_by_id, &now->topics_by_id, differ_topic_come, &d);
    if (changes->partition)
        pmap_diff(&was->topics_by_id, &now->topics_by_id, differ_topic_stays, &d);
    if (changes->config)
        pmap_diff(&was->configs, &now->configs, differ_config, &d);
    if (changes->feature)
        pmap_diff(&was->features, &now->features, differ_feature, &d);
}
