#include "proto/kafka/errors.h"

#include "base/core/err.h"

const char *kafka_error_name(int16_t code)
{
    switch (code) {
#define KAFKA_ERROR(number, name, retry)                                                                     \
    case number:                                                                                             \
        return #name;
#include "proto/kafka/errors.def"
#undef KAFKA_ERROR
    default: return "UNKNOWN";
    }
}

bool kafka_error_retriable(int16_t code)
{
    enum { FINAL, RETRIABLE };
    switch (code) {
#define KAFKA_ERROR(number, name, retry)                                                                     \
    case number:                                                                                             \
        return (retry) == RETRIABLE;
#include "proto/kafka/errors.def"
#undef KAFKA_ERROR
    default: return false;
    }
}

int16_t kafka_error_of(int code)
{
    switch (-code) {
    case 0: return KE_NONE;
#define ERROR(name, kafka, text)                                                                             \
    case E_##name:                                                                                           \
        return (kafka);
#include "base/core/errors.def"
#undef ERROR
    default: return KE_UNKNOWN_SERVER_ERROR;
    }
}
