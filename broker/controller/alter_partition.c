/* AlterPartition: a leader proposes its next ISR, a compare-and-set on leader and partition epoch (INVARIANTS S16). */
#include "broker/controller/decide.h"

#include "broker/controller/elect.h"

#include <assert.h>

struct proposal {
    const struct decide *d;
    int32_t sender;
    const struct uuid *topic_id;
    const struct kp_alter_partition_request_partitions *q;
    struct kp_alter_partition_response_partitions *r;
    const struct image_partition *p;
    int32_t *isr;
    int32_t isr_n;
};

static bool member(const int32_t *v, int32_t n, int32_t id)
{
    for (int32_t i = 0; i < n; i++) {
        if (v[i] == id)
            return true;
    }
    return false;
}

/* Versions 2 and 3 name the replicas differently; epoch −1 is not checked. */
static int64_t epoch_of(const struct proposal *x, int32_t i)
{
    return x->q->new_isr_with_epochs_n > 0 ? x->q->new_isr_with_epochs[i].broker_epoch : -1;
}

static bool read_isr(struct proposal *x)
{
    bool epochs = x->q->new_isr_with_epochs_n > 0;
    x->isr_n = epochs ? x->q->new_isr_with_epochs_n : x->q->new_isr_n > 0 ? x->q->new_isr_n : 0;
    assert(x->isr_n >= 0);
    x->isr = ARENA_NEWS(x->d->out->arena, int32_t, x->isr_n);
    for (int32_t i = 0; x->isr && i < x->isr_n; i++)
        x->isr[i] = epochs ? x->q->new_isr_with_epochs[i].broker_id : x->q->new_isr[i];
    return x->isr != NULL;
}

/* The order is Kafka's: it decides what a stale leader learns. */
static int16_t check_epochs(const struct proposal *x)
{
    if (x->q->leader_epoch > x->p->leader_epoch || x->q->partition_epoch > x->p->partition_epoch)
        return KE_NOT_CONTROLLER; /* we are behind: another controller knows more */
    if (x->q->leader_epoch < x->p->leader_epoch)
        return KE_FENCED_LEADER_EPOCH;
    if (x->sender != x->p->leader)
        return KE_INVALID_REQUEST;
    return x->q->partition_epoch < x->p->partition_epoch ? KE_INVALID_UPDATE_VERSION : KE_NONE;
}

static int16_t check_isr(const struct proposal *x)
{
    bool recovering = x->q->leader_recovery_state == 1;
    for (int32_t i = 0; i < x->isr_n; i++) {
        if (!member(x->p->replicas, x->p->replicas_n, x->isr[i]) || member(x->isr, i, x->isr[i]))
            return KE_INVALID_REQUEST;
    }
    if (!member(x->isr, x->isr_n, x->p->leader) || (recovering && x->isr_n > 1) ||
        (recovering && !x->p->recovering))
        return KE_INVALID_REQUEST;
    for (int32_t i = 0; i < x->isr_n; i++) {
        const struct image_broker *b = image_broker(x->d->img, x->isr[i]);
        int64_t epoch = epoch_of(x, i);
        if (!broker_is_active(b) || (epoch != -1 && epoch != b->epoch))
            return KE_INELIGIBLE_REPLICA;
    }
    return KE_NONE;
}

static bool write_change(struct proposal *x)
{
    bool recovered = x->p->recovering && x->q->leader_recovery_state == 0;
    bool isr = x->isr_n != x->p->isr_n;
    for (int32_t i = 0; i < x->isr_n && !isr; i++)
        isr = !member(x->p->isr, x->p->isr_n, x->isr[i]);
    /* S16: decided on the state that is, by its leader, which stays in. */
    assert(x->sender == x->p->leader);
    assert(x->q->leader_epoch == x->p->leader_epoch);
    assert(x->q->partition_epoch == x->p->partition_epoch);
    assert(member(x->isr, x->isr_n, x->p->leader));
    assert(x->isr_n <= x->p->replicas_n);
    x->r->partition_epoch = x->p->partition_epoch + (isr || recovered);
    if (!isr && !recovered)
        return true;
    struct kp_partition_change_record *c = decide_record(x->d, kp_type_partition_change_record);
    if (!c)
        return false;
    c->partition_id = x->q->partition_index;
    c->topic_id = *x->topic_id;
    if (isr) {
        c->isr = x->isr;
        c->isr_n = x->isr_n;
    }
    if (recovered)
        c->leader_recovery_state = 0;
    return true;
}

static bool alter_one(struct proposal *x)
{
    const struct image_topic *t = image_topic_by_id(x->d->img, x->topic_id);
    x->r->partition_index = x->q->partition_index;
    x->p = t ? image_partition(t, x->q->partition_index) : NULL;
    if (!x->p) {
        x->r->error_code = t ? KE_UNKNOWN_TOPIC_OR_PARTITION : KE_UNKNOWN_TOPIC_ID;
        return true;
    }
    if (!read_isr(x))
        return false;
    x->r->error_code = check_epochs(x);
    if (!x->r->error_code)
        x->r->error_code = check_isr(x);
    if (x->r->error_code)
        return true;
    assert(x->sender == x->p->leader);
    x->r->leader_id = x->p->leader;
    x->r->leader_epoch = x->p->leader_epoch;
    x->r->isr = ARENA_NEWS(x->d->arena, int32_t, x->isr_n);
    if (!x->r->isr)
        return false;
    for (; x->r->isr_n < x->isr_n; x->r->isr_n++)
        x->r->isr[x->r->isr_n] = x->isr[x->r->isr_n];
    x->r->leader_recovery_state = x->q->leader_recovery_state;
    return write_change(x);
}

int16_t decide_alter_partition(const struct decide *d, const struct kp_alter_partition_request *q,
                               struct kp_alter_partition_response *r)
{
    const struct image_broker *b = image_broker(d->img, q->broker_id);
    if (!b || b->epoch != q->broker_epoch)
        return r->error_code = KE_STALE_BROKER_EPOCH;
    r->topics = ARENA_NEWS(d->arena, struct kp_alter_partition_response_topics, q->topics_n);
    if (!r->topics)
        return r->error_code = KE_UNKNOWN_SERVER_ERROR;
    for (; r->topics_n < q->topics_n; r->topics_n++) {
        const struct kp_alter_partition_request_topics *from = &q->topics[r->topics_n];
        struct kp_alter_partition_response_topics *to = &r->topics[r->topics_n];
        to->topic_id = from->topic_id;
        to->partitions =
            ARENA_NEWS(d->arena, struct kp_alter_partition_response_partitions, from->partitions_n);
        for (; to->partitions && to->partitions_n < from->partitions_n; to->partitions_n++) {
            struct proposal x = {.d = d,
                                 .sender = q->broker_id,
                                 .topic_id = &from->topic_id,
                                 .q = &from->partitions[to->partitions_n],
                                 .r = &to->partitions[to->partitions_n]};
            if (!alter_one(&x))
                return r->error_code = KE_UNKNOWN_SERVER_ERROR;
        }
    }
    if (arena_failed(d->arena) || arena_failed(d->out->arena))
        return r->error_code = KE_UNKNOWN_SERVER_ERROR;
    return KE_NONE;
}
