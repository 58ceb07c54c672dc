#include "mirror/route/place.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* The cluster whose alias and a dot begin `text`, the longest such alias; *rest is what follows. */
static int cluster_prefix(const struct mirror_config *c, const char *text, const char **rest)
{
    int found = -1;
    size_t best = 0;
    for (int i = 0; i < c->clusters_n; i++) {
        size_t n = strlen(c->clusters[i].alias);
        if (n > best && strncmp(text, c->clusters[i].alias, n) == 0 && text[n] == '.' && text[n + 1]) {
            found = i;
            best = n;
            *rest = text + n + 1;
        }
    }
    return found;
}

static int flow_prefix(const struct mirror_config *c, const char *key, struct place *at, const char **rest,
                       struct err *err)
{
    const char *arrow = strstr(key, "->");
    char source[PLACE_KEY_MAX];
    snprintf(source, sizeof source, "%.*s", (int)(arrow - key), key);
    at->scope = SCOPE_FLOW;
    at->source = mirror_config_cluster(c, source);
    at->target = cluster_prefix(c, arrow + 2, rest);
    if (at->source < 0 || at->target < 0)
        return err_set(err, -E_CONFIG, "%s: names a flow between clusters that `clusters` does not list",
                       key);
    if (at->source == at->target)
        return err_set(err, -E_CONFIG, "%s: a cluster cannot be mirrored to itself", key);
    return 0;
}

int place_key(const struct mirror_config *c, const char *key, struct place *at, struct err *err)
{
    const char *rest = key;
    *at = (struct place){.scope = SCOPE_TOP, .source = -1, .target = -1};
    if (strlen(key) >= PLACE_KEY_MAX)
        return err_set(err, -E_CONFIG, "%.60s...: the key is too long", key);
    if (strstr(key, "->")) {
        int rc = flow_prefix(c, key, at, &rest, err);
        if (rc)
            return rc;
    } else {
        const char *behind = NULL;
        int cluster = cluster_prefix(c, key, &behind);
        if (cluster >= 0 && !known_key(key)) {
            at->scope = SCOPE_CLUSTER;
            at->source = cluster;
            rest = behind;
        }
    }
    known_key_parts(rest, &at->parts);
    static const struct {
        const char *old, *new;
    } renamed[] = {{"topics.blacklist", "topics.exclude"},
                   {"groups.blacklist", "groups.exclude"},
                   {"config.properties.blacklist", "config.properties.exclude"}};
    const char *client = at->parts.of == OF_CONSUMER   ? "consumer."
                         : at->parts.of == OF_PRODUCER ? "producer."
                                                       : "";
    snprintf(at->option, sizeof at->option, "%s%s", client, at->parts.key);
    for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++)
        if (strcmp(at->option, renamed[i].old) == 0) {
            at->old_name = true;
            snprintf(at->option, sizeof at->option, "%s", renamed[i].new);
        }
    return 0;
}

int place_rank(const struct place *at, int source, int target)
{
    bool consumer = at->parts.of == OF_CONSUMER, producer = at->parts.of == OF_PRODUCER;
    int rank;
    if (at->parts.of == OF_ADMIN || at->parts.of_cluster)
        return 0;
    if ((consumer && at->parts.of_target) || (producer && at->parts.of_source))
        return 0;
    if (!consumer && !producer && (at->parts.of_source || at->parts.of_target))
        return 0;
    bool client = consumer || producer, ours = strncmp(at->option, "sundog.", 7) == 0;
    switch (at->scope) {
    case SCOPE_TOP:
        if (strcmp(at->option, "enabled") == 0)
            return 0;
        rank = client ? 2 : 1;
        break;
    case SCOPE_CLUSTER:
        if (!(client || ours) || at->source != (consumer ? source : target))
            return 0;
        rank = 3;
        break;
    default:
        if (at->source != source || at->target != target)
            return 0;
        rank = client ? 5 : 4;
    }
    return rank * 2 - at->old_name;
}

bool place_speaks(const struct place *at)
{
    struct place any = *at;
    if (any.scope == SCOPE_CLUSTER)
        any.source = 0;
    if (any.scope == SCOPE_FLOW) {
        any.source = 0;
        any.target = 1;
    }
    return place_rank(&any, 0, any.scope == SCOPE_CLUSTER ? 0 : 1) > 0;
}

int place_cluster_rank(const struct place *at, int cluster)
{
    bool source = at->parts.of == OF_CONSUMER || at->parts.of_source;
    bool target = at->parts.of == OF_PRODUCER || at->parts.of_target;
    switch (at->scope) {
    case SCOPE_TOP: return at->parts.of_source || at->parts.of_target ? 0 : at->parts.of == OF_MIRROR ? 1 : 2;
    case SCOPE_CLUSTER: return at->source == cluster ? 3 : 0;
    default:
        return (source && at->source == cluster) || (target && at->target == cluster) ||
                       (!source && !target && (at->source == cluster || at->target == cluster))
                   ? 4
                   : 0;
    }
}
