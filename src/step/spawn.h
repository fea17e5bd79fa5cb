/* spawn.h - starting a process whose every detail is settled before the fork.
 *
 * The child calls only system calls between fork and exec: no allocation, no lock. The parent does
 * not wait for the exec, so several are under way at once; a child that cannot get there says why
 * on a pipe.
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
    const char *path; /* what to execute */
    char *const *argv;
    char *const *envp;
    const char *wdir; /* NULL: the parent's */
    const struct spawn_fd *fds;
    int fds_n;
    const cpu_set_t *cpus; /* NULL: the parent's */
    size_t cpus_size;
};

/* What a child writes to fail_fd (one write, less than PIPE_BUF) before it exits with 127. */
struct spawn_failure {
    unsigned tag; /* as given to spawn_process() */
    int error;    /* errno */
    int what;     /* for spawn_failure_text() */
};

/* Starts it in a session and process group of its own; it gets SIGKILL when this process dies.
 * *pidfd is close-on-exec. `fail_fd`: the writing end of a pipe. Returns the pid or -1. */
pid_t spawn_process(const struct spawn *s, unsigned tag, int fail_fd, int *pidfd, struct error *err);
/* "cannot enter work directory /x: No such file or directory" */
void spawn_failure_text(const struct spawn_failure *f, const char *path, const char *wdir, struct error *err);

/* Finds the program as a shell would: a name with a slash is taken below `wdir`, another is looked
 * up in `path` and then in `wdir` (as MS-MPI does). The caller frees it. NULL: err says why not. */
char *spawn_lookup(const char *name, const char *path, const char *wdir, struct error *err);

#endif
