/* apply(image, record): topics and partitions here, the rest in image_apply.c. */
#include "broker/metadata/image_edit.h"

#include "broker/metadata/image_internal.h"
#include "broker/metadata/apply_internal.h"

#include <assert.h>

struct image *image_empty(struct slice cluster_id)
{
    return image_create(cluster_id);
}

int image_edit_begin(struct image_edit *e, const struct image *base)
{
    *e = (struct image_edit){.img = image_clone(base)};
    list_init(&e->editing);
    return e->img ? 0 : -E_NOMEM;
}

/* From here on nothing of the image changes in place. */
static void freeze(struct image_edit *e)
{
    while (!list_empty(&e->editing))
        list_pop(&e->editing);
}

static void discard(struct image_edit *e)
{
    freeze(e);
    image_unref(e->img);
    e->img = NULL;
}

bool image_edit_in_transaction(const struct image_edit *e)
{
    return e->txn_base != NULL;
}

struct image *image_edit_finish(struct image_edit *e, int64_t offset, int32_t epoch, int64_t timestamp_ms)
{
    assert(e->img);
    assert(!e->txn_base);
    assert(offset >= e->img->offset);
    assert(epoch >= e->img->epoch);
    assert(pmap_n(&e->img->topics) == pmap_n(&e->img->topics_by_id));
    assert(e->img->partitions_n >= 0);
    freeze(e);
    struct image *img = e->img;
    e->img = NULL;
    img->offset = offset;
    img->epoch = epoch;
    img->timestamp_ms = timestamp_ms;
    return img;
}

void image_edit_drop(struct image_edit *e)
{
    if (!e->img)
        return;
    discard(e);
    image_unref(e->txn_base);
    e->txn_base = NULL;
}

/* ---- transactions (KIP-868) ---- */

static int apply_begin_transaction(struct image_edit *e, const void *body, struct err *err)
{
    (void)body;
    if (e->txn_base)
        return err_set(err, -E_CORRUPT, "BeginTransaction inside a transaction");
    freeze(e);
    struct image *next = image_clone(e->img);
    if (!next)
        return -E_NOMEM;
    e->txn_base = e->img;
    e->img = next;
    return 0;
}

static int apply_end_transaction(struct image_edit *e, const void *body, struct err *err)
{
    (void)body;
    if (!e->txn_base)
        return err_set(err, -E_CORRUPT, "EndTransaction without BeginTransaction");
    image_unref(e->txn_base);
    e->txn_base = NULL;
    return 0;
}

static int apply_abort_transaction(struct image_edit *e, const void *body, struct err *err)
{
    (void)body;
    if (!e->txn_base)
        return err_set(err, -E_CORRUPT, "AbortTransaction without BeginTransaction");
    assert(e->txn_base != e->img);
    discard(e);
    /* the base is frozen and may be shared: go on in a copy */
    e->img = image_clone(e->txn_base);
    image_unref(e->txn_base);
    e->txn_base = NULL;
    return e->img ? 0 : -E_NOMEM;
}

/* ---- topics ---- */

static int put_topic(struct image_edit *e, struct image_topic_item *t)
{
    int rc = pmap_put(&e->img->topics, &t->head);
    if (rc == 0)
        rc = pmap_put(&e->img->topics_by_id, &t->head);
    if (rc == 0)
        list_push(&e->editing, &t->editing);
    pmap_item_unref(&image_topic_type, &t->head); /* the maps have theirs */
    return rc;
}

/* The topic, changeable in place; -E_CORRUPT when there is none. */
static int edit_topic(struct image_edit *e, const struct uuid *id, struct image_topic_item **out,
                      struct err *err)
{
    struct pmap_item *item = pmap_find(&e->img->topics_by_id, id);
    char text[UUID_TEXT_SIZE];
    if (!item)
        return err_set(err, -E_CORRUPT, "no topic has id %s", uuid_text(id, text));
    struct image_topic_item *t = IMAGE_ITEM(item, image_topic_item);
    if (!list_linked(&t->editing)) {
        t = image_topic_clone(t);
        int rc = t ? put_topic(e, t) : -E_NOMEM;
        if (rc < 0)
            return rc;
    }
    assert(list_linked(&t->editing));
    assert(uuid_eq(&t->value.id, id));
    *out = t;
    return 0;
}

static int apply_topic(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_topic_record *r = body;
    if (r->name.n == 0 || pmap_find(&e->img->topics, &r->name))
        return err_set(err, -E_CORRUPT, "topic %.*s is there already", SLICE_FMT(r->name));
    if (uuid_is_zero(&r->topic_id) || pmap_find(&e->img->topics_by_id, &r->topic_id))
        return err_set(err, -E_CORRUPT, "topic %.*s has the id of another", SLICE_FMT(r->name));
    struct image_topic_item *t = image_topic_create(r->name, &r->topic_id);
    return t ? put_topic(e, t) : -E_NOMEM;
}

static int apply_remove_topic(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_remove_topic_record *r = body;
    struct pmap_item *item = pmap_find(&e->img->topics_by_id, &r->topic_id);
    char text[UUID_TEXT_SIZE];
    if (!item)
        return err_set(err, -E_CORRUPT, "no topic has id %s", uuid_text(&r->topic_id, text));
    struct image_topic_item *t = IMAGE_ITEM(pmap_item_ref(item), image_topic_item);
    if (list_linked(&t->editing))
        list_remove(&t->editing);
    for (int32_t i = 0; i < t->value.partitions_n; i++)
        e->img->partitions_n -= t->partitions[i] != NULL;
    assert(e->img->partitions_n >= 0);
    int rc = pmap_remove(&e->img->topics, &t->value.name);
    if (rc == 0)
        rc = pmap_remove(&e->img->topics_by_id, &t->value.id);
    struct image_config_key key = {IMAGE_CONFIG_TOPIC, t->value.name};
    if (rc == 0)
        rc = pmap_remove(&e->img->configs, &key);
    pmap_item_unref(&image_topic_type, &t->head);
    return rc;
}

/* ---- partitions ---- */

static int set_partition(struct image_edit *e, struct image_topic_item *t, int32_t index,
                         const struct image_partition *value)
{
    bool new = !image_partition(&t->value, index);
    assert(list_linked(&t->editing));
    assert(index >= 0);
    assert(index <= IMAGE_PARTITIONS_MAX);
    struct image_partition_item *p = image_partition_create(value);
    if (!p || image_topic_set(t, index, p) < 0)
        return -E_NOMEM;
    e->img->partitions_n += new;
    return 0;
}

static int32_t count_of(int32_t n)
{
    return n < 0 ? 0 : n;
}

static int apply_partition(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_partition_record *r = body;
    struct image_topic_item *t;
    int rc = edit_topic(e, &r->topic_id, &t, err);
    if (rc < 0)
        return rc;
    if (r->partition_id < 0 || r->partition_id > IMAGE_PARTITIONS_MAX || r->leader < -1)
        return err_set(err, -E_CORRUPT, "topic %.*s has a partition %d with leader %d",
                       SLICE_FMT(t->value.name), r->partition_id, r->leader);
    struct image_partition value = {
        .leader = r->leader,
        .leader_epoch = r->leader_epoch,
        .partition_epoch = r->partition_epoch,
        .recovering = r->leader_recovery_state == 1,
        .replicas = r->replicas,
        .isr = r->isr,
        .removing = r->removing_replicas,
        .adding = r->adding_replicas,
        .elr = r->eligible_leader_replicas,
        .last_known_elr = r->last_known_elr,
        .directories = r->directories,
        .replicas_n = count_of(r->replicas_n),
        .isr_n = count_of(r->isr_n),
        .removing_n = count_of(r->removing_replicas_n),
        .adding_n = count_of(r->adding_replicas_n),
        .elr_n = count_of(r->eligible_leader_replicas_n),
        .last_known_elr_n = count_of(r->last_known_elr_n),
        .directories_n = count_of(r->directories_n),
    };
    return set_partition(e, t, r->partition_id, &value);
}

/* Lists that are not in the record stay. */
#define CHANGE(value, member, record, from)                                                                  \
    do {                                                                                                     \
        if ((record)->from##_n >= 0) {                                                                       \
            (value).member = (record)->from;                                                                 \
            (value).member##_n = (record)->from##_n;                                                         \
        }                                                                                                    \
    } while (0)

static int apply_partition_change(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_partition_change_record *r = body;
    struct image_topic_item *t;
    int rc = edit_topic(e, &r->topic_id, &t, err);
    if (rc < 0)
        return rc;
    const struct image_partition *was = image_partition(&t->value, r->partition_id);
    if (!was)
        return err_set(err, -E_CORRUPT, "topic %.*s has no partition %d", SLICE_FMT(t->value.name),
                       r->partition_id);
    struct image_partition value = *was;
    CHANGE(value, isr, r, isr);
    CHANGE(value, replicas, r, replicas);
    CHANGE(value, removing, r, removing_replicas);
    CHANGE(value, adding, r, adding_replicas);
    CHANGE(value, elr, r, eligible_leader_replicas);
    CHANGE(value, last_known_elr, r, last_known_elr);
    CHANGE(value, directories, r, directories);
    if (r->leader_recovery_state >= 0)
        value.recovering = r->leader_recovery_state == 1;
    if (value.leader_epoch == INT32_MAX || value.partition_epoch == INT32_MAX)
        return err_set(err, -E_CORRUPT, "topic %.*s partition %d has come to the end of its epochs",
                       SLICE_FMT(t->value.name), r->partition_id);
    /* any leader, even the same one, begins a new leader epoch; -2: not in the record */
    if (r->leader >= -1) {
        value.leader = r->leader;
        value.leader_epoch++;
    }
    value.partition_epoch++;
    assert(value.leader_epoch >= was->leader_epoch); /* S15 */
    assert(value.partition_epoch > was->partition_epoch);
    return set_partition(e, t, r->partition_id, &value);
}

static int clear_elr(struct image_edit *e, struct uuid id, struct err *err)
{
    struct image_topic_item *t;
    int rc = edit_topic(e, &id, &t, err);
    for (int32_t i = 0; rc == 0 && i < t->value.partitions_n; i++) {
        const struct image_partition *p = image_partition(&t->value, i);
        if (!p || (p->elr_n == 0 && p->last_known_elr_n == 0))
            continue;
        struct image_partition value = *p;
        value.elr_n = value.last_known_elr_n = 0;
        rc = set_partition(e, t, i, &value);
    }
    return rc;
}

static int apply_clear_elr(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_clear_elr_record *r = body;
    const struct image_topic *t =
        r->topic_name.n ? image_topic(e->img, r->topic_name) : image_topic_next(e->img, NULL);
    if (!t && r->topic_name.n)
        return err_set(err, -E_CORRUPT, "no topic %.*s", SLICE_FMT(r->topic_name));
    int rc = 0;
    while (t && rc == 0) {
        struct uuid id = t->id;
        rc = clear_elr(e, id, err); /* may put another object in the topic's place */
        t = r->topic_name.n || rc < 0 ? NULL : image_topic_next(e->img, image_topic_by_id(e->img, &id));
    }
    return rc;
}

/* ---- by type ---- */

static int apply_nothing(struct image_edit *e, const void *body, struct err *err)
{
    (void)e, (void)body, (void)err;
    return 0;
}

static int (*const apply_by_type[])(struct image_edit *e, const void *body, struct err *err) = {
    [kp_type_register_broker_record] = apply_register_broker,
    [kp_type_unregister_broker_record] = apply_unregister_broker,
    [kp_type_topic_record] = apply_topic,
    [kp_type_partition_record] = apply_partition,
    [kp_type_config_record] = apply_config,
    [kp_type_partition_change_record] = apply_partition_change,
    [kp_type_fence_broker_record] = apply_fence_broker,
    [kp_type_unfence_broker_record] = apply_unfence_broker,
    [kp_type_remove_topic_record] = apply_remove_topic,
    [kp_type_delegation_token_record] = apply_delegation_token,
    [kp_type_user_scram_credential_record] = apply_scram,
    [kp_type_feature_level_record] = apply_feature_level,
    [kp_type_client_quota_record] = apply_client_quota,
    [kp_type_producer_ids_record] = apply_producer_ids,
    [kp_type_broker_registration_change_record] = apply_broker_change,
    [kp_type_access_control_entry_record] = apply_ace,
    [kp_type_remove_access_control_entry_record] = apply_remove_ace,
    [kp_type_no_op_record] = apply_nothing,
    [kp_type_zk_migration_state_record] = apply_nothing, /* nothing of that migration is left in Kafka 4 */
    [kp_type_remove_user_scram_credential_record] = apply_remove_scram,
    [kp_type_begin_transaction_record] = apply_begin_transaction,
    [kp_type_end_transaction_record] = apply_end_transaction,
    [kp_type_abort_transaction_record] = apply_abort_transaction,
    [kp_type_remove_delegation_token_record] = apply_remove_delegation_token,
    [kp_type_register_controller_record] = apply_register_controller,
    [kp_type_clear_elr_record] = apply_clear_elr,
};

int image_edit_apply(struct image_edit *e, const struct metadata_record *r, struct err *err)
{
    assert(e->img);
    assert(e->img->magic == IMAGE_MAGIC);
    size_t n = sizeof apply_by_type / sizeof *apply_by_type;
    if (r->type < 0 || (size_t)r->type >= n || !apply_by_type[r->type])
        return err_set(err, -E_VERSION, "metadata record type %d is not known", r->type);
    int rc = apply_by_type[r->type](e, r->body, err);
    if (rc == -E_NOMEM)
        return err_set(err, -E_NOMEM, "no memory for the metadata image");
    return rc;
}
