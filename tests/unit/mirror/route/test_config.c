/* mirror/route: a file of MM2's keys as flows. */
#include "mirror/route/config.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "mirror/route/known_keys.h"
#include "mirror/route/security.h"

struct own {
    char *store;
};
static const struct option_row own_rows[] = {{"sundog.store.dir", OPTION_STRING, offsetof(struct own, store),
                                              NULL, 0, 0, "", OPTION_FIXED, "A folder of the test."}};
static const struct option_table own_table = OPTION_TABLE("test", own_rows, struct own);

struct read {
    struct props props;
    struct mirror_config config;
    struct err err;
    char warnings[4096];
    int warnings_n, rc;
};

static void warned(void *arg, const char *text)
{
    struct read *r = arg;
    size_t at = strlen(r->warnings);
    snprintf(r->warnings + at, sizeof r->warnings - at, "%s\n", text);
    r->warnings_n++;
}

#define BASE                              \
    "clusters = east, west\n"             \
    "east.bootstrap.servers = e:9092\n"   \
    "west.bootstrap.servers = w:9092\n"

static void read_file(struct read *r, const char *text, const char *const *targets, size_t n)
{
    *r = (struct read){0};
    props_init(&r->props);
    cr_assert_eq(props_parse(&r->props, slice_str(text), "mm2.properties", &r->err), 0, "%s", r->err.text);
    struct config_warnings w = {warned, r};
    r->rc = mirror_config_read(&r->props, targets, n, &own_table, &w, &r->config, &r->err);
}

static void done(struct read *r)
{
    if (r->rc == 0)
        mirror_config_fini(&r->config);
    props_fini(&r->props);
}

static struct flow_options *flow(struct read *r, const char *s, const char *t)
{
    cr_assert_eq(r->rc, 0, "%s", r->err.text);
    struct mirror_flow *f = mirror_config_flow(&r->config, s, t);
    cr_assert_not_null(f);
    return &f->o;
}

static void refused(const char *text, const char *says)
{
    struct read r;
    read_file(&r, text, NULL, 0);
    cr_assert_neq(r.rc, 0, "not refused: %s", text);
    cr_assert(strstr(r.err.text, says), "\"%s\" does not say \"%s\"", r.err.text, says);
    cr_assert_null(strchr(r.err.text, '\n'));
    done(&r);
}

Test(config, a_small_file_makes_flows_with_defaults)
{
    struct read r;
    read_file(&r, BASE "east->west.enabled = true\ntopics = orders, bills.*\n", NULL, 0);
    struct flow_options *o = flow(&r, "east", "west");
    cr_assert(o->enabled && mirror_config_flow(&r.config, "east", "west")->served);
    cr_assert(!flow(&r, "west", "east")->enabled);
    cr_assert_eq(o->topics.n, 2);
    cr_assert_str_eq(o->topics.item[1], "bills.*");
    cr_assert_str_eq(o->topics_exclude.item[2], "__.*");
    cr_assert_str_eq(o->isolation_level, "read_committed");
    cr_assert_str_eq(r.config.clusters[1].bootstrap, "w:9092");
    cr_assert_str_eq(mirror_config_only_target(&r.config), "west");
    cr_assert_eq(r.warnings_n, 0, "%s", r.warnings);
    done(&r);
}

Test(config, later_prefixes_override_earlier_ones)
{
    struct read r;
    read_file(&r,
              BASE "topics = top\neast->west.topics = mine\n"
                   "consumer.isolation.level = read_uncommitted\neast.consumer.isolation.level = read_committed\n"
                   "producer.compression.type = gzip\nwest.producer.compression.type = lz4\n"
                   "east->west.producer.compression.type = zstd\n"
                   "east->west.producer.override.max.request.size = 2000\n",
              NULL, 0);
    struct flow_options *ew = flow(&r, "east", "west"), *we = flow(&r, "west", "east");
    cr_assert_str_eq(ew->topics.item[0], "mine");
    cr_assert_str_eq(we->topics.item[0], "top");
    cr_assert_str_eq(ew->isolation_level, "read_committed");
    cr_assert_str_eq(we->isolation_level, "read_uncommitted");
    cr_assert_str_eq(ew->compression_type, "zstd");
    cr_assert_str_eq(we->compression_type, "gzip");
    cr_assert_eq(ew->max_request_size, 2000);
    cr_assert_eq(we->max_request_size, 1048576);
    cr_assert_eq(r.warnings_n, 0, "%s", r.warnings);
    done(&r);
}

Test(config, clusters_restricts_to_flows_into_the_named_targets)
{
    struct read r;
    static const char *const east[] = {"east"}, *const north[] = {"north"};
    read_file(&r, BASE "east->west.enabled=true\nwest->east.enabled=true\n", east, 1);
    cr_assert(!mirror_config_flow(&r.config, "east", "west")->served);
    cr_assert(mirror_config_flow(&r.config, "west", "east")->served);
    cr_assert_str_eq(mirror_config_only_target(&r.config), "east");
    done(&r);
    read_file(&r, BASE, north, 1);
    cr_assert_eq(r.rc, -E_CONFIG);
    cr_assert(strstr(r.err.text, "north"));
    done(&r);
}

Test(config, own_keys_may_stand_behind_the_targets_alias)
{
    struct read r;
    read_file(
        &r,
        BASE
        "sundog.store.dir=/a\nwest.sundog.store.dir=/b\nwest.sundog.on.log.start = record-and-continue\n",
        NULL, 0);
    cr_assert_eq(r.rc, 0, "%s", r.err.text);
    struct own own;
    cr_assert_eq(mirror_config_own(&r.props, &own_table, "west", &own, &r.err), 0);
    cr_assert_str_eq(own.store, "/b");
    options_fini(&own_table, &own);
    cr_assert_eq(mirror_config_own(&r.props, &own_table, "east", &own, &r.err), 0);
    cr_assert_str_eq(own.store, "/a");
    options_fini(&own_table, &own);
    cr_assert_str_eq(flow(&r, "east", "west")->on_log_start, "record-and-continue");
    cr_assert_str_eq(flow(&r, "west", "east")->on_log_start, "halt");
    done(&r);
}

Test(config, what_is_not_served_is_named_once)
{
    struct read r;
    read_file(&r,
              BASE "tasks.max = 4\nsync.topic.acls.enabled = true\neast.consumer.fetch.min.bytes = 1\n"
                   "offset.storage.replication.factor = 1\nwest.config.storage.replication.factor = 1\n"
                   "transforms.route.type = x\ndedicated.mode.enable.internal.rest = true\n"
                   "source.cluster.ssl.truststore.location = /t\neast.admin.retries = 3\n"
                   "topics.blacklist = secret\nenabled = true\neast.topics = x\n",
              NULL, 0);
    cr_assert_eq(r.rc, 0, "%s", r.err.text);
    cr_assert_eq(r.warnings_n, 11, "%d:\n%s", r.warnings_n, r.warnings);
    cr_assert(strstr(r.warnings, "topics.blacklist (mm2.properties:13) is an old name: write topics.exclude"),
              "%s", r.warnings);
    cr_assert(strstr(r.warnings, "east.topics (mm2.properties:15) has no effect here"), "%s", r.warnings);
    cr_assert_str_eq(flow(&r, "east", "west")->topics_exclude.item[0], "secret");
    cr_assert(!flow(&r, "east", "west")->enabled);
    done(&r);
}

Test(config, what_is_wrong_is_refused_by_name)
{
    refused("topics = x\n", "clusters is missing");
    refused("clusters =\n", "clusters is empty");
    refused("clusters = a, a\na.bootstrap.servers=x\n", "\"a\" is listed twice");
    refused("clusters = a/b\n", "\"a/b\" cannot be an alias");
    refused("clusters = east, west\neast.bootstrap.servers=x:1\n", "west.bootstrap.servers is missing");
    refused(BASE "topcis = x\n", "topcis (mm2.properties:4): unknown key; did you mean topics?");
    refused(BASE "east->west.topcis = x\n", "unknown key");
    refused(BASE "east.consumer.fetch.minn = x\n", "unknown key");
    refused(BASE "sundog.nonsense = x\n", "sundog.nonsense");
    refused(BASE "east->north.enabled = true\n", "east->north.enabled");
    refused(BASE "east->east.enabled = true\n", "to itself");
    refused(BASE "east->west.enabled = maybe\n", "east->west.enabled");
    refused(BASE "refresh.topics.interval.seconds = 0\n", "refresh.topics.interval.seconds");
    refused(BASE "replication.policy.class = com.example.Mine\n", "com.example.Mine");
    refused(BASE "topics = ${file:/etc/x:topics}\n", "config providers");
    refused(BASE "replication.policy.class = "
                 "IdentityReplicationPolicy\neast->west.enabled=true\nwest->east.enabled=true\n",
            "circles");
}

Test(config, consumer_settings_are_handed_to_the_source)
{
    struct read r;
    read_file(&r,
              BASE "consumer.fetch.min.bytes = 1\neast.consumer.fetch.min.bytes = "
                   "2\neast->west.consumer.check.crcs = false\n"
                   "west.consumer.fetch.max.bytes = 9\nsource.consumer.max.poll.records = 7\n",
              NULL, 0);
    cr_assert_eq(r.rc, 0, "%s", r.err.text);
    cr_assert_eq(r.warnings_n, 0, "%s", r.warnings);
    struct mirror_flow *ew = mirror_config_flow(&r.config, "east", "west"),
                       *we = mirror_config_flow(&r.config, "west", "east");
    cr_assert_eq(ew->consumer_n, 3);
    cr_assert_str_eq(ew->consumer[0].key, "fetch.min.bytes");
    cr_assert_str_eq(ew->consumer[0].value, "2");
    cr_assert_str_eq(ew->consumer[1].key, "check.crcs");
    cr_assert_str_eq(ew->consumer[2].value, "7");
    cr_assert_eq(we->consumer_n, 3);
    cr_assert_str_eq(we->consumer[0].value, "1");
    cr_assert_str_eq(we->consumer[1].key, "fetch.max.bytes");
    done(&r);
}

Test(config, an_empty_regex_list_is_allowed_and_plaintext_too)
{
    struct read r;
    read_file(&r, BASE "topics =\nsecurity.protocol = PLAINTEXT\n", NULL, 0);
    cr_assert_eq(flow(&r, "east", "west")->topics.n, 0);
    done(&r);
}

Test(config, every_key_of_kafkas_tables_is_known)
{
    FILE *f = fopen("tests/support/data/mm2_keys.tsv", "r");
    cr_assert_not_null(f);
    char line[2048];
    unsigned n = 0;
    while (fgets(line, sizeof line, f)) {
        char scope[64], key[200];
        cr_assert_eq(sscanf(line, "%63[^\t]\t%199[^\t]", scope, key), 2);
        unsigned of = strcmp(scope, "producer") == 0   ? OF_PRODUCER
                      : strcmp(scope, "consumer") == 0 ? OF_CONSUMER
                      : strcmp(scope, "admin") == 0    ? OF_ADMIN
                                                       : OF_MIRROR;
        cr_assert(known_key(key) & of, "%s of %s", key, scope);
        char text[1024];
        const char *prefix = of == OF_PRODUCER   ? "west.producer."
                             : of == OF_CONSUMER ? "east.consumer."
                             : of == OF_ADMIN    ? "admin."
                                                 : "";
        bool plain = strcmp(key, "clusters") == 0 || strcmp(key, "security.protocol") == 0 ||
                     options_find(&flow_option_table, key) ||
                     options_find(&flow_option_table, *prefix ? strchr(prefix, '.') + 1 : key);
        char with[512];
        snprintf(with, sizeof with, "%s%s", prefix, key);
        struct known_parts parts;
        known_key_parts(with + (strncmp(with, "west.", 5) == 0 || strncmp(with, "east.", 5) == 0 ? 5 : 0), &parts);
        cr_assert_str_eq(parts.key, key);
        snprintf(text, sizeof text, BASE "%s = 1\n", with);
        struct read r;
        char full[300];
        snprintf(full, sizeof full, "%s%s",
                 of == OF_PRODUCER   ? "producer."
                 : of == OF_CONSUMER ? "consumer."
                                     : "",
                 key);
        if (!plain && !options_find(&flow_option_table, full)) {
            read_file(&r, text, NULL, 0);
            cr_assert_eq(r.rc, 0, "%s", r.err.text);
            cr_assert_eq(r.warnings_n, of == OF_CONSUMER || security_key(key) ? 0 : 1, "%s: %d warnings: %s", with, r.warnings_n,
                         r.warnings);
            done(&r);
            n++;
        }
    }
    fclose(f);
    cr_assert(n > 300, "%u keys tried", n);
}

Test(config, the_table_of_flow_options_is_sound)
{
    struct err e;
    cr_assert_eq(options_lint(&flow_option_table, &e), 0, "%s", e.text);
}
