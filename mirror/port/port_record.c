/* Which of the two reads records: librdkafka, wherever it can. */
#include "base/runtime/log.h"
#include "mirror/port/port.h"
#include "proto/client/security.h"

#include <librdkafka/rdkafka.h>
#include <string.h>

/* Before 2.6.1 its SCRAM repeats the client's nonce, which Apache Kafka refuses since 3.7.2 (CVE-2024-56128). */
#define SCRAM_MENDED 0x020601ff

static bool scram(const struct client_security *s)
{
    return s && (s->mechanism == SASL_SCRAM_SHA_256 || s->mechanism == SASL_SCRAM_SHA_512);
}

/* With a rack of ours the library (2.0.2) reads from the replica that the leader names, and stays with it when it
 * dies ("not migrating away from preferred replica"): longer than the half minute that was waited for. Of later ones
 * it is not known. */
static bool racked(const struct port_options *o)
{
    for (size_t i = 0; i < o->properties_n; i++)
        if (strcmp(o->properties[i].key, "client.rack") == 0 && o->properties[i].value[0])
            return true;
    return false;
}

int port_record_create(const struct port_options *o, struct port **out, struct err *err)
{
    bool refused = scram(o->security) && rd_kafka_version() < SCRAM_MENDED;
    if (!refused && !racked(o))
        return port_rdkafka_create(o, out, err);
    log_info("mirror.port", "%s: records are read by our own client: %s librdkafka %s %s",
             o->client_id ? o->client_id : "a flow", refused ? "the SCRAM of" : "with client.rack",
             rd_kafka_version_str(),
             refused ? "is refused by Apache Kafka" : "stays with a replica that is away");
    return port_client_create(o, out, err);
}
