/* The second pass over the rows: constant tables for the interpreter, and the messages and APIs by key. */
#include "proto/kafka/wire.h"

#include <assert.h>

#define LATEST   KP_LATEST
#define NON_NULL KP_NON_NULL
#define NO_TAG   KP_NO_TAG
#define NEVER    KP_NEVER
#define NIL      KP_NIL

/* clang-format off */
/* Each table ends with an empty row, which fields_n does not count: a structure without members has rows too. */
#define BEGIN(owner) static const struct kp_field owner##_fields[] = {
#define END(owner) \
    {0}};          \
    static const struct kp_struct owner##_struct = { \
        .name = #owner, .size_bytes = sizeof(struct kp_##owner), .fields = owner##_fields, \
        .fields_n = sizeof owner##_fields / sizeof owner##_fields[0] - 1};
#define EMPTY(owner)
#define ROW(owner, k, e, member, first, last, null_since, tagged) \
    .name = #member, .kind = (k), .element = (e), .since = (first), .until = (last), .nullable_since = (null_since), \
    .tag = (tagged), .at = offsetof(struct kp_##owner, member)
#define FIELD(owner, k, member, since, until, null_since, tag, value) \
    {ROW(owner, KP_##k, KP_##k, member, since, until, null_since, tag), .dflt = (value)},
#define LIST(owner, k, member, since, until, null_since, tag, value) \
    {ROW(owner, KP_LIST, KP_##k, member, since, until, null_since, tag), \
     .count_at = offsetof(struct kp_##owner, member##_n), .dflt = (value)},
#define ARRAY(owner, of, member, since, until, null_since, tag, value) \
    {ROW(owner, KP_ARRAY, KP_ARRAY, member, since, until, null_since, tag), \
     .count_at = offsetof(struct kp_##owner, member##_n), .child = &of##_struct, .dflt = (value)},
#define NEST(owner, of, member, since, until, null_since, tag) \
    {ROW(owner, KP_NEST, KP_NEST, member, since, until, null_since, tag), .child = &of##_struct},
#define NEST_NULLABLE(owner, of, member, since, until, null_since, tag) \
    {ROW(owner, KP_NEST_NULLABLE, KP_NEST_NULLABLE, member, since, until, null_since, tag), .child = &of##_struct},
#include "proto/kafka/messages.def"
#include "proto/kafka/records/consumer_protocol.def"
#include "proto/kafka/records/control.def"
#include "proto/kafka/records/groups.def"
#include "proto/kafka/records/metadata.def"
#include "proto/kafka/records/transactions.def"

#define MESSAGE(of, first, last, flexible) \
    {.body = &of##_struct, .version_min = (first), .version_max = (last), .flexible_since = (flexible)}

#define API(key, name, text, first, last, flexible) \
    const struct kp_message kp_##name##_request_message = MESSAGE(name##_request, first, last, flexible); \
    const struct kp_message kp_##name##_response_message = MESSAGE(name##_response, first, last, flexible);
#include "proto/kafka/apis.def"
#undef API
#define METADATA_RECORD(type, name, text, first, last, flexible) \
    const struct kp_message kp_##name##_message = MESSAGE(name, first, last, flexible);
#define RECORD(name, text, first, last, flexible) \
    const struct kp_message kp_##name##_message = MESSAGE(name, first, last, flexible);
#include "proto/kafka/records.def"
#undef METADATA_RECORD
#undef RECORD

static const struct kp_api apis[] = {
#define API(number, of, text, first, last, flexible) \
    {.key = (number), .name = (text), .request = MESSAGE(of##_request, first, last, flexible), \
     .response = MESSAGE(of##_response, first, last, flexible)},
#include "proto/kafka/apis.def"
#undef API
};

/* Position in apis[] by key, and how far the keys go. */
enum {
#define API(key, name, text, first, last, flexible) position_##name,
#include "proto/kafka/apis.def"
#undef API
    apis_n
};

const struct kp_api *kp_api_find(int16_t key)
{
    switch (key) {
#define API(number, name, text, first, last, flexible) \
    case (number): return &apis[position_##name];
#include "proto/kafka/apis.def"
#undef API
    default: return NULL;
    }
}

const struct kp_message *kp_metadata_record_find(uint32_t type, const char **name)
{
    const char *found = NULL;
    const struct kp_message *m = NULL;
    switch (type) {
#define METADATA_RECORD(number, of, text, first, last, flexible) \
    case (number): m = &kp_##of##_message; found = (text); break;
#define RECORD(of, text, first, last, flexible)
#include "proto/kafka/records.def"
#undef METADATA_RECORD
#undef RECORD
    default: break;
    }
    if (name)
        *name = found;
    return m;
}
/* clang-format on */

const struct kp_api *kp_api_table(size_t *n)
{
    static_assert(sizeof apis / sizeof apis[0] == apis_n, "one entry per row");
    *n = apis_n;
    return apis;
}
