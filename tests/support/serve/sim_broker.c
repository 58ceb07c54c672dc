#include "tests/support/serve/sim_broker.h"

#include <stdio.h>
#include <stdlib.h>

struct program {
    struct sim_broker_options *o;
    struct broker_options options;
    struct broker *broker;
    struct loop *loops[1];
    struct net *nets[1];
};

static void on_failed(void *arg, const char *why)
{
    struct program *p = arg;
    (void)why;
    p->o->failures++;
}

static int load(struct program *p, struct sim_node *node, struct err *err)
{
    struct disk *d = sim_node_disk(node);
    char text[2048];
    int n = snprintf(text, sizeof text, "listeners=PLAINTEXT://%s:%d\nlog.dirs=%s\nsundog.insecure=true\n%s",
                     sim_node_name(node), SIM_BROKER_PORT, p->o->log_dirs ? p->o->log_dirs : "/data",
                     p->o->properties ? p->o->properties : "");
    int rc = disk_replace(d, "/broker.properties", slice_of(text, (size_t)n), err);
    return rc ? rc : broker_options_load(d, "/broker.properties", NULL, 0, &p->options, err);
}

void *sim_broker_boot(void *arg, struct sim_node *node)
{
    struct program *p = calloc(1, sizeof *p);
    struct err err = {0};
    p->o = arg;
    p->loops[0] = sim_node_loop(node);
    p->nets[0] = sim_node_net(node);
    const struct broker_world w = {.shards = 1,
                                   .loops = p->loops,
                                   .nets = p->nets,
                                   .disk = sim_node_disk(node),
                                   .failed = on_failed,
                                   .arg = p};
    int rc = load(p, node, &err);
    rc = rc ? rc : broker_create(&w, &p->options, &p->broker, &err);
    rc = rc ? rc : broker_start(p->broker, &err);
    if (!rc)
        return p;
    snprintf(p->o->refused, sizeof p->o->refused, "%s", err.text);
    return NULL;
}

struct broker *sim_broker(struct sim_node *node)
{
    struct program *p = sim_node_up(node) ? sim_node_program(node) : NULL;
    return p ? p->broker : NULL;
}

bool sim_broker_serving(void *node)
{
    struct broker *b = sim_broker(node);
    return b && !broker_unready(b);
}
