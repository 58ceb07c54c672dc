/* Memory that runs out when told: every allocation of our code (linked with --wrap; the libraries' own go on) counts,
 * and the k-th one since heap_fail_at fails, alone or with all after it.
 *
 *     heap_torture(one_run, arg);     calls one_run with the 1st, 2nd, 3rd … allocation failing, until none fails
 *
 * One thread's tests only: the count is the process's. */
#ifndef SUNDOG_TESTS_SUPPORT_HEAP_H
#define SUNDOG_TESTS_SUPPORT_HEAP_H

#include <stdbool.h>
#include <stdint.h>

enum heap_fail { HEAP_FAIL_ONCE, HEAP_FAIL_FROM_THERE };

/* k = 1: the next one. 0: none any more. */
void heap_fail_at(uint64_t k, enum heap_fail how);
/* Whether one has failed since heap_fail_at. */
bool heap_has_failed(void);
/* `run` must leave nothing behind, whatever it met (the leak checker looks). Both ways of failing for each k. Returns
 * the number of allocations of a run that meets no failure. At most HEAP_TORTURE_MAX. */
#define HEAP_TORTURE_MAX 100000
uint64_t heap_torture(void (*run)(void *arg), void *arg);

#endif
