/* spawn.h - starting a process whose every detail is settled before the fork.
 *
 * The child shares the parent's memory until its exec (CLONE_VM | CLONE_VFORK), so the cost does
 * not grow with the parent's size, and it calls only system calls: no allocation, no lock.
 */
#ifndef MUSTER_STEP_SPAWN_H
#define MUSTER_STEP_SPAWN_H

#include "base/error.h"

#include <sched.h>
#include <stdbool.h>
#include <sys/types.h>

struct spawn_fd {
    int from; /* in the parent */
    int to;   /* in the child; not among the `from` of later entries */
};

struct spawn {
    const char *path;    /* what to execute */
    char *const *argv;
    char *const *envp;
    const char *wdir;    /* NULL: the parent's */
    const struct spawn_fd *fds;
    int fds_n;
    const cpu_set_t *cpus; /* NULL: the parent's */
    size_t cpus_size;
};

/* Starts it in a process group of its own; it gets SIGKILL when this process dies. *pidfd is
 * close-on-exec. A failure inside the child (no such folder, not executable) is reported here:
 * err names what failed. Returns the pid or -1. */
pid_t spawn_process(const struct spawn *s, int *pidfd, struct error *err);

/* Finds the program as a shell would: a name with a slash is taken below `wdir`, another is looked
 * up in `path` and then in `wdir` (as MS-MPI does). The caller frees it. NULL: err says why not. */
char *spawn_lookup(const char *name, const char *path, const char *wdir, struct error *err);

#endif
