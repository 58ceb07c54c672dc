/* PROTOCOL §2.1, 2.2: ApiVersions, Metadata, DescribeCluster, InitProducerId. */
#include "tests/support/serve/rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(api_versions, lists_what_is_served)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    size_t n;
    const struct api_row *rows = api_rows(&n);
    for (int16_t v = 0; v <= 4; v++) {
        struct rig_call c;
        struct kp_api_versions_request q = {SLICE_LIT("test"), SLICE_LIT("1.0")};
        struct kp_api_versions_response *a = rig_ask(r, &c, kp_key_api_versions, v, &q);
        cr_assert(a);
        cr_expect_eq(a->error_code, KE_NONE);
        cr_expect_eq((size_t)a->api_keys_n, n);
        for (int32_t i = 0; i < a->api_keys_n; i++) {
            cr_expect_eq(a->api_keys[i].api_key, rows[i].key);
            cr_expect_leq(a->api_keys[i].max_version, kp_api_find(rows[i].key)->request.version_max);
        }
        rig_release(&c);
    }
    rig_destroy(r, false);
}

Test(api_versions, odd_software_names_are_refused)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    struct kp_api_versions_request q = {SLICE_LIT("te st"), SLICE_LIT("1.0")};
    struct kp_api_versions_response *a = rig_ask(r, &c, kp_key_api_versions, 3, &q);
    cr_assert(a);
    cr_expect_eq(a->error_code, KE_INVALID_REQUEST);
    rig_release(&c);
    rig_destroy(r, false);
}

static struct kp_metadata_response *metadata(struct rig *r, struct rig_call *c, int16_t version,
                                             const char *name, bool create)
{
    struct kp_metadata_request_topics t = {.name = slice_str(name)};
    struct kp_metadata_request q = {
        .topics = &t, .topics_n = name ? 1 : -1, .allow_auto_topic_creation = create};
    if (!name && version == 0)
        q.topics_n = 0;
    struct kp_metadata_response *a = rig_ask(r, c, kp_key_metadata, version, &q);
    cr_assert(a);
    return a;
}

Test(metadata, every_version_tells_brokers_and_topics)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct uuid id = rig_topic(r, "t", 3, NULL);
    for (int16_t v = 0; v <= 12; v++) {
        struct rig_call c;
        struct kp_metadata_response *a = metadata(r, &c, v, NULL, false);
        cr_assert_eq(a->brokers_n, 1);
        cr_expect_eq(a->brokers[0].node_id, RIG_NODE);
        cr_expect(slice_eq_str(a->brokers[0].host, "127.0.0.1"));
        cr_assert_eq(a->topics_n, 1);
        cr_expect(slice_eq_str(a->topics[0].name, "t"));
        cr_assert_eq(a->topics[0].partitions_n, 3);
        cr_expect_eq(a->topics[0].partitions[2].partition_index, 2);
        cr_expect_eq(a->topics[0].partitions[2].leader_id, RIG_NODE);
        cr_expect_eq(a->topics[0].partitions[2].error_code, KE_NONE);
        if (v >= 10)
            cr_expect(uuid_eq(&a->topics[0].topic_id, &id));
        rig_release(&c);
    }
    rig_destroy(r, false);
}

static int16_t topic_error(struct rig *r, int16_t version, const char *name, bool create)
{
    struct rig_call c;
    struct kp_metadata_response *a = metadata(r, &c, version, name, create);
    int16_t e = a->topics[0].error_code;
    rig_release(&c);
    return e;
}

Test(metadata, topics_are_made_on_first_use_if_the_client_allows)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    cr_expect_eq(topic_error(r, 9, "new", false), KE_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(topic_error(r, 9, "new", true), KE_NONE);
    cr_expect_eq(topic_error(r, 9, "new", false), KE_NONE);
    cr_expect_eq(topic_error(r, 1, "newer", false), KE_NONE, "before version 4 it is always allowed");
    rig_destroy(r, false);
}

Test(metadata, impossible_names_are_refused_and_never_made)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    char long_name[251];
    memset(long_name, 'a', 250);
    long_name[250] = '\0';
    const char *names[] = {"", ".", "..", "../x", "a/b", "a b", "a\nb", long_name};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        cr_expect_eq(topic_error(r, 9, names[i], true), KE_INVALID_TOPIC_EXCEPTION, "%s", names[i]);
    cr_expect_eq(image_topics_n(rig_shard(r)->image), 0);
    rig_destroy(r, false);
}

Test(metadata, an_unknown_id_is_told_from_a_name)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    struct kp_metadata_request_topics t = {.topic_id = uuid_small(77)};
    struct kp_metadata_request q = {.topics = &t, .topics_n = 1, .allow_auto_topic_creation = true};
    struct kp_metadata_response *a = rig_ask(r, &c, kp_key_metadata, 12, &q);
    cr_assert(a);
    cr_expect_eq(a->topics[0].error_code, KE_UNKNOWN_TOPIC_ID);
    cr_expect(uuid_eq(&a->topics[0].topic_id, &t.topic_id));
    rig_release(&c);
    rig_destroy(r, false);
}

Test(metadata, a_storm_of_new_topics_is_slowed)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct shard *s = rig_shard(r);
    int granted = 0;
    for (int i = 0; i < 2000; i++)
        granted += api_may_create(s, 1);
    cr_expect_leq(granted, API_CREATE_BURST + API_CREATE_PER_SECOND);
    cr_expect_geq(granted, API_CREATE_BURST);
    rig_destroy(r, false);
}

Test(describe_cluster, tells_brokers_not_controllers)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    struct kp_describe_cluster_request q = {.endpoint_type = 1};
    struct kp_describe_cluster_response *a = rig_ask(r, &c, kp_key_describe_cluster, 1, &q);
    cr_assert(a);
    cr_expect_eq(a->brokers_n, 1);
    cr_expect(slice_eq_str(a->cluster_id, "rig"));
    rig_release(&c);
    q.endpoint_type = 2;
    a = rig_ask(r, &c, kp_key_describe_cluster, 1, &q);
    cr_assert(a);
    cr_expect_eq(a->error_code, KE_MISMATCHED_ENDPOINT_TYPE);
    rig_release(&c);
    rig_destroy(r, false);
}

Test(init_producer_id, ids_are_never_given_twice)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    int64_t last = -1;
    for (int i = 0; i < 2100; i++) {
        struct rig_call c;
        struct kp_init_producer_id_request q = {
            .transaction_timeout_ms = 1000, .producer_id = -1, .producer_epoch = -1};
        struct kp_init_producer_id_response *a = rig_ask(r, &c, kp_key_init_producer_id, 4, &q);
        cr_assert(a);
        cr_assert_eq(a->error_code, KE_NONE);
        cr_assert_eq(a->producer_epoch, 0);
        cr_assert_gt(a->producer_id, last);
        last = a->producer_id;
        rig_release(&c);
    }
    rig_destroy(r, false);
}

Test(init_producer_id, transactions_are_refused_for_good)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    struct kp_init_producer_id_request q = {
        .transactional_id = SLICE_LIT("tx"), .producer_id = -1, .producer_epoch = -1};
    struct kp_init_producer_id_response *a = rig_ask(r, &c, kp_key_init_producer_id, 4, &q);
    cr_assert(a);
    cr_expect_eq(a->error_code, KE_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    cr_expect_not(kafka_error_retriable(a->error_code));
    rig_release(&c);
    rig_destroy(r, false);
}
