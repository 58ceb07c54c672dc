/* Each mutant of this room, compiled in and chosen by the environment, makes a test fail that is quick to run; without a
 * mutant the same test passes. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct mutant {
    char name[32], filter[96];
};

static struct mutant mutants[] = {
    {"no_fsync", "crash/a_short_one_for_the_mutants"},
    {"no_dir_fsync", "crash/a_short_one_for_the_mutants"},
    {"crc_ignored_on_recovery", "crash/a_short_one_for_the_mutants"},
    {"dedupe_state_lost", "log/producer_sequences"},
    {"forgotten_sequence_check", "log/producer_sequences"},
    {"corrupt_middle_as_tail", "damage/a_closed_segment_is_held_against_the_next"},
    {"retry_fsync", "faults/a_failed_fdatasync_fences_and_is_never_tried_again"},
};

/* This program again, with one test and one mutant; an environment of its own, or it would take itself for a worker. */
static int run(const struct mutant *m, const char *mutant)
{
    char self[512], choice[64], filter[128];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    cr_assert_gt(n, 0);
    self[n] = 0;
    snprintf(choice, sizeof choice, "SUNDOG_MUTANT=%s", mutant);
    snprintf(filter, sizeof filter, "--filter=%s", m->filter);
    char *args[] = {self, filter, "--jobs=1", "--quiet", NULL};
    char *env[] = {choice, "SUNDOG_NO_LEAK_CHECK=1", "ASAN_OPTIONS=detect_leaks=0", "PATH=/usr/bin:/bin",
                   NULL};
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        dup2(null, 2);
        execve(self, args, env);
        _exit(127);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

ParameterizedTestParameters(mutants, are_caught)
{
    return cr_make_param_array(struct mutant, mutants, sizeof mutants / sizeof *mutants);
}

ParameterizedTest(struct mutant *m, mutants, are_caught, .timeout = 100)
{
    cr_assert_eq(run(m, ""), 0, "%s fails without a mutant", m->filter);
    int rc = run(m, m->name);
    cr_assert(rc != 0 && rc != 127, "the mutant %s lives", m->name);
}
