/* The objects of an image: made once, shared by count, never changed (but topics, by the edit that made them). */
#include "broker/metadata/image_internal.h"

#include <assert.h>
#include <stdlib.h>

/* ---- one block for an object and what it points to ---- */

/* Two passes over the same calls: first `at` only counts, then it places. Everything is aligned to 8. */
struct block {
    uint8_t *p; /* NULL in the first pass */
    size_t at;
};

static void *block_place(struct block *b, const void *from, size_t n)
{
    uint8_t *to = b->p ? b->p + b->at : NULL;
    if (to && n)
        memcpy(to, from, n);
    b->at += (n + 7) & ~(size_t)7;
    return to;
}

static struct slice block_text(struct block *b, struct slice s)
{
    if (slice_is_null(s))
        return s;
    uint8_t *to = block_place(b, s.p, s.n);
    b->at += 8; /* room for the NUL: the block is zeroed */
    return slice_of(to, s.n);
}

static const int32_t *block_ints(struct block *b, const int32_t *v, int32_t n)
{
    return block_place(b, v, (size_t)n * sizeof *v);
}

static const struct uuid *block_uuids(struct block *b, const struct uuid *v, int32_t n)
{
    return block_place(b, v, (size_t)n * sizeof *v);
}

/* Runs `fill` twice: to measure, and to place. `fill` begins with the object itself. */
static void *block_make(void (*fill)(struct block *b, const void *from), const void *from)
{
    struct block b = {NULL, 0};
    fill(&b, from);
    size_t measured = b.at;
    b = (struct block){calloc(1, measured), 0};
    if (b.p)
        fill(&b, from);
    assert(b.at <= measured); /* both passes agree, or it was written past its end */
    return b.p;
}

/* ---- partitions ---- */

static void partition_fill(struct block *b, const void *from)
{
    const struct image_partition *v = from;
    struct image_partition_item item = {.head = {1}, .value = *v};
    struct image_partition_item *p = block_place(b, &item, sizeof item);
    struct image_partition n = *v;
    n.replicas = block_ints(b, v->replicas, v->replicas_n);
    n.isr = block_ints(b, v->isr, v->isr_n);
    n.removing = block_ints(b, v->removing, v->removing_n);
    n.adding = block_ints(b, v->adding, v->adding_n);
    n.elr = block_ints(b, v->elr, v->elr_n);
    n.last_known_elr = block_ints(b, v->last_known_elr, v->last_known_elr_n);
    n.directories = block_uuids(b, v->directories, v->directories_n);
    if (p)
        p->value = n;
}

struct image_partition_item *image_partition_create(const struct image_partition *value)
{
    assert(value->replicas_n >= 0);
    assert(value->isr_n >= 0);
    assert(value->directories_n >= 0);
    assert(value->leader >= IMAGE_NO_LEADER);
    return block_make(partition_fill, value);
}

void image_partition_unref(struct image_partition_item *p)
{
    if (!p)
        return;
    assert(p->head.refs > 0);
    if (--p->head.refs == 0)
        free(p);
}

/* ---- topics ---- */

static bool topic_is_internal(struct slice name)
{
    return slice_eq_str(name, "__consumer_offsets") || slice_eq_str(name, "__transaction_state") ||
           slice_eq_str(name, "__share_group_state");
}

static void topic_fill(struct block *b, const void *from)
{
    const struct image_topic *v = from;
    struct image_topic_item item = {.head = {1}, .value = *v};
    struct image_topic_item *t = block_place(b, &item, sizeof item);
    struct slice name = block_text(b, v->name);
    if (t)
        t->value.name = name;
}

struct image_topic_item *image_topic_create(struct slice name, const struct uuid *id)
{
    assert(!slice_is_null(name));
    struct image_topic value = {.id = *id, .name = name, .internal = topic_is_internal(name)};
    return block_make(topic_fill, &value);
}

struct image_topic_item *image_topic_clone(const struct image_topic_item *t)
{
    struct image_topic_item *c = image_topic_create(t->value.name, &t->value.id);
    if (!c || t->value.partitions_n == 0)
        return c;
    c->partitions = malloc((size_t)t->value.partitions_n * sizeof *c->partitions);
    if (!c->partitions) {
        free(c);
        return NULL;
    }
    c->capacity = c->value.partitions_n = t->value.partitions_n;
    for (int32_t i = 0; i < c->capacity; i++) {
        c->partitions[i] = t->partitions[i];
        if (c->partitions[i])
            pmap_item_ref(&c->partitions[i]->head);
    }
    return c;
}

static int topic_reserve(struct image_topic_item *t, int32_t n)
{
    if (n <= t->capacity)
        return 0;
    int64_t capacity = t->capacity ? (int64_t)t->capacity * 2 : 1;
    if (capacity < n)
        capacity = n;
    void *grown = realloc(t->partitions, (size_t)capacity * sizeof *t->partitions);
    if (!grown)
        return -E_NOMEM;
    assert(capacity >= n);
    assert(capacity <= INT32_MAX);
    t->partitions = grown;
    t->capacity = (int32_t)capacity;
    return 0;
}

int image_topic_set(struct image_topic_item *t, int32_t index, struct image_partition_item *p)
{
    assert(index >= 0);
    assert(index < INT32_MAX);
    assert(p);
    if (topic_reserve(t, index + 1) < 0) {
        image_partition_unref(p);
        return -E_NOMEM;
    }
    while (t->value.partitions_n <= index)
        t->partitions[t->value.partitions_n++] = NULL;
    assert(index < t->value.partitions_n);
    assert(t->value.partitions_n <= t->capacity);
    image_partition_unref(t->partitions[index]);
    t->partitions[index] = p;
    return 0;
}

static void topic_free(struct pmap_item *item)
{
    struct image_topic_item *t = IMAGE_ITEM(item, image_topic_item);
    assert(!list_linked(&t->editing));
    for (int32_t i = 0; i < t->value.partitions_n; i++)
        image_partition_unref(t->partitions[i]);
    free(t->partitions);
    free(t);
}

static const void *topic_name(const struct pmap_item *item)
{
    return &IMAGE_ITEM((uintptr_t)item, image_topic_item)->value.name;
}

static const void *topic_id(const struct pmap_item *item)
{
    return &IMAGE_ITEM((uintptr_t)item, image_topic_item)->value.id;
}

static int compare_slices(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

static int compare_uuids(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct uuid));
}

const struct pmap_type image_topic_type = {topic_name, compare_slices, topic_free};
const struct pmap_type image_topic_id_type = {topic_id, compare_uuids, topic_free};

/* ---- brokers ---- */

static void broker_fill(struct block *b, const void *from)
{
    const struct image_broker *v = from;
    struct image_broker_item item = {.head = {1}, .value = *v};
    struct image_broker_item *to = block_place(b, &item, sizeof item);
    struct image_endpoint *endpoints =
        block_place(b, v->endpoints, (size_t)v->endpoints_n * sizeof *endpoints);
    struct image_feature_range *features =
        block_place(b, v->features, (size_t)v->features_n * sizeof *features);
    struct image_broker n = *v;
    n.endpoints = endpoints;
    n.features = features;
    n.rack = block_text(b, v->rack);
    n.log_dirs = block_uuids(b, v->log_dirs, v->log_dirs_n);
    n.cordoned_log_dirs = block_uuids(b, v->cordoned_log_dirs, v->cordoned_log_dirs_n);
    for (int32_t i = 0; i < v->endpoints_n; i++) {
        struct slice listener = block_text(b, v->endpoints[i].listener),
                     host = block_text(b, v->endpoints[i].host);
        if (to)
            endpoints[i].listener = listener, endpoints[i].host = host;
    }
    for (int32_t i = 0; i < v->features_n; i++) {
        struct slice name = block_text(b, v->features[i].name);
        if (to)
            features[i].name = name;
    }
    if (to)
        to->value = n;
}

struct image_broker_item *image_broker_create(const struct image_broker *value)
{
    assert(value->id >= 0);
    assert(value->endpoints_n >= 0);
    assert(value->log_dirs_n >= 0);
    return block_make(broker_fill, value);
}

static void item_free(struct pmap_item *item)
{
    free(item);
}

static const void *broker_id(const struct pmap_item *item)
{
    return &IMAGE_ITEM((uintptr_t)item, image_broker_item)->value.id;
}

static int compare_ints(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

const struct pmap_type image_broker_type = {broker_id, compare_ints, item_free};

/* ---- configs ---- */

struct config_from {
    const struct image_config_key *resource;
    const struct image_config *was;
    struct slice key, value;
};

/* The entries of `was` with `key` set or taken out, in order. Returns how many; `to` may be NULL. */
static int32_t config_merge(const struct config_from *f, struct image_config_entry *to)
{
    int32_t n = 0;
    bool placed = slice_is_null(f->value);
    for (int32_t i = 0; f->was && i < f->was->entries_n; i++) {
        const struct image_config_entry *e = &f->was->entries[i];
        int c = slice_cmp(e->key, f->key);
        if (c >= 0 && !placed) {
            if (to)
                to[n] = (struct image_config_entry){f->key, f->value};
            n++;
            placed = true;
        }
        if (c == 0)
            continue;
        if (to)
            to[n] = *e;
        n++;
    }
    assert(placed || !slice_is_null(f->value));
    if (!placed) {
        if (to)
            to[n] = (struct image_config_entry){f->key, f->value};
        n++;
    }
    return n;
}

static void config_fill(struct block *b, const void *from)
{
    const struct config_from *f = from;
    struct image_config_item item = {.head = {1}};
    struct image_config_item *c = block_place(b, &item, sizeof item);
    struct slice name = block_text(b, f->resource->name);
    int32_t n = config_merge(f, NULL);
    struct image_config_entry *entries = (void *)(b->p ? b->p + b->at : NULL);
    b->at += (size_t)n * sizeof *entries;
    if (c)
        config_merge(f, entries);
    /* measured from what is there, placed from what has just been merged: the same texts */
    for (int32_t i = 0; c && i < n; i++) {
        entries[i].key = block_text(b, entries[i].key);
        entries[i].value = block_text(b, entries[i].value);
    }
    if (c) {
        c->value = (struct image_config){f->resource->type, name, entries, n};
        c->key = (struct image_config_key){f->resource->type, name};
        return;
    }
    block_text(b, f->key);
    block_text(b, f->value);
    for (int32_t i = 0; f->was && i < f->was->entries_n; i++) {
        block_text(b, f->was->entries[i].key);
        block_text(b, f->was->entries[i].value);
    }
}

struct image_config_item *image_config_create(const struct image_config_key *resource,
                                              const struct image_config *was, struct slice key,
                                              struct slice value)
{
    assert(!slice_is_null(key));
    assert(!slice_is_null(resource->name));
    return block_make(config_fill, &(struct config_from){resource, was, key, value});
}

static const void *config_key(const struct pmap_item *item)
{
    return &IMAGE_ITEM((uintptr_t)item, image_config_item)->key;
}

static int compare_config_keys(const void *a, const void *b)
{
    const struct image_config_key *x = a, *y = b;
    return x->type != y->type ? x->type - y->type : slice_cmp(x->name, y->name);
}

const struct pmap_type image_config_type = {config_key, compare_config_keys, item_free};

/* ---- features ---- */

static void feature_fill(struct block *b, const void *from)
{
    const struct image_feature *v = from;
    struct image_feature_item item = {.head = {1}, .value = *v};
    struct image_feature_item *to = block_place(b, &item, sizeof item);
    struct slice name = block_text(b, v->name);
    if (to)
        to->value.name = name;
}

struct image_feature_item *image_feature_create(struct slice name, int16_t level)
{
    assert(level != 0);
    return block_make(feature_fill, &(struct image_feature){name, level});
}

static const void *feature_name(const struct pmap_item *item)
{
    return &IMAGE_ITEM((uintptr_t)item, image_feature_item)->value.name;
}

const struct pmap_type image_feature_type = {feature_name, compare_slices, item_free};

/* ---- kept records ---- */

static void kept_fill(struct block *b, const void *from)
{
    const struct image_kept_item *v = from;
    struct image_kept_item *to = block_place(b, v, sizeof *v);
    struct slice id = block_text(b, v->key.id), value = block_text(b, v->value);
    if (to)
        to->key.id = id, to->value = value;
}

struct image_kept_item *image_kept_create(const struct image_kept_key *key, struct slice value)
{
    struct image_kept_item item = {.head = {1}, .key = *key, .value = value};
    return block_make(kept_fill, &item);
}

static const void *kept_key(const struct pmap_item *item)
{
    return &IMAGE_ITEM((uintptr_t)item, image_kept_item)->key;
}

static int compare_kept_keys(const void *a, const void *b)
{
    const struct image_kept_key *x = a, *y = b;
    return x->type != y->type ? x->type - y->type : slice_cmp(x->id, y->id);
}

const struct pmap_type image_kept_type = {kept_key, compare_kept_keys, item_free};
