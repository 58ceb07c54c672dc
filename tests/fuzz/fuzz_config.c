/* Configuration files and the admin port's requests: parsed or refused, never a crash. The first byte chooses. */
#include "tests/fuzz/fuzz.h"

#include "base/runtime/admin_http.h"
#include "base/runtime/admin_request.h"
#include "base/runtime/options.h"

#include <stdlib.h>

#define ROWS                                                                                                 \
    OPTION("listeners", LIST, listeners, NULL, 0, 10, "", FIXED, "Where to listen.")                         \
    OPTION("num.threads", INT, num_threads, "3", 1, 16, "threads", RELOADABLE, "How many threads.")          \
    OPTION("ratio", DOUBLE, ratio, "0.5", 0, 1, "", FIXED, "How full.")                                      \
    OPTION("policy", LIST, policy, "delete", 0, 2, "delete|compact", FIXED, "What to do.")                   \
    OPTION("secret", PASSWORD, secret, NULL, 4, 64, "", FIXED, "What nobody may see.")

struct demo {
#define OPTION OPTION_FIELD
    ROWS
#undef OPTION
};
static const struct option_row rows[] = {
#define OPTION(...) OPTION_ROW(struct demo, __VA_ARGS__)
    ROWS
#undef OPTION
};
static const struct option_table table = OPTION_TABLE("demo", rows, struct demo);

static void fuzz_file(struct slice text)
{
    struct props p;
    struct demo d;
    struct err err;
    const struct option_table *tables[] = {&table};
    props_init(&p);
    if (props_parse(&p, text, "fuzz", &err) == 0 && options_apply(&table, &p, &d, &err) == 0) {
        struct buf shown;
        buf_init(&shown, 1 << 20);
        for (size_t i = 0; i < table.n; i++)
            options_print(&rows[i], &d, &shown);
        options_finish(tables, 1, NULL, &p, &err);
        buf_fini(&shown);
        options_fini(&table, &d);
    }
    props_fini(&p);
}

static void fuzz_request(struct slice in, bool loopback)
{
    struct admin_request q;
    int status = admin_request_parse(in, loopback, &q);
    if (status != 200 && status != ADMIN_REQUEST_PARTIAL && (status < 400 || !q.why))
        abort();
    if (status == 200 && (q.bytes > in.n || slice_is_null(q.path)))
        abort();
}

static void fuzz_listener(struct slice in)
{
    char text[300], host[ADMIN_HOST_MAX];
    uint16_t port;
    admin_listener_parse(slice_cstr(in, text, sizeof text), host, &port, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct slice rest = slice_of(data + 1, size - 1);
    switch (data[0] % 4) {
    case 0: fuzz_file(rest); break;
    case 1: fuzz_request(rest, true); break;
    case 2: fuzz_request(rest, false); break;
    default: fuzz_listener(rest); break;
    }
    return 0;
}
