#include "mirror/offsets/progress.h"

#include <assert.h>
#include <stdlib.h>

#include "mirror/offsets/progress_internal.h"

#define STORE_RETRY_US INT64_C(1000000)
#define RECORDS_MAX    ((size_t)96 << 20)
#define READ_BATCH_MAX ((size_t)8 << 20) /* of the topic, before it is committed to the store */

static void commit_store(struct progress *p);
static void read_on(struct progress *p);

/* ---- topics and producer ids in memory ---- */

static size_t key_of(const struct topic_key *key, struct topic_hash_key *out)
{
    memset(out, 0, sizeof *out);
    if (!uuid_is_zero(&key->id)) {
        memcpy(out->bytes, key->id.b, sizeof key->id.b);
        return sizeof key->id.b;
    }
    assert(key->name.n > 0 && key->name.n < sizeof out->bytes - 1);
    out->bytes[0] = '/';
    memcpy(out->bytes + 1, key->name.p, key->name.n);
    return key->name.n + 1;
}

static struct topic_entry *topic_entry(struct progress *p, const struct topic_key *key)
{
    struct topic_hash_key k;
    struct topic_entry *t;
    size_t n = key_of(key, &k);
    HASH_FIND(hh, p->topics, k.bytes, n, t);
    return t;
}

static struct topic_entry *topic_enter(struct progress *p, const struct topic_key *key, uint32_t number,
                                       bool named)
{
    struct topic_entry *t = calloc(1, sizeof *t);
    assert(number > 0 && !topic_entry(p, key));
    if (!t)
        return NULL;
    t->number = number;
    t->named = named;
    size_t n = key_of(key, &t->key);
    HASH_ADD(hh, p->topics, key.bytes, n, t);
    if (!HASH_ADDED(t)) {
        free(t);
        return NULL;
    }
    return t;
}

void progress_topic_drop(struct progress *p, const struct topic_key *key)
{
    struct topic_entry *t = topic_entry(p, key);
    if (!t)
        return;
    HASH_DEL(p->topics, t);
    free(t);
}

bool progress_topic_find(struct progress *p, const struct topic_key *key, uint32_t *number)
{
    struct topic_entry *t = topic_entry(p, key);
    if (t)
        *number = t->number;
    return t != NULL;
}

uint32_t progress_topic(struct progress *p, const struct topic_key *key, struct slice target_topic,
                        const struct uuid *target_topic_id)
{
    struct topic_entry *t = topic_entry(p, key);
    if (!t)
        t = topic_enter(p, key, store_new_topic(p->store), false);
    if (!t) {
        p->failed = true;
        return store_new_topic(p->store);
    }
    bool named = key->name.n > 0 && target_topic.n > 0;
    if (!t->named) {
        struct stored_topic s = {.number = t->number,
                                 .flow = p->flow.number,
                                 .topic = *key,
                                 .target_topic = target_topic,
                                 .target_topic_id = target_topic_id ? *target_topic_id : (struct uuid){{0}}};
        store_put_topic(p->batch, &s);
        t->named = named;
    }
    return t->number;
}

static struct offer_entry *offer_entry(struct progress *p, int32_t partition)
{
    struct offer_entry *o;
    HASH_FIND(hh, p->offers, &partition, sizeof partition, o);
    return o;
}

/* The lowest offset holds. */
void progress_offer_enter(struct progress *p, int32_t partition, const struct map_producer_id *id)
{
    struct offer_entry *o = offer_entry(p, partition);
    if (o && o->id.offered_at <= id->offered_at)
        return;
    if (!o) {
        o = calloc(1, sizeof *o);
        if (!o) {
            p->failed = true;
            return;
        }
        o->partition = partition;
        HASH_ADD(hh, p->offers, partition, sizeof o->partition, o);
    }
    o->id = *id;
    store_put_producer_id(p->batch, p->flow.number, partition, id);
}

bool progress_producer_id(struct progress *p, int32_t partition, struct map_producer_id *out)
{
    struct offer_entry *o = offer_entry(p, partition);
    if (!o)
        return false;
    *out = o->id;
    return true;
}

/* ---- what the store has ---- */

static int load_topic(void *arg, const struct stored_topic *t)
{
    struct progress *p = arg;
    if (t->flow == p->flow.number &&
        !topic_enter(p, &t->topic, t->number, t->topic.name.n > 0 && t->target_topic.n > 0))
        return -E_NOMEM;
    return 0;
}

static int load_offer(void *arg, int32_t partition, const struct map_producer_id *id)
{
    progress_offer_enter(arg, partition, id);
    return 0;
}

static int load(struct progress *p, struct err *err)
{
    struct store_view *v;
    struct stored_flow f;
    int rc = store_view_open(p->store, &v, err);
    if (rc)
        return rc;
    rc = store_flow(v, slice_str(p->flow_name), &f);
    if (rc == 1) {
        p->flow.number = f.number;
        p->flow.progress_topic_id = f.progress_topic_id;
        p->flow.progress_next = f.progress_next;
        p->stored = true;
        rc = store_topics_each(v, load_topic, p);
        if (!rc)
            rc = store_producer_ids_each(v, f.number, load_offer, p);
        store_batch_clear(p->batch); /* load_offer has put them there again */
    } else if (rc == 0) {
        p->flow.number = store_new_flow(p->store);
    }
    store_view_close(v);
    return rc < 0 ? err_set(err, rc, "flow %s: the store cannot be read: %s", p->flow_name, err_str(rc)) : 0;
}

/* ---- reading the topic ---- */

static void apply_position(struct progress *p, const struct map_position *pos, bool foreign)
{
    struct map_position had;
    struct store_view *v;
    uint32_t number = progress_topic(p, &pos->topic, pos->target_topic, &pos->target_topic_id);
    if (store_view_open(p->store, &v, NULL)) {
        p->failed = true;
        return;
    }
    int rc = store_position(v, number, pos->p, &had);
    bool newer = rc <= 0 || pos->generation > had.generation ||
                 (pos->generation == had.generation && pos->next_offset >= had.next_offset);
    if (newer && !foreign)
        store_put_position(p->batch, number, pos);
    store_view_close(v);
    if (foreign && !newer)
        p->stale(p->arg, number, pos->p);
}

/* `foreign`: read while running, where runs and positions of our own are better; the offers count all the same. */
static void apply_record(struct progress *p, const struct compact_record *r, bool foreign)
{
    struct progress_key key;
    struct arena a;
    arena_init(&a, (size_t)32 << 20);
    int rc = slice_is_null(r->key) ? -E_CORRUPT : progress_key_decode(r->key, &a, &key);
    bool tombstone = slice_is_null(r->value);
    if (!rc && !tombstone && key.kind == PROGRESS_PRODUCER_ID) {
        struct map_producer_id id;
        if (!(rc = producer_id_decode(r->value, &a, &id))) {
            id.offered_at = r->offset;
            progress_offer_enter(p, key.p, &id);
        }
    } else if (!rc && tombstone && key.kind == PROGRESS_POSITION && !foreign) {
        uint32_t number;
        if (progress_topic_find(p, &key.topic, &number))
            store_delete_position(p->batch, number, key.p);
    } else if (!rc && !tombstone && key.kind == PROGRESS_RUN && !foreign) {
        struct map_run run;
        if (!(rc = run_decode(r->value, &a, key.src_start, &run)))
            store_merge_run(p->batch, progress_topic(p, &key.topic, SLICE_NULL, NULL), key.p, &run);
    } else if (!rc && !tombstone && key.kind == PROGRESS_POSITION) {
        struct map_position pos;
        if (!(rc = position_decode(r->value, &a, &pos)))
            apply_position(p, &pos, foreign);
    }
    arena_fini(&a);
    p->unreadable += rc != 0;
}

static void each_read(void *arg, const struct compact_record *r)
{
    struct progress *p = arg;
    p->records_read++;
    apply_record(p, r, false);
}

static void all_read(struct progress *p)
{
    assert(p->state == PROGRESS_READING && p->read_next >= p->read_upto);
    bool lost_store = !p->stored && p->records_read > 0;
    p->flow.progress_next = p->read_upto;
    if (lost_store) {
        struct ledger_event e = {.wall_ms = loop_wall_ms(p->loop),
                                 .flow = slice_str(p->flow_name),
                                 .kind = slice_str(ledger_kind_name(LEDGER_REBUILT)),
                                 .topic = slice_str(p->topic),
                                 .partition = -1,
                                 .count = p->records_read};
        store_put_event(p->batch, &e);
    }
    bool lost_topic = p->stored && !uuid_eq(&p->flow.progress_topic_id, &p->topic_id);
    p->state = lost_topic ? PROGRESS_REWRITING : PROGRESS_OPENED;
    if (!lost_topic)
        p->flow.progress_topic_id = p->topic_id;
    p->stored = true;
    commit_store(p);
}

static void on_read(void *arg, int status, int64_t next)
{
    struct progress *p = arg;
    if (p->failed) {
        p->trouble(p->arg, "out of memory while the progress topic was read");
        return;
    }
    if (status == -E_RANGE) {
        /* The topic is shorter than the store knows it: cut by an unclean election, or another one. All of it again. */
        p->flow.progress_next = 0;
        p->read_next = 0;
        p->flow.progress_topic_id = (struct uuid){{0xff}};
    } else if (status) {
        p->trouble(
            p->arg,
            "the progress topic is damaged: see the target broker's log; the mirror cannot start from it");
        return;
    } else {
        p->read_next = next;
    }
    if (store_batch_bytes(p->batch) >= READ_BATCH_MAX)
        commit_store(p); /* then reads on */
    else
        read_on(p);
}

static void read_on(struct progress *p)
{
    assert(p->state == PROGRESS_READING && !p->job_running && p->read_next >= 0);
    if (p->read_next >= p->read_upto) {
        all_read(p);
        return;
    }
    int rc = compact_log_read(p->log, p->read_next, p->read_upto, each_read, on_read, p);
    assert(rc == 0); /* nobody else reads while opening */
    (void)rc;
}

static void log_ready(void *arg, const struct uuid *id, int64_t log_start, int64_t end)
{
    struct progress *p = arg;
    (void)log_start;
    p->topic_id = *id;
    if (p->log_seen) {
        /* Made again while we used it: what it held is in the store, and is written again when nothing is under way. */
        p->rewrite = p->rewrite || !uuid_eq(id, &p->flow.progress_topic_id);
        if (p->rewrite && p->state == PROGRESS_OPENED && !p->committing && !p->job_running)
            progress_rewrite(p);
        return;
    }
    p->log_seen = true;
    bool same = p->stored && uuid_eq(id, &p->flow.progress_topic_id);
    p->read_next = same ? p->flow.progress_next : 0;
    p->read_upto = end;
    if (same && end < p->read_next)
        on_read(p, -E_RANGE, 0);
    else
        read_on(p);
}

static void log_trouble(void *arg, const char *text)
{
    struct progress *p = arg;
    p->trouble(p->arg, text);
}

/* ---- committing ---- */

static void store_committed(struct loop_job *job)
{
    struct progress *p = LIST_ENTRY(job, struct progress, job);
    assert(p->job_running);
    p->job_running = false;
    if (p->closed) {
        progress_dispose(p);
        return;
    }
    if (p->job_status) {
        p->trouble(p->arg, p->job_err.text);
        loop_timer_in(&p->store_again, STORE_RETRY_US);
        return;
    }
    store_batch_clear(p->job_batch);
    if (p->store_failing)
        p->trouble(p->arg, NULL);
    p->store_failing = false;
    progress_stored(p);
}

static void run_commit(struct loop_job *job)
{
    struct progress *p = LIST_ENTRY(job, struct progress, job);
    p->job_status = store_commit(p->store, p->job_batch, &p->job_err);
}

static void start_commit(void *arg)
{
    struct progress *p = arg;
    assert(!p->job_running && !p->closed);
    p->store_failing |= p->job_status != 0;
    p->job_running = true;
    loop_job(p->loop, &p->job);
}

static void commit_store(struct progress *p)
{
    assert(!p->job_running && p->flow.number > 0 && p->batch != p->job_batch);
    struct stored_flow f = p->flow;
    f.name = slice_str(p->flow_name);
    store_put_flow(p->batch, &f);
    p->job_status = 0;
    /* What is entered while the job runs gathers for the next commit. */
    struct store_batch *empty = p->job_batch;
    p->job_batch = p->batch;
    p->batch = empty;
    assert(store_batch_empty(empty));
    start_commit(p);
}

static void rewrite_if_due(struct progress *p)
{
    if (p->rewrite && !p->committing && !p->closed)
        progress_rewrite(p);
}

/* What comes after a commit of the store depends on what it was for. */
void progress_stored(struct progress *p)
{
    if (p->state == PROGRESS_READING) {
        read_on(p);
    } else if (p->state == PROGRESS_REWRITING) {
        progress_rewrite(p);
    } else if (!p->said_ready) {
        assert(p->state == PROGRESS_OPENED && p->stored);
        p->said_ready = true;
        p->ready(p->arg);
        rewrite_if_due(p);
    } else if (p->committing) {
        p->committing = false;
        p->done(p->done_arg);
        rewrite_if_due(p);
    }
}

void progress_store(struct progress *p)
{
    commit_store(p);
}

/* ---- life ---- */

int progress_open(const struct progress_options *o, struct progress **out, struct err *err)
{
    struct progress *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    p->loop = o->loop;
    p->store = o->store;
    p->ready = o->ready;
    p->trouble = o->trouble;
    p->stale = o->stale;
    p->arg = o->arg;
    p->job = (struct loop_job){.lane = o->lane, .run = run_commit, .done = store_committed};
    loop_timer_init(&p->store_again, p->loop, start_commit, p);
    buf_init(&p->records, RECORDS_MAX);
    buf_init(&p->key, 4096);
    buf_init(&p->value, (size_t)16 << 20);
    p->flow_name = strndup((const char *)o->flow.p, o->flow.n);
    p->topic = strndup((const char *)o->topic.p, o->topic.n);
    p->batch = store_batch_create(p->store);
    p->job_batch = store_batch_create(p->store);
    int rc = p->flow_name && p->topic && p->batch && p->job_batch
                 ? load(p, err)
                 : err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    struct compact_log_options log = {.loop = o->loop,
                                      .client = o->target,
                                      .name = o->topic,
                                      .replication = -1,
                                      .replication_key = "default.replication.factor",
                                      .ready = log_ready,
                                      .trouble = log_trouble,
                                      .arg = p};
    if (!rc)
        rc = compact_log_open(&log, &p->log, err);
    if (rc) {
        progress_dispose(p);
        return rc;
    }
    *out = p;
    return 0;
}

void progress_dispose(struct progress *p)
{
    void (*closed)(void *) = p->closed;
    void *arg = p->closed_arg;
    struct topic_entry *t, *t_next;
    HASH_ITER (hh, p->topics, t, t_next) {
        HASH_DEL(p->topics, t);
        free(t);
    }
    struct offer_entry *o, *o_next;
    HASH_ITER (hh, p->offers, o, o_next) {
        HASH_DEL(p->offers, o);
        free(o);
    }
    compact_log_close(p->log);
    store_batch_destroy(p->batch);
    store_batch_destroy(p->job_batch);
    buf_fini(&p->records);
    buf_fini(&p->key);
    buf_fini(&p->value);
    free(p->pieces);
    free(p->own_offers);
    free(p->flow_name);
    free(p->topic);
    free(p);
    if (closed)
        closed(arg);
}

static void nothing(void *arg)
{
    (void)arg;
}

void progress_close(struct progress *p, void (*closed)(void *arg), void *arg)
{
    if (!p) {
        closed(arg);
        return;
    }
    assert(!p->closed);
    p->closed = closed ? closed : nothing;
    p->closed_arg = arg;
    loop_timer_stop(&p->store_again);
    compact_log_close(p->log);
    p->log = NULL;
    if (!p->job_running)
        progress_dispose(p);
}

bool progress_is_ready(const struct progress *p)
{
    return p->said_ready;
}

uint32_t progress_flow_number(const struct progress *p)
{
    return p->flow.number;
}

bool progress_busy(const struct progress *p)
{
    return p->committing || p->state != PROGRESS_OPENED;
}

void progress_apply_foreign(struct progress *p, const struct compact_record *r)
{
    apply_record(p, r, true);
}

size_t progress_bytes(const struct progress *p)
{
    return p->records.n;
}

void progress_abandon(struct progress *p)
{
    if (p)
        progress_dispose(p);
}
