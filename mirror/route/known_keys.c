#include "mirror/route/known_keys.h"

#include <assert.h>

#include "base/runtime/options.h"
#include "mirror/route/config.h"

static const struct {
    const char *key;
    unsigned of;
} keys[] = {
#define KNOWN_KEY(key, of) {key, of},
#define KNOWN_FAMILY(prefix)
#include "mirror/route/known_keys.def"
#undef KNOWN_KEY
#undef KNOWN_FAMILY
};

static const char *const families[] = {
#define KNOWN_KEY(key, of)
#define KNOWN_FAMILY(prefix) prefix,
#include "mirror/route/known_keys.def"
#undef KNOWN_KEY
#undef KNOWN_FAMILY
};

#define COUNT(a) (sizeof(a) / sizeof *(a))

unsigned known_key(const char *key)
{
    for (size_t i = 0; i < COUNT(keys); i++)
        if (strcmp(keys[i].key, key) == 0)
            return keys[i].of;
    for (size_t i = 0; i < COUNT(families); i++)
        if (strncmp(key, families[i], strlen(families[i])) == 0 && key[strlen(families[i])])
            return OF_MIRROR;
    return 0;
}

static bool take(const char **key, const char *prefix)
{
    size_t n = strlen(prefix);
    if (strncmp(*key, prefix, n) != 0 || !(*key)[n])
        return false;
    *key += n;
    return true;
}

void known_key_parts(const char *key, struct known_parts *out)
{
    *out = (struct known_parts){.of = OF_MIRROR};
    const char *at = key;
    /* source.cluster.alias and target.admin.timeout.ms are keys of their own. */
    if (!known_key(key)) {
        if (take(&at, "source.cluster."))
            out->of_source = out->of_cluster = true;
        else if (take(&at, "target.cluster."))
            out->of_target = out->of_cluster = true;
        else if (take(&at, "source."))
            out->of_source = true;
        else if (take(&at, "target."))
            out->of_target = true;
    }
    if (take(&at, "consumer."))
        out->of = OF_CONSUMER;
    else if (take(&at, "producer."))
        out->of = OF_PRODUCER;
    else if (!known_key(at) && take(&at, "admin."))
        out->of = OF_ADMIN;
    /* consumer.poll.timeout.ms is MM2's own */
    if (out->of == OF_CONSUMER && at == key + strlen("consumer.") && strcmp(at, "poll.timeout.ms") == 0) {
        *out = (struct known_parts){.of = OF_MIRROR, .key = key};
        return;
    }
    if (out->of != OF_MIRROR)
        take(&at, "override.");
    out->key = at;
    assert(*out->key);
}

/* Levenshtein's distance, cut off at the rows' length. */
#define NEAREST_KEY_MAX 96

static size_t distance(const char *a, size_t an, const char *b, size_t bn)
{
    size_t row[NEAREST_KEY_MAX + 1];
    assert(an <= NEAREST_KEY_MAX && bn <= NEAREST_KEY_MAX);
    for (size_t j = 0; j <= bn; j++)
        row[j] = j;
    for (size_t i = 1; i <= an; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= bn; j++) {
            size_t replace = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            size_t best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = replace < best ? replace : best;
        }
    }
    return row[bn];
}

static void nearer(const char *key, size_t n, const char *candidate, size_t *best, const char **found)
{
    size_t cn = strlen(candidate);
    if (cn > NEAREST_KEY_MAX)
        return;
    size_t d = distance(key, n, candidate, cn);
    if (d < *best) {
        *best = d;
        *found = candidate;
    }
}

const char *known_key_nearest(const char *key)
{
    size_t n = strlen(key);
    if (n > NEAREST_KEY_MAX)
        return NULL;
    size_t best = n / 3 + 1;
    const char *found = NULL;
    for (size_t i = 0; i < flow_option_table.n; i++)
        nearer(key, n, flow_option_table.rows[i].key, &best, &found);
    for (size_t i = 0; i < COUNT(keys); i++)
        nearer(key, n, keys[i].key, &best, &found);
    return found;
}
