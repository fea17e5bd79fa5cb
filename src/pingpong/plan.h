/* plan.h - which pairs measure when.
 *
 * A plan is walked step by step; the pairs of a step are disjoint and measure at the same time.
 *   serial:      one pair a step, all N(N-1)/2, (0,1) (0,2) ... (N-2,N-1)
 *   tournament:  the circle method: N-1 rounds (N even) or N rounds with one rank resting (N
 *                odd); every pair meets exactly once. A round is cut into as many steps as the
 *                processors demand.
 * Measuring keeps a processor busy on both ends. So ranks are grouped by the physical host they
 * are on and by the set of processors they may use, and a step holds no more measuring ranks of
 * a group than it has processors. A pair that does not fit even alone runs alone and is marked
 * `shared`: it must yield the processor while it waits.
 *
 * Memory is O(N). Pure: no MPI, no clock.
 */
#ifndef MUSTER_PINGPONG_PLAN_H
#define MUSTER_PINGPONG_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pair {
    uint32_t from;
    uint32_t to; /* > from */
};

/* Groups of equal records: count, and of each record its group, numbered by first appearance. */
uint32_t group_records(const void *records, size_t size, size_t count, uint32_t *group_of);

/* Where the ranks are. Arrays belong to the caller and must outlive the plan. */
struct places {
    uint32_t ranks;
    const uint32_t *host_of; /* physical host of a rank */
    const uint32_t *set_of;  /* processor set of a rank: same number, same processors of one host */
    uint32_t hosts;
    uint32_t sets;
    const uint32_t *host_cpus; /* processors that ranks of the host may use, all together */
    const uint32_t *set_cpus;  /* processors in the set */
};

struct plan;
struct plan *plan_create(bool tournament, const struct places *places);
void plan_destroy(struct plan *plan);
uint64_t plan_pairs(const struct plan *plan); /* N(N-1)/2 */

/* The next step: its pairs in `pairs` (room for N/2, at least 1); *shared: they lack processors.
 * Returns their number; 0 when every pair has met. */
size_t plan_next(struct plan *plan, struct pair *pairs, bool *shared);

/* Pair `k` (0..slots-1, slots = ceil(N/2)) of tournament round `round` of N ranks; false: a rank rests. */
uint32_t tournament_rounds(uint32_t ranks);
bool tournament_pair(uint32_t ranks, uint32_t round, uint32_t k, struct pair *pair);

#endif
