/* reply.h - answers, built from what the core holds at this moment and held until it is durable.
 *
 * Environment variables may hold secrets: they are shown to a job's owner and to admins alone. */
#ifndef MUSTER_HEAD_REPLY_H
#define MUSTER_HEAD_REPLY_H

#include "head/session.h"

/* Packs and holds; sets id and event. A reply longer than a frame becomes an error. */
void reply_send(struct session *session, uint64_t request, Mu__Reply *reply);
void reply_error(struct session *session, uint64_t request, const struct error *err);
void reply_empty(struct session *session, uint64_t request);
void reply_error_frame(uint64_t request, uint64_t event, const struct error *err, struct buf *frame);

/* first/count: ids of tasks that the request made. A job that is not there is an error reply. */
void reply_job(struct session *session, uint64_t request, uint64_t job, uint32_t first, uint32_t count);
void reply_task(struct session *session, uint64_t request, uint64_t job, uint32_t task);
void reply_job_get(struct session *session, uint64_t request, const Mu__JobGet *get);
void reply_job_list(struct session *session, uint64_t request, const Mu__JobList *list);
void reply_nodes(struct session *session, uint64_t request, const Mu__NodeList *list);
void reply_groups(struct session *session, uint64_t request, const char *name);
/* false: nothing to say (the caller may wait). */
bool reply_events(struct session *session, uint64_t request, const Mu__EventList *list, bool even_if_none);
/* false: no more output so far. */
bool reply_output(struct session *session, uint64_t request, const Mu__TaskOutput *get, bool even_if_none);
void reply_status(struct session *session, uint64_t request);

bool task_over(const Mu__Task *task);

#endif
