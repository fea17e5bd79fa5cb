/* cluster.h - a local cluster as a folder: what was chosen for it, and where everything is.
 *
 * DIR/cluster.json holds the choices; it is made once (cluster_init()) and then only read. The
 * rest of struct cluster follows from it, from the folder's path and from who runs it:
 *
 *     DIR/head/        the head's own folder (0700, the head's uid)
 *     DIR/sock/        the head's socket (the head's uid, open to all); DIR/head.sock points to it
 *     DIR/nodes/NAME/  an agent's own folder (0700)
 *     DIR/log/         one log per process
 *     DIR/pids/        one file per process: "PID START" (proc.h)
 *     DIR/local.json   what muster-local has running (supervisor.c); DIR/local.lock is held while it lives
 *     DIR/home/        root only: the home of the account that root's tasks run as
 *     DIR/bin/         root only: where the programs are, when their folder is closed to that account
 *     run_dir          short paths for the agents' sockets, outside DIR
 */
#ifndef MUSTER_LOCAL_CLUSTER_H
#define MUSTER_LOCAL_CLUSTER_H

#include "base/error.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CLUSTER_NODES_MAX 1000
#define CLUSTER_CORES_MAX 1024
#define CLUSTER_NAME_MAX 63
#define CLUSTER_HEAD_PORT 7470 /* in a network namespace of its own, where every port is free */
#define CLUSTER_STEP_PORT 7471

/* What a user may choose; 0, NULL and false mean "not said". */
struct cluster_choice {
    const char *name;
    uint32_t nodes, cores_per_node;
    const char *user;   /* root only: the account that root's tasks run as */
    bool no_namespaces; /* nodes as processes on 127.0.0.x */
    uint32_t port;      /* of the head */
};

struct cluster {
    char dir[PATH_MAX]; /* absolute */
    char name[CLUSTER_NAME_MAX + 1];
    uint32_t nodes, cores_per_node;
    uint32_t port; /* 0: CLUSTER_HEAD_PORT in namespaces, any free one without */
    bool no_namespaces;
    char user[64]; /* "" for an ordinary user */
    bool root;     /* the cluster's daemons are started by root */
    uid_t head_uid;
    gid_t head_gid;
    char run_dir[64];
    char built[PATH_MAX]; /* folder of the program that runs this code: muster-head is beside it */
    char bin[PATH_MAX];   /* the same folder as the account of the tasks reaches it: `built`, or DIR/bin */
};

/* Makes the folder and cluster.json, or reads it when it is there; then the choices made must be the
 * same ones (ERR_EXISTS names the first that differs). Makes what else must be there: certificates,
 * home, socket folder. *made (may be NULL) says whether the cluster is new. */
int cluster_init(struct cluster *c, const char *dir, const struct cluster_choice *choice, bool *made,
                 struct error *err);

/* Reads an existing one. ERR_NOT_FOUND: there is none in `dir`. */
int cluster_open(struct cluster *c, const char *dir, struct error *err);

/* ERR_DENIED unless the folder is the caller's: only its owner starts and stops a cluster. */
int cluster_check_owner(const struct cluster *c, struct error *err);

/* The folder outside DIR for the agents' sockets: made if absent, refused when it is someone else's. */
int cluster_run_dir(const struct cluster *c, struct error *err);

/* DIR/WHAT. Static storage, eight at a time. */
const char *cluster_path(const struct cluster *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "node01"; i counts from 0. Static storage, as cluster_path(). */
const char *cluster_node_name(const struct cluster *c, uint32_t i);
/* The address of node i: 10.77.0.(11+i), or 127.0.0.(11+i) without namespaces. Storage as above. */
const char *cluster_node_address(const struct cluster *c, bool namespaces, uint32_t i);

/* Writes DIR/nodes/NAME/node.json (cluster folder made if absent). `head` is ADDRESS:PORT. */
int cluster_write_node(const struct cluster *c, uint32_t i, bool namespaces, const char *head,
                       struct error *err);

/* Whether every account can reach `path` (each folder on the way, and the thing itself, may be entered). */
bool cluster_open_to_all(const char *path);

#endif
