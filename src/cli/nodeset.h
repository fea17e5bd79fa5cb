/* nodeset.h - sets of node names as people write them: "node[01-04,7],gpu*".
 *
 * `[a-b]` counts with the width of a ("[01-12]" gives 01 ... 12); `*` and `?` match the names of
 * registered nodes, without case.
 */
#ifndef MUSTER_CLI_NODESET_H
#define MUSTER_CLI_NODESET_H

#include "base/buf.h"
#include "base/error.h"
#include "cli/options.h"

/* Writes out the brackets of one pattern. More than 100,000 names is an error. Wildcards stay. */
int nodeset_expand(const char *pattern, struct words *out, struct error *err);
/* The same for comma lists from several words. */
int nodeset_expand_words(const struct words *patterns, struct words *out, struct error *err);
bool nodeset_is_pattern(const char *name);                 /* has * or ? */
bool nodeset_match(const char *pattern, const char *name); /* without case */

/* The shortest writing of the names, in the order of first appearance of each prefix:
 * node01 node02 node03 -> "node[01-03]". Appended to out. */
void nodeset_fold(char *const *names, size_t count, struct buf *out);

#endif
