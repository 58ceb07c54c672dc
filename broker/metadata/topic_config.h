/* The options of topics as a table, and the check of a value. Constant; any thread. */
#ifndef SUNDOG_BROKER_METADATA_TOPIC_CONFIG_H
#define SUNDOG_BROKER_METADATA_TOPIC_CONFIG_H

#include "base/core/buf.h"
#include "base/core/err.h"
#include "base/core/slice.h"

#include <stdint.h>

enum topic_config_type {
    TOPIC_CONFIG_BOOL = 1, /* numbers of Kafka's DescribeConfigs */
    TOPIC_CONFIG_STRING = 2,
    TOPIC_CONFIG_INT = 3,
    TOPIC_CONFIG_LONG = 5,
    TOPIC_CONFIG_DOUBLE = 6,
    TOPIC_CONFIG_LIST = 7
};

enum topic_config_use { TOPIC_CONFIG_SERVED, TOPIC_CONFIG_ACCEPTED };

struct topic_config_row {
    const char *key;
    enum topic_config_type type;
    const char *value;   /* the default */
    int64_t min, max;    /* of a number; of a LIST: its entries */
    const char *allowed; /* "a|b", or "" */
    const char *broker_keys;
    enum topic_config_use use;
    const char *help;
};

const struct topic_config_row *topic_config_rows(size_t *n);
/* NULL: there is none. */
const struct topic_config_row *topic_config_find(struct slice key);
/* The row whose default this option of the broker is; NULL: none. */
const struct topic_config_row *topic_config_of_broker_key(struct slice broker_key);

/* Appends the value as it is stored: numbers and names without white space, lists joined by commas. -E_CONFIG, and
 * `err` says what is allowed. */
int topic_config_normalize(const struct topic_config_row *row, struct slice value, struct buf *out,
                           struct err *err);

/* A row's broker keys, one after the other: start with *rest = row->broker_keys. False at the end. */
struct topic_config_synonym {
    struct slice key;
    int64_t factor; /* the broker's number times this is the topic's */
};
bool topic_config_synonym_next(const char **rest, struct topic_config_synonym *out);

/* Names of topics: 0, or -E_INVALID with Kafka's words in `err`. */
int topic_name_check(struct slice name, struct err *err);
/* "a.b" and "a_b" would share metrics names: Kafka refuses the second. */
bool topic_names_collide(struct slice a, struct slice b);

#endif
