/* states.c - the tables of states.h, walked.
 *
 * The tables are short (at most a dozen rows), so everything is a linear search.
 */
#include "model/states.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

struct state_row {
    int state;
    const char *name;
    int verbs;
    bool ended;
};

static const struct state_row job_rows[] = {
#define X(s, name, verbs, ended) {s, name, verbs, ended},
    JOB_STATES(X)
#undef X
};
static const struct state_row task_rows[] = {
#define X(s, name, verbs, ended) {s, name, verbs, ended},
    TASK_STATES(X)
#undef X
};
static const struct state_row node_rows[] = {
#define X(s, name) {s, name, 0, false},
    NODE_STATES(X)
#undef X
};
static const struct state_row attempt_rows[] = {
#define X(s, name) {s, name, 0, false},
    ATTEMPT_STATES(X)
#undef X
};

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

static const struct state_row *find(const struct state_row *rows, size_t count, int state)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].state == state)
            return &rows[i];
    return NULL;
}

static const char *name_of(const struct state_row *row)
{
    return row ? row->name : "Unknown";
}

static int parse(const struct state_row *rows, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcasecmp(rows[i].name, name))
            return rows[i].state;
    return 0;
}

const char *job_state_name(int state)
{
    return name_of(find(job_rows, COUNT(job_rows), state));
}

const char *task_state_name(int state)
{
    return name_of(find(task_rows, COUNT(task_rows), state));
}

const char *node_state_name(int state)
{
    return name_of(find(node_rows, COUNT(node_rows), state));
}

const char *attempt_state_name(int state)
{
    return name_of(find(attempt_rows, COUNT(attempt_rows), state));
}

int job_state_parse(const char *name)
{
    return parse(job_rows, COUNT(job_rows), name);
}

int task_state_parse(const char *name)
{
    return parse(task_rows, COUNT(task_rows), name);
}

int node_state_parse(const char *name)
{
    return parse(node_rows, COUNT(node_rows), name);
}

bool job_state_ended(int state)
{
    const struct state_row *row = find(job_rows, COUNT(job_rows), state);
    return row && row->ended;
}

bool task_state_ended(int state)
{
    const struct state_row *row = find(task_rows, COUNT(task_rows), state);
    return row && row->ended;
}

bool job_state_allows(int state, enum verb verb)
{
    const struct state_row *row = find(job_rows, COUNT(job_rows), state);
    return row && (row->verbs & verb);
}

bool task_state_allows(int state, enum verb verb)
{
    const struct state_row *row = find(task_rows, COUNT(task_rows), state);
    return row && (row->verbs & verb);
}

/* Joins the names of the rows that allow `verb` as "A, B or C". */
static const char *allowing(const struct state_row *rows, size_t count, enum verb verb, char *text,
                            size_t size)
{
    size_t total = 0, seen = 0, len = 0;
    for (size_t i = 0; i < count; i++)
        total += (rows[i].verbs & verb) != 0;
    text[0] = 0;
    for (size_t i = 0; i < count; i++) {
        if (!(rows[i].verbs & verb))
            continue;
        const char *join = seen == 0 ? "" : seen + 1 == total ? " or " : ", ";
        int n = snprintf(text + len, size - len, "%s%s", join, rows[i].name);
        if (n < 0 || (size_t)n >= size - len)
            break;
        len += (size_t)n;
        seen++;
    }
    return text;
}

const char *job_states_allowing(enum verb verb)
{
    static char text[256];
    return allowing(job_rows, COUNT(job_rows), verb, text, sizeof text);
}

const char *task_states_allowing(enum verb verb)
{
    static char text[256];
    return allowing(task_rows, COUNT(task_rows), verb, text, sizeof text);
}

struct move_row {
    int state;
    enum move move;
    int next;
};

#define J(s) MU__JOB_STATE__JOB_STATE_##s
#define T(s) MU__TASK_STATE__TASK_STATE_##s
#define A(s) MU__ATTEMPT_STATE__ATTEMPT_##s

/* Submission checks everything inside one command, so Submitted and Validating, which HPC Pack
 * shows, are passed through unseen. */
static const struct move_row job_moves[] = {
    {J(CONFIGURING), MOVE_SUBMIT, J(QUEUED)},  {J(CONFIGURING), MOVE_CANCEL, J(CANCELED)},
    {J(QUEUED), MOVE_START, J(RUNNING)},       {J(QUEUED), MOVE_CANCEL, J(CANCELED)},
    {J(QUEUED), MOVE_FINISH, J(FINISHED)}, /* its last tasks were cancelled or failed one by one */
    {J(QUEUED), MOVE_FAIL, J(FAILED)},         {J(RUNNING), MOVE_FINISH, J(FINISHED)},
    {J(RUNNING), MOVE_FAIL, J(FAILED)},        {J(RUNNING), MOVE_END, J(FINISHING)},
    {J(RUNNING), MOVE_CANCEL, J(CANCELING)},   {J(RUNNING), MOVE_REQUEUE, J(QUEUED)},
    {J(FINISHING), MOVE_CANCEL, J(CANCELING)}, {J(FINISHING), MOVE_FINISH, J(FINISHED)},
    {J(FINISHING), MOVE_FAIL, J(FAILED)},      {J(CANCELING), MOVE_FINISH, J(CANCELED)},
    {J(CANCELING), MOVE_FAIL, J(FAILED)},      {J(CANCELING), MOVE_REQUEUE, J(QUEUED)},
    {J(FAILED), MOVE_REQUEUE, J(QUEUED)},      {J(CANCELED), MOVE_REQUEUE, J(QUEUED)},
};

static const struct move_row task_moves[] = {
    {T(CONFIGURING), MOVE_SUBMIT, T(QUEUED)},  {T(CONFIGURING), MOVE_CANCEL, T(CANCELED)},
    {T(QUEUED), MOVE_START, T(DISPATCHING)},   {T(QUEUED), MOVE_CANCEL, T(CANCELED)},
    {T(QUEUED), MOVE_FAIL, T(FAILED)},         {T(DISPATCHING), MOVE_RUN, T(RUNNING)},
    {T(DISPATCHING), MOVE_END, T(FINISHING)},  {T(DISPATCHING), MOVE_CANCEL, T(CANCELING)},
    {T(DISPATCHING), MOVE_FAIL, T(FAILED)},    {T(DISPATCHING), MOVE_FINISH, T(FINISHED)},
    {T(DISPATCHING), MOVE_REQUEUE, T(QUEUED)}, {T(RUNNING), MOVE_END, T(FINISHING)},
    {T(RUNNING), MOVE_CANCEL, T(CANCELING)},   {T(RUNNING), MOVE_FINISH, T(FINISHED)},
    {T(RUNNING), MOVE_FAIL, T(FAILED)},        {T(RUNNING), MOVE_REQUEUE, T(QUEUED)},
    {T(FINISHING), MOVE_FINISH, T(FINISHED)},  {T(FINISHING), MOVE_FAIL, T(FAILED)},
    {T(FINISHING), MOVE_REQUEUE, T(QUEUED)},   {T(CANCELING), MOVE_FAIL, T(FAILED)},
    {T(CANCELING), MOVE_REQUEUE, T(QUEUED)},   {T(FAILED), MOVE_REQUEUE, T(QUEUED)},
    {T(CANCELED), MOVE_REQUEUE, T(QUEUED)},
};

static const struct move_row attempt_moves[] = {
    {A(PREPARING), MOVE_PREPARED, A(STARTING)},
    {A(PREPARING), MOVE_RUN, A(RUNNING)}, /* an attempt of one node: prepare and go in one order */
    {A(PREPARING), MOVE_END, A(ENDING)},
    {A(STARTING), MOVE_RUN, A(RUNNING)},
    {A(STARTING), MOVE_END, A(ENDING)},
    {A(RUNNING), MOVE_END, A(ENDING)},
    {A(ENDING), MOVE_RELEASED, A(DONE)},
};

int state_next(enum state_kind kind, int state, enum move move)
{
    static const struct {
        const struct move_row *rows;
        size_t count;
    } tables[] = {
        [STATE_JOB] = {job_moves, COUNT(job_moves)},
        [STATE_TASK] = {task_moves, COUNT(task_moves)},
        [STATE_ATTEMPT] = {attempt_moves, COUNT(attempt_moves)},
    };
    for (size_t i = 0; i < tables[kind].count; i++)
        if (tables[kind].rows[i].state == state && tables[kind].rows[i].move == move)
            return tables[kind].rows[i].next;
    return 0;
}

const char *task_failure_name(int failure)
{
    static const char *const names[] = {"none", "exit", "system", "cancel", "timeout", "job", "setup"};
    return failure >= 0 && (size_t)failure < COUNT(names) ? names[failure] : "unknown";
}
