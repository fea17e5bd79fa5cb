/* job.c - muster job: submit, new, add, view, list, listtasks, cancel, requeue.
 *
 * What scripts parse is worded as HPC Pack words it: "Job has been submitted. ID: 12.",
 * "Created job, ID: 12", "State                            : Running".
 */
#include "base/clock.h"
#include "base/mem.h"
#include "cli/command.h"
#include "cli/nodeset.h"
#include "cli/print.h"
#include "cli/show.h"
#include "cli/spec.h"
#include "cli/wait.h"
#include "model/names.h"
#include "model/priority.h"
#include "model/states.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- submit, new, add ---- */

struct submit_args {
    struct job_options job;
    struct task_options task;
    const char *id;
    bool wait, follow;
};

static const struct option submit_option_table[] = {
    {"id", NULL, "JOB", "Queue this job, made by 'muster job new', instead of making one", option_text,
     offsetof(struct submit_args, id), 0, 0},
    {"wait", NULL, NULL, "Wait for the end, showing progress; return the job's exit code", option_flag,
     offsetof(struct submit_args, wait), 0, 0},
    {"follow", "f", NULL, "As --wait, and print the output as it comes", option_flag,
     offsetof(struct submit_args, follow), 0, 0},
    {0},
};

static const struct option_group submit_groups[] = {
    {"Options", submit_option_table, 0},
    {"Job options", job_option_table, offsetof(struct submit_args, job)},
    {"Task options", task_option_table, offsetof(struct submit_args, task)},
    {NULL, NULL, 0},
};

static const struct example submit_examples[] = {
    {"muster job submit --numnodes 4 --wait mpiexec ./solver case.inp",
     "Run an MPI program on four nodes, and wait"},
    {"job submit /nodegroup:azurenodes /numnodes:4 mpiexec -c 1 mpipingpong -op nul",
     "As typed for HPC Pack"},
    {"muster job submit --numcores 1-8 --jobname sweep 'for i in 1 2 3; do ./run $i; done'",
     "One word is a command line for the shell"},
    {NULL, NULL},
};

/* Sends job_create and prints nothing. The reply's job goes to *info (client_reply_free(*reply)). */
static int create_job(struct context *ctx, const struct job_options *options, Mu__TaskSpec *task, bool submit,
                      Mu__Reply **reply, struct error *err)
{
    Mu__JobSpec spec;
    Mu__JobCreate body = MU__JOB_CREATE__INIT;
    Mu__Request req = MU__REQUEST__INIT;
    if (spec_job(options, &spec, err))
        return -1;
    body.spec = &spec;
    body.n_tasks = task ? 1 : 0;
    body.tasks = &task;
    body.submit = submit;
    req.kind_case = MU__REQUEST__KIND_JOB_CREATE;
    req.job_create = &body;
    return call_job(ctx, &req, reply, err);
}

/* --id stands alone; without it there must be a command. */
static int check_submit(const struct submit_args *a, const struct words *words, struct error *err)
{
    if (!a->id && !words->count)
        return error_set(err, ERR_USAGE, "the command to run is missing; or name a job with --id");
    if (a->id && words->count)
        return error_set(err, ERR_USAGE,
                         "option --id: \"%s\": expected no command beside it, but there is \"%s\"",
                         shown(a->id), shown(words->list[0]));
    if (a->id && spec_given(&a->job, &a->task))
        return error_set(
            err, ERR_USAGE,
            "option --id: \"%s\": changing a job's options as it is submitted is not supported in this "
            "version",
            shown(a->id));
    return 0;
}

static int queue_job(struct context *ctx, const struct submit_args *a, const struct words *words,
                     Mu__Reply **reply, struct error *err)
{
    Mu__TaskSpec task;
    Mu__JobSubmit body = MU__JOB_SUBMIT__INIT;
    Mu__Request req = MU__REQUEST__INIT;
    if (check_submit(a, words, err))
        return -1;
    if (!a->id)
        return spec_task(&a->task, words, 0, &task, err) ? -1
                                                         : create_job(ctx, &a->job, &task, true, reply, err);
    if (read_job_id(a->id, &body.job_id, err)) {
        error_prefix(err, "option --id");
        return -1;
    }
    req.kind_case = MU__REQUEST__KIND_JOB_SUBMIT;
    req.job_submit = &body;
    return call_job(ctx, &req, reply, err);
}

/* " after 0.3 s", " after 1:05"; "" for a job that never ran. */
static const char *ran_for(const Mu__Job *job)
{
    int64_t ms = job->ended_wall_ms - job->started_wall_ms;
    if (!job->started_wall_ms)
        return "";
    if (ms < 60000)
        return cli_keep(xasprintf(" after %.1f s", (double)(ms < 0 ? 0 : ms) / 1000));
    return cli_keep(xasprintf(" after %s", elapsed_text(ms)));
}

/* After the end: says on stderr what became of it, and where to look. */
static int report_end(struct context *ctx, const Mu__Job *job, bool followed)
{
    int code = job_exit_code(job);
    bool good = job->state == MU__JOB_STATE__JOB_STATE_FINISHED;
    if (ctx->json)
        return code;
    fflush(stdout);
    if (!good)
        fprintf(stderr, "%s: job %" PRIu64 " %s%s%s\n", ctx->program, job->id,
                job->state == MU__JOB_STATE__JOB_STATE_CANCELED ? "was cancelled" : "failed",
                *job->message ? ": " : "", shown_long(job->message));
    if (!followed)
        fprintf(stderr, "Job %" PRIu64 " %s%s; its %s: muster %s %" PRIu64 "%s\n", job->id,
                good ? "has finished" : "has ended", ran_for(job), job->tasks_total > 1 ? "tasks" : "output",
                job->tasks_total > 1 ? "job listtasks" : "task view", job->id,
                job->tasks_total > 1 ? "" : ".1");
    return code;
}

static int run_submit(struct context *ctx, void *args, const struct words *words)
{
    struct submit_args *a = args;
    struct error err = {0};
    Mu__Reply *reply, *end = NULL;
    if (a->follow && ctx->json)
        return context_usage(ctx, "options --follow and --json: expected one of them");
    if (a->follow && a->id)
        return context_usage(ctx, "options --follow and --id: expected one of them");
    if (queue_job(ctx, a, words, &reply, &err))
        return context_fail(ctx, &err);
    uint64_t id = reply->job->info->job->id;
    bool wait = a->wait || a->follow;
    if (!ctx->json) { /* with --follow, stdout is the output's */
        fprintf(a->follow ? stderr : stdout, "Job has been submitted. ID: %" PRIu64 ".\n", id);
        fflush(stdout);
    }
    if (!wait) {
        if (ctx->json)
            json_print(job_json(reply->job->info));
        client_reply_free(reply);
        return EXIT_OK;
    }
    client_reply_free(reply);
    if (wait_job(ctx, id, a->follow ? 1 : 0, &end, &err))
        return context_fail(ctx, &err);
    if (ctx->json)
        json_print(job_json(end->job->info));
    int code = report_end(ctx, end->job->info->job, a->follow);
    client_reply_free(end);
    return code;
}

static const struct option_group new_groups[] = {
    {"Job options", job_option_table, 0},
    {NULL, NULL, 0},
};

static const struct example new_examples[] = {
    {"muster job new --numcores 8 --jobname nightly",
     "Make a job; it waits for its tasks and for submission"},
    {NULL, NULL},
};

static int run_new(struct context *ctx, void *args, const struct words *words)
{
    struct error err = {0};
    Mu__Reply *reply;
    if (create_job(ctx, args, NULL, false, &reply, &err))
        return context_fail(ctx, &err);
    if (ctx->json)
        json_print(job_json(reply->job->info));
    else
        printf("Created job, ID: %" PRIu64 "\n", reply->job->info->job->id);
    client_reply_free(reply);
    return EXIT_OK;
}

static const struct option_group add_groups[] = {
    {"Task options", task_option_table, 0},
    {NULL, task_size_table, 0},
    {NULL, NULL, 0},
};

static const struct example add_examples[] = {
    {"muster job add 12 --name mesh --numcores 2 ./mesh part1", "Add a task to job 12"},
    {NULL, NULL},
};

/* The unit of a task is its job's: a request in the other one is refused, not reinterpreted. */
static int check_unit(struct context *ctx, uint64_t job, const struct task_options *o, struct error *err)
{
    Mu__Reply *reply;
    if (!o->cores.given && !o->nodes.given)
        return 0;
    if (get_job(ctx, job, false, &reply, err))
        return -1;
    bool nodes = reply->job->info->job->spec->unit == MU__UNIT_TYPE__UNIT_NODE;
    client_reply_free(reply);
    if (nodes != o->nodes.given)
        return error_set(err, ERR_USAGE, "option %s: job %" PRIu64 " counts %s: expected %s",
                         o->nodes.given ? "--numnodes" : "--numcores", job, nodes ? "nodes" : "cores",
                         nodes ? "--numnodes" : "--numcores");
    return 0;
}

static int run_add(struct context *ctx, void *args, const struct words *words)
{
    const struct task_options *o = args;
    struct error err = {0};
    Mu__TaskSpec task, *tasks = &task;
    Mu__JobAdd body = MU__JOB_ADD__INIT;
    Mu__Request req = MU__REQUEST__INIT;
    Mu__Reply *reply;
    if (read_job_id(words->list[0], &body.job_id, &err) || spec_task(o, words, 1, &task, &err) ||
        check_unit(ctx, body.job_id, o, &err))
        return context_fail(ctx, &err);
    body.n_tasks = 1;
    body.tasks = &tasks;
    req.kind_case = MU__REQUEST__KIND_JOB_ADD;
    req.job_add = &body;
    if (call_job(ctx, &req, &reply, &err))
        return context_fail(ctx, &err);
    uint32_t id = reply->job->n_task_ids ? reply->job->task_ids[0] : reply->job->info->job->last_task;
    if (ctx->json)
        json_print(json_pack("{s:I, s:i}", "job", (json_int_t)body.job_id, "task", (int)id));
    else
        printf("Task %" PRIu64 ".%u added.\n", body.job_id, id);
    client_reply_free(reply);
    return EXIT_OK;
}

/* ---- view ---- */

struct view_args {
    bool detailed, history;
};

static const struct option view_options[] = {
    {"detailed", NULL, NULL, "All properties, and the tasks", option_flag,
     offsetof(struct view_args, detailed), 0, 0},
    {"history", NULL, NULL, "What happened to it, in order", option_flag, offsetof(struct view_args, history),
     0, 0},
    {0},
};
static const struct option_group view_groups[] = {{"Options", view_options, 0}, {NULL, NULL, 0}};
static const struct example view_examples[] = {
    {"muster job view 12", "State, size, nodes, times, and why it waits or failed"},
    {"muster job view 12 --history", "What happened to it"},
    {NULL, NULL},
};

static void task_to_json(void *arg, const Mu__Task *task)
{
    json_array_append_new(arg, task_json(task, ""));
}

static void task_to_text(void *arg, const Mu__Task *task)
{
    putchar('\n');
    show_task(task, "", true);
}

static int view_json(struct context *ctx, const struct view_args *a, const Mu__JobReply *r)
{
    struct error err = {0};
    json_t *value = job_json(r->info);
    if (a->history)
        json_object_set_new(value, "history", events_json(r->history, r->n_history));
    if (a->detailed) {
        json_t *tasks = json_array();
        json_object_set_new(value, "task_list", tasks);
        if (each_task_of(ctx, r->info->job->id, task_to_json, tasks, &err)) {
            json_decref(value);
            return context_fail(ctx, &err);
        }
    }
    return json_print(value);
}

static int view_text(struct context *ctx, const struct view_args *a, const Mu__JobReply *r)
{
    struct error err = {0};
    if (!a->history || a->detailed)
        show_job(r->info, a->detailed);
    if (a->detailed && each_task_of(ctx, r->info->job->id, task_to_text, NULL, &err))
        return context_fail(ctx, &err);
    if (a->history && a->detailed)
        putchar('\n');
    if (a->history)
        show_history(r->history, r->n_history);
    return EXIT_OK;
}

static int run_view(struct context *ctx, void *args, const struct words *words)
{
    const struct view_args *a = args;
    struct error err = {0};
    Mu__Reply *reply;
    uint64_t id;
    if (read_job_id(words->list[0], &id, &err) || get_job(ctx, id, a->history, &reply, &err))
        return context_fail(ctx, &err);
    int rc = ctx->json ? view_json(ctx, a, reply->job) : view_text(ctx, a, reply->job);
    client_reply_free(reply);
    return rc;
}

/* ---- list ---- */

#define STATES_MAX 16

struct job_states {
    Mu__JobState list[STATES_MAX];
    size_t count;
};

struct list_args {
    bool all;
    enum list_format format;
    const char *name, *project, *user;
    struct job_states states;
    uint32_t limit, submit_days;
};

static int option_job_states(const struct option *opt, void *field, const char *value, struct error *err)
{
    struct job_states *states = field;
    struct words names = {0};
    if (option_names(&(struct option){.max = STATES_MAX}, &names, value, err))
        return -1;
    for (size_t i = 0; i < names.count && states->count < STATES_MAX; i++) {
        int state = job_state_parse(names.list[i]);
        if (!state)
            return error_set(
                err, ERR_USAGE,
                "expected states separated by commas: Configuring, Queued, Running, Finishing, Finished, "
                "Failed, Canceled, Canceling");
        states->list[states->count++] = (Mu__JobState)state;
    }
    return 0;
}

static const struct option list_options[] = {
    {"all", "a", NULL, "Jobs of every state and of all users", option_flag, offsetof(struct list_args, all),
     0, 0},
    {"state", "status", "STATES", "Only jobs in these states, separated by commas", option_job_states,
     offsetof(struct list_args, states), 0, 0},
    {"user", NULL, "NAME", "Jobs of this user; * for all users", option_text,
     offsetof(struct list_args, user), 0, 256},
    {"jobname", NULL, "NAME", "Jobs of this name; a closing * stands for any ending", option_text,
     offsetof(struct list_args, name), 0, JOB_NAME_MAX},
    {"project", NULL, "NAME", "Jobs of this project", option_text, offsetof(struct list_args, project), 0,
     JOB_NAME_MAX},
    {"submittime", NULL, "DAYS", "Jobs submitted in the last days", option_number,
     offsetof(struct list_args, submit_days), 1, 100000},
    {"limit", NULL, "N", "At most this many, the newest", option_number, offsetof(struct list_args, limit), 1,
     10000},
    {"format", NULL, "list|table", "How to print; default table", option_format,
     offsetof(struct list_args, format), 0, 0},
    {"jobtemplate", NULL, "NAME", NULL, NULL, 0, 0, 0},
    {"pool", NULL, "NAME", NULL, NULL, 0, 0, 0},
    {0},
};
static const struct option_group list_groups[] = {{"Options", list_options, 0}, {NULL, NULL, 0}};
static const struct example list_examples[] = {
    {"muster job list", "Your jobs that wait or run"},
    {"muster job list --all --limit 20", "The 20 newest jobs of everybody"},
    {NULL, NULL},
};

/* What the head cannot filter by. */
static bool job_wanted(const struct list_args *a, const Mu__Job *job)
{
    if (a->project && strcasecmp(a->project, job->spec->project))
        return false;
    return !a->submit_days || job->submitted_wall_ms >= clock_wall_ms() - (int64_t)a->submit_days * 86400000;
}

static const struct column job_columns[] = {
    {"ID", true, FIT_KEEP},          {"Name", false, FIT_SHORTEN},  {"Owner", false, FIT_SHORTEN},
    {"State", false, FIT_KEEP},      {"Priority", false, FIT_DROP}, {"Size", false, FIT_KEEP},
    {"Nodes", false, FIT_SHORTEN},   {"Tasks", true, FIT_DROP},     {"Submitted", false, FIT_DROP},
    {"Reason", false, FIT_SENTENCE}, {NULL, false, FIT_KEEP},
};

static void job_row(struct table *t, const Mu__JobInfo *info)
{
    const Mu__Job *job = info->job;
    char priority[32];
    table_addf(t, "%" PRIu64, job->id);
    table_add(t, job->spec->name);
    table_add(t, job->owner->name);
    table_add(t, job_state_name(job->state));
    table_add(t, priority_format(job->spec->priority, priority, sizeof priority));
    table_add(t, units_text(job->spec));
    table_add(t, allocation_nodes(job->allocation, job->n_allocation));
    table_addf(t, "%u/%u", job->tasks_finished + job->tasks_failed + job->tasks_canceled, job->tasks_total);
    table_add(t, time_text(job->submitted_wall_ms));
    table_add(t, *info->pending_reason ? info->pending_reason : job->message);
}

static void list_request(const struct list_args *a, Mu__JobList *body)
{
    static Mu__JobState waiting[] = {MU__JOB_STATE__JOB_STATE_QUEUED, MU__JOB_STATE__JOB_STATE_RUNNING};
    *body = (Mu__JobList)MU__JOB_LIST__INIT;
    body->states = a->states.count ? (Mu__JobState *)a->states.list : a->all ? NULL : waiting;
    body->n_states = a->states.count ? a->states.count : a->all ? 0 : 2;
    body->owner = (char *)(a->user && strcmp(a->user, "*") ? a->user : "");
    body->own = !a->user && !a->all;
    body->name = (char *)(a->name && strcmp(a->name, "*") ? a->name : "");
    body->limit = a->limit;
}

/* Asks until all pages are there: the head gives the newest jobs first, `take` gets them oldest first. */
static int list_jobs(struct context *ctx, const struct list_args *a,
                     void (*take)(void *arg, const Mu__JobInfo *info), void *arg, struct error *err)
{
    Mu__Reply **pages = NULL;
    size_t count = 0, cap = 0;
    Mu__JobList body;
    Mu__Request req = MU__REQUEST__INIT;
    bool more = true;
    int rc = 0;
    list_request(a, &body);
    req.kind_case = MU__REQUEST__KIND_JOB_LIST;
    req.job_list = &body;
    while (more && !rc) {
        Mu__Reply *reply;
        if ((rc = context_call(ctx, &req, &reply, err)))
            break;
        pages = xgrow(pages, &cap, count + 1, sizeof(void *));
        pages[count++] = reply;
        if (reply->kind_case != MU__REPLY__KIND_JOBS) {
            rc = error_set(err, ERR_PROTOCOL, "the head's answer has no jobs in it");
            break;
        }
        size_t n = reply->jobs->n_jobs;
        more = reply->jobs->more && n && !a->limit;
        body.after_id = n ? reply->jobs->jobs[n - 1]->job->id : 0;
    }
    while (count) {
        Mu__Reply *reply = pages[--count];
        for (size_t i = rc ? 0 : reply->jobs->n_jobs; i-- > 0;)
            if (job_wanted(a, reply->jobs->jobs[i]->job))
                take(arg, reply->jobs->jobs[i]);
        client_reply_free(reply);
    }
    free(pages);
    return rc;
}

static void take_row(void *arg, const Mu__JobInfo *info)
{
    job_row(arg, info);
}

static void take_json(void *arg, const Mu__JobInfo *info)
{
    json_array_append_new(arg, job_json(info));
}

static int run_list(struct context *ctx, void *args, const struct words *words)
{
    const struct list_args *a = args;
    struct error err = {0};
    if (ctx->json) {
        json_t *array = json_array();
        if (list_jobs(ctx, a, take_json, array, &err)) {
            json_decref(array);
            return context_fail(ctx, &err);
        }
        return json_print(array);
    }
    struct table *t = table_new(job_columns);
    if (list_jobs(ctx, a, take_row, t, &err)) {
        table_free(t);
        return context_fail(ctx, &err);
    }
    table_print(ctx, t, a->format == FORMAT_LIST, 3);
    return EXIT_OK;
}

/* ---- listtasks ---- */

struct listtasks_args {
    enum list_format format;
    struct words states;
};

static int option_task_states(const struct option *opt, void *field, const char *value, struct error *err)
{
    struct words *names = field;
    if (option_names(&(struct option){.max = STATES_MAX}, names, value, err))
        return -1;
    for (size_t i = 0; i < names->count; i++)
        if (strcasecmp(names->list[i], "all") && !task_state_parse(names->list[i]))
            return error_set(
                err, ERR_USAGE,
                "expected states separated by commas: All, Configuring, Queued, Dispatching, Running, "
                "Finished, Failed, Canceled");
    return 0;
}

static const struct option listtasks_options[] = {
    {"state", "status", "STATES", "Only tasks in these states, separated by commas; All", option_task_states,
     offsetof(struct listtasks_args, states), 0, 0},
    {"format", NULL, "list|table", "How to print; default list", option_format,
     offsetof(struct listtasks_args, format), 0, 0},
    {"expand", NULL, NULL, NULL, NULL, 0, 0, 0},
    {0},
};
static const struct option_group listtasks_groups[] = {{"Options", listtasks_options, 0}, {NULL, NULL, 0}};
static const struct example listtasks_examples[] = {
    {"muster job listtasks 12 --format table", "The tasks of job 12, one a line"},
    {NULL, NULL},
};

static bool task_wanted(const struct words *states, const Mu__Task *task)
{
    if (!states->count)
        return true;
    for (size_t i = 0; i < states->count; i++)
        if (!strcasecmp(states->list[i], "all") || task_state_parse(states->list[i]) == (int)task->state)
            return true;
    return false;
}

static const struct column task_columns[] = {
    {"Task ID", false, FIT_KEEP},     {"Name", false, FIT_SHORTEN},  {"State", false, FIT_KEEP},
    {"Nodes", false, FIT_SHORTEN},    {"Exit Code", true, FIT_KEEP}, {"Command Line", false, FIT_SHORTEN},
    {"Message", false, FIT_SENTENCE}, {NULL, false, FIT_KEEP},
};

static void task_row(struct table *t, const Mu__Task *task)
{
    table_addf(t, "%" PRIu64 ".%u", task->job_id, task->id);
    table_add(t, task->spec->name);
    table_add(t, task_state_name(task->state));
    table_add(t, allocation_nodes(task->allocation, task->n_allocation));
    table_add(t, task_exit_text(task));
    table_add(t, task->spec->command_line);
    table_add(t, task->message);
}

/* Where the tasks go: a table, JSON, or straight to the screen as a list. */
struct task_sink {
    const struct listtasks_args *args;
    struct table *table;
    json_t *array;
    bool any;
};

static void take_task(void *arg, const Mu__Task *task)
{
    struct task_sink *sink = arg;
    if (!task_wanted(&sink->args->states, task))
        return;
    if (sink->array) {
        json_array_append_new(sink->array, task_json(task, ""));
    } else if (sink->table) {
        task_row(sink->table, task);
    } else {
        if (sink->any)
            putchar('\n');
        show_task(task, "", false);
    }
    sink->any = true;
}

static int run_listtasks(struct context *ctx, void *args, const struct words *words)
{
    const struct listtasks_args *a = args;
    struct task_sink sink = {.args = a};
    struct error err = {0};
    uint64_t id;
    if (read_job_id(words->list[0], &id, &err))
        return context_fail(ctx, &err);
    if (ctx->json)
        sink.array = json_array();
    else if (a->format == FORMAT_TABLE)
        sink.table = table_new(task_columns);
    if (each_task_of(ctx, id, take_task, &sink, &err)) {
        json_decref(sink.array);
        table_free(sink.table);
        return context_fail(ctx, &err);
    }
    if (sink.array)
        return json_print(sink.array);
    if (sink.table)
        table_print(ctx, sink.table, false, 2);
    return EXIT_OK;
}

/* ---- cancel, requeue ---- */

struct cancel_args {
    bool force;
    const char *message;
};

static const struct option cancel_options[] = {
    {"force", NULL, NULL, "At once, without the grace period", option_flag,
     offsetof(struct cancel_args, force), 0, 0},
    {"message", NULL, "TEXT", "Why; kept with the job", option_text, offsetof(struct cancel_args, message), 0,
     MESSAGE_MAX},
    {"graceful", NULL, NULL, NULL, NULL, 0, 0, 0},
    {0},
};
static const struct option_group cancel_groups[] = {{"Options", cancel_options, 0}, {NULL, NULL, 0}};
static const struct example cancel_examples[] = {
    {"muster job cancel 12 13 --message \"wrong input\"", "Cancel two jobs"},
    {NULL, NULL},
};
static const struct example requeue_examples[] = {
    {"muster job requeue 12", "Put a failed or cancelled job back into the queue"},
    {NULL, NULL},
};

/* Does `verb` to each job named; the ids are all read before the first is touched. */
static int each_job(struct context *ctx, const struct words *words, const struct cancel_args *cancel,
                    const char *done_text)
{
    struct error err = {0};
    int rc = EXIT_OK;
    uint64_t id;
    for (size_t i = 0; i < words->count; i++)
        if (read_job_id(words->list[i], &id, &err))
            return context_fail(ctx, &err);
    json_t *array = json_array();
    for (size_t i = 0; i < words->count; i++) {
        Mu__Request req = MU__REQUEST__INIT;
        Mu__JobCancel c = MU__JOB_CANCEL__INIT;
        Mu__JobRequeue q = MU__JOB_REQUEUE__INIT;
        Mu__Reply *reply;
        read_job_id(words->list[i], &id, &err);
        c.job_id = q.job_id = id;
        if (cancel) {
            c.force = cancel->force;
            c.message = (char *)(cancel->message ? cancel->message : "");
            req.kind_case = MU__REQUEST__KIND_JOB_CANCEL;
            req.job_cancel = &c;
        } else {
            req.kind_case = MU__REQUEST__KIND_JOB_REQUEUE;
            req.job_requeue = &q;
        }
        if (call_job(ctx, &req, &reply, &err)) {
            int code = context_fail(ctx, &err);
            rc = rc == EXIT_OK ? code : rc;
            continue;
        }
        if (ctx->json)
            json_array_append_new(array, job_json(reply->job->info));
        else
            printf("Job %" PRIu64 " %s.\n", id, done_text);
        client_reply_free(reply);
    }
    if (ctx->json)
        json_print(array);
    else
        json_decref(array);
    return rc;
}

static int run_cancel(struct context *ctx, void *args, const struct words *words)
{
    return each_job(ctx, words, args, "is being canceled");
}

static int run_requeue(struct context *ctx, void *args, const struct words *words)
{
    return each_job(ctx, words, NULL, "has been requeued");
}

/* ---- the noun ---- */

static const struct command commands[] = {
    {"submit", "[options] COMMAND [ARG...]\n[options] --id JOB",
     "make a one-task job and queue it, or queue a job",
     "One word after the options is a command line as it is, for the shell if it has shell syntax; several "
     "words are "
     "a command and its arguments, kept exactly. The task runs on the first node of the job's; mpiexec in it "
     "starts "
     "processes on all of them. Prints \"Job has been submitted. ID: 12.\".",
     submit_groups, submit_examples, sizeof(struct submit_args), 0, -1, NULL, 0, true, false, run_submit},
    {"new", "[options]", "make a job without tasks", "Prints \"Created job, ID: 12\".", new_groups,
     new_examples, sizeof(struct job_options), 0, 0, NULL, -1, true, false, run_new},
    {"add", "JOB [options] COMMAND [ARG...]", "add a task to a job", NULL, add_groups, add_examples,
     sizeof(struct task_options), 2, -1, "the job id or the command", 1, true, false, run_add},
    {"view", "JOB [options]", "show one job", NULL, view_groups, view_examples, sizeof(struct view_args), 1,
     1, "the job id", -1, true, false, run_view},
    {"list", "[options]", "list jobs", "Without options: your own jobs that are queued or running.",
     list_groups, list_examples, sizeof(struct list_args), 0, 0, NULL, -1, true, false, run_list},
    {"listtasks", "JOB [options]", "list the tasks of a job", NULL, listtasks_groups, listtasks_examples,
     sizeof(struct listtasks_args), 1, 1, "the job id", -1, true, false, run_listtasks},
    {"cancel", "JOB... [options]", "cancel jobs", NULL, cancel_groups, cancel_examples,
     sizeof(struct cancel_args), 1, -1, "the job id", -1, true, false, run_cancel},
    {"requeue", "JOB...", "put jobs back into the queue",
     "A running job is ended first. Tasks that have finished stay finished.", NULL, requeue_examples, 0, 1,
     -1, "the job id", -1, true, false, run_requeue},
    {0},
};

const struct noun job_noun = {
    "job",
    NULL,
    "submit jobs and see what becomes of them",
    "A job asks for nodes or cores and holds its tasks, each a command line.",
    commands,
    false,
    "modify finish clone copy",
    "muster(1), muster-task(1), muster-node(1), mpiexec(1)",
};
