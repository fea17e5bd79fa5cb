/* keeper_start.h - starting a keeper: from the attempt's folder to a running muster-keeper. */
#ifndef MUSTER_NODE_KEEPER_START_H
#define MUSTER_NODE_KEEPER_START_H

#include "base/error.h"

#include <sys/types.h>

struct keeper_start {
    const char *program; /* path of muster-keeper */
    int folder;          /* the attempt's folder; `order` is in it */
    int order;           /* its file `order`, locked by the caller */
    int node;            /* the node's folder */
    int context;         /* memfd, or -1 */
    int cgroup;          /* folder of the attempt's cgroup, or -1 */
};

/* The caller keeps (and closes) all descriptors of `start`. *control is the agent's end of the
 * control socket (close-on-exec, non-blocking). The keeper is a child: the caller reaps it. */
int keeper_spawn(const struct keeper_start *start, int *control, pid_t *pid, struct error *err);

/* A sealed memfd that holds `data`. -1 with err. */
int keeper_memfd(const char *name, const void *data, size_t len, struct error *err);

#endif
