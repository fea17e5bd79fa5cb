/* place.c - which nodes a job gets, which of its cores a task gets.
 *
 * Whole nodes are taken in order of name. Cores are taken from the node where they fit best: the
 * one with the fewest free cores that still has enough; where no node has enough, from the
 * nodes with the most free cores first, so that a job spreads over few nodes.
 */
#include "sched/internal.h"

#include "base/mem.h"
#include "model/names.h"

#include <stdlib.h>

static void pick(struct sched *s, struct sched_node *node, uint32_t n)
{
    s->picks = xgrow(s->picks, &s->cap_picks, s->n_picks + 1, sizeof *s->picks);
    s->picks[s->n_picks++] = (struct pick){node, n};
    node->mark = s->mark;
}

static bool picked(const struct sched *s, const struct sched_node *node)
{
    return node->mark == s->mark;
}

static bool whole(const struct sched_node *node)
{
    return node->in_whole;
}

/* Nodes that must be among the picks. What the job holds idle there already counts. */
static bool pick_required(struct sched *s, struct sched_job *job, struct sched_node *const *required,
                          size_t n, uint64_t *got)
{
    bool nodes = job->node_units || job->exclusive;
    for (size_t i = 0; i < n; i++) {
        struct sched_hold *hold = ledger_hold(job, required[i]);
        if ((hold && hold->idle) || picked(s, required[i]))
            continue;
        if (hold && nodes) /* held whole, and busy */
            return false;
        if (nodes ? !whole(required[i]) : !required[i]->in_free)
            return false;
        if (!class_has(s, job->class, required[i]))
            return false;
        pick(s, required[i], nodes ? required[i]->cores : 1);
        *got += job->node_units ? 1 : nodes ? required[i]->cores : 1;
    }
    return true;
}

/* Whole nodes until `want` units are there. */
static void pick_whole(struct sched *s, struct sched_job *job, uint64_t want, uint64_t *got)
{
    struct sched_class *c = job->class;
    struct sched_node *node = c->all ? ledger_whole_first(s) : NULL;
    for (size_t i = 0; *got < want; i++) {
        if (!c->all)
            node = i < c->n_members ? c->members[i] : NULL;
        if (!node)
            return;
        if (whole(node) && !picked(s, node)) {
            pick(s, node, node->cores);
            *got += job->node_units ? 1 : node->cores;
        }
        if (c->all)
            node = ledger_whole_next(node);
    }
}

static int by_free(const void *a, const void *b)
{
    const struct sched_node *x = *(struct sched_node *const *)a, *y = *(struct sched_node *const *)b;
    if (x->free != y->free)
        return x->free > y->free ? -1 : 1;
    return natural_compare(x->name, y->name);
}

/* Required nodes gave one core each: more from them first, so that few nodes are used. */
static void top_up(struct sched *s, struct sched_job *idle_of, uint64_t want, uint64_t *got)
{
    for (size_t i = 0; i < s->n_picks && *got < want; i++) {
        struct pick *p = &s->picks[i];
        uint32_t there = idle_of ? ledger_hold(idle_of, p->node)->idle : p->node->free;
        uint64_t n = there - p->n < want - *got ? there - p->n : want - *got;
        p->n += (uint32_t)n;
        *got += n;
    }
}

static void pick_more(struct sched *s, struct sched_node *node, uint32_t there, uint64_t want, uint64_t *got)
{
    if (picked(s, node) || there == 0)
        return;
    uint32_t n = there < want - *got ? there : (uint32_t)(want - *got);
    pick(s, node, n);
    *got += n;
}

static void pick_cores_all(struct sched *s, uint64_t want, uint64_t *got)
{
    if (s->n_picks == 0 && want <= UINT32_MAX) {
        struct sched_node *fit = ledger_free_fit(s, (uint32_t)want);
        if (fit) {
            pick(s, fit, (uint32_t)want);
            *got = want;
            return;
        }
    }
    for (struct sched_node *node = ledger_free_first(s); node && *got < want; node = ledger_free_next(node))
        pick_more(s, node, node->free, want, got);
}

static void pick_cores_of(struct sched *s, struct sched_class *c, uint64_t want, uint64_t *got)
{
    size_t n = 0;
    struct sched_node *fit = NULL;
    s->list = xgrow(s->list, &s->cap_list, c->n_members + 1, sizeof(*s->list));
    for (size_t i = 0; i < c->n_members; i++) {
        struct sched_node *node = c->members[i];
        if (!node->in_free)
            continue;
        s->list[n++] = node;
        if (node->free >= want && (!fit || node->free < fit->free))
            fit = node;
    }
    if (fit && s->n_picks == 0) {
        pick(s, fit, (uint32_t)want);
        *got = want;
        return;
    }
    if (n)
        qsort(s->list, n, sizeof(*s->list), by_free);
    for (size_t i = 0; i < n && *got < want; i++)
        pick_more(s, s->list[i], s->list[i]->free, want, got);
}

bool place_job(struct sched *s, struct sched_job *job, uint64_t need, uint64_t want,
               struct sched_node *const *required, size_t n_required)
{
    struct sched_class *c = job->class;
    uint64_t got = 0;
    class_refresh(s, c);
    s->n_picks = 0;
    s->mark++;
    /* The sums over all open nodes refuse most of what cannot start. */
    if (job->node_units ? need > s->n_whole : need > s->free_open)
        return false;
    if (!pick_required(s, job, required, n_required, &got))
        return false;
    if (got < want) {
        if (!job->node_units && !job->exclusive)
            top_up(s, NULL, want, &got);
        if (job->node_units || job->exclusive)
            pick_whole(s, job, want, &got);
        else if (c->all)
            pick_cores_all(s, want, &got);
        else
            pick_cores_of(s, c, want, &got);
    }
    return got >= need && s->n_picks > 0;
}

/* ---- tasks, in what their job holds idle ---- */

/* What a task would take of a hold: all of it, or as many cores as are idle. 0: nothing. */
static uint32_t usable(const struct sched_task *task, const struct sched_hold *hold)
{
    if (task->job->node_units || task->exclusive)
        return hold->idle == hold->n && hold->n == hold->node->cores ? hold->n : 0;
    return hold->idle;
}

static uint64_t units(const struct sched_task *task, uint32_t cores)
{
    return task->job->node_units ? 1 : cores;
}

static bool task_required(struct sched *s, struct sched_task *task, uint64_t *got)
{
    for (size_t i = 0; i < task->n_required; i++) {
        struct sched_hold *hold = ledger_hold(task->job, task->required[i]);
        uint32_t n = hold ? usable(task, hold) : 0;
        if (picked(s, task->required[i]))
            continue;
        if (n == 0)
            return false;
        if (!task->job->node_units && !task->exclusive)
            n = 1;
        pick(s, task->required[i], n);
        *got += units(task, n);
    }
    return true;
}

bool place_task(struct sched *s, struct sched_task *task)
{
    struct sched_job *job = task->job;
    bool by_node = job->node_units || task->exclusive;
    uint64_t got = 0;
    s->n_picks = 0;
    s->mark++;
    if (task->min > ledger_idle_units(job) || !task_required(s, task, &got))
        return false;
    if (!by_node && s->n_picks == 0) {
        struct sched_hold *fit = ledger_idle_fit(job, task->max);
        if (fit) {
            pick(s, fit->node, task->max);
            return true;
        }
    }
    if (!by_node)
        top_up(s, job, task->max, &got);
    struct sched_hold *hold;
    for (hold = ledger_idle_first(job); hold && got < task->max; hold = ledger_idle_next(hold)) {
        uint32_t n = usable(task, hold);
        if (!by_node) {
            pick_more(s, hold->node, n, task->max, &got);
        } else if (n > 0 && !picked(s, hold->node)) {
            pick(s, hold->node, n);
            got += units(task, n);
        }
    }
    return got >= task->min;
}
