/* config.h - DIR/node.json: what a node is told about itself. */
#ifndef MUSTER_NODE_CONFIG_H
#define MUSTER_NODE_CONFIG_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_STRINGS(X)                                                                                    \
    X(name)          /* the node's name; required */                                                         \
    X(head)          /* ADDR:PORT of the head; required */                                                   \
    X(address)       /* how peers reach this node; default: the address that reaches the head */             \
    X(physical_host) /* nodes with the same word are on one machine; default: the boot id */                 \
    X(interface)     /* network interface for MPI; empty: any */                                             \
    X(run_dir)       /* short path for sockets; default /run/muster or /tmp/muster-UID */                    \
    X(path)          /* PATH of tasks */                                                                     \
    X(bin)           /* folder of muster-keeper and muster-step; default: where muster-node is */            \
    X(home_fallback) /* home of accounts whose own does not exist; empty: none */
#define CONFIG_NUMBERS(X)                                                                                    \
    X(port, 65535)           /* step port; 0: any */                                                         \
    X(cores, 65536)          /* 0: the processors this process may use */                                    \
    X(memory_mb, 1000000000) /* 0: what the machine has */
#define CONFIG_FLAGS(X)                                                                                      \
    X(virtual_cores) /* several nodes share the processors: affinity is not applied */                       \
    X(allow_root)    /* tasks of root and of system accounts are run */

struct pair {
    char *name, *value;
};
struct node_config {
#define X(name) char *name;
    CONFIG_STRINGS(X)
#undef X
#define X(name, max) uint64_t name;
    CONFIG_NUMBERS(X)
#undef X
#define X(name) bool name;
    CONFIG_FLAGS(X)
#undef X
    struct pair *map; /* account of the submitter -> account that runs the task */
    size_t map_count;
    struct pair *env; /* extra environment of every task */
    size_t env_count;
    char head_host[256];
    uint16_t head_port;
};

/* Reads `path`; what is absent takes its default. Unknown keys are errors: a misspelt
 * setting must not go unnoticed. `config` must be zeroed; release it even after an error. */
int config_load(struct node_config *config, const char *path, struct error *err);
void config_release(struct node_config *config);
const char *config_mapped(const struct node_config *config, const char *account); /* NULL: not mapped */

/* Sets name and head in DIR/node.json and keeps what else is there. */
int config_join(const char *path, const char *name, const char *head, struct error *err);

#endif
