/* request.h - what a client may ask: one table, kind -> name, who may, handler. */
#ifndef MUSTER_HEAD_REQUEST_H
#define MUSTER_HEAD_REQUEST_H

#include "head/session.h"

/* Runs or keeps the request; it is answered exactly once, now or later, unless the client goes. */
void request_handle(struct session *session, const Mu__Request *request);

#endif
