/* cgroup.h - the node's place for the cgroups of its attempts (version 2 only; no controllers are
 * needed, they serve to find and end processes).
 *
 * Since Linux 6.14 or so a cgroup into which cgroup.kill was written once kills whatever is cloned
 * into it later from outside (the sequence number of the caller's own cgroup is compared). Such a
 * one is therefore never used again. */
#ifndef MUSTER_NODE_CGROUP_H
#define MUSTER_NODE_CGROUP_H

#include "base/error.h"

/* Opens (making it) the folder `name` below this process's own cgroup: as root through a private
 * mount of the hierarchy, whatever /sys/fs/cgroup shows; else through the mounted one, where a
 * part of it was delegated to this user. It is tried out with a process. Returns its descriptor,
 * or -1 with the reason: the node then works without cgroups. */
int cgroup_open(const char *name, struct error *err);
/* Removes it again, with the empty ones one level below, if no process is in any. */
void cgroup_remove(const char *name);

#endif
