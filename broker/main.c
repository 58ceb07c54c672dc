/* sundog-broker FILE [key=value ...] */
#include "broker/daemon.h"

#include "base/runtime/log.h"
#include "base/runtime/signals.h"
#include "base/world/disk_posix.h"

#include <stdio.h>

#define PROGRAM "sundog-broker"

static int help(void)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    buf_printf(&text, "usage: " PROGRAM " FILE [key=value ...]\n\n");
    options_help(&broker_option_table, &text);
    fwrite(text.p, 1, text.n, stdout);
    buf_fini(&text);
    return 0;
}

static void set_up_log(const struct broker_options *o)
{
    enum log_format format = LOG_TEXT;
    enum log_level level = LOG_INFO;
    log_format_parse(o->log_format, &format);
    log_level_parse(o->log_level, &level);
    log_setup(format, level);
    log_hold(); /* a bad start is one line */
}

int main(int argc, char **argv)
{
    struct broker_options options;
    struct err err = {0};
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return help();
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return puts(PROGRAM " " SUNDOG_VERSION) < 0;
    if (argc >= 2 && argv[1][0] == '-') {
        log_fatal_line(PROGRAM, "unknown option %s; usage: " PROGRAM " FILE [key=value ...]", argv[1]);
        return 2;
    }
    if (argc < 2) {
        log_fatal_line(PROGRAM, "no configuration file; usage: " PROGRAM " FILE [key=value ...]");
        return 2;
    }
    signals_setup();
    struct disk *disk = disk_posix_create();
    log_hold();
    if (!disk ||
        broker_options_load(disk, argv[1], (const char *const *)argv + 2, argc - 2, &options, &err)) {
        log_fatal_line(PROGRAM, "%s", disk ? err.text : "out of memory");
        disk_posix_destroy(disk);
        return 2;
    }
    set_up_log(&options);
    int code = daemon_run(disk, &options);
    broker_options_fini(&options);
    disk_posix_destroy(disk);
    return code;
}
