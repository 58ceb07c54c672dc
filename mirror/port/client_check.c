/* Where a partition stands: the offset to begin at, and whether the leader's log still has what we have read. */
#include "mirror/port/client_parts.h"
#include "mirror/port/port_ask.h"

#include <stdio.h>

static struct port_question question(struct raw_part *part,
                                     void (*answered)(void *arg, const struct client_response *r))
{
    return (struct port_question){.topic = slice_str(part->topic),
                                  .partition = part->a.partition,
                                  .current_leader_epoch = part->leader_epoch,
                                  .call = &part->ask,
                                  .answered = answered,
                                  .arg = part};
}

static void asked(struct raw_part *part, bool sent)
{
    raw_place(part);
    if (!sent)
        raw_retry(part, "too many requests are open");
}

/* True: the answer is known. Else it is tried again later, or the partition has ended; either is arranged. */
static bool known(struct raw_part *part, enum port_answer answer, const char *why)
{
    assert(!part->dropped && part->state != RAW_STOPPED && list_empty(&part->chunks));
    part->ask = NULL;
    if (answer == PORT_ANSWER_KNOWN)
        return true;
    if (answer == PORT_ANSWER_REFUSED)
        raw_stop(part, PORT_FAILED, KE_TOPIC_AUTHORIZATION_FAILED, why);
    else
        raw_retry(part, why ? why : "the cluster is too old to say where its log is");
    raw_wake(part->port);
    return false;
}

static bool offset_of(struct raw_part *part, const struct client_response *r, int64_t *out)
{
    const char *why;
    enum port_answer answer = port_answer_offset(r, out, &why);
    return known(part, answer, why);
}

/* ---- the beginning ---- */

static void begin_answered(void *arg, const struct client_response *r)
{
    struct raw_part *part = arg;
    int64_t offset;
    if (!offset_of(part, r, &offset))
        return;
    assert(part->next < 0 && offset >= 0 && part->fetch_epoch < 0);
    part->next = part->fetch_next = offset;
    part->state = RAW_FETCHING;
    raw_event(part, PORT_POSITION, KE_NONE, NULL);
    raw_place(part);
    raw_wake(part->port);
}

/* ---- out of range ---- */

static void range_end(void *arg, const struct client_response *r)
{
    struct raw_part *part = arg;
    int64_t offset;
    if (!offset_of(part, r, &offset))
        return;
    part->high_watermark = offset;
    if (part->next >= part->log_start && part->next <= offset) {
        raw_retry(part, NULL); /* a deposed leader's answer */
        raw_wake(part->port);
        return;
    }
    raw_stop(part, PORT_OUT_OF_RANGE, KE_OFFSET_OUT_OF_RANGE, "the offset is not in the log");
}

static void range_start(void *arg, const struct client_response *r)
{
    struct raw_part *part = arg;
    int64_t offset;
    if (!offset_of(part, r, &offset))
        return;
    part->log_start = offset;
    /* The high watermark: an offset behind the last stable one is in the log all the same. */
    struct port_question q = question(part, range_end);
    asked(part, port_ask_offset(part->port->client, &q, PORT_ASK_LATEST, false));
}

void raw_ask_range(struct raw_part *part)
{
    assert(part->next >= 0 && part->next == part->fetch_next);
    struct port_question q = question(part, range_start);
    asked(part, port_ask_offset(part->port->client, &q, PORT_ASK_EARLIEST, false));
}

/* ---- KIP-320 ---- */

void raw_truncated(struct raw_part *part, int64_t end)
{
    char text[128];
    int64_t cut = end < part->next ? end : part->next;
    snprintf(text, sizeof text, "leader epoch %d ends at offset %lld now, %lld was read", part->last_epoch,
             (long long)end, (long long)part->next);
    raw_stop(part, PORT_TRUNCATED, KE_NONE, text);
    part->event.end = cut;
}

static void epoch_answered(void *arg, const struct client_response *r)
{
    struct raw_part *part = arg;
    const char *why;
    int64_t end = -1;
    enum port_answer answer = port_answer_epoch_end(r, &end, &why);
    if (answer == PORT_ANSWER_NONE)
        answer = PORT_ANSWER_KNOWN; /* an old cluster: nothing can be asked, nothing is known to be gone */
    if (!known(part, answer, why))
        return;
    assert(part->state == RAW_ASKING);
    if (end >= 0 && end < part->next) {
        raw_truncated(part, end);
        return;
    }
    part->state = RAW_FETCHING;
    raw_place(part);
    raw_wake(part->port);
}

void raw_check(struct raw_part *part)
{
    assert(part->state == RAW_ASKING && !part->ask);
    struct client *c = part->port->client;
    if (part->next < 0) {
        struct port_question q = question(part, begin_answered);
        bool start = part->next == PORT_FROM_START;
        asked(part, port_ask_offset(c, &q, start ? PORT_ASK_EARLIEST : PORT_ASK_LATEST,
                                    !part->port->read_uncommitted));
        return;
    }
    if (part->last_epoch < 0 || part->last_epoch == part->leader_epoch) {
        part->state = RAW_FETCHING;
        return;
    }
    struct port_question q = question(part, epoch_answered);
    asked(part, port_ask_epoch_end(c, &q, part->last_epoch));
}
