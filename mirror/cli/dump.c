/* sundog dump log|frame: what lies in a file, as text. */
#include "broker/log/dump.h"
#include "mirror/cli/commands.h"
#include "proto/kafka/frame_print.h"
#include "proto/kafka/wire.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_MAX (100u << 20)
#define DUMP_MAX  (1u << 30)

static void print_line(void *arg, const char *line)
{
    (void)arg;
    puts(line);
}

int cli_dump_log(struct cli *cli, struct args *args)
{
    bool records = args_flag(args, "--records");
    const char *path = args_word(args, "the file");
    if (!args_done(args))
        return cli_fail(CLI_USAGE, "%s", args->error);
    struct err err = {0};
    unsigned how = (records ? LOG_DUMP_RECORDS : 0u) | (cli->json ? LOG_DUMP_JSON : 0u);
    if (log_dump_print(cli->disk, path, how, print_line, NULL, &err))
        return cli_fail_err(&err, "dump log"); /* names the path itself */
    return CLI_DONE;
}

/* A whole file, or standard input for "-". */
static int read_input(struct cli *cli, const char *path, struct buf *out, struct err *err)
{
    if (strcmp(path, "-") != 0) {
        struct slice all;
        int rc = disk_read_all(cli->disk, path, FRAME_MAX, &all, err);
        if (!rc) {
            buf_put(out, all.p, all.n);
            free((void *)(uintptr_t)all.p);
        }
        return rc;
    }
    uint8_t piece[4096];
    size_t n;
    while ((n = fread(piece, 1, sizeof piece, stdin)) > 0)
        buf_put(out, piece, n);
    return out->failed ? err_set(err, -E_LIMIT, "more than %u bytes", FRAME_MAX) : 0;
}

/* Pairs of hexadecimal digits, white space between them ignored, in place. */
static int unhex(struct buf *b, struct err *err)
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 0, half = 0;
    for (size_t i = 0; i < b->n; i++) {
        if (isspace(b->p[i]))
            continue;
        const char *at = b->p[i] ? strchr(digits, tolower(b->p[i])) : NULL;
        if (!at)
            return err_set(err, -E_INVALID, "byte %zu is not a hexadecimal digit", i);
        uint8_t v = (uint8_t)(at - digits);
        if (half++ % 2 == 0)
            b->p[n] = (uint8_t)(v << 4);
        else
            b->p[n++] |= v;
    }
    b->n = n;
    return half % 2 ? err_set(err, -E_INVALID, "an odd number of hexadecimal digits") : 0;
}

/* "Fetch:12" or "1:12" */
static bool parse_answers(const char *text, struct frame_answers *out)
{
    const char *colon = strchr(text, ':');
    if (!colon)
        return false;
    char *end;
    long version = strtol(colon + 1, &end, 10), key = strtol(text, NULL, 10);
    if (end == colon + 1 || *end || version < 0 || version > INT16_MAX)
        return false;
    size_t n;
    const struct kp_api *apis = kp_api_table(&n);
    for (size_t i = 0; i < n; i++) {
        bool named = strlen(apis[i].name) == (size_t)(colon - text) &&
                     strncmp(apis[i].name, text, strlen(apis[i].name)) == 0;
        if (named || (isdigit((unsigned char)text[0]) && apis[i].key == key)) {
            *out = (struct frame_answers){apis[i].key, (int16_t)version};
            return true;
        }
    }
    return false;
}

int cli_dump_frame(struct cli *cli, struct args *args)
{
    bool hex = args_flag(args, "--hex");
    const char *response = args_option(args, "--response");
    const char *path = args_word(args, "the file");
    struct frame_answers answers;
    if (!args_done(args))
        return cli_fail(CLI_USAGE, "%s", args->error);
    if (response && !parse_answers(response, &answers))
        return cli_fail(CLI_USAGE, "--response %s: KEY:VERSION is expected, as Fetch:12", response);
    struct err err = {0};
    struct buf in, out;
    buf_init(&in, FRAME_MAX);
    buf_init(&out, DUMP_MAX);
    int rc = read_input(cli, path, &in, &err);
    rc = rc || !hex ? rc : unhex(&in, &err);
    if (!rc) {
        rc = frame_print(buf_slice(&in), response ? &answers : NULL, &out, &err);
        if (cli->json)
            cli_print_json(
                json_pack("{s:b, s:o}", "sound", rc == 0, "text", cli_json_slice(buf_slice(&out))));
        else
            fwrite(buf_slice(&out).p, 1, out.n, stdout);
    }
    buf_fini(&in);
    buf_fini(&out);
    return rc ? cli_fail_err(&err, "%s", path) : CLI_DONE;
}
