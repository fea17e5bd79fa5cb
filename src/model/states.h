/* states.h - what a job, a task, a node and an attempt can be, and what may be asked of them.
 *
 * One table per kind, in X-macro form: the state, its name as HPC Pack prints it, and the verbs
 * allowed in it (reference: HPC Pack's job and task states). A second table holds the moves
 * {state, event, next}; whoever changes a state does it through state_next(), so that a move
 * which is not in the table is a bug that shows at once.
 */
#ifndef MUSTER_MODEL_STATES_H
#define MUSTER_MODEL_STATES_H

#include "proto/model.pb-c.h"

#include <stdbool.h>

/* Verbs that a user may apply; a bit set. */
enum verb {
    VERB_SUBMIT = 1,
    VERB_CANCEL = 2,
    VERB_REQUEUE = 4,
    VERB_ADD = 8, /* add tasks */
};

/* state, name, verbs, has it ended */
#define JOB_STATES(X)                                                                                        \
    X(MU__JOB_STATE__JOB_STATE_CONFIGURING, "Configuring", VERB_SUBMIT | VERB_CANCEL | VERB_ADD, false)      \
    X(MU__JOB_STATE__JOB_STATE_SUBMITTED, "Submitted", VERB_CANCEL, false)                                   \
    X(MU__JOB_STATE__JOB_STATE_VALIDATING, "Validating", VERB_CANCEL, false)                                 \
    X(MU__JOB_STATE__JOB_STATE_EXTERNAL_VALIDATION, "ExternalValidation", 0, false)                          \
    X(MU__JOB_STATE__JOB_STATE_QUEUED, "Queued", VERB_CANCEL | VERB_ADD, false)                              \
    X(MU__JOB_STATE__JOB_STATE_RUNNING, "Running", VERB_CANCEL | VERB_REQUEUE | VERB_ADD, false)             \
    X(MU__JOB_STATE__JOB_STATE_FINISHING, "Finishing", 0, false)                                             \
    X(MU__JOB_STATE__JOB_STATE_FINISHED, "Finished", 0, true)                                                \
    X(MU__JOB_STATE__JOB_STATE_FAILED, "Failed", VERB_REQUEUE, true)                                         \
    X(MU__JOB_STATE__JOB_STATE_CANCELED, "Canceled", VERB_REQUEUE, true)                                     \
    X(MU__JOB_STATE__JOB_STATE_CANCELING, "Canceling", 0, false)

/* A task's requeue also needs its job to be Running. */
#define TASK_STATES(X)                                                                                       \
    X(MU__TASK_STATE__TASK_STATE_CONFIGURING, "Configuring", VERB_CANCEL, false)                             \
    X(MU__TASK_STATE__TASK_STATE_SUBMITTED, "Submitted", VERB_CANCEL, false)                                 \
    X(MU__TASK_STATE__TASK_STATE_VALIDATING, "Validating", 0, false)                                         \
    X(MU__TASK_STATE__TASK_STATE_QUEUED, "Queued", VERB_CANCEL, false)                                       \
    X(MU__TASK_STATE__TASK_STATE_DISPATCHING, "Dispatching", VERB_CANCEL | VERB_REQUEUE, false)              \
    X(MU__TASK_STATE__TASK_STATE_RUNNING, "Running", VERB_CANCEL | VERB_REQUEUE, false)                      \
    X(MU__TASK_STATE__TASK_STATE_FINISHING, "Finishing", 0, false)                                           \
    X(MU__TASK_STATE__TASK_STATE_FINISHED, "Finished", 0, true)                                              \
    X(MU__TASK_STATE__TASK_STATE_FAILED, "Failed", VERB_REQUEUE, true)                                       \
    X(MU__TASK_STATE__TASK_STATE_CANCELED, "Canceled", VERB_REQUEUE, true)                                   \
    X(MU__TASK_STATE__TASK_STATE_CANCELING, "Canceling", 0, false)

#define NODE_STATES(X)                                                                                       \
    X(MU__NODE_STATE__NODE_STATE_OFFLINE, "Offline")                                                         \
    X(MU__NODE_STATE__NODE_STATE_DRAINING, "Draining")                                                       \
    X(MU__NODE_STATE__NODE_STATE_ONLINE, "Online")

#define ATTEMPT_STATES(X)                                                                                    \
    X(MU__ATTEMPT_STATE__ATTEMPT_PREPARING, "Preparing")                                                     \
    X(MU__ATTEMPT_STATE__ATTEMPT_STARTING, "Starting")                                                       \
    X(MU__ATTEMPT_STATE__ATTEMPT_RUNNING, "Running")                                                         \
    X(MU__ATTEMPT_STATE__ATTEMPT_ENDING, "Ending")                                                           \
    X(MU__ATTEMPT_STATE__ATTEMPT_DONE, "Done")

/* Names as HPC Pack prints them; "Unknown" for a number outside the table. Static storage. */
const char *job_state_name(int state);
const char *task_state_name(int state);
const char *node_state_name(int state);
const char *attempt_state_name(int state);

/* A name in any case to its state; 0 when there is none of that name. */
int job_state_parse(const char *name);
int task_state_parse(const char *name);
int node_state_parse(const char *name);

bool job_state_ended(int state);
bool task_state_ended(int state);
bool job_state_allows(int state, enum verb verb);
bool task_state_allows(int state, enum verb verb);
/* "Running, Canceled or Failed": the states that allow the verb, for messages. Static storage. */
const char *job_states_allowing(enum verb verb);
const char *task_states_allowing(enum verb verb);

/* What makes a job, task or attempt move. */
enum move {
    MOVE_SUBMIT,   /* handed in */
    MOVE_START,    /* resources given: job runs, task is dispatched */
    MOVE_PREPARED, /* attempt: every node is ready */
    MOVE_RUN,      /* the first node says that the process runs */
    MOVE_END,      /* its work is over or is to be ended */
    MOVE_RELEASED, /* nothing of it lives any more */
    MOVE_FINISH,   /* over: good */
    MOVE_FAIL,     /* over: not good */
    MOVE_CANCEL,   /* a user (or the run-time limit) ends it; over when nothing runs */
    MOVE_REQUEUE,  /* back into the queue */
    MOVE_COUNT
};

enum state_kind { STATE_JOB, STATE_TASK, STATE_ATTEMPT };

/* The state after `move`; 0 when the table has no such row. */
int state_next(enum state_kind kind, int state, enum move move);

/* Words for TaskFailure: "none", "exit", "system", ... */
const char *task_failure_name(int failure);

#endif
