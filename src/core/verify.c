/* verify.c - core_check(): everything that must hold between turns, counted anew. For tests. */
#include "core/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int check_task_row(const struct core *core, struct task *task, struct error *err)
{
    const Mu__Task *row = task->row;
    int state = (int)row->state, job = (int)task->job->row->state;
    bool lives = state == TASK(DISPATCHING) || state == TASK(RUNNING) || state == TASK(FINISHING) ||
                 state == TASK(CANCELING);
    bool may_wait =
        state == TASK(QUEUED) && (job == JOB(QUEUED) || job == JOB(RUNNING)) && task->job->in_sched;
    if (lives != (task->attempt != NULL))
        return error_set(err, ERR_INTERNAL, "task %" PRIu64 ".%u is %s and has %s attempt", row->job_id,
                         row->id, task_state_name(state), task->attempt ? "an" : "no");
    if (task->attempt && task->attempt->row->id != row->attempt)
        return error_set(err, ERR_INTERNAL, "task %" PRIu64 ".%u: row and attempt differ", row->job_id,
                         row->id);
    if (task->s.waiting != may_wait)
        return error_set(err, ERR_INTERNAL, "task %" PRIu64 ".%u (%s, job %s) %s in the scheduler",
                         row->job_id, row->id, task_state_name(state), job_state_name(job),
                         task->s.waiting ? "waits" : "does not wait");
    if (job_state_ended(job) && !task_state_ended(state))
        return error_set(err, ERR_INTERNAL, "task %" PRIu64 ".%u is %s in a job that is %s", row->job_id,
                         row->id, task_state_name(state), job_state_name(job));
    return 0;
}

struct counted {
    uint32_t total, finished, failed, canceled, running, live;
};

static int check_tasks(const struct core *core, struct job *job, struct counted *n, struct error *err)
{
    struct task *task;
    for (task = task_next(core, job->row->id, 0); task; task = task_next(core, job->row->id, task->row->id)) {
        int state = (int)task->row->state;
        if (task->job != job || check_task_row(core, task, err))
            return -1;
        n->total++;
        n->finished += state == TASK(FINISHED);
        n->failed += state == TASK(FAILED);
        n->canceled += state == TASK(CANCELED);
        n->live += task->attempt != NULL;
        n->running += task->attempt != NULL;
    }
    return 0;
}

static int check_job(const struct core *core, struct job *job, struct error *err)
{
    const Mu__Job *row = job->row;
    int state = (int)row->state;
    struct counted n = {0};
    if (check_tasks(core, job, &n, err))
        return -1;
    if (n.total != row->tasks_total || n.finished != row->tasks_finished || n.failed != row->tasks_failed ||
        n.canceled != row->tasks_canceled || n.running != row->tasks_running || n.live != job->live)
        return error_set(err, ERR_INTERNAL, "job %" PRIu64 ": its counts of tasks are wrong", row->id);
    bool admin = row->spec->type == MU__JOB_TYPE__JOB_ADMIN;
    if (job->ended != job_state_ended(state) || job->in_sched != (!job->ended && !admin) ||
        job->admin_open != (!job->ended && admin))
        return error_set(err, ERR_INTERNAL, "job %" PRIu64 " (%s) stands in the wrong index", row->id,
                         job_state_name(state));
    if (!job->in_sched)
        return row->n_allocation
                   ? error_set(err, ERR_INTERNAL, "job %" PRIu64 " has ended and holds cores", row->id)
                   : 0;
    if (job->s.queued != (state == JOB(QUEUED)) || job->s.running != (state == JOB(RUNNING)) ||
        job->s.live != job->live)
        return error_set(err, ERR_INTERNAL, "job %" PRIu64 " (%s): the scheduler has another state", row->id,
                         job_state_name(state));
    if (row->n_allocation != job->s.held_nodes)
        return error_set(err, ERR_INTERNAL, "job %" PRIu64 ": allocation of %zu nodes, holds %u", row->id,
                         row->n_allocation, job->s.held_nodes);
    if (state == JOB(RUNNING) && row->tasks_total == n.finished + n.failed + n.canceled)
        return error_set(err, ERR_INTERNAL, "job %" PRIu64 " runs and has nothing to do", row->id);
    return sched_check_job(core->sched, &job->s, err);
}

static int check_attempt(const struct core *core, struct attempt *a, uint64_t *cores, struct error *err)
{
    size_t open = 0;
    if (!a->task || a->task->attempt != a)
        return error_set(err, ERR_INTERNAL, "attempt %" PRIu64 " is not its task's", a->row->id);
    for (size_t i = 0; i < a->row->n_nodes; i++) {
        const struct part *part = &a->parts[i];
        int state = (int)part->row->state;
        bool gone = state == ANODE(RELEASED) || state == ANODE(LOST);
        if (part->open == gone || node_find(core, part->row->node) != part->node)
            return error_set(err, ERR_INTERNAL, "attempt %" PRIu64 " on %s: index differs", a->row->id,
                             part->row->node);
        open += part->open;
        for (size_t k = 0; part->open && k < part->row->n_cores; k++) {
            uint32_t core_id = part->row->cores[k];
            if (core_id >= part->node->s.cores || part->node->s.core[core_id].attempt != a->row->id)
                return error_set(err, ERR_INTERNAL, "attempt %" PRIu64 ": core %u of %s is not its own",
                                 a->row->id, core_id, part->row->node);
            ++*cores;
        }
    }
    if (open != a->n_open || open == 0)
        return error_set(err, ERR_INTERNAL, "attempt %" PRIu64 ": %zu parts open, %zu said", a->row->id, open,
                         a->n_open);
    return 0;
}

static int check_nodes(const struct core *core, uint64_t *used, uint64_t *held, struct error *err)
{
    const Mu__Node *row = NULL;
    while ((row = core_next_node(core, row ? row->name : NULL))) {
        struct node *node = node_find(core, row->name);
        if (sched_check_node(core->sched, &node->s, err))
            return -1;
        for (uint32_t i = 0; i < node->s.cores; i++)
            *used += node->s.core[i].attempt != 0;
        *held += node->s.cores - node->s.free;
        if (row->cores != node->s.cores || row->reachable == (node->s.avail == AVAIL_UNREACHABLE))
            return error_set(err, ERR_INTERNAL, "node %s: row and scheduler differ", row->name);
        if (row->state == NODE(DRAINING) && !sched_node_held(&node->s) && !node_part_after(node, 0))
            return error_set(err, ERR_INTERNAL, "node %s drains and is empty", row->name);
    }
    return 0;
}

static int check_sums(const struct core *core, uint64_t used, uint64_t by_attempts, uint64_t held,
                      struct error *err)
{
    struct core_totals totals;
    core_totals(core, &totals);
    if (used != by_attempts)
        return error_set(err, ERR_INTERNAL, "%" PRIu64 " cores have an attempt, attempts have %" PRIu64, used,
                         by_attempts);
    if (held != totals.cores_busy)
        return error_set(err, ERR_INTERNAL, "%" PRIu64 " cores are held, the total says %u", held,
                         totals.cores_busy);
    uint64_t jobs = 0, queued = 0, running = 0, unended = 0;
    const Mu__Job *job;
    for (uint64_t id = 0; (job = core_next_job(core, id)); id = job->id) {
        int state = (int)job->state;
        jobs++;
        queued += state == JOB(QUEUED);
        running += state == JOB(RUNNING) || state == JOB(FINISHING) || state == JOB(CANCELING);
        unended += !job_state_ended(state);
    }
    if (jobs != totals.jobs || queued != totals.jobs_queued || running != totals.jobs_running ||
        unended != core->n_open_jobs || unended != quota_jobs(core))
        return error_set(err, ERR_INTERNAL, "the counts of jobs are wrong");
    return 0;
}

static int check_counters(const struct core *core, struct error *err)
{
    const struct events *e = &core->events;
    const Mu__Counters *c = core->counters;
    uint64_t first = e->n ? e->base : c->next_event;
    if (e->n && e->base + e->n != c->next_event)
        return error_set(err, ERR_INTERNAL, "events end at %" PRIu64 ", the next is %" PRIu64, e->base + e->n,
                         c->next_event);
    if (c->first_event > first)
        return error_set(err, ERR_INTERNAL, "the first event is %" PRIu64 ", the counter says %" PRIu64,
                         first, c->first_event);
    return 0;
}

int core_check(const struct core *core, struct error *err)
{
    uint64_t used = 0, by_attempts = 0, held = 0;
    const Mu__Job *job;
    for (uint64_t id = 0; (job = core_next_job(core, id)); id = job->id)
        if (check_job(core, job_find(core, job->id), err))
            return -1;
    struct attempt_tree *attempts = (struct attempt_tree *)&core->attempts;
    for (struct attempt *a = attempts_first(attempts); a; a = attempts_after(a))
        if (check_attempt(core, a, &by_attempts, err))
            return -1;
    if (check_nodes(core, &used, &held, err) || check_counters(core, err))
        return -1;
    return check_sums(core, used, by_attempts, held, err);
}
