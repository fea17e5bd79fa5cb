/* events.c - the stream of events: what became of whom, when, why, by whose hand.
 *
 * `what` is the name of the new state for a transition ("Queued", "Running", "Offline") or one
 * of the words below; with `cause` and `actor` the lines of HPC Pack's job history follow:
 *
 *     Created                 Created by {actor}
 *     Submitted               Submitted                 (state Queued)
 *     Running                 Started                   (cause: "4 cores on 2 nodes"; nodes)
 *     Allocation increased    Allocation increased to {cause}
 *     Allocation reduced      Allocation reduced to {cause}
 *     Cancel requested        Cancel requested by {actor}   (cause "with force" when forced)
 *     Requeue requested       Requeue requested by {actor}
 *     Finished/Failed/Canceled    Job Finished ...      (nodes: those that it held)
 *
 * Events are kept in one array indexed by number and trimmed by count and age.
 */
#include "core/internal.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES_SHOWN 64  /* in one event */
#define TRIM_SLACK 1024 /* so that one deletion covers many events */

const char *actor_name(const struct actor *actor)
{
    static char text[128];
    if (!actor->owner)
        return ACTOR_SCHEDULER;
    if (*actor->owner->name)
        snprintf(text, sizeof text, "%s", actor->owner->name);
    else
        snprintf(text, sizeof text, "uid %u", actor->owner->uid);
    return text;
}

const Mu__Event *event_at(const struct core *core, uint64_t seq)
{
    const struct events *e = &core->events;
    return e->n && seq >= e->base && seq - e->base < e->n ? e->slot[e->first + (seq - e->base)] : NULL;
}

const Mu__Event *core_event(const struct core *core, uint64_t seq)
{
    return event_at(core, seq);
}

/* Room for one more at the end; moves the kept ones to the front when half the array is dead. */
static void room(struct events *e)
{
    if (e->first > e->n && e->first > 64) {
        memmove(e->slot, e->slot + e->first, e->n * sizeof(*e->slot));
        e->first = 0;
    }
    e->slot = xgrow(e->slot, &e->cap, e->first + e->n + 1, sizeof(*e->slot));
}

static uint64_t add(struct core *core, int kind, const char *subject, int state, const char *what,
                    const char *cause, const char *actor)
{
    struct events *e = &core->events;
    Mu__Event *event = message_new(&mu__event__descriptor);
    event->seq = core->counters->next_event++;
    event->wall_ms = core->wall_ms;
    event->up_ms = core->up_ms;
    event->kind = (Mu__EventKind)kind;
    event->state = (uint32_t)state;
    message_set(&event->subject, subject);
    message_set(&event->what, what);
    message_set(&event->cause, cause);
    message_set(&event->actor, actor);
    room(e);
    if (e->n == 0)
        e->base = event->seq;
    e->slot[e->first + e->n++] = event;
    core->counters_dirty = true;
    return event->seq;
}

void event_job(struct core *core, struct job *job, const char *what, const char *cause, const char *actor)
{
    char subject[32];
    snprintf(subject, sizeof subject, "%" PRIu64, job->row->id);
    job->last_event = add(core, EVENT(JOB), subject, (int)job->row->state, what, cause, actor);
}

void event_job_nodes(struct core *core, const Mu__Job *job)
{
    struct buf text = BUF_INIT;
    if (!job->n_allocation)
        return;
    buf_addf(&text, "%zu", job->n_allocation);
    for (size_t i = 0; i < job->n_allocation && i < NODES_SHOWN; i++)
        buf_addf(&text, " %s %zu", job->allocation[i]->node, job->allocation[i]->n_cores);
    const struct events *e = &core->events;
    message_set(&e->slot[e->first + e->n - 1]->nodes, buf_str(&text));
    buf_free(&text);
}

void event_task(struct core *core, struct task *task, const char *what, const char *cause, const char *actor)
{
    char subject[48];
    snprintf(subject, sizeof subject, "%" PRIu64 ".%u", task->row->job_id, task->row->id);
    uint64_t seq = add(core, EVENT(TASK), subject, (int)task->row->state, what, cause, actor);
    if (task->job)
        task->job->last_event = seq;
}

void event_node(struct core *core, struct node *node, const char *what, const char *cause, const char *actor)
{
    add(core, EVENT(NODE), node->row->name, (int)node->row->state, what, cause, actor);
}

void event_other(struct core *core, int kind, const char *subject, const char *what, const char *cause,
                 const char *actor)
{
    add(core, kind, subject, 0, what, cause, actor);
}

/* The job an event is about: "12" and "12.1". 0: none. */
static uint64_t job_of(const Mu__Event *event)
{
    if (event->kind != EVENT(JOB) && event->kind != EVENT(TASK))
        return 0;
    return strtoull(event->subject, NULL, 10);
}

/* Rows come in any order, though mostly ascending: slots in front are made by moving the rest. */
int event_load(struct core *core, Mu__Event *event, struct error *err)
{
    struct events *e = &core->events;
    uint64_t seq = event->seq, span = 4 * core->config.event_keep_count + 1000000;
    if (seq == 0 || (e->n && (seq > e->base + span || e->base > seq + span)))
        return error_set(err, ERR_PROTOCOL, "event %" PRIu64 ": number far from the others", seq);
    if (e->n == 0)
        e->base = seq;
    if (seq < e->base) {
        size_t gap = (size_t)(e->base - seq);
        e->slot = xgrow(e->slot, &e->cap, e->first + e->n + gap, sizeof(*e->slot));
        memmove(e->slot + e->first + gap, e->slot + e->first, e->n * sizeof(*e->slot));
        memset(e->slot + e->first, 0, gap * sizeof(*e->slot));
        e->n += gap;
        e->base = seq;
    }
    while (seq - e->base >= e->n) {
        room(e);
        e->slot[e->first + e->n++] = NULL;
    }
    Mu__Event **slot = &e->slot[e->first + (seq - e->base)];
    if (*slot)
        return error_set(err, ERR_EXISTS, "event %" PRIu64 ": there twice", seq);
    *slot = event;
    struct job *job = job_find(core, job_of(event));
    if (job && seq > job->last_event)
        job->last_event = seq;
    return 0;
}

uint64_t core_job_event(const struct core *core, uint64_t id)
{
    struct job *job = job_find(core, id);
    return job && core->events.n && job->last_event >= core->events.base ? job->last_event : 0;
}

static void drop_first(struct core *core)
{
    struct events *e = &core->events;
    message_free(e->slot[e->first]);
    e->trimmed = e->base;
    e->first++;
    e->n--;
    e->base++;
}

void events_trim(struct core *core)
{
    struct events *e = &core->events;
    uint64_t keep = core->config.event_keep_count, slack = keep / 16 < TRIM_SLACK ? keep / 16 : TRIM_SLACK;
    int64_t oldest = core->wall_ms - core->config.event_keep_ms;
    if (e->n > keep + slack)
        while (e->n > keep)
            drop_first(core);
    while (e->n && (!e->slot[e->first] || e->slot[e->first]->wall_ms < oldest))
        drop_first(core);
    uint64_t first = e->n ? e->base : core->counters->next_event;
    if (core->counters->first_event == first)
        return;
    core->counters->first_event = first;
    core->counters_dirty = true;
}

void events_free(struct core *core)
{
    struct events *e = &core->events;
    for (size_t i = 0; i < e->n; i++)
        message_free(e->slot[e->first + i]);
    free(e->slot);
}
