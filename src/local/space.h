/* space.h - the namespaces of a local cluster: what makes one machine look like several hosts.
 *
 * The cluster has one network namespace with a bridge (mu0, 10.77.0.1/16) in it, where the head
 * listens; as an ordinary user this is inside a user namespace that maps nobody but him. Every
 * node has a network, UTS and mount namespace: its own host name, eth0 on the bridge, and its own
 * /sys (UCX looks there for network devices). IPC and PID namespaces stay shared: without shared
 * memory between the nodes Debian's MPICH hangs in MPI_Finalize (over UCX's TCP).
 *
 * A namespace lives as long as a process is in it, so each is held by an anchor: muster-local
 * under the name `anchor`, which does nothing. Nothing is bound into the file system; when the
 * processes end, everything is gone.
 */
#ifndef MUSTER_LOCAL_SPACE_H
#define MUSTER_LOCAL_SPACE_H

#include "local/cluster.h"
#include "local/proc.h"

#define SPACE_BRIDGE_ADDRESS "10.77.0.1"

/* proc_setup functions; `arg` is a struct space. They run in the child that becomes the anchor or
 * the daemon. */
struct space {
    const struct cluster *c;
    const struct proc *network; /* the cluster's anchor; NULL while that one is being made */
    const struct proc *node;    /* the node's anchor, or any process in its namespaces */
    uint32_t index;             /* of the node */
};
int space_make_network(void *arg, struct error *err); /* new: the cluster's */
int space_make_node(void *arg, struct error *err);    /* new: a node's, joined to `network` */
int space_enter_network(void *arg, struct error *err);
int space_enter_node(void *arg, struct error *err);

/* Writes DIR/hosts: /etc/hosts and the nodes' names, bound over /etc/hosts in every node. */
int space_write_hosts(const struct cluster *c, struct error *err);

/* Sends `sig` to every process in the namespaces of `anchor` but the anchor itself and `spare` (may
 * be NULL). Returns how many there were. */
int space_signal_all(const struct proc *anchor, const struct proc *spare, int sig);

#endif
