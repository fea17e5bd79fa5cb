/* launch.h - from the keeper's fork to the user's program: everything that happens in the child.
 *
 * All of it is done as the user, once identity is taken: the work directory is entered and the
 * files are opened with the user's rights only. libc only.
 */
#ifndef MUSTER_NODE_LAUNCH_H
#define MUSTER_NODE_LAUNCH_H

#include "node/keeper_proto.h"

#include <stdint.h>
#include <sys/types.h>

/* What the child writes to `error` when it cannot run the program; nothing when it can. */
struct launch_error {
    int exit_code; /* 127: no such command; 126: anything else */
    char text[480];
};

/* Both are called in the child; `keeper` is what getpid() said before the fork. A child whose keeper
 * died in the meantime ends at once (126): getppid() alone would name the wrong one as its keeper. */

/* The task. `output`: write end of the pipe to the spool, -1 with a stdout file. `error`: write end
 * of a pipe. Never returns. */
_Noreturn void launch_task(const struct order *order, pid_t keeper, int output, int error);

/* muster-step for one MPI step: descriptor 3 is `socket`, 4 is `context`. `role` is "root" or
 * "branch". Its stderr is `output`, or nothing when that is -1. Never returns. */
_Noreturn void launch_step(const struct order *order, pid_t keeper, const char *role, int socket, int context,
                           int output);

/* Whether a command line needs a shell (see launch.c for the characters and words). */
bool launch_needs_shell(const char *command);

/* Where `s`, the socket of steps, is. */
void launch_step_path(const struct order *order, char *out, size_t size);

#endif
