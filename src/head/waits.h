/* waits.h - requests that are answered when something has happened: JobWait, TaskOutput.wait,
 * EventList.wait. A client's waits end with its session. */
#ifndef MUSTER_HEAD_WAITS_H
#define MUSTER_HEAD_WAITS_H

#include "head/session.h"

#define WAITS_PER_SESSION_MAX 4096

struct waits *waits_create(struct head *head);
void waits_destroy(struct waits *waits); /* NULL is fine; call after the sessions are gone */

/* Keeps the request (a copy), or answers it when there is something to say now. More than
 * WAITS_PER_SESSION_MAX of one client: ERR_LIMIT. */
int waits_add(struct waits *waits, struct session *session, const Mu__Request *request, struct error *err);

/* Something about the job or its tasks has changed in this turn (or its output has grown): answers
 * whoever waits for it. Cheap when nobody does. */
void waits_job(struct waits *waits, uint64_t job);
void waits_events(struct waits *waits);
void waits_all(struct waits *waits);                              /* the core was rebuilt */
void waits_session(struct waits *waits, struct session *session); /* it has caught up */
void waits_session_gone(struct waits *waits, struct session *session);

#endif
