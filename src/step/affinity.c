/* affinity.c - which processors each rank of a node is bound to. */
#include "step/affinity.h"
#include "base/mem.h"
#include "step/pmixmod.h"

#include <stdlib.h>

struct affinity {
    struct affinity_set *sets;
};

struct affinity *affinity_new(uint32_t n, struct error *err)
{
    affinity_spread_fn *spread = (affinity_spread_fn *)module_load("muster-affinity", "muster_affinity", err);
    if (!spread)
        return NULL;
    struct affinity *a = xcalloc(1, sizeof *a);
    a->sets = xcalloc(n, sizeof *a->sets);
    if (spread(n, a->sets, err)) {
        affinity_free(a);
        return NULL;
    }
    return a;
}

void affinity_free(struct affinity *a)
{
    if (!a)
        return;
    free(a->sets);
    free(a);
}

void affinity_get(const struct affinity *a, uint32_t i, const cpu_set_t **cpus, size_t *size)
{
    *cpus = (const cpu_set_t *)(const void *)&a->sets[i];
    *size = sizeof a->sets[i];
}
