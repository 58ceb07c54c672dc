#include "mirror/port/rdkafka_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/world/net_posix.h"

/* Java's names for what librdkafka calls otherwise. */
static const struct {
    const char *java, *library;
} renamed[] = {
    {"fetch.max.wait.ms", "fetch.wait.max.ms"},
    {"receive.buffer.bytes", "socket.receive.buffer.bytes"},
    {"send.buffer.bytes", "socket.send.buffer.bytes"},
    {"request.timeout.ms", "socket.timeout.ms"},
    {"metadata.max.age.ms", "topic.metadata.refresh.interval.ms"},
};

/* What the port decides itself. */
static const char *const ours[] = {"group.id",
                                   "group.instance.id",
                                   "enable.auto.commit",
                                   "enable.auto.offset.store",
                                   "auto.offset.reset",
                                   "isolation.level",
                                   "bootstrap.servers",
                                   "metadata.broker.list",
                                   "enable.partition.eof",
                                   "check.crcs",
                                   "queued.max.messages.kbytes",
                                   "queued.min.messages",
                                   "key.deserializer",
                                   "value.deserializer",
                                   "partition.assignment.strategy",
                                   "session.timeout.ms",
                                   "heartbeat.interval.ms",
                                   "max.poll.records",
                                   "max.poll.interval.ms",
                                   "allow.auto.create.topics"};

int rdk_set(rd_kafka_conf_t *c, const char *key, const char *value, struct err *err)
{
    char text[256];
    if (value && rd_kafka_conf_set(c, key, value, text, sizeof text) != RD_KAFKA_CONF_OK)
        return err_set(err, -E_CONFIG, "librdkafka's %s: %s", key, text);
    return 0;
}

static void pass_on(rd_kafka_conf_t *c, const struct port_options *o)
{
    for (size_t i = 0; i < o->properties_n; i++) {
        const char *key = o->properties[i].key, *why = NULL;
        char text[256];
        for (size_t k = 0; k < sizeof ours / sizeof *ours; k++)
            if (strcmp(key, ours[k]) == 0)
                why = "the mirror sets it itself";
        for (size_t k = 0; k < sizeof renamed / sizeof *renamed; k++)
            if (strcmp(key, renamed[k].java) == 0)
                key = renamed[k].library;
        rd_kafka_conf_res_t rc =
            why ? RD_KAFKA_CONF_OK : rd_kafka_conf_set(c, key, o->properties[i].value, text, sizeof text);
        if (rc != RD_KAFKA_CONF_OK)
            why = rc == RD_KAFKA_CONF_UNKNOWN ? "librdkafka does not have it" : text;
        if (why && o->ignored)
            o->ignored(o->arg, o->properties[i].key, why);
    }
}

static int64_t number_of(rd_kafka_conf_t *c, const char *key)
{
    char text[32];
    size_t n = sizeof text;
    if (rd_kafka_conf_get(c, key, text, &n) != RD_KAFKA_CONF_OK)
        return 0;
    return strtoll(text, NULL, 10);
}

static int set_number(rd_kafka_conf_t *c, const char *key, int64_t value, struct err *err)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    return rdk_set(c, key, text, err);
}

/* librdkafka refuses a consumer whose fetch.max.bytes is below its message.max.bytes or not well below
 * receive.message.max.bytes; Kafka's consumer knows neither of the two. They follow what the file asks for. */
static int fit_sizes(rd_kafka_conf_t *c, struct err *err)
{
    enum { MESSAGE_MIN = 1000, ROOM = 512 };
    int64_t fetch = number_of(c, "fetch.max.bytes");
    int rc = 0;
    if (fetch < MESSAGE_MIN)
        rc = set_number(c, "fetch.max.bytes", fetch = MESSAGE_MIN, err);
    if (!rc && fetch < number_of(c, "message.max.bytes"))
        rc = set_number(c, "message.max.bytes", fetch, err);
    if (!rc && fetch + ROOM > number_of(c, "receive.message.max.bytes"))
        rc = set_number(c, "receive.message.max.bytes", fetch + ROOM, err);
    return rc;
}

/* It refuses a first wait that is longer than the longest; Kafka's consumer waits that long each time, then. */
static int fit_backoff(rd_kafka_conf_t *c, struct err *err)
{
    int64_t first = number_of(c, "reconnect.backoff.ms");
    return first > number_of(c, "reconnect.backoff.max.ms")
               ? set_number(c, "reconnect.backoff.max.ms", first, err)
               : 0;
}

static int open_socket(int domain, int type, int protocol, void *arg)
{
    (void)arg;
    return net_posix_socket(domain, type, protocol);
}

int rdk_conf(const struct port_options *o, rd_kafka_conf_t **out, struct err *err)
{
    enum { KBYTES_MIN = 1024, KBYTES_MAX = 2097151 };
    rd_kafka_conf_t *c = rd_kafka_conf_new();
    char kbytes[32], group[128];
    size_t bytes = o->memory_max_bytes ? o->memory_max_bytes : RDK_QUEUE_BYTES;
    size_t kb = bytes / 1024 < KBYTES_MIN   ? KBYTES_MIN
                : bytes / 1024 > KBYTES_MAX ? KBYTES_MAX
                                            : bytes / 1024;
    snprintf(kbytes, sizeof kbytes, "%zu", kb);
    /* assign() needs a group id; nothing is ever committed under it. */
    snprintf(group, sizeof group, "sundog-mirror.%.100s", o->client_id ? o->client_id : "port");
    /* One answer is in memory whole, whatever the queue has room for. */
    int64_t answer = (int64_t)kb * 1024 / 4;
    int rc = answer < number_of(c, "fetch.max.bytes") ? set_number(c, "fetch.max.bytes", answer, err) : 0;
    /* A line that is cut without a word: noticed soon, and its end too. */
    rd_kafka_conf_set_socket_cb(c, open_socket);
    (void)rd_kafka_conf_set(c, "socket.connection.setup.timeout.ms", "10000", NULL,
                            0); /* KIP-601's, from 1.7 on */
    rc = rc ? rc : rdk_set(c, "topic.metadata.refresh.interval.ms", "10000", err);
    rc = rc ? rc : rdk_set(c, "reconnect.backoff.max.ms", "2000", err);
    rc = rc ? rc : rdk_set(c, "log_level", "2", err); /* what matters comes as events */
    pass_on(c, o);
    rc = rc ? rc : fit_sizes(c, err);
    rc = rc ? rc : fit_backoff(c, err);
    rc = rc ? rc : rdk_set(c, "bootstrap.servers", o->bootstrap, err);
    rc = rc ? rc : rdk_set(c, "client.id", o->client_id ? o->client_id : "sundog-mirror", err);
    rc = rc ? rc : rdk_set(c, "group.id", group, err);
    rc = rc ? rc : rdk_set(c, "enable.auto.commit", "false", err);
    rc = rc ? rc : rdk_set(c, "enable.auto.offset.store", "false", err);
    rc = rc ? rc : rdk_set(c, "auto.offset.reset", "error", err); /* loss must be loud (DESIGN.md §4) */
    rc = rc ? rc : rdk_set(c, "check.crcs", "true", err);
    rc = rc ? rc : rdk_set(c, "enable.partition.eof", "true", err);
    rc = rc ? rc
            : rdk_set(c, "isolation.level", o->read_uncommitted ? "read_uncommitted" : "read_committed", err);
    /* The library counts values only; small messages are bounded by their number. */
    rc = rc ? rc : set_number(c, "queued.min.messages", (int64_t)(kb * 1024 / RDK_MESSAGE_BYTES), err);
    rc = rc ? rc : rdk_set(c, "queued.max.messages.kbytes", kbytes, err);
    /* From 2.3 on the wait at a full queue has a name; before, rdkafka_kick.c shortens it. */
    (void)rd_kafka_conf_set(c, "fetch.queue.backoff.ms", "5", NULL, 0);
    rc = rc ? rc : rdk_set(c, "allow.auto.create.topics", "false", err);
    rc = rc ? rc : rdk_conf_security(c, o->security, err);
    if (rc) {
        rd_kafka_conf_destroy(c);
        return rc;
    }
    *out = c;
    return 0;
}
