/* A partition's log on its way in and out: opened, made, closed, deleted by jobs, so that the shard does not wait for
 * the disk. What touches log_dirs runs in LANE_DIRS, one job at a time (host_group.c); logs that were found at the start
 * are opened in the flush lanes, many at once. */
#include "broker/partition/host_internal.h"

#include "base/runtime/log.h"
#include "broker/partition/checkpoint.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* A folder that is still being deleted under the same name (perhaps by another shard) is waited for. */
#define RETRY_US    100000
#define RETRIES_MAX 300
/* A log that lacked the room to be opened or made is tried again after so long, doubled each time, and looked at only
 * when there is some. */
#define ROOM_RETRY_MIN_US INT64_C(2000000)
#define ROOM_RETRY_MAX_US INT64_C(60000000)
#define ROOM_BYTES        ((int64_t)4 << 20)

struct partition_index {
    struct found *all;
};

int partition_host_init(struct partition_host *h, struct err *err)
{
    size_t n;
    assert(!h->index);
    const struct log_found *rows = log_dirs_found(h->dirs, &n);
    h->index = calloc(1, sizeof *h->index);
    if (!h->index)
        return err_set(err, -E_NOMEM, "no memory for the list of logs");
    for (size_t i = 0; i < n; i++) {
        struct found *f = calloc(1, sizeof *f);
        if (f) {
            f->row = &rows[i];
            snprintf(f->name, sizeof f->name, "%s-%d", rows[i].topic, rows[i].partition);
            HASH_ADD_STR(h->index->all, name, f);
        }
        if (!f || !HASH_ADDED(f)) {
            free(f);
            partition_host_fini(h);
            return err_set(err, -E_NOMEM, "no memory for the list of logs");
        }
    }
    return 0;
}

void partition_host_fini(struct partition_host *h)
{
    if (!h->index)
        return;
    struct found *f, *next;
    HASH_ITER (hh, h->index->all, f, next) {
        HASH_DEL(h->index->all, f);
        free(f);
    }
    free(h->index);
    h->index = NULL;
}

static struct found *find(const struct partition_host *h, const char *topic, int32_t index)
{
    char name[LOG_TOPIC_MAX + 16];
    struct found *f = NULL;
    snprintf(name, sizeof name, "%s-%d", topic, index);
    if (h->index)
        HASH_FIND_STR(h->index->all, name, f);
    return f;
}

bool host_found(const struct partition_host *h, const char *topic, int32_t index)
{
    return find(h, topic, index) != NULL;
}

static bool hosted(const struct image *image, const struct log_found *row, int32_t node_id)
{
    const struct image_topic *t = image_topic(image, slice_str(row->topic));
    if (!t || (!uuid_is_zero(&row->topic_id) && !uuid_eq(&t->id, &row->topic_id)))
        return false;
    const struct image_partition *p = image_partition(t, row->partition);
    for (int32_t i = 0; p && i < p->replicas_n; i++)
        if (p->replicas[i] == node_id)
            return true;
    return false;
}

void host_report_strays(const struct partition_host *h, const struct image *image)
{
    size_t n, strays = 0;
    const struct log_found *rows = log_dirs_found(h->dirs, &n), *first = NULL;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].topic, "__cluster_metadata") == 0 || hosted(image, &rows[i], h->node_id))
            continue;
        strays++;
        first = first ? first : &rows[i];
    }
    if (first)
        log_warn(
            "broker.partition",
            "logs of no known topic are left alone count=%zu first=%s/%s-%d remedy=\"remove the folders\"",
            strays, log_dir_of(h->dirs, first->dir), first->topic, first->partition);
}

static bool has_room(const struct partition_host *h, unsigned dir)
{
    return log_dir_online(h->dirs, dir) && disk_free_bytes(h->disk, log_dir_of(h->dirs, dir)) >= ROOM_BYTES;
}

/* LOAD and CLOSE. */
static void run(struct loop_job *job)
{
    struct host_job *j = LIST_ENTRY(job, struct host_job, job);
    struct partition *p = j->p; /* only what does not change while the job runs */
    struct partition_host *h = p->set->host;
    if (j->what == HOST_CLOSE) {
        j->rc = log_close(j->log, &j->err);
        return;
    }
    assert(j->what == HOST_LOAD);
    assert(j->found);
    j->dir = j->found->row->dir;
    j->skipped = atomic_load(&h->ending);
    if (j->skipped)
        return;
    if (j->again && !has_room(h, j->dir))
        j->rc = err_set(&j->err, -E_NOSPACE, "no space left in %s", log_dir_of(h->dirs, j->dir));
    else
        j->rc =
            log_dirs_load(h->dirs, j->found->row, &j->config, p->set->files, j->wall_ms, &j->log, &j->err);
}

static void done(struct loop_job *job);

static bool start(struct partition *p, enum host_what what, struct found *found)
{
    struct shard *shard = p->set->shard;
    struct host_job *j = calloc(1, sizeof *j);
    assert(!p->host_job);
    assert(!p->flush);
    assert(!p->compaction);
    assert(what != HOST_LOAD || found);
    assert(what != HOST_CLOSE || p->log);
    assert(what != HOST_DELETE || p->log || found);
    assert((what != HOST_LOAD && what != HOST_CREATE) || !p->log);
    if (!j)
        return false;
    *j = (struct host_job){
        .p = p, .what = what, .found = found, .config = p->config, .log = p->log, .dir = p->dir};
    j->wall_ms = loop_wall_ms(shard->loop);
    if (what == HOST_CREATE || what == HOST_DELETE)
        for (size_t i = 0; i < 2; i++)
            j->random[i] = loop_random(shard->loop);
    j->again = sm_state(&p->state) == PARTITION_FAILED;
    p->host_job = j;
    if (what == HOST_CREATE || what == HOST_DELETE) {
        list_push(&p->set->to_group, &j->link); /* until the end of the turn */
        return true;
    }
    j->job.lane = p->lane;
    j->job.run = run;
    j->job.done = done;
    loop_job(shard->loop, &j->job);
    return true;
}

/* Its record names a dir that is not online here: there lies its log, and a new one would be an empty one (S24). */
static bool lies_elsewhere(const struct partition *p)
{
    const struct partition_host *h = p->set->host;
    struct uuid unassigned = uuid_small(1), lost = uuid_small(2);
    bool known = false;
    if (uuid_is_zero(&p->directory) || uuid_eq(&p->directory, &unassigned) || uuid_eq(&p->directory, &lost))
        return false;
    for (unsigned i = 0; i < LOG_DIRS_MAX; i++) {
        if (uuid_eq(&h->dir_ids[i], &p->directory))
            return false;
        known |= !uuid_is_zero(&h->dir_ids[i]);
    }
    return known;
}

void host_open(struct partition *p)
{
    struct found *f = find(p->set->host, p->topic, p->key.index);
    bool ours = f && (uuid_is_zero(&f->row->topic_id) || uuid_eq(&f->row->topic_id, &p->key.topic_id));
    bool load = ours && !atomic_exchange(&f->claimed, true);
    assert(sm_state(&p->state) == PARTITION_OPENING);
    assert(!p->found);
    p->found = load ? f->row : NULL;
    if (!load && lies_elsewhere(p))
        partition_fail(
            p, "its log lies in a log dir that is not online: bring the dir back, or delete the topic");
    else if (!start(p, load ? HOST_LOAD : HOST_CREATE, f))
        partition_fail(p, "out of memory");
}

static void retry(void *arg)
{
    struct partition *p = arg;
    assert(sm_state(&p->state) != PARTITION_CLOSING);
    assert(sm_state(&p->state) != PARTITION_ONLINE);
    bool load = p->found != NULL; /* only one that lacked room is tried again */
    if (!start(p, load ? HOST_LOAD : HOST_CREATE, load ? find(p->set->host, p->topic, p->key.index) : NULL))
        partition_fail(p, "out of memory");
}

void host_init_retry(struct partition *p)
{
    loop_timer_init(&p->retry, p->set->shard->loop, retry, p);
}

void host_opened(struct partition *p)
{
    struct partitions *ps = p->set;
    assert(sm_state(&p->state) == PARTITION_OPENING);
    assert(p->log);
    assert(list_empty(&p->parked));
    assert(ps->opening_n > 0);
    ps->opening_n--;
    sm_move(&p->state, PARTITION_ONLINE);
    metric_add(ps->online_n, 1);
    if (p->role == PARTITION_LEADER)
        log_epoch_assign(p->log, p->leader_epoch, log_end_offset(p->log));
    p->high_watermark = log_start_offset(p->log);
    watermark_follow(p);
    partition_placed(p);
    if (!list_empty(&p->pending) && !list_linked(&p->dirty))
        list_push(&ps->dirty, &p->dirty);
    partition_changed(p);
    partition_tell_watches(p, false);
    INVARIANT(p);
}

/* There is room again. */
static void reopening(struct partition *p)
{
    struct partitions *ps = p->set;
    assert(sm_state(&p->state) == PARTITION_FAILED);
    assert(list_empty(&p->pending));
    log_info("broker.partition", "there is room again partition=%s-%d", p->topic, p->key.index);
    sm_move(&p->state, PARTITION_OPENING);
    p->why[0] = 0;
    p->room_retry_us = 0;
    metric_add(ps->failed_n, -1);
    ps->opening_n++;
}

/* The log is there. What recovery kept is made durable before anybody reads it (D6); where acks do not wait for the
 * disk, readers do not either. */
static void opened(struct partition *p, struct host_job *j)
{
    assert(!p->log);
    assert(j->log);
    assert(j->dir < log_dirs_count(p->set->host->dirs));
    if (sm_state(&p->state) == PARTITION_FAILED)
        reopening(p);
    p->log = j->log;
    p->dir = j->dir;
    log_configure(p->log, &p->config);
    const struct log_recovery *r = log_recovery(p->log);
    if (r->bytes_cut > 0)
        log_warn("broker.partition",
                 "torn tail cut partition=%s-%d file=%s position=%lld bytes=%lld batches_lost=%lld", p->topic,
                 p->key.index, r->cut_file, (long long)r->cut_position, (long long)r->bytes_cut,
                 (long long)r->batches_lost);
    if (!partition_dir_online(p)) /* it has failed meanwhile */
        return;
    p->first_flush = p->set->host->flush_before_ack;
    if (p->first_flush)
        flush_start(p);
    if (sm_state(&p->state) == PARTITION_OPENING && !p->flush) { /* nothing to flush */
        p->first_flush = false;
        host_opened(p);
    }
}

static void host_free(struct partition *p)
{
    struct partitions *ps = p->set;
    assert(sm_state(&p->state) == PARTITION_CLOSING);
    assert(!p->log);
    assert(!p->host_job);
    assert(!p->flush);
    assert(!p->compaction);
    assert(list_empty(&p->pending));
    assert(list_empty(&p->parked));
    assert(list_empty(&p->waits));
    assert(!list_linked(&p->dirty));
    assert(!list_linked(&p->waiting));
    assert(list_empty(&p->deletions));
    loop_timer_stop(&p->retry);
    HASH_DEL(ps->all, p);
    assert(ps->closing_n > 0);
    ps->closing_n--;
    if (list_linked(&p->to_flush))
        list_remove(&p->to_flush);
    if (list_linked(&p->advanced))
        list_remove(&p->advanced);
    p->magic = 0;
    free(p);
    host_maybe_closed(ps);
}

void host_maybe_closed(struct partitions *ps)
{
    partitions_check(ps);
    if (!ps->closing || ps->closing_n > 0 || !ps->closed || upkeep_busy(ps) || ps->start_write)
        return;
    void (*closed)(void *) = ps->closed;
    ps->closed = NULL;
    closed(ps->closed_arg);
}

static void open_failed(struct partition *p, struct host_job *j)
{
    assert(j->rc < 0);
    assert(j->what == HOST_LOAD || j->what == HOST_CREATE);
    if (j->what == HOST_CREATE && j->rc == -E_EXISTS && p->retries++ < RETRIES_MAX) {
        loop_timer_in(&p->retry, RETRY_US);
        return;
    }
    partition_fail(p, j->err.text);
    if (j->rc == -E_NOSPACE) { /* as a full disk heals by itself elsewhere; any other error is for good */
        p->room_retry_us = p->room_retry_us ? 2 * p->room_retry_us : ROOM_RETRY_MIN_US;
        if (p->room_retry_us > ROOM_RETRY_MAX_US)
            p->room_retry_us = ROOM_RETRY_MAX_US;
        loop_timer_in(&p->retry, p->room_retry_us);
    }
    if (j->what == HOST_CREATE && j->rc == -E_IO && j->dir < log_dirs_count(p->set->host->dirs))
        partition_dir_failed(p->set->host, j->dir, j->err.text);
}

void host_doubt(struct partitions *ps, unsigned dir)
{
    assert(dir < LOG_DIRS_MAX);
    ps->clean[dir] = false;
    log_dir_doubt(ps->host->dirs, dir);
}

void partition_host_opened(struct partition_host *h)
{
    bool whole[LOG_DIRS_MAX];
    memset(whole, true, sizeof whole);
    /* The metadata log is checked at every start. */
    for (struct found *f = h->index->all; f; f = f->hh.next)
        whole[f->row->dir] &= atomic_load(&f->claimed) || strcmp(f->row->topic, "__cluster_metadata") == 0;
    for (unsigned i = 0; i < log_dirs_count(h->dirs) && !atomic_load(&h->ending); i++)
        if (whole[i])
            log_dir_keep(h->dirs, i);
}

static void closed(struct partition *p, struct host_job *j)
{
    assert(j->rc <= 0);
    if (j->rc) {
        if (j->rc != -E_FENCED) /* that was said when it happened */
            log_error("broker.partition", "closing failed partition=%s-%d error=%s", p->topic, p->key.index,
                      j->err.text);
        host_doubt(p->set, p->dir);
    }
    if (j->what == HOST_DELETE)
        upkeep_folder_deleted(p->set);
    p->log = NULL;
    host_free(p);
}

/* A log that was not opened is not closed well, whatever becomes of its partition: what an unclean end has left in it
 * is still to be checked. */
static void not_loaded(struct partition *p, const struct host_job *j)
{
    assert(!j->log);
    p->dir = j->dir;
    if (!j->skipped || !log_dir_was_clean(p->set->host->dirs, j->dir))
        host_doubt(p->set, j->dir);
}

void host_job_ended(struct host_job *j)
{
    struct partition *p = j->p;
    assert(p->magic == PARTITION_MAGIC);
    assert(p->host_job == j);
    assert(!p->flush);
    p->host_job = NULL;
    if (j->what == HOST_LOAD && (j->rc || j->skipped))
        not_loaded(p, j);
    if (j->what == HOST_CLOSE || j->what == HOST_DELETE) {
        closed(p, j);
    } else if (sm_state(&p->state) == PARTITION_CLOSING) { /* meanwhile nobody wants it any more */
        if (!j->rc && !j->skipped) {
            p->log = j->log;
            p->dir = j->dir;
        }
        host_quiet(p);
    } else if (j->skipped) {
        assert(!p->log); /* its own shard's end is on its way */
    } else if (j->rc) {
        open_failed(p, j);
    } else {
        opened(p, j);
    }
    free(j);
}

static void done(struct loop_job *job)
{
    host_job_ended(LIST_ENTRY(job, struct host_job, job));
}

void host_quiet(struct partition *p)
{
    if (sm_state(&p->state) != PARTITION_CLOSING || p->flush || p->host_job || p->compaction)
        return;
    INVARIANT(p);
    bool unopened = !p->log && p->remove && p->found && log_dir_online(p->set->host->dirs, p->found->dir);
    if (!p->log && !unopened) {
        host_free(p);
        return;
    }
    if (start(p, p->remove ? HOST_DELETE : HOST_CLOSE,
              unopened ? find(p->set->host, p->topic, p->key.index) : NULL))
        return;
    if (!p->log) {
        host_free(p);
        return;
    }
    host_doubt(p->set, p->dir);
    log_abandon(p->log);
    p->log = NULL;
    host_free(p);
}

void host_close(struct partition *p, bool remove)
{
    struct partitions *ps = p->set;
    assert(p->magic == PARTITION_MAGIC);
    if (sm_state(&p->state) == PARTITION_CLOSING) {
        p->remove |= remove;
        return;
    }
    if (sm_state(&p->state) == PARTITION_OPENING) {
        assert(ps->opening_n > 0);
        ps->opening_n--;
    }
    if (sm_state(&p->state) == PARTITION_ONLINE)
        metric_add(ps->online_n, -1);
    if (sm_state(&p->state) == PARTITION_FAILED)
        metric_add(ps->failed_n, -1);
    partition_tell_watches(p, true);
    sm_move(&p->state, PARTITION_CLOSING);
    ps->closing_n++;
    p->remove = remove;
    if (remove)
        checkpoint_deleting(ps->host->checkpoints);
    loop_timer_stop(&p->retry);
    int16_t error = remove ? KE_UNKNOWN_TOPIC_OR_PARTITION : KE_NOT_LEADER_OR_FOLLOWER;
    append_fail_all(p, error);
    deletion_fail_all(p, error);
    wait_end(p);
    if (list_linked(&p->to_flush))
        list_remove(&p->to_flush);
    if (p->compaction)
        log_compact_stop(p->compaction);
    host_quiet(p);
}
