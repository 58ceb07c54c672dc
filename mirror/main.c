/* sundog-mirror FILE [--clusters ALIAS ...] [key=value ...] */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/core/buf.h"
#include "base/runtime/log.h"
#include "base/runtime/signals.h"
#include "mirror/mirror.h"
#include "mirror/options.h"
#include "mirror/route/config.h"

#define PROGRAM   "sundog-mirror"
#define WORDS_MAX 256

enum { EXIT_DONE = 0, EXIT_ENVIRONMENT = 1, EXIT_USAGE = 2 };

static const char usage[] = "usage: " PROGRAM " FILE [--clusters ALIAS ...] [key=value ...]";

static void help(void)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_printf(&b,
               "%s\n\nMirrors topics and consumer group offsets between Kafka clusters, from a file of "
               "MirrorMaker 2's keys.\n"
               "--clusters runs only the flows into the named targets. Runs in the foreground until SIGTERM "
               "or SIGINT.\n\n",
               usage);
    options_help(&flow_option_table, &b);
    options_help(&mirror_option_table, &b);
    fwrite(buf_slice(&b).p, 1, b.n, stdout);
    buf_fini(&b);
}

struct words {
    const char *targets[WORDS_MAX], *settings[WORDS_MAX];
};

/* NULL, or what is wrong; `culprit` is the word. */
static const char *parse(int argc, char **argv, struct words *w, struct mirror_arguments *a,
                         const char **culprit)
{
    bool clusters = false;
    *culprit = "";
    *a = (struct mirror_arguments){.targets = w->targets, .settings = w->settings};
    if (argc > WORDS_MAX)
        return "too many words";
    for (int i = 1; i < argc; i++) {
        const char *word = *culprit = argv[i];
        if (strcmp(word, "--clusters") == 0)
            clusters = true;
        else if (word[0] == '-' && word[1] && !strchr(word, '='))
            return "unknown option ";
        else if (a->file && strchr(word, '='))
            w->settings[a->settings_n++] = word;
        else if (clusters && a->file)
            w->targets[a->targets_n++] = word;
        else if (!a->file)
            a->file = word;
        else
            return "a second file: ";
    }
    *culprit = "";
    if (!a->file)
        return "no file";
    return clusters && a->targets_n == 0 ? "--clusters without an alias" : NULL;
}

int main(int argc, char **argv)
{
    struct words words;
    struct mirror_arguments a;
    struct mirror *m;
    struct err err = {0};
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        help();
        return EXIT_DONE;
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return puts(PROGRAM " " SUNDOG_VERSION) < 0 ? EXIT_ENVIRONMENT : EXIT_DONE;
    const char *culprit, *wrong = parse(argc, argv, &words, &a, &culprit);
    if (wrong) {
        log_fatal_line(PROGRAM, "%s%s; %s", wrong, culprit, usage);
        return EXIT_USAGE;
    }
    log_hold();
    signals_setup();
    int rc = mirror_open(&a, &m, &err);
    if (!rc) {
        rc = mirror_run(m, &err);
        mirror_close(m);
    }
    if (rc) {
        log_fatal_line(PROGRAM, "%s", err.text);
        return rc == -E_CONFIG ? EXIT_USAGE : EXIT_ENVIRONMENT;
    }
    return EXIT_DONE;
}
