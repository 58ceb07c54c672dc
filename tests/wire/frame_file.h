/* Files of encoded messages that Sundog and Kafka's classes write for each other (tests/wire/java/WireFrames.java):
 * int32 length of what follows, uint8 what, int16 API key or -1, int16 version, uint8 length and name, the message. */
#ifndef SUNDOG_TESTS_WIRE_FRAME_FILE_H
#define SUNDOG_TESTS_WIRE_FRAME_FILE_H

#include "proto/kafka/wire.h"

enum frame_what { FRAME_REQUEST, FRAME_RESPONSE, FRAME_RECORD };

struct frame_entry {
    enum frame_what what;
    int16_t key, version;
    char name[64];
    struct slice bytes;
    const struct kp_message *message; /* NULL: we have no rows for it */
};

/* The whole file; `p` is NULL on failure. Free with free(). */
struct slice file_read(const char *path);
/* Takes an entry off the front of `rest`: 1, 0 at the end, -1 malformed. */
int frame_entry_next(struct slice *rest, struct frame_entry *out);
void frame_entry_put(struct buf *out, const struct frame_entry *e);
/* Decodes, encodes, compares. 0, or -1 with the reason. */
int frame_entry_check(const struct frame_entry *e, char *why, size_t why_size);

#endif
