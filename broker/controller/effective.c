#include "broker/controller/effective.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int32_t effective_broker_dynamic(const struct config_view *v, struct slice key, struct config_value out[2])
{
    char id[16];
    int32_t n = 0;
    snprintf(id, sizeof id, "%" PRId32, v->node_id);
    struct slice value = image_config_value(image_config(v->img, IMAGE_CONFIG_BROKER, slice_str(id)), key);
    if (!slice_is_null(value))
        out[n++] = (struct config_value){key, value, CONFIG_SOURCE_DYNAMIC_BROKER};
    value = image_config_value(image_config(v->img, IMAGE_CONFIG_BROKER, SLICE_LIT("")), key);
    if (!slice_is_null(value))
        out[n++] = (struct config_value){key, value, CONFIG_SOURCE_DYNAMIC_CLUSTER};
    return n;
}

/* "168" hours as the topic's milliseconds; values that are negative mean "no limit" in every unit. */
static struct slice scale(struct slice value, int64_t factor, struct arena *arena)
{
    if (factor == 1)
        return value;
    assert(factor > 0);
    char text[32];
    int64_t n = strtoll(slice_cstr(value, text, sizeof text), NULL, 10);
    if (n < 0)
        return value;
    return arena_printf(arena, "%" PRId64, n > INT64_MAX / factor ? INT64_MAX : n * factor);
}

static int32_t add_static(const struct config_view *v, const struct topic_config_synonym *s,
                          struct arena *arena, struct config_value *out, enum config_source source)
{
    struct slice value;
    bool is_default;
    if (!v->statics || !v->statics->get(v->statics->arg, s->key, arena, &value, &is_default) ||
        slice_is_null(value) || is_default != (source == CONFIG_SOURCE_DEFAULT))
        return 0;
    if (is_default && s->factor != 1) /* hours: shown as the topic's own default instead, in its unit */
        return 0;
    *out = (struct config_value){s->key, scale(value, s->factor, arena), source};
    return 1;
}

int32_t effective_topic_config(const struct config_view *v, const struct image_config *own,
                               const struct topic_config_row *row, struct arena *arena,
                               struct config_value out[CONFIG_SYNONYMS_MAX])
{
    struct topic_config_synonym s;
    int32_t n = 0;
    struct slice value = image_config_value(own, slice_str(row->key));
    if (!slice_is_null(value))
        out[n++] = (struct config_value){slice_str(row->key), value, CONFIG_SOURCE_TOPIC};
    for (const char *rest = row->broker_keys; topic_config_synonym_next(&rest, &s);) {
        if (s.factor == 1 && n + 2 <= CONFIG_SYNONYMS_MAX)
            n += effective_broker_dynamic(v, s.key, &out[n]);
    }
    static const enum config_source sources[] = {CONFIG_SOURCE_STATIC, CONFIG_SOURCE_DEFAULT};
    for (int i = 0; i < 2; i++) {
        for (const char *rest = row->broker_keys;
             topic_config_synonym_next(&rest, &s) && n < CONFIG_SYNONYMS_MAX - 1;)
            n += add_static(v, &s, arena, &out[n], sources[i]);
    }
    assert(n < CONFIG_SYNONYMS_MAX);
    if (n == 0 || out[n - 1].source != CONFIG_SOURCE_DEFAULT)
        out[n++] = (struct config_value){slice_str(row->key), slice_str(row->value), CONFIG_SOURCE_DEFAULT};
    assert(n >= 1);
    assert(n <= CONFIG_SYNONYMS_MAX);
    return n;
}

static int64_t lag_ms(const struct config_view *v, struct slice value, const char *key, struct arena *arena)
{
    struct config_value all[CONFIG_SYNONYMS_MAX];
    char text[32];
    if (slice_is_null(value)) {
        effective_topic_config(v, NULL, topic_config_find(slice_str(key)), arena, all);
        value = all[0].value;
    }
    return strtoll(slice_cstr(value, text, sizeof text), NULL, 10);
}

struct slice effective_lag_conflict(const struct config_view *v,
                                    struct slice (*own)(const void *arg, struct slice key), const void *arg,
                                    struct arena *arena)
{
    static const char min_key[] = "min.compaction.lag.ms", max_key[] = "max.compaction.lag.ms";
    struct slice own_min = own(arg, slice_str(min_key)), own_max = own(arg, slice_str(max_key));
    if (slice_is_null(own_min) && slice_is_null(own_max))
        return SLICE_NULL; /* the broker's own business */
    int64_t min = lag_ms(v, own_min, min_key, arena), max = lag_ms(v, own_max, max_key, arena);
    if (min <= max)
        return SLICE_NULL;
    return arena_printf(arena, "conflict topic config setting %s (%" PRId64 ") > %s (%" PRId64 ")", min_key,
                        min, max_key, max);
}
