/* wait.c - waits for jobs and copies output.
 *
 * Waiting is long polling: the head answers a JobWait when the job has changed, a TaskOutput with
 * `wait` when there is more. Both may be open at the same time on one connection and are told apart
 * by the request's number. When the connection breaks (the head is restarted), it is made again
 * and both are asked anew from where they were: event numbers and output offsets outlive the head.
 */
#include "cli/wait.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/print.h"
#include "cli/show.h"
#include "model/states.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TICK_MS 1000            /* how often the elapsed time moves */
#define OUTPUT_MAX (256 * 1024) /* bytes per request */

/* ---- Ctrl-C ---- */

static char interrupt_text[128];

static void on_interrupt(int sig)
{
    ssize_t n = write(2, interrupt_text, strlen(interrupt_text));
    (void)n; /* nowhere to say it */
    _exit(EXIT_INTERRUPTED);
}

static void catch_interrupt(uint64_t job)
{
    snprintf(interrupt_text, sizeof interrupt_text,
             "\nJob %" PRIu64 " goes on; cancel it with 'muster job cancel %" PRIu64 "'\n", job, job);
    struct sigaction sa = {.sa_handler = on_interrupt};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
}

/* ---- the line of progress ---- */

struct progress {
    bool on;       /* stderr is a terminal */
    bool drawn;    /* a line stands there */
    int64_t since; /* clock_boot_ms() */
    char text[512];
};

static void progress_clear(struct progress *p)
{
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
}

static void progress_draw(struct progress *p)
{
    struct winsize ws;
    if (!p->on || !p->text[0])
        return;
    int width = ioctl(2, TIOCGWINSZ, &ws) || ws.ws_col < 20 ? 79 : ws.ws_col - 1;
    char line[640];
    snprintf(line, sizeof line, "[%s] %s", elapsed_text(clock_boot_ms() - p->since), p->text);
    fflush(stdout);
    fprintf(stderr, "\r\033[K%.*s", width, line);
    p->drawn = true;
}

static void progress_set(struct progress *p, const Mu__JobInfo *info)
{
    const Mu__Job *job = info->job;
    int n = snprintf(p->text, sizeof p->text, "Job %" PRIu64 ": %s", job->id, job_state_name(job->state));
    if (*info->pending_reason)
        snprintf(p->text + n, sizeof p->text - (size_t)n, ", %s", shown(info->pending_reason));
    else if (job->n_allocation)
        snprintf(p->text + n, sizeof p->text - (size_t)n, " on %s, %u of %u tasks done",
                 shown(allocation_nodes(job->allocation, job->n_allocation)),
                 job->tasks_finished + job->tasks_failed + job->tasks_canceled, job->tasks_total);
    progress_draw(p);
}

/* ---- output ---- */

struct output {
    uint64_t job;
    uint32_t task;
    bool wait;
    uint64_t offset, attempt;
    struct buf *into; /* instead of stdout */
    uint64_t bytes, dropped;
    bool end;
    const char *note;
};

static void output_request(const struct output *o, Mu__TaskOutput *req)
{
    *req = (Mu__TaskOutput)MU__TASK_OUTPUT__INIT;
    req->job_id = o->job;
    req->task_id = o->task;
    req->offset = o->offset;
    req->attempt = o->attempt;
    req->max = OUTPUT_MAX;
    req->wait = o->wait;
}

/* Prints one answer. 0, or -1 when stdout takes no more. */
static int output_take(struct output *o, const Mu__OutputReply *r, struct error *err)
{
    if (r->message[0])
        o->note = cli_keep(xstrdup(r->message));
    if (o->attempt && r->attempt != o->attempt) {
        /* The task was started anew: its output begins anew too. */
        if (o->into)
            buf_reset(o->into);
        else
            printf("\n[the task was started again]\n");
        o->attempt = r->attempt;
        o->offset = o->dropped = 0;
        return 0;
    }
    o->attempt = r->attempt;
    if (r->offset > o->offset) {
        o->dropped += r->offset - o->offset;
        if (!o->into)
            printf("\n[%" PRIu64 " bytes of output were not kept]\n", r->offset - o->offset);
    }
    if (r->data.len && o->into)
        buf_add(o->into, r->data.data, r->data.len);
    else if (r->data.len)
        fwrite(r->data.data, 1, r->data.len, stdout);
    o->bytes += r->data.len;
    if (r->offset + r->data.len > o->offset)
        o->offset = r->offset + r->data.len;
    o->end = r->end || (!o->wait && !r->data.len);
    if (!o->into && fflush(stdout))
        return error_sys(err, "cannot write the output");
    return 0;
}

/* One request after the other until there is no more. */
static int copy_output(struct context *ctx, struct output *o, struct error *err)
{
    int rc = 0;
    while (!o->end && !rc) {
        Mu__TaskOutput body;
        Mu__Request req = MU__REQUEST__INIT;
        Mu__Reply *reply;
        output_request(o, &body);
        req.kind_case = MU__REQUEST__KIND_TASK_OUTPUT;
        req.task_output = &body;
        rc = context_open(ctx, err) || client_call(ctx->client, &req, o->wait ? 0 : -1, &reply, err) ? -1 : 0;
        if (rc && o->wait && context_lost(err)) {
            rc = context_reopen(ctx, WAIT_REOPEN_MS, err);
            continue;
        }
        if (rc)
            return -1;
        context_alive(ctx);
        if (reply->kind_case == MU__REPLY__KIND_OUTPUT)
            rc = output_take(o, reply->output, err);
        else
            rc = error_set(err, ERR_PROTOCOL, "the head's answer has no output in it");
        client_reply_free(reply);
    }
    return rc;
}

int print_output(struct context *ctx, uint64_t job, uint32_t task, bool follow, uint64_t *bytes,
                 const char **note, struct error *err)
{
    struct output o = {.job = job, .task = task, .wait = follow};
    int rc = copy_output(ctx, &o, err);
    if (bytes)
        *bytes = o.bytes;
    if (note)
        *note = o.note;
    return rc;
}

int collect_output(struct context *ctx, uint64_t job, uint32_t task, struct buf *out, uint64_t *dropped,
                   const char **note, struct error *err)
{
    struct output o = {.job = job, .task = task, .into = out};
    int rc = copy_output(ctx, &o, err);
    *dropped = o.dropped;
    *note = o.note;
    return rc;
}

/* ---- a job ---- */

int job_exit_code(const Mu__Job *job)
{
    if (job->state == MU__JOB_STATE__JOB_STATE_FINISHED)
        return EXIT_OK;
    int code = job->exit_code & 0xff;
    return code ? code : EXIT_FAILED;
}

struct wait {
    struct context *ctx;
    uint64_t job;
    uint64_t seen_event;
    uint64_t job_request, output_request; /* numbers of the open requests, 0: none */
    bool follow, queued;
    struct output output;
    struct progress progress;
    Mu__Reply *end;
};

static int send_requests(struct wait *w, struct error *err)
{
    Mu__Request req = MU__REQUEST__INIT;
    Mu__JobWait job_wait = MU__JOB_WAIT__INIT;
    Mu__TaskOutput body;
    if (!w->job_request && !w->end) {
        job_wait.job_id = w->job;
        job_wait.seen_event = w->seen_event;
        req.kind_case = MU__REQUEST__KIND_JOB_WAIT;
        req.job_wait = &job_wait;
        if (client_send(w->ctx->client, &req, err))
            return -1;
        w->job_request = req.id;
    }
    if (w->follow && !w->output.end && !w->output_request) {
        output_request(&w->output, &body);
        req = (Mu__Request)MU__REQUEST__INIT;
        req.kind_case = MU__REQUEST__KIND_TASK_OUTPUT;
        req.task_output = &body;
        if (client_send(w->ctx->client, &req, err))
            return -1;
        w->output_request = req.id;
    }
    return client_flush(w->ctx->client, err);
}

/* Takes one reply. It is freed here, but the last of the job is kept. */
static int take_reply(struct wait *w, Mu__Reply *reply, struct error *err)
{
    int rc = 0;
    if (!reply->error)
        context_alive(w->ctx);
    if (reply->error) {
        rc = error_set(err, (enum error_code)reply->error->code, "%s", reply->error->text);
    } else if (reply->id == w->output_request && reply->kind_case == MU__REPLY__KIND_OUTPUT) {
        w->output_request = 0;
        progress_clear(&w->progress);
        rc = output_take(&w->output, reply->output, err);
    } else if (reply->id == w->job_request && reply->kind_case == MU__REPLY__KIND_JOB && reply->job->info) {
        w->job_request = 0;
        w->seen_event = reply->event;
        w->queued = reply->job->info->job->state == MU__JOB_STATE__JOB_STATE_QUEUED;
        progress_set(&w->progress, reply->job->info);
        if (job_state_ended(reply->job->info->job->state)) {
            w->end = reply;
            return 0;
        }
    }
    client_reply_free(reply);
    return rc;
}

/* The reason why a job waits changes without an event of the job: while somebody looks, it is asked for. */
static int refresh(struct wait *w, struct error *err)
{
    Mu__Reply *reply;
    if (!w->queued) {
        progress_draw(&w->progress);
        return 0;
    }
    if (get_job(w->ctx, w->job, false, &reply, err))
        return -1;
    progress_set(&w->progress, reply->job->info);
    client_reply_free(reply);
    return 0;
}

static int wait_turn(struct wait *w, struct error *err)
{
    Mu__Reply *reply = NULL;
    if (context_open(w->ctx, err) || send_requests(w, err))
        return -1;
    if (client_receive(w->ctx->client, TICK_MS, &reply, err)) {
        if (err->code != ERR_TIMEOUT)
            return -1;
        return w->progress.on ? refresh(w, err) : 0;
    }
    return take_reply(w, reply, err);
}

int wait_job(struct context *ctx, uint64_t job, uint32_t follow_task, Mu__Reply **end, struct error *err)
{
    struct wait w = {.ctx = ctx, .job = job, .follow = follow_task != 0};
    w.output = (struct output){.job = job, .task = follow_task, .wait = true};
    w.progress = (struct progress){.on = isatty(2), .since = clock_boot_ms()};
    catch_interrupt(job);
    int rc = 0;
    while (!rc && (!w.end || (w.follow && !w.output.end))) {
        rc = wait_turn(&w, err);
        if (rc && context_lost(err)) {
            w.job_request = w.output_request = 0;
            snprintf(w.progress.text, sizeof w.progress.text, "the head does not answer; trying again");
            progress_draw(&w.progress);
            rc = context_reopen(ctx, WAIT_REOPEN_MS, err);
        }
    }
    progress_clear(&w.progress);
    signal(SIGINT, SIG_DFL);
    if (w.output.note && !w.output.bytes)
        fprintf(stderr, "%s: %s\n", ctx->program, shown_long(w.output.note));
    if (rc)
        client_reply_free(w.end);
    else
        *end = w.end;
    return rc;
}
