/* Which topics of a source's listing a flow takes. */
#include "mirror/sync/sync.h"

#include <criterion/criterion.h>

static char *all[] = {".*"};
/* A listing may hold anything; names go into keys and into texts that end with a NUL. */
Test(filter, what_no_broker_takes_for_a_name_is_not_taken)
{
    const struct policy policy = {.kind = POLICY_DEFAULT,
                                  .separator = SLICE_LIT("."),
                                  .internal_separator = SLICE_LIT("."),
                                  .source = SLICE_LIT("east"),
                                  .target = SLICE_LIT("west")};
    const struct flow_options o = {.topics = {.item = all, .n = 1}};
    struct sync_filter *f;
    struct err err = {0};
    char name[POLICY_TOPIC_MAX + 1];
    memset(name, 'a', sizeof name);
    cr_assert_eq(sync_filter_create(&o, &f, &err), 0, "%s", err.text);
    cr_assert(sync_filter_takes(f, &policy, SLICE_LIT("orders")));
    cr_assert(sync_filter_takes(f, &policy, slice_of(name, POLICY_TOPIC_MAX)));
    cr_assert_not(sync_filter_takes(f, &policy, slice_of(name, POLICY_TOPIC_MAX + 1)));
    cr_assert_not(sync_filter_takes(f, &policy, SLICE_LIT("west.orders")), "a cycle");
    cr_assert_not(sync_filter_takes(f, &policy, SLICE_NULL));
    cr_assert_not(sync_filter_takes(f, &policy, SLICE_LIT("")));
    cr_assert_not(sync_filter_takes(f, &policy, slice_of("or\0ders", 7)));
    sync_filter_destroy(f);
}
