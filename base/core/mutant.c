#include "base/core/mutant.h"

#include <stdlib.h>
#include <string.h>

bool mutant_is(const char *name);

bool mutant_is(const char *name)
{
    const char *chosen = getenv("SUNDOG_MUTANT");
    return chosen && strcmp(chosen, name) == 0;
}
