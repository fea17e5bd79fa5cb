/* jobs.c - what users ask of jobs and tasks.
 *
 * Each command checks everything first and then changes: a refused one leaves no trace.
 */
#include "core/internal.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TASK_ORDER_BASE (UINT64_C(1) << 40) /* room below for tasks put in front */
#define TASKS_AT_ONCE 10000

static struct job *job_get(struct core *core, const struct actor *actor, uint64_t id, const char *verb,
                           struct error *err)
{
    struct job *job = job_find(core, id);
    if (!job) {
        error_set(err, ERR_NOT_FOUND, "job %" PRIu64 ": no such job", id);
        return NULL;
    }
    if (actor->owner && !actor->admin && (!job->row->owner || job->row->owner->uid != actor->owner->uid)) {
        error_set(err, ERR_DENIED, "job %" PRIu64 ": only its owner %s or an administrator may %s it", id,
                  job->row->owner ? job->row->owner->name : "", verb);
        return NULL;
    }
    return job;
}

static struct task *task_get(struct core *core, const struct actor *actor, uint64_t id, uint32_t task_id,
                             const char *verb, struct error *err)
{
    if (!job_get(core, actor, id, verb, err))
        return NULL;
    struct task *task = task_find(core, id, task_id);
    if (!task)
        error_set(err, ERR_NOT_FOUND, "task %" PRIu64 ".%u: no such task", id, task_id);
    return task;
}

static int state_error(const struct job *job, enum verb verb, const char *word, struct error *err)
{
    return error_set(err, ERR_STATE, "job %" PRIu64 " is %s: only a job that is %s can be %s", job->row->id,
                     job_state_name((int)job->row->state), job_states_allowing(verb), word);
}

/* ---- create, add, submit ---- */

/* Copies of the tasks' specs with their ranges filled in, checked. NULL with err. */
static Mu__TaskSpec **take_tasks(struct core *core, const Mu__JobSpec *job, Mu__TaskSpec *const *tasks,
                                 size_t n, bool create, struct error *err)
{
    Mu__TaskSpec **specs = xcalloc(n ? n : 1, sizeof(*specs));
    struct sched_candidates candidates;
    size_t i;
    job_candidates(core, job, &candidates);
    for (i = 0; i < n; i++) {
        specs[i] = message_copy(tasks[i]);
        task_range(job, tasks[i], create && n == 1, &specs[i]->min_units, &specs[i]->max_units);
        if (check_task(core, job, &candidates, specs[i], err))
            break;
    }
    sched_candidates_end(core->sched, &candidates);
    if (i < n) {
        if (n > 1)
            error_prefix(err, "task %zu", i + 1);
        for (size_t k = 0; k <= i; k++)
            message_free(specs[k]);
        free(specs);
        return NULL;
    }
    return specs;
}

static int check_counts(struct core *core, const struct job *job, size_t n, struct error *err)
{
    size_t have = job ? job->row->last_task : 0;
    if (n > TASKS_AT_ONCE)
        return error_set(err, ERR_LIMIT, "%zu tasks at once: at most %d", n, TASKS_AT_ONCE);
    if (have + n > core->config.tasks_per_job_max)
        return error_set(err, ERR_LIMIT, "%zu tasks in a job: at most %u", have + n,
                         core->config.tasks_per_job_max);
    return 0;
}

/* Takes the specs; the tasks are Configuring, or Queued when the job has been submitted. */
static void add_tasks(struct core *core, struct job *job, Mu__TaskSpec **specs, size_t n, const char *actor,
                      struct result *r)
{
    bool queue = job->row->state != JOB(CONFIGURING);
    quota_add(core, job, quota_bytes(NULL, specs, n));
    r->first_task = job->row->last_task + 1;
    r->task_count = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        Mu__Task *row = message_new(&mu__task__descriptor);
        row->job_id = job->row->id;
        row->id = ++job->row->last_task;
        row->spec = specs[i];
        row->state = TASK(CONFIGURING);
        row->created_wall_ms = core->wall_ms;
        row->order = TASK_ORDER_BASE + row->id;
        struct task *task = task_new(core, row);
        task->job = job;
        task_touch(core, task);
        job->row->tasks_total++;
        event_task(core, task, "Created", "", actor);
        if (!queue)
            continue;
        task_move(core, task, MOVE_SUBMIT, "", actor);
        task_enter(core, task);
    }
    job_touch(core, job);
    free(specs);
}

/* Tasks for nodes that cannot be reached fail now: who runs a command wants to know. */
static void refuse_unreachable(struct core *core, struct job *job)
{
    struct task *task;
    char why[160];
    if (job->row->spec->type != MU__JOB_TYPE__JOB_ADMIN)
        return;
    for (task = task_next(core, job->row->id, 0); task; task = task_next(core, job->row->id, task->row->id)) {
        struct node *node = node_find(core, task->row->spec->required_nodes[0]);
        if (task->row->state != TASK(QUEUED) || (node && node->row->reachable))
            continue;
        snprintf(why, sizeof why, "node %s is unreachable", task->row->spec->required_nodes[0]);
        task_fail(core, task, FAIL(SYSTEM), why, ACTOR_SCHEDULER);
    }
}

static void submit(struct core *core, struct job *job, const char *actor)
{
    struct task *task;
    job->row->submitted_wall_ms = core->wall_ms;
    job->row->order = core->counters->next_order++;
    core->counters_dirty = true;
    job_enter(core, job);
    job->s.order = job->row->order;
    job_move(core, job, MOVE_SUBMIT, "", actor);
    for (task = task_next(core, job->row->id, 0); task; task = task_next(core, job->row->id, task->row->id)) {
        if (task->row->state != TASK(CONFIGURING))
            continue;
        task_move(core, task, MOVE_SUBMIT, "", actor);
        task_enter(core, task);
    }
    job_queue(core, job);
    refuse_unreachable(core, job);
    job_settle(core, job);
}

static int check_create(struct core *core, const struct actor *actor, const Mu__JobCreate *c,
                        struct error *err)
{
    if (!c->spec)
        return error_set(err, ERR_USAGE, "job: expected its properties, got nothing");
    if (!actor->owner)
        return error_set(err, ERR_USAGE, "job: expected an owner, got none");
    if (core->n_open_jobs >= core->config.jobs_max)
        return error_set(err, ERR_LIMIT, "%u jobs have not ended: at most that many", core->config.jobs_max);
    if (c->submit && c->n_tasks == 0)
        return error_set(err, ERR_USAGE, "command line: expected a command, got nothing");
    if (check_counts(core, NULL, c->n_tasks, err))
        return -1;
    if (quota_check(core, actor, actor->owner, 1, quota_bytes(c->spec, c->tasks, c->n_tasks), err))
        return -1;
    return check_spec(core, actor, c->spec, err);
}

void job_create(struct core *core, const struct actor *actor, const Mu__JobCreate *c, struct result *r)
{
    if (check_create(core, actor, c, &r->error))
        return;
    Mu__TaskSpec **specs = take_tasks(core, c->spec, c->tasks, c->n_tasks, true, &r->error);
    if (!specs)
        return;
    Mu__Job *row = message_new(&mu__job__descriptor);
    row->id = core->counters->next_job++;
    core->counters_dirty = true;
    row->spec = message_copy(c->spec);
    row->owner = message_copy(actor->owner);
    row->state = JOB(CONFIGURING);
    row->created_wall_ms = core->wall_ms;
    struct job *job = job_new(core, row);
    core->n_open_jobs++;
    quota_count(core, job);
    quota_add(core, job, quota_bytes(row->spec, NULL, 0));
    const char *who = actor_name(actor);
    job_touch(core, job);
    job_enter(core, job);
    event_job(core, job, "Created", "", who);
    add_tasks(core, job, specs, c->n_tasks, who, r);
    r->job_id = row->id;
    if (c->submit)
        submit(core, job, who);
}

void job_add(struct core *core, const struct actor *actor, const Mu__JobAdd *c, struct result *r)
{
    struct job *job = job_get(core, actor, c->job_id, "change", &r->error);
    if (!job)
        return;
    if (!job_state_allows((int)job->row->state, VERB_ADD)) {
        error_set(&r->error, ERR_STATE, "job %" PRIu64 " is %s: tasks can be added while it is %s", c->job_id,
                  job_state_name((int)job->row->state), job_states_allowing(VERB_ADD));
        return;
    }
    if (c->n_tasks == 0) {
        error_set(&r->error, ERR_USAGE, "command line: expected a command, got nothing");
        return;
    }
    if (check_counts(core, job, c->n_tasks, &r->error) ||
        quota_check(core, actor, job->row->owner, 0, quota_bytes(NULL, c->tasks, c->n_tasks), &r->error))
        return;
    Mu__TaskSpec **specs = take_tasks(core, job->row->spec, c->tasks, c->n_tasks, false, &r->error);
    if (!specs)
        return;
    add_tasks(core, job, specs, c->n_tasks, actor_name(actor), r);
    refuse_unreachable(core, job);
    r->job_id = c->job_id;
}

void job_submit(struct core *core, const struct actor *actor, const Mu__JobSubmit *c, struct result *r)
{
    struct job *job = job_get(core, actor, c->job_id, "submit", &r->error);
    if (!job)
        return;
    r->job_id = c->job_id;
    const Mu__Job *row = job->row;
    if (!job_state_allows((int)row->state, VERB_SUBMIT)) {
        state_error(job, VERB_SUBMIT, "submitted", &r->error);
        return;
    }
    if (row->tasks_total == row->tasks_canceled) {
        error_set(&r->error, ERR_STATE, "job %" PRIu64 " has no tasks: add one first", c->job_id);
        return;
    }
    if (check_spec(core, actor, row->spec, &r->error))
        return;
    submit(core, job, actor_name(actor));
}

/* ---- cancel, requeue ---- */

static void cancel_cause(const struct actor *actor, const char *message, char *out, size_t size)
{
    snprintf(out, size, "cancelled by %s%s%s", actor_name(actor), *message ? ": " : "", message);
}

void job_cancel(struct core *core, const struct actor *actor, const Mu__JobCancel *c, struct result *r)
{
    char cause[320], who[128];
    struct job *job = job_get(core, actor, c->job_id, "cancel", &r->error);
    if (!job || text_check("message", c->message, MESSAGE_MAX, &r->error))
        return;
    r->job_id = c->job_id;
    int state = (int)job->row->state;
    bool returning = state == JOB(CANCELING) && job->row->end_state == JOB(QUEUED);
    bool harder = c->force && (state == JOB(CANCELING) || state == JOB(FINISHING));
    if (!harder && !returning && !job_state_allows(state, VERB_CANCEL)) {
        state_error(job, VERB_CANCEL, "cancelled", &r->error);
        return;
    }
    snprintf(who, sizeof who, "%s", actor_name(actor));
    cancel_cause(actor, c->message, cause, sizeof cause);
    event_job(core, job, "Cancel requested", c->force ? "with force" : c->message, who);
    if (!harder || returning)
        message_set(&job->row->message, cause);
    Mu__JobState end = harder && job->row->end_state == JOB(FAILED) ? JOB(FAILED) : JOB(CANCELED);
    job_wind_down(core, job, end, FAIL(JOB), c->force ? 0 : core->config.grace_ms, cause, who);
}

void job_requeue(struct core *core, const struct actor *actor, const Mu__JobRequeue *c, struct result *r)
{
    struct job *job = job_get(core, actor, c->job_id, "requeue", &r->error);
    if (!job)
        return;
    r->job_id = c->job_id;
    if (!job_state_allows((int)job->row->state, VERB_REQUEUE)) {
        state_error(job, VERB_REQUEUE, "requeued", &r->error);
        return;
    }
    if (check_spec(core, actor, job->row->spec, &r->error))
        return;
    if (job_state_ended((int)job->row->state) && core->n_open_jobs >= core->config.jobs_max) {
        error_set(&r->error, ERR_LIMIT, "%u jobs have not ended: at most that many", core->config.jobs_max);
        return;
    }
    if (job_state_ended((int)job->row->state) &&
        quota_check(core, actor, job->row->owner, 1, job->bytes, &r->error))
        return;
    char who[128];
    snprintf(who, sizeof who, "%s", actor_name(actor));
    event_job(core, job, "Requeue requested", "", who);
    job->row->requeue_count++;
    if (job->row->state == JOB(RUNNING)) {
        job_wind_down(core, job, JOB(QUEUED), FAIL(JOB), core->config.grace_ms, "job requeued", who);
        return;
    }
    job_move(core, job, MOVE_REQUEUE, "", who);
    job_requeue_tasks(core, job);
    job_queue(core, job);
    refuse_unreachable(core, job);
    job_settle(core, job);
}

void task_cancel(struct core *core, const struct actor *actor, const Mu__TaskCancel *c, struct result *r)
{
    char cause[320], who[128];
    struct task *task = task_get(core, actor, c->job_id, c->task_id, "change", &r->error);
    if (!task || text_check("message", c->message, MESSAGE_MAX, &r->error))
        return;
    r->job_id = c->job_id;
    Mu__Task *row = task->row;
    bool harder = c->force && (row->state == TASK(CANCELING) || row->state == TASK(FINISHING));
    if (!harder && !task_state_allows((int)row->state, VERB_CANCEL)) {
        error_set(&r->error, ERR_STATE, "task %" PRIu64 ".%u is %s: only a task that is %s can be cancelled",
                  c->job_id, c->task_id, task_state_name((int)row->state), task_states_allowing(VERB_CANCEL));
        return;
    }
    snprintf(who, sizeof who, "%s", actor_name(actor));
    cancel_cause(actor, c->message, cause, sizeof cause);
    event_task(core, task, "Cancel requested", c->force ? "with force" : c->message, who);
    struct job *job = task->job;
    if (!task->attempt) {
        row->failure = FAIL(CANCEL);
        message_set(&row->message, cause);
        task_move(core, task, MOVE_CANCEL, cause, who);
        job_settle(core, job);
        return;
    }
    row->requeue_wanted = false;
    if (!row->cancel_cause && !task->attempt->row->ended) {
        row->cancel_cause = FAIL(CANCEL);
        message_set(&row->message, cause);
    }
    task_touch(core, task);
    attempt_end(core, task->attempt, c->force ? 0 : core->config.grace_ms);
    attempt_settle(core, task->attempt);
}

/* In front of all tasks of the job that wait. */
static uint64_t front_order(struct core *core, const struct job *job)
{
    uint64_t first = TASK_ORDER_BASE;
    struct task *task;
    for (task = task_next(core, job->row->id, 0); task; task = task_next(core, job->row->id, task->row->id))
        if (task->row->order < first)
            first = task->row->order;
    return first - 1;
}

void task_requeue(struct core *core, const struct actor *actor, const Mu__TaskRequeue *c, struct result *r)
{
    char who[128];
    struct task *task = task_get(core, actor, c->job_id, c->task_id, "change", &r->error);
    if (!task)
        return;
    r->job_id = c->job_id;
    Mu__Task *row = task->row;
    struct job *job = task->job;
    if (job->row->state != JOB(RUNNING) || !task_state_allows((int)row->state, VERB_REQUEUE)) {
        error_set(&r->error, ERR_STATE,
                  "task %" PRIu64
                  ".%u is %s, its job %s: a task that is %s can be requeued while its job is Running",
                  c->job_id, c->task_id, task_state_name((int)row->state),
                  job_state_name((int)job->row->state), task_states_allowing(VERB_REQUEUE));
        return;
    }
    if (row->spec->not_rerunnable) {
        error_set(&r->error, ERR_STATE, "task %" PRIu64 ".%u is not rerunnable", c->job_id, c->task_id);
        return;
    }
    snprintf(who, sizeof who, "%s", actor_name(actor));
    event_task(core, task, "Requeue requested", "", who);
    row->requeue_count++;
    row->order = front_order(core, job);
    task_touch(core, task);
    if (!task->attempt) {
        row->retry_count = row->auto_requeue_count = row->refused_count = 0;
        task_again(core, task, "", who);
        return;
    }
    row->requeue_wanted = true;
    row->cancel_cause = FAIL(CANCEL);
    message_set(&row->message, "requeued");
    attempt_end(core, task->attempt, core->config.grace_ms);
    attempt_settle(core, task->attempt);
}
