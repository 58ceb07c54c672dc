/* AlterConfigs (all of a resource's keys at once) and IncrementalAlterConfigs (KIP-339): one shape inside.
 *
 * Topics: the keys of topic_configs.def. Brokers (one, or "" for all): the keys that are a topic option's default; they
 * reach every log through the image. What else a broker has is read at its start only, and is refused by name. */
#include "broker/controller/decide.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

enum op { OP_SET = 0, OP_DELETE = 1, OP_APPEND = 2, OP_SUBTRACT = 3 };

struct change {
    struct slice key, value;
    int8_t op;
};

/* One resource of either request; the two responses are alike, this is their item. */
struct altering {
    const struct decide *d;
    int8_t type;
    struct slice name;
    const struct change *changes;
    int32_t changes_n;
    bool full; /* keys that are not mentioned are deleted */
    int16_t error;
    struct slice text;
    const struct image_config *now;
};

static int16_t refuse(struct altering *a, int16_t error, struct slice text)
{
    assert(error != KE_NONE);
    a->text = text;
    return a->error = error;
}

/* ---- resources ---- */

static int16_t check_broker(struct altering *a)
{
    char text[16], *end;
    if (a->name.n == 0)
        return KE_NONE;
    slice_cstr(a->name, text, sizeof text);
    long long id = strtoll(text, &end, 10);
    if (*end || a->name.n >= sizeof text || id < 0 || id > INT32_MAX)
        return refuse(a, KE_INVALID_REQUEST,
                      decide_text(a->d, "Broker id must be an integer, but it is: %.*s", SLICE_FMT(a->name)));
    if (!image_broker(a->d->img, (int32_t)id))
        return refuse(a, KE_BROKER_ID_NOT_REGISTERED, decide_text(a->d, "No broker with id %lld found.", id));
    return KE_NONE;
}

static int16_t check_resource(struct altering *a)
{
    struct err err = {0};
    if (a->type == IMAGE_CONFIG_BROKER)
        return check_broker(a);
    if (a->type != IMAGE_CONFIG_TOPIC)
        return refuse(a, KE_INVALID_REQUEST,
                      decide_text(a->d, "Configs of resource type %d cannot be changed here", a->type));
    if (topic_name_check(a->name, &err) < 0)
        return refuse(a, KE_INVALID_TOPIC_EXCEPTION, decide_text(a->d, "%s", err.text));
    if (!image_topic(a->d->img, a->name))
        return refuse(a, KE_UNKNOWN_TOPIC_OR_PARTITION,
                      decide_text(a->d, "The topic '%.*s' does not exist.", SLICE_FMT(a->name)));
    return KE_NONE;
}

static const struct topic_config_row *row_of(struct altering *a, struct slice key)
{
    const struct topic_config_row *row =
        a->type == IMAGE_CONFIG_TOPIC ? topic_config_find(key) : topic_config_of_broker_key(key);
    struct slice value;
    bool is_default;
    if (row)
        return row;
    const struct static_configs *s = &a->d->rules->statics;
    if (a->type == IMAGE_CONFIG_BROKER && s->get && s->get(s->arg, key, a->d->arena, &value, &is_default))
        refuse(a, KE_INVALID_REQUEST,
               decide_text(a->d,
                           "Cannot update these configs dynamically: %.*s is read when the broker starts",
                           SLICE_FMT(key)));
    else
        refuse(a, KE_INVALID_CONFIG,
               decide_text(a->d, "Unknown %s config name: %.*s",
                           a->type == IMAGE_CONFIG_TOPIC ? "topic" : "broker", SLICE_FMT(key)));
    return NULL;
}

/* ---- values ---- */

/* The list as it is now, for APPEND and SUBTRACT. */
static struct slice list_now(const struct altering *a, const struct topic_config_row *row, struct slice key)
{
    struct config_value v[CONFIG_SYNONYMS_MAX];
    struct config_view view = {a->d->img, a->d->node_id, &a->d->rules->statics};
    struct slice own = image_config_value(a->now, key);
    if (!slice_is_null(own))
        return own;
    effective_topic_config(&view, NULL, row, a->d->arena, v);
    return v[0].value;
}

/* Calls for each entry of a comma separated list. */
static struct slice next_entry(struct slice *rest)
{
    const uint8_t *comma = rest->n ? memchr(rest->p, ',', rest->n) : NULL;
    struct slice entry = slice_of(rest->p, comma ? (size_t)(comma - rest->p) : rest->n);
    *rest = comma ? slice_of(comma + 1, rest->n - entry.n - 1) : slice_of(rest->p + rest->n, 0);
    return entry;
}

static bool has_entry(struct slice list, struct slice wanted)
{
    while (list.n > 0) {
        if (slice_eq(next_entry(&list), wanted))
            return true;
    }
    return false;
}

static void add_entry(struct buf *out, size_t start, struct slice entry)
{
    if (out->n > start)
        buf_put_u8(out, ',');
    buf_put(out, entry.p, entry.n);
}

static void combine(struct slice now, struct slice change, bool append, struct buf *out)
{
    size_t start = out->n;
    assert(start == 0);
    for (struct slice rest = now; rest.n > 0;) {
        struct slice e = next_entry(&rest);
        if (append || !has_entry(change, e))
            add_entry(out, start, e);
    }
    for (struct slice rest = change; append && rest.n > 0;) {
        struct slice e = next_entry(&rest);
        if (!has_entry(now, e))
            add_entry(out, start, e);
    }
}

/* What the key will be; null: deleted. An error of its own: a->error. */
static struct slice new_value(struct altering *a, const struct topic_config_row *row, const struct change *c)
{
    struct err err = {0};
    struct buf given, whole;
    struct slice result = SLICE_NULL;
    if (c->op == OP_DELETE)
        return SLICE_NULL;
    if (slice_is_null(c->value)) {
        refuse(a, KE_INVALID_REQUEST,
               decide_text(a->d, "Null value not supported for : %.*s", SLICE_FMT(c->key)));
        return SLICE_NULL;
    }
    assert(row); /* only deleting goes without */
    if (c->op != OP_SET && row->type != TOPIC_CONFIG_LIST) {
        refuse(a, KE_INVALID_CONFIG,
               decide_text(a->d, "Can't %s to key %.*s because its type is not LIST.",
                           c->op == OP_APPEND ? "APPEND" : "SUBTRACT", SLICE_FMT(c->key)));
        return SLICE_NULL;
    }
    buf_init(&given, INT16_MAX);
    buf_init(&whole, INT16_MAX);
    int rc = topic_config_normalize(row, c->value, &given, &err);
    if (rc == 0 && c->op != OP_SET) {
        combine(list_now(a, row, c->key), buf_slice(&given), c->op == OP_APPEND, &whole);
        buf_clear(&given);
        rc = topic_config_normalize(row, buf_slice(&whole), &given, &err);
    }
    if (rc < 0)
        refuse(a, KE_INVALID_CONFIG, decide_text(a->d, "%s", err.text));
    else
        result = arena_dup(a->d->out->arena, buf_slice(&given));
    buf_fini(&whole);
    buf_fini(&given);
    return result;
}

/* ---- records ---- */

static bool put_record(struct altering *a, struct slice key, struct slice value)
{
    assert(a->type == IMAGE_CONFIG_TOPIC || a->type == IMAGE_CONFIG_BROKER);
    if (slice_eq(image_config_value(a->now, key), value))
        return true; /* as it is */
    struct kp_config_record *r = decide_record(a->d, kp_type_config_record);
    if (!r)
        return false;
    *r = (struct kp_config_record){a->type, a->name, key, value};
    return true;
}

static int16_t alter_one(struct altering *a)
{
    for (int32_t i = 0; i < a->changes_n; i++) {
        const struct change *c = &a->changes[i];
        for (int32_t j = 0; j < i; j++) {
            if (slice_eq(a->changes[j].key, c->key))
                return refuse(a, KE_INVALID_REQUEST, SLICE_LIT("Error due to duplicate config keys"));
        }
        if (c->op < OP_SET || c->op > OP_SUBTRACT)
            return refuse(a, KE_INVALID_REQUEST, decide_text(a->d, "Unknown operation type id %d", c->op));
        /* a key that is set and that the table has lost may still be deleted */
        const struct topic_config_row *row = NULL;
        if (c->op != OP_DELETE || slice_is_null(image_config_value(a->now, c->key))) {
            row = row_of(a, c->key);
            if (!row)
                return a->error;
        }
        struct slice value = new_value(a, row, c);
        if (a->error)
            return a->error;
        if (!put_record(a, c->key, value))
            return KE_UNKNOWN_SERVER_ERROR;
    }
    return KE_NONE;
}

static bool mentioned(const struct altering *a, struct slice key)
{
    for (int32_t i = 0; i < a->changes_n; i++) {
        if (slice_eq(a->changes[i].key, key))
            return true;
    }
    return false;
}

static int16_t delete_others(struct altering *a)
{
    for (int32_t i = 0; a->full && a->now && i < a->now->entries_n; i++) {
        if (!mentioned(a, a->now->entries[i].key) && !put_record(a, a->now->entries[i].key, SLICE_NULL))
            return KE_UNKNOWN_SERVER_ERROR;
    }
    return KE_NONE;
}

struct altered {
    const struct altering *a;
    size_t from; /* its first record */
};

static struct slice own_value(const void *arg, struct slice key)
{
    const struct altered *x = arg;
    assert(x->from <= x->a->d->out->n);
    for (size_t i = x->a->d->out->n; i > x->from; i--) {
        const struct kp_config_record *r = x->a->d->out->v[i - 1].body;
        if (slice_eq(r->name, key))
            return r->value;
    }
    return image_config_value(x->a->now, key);
}

static int16_t check_together(struct altering *a, size_t from)
{
    struct config_view view = {a->d->img, a->d->node_id, &a->d->rules->statics};
    struct altered x = {a, from};
    if (a->type != IMAGE_CONFIG_TOPIC)
        return KE_NONE;
    struct slice conflict = effective_lag_conflict(&view, own_value, &x, a->d->arena);
    return slice_is_null(conflict) ? KE_NONE : refuse(a, KE_INVALID_CONFIG, conflict);
}

/* A refused resource leaves no records; the others go on. */
static int16_t alter(struct altering *a, bool twice)
{
    size_t before = a->d->out->n;
    int16_t error = KE_NONE;
    assert(before <= DECIDE_RECORDS_MAX);
    if (twice)
        error = refuse(a, KE_INVALID_REQUEST, SLICE_LIT("Each resource must appear at most once."));
    if (!error)
        error = check_resource(a);
    if (!error) {
        a->now = image_config(a->d->img, (enum image_config_type)a->type, a->name);
        error = alter_one(a);
    }
    if (!error)
        error = delete_others(a);
    if (!error)
        error = check_together(a, before);
    if (!error && a->d->out->n > DECIDE_RECORDS_MAX)
        error =
            refuse(a, KE_POLICY_VIOLATION, SLICE_LIT("Unable to perform excessively large batch operation."));
    assert(!a->error || error);
    assert(a->d->out->n >= before);
    if (error)
        a->d->out->n = before;
    return a->error ? KE_NONE : error; /* what is no resource's fault is the call's */
}

/* ---- the two requests ---- */

#define CHANGES_MAX 1000 /* of one resource: more cannot be keys that exist, each once */

/* By place in the request. NULL: no memory. */
static const bool *named_twice(const struct decide *d, const struct altering *list, int32_t n)
{
    struct slice *keys = ARENA_NEWS(d->arena, struct slice, n + 1);
    for (int32_t i = 0; keys && i < n; i++) {
        uint8_t *key = arena_alloc(d->arena, list[i].name.n + 1);
        if (!key)
            return NULL;
        key[0] = (uint8_t)list[i].type;
        if (list[i].name.n)
            memcpy(key + 1, list[i].name.p, list[i].name.n);
        keys[i] = slice_of(key, list[i].name.n + 1);
    }
    return keys ? decide_repeated(d, keys, (size_t)n) : NULL;
}

static int16_t alter_all(const struct decide *d, struct altering *list, int32_t n)
{
    const bool *twice = named_twice(d, list, n);
    if (!twice)
        return KE_UNKNOWN_SERVER_ERROR;
    for (int32_t i = 0; i < n; i++) {
        if (n > DECIDE_RECORDS_MAX || list[i].changes_n > CHANGES_MAX) {
            refuse(&list[i], KE_POLICY_VIOLATION,
                   SLICE_LIT("Unable to perform excessively large batch operation."));
            continue;
        }
        int16_t error = alter(&list[i], twice[i]);
        if (error)
            return error;
    }
    return KE_NONE;
}

int16_t decide_incremental_alter_configs(const struct decide *d,
                                         const struct kp_incremental_alter_configs_request *q,
                                         struct kp_incremental_alter_configs_response *r)
{
    assert(d->out->n == 0); /* what is only looked at takes all of them back */
    struct altering *list = ARENA_NEWS(d->arena, struct altering, q->resources_n);
    r->responses =
        ARENA_NEWS(d->arena, struct kp_incremental_alter_configs_response_responses, q->resources_n);
    for (int32_t i = 0; list && i < q->resources_n; i++) {
        const struct kp_incremental_alter_configs_request_resources *from = &q->resources[i];
        struct change *changes = ARENA_NEWS(d->arena, struct change, from->configs_n);
        list[i] = (struct altering){.d = d,
                                    .type = from->resource_type,
                                    .name = from->resource_name,
                                    .changes = changes,
                                    .changes_n = from->configs_n};
        for (int32_t j = 0; changes && j < from->configs_n; j++)
            changes[j] = (struct change){from->configs[j].name, from->configs[j].value,
                                         from->configs[j].config_operation};
    }
    if (arena_failed(d->arena))
        return KE_UNKNOWN_SERVER_ERROR;
    int16_t error = alter_all(d, list, q->resources_n);
    for (r->responses_n = 0; r->responses_n < q->resources_n; r->responses_n++) {
        const struct altering *a = &list[r->responses_n];
        r->responses[r->responses_n] = (struct kp_incremental_alter_configs_response_responses){
            a->error, a->error ? a->text : SLICE_NULL, a->type, a->name};
    }
    if (q->validate_only)
        d->out->n = 0;
    return arena_failed(d->arena) ? KE_UNKNOWN_SERVER_ERROR : error;
}

int16_t decide_alter_configs(const struct decide *d, const struct kp_alter_configs_request *q,
                             struct kp_alter_configs_response *r)
{
    assert(d->out->n == 0);
    struct altering *list = ARENA_NEWS(d->arena, struct altering, q->resources_n);
    r->responses = ARENA_NEWS(d->arena, struct kp_alter_configs_response_responses, q->resources_n);
    for (int32_t i = 0; list && i < q->resources_n; i++) {
        const struct kp_alter_configs_request_resources *from = &q->resources[i];
        struct change *changes = ARENA_NEWS(d->arena, struct change, from->configs_n);
        list[i] = (struct altering){.d = d,
                                    .type = from->resource_type,
                                    .name = from->resource_name,
                                    .changes = changes,
                                    .changes_n = from->configs_n,
                                    .full = true};
        for (int32_t j = 0; changes && j < from->configs_n; j++)
            changes[j] = (struct change){from->configs[j].name, from->configs[j].value, OP_SET};
    }
    if (arena_failed(d->arena))
        return KE_UNKNOWN_SERVER_ERROR;
    int16_t error = alter_all(d, list, q->resources_n);
    for (r->responses_n = 0; r->responses_n < q->resources_n; r->responses_n++) {
        const struct altering *a = &list[r->responses_n];
        r->responses[r->responses_n] = (struct kp_alter_configs_response_responses){
            a->error, a->error ? a->text : SLICE_NULL, a->type, a->name};
    }
    if (q->validate_only)
        d->out->n = 0;
    return arena_failed(d->arena) ? KE_UNKNOWN_SERVER_ERROR : error;
}
