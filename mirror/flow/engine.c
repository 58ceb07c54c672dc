#include "mirror/flow/internal.h"

#include <assert.h>

#include "base/runtime/log.h"
#include "mirror/route/pattern.h"

/* Which engine reads a partition, and the ports they stand on. A record and its number are the same whoever reads them,
 * and positions are the source's offsets: a partition may go from one engine to the other wherever it stands. */

const char *const flow_engine_names[FLOW_ENGINES] = {[ENGINE_RECORD] = "record", [ENGINE_BATCH] = "batch"};

static void ignored(struct flow *f, const char *engine, const char *key, const char *why)
{
    log_warn(FLOW_AREA, "flow=%s: consumer.%s changes nothing for the %s engine: %s", f->name, key, engine,
             why);
}

static void record_ignored(void *arg, const char *key, const char *why)
{
    ignored(arg, flow_engine_names[ENGINE_RECORD], key, why);
}

static void batch_ignored(void *arg, const char *key, const char *why)
{
    ignored(arg, flow_engine_names[ENGINE_BATCH], key, why);
}

static int create(struct flow *f, enum flow_engine e, struct err *err)
{
    struct arena a;
    size_t n = (size_t)f->o.flow->consumer_n;
    assert(!f->ports[e]);
    arena_init(&a, (n + 1) * sizeof(struct port_property) * 2 + 4096);
    struct port_property *properties = ARENA_NEWS(&a, struct port_property, n + 1);
    for (size_t i = 0; properties && i < n; i++)
        properties[i] = (struct port_property){f->o.flow->consumer[i].key, f->o.flow->consumer[i].value};
    const struct port_options o = {
        .loop = f->loop,
        .client = f->source,
        .bootstrap = f->source_contact.bootstrap,
        .security = &f->o.config->clusters[f->o.flow->source].security,
        .client_id = f->name,
        .read_uncommitted = strcmp(f->o.flow->o.isolation_level, "read_uncommitted") == 0,
        /* What batches wait in are the client's answers. */
        .memory_max_bytes = e == ENGINE_BATCH ? flow_data_bytes(f) * FLOW_CLIENT_SHARE
                                              : flow_data_bytes(f) * FLOW_PORT_SHARE / 2,
        .properties = properties,
        .properties_n = properties ? n : 0,
        .ready = feed_ready,
        .arg = f,
        .ignored = e == ENGINE_BATCH ? batch_ignored : record_ignored};
    int rc = (e == ENGINE_BATCH ? f->o.batch_port_create : f->o.port_create)(&o, &f->ports[e], err);
    arena_fini(&a);
    return rc;
}

struct port *part_port(struct part *p, struct err *err)
{
    struct flow *f = p->flow;
    if (!f->ports[p->engine] && create(f, p->engine, err))
        return NULL;
    assert(f->ports[p->engine]);
    return f->ports[p->engine];
}

int flow_engines_init(struct flow *f, struct err *err)
{
    const struct flow_options *o = &f->o.flow->o;
    int rc = pattern_compile((const char *const *)o->engine_record.item, o->engine_record.n,
                             &f->engine_topics[ENGINE_RECORD], err);
    return rc ? rc
              : pattern_compile((const char *const *)o->engine_batch.item, o->engine_batch.n,
                                &f->engine_topics[ENGINE_BATCH], err);
}

void flow_engines_fini(struct flow *f)
{
    for (int e = 0; e < FLOW_ENGINES; e++)
        pattern_destroy(f->engine_topics[e]);
}

static bool listed(const struct part *p, enum flow_engine e)
{
    return pattern_matches(p->flow->engine_topics[e], slice_str(p->topic->source));
}

/* The lists of topics before what holds for all; the record engine reads what both name. */
void part_choose_engine(struct part *p)
{
    const char *wish = p->flow->o.flow->o.engine;
    bool record = listed(p, ENGINE_RECORD), batch = !record && listed(p, ENGINE_BATCH);
    p->engine = ENGINE_RECORD;
    if (record)
        p->engine_reason = "sundog.engine.record.topics";
    else if (!batch && strcmp(wish, "record") == 0)
        p->engine_reason = "sundog.engine = record";
    else if (p->topic->rule.mode != ROUTE_KEEP)
        p->engine_reason = "partition counts differ: keys are looked at";
    else {
        p->engine = ENGINE_BATCH;
        p->engine_reason = batch                        ? "sundog.engine.batch.topics"
                           : strcmp(wish, "batch") == 0 ? "sundog.engine = batch"
                                                        : "partition numbers are kept";
    }
}

bool part_change_engine(struct part *p, const struct port_delivery *d)
{
    if (p->engine != ENGINE_BATCH || d->kafka_error != KE_UNSUPPORTED_FOR_MESSAGE_FORMAT)
        return false;
    log_info(FLOW_AREA, "engine changes flow=%s topic=%s partition=%d engine=record offset=%lld: %s",
             p->flow->name, p->topic->source, p->p, (long long)p->taken_next, d->text ? d->text : "");
    part_park(p);
    assert(!p->assigned); /* by the other engine */
    p->engine = ENGINE_RECORD;
    p->engine_reason = "records older than record batches (magic 0 or 1)";
    part_room(p);
    return true;
}
