/* door.h - TCP connections until it is known what they are: an agent, or a machine that joins. */
#ifndef MUSTER_HEAD_DOOR_H
#define MUSTER_HEAD_DOOR_H

#include "head/head.h"

/* Binds `listen` ("ADDR:PORT"); head->listen_text is what it is bound to. Connections wait until
 * door_open(). */
struct door *door_create(struct head *head, const char *listen, struct error *err);
void door_open(struct door *door);
void door_shut(struct door *door);
void door_destroy(struct door *door); /* NULL is fine */

#endif
