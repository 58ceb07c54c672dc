#include "broker/group/offsets.h"

#include "base/core/err.h"
#include "base/core/hash.h"

#include <assert.h>
#include <stdlib.h>

struct offset_entry {
    UT_hash_handle hh;
    struct offset_topic *topic;
    int32_t partition;
    struct offset *at;     /* NULL: none */
    int64_t record_offset; /* of the record that decided `at`; -1: none yet */
    unsigned pending;
};

struct offset_topic {
    UT_hash_handle hh;
    struct offset_entry *entries;
    size_t name_n;
    uint8_t name[];
};

static size_t offset_bytes(const struct offset *at)
{
    return at ? sizeof *at + at->metadata.n : 0;
}

static struct slice topic_name(const struct offset_topic *t)
{
    return slice_of(t->name, t->name_n);
}

void offsets_init(struct offsets *o)
{
    *o = (struct offsets){0};
}

static struct offset_topic *topic_find(const struct offsets *o, struct slice name)
{
    struct offset_topic *t = NULL;
    if (name.n)
        HASH_FIND(hh, o->topics, name.p, name.n, t);
    return t;
}

static struct offset_entry *entry_find(const struct offset_topic *t, int32_t partition)
{
    struct offset_entry *e = NULL;
    if (t)
        HASH_FIND(hh, t->entries, &partition, sizeof partition, e);
    return e;
}

static struct offset_topic *topic_add(struct offsets *o, struct slice name)
{
    assert(name.n > 0);
    assert(!topic_find(o, name));
    struct offset_topic *t = calloc(1, sizeof *t + name.n);
    if (!t)
        return NULL;
    t->name_n = name.n;
    memcpy(t->name, name.p, name.n);
    HASH_ADD_KEYPTR(hh, o->topics, t->name, t->name_n, t);
    if (!HASH_ADDED(t)) {
        free(t);
        return NULL;
    }
    o->bytes += sizeof *t + name.n;
    return t;
}

static struct offset_entry *entry_add(struct offsets *o, struct offset_topic *t, int32_t partition)
{
    struct offset_entry *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->topic = t;
    e->partition = partition;
    e->record_offset = -1;
    HASH_ADD(hh, t->entries, partition, sizeof partition, e);
    if (!HASH_ADDED(e)) {
        free(e);
        return NULL;
    }
    o->bytes += sizeof *e;
    o->entries_n++;
    return e;
}

static void topic_drop_if_empty(struct offsets *o, struct offset_topic *t)
{
    if (t->entries)
        return;
    assert(o->bytes >= sizeof *t + t->name_n);
    HASH_DEL(o->topics, t);
    o->bytes -= sizeof *t + t->name_n;
    free(t);
}

static void entry_drop_if_empty(struct offsets *o, struct offset_entry *e)
{
    struct offset_topic *t = e->topic;
    if (e->at || e->pending)
        return;
    assert(o->entries_n > 0);
    assert(o->bytes >= sizeof *e);
    HASH_DEL(t->entries, e);
    o->bytes -= sizeof *e;
    o->entries_n--;
    free(e);
    topic_drop_if_empty(o, t);
}

void offsets_fini(struct offsets *o)
{
    struct offset_topic *t, *t_next;
    HASH_ITER (hh, o->topics, t, t_next) {
        struct offset_entry *e, *e_next;
        HASH_ITER (hh, t->entries, e, e_next) {
            assert(e->pending == 0);
            o->bytes -= offset_bytes(e->at);
            free(e->at);
            e->at = NULL;
            entry_drop_if_empty(o, e); /* with the last one goes the topic */
        }
    }
    assert(o->entries_n == 0);
    assert(o->bytes == 0);
    assert(!o->topics);
}

const struct offset *offsets_find(const struct offsets *o, struct slice topic, int32_t partition)
{
    const struct offset_entry *e = entry_find(topic_find(o, topic), partition);
    return e ? e->at : NULL;
}

bool offsets_known(const struct offsets *o, struct slice topic, int32_t partition)
{
    return entry_find(topic_find(o, topic), partition) != NULL;
}

static struct offset *offset_dup(const struct offset *from)
{
    struct offset *at = malloc(sizeof *at + from->metadata.n + 1);
    if (!at)
        return NULL;
    uint8_t *text = (uint8_t *)(at + 1);
    *at = *from;
    if (from->metadata.n)
        memcpy(text, from->metadata.p, from->metadata.n);
    text[from->metadata.n] = 0;
    at->metadata = slice_of(text, from->metadata.n);
    return at;
}

int offsets_prepare(struct offsets *o, struct slice topic, int32_t partition, const struct offset *at,
                    struct offset_change *out)
{
    assert(topic.n > 0);
    struct offset *next = at ? offset_dup(at) : NULL;
    if (at && !next)
        return -E_NOMEM;
    struct offset_topic *t = topic_find(o, topic);
    if (!t)
        t = topic_add(o, topic);
    struct offset_entry *e = t ? entry_find(t, partition) : NULL;
    if (t && !e)
        e = entry_add(o, t, partition);
    if (!e) {
        if (t)
            topic_drop_if_empty(o, t);
        free(next);
        return -E_NOMEM;
    }
    e->pending++;
    assert(e->topic == t);
    assert(e->partition == partition);
    assert(o->entries_n > 0);
    *out = (struct offset_change){e, next};
    return 0;
}

void offsets_settle(struct offsets *o, struct offset_change *change, int64_t record_offset)
{
    struct offset_entry *e = change->entry;
    assert(e);
    assert(e->pending > 0);
    assert(!change->next || o->entries_n > 0);
    assert(!e->at || e->record_offset >= 0); /* S32: what readers see has its place in the log */
    e->pending--;
    if (record_offset > e->record_offset) {
        o->bytes += offset_bytes(change->next);
        o->bytes -= offset_bytes(e->at);
        free(e->at);
        e->at = change->next;
        e->record_offset = record_offset;
    } else {
        free(change->next);
    }
    *change = (struct offset_change){0};
    entry_drop_if_empty(o, e);
}

bool offsets_next(const struct offsets *o, struct offset_walk *w)
{
    if (!w->topic)
        w->topic = o->topics;
    else if (w->entry->hh.next)
        w->entry = w->entry->hh.next;
    else {
        w->topic = w->topic->hh.next;
        w->entry = NULL;
    }
    if (!w->topic)
        return false;
    if (!w->entry)
        w->entry = w->topic->entries;
    assert(w->entry);
    if (w->entry == w->topic->entries)
        w->name = topic_name(w->topic);
    w->partition = w->entry->partition;
    w->at = w->entry->at;
    w->pending = w->entry->pending > 0;
    return true;
}

size_t offsets_topics_n(const struct offsets *o)
{
    return HASH_COUNT(o->topics);
}

size_t offsets_topic_entries_n(const struct offsets *o, struct slice topic)
{
    const struct offset_topic *t = topic_find(o, topic);
    return t ? HASH_COUNT(t->entries) : 0;
}
