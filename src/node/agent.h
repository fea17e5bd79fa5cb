/* agent.h - muster-node's parts and what they share.
 *
 *   agent.c     the link to the head: hello, heartbeats, orders in, one report frame a turn out
 *   attempts.c  the attempts on this node: folders, keepers, reports, output
 *   step_port.c the port on which the steps of other nodes call
 *   janitor.c   removes what tasks have left
 */
#ifndef MUSTER_NODE_AGENT_H
#define MUSTER_NODE_AGENT_H

#include "base/error.h"
#include "node/config.h"
#include "node/inventory.h"
#include "node/janitor.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

struct attempts;
struct step_port;
struct agent {
    struct event_base *base;
    struct node_config config;
    struct inventory inventory;
    const char *dir_path;
    int dir;
    char install_id[65];
    char cluster[129];     /* as the head says */
    char *topology;        /* hwloc's XML file for steps; "" until it is there */
    int64_t lease_from_ms; /* boot clock: when we said the last thing that the head has heard */
    struct attempts *attempts;
    struct step_port *step_port;
    struct janitor janitor;
    struct event *turn; /* the end of this loop turn: starts what waits, sends what is to be said */
};

/* There is something for the end of this turn. */
void agent_soon(struct agent *agent);

/* Reads DIR/install_id, making it when it is not there (32 hex digits). */
int install_id_read(int dir, char out[65], struct error *err);

/* muster-node run: returns the exit status. */
int agent_run(const char *dir);
/* muster-node join. `token` is text. */
int join_run(const char *dir, const char *name, const char *head, const char *token, struct error *err);

#endif
