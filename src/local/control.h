/* control.h - what `muster cluster` does with a local cluster, as calls: start, stop, status. */
#ifndef MUSTER_LOCAL_CONTROL_H
#define MUSTER_LOCAL_CONTROL_H

#include "base/error.h"
#include "local/cluster.h"

#include <jansson.h>
#include <stdbool.h>

/* One line about what is going on; may be NULL. */
typedef void control_progress(const char *text, void *arg);

/* Brings the cluster (cluster_init() was called) up and waits until it is: every node Online.
 * *was_up (may be NULL): it already was. */
int control_start(const struct cluster *c, control_progress *progress, void *arg, bool *was_up,
                  struct error *err);

/* Takes it down. Jobs that run are cancelled, jobs that wait stay queued for the next start.
 * Nothing of it lives when this returns 0. *was_up: something did before. */
int control_stop(const struct cluster *c, control_progress *progress, void *arg, bool *was_up,
                 struct error *err);

/* How it stands, as `muster cluster status --json` prints it:
 *   {"name", "dir", "kind" ("namespaces" | "user namespaces" | "one host" | "none"), "why" (one host: why),
 *    "supervisor": {"pid", "state"}, "head": {"pid", "state", "address", "version", "store", "uptime_ms"},
 *    "nodes": [{"name", "state", "health", "address", "pid", "cores", "jobs"}], "jobs": {"queued",
 * "running"}} head.state is "running", "not answering" (a process is there) or "dead". pids are 0 where there
 * is no process. The caller gives it back with json_decref(). */
json_t *control_status(const struct cluster *c, struct error *err);

#endif
