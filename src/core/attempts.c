/* attempts.c - one run of one task: prepare everywhere, go, end everywhere, done.
 *
 * An attempt moves only by reports of its nodes, by a wish to end it, or by the certainty that a
 * node is gone. It is done when every node has released it or is surely dead; only then are its
 * last cores free and the outcome becomes the task's. Reports may come twice or late: one that
 * says nothing new changes nothing.
 */
#include "core/internal.h"

#include "base/mem.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- effects ---- */

void effect_add(struct effects *effects, enum effect_kind kind, const char *node, uint64_t attempt,
                uint32_t grace_ms)
{
    effects->list = xgrow(effects->list, &effects->cap, effects->count + 1, sizeof *effects->list);
    struct effect *e = &effects->list[effects->count++];
    *e = (struct effect){.kind = kind, .attempt = attempt, .grace_ms = grace_ms};
    snprintf(e->node, sizeof e->node, "%s", node);
}

/* What the rows say must be sent until it is answered; of one node or of all. */
void effects_open(const struct attempt *a, const struct node *only, struct effects *effects)
{
    for (size_t i = 0; i < a->row->n_nodes; i++) {
        const struct part *part = &a->parts[i];
        if (only && part->node != only)
            continue;
        const char *name = part->row->node;
        if (part->row->state == ANODE(PREPARE))
            effect_add(effects, EFFECT_PREPARE, name, a->row->id, 0);
        else if (part->row->state == ANODE(RELEASE))
            effect_add(effects, EFFECT_END, name, a->row->id, a->row->grace_ms);
        else if (part->row->state == ANODE(PREPARED) && i == 0 && a->row->state == ATTEMPT(STARTING))
            effect_add(effects, EFFECT_GO, name, a->row->id, 0);
    }
}

/* ---- start ---- */

static Mu__AttemptNode *part_row(const struct sched_place *place)
{
    const struct node *node = (const struct node *)((const char *)place->node - offsetof(struct node, s));
    Mu__AttemptNode *row = message_new(&mu__attempt_node__descriptor);
    message_set(&row->node, node->row->name);
    message_set(&row->install_id, node->row->install_id);
    row->state = ANODE(PREPARE);
    row->n_cores = place->n;
    if (place->n)
        row->cores = xmemdup(place->cores, place->n * sizeof *place->cores);
    return row;
}

static void task_allocation(Mu__Task *task, const Mu__Attempt *attempt)
{
    for (size_t i = 0; i < task->n_allocation; i++)
        message_free(task->allocation[i]);
    free(task->allocation);
    task->n_allocation = attempt->n_nodes;
    task->allocation = xcalloc(attempt->n_nodes, sizeof(*task->allocation));
    for (size_t i = 0; i < attempt->n_nodes; i++) {
        Mu__NodeCores *cores = message_new(&mu__node_cores__descriptor);
        message_set(&cores->node, attempt->nodes[i]->node);
        cores->n_cores = attempt->nodes[i]->n_cores;
        if (cores->n_cores)
            cores->cores = xmemdup(attempt->nodes[i]->cores, cores->n_cores * sizeof *cores->cores);
        task->allocation[i] = cores;
    }
}

static void move_attempt(struct core *core, struct attempt *a, enum move move)
{
    int next = state_next(STATE_ATTEMPT, (int)a->row->state, move);
    assert(next != 0);
    a->row->state = (Mu__AttemptState)next;
    attempt_touch(core, a);
}

uint64_t attempt_start(struct core *core, struct task *task, const struct sched_place *places, size_t n)
{
    Mu__Attempt *row = message_new(&mu__attempt__descriptor);
    row->id = core->counters->next_attempt++;
    core->counters_dirty = true;
    row->job_id = task->row->job_id;
    row->task_id = task->row->id;
    row->state = ATTEMPT(PREPARING);
    row->runtime_s = task->row->spec->runtime_s;
    row->lease_ms = core->config.lease_ms;
    row->lease_grace_ms = core->config.grace_ms;
    row->n_nodes = n;
    row->nodes = xcalloc(n, sizeof(*row->nodes));
    for (size_t i = 0; i < n; i++)
        row->nodes[i] = part_row(&places[i]);
    struct attempt *a = attempt_new(core, row);
    a->task = task;
    for (size_t i = 0; i < n; i++) {
        a->parts[i].attempt = a;
        a->parts[i].node = node_find(core, row->nodes[i]->node);
        a->parts[i].row = row->nodes[i];
        part_open(&a->parts[i]);
    }
    attempt_touch(core, a);
    task->attempt = a;
    task->job->live++;
    task->row->attempt = row->id;
    task->row->cpu_ms = 0;
    task->row->output_bytes = 0;
    task_allocation(task->row, row);
    task_move(core, task, MOVE_START, "", ACTOR_SCHEDULER);
    effects_open(a, NULL, &core->effects);
    return row->id;
}

/* ---- end ---- */

/* The attempt is to end on every node. Asked again, it only gets less patient. */
void attempt_end(struct core *core, struct attempt *a, uint32_t grace_ms)
{
    bool ending = a->row->state == ATTEMPT(ENDING);
    if (ending && grace_ms >= a->row->grace_ms)
        return;
    if (!ending)
        move_attempt(core, a, MOVE_END);
    attempt_touch(core, a);
    timer_set(core, &a->timer, 0);
    a->row->grace_ms = grace_ms;
    for (size_t i = 0; i < a->row->n_nodes; i++)
        if (a->parts[i].open)
            a->parts[i].row->state = ANODE(RELEASE);
    effects_open(a, NULL, &core->effects);
}

static void part_over(struct core *core, struct part *part, Mu__AttemptNodeState state)
{
    struct attempt *a = part->attempt;
    struct job *job = a->task->job;
    if (!part->open)
        return;
    part->row->state = state;
    part_close(part);
    attempt_touch(core, a);
    if (job->in_sched) {
        job->allocation_stale = true;
        job_touch(core, job);
        sched_vacate(core->sched, &job->s, &part->node->s, part->row->cores, part->row->n_cores, a->row->id);
    }
    node_settle(core, part->node);
}

static const char *signal_text(uint32_t sig, char *out, size_t size)
{
    const char *word = sigabbrev_np((int)sig);
    snprintf(out, size, "ended by signal %u%s%s%s", sig, word ? " (SIG" : "", word ? word : "",
             word ? ")" : "");
    return out;
}

static void end_text(const Mu__Attempt *row, char *out, size_t size)
{
    if (*row->message)
        snprintf(out, size, "%s", row->message);
    else if (row->exit_signal)
        signal_text(row->exit_signal, out, size);
    else
        snprintf(out, size, "exit code %d", row->exit_code);
}

/* Queues the task again; in a job that is about to end it fails with its job. */
static void again(struct core *core, struct task *task, uint32_t *count, const char *why)
{
    const Mu__Job *job = task->job->row;
    bool ending =
        (job->state == JOB(FINISHING) || job->state == JOB(CANCELING)) && job->end_state != JOB(QUEUED);
    if (ending) {
        task_fail(core, task, FAIL(JOB), why, ACTOR_SCHEDULER);
        return;
    }
    ++*count;
    task_again(core, task, why, ACTOR_SCHEDULER);
}

/* A failure that is not the task's fault: again, as often as the cluster allows. */
static void system_failure(struct core *core, struct task *task, const char *why)
{
    char text[640];
    uint32_t limit = core->config.system_retry_limit;
    if (!task->row->spec->not_rerunnable && task->row->auto_requeue_count < limit) {
        again(core, task, &task->row->auto_requeue_count, why);
        return;
    }
    if (task->row->spec->not_rerunnable)
        snprintf(text, sizeof text, "%s; the task is not rerunnable", why);
    else
        snprintf(text, sizeof text, "%s; requeue limit of %u reached", why, limit);
    task_fail(core, task, FAIL(SYSTEM), text, ACTOR_SCHEDULER);
}

static void refused(struct core *core, struct task *task, const Mu__Attempt *row)
{
    const char *why = *row->message ? row->message : "a node could not prepare the task";
    if (row->failure == FAIL(SETUP)) {
        task_fail(core, task, FAIL(SETUP), why, ACTOR_SCHEDULER);
    } else if (task->row->refused_count < PREPARE_REFUSALS_MAX) {
        again(core, task, &task->row->refused_count, why);
    } else {
        task_fail(core, task, FAIL(SYSTEM), why, ACTOR_SCHEDULER);
    }
}

static void finished_by_itself(struct core *core, struct task *task, const Mu__Attempt *row)
{
    char text[600];
    end_text(row, text, sizeof text);
    if (row->failure == FAIL(SYSTEM)) {
        system_failure(core, task, text);
    } else if (row->failure == FAIL(NONE) && row->exit_code == 0 && row->exit_signal == 0) {
        task_move(core, task, MOVE_FINISH, "", ACTOR_SCHEDULER);
    } else if (row->failure == FAIL(SETUP) || row->failure == FAIL(TIMEOUT)) {
        task_fail(core, task, (int)row->failure, text, ACTOR_SCHEDULER);
    } else if (task->row->retry_count < task->job->row->spec->task_retry_limit) {
        again(core, task, &task->row->retry_count, text);
    } else {
        task_fail(core, task, FAIL(EXIT), text, ACTOR_SCHEDULER);
    }
}

/* What the attempt that is over means for its task. */
static void outcome(struct core *core, struct task *task, const Mu__Attempt *row)
{
    Mu__Task *t = task->row;
    t->exit_code = row->exit_code;
    t->exit_signal = row->exit_signal;
    if (t->cancel_cause) {
        char *message = xstrdup(t->message);
        if (t->requeue_wanted)
            task_again(core, task, message, ACTOR_SCHEDULER);
        else
            task_fail(core, task, (int)t->cancel_cause, message, ACTOR_SCHEDULER);
        free(message);
    } else if (row->prepare_failed) {
        refused(core, task, row);
    } else if (row->ended) {
        finished_by_itself(core, task, row);
    } else {
        system_failure(core, task, *row->message ? row->message : "its attempt was lost");
    }
    t->cancel_cause = FAIL(NONE);
    t->requeue_wanted = false;
}

static void attempt_done(struct core *core, struct attempt *a)
{
    struct task *task = a->task;
    struct job *job = task->job;
    Mu__Attempt *row = a->row;
    move_attempt(core, a, MOVE_RELEASED);
    for (size_t i = 0; i < row->n_nodes; i++)
        effect_add(&core->effects, EFFECT_FORGET, row->nodes[i]->node, row->id, 0);
    row_gone(core, ROW_ATTEMPT, row->id, 0, NULL);
    task->attempt = NULL;
    job->live--;
    if (job->in_sched)
        sched_attempt_over(core->sched, &job->s);
    outcome(core, task, row);
    attempt_free(core, a);
    job_settle(core, job);
}

/* After any change: done, or the task shows that its end is under way. */
void attempt_settle(struct core *core, struct attempt *a)
{
    if (a->row->state != ATTEMPT(ENDING))
        return;
    if (a->n_open == 0) {
        attempt_done(core, a);
        return;
    }
    struct task *task = a->task;
    if (task->row->state != TASK(DISPATCHING) && task->row->state != TASK(RUNNING))
        return;
    bool wish = task->row->cancel_cause != FAIL(NONE);
    task_move(core, task, wish ? MOVE_CANCEL : MOVE_END, wish ? task->row->message : "", ACTOR_SCHEDULER);
}

/* The node is surely without this attempt: dead, re-imaged, or its folder is gone. */
void attempt_lost(struct core *core, struct part *part, const char *why)
{
    struct attempt *a = part->attempt;
    if (!a->row->ended && !a->row->prepare_failed && !*a->row->message)
        message_set(&a->row->message, why);
    part_over(core, part, ANODE(LOST));
    attempt_end(core, a, 0);
    attempt_settle(core, a);
}

void attempt_limit_reached(struct core *core, struct attempt *a)
{
    char text[80];
    if (a->row->state == ATTEMPT(ENDING))
        return;
    snprintf(text, sizeof text, "run time limit of %u s reached", a->row->runtime_s);
    a->task->row->cancel_cause = FAIL(TIMEOUT);
    message_set(&a->task->row->message, text);
    task_touch(core, a->task);
    attempt_end(core, a, core->config.grace_ms);
    attempt_settle(core, a);
}

/* ---- reports ---- */

static void report_prepared(struct core *core, struct attempt *a, struct part *part)
{
    if (part->row->state != ANODE(PREPARE))
        return;
    part->row->state = ANODE(PREPARED);
    attempt_touch(core, a);
    for (size_t i = 0; i < a->row->n_nodes; i++)
        if (a->parts[i].row->state != ANODE(PREPARED))
            return;
    if (a->row->state != ATTEMPT(PREPARING))
        return;
    move_attempt(core, a, MOVE_PREPARED);
    effect_add(&core->effects, EFFECT_GO, a->parts[0].row->node, a->row->id, 0);
}

static void report_running(struct core *core, struct attempt *a, struct part *part)
{
    int state = (int)a->row->state;
    bool single = a->row->n_nodes == 1; /* one order to prepare and go */
    if (part != &a->parts[0] || (state != ATTEMPT(STARTING) && !(single && state == ATTEMPT(PREPARING))))
        return;
    part->row->state = ANODE(PREPARED);
    move_attempt(core, a, MOVE_RUN);
    a->row->started_up_ms = core->up_ms;
    if (a->row->runtime_s)
        timer_set(core, &a->timer, core->up_ms + (int64_t)a->row->runtime_s * 1000);
    a->task->row->started_wall_ms = core->wall_ms;
    a->task->row->refused_count = 0;
    task_move(core, a->task, MOVE_RUN, "", ACTOR_SCHEDULER);
}

static void take_result(struct core *core, struct attempt *a, const Mu__AttemptReport *r)
{
    Mu__Attempt *row = a->row;
    Mu__Task *task = a->task->row;
    bool good = r->exit_code == 0 && r->exit_signal == 0 && r->failure == FAIL(NONE);
    if (row->ended)
        return;
    row->exit_code = r->exit_code;
    row->exit_signal = r->exit_signal;
    attempt_touch(core, a);
    /* After we told it to end, a bad result is our own doing; a good one was under way. */
    if (row->state == ATTEMPT(ENDING) && !good)
        return;
    row->ended = true;
    row->failure = r->failure;
    message_set(&row->message, r->message);
    if (!task->started_wall_ms && r->failure != FAIL(SETUP))
        task->started_wall_ms = core->wall_ms;
    task_touch(core, a->task);
}

/* The node's share is over. Unless the attempt was ending anyway, that tells something. */
static void report_released(struct core *core, struct attempt *a, struct part *part,
                            const Mu__AttemptReport *r)
{
    bool first = part == &a->parts[0];
    if (!part->open)
        return;
    if (first && r->has_result)
        take_result(core, a, r);
    else if (a->row->state != ATTEMPT(ENDING) && !*a->row->message)
        message_setf(&a->row->message, "node %s: %s", part->row->node,
                     *r->message ? r->message : "the task ended there without a result");
    part_over(core, part, ANODE(RELEASED));
    attempt_end(core, a, 0);
    attempt_settle(core, a);
}

/* Nothing is there now, but an order that was sent twice may still be under way to the node: only
 * its answer to the order to end, which comes after that, makes its cores free. */
static void report_refused(struct core *core, struct attempt *a, struct part *part,
                           const Mu__AttemptReport *r)
{
    if (part->row->state != ANODE(PREPARE) || a->row->state != ATTEMPT(PREPARING))
        return;
    a->row->prepare_failed = true;
    a->row->failure = r->failure;
    message_setf(&a->row->message, "node %s: %s", part->row->node,
                 *r->message ? r->message : "could not prepare the task");
    attempt_end(core, a, 0);
    attempt_settle(core, a);
}

/* An attempt that we do not know, or not on that node: it is to end and be forgotten. */
static void report_unknown(struct core *core, const struct node *node, const Mu__AttemptReport *r)
{
    bool over = r->phase == PHASE(RELEASED) || r->phase == PHASE(REFUSED);
    effect_add(&core->effects, over ? EFFECT_FORGET : EFFECT_END, node->row->name, r->attempt, 0);
}

static void take_usage(struct core *core, struct attempt *a, const Mu__AttemptReport *r)
{
    Mu__Task *task = a->task->row;
    if (r->output_total > task->output_bytes || r->cpu_ms > task->cpu_ms) {
        task->output_bytes = r->output_total > task->output_bytes ? r->output_total : task->output_bytes;
        task->cpu_ms = r->cpu_ms > task->cpu_ms ? r->cpu_ms : task->cpu_ms;
        task_touch(core, a->task);
    }
}

void attempt_report(struct core *core, struct node *node, const Mu__AttemptReport *r)
{
    struct attempt *a = attempt_find(core, r->attempt);
    struct part *part = a ? part_of(a, node) : NULL;
    if (!part || !part->open) {
        /* Known but over on this node: the folder is forgotten when the attempt is done. */
        if (!part || part->row->state == ANODE(LOST))
            report_unknown(core, node, r);
        return;
    }
    if (r->phase == PHASE(ENDED) || r->phase == PHASE(RELEASED))
        take_usage(core, a, r);
    switch (r->phase) {
    case PHASE(REFUSED):
        report_refused(core, a, part, r);
        break;
    case PHASE(PREPARED):
        report_prepared(core, a, part);
        break;
    case PHASE(RUNNING):
        report_running(core, a, part);
        break;
    case PHASE(ENDED):
        if (part != &a->parts[0] || a->row->ended || !r->has_result)
            break;
        take_result(core, a, r);
        attempt_end(core, a, 0);
        attempt_settle(core, a);
        break;
    case PHASE(RELEASED):
        report_released(core, a, part, r);
        break;
    default: /* a phase of a later version: nothing that we can act on */
        break;
    }
}
