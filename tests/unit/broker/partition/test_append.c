#include "tests/support/serve/rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static int16_t produce(struct rig *r, int16_t acks, struct rig_batch b, int64_t *offset)
{
    struct slice batch = rig_batch(r, &b);
    struct kp_produce_response_partition_responses a = rig_produce(r, "orders", 0, acks, batch);
    free((void *)(uintptr_t)batch.p);
    if (offset)
        *offset = a.base_offset;
    return a.error_code;
}

Test(append, acks_all_is_answered_when_the_records_are_on_disk)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    int64_t offset;
    rig_topic(r, "orders", 1, NULL);
    cr_assert_eq(produce(r, -1, (struct rig_batch){.n = 3}, &offset), KE_NONE);
    cr_expect_eq(offset, 0);
    struct partition *p = rig_partition(r, "orders", 0);
    cr_expect_eq(log_durable_offset(partition_log(p)), 3);
    cr_expect_eq(partition_high_watermark(p), 3);
    cr_assert_eq(produce(r, -1, (struct rig_batch){.n = 2}, &offset), KE_NONE);
    cr_expect_eq(offset, 3);
    rig_destroy(r, false);
}

Test(append, acks_one_is_answered_before_the_flush_and_not_read_until_then)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "orders", 1, NULL);
    struct partition *p = rig_partition(r, "orders", 0);
    cr_assert_eq(produce(r, 1, (struct rig_batch){.n = 3}, NULL), KE_NONE);
    cr_expect_eq(partition_log_end(p), 3);
    cr_expect_leq(partition_high_watermark(p), log_durable_offset(partition_log(p)));
    rig_destroy(r, false);
}
