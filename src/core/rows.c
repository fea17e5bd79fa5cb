/* rows.c - from objects to rows: what changed in a turn, and everything there is.
 *
 * A touched object stands once in its kind's list of dirty ones and is packed at the end of the
 * turn. Fixed order of a batch: counters, deletions, jobs, tasks, nodes, groups, attempts, events.
 */
#include "core/internal.h"

#include "base/mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define TOUCH(core, object, list)                                                                            \
    do {                                                                                                     \
        if (!(object)->dirty)                                                                                \
            TAILQ_INSERT_TAIL(&(core)->list, object, dirty_entry);                                           \
        (object)->dirty = true;                                                                              \
    } while (0)

void job_touch(struct core *core, struct job *job)
{
    job->row->changed_wall_ms = core->wall_ms;
    TOUCH(core, job, dirty_jobs);
}

void task_touch(struct core *core, struct task *task)
{
    TOUCH(core, task, dirty_tasks);
}

void node_touch(struct core *core, struct node *node)
{
    TOUCH(core, node, dirty_nodes);
}

void group_touch(struct core *core, struct group *group)
{
    TOUCH(core, group, dirty_groups);
}

void attempt_touch(struct core *core, struct attempt *attempt)
{
    TOUCH(core, attempt, dirty_attempts);
}

static struct row *row_add(struct batch *batch, enum row_kind kind, uint64_t id, uint32_t sub,
                           const char *name)
{
    batch->rows = xgrow(batch->rows, &batch->cap, batch->count + 1, sizeof *batch->rows);
    struct row *row = &batch->rows[batch->count++];
    *row = (struct row){.kind = kind, .id = id, .sub = sub};
    if (name) {
        row->name = xstrdup(name);
        for (char *p = row->name; *p; p++)
            *p = (char)tolower((unsigned char)*p);
    }
    return row;
}

static void row_put(struct batch *batch, enum row_kind kind, uint64_t id, uint32_t sub, const char *name,
                    const void *message)
{
    struct row *row = row_add(batch, kind, id, sub, name);
    row->data = message_pack(message, &row->len);
}

void row_gone(struct core *core, enum row_kind kind, uint64_t id, uint32_t sub, const char *name)
{
    row_add(&core->gone, kind, id, sub, name)->deleted = true;
}

/* A group that was deleted and made again in one turn: the new row replaces the old one. */
static bool group_is_back(const struct core *core, const struct row *row)
{
    return row->kind == ROW_GROUP && group_find(core, row->name);
}

static void put_gone(struct core *core, struct batch *batch)
{
    for (size_t i = 0; i < core->gone.count; i++) {
        struct row *row = &core->gone.rows[i];
        bool twice = group_is_back(core, row);
        for (size_t k = 0; k < i && row->kind == ROW_GROUP && !twice; k++) /* deleted twice */
            twice = core->gone.rows[k].kind == ROW_GROUP && core->gone.rows[k].name &&
                    !strcmp(core->gone.rows[k].name, row->name);
        if (twice)
            continue;
        batch->rows = xgrow(batch->rows, &batch->cap, batch->count + 1, sizeof *batch->rows);
        batch->rows[batch->count++] = *row;
        row->name = row->kind == ROW_GROUP ? xstrdup(row->name) : NULL; /* kept for the test above */
    }
    if (core->events.trimmed) {
        struct row *row = row_add(batch, ROW_EVENT, core->events.trimmed, 0, NULL);
        row->deleted = row->up_to = true;
        core->events.trimmed = 0;
    }
    batch_free(&core->gone);
}

#define COLLECT(core, type, list, put)                                                                       \
    do {                                                                                                     \
        struct type *o;                                                                                      \
        while ((o = TAILQ_FIRST(&(core)->list))) {                                                           \
            TAILQ_REMOVE(&(core)->list, o, dirty_entry);                                                     \
            o->dirty = false;                                                                                \
            put;                                                                                             \
        }                                                                                                    \
    } while (0)

static void put_events(struct core *core, struct batch *batch)
{
    struct events *e = &core->events;
    uint64_t seq = e->fresh > e->base ? e->fresh : e->base;
    for (; seq < core->counters->next_event; seq++) {
        const Mu__Event *event = event_at(core, seq);
        if (event)
            row_put(batch, ROW_EVENT, seq, 0, NULL, event);
    }
    e->fresh = core->counters->next_event;
}

static void put_job(struct core *core, struct batch *batch, struct job *job)
{
    job_allocation(core, job);
    row_put(batch, ROW_JOB, job->row->id, 0, NULL, job->row);
}

void rows_collect(struct core *core, struct batch *batch)
{
    if (core->counters_dirty) {
        core->counters->up_ms = core->counters_up_ms = core->up_ms;
        row_put(batch, ROW_COUNTERS, 0, 0, NULL, core->counters);
        core->counters_dirty = false;
    }
    put_gone(core, batch);
    COLLECT(core, job, dirty_jobs, put_job(core, batch, o));
    COLLECT(core, task, dirty_tasks, row_put(batch, ROW_TASK, o->row->job_id, o->row->id, NULL, o->row));
    COLLECT(core, node, dirty_nodes, row_put(batch, ROW_NODE, 0, 0, o->row->name, o->row));
    COLLECT(core, group, dirty_groups, row_put(batch, ROW_GROUP, 0, 0, o->row->name, o->row));
    COLLECT(core, attempt, dirty_attempts, row_put(batch, ROW_ATTEMPT, o->row->id, 0, NULL, o->row));
    put_events(core, batch);
}

void core_rows(const struct core *core, struct batch *batch)
{
    row_put(batch, ROW_COUNTERS, 0, 0, NULL, core->counters);
    const Mu__Job *job = NULL;
    for (uint64_t id = 0; (job = core_next_job(core, id)); id = job->id)
        row_put(batch, ROW_JOB, job->id, 0, NULL, job);
    struct task *task;
    struct task_tree *tasks = (struct task_tree *)&core->tasks;
    for (task = tasks_first(tasks); task; task = tasks_after(task))
        row_put(batch, ROW_TASK, task->row->job_id, task->row->id, NULL, task->row);
    const Mu__Node *node = NULL;
    while ((node = core_next_node(core, node ? node->name : NULL)))
        row_put(batch, ROW_NODE, 0, 0, node->name, node);
    const Mu__Group *group = NULL;
    while ((group = core_next_group(core, group ? group->name : NULL)))
        row_put(batch, ROW_GROUP, 0, 0, group->name, group);
    struct attempt_tree *attempts = (struct attempt_tree *)&core->attempts;
    for (struct attempt *a = attempts_first(attempts); a; a = attempts_after(a))
        row_put(batch, ROW_ATTEMPT, a->row->id, 0, NULL, a->row);
    for (size_t i = 0; i < core->events.n; i++)
        if (core->events.slot[core->events.first + i])
            row_put(batch, ROW_EVENT, core->events.base + i, 0, NULL,
                    core->events.slot[core->events.first + i]);
}

void batch_free(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        free(batch->rows[i].name);
        free(batch->rows[i].data);
    }
    free(batch->rows);
    *batch = (struct batch){0};
}

void effects_free(struct effects *effects)
{
    free(effects->list);
    *effects = (struct effects){0};
}
