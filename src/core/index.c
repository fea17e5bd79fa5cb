/* index.c - the core's objects by their keys, and timers by time.
 *
 * A _new() takes over the row and puts the object into its index; a _free() takes it out, also
 * of the list of dirty rows, and frees both.
 */
#include "core/internal.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int job_cmp(struct job *a, struct job *b)
{
    return TREE_ORDER(a->row->id, b->row->id);
}

static int ended_cmp(struct job *a, struct job *b)
{
    if (a->row->ended_wall_ms != b->row->ended_wall_ms)
        return TREE_ORDER(a->row->ended_wall_ms, b->row->ended_wall_ms);
    return job_cmp(a, b);
}

static int task_cmp(struct task *a, struct task *b)
{
    if (a->row->job_id != b->row->job_id)
        return TREE_ORDER(a->row->job_id, b->row->job_id);
    return TREE_ORDER(a->row->id, b->row->id);
}

static int node_cmp(struct node *a, struct node *b)
{
    return natural_compare(a->row->name, b->row->name);
}

static int group_cmp(struct group *a, struct group *b)
{
    return natural_compare(a->row->name, b->row->name);
}

static int attempt_cmp(struct attempt *a, struct attempt *b)
{
    return TREE_ORDER(a->row->id, b->row->id);
}

static int part_cmp(struct part *a, struct part *b)
{
    return attempt_cmp(a->attempt, b->attempt);
}

static int timer_cmp(struct timer *a, struct timer *b)
{
    if (a->at != b->at)
        return TREE_ORDER(a->at, b->at);
    if (a->kind != b->kind)
        return TREE_ORDER(a->kind, b->kind);
    return a->name && b->name ? natural_compare(a->name, b->name) : TREE_ORDER(a->id, b->id);
}

RB_GENERATE_STATIC(job_tree, job, entry, job_cmp)
RB_GENERATE_STATIC(ended_tree, job, ended_entry, ended_cmp)
RB_GENERATE_STATIC(task_tree, task, entry, task_cmp)
RB_GENERATE_STATIC(node_tree, node, entry, node_cmp)
RB_GENERATE_STATIC(group_tree, group, entry, group_cmp)
RB_GENERATE_STATIC(attempt_tree, attempt, entry, attempt_cmp)
RB_GENERATE_STATIC(part_tree, part, entry, part_cmp)
RB_GENERATE_STATIC(timer_tree, timer, entry, timer_cmp)

/* The trees are only read through these: the cast away from const is theirs alone. */
#define TREE(core, field) (&((struct core *)(core))->field)

struct job *job_find(const struct core *core, uint64_t id)
{
    Mu__Job row = {.id = id};
    struct job key = {.row = &row};
    return RB_FIND(job_tree, TREE(core, jobs), &key);
}

struct task *task_find(const struct core *core, uint64_t job, uint32_t id)
{
    Mu__Task row = {.job_id = job, .id = id};
    struct task key = {.row = &row};
    return RB_FIND(task_tree, TREE(core, tasks), &key);
}

struct task *task_next(const struct core *core, uint64_t job, uint32_t after)
{
    if (after == UINT32_MAX)
        return NULL;
    Mu__Task row = {.job_id = job, .id = after + 1};
    struct task key = {.row = &row};
    struct task *task = RB_NFIND(task_tree, TREE(core, tasks), &key);
    return task && task->row->job_id == job ? task : NULL;
}

struct node *node_find(const struct core *core, const char *name)
{
    Mu__Node row = {.name = (char *)name};
    struct node key = {.row = &row};
    return RB_FIND(node_tree, TREE(core, nodes), &key);
}

struct group *group_find(const struct core *core, const char *name)
{
    Mu__Group row = {.name = (char *)name};
    struct group key = {.row = &row};
    return RB_FIND(group_tree, TREE(core, groups), &key);
}

struct attempt *attempt_find(const struct core *core, uint64_t id)
{
    Mu__Attempt row = {.id = id};
    struct attempt key = {.row = &row};
    return RB_FIND(attempt_tree, TREE(core, attempts), &key);
}

struct task *tasks_first(struct task_tree *tasks)
{
    return RB_MIN(task_tree, tasks);
}

struct task *tasks_after(struct task *task)
{
    return RB_NEXT(task_tree, , task);
}

struct attempt *attempts_first(struct attempt_tree *attempts)
{
    return RB_MIN(attempt_tree, attempts);
}

struct attempt *attempts_after(struct attempt *attempt)
{
    return RB_NEXT(attempt_tree, , attempt);
}

struct part *node_part_after(struct node *node, uint64_t attempt)
{
    Mu__Attempt row = {.id = attempt + 1};
    struct attempt of = {.row = &row};
    struct part key = {.attempt = &of};
    return RB_NFIND(part_tree, &node->parts, &key);
}

struct part *part_of(struct attempt *attempt, const struct node *node)
{
    for (size_t i = 0; i < attempt->row->n_nodes; i++)
        if (attempt->parts[i].node == node)
            return &attempt->parts[i];
    return NULL;
}

void timer_set(struct core *core, struct timer *timer, int64_t at)
{
    if (timer->at == at)
        return;
    if (timer->at)
        RB_REMOVE(timer_tree, &core->timers, timer);
    timer->at = at;
    if (at)
        RB_INSERT(timer_tree, &core->timers, timer);
}

struct timer *timer_first(const struct core *core)
{
    return RB_MIN(timer_tree, TREE(core, timers));
}

struct job *job_new(struct core *core, Mu__Job *row)
{
    struct job *job = xcalloc(1, sizeof *job);
    job->row = row;
    job->timer = (struct timer){.kind = TIMER_JOB, .id = row->id, .owner = job};
    RB_INSERT(job_tree, &core->jobs, job);
    core->n_jobs++;
    return job;
}

void job_free(struct core *core, struct job *job)
{
    ended_remove(core, job);
    timer_set(core, &job->timer, 0);
    if (job->dirty)
        TAILQ_REMOVE(&core->dirty_jobs, job, dirty_entry);
    if (job->admin_open)
        TAILQ_REMOVE(&core->admin_jobs, job, admin_entry);
    RB_REMOVE(job_tree, &core->jobs, job);
    core->n_jobs--;
    message_free(job->row);
    free(job);
}

void ended_add(struct core *core, struct job *job)
{
    if (!job->ended)
        RB_INSERT(ended_tree, &core->ended, job);
    job->ended = true;
}

void ended_remove(struct core *core, struct job *job)
{
    if (job->ended)
        RB_REMOVE(ended_tree, &core->ended, job);
    job->ended = false;
}

struct job *ended_first(const struct core *core)
{
    return RB_MIN(ended_tree, TREE(core, ended));
}

struct task *task_new(struct core *core, Mu__Task *row)
{
    struct task *task = xcalloc(1, sizeof *task);
    task->row = row;
    RB_INSERT(task_tree, &core->tasks, task);
    core->n_tasks++;
    return task;
}

void task_free(struct core *core, struct task *task)
{
    if (task->dirty)
        TAILQ_REMOVE(&core->dirty_tasks, task, dirty_entry);
    RB_REMOVE(task_tree, &core->tasks, task);
    core->n_tasks--;
    free(task->s.required);
    message_free(task->row);
    free(task);
}

struct node *node_new(struct core *core, Mu__Node *row)
{
    struct node *node = xcalloc(1, sizeof *node);
    node->row = row;
    node->cores_wanted = row->cores;
    node->timer = (struct timer){.kind = TIMER_NODE, .name = row->name, .owner = node};
    RB_INIT(&node->parts);
    RB_INSERT(node_tree, &core->nodes, node);
    return node;
}

void node_free(struct core *core, struct node *node)
{
    timer_set(core, &node->timer, 0);
    if (node->dirty)
        TAILQ_REMOVE(&core->dirty_nodes, node, dirty_entry);
    if (node->settling)
        TAILQ_REMOVE(&core->settling_nodes, node, settling_entry);
    RB_REMOVE(node_tree, &core->nodes, node);
    sched_node_clear(&node->s);
    message_free(node->row);
    free(node);
}

struct group *group_new(struct core *core, Mu__Group *row)
{
    struct group *group = xcalloc(1, sizeof *group);
    group->row = row;
    RB_INSERT(group_tree, &core->groups, group);
    return group;
}

void group_free(struct core *core, struct group *group)
{
    if (group->dirty)
        TAILQ_REMOVE(&core->dirty_groups, group, dirty_entry);
    RB_REMOVE(group_tree, &core->groups, group);
    message_free(group->row);
    free(group);
}

struct attempt *attempt_new(struct core *core, Mu__Attempt *row)
{
    struct attempt *attempt = xcalloc(1, sizeof *attempt);
    attempt->row = row;
    attempt->parts = xcalloc(row->n_nodes ? row->n_nodes : 1, sizeof *attempt->parts);
    attempt->timer = (struct timer){.kind = TIMER_ATTEMPT, .id = row->id, .owner = attempt};
    RB_INSERT(attempt_tree, &core->attempts, attempt);
    return attempt;
}

void attempt_free(struct core *core, struct attempt *attempt)
{
    timer_set(core, &attempt->timer, 0);
    for (size_t i = 0; i < attempt->row->n_nodes; i++)
        part_close(&attempt->parts[i]);
    if (attempt->dirty)
        TAILQ_REMOVE(&core->dirty_attempts, attempt, dirty_entry);
    RB_REMOVE(attempt_tree, &core->attempts, attempt);
    message_free(attempt->row);
    free(attempt->parts);
    free(attempt);
}

void part_open(struct part *part)
{
    assert(!part->open);
    RB_INSERT(part_tree, &part->node->parts, part);
    part->open = true;
    part->attempt->n_open++;
}

void part_close(struct part *part)
{
    if (!part->open)
        return;
    RB_REMOVE(part_tree, &part->node->parts, part);
    part->open = false;
    part->attempt->n_open--;
}

/* ---- iteration, for reads and checks ---- */

const Mu__Counters *core_counters(const struct core *core)
{
    return core->counters;
}

const Mu__Job *core_job(const struct core *core, uint64_t id)
{
    struct job *job = job_find(core, id);
    return job ? job->row : NULL;
}

const Mu__Task *core_task(const struct core *core, uint64_t job, uint32_t id)
{
    struct task *task = task_find(core, job, id);
    return task ? task->row : NULL;
}

const Mu__Attempt *core_attempt(const struct core *core, uint64_t id)
{
    struct attempt *attempt = attempt_find(core, id);
    return attempt ? attempt->row : NULL;
}

const Mu__Node *core_node(const struct core *core, const char *name)
{
    struct node *node = node_find(core, name);
    return node ? node->row : NULL;
}

const Mu__Group *core_group(const struct core *core, const char *name)
{
    struct group *group = group_find(core, name);
    return group ? group->row : NULL;
}

const Mu__Job *core_next_job(const struct core *core, uint64_t after)
{
    Mu__Job row = {.id = after + 1};
    struct job key = {.row = &row};
    struct job *job = after == UINT64_MAX ? NULL : RB_NFIND(job_tree, TREE(core, jobs), &key);
    return job ? job->row : NULL;
}

const Mu__Job *core_prev_job(const struct core *core, uint64_t before)
{
    Mu__Job row = {.id = before};
    struct job key = {.row = &row};
    struct job *job = before ? RB_NFIND(job_tree, TREE(core, jobs), &key) : NULL;
    job = job ? RB_PREV(job_tree, , job) : RB_MAX(job_tree, TREE(core, jobs));
    return job ? job->row : NULL;
}

const Mu__Task *core_next_task(const struct core *core, uint64_t job, uint32_t after)
{
    struct task *task = task_next(core, job, after);
    return task ? task->row : NULL;
}

const Mu__Node *core_next_node(const struct core *core, const char *after)
{
    struct node *node;
    if (!after) {
        node = RB_MIN(node_tree, TREE(core, nodes));
        return node ? node->row : NULL;
    }
    Mu__Node row = {.name = (char *)after};
    struct node key = {.row = &row};
    node = RB_NFIND(node_tree, TREE(core, nodes), &key);
    if (node && natural_compare(node->row->name, after) == 0)
        node = RB_NEXT(node_tree, , node);
    return node ? node->row : NULL;
}

const Mu__Group *core_next_group(const struct core *core, const char *after)
{
    struct group *group;
    if (!after) {
        group = RB_MIN(group_tree, TREE(core, groups));
        return group ? group->row : NULL;
    }
    Mu__Group row = {.name = (char *)after};
    struct group key = {.row = &row};
    group = RB_NFIND(group_tree, TREE(core, groups), &key);
    if (group && natural_compare(group->row->name, after) == 0)
        group = RB_NEXT(group_tree, , group);
    return group ? group->row : NULL;
}

void core_open_effects(const struct core *core, const char *name, struct effects *effects)
{
    struct node *node = node_find(core, name);
    struct part *part;
    if (!node)
        return;
    RB_FOREACH (part, part_tree, &node->parts)
        effects_open(part->attempt, node, effects);
}

uint64_t core_core_use(const struct core *core, const char *name, uint32_t core_id)
{
    struct node *node = node_find(core, name);
    return node && core_id < node->s.cores ? node->s.core[core_id].attempt : 0;
}

uint32_t core_node_busy(const struct core *core, const char *name)
{
    struct node *node = node_find(core, name);
    return node ? node->s.cores - node->s.free : 0;
}

int64_t core_deadline(const struct core *core)
{
    struct timer *timer = timer_first(core);
    return timer ? timer->at : INT64_MAX;
}

int64_t core_upkeep_due(const struct core *core)
{
    bool any = attempts_first(TREE(core, attempts)) || ended_first(core) || core->events.n;
    return any ? core->upkeep_up_ms : INT64_MAX;
}
