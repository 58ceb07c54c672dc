/* The threads behind loop_job (job_pool_create is in loop_posix.h). Any thread may add; `finished` is called on the
 * pool's thread when a job's `run` has returned. */
#ifndef SUNDOG_BASE_WORLD_JOB_POOL_H
#define SUNDOG_BASE_WORLD_JOB_POOL_H

#include "base/world/loop_posix.h"

void job_pool_add(struct job_pool *p, struct loop_job *job, void (*finished)(struct loop_job *job));

#endif
