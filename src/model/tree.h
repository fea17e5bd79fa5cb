/* tree.h - the BSD red-black tree macros, usable with static functions on Linux.
 *
 * <bsd/sys/tree.h> marks the static functions it makes with the BSDs' __unused, which glibc
 * does not define. Use RB_HEAD, RB_ENTRY, RB_GENERATE_STATIC as tree(3bsd) describes them.
 */
#ifndef MUSTER_MODEL_TREE_H
#define MUSTER_MODEL_TREE_H

#ifndef __unused
#define __unused __attribute__((unused))
#endif
#include <bsd/sys/tree.h>

/* -1, 0, 1 as a <, =, > b: for numbers of any width. */
#define TREE_ORDER(a, b) (((a) > (b)) - ((a) < (b)))

#endif
