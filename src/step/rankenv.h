/* rankenv.h - the environment of a rank.
 *
 * Made of mpiexec's environment, the section's -env, and one table (rankenv.c) of what launchers and
 * MPI libraries need here; a row of the table yields where the user has set one of the variables
 * that it would override. A node builds it once per section; what differs from rank to rank is
 * replaced in it before each start.
 */
#ifndef MUSTER_STEP_RANKENV_H
#define MUSTER_STEP_RANKENV_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rankenv_facts {
    bool pmix;             /* a PMIx server is offered */
    bool own_network;      /* `interface` is set: peers are reached by it alone */
    bool crowded;          /* more ranks than processors on this physical host */
    bool shared_name;      /* several nodes have one host name: their shared files must be kept apart */
    const char *interface; /* "" unless own_network */
    const char *tmpdir;    /* private folder of this step on this node; "" if there is none */
    const char *hostname;  /* the node's name */
};

struct rankenv;
/* Later lists win over earlier ones. */
struct rankenv *rankenv_new(char *const *base, size_t base_n, char *const *section, size_t section_n,
                            const struct rankenv_facts *facts);
void rankenv_free(struct rankenv *e);
/* Sets NAME=VALUE, over whatever was there: what all ranks share, and what differs per rank. */
void rankenv_set(struct rankenv *e, const char *name, const char *value);
const char *rankenv_get(const struct rankenv *e, const char *name); /* NULL: unset */
/* NULL-terminated; valid until the next change. */
char *const *rankenv_vector(struct rankenv *e);

#endif
