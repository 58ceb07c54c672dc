/* Partitions by what names them: their owner, and what an answer calls them. */
#include "mirror/port/client_parts.h"

struct raw_part *raw_find_owner(struct raw_port *p, const void *owner)
{
    struct raw_part *part;
    HASH_FIND(by_owner, p->owners, &owner, sizeof owner, part);
    assert(!part || (!part->dropped && part->a.owner == owner));
    return part;
}

struct raw_part *raw_find_id(struct raw_port *p, const struct uuid *topic, int32_t partition)
{
    struct raw_id key = {*topic, partition};
    struct raw_part *part;
    HASH_FIND(by_id, p->ids, &key, sizeof key, part);
    assert(!part || (!part->dropped && !uuid_is_zero(topic)));
    return part;
}

static size_t name_bytes(const struct raw_name *n)
{
    return RAW_NAME_BYTES + strlen(n->topic);
}

struct raw_part *raw_find_name(struct raw_port *p, struct slice topic, int32_t partition)
{
    union {
        struct raw_name name;
        char bytes[RAW_NAME_BYTES + RAW_TOPIC_MAX + 1];
    } key;
    struct raw_part *part;
    if (topic.n == 0 || topic.n > RAW_TOPIC_MAX)
        return NULL;
    key.name.partition = partition;
    memcpy(key.bytes + RAW_NAME_BYTES, topic.p, topic.n);
    HASH_FIND(by_name, p->names, key.bytes, RAW_NAME_BYTES + topic.n, part);
    assert(!part || (!part->dropped && part->a.partition == partition));
    return part;
}

static void forget_id(struct raw_part *part)
{
    if (part->by_id.tbl)
        HASH_DELETE(by_id, part->port->ids, part);
    part->by_id.tbl = NULL;
    part->id.topic = (struct uuid){{0}};
}

bool raw_keep_id(struct raw_part *part, const struct uuid *topic)
{
    if (uuid_eq(&part->id.topic, topic))
        return true;
    forget_id(part);
    part->id = (struct raw_id){*topic, part->a.partition};
    if (uuid_is_zero(topic))
        return true;
    HASH_ADD(by_id, part->port->ids, id, sizeof part->id, part);
    if (part->by_id.tbl)
        return true;
    part->id.topic = (struct uuid){{0}};
    return false;
}

void raw_unfind(struct raw_part *part)
{
    forget_id(part);
    if (part->by_owner.tbl)
        HASH_DELETE(by_owner, part->port->owners, part);
    if (part->by_name.tbl)
        HASH_DELETE(by_name, part->port->names, part);
    part->by_owner.tbl = part->by_name.tbl = NULL;
}

bool raw_make_findable(struct raw_part *part)
{
    HASH_ADD(by_owner, part->port->owners, a.owner, sizeof part->a.owner, part);
    HASH_ADD_KEYPTR(by_name, part->port->names, part->name, name_bytes(part->name), part);
    if (part->by_owner.tbl && part->by_name.tbl)
        return true;
    raw_unfind(part);
    return false;
}
