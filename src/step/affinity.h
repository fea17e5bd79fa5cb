/* affinity.h - which processors each rank of a node is bound to: spread as far apart as possible. */
#ifndef MUSTER_STEP_AFFINITY_H
#define MUSTER_STEP_AFFINITY_H

#include "base/error.h"

#include <sched.h>
#include <stdint.h>

#define AFFINITY_CPUS_MAX 8192

/* One set of processors, of AFFINITY_CPUS_MAX bits. */
struct affinity_set {
    unsigned long bits[AFFINITY_CPUS_MAX / 8 / sizeof(unsigned long)];
};

struct affinity;
/* Spreads n ranks over the processors that this process may use (hwloc, in a module of its own). */
struct affinity *affinity_new(uint32_t n, struct error *err);
void affinity_free(struct affinity *a); /* NULL is fine */
void affinity_get(const struct affinity *a, uint32_t i, const cpu_set_t **cpus, size_t *size);

/* The module's function: fills sets[0..n). */
typedef int affinity_spread_fn(uint32_t n, struct affinity_set *sets, struct error *err);

#endif
