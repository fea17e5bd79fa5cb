/* hello.h - the head's side of the greeting, the same for clients, agents and machines that join. */
#ifndef MUSTER_HEAD_HELLO_H
#define MUSTER_HEAD_HELLO_H

#include "head/head.h"
#include "proto/wire.pb-c.h"
#include "wire/link.h"

/* Whether we have a version of the protocol in common. 0 or -1. */
int hello_check(const Mu__Hello *hello, struct error *err);
/* `err` not NULL: why the connection will be closed. */
void hello_send(const struct head *head, struct link *link, const struct error *err);

#endif
