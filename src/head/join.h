/* join.h - how a machine becomes a node: a token that an admin made, once, against a certificate.
 *
 * Tokens are kept in DIR/head/tokens (only the hash of their secret), so that one that was given
 * out works after a restart. */
#ifndef MUSTER_HEAD_JOIN_H
#define MUSTER_HEAD_JOIN_H

#include "base/buf.h"
#include "head/head.h"
#include "proto/wire.pb-c.h"

struct joins *joins_create(struct head *head, struct error *err);
void joins_destroy(struct joins *joins); /* NULL is fine */

/* Makes a token and stores it. `text` is what the admin hands on. */
int token_create(struct joins *joins, const Mu__TokenCreate *request, struct buf *text,
                 int64_t *expires_wall_ms, struct error *err);
/* Answers a JoinRequest, with a certificate or an error; the caller frees the reply. `shown` is the name in
 * the certificate that the machine has shown, NULL: none. `peer` is for the log. Many failures in short
 * time: nobody is heard for a while. */
Mu__JoinReply *join_handle(struct joins *joins, const Mu__JoinRequest *request, const char *shown,
                           const char *peer);

#endif
