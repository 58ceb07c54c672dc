#include "base/world/clock.h"
#include "base/world/process.h"
#include "base/world/thread.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

Test(process, usage_is_what_the_kernel_says)
{
    struct process_usage a, b;
    process_usage_read(&a);
    cr_expect(a.resident_bytes > 1000000 && a.virtual_bytes >= a.resident_bytes);
    cr_expect(a.threads >= 1 && a.open_fds >= 3 && a.max_fds >= a.open_fds);
    cr_expect(a.start_wall_ms <= clock_wall_ms() + 20 && a.start_wall_ms > clock_wall_ms() - 3600000);
    int fd = open("/dev/null", O_RDONLY);
    volatile unsigned spin = 0;
    do { /* until the kernel has let it */
        for (int64_t end = clock_now_us() + 30000; clock_now_us() < end;)
            spin++;
        process_usage_read(&b);
    } while (b.cpu_us == a.cpu_us);
    cr_expect_eq(b.open_fds, a.open_fds + 1);
    cr_expect_gt(b.cpu_us, a.cpu_us);
    close(fd);
    cr_expect_geq(process_cpus(), 1);
    cr_expect_geq(process_raise_fds(), a.max_fds);
    cr_expect_neq(process_random(), process_random());
}

static char name[32];
static sigset_t mask;

static void look_around(void *arg)
{
    pthread_getname_np(pthread_self(), name, sizeof name);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    *(int *)arg = 42;
}

Test(process, threads_have_names_and_no_signals)
{
    pthread_t t;
    int seen = 0;
    cr_assert_eq(thread_start(&t, "a-name-that-is-too-long", look_around, &seen, NULL), 0);
    thread_join(t);
    cr_expect_eq(seen, 42);
    cr_expect_str_eq(name, "a-name-that-is-");
    cr_expect(sigismember(&mask, SIGTERM) && sigismember(&mask, SIGINT));
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    cr_expect_not(sigismember(&mask, SIGTERM));
}
