/* quorum-state: both forms, and what is refused. */
#include "broker/quorum/quorum_state.h"

#include <criterion/criterion.h>

static bool reads(const char *text, struct quorum_state *s)
{
    struct err err = {0};
    int rc = quorum_state_parse(slice_str(text), s, &err);
    cr_assert(rc == 0 || (rc == -E_CORRUPT && err.text[0]), "%s", text);
    return rc == 0;
}

Test(quorum_state, both_forms_read_back_what_was_written)
{
    static const int32_t voters[] = {1, 2};
    for (int16_t v = 0; v < 2; v++) {
        struct quorum_state s = {7, 1, 2, {{0}}}, back;
        struct buf b;
        buf_init(&b, QUORUM_STATE_BYTES_MAX);
        if (v)
            s.voted_directory_id = uuid_small(500);
        quorum_state_print(&s, v, voters, 2, &b);
        cr_assert_eq(quorum_state_parse(buf_slice(&b), &back, NULL), 0);
        cr_assert(back.epoch == 7 && back.leader_id == 1 && back.voted_id == 2);
        cr_assert(uuid_eq(&back.voted_directory_id, &s.voted_directory_id));
        buf_fini(&b);
    }
}

Test(quorum_state, what_kafka_writes_is_read)
{
    struct quorum_state s;
    cr_assert(reads("{\"clusterId\":\"\",\"leaderId\":1,\"leaderEpoch\":3,\"votedId\":-1,\"appliedOffset\":0,"
                    "\"currentVoters\":[{\"voterId\":1}],\"data_version\":0}",
                    &s));
    cr_assert(s.epoch == 3 && s.leader_id == 1 && s.voted_id == QUORUM_NOBODY);
    cr_assert(reads("{\"leaderId\":-1,\"leaderEpoch\":9,\"votedId\":1,"
                    "\"votedDirectoryId\":\"0cRCiTpqSBCeIiYBX7Wh2g\",\"data_version\":1}",
                    &s));
    cr_assert(s.leader_id == QUORUM_NOBODY && !uuid_is_zero(&s.voted_directory_id));
}

Test(quorum_state, anything_else_is_refused)
{
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "{\"leaderId\":1",
        "{\"leaderId\":1,\"leaderEpoch\":3,\"votedId\":-1,\"data_version\":2}",
        "{\"leaderId\":1,\"leaderEpoch\":-3,\"votedId\":-1,\"data_version\":0}",
        "{\"leaderId\":-2,\"leaderEpoch\":3,\"votedId\":-1,\"data_version\":0}",
        "{\"leaderId\":1,\"leaderEpoch\":99999999999,\"votedId\":-1,\"data_version\":0}",
        "{\"leaderId\":1,\"leaderEpoch\":\"3\",\"votedId\":-1,\"data_version\":0}",
        "{\"leaderId\":1,\"leaderEpoch\":3,\"votedId\":-1,\"votedDirectoryId\":\"x\",\"data_version\":1}",
        "{\"leaderId\":1,\"leaderEpoch\":3,\"data_version\":0}",
        "{\"leaderId\":1,\"leaderId\":2,\"leaderEpoch\":3,\"votedId\":-1,\"data_version\":0}",
    };
    struct quorum_state s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not(reads(bad[i], &s), "%s", bad[i]);
}
