/* UpdateFeatures (KIP-584): what the cluster may write from now on. All of a request, or nothing.
 *
 * metadata.version moves within what this version knows; levels of features that are not served here may only fall to
 * 0 (a directory formatted by Kafka may have them on). */
#include "broker/controller/brokers.h"
#include "broker/controller/decide.h"

#include "broker/metadata/image_edit.h"

#include <assert.h>

enum upgrade_type { UPGRADE = 1, DOWNGRADE_SAFE = 2, DOWNGRADE_UNSAFE = 3 };

struct updating {
    const struct decide *d;
    const struct kp_update_features_request_feature_updates *u;
    int16_t now, wanted;
    struct slice text;
};

static int16_t refuse(struct updating *x, int16_t error, struct slice text)
{
    assert(error != KE_NONE);
    x->text = text;
    return error;
}

/* Levels that write the same record versions may be left downwards. */
static bool same_records(int16_t a, int16_t b)
{
    static const int16_t types[] = {kp_type_register_broker_record, kp_type_broker_registration_change_record,
                                    kp_type_partition_record, kp_type_partition_change_record};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (metadata_version_of(types[i], a) != metadata_version_of(types[i], b))
            return false;
    }
    return true;
}

static int16_t check_range(struct updating *x)
{
    bool metadata = slice_eq_str(x->u->feature, METADATA_VERSION_FEATURE);
    int16_t min = metadata ? METADATA_VERSION_MIN : 0, max = metadata ? METADATA_VERSION_MAX : 0;
    if (slice_eq_str(x->u->feature, "kraft.version"))
        return refuse(
            x, KE_INVALID_UPDATE_VERSION,
            SLICE_LIT("kraft.version is chosen when a directory is formatted and cannot be changed later"));
    if (x->wanted < min || x->wanted > max)
        return refuse(
            x, KE_INVALID_UPDATE_VERSION,
            decide_text(x->d,
                        "Invalid update version %d for feature %.*s. Local controller %d only supports "
                        "versions %d-%d",
                        x->wanted, SLICE_FMT(x->u->feature), x->d->node_id, min, max));
    return KE_NONE;
}

static bool claimed(const struct image_broker *b, struct slice feature, int16_t level)
{
    for (int32_t i = 0; i < b->features_n; i++) {
        if (slice_eq(b->features[i].name, feature))
            return b->features[i].level_min <= level && level <= b->features[i].level_max;
    }
    return level == 0;
}

static int16_t check_brokers(struct updating *x)
{
    for (const struct image_broker *b = image_broker_next(x->d->img, NULL); b;
         b = image_broker_next(x->d->img, b)) {
        if (!claimed(b, x->u->feature, x->wanted))
            return refuse(
                x, KE_INVALID_UPDATE_VERSION,
                decide_text(x->d,
                            "Invalid update version %d for feature %.*s. Broker %d does not support it.",
                            x->wanted, SLICE_FMT(x->u->feature), b->id));
    }
    return KE_NONE;
}

static int16_t check_direction(struct updating *x)
{
    enum upgrade_type how = x->u->allow_downgrade ? DOWNGRADE_SAFE : (enum upgrade_type)x->u->upgrade_type;
    if (how < UPGRADE || how > DOWNGRADE_UNSAFE)
        return refuse(x, KE_INVALID_REQUEST,
                      SLICE_LIT("The controller does not support the given upgrade type."));
    if (x->wanted >= x->now)
        return KE_NONE;
    if (how == UPGRADE)
        return refuse(
            x, KE_INVALID_UPDATE_VERSION,
            decide_text(x->d,
                        "Invalid update version %d for feature %.*s. Can't downgrade the version of this "
                        "feature without setting the upgrade type to either safe or unsafe downgrade.",
                        x->wanted, SLICE_FMT(x->u->feature)));
    if (slice_eq_str(x->u->feature, METADATA_VERSION_FEATURE) && !same_records(x->wanted, x->now))
        return refuse(
            x, KE_INVALID_UPDATE_VERSION,
            decide_text(x->d,
                        "Invalid metadata.version %d. Refusing to downgrade: records written at level %d "
                        "could not be read at it.",
                        x->wanted, x->now));
    return KE_NONE;
}

static int16_t update_one(struct updating *x)
{
    x->now = image_feature_level(x->d->img, x->u->feature);
    x->wanted = x->u->max_version_level;
    int16_t error = check_range(x);
    if (!error)
        error = check_direction(x);
    if (!error)
        error = check_brokers(x);
    if (error || x->wanted == x->now)
        return error;
    struct kp_feature_level_record *f = decide_record(x->d, kp_type_feature_level_record);
    if (!f)
        return KE_UNKNOWN_SERVER_ERROR;
    f->name = x->u->feature;
    f->feature_level = x->wanted;
    return KE_NONE;
}

#define FEATURES_MAX 1000

int16_t decide_update_features(const struct decide *d, const struct kp_update_features_request *q,
                               struct kp_update_features_response *r)
{
    int32_t n = q->feature_updates_n;
    assert(d->out->n == 0); /* one that is refused takes all of them back */
    r->error_message = SLICE_NULL;
    r->results =
        n <= FEATURES_MAX ? ARENA_NEWS(d->arena, struct kp_update_features_response_results, n) : NULL;
    if (!r->results)
        return r->error_code = n > FEATURES_MAX ? KE_INVALID_REQUEST : KE_UNKNOWN_SERVER_ERROR;
    for (; r->results_n < n; r->results_n++) {
        struct updating x = {.d = d, .u = &q->feature_updates[r->results_n]};
        int16_t error = update_one(&x);
        if (error == KE_UNKNOWN_SERVER_ERROR)
            return r->error_code = error;
        r->results[r->results_n] =
            (struct kp_update_features_response_results){x.u->feature, error, error ? x.text : SLICE_NULL};
        if (error && !r->error_code) {
            r->error_code = error;
            r->error_message = decide_text(
                d, "The update failed for all features since the following feature had an error: %.*s",
                SLICE_FMT(x.text));
        }
    }
    if (r->error_code || q->validate_only)
        d->out->n = 0;
    return r->error_code;
}
