#include "broker/controller/brokers.h"

#include "broker/controller/elect.h"
#include "broker/metadata/image_edit.h"

#include <assert.h>

static const struct feature_claim claims[] = {
    {METADATA_VERSION_FEATURE, METADATA_VERSION_MIN, METADATA_VERSION_MAX},
    {"kraft.version", 0, 1},
    {"transaction.version", 0, 2},
    {"group.version", 0, 1},
    {"eligible.leader.replicas.version", 0, 1},
    {"share.version", 0, 2},
    {"streams.version", 0, 1},
};

const struct feature_claim *feature_claims(size_t *n)
{
    *n = sizeof claims / sizeof *claims;
    return claims;
}

/* ---- registration ---- */

static bool directories_are_fine(const struct decide *d, const struct kp_broker_registration_request *q)
{
    struct uuid reserved_end = uuid_small(100);
    if (q->log_dirs_n < 1)
        return false;
    for (int32_t i = 0; i < q->log_dirs_n; i++) {
        if (memcmp(&q->log_dirs[i], &reserved_end, sizeof reserved_end) < 0)
            return false;
        for (int32_t j = 0; j < i; j++) {
            if (uuid_eq(&q->log_dirs[i], &q->log_dirs[j]))
                return false;
        }
        for (const struct image_broker *b = image_broker_next(d->img, NULL); b;
             b = image_broker_next(d->img, b)) {
            for (int32_t j = 0; b->id != q->broker_id && j < b->log_dirs_n; j++) {
                if (uuid_eq(&q->log_dirs[i], &b->log_dirs[j]))
                    return false;
            }
        }
    }
    return true;
}

static bool covers(const struct kp_broker_registration_request *q, const struct image_feature *f)
{
    for (int32_t i = 0; i < q->features_n; i++) {
        if (slice_eq(q->features[i].name, f->name))
            return q->features[i].min_supported_version <= f->level &&
                   f->level <= q->features[i].max_supported_version;
    }
    return false;
}

static bool covers_all(const struct decide *d, const struct kp_broker_registration_request *q)
{
    for (const struct image_feature *f = image_feature_next(d->img, NULL); f;
         f = image_feature_next(d->img, f)) {
        if (!covers(q, f))
            return false;
    }
    return true;
}

static int16_t check_registration(const struct decide *d, const struct kp_broker_registration_request *q,
                                  bool live)
{
    const struct image_broker *was = image_broker(d->img, q->broker_id);
    if (!slice_eq(q->cluster_id, image_cluster_id(d->img)))
        return KE_INCONSISTENT_CLUSTER_ID;
    if (was && live && !uuid_eq(&was->incarnation, &q->incarnation_id))
        return KE_DUPLICATE_BROKER_REGISTRATION;
    if (q->broker_id < 0 || q->listeners_n < 1 || q->is_migrating_zk_broker || !directories_are_fine(d, q))
        return KE_INVALID_REGISTRATION;
    return covers_all(d, q) ? KE_NONE : KE_UNSUPPORTED_VERSION;
}

static bool write_registration(const struct decide *d, const struct kp_broker_registration_request *q,
                               int64_t epoch, const struct image_broker *amended)
{
    assert(q->listeners_n > 0);
    assert(q->log_dirs_n > 0);
    struct kp_register_broker_record *b = decide_record(d, kp_type_register_broker_record);
    struct arena *a = d->out->arena;
    if (!b)
        return false;
    b->broker_id = q->broker_id;
    b->incarnation_id = q->incarnation_id;
    b->broker_epoch = epoch;
    b->rack = q->rack;
    b->fenced = amended ? amended->fenced : true;
    b->in_controlled_shutdown = amended && amended->in_controlled_shutdown;
    b->log_dirs = q->log_dirs;
    b->log_dirs_n = q->log_dirs_n;
    b->end_points = ARENA_NEWS(a, struct kp_register_broker_record_end_points, q->listeners_n);
    b->features = ARENA_NEWS(a, struct kp_register_broker_record_features, q->features_n);
    if (!b->end_points || !b->features)
        return false;
    for (; b->end_points_n < q->listeners_n; b->end_points_n++) {
        const struct kp_broker_registration_request_listeners *l = &q->listeners[b->end_points_n];
        b->end_points[b->end_points_n] =
            (struct kp_register_broker_record_end_points){l->name, l->host, l->port, l->security_protocol};
    }
    for (; b->features_n < q->features_n; b->features_n++) {
        const struct kp_broker_registration_request_features *f = &q->features[b->features_n];
        b->features[b->features_n] = (struct kp_register_broker_record_features){
            f->name, f->min_supported_version, f->max_supported_version};
    }
    return true;
}

int16_t decide_broker_registration(const struct decide *d, const struct kp_broker_registration_request *q,
                                   const struct broker_session *session, bool live,
                                   struct kp_broker_registration_response *r)
{
    const struct image_broker *was = image_broker(d->img, q->broker_id);
    int16_t error = check_registration(d, q, live);
    (void)session;
    if (error)
        return r->error_code = error;
    assert(q->broker_id >= 0);
    assert(d->offset_next >= 0);
    bool same = was && uuid_eq(&was->incarnation, &q->incarnation_id);
    assert(same || !was || !live); /* S21 */
    r->broker_epoch = same ? was->epoch : d->offset_next;
    if (was && !same) { /* the former incarnation's leaderships end, before its place is taken */
        bool unclean = decide_elr(d->img) && q->previous_broker_epoch != was->epoch;
        if (!elect_after(d, q->broker_id, unclean ? BROKER_LEAVES_UNCLEAN : BROKER_LEAVES))
            return r->error_code = KE_UNKNOWN_SERVER_ERROR;
    }
    if (!write_registration(d, q, r->broker_epoch, same ? was : NULL))
        return r->error_code = KE_UNKNOWN_SERVER_ERROR;
    return KE_NONE;
}

/* ---- heartbeats ---- */

enum life { LIFE_FENCED, LIFE_UNFENCED, LIFE_SHUTTING_DOWN, LIFE_GONE };

static enum life life_of(const struct image_broker *b)
{
    return b->fenced ? LIFE_FENCED : b->in_controlled_shutdown ? LIFE_SHUTTING_DOWN : LIFE_UNFENCED;
}

static enum life next_life(const struct decide *d, const struct kp_broker_heartbeat_request *q,
                           const struct image_broker *b, const struct broker_session *s,
                           int64_t lowest_offset)
{
    switch (life_of(b)) {
    case LIFE_FENCED:
        if (q->want_shut_down)
            return LIFE_GONE;
        /* it must know of its own registration before others may rely on it (INVARIANTS S21) */
        return !q->want_fence && q->current_metadata_offset >= s->registered_offset ? LIFE_UNFENCED
                                                                                    : LIFE_FENCED;
    case LIFE_UNFENCED:
        if (q->want_fence)
            return LIFE_FENCED;
        if (!q->want_shut_down)
            return LIFE_UNFENCED;
        return elect_leads(d->img, b->id) ? LIFE_SHUTTING_DOWN : LIFE_GONE;
    case LIFE_SHUTTING_DOWN:
        /* the others must have seen that its leaderships have moved (S20) */
        return elect_leads(d->img, b->id) || lowest_offset < s->shutdown_offset ? LIFE_SHUTTING_DOWN
                                                                                : LIFE_GONE;
    case LIFE_GONE: break;
    }
    assert(false && "no broker in the image is gone");
    return LIFE_FENCED;
}

static struct kp_broker_registration_change_record *change_record(const struct decide *d,
                                                                  const struct image_broker *b)
{
    struct kp_broker_registration_change_record *c =
        decide_record(d, kp_type_broker_registration_change_record);
    if (c) {
        c->broker_id = b->id;
        c->broker_epoch = b->epoch;
    }
    return c;
}

static bool fence(const struct decide *d, const struct image_broker *b)
{
    if (b->fenced)
        return true;
    if (!elect_after(d, b->id, BROKER_LEAVES))
        return false;
    struct kp_broker_registration_change_record *c = change_record(d, b);
    if (c)
        c->fenced = 1;
    return c != NULL;
}

static bool unfence(const struct decide *d, const struct image_broker *b)
{
    assert(b->fenced);
    struct kp_broker_registration_change_record *c = change_record(d, b);
    if (!c)
        return false;
    c->fenced = -1;
    return elect_after(d, b->id, BROKER_JOINS);
}

static bool begin_shutdown(const struct decide *d, const struct image_broker *b)
{
    assert(!b->fenced);
    assert(!b->in_controlled_shutdown);
    struct kp_broker_registration_change_record *c = change_record(d, b);
    if (!c)
        return false;
    c->in_controlled_shutdown = 1;
    return elect_after(d, b->id, BROKER_LEAVES);
}

/* Log dirs that the broker says have failed, and that its registration still has (KIP-858). */
static bool take_dirs_offline(const struct decide *d, const struct kp_broker_heartbeat_request *q,
                              const struct image_broker *b)
{
    struct uuid *left = ARENA_NEWS(d->out->arena, struct uuid, b->log_dirs_n);
    int32_t left_n = 0;
    bool fine = left || b->log_dirs_n == 0;
    assert(!b->fenced);
    assert(!b->in_controlled_shutdown);
    for (int32_t i = 0; fine && i < b->log_dirs_n; i++) {
        bool gone = false;
        for (int32_t j = 0; j < q->offline_log_dirs_n; j++)
            gone |= uuid_eq(&b->log_dirs[i], &q->offline_log_dirs[j]);
        if (!gone)
            left[left_n++] = b->log_dirs[i];
        else
            fine = elect_after_dir(d, b->id, &b->log_dirs[i]);
    }
    assert(left_n >= 0);
    assert(left_n <= b->log_dirs_n);
    if (!fine || left_n == b->log_dirs_n || left_n == 0) /* the last one ends the broker */
        return fine;
    struct kp_broker_registration_change_record *c = change_record(d, b);
    if (!c)
        return false;
    c->log_dirs = left;
    c->log_dirs_n = left_n;
    return true;
}

int16_t decide_broker_heartbeat(const struct decide *d, const struct kp_broker_heartbeat_request *q,
                                const struct broker_session *session, int64_t lowest_offset,
                                struct kp_broker_heartbeat_response *r)
{
    const struct image_broker *b = image_broker(d->img, q->broker_id);
    if (!b)
        return r->error_code = KE_BROKER_ID_NOT_REGISTERED;
    if (b->epoch != q->broker_epoch)
        return r->error_code = KE_STALE_BROKER_EPOCH;
    assert(session);
    assert(session->id == b->id);
    enum life was = life_of(b), now = next_life(d, q, b, session, lowest_offset);
    bool fine = true;
    if (now == LIFE_FENCED || now == LIFE_GONE)
        fine = fence(d, b);
    else if (was == LIFE_FENCED)
        fine = unfence(d, b);
    else if (now == LIFE_SHUTTING_DOWN && was == LIFE_UNFENCED)
        fine = begin_shutdown(d, b);
    else if (now == LIFE_UNFENCED && was == LIFE_UNFENCED && q->offline_log_dirs_n > 0)
        fine = take_dirs_offline(d, q, b);
    r->is_fenced = now == LIFE_FENCED || now == LIFE_GONE;
    r->is_caught_up = q->current_metadata_offset >= session->registered_offset;
    r->should_shut_down = now == LIFE_GONE;
    if (!fine)
        return r->error_code = KE_UNKNOWN_SERVER_ERROR;
    return KE_NONE;
}

int16_t decide_fence(const struct decide *d, int32_t broker_id)
{
    const struct image_broker *b = image_broker(d->img, broker_id);
    return !b || fence(d, b) ? KE_NONE : KE_UNKNOWN_SERVER_ERROR;
}

/* ---- controllers ---- */

int16_t decide_controller_registration(const struct decide *d,
                                       const struct kp_controller_registration_request *q,
                                       struct kp_controller_registration_response *r)
{
    struct kp_register_controller_record *c = decide_record(d, kp_type_register_controller_record);
    struct arena *a = d->out->arena;
    if (q->controller_id < 0 || q->listeners_n < 1)
        return r->error_code = KE_INVALID_REGISTRATION;
    if (!c)
        return r->error_code = KE_UNKNOWN_SERVER_ERROR;
    c->controller_id = q->controller_id;
    c->incarnation_id = q->incarnation_id;
    c->zk_migration_ready = q->zk_migration_ready;
    c->end_points = ARENA_NEWS(a, struct kp_register_controller_record_end_points, q->listeners_n);
    c->features = ARENA_NEWS(a, struct kp_register_controller_record_features, q->features_n);
    if (!c->end_points || !c->features)
        return r->error_code = KE_UNKNOWN_SERVER_ERROR;
    for (; c->end_points_n < q->listeners_n; c->end_points_n++) {
        const struct kp_controller_registration_request_listeners *l = &q->listeners[c->end_points_n];
        c->end_points[c->end_points_n] = (struct kp_register_controller_record_end_points){
            l->name, l->host, l->port, l->security_protocol};
    }
    for (; c->features_n < q->features_n; c->features_n++) {
        const struct kp_controller_registration_request_features *f = &q->features[c->features_n];
        c->features[c->features_n] = (struct kp_register_controller_record_features){
            f->name, f->min_supported_version, f->max_supported_version};
    }
    return KE_NONE;
}
