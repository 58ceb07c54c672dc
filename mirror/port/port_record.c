/* Which of the two reads records: librdkafka, wherever it can. */
#include "base/runtime/log.h"
#include "mirror/port/port.h"
#include "proto/client/security.h"

#include <librdkafka/rdkafka.h>

/* Before 2.6.1 its SCRAM repeats the client's nonce, which Apache Kafka refuses since 3.7.2 (CVE-2024-56128). */
#define SCRAM_MENDED 0x020601ff

static bool scram(const struct client_security *s)
{
    return s && (s->mechanism == SASL_SCRAM_SHA_256 || s->mechanism == SASL_SCRAM_SHA_512);
}

int port_record_create(const struct port_options *o, struct port **out, struct err *err)
{
    if (!scram(o->security) || rd_kafka_version() >= SCRAM_MENDED)
        return port_rdkafka_create(o, out, err);
    log_info("mirror.port",
             "%s: records are read by our own client: the SCRAM of librdkafka %s is refused by Apache Kafka",
             o->client_id ? o->client_id : "a flow", rd_kafka_version_str());
    return port_client_create(o, out, err);
}
