/* Keys and values that no daemon of ours would write, but somebody may have written. */
#include "base/world/disk_posix.h"
#include "mirror/offsets/codec.h"
#include "mirror/offsets/store.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static int count_topic(void *arg, const struct stored_topic *t)
{
    cr_assert_eq(t->topic.name.n, 0);
    ++*(int *)arg;
    return 0;
}

/* A progress topic whose runs stand before the first position (compaction moves positions to its end): a daemon that is
 * killed between the two has a topic in its store that nobody has named yet. */
Test(store, a_topic_that_has_its_id_alone_is_read_again)
{
    char dir[] = "/tmp/sundog-store-XXXXXX";
    cr_assert_not_null(mkdtemp(dir));
    struct store_options o = {.path = dir, .mode = STORE_DAEMON};
    struct store *s;
    struct store_view *v;
    cr_assert_eq(store_open(&o, &s, NULL), 0);
    struct store_batch *b = store_batch_create(s);
    uint32_t topic = store_new_topic(s);
    int n = 0;
    store_put_topic(b, &(struct stored_topic){topic, 1, {SLICE_NULL, {{1}}}, SLICE_NULL, {{0}}});
    cr_assert_eq(store_commit(s, b, NULL), 0);
    store_batch_destroy(b);
    cr_assert_eq(store_view_open(s, &v, NULL), 0);
    cr_assert_eq(store_topics_each(v, count_topic, &n), 0);
    cr_assert_eq(n, 1);
    store_view_close(v);
    store_close(s);
    struct disk *disk = disk_posix_create();
    disk_remove_tree(disk, dir);
    disk_posix_destroy(disk);
}

static bool key_is_refused(struct slice name, int32_t partition)
{
    struct progress_key k = {.kind = PROGRESS_RUN, .topic.name = name, .p = partition}, back;
    struct buf b;
    struct arena a;
    buf_init(&b, 1000);
    arena_init(&a, 10000);
    cr_assert_eq(progress_key_encode(&k, &b), 0);
    int rc = progress_key_decode(buf_slice(&b), &a, &back);
    buf_fini(&b);
    arena_fini(&a);
    cr_assert(rc == 0 || rc == -E_CORRUPT);
    return rc != 0;
}

static bool run_is_refused(int64_t src, int64_t dst, int64_t count)
{
    struct map_run r = {.q = 0, .dst_start = dst, .count = count}, back;
    struct buf b;
    struct arena a;
    buf_init(&b, 1000);
    arena_init(&a, 10000);
    cr_assert_eq(run_encode(&r, &b), 0);
    int rc = run_decode(buf_slice(&b), &a, src, &back);
    buf_fini(&b);
    arena_fini(&a);
    return rc != 0;
}

Test(codec, what_a_stranger_writes_to_the_progress_topic_is_refused)
{
    char name[300];
    memset(name, 'a', sizeof name);
    cr_assert(!key_is_refused(slice_of(name, 249), 0));
    cr_assert(key_is_refused(slice_of(name, 250), 0));
    cr_assert(key_is_refused(slice_of("", 0), 0), "neither id nor name");
    cr_assert(key_is_refused(SLICE_LIT("t"), -1));
    cr_assert(key_is_refused(SLICE_LIT("t"), INT32_MAX), "who counts partitions adds one");
    cr_assert(!run_is_refused(5, 6, INT64_MAX - 6));
    cr_assert(run_is_refused(0, 6, INT64_MAX - 5), "ends behind the last offset");
    cr_assert(run_is_refused(7, 6, INT64_MAX - 6));
}
