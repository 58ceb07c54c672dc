/* Kafka's error codes as an enum (KE_…), their names and whether a client may try again. */
#ifndef SUNDOG_PROTO_KAFKA_ERRORS_H
#define SUNDOG_PROTO_KAFKA_ERRORS_H

#include <stdbool.h>
#include <stdint.h>

enum kafka_error {
#define KAFKA_ERROR(code, name, retry) KE_##name = (code),
#include "proto/kafka/errors.def"
#undef KAFKA_ERROR
};

/* "NOT_LEADER_OR_FOLLOWER"; "UNKNOWN" for a code that is not in the table. */
const char *kafka_error_name(int16_t code);
bool kafka_error_retriable(int16_t code);
/* The answer a client gets for our own -E_… code (errors.def of base/core). */
int16_t kafka_error_of(int code);

#endif
