/* The first things an active controller writes (KRAFT §2, §8). */
#include "broker/controller/control_internal.h"

#include "base/runtime/log.h"
#include "broker/metadata/image_edit.h"
#include "broker/metadata/snapshot.h"

#include <assert.h>

#define BOOTSTRAP_RECORDS_MAX 1000

/* ---- what formatting has left ---- */

struct keeping {
    struct control *c;
    struct err *err;
};

/* The reader's memory goes with the record: ours is decoded once more from its own bytes. */
static int keep_record(void *arg, const struct metadata_record *r)
{
    const struct keeping *k = arg;
    struct metadata_records *list = &k->c->bootstrap;
    assert(list->n <= BOOTSTRAP_RECORDS_MAX);
    struct buf bytes;
    struct metadata_record mine;
    if (list->n >= BOOTSTRAP_RECORDS_MAX)
        return err_set(k->err, -E_LIMIT, "more than %d records", BOOTSTRAP_RECORDS_MAX);
    buf_init(&bytes, CONTROL_ARENA_MAX);
    int rc = metadata_record_encode(r, &bytes);
    if (rc == 0)
        rc = metadata_record_decode(arena_dup(list->arena, buf_slice(&bytes)), list->arena, &mine, k->err);
    buf_fini(&bytes);
    if (rc == 0 && !metadata_records_add(list, mine.type, mine.version))
        rc = -E_NOMEM;
    if (rc == 0)
        list->v[list->n - 1].body = mine.body;
    return rc;
}

int control_read_bootstrap(struct control *c, struct err *err)
{
    struct keeping k = {c, err};
    metadata_records_init(&c->bootstrap, &c->bootstrap_arena);
    if (!c->o.bootstrap || disk_kind(c->o.quorum.disk, c->o.bootstrap) == DISK_NONE)
        return 0;
    return snapshot_read(c->o.quorum.disk, c->o.bootstrap, &(struct snapshot_reader){keep_record, NULL, &k},
                         err);
}

/* ---- activation ---- */

static bool add_level(const struct decide *d, const char *name, int16_t level)
{
    struct kp_feature_level_record *f = metadata_records_add(d->out, kp_type_feature_level_record, 0);
    if (f)
        *f = (struct kp_feature_level_record){slice_str(name), level};
    return f != NULL;
}

static bool is_level_of(const struct metadata_record *r, const char *name)
{
    const struct kp_feature_level_record *f = r->body;
    return r->type == kp_type_feature_level_record && slice_eq_str(f->name, name) && f->feature_level > 0;
}

static bool bootstrap_has(const struct control *c, const char *feature)
{
    for (size_t i = 0; i < c->bootstrap.n; i++) {
        if (is_level_of(&c->bootstrap.v[i], feature))
            return true;
    }
    return false;
}

int16_t control_bootstrap_level(const struct control *c)
{
    assert(c->bootstrap.n <= BOOTSTRAP_RECORDS_MAX);
    for (size_t i = 0; i < c->bootstrap.n; i++) {
        if (is_level_of(&c->bootstrap.v[i], METADATA_VERSION_FEATURE))
            return ((const struct kp_feature_level_record *)c->bootstrap.v[i].body)->feature_level;
    }
    return METADATA_VERSION_MIN;
}

static bool copy_bootstrap(struct control *c, const struct decide *d)
{
    assert(d->out->n > 0); /* the transaction has begun */
    for (size_t i = 0; i < c->bootstrap.n; i++) {
        if (!metadata_records_add(d->out, c->bootstrap.v[i].type, c->bootstrap.v[i].version))
            return false;
        d->out->v[d->out->n - 1].body = c->bootstrap.v[i].body;
    }
    return true;
}

/* With ELR on, min.insync.replicas is the cluster's, not each broker's (KIP-966). */
static bool add_min_insync(struct control *c, const struct decide *d)
{
    struct slice key = SLICE_LIT("min.insync.replicas"), value;
    bool is_default;
    if (!bootstrap_has(c, "eligible.leader.replicas.version"))
        return true;
    const struct static_configs *s = &c->o.rules.statics;
    if (!s->get || !s->get(s->arg, key, d->out->arena, &value, &is_default) || slice_is_null(value))
        value = SLICE_LIT("1");
    struct kp_config_record *r = metadata_records_add(d->out, kp_type_config_record, 0);
    if (r)
        *r = (struct kp_config_record){IMAGE_CONFIG_BROKER, SLICE_LIT(""), key, value};
    return r != NULL;
}

/* An empty log begins with its levels, as one transaction. */
static int64_t write_bootstrap(struct control *c)
{
    assert(!quorum_in_transaction(c->quorum));
    struct decide d = control_decide(c, &c->arena);
    struct kp_begin_transaction_record *begin =
        metadata_records_add(d.out, kp_type_begin_transaction_record, 0);
    if (!begin)
        return -KE_UNKNOWN_SERVER_ERROR;
    begin->name = SLICE_LIT("Bootstrap records");
    bool fine = bootstrap_has(c, METADATA_VERSION_FEATURE)
                    ? copy_bootstrap(c, &d)
                    : add_level(&d, METADATA_VERSION_FEATURE, METADATA_VERSION_MIN);
    if (!fine || !add_min_insync(c, &d) || !metadata_records_add(d.out, kp_type_end_transaction_record, 0))
        return -KE_UNKNOWN_SERVER_ERROR;
    return control_append(c);
}

/* What a leader before us has begun and not ended is undone. */
static int64_t abort_transaction(struct control *c)
{
    assert(quorum_in_transaction(c->quorum));
    struct decide d = control_decide(c, &c->arena);
    struct kp_abort_transaction_record *abort =
        metadata_records_add(d.out, kp_type_abort_transaction_record, 0);
    if (!abort)
        return -KE_UNKNOWN_SERVER_ERROR;
    abort->reason = SLICE_LIT("the former controller did not end it");
    return control_append(c);
}

static bool add_controller_lists(struct control *c, const struct decide *d,
                                 struct kp_controller_registration_request *q)
{
    size_t n;
    const struct feature_claim *claims = feature_claims(&n);
    q->listeners =
        ARENA_NEWS(d->arena, struct kp_controller_registration_request_listeners, c->o.endpoints_n);
    q->features = ARENA_NEWS(d->arena, struct kp_controller_registration_request_features, n);
    if (!q->listeners || !q->features)
        return false;
    for (unsigned i = 0; i < c->o.endpoints_n; i++)
        q->listeners[q->listeners_n++] = (struct kp_controller_registration_request_listeners){
            slice_str(c->endpoints[i].listener), slice_str(c->endpoints[i].host), c->endpoints[i].port,
            c->endpoints[i].security_protocol};
    for (size_t i = 0; i < n; i++)
        q->features[q->features_n++] = (struct kp_controller_registration_request_features){
            slice_str(claims[i].name), claims[i].level_min, claims[i].level_max};
    return true;
}

/* A controller that others can reach says so. */
static int64_t register_self(struct control *c)
{
    struct kp_controller_registration_request q;
    struct kp_controller_registration_response r;
    if (c->o.endpoints_n == 0)
        return 0;
    struct decide d = control_decide(c, &c->arena);
    kp_init(&kp_controller_registration_request_message, &q);
    kp_init(&kp_controller_registration_response_message, &r);
    q.controller_id = c->o.quorum.node_id;
    q.incarnation_id = c->o.incarnation;
    if (!add_controller_lists(c, &d, &q))
        return -KE_UNKNOWN_SERVER_ERROR;
    int16_t error = decide_controller_registration(&d, &q, &r);
    return error ? -(int64_t)error : control_append(c);
}

void control_activate(struct control *c)
{
    int64_t rc = 0;
    assert(!c->active);
    c->appended_us = loop_now_us(c->loop);
    if (quorum_in_transaction(c->quorum))
        rc = abort_transaction(c);
    if (rc >= 0 && decide_metadata_version(quorum_image(c->quorum)) == 0)
        rc = write_bootstrap(c);
    if (rc >= 0)
        rc = register_self(c);
    if (rc < 0) {
        c->o.failed(c->o.arg, "cannot write the first records of this controller");
        return;
    }
    assert(!quorum_in_transaction(c->quorum));
    c->active = true;
    control_sessions_begin(c);
    if (c->o.idle_interval_ms > 0 && c->o.endpoints_n > 0)
        loop_timer_in(&c->idle_timer, c->o.idle_interval_ms * 1000);
    log_info("broker.controller", "active controller node=%d offset=%lld metadata_version=%d",
             c->o.quorum.node_id, (long long)image_offset(quorum_image(c->quorum)),
             decide_metadata_version(quorum_image(c->quorum)));
}
