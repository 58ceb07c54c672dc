/* The store: what was committed is there after a kill, what is damaged is said, and its map answers as the one in
 * memory. */
#include "mirror/offsets/map_memory.h"
#include "mirror/offsets/store.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/core/rng.h"
#include "base/world/clock.h"
#include "base/world/disk_posix.h"

struct dir {
    char path[64];
};

static struct dir dir_make(void)
{
    struct dir d;
    snprintf(d.path, sizeof d.path, "/tmp/sundog-store-XXXXXX");
    cr_assert_not_null(mkdtemp(d.path));
    return d;
}

static void dir_remove(struct dir *d)
{
    char file[128];
    static const char *const names[] = {"data.mdb", "lock.mdb", "sundog.lock"};
    for (int i = 0; i < 3; i++) {
        snprintf(file, sizeof file, "%s/%s", d->path, names[i]);
        unlink(file);
    }
    cr_assert_eq(rmdir(d->path), 0);
}

static struct store *opened(const struct dir *d, enum store_mode mode, size_t map_bytes)
{
    struct store *s;
    struct err e;
    struct store_options o = {.path = d->path, .mode = mode, .map_bytes = map_bytes};
    cr_assert_eq(store_open(&o, &s, &e), 0, "%s", e.text);
    return s;
}

static struct store_view *viewed(struct store *s)
{
    struct store_view *v;
    struct err e;
    cr_assert_eq(store_view_open(s, &v, &e), 0, "%s", e.text);
    return v;
}

static void commit(struct store *s, struct store_batch *b)
{
    struct err e;
    cr_assert_eq(store_commit(s, b, &e), 0, "%s", e.text);
    store_batch_clear(b);
}

static struct map_position position(int32_t p, int64_t next, const struct map_lane *lane)
{
    return (struct map_position){.topic = {SLICE_LIT("orders"), {{1, 2, 3}}},
                                 .p = p,
                                 .next_offset = next,
                                 .leader_epoch = -1,
                                 .producer_id = 4000,
                                 .fingerprint = 0x10000000,
                                 .target_topic = SLICE_LIT("east.orders"),
                                 .target_topic_id = {{9}},
                                 .written_ms = 77,
                                 .lanes = lane,
                                 .lanes_n = 1};
}

/* size: one of everything there is, written and read back */
struct numbers {
    uint32_t flow, topic, again;
};

static void put_one_of_each(struct store_batch *b, struct numbers n)
{
    uint32_t flow = n.flow, topic = n.topic, again = n.again;
    struct map_lane lane = {3, 10, 20, 30, 40, 5, 12};
    struct map_position p = position(3, 30, &lane);
    store_put_alias(b, SLICE_LIT("east"), SLICE_LIT("abc"));
    store_put_flow(b, &(struct stored_flow){flow, SLICE_LIT("east->west"), {{5}}, 1234});
    store_put_topic(b, &(struct stored_topic){
                           topic, flow, {SLICE_LIT("orders"), {{1}}}, SLICE_LIT("east.orders"), {{9}}});
    store_put_topic(b, &(struct stored_topic){
                           again, flow, {SLICE_LIT("orders"), {{2}}}, SLICE_LIT("east.orders"), {{9}}});
    store_put_position(b, topic, &p);
    store_put_run(b, topic, 3, &(struct map_run){3, 100, 200, 5});
    store_put_producer_id(b, flow, 3, &(struct map_producer_id){4000, 0, 17});
    struct group_commit commits[] = {{3, 102}};
    store_put_group(b, topic,
                    &(struct group_entry){.group = SLICE_LIT("shop"),
                                          .q = 3,
                                          .offset = 202,
                                          .state = GROUP_AHEAD,
                                          .reason = SLICE_LIT("why"),
                                          .metadata = SLICE_LIT("m\0n"),
                                          .commits = commits,
                                          .commits_n = 1,
                                          .applied = true,
                                          .applied_offset = 201,
                                          .intends = true,
                                          .intended_offset = 203});
    struct ledger_event e = {.wall_ms = 5,
                             .flow = SLICE_LIT("east->west"),
                             .kind = slice_str(ledger_kind_name(LEDGER_GAP)),
                             .topic = SLICE_LIT("orders"),
                             .partition = 3,
                             .from = 7,
                             .count = 8,
                             .text = SLICE_LIT("gone")};
    store_put_event(b, &e);
}

static void check_one_of_each(struct store_view *v, struct numbers n)
{
    uint32_t flow = n.flow, topic = n.topic, again = n.again;
    struct slice id;
    cr_assert(store_alias(v, SLICE_LIT("east"), &id) == 1 && slice_eq_str(id, "abc"));
    cr_assert_eq(store_alias(v, SLICE_LIT("west"), &id), 0);
    struct stored_flow f;
    cr_assert(store_flow(v, SLICE_LIT("east->west"), &f) == 1 && f.number == flow &&
              f.progress_next == 1234 && f.progress_topic_id.b[0] == 5);
    struct stored_topic t;
    cr_assert(store_topic_named(v, flow, SLICE_LIT("orders"), false, &t) == 1 && t.number == again &&
                  t.topic.id.b[0] == 2,
              "the newest");
    cr_assert(store_topic_named(v, flow, SLICE_LIT("east.orders"), true, &t) == 1 &&
              slice_eq_str(t.target_topic, "east.orders"));
    cr_assert_eq(store_topic_named(v, flow + 1, SLICE_LIT("orders"), false, &t), 0);
    struct map_position back;
    cr_assert_eq(store_position(v, topic, 3, &back), 1);
    cr_assert(back.next_offset == 30 && back.leader_epoch == -1 && back.fingerprint == 0x10000000 && back.lanes_n == 1);
    cr_assert(back.lanes[0].number_next == 10 && back.lanes[0].end_offset == 20 &&
              back.lanes[0].source_next == 30 && back.lanes[0].timestamp_max == 40 &&
              back.lanes[0].end_epoch == 5 && back.lanes[0].source_idle == 12 && back.lanes[0].q == 3);
    cr_assert(slice_eq_str(back.topic.name, "orders") && back.topic.id.b[1] == 2 && back.target_topic_id.b[0] == 9);
    struct map_producer_id pid;
    cr_assert(store_producer_id(v, flow, 3, &pid) == 1 && pid.producer_id == 4000 && pid.offered_at == 17);
    struct group_entry g;
    cr_assert_eq(store_group(v, topic, SLICE_LIT("shop"), 3, &g), 1);
    cr_assert(g.offset == 202 && g.state == GROUP_AHEAD && g.commits_n == 1 && g.commits[0].offset == 102 &&
              g.metadata.n == 3 && g.applied && g.q == 3 && g.intends && g.intended_offset == 203);
    cr_assert_eq(store_group(v, topic, SLICE_LIT("shop"), 2, &g), 0);
}

Test(store, everything_comes_back)
{
    struct dir d = dir_make();
    struct store *s = opened(&d, STORE_DAEMON, 0);
    struct store_batch *b = store_batch_create(s);
    struct numbers n = {.flow = store_new_flow(s)};
    n.topic = store_new_topic(s);
    n.again = store_new_topic(s);
    put_one_of_each(b, n);
    commit(s, b);
    store_batch_destroy(b);
    store_close(s);

    s = opened(&d, STORE_READER, 0);
    struct store_view *v = viewed(s);
    check_one_of_each(v, n);
    cr_assert_eq(store_verify(v, NULL), 0);
    store_view_close(v);
    store_close(s);
    dir_remove(&d);
}

static int count_events(void *arg, const struct ledger_event *e)
{
    (void)e;
    ++*(int *)arg;
    return 0;
}

Test(store, the_ledger_keeps_its_order_over_restarts_and_its_bound)
{
    struct dir d = dir_make();
    uint64_t last = 0;
    for (int round = 0; round < 3; round++) {
        struct store *s = opened(&d, STORE_DAEMON, 0);
        struct store_batch *b = store_batch_create(s);
        for (int i = 0; i < 40000; i++) {
            struct ledger_event e = {.flow = SLICE_LIT("f"),
                                     .kind = SLICE_LIT("gap"),
                                     .topic = SLICE_LIT("t"),
                                     .text = SLICE_LIT("x")};
            store_put_event(b, &e);
            cr_assert_gt(e.number, last);
            last = e.number;
        }
        commit(s, b);
        store_batch_destroy(b);
        struct store_view *v = viewed(s);
        int n = 0;
        cr_assert_eq(store_events_each(v, 0, count_events, &n), 0);
        cr_assert_eq(n, round == 0 ? 40000 : round == 1 ? 80000 : (int)STORE_LEDGER_MAX);
        store_view_close(v);
        store_close(s);
    }
    dir_remove(&d);
}

Test(store, its_map_answers_as_the_one_in_memory)
{
    struct dir d = dir_make();
    struct store *s = opened(&d, STORE_DAEMON, 0);
    struct store_batch *b = store_batch_create(s);
    struct map_memory *m = map_memory_create();
    struct rng rng;
    rng_init(&rng, 7);
    uint32_t other = store_new_topic(s), topic = store_new_topic(s), after = store_new_topic(s);
    store_put_run(b, other, 0, &(struct map_run){0, 1, 1, 1});
    store_put_run(b, after, 0, &(struct map_run){0, 1, 1, 1});
    for (int32_t p = 0; p < 3; p++)
        for (int32_t q = 0; q < 3; q++) {
            int64_t src = (int64_t)rng_below(&rng, 50), dst = (int64_t)rng_below(&rng, 50);
            for (int i = 0; i < 100; i++) {
                struct map_run r = {q, src, dst, 1 + (int64_t)rng_below(&rng, 9)};
                store_put_run(b, topic, p, &r);
                cr_assert_eq(map_memory_run(m, p, &r), 0);
                src += r.count + 1 + (int64_t)rng_below(&rng, 5), dst += r.count + (int64_t)rng_below(&rng, 5);
            }
        }
    commit(s, b);
    struct store_view *v = viewed(s);
    struct store_map sm;
    struct map *a = store_map_init(&sm, v, topic), *c = map_memory_map(m);
    for (int i = 0; i < 20000; i++) {
        int32_t p = (int32_t)rng_below(&rng, 4), q = (int32_t)rng_below(&rng, 4);
        int64_t at = (int64_t)rng_below(&rng, 1000);
        struct map_run x = {0}, y = {0};
        int which = (int)rng_below(&rng, 4);
        int (*ask[4])(struct map *, int32_t, int32_t, int64_t, struct map_run *) = {
            map_src_at_or_before, map_src_after, map_dst_at_or_before, map_dst_after};
        int rx = ask[which](a, p, q, at, &x), ry = ask[which](c, p, q, at, &y);
        cr_assert_eq(rx, ry, "question %d at %ld", which, at);
        if (rx)
            cr_assert(x.q == y.q && x.src_start == y.src_start && x.dst_start == y.dst_start && x.count == y.count);
    }
    struct map_run last;
    cr_assert_eq(store_last_run(v, topic, 2, 2, &last), 1);
    struct map_run none;
    cr_assert_eq(map_src_after(a, 2, 2, last.src_start, &none), 0);
    store_view_close(v);
    store_batch_destroy(b);
    store_close(s);
    map_memory_destroy(m);
    dir_remove(&d);
}

/* A process of its own, as the command line is: opens before the growth, looks after it. */
static void reader_of_a_growing_store(const char *path, int go, int ready)
{
    struct store *r;
    struct store_view *v;
    char c;
    if (read(go, &c, 1) != 1 || store_open(&(struct store_options){.path = path, .mode = STORE_READER}, &r, NULL) ||
        write(ready, "r", 1) != 1 || read(go, &c, 1) != 1 || store_view_open(r, &v, NULL))
        _exit(1);
    int bad = store_verify(v, NULL) != 0;
    store_view_close(v);
    store_close(r);
    _exit(bad ? 2 : 0);
}

/* Two daemons cut the same records into different runs; a reader of both makes one map of them. */
Test(store, runs_of_two_writers_merge_into_one_map)
{
    struct dir d = dir_make();
    struct store *s = opened(&d, STORE_DAEMON, 0);
    struct store_batch *b = store_batch_create(s);
    struct rng rng;
    rng_init(&rng, 5);
    for (uint32_t round = 0; round < 60; round++) {
        /* The truth: some runs; then pieces of them in any order and overlap, each perhaps twice. */
        struct map_run truth[8];
        int64_t src = 0, dst = 0;
        int n = 1 + (int)rng_below(&rng, 8);
        for (int i = 0; i < n; i++) {
            src += (int64_t)rng_below(&rng, 3), dst += 1 + (int64_t)rng_below(&rng, 3);
            truth[i] = (struct map_run){0, src, dst, 1 + (int64_t)rng_below(&rng, 20)};
            src += truth[i].count, dst += truth[i].count;
        }
        struct map_memory *m = map_memory_create();
        uint32_t topic = store_new_topic(s);
        for (int i = 0; i < 40 + n; i++) {
            struct map_run *t = &truth[i < n ? i : (int)rng_below(&rng, (uint64_t)n)];
            int64_t from = i < n ? 0 : (int64_t)rng_below(&rng, (uint64_t)t->count);
            struct map_run piece = {0, t->src_start + from, t->dst_start + from,
                                    1 + (int64_t)rng_below(&rng, (uint64_t)(t->count - from))};
            if (i < n)
                piece.count = t->count;
            store_merge_run(b, topic, 0, &piece);
            cr_assert_eq(map_memory_run(m, 0, &piece), 0);
            if (rng_chance(&rng, 300000))
                commit(s, b);
        }
        commit(s, b);
        struct store_view *v = viewed(s);
        struct store_map sm;
        struct map *maps[] = {store_map_init(&sm, v, topic), map_memory_map(m)};
        for (int which = 0; which < 2; which++) {
            struct map_run r, back;
            int64_t at = -1;
            for (int i = 0; i < n; i++) {
                cr_assert_eq(map_src_after(maps[which], 0, 0, at, &r), 1, "map %d, run %d of %d", which, i, n);
                cr_assert(r.src_start == truth[i].src_start && r.dst_start == truth[i].dst_start &&
                              r.count == truth[i].count,
                          "map %d: run %d is %ld %ld %ld", which, i, r.src_start, r.dst_start, r.count);
                cr_assert(map_dst_at_or_before(maps[which], 0, 0, r.dst_start, &back) == 1 &&
                          back.src_start == r.src_start);
                at = r.src_start;
            }
            cr_assert_eq(map_src_after(maps[which], 0, 0, at, &r), 0, "map %d has %ld %ld %ld besides", which,
                         r.src_start, r.dst_start, r.count);
        }
        store_view_close(v);
        map_memory_destroy(m);
    }
    store_batch_destroy(b);
    store_close(s);
    dir_remove(&d);
}

Test(store, it_grows_while_a_reader_looks_on)
{
    struct dir d = dir_make();
    int ready[2], go[2];
    cr_assert(pipe(ready) == 0 && pipe(go) == 0);
    pid_t child = fork();
    if (child == 0)
        reader_of_a_growing_store(d.path, go[0], ready[1]);
    struct store *s = opened(&d, STORE_DAEMON, 1 << 20);
    char c;
    cr_assert(write(go[1], "o", 1) == 1 && read(ready[0], &c, 1) == 1);
    struct store_batch *b = store_batch_create(s);
    uint32_t topic = store_new_topic(s);
    for (int i = 0; i < 60; i++) {
        for (int k = 0; k < 1000; k++)
            store_put_run(b, topic, i % 7, &(struct map_run){i % 7, i * 10000 + k * 2, i * 10000 + k, 1});
        commit(s, b);
    }
    cr_assert_gt(store_bytes(s), (size_t)2 << 20);
    struct store_view *v = viewed(s);
    cr_assert_eq(store_verify(v, NULL), 0);
    store_view_close(v);
    int status;
    cr_assert(write(go[1], "o", 1) == 1 && waitpid(child, &status, 0) == child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the reader ended with %x", status);
    store_batch_destroy(b);
    store_close(s);
    for (int i = 0; i < 2; i++)
        close(ready[i]), close(go[i]);
    dir_remove(&d);
}

Test(store, a_folder_belongs_to_one_daemon)
{
    struct dir d = dir_make();
    struct disk *disk = disk_posix_create();
    struct store *a, *b;
    struct err e;
    struct store_options o = {.path = d.path, .mode = STORE_DAEMON, .disk = disk};
    cr_assert_eq(store_open(&o, &a, &e), 0, "%s", e.text);
    cr_assert_eq(store_open(&o, &b, &e), -E_BUSY);
    cr_assert(strstr(e.text, d.path) && strstr(e.text, "another sundog-mirror"), "%s", e.text);
    store_close(a);
    disk_posix_destroy(disk);
    dir_remove(&d);
}

Test(store, a_reader_says_when_there_is_none)
{
    struct store *s;
    struct err e;
    cr_assert_eq(
        store_open(&(struct store_options){.path = "/tmp/sundog-no-such-store", .mode = STORE_READER}, &s,
                   &e),
        -E_NOTFOUND);
    cr_assert(strstr(e.text, "/tmp/sundog-no-such-store") && strstr(e.text, "there is none"), "%s", e.text);
}

/* Commits numbered positions for ever, telling each number once it is durable. */
static void commit_for_ever(const char *path, int out)
{
    struct store *s;
    if (store_open(&(struct store_options){.path = path, .mode = STORE_DAEMON}, &s, NULL))
        _exit(1);
    struct store_batch *b = store_batch_create(s);
    for (int64_t i = 1;; i++) {
        struct map_lane lane = {0, i, i, i, i, 0, 0};
        struct map_position p = position(0, i, &lane);
        store_put_position(b, 1, &p);
        for (int k = 0; k < 20; k++)
            store_put_run(b, 1, 0, &(struct map_run){0, i * 100 + k * 2, i * 50 + k, 1});
        if (store_commit(s, b, NULL) || write(out, &i, sizeof i) != sizeof i)
            _exit(1);
        store_batch_clear(b);
    }
}

Test(store, a_kill_at_any_moment_loses_no_commit)
{
    struct dir d = dir_make();
    struct rng rng;
    rng_init(&rng, 11);
    int64_t sure = 0;
    for (int kills = 0; kills < 25; kills++) {
        int pipe_fd[2];
        cr_assert_eq(pipe(pipe_fd), 0);
        pid_t child = fork();
        if (child == 0) {
            close(pipe_fd[0]);
            commit_for_ever(d.path, pipe_fd[1]);
        }
        close(pipe_fd[1]);
        int64_t n = 0, told, until = clock_now_us() + 1000000; /* each is a sync: a busy disk takes its time */
        int commits = 1 + (int)rng_below(&rng, 60);
        while (commits-- > 0 && (n == 0 || clock_now_us() < until) &&
               read(pipe_fd[0], &told, sizeof told) == sizeof told)
            n = told;
        usleep((useconds_t)rng_below(&rng, 1500));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        while (read(pipe_fd[0], &told, sizeof told) == sizeof told)
            n = told;
        close(pipe_fd[0]);
        sure = n;
        struct store *s = opened(&d, STORE_DAEMON, 0);
        struct store_view *v = viewed(s);
        struct err e;
        cr_assert_eq(store_verify(v, &e), 0, "%s", e.text);
        struct map_position p;
        cr_assert_eq(store_position(v, 1, 0, &p), 1);
        cr_assert_geq(p.next_offset, sure);
        struct map_run last;
        cr_assert_eq(store_last_run(v, 1, 0, 0, &last), 1);
        cr_assert_geq(last.src_start, p.next_offset * 100, "position and runs of one commit are there together");
        store_view_close(v);
        store_close(s);
    }
    dir_remove(&d);
}

Test(store, a_flipped_bit_in_a_value_is_never_a_wrong_number)
{
    struct dir d = dir_make();
    struct store *s = opened(&d, STORE_DAEMON, 0);
    struct store_batch *b = store_batch_create(s);
    struct map_lane lane = {0, 1, 2, 3, 4, 5, 0};
    struct map_position p = position(0, 0x1122334455, &lane);
    store_put_position(b, 1, &p);
    commit(s, b);
    store_batch_destroy(b);
    store_close(s);
    char file[128];
    snprintf(file, sizeof file, "%s/data.mdb", d.path);
    int fd = open(file, O_RDWR);
    struct stat st;
    fstat(fd, &st);
    uint8_t *bytes = malloc((size_t)st.st_size);
    cr_assert_eq(pread(fd, bytes, (size_t)st.st_size, 0), st.st_size);
    uint8_t *at = memmem(bytes, (size_t)st.st_size, "east.orders", 11);
    cr_assert_not_null(at);
    *at ^= 4;
    cr_assert_eq(pwrite(fd, at, 1, at - bytes), 1);
    close(fd);
    free(bytes);
    s = opened(&d, STORE_READER, 0);
    struct store_view *v = viewed(s);
    struct err e;
    cr_assert_eq(store_position(v, 1, 0, &p), -E_CORRUPT);
    cr_assert_eq(store_verify(v, &e), -E_CORRUPT);
    cr_assert(strstr(e.text, "positions"), "%s", e.text);
    store_view_close(v);
    store_close(s);
    dir_remove(&d);
}

Test(codec, keys_of_different_things_differ_and_equal_ones_are_equal_bytes)
{
    struct progress_key keys[] = {{PROGRESS_POSITION, {SLICE_LIT("t"), {{1}}}, 0, 0, {0}},
                                  {PROGRESS_POSITION, {SLICE_LIT("t"), {{1}}}, 1, 0, {0}},
                                  {PROGRESS_POSITION, {SLICE_LIT("t"), {{0}}}, 0, 0, {0}},
                                  {PROGRESS_POSITION, {SLICE_LIT("u"), {{0}}}, 0, 0, {0}},
                                  {PROGRESS_RUN, {SLICE_LIT("t"), {{1}}}, 0, 0, {0}},
                                  {PROGRESS_RUN, {SLICE_LIT("t"), {{1}}}, 0, 5, {0}},
                                  {PROGRESS_RUN, {SLICE_LIT("t"), {{2}}}, 0, 5, {0}},
                                  {PROGRESS_PRODUCER_ID, {{0}, {{0}}}, 0, 0, {1}},
                                  {PROGRESS_PRODUCER_ID, {{0}, {{0}}}, 0, 0, {2}},
                                  {PROGRESS_PRODUCER_ID, {{0}, {{0}}}, 1, 0, {1}}};
    enum { N = sizeof keys / sizeof *keys };
    struct buf b[N];
    struct arena a;
    arena_init(&a, 1 << 20);
    for (int i = 0; i < N; i++) {
        buf_init(&b[i], 1000);
        cr_assert_eq(progress_key_encode(&keys[i], &b[i]), 0);
        struct progress_key back;
        cr_assert_eq(progress_key_decode(buf_slice(&b[i]), &a, &back), 0);
        cr_assert(back.kind == keys[i].kind && back.p == keys[i].p && back.src_start == keys[i].src_start);
        for (int j = 0; j < i; j++)
            cr_assert(!slice_eq(buf_slice(&b[i]), buf_slice(&b[j])), "keys %d and %d", i, j);
    }
    struct buf again;
    buf_init(&again, 1000);
    keys[5].topic.name = SLICE_LIT("renamed?"); /* the id alone counts */
    cr_assert_eq(progress_key_encode(&keys[5], &again), 0);
    cr_assert(slice_eq(buf_slice(&again), buf_slice(&b[5])));
    buf_fini(&again);
    for (int i = 0; i < N; i++)
        buf_fini(&b[i]);
    arena_fini(&a);
}

Test(codec, random_bytes_are_refused_or_make_sense)
{
    struct rng rng;
    rng_init(&rng, 3);
    for (int i = 0; i < 50000; i++) {
        uint8_t bytes[64];
        size_t n = (size_t)rng_below(&rng, sizeof bytes);
        rng_fill(&rng, bytes, n);
        struct arena a;
        arena_init(&a, 1 << 20);
        struct slice in = slice_of(bytes, n);
        struct progress_key k;
        struct map_position p;
        struct map_run r;
        struct map_producer_id id;
        struct group_entry g = {0};
        progress_key_decode(in, &a, &k);
        if (position_decode(in, &a, &p) == 0)
            cr_assert_geq(p.next_offset, 0);
        if (run_decode(in, &a, 0, &r) == 0)
            cr_assert_gt(r.count, 0);
        producer_id_decode(in, &a, &id);
        stored_group_decode(in, &a, &g);
        arena_fini(&a);
    }
}
