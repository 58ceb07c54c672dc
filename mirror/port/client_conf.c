/* What the mirror's file says to the consumer, as far as raw fetches know it. */
#include "mirror/port/client_parts.h"

#include <errno.h>
#include <stdlib.h>

#define RACK_MAX 1000

/* What the port decides itself, or has no use for: nothing changes, and nobody need be told. */
static const char *const ours[] = {"group.id",         "enable.auto.commit", "auto.offset.reset",
                                   "isolation.level",  "bootstrap.servers",  "check.crcs",
                                   "key.deserializer", "value.deserializer", "session.timeout.ms",
                                   "max.poll.records", "client.id"};

static bool number(const char *text, int64_t least, int64_t most, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < least || v > INT32_MAX)
        return false;
    *out = v < most ? v : most;
    return true;
}

static const char *rack(struct raw_port *p, const char *value)
{
    if (strlen(value) > RACK_MAX)
        return "the name is too long";
    char *copy = strdup(value);
    if (copy) {
        free(p->rack);
        p->rack = copy;
    }
    return copy ? NULL : "out of memory";
}

static const char *take(struct raw_port *p, const char *key, const char *value)
{
    int64_t n;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (strcmp(key, ours[i]) == 0)
            return NULL;
    bool answer = strcmp(key, "fetch.max.bytes") == 0, part = strcmp(key, "max.partition.fetch.bytes") == 0;
    bool wait = strcmp(key, "fetch.max.wait.ms") == 0, age = strcmp(key, "metadata.max.age.ms") == 0;
    if (strcmp(key, "client.rack") == 0)
        return rack(p, value);
    if (!answer && !part && !wait && !age)
        return "it has no such option";
    if (!number(value, wait || age ? 0 : 1, wait ? RAW_WAIT_MAX_MS : INT32_MAX, &n))
        return "this is not a number it can take";
    if (answer)
        p->answer_max = (int32_t)n;
    else if (part)
        p->part_max = (int32_t)n;
    else if (age)
        p->replica_us = n * 1000;
    else
        p->wait_ms = (int32_t)n;
    return NULL;
}

bool raw_configure(struct raw_port *p, const struct port_options *o)
{
    p->answer_max = INT32_MAX;
    p->wait_ms = RAW_WAIT_MS;
    p->replica_us = RAW_REPLICA_US;
    p->rack = strdup("");
    if (!p->rack)
        return false;
    for (size_t i = 0; i < o->properties_n; i++) {
        const char *why = take(p, o->properties[i].key, o->properties[i].value);
        if (why && o->ignored)
            o->ignored(o->arg, o->properties[i].key, why);
    }
    return true;
}
