/* core.c - life of a core, its turns, and start-up from rows.
 *
 * Loading takes rows in any order into their indexes only; core_resume() then ties them together
 * (tasks to jobs, attempts to tasks and nodes, holds to cores). What does not fit is dropped and
 * reported as an event: a bad row never stops the head.
 */
#include "core/internal.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UPKEEP_EVERY_MS 60000   /* how often retention is looked at */
#define UPKEEP_MORE_MS 100      /* the same, when one look was not enough */
#define COUNTERS_EVERY_MS 60000 /* how stale the stored uptime may get while something runs */

void core_config_default(struct core_config *config)
{
    *config = (struct core_config){
        .lease_ms = 600000,
        .lease_margin_ms = 10000,
        .grace_ms = 15000,
        .system_retry_limit = 3,
        .event_keep_count = 200000,
        .event_keep_ms = INT64_C(30) * 24 * 3600 * 1000,
        .job_keep_ms = INT64_C(5) * 24 * 3600 * 1000,
        .jobs_max = 1000000,
        .tasks_per_job_max = 100000,
    };
}

struct core *core_create(const struct core_config *config)
{
    struct core *core = xcalloc(1, sizeof *core);
    if (config)
        core->config = *config;
    else
        core_config_default(&core->config);
    core->counters = message_new(&mu__counters__descriptor);
    core->counters->next_job = core->counters->next_attempt = core->counters->next_event = 1;
    core->counters->next_order = core->counters->first_event = 1;
    core->events.fresh = 1;
    TAILQ_INIT(&core->dirty_jobs);
    TAILQ_INIT(&core->dirty_tasks);
    TAILQ_INIT(&core->dirty_nodes);
    TAILQ_INIT(&core->dirty_groups);
    TAILQ_INIT(&core->dirty_attempts);
    TAILQ_INIT(&core->settling_nodes);
    TAILQ_INIT(&core->admin_jobs);
    core->sched = sched_create(&core_sched_ops, core);
    return core;
}

/* Everything goes at once: links between objects are not kept up. */
void core_destroy(struct core *core)
{
    if (!core)
        return;
    struct attempt *a;
    struct task *task;
    const Mu__Job *job;
    const Mu__Node *node;
    const Mu__Group *group;
    while ((a = attempts_first(&core->attempts))) {
        if (a->task && a->task->job && a->task->job->in_sched)
            for (size_t i = 0; i < a->row->n_nodes; i++)
                if (a->parts[i].open)
                    sched_vacate(core->sched, &a->task->job->s, &a->parts[i].node->s, a->parts[i].row->cores,
                                 a->parts[i].row->n_cores, a->row->id);
        attempt_free(core, a);
    }
    while ((task = tasks_first(&core->tasks))) {
        sched_task_unwait(core->sched, &task->s);
        task_free(core, task);
    }
    while ((job = core_next_job(core, 0))) {
        struct job *j = job_find(core, job->id);
        if (j->in_sched)
            sched_job_remove(core->sched, &j->s);
        job_free(core, j);
    }
    while ((group = core_next_group(core, NULL)))
        group_free(core, group_find(core, group->name));
    while ((node = core_next_node(core, NULL)))
        node_free(core, node_find(core, node->name));
    events_free(core);
    quota_free(core);
    sched_destroy(core->sched);
    batch_free(&core->gone);
    effects_free(&core->effects);
    buf_free(&core->reason);
    message_free(core->counters);
    free(core);
}

/* ---- loading ---- */

static int bad_row(struct error *err, const struct row *row, const char *why)
{
    static const char *const words[] = {
#define X(name, word) word,
        ROW_KINDS(X)
#undef X
    };
    return error_set(err, ERR_PROTOCOL, "row %s %" PRIu64 "%s%s: %s", words[row->kind], row->id,
                     row->name ? " " : "", row->name ? row->name : "", why);
}

static void *unpack(const ProtobufCMessageDescriptor *d, const struct row *row)
{
    return protobuf_c_message_unpack(d, NULL, row->len, row->data);
}

static int load_counters(struct core *core, const struct row *row, struct error *err)
{
    Mu__Counters *c = unpack(&mu__counters__descriptor, row);
    if (!c || c->next_job == 0 || c->next_attempt == 0 || c->next_event == 0) {
        message_free(c);
        return bad_row(err, row, "cannot be read");
    }
    message_free(core->counters);
    core->counters = c;
    core->counters_up_ms = c->up_ms;
    return 0;
}

static int load_job(struct core *core, const struct row *row, struct error *err)
{
    Mu__Job *m = unpack(&mu__job__descriptor, row);
    bool good = m && m->spec && m->owner && m->id == row->id && m->id && !job_find(core, m->id) &&
                strcmp(job_state_name((int)m->state), "Unknown") != 0;
    if (!good) {
        message_free(m);
        return bad_row(err, row, "cannot be read");
    }
    job_new(core, m);
    return 0;
}

static int load_task(struct core *core, const struct row *row, struct error *err)
{
    Mu__Task *m = unpack(&mu__task__descriptor, row);
    bool good = m && m->spec && m->job_id == row->id && m->id == row->sub && m->id &&
                !task_find(core, m->job_id, m->id) && m->spec->min_units >= 1 &&
                m->spec->min_units <= m->spec->max_units &&
                strcmp(task_state_name((int)m->state), "Unknown") != 0;
    if (!good) {
        message_free(m);
        return bad_row(err, row, "cannot be read");
    }
    task_new(core, m);
    return 0;
}

static int load_node(struct core *core, const struct row *row, struct error *err)
{
    Mu__Node *m = unpack(&mu__node__descriptor, row);
    bool good = m && *m->name && !node_find(core, m->name) && m->cores > 0 && m->cores <= 65536 &&
                strcmp(node_state_name((int)m->state), "Unknown") != 0;
    if (!good) {
        message_free(m);
        return bad_row(err, row, "cannot be read");
    }
    node_new(core, m);
    return 0;
}

static int load_group(struct core *core, const struct row *row, struct error *err)
{
    Mu__Group *m = unpack(&mu__group__descriptor, row);
    if (!m || !*m->name || group_find(core, m->name)) {
        message_free(m);
        return bad_row(err, row, "cannot be read");
    }
    group_new(core, m);
    return 0;
}

static int load_attempt(struct core *core, const struct row *row, struct error *err)
{
    Mu__Attempt *m = unpack(&mu__attempt__descriptor, row);
    bool good = m && m->id == row->id && m->id && m->n_nodes > 0 && !attempt_find(core, m->id) &&
                m->state >= ATTEMPT(PREPARING) && m->state <= ATTEMPT(ENDING);
    if (!good) {
        message_free(m);
        return bad_row(err, row, "cannot be read");
    }
    attempt_new(core, m);
    return 0;
}

static int load_event(struct core *core, const struct row *row, struct error *err)
{
    Mu__Event *m = unpack(&mu__event__descriptor, row);
    if (!m || m->seq != row->id) {
        message_free(m);
        return bad_row(err, row, "cannot be read");
    }
    if (event_load(core, m, err)) {
        message_free(m);
        return -1;
    }
    return 0;
}

int core_load(struct core *core, const struct row *row, struct error *err)
{
    static int (*const loaders[])(struct core *, const struct row *, struct error *) = {
        [ROW_COUNTERS] = load_counters, [ROW_JOB] = load_job,     [ROW_TASK] = load_task,
        [ROW_NODE] = load_node,         [ROW_GROUP] = load_group, [ROW_ATTEMPT] = load_attempt,
        [ROW_EVENT] = load_event,
    };
    if ((unsigned)row->kind >= ROW_KIND_COUNT)
        return error_set(err, ERR_PROTOCOL, "row of unknown kind %d", (int)row->kind);
    return loaders[row->kind](core, row, err);
}

/* ---- resuming ---- */

/* Counters may be missing or behind when their row was set aside: never give a number twice. */
static void resume_counters(struct core *core, uint64_t generation)
{
    Mu__Counters *c = core->counters;
    const Mu__Job *job = core_prev_job(core, 0);
    if (job && job->id >= c->next_job)
        c->next_job = job->id + 1;
    for (uint64_t id = 0; (job = core_next_job(core, id)); id = job->id)
        if (job->order >= c->next_order)
            c->next_order = job->order + 1;
    for (struct attempt *a = attempts_first(&core->attempts); a; a = attempts_after(a))
        if (a->row->id >= c->next_attempt)
            c->next_attempt = a->row->id + 1;
    for (struct task *t = tasks_first(&core->tasks); t; t = tasks_after(t))
        if (t->row->attempt >= c->next_attempt)
            c->next_attempt = t->row->attempt + 1;
    struct events *e = &core->events;
    if (e->n && e->base + e->n > c->next_event)
        c->next_event = e->base + e->n;
    e->fresh = c->next_event;
    if (e->n == 0)
        c->first_event = c->next_event;
    /* A hole at the end: its numbers were given, its rows are gone. */
    while (e->n && e->base + e->n < c->next_event) {
        e->slot = xgrow(e->slot, &e->cap, e->first + e->n + 1, sizeof(*e->slot));
        e->slot[e->first + e->n++] = NULL;
    }
    if (generation > c->generation)
        c->generation = generation;
    if (c->up_ms < core->up_ms)
        c->up_ms = core->up_ms;
    core->counters_dirty = true;
}

/* All links are down until they come up. Leases may have been renewed up to a moment ago. */
static void resume_nodes(struct core *core)
{
    const Mu__Node *row = NULL;
    while ((row = core_next_node(core, row ? row->name : NULL))) {
        struct node *node = node_find(core, row->name);
        if (node->row->reachable)
            event_node(core, node, "Unreachable", "the head was restarted", "head");
        node->row->reachable = false;
        node->row->lost_up_ms = core->up_ms;
        node_touch(core, node);
        sched_node_add(core->sched, &node->s, node->row->name, node->row->cores);
        node_watch(core, node);
        node_avail(core, node);
    }
    const Mu__Group *group = NULL;
    while ((group = core_next_group(core, group ? group->name : NULL)))
        group_publish(core, group_find(core, group->name));
}

static void count_state(Mu__Job *job, int state)
{
    job->tasks_finished += state == TASK(FINISHED);
    job->tasks_failed += state == TASK(FAILED);
    job->tasks_canceled += state == TASK(CANCELED);
    job->tasks_running += state == TASK(DISPATCHING) || state == TASK(RUNNING) || state == TASK(FINISHING) ||
                          state == TASK(CANCELING);
}

static void resume_tasks(struct core *core)
{
    struct task *task, *next;
    char text[96];
    const Mu__Job *row;
    for (uint64_t id = 0; (row = core_next_job(core, id)); id = row->id) {
        Mu__Job *job = job_find(core, row->id)->row;
        job->tasks_total = job->tasks_finished = job->tasks_failed = 0;
        job->tasks_canceled = job->tasks_running = 0;
    }
    for (task = tasks_first(&core->tasks); task; task = next) {
        next = tasks_after(task);
        task->job = job_find(core, task->row->job_id);
        if (!task->job) {
            snprintf(text, sizeof text, "task %" PRIu64 ".%u has no job", task->row->job_id, task->row->id);
            event_other(core, EVENT(CLUSTER), "store", "Row dropped", text, "head");
            row_gone(core, ROW_TASK, task->row->job_id, task->row->id, NULL);
            task_free(core, task);
            continue;
        }
        quota_add(core, task->job, quota_bytes(NULL, &task->row->spec, 1));
        task->job->row->tasks_total++;
        count_state(task->job->row, (int)task->row->state);
        if (task->row->id > task->job->row->last_task)
            task->job->row->last_task = task->row->id;
    }
}

static void resume_job(struct core *core, struct job *job)
{
    Mu__Job *row = job->row;
    int state = (int)row->state;
    core->n_open_jobs += !job_state_ended(state);
    quota_add(core, job, quota_bytes(row->spec, NULL, 0));
    quota_count(core, job);
    core->n_queued += state == JOB(QUEUED);
    core->n_running += state == JOB(RUNNING) || state == JOB(FINISHING) || state == JOB(CANCELING);
    if (job_state_ended(state)) {
        ended_add(core, job);
        return;
    }
    job_enter(core, job);
    for (size_t i = 0; job->in_sched && i < row->n_allocation; i++) {
        struct node *node = node_find(core, row->allocation[i]->node);
        for (size_t k = 0; node && k < row->allocation[i]->n_cores; k++)
            if (sched_hold(core->sched, &job->s, &node->s, row->allocation[i]->cores[k]))
                job->allocation_stale = true; /* held by another: the row is put right */
    }
    if (state == JOB(RUNNING) && row->spec->runtime_s)
        timer_set(core, &job->timer, row->started_up_ms + (int64_t)row->spec->runtime_s * 1000);
}

/* Ties the attempt to its task, nodes and cores. false: it contradicts other rows. */
static bool resume_attempt(struct core *core, struct attempt *a)
{
    Mu__Attempt *row = a->row;
    struct task *task = task_find(core, row->job_id, row->task_id);
    if (!task || !task->job || task->row->attempt != row->id || task->attempt ||
        task_state_ended((int)task->row->state) || task->row->state == TASK(QUEUED) ||
        job_state_ended((int)task->job->row->state))
        return false;
    struct job *job = task->job;
    for (size_t i = 0; i < row->n_nodes; i++)
        if (!node_find(core, row->nodes[i]->node))
            return false;
    a->task = task;
    for (size_t i = 0; i < row->n_nodes; i++) {
        struct part *part = &a->parts[i];
        Mu__AttemptNode *n = row->nodes[i];
        part->attempt = a;
        part->row = n;
        part->node = node_find(core, n->node);
        if (n->state == ANODE(RELEASED) || n->state == ANODE(LOST))
            continue;
        part_open(part);
        for (size_t k = 0; job->in_sched && k < n->n_cores; k++) {
            /* Held as a rule; else the job's row was put right above: the attempt's word counts. */
            sched_hold(core->sched, &job->s, &part->node->s, n->cores[k]);
            if (sched_occupy(core->sched, &job->s, &part->node->s, n->cores[k], row->id))
                return false;
        }
    }
    task->attempt = a;
    job->live++;
    job->s.live += job->in_sched;
    if (row->state == ATTEMPT(RUNNING) && row->runtime_s)
        timer_set(core, &a->timer, row->started_up_ms + (int64_t)row->runtime_s * 1000);
    return true;
}

static void drop_attempt(struct core *core, struct attempt *a)
{
    char text[96];
    snprintf(text, sizeof text, "attempt %" PRIu64 " of task %" PRIu64 ".%u fits no other row", a->row->id,
             a->row->job_id, a->row->task_id);
    event_other(core, EVENT(CLUSTER), "store", "Row dropped", text, "head");
    for (size_t i = 0; a->task && i < a->row->n_nodes; i++)
        if (a->parts[i].open && a->task->job->in_sched)
            sched_vacate(core->sched, &a->task->job->s, &a->parts[i].node->s, a->parts[i].row->cores,
                         a->parts[i].row->n_cores, a->row->id);
    row_gone(core, ROW_ATTEMPT, a->row->id, 0, NULL);
    attempt_free(core, a);
}

/* From now on heartbeats renew with this head's times. */
static void resume_lease(struct core *core, struct attempt *a)
{
    Mu__Attempt *row = a->row;
    if (row->lease_ms >= core->config.lease_ms && row->lease_grace_ms >= core->config.grace_ms)
        return;
    if (row->lease_ms < core->config.lease_ms)
        row->lease_ms = core->config.lease_ms;
    if (row->lease_grace_ms < core->config.grace_ms)
        row->lease_grace_ms = core->config.grace_ms;
    attempt_touch(core, a);
}

static void resume_attempts(struct core *core)
{
    const Mu__Node *node = NULL;
    struct attempt *a, *next;
    for (a = attempts_first(&core->attempts); a; a = next) {
        next = attempts_after(a);
        if (resume_attempt(core, a))
            resume_lease(core, a);
        else
            drop_attempt(core, a);
    }
    while ((node = core_next_node(core, node ? node->name : NULL))) {
        struct node *n = node_find(core, node->name);
        timer_set(core, &n->timer, node_lease_end(core, n, core->up_ms));
    }
}

/* Tasks that wait, wait again; one that should have an attempt and has none starts over. */
static void resume_waiting(struct core *core)
{
    struct task *task;
    for (task = tasks_first(&core->tasks); task; task = tasks_after(task)) {
        int job = (int)task->job->row->state, state = (int)task->row->state;
        bool lives = state == TASK(DISPATCHING) || state == TASK(RUNNING) || state == TASK(FINISHING) ||
                     state == TASK(CANCELING);
        if (lives && !task->attempt)
            task_again(core, task, "its attempt is not in the store", "head");
        else if (state == TASK(QUEUED) && (job == JOB(QUEUED) || job == JOB(RUNNING)))
            task_enter(core, task);
    }
}

static void resume_queues(struct core *core)
{
    const Mu__Job *row;
    for (uint64_t id = 0; (row = core_next_job(core, id)); id = row->id) {
        struct job *job = job_find(core, row->id);
        uint32_t held = job->s.held_cores;
        if (job_state_ended((int)row->state))
            continue;
        if (row->state == JOB(QUEUED))
            job_queue(core, job);
        else if (row->state == JOB(RUNNING) && job->in_sched)
            sched_job_resumed(core->sched, &job->s);
        else if (job->in_sched)
            sched_job_stop(core->sched, &job->s);
        if (job->s.held_cores != held || job->allocation_stale) {
            job->allocation_stale = true;
            job_touch(core, job);
        }
        job_settle(core, job);
    }
}

void core_resume(struct core *core, uint64_t generation)
{
    resume_counters(core, generation);
    resume_nodes(core);
    resume_tasks(core);
    const Mu__Job *row;
    for (uint64_t id = 0; (row = core_next_job(core, id)); id = row->id)
        resume_job(core, job_find(core, row->id));
    resume_attempts(core);
    resume_waiting(core);
    resume_queues(core);
    for (struct attempt *a = attempts_first(&core->attempts); a; a = attempts_after(a))
        effects_open(a, NULL, &core->effects);
    event_other(core, EVENT(CLUSTER), "head", "Started", "", "head");
}

/* ---- turns ---- */

void core_begin(struct core *core, int64_t up_ms, int64_t wall_ms)
{
    if (up_ms > core->up_ms)
        core->up_ms = up_ms;
    core->wall_ms = wall_ms;
}

static void tick(struct core *core)
{
    struct timer *timer;
    while ((timer = timer_first(core)) && timer->at <= core->up_ms) {
        timer_set(core, timer, 0);
        if (timer->kind == TIMER_NODE)
            node_lease_over(core, timer->owner);
        else if (timer->kind == TIMER_JOB)
            job_limit_reached(core, timer->owner);
        else
            attempt_limit_reached(core, timer->owner);
    }
    core->upkeep_up_ms = core->up_ms + (jobs_expire(core) ? UPKEEP_MORE_MS : UPKEEP_EVERY_MS);
    events_trim(core);
    bool something_runs = attempts_first(&core->attempts) != NULL;
    if (something_runs && core->up_ms - core->counters_up_ms >= COUNTERS_EVERY_MS)
        core->counters_dirty = true;
}

static void report(struct core *core, const struct command *cmd, struct result *r)
{
    struct node *node = cmd->node ? node_find(core, cmd->node) : NULL;
    if (!node)
        error_set(&r->error, ERR_NOT_FOUND, "node %s: no such node", cmd->node ? cmd->node : "");
    else
        attempt_report(core, node, cmd->report);
}

void core_command(struct core *core, const struct command *cmd, struct result *r)
{
    *r = (struct result){.error = {.code = ERR_NONE}};
    switch (cmd->kind) {
    case CMD_JOB_CREATE:
        job_create(core, &cmd->actor, cmd->job_create, r);
        break;
    case CMD_JOB_ADD:
        job_add(core, &cmd->actor, cmd->job_add, r);
        break;
    case CMD_JOB_SUBMIT:
        job_submit(core, &cmd->actor, cmd->job_submit, r);
        break;
    case CMD_JOB_CANCEL:
        job_cancel(core, &cmd->actor, cmd->job_cancel, r);
        break;
    case CMD_JOB_REQUEUE:
        job_requeue(core, &cmd->actor, cmd->job_requeue, r);
        break;
    case CMD_TASK_CANCEL:
        task_cancel(core, &cmd->actor, cmd->task_cancel, r);
        break;
    case CMD_TASK_REQUEUE:
        task_requeue(core, &cmd->actor, cmd->task_requeue, r);
        break;
    case CMD_NODE_SET:
        node_set(core, &cmd->actor, cmd->node_set, r);
        break;
    case CMD_GROUP_SET:
        group_set(core, &cmd->actor, cmd->group_set, r);
        break;
    case CMD_NODE_UP:
        node_up(core, cmd->node_hello, r);
        break;
    case CMD_NODE_DOWN:
        node_down(core, cmd->node, r);
        break;
    case CMD_REPORT:
        report(core, cmd, r);
        break;
    case CMD_TICK:
        tick(core);
        break;
    default:
        error_set(&r->error, ERR_INTERNAL, "unknown command %d", (int)cmd->kind);
    }
}

void core_end(struct core *core, struct batch *batch, struct effects *effects)
{
    admin_run(core);
    sched_run(core->sched);
    if (nodes_settle(core)) /* a node with more cores than before */
        sched_run(core->sched);
    if (core->events.n > core->config.event_keep_count)
        events_trim(core);
    rows_collect(core, batch);
    for (size_t i = 0; i < core->effects.count; i++) {
        const struct effect *e = &core->effects.list[i];
        effect_add(effects, e->kind, e->node, e->attempt, e->grace_ms);
    }
    core->effects.count = 0;
}

/* ---- reads that need more than a look into an index ---- */

const char *core_pending_reason(const struct core *core, uint64_t id, uint32_t task_id)
{
    struct core *c = (struct core *)core; /* the text and classes that are worked out when asked for */
    struct job *job = job_find(core, id);
    struct task *task = task_id && job ? task_find(core, id, task_id) : NULL;
    buf_reset(&c->reason);
    if (!job || (task_id && (!task || task->row->state != TASK(QUEUED))))
        return "";
    if (job->row->spec->type == MU__JOB_TYPE__JOB_ADMIN) {
        if (task)
            buf_addf(&c->reason, "waits for node %s", task->row->spec->required_nodes[0]);
        else if (job->row->state == JOB(QUEUED))
            buf_adds(&c->reason, "waits for its nodes");
    } else if (task) {
        sched_explain_task(c->sched, &task->s, &c->reason);
    } else if (job->in_sched) {
        sched_explain(c->sched, &job->s, &c->reason);
    }
    return buf_str(&c->reason);
}

void core_totals(const struct core *core, struct core_totals *totals)
{
    struct sched_totals s;
    sched_totals(core->sched, &s);
    *totals = (struct core_totals){
        .nodes = s.nodes,
        .nodes_online = s.open,
        .nodes_unreachable = s.unreachable,
        .cores = (uint32_t)s.cores,
        .cores_busy = (uint32_t)s.held,
        .jobs = core->n_jobs,
        .jobs_queued = core->n_queued,
        .jobs_running = core->n_running,
    };
}
