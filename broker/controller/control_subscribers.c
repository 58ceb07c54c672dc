/* Images to shards: one message per subscriber is on its way at a time; what comes meanwhile is skipped. */
#include "broker/controller/control_internal.h"

#include <assert.h>

static void on_ack(struct loop_msg *msg);

/* On the subscriber's thread. */
static void on_image(struct loop_msg *msg)
{
    struct control_subscriber *s = LIST_ENTRY(msg, struct control_subscriber, msg);
    const struct image *was = s->image;
    assert(s->delivering);
    assert(!was || image_offset(s->delivering) > image_offset(was));
    s->image = s->delivering; /* the reference moves with it */
    s->changed(s->arg, was, s->image);
    image_unref(was);
    s->msg.fn = on_ack;
    loop_post(s->control->loop, &s->msg);
}

static void deliver(struct control_subscriber *s)
{
    assert(!s->busy);
    assert(!s->delivering || s->delivering == s->image);
    assert(s->next);
    s->busy = true;
    s->delivering = s->next;
    s->next = NULL;
    s->msg.fn = on_image;
    loop_post(s->loop, &s->msg);
}

/* Back on shard 0. */
static void on_ack(struct loop_msg *msg)
{
    struct control_subscriber *s = LIST_ENTRY(msg, struct control_subscriber, msg);
    assert(s->busy);
    assert(s->delivering == s->image);
    assert(image_offset(s->delivering) > s->acked_offset);
    s->acked_offset = image_offset(s->delivering);
    s->delivering = NULL;
    s->busy = false;
    if (s->next)
        deliver(s);
    control_complete(s->control);
}

static void offer(struct control_subscriber *s, const struct image *img)
{
    assert(!s->next || image_offset(s->next) < image_offset(img));
    image_unref(s->next);
    s->next = image_ref(img);
    if (!s->busy)
        deliver(s);
}

void control_publish(struct control *c, const struct image *img)
{
    assert(!c->published || image_offset(img) > image_offset(c->published));
    image_unref(c->published);
    c->published = image_ref(img);
    list_each (at, &c->subscribers)
        offer(LIST_ENTRY(at, struct control_subscriber, link), img);
}

int64_t control_seen_offset(const struct control *c)
{
    int64_t seen = c->published ? image_offset(c->published) : -1;
    list_each (at, &c->subscribers) {
        const struct control_subscriber *s = LIST_ENTRY(at, struct control_subscriber, link);
        if (s->acked_offset < seen)
            seen = s->acked_offset;
    }
    assert(seen >= -1);
    assert(!c->published || seen <= image_offset(c->published));
    return seen;
}

void control_subscribe(struct control *c, struct control_subscriber *s)
{
    assert(s->loop);
    assert(s->changed);
    assert(!list_linked(&s->link));
    s->control = c;
    s->image = NULL;
    s->delivering = s->next = NULL;
    s->acked_offset = -1;
    s->busy = false;
    list_init(&s->msg.link);
    list_push(&c->subscribers, &s->link);
    if (c->published)
        offer(s, c->published);
}

void control_unsubscribe(struct control_subscriber *s)
{
    if (!s->control)
        return;
    if (s->busy) /* in the queue of a loop that has ended, which runs what is left there when it is destroyed */
        list_remove(&s->msg.link);
    /* a message that its loop never ran still holds what it carries; one that did has made it the present image */
    if (s->delivering != s->image)
        image_unref(s->delivering);
    image_unref(s->next);
    image_unref(s->image);
    s->image = NULL;
    s->delivering = s->next = NULL;
    s->busy = false;
    list_remove(&s->link);
    s->control = NULL;
}
