/* supervisor.h - what muster-local does with its life: cluster up, cluster kept up, cluster down. */
#ifndef MUSTER_LOCAL_SUPERVISOR_H
#define MUSTER_LOCAL_SUPERVISOR_H

#include "base/error.h"
#include "local/cluster.h"

/* Brings the cluster up (taking over what lives), says so on `ready_fd` (see below; -1: nobody
 * listens), keeps it up until SIGTERM or SIGINT, then takes it down. SIGHUP: what waits to be
 * restarted is restarted now. Returns 0, or -1 when it could not be brought up: then what this call
 * started is ended again.
 *
 * On ready_fd go lines: "progress TEXT", and last "ready TEXT" or "error TEXT". */
int supervisor_run(const struct cluster *c, int ready_fd, struct error *err);

/* Ends everything that is left of a cluster whose muster-local has died. */
int supervisor_down(const struct cluster *c, struct error *err);

#endif
