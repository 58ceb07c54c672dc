/* Fetch: answered at once when there is enough, an error or no time to wait; else parked until there is, the time is up
 * or something has changed (PROTOCOL.md §2.3). One that goes on with a session (KIP-227, fetch_session.c) reads all that
 * is in it.
 *
 *   READING ──enough, error, last──▶ ANSWERED
 *     │  ▲
 *     │  └── all parts back ── CANCELLING (then it is the last read when the time is up or the client has gone)
 *     └──▶ WATCHING ──a part has enough, time, client gone──▶ CANCELLING
 *
 * Parts on other shards are watched there and report back; the machine itself runs at home. Bytes are counted as they
 * are committed, so a wake that is not needed costs a comparison, not a read. */
#include "broker/api/fetch.h"

#include "broker/api/fetch_sessions.h"
#include "broker/api/lookup.h"
#include "broker/broker.h"

/* Nobody needs a longer parked request; one that claims more gets its empty answer then. */
#define WAIT_MAX_MS 300000

static void respond(struct fetch *f);
static void read_parts(struct fetch *f);
static void watch_parts(struct fetch *f, int64_t need_bytes);
static void cancel(struct fetch *f);

/* ---- a part's watch, on its shard ---- */

static void watch_end(struct fetch_part *part)
{
    assert(part->parked);
    part->parked = false;
    for (struct fetch_item *it = part->first; it; it = it->next)
        partition_wait_stop(&it->wait);
    shard_reply(&part->call);
}

/* Counts what has come for this item: never more than it may have in one answer. */
static bool count(struct fetch_item *it)
{
    struct fetch_part *part = it->part;
    const struct partition *p = it->wait.partition;
    if (!p || it->wait.changed)
        return true;
    assert(part->parked);
    assert(it->coming_bytes <= it->max_bytes);
    int64_t come = (int64_t)(partition_committed_bytes(p) - it->read_at_bytes);
    come = come < it->max_bytes ? come : it->max_bytes;
    part->coming_bytes += come - it->coming_bytes;
    it->coming_bytes = come;
    return part->coming_bytes >= part->need_bytes;
}

static void on_wake(struct partition_wait *w)
{
    struct fetch_item *it = LIST_ENTRY(w, struct fetch_item, wait);
    if (it->part->parked && count(it))
        watch_end(it->part);
}

static void watch_run(struct shard_call *call)
{
    struct fetch_part *part = LIST_ENTRY(call, struct fetch_part, call);
    bool enough = false;
    assert(!part->parked);
    assert(part->need_bytes > 0);
    part->parked = true;
    part->coming_bytes = 0;
    for (struct fetch_item *it = part->first; it; it = it->next) {
        struct partition *p = partition_find(call->to, &it->topic_id, it->in->partition);
        it->wait = (struct partition_wait){.wake = on_wake};
        list_init(&it->wait.link);
        it->coming_bytes = 0;
        if (!p || lookup_leader_error(p, it->in->current_leader_epoch)) {
            enough = true; /* it went between read and watch */
            continue;
        }
        partition_wait(p, &it->wait);
        enough |= count(it);
    }
    if (enough)
        watch_end(part);
}

static void cancel_run(struct shard_call *call)
{
    struct fetch_part *part = LIST_ENTRY(call, struct fetch_part, cancel);
    if (part->parked)
        watch_end(part);
    shard_reply(&part->cancel);
}

/* ---- at home ---- */

static bool time_is_up(const struct fetch *f)
{
    return loop_now_us(f->req->home->loop) >= f->deadline_us;
}

static void all_read(struct fetch *f)
{
    bool urgent = f->refused;
    assert(f->state == FETCH_READING);
    assert(f->left == 0);
    int64_t total = fetch_limit(f);
    for (unsigned i = 0; i < f->req->home->count; i++)
        urgent |= f->parts[i].urgent;
    if (f->last || urgent || total >= f->min_bytes || time_is_up(f)) {
        respond(f);
        return;
    }
    unsigned parts = 0;
    for (unsigned i = 0; i < f->req->home->count; i++)
        parts += f->parts[i].first != NULL;
    /* If what is missing comes, some part gets at least this much of it. */
    assert(parts > 0);
    assert(f->min_bytes > total);
    int64_t need = (f->min_bytes - total + parts - 1) / parts;
    fetch_drop_slices(f);
    watch_parts(f, need);
}

static void call_done(struct fetch *f)
{
    assert(f->left > 0);
    if (--f->left > 0)
        return;
    if (f->state == FETCH_READING)
        all_read(f);
    else if (f->state == FETCH_CANCELLING)
        read_parts(f);
}

static void read_run(struct shard_call *call)
{
    fetch_part_read(LIST_ENTRY(call, struct fetch_part, call));
    shard_reply(call);
}

static void read_done(struct shard_call *call)
{
    call_done(LIST_ENTRY(call, struct fetch_part, call)->fetch);
}

static void read_parts(struct fetch *f)
{
    struct shard *home = f->req->home;
    assert(f->left == 0);
    assert(f->state == FETCH_READING || f->state == FETCH_CANCELLING);
    f->state = FETCH_READING;
    f->left = 1;
    for (unsigned k = 1; k <= home->count; k++) {
        struct fetch_part *part = &f->parts[(home->index + k) % home->count];
        if (!part->first)
            continue;
        f->left++;
        part->call.run = read_run;
        part->call.done = read_done;
        shard_call(&part->call, home, home->all[(home->index + k) % home->count]);
    }
    call_done(f);
}

static void watch_done(struct shard_call *call)
{
    struct fetch_part *part = LIST_ENTRY(call, struct fetch_part, call);
    struct fetch *f = part->fetch;
    assert(part->watching);
    assert(f->state == FETCH_WATCHING || f->state == FETCH_CANCELLING);
    part->watching = false;
    if (f->state == FETCH_WATCHING)
        cancel(f);
    call_done(f);
}

static void watch_parts(struct fetch *f, int64_t need_bytes)
{
    struct shard *home = f->req->home;
    assert(f->left == 0);
    assert(need_bytes > 0);
    assert(!f->last);
    f->state = FETCH_WATCHING;
    f->left = 1;
    for (unsigned i = 0; i < home->count && f->state == FETCH_WATCHING; i++) {
        struct fetch_part *part = &f->parts[i];
        if (!part->first)
            continue;
        f->left++;
        part->watching = true;
        part->need_bytes = need_bytes;
        part->call.run = watch_run;
        part->call.done = watch_done;
        shard_call(&part->call, home, home->all[i]);
    }
    if (f->state == FETCH_WATCHING)
        loop_timer_at(&f->timer, f->deadline_us);
    call_done(f);
}

static void cancel_done(struct shard_call *call)
{
    call_done(LIST_ENTRY(call, struct fetch_part, cancel)->fetch);
}

static void cancel(struct fetch *f)
{
    struct shard *home = f->req->home;
    assert(f->state == FETCH_WATCHING);
    f->state = FETCH_CANCELLING;
    loop_timer_stop(&f->timer);
    f->left++;
    for (unsigned i = 0; i < home->count; i++) {
        struct fetch_part *part = &f->parts[i];
        if (!part->watching)
            continue;
        f->left++;
        part->cancel.run = cancel_run;
        part->cancel.done = cancel_done;
        shard_call(&part->cancel, home, home->all[i]);
    }
    call_done(f);
}

static void on_time(void *arg)
{
    struct fetch *f = arg;
    assert(f->state == FETCH_WATCHING);
    assert(!f->req->answered);
    f->last = true;
    cancel(f);
}

static void on_abandoned(struct api_request *req)
{
    struct fetch *f = req->state;
    f->last = true;
    if (f->state == FETCH_WATCHING)
        cancel(f);
}

/* ---- the answer ---- */

static void on_release(struct api_release *r)
{
    fetch_drop_slices(LIST_ENTRY(r, struct fetch, release));
}

/* Who leads now, and where to find it (KIP-951). */
static void add_leader(struct fetch *f, struct fetch_item *it)
{
    struct api_request *req = f->req;
    int32_t leader, epoch;
    if (req->version < 12 || !lookup_current_leader(req, &it->topic_id, it->in->partition, &leader, &epoch))
        return;
    it->out->current_leader = (struct kp_fetch_response_current_leader){leader, epoch};
    const struct image_endpoint *at = req->version >= 16 ? lookup_endpoint(req, leader) : NULL;
    for (int32_t i = 0; i < f->out->node_endpoints_n; i++)
        if (f->out->node_endpoints[i].node_id == leader)
            return;
    if (!at)
        return;
    if (!f->out->node_endpoints)
        f->out->node_endpoints = API_NEWS(req, struct kp_fetch_response_node_endpoints, f->items_n);
    struct slice host = arena_dup(&req->arena, at->host);
    if (f->out->node_endpoints && !arena_failed(&req->arena))
        f->out->node_endpoints[f->out->node_endpoints_n++] =
            (struct kp_fetch_response_node_endpoints){.node_id = leader, .host = host, .port = at->port};
}

static void respond(struct fetch *f)
{
    assert(f->state == FETCH_READING);
    assert(f->left == 0);
    f->state = FETCH_ANSWERED;
    loop_timer_stop(&f->timer);
    for (size_t i = 0; i < f->items_n; i++) {
        struct fetch_item *it = &f->items[i];
        if (it->out->error_code == KE_NOT_LEADER_OR_FOLLOWER || it->out->error_code == KE_FENCED_LEADER_EPOCH)
            add_leader(f, it);
        it->out->records = (struct kp_records){.bytes = SLICE_LIT("")};
        if (it->slice.size_bytes == 0)
            continue;
        assert(it->slice.file);
        assert(it->out->error_code == KE_NONE);
        it->segment =
            (struct kp_segment){log_file_disk(it->slice.file), it->slice.position, it->slice.size_bytes};
        it->out->records = (struct kp_records){.segments = &it->segment, .segments_n = 1};
    }
    fetch_session_answer(f);
    api_respond(f->req, f->out);
}

/* ---- the request ---- */

static void add_item(struct fetch *f, const struct image_topic *t, const struct uuid *id, int16_t error,
                     const struct kp_fetch_request_partitions *in, struct kp_fetch_response_partitions *out)
{
    struct fetch_item *it = &f->items[f->items_n++];
    struct shard *home = f->req->home;
    assert(error || t);
    if (!error && (in->partition < 0 || in->partition >= t->partitions_n))
        error = KE_UNKNOWN_TOPIC_OR_PARTITION;
    *it = (struct fetch_item){.topic_id = t ? t->id : *id,
                              .in = in,
                              .out = out,
                              .max_bytes = in->partition_max_bytes > 0 ? in->partition_max_bytes : 0};
    *out = (struct kp_fetch_response_partitions){.partition_index = in->partition,
                                                 .error_code = error,
                                                 .high_watermark = -1,
                                                 .last_stable_offset = -1,
                                                 .log_start_offset = -1,
                                                 .aborted_transactions_n = -1,
                                                 .preferred_read_replica = -1,
                                                 .diverging_epoch = {-1, -1},
                                                 .current_leader = {-1, -1},
                                                 .snapshot_id = {-1, -1}};
    f->refused |= error != KE_NONE;
    if (error)
        return;
    it->part = &f->parts[shard_index_of(&t->id, in->partition, home->count)];
    *it->part->last = it;
    it->part->last = &it->next;
}

static bool make_parts(struct fetch *f)
{
    unsigned n = f->req->home->count;
    f->parts = API_NEWS(f->req, struct fetch_part, n);
    for (unsigned i = 0; f->parts && i < n; i++) {
        f->parts[i].fetch = f;
        f->parts[i].last = &f->parts[i].first;
    }
    return f->parts != NULL;
}

static bool make_items(struct fetch *f, int16_t refused)
{
    struct api_request *req = f->req;
    const struct kp_fetch_request *in = f->in;
    size_t n = 0;
    int32_t topics = in->topics_n > 0 ? in->topics_n : 0;
    for (int32_t t = 0; t < topics; t++)
        n += (size_t)in->topics[t].partitions_n;
    f->items = API_NEWS(req, struct fetch_item, n);
    f->out->responses = API_NEWS(req, struct kp_fetch_response_responses, topics);
    f->out->responses_n = topics;
    for (int32_t t = 0; t < topics && f->items && f->out->responses; t++) {
        const struct kp_fetch_request_topics *from = &in->topics[t];
        struct kp_fetch_response_responses *to = &f->out->responses[t];
        int16_t error;
        const struct image_topic *topic =
            lookup_topic(req, req->version >= 13, from->topic, &from->topic_id, &error);
        to->topic = from->topic;
        to->topic_id = from->topic_id;
        to->partitions = API_NEWS(req, struct kp_fetch_response_partitions, from->partitions_n);
        if (!to->partitions)
            return false;
        to->partitions_n = from->partitions_n;
        for (int32_t i = 0; i < from->partitions_n; i++)
            add_item(f, topic, &from->topic_id, refused ? refused : error, &from->partitions[i],
                     &to->partitions[i]);
    }
    assert(arena_failed(&req->arena) || f->items_n == n); /* one to one */
    return !arena_failed(&req->arena);
}

/* All that is in the session; its rows may change while this waits. */
static bool make_session_items(struct fetch *f, const struct fetch_session *s)
{
    struct api_request *req = f->req;
    struct kp_fetch_request_partitions *in = API_NEWS(req, struct kp_fetch_request_partitions, s->members_n);
    struct kp_fetch_response_partitions *out =
        API_NEWS(req, struct kp_fetch_response_partitions, s->members_n);
    f->items = API_NEWS(req, struct fetch_item, s->members_n);
    const struct uuid *id = NULL;
    const struct image_topic *topic = NULL;
    int16_t error = KE_NONE;
    list_each (at, &s->members) {
        const struct fetch_member *m = LIST_ENTRY(at, struct fetch_member, link);
        if (arena_failed(&req->arena))
            return false;
        if (!id || !uuid_eq(id, &m->key.topic))
            topic = lookup_topic(req, true, SLICE_NULL, &m->key.topic, &error);
        id = &m->key.topic;
        assert(f->items_n < s->members_n);
        in[f->items_n] = m->row;
        add_item(f, topic, id, error, &in[f->items_n], &out[f->items_n]);
    }
    return !arena_failed(&req->arena);
}

/* A request that claims to be a broker's is refused. */
static int16_t request_error(const struct api_request *req, const struct kp_fetch_request *in)
{
    int32_t replica = req->version >= 15 ? in->replica_state.replica_id : in->replica_id;
    return replica >= 0 ? KE_CLUSTER_AUTHORIZATION_FAILED : KE_NONE;
}

void handle_fetch(struct api_request *req)
{
    const struct kp_fetch_request *in = req->body;
    const struct broker_options *o = req->shard->broker->options;
    struct fetch *f = API_NEW(req, struct fetch);
    struct fetch_session *session = NULL;
    int16_t error = request_error(req, in);
    if (f) {
        f->req = req;
        f->in = in;
        f->out = API_NEW(req, struct kp_fetch_response);
        error = error ? error : fetch_session_request(f, &session);
    }
    if (!f || !f->out || !make_parts(f) ||
        !(session ? make_session_items(f, session) : make_items(f, error))) {
        api_close(req, "out of memory");
        return;
    }
    int32_t wait_ms = in->max_wait_ms < WAIT_MAX_MS ? in->max_wait_ms : WAIT_MAX_MS;
    f->max_bytes = in->max_bytes < o->fetch_max_bytes ? in->max_bytes : o->fetch_max_bytes;
    f->min_bytes = in->min_bytes < f->max_bytes ? in->min_bytes : f->max_bytes;
    f->deadline_us = loop_now_us(req->home->loop) + (int64_t)(wait_ms > 0 ? wait_ms : 0) * 1000;
    f->isolation = in->isolation_level ? PARTITION_COMMITTED : PARTITION_HIGH_WATERMARK;
    f->last = wait_ms <= 0 || f->items_n == 0;
    f->out->error_code = req->version >= 7 ? error : KE_NONE;
    f->release.fn = on_release;
    loop_timer_init(&f->timer, req->home->loop, on_time, f);
    req->state = f;
    req->abandoned = on_abandoned;
    api_on_release(req, &f->release);
    read_parts(f);
}
