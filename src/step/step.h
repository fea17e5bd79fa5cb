/* step.h - one node's part of an MPI step: starts its ranks, serves PMI-1 and PMIx to them, carries
 * output and input, and ends them. The root's part also plans the step, decides when it ends, and
 * says why.
 *
 * It speaks StepFrames (proto/step.proto) with what is above it (mpiexec, or the parent in the
 * tree) and with the branches below it. Outside an allocation it lives inside mpiexec.
 */
#ifndef MUSTER_STEP_STEP_H
#define MUSTER_STEP_STEP_H

#include "base/error.h"
#include "proto/step.pb-c.h"

#include <event2/event.h>
#include <stdbool.h>

struct step;
struct step_config {
    struct event_base *base;
    const Mu__StepContext *context; /* NULL: outside an allocation, this machine alone; kept by the caller */
    /* A frame for what is above; valid during the call. */
    void (*up)(void *arg, Mu__StepFrame *frame);
    /* Nothing is left to do on this node: free it. */
    void (*over)(void *arg);
    void *arg;
};

struct step *step_new(const struct step_config *config);
void step_free(struct step *s);
/* A frame from above. */
void step_frame(struct step *s, Mu__StepFrame *frame);
/* What is above is gone: everything ends at once. */
void step_abandoned(struct step *s);
/* This process was told to end, by signal `sig`: so the step ends, and says why. */
void step_terminated(struct step *s, int sig);

#endif
