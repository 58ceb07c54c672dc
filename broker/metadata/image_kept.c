/* Records that are kept for the snapshot without being looked into, one for each key they speak of. */
#include "broker/metadata/apply_internal.h"
#include "broker/metadata/image_internal.h"

#include "base/core/bytes.h"

#include <assert.h>

#define KEPT_RECORD_MAX (1u << 20)

static int keep(struct image_edit *e, int16_t type, struct slice id, const void *body)
{
    struct buf value;
    buf_init(&value, KEPT_RECORD_MAX);
    int rc = metadata_record_encode(&(struct metadata_record){type, 0, body}, &value);
    struct image_kept_key key = {type, id};
    struct image_kept_item *k = rc < 0 ? NULL : image_kept_create(&key, buf_slice(&value));
    buf_fini(&value);
    if (!k)
        return -E_NOMEM;
    rc = pmap_put(&e->img->kept, &k->head);
    pmap_item_unref(&image_kept_type, &k->head);
    return rc;
}

static int forget(struct image_edit *e, int16_t type, struct slice id)
{
    struct image_kept_key key = {type, id};
    return pmap_remove(&e->img->kept, &key);
}

/* ---- quotas: by entity and key ---- */

static void put_text(struct buf *b, struct slice s)
{
    buf_put_u8(b, slice_is_null(s) ? 0 : 1);
    buf_put_be32(b, (uint32_t)s.n);
    buf_put(b, s.p, s.n);
}

/* Entities come in any order and have at most a few parts: the smallest type first. */
static void put_entity(struct buf *b, const struct kp_client_quota_record *r)
{
    struct slice last = SLICE_NULL;
    for (int32_t done = 0; done < r->entity_n;) {
        const struct kp_client_quota_record_entity *next = NULL;
        for (int32_t i = 0; i < r->entity_n; i++) {
            const struct kp_client_quota_record_entity *c = &r->entity[i];
            if ((slice_is_null(last) || slice_cmp(c->entity_type, last) > 0) &&
                (!next || slice_cmp(c->entity_type, next->entity_type) < 0))
                next = c;
        }
        if (!next)
            return; /* a type twice */
        assert(slice_is_null(last) || slice_cmp(next->entity_type, last) > 0);
        put_text(b, next->entity_type);
        put_text(b, next->entity_name);
        last = next->entity_type;
        done++;
    }
}

int apply_client_quota(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_client_quota_record *r = body;
    struct buf id;
    buf_init(&id, KEPT_RECORD_MAX);
    put_entity(&id, r);
    put_text(&id, r->key);
    int rc = id.failed   ? err_set(err, -E_CORRUPT, "a client quota's entity is too long")
             : r->remove ? forget(e, kp_type_client_quota_record, buf_slice(&id))
                         : keep(e, kp_type_client_quota_record, buf_slice(&id), r);
    buf_fini(&id);
    return rc;
}

/* ---- ACLs: by uuid ---- */

int apply_ace(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_access_control_entry_record *r = body;
    (void)err;
    return keep(e, kp_type_access_control_entry_record, slice_of(&r->id, sizeof r->id), r);
}

int apply_remove_ace(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_remove_access_control_entry_record *r = body;
    (void)err;
    return forget(e, kp_type_access_control_entry_record, slice_of(&r->id, sizeof r->id));
}

/* ---- credentials: by mechanism and user ---- */

static int scram_id(struct buf *id, int8_t mechanism, struct slice user)
{
    buf_init(id, KEPT_RECORD_MAX);
    buf_put_u8(id, (uint8_t)mechanism);
    buf_put(id, user.p, user.n);
    return id->failed ? -E_NOMEM : 0;
}

int apply_scram(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_user_scram_credential_record *r = body;
    struct buf id;
    (void)err;
    int rc = scram_id(&id, r->mechanism, r->name);
    if (rc == 0)
        rc = keep(e, kp_type_user_scram_credential_record, buf_slice(&id), r);
    buf_fini(&id);
    return rc;
}

int apply_remove_scram(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_remove_user_scram_credential_record *r = body;
    struct buf id;
    (void)err;
    int rc = scram_id(&id, r->mechanism, r->name);
    if (rc == 0)
        rc = forget(e, kp_type_user_scram_credential_record, buf_slice(&id));
    buf_fini(&id);
    return rc;
}

/* ---- delegation tokens, controllers ---- */

int apply_delegation_token(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_delegation_token_record *r = body;
    (void)err;
    return keep(e, kp_type_delegation_token_record, r->token_id, r);
}

int apply_remove_delegation_token(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_remove_delegation_token_record *r = body;
    (void)err;
    return forget(e, kp_type_delegation_token_record, r->token_id);
}

int apply_register_controller(struct image_edit *e, const void *body, struct err *err)
{
    const struct kp_register_controller_record *r = body;
    uint8_t id[4];
    if (r->controller_id < 0)
        return err_set(err, -E_CORRUPT, "controller id %d", r->controller_id);
    be32_put(id, (uint32_t)r->controller_id);
    return keep(e, kp_type_register_controller_record, slice_of(id, sizeof id), r);
}
