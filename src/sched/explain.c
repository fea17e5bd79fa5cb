/* explain.c - why a job or task waits, in the words of its user. */
#include "sched/internal.h"

#include <stdlib.h>

struct counts {
    uint32_t total, open, offline, draining, unreachable, whole;
    uint64_t cores_open, cores_free;
};

static void count_node(struct counts *n, const struct sched_node *node)
{
    n->total++;
    n->open += node->avail == AVAIL_OPEN;
    n->offline += node->avail == AVAIL_OFFLINE;
    n->draining += node->avail == AVAIL_DRAINING;
    n->unreachable += node->avail == AVAIL_UNREACHABLE;
    n->whole += node->in_whole;
    n->cores_open += node->avail == AVAIL_OPEN ? node->cores : 0;
    n->cores_free += node->in_free ? node->free : 0;
}

static void count_class(struct sched *s, struct sched_class *c, struct counts *n)
{
    *n = (struct counts){0};
    class_refresh(s, c);
    if (c->all)
        for (size_t i = 0; i < s->n_nodes; i++)
            count_node(n, s->nodes[i]);
    else
        for (size_t i = 0; i < c->n_members; i++)
            count_node(n, c->members[i]);
}

static const char *plural(uint64_t n, const char *one, const char *many)
{
    return n == 1 ? one : many;
}

/* " in AzureNodes and ComputeNodes", " on node1, node2": where it may run. */
static void say_where(struct sched *s, const struct sched_class *c, struct buf *out)
{
    for (size_t i = 0; i < c->n_groups; i++)
        buf_addf(out, "%s%s", i == 0 ? " in " : " and ", queue_group_title(s, c->groups[i]));
    for (size_t i = 0; i < c->n_requested && i < 8; i++)
        buf_addf(out, "%s%s", i == 0 ? " of " : ", ", c->requested[i]);
    if (c->n_requested > 8)
        buf_addf(out, " and %zu more", c->n_requested - 8);
}

static void say_states(const struct counts *n, struct buf *out)
{
    buf_addf(out, "%u online", n->open);
    if (n->offline)
        buf_addf(out, ", %u offline", n->offline);
    if (n->draining)
        buf_addf(out, ", %u draining", n->draining);
    if (n->unreachable)
        buf_addf(out, ", %u unreachable", n->unreachable);
}

static void explain_need(struct sched *s, const struct sched_job *job, struct buf *out)
{
    struct counts n;
    uint32_t need = queue_need(job) > job->min ? queue_need(job) : job->min;
    if (need == 0)
        need = 1;
    count_class(s, job->class, &n);
    if (job->node_units)
        buf_addf(out, "needs %u %s", need, plural(need, "node", "nodes"));
    else
        buf_addf(out, "needs %u %s%s", need, plural(need, "core", "cores"),
                 job->exclusive ? " on nodes of its own" : "");
    say_where(s, job->class, out);
    buf_adds(out, "; ");
    say_states(&n, out);
    if (job->node_units || job->exclusive) {
        if (n.open)
            buf_addf(out, "; %u free", n.whole);
    } else if (n.open) {
        buf_addf(out, "; %llu of %llu cores free", (unsigned long long)n.cores_free,
                 (unsigned long long)n.cores_open);
    }
}

void sched_explain(struct sched *s, const struct sched_job *job, struct buf *out)
{
    struct sched_class *c = job->class;
    if (!job->queued || !c)
        return;
    if (c->blocker == 0 || c->blocker == job->id) {
        explain_need(s, job, out);
        return;
    }
    buf_addf(out, "waits behind job %llu (%s)", (unsigned long long)c->blocker,
             c->blocker_priority > job->priority ? "higher priority" : "submitted earlier");
}

void sched_explain_task(struct sched *s, const struct sched_task *task, struct buf *out)
{
    const struct sched_job *job = task->job;
    if (!task->waiting)
        return;
    if (job->queued) {
        sched_explain(s, job, out);
        return;
    }
    const struct sched_task *first = queue_task((struct sched_job *)job);
    if (first && first != task) {
        buf_addf(out, "waits behind task %llu.%u of its job", (unsigned long long)job->id, first->id);
        return;
    }
    const char *unit =
        job->node_units ? plural(task->min, "node", "nodes") : plural(task->min, "core", "cores");
    buf_addf(out, "needs %u %s; its job holds %u, %u of them idle", task->min, unit, ledger_units(job),
             ledger_idle_units(job));
    if (job->max)
        buf_addf(out, " (at most %u)", job->max);
}
