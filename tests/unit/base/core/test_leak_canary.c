/* The leak check must be able to fail: a leaking child of this test ends with its code. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
static void *volatile leaked;

static __attribute__((noinline)) void leak(void)
{
    leaked = malloc(77);
    leaked = NULL;
}

Test(leak_canary, a_leak_fails_the_process_that_leaks)
{
    pid_t child = fork();
    if (child == 0) {
        close(2);
        leak();
        char wipe[4096];
        for (size_t i = 0; i < sizeof wipe; i++)
            ((volatile char *)wipe)[i] = 0;
        exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 86, "the canary must be seen");
}
#endif
