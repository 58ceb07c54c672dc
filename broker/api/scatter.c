#include "broker/api/scatter.h"

struct scatter_part {
    struct shard_call call;
    struct scatter *scatter;
    struct scatter_item *first, **last;
    unsigned left;
};

bool scatter_init(struct scatter *s)
{
    unsigned n = s->req->shard->count;
    assert(s->run);
    assert(s->finished);
    assert(s->req->shard == s->req->home);
    s->parts = API_NEWS(s->req, struct scatter_part, n);
    if (!s->parts)
        return false;
    for (unsigned i = 0; i < n; i++) {
        s->parts[i].scatter = s;
        s->parts[i].last = &s->parts[i].first;
    }
    return true;
}

void scatter_add(struct scatter *s, struct scatter_item *item)
{
    struct scatter_part *part = &s->parts[shard_index_of(&item->topic_id, item->index, s->req->home->count)];
    assert(!item->part);  /* once */
    assert(s->left == 0); /* and before the start */
    item->part = part;
    item->next = NULL;
    *part->last = item;
    part->last = &item->next;
    part->left++;
}

struct shard *scatter_shard(const struct scatter_item *item)
{
    assert(item->part);
    assert(item->part->call.to);
    return item->part->call.to;
}

/* Held up by one of its own, so that it cannot end while items are still being started. */
static void part_run(struct shard_call *call)
{
    struct scatter_part *part = LIST_ENTRY(call, struct scatter_part, call);
    void (*run)(struct scatter_item *, struct partition *) = part->scatter->run;
    assert(part->left > 0);
    assert(part->first);
    part->left++;
    for (struct scatter_item *item = part->first, *next; item; item = next) {
        next = item->next;
        run(item, partition_find(call->to, &item->topic_id, item->index));
    }
    if (--part->left == 0)
        shard_reply(&part->call);
}

void scatter_done(struct scatter_item *item)
{
    struct scatter_part *part = item->part;
    assert(part);
    assert(part->left > 0);
    if (--part->left == 0)
        shard_reply(&part->call);
}

static void one_back(struct scatter *s)
{
    assert(s->left > 0);
    if (--s->left == 0)
        s->finished(s->req);
}

static void part_done(struct shard_call *call)
{
    const struct scatter_part *part = LIST_ENTRY(call, struct scatter_part, call);
    assert(part->left == 0); /* all of it is answered */
    assert(part->first);
    one_back(part->scatter);
}

void scatter_start(struct scatter *s)
{
    assert(s->parts);
    struct shard *home = s->req->home;
    unsigned n = home->count;
    assert(s->left == 0);
    s->left = 1;
    for (unsigned i = 0; i < n; i++)
        s->left += s->parts[i].first != NULL;
    /* Others first: they work while this shard does its own. */
    for (unsigned k = 1; k <= n; k++) {
        unsigned i = (home->index + k) % n;
        if (!s->parts[i].first)
            continue;
        s->parts[i].call.run = part_run;
        s->parts[i].call.done = part_done;
        shard_call(&s->parts[i].call, home, home->all[i]);
    }
    one_back(s);
}
