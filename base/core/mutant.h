/* Mutants: faults compiled into test builds (SUNDOG_MUTANTS) and chosen by the environment's SUNDOG_MUTANT, so that the
 * tests can show that they would notice. In other builds MUTANT() is the constant false. */
#ifndef SUNDOG_BASE_CORE_MUTANT_H
#define SUNDOG_BASE_CORE_MUTANT_H

#include <stdbool.h>

#ifdef SUNDOG_MUTANTS
bool mutant_is(const char *name);
#define MUTANT(name) mutant_is(name)
#else
#define MUTANT(name) false
#endif

#endif
