/* front.h - mpiexec's face: writes the ranks' output, reads its own stdin for rank 0, turns signals
 * into the end of the step, and knows how mpiexec must exit.
 *
 * Output of one rank keeps its order. With several ranks a line is written whole: what a rank has
 * not ended with a newline waits for at most 100 ms or 8 KiB. Credit for output goes back only while
 * little waits to be written, so a slow reader stops the ranks and not this process's memory.
 */
#ifndef MUSTER_STEP_FRONT_H
#define MUSTER_STEP_FRONT_H

#include "proto/step.pb-c.h"

#include <event2/event.h>
#include <stdbool.h>

struct front;
struct front_config {
    struct event_base *base;
    bool lines; /* -l */
    bool verbose;
    void (*down)(void *arg, Mu__StepFrame *frame); /* to the step */
    void (*over)(void *arg, int code);             /* everything is written */
    void *arg;
};
struct front *front_new(const struct front_config *config);
void front_free(struct front *f);
void front_frame(struct front *f, Mu__StepFrame *frame); /* from the step */
/* The step server is gone without a result. */
void front_lost(struct front *f, const char *why);

#endif
