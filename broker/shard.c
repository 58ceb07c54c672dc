#include "broker/shard.h"

#include "base/core/bytes.h"

static void shard_call_run(struct loop_msg *msg)
{
    struct shard_call *call = LIST_ENTRY(msg, struct shard_call, msg);
    call->run(call);
}

static void shard_call_done(struct loop_msg *msg)
{
    struct shard_call *call = LIST_ENTRY(msg, struct shard_call, msg);
    call->done(call);
}

void shard_call(struct shard_call *call, struct shard *from, struct shard *to)
{
    assert(call->run);
    assert(call->done);
    assert(from->all == to->all); /* of one broker */
    call->from = from;
    call->to = to;
    call->msg.fn = shard_call_run;
    if (from == to)
        call->run(call);
    else
        loop_post(to->loop, &call->msg);
}

void shard_reply(struct shard_call *call)
{
    assert(call->done);
    assert(call->to);
    call->msg.fn = shard_call_done;
    if (call->from == call->to)
        call->done(call);
    else
        loop_post(call->from->loop, &call->msg);
}

/* Topic ids are random, so folding their bytes is hash enough; the finalizer (of splitmix64) spreads the
 * index. */
unsigned shard_index_of(const struct uuid *topic_id, int32_t partition, unsigned count)
{
    assert(count > 0);
    uint64_t h = be64_get(topic_id->b) ^ be64_get(topic_id->b + 8) ^ ((uint64_t)(uint32_t)partition << 17);
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ULL;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebULL;
    return (unsigned)((h ^ (h >> 31)) % count);
}
