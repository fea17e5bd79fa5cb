/* nodes.h - asking the head for nodes, for node.c, group.c and run.c. */
#ifndef MUSTER_CLI_NODES_H
#define MUSTER_CLI_NODES_H

#include "cli/context.h"

/* names NULL or empty: all; group NULL: any; state 0: any. *reply has nodes. */
int get_nodes(struct context *ctx, const struct words *names, const char *group, Mu__NodeState state,
              bool cores, Mu__Reply **reply, struct error *err);

/* The names that comma lists, brackets and wildcards stand for. Asks the head only for wildcards, and a
 * wildcard that matches nothing is an error. Names without wildcards are passed on unchecked against what
 * exists. */
int select_nodes(struct context *ctx, const struct words *patterns, struct words *names, struct error *err);

#endif
