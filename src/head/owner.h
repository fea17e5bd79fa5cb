/* owner.h - who a uid is: name, groups, home and whether it may administer the cluster. */
#ifndef MUSTER_HEAD_OWNER_H
#define MUSTER_HEAD_OWNER_H

#include "head/head.h"
#include "proto/model.pb-c.h"

#include <sys/queue.h>
#include <sys/types.h>

struct owners *owners_create(struct head *head);
void owners_destroy(struct owners *owners); /* NULL is fine */

/* One who asks; part of the asker's own struct. */
struct owner_wait {
    LIST_ENTRY(owner_wait) next;
    bool waiting;
    /* Called once, perhaps before owner_ask() returns. The Owner is the asker's, to be freed with
     * mu__owner__free_unpacked(); NULL: err says why there is none. */
    void (*done)(struct owner_wait *wait, Mu__Owner *owner, bool admin, const struct error *err);
};

/* Whom the work of a caller with this uid belongs to (head.json's "map" applied) and whether the
 * caller is an admin. The answer is kept for a minute; without one, a thread looks it up and the loop
 * goes on. An unknown uid is a user known by number; a map to an unknown account is an error. */
void owner_ask(struct owners *owners, uid_t uid, gid_t gid, struct owner_wait *wait);
void owner_cancel(struct owner_wait *wait); /* done() is not called; harmless when it has been */

#endif
