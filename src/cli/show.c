/* show.c - one place for how a job and a task look, as text and as JSON. */
#include "cli/show.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cli/print.h"
#include "model/priority.h"
#include "model/states.h"

#include <inttypes.h>
#include <string.h>

/* ---- calls ---- */

int call_job(struct context *ctx, Mu__Request *req, Mu__Reply **reply, struct error *err)
{
    if (context_call(ctx, req, reply, err))
        return -1;
    const Mu__Reply *r = *reply;
    if (r->kind_case == MU__REPLY__KIND_JOB && r->job->info && r->job->info->job && r->job->info->job->spec &&
        r->job->info->job->owner)
        return 0;
    client_reply_free(*reply);
    *reply = NULL;
    error_set(err, ERR_PROTOCOL, "the head's answer has no job in it");
    return -1; /* said so that static analysis sees it */
}

int call_task(struct context *ctx, Mu__Request *req, Mu__Reply **reply, struct error *err)
{
    if (context_call(ctx, req, reply, err))
        return -1;
    const Mu__Reply *r = *reply;
    if (r->kind_case == MU__REPLY__KIND_TASK && r->task->task && r->task->task->spec)
        return 0;
    client_reply_free(*reply);
    *reply = NULL;
    error_set(err, ERR_PROTOCOL, "the head's answer has no task in it");
    return -1; /* said so that static analysis sees it */
}

int get_job(struct context *ctx, uint64_t id, bool history, Mu__Reply **reply, struct error *err)
{
    Mu__JobGet body = MU__JOB_GET__INIT;
    Mu__Request req = MU__REQUEST__INIT;
    body.job_id = id;
    body.history = history;
    req.kind_case = MU__REQUEST__KIND_JOB_GET;
    req.job_get = &body;
    return call_job(ctx, &req, reply, err);
}

int each_task_of(struct context *ctx, uint64_t job, void (*take)(void *arg, const Mu__Task *task), void *arg,
                 struct error *err)
{
    Mu__JobGet body = MU__JOB_GET__INIT;
    Mu__Request req = MU__REQUEST__INIT;
    bool more = true;
    body.job_id = job;
    body.tasks = true;
    req.kind_case = MU__REQUEST__KIND_JOB_GET;
    req.job_get = &body;
    while (more) {
        Mu__Reply *reply;
        if (call_job(ctx, &req, &reply, err))
            return -1;
        for (size_t i = 0; i < reply->job->n_tasks; i++) {
            take(arg, reply->job->tasks[i]);
            body.after_task = reply->job->tasks[i]->id;
        }
        more = reply->job->more_tasks && reply->job->n_tasks;
        client_reply_free(reply);
    }
    return 0;
}

/* ---- text ---- */

static const char *runtime_text(uint32_t seconds)
{
    return seconds ? duration_text((int64_t)seconds * 1000) : "Infinite";
}

static const char *env_text(Mu__Env *const *env, size_t n)
{
    struct buf b = BUF_INIT;
    buf_adds(&b, "");
    for (size_t i = 0; i < n; i++)
        buf_addf(&b, "%s%s=%s", i ? ";" : "", env[i]->name, env[i]->value);
    return cli_keep(buf_detach(&b));
}

static size_t allocation_cores(Mu__NodeCores *const *list, size_t n)
{
    size_t cores = 0;
    for (size_t i = 0; i < n; i++)
        cores += list[i]->n_cores;
    return cores;
}

static const char *yes_no(bool on)
{
    return on ? "True" : "False";
}

/* Start to end; to now while it runs; "" before. */
static const char *elapsed(int64_t start, int64_t end)
{
    if (!start)
        return "";
    return duration_text((end ? end : clock_wall_ms()) - start);
}

void show_job(const Mu__JobInfo *info, bool detailed)
{
    const Mu__Job *job = info->job;
    const Mu__JobSpec *spec = job->spec;
    char priority[32];
    showf("Job ID", "%" PRIu64, job->id);
    show("Job Name", spec->name);
    show("State", job_state_name(job->state));
    if (*info->pending_reason)
        show("Pending Reason", info->pending_reason);
    if (*job->message)
        show("Message", job->message);
    show("Owner", job->owner->name);
    show("Priority", priority_format(spec->priority, priority, sizeof priority));
    show("Requested Resources", units_text(spec));
    if (spec->n_node_groups)
        show("Node Groups", join(spec->node_groups, spec->n_node_groups, ","));
    if (spec->n_requested_nodes)
        show("Requested Nodes", join(spec->requested_nodes, spec->n_requested_nodes, ","));
    show("Allocated Nodes", allocation_nodes(job->allocation, job->n_allocation));
    showf("Allocated Cores", "%zu", allocation_cores(job->allocation, job->n_allocation));
    showf("Tasks", "%u total, %u running, %u finished, %u failed, %u canceled", job->tasks_total,
          job->tasks_running, job->tasks_finished, job->tasks_failed, job->tasks_canceled);
    if (job_state_ended(job->state))
        showf("Exit Code", "%d", job->exit_code);
    show("Create Time", time_text(job->created_wall_ms));
    show("Submit Time", time_text(job->submitted_wall_ms));
    show("Start Time", time_text(job->started_wall_ms));
    show("End Time", time_text(job->ended_wall_ms));
    show("Elapsed Time", elapsed(job->started_wall_ms, job->ended_wall_ms));
    if (!detailed)
        return;
    show("Project", spec->project);
    show("Job Template", *spec->job_template ? spec->job_template : "Default");
    show("Job Type", spec->type == MU__JOB_TYPE__JOB_ADMIN ? "Admin" : "Batch");
    show("Exclusive", yes_no(spec->exclusive));
    show("Run Time", runtime_text(spec->runtime_s));
    show("Fail On Task Failure", yes_no(spec->fail_on_task_failure));
    showf("Task Retry Limit", "%u", spec->task_retry_limit);
    show("Environment", env_text(spec->env, spec->n_env));
    showf("Requeue Count", "%u", job->requeue_count);
    showf("Auto Requeue Count", "%u", job->auto_requeue_count);
    show("Change Time", time_text(job->changed_wall_ms));
}

const char *task_exit_text(const Mu__Task *task)
{
    if (!task_state_ended(task->state))
        return "";
    if (task->exit_signal)
        return cli_keep(xasprintf("signal %u", task->exit_signal));
    return cli_keep(xasprintf("%d", task->exit_code));
}

void show_task(const Mu__Task *task, const char *reason, bool detailed)
{
    const Mu__TaskSpec *spec = task->spec;
    showf("Task ID", "%" PRIu64 ".%u", task->job_id, task->id);
    show("Task Name", spec->name);
    show("State", task_state_name(task->state));
    if (*reason)
        show("Pending Reason", reason);
    if (*task->message)
        show("Message", task->message);
    show("Command Line", spec->command_line);
    show("Allocated Nodes", allocation_nodes(task->allocation, task->n_allocation));
    show("Exit Code", task_exit_text(task));
    show("Submit Time", time_text(task->submitted_wall_ms));
    show("Start Time", time_text(task->started_wall_ms));
    show("End Time", time_text(task->ended_wall_ms));
    show("Elapsed Time", elapsed(task->started_wall_ms, task->ended_wall_ms));
    if (!detailed)
        return;
    show("Work Directory", spec->work_dir);
    show("Standard Input", spec->stdin_path);
    show("Standard Output", spec->stdout_path);
    show("Standard Error", spec->stderr_path);
    showf("Allocated Cores", "%zu", allocation_cores(task->allocation, task->n_allocation));
    if (spec->n_required_nodes)
        show("Required Nodes", join(spec->required_nodes, spec->n_required_nodes, ","));
    show("Exclusive", yes_no(spec->exclusive));
    show("Rerunnable", yes_no(!spec->not_rerunnable));
    show("Run Time", runtime_text(spec->runtime_s));
    show("Environment", env_text(spec->env, spec->n_env));
    show("Failure Reason", task_failure_name(task->failure));
    show("Total CPU Time", duration_text(task->cpu_ms));
    showf("Output Bytes", "%" PRIu64, task->output_bytes);
    showf("Requeue Count", "%u", task->requeue_count);
    showf("Auto Requeue Count", "%u", task->auto_requeue_count);
    showf("Retry Count", "%u", task->retry_count);
}

/* "2 node1 4 node2 4" as lines, and one for those that the event does not name. */
static void history_nodes(const Mu__Event *e, bool started)
{
    char *text = cli_keep(xstrdup(e->nodes)), *rest = NULL, *word = strtok_r(text, " ", &rest), *cores;
    unsigned long left = word ? strtoul(word, NULL, 10) : 0;
    while ((word = strtok_r(NULL, " ", &rest)) && (cores = strtok_r(NULL, " ", &rest))) {
        printf("%s  %s on %s", time_text(e->wall_ms), started ? "Started" : "Ended", shown(word));
        if (started)
            printf(" with %s cores", shown(cores));
        putchar('\n');
        left -= left > 0;
    }
    if (left)
        printf("%s  %s on %lu more nodes\n", time_text(e->wall_ms), started ? "Started" : "Ended", left);
}

/* The lines that HPC Pack has, in its words; the others of ours follow the same form. */
static void history_job(const Mu__Event *e)
{
    const char *time = time_text(e->wall_ms), *cause = e->cause;
    bool ended = job_state_ended((int)e->state), forced = !strcmp(cause, "with force");
    if (ended || e->state == MU__JOB_STATE__JOB_STATE_QUEUED)
        history_nodes(e, false);
    if (!strcmp(e->what, "Created"))
        printf("%s  Created by %s\n", time, shown(e->actor));
    else if (!strcmp(e->what, "Submitted"))
        printf("%s  Submitted\n", time);
    else if (!strcmp(e->what, "Running"))
        printf("%s  Started\n", time);
    else if (!strcmp(e->what, "Cancel requested"))
        printf("%s  Cancel requested %sby %s\n", time, forced ? "with force " : "", shown(e->actor));
    else if (!strcmp(e->what, "Requeue requested"))
        printf("%s  Requeue requested by %s\n", time, shown(e->actor));
    else if (!strncmp(e->what, "Allocation ", 11))
        printf("%s  %s to %s\n", time, shown(e->what), shown(cause));
    else if (ended)
        printf("%s  Job %s\n", time, shown(e->what));
    else
        printf("%s  %s%s%s\n", time, shown_long(e->what), *cause ? ": " : "", shown_long(cause));
    if (!strcmp(e->what, "Running"))
        history_nodes(e, true);
}

void show_history(Mu__Event *const *events, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const Mu__Event *e = events[i];
        if (e->kind == MU__EVENT_KIND__EVENT_JOB) {
            history_job(e);
            continue;
        }
        printf("%s  %s", time_text(e->wall_ms), shown_long(e->what));
        if (e->kind == MU__EVENT_KIND__EVENT_TASK)
            printf(" (task %s)", shown(e->subject));
        if (*e->actor)
            printf(" by %s", shown(e->actor));
        if (*e->cause)
            printf(": %s", shown_long(e->cause));
        putchar('\n');
    }
}

/* ---- JSON ---- */

static json_t *number_or_null(int64_t n)
{
    return n ? json_integer(n) : json_null();
}

json_t *job_json(const Mu__JobInfo *info)
{
    const Mu__Job *job = info->job;
    const Mu__JobSpec *spec = job->spec;
    json_t *o = json_object();
    json_object_set_new(o, "id", json_integer((json_int_t)job->id));
    json_object_set_new(o, "name", json_text(spec->name));
    json_object_set_new(o, "project", json_text(spec->project));
    json_object_set_new(o, "owner", json_text(job->owner->name));
    json_object_set_new(o, "type", json_string(spec->type == MU__JOB_TYPE__JOB_ADMIN ? "Admin" : "Batch"));
    json_object_set_new(o, "state", json_string(job_state_name(job->state)));
    json_object_set_new(o, "pending_reason", json_text(info->pending_reason));
    json_object_set_new(o, "message", json_text(job->message));
    json_object_set_new(o, "priority", json_integer(spec->priority));
    json_object_set_new(o, "unit", json_string(spec->unit == MU__UNIT_TYPE__UNIT_NODE ? "node" : "core"));
    json_object_set_new(o, "min", number_or_null(spec->min_units));
    json_object_set_new(o, "max", number_or_null(spec->max_units));
    json_object_set_new(o, "node_groups", json_texts(spec->node_groups, spec->n_node_groups));
    json_object_set_new(o, "requested_nodes", json_texts(spec->requested_nodes, spec->n_requested_nodes));
    json_object_set_new(o, "exclusive", json_boolean(spec->exclusive));
    json_object_set_new(o, "runtime_s", number_or_null(spec->runtime_s));
    json_object_set_new(o, "fail_on_task_failure", json_boolean(spec->fail_on_task_failure));
    json_object_set_new(o, "task_retry_limit", json_integer(spec->task_retry_limit));
    json_object_set_new(o, "env", json_env(spec->env, spec->n_env));
    json_object_set_new(o, "created", json_time(job->created_wall_ms));
    json_object_set_new(o, "submitted", json_time(job->submitted_wall_ms));
    json_object_set_new(o, "started", json_time(job->started_wall_ms));
    json_object_set_new(o, "ended", json_time(job->ended_wall_ms));
    json_object_set_new(o, "changed", json_time(job->changed_wall_ms));
    json_object_set_new(o, "exit_code",
                        job_state_ended(job->state) ? json_integer(job->exit_code) : json_null());
    json_object_set_new(o, "requeue_count", json_integer(job->requeue_count));
    json_object_set_new(o, "auto_requeue_count", json_integer(job->auto_requeue_count));
    json_object_set_new(o, "allocation", json_allocation(job->allocation, job->n_allocation));
    json_object_set_new(o, "tasks",
                        json_pack("{s:i, s:i, s:i, s:i, s:i}", "total", (int)job->tasks_total, "running",
                                  (int)job->tasks_running, "finished", (int)job->tasks_finished, "failed",
                                  (int)job->tasks_failed, "canceled", (int)job->tasks_canceled));
    return o;
}

json_t *task_json(const Mu__Task *task, const char *reason)
{
    const Mu__TaskSpec *spec = task->spec;
    bool ended = task_state_ended(task->state);
    json_t *o = json_object();
    json_object_set_new(o, "job", json_integer((json_int_t)task->job_id));
    json_object_set_new(o, "task", json_integer(task->id));
    json_object_set_new(o, "name", json_text(spec->name));
    json_object_set_new(o, "state", json_string(task_state_name(task->state)));
    json_object_set_new(o, "pending_reason", json_text(reason));
    json_object_set_new(o, "message", json_text(task->message));
    json_object_set_new(o, "failure", json_string(task_failure_name(task->failure)));
    json_object_set_new(o, "exit_code", ended ? json_integer(task->exit_code) : json_null());
    json_object_set_new(o, "exit_signal", number_or_null(task->exit_signal));
    json_object_set_new(o, "command_line", json_text(spec->command_line));
    json_object_set_new(o, "work_dir", json_text(spec->work_dir));
    json_object_set_new(o, "stdin", json_text(spec->stdin_path));
    json_object_set_new(o, "stdout", json_text(spec->stdout_path));
    json_object_set_new(o, "stderr", json_text(spec->stderr_path));
    json_object_set_new(o, "min", number_or_null(spec->min_units));
    json_object_set_new(o, "max", number_or_null(spec->max_units));
    json_object_set_new(o, "required_nodes", json_texts(spec->required_nodes, spec->n_required_nodes));
    json_object_set_new(o, "runtime_s", number_or_null(spec->runtime_s));
    json_object_set_new(o, "exclusive", json_boolean(spec->exclusive));
    json_object_set_new(o, "rerunnable", json_boolean(!spec->not_rerunnable));
    json_object_set_new(o, "env", json_env(spec->env, spec->n_env));
    json_object_set_new(o, "created", json_time(task->created_wall_ms));
    json_object_set_new(o, "submitted", json_time(task->submitted_wall_ms));
    json_object_set_new(o, "started", json_time(task->started_wall_ms));
    json_object_set_new(o, "ended", json_time(task->ended_wall_ms));
    json_object_set_new(o, "allocation", json_allocation(task->allocation, task->n_allocation));
    json_object_set_new(o, "attempt", number_or_null((int64_t)task->attempt));
    json_object_set_new(o, "cpu_ms", json_integer(task->cpu_ms));
    json_object_set_new(o, "output_bytes", json_integer((json_int_t)task->output_bytes));
    json_object_set_new(o, "requeue_count", json_integer(task->requeue_count));
    json_object_set_new(o, "auto_requeue_count", json_integer(task->auto_requeue_count));
    json_object_set_new(o, "retry_count", json_integer(task->retry_count));
    return o;
}

json_t *events_json(Mu__Event *const *events, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        const Mu__Event *e = events[i];
        json_array_append_new(array,
                              json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "event", (json_int_t)e->seq,
                                        "time", json_time(e->wall_ms), "subject", json_text(e->subject),
                                        "what", json_text(e->what), "cause", json_text(e->cause), "actor",
                                        json_text(e->actor), "nodes", json_text(e->nodes)));
    }
    return array;
}
