/* task.c - muster task: view (with the whole output), cancel, requeue. */
#include "cli/command.h"
#include "cli/print.h"
#include "cli/show.h"
#include "cli/spec.h"
#include "cli/wait.h"
#include "model/names.h"
#include "model/states.h"

#include <inttypes.h>
#include <stddef.h>

/* ---- view ---- */

struct view_args {
    bool detailed, follow, output;
};

static const struct option view_options[] = {
    {"follow", "f", NULL, "Print the output alone, as it comes, until the task ends; return its exit code",
     option_flag, offsetof(struct view_args, follow), 0, 0},
    {"output", NULL, NULL, "Print the output alone", option_flag, offsetof(struct view_args, output), 0, 0},
    {"detailed", NULL, NULL, "All properties", option_flag, offsetof(struct view_args, detailed), 0, 0},
    {0},
};
static const struct option_group view_groups[] = {{"Options", view_options, 0}, {NULL, NULL, 0}};
static const struct example view_examples[] = {
    {"muster task view 12.1", "State, nodes, times, exit code, and all that it printed"},
    {"muster task view 12.1 --follow", "Its output as it comes"},
    {"muster task view 12.1 --output > result.txt", "Its output alone"},
    {NULL, NULL},
};

static int get_task(struct context *ctx, uint64_t job, uint32_t id, Mu__Reply **reply, struct error *err)
{
    Mu__TaskGet body = MU__TASK_GET__INIT;
    Mu__Request req = MU__REQUEST__INIT;
    body.job_id = job;
    body.task_id = id;
    req.kind_case = MU__REQUEST__KIND_TASK_GET;
    req.task_get = &body;
    return call_task(ctx, &req, reply, err);
}

static int task_exit_code(const Mu__Task *task)
{
    if (task->state == MU__TASK_STATE__TASK_STATE_FINISHED)
        return EXIT_OK;
    int code = task->exit_signal ? 128 + (int)task->exit_signal : task->exit_code & 0xff;
    return code ? code : EXIT_FAILED;
}

static int follow(struct context *ctx, uint64_t job, uint32_t id)
{
    struct error err = {0};
    const char *note = NULL;
    Mu__Reply *reply;
    if (print_output(ctx, job, id, true, NULL, &note, &err) || get_task(ctx, job, id, &reply, &err))
        return context_fail(ctx, &err);
    const Mu__Task *task = reply->task->task;
    int code = task_exit_code(task);
    if (note)
        fprintf(stderr, "%s: %s\n", ctx->program, shown_long(note));
    if (code && *task->message)
        fprintf(stderr, "%s: task %" PRIu64 ".%u %s: %s\n", ctx->program, job, id,
                task->state == MU__TASK_STATE__TASK_STATE_CANCELED ? "was cancelled" : "failed",
                shown_long(task->message));
    client_reply_free(reply);
    return code;
}

static int view_json(struct context *ctx, uint64_t job, uint32_t id, const Mu__TaskReply *r)
{
    struct error err = {0};
    struct buf data = BUF_INIT;
    uint64_t dropped = 0;
    const char *note = NULL;
    if (collect_output(ctx, job, id, &data, &dropped, &note, &err)) {
        buf_free(&data);
        return context_fail(ctx, &err);
    }
    json_t *value = task_json(r->task, r->pending_reason);
    json_object_set_new(value, "output", json_bytes(buf_str(&data), data.len));
    json_object_set_new(value, "output_dropped", json_integer((json_int_t)dropped));
    json_object_set_new(value, "output_note", json_text(note ? note : ""));
    buf_free(&data);
    return json_print(value);
}

static int view_text(struct context *ctx, uint64_t job, uint32_t id, const Mu__TaskReply *r,
                     const struct view_args *a)
{
    struct error err = {0};
    const char *note = NULL;
    uint64_t bytes = 0;
    if (!a->output) {
        show_task(r->task, r->pending_reason, a->detailed);
        show("Output", "");
    }
    if (print_output(ctx, job, id, false, &bytes, &note, &err))
        return context_fail(ctx, &err);
    if (note && !bytes) {
        fflush(stdout);
        fprintf(a->output ? stderr : stdout, "%s\n", shown_long(note));
    }
    return EXIT_OK;
}

static int run_view(struct context *ctx, void *args, const struct words *words)
{
    const struct view_args *a = args;
    struct error err = {0};
    uint64_t job;
    uint32_t id;
    Mu__Reply *reply;
    if (ctx->json && (a->follow || a->output))
        return context_usage(ctx, "options --json and %s: expected one of them",
                             a->follow ? "--follow" : "--output");
    if (read_task_id(words->list[0], &job, &id, &err) || get_task(ctx, job, id, &reply, &err))
        return context_fail(ctx, &err);
    int rc = a->follow   ? follow(ctx, job, id)
             : ctx->json ? view_json(ctx, job, id, reply->task)
                         : view_text(ctx, job, id, reply->task, a);
    client_reply_free(reply);
    return rc;
}

/* ---- cancel, requeue ---- */

struct cancel_args {
    bool force;
    const char *message;
};

static const struct option cancel_options[] = {
    {"force", NULL, NULL, "At once, without the grace period", option_flag,
     offsetof(struct cancel_args, force), 0, 0},
    {"message", NULL, "TEXT", "Why; kept with the task", option_text, offsetof(struct cancel_args, message),
     0, MESSAGE_MAX},
    {0},
};
static const struct option_group cancel_groups[] = {{"Options", cancel_options, 0}, {NULL, NULL, 0}};
static const struct example cancel_examples[] = {{"muster task cancel 12.1", "Cancel one task of job 12"},
                                                 {NULL, NULL}};
static const struct example requeue_examples[] = {
    {"muster task requeue 12.1", "Run a task again while its job runs"},
    {NULL, NULL},
};

/* All ids are read before the first task is touched. `cancel` NULL: requeue. */
static int each_task(struct context *ctx, const struct words *words, const struct cancel_args *cancel)
{
    struct error err = {0};
    int rc = EXIT_OK;
    uint64_t job;
    uint32_t id;
    for (size_t i = 0; i < words->count; i++)
        if (read_task_id(words->list[i], &job, &id, &err))
            return context_fail(ctx, &err);
    json_t *array = json_array();
    for (size_t i = 0; i < words->count; i++) {
        Mu__Request req = MU__REQUEST__INIT;
        Mu__TaskCancel c = MU__TASK_CANCEL__INIT;
        Mu__TaskRequeue q = MU__TASK_REQUEUE__INIT;
        Mu__Reply *reply;
        read_task_id(words->list[i], &job, &id, &err);
        c.job_id = q.job_id = job;
        c.task_id = q.task_id = id;
        if (cancel) {
            c.force = cancel->force;
            c.message = (char *)(cancel->message ? cancel->message : "");
            req.kind_case = MU__REQUEST__KIND_TASK_CANCEL;
            req.task_cancel = &c;
        } else {
            req.kind_case = MU__REQUEST__KIND_TASK_REQUEUE;
            req.task_requeue = &q;
        }
        if (call_task(ctx, &req, &reply, &err)) {
            int code = context_fail(ctx, &err);
            rc = rc == EXIT_OK ? code : rc;
            continue;
        }
        if (ctx->json)
            json_array_append_new(array, task_json(reply->task->task, reply->task->pending_reason));
        else
            printf("Task %" PRIu64 ".%u %s.\n", job, id, cancel ? "is being canceled" : "has been requeued");
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
    return each_task(ctx, words, args);
}

static int run_requeue(struct context *ctx, void *args, const struct words *words)
{
    return each_task(ctx, words, NULL);
}

static const struct command commands[] = {
    {"view", "JOB.TASK [options]", "show one task and its output", NULL, view_groups, view_examples,
     sizeof(struct view_args), 1, 1, "the task id", -1, true, false, run_view},
    {"cancel", "JOB.TASK... [options]", "cancel tasks",
     "A running task that is cancelled ends as Failed, a waiting one as Canceled.", cancel_groups,
     cancel_examples, sizeof(struct cancel_args), 1, -1, "the task id", -1, true, false, run_cancel},
    {"requeue", "JOB.TASK...", "run tasks again", "Only while their job runs.", NULL, requeue_examples, 0, 1,
     -1, "the task id", -1, true, false, run_requeue},
    {0},
};

const struct noun task_noun = {
    "task",
    NULL,
    "see tasks and what they printed",
    "A task is addressed as JOB.TASK: 12.1 is the first task of job 12.",
    commands,
    false,
    "finish modify list",
    "muster(1), muster-job(1)",
};
