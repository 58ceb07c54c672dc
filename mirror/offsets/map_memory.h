/* An offset map in memory: for the command line, which reads a progress topic that no store here has, and for
 * models. */
#ifndef SUNDOG_MIRROR_OFFSETS_MAP_MEMORY_H
#define SUNDOG_MIRROR_OFFSETS_MAP_MEMORY_H

#include "mirror/offsets/map.h"

struct map_memory;

struct map_memory *map_memory_create(void);
void map_memory_destroy(struct map_memory *m);
struct map *map_memory_map(struct map_memory *m);

/* Merged with the runs it touches; where it contradicts one that is there, that one stands. -E_NOMEM. */
int map_memory_run(struct map_memory *m, int32_t p, const struct map_run *r);
/* A tombstone: whatever q it fed. */
void map_memory_forget(struct map_memory *m, int32_t p, int64_t src_start);
/* Replaces p's lanes and S. -E_NOMEM. */
int map_memory_position(struct map_memory *m, const struct map_position *pos);

#endif
