/* What sync.c and configs.c share. */
#ifndef SUNDOG_MIRROR_SYNC_INTERNAL_H
#define SUNDOG_MIRROR_SYNC_INTERNAL_H

#include "base/core/hash.h"
#include "mirror/sync/sync.h"

struct pattern;

/* A source topic that the flow takes. */
struct known {
    UT_hash_handle by_source, by_target;
    char *source, *target;
    struct uuid source_id, target_id;
    int32_t source_partitions, target_partitions;
    uint64_t seen_source, seen_target; /* the round in which each side had it */
    bool kept;                         /* counts were equal at some time of this run */
    bool told;                         /* as it is now */
    bool plain;                        /* the target refused its configuration: make it without */
    char *said;                        /* the last trouble told about it */
};

enum sync_step { SYNC_IDLE, SYNC_SOURCE, SYNC_TARGET, SYNC_CREATE, SYNC_GROW, SYNC_AGAIN };

struct sync {
    struct loop *loop;
    struct client *source, *target;
    const struct flow_options *flow;
    struct policy policy;
    const struct sync_events *events;
    void *arg;
    struct sync_filter *filter;
    struct pattern *config_exclude;
    struct known *by_source, *by_target;
    size_t known_n;
    uint64_t round;
    enum sync_step step;
    bool changed_target, settled;
    bool woken;              /* in mid-round: another follows at once */
    char said[ERR_TEXT_MAX]; /* the last trouble that is about no topic */
    struct client *asked;    /* whose call is under way */
    struct client_call *call;
    struct loop_timer timer;
    /* Creation, and the comparison of configurations, in lots of SYNC_BATCH. */
    struct known *lot[SYNC_BATCH];
    int lot_n;
    struct sync_settings *settings; /* of the lot, at the source */
    struct configs *configs;
};

/* One topic's settings that are to follow; all in one arena. */
struct sync_setting {
    struct slice name, value;
};
struct sync_settings {
    struct arena arena;
    struct {
        struct sync_setting *list;
        int32_t n;
    } topic[SYNC_BATCH];
};

/* Asks a cluster for the settings of the topics `names`; `on_response` gets a DescribeConfigs answer. -E_NOMEM. */
int sync_ask_settings(struct client *c, int64_t timeout_us, const char *const *names, int n,
                      void (*on_response)(void *arg, const struct client_response *r), void *arg,
                      struct client_call **call);
/* Takes the settings of the topic's own (with `all` the defaults too) that are not excluded out of an answer to the
 * names asked, in their order. -E_NOMEM, -E_CORRUPT. */
int sync_take_settings(const struct kp_describe_configs_response *a, const char *const *names, int n,
                       bool all, struct pattern *exclude, struct sync_settings *out);
void sync_trouble(struct sync *s, struct known *k, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

int configs_create(struct sync *s, struct configs **out, struct err *err);
void configs_destroy(struct configs *c);
/* The topic is about to be freed. */
void configs_forget(struct configs *c, const struct known *k);

#endif
