/* launch.h - the order by which every node of a step knows who runs where: made by the root, checked by
 * the branches. */
#ifndef MUSTER_STEP_LAUNCH_H
#define MUSTER_STEP_LAUNCH_H

#include "base/error.h"
#include "proto/step.pb-c.h"

/* Makes the order from mpiexec's request. `context` NULL: outside an allocation, this machine alone.
 * Node 0 is the one this runs on, with ranks or without; every other one has some. NULL: ERR_USAGE. */
Mu__StepLaunch *launch_plan(const Mu__StepRequest *request, const Mu__StepContext *context,
                            struct error *err);
/* A copy of an order from the parent, with everything in it checked. NULL: it makes no sense. */
Mu__StepLaunch *launch_take(const Mu__StepLaunch *order);

/* Both: free with mu__step_launch__free_unpacked(l, NULL). */
#endif
