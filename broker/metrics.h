/* The broker's metrics as an enum of their rows: M_sundog_broker_…. */
#ifndef SUNDOG_BROKER_METRICS_H
#define SUNDOG_BROKER_METRICS_H

#include "base/runtime/metrics.h"

enum broker_metric {
#define METRIC METRIC_ENUM
#include "broker/metrics.def"
#undef METRIC
    BROKER_METRICS
};

/* BROKER_METRICS of them. */
extern const struct metric_row broker_metric_rows[];

#endif
