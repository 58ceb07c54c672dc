/* Criterion counts a leaking test as passed: every test's process ends with the leak check, whose text fails the
 * program (tests/CMakeLists.txt). The runner itself, which starts those processes, now and then leaves blocks of
 * Criterion's own behind and is not checked; Criterion names its memory map to the processes it starts. */
#include <stdlib.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#include <stdio.h>

static int is_runner(void)
{
    return !getenv("BXFI_MAP");
}

/* LeakSanitizer asks this by its name before each check. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return is_runner();
}

static void check(void)
{
    if (is_runner() || getenv("SUNDOG_NO_LEAK_CHECK"))
        return;
    if (__lsan_do_recoverable_leak_check()) {
        fputs("leak check: this test leaks\n", stderr);
        _exit(86);
    }
}

__attribute__((constructor)) static void arm(void)
{
    atexit(check);
}
#endif
