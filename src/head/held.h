/* held.h - what may be said only when it is durable.
 *
 * During a turn, replies and effects are added; at its end held_seal() gives all of them the
 * number of the turn's batch; held_release() lets go what the store has reached, in order. When
 * the store fails, held_fail() turns every held reply into an error and drops the effects: they
 * follow from rows and will come again.
 */
#ifndef MUSTER_HEAD_HELD_H
#define MUSTER_HEAD_HELD_H

#include "base/buf.h"
#include "head/head.h"

struct session;

struct held *held_create(struct head *head);
void held_destroy(struct held *held); /* NULL is fine; what is held is dropped */

/* An encoded Reply frame for request `request`; takes the bytes over (`frame` is empty after). */
void held_reply(struct held *held, struct session *session, uint64_t request, struct buf *frame);
/* Takes the list over (`effects` is empty after). */
void held_effects(struct held *held, struct effects *effects);
/* A job's row was deleted: its output goes when that is durable. */
void held_job_gone(struct held *held, uint64_t job);

void held_seal(struct held *held, uint64_t batch);
void held_release(struct held *held, uint64_t durable);
void held_fail(struct held *held, const struct error *err);
bool held_empty(const struct held *held);

#endif
