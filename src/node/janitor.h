/* janitor.h - removing what tasks have left, beside the agent's loop.
 *
 * A run folder is the user's: there may be millions of files in it. The keeper removes it in its own
 * time before the attempt counts as released; where the keeper was killed, the agent only renames the
 * folder and a helper process with the lowest priority removes it. One helper runs at a time.
 */
#ifndef MUSTER_NODE_JANITOR_H
#define MUSTER_NODE_JANITOR_H

#include <stdbool.h>
#include <sys/types.h>

struct janitor {
    const char *folder; /* the agent's run folder; a name below is taken by one that is given away */
    pid_t helper;       /* 0: none */
    bool again;         /* something was given away since it started */
    unsigned given;     /* names them */
};

/* Takes FOLDER/name out of the way; an absent one is fine. It goes when the helper comes to it. */
void janitor_take(struct janitor *j, const char *name);
/* Starts the helper, if there may be something for it: after janitor_take, and once at the start. */
void janitor_start(struct janitor *j);
/* A child has ended. True: it was the helper. */
bool janitor_child(struct janitor *j, pid_t pid);

#endif
