/* gather.h - collecting bytes from the nodes of an operation up the tree, as an engine.
 *
 * A PMI-1 barrier or a PMIx fence: every node that has ranks in it contributes once; when a node's
 * whole subtree has contributed, the joined bytes go up; the root's joined bytes are what everybody
 * gets. An operation is known by its key; a key is free again once it has gone up.
 */
#ifndef MUSTER_STEP_GATHER_H
#define MUSTER_STEP_GATHER_H

#include "base/buf.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define GATHER_BYTES_MAX (64u * 1024 * 1024) /* of one operation */
#define GATHER_OPEN_MAX 1024                 /* operations at once */

struct gather;
struct gather_ops {
    /* The subtree is complete. `ranks` empty: all. */
    void (*complete)(void *arg, const char *key, const uint32_t *ranks, size_t n, const struct buf *data);
    /* How many contributions this node has to wait for: its own and one per child with ranks in it. */
    uint32_t (*expected)(void *arg, const uint32_t *ranks, size_t n);
};
struct gather *gather_new(const struct gather_ops *ops, void *arg);
void gather_free(struct gather *g);
int gather_add(struct gather *g, const char *key, const uint32_t *ranks, size_t n, const void *data,
               size_t len, struct error *err);

#endif
