/* What happens in the rig's time: answers, asked-for facts, records fed to the lanes; and the verdict in the end. */
#include "tests/unit/mirror/target/rig.h"

/* ---- what happens in time ---- */

static void answer_ask(struct rig *r, struct event *e)
{
    struct lane *l = group_lane(&r->m[e->mirror].g, e->q);
    struct target_model *t = &r->t[e->q];
    struct lane_trouble none = {0}, closed = {.status = -E_CLOSED}, version = {.status = -E_VERSION};
    struct lane_trouble *tr = e->answer.status ? &closed : &none;
    int32_t epoch = -1, last = -1;
    int64_t ts = -1;
    bool known;
    switch (e->ask.kind) {
    case LANE_OFFSETS: lane_offsets(l, e->ask.ticket, tr, t->log_start, t->visible, target_epoch(t)); break;
    case LANE_EPOCH_END: lane_epoch_end(l, e->ask.ticket, tr, target_epoch_end(t, e->ask.epoch)); break;
    case LANE_PRODUCERS:
        known = target_describe(t, RIG_PID, &epoch, &last, &ts);
        if (t->no_describe && !tr->status)
            tr = &version;
        lane_producers(l, e->ask.ticket, tr, known, epoch, last, ts);
        break;
    case LANE_READ: {
        struct buf out;
        int64_t from = e->ask.from, next = from;
        buf_init(&out, 64 << 20);
        if (from < t->log_start)
            next = t->log_start;
        else
            target_read(t, from, 3000, &out);
        lane_read(l, e->ask.ticket, tr, buf_slice(&out), next, t->log_start);
        buf_fini(&out);
        break;
    }
    default: break;
    }
}

static void happen(struct rig *r, struct event *e)
{
    struct mirror *m = &r->m[e->mirror];
    struct event was = *e;
    e->kind = EV_FREE;
    if (was.kind == EV_APPLY) {
        struct target_model *t = &r->t[was.q];
        struct lane_answer a = {.append_time_ms = -1, .base_offset = -1};
        struct batch_header h;
        int64_t end = t->end;
        t->now_ms = wall(r);
        a.error = target_produce(t, slice_of(was.bytes, was.size), &a.base_offset);
        if (t->append_time && a.error == KE_NONE)
            a.append_time_ms = t->now_ms;
        else if (a.error == KE_NONE && t->end == end &&
                 !batch_header_read(slice_of(was.bytes, was.size), &h, NULL))
            a.append_time_ms = h.max_timestamp; /* a duplicate: as Kafka answers it */
        free(was.bytes);
        if (!was.batch || was.generation != m->generation)
            return;
        int64_t due = r->now + delay(r);
        due = due > m->answer_due[was.q] ? due : m->answer_due[was.q];
        m->answer_due[was.q] = due;
        was.kind = EV_ANSWER;
        was.due = due;
        was.answer = a;
        was.bytes = NULL;
        rig_event(r, was);
        if (rng_chance(&r->rng, r->lose_answers))
            rig_break(r, was.mirror, true);
        return;
    }
    if (!m->up || was.generation != m->generation)
        return;
    if (was.kind == EV_ASK) {
        answer_ask(r, &was);
    } else if (was.batch) {
        lane_produced(group_lane(&m->g, was.q), was.batch, &was.answer);
    } else if (was.ask.kind != LANE_NOTHING) {
        answer_ask(r, &was);
    }
    group_touched(&m->g);
}

/* Where batches begin at the source is a matter of chance, but does not change. */
static uint64_t batch_dice(const struct rig *r, int64_t offset)
{
    return ((uint64_t)offset * UINT64_C(0x9e3779b97f4a7c15) + r->seed) >> 33;
}

static bool batch_begins(const struct rig *r, int64_t offset)
{
    return offset <= 100 || batch_dice(r, offset) % 7 == 0;
}

/* The batch around the record at *cursor, which moves behind it; the offset behind it. */
static int64_t source_batch(const struct rig *r, size_t *cursor, struct buf *out)
{
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    size_t i = *cursor;
    while (i > 0 && !batch_begins(r, r->s.v[i].offset))
        i--;
    uint64_t dice = batch_dice(r, r->s.v[i].offset + 1000003);
    int64_t base = r->s.v[i].offset, last = base;
    o.codec = (enum codec)(dice % CODEC_COUNT);
    o.base_offset = base;
    o.leader_epoch = 0;
    o.producer_id = (int64_t)(dice % 1000) - 1;
    o.producer_epoch = 3;
    o.base_sequence = (int32_t)dice;
    o.attributes = dice % 3 == 0 ? BATCH_TRANSACTIONAL : 0;
    o.delete_horizon = dice % 5 == 0 ? r->s.v[i].timestamp + 7 : BATCH_NO_TIMESTAMP;
    batch_begin(&b, out, &o);
    for (; i < r->s.n && (r->s.v[i].offset == base || !batch_begins(r, r->s.v[i].offset)); i++) {
        const struct src_record *s = &r->s.v[i];
        const struct record_new n = {
            .timestamp = s->timestamp, .key = slice_str(s->key), .value = slice_str(s->value)};
        last = s->offset;
        if (!s->gone)
            cr_assert_eq(batch_add_at(&b, (int32_t)(last - base), &n), 0);
    }
    batch_last_offset_delta_set(&b, (int32_t)(last - base));
    cr_assert_eq(batch_close(&b, NULL), 0);
    *cursor = i;
    return last + 1;
}

/* Some batches; where the reading has come to, -1: there is nothing. */
static int64_t feed_batches(struct rig *r, struct mirror *m, int n)
{
    int64_t covered = -1;
    struct buf bytes;
    buf_init(&bytes, 1 << 24);
    for (; n > 0 && m->cursor < r->s.n; n--) {
        struct src_record *s = &r->s.v[m->cursor];
        if (s->gone || s->offset < m->read_at || s->offset < r->s.start) {
            m->cursor++;
            n++;
            continue;
        }
        int64_t next = s->offset;
        buf_clear(&bytes);
        covered = source_batch(r, &m->cursor, &bytes);
        size_t before = m->g.lanes[0].sealed;
        bool open = m->g.lanes[0].open != NULL;
        cr_assert_eq(group_take_batch(&m->g, 0, &(struct port_batch){.bytes = buf_slice(&bytes)}, &next), 0);
        cr_assert_leq(next, covered);
        bool whole = !open && m->g.lanes[0].sealed == before + 1 && !m->g.lanes[0].open;
        r->passed += whole;
        r->unpacked += !whole;
        m->ended_told = false;
    }
    buf_fini(&bytes);
    return covered;
}

static int64_t feed_records(struct rig *r, struct mirror *m, int n)
{
    int64_t covered = -1;
    for (; n > 0 && m->cursor < r->s.n; m->cursor++) {
        struct src_record *s = &r->s.v[m->cursor];
        if (s->gone || s->offset < m->read_at || s->offset < r->s.start)
            continue;
        struct port_record rec = {.offset = s->offset,
                                  .timestamp_ms = s->timestamp,
                                  .key = slice_str(s->key),
                                  .value = slice_str(s->value)};
        cr_assert_eq(group_take(&m->g, route(r, s), &rec), 0);
        covered = s->offset + 1;
        m->ended_told = false;
        n--;
    }
    return covered;
}

static void feed(struct rig *r, int mi)
{
    struct mirror *m = &r->m[mi];
    while (m->reading && m->room) {
        if (!(m->room = group_can_take(&m->g)))
            return;
        int n = (int)rng_range(&r->rng, 1, r->feed_max);
        /* Whole batches go where there is one lane. */
        bool whole = r->whole && r->lanes == 1;
        int64_t covered = whole ? feed_batches(r, m, n / 4 + 1) : feed_records(r, m, n);
        if (m->cursor == r->s.n)
            covered = r->s.end;
        if (covered > m->read_at) {
            m->read_at = covered;
            group_covered(&m->g, covered, 0);
        }
        if (r->save_when_fed)
            rig_save(r, mi);
        rig_effects(r, mi);
        if (m->cursor == r->s.n) {
            if (!m->ended_told) {
                m->ended_told = true;
                group_source_end(&m->g, r->s.end);
                rig_effects(r, mi);
            }
            break;
        }
    }
}

static void tell_leaders(struct rig *r, int mi)
{
    struct mirror *m = &r->m[mi];
    for (int q = 0; q < r->lanes; q++) {
        if (m->leader_told[q] == target_epoch(&r->t[q]))
            continue;
        m->leader_told[q] = target_epoch(&r->t[q]);
        lane_leader(group_lane(&m->g, q), 1, target_epoch(&r->t[q]));
        group_touched(&m->g);
    }
}

void rig_settle_now(struct rig *r)
{
    for (int mi = 0; mi < r->mirrors; mi++) {
        if (!r->m[mi].up)
            continue;
        group_time(&r->m[mi].g, r->now, wall(r));
        tell_leaders(r, mi);
        rig_effects(r, mi);
        feed(r, mi);
        rig_effects(r, mi);
    }
}

/* One event, or the end of `until`. False when that is reached. */
bool rig_step(struct rig *r, int64_t until)
{
    struct event *next = NULL;
    int64_t due = until;
    rig_settle_now(r);
    for (int mi = 0; mi < r->mirrors; mi++)
        if (r->m[mi].up && group_due(&r->m[mi].g) < due)
            due = group_due(&r->m[mi].g);
    for (int i = 0; i < r->ev_n; i++) {
        struct event *e = &r->ev[i];
        if (e->kind != EV_FREE && (e->due < due || (next && e->due == due && e->seq < next->seq))) {
            next = e;
            due = e->due;
        }
    }
    r->now = due > r->now ? due : r->now;
    for (int q = 0; q < r->lanes; q++)
        r->t[q].now_ms = wall(r);
    for (int mi = 0; mi < r->mirrors; mi++)
        if (r->m[mi].up)
            group_time(&r->m[mi].g, r->now, wall(r));
    if (next)
        happen(r, next);
    return next || due < until;
}

void rig_run(struct rig *r, int64_t us)
{
    int64_t until = r->now + us;
    for (int i = 0; r->now < until && rig_step(r, until); i++)
        cr_assert_lt(i, 2000000, "it never comes to rest");
    rig_settle_now(r);
}

bool rig_quiet(const struct rig *r)
{
    for (int mi = 0; mi < r->mirrors; mi++) {
        const struct mirror *m = &r->m[mi];
        if (!m->up || m->read_at < r->s.end)
            return false;
        for (size_t i = 0; i < m->g.n; i++)
            if (lane_state(&m->g.lanes[i]) != LANE_APPENDING || !lane_idle(&m->g.lanes[i]))
                return false;
    }
    return true;
}

const struct appender_status *rig_status(const struct rig *r, int mi)
{
    return &r->m[mi].g.status;
}

bool rig_finish(struct rig *r, int64_t within)
{
    int64_t until = r->now + within;
    while (r->now < until && !rig_quiet(r)) {
        for (int mi = 0; mi < r->mirrors; mi++)
            if (r->m[mi].up && rig_status(r, mi)->state == APPENDER_HALTED)
                return false;
        if (!rig_step(r, until))
            break;
    }
    return rig_quiet(r);
}

void rig_dump(const struct rig *r)
{
    fprintf(stderr, "now %lld source %lld..%lld\n", (long long)r->now, (long long)r->s.start,
            (long long)r->s.end);
    for (int mi = 0; mi < r->mirrors; mi++) {
        const struct mirror *m = &r->m[mi];
        if (!m->up)
            continue;
        fprintf(stderr,
                "mirror %d: read_at %lld cursor %zu/%zu awaiting %d fed %lld expected %lld missing %lld "
                "can_take %d\n",
                mi, (long long)m->read_at, m->cursor, r->s.n, m->g.awaiting, (long long)m->g.fed,
                (long long)m->g.expected, (long long)m->g.missing, m->room);
        for (size_t i = 0; i < m->g.n; i++) {
            const struct lane *l = &m->g.lanes[i];
            fprintf(stderr,
                    "  q%d %s survey %d step %d asked %d reading %d inflight %u sealed %u open %p failing %d "
                    "resolve %d "
                    "verify %d gaps %zu side %d strikes %u n %lld T %lld src %lld taken %lld retry %lld "
                    "items %zu %s\n",
                    l->c.partition, sm_name(&l->sm), l->survey, l->step, l->asked, l->reading, l->inflight,
                    l->sealed, (void *)l->open, l->failing, l->must_resolve, l->verifying, l->gaps_n,
                    l->side_asked, l->strikes, (long long)l->at.number_next, (long long)l->at.end_offset,
                    (long long)l->at.source_next, (long long)l->taken_next, (long long)l->retry_at_us,
                    l->items_n, l->text);
        }
    }
}

/* ---- the verdict ---- */

static int64_t id_of(struct slice value)
{
    char text[32];
    if (value.n < 2 || value.n >= sizeof text || value.p[0] != 'v')
        return -1;
    slice_cstr(value, text, sizeof text);
    return strtoll(text + 1, NULL, 10);
}

static void bad(struct verdict *v, int *count, int64_t id)
{
    ++*count;
    if (v->first_bad < 0)
        v->first_bad = id;
}

/* Every source record that is still there exactly once, in order; runs point to what they say. */
struct verdict rig_check(struct rig *r)
{
    struct verdict v = {.first_bad = -1};
    size_t span = (size_t)(r->s.end + 1);
    uint8_t *seen = calloc(span, 1);
    int64_t *at = malloc(span * sizeof *at), *times = malloc(span * sizeof *times);
    for (size_t i = 0; i < r->s.n; i++)
        times[r->s.v[i].offset] = r->s.v[i].timestamp;
    for (int q = 0; q < r->lanes; q++) {
        int64_t last = -1;
        for (size_t i = 0; i < r->t[q].log_n; i++) {
            struct target_batch *b = &r->t[q].log[i];
            struct slice payload;
            struct buf scratch;
            struct record_walk w;
            struct record rec;
            struct codec_limits limits = codec_limits_for(CODEC_BYTES_MAX_DEFAULT);
            buf_init(&scratch, 64 << 20);
            cr_assert_eq(batch_payload(&b->h, slice_of(b->bytes, b->size), &limits, &scratch, &payload, NULL),
                         0);
            record_walk_init(&w, &b->h, payload);
            while (record_next(&w, &rec) == 1) {
                int64_t id = id_of(rec.value);
                if (id < 0) {
                    v.strangers++;
                    continue;
                }
                if (seen[id]++)
                    bad(&v, &v.doubled, id);
                else
                    at[id] = rec.offset;
                if (!r->t[q].append_time && rec.timestamp != times[id])
                    bad(&v, &v.wrong_times, id);
                if (id < last)
                    bad(&v, &v.disordered, id);
                last = id > last ? id : last;
            }
            buf_fini(&scratch);
        }
    }
    for (size_t i = 0; i < r->s.n; i++)
        if (!r->s.v[i].gone && r->s.v[i].offset >= r->s.start && !seen[r->s.v[i].offset])
            bad(&v, &v.missing, r->s.v[i].offset);
    for (size_t i = 0; i < r->runs_n; i++) {
        for (int64_t k = 0; k < r->runs[i].count; k++) {
            int64_t src = r->runs[i].src_start + k, dst = r->runs[i].dst_start + k;
            if (seen[src] && at[src] != dst) {
                if (getenv("SUNDOG_SEED"))
                    fprintf(stderr, "run %zu of q%d: %lld is said to be at %lld, is at %lld\n", i,
                            r->runs[i].partition, (long long)src, (long long)dst, (long long)at[src]);
                bad(&v, &v.wrong_runs, src);
            }
        }
    }
    free(seen);
    free(at);
    free(times);
    return v;
}

void rig_assert_good(struct rig *r, uint64_t seed)
{
    struct verdict v = rig_check(r);
    cr_assert(v.missing + v.doubled + v.disordered + v.wrong_runs + v.wrong_times == 0,
              "seed %llu: %d missing, %d doubled, %d out of order, %d wrong runs, %d wrong times, first at "
              "source offset %lld",
              (unsigned long long)seed, v.missing, v.doubled, v.disordered, v.wrong_runs, v.wrong_times,
              (long long)v.first_bad);
}
