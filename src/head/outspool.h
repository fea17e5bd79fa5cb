/* outspool.h - what tasks print, kept at the head: DIR/head/spool/JOB/TASK.ATTEMPT.
 *
 * Chunks come from the attempt's first node under credits: the node may send up to a window past
 * what the head has noted. A report that the task has ended is kept back until all that it printed
 * is here, so whoever sees the end sees the whole output. */
#ifndef MUSTER_HEAD_OUTSPOOL_H
#define MUSTER_HEAD_OUTSPOOL_H

#include "base/buf.h"
#include "head/head.h"
#include "proto/wire.pb-c.h"

struct nodelink;

/* Opens (making it) the folder `spool` and removes what belongs to jobs that are not in the core. */
struct outspools *outspools_create(struct head *head, struct error *err);
void outspools_destroy(struct outspools *outspools); /* NULL is fine */
void outspools_sweep(struct outspools *outspools);   /* once the core is loaded */

/* A chunk from `link`: written, waiters answered, credit given. */
void outspools_chunk(struct outspools *outspools, struct nodelink *link, const Mu__OutputChunk *chunk);
/* The agent at `link` knows of this attempt (or is about to): tells it where to go on from. */
void outspools_credit(struct outspools *outspools, struct nodelink *link, uint64_t attempt);
/* Whether `report` must wait for output; then a copy is kept and comes back through
 * nodelink_report() when the output is here, or has not moved for a while. */
bool outspools_keep_back(struct outspools *outspools, struct nodelink *link, const Mu__AttemptReport *report);
void outspools_link_gone(struct outspools *outspools, const char *node); /* drops what was kept back */

/* Appends at most `max` bytes of the task's output at *offset, moves *offset to where the bytes begin
 * (later than asked when bytes between were dropped); *total counts all that was printed. */
int outspool_read(struct outspools *outspools, const Mu__Task *task, uint32_t max, uint64_t *offset,
                  struct buf *data, uint64_t *total, struct error *err);

/* Why no output can be written now; "": it can. */
const char *outspools_error(const struct outspools *outspools);

void outspools_reset(struct outspools *outspools); /* the core was rebuilt: attempts are looked up anew */
void outspools_attempt_gone(struct outspools *outspools, uint64_t attempt); /* no more will come */
void outspools_job_gone(struct outspools *outspools, uint64_t job);         /* removes its folder */

#endif
