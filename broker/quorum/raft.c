#include "broker/quorum/raft.h"

#include "base/core/mutant.h"
#include "proto/kafka/errors.h"

#include <assert.h>

#define NEVER INT64_MAX

/* ---- roles ---- */

static bool sound(const void *owner, unsigned role)
{
    const struct raft *r = owner;
    const struct quorum_state *s = &r->state;
    switch ((enum raft_role)role) {
    case RAFT_LEADER: return s->leader_id == r->options.self.id;
    case RAFT_FOLLOWER: return s->leader_id >= 0 && s->leader_id != r->options.self.id;
    case RAFT_CANDIDATE: return s->voted_id == r->options.self.id && s->leader_id == QUORUM_NOBODY;
    case RAFT_RESIGNED: return s->leader_id == r->options.self.id;
    case RAFT_UNATTACHED: return s->leader_id == QUORUM_NOBODY;
    case RAFT_PROSPECTIVE: return raft_is_voter(r);
    }
    return false;
}

static const struct sm_state role_states[] = {
    [RAFT_UNATTACHED] = {"unattached", SM_TO(RAFT_UNATTACHED) | SM_TO(RAFT_PROSPECTIVE) |
                                           SM_TO(RAFT_FOLLOWER) | SM_TO(RAFT_CANDIDATE) |
                                           SM_TO(RAFT_RESIGNED)},
    [RAFT_PROSPECTIVE] = {"prospective",
                          SM_TO(RAFT_CANDIDATE) | SM_TO(RAFT_FOLLOWER) | SM_TO(RAFT_UNATTACHED)},
    [RAFT_CANDIDATE] = {"candidate", SM_TO(RAFT_LEADER) | SM_TO(RAFT_PROSPECTIVE) | SM_TO(RAFT_FOLLOWER) |
                                         SM_TO(RAFT_UNATTACHED)},
    [RAFT_LEADER] = {"leader", SM_TO(RAFT_RESIGNED) | SM_TO(RAFT_UNATTACHED) | SM_TO(RAFT_FOLLOWER)},
    [RAFT_FOLLOWER] = {"follower", SM_TO(RAFT_PROSPECTIVE) | SM_TO(RAFT_UNATTACHED) | SM_TO(RAFT_FOLLOWER)},
    /* to prospective only as a sole voter, which has nobody to wait for */
    [RAFT_RESIGNED] = {"resigned", SM_TO(RAFT_UNATTACHED) | SM_TO(RAFT_PROSPECTIVE) | SM_TO(RAFT_FOLLOWER)},
};
const struct sm_table raft_roles = SM_TABLE("quorum role", role_states, sound);

static bool same_replica(const struct raft_replica *a, const struct raft_replica *b)
{
    return a->id == b->id && (uuid_is_zero(&a->directory_id) || uuid_is_zero(&b->directory_id) ||
                              uuid_eq(&a->directory_id, &b->directory_id));
}

static struct raft_voter *voter_of(const struct raft *r, const struct raft_replica *who)
{
    for (int32_t i = 0; i < r->voters_n; i++) {
        if (same_replica(&r->voters[i].who, who))
            return (struct raft_voter *)(uintptr_t)&r->voters[i];
    }
    return NULL;
}

const struct raft_voter *raft_voter(const struct raft *r, const struct raft_replica *who)
{
    return voter_of(r, who);
}

bool raft_is_voter(const struct raft *r)
{
    return voter_of(r, &r->options.self) != NULL;
}

static bool sole_voter(const struct raft *r)
{
    return r->voters_n == 1 && raft_is_voter(r);
}

static bool known_voter(const struct raft *r, int32_t id)
{
    struct raft_replica who = {.id = id};
    return id >= 0 && voter_of(r, &who) != NULL;
}

/* What holds between events, whatever they were. */
static void check(const struct raft *r)
{
    enum raft_role role = raft_role(r);
    assert(sound(r, role));
    assert(r->voters_n >= 1);
    assert(r->voters_n <= QUORUM_VOTERS_MAX);
    assert(r->state.epoch >= 0);
    assert(r->log.last_epoch >= 0);
    assert(r->log.end_offset >= 0);
    assert(r->state.leader_id >= QUORUM_NOBODY);
    assert(r->state.voted_id >= QUORUM_NOBODY);
    if (role == RAFT_LEADER) { /* its epoch is the newest there is, and its log goes on from where it began */
        assert(r->epoch_start_offset >= 0);
        assert(r->epoch_start_offset <= r->log.end_offset);
        assert(r->high_watermark < 0 || r->high_watermark > r->epoch_start_offset);
        assert(r->high_watermark <= r->log.end_offset);
    }
    assert(role != RAFT_CANDIDATE || raft_is_voter(r));
    /* Who may not vote waits for nothing; who can be elected does not wait for ever. */
    assert(raft_is_voter(r) || role == RAFT_LEADER || role == RAFT_RESIGNED || r->due_us == NEVER);
}

/* S26: in one epoch a node votes once, and what it promises is on its way to disk before anybody hears of it. */
static void check_promise(const struct raft *r, const struct quorum_state *was,
                          const struct raft_effects *out)
{
    bool same_vote = r->state.voted_id == was->voted_id;
    assert(r->state.epoch >= was->epoch);
    if (r->state.epoch == was->epoch) {
        assert(was->voted_id == QUORUM_NOBODY || same_vote);
        if (same_vote)
            return;
    }
    unsigned i = 0;
    while (i < out->n && out->v[i].kind != RAFT_PERSIST)
        i++;
    assert(i < out->n && "a change of epoch or vote is persisted");
    while (i < out->n && !(out->v[i].kind == RAFT_PERSIST && out->v[i].state.epoch == r->state.epoch &&
                           out->v[i].state.voted_id == r->state.voted_id))
        i++;
    assert(i < out->n && "the last of them is what is now");
}

void raft_init(struct raft *r, const struct raft_options *o)
{
    assert(o->voters_n >= 1);
    assert(o->voters_n <= QUORUM_VOTERS_MAX);
    assert(o->self.id >= 0);
    assert(o->election_timeout_us > 0);
    assert(o->fetch_timeout_us > 0);
    *r = (struct raft){.state = QUORUM_STATE_NEW,
                       .options = *o,
                       .voters_n = o->voters_n,
                       .due_us = NEVER,
                       .epoch_start_offset = -1,
                       .high_watermark = -1};
    for (int32_t i = 0; i < o->voters_n; i++)
        r->voters[i] = (struct raft_voter){.who = o->voters[i], .end_offset = -1};
    r->options.voters = NULL; /* borrowed for this call only */
    rng_init(&r->rng, o->seed);
    sm_init(&r->role, &raft_roles, r, RAFT_UNATTACHED);
}

/* ---- effects ---- */

static struct raft_effect *effect(struct raft_effects *out, enum raft_effect_kind kind)
{
    assert(out->n < RAFT_EFFECTS_MAX);
    /* A log that begins an epoch does so behind the write of that epoch. */
    assert(kind != RAFT_APPEND_LEADER_CHANGE || MUTANT("vote_not_persisted") ||
           (out->n > 0 && out->v[out->n - 1].kind == RAFT_PERSIST));
    struct raft_effect *e = &out->v[out->n++];
    *e = (struct raft_effect){.kind = kind};
    return e;
}

/* The state as it is now goes to disk before whatever follows. Two writes with nothing between them are one. */
static void persist(struct raft *r, struct raft_effects *out)
{
    if (MUTANT("vote_not_persisted"))
        return;
    if (out->n > 0 && out->v[out->n - 1].kind == RAFT_PERSIST)
        out->n--;
    effect(out, RAFT_PERSIST)->state = r->state;
}

static int64_t election_timeout(struct raft *r)
{
    int64_t t = r->options.election_timeout_us;
    return t + (int64_t)rng_below(&r->rng, (uint64_t)t);
}

static void forget_votes(struct raft *r)
{
    for (int32_t i = 0; i < r->voters_n; i++)
        r->voters[i].granted = r->voters[i].refused = false;
}

static int32_t granted_n(const struct raft *r)
{
    int32_t n = 0;
    for (int32_t i = 0; i < r->voters_n; i++)
        n += r->voters[i].granted;
    return n;
}

static int32_t refused_n(const struct raft *r)
{
    int32_t n = 0;
    for (int32_t i = 0; i < r->voters_n; i++)
        n += r->voters[i].refused;
    return n;
}

static int32_t majority(const struct raft *r)
{
    return r->voters_n / 2 + 1;
}

/* ---- moves ---- */

static void become_unattached(struct raft *r, int32_t epoch, int64_t now_us, struct raft_effects *out)
{
    assert(epoch >= r->state.epoch);
    bool timer_runs = r->due_us != NEVER && raft_role(r) != RAFT_LEADER && raft_role(r) != RAFT_RESIGNED;
    if (epoch > r->state.epoch) {
        r->state =
            (struct quorum_state){.epoch = epoch, .leader_id = QUORUM_NOBODY, .voted_id = QUORUM_NOBODY};
        persist(r, out);
    }
    r->state.leader_id = QUORUM_NOBODY;
    sm_move(&r->role, RAFT_UNATTACHED);
    if (!raft_is_voter(r))
        r->due_us = NEVER;
    else if (!timer_runs)
        r->due_us = now_us + election_timeout(r);
}

static void become_follower(struct raft *r, int32_t epoch, int32_t leader_id, int64_t now_us,
                            struct raft_effects *out)
{
    assert(epoch >= r->state.epoch);
    assert(leader_id != r->options.self.id);
    bool changed = epoch != r->state.epoch || leader_id != r->state.leader_id;
    if (epoch > r->state.epoch)
        r->state = (struct quorum_state){.epoch = epoch, .voted_id = QUORUM_NOBODY};
    r->state.leader_id = leader_id; /* a vote in this epoch stays */
    if (changed) {
        r->fetched = false;
        persist(r, out);
    }
    sm_move(&r->role, RAFT_FOLLOWER);
    r->due_us = raft_is_voter(r) ? now_us + r->options.fetch_timeout_us : NEVER;
}

static void become_leader(struct raft *r, int64_t now_us, struct raft_effects *out)
{
    assert(raft_role(r) == RAFT_CANDIDATE);
    assert(granted_n(r) >= majority(r));
    assert(r->state.voted_id == r->options.self.id);
    assert(r->log.last_epoch < r->state.epoch);
    r->state.leader_id = r->options.self.id;
    persist(r, out);
    sm_move(&r->role, RAFT_LEADER);
    r->epoch_start_offset = r->log.end_offset;
    r->high_watermark = -1; /* known again once an entry of this epoch is held by a majority */
    for (int32_t i = 0; i < r->voters_n; i++) {
        r->voters[i].end_offset = -1;
        r->voters[i].fetched_us = now_us;
    }
    r->due_us = r->voters_n > 1 ? now_us + r->options.fetch_timeout_us * 3 / 2 : NEVER;
    effect(out, RAFT_APPEND_LEADER_CHANGE)->epoch = r->state.epoch;
}

static void ask_votes(struct raft *r, bool pre_vote, struct raft_effects *out)
{
    assert(raft_role(r) == (pre_vote ? RAFT_PROSPECTIVE : RAFT_CANDIDATE));
    if (r->voters_n == 1)
        return;
    struct raft_effect *e = effect(out, RAFT_ASK_VOTES);
    e->pre_vote = pre_vote;
    e->epoch = r->state.epoch;
    e->log = r->log;
}

static void begin_votes(struct raft *r, bool pre_vote, int64_t now_us, struct raft_effects *out)
{
    struct raft_voter *self = voter_of(r, &r->options.self);
    assert(self && "only voters ask for votes");
    forget_votes(r);
    self->granted = true;
    r->due_us = now_us + election_timeout(r);
    ask_votes(r, pre_vote, out);
}

static void become_candidate(struct raft *r, int64_t now_us, struct raft_effects *out)
{
    assert(raft_is_voter(r));
    assert(r->state.epoch < INT32_MAX);
    r->state = (struct quorum_state){.epoch = r->state.epoch + 1,
                                     .leader_id = QUORUM_NOBODY,
                                     .voted_id = r->options.self.id,
                                     .voted_directory_id = r->options.self.directory_id};
    persist(r, out);
    assert(raft_role(r) == RAFT_PROSPECTIVE); /* no epoch is raised that could not be won (S30) */
    sm_move(&r->role, RAFT_CANDIDATE);
    begin_votes(r, false, now_us, out);
    if (granted_n(r) >= majority(r))
        become_leader(r, now_us, out);
}

/* Asks first whether an election could be won, so that a node that was cut off does not raise epochs (KIP-996). */
static void become_prospective(struct raft *r, int64_t now_us, struct raft_effects *out)
{
    sm_move(&r->role, RAFT_PROSPECTIVE);
    begin_votes(r, true, now_us, out);
    if (granted_n(r) >= majority(r))
        become_candidate(r, now_us, out);
}

/* ---- events ---- */

static void on_start(struct raft *r, const struct raft_event *e, struct raft_effects *out)
{
    r->log = e->log;
    r->state = e->state;
    if (r->log.last_epoch > r->state.epoch)
        r->state = (struct quorum_state){
            .epoch = r->log.last_epoch, .leader_id = QUORUM_NOBODY, .voted_id = QUORUM_NOBODY};
    int32_t self = r->options.self.id, leader = r->state.leader_id;
    r->due_us = e->now_us + election_timeout(r);
    if (leader == self) {
        sm_init(&r->role, &raft_roles, r, RAFT_RESIGNED);
    } else if (raft_is_voter(r) && r->state.voted_id == self && leader == QUORUM_NOBODY) {
        sm_init(&r->role, &raft_roles, r, RAFT_CANDIDATE);
        if (!sole_voter(r))
            begin_votes(r, false, e->now_us, out);
    } else if (known_voter(r, leader)) {
        sm_init(&r->role, &raft_roles, r, RAFT_FOLLOWER);
        r->due_us = raft_is_voter(r) ? e->now_us + r->options.fetch_timeout_us : NEVER;
    } else {
        r->state.leader_id = QUORUM_NOBODY;
        if (!raft_is_voter(r))
            r->due_us = NEVER;
    }
    if (sole_voter(r))
        become_prospective(r, e->now_us, out);
}

/* The leader resigns when no majority (itself counted) has fetched for one and a half fetch timeouts (KAFKA-15489). */
static void check_quorum(struct raft *r, int64_t now_us)
{
    int64_t patience = r->options.fetch_timeout_us * 3 / 2;
    int32_t heard = 0;
    assert(raft_role(r) == RAFT_LEADER);
    assert(r->voters_n > 1);
    for (int32_t i = 0; i < r->voters_n; i++)
        heard +=
            same_replica(&r->voters[i].who, &r->options.self) || r->voters[i].fetched_us + patience > now_us;
    if (heard >= majority(r)) {
        r->due_us = now_us + patience / 3;
        return;
    }
    sm_move(&r->role, RAFT_RESIGNED);
    r->due_us = now_us + election_timeout(r);
}

static void lose_votes(struct raft *r, int64_t now_us, struct raft_effects *out)
{
    if (known_voter(r, r->state.leader_id) && r->state.leader_id != r->options.self.id) {
        become_follower(r, r->state.epoch, r->state.leader_id, now_us, out);
    } else {
        r->due_us = NEVER; /* a new timer */
        become_unattached(r, r->state.epoch, now_us, out);
    }
}

static void on_time(struct raft *r, const struct raft_event *e, struct raft_effects *out)
{
    if (e->now_us < r->due_us)
        return;
    switch (raft_role(r)) {
    case RAFT_UNATTACHED:
    case RAFT_FOLLOWER:
    case RAFT_CANDIDATE: become_prospective(r, e->now_us, out); break;
    case RAFT_PROSPECTIVE: lose_votes(r, e->now_us, out); break;
    case RAFT_LEADER: check_quorum(r, e->now_us); break;
    case RAFT_RESIGNED: become_unattached(r, r->state.epoch + 1, e->now_us, out); break;
    }
}

static bool up_to_date(const struct raft *r, const struct raft_log_end *theirs)
{
    return theirs->last_epoch != r->log.last_epoch ? theirs->last_epoch > r->log.last_epoch
                                                   : theirs->end_offset >= r->log.end_offset;
}

static bool grant_pre_vote(const struct raft *r, const struct raft_event *e)
{
    enum raft_role role = raft_role(r);
    return up_to_date(r, &e->log) && role != RAFT_LEADER && (role != RAFT_FOLLOWER || !r->fetched);
}

static bool grant_vote(const struct raft *r, const struct raft_event *e)
{
    if (raft_role(r) != RAFT_UNATTACHED && raft_role(r) != RAFT_PROSPECTIVE)
        return false;
    if (r->state.voted_id != QUORUM_NOBODY)
        return r->state.voted_id == e->peer.id &&
               (uuid_is_zero(&r->state.voted_directory_id) ||
                uuid_eq(&r->state.voted_directory_id, &e->peer.directory_id));
    return r->state.leader_id == QUORUM_NOBODY && up_to_date(r, &e->log);
}

static void on_vote_request(struct raft *r, const struct raft_event *e, struct raft_effects *out)
{
    bool granted = false;
    int16_t error = KE_NONE;
    if (e->epoch < r->state.epoch) {
        error = KE_FENCED_LEADER_EPOCH;
    } else {
        if (e->epoch > r->state.epoch)
            become_unattached(r, e->epoch, e->now_us, out);
        granted = e->pre_vote ? grant_pre_vote(r, e) : grant_vote(r, e);
    }
    if (granted && !e->pre_vote) {
        assert(r->state.leader_id == QUORUM_NOBODY || r->state.voted_id == e->peer.id);
        r->state.voted_id = e->peer.id;
        r->state.voted_directory_id = e->peer.directory_id;
        persist(r, out);
        r->due_us = e->now_us + election_timeout(r);
    }
    struct raft_effect *answer = effect(out, RAFT_ANSWER_VOTE);
    answer->granted = granted;
    answer->error = error;
    answer->epoch = r->state.epoch;
    answer->pre_vote = e->pre_vote;
}

static void on_vote_result(struct raft *r, const struct raft_event *e, struct raft_effects *out)
{
    enum raft_role asked = e->pre_vote ? RAFT_PROSPECTIVE : RAFT_CANDIDATE;
    struct raft_voter *v = voter_of(r, &e->peer);
    if (!v || e->epoch != r->state.epoch || raft_role(r) != asked)
        return; /* an answer to what we no longer ask (KAFKA-18723) */
    v->granted |= e->granted;
    v->refused |= !e->granted;
    if (granted_n(r) >= majority(r)) {
        if (e->pre_vote)
            become_candidate(r, e->now_us, out);
        else
            become_leader(r, e->now_us, out);
    } else if (e->pre_vote && refused_n(r) >= majority(r)) {
        lose_votes(r, e->now_us, out);
    }
}

static void on_epoch_seen(struct raft *r, const struct raft_event *e, struct raft_effects *out)
{
    bool leader = e->leader_id >= 0 && e->leader_id != r->options.self.id && known_voter(r, e->leader_id);
    if (e->epoch > r->state.epoch) {
        if (leader)
            become_follower(r, e->epoch, e->leader_id, e->now_us, out);
        else
            become_unattached(r, e->epoch, e->now_us, out);
        return;
    }
    enum raft_role role = raft_role(r);
    if (e->epoch < r->state.epoch || !leader || role == RAFT_LEADER || role == RAFT_RESIGNED)
        return; /* a leader of our own epoch beside us would be two in one epoch: not believed */
    if (r->state.leader_id == QUORUM_NOBODY || (r->state.leader_id == e->leader_id && role != RAFT_FOLLOWER))
        become_follower(r, e->epoch, e->leader_id, e->now_us, out);
}

/* A majority's end, above where this epoch began: earlier epochs are committed only through an entry of our own. */
static void advance(struct raft *r, struct raft_effects *out)
{
    int64_t ends[QUORUM_VOTERS_MAX];
    for (int32_t i = 0; i < r->voters_n; i++) {
        int32_t at = i; /* insertion, largest first */
        for (; at > 0 && ends[at - 1] < r->voters[i].end_offset; at--)
            ends[at] = ends[at - 1];
        ends[at] = r->voters[i].end_offset;
    }
    int64_t held = ends[r->voters_n / 2];
    assert(raft_role(r) == RAFT_LEADER);
    assert(held <= ends[0]);
    if (held <= r->epoch_start_offset || held <= r->high_watermark)
        return;
    assert(r->log.last_epoch == r->state.epoch); /* S27: through an entry of its own */
    r->high_watermark = held;
    effect(out, RAFT_COMMIT)->offset = held;
}

static void on_end_offset(struct raft *r, const struct raft_replica *who, const struct raft_event *e,
                          struct raft_effects *out)
{
    struct raft_voter *v = voter_of(r, who);
    if (raft_role(r) != RAFT_LEADER || !v)
        return; /* a leader that was removed from the voters does not count itself (KAFKA-16530) */
    assert(e->offset >= 0);
    assert(e->offset <= r->log.end_offset);
    v->fetched_us = e->now_us;
    v->end_offset = e->offset;
    advance(r, out);
}

void raft_step(struct raft *r, const struct raft_event *e, struct raft_effects *out)
{
    struct quorum_state was = r->state;
    int64_t watermark_was = r->high_watermark;
    out->n = 0;
    assert(e->kind == RAFT_START || e->kind == RAFT_RESIGN || r->log.last_epoch <= r->state.epoch);
    switch (e->kind) {
    case RAFT_START: on_start(r, e, out); break;
    case RAFT_TIME: on_time(r, e, out); break;
    case RAFT_LOG_APPENDED:
        assert(raft_role(r) != RAFT_LEADER || e->log.end_offset > r->log.end_offset); /* it only appends */
        r->log = e->log;
        break;
    case RAFT_LOG_SYNCED: on_end_offset(r, &r->options.self, e, out); break;
    case RAFT_VOTE_REQUEST: on_vote_request(r, e, out); break;
    case RAFT_VOTE_RESULT: on_vote_result(r, e, out); break;
    case RAFT_EPOCH_SEEN: on_epoch_seen(r, e, out); break;
    case RAFT_VOTER_FETCHED: on_end_offset(r, &e->peer, e, out); break;
    case RAFT_FETCH_OK:
        r->fetched = true;
        if (raft_role(r) == RAFT_FOLLOWER && raft_is_voter(r))
            r->due_us = e->now_us + r->options.fetch_timeout_us;
        break;
    case RAFT_RESIGN:
        if (raft_role(r) == RAFT_LEADER)
            sm_move(&r->role, RAFT_RESIGNED);
        r->due_us = NEVER;
        break;
    }
    assert(r->state.epoch > was.epoch || r->high_watermark >= watermark_was || raft_role(r) == RAFT_LEADER);
    if (e->kind != RAFT_START && !MUTANT("vote_not_persisted"))
        check_promise(r, &was, out);
    check(r);
}
