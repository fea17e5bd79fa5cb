/* owner.h - who a uid is: name, groups, home and whether it may administer the cluster. */
#ifndef MUSTER_HEAD_OWNER_H
#define MUSTER_HEAD_OWNER_H

#include "head/head.h"
#include "proto/model.pb-c.h"

#include <sys/types.h>

struct owners *owners_create(struct head *head);
void owners_destroy(struct owners *owners); /* NULL is fine */

/* Whom the work of a caller with this uid belongs to (head.json's "map" applied) and whether the
 * caller is an admin. The answer is kept for a minute; the Owner is the caller's copy, free it
 * with mu__owner__free_unpacked(). An unknown uid, or a map to an unknown account, is an error. */
Mu__Owner *owner_lookup(struct owners *owners, uid_t uid, gid_t gid, bool *admin, struct error *err);

#endif
