/* inventory.h - what this machine is: read once at start, and its load. */
#ifndef MUSTER_NODE_INVENTORY_H
#define MUSTER_NODE_INVENTORY_H

#include "node/config.h"

#include <stdint.h>

struct inventory {
    int *cpus; /* processors this process may use; core N of the node is cpus[N] */
    size_t cpu_count;
    uint32_t sockets;
    uint64_t memory_mb;
    char boot_id[64];
    char os[128];
};
void inventory_read(struct inventory *inventory);
void inventory_release(struct inventory *inventory);

uint32_t inventory_load_milli(void); /* 1-minute load average * 1000 */
uint64_t inventory_memory_free_mb(void);

#endif
