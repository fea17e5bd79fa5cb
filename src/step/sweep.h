/* sweep.h - leaving no process behind: what ranks started and lost becomes our child and is ended. */
#ifndef MUSTER_STEP_SWEEP_H
#define MUSTER_STEP_SWEEP_H

#include <stdbool.h>
#include <sys/types.h>

/* Makes this process the one that orphans below it fall to, and remembers the children it has had
 * before (a shell that became mpiexec by exec may have some): they are not touched. */
void sweep_begin(void);
/* Reaps those orphans that have ended; children for which `keep` says yes stay the caller's to wait for. */
void sweep_reap(bool (*keep)(void *arg, pid_t pid), void *arg);
/* Kills and reaps all other children, and theirs as they fall to us. At most a second. */
void sweep_children(void);

#endif
