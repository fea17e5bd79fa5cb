/* plan.h - which rank runs where. Pure: no I/O.
 *
 * Hosts are filled block-wise in their order: a host gets its count (its cores; -c N: N; the number
 * after its name in -hosts), then the next. Without -n a section has the sum of the counts. With
 * more ranks than that the filling starts again at the section's first host, until all are placed.
 * Sections that name no hosts go on where the last such section stopped.
 */
#ifndef MUSTER_STEP_PLAN_H
#define MUSTER_STEP_PLAN_H

#include "base/error.h"
#include "proto/step.pb-c.h"

#include <stddef.h>
#include <stdint.h>

struct plan_node { /* what there is */
    const char *name;
    uint32_t cores;
};

struct plan_block { /* consecutive ranks on one node */
    uint32_t node;  /* index into the given nodes */
    uint32_t ranks;
};

struct plan {
    struct plan_block *blocks;
    size_t blocks_n, blocks_cap;
    uint32_t *section_ranks; /* per section: how many it has */
    uint32_t ranks;
};

int plan_make(struct plan *plan, const Mu__StepRequest *request, const struct plan_node *nodes, size_t n,
              struct error *err);
void plan_free(struct plan *plan);

#endif
