/* What the record engine makes of leader epochs, answers and records, by table; test_rdkafka_random.c plays a source. */
#include "mirror/port/rdkafka_history.h"

#include <criterion/criterion.h>
#include <string.h>

#define MS INT64_C(1000)

static const struct history_leader five = {.id = 1, .epoch = 5}, six = {.id = 2, .epoch = 6};

static struct history_record record_at(int64_t offset)
{
    return (struct history_record){offset, 1000 + offset, (uint32_t)offset * 77u, 3};
}

/* As rdkafka_assign.c does. */
static void library_takes(struct history *h)
{
    cr_assert_eq(h->state, PART_ADDING);
    h->state = PART_READING;
}

static struct history_effect answered(struct history *h, int64_t end, int64_t now)
{
    return history_epoch_end(h, PORT_ANSWER_KNOWN, end, NULL, now);
}

/* At 100, in a log that was checked up to leader epoch 5; `last`: the record before was handed out by this reading. */
static void reading(struct history *h, bool last)
{
    history_begin(h, last ? 99 : 100, 4, 0);
    cr_assert_eq(history_look(h, &five, 0).ask, HISTORY_EPOCH_END);
    struct history_effect e = answered(h, 100, 0);
    cr_assert(e.changes && !e.tells && !e.stops && h->leader_epoch == 5);
    library_takes(h);
    if (!last)
        return;
    struct history_record r = record_at(99);
    h->next = 100;
    history_handed_out(h, &r);
}

/* The leader of epoch 6 is asked where ours ends. */
static void new_leader(struct history *h, int64_t now)
{
    struct history_effect e = history_look(h, &six, now);
    cr_assert(e.forget && e.changes && !e.tells && e.ask == HISTORY_EPOCH_END, "nothing is read meanwhile");
    cr_assert(h->state == PART_CHECKING && h->asked_epoch == 6);
}

Test(history, a_position_with_an_epoch_is_judged_before_it_is_read)
{
    static const struct {
        enum port_answer answer;
        int64_t end;
        bool cut;
    } rows[] = {
        {PORT_ANSWER_KNOWN, 100, false}, {PORT_ANSWER_KNOWN, 1000, false},
        {PORT_ANSWER_KNOWN, -1, false}, /* no such epoch, nor an older one */
        {PORT_ANSWER_NONE, -1, false},  /* a cluster that cannot be asked */
        {PORT_ANSWER_KNOWN, 99, true},   {PORT_ANSWER_KNOWN, 0, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct history h;
        history_begin(&h, 100, 4, 0);
        struct history_effect e = history_look(&h, &five, 0);
        cr_assert(e.ask == HISTORY_EPOCH_END && !e.changes && !e.tells);
        cr_assert_eq(history_look(&h, &five, 9000 * MS).ask, HISTORY_NOTHING, "one question at a time");
        e = history_epoch_end(&h, rows[i].answer, rows[i].end, NULL, 0);
        cr_assert_eq(e.stops, rows[i].cut, "row %zu", i);
        cr_assert_eq(h.state, rows[i].cut ? PART_STOPPED : PART_ADDING);
        cr_assert(!rows[i].cut || (e.event == PORT_TRUNCATED && e.end == rows[i].end && e.log_start == -1));
    }
}

Test(history, without_an_epoch_or_a_position_nothing_is_asked)
{
    static const int64_t from[] = {0, 100, PORT_FROM_START, PORT_FROM_END};
    for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
        struct history h;
        history_begin(&h, from[i], from[i] < 0 ? 4 : -1, 0);
        cr_assert_eq(history_look(&h, NULL, 0).changes, false, "metadata does not have it");
        struct history_effect e = history_look(&h, &five, 0);
        cr_assert(e.changes && !e.ask && h.state == PART_ADDING && h.leader_epoch == 5);
    }
}

/* Nothing has been handed out, and no epoch was known: the first leader that was heard of may be an old one. */
Test(history, an_unknown_epoch_is_not_taken_for_the_leaders)
{
    struct history h;
    history_begin(&h, 100, -1, 0);
    history_look(&h, &five, 0);
    library_takes(&h);
    struct history_effect e = history_look(&h, &six, 0);
    cr_assert(e.forget && e.changes && !e.ask && h.state == PART_ADDING && h.leader_epoch == 6);
    library_takes(&h);
    e = history_confirm(&h, &six);
    cr_assert(e.tells && e.event == PORT_POSITION && history_epoch(&h) == 6);
    e = history_look(&h, &(struct history_leader){1, 7}, 0);
    cr_assert(e.ask == HISTORY_EPOCH_END && h.epoch == 6);
}

static struct client_response response(struct kp_offset_for_leader_epoch_response *m, int16_t error)
{
    static struct kp_offset_for_leader_epoch_response_topics t;
    static struct kp_offset_for_leader_epoch_response_partitions p;
    p.error_code = error;
    p.end_offset = 50;
    t.partitions = &p;
    t.partitions_n = 1;
    m->topics = &t;
    m->topics_n = 1;
    return (struct client_response){.body = m};
}

/* Whatever a leader refuses is asked again: no faster than agreed, told once, and its end is told too. */
Test(history, refusals_are_asked_again_and_told_once)
{
    static const int16_t refusals[] = {KE_FENCED_LEADER_EPOCH,        KE_UNKNOWN_LEADER_EPOCH,
                                       KE_NOT_LEADER_OR_FOLLOWER,     KE_UNKNOWN_TOPIC_OR_PARTITION,
                                       KE_TOPIC_AUTHORIZATION_FAILED, KE_UNKNOWN_SERVER_ERROR};
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct history h;
        int asked = 0, told = 0, refreshed = 0;
        reading(&h, true);
        new_leader(&h, 0);
        int64_t now = 0;
        for (; now < 10000 * MS; now += 10 * MS) {
            struct history_effect e = {.ask = HISTORY_NOTHING};
            if (h.asking) {
                struct kp_offset_for_leader_epoch_response m = {0};
                struct client_response r = response(&m, refusals[i]);
                const char *why;
                int64_t end = -1;
                enum port_answer answer = port_answer_epoch_end(&r, &end, &why);
                e = history_epoch_end(&h, answer, end, why, now);
                refreshed += e.refresh;
                asked++;
                cr_assert(!e.tells || strcmp(e.text, kafka_error_name(refusals[i])) == 0);
            } else {
                e = history_look(&h, &six, now);
            }
            cr_assert(h.state == PART_CHECKING && !e.stops && !e.forget);
            told += e.tells;
            cr_assert(!e.tells || (e.event == PORT_TROUBLE && now >= HISTORY_TELL_US));
        }
        cr_assert(asked > 30 && asked <= 10000 * MS / HISTORY_RETRY_US && refreshed == asked, "%d", asked);
        cr_assert_eq(told, 1);
        for (now += HISTORY_RETRY_US; !h.asking;)
            history_look(&h, &six, now);
        struct history_effect e = answered(&h, 100, now);
        cr_assert(e.changes && e.tells && e.event == PORT_POSITION && !h.troubled && h.leader_epoch == 6);
    }
}

/* A leader that has been deposed meanwhile neither clears nor condemns. */
Test(history, an_answer_of_an_older_epoch_is_not_believed)
{
    static const int64_t ends[] = {100, 50, -1};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct history h;
        reading(&h, true);
        new_leader(&h, 0);
        struct history_effect e = history_seen(&h, 7, 0);
        cr_assert(!e.changes && !e.forget && h.asking == HISTORY_EPOCH_END);
        e = answered(&h, ends[i], 0);
        cr_assert(h.state == PART_CHECKING && !e.stops && !e.changes && !h.proof && e.refresh);
        e = history_look(&h, &six, 0); /* metadata is behind */
        cr_assert(!e.ask && e.refresh && !e.tells);
        cr_assert(!history_look(&h, &(struct history_leader){-1, 7}, HISTORY_RETRY_US).ask, "no leader");
        e = history_look(&h, &(struct history_leader){3, 7}, 2 * HISTORY_RETRY_US);
        cr_assert(e.ask == HISTORY_EPOCH_END && h.asked_epoch == 7 && h.epoch == 5);
        cr_assert(answered(&h, 100, 0).changes && h.leader_epoch == 7);
        library_takes(&h);
        cr_assert(!history_seen(&h, 6, 0).forget && !history_look(&h, &six, 0).forget, "heard of late");
    }
}

/* Whoever gives a partition up cancels its question; nothing brings it back. */
Test(history, a_stopped_partition_stays_stopped)
{
    for (int at = 0; at < 3; at++) {
        struct history h;
        reading(&h, true);
        if (at == 1)
            new_leader(&h, 0);
        else if (at == 2)
            cr_assert_eq(history_out_of_range(&h).ask, HISTORY_LOG_START);
        cr_assert(history_stop(&h) && !history_stop(&h));
        cr_assert_eq(h.asking, HISTORY_NOTHING);
        struct history_effect e[] = {history_look(&h, &six, 0), history_seen(&h, 9, 0),
                                     history_out_of_range(&h), history_confirm(&h, &six)};
        for (size_t i = 0; i < sizeof e / sizeof *e; i++)
            cr_assert(!e[i].ask && !e[i].tells && !e[i].changes && !e[i].stops && !e[i].forget);
        cr_assert(!history_wants_confirming(&h));
    }
}

/* ---- the proof ---- */

static void owes_proof(struct history *h)
{
    reading(h, true);
    new_leader(h, 0);
    struct history_effect e = answered(h, 80, 0);
    cr_assert(e.changes && !e.tells && h->proof && h->cut_to == 80);
    library_takes(h);
}

Test(history, the_last_record_proves_that_nothing_was_cut)
{
    struct history h;
    owes_proof(&h);
    struct history_record before = record_at(98), r = record_at(99), end = {.offset = 99};
    cr_assert(!history_confirm(&h, &six).tells && history_epoch(&h) == -1);
    cr_assert(!history_prove(&h, &before, false, 0).tells && h.proof);
    cr_assert(!history_prove(&h, &end, true, 0).tells && h.proof, "a high watermark that is behind");
    struct history_effect e = history_prove(&h, &r, false, 0);
    cr_assert(!e.tells && !e.stops && !h.proof && h.state == PART_READING && h.next == 100);
}

Test(history, another_record_or_none_in_its_place_is_a_cut)
{
    const struct history_record others[] = {
        {99, 1098, 99 * 77u, 3}, {99, 1099, 99 * 77u + 1, 3}, {99, 1099, 99 * 77u, 4}, record_at(100)};
    for (size_t i = 0; i < 5; i++) {
        struct history h;
        struct history_record end = {.offset = 100};
        owes_proof(&h);
        struct history_effect e = history_prove(&h, i < 4 ? &others[i] : &end, i == 4, 0);
        cr_assert(e.stops && e.event == PORT_TRUNCATED && e.end == 80, "row %zu", i);
        cr_assert(strstr(e.text, "cut to 80") && h.state == PART_STOPPED && !h.proof);
    }
}

Test(history, a_proof_that_is_owed_outlives_the_leader)
{
    struct history h;
    owes_proof(&h);
    struct history_effect e = history_look(&h, &(struct history_leader){1, 7}, 0);
    cr_assert(e.forget && e.ask == HISTORY_EPOCH_END && h.epoch == 5, "the same epoch is asked for");
    answered(&h, 70, 0);
    cr_assert(h.proof && h.cut_to == 70);
}

Test(history, where_records_tell_their_epochs_no_proof_is_needed)
{
    struct history h;
    reading(&h, true);
    h.record_epoch = 3;
    new_leader(&h, 0);
    cr_assert_eq(h.epoch, 3);
    struct history_effect e = answered(&h, 80, 0);
    cr_assert(e.stops && e.event == PORT_TRUNCATED && e.end == 80);
}

/* ---- out of range ---- */

Test(history, out_of_range_is_told_with_what_there_is)
{
    static const struct {
        int64_t start, end;
        bool last;
        enum part_state then;
    } rows[] = {
        {101, 200, true, PART_STOPPED}, {0, 99, true, PART_STOPPED},    {50, 200, false, PART_STOPPED},
        {50, 200, true, PART_CHECKING}, {50, 100, true, PART_CHECKING}, {100, 200, true, PART_CHECKING},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct history h;
        reading(&h, rows[i].last);
        cr_assert_eq(history_out_of_range(&h).ask, HISTORY_LOG_START);
        cr_assert_eq(history_out_of_range(&h).ask, HISTORY_NOTHING, "it is being asked");
        cr_assert(!history_look(&h, &six, 0).ask && !history_confirm(&h, &five).tells);
        cr_assert_eq(history_offset(&h, PORT_ANSWER_KNOWN, rows[i].start, NULL, 0).ask, HISTORY_LOG_END);
        struct history_effect e = history_offset(&h, PORT_ANSWER_KNOWN, rows[i].end, NULL, 0);
        cr_assert_eq(h.state, rows[i].then, "row %zu", i);
        cr_assert(!e.ask && e.stops == e.tells && e.forget == !e.stops);
        if (e.tells)
            cr_assert(e.event == PORT_OUT_OF_RANGE && e.log_start == rows[i].start && e.end == rows[i].end &&
                      e.kafka_error == KE_OFFSET_OUT_OF_RANGE);
        else
            cr_assert_eq(history_look(&h, &five, 0).ask, HISTORY_EPOCH_END, "cut, and grown since?");
    }
}

Test(history, the_range_is_asked_for_until_it_is_known)
{
    struct history h;
    int asked = 0, told = 0;
    reading(&h, true);
    history_out_of_range(&h);
    for (int64_t now = 0; now < 10000 * MS; now += 10 * MS) {
        struct history_effect e =
            h.asking ? history_offset(&h, PORT_ANSWER_AGAIN, -1, NULL, now) : history_look(&h, &five, now);
        asked += e.ask != HISTORY_NOTHING;
        told += e.tells;
        cr_assert(h.state == PART_READING && !e.stops && (!e.tells || e.event == PORT_TROUBLE));
    }
    cr_assert(asked > 30 && asked <= 10000 * MS / HISTORY_RETRY_US && told == 1, "%d, %d", asked, told);
    while (!h.asking)
        history_look(&h, &five, 11000 * MS);
    struct history_effect e = history_offset(&h, PORT_ANSWER_REFUSED, -1, "TOPIC_AUTHORIZATION_FAILED", 0);
    cr_assert(e.stops && e.event == PORT_FAILED && e.kafka_error == KE_TOPIC_AUTHORIZATION_FAILED);
}

/* The log ends where the proof would stand: soon that may be a high watermark that is behind, later it is a cut. */
Test(history, an_end_in_front_of_the_proof_is_asked_about)
{
    static const int64_t ends[] = {99, 100};
    const struct history_record end = {.offset = 99}, r = record_at(99);
    for (size_t i = 0; i < 2; i++) {
        struct history h;
        owes_proof(&h);
        for (int64_t now = 0; now < HISTORY_END_US; now += 10 * MS) {
            history_prove(&h, &end, true, now);
            cr_assert(!history_look(&h, &six, now).ask, "not at once");
        }
        cr_assert_eq(history_look(&h, &six, HISTORY_END_US).ask, HISTORY_LOG_START);
        cr_assert(!history_prove(&h, &r, false, 0).tells && h.proof, "the answer comes first");
        history_offset(&h, PORT_ANSWER_KNOWN, 0, NULL, 0);
        struct history_effect e = history_offset(&h, PORT_ANSWER_KNOWN, ends[i], NULL, 0);
        cr_assert_eq(e.stops, i == 0);
        cr_assert(i == 1 ? h.state == PART_CHECKING && h.epoch == 5
                         : e.event == PORT_OUT_OF_RANGE && e.end == 99);
    }
    struct history h; /* there it is; and under another leader still */
    owes_proof(&h);
    history_prove(&h, &end, true, 0);
    cr_assert(!history_prove(&h, &r, false, 0).stops && !h.proof && !h.out_of_range);
    owes_proof(&h);
    history_prove(&h, &end, true, 0);
    cr_assert(history_seen(&h, 7, 0).forget && h.state == PART_CHECKING && h.proof && !h.out_of_range);
}

/* Retention has taken the record that would prove it: the library could not even begin there, again and again. */
Test(history, a_proof_that_retention_has_taken_is_no_proof)
{
    struct history h;
    owes_proof(&h);
    history_out_of_range(&h);
    history_offset(&h, PORT_ANSWER_KNOWN, 100, NULL, 0);
    struct history_effect e = history_offset(&h, PORT_ANSWER_KNOWN, 120, NULL, 0);
    cr_assert(e.stops && e.event == PORT_TRUNCATED && e.end == 80, "state %d", h.state);
}

Test(history, a_question_without_room_is_put_later)
{
    struct history h;
    reading(&h, true);
    new_leader(&h, 0);
    cr_assert(history_unsent(&h, 0).refresh);
    cr_assert(!history_look(&h, &six, HISTORY_RETRY_US - 1).ask);
    cr_assert_eq(history_look(&h, &six, HISTORY_RETRY_US).ask, HISTORY_EPOCH_END);
    answered(&h, 100, 0);
    library_takes(&h);
    history_out_of_range(&h);
    history_unsent(&h, 0);
    cr_assert(!history_look(&h, &six, HISTORY_RETRY_US - 1).ask);
    cr_assert_eq(history_look(&h, &six, HISTORY_RETRY_US).ask, HISTORY_LOG_START);
}
