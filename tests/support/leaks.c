/* Criterion counts a leaking test as passed: every test's process ends with the leak check, whose text fails the program
 * (tests/CMakeLists.txt). */
#include <stdlib.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#include <stdio.h>

static void check(void)
{
    if (getenv("SUNDOG_NO_LEAK_CHECK"))
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
