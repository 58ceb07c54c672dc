/* The wire protocol as rows: every message of apis/ and records/ as a C struct and a constant table, and one
 * interpreter that decodes, measures, encodes and prints any of them (STYLE.md §4 of the design; KIP-482 for flexible
 * versions).
 *
 * Names: API "ListOffsets" gives `struct kp_list_offsets_request` and `struct kp_list_offsets_response`; a nested
 * structure is named message_member (`struct kp_list_offsets_request_topics`), with the whole path where two would be
 * alike. Members have Kafka's names in snake case. By row kind:
 *   FIELD  I8…I64, U16, U32, F64, BOOL   int8_t … double, bool
 *          UUID                          struct uuid
 *          STR, BYTES                    struct slice (p == NULL: null)
 *          RECORDS                       struct kp_records
 *   LIST   of a FIELD kind               `T *member; int32_t member_n;`      member_n == -1: null
 *   ARRAY  of a structure                `struct kp_… *member; int32_t member_n;`
 *   NEST   a structure                   `struct kp_… member;`
 *   NEST_NULLABLE                        `struct kp_… *member;`              NULL: null
 * A member outside the version at hand is neither read nor written; decoding gives it its default.
 *
 * Decoded slices point into the input, arrays lie in the arena: both must outlive the struct. Counts are checked
 * against the bytes left before anything is allocated. No state, any thread. */
#ifndef SUNDOG_PROTO_KAFKA_WIRE_H
#define SUNDOG_PROTO_KAFKA_WIRE_H

#include "base/core/arena.h"
#include "base/core/buf.h"
#include "base/core/err.h"
#include "base/core/slice.h"
#include "base/core/uuid.h"

#include <limits.h>

struct disk_file;

/* A piece of a log file that goes out by sendfile. The file is held until the response has left (see broker/api). */
struct kp_segment {
    struct disk_file *file;
    int64_t position;
    size_t size_bytes;
};

/* Record batches: bytes, or outbound also file segments (then `bytes` is null). */
struct kp_records {
    struct slice bytes;
    const struct kp_segment *segments;
    int32_t segments_n;
};

enum kp_kind {
    KP_I8, KP_I16, KP_U16, KP_I32, KP_U32, KP_I64, KP_F64, KP_BOOL, KP_UUID, KP_STR, KP_BYTES, KP_RECORDS,
    KP_LIST,          /* of `element` */
    KP_ARRAY,         /* of `child` */
    KP_NEST,          /* one `child` */
    KP_NEST_NULLABLE, /* one `child` behind a pointer */
};

#define KP_LATEST   INT16_MAX
#define KP_NON_NULL INT16_MAX
#define KP_NO_TAG   (-1)
#define KP_NEVER    INT16_MAX
#define KP_NIL      INT64_MIN /* rows write NIL */

struct kp_struct;

/* One row. */
struct kp_field {
    const char *name;
    enum kp_kind kind, element;
    int16_t since, until;     /* versions in which it is on the wire */
    int16_t nullable_since;   /* KP_NON_NULL: never */
    int16_t tag;              /* KP_NO_TAG: in line */
    int64_t dflt;             /* of numbers; strings, lists and arrays: KP_NIL for null, else empty; the others: null */
    size_t at, count_at;      /* offsetof the member, and of member_n */
    const struct kp_struct *child;
};

struct kp_struct {
    const char *name;
    size_t size_bytes;
    const struct kp_field *fields;
    size_t fields_n;
};

/* A message: a structure with its versions. Records have key and API -1. */
struct kp_message {
    const struct kp_struct *body;
    int16_t version_min, version_max, flexible_since;
};

struct kp_api {
    int16_t key;
    const char *name; /* "ListOffsets" */
    struct kp_message request, response;
};

/* The structures. */
#define KP_CTYPE_I8      int8_t
#define KP_CTYPE_I16     int16_t
#define KP_CTYPE_U16     uint16_t
#define KP_CTYPE_I32     int32_t
#define KP_CTYPE_U32     uint32_t
#define KP_CTYPE_I64     int64_t
#define KP_CTYPE_F64     double
#define KP_CTYPE_BOOL    bool
#define KP_CTYPE_UUID    struct uuid
#define KP_CTYPE_STR     struct slice
#define KP_CTYPE_BYTES   struct slice
#define KP_CTYPE_RECORDS struct kp_records

#define BEGIN(owner) struct kp_##owner {
#define END(owner)   };
#define EMPTY(owner) uint8_t unused;
#define FIELD(owner, kind, member, since, until, null_since, tag, dflt)   KP_CTYPE_##kind member;
#define LIST(owner, kind, member, since, until, null_since, tag, dflt)      KP_CTYPE_##kind *member; int32_t member##_n;
#define ARRAY(owner, of, member, since, until, null_since, tag, dflt)       struct kp_##of *member; int32_t member##_n;
#define NEST(owner, of, member, since, until, null_since, tag)            struct kp_##of member;
#define NEST_NULLABLE(owner, of, member, since, until, null_since, tag)   struct kp_##of *member;
#include "proto/kafka/messages.def"
#include "proto/kafka/records/consumer_protocol.def"
#include "proto/kafka/records/control.def"
#include "proto/kafka/records/groups.def"
#include "proto/kafka/records/metadata.def"
#include "proto/kafka/records/transactions.def"
#undef BEGIN
#undef END
#undef EMPTY
#undef FIELD
#undef LIST
#undef ARRAY
#undef NEST
#undef NEST_NULLABLE

/* The messages: kp_produce_request_message, kp_offset_commit_value_message, … */
#define API(key, name, text, first, last, flexible) \
    extern const struct kp_message kp_##name##_request_message, kp_##name##_response_message;
#include "proto/kafka/apis.def"
#undef API
#define METADATA_RECORD(type, name, text, first, last, flexible) extern const struct kp_message kp_##name##_message;
#define RECORD(name, text, first, last, flexible)                extern const struct kp_message kp_##name##_message;
#include "proto/kafka/records.def"
#undef METADATA_RECORD
#undef RECORD

/* API keys: KP_API_PRODUCE is written kp_key_produce. */
enum kp_api_key {
#define API(key, name, text, first, last, flexible) kp_key_##name = (key),
#include "proto/kafka/apis.def"
#undef API
};
/* Metadata record types (KIP-631): kp_type_topic_record. */
enum kp_metadata_type {
#define METADATA_RECORD(type, name, text, first, last, flexible) kp_type_##name = (type),
#define RECORD(name, text, first, last, flexible)
#include "proto/kafka/records.def"
#undef METADATA_RECORD
#undef RECORD
};

/* NULL for a key without rows. */
const struct kp_api *kp_api_find(int16_t key);
/* All of them, in key order. */
const struct kp_api *kp_api_table(size_t *n);
/* The message of a metadata record type, NULL if unknown; `name` may be NULL. */
const struct kp_message *kp_metadata_record_find(uint32_t type, const char **name);

/* Sets every member to its default (null, empty, 0 or the row's number). */
void kp_init(const struct kp_message *m, void *body);

/* Decodes one body from the front of `in` into `body` (the message's struct). `used` (may be NULL) gets the bytes
 * taken; when NULL, bytes left over are an error. 0, -E_VERSION, -E_TRUNCATED, -E_INVALID, -E_LIMIT (arena). */
int kp_decode(const struct kp_message *m, int16_t version, struct slice in, struct arena *arena, void *body,
              size_t *used, struct err *err);
/* The exact encoded size, file segments included; negative on what cannot be encoded (a null where none may be). */
int64_t kp_size(const struct kp_message *m, int16_t version, const void *body);
/* Appends the encoding to `out`; file segments are not allowed here. 0, -E_INVALID, -E_LIMIT. */
int kp_encode(const struct kp_message *m, int16_t version, const void *body, struct buf *out);

/* An encoding in pieces for the send queue: memory, or a file segment. */
struct kp_piece {
    struct slice bytes;        /* when segment.file is NULL; lies in the arena or in the body's own slices */
    struct kp_segment segment;
};
struct kp_pieces {
    struct kp_piece *v; /* in the arena */
    size_t n;
    size_t size_bytes; /* all of it */
};
/* As kp_encode, but records (bytes or segments) are referred to, not copied: the body's slices and segments must stay
 * until the pieces have been sent. `reserve` bytes are left in front of the first piece for a frame header. */
int kp_encode_pieces(const struct kp_message *m, int16_t version, const void *body, size_t reserve,
                     struct arena *arena, struct kp_pieces *out);

/* Request and response headers (KIP-482): v2 and v1 from an API's first flexible version; ApiVersions' response header
 * is always v0. */
struct kp_request_header {
    int16_t api_key, api_version;
    int32_t correlation_id;
    struct slice client_id; /* may be null */
};
/* Reads the header from the front of a frame (size prefix already taken off). -E_TRUNCATED, -E_INVALID, and -E_VERSION
 * when key or version have no rows: then api_key, api_version and correlation_id are set all the same. */
int kp_request_header_decode(struct slice frame, struct kp_request_header *out, size_t *used, struct err *err);
/* Appends size prefix, header and body. */
int kp_request_frame(const struct kp_api *api, const struct kp_request_header *h, const void *body, struct buf *out);
int kp_response_frame(const struct kp_api *api, int16_t version, int32_t correlation_id, const void *body,
                      struct buf *out);
/* The response as pieces, size prefix and header in front. */
int kp_response_pieces(const struct kp_api *api, int16_t version, int32_t correlation_id, const void *body,
                       struct arena *arena, struct kp_pieces *out);
/* Reads a response's header (size prefix already off); `used` bytes precede the body. */
int kp_response_header_decode(const struct kp_api *api, int16_t version, struct slice frame, int32_t *correlation_id,
                              size_t *used);

/* Prints a decoded body as indented text, one member a line; unprintable bytes are escaped. */
void kp_print(const struct kp_message *m, int16_t version, const void *body, struct buf *out);

#endif
