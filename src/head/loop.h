/* loop.h - the head's turns: all commands that have arrived, one batch, replies when durable.
 *
 * A handler calls loop_turn() (a turn is open then), core_command() through loop_command(), and
 * answers with request.h's answer functions. The turn ends by itself when no traffic is left.
 *
 * After a failed commit the loop is read-only: the core is what is durable and no more, changes are
 * refused, a probe runs every second. After SIGTERM it is stopping: changes are refused.
 */
#ifndef MUSTER_HEAD_LOOP_H
#define MUSTER_HEAD_LOOP_H

#include "head/head.h"

enum answer_kind { ANSWER_JOB, ANSWER_TASK };
struct session;

/* Loads the core from head->store and resumes it in a first turn, whose effects are the open ones.
 * Sets head->loop itself, as the parts that it calls need it. */
struct loop *loop_create(struct head *head, struct error *err);
void loop_destroy(struct loop *loop); /* NULL is fine */
int loop_run(struct loop *loop);      /* until SIGTERM: 0, everything is durable */
void loop_stop(struct loop *loop);    /* as SIGTERM */

/* Opens a turn if none is open (ending one that has become too long). */
void loop_turn(struct loop *loop);
/* Runs one command in the open turn (opens one). Read-only: ERR_UNAVAILABLE. */
void loop_command(struct loop *loop, const struct command *cmd, struct result *result);
/* Whether changes are taken now; else err says why not. */
bool loop_writable(const struct loop *loop, struct error *err);
/* Whether reads can be answered (the core could be rebuilt). */
bool loop_readable(const struct loop *loop, struct error *err);
bool loop_stopping(const struct loop *loop);
uint64_t loop_set_aside(const struct loop *loop); /* rows that could not be read */

/* A node's link came up in this turn: its open effects are part of the turn's effects. */
void loop_node_up(struct loop *loop, const char *node);
/* Answer with the job or task as it is after the turn's scheduling. first/count: new task ids. */
void loop_answer_later(struct loop *loop, enum answer_kind kind, struct session *session, uint64_t request,
                       uint64_t job, uint32_t task, uint32_t first, uint32_t count);

int64_t loop_up_ms(const struct loop *loop);
uint64_t loop_event(const struct loop *loop); /* the event number that reads are true at */

#endif
