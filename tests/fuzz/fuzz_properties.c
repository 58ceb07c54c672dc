/* The configuration files of both daemons through their own tables, up to where the first socket would be opened: parsed,
 * or refused with a word of why. First byte: 0 the broker's, 1 the mirror's, 2 a topic's options, 3 patterns and
 * names of a flow. */
#include "broker/metadata/topic_config.h"
#include "broker/net/listeners.h"
#include "broker/options.h"
#include "mirror/options.h"
#include "mirror/route/config.h"
#include "mirror/route/pattern.h"
#include "tests/fuzz/fuzz.h"

#include "base/core/bytes.h"
#include "base/runtime/log.h"

static void refused_well(const struct err *err)
{
    if (!err->text[0]) /* one line it becomes when it is printed: base/runtime/log.c escapes */
        abort();
}

/* What is printed is read again as the same. */
static void check_rows(const struct option_table *t, const void *o)
{
    struct buf text;
    buf_init(&text, 8 << 20);
    for (size_t i = 0; i < t->n; i++) {
        buf_clear(&text);
        options_print(&t->rows[i], o, &text);
        enum option_type type = t->rows[i].type;
        if (!t->rows[i].value || (type != OPTION_BOOL && type != OPTION_INT && type != OPTION_LONG))
            continue;
        buf_put_u8(&text, 0);
        if (options_check(&t->rows[i], (const char *)text.p, NULL))
            abort();
    }
    buf_fini(&text);
}

static void broker_file(struct slice text)
{
    const struct option_table *tables[] = {&broker_option_table};
    struct props p;
    struct broker_options o;
    struct err err = {0};
    props_init(&p);
    int rc = props_parse(&p, text, "broker.properties", &err);
    bool held = !rc && (rc = options_apply(&broker_option_table, &p, &o, &err)) == 0;
    if (!rc)
        rc = options_finish(tables, 1, broker_unserved_keys, &p, &err);
    if (!rc) {
        struct net_listeners l;
        struct net_listeners_options lo = {.listeners = &o.listeners,
                                           .advertised = &o.advertised_listeners,
                                           .controller_names = &o.controller_listener_names,
                                           .protocol_map = o.listener_security_protocol_map,
                                           .insecure = o.insecure};
        check_rows(&broker_option_table, &o);
        if ((rc = net_listeners_parse(&lo, &l, &err)) == 0)
            net_listeners_fini(&l);
    }
    if (rc)
        refused_well(&err);
    if (held)
        options_fini(&broker_option_table, &o);
    props_fini(&p);
}

static void warned(void *arg, const char *text)
{
    (void)arg;
    if (!*text)
        abort();
}

static void look_at_flow(const struct mirror_config *c, const struct mirror_flow *f)
{
    static const char *const names[] = {"orders",
                                        "east.orders",
                                        "west.east.orders",
                                        "heartbeats",
                                        "__consumer_offsets",
                                        "mm2-offset-syncs.west.internal",
                                        "a..b",
                                        "."};
    struct policy policy = mirror_flow_policy(c, f);
    struct buf out;
    buf_init(&out, 65536);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct slice t = slice_str(names[i]);
        buf_clear(&out);
        policy_remote_topic(&policy, t, &out);
        (void)policy_topic_source(&policy, t);
        (void)policy_upstream_topic(&policy, t);
        (void)policy_original_topic(&policy, t);
        (void)policy_is_cycle(&policy, t);
        (void)policy_is_internal(&policy, t);
    }
    check_rows(&flow_option_table, &f->o);
    buf_fini(&out);
}

static void mirror_file(struct slice text)
{
    struct props p;
    struct mirror_config c;
    struct err err = {0};
    struct config_warnings w = {warned, NULL};
    props_init(&p);
    int rc = props_parse(&p, text, "mm2.properties", &err);
    if (!rc)
        rc = mirror_config_read(&p, NULL, 0, &mirror_option_table, &w, &c, &err);
    if (!rc) {
        struct mirror_options o;
        for (int i = 0; i < c.flows_n && i < 100; i++)
            look_at_flow(&c, &c.flows[i]);
        rc = mirror_config_own(&p, &mirror_option_table, mirror_config_only_target(&c), &o, &err);
        if (!rc)
            options_fini(&mirror_option_table, &o);
        mirror_config_fini(&c);
    }
    if (rc)
        refused_well(&err);
    props_fini(&p);
}

/* KEY=VALUE as CreateTopics gives it: what is taken is taken again as the same. */
static void topic_option(struct slice in)
{
    const uint8_t *eq = in.n ? memchr(in.p, '=', in.n) : NULL;
    struct err err = {0};
    struct buf first, second;
    if (topic_name_check(in, &err))
        refused_well(&err);
    else if (in.n > 249 || memchr(in.p, '/', in.n))
        abort();
    if (!eq)
        return;
    const struct topic_config_row *row = topic_config_find(slice_of(in.p, (size_t)(eq - in.p)));
    if (!row)
        return;
    buf_init(&first, 1 << 20);
    buf_init(&second, 1 << 20);
    err = (struct err){0};
    if (topic_config_normalize(row, slice_of(eq + 1, in.n - (size_t)(eq + 1 - in.p)), &first, &err))
        refused_well(&err);
    else if (topic_config_normalize(row, buf_slice(&first), &second, NULL) ||
             !slice_eq(buf_slice(&first), buf_slice(&second)))
        abort();
    buf_fini(&first);
    buf_fini(&second);
}

static void pattern(struct slice in)
{
    char text[1024];
    const char *items[] = {slice_cstr(in, text, sizeof text), "other.*"};
    struct pattern *p;
    struct err err = {0};
    if (pattern_compile(items, 2, &p, &err)) {
        refused_well(&err);
        return;
    }
    (void)pattern_matches(p, SLICE_LIT("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"));
    if (!pattern_matches(p, SLICE_LIT("otherwise")))
        abort();
    (void)pattern_matches(p, in);
    pattern_destroy(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    struct slice rest = slice_of(data + 1, n - 1);
    switch (data[0] % 4) {
    case 0: broker_file(rest); break;
    case 1: mirror_file(rest); break;
    case 2: topic_option(rest); break;
    default: pattern(rest); break;
    }
    return 0;
}
