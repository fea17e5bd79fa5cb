/* life.c - the moves of jobs and tasks, whoever asked for them.
 *
 * A job's end is never decided twice: job_settle() looks at its counts after each change and moves
 * it when nothing is left. Winding down (cancel, failure, run-time limit, requeue of a running job)
 * first ends what lives; the last attempt that goes calls job_settle() again.
 */
#include "core/internal.h"

#include "base/mem.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- tables' moves ---- */

static bool counts_as_running(int state)
{
    return state == TASK(DISPATCHING) || state == TASK(RUNNING) || state == TASK(FINISHING) ||
           state == TASK(CANCELING);
}

static void count_task(Mu__Job *job, int state, int add)
{
    uint32_t *count = state == TASK(FINISHED)    ? &job->tasks_finished
                      : state == TASK(FAILED)    ? &job->tasks_failed
                      : state == TASK(CANCELED)  ? &job->tasks_canceled
                      : counts_as_running(state) ? &job->tasks_running
                                                 : NULL;
    if (count)
        *count = (uint32_t)((int64_t)*count + add);
}

void task_move(struct core *core, struct task *task, enum move move, const char *cause, const char *actor)
{
    Mu__Task *row = task->row;
    int next = state_next(STATE_TASK, (int)row->state, move);
    assert(next != 0);
    count_task(task->job->row, (int)row->state, -1);
    count_task(task->job->row, next, 1);
    row->state = (Mu__TaskState)next;
    if (next == TASK(QUEUED)) {
        row->ended_wall_ms = row->started_wall_ms = 0;
        if (!row->submitted_wall_ms)
            row->submitted_wall_ms = core->wall_ms;
    } else {
        sched_task_unwait(core->sched, &task->s);
    }
    if (task_state_ended(next))
        row->ended_wall_ms = core->wall_ms;
    task_touch(core, task);
    job_touch(core, task->job);
    event_task(core, task, task_state_name(next), cause, actor);
}

static void count_job(struct core *core, int state, int add)
{
    core->n_queued += (uint64_t)(int64_t)(state == JOB(QUEUED) ? add : 0);
    bool running = state == JOB(RUNNING) || state == JOB(FINISHING) || state == JOB(CANCELING);
    core->n_running += (uint64_t)(int64_t)(running ? add : 0);
    core->n_open_jobs += (uint64_t)(int64_t)(job_state_ended(state) ? 0 : add);
}

void job_move(struct core *core, struct job *job, enum move move, const char *cause, const char *actor)
{
    Mu__Job *row = job->row;
    int next = state_next(STATE_JOB, (int)row->state, move);
    assert(next != 0);
    count_job(core, (int)row->state, -1);
    count_job(core, next, 1);
    row->state = (Mu__JobState)next;
    quota_count(core, job);
    ended_remove(core, job);
    if (job_state_ended(next)) {
        row->ended_wall_ms = core->wall_ms;
        row->end_state = JOB(NONE);
        timer_set(core, &job->timer, 0);
        job_leave(core, job);
        ended_add(core, job);
    } else if (next == JOB(RUNNING)) {
        row->started_wall_ms = core->wall_ms;
        row->started_up_ms = core->up_ms;
        if (row->spec->runtime_s)
            timer_set(core, &job->timer, core->up_ms + (int64_t)row->spec->runtime_s * 1000);
    }
    job_touch(core, job);
    const char *what = move == MOVE_SUBMIT ? "Submitted" : job_state_name(next);
    event_job(core, job, what, cause, actor);
    if (next == JOB(RUNNING) || next == JOB(QUEUED) || job_state_ended(next))
        event_job_nodes(core, row);
}

/* ---- into and out of the scheduler ---- */

static bool is_admin(const struct job *job)
{
    return job->row->spec->type == MU__JOB_TYPE__JOB_ADMIN;
}

void job_enter(struct core *core, struct job *job)
{
    const Mu__JobSpec *spec = job->row->spec;
    if (is_admin(job) && !job->admin_open) {
        TAILQ_INSERT_TAIL(&core->admin_jobs, job, admin_entry);
        job->admin_open = true;
    }
    if (job->in_sched || is_admin(job))
        return;
    job->s.id = job->row->id;
    job->s.priority = spec->priority;
    job->s.order = job->row->order;
    job->s.node_units = spec->unit == MU__UNIT_TYPE__UNIT_NODE;
    job->s.exclusive = spec->exclusive;
    job->s.min = spec->min_units;
    job->s.max = spec->max_units;
    sched_job_add(core->sched, &job->s, spec->node_groups, spec->n_node_groups, spec->requested_nodes,
                  spec->n_requested_nodes);
    job->in_sched = true;
}

void job_leave(struct core *core, struct job *job)
{
    if (job->admin_open)
        TAILQ_REMOVE(&core->admin_jobs, job, admin_entry);
    job->admin_open = job->admin_look = false;
    if (!job->in_sched)
        return;
    sched_job_remove(core->sched, &job->s);
    job->in_sched = false;
    job->allocation_stale = true;
    job_touch(core, job);
}

static void task_sched(struct core *core, struct task *task)
{
    const Mu__TaskSpec *spec = task->row->spec;
    task->s.job = &task->job->s;
    task->s.id = task->row->id;
    task->s.order = task->row->order;
    task->s.min = spec->min_units;
    task->s.max = spec->max_units;
    task->s.exclusive = spec->exclusive;
    if (task->s.required || !spec->n_required_nodes)
        return;
    task->s.required = xcalloc(spec->n_required_nodes, sizeof(*task->s.required));
    task->s.n_required = 0;
    for (size_t i = 0; i < spec->n_required_nodes; i++) {
        struct node *node = node_find(core, spec->required_nodes[i]);
        if (node)
            task->s.required[task->s.n_required++] = &node->s;
    }
}

void task_enter(struct core *core, struct task *task)
{
    assert(task->row->state == TASK(QUEUED));
    if (is_admin(task->job)) {
        job_look(core, task->job);
        return;
    }
    task_sched(core, task);
    sched_task_wait(core->sched, &task->s);
}

/* Its state is Queued: its tasks wait, and it stands in the queue. */
void job_queue(struct core *core, struct job *job)
{
    job_enter(core, job);
    if (is_admin(job))
        job_look(core, job);
    else
        sched_job_queue(core->sched, &job->s);
}

void job_look(struct core *core, struct job *job)
{
    job->admin_look = core->admin_wanted = true;
}

/* ---- what the scheduler decided ---- */

static struct job *job_of(struct sched_job *s)
{
    return (struct job *)((char *)s - offsetof(struct job, s));
}

static const char *count_text(uint32_t cores, uint32_t nodes, char *out, size_t size)
{
    snprintf(out, size, "%u core%s on %u node%s", cores, cores == 1 ? "" : "s", nodes, nodes == 1 ? "" : "s");
    return out;
}

static const char *held_text(const struct sched_job *s, char *out, size_t size)
{
    return count_text(s->held_cores, s->held_nodes, out, size);
}

static void on_job_started(void *arg, struct sched_job *s)
{
    struct core *core = arg;
    struct job *job = job_of(s);
    char text[80];
    job->allocation_stale = true;
    job_allocation(core, job);
    job_move(core, job, MOVE_START, held_text(s, text, sizeof text), ACTOR_SCHEDULER);
}

static void on_job_grown(void *arg, struct sched_job *s)
{
    struct core *core = arg;
    struct job *job = job_of(s);
    char text[80];
    job->allocation_stale = true;
    job_touch(core, job);
    event_job(core, job, "Allocation increased", held_text(s, text, sizeof text), ACTOR_SCHEDULER);
}

static void on_job_shrunk(void *arg, struct sched_job *s)
{
    struct core *core = arg;
    struct job *job = job_of(s);
    char text[80];
    job->allocation_stale = true;
    job_touch(core, job);
    /* A job that holds nothing any more is about to end or to go back: its own event says so. */
    if (s->held_cores)
        event_job(core, job, "Allocation reduced", held_text(s, text, sizeof text), ACTOR_SCHEDULER);
}

static void on_job_stuck(void *arg, struct sched_job *s)
{
    struct core *core = arg;
    struct job *job = job_of(s);
    job->allocation_stale = true;
    timer_set(core, &job->timer, 0);
    job->row->auto_requeue_count++;
    job_move(core, job, MOVE_REQUEUE, "its next task does not fit in what is left of its nodes",
             ACTOR_SCHEDULER);
    job_queue(core, job);
}

static uint64_t on_task_started(void *arg, struct sched_task *s, const struct sched_place *places, size_t n)
{
    struct task *task = (struct task *)((char *)s - offsetof(struct task, s));
    return attempt_start(arg, task, places, n);
}

const struct sched_ops core_sched_ops = {
    .job_started = on_job_started,
    .job_grown = on_job_grown,
    .job_shrunk = on_job_shrunk,
    .job_stuck = on_job_stuck,
    .task_started = on_task_started,
};

void job_allocation(struct core *core, struct job *job)
{
    Mu__Job *row = job->row;
    if (!job->allocation_stale)
        return;
    job->allocation_stale = false;
    for (size_t i = 0; i < row->n_allocation; i++)
        message_free(row->allocation[i]);
    free(row->allocation);
    row->allocation = NULL;
    row->n_allocation = 0;
    if (!job->in_sched || job->s.held_nodes == 0)
        return;
    row->allocation = xcalloc(job->s.held_nodes, sizeof(*row->allocation));
    for (struct sched_hold *hold = sched_hold_first(&job->s); hold; hold = sched_hold_next(hold)) {
        Mu__NodeCores *cores = message_new(&mu__node_cores__descriptor);
        message_set(&cores->node, hold->node->name);
        cores->cores = xcalloc(hold->n, sizeof *cores->cores);
        for (uint32_t i = 0; i < hold->node->cores; i++)
            if (hold->node->core[i].job == &job->s)
                cores->cores[cores->n_cores++] = i;
        row->allocation[row->n_allocation++] = cores;
    }
}

static uint32_t tasks_left(const Mu__Job *job)
{
    return job->tasks_total - job->tasks_finished - job->tasks_failed - job->tasks_canceled;
}

/* ---- admin jobs: a task per node, beside whatever runs there ---- */

/* Starts what can start. A task whose node cannot be reached waits until the node is back or its
 * lease is over (then it fails); one that was refused at submission never gets here. */
static void admin_run_job(struct core *core, struct job *job)
{
    struct task *task, *next;
    for (task = task_next(core, job->row->id, 0); task; task = next) {
        next = task_next(core, job->row->id, task->row->id);
        if (task->row->state != TASK(QUEUED))
            continue;
        struct node *node = node_find(core, task->row->spec->required_nodes[0]);
        if (!node) {
            task_fail(core, task, FAIL(SYSTEM), "its node does not exist any more", ACTOR_SCHEDULER);
            continue;
        }
        if (!node->row->reachable)
            continue;
        if (job->row->state == JOB(QUEUED))
            job_move(core, job, MOVE_START, "", ACTOR_SCHEDULER);
        struct sched_place place = {.node = &node->s};
        attempt_start(core, task, &place, 1);
    }
    job_settle(core, job);
}

void admin_run(struct core *core)
{
    struct job *job, *next;
    if (!core->admin_wanted)
        return;
    core->admin_wanted = false;
    TAILQ_FOREACH_SAFE(job, &core->admin_jobs, admin_entry, next)
    {
        if (!job->admin_look)
            continue;
        job->admin_look = false;
        if (job->row->state == JOB(QUEUED) || job->row->state == JOB(RUNNING))
            admin_run_job(core, job);
    }
}

void admin_wake(struct core *core)
{
    struct job *job;
    TAILQ_FOREACH (job, &core->admin_jobs, admin_entry)
        job_look(core, job);
}

/* Tasks that waited for this node wait no longer. */
void admin_node_lost(struct core *core, struct node *node, const char *why)
{
    struct job *job, *next;
    struct task *task;
    TAILQ_FOREACH_SAFE(job, &core->admin_jobs, admin_entry, next)
    {
        uint64_t id = job->row->id;
        if ((job->row->state != JOB(QUEUED) && job->row->state != JOB(RUNNING)) ||
            tasks_left(job->row) == job->row->tasks_running)
            continue;
        for (task = task_next(core, id, 0); task; task = task_next(core, id, task->row->id))
            if (task->row->state == TASK(QUEUED) &&
                !strcasecmp(task->row->spec->required_nodes[0], node->row->name))
                task_fail(core, task, FAIL(SYSTEM), why, ACTOR_SCHEDULER);
        job_settle(core, job);
    }
}

/* ---- ends ---- */

static enum move end_move(const Mu__Job *row)
{
    return row->tasks_failed                         ? MOVE_FAIL
           : row->tasks_canceled == row->tasks_total ? MOVE_CANCEL
                                                     : MOVE_FINISH;
}

void job_settle(struct core *core, struct job *job)
{
    Mu__Job *row = job->row;
    bool winding = row->state == JOB(FINISHING) || row->state == JOB(CANCELING);
    if (winding) {
        if (job->live)
            return;
        if (row->end_state == JOB(QUEUED)) {
            row->end_state = JOB(NONE);
            job_move(core, job, MOVE_REQUEUE, "", ACTOR_SCHEDULER);
            job_requeue_tasks(core, job);
            job_queue(core, job);
            job_settle(core, job);
            return;
        }
        bool failed = row->end_state == JOB(FAILED);
        job_move(core, job, failed ? MOVE_FAIL : MOVE_FINISH, row->message, ACTOR_SCHEDULER);
        return;
    }
    if ((row->state != JOB(QUEUED) && row->state != JOB(RUNNING)) || tasks_left(row) || job->live)
        return;
    enum move move = end_move(row);
    if (move == MOVE_CANCEL && row->state == JOB(RUNNING)) /* Running leaves through Canceling */
        job_move(core, job, MOVE_CANCEL, row->message, ACTOR_SCHEDULER), move = MOVE_FINISH;
    job_move(core, job, move, row->message, ACTOR_SCHEDULER);
}

/* The job takes the cause of its first failed task as its own. */
static void job_take_cause(struct job *job, const struct task *task, const char *message)
{
    if (!*job->row->message)
        message_setf(&job->row->message, "task %u: %s", task->row->id, message);
}

void task_fail(struct core *core, struct task *task, int failure, const char *message, const char *actor)
{
    struct job *job = task->job;
    task->row->failure = (Mu__TaskFailure)failure;
    message_set(&task->row->message, message);
    if (failure != FAIL(JOB))
        job_take_cause(job, task, message);
    int code = task->row->exit_signal ? 128 + (int)task->row->exit_signal : task->row->exit_code;
    if (job->row->exit_code == 0 && code != 0)
        job->row->exit_code = code;
    task_move(core, task, MOVE_FAIL, message, actor);
    if (job->row->spec->fail_on_task_failure && job->row->state == JOB(RUNNING))
        job_wind_down(core, job, JOB(FAILED), FAIL(JOB), core->config.grace_ms, job->row->message,
                      ACTOR_SCHEDULER);
}

/* Back into the queue at its own place: it was before those that wait there. */
void task_again(struct core *core, struct task *task, const char *cause, const char *actor)
{
    Mu__Task *row = task->row;
    row->cancel_cause = FAIL(NONE);
    row->failure = FAIL(NONE);
    row->requeue_wanted = false;
    row->exit_code = 0;
    row->exit_signal = 0;
    message_set(&row->message, "");
    task_move(core, task, MOVE_REQUEUE, cause, actor);
    int state = (int)task->job->row->state;
    if (state == JOB(QUEUED) || state == JOB(RUNNING))
        task_enter(core, task);
}

static void wind_down_task(struct core *core, struct task *task, bool requeue, int failure, uint32_t grace_ms,
                           const char *cause, const char *actor)
{
    Mu__Task *row = task->row;
    if (row->state == TASK(QUEUED) || row->state == TASK(CONFIGURING)) {
        if (requeue) {
            sched_task_unwait(core->sched, &task->s);
            return;
        }
        row->failure = (Mu__TaskFailure)failure;
        message_set(&row->message, cause);
        task_move(core, task, MOVE_CANCEL, cause, actor);
        return;
    }
    if (!task->attempt)
        return;
    row->requeue_wanted = requeue;
    if (!row->cancel_cause && !task->attempt->row->ended) {
        row->cancel_cause = (Mu__TaskFailure)failure;
        message_set(&row->message, cause);
    }
    task_touch(core, task);
    attempt_end(core, task->attempt, grace_ms);
    attempt_settle(core, task->attempt);
}

/* Ends whatever of the job lives or waits; it then goes to `end` when the last attempt is gone. */
void job_wind_down(struct core *core, struct job *job, Mu__JobState end, int failure, uint32_t grace_ms,
                   const char *cause, const char *actor)
{
    bool requeue = end == JOB(QUEUED);
    uint64_t id = job->row->id;
    timer_set(core, &job->timer, 0);
    if (job->in_sched) {
        sched_job_dequeue(core->sched, &job->s);
        sched_job_stop(core->sched, &job->s);
        job->allocation_stale = true;
    }
    if (job->row->state == JOB(RUNNING))
        job_move(core, job, end == JOB(FAILED) ? MOVE_END : MOVE_CANCEL, cause, actor);
    job->row->end_state = end;
    struct task *task, *next;
    for (task = task_next(core, id, 0); task; task = next) {
        next = task_next(core, id, task->row->id);
        wind_down_task(core, task, requeue, failure, grace_ms, cause, actor);
    }
    job_touch(core, job);
    if (job->row->state == JOB(QUEUED) || job->row->state == JOB(CONFIGURING))
        job_move(core, job, MOVE_CANCEL, cause, actor);
    else
        job_settle(core, job);
}

/* Finished tasks stay; so do those that a user cancelled on their own before they ran. */
void job_requeue_tasks(struct core *core, struct job *job)
{
    struct task *task;
    message_set(&job->row->message, "");
    job->row->exit_code = 0;
    job->row->started_wall_ms = job->row->ended_wall_ms = 0;
    job_enter(core, job);
    for (task = task_next(core, job->row->id, 0); task; task = task_next(core, job->row->id, task->row->id)) {
        int state = (int)task->row->state;
        bool stays = state == TASK(CANCELED) && task->row->failure == FAIL(CANCEL) && task->row->attempt == 0;
        if (state == TASK(FAILED) || (state == TASK(CANCELED) && !stays)) {
            task->row->retry_count = task->row->auto_requeue_count = task->row->refused_count = 0;
            task_again(core, task, "job requeued", ACTOR_SCHEDULER);
        } else if (state == TASK(QUEUED)) {
            task_enter(core, task);
        }
    }
}

void job_limit_reached(struct core *core, struct job *job)
{
    char text[80];
    if (job->row->state != JOB(RUNNING))
        return;
    snprintf(text, sizeof text, "run time limit of %u s reached", job->row->spec->runtime_s);
    message_set(&job->row->message, text);
    job_wind_down(core, job, JOB(CANCELED), FAIL(TIMEOUT), core->config.grace_ms, text, ACTOR_SCHEDULER);
}

static void job_delete(struct core *core, struct job *job)
{
    struct task *task;
    uint64_t id = job->row->id;
    while ((task = task_next(core, id, 0))) {
        row_gone(core, ROW_TASK, id, task->row->id, NULL);
        task_free(core, task);
    }
    row_gone(core, ROW_JOB, id, 0, NULL);
    job_free(core, job);
}

/* Jobs that ended long ago go, and the oldest of too many. */
bool jobs_expire(struct core *core)
{
    for (int i = 0; i < JOB_DELETIONS_MAX; i++) {
        struct job *job = ended_first(core);
        bool too_many = core->n_jobs - core->n_open_jobs > core->config.jobs_max;
        if (!job || (!too_many && job->row->ended_wall_ms > core->wall_ms - core->config.job_keep_ms))
            return false;
        job_delete(core, job);
    }
    return true;
}
