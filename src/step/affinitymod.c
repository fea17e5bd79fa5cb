/* affinitymod.c - the module muster-affinity.so: spreading ranks over processors by hwloc. */
#include "step/affinity.h"

#include "base/mem.h"
#include <hwloc.h>
#include <stdlib.h>

__attribute__((visibility("default"))) affinity_spread_fn muster_affinity;

int muster_affinity(uint32_t n, struct affinity_set *sets, struct error *err)
{
    hwloc_topology_t t;
    if (hwloc_topology_init(&t))
        return error_set(err, ERR_IO, "hwloc does not start");
    /* Without the flag for disallowed ones, what is loaded is what this process may use. */
    if (hwloc_topology_load(t)) {
        hwloc_topology_destroy(t);
        return error_set(err, ERR_IO, "hwloc does not find this machine's topology");
    }
    hwloc_cpuset_t *spread = xcalloc(n, sizeof(void *));
    hwloc_obj_t root = hwloc_get_root_obj(t);
    int rc =
        hwloc_distrib(t, &root, 1, spread, n, INT_MAX, 0) ? error_set(err, ERR_IO, "hwloc cannot spread") : 0;
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        /* One processor each: a rank that moves about between two threads of a core gains nothing. */
        hwloc_bitmap_singlify(spread[i]);
        int cpu = hwloc_bitmap_first(spread[i]);
        if (cpu < 0 || cpu >= AFFINITY_CPUS_MAX)
            rc = error_set(err, ERR_LIMIT, "a processor's number is above %d", AFFINITY_CPUS_MAX);
        else
            sets[i].bits[(size_t)cpu / (8 * sizeof(unsigned long))] |=
                1UL << ((size_t)cpu % (8 * sizeof(unsigned long)));
        hwloc_bitmap_free(spread[i]);
    }
    free(spread);
    hwloc_topology_destroy(t);
    return rc;
}
