/* The port on our own client against scripted answers. */
#include "tests/unit/mirror/port/rig.h"

static void batches(struct rig *g, int n, int each, enum codec codec)
{
    for (int i = 0; i < n; i++)
        source_add(&g->source, (struct batch_spec){.base = g->source.end, .n = each, .codec = codec});
}

Test(port_client, records_of_every_codec_once_and_in_order)
{
    struct rig *g = rig_create();
    for (int c = 0; c < CODEC_COUNT; c++)
        batches(g, 2, 20, (enum codec)c);
    rig_run(g, 2 * SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, CODEC_COUNT * 40);
    cr_assert_eq(g->reader.next, g->source.end);
    cr_assert_eq(rig_events(g, PORT_END), 1, "the end is told once");
    cr_assert_eq(rig_event(g, PORT_END)->next_offset, g->source.end);
    /* offset 19 of its batch: 19 % 3 = 1 is the empty key, 19 % 5 = 4 the tombstone, odd ones have headers */
    cr_assert(!g->reader.last_key_null && g->reader.last_key.n == 0 && g->reader.last_value_null);
    cr_assert_eq(g->reader.last_headers_n, 2);
    rig_destroy(g);
}

Test(port_client, begins_inside_a_compressed_batch)
{
    struct rig *g = rig_create();
    batches(g, 1, 30, CODEC_LZ4);
    g->reader.first.offset = 17;
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 13);
    cr_assert_eq(g->reader.offsets[0], 17);
    rig_destroy(g);
}

Test(port_client, whole_batches_say_what_is_to_be_trimmed)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_ZSTD);
    g->reader.whole_batches = true;
    g->reader.first.offset = 4;
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.batches_n, 3);
    cr_assert_eq(g->reader.trims, 1);
    cr_assert_eq(g->reader.gaps, 0);
    cr_assert_eq(g->reader.next, 30);
    rig_destroy(g);
}

static void transactions(struct rig *g)
{
    struct source *s = &g->source;
    source_add(s,
               (struct batch_spec){.base = 0, .n = 5, .producer_id = 9, .attributes = BATCH_TRANSACTIONAL});
    source_add(s,
               (struct batch_spec){.base = 5, .n = 5, .producer_id = 8, .attributes = BATCH_TRANSACTIONAL});
    source_marker(s, 10, 9, CONTROL_ABORT);
    source_add(s,
               (struct batch_spec){.base = 11, .n = 2, .producer_id = 9, .attributes = BATCH_TRANSACTIONAL});
    source_marker(s, 13, 8, CONTROL_COMMIT);
    source_marker(s, 14, 9, CONTROL_COMMIT);
    s->aborted[0] = (struct kp_fetch_response_aborted_transactions){.producer_id = 9, .first_offset = 0};
    s->aborted_n = 1;
}

Test(port_client, aborted_transactions_and_markers_are_passed_over)
{
    struct rig *g = rig_create();
    transactions(g);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 7);
    cr_assert_eq(g->reader.offsets[0], 5);
    cr_assert_eq(g->reader.offsets[5], 11, "what a producer wrote after its abort is another transaction");
    cr_assert_eq(g->reader.next, 15, "markers count as covered");
    rig_destroy(g);
}

Test(port_client, read_uncommitted_has_aborted_records_too)
{
    struct rig *g = rig_create();
    transactions(g);
    g->reader.read_uncommitted = true;
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 12);
    rig_destroy(g);
}

Test(port_client, nothing_behind_the_last_stable_offset)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_NONE);
    g->source.stable = 20; /* and yet the script sends all of it */
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 20);
    cr_assert_eq(rig_event(g, PORT_END)->next_offset, 20);
    cr_assert_lt(g->source.fetches, 60, "it does not spin");
    rig_destroy(g);
}

Test(port_client, out_of_range_says_where_the_log_is)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_NONE);
    g->source.start = 10;
    g->reader.first.offset = 3;
    rig_run(g, SIM_SECOND);
    const struct got_event *e = rig_event(g, PORT_OUT_OF_RANGE);
    cr_assert_not_null(e);
    cr_assert(e->log_start == 10 && e->end == 30 && e->next_offset == 3);
    cr_assert_eq(g->reader.offsets_n, 0);
    rig_destroy(g);
}

/* An open transaction holds the last stable offset back: the log ends behind it all the same. */
Test(port_client, out_of_range_says_the_high_watermark)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_NONE);
    g->source.stable = 12;
    g->reader.first.offset = 35;
    rig_run(g, SIM_SECOND);
    cr_assert_not_null(rig_event(g, PORT_OUT_OF_RANGE));
    cr_assert_eq(rig_event(g, PORT_OUT_OF_RANGE)->end, 30);
    rig_destroy(g);
}

/* A deposed leader knew less: once the right one answers, the offset is there. */
Test(port_client, out_of_range_for_a_moment_only)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_NONE);
    g->source.stable = 12; /* behind it, and yet in the log */
    g->reader.first.offset = 20;
    g->source.fetch_error = KE_OFFSET_OUT_OF_RANGE;
    g->source.fetch_errors = 1;
    rig_run(g, 2 * SIM_SECOND);
    cr_assert_null(rig_event(g, PORT_OUT_OF_RANGE));
    g->source.stable = 30;
    rig_run(g, 2 * SIM_SECOND);
    cr_assert_null(rig_event(g, PORT_OUT_OF_RANGE));
    cr_assert_eq(g->reader.offsets_n, 10);
    rig_destroy(g);
}

Test(port_client, begins_where_the_log_does)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_NONE);
    g->source.start = 10;
    g->reader.first.offset = PORT_FROM_START;
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 20);
    cr_assert_eq(g->reader.offsets[0], 10);
    rig_destroy(g);
}

Test(port_client, a_corrupt_batch_stops_the_partition)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_NONE);
    g->source.corrupt_batch = 2;
    g->source.partitions_n = 3;
    rig_run(g, SIM_SECOND);
    const struct got_event *e = rig_event(g, PORT_FAILED);
    cr_assert_not_null(e);
    cr_assert_eq(e->error, KE_CORRUPT_MESSAGE);
    cr_assert_not_null(strstr(e->text, "offset 10"), "%s", e->text);
    cr_assert_eq(g->reader.offsets_n, 10, "what lies before it is good");
    cr_assert_eq(e->next_offset, 10);
    cr_assert_eq(e, &g->reader.events[g->reader.events_n - 1], "nothing comes after the reason");
    batches(g, 1, 10, CODEC_NONE);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 10);
    cr_assert_eq(rig_events(g, PORT_FAILED), 1);
    for (int i = 1; i < 3; i++)
        cr_assert(g->reader.other[i].records_n == 40 && !g->reader.other[i].stops_n, "the others go on");
    rig_destroy(g);
}

/* Its CRC is right, and yet the batches of the answer go back: the one that has left a gap before is not believed either,
 * for what would fill it comes behind. */
Test(port_client, batches_that_go_back_are_not_believed)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_NONE);
    struct buf last = g->source.batch[2];
    g->source.batch[2] = g->source.batch[0];
    g->source.batch[0] = last; /* 20.., 10.., 0.. */
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.next, 0, "%lld", (long long)g->reader.next);
    cr_assert_eq(g->reader.offsets_n, 0);
    cr_assert_eq(rig_event(g, PORT_FAILED)->error, KE_CORRUPT_MESSAGE);
    cr_assert_lt(g->source.fetches, 60, "it does not spin");
    rig_destroy(g);
}

/* A damaged base offset, which no CRC covers, within the log and far behind it. */
Test(port_client, a_batch_that_claims_other_offsets_stops_the_partition)
{
    static const int64_t claims[] = {25, INT64_C(0x2500000000000010)};
    for (int i = 0; i < 2; i++) {
        struct rig *g = rig_create();
        batches(g, 4, 10, CODEC_NONE);
        be64_put(g->source.batch[1].p, (uint64_t)claims[i]);
        rig_run(g, 2 * SIM_SECOND);
        const struct got_event *e = rig_event(g, PORT_FAILED);
        cr_assert_not_null(e, "%d", i);
        cr_assert_eq(e->error, KE_CORRUPT_MESSAGE);
        cr_assert_eq(e->next_offset, 10);
        cr_assert_eq(g->reader.offsets_n, 10, "what lies before it is good");
        rig_destroy(g);
    }
}

/* Its broker sees it first. */
Test(port_client, what_the_broker_calls_corrupt_stops_the_partition)
{
    struct rig *g = rig_create();
    batches(g, 2, 10, CODEC_NONE);
    rig_run(g, SIM_SECOND);
    g->source.fetch_error = KE_CORRUPT_MESSAGE;
    g->source.fetch_errors = 1;
    batches(g, 1, 10, CODEC_NONE);
    rig_run(g, SIM_SECOND);
    cr_assert_not_null(rig_event(g, PORT_FAILED));
    cr_assert_eq(rig_event(g, PORT_FAILED)->error, KE_CORRUPT_MESSAGE);
    rig_destroy(g);
}

/* A bad header behind good batches: they are handed out first, and asking for the rest does not spin meanwhile. */
Test(port_client, a_corrupt_header_waits_for_what_lies_before_it)
{
    struct rig *g = rig_create();
    batches(g, 2, 10, CODEC_NONE);
    g->source.batch[1].p[BATCH_MAGIC_AT] = 9;
    g->reader.hold = true; /* and takes nothing */
    rig_run(g, 2 * SIM_SECOND);
    cr_assert_lt(g->source.fetches, 30, "%d", g->source.fetches);
    cr_assert_eq(g->reader.events_n, 0);
    g->reader.held_max = 16;
    loop_timer_in(&g->reader.poll, 0);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 10);
    cr_assert_not_null(rig_event(g, PORT_FAILED));
    cr_assert_eq(rig_event(g, PORT_FAILED)->next_offset, 10);
    rig_destroy(g);
}

/* Assigned again, it begins anew: the copy at another replica may be good. */
Test(port_client, a_stopped_partition_goes_on_when_assigned_again)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_NONE);
    g->source.corrupt_batch = 1;
    rig_run(g, SIM_SECOND);
    cr_assert_not_null(rig_event(g, PORT_FAILED));
    cr_assert_eq(g->reader.offsets_n, 0);
    g->source.corrupt_batch = 0;
    struct err err = {0};
    cr_assert_eq(port_assign(g->reader.port, &g->reader.first, &err), 0);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 30);
    cr_assert_eq(rig_events(g, PORT_END), 1);
    rig_destroy(g);
}

Test(port_client, an_old_format_stops_the_partition)
{
    struct rig *g = rig_create();
    batches(g, 1, 10, CODEC_NONE);
    g->source.batch[0].p[BATCH_MAGIC_AT] = 1;
    rig_run(g, SIM_SECOND);
    cr_assert_not_null(rig_event(g, PORT_FAILED));
    cr_assert_eq(rig_event(g, PORT_FAILED)->error, KE_UNSUPPORTED_FOR_MESSAGE_FORMAT);
    rig_destroy(g);
}

Test(port_client, trouble_is_told_once_and_passes)
{
    struct rig *g = rig_create();
    batches(g, 1, 10, CODEC_NONE);
    g->source.fetch_error = KE_NOT_LEADER_OR_FOLLOWER;
    g->source.fetch_errors = 4;
    rig_run(g, 5 * SIM_SECOND);
    cr_assert_eq(rig_events(g, PORT_TROUBLE), 1);
    cr_assert_eq(g->reader.offsets_n, 10);
    rig_destroy(g);
}

Test(port_client, refused_access_stops_the_partition)
{
    struct rig *g = rig_create();
    g->source.fetch_error = KE_TOPIC_AUTHORIZATION_FAILED;
    g->source.fetch_errors = 1;
    rig_run(g, SIM_SECOND);
    cr_assert_eq(rig_event(g, PORT_FAILED)->error, KE_TOPIC_AUTHORIZATION_FAILED);
    rig_destroy(g);
}

Test(port_client, another_topic_under_the_name)
{
    struct rig *g = rig_create();
    batches(g, 1, 10, CODEC_NONE);
    g->reader.first.topic_id = uuid_small(6);
    rig_run(g, SIM_SECOND);
    struct uuid now = uuid_small(7);
    cr_assert_not_null(rig_event(g, PORT_RECREATED));
    cr_assert(uuid_eq(&rig_event(g, PORT_RECREATED)->topic_id, &now));
    cr_assert_eq(g->reader.offsets_n, 0);
    rig_destroy(g);
}

Test(port_client, a_topic_that_is_gone)
{
    struct rig *g = rig_create();
    batches(g, 1, 10, CODEC_NONE);
    rig_run(g, SIM_SECOND);
    g->source.no_topic = true;
    g->source.fetch_error = KE_UNKNOWN_TOPIC_ID;
    g->source.fetch_errors = 1 << 20;
    rig_run(g, 90 * SIM_SECOND);
    cr_assert_eq(rig_events(g, PORT_GONE), 1);
    rig_destroy(g);
}

/* ---- history (KIP-320) ---- */

Test(port_client, a_log_cut_before_the_start)
{
    struct rig *g = rig_create();
    batches(g, 1, 10, CODEC_NONE);
    g->source.epoch = 3;
    g->source.epoch_end = 4;
    g->reader.first.offset = 10;
    g->reader.first.leader_epoch = 2;
    rig_run(g, SIM_SECOND);
    cr_assert_not_null(rig_event(g, PORT_TRUNCATED));
    cr_assert_eq(rig_event(g, PORT_TRUNCATED)->end, 4);
    rig_destroy(g);
}

/* The leader of epoch 0 dies; the new one's log of it ends at 25, and goes on with records of its own. */
static void new_leader(struct rig *g)
{
    struct source *s = &g->source;
    buf_fini(&s->batch[--s->batches_n]);
    s->end = s->stable = s->epoch_end = 20;
    s->epoch = 1;
    source_add(s, (struct batch_spec){.base = 20, .n = 20, .epoch = 1});
    s->fetch_error = KE_NOT_LEADER_OR_FOLLOWER;
    s->fetch_errors = 1;
}

Test(port_client, a_log_cut_below_what_was_handed_out)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_NONE);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 30);
    new_leader(g);
    rig_run(g, 3 * SIM_SECOND);
    cr_assert_not_null(rig_event(g, PORT_TRUNCATED));
    cr_assert_eq(rig_event(g, PORT_TRUNCATED)->end, 20);
    cr_assert_eq(g->reader.offsets_n, 30);
    rig_destroy(g);
}

Test(port_client, what_was_fetched_and_not_handed_out_is_fetched_again)
{
    struct rig *g = rig_create();
    batches(g, 1, 500, CODEC_NONE); /* one delivery */
    batches(g, 1, 10, CODEC_NONE);
    g->source.end = g->source.stable = 510;
    g->reader.hold = true;
    g->reader.held_max = 1;
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 500);
    struct source *s = &g->source;
    buf_fini(&s->batch[--s->batches_n]);
    s->end = s->stable = s->epoch_end = 500;
    s->epoch = 1;
    source_add(s, (struct batch_spec){.base = 500, .n = 20, .epoch = 1});
    s->fetch_error = KE_FENCED_LEADER_EPOCH;
    s->fetch_errors = 1;
    rig_run(g, 3 * SIM_SECOND);
    g->reader.held_max = 16;
    loop_timer_in(&g->reader.poll, 0);
    rig_run(g, 3 * SIM_SECOND);
    cr_assert_null(rig_event(g, PORT_TRUNCATED), "nothing that was handed out is gone");
    cr_assert_eq(g->reader.offsets_n, 520, "%d", g->reader.offsets_n);
    cr_assert_eq(g->reader.epochs[500], 1, "the old leader's records are not taken for the new one's");
    cr_assert_eq(g->source.epochs_asked, 1);
    rig_destroy(g);
}

Test(port_client, a_fetch_that_finds_another_history)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_NONE);
    g->source.epoch = 3;
    g->source.diverging = 12;
    g->reader.first.offset = 20;
    g->reader.first.leader_epoch = 2;
    rig_run(g, SIM_SECOND);
    cr_assert_not_null(rig_event(g, PORT_TRUNCATED));
    cr_assert_eq(rig_event(g, PORT_TRUNCATED)->end, 12);
    rig_destroy(g);
}

/* ---- many partitions ---- */

static void all_others_have(const struct rig *g, int records)
{
    for (int i = 1; i < g->source.partitions_n; i++)
        cr_assert(g->reader.other[i].records_n == records && g->reader.other[i].ends_n > 0 &&
                      !g->reader.other[i].stops_n,
                  "partition %d: %d records", i, g->reader.other[i].records_n);
}

Test(port_client, many_partitions_by_id)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_LZ4);
    g->source.partitions_n = PARTS_MAX;
    rig_run(g, 2 * SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 30);
    all_others_have(g, 30);
    rig_destroy(g);
}

Test(port_client, many_partitions_by_name)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_LZ4);
    g->source.partitions_n = PARTS_MAX;
    g->source.id = (struct uuid){{0}}; /* a cluster without ids: Fetch 12 */
    rig_run(g, 2 * SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 30);
    all_others_have(g, 30);
    rig_destroy(g);
}

/* Room for a few in each answer: whoever got something waits for the others. */
Test(port_client, a_full_answer_begins_with_the_others_next_time)
{
    struct rig *g = rig_create();
    batches(g, 40, 200, CODEC_NONE);
    g->source.partitions_n = 8;
    g->source.answer_max = 40 << 10;
    g->reader.counts_only = true;
    int least = INT32_MAX, most = 0;
    for (int i = 0; i < 400 && most < 2000; i++) {
        rig_run(g, SIM_MS);
        for (int k = 1; k < 8; k++)
            most = g->reader.other[k].records_n > most ? g->reader.other[k].records_n : most;
    }
    for (int k = 1; k < 8; k++)
        least = g->reader.other[k].records_n < least ? g->reader.other[k].records_n : least;
    cr_assert(most >= 2000 && least > 1000, "%d to %d", least, most);
    rig_destroy(g);
}

/* An answer under way belongs to the assignment that asked. */
Test(port_client, assigned_again_while_an_answer_is_under_way)
{
    struct rig *g = rig_create();
    batches(g, 3, 10, CODEC_NONE);
    g->source.partitions_n = 3;
    rig_run(g, SIM_SECOND); /* the next answers wait for news */
    struct err err = {0};
    struct port_assignment again = g->reader.first;
    again.offset = 20;
    g->reader.offsets_n = 0;
    cr_assert_eq(port_assign(g->reader.port, &again, &err), 0);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 10);
    cr_assert_eq(g->reader.offsets[0], 20);
    port_unassign(g->reader.port, &g->reader.other[2]);
    batches(g, 1, 10, CODEC_NONE);
    rig_run(g, SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 20);
    cr_assert(g->reader.other[1].records_n == 40 && g->reader.other[2].records_n == 30);
    rig_destroy(g);
}

Test(port_client, a_name_longer_than_kafka_allows)
{
    struct rig *g = rig_create();
    rig_run(g, SIM_MS);
    char name[300];
    struct err err = {0};
    int owner;
    memset(name, 'x', sizeof name);
    struct port_assignment a = {.topic = slice_of(name, sizeof name), .leader_epoch = -1, .owner = &owner};
    cr_assert_eq(port_assign(g->reader.port, &a, &err), -E_INVALID);
    rig_destroy(g);
}

/* ---- life ---- */

Test(port_client, holds_no_more_than_its_memory)
{
    struct rig *g = rig_create();
    batches(g, 60, 500, CODEC_NONE); /* some 1.3 MB */
    g->reader.memory_max = 256 << 10;
    g->reader.hold = true;
    g->reader.held_max = 1;
    rig_run(g, 2 * SIM_SECOND);
    int fetches = g->source.fetches;
    cr_assert_leq(g->source.max_bytes_seen, 128 << 10);
    rig_run(g, 2 * SIM_SECOND);
    cr_assert_eq(g->source.fetches, fetches, "nothing is asked while nothing is taken");
    rig_destroy(g);
}

Test(port_client, broken_connections_lose_nothing)
{
    struct rig *g = rig_create();
    batches(g, 1, 10, CODEC_NONE);
    rig_run(g, SIM_SECOND);
    for (int i = 0; i < 10; i++) {
        sim_reset_connections(g->at_reader, g->at_source);
        batches(g, 2, 10, CODEC_SNAPPY);
        rig_run(g, 2 * SIM_SECOND);
    }
    rig_run(g, 5 * SIM_SECOND);
    cr_assert_eq(g->reader.offsets_n, 210);
    for (int i = 0; i < 210; i++)
        cr_assert_eq(g->reader.offsets[i], i);
    rig_destroy(g);
}

Test(port_client, sizes_are_the_files_where_it_says_them)
{
    struct rig *g = rig_create();
    struct port_property p[] = {{"fetch.max.bytes", "5000"},
                                {"max.partition.fetch.bytes", "2000"},
                                {"group.instance.id", "here"},
                                {"fetch.max.wait.ms", "soon"}};
    memcpy(g->reader.properties, p, sizeof p);
    g->reader.properties_n = 4;
    batches(g, 60, 20, CODEC_NONE);
    rig_run(g, 5 * SIM_SECOND);
    cr_assert_eq(g->source.max_bytes_seen, 5000);
    cr_assert_leq(g->source.part_bytes_seen, 2000);
    cr_assert_eq(g->reader.offsets_n, 1200);
    cr_assert_str_eq(g->reader.ignored, "group.instance.id fetch.max.wait.ms ");
    rig_destroy(g);
}
