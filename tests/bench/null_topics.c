/* What the null broker has: one topic that is read from memory without end or written to nowhere, and, where it plays a
 * mirror's cluster, small ones that keep what they are sent. */
#include "tests/bench/null.h"

#include "proto/kafka/batch.h"

#include <stdlib.h>
#include <string.h>

#define CANNED_BYTES     ((size_t)8 << 20)
#define CANNED_BYTES_ALL ((size_t)2 << 30) /* of all partitions */
#define ENDLESS          (INT64_C(1) << 50)

static struct null_topic *add(struct null_broker *b, struct slice name, int32_t partitions)
{
    struct null_topic *t = &b->topics[b->topics_n++];
    char *copy = malloc(name.n + 1);
    memcpy(copy, name.p, name.n);
    *t = (struct null_topic){.name = slice_of(copy, name.n), .partitions_n = partitions};
    t->partitions = calloc((size_t)partitions, sizeof *t->partitions);
    for (int32_t i = 0; i < partitions; i++)
        t->partitions[i].producer_id = -1;
    return t;
}

void null_topics_init(struct null_broker *b, const char *name, int32_t partitions)
{
    struct null_topic *t = add(b, slice_str(name), partitions);
    t->canned = b->role != NULL_TARGET;
    size_t share = CANNED_BYTES_ALL / (size_t)partitions;
    size_t most = share < CANNED_BYTES ? share : CANNED_BYTES;
    b->canned_n = most > b->batch.n ? (int)(most / b->batch.n) : 1;
}

struct null_topic *null_topic(struct null_broker *b, struct slice name)
{
    for (int i = 0; i < b->topics_n; i++)
        if (slice_eq(b->topics[i].name, name))
            return &b->topics[i];
    return b->role == NULL_ANY ? &b->topics[0] : NULL;
}

struct null_topic *null_topic_make(struct null_broker *b, struct slice name, int32_t partitions)
{
    if (b->topics_n == NULL_TOPICS_MAX || partitions < 1)
        return NULL;
    struct null_topic *t = add(b, name, partitions);
    t->keeps = true;
    return t;
}

struct null_partition *null_partition(struct null_topic *t, int32_t index)
{
    return t && index >= 0 && index < t->partitions_n ? &t->partitions[index] : NULL;
}

static void keep(struct null_partition *p, struct slice batch, int64_t records)
{
    if (p->kept_n == p->kept_room) {
        p->kept_room = p->kept_room ? 2 * p->kept_room : NULL_HEAD_BATCHES;
        p->kept = realloc(p->kept, p->kept_room * sizeof *p->kept);
    }
    uint8_t *copy = malloc(batch.n);
    memcpy(copy, batch.p, batch.n);
    batch_offset_set(copy, p->end);
    batch_leader_epoch_set(copy, 0);
    p->kept[p->kept_n++] = (struct null_batch){p->end, p->end + records, slice_of(copy, batch.n)};
}

int64_t null_append(struct null_topic *t, struct null_partition *p, struct slice batches)
{
    int64_t first = p->end;
    struct batch_header h;
    for (; batches.n && !batch_header_read(batches, &h, NULL) && batch_size(&h) <= batches.n;
         batches = slice_of(batches.p + batch_size(&h), batches.n - batch_size(&h))) {
        if (t->keeps || (!t->canned && p->kept_n < NULL_HEAD_BATCHES))
            keep(p, slice_of(batches.p, batch_size(&h)), h.last_offset_delta + 1);
        if (batch_has_producer(&h)) {
            p->producer_id = h.producer_id;
            p->producer_epoch = h.producer_epoch;
            p->sequence = batch_last_sequence(&h);
            p->timestamp = h.max_timestamp;
        }
        p->end += h.last_offset_delta + 1;
    }
    return first;
}

/* From `offset` on as if they had always been there. */
static struct slice canned(struct null_broker *b, struct null_partition *p, int64_t offset, size_t bytes)
{
    size_t each = b->batch.n, n = bytes / each;
    if (!p->canned) {
        p->canned = malloc(each * (size_t)b->canned_n);
        for (int i = 0; i < b->canned_n; i++)
            memcpy(p->canned + (size_t)i * each, b->batch.p, each);
    }
    n = n < 1 ? 1 : n < (size_t)b->canned_n ? n : (size_t)b->canned_n;
    for (size_t i = 0; i < n; i++)
        batch_offset_set(p->canned + i * each, offset + (int64_t)i * b->batch_records);
    return slice_of(p->canned, n * each);
}

/* A copy: what lies behind the head of a null topic is not there, and reads as nothing yet. */
static struct slice kept(struct null_broker *b, const struct null_partition *p, int64_t offset, size_t bytes)
{
    size_t low = 0, high = p->kept_n, n = 0;
    while (low < high) { /* the first that ends behind `offset` */
        size_t middle = (low + high) / 2;
        if (p->kept[middle].end <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    for (high = low; high < p->kept_n && (high == low || n + p->kept[high].bytes.n <= bytes); high++)
        n += p->kept[high].bytes.n;
    uint8_t *out = arena_alloc(&b->arena, n ? n : 1), *at = out;
    for (; low < high; low++) {
        memcpy(at, p->kept[low].bytes.p, p->kept[low].bytes.n);
        at += p->kept[low].bytes.n;
    }
    return slice_of(out, n);
}

struct slice null_read(struct null_broker *b, struct null_topic *t, struct null_partition *p, int64_t offset,
                       size_t bytes)
{
    return t->canned ? canned(b, p, offset, bytes) : kept(b, p, offset, bytes);
}

int64_t null_end(const struct null_topic *t, const struct null_partition *p)
{
    return t->canned && p->end == 0 ? ENDLESS : p->end;
}
