/* nodelink.h - the agents: one link each, by the name in its certificate.
 *
 * Liveness stays here; the core hears of its edges alone. A link that is closed may come back
 * within a grace of two heartbeats before the core is told (CMD_NODE_DOWN); one that has missed
 * three is closed, and the core told at once. Leases are renewed by heartbeats only, so after
 * CMD_NODE_DOWN nothing of ours prolongs them. */
#ifndef MUSTER_HEAD_NODELINK_H
#define MUSTER_HEAD_NODELINK_H

#include "head/head.h"
#include "model/names.h"
#include "proto/wire.pb-c.h"
#include "wire/link.h"

struct nodelink;

/* Names of nodes are compared without case: the name in lower case, as a key. */
void node_key(const char *name, char out[NODE_NAME_MAX + 1]);

struct nodelinks *nodelinks_create(struct head *head, struct error *err);
void nodelinks_destroy(struct nodelinks *nodelinks); /* NULL is fine */

/* Takes over a link whose Hello said NODE. Refused (not the name of its certificate, a second machine
 * of that name, a broken inventory): -1, and the link is still the caller's. */
int nodelinks_hello(struct nodelinks *nodelinks, struct link *link, const Mu__Hello *hello,
                    struct error *err);

void nodelinks_effects(struct nodelinks *nodelinks, const struct effects *effects); /* they are durable */
void nodelinks_flush(struct nodelinks *nodelinks); /* sends what has gathered: one order a node */
void nodelinks_choke(struct nodelinks *nodelinks, bool choke);
void nodelinks_close_all(struct nodelinks *nodelinks); /* agents come back and say hello anew */

/* Gives the last load and how long ago the agent was heard; false: it has no link (seen_ms_ago is
 * still set when it had one). */
bool nodelink_load(struct nodelinks *nodelinks, const char *node, Mu__NodeLoad *load, int64_t *seen_ms_ago);
/* Whether an agent of that name is connected, and with which install id. */
const char *nodelink_install_id(struct nodelinks *nodelinks, const char *node);

const char *nodelink_name(const struct nodelink *nl);
struct nodelink *nodelink_find(struct nodelinks *nodelinks, const char *node); /* connected; or NULL */
/* One report goes to the core. */
void nodelink_report(struct head *head, const char *node, const Mu__AttemptReport *report);
void nodelink_credit(struct nodelink *nl, uint64_t attempt, uint64_t offset, uint32_t window);
/* Its output could not be written: the link is closed so that the agent starts again from what is here. */
void nodelink_resync(struct nodelink *nl);

#endif
