/* tree.h - the shape of the step tree: node 0 is the root, node i hangs below (i-1)/32. */
#ifndef MUSTER_STEP_TREE_H
#define MUSTER_STEP_TREE_H

#include <stdint.h>

#define TREE_WIDTH 32u

static inline uint32_t tree_parent(uint32_t i)
{
    return i ? (i - 1) / TREE_WIDTH : 0;
}

static inline uint32_t tree_first_child(uint32_t i)
{
    return i * TREE_WIDTH + 1;
}

/* The child of `me` below which `node` lies; 0 when it does not lie below `me` (0 is nobody's child). */
static inline uint32_t tree_branch(uint32_t me, uint32_t node)
{
    while (node > me) {
        uint32_t parent = tree_parent(node);
        if (parent == me)
            return node;
        node = parent;
    }
    return 0;
}

#endif
