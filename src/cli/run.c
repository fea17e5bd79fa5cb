/* run.c - muster run (clusrun): one command on many nodes, its output labelled, sorted or collated.
 *
 * The command becomes a job of type Admin with one task per node; such tasks take no cores. The
 * output of all tasks is asked for at once on one connection, by long polls that are told apart
 * by their numbers; a task whose output has ended is asked for its exit code.
 */
#include "base/mem.h"
#include "cli/command.h"
#include "cli/nodes.h"
#include "cli/nodeset.h"
#include "cli/print.h"
#include "cli/show.h"
#include "cli/spec.h"
#include "cli/wait.h"
#include "model/names.h"
#include "model/priority.h"
#include "model/states.h"

#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define TICK_MS 200                /* how soon Ctrl-C is noticed */
#define LINE_MAX_BYTES (64 * 1024) /* a longer line is printed in parts */
#define CHUNK_MAX (64 * 1024)
#define WINDOW 4000 /* tasks that are followed at the same time: the head allows 4096 waits per client */

struct run_args {
    struct words nodes, groups, exclude;
    bool all, sorted, interleaved, collate;
    const char *work_dir, *stdin_path;
    struct env_list env;
};

/* One node's part. */
struct part {
    char *node;
    uint32_t task;
    uint64_t attempt, offset;
    uint64_t request; /* open request, 0: none */
    bool output_done; /* then the result is asked for */
    bool done;
    struct buf text; /* an unfinished line, or all of the output when it is printed at the end */
    int code;
    uint32_t signal;
    const char *state, *message;
};

struct run {
    struct context *ctx;
    const struct run_args *args;
    uint64_t job;
    struct part *parts;
    size_t count, left;
    size_t open;       /* requests without answer */
    size_t first_open; /* all parts before it are done */
    bool keep;         /* print at the end */
    uint64_t *asked;   /* open request -> part: asked[id - first_id] */
    uint64_t first_id;
    size_t asked_count, asked_cap;
    bool canceled;
};

static volatile sig_atomic_t interrupts;

static void on_interrupt(int sig)
{
    if (interrupts++)
        _exit(EXIT_INTERRUPTED);
}

/* ---- which nodes ---- */

static bool in_words(const struct words *w, const char *name)
{
    for (size_t i = 0; i < w->count; i++)
        if (nodeset_match(w->list[i], name))
            return true;
    return false;
}

static bool in_groups(const struct words *groups, const Mu__NodeInfo *info)
{
    for (size_t i = 0; i < groups->count; i++) {
        bool in = false;
        for (size_t k = 0; k < info->n_groups && !in; k++)
            in = !strcasecmp(groups->list[i], info->groups[k]);
        if (!in)
            return false;
    }
    return true;
}

/* Every name and pattern of the command line must mean a node that is there. */
static int check_names(const struct words *names, const Mu__NodeListReply *r, const char *option,
                       struct error *err)
{
    for (size_t i = 0; i < names->count; i++) {
        bool found = false;
        for (size_t n = 0; n < r->n_nodes && !found; n++)
            found = nodeset_match(names->list[i], r->nodes[n]->node->name);
        if (!found)
            return error_set(err, ERR_NOT_FOUND, "option %s: no node %s \"%s\"", option,
                             nodeset_is_pattern(names->list[i]) ? "matches" : "is named",
                             shown(names->list[i]));
    }
    return 0;
}

/* The targets; nodes that cannot be reached go to `away`. */
static int choose_nodes(struct context *ctx, const struct run_args *a, struct words *chosen,
                        struct words *away, struct error *err)
{
    struct words names = {0}, exclude = {0};
    Mu__Reply *reply;
    for (size_t i = 0; i < a->nodes.count; i++)
        if (nodeset_expand(a->nodes.list[i], &names, err))
            return error_prefix(err, "option --nodes");
    for (size_t i = 0; i < a->exclude.count; i++)
        if (nodeset_expand(a->exclude.list[i], &exclude, err))
            return error_prefix(err, "option --exclude");
    /* The group is asked for by name as well, so that an unknown one is the head's error. */
    for (size_t i = 0; i < a->groups.count; i++) {
        if (get_nodes(ctx, NULL, a->groups.list[i], 0, false, &reply, err))
            return -1;
        client_reply_free(reply);
    }
    if (get_nodes(ctx, NULL, NULL, 0, false, &reply, err))
        return -1;
    int rc = check_names(&names, reply->nodes, "--nodes", err) ||
                     check_names(&exclude, reply->nodes, "--exclude", err)
                 ? -1
                 : 0;
    for (size_t i = 0; i < reply->nodes->n_nodes && !rc; i++) {
        const Mu__NodeInfo *info = reply->nodes->nodes[i];
        char *name = info->node->name;
        if ((names.count && !in_words(&names, name)) || !in_groups(&a->groups, info) ||
            in_words(&exclude, name))
            continue;
        words_add(info->node->reachable ? chosen : away, cli_keep(xstrdup(name)));
    }
    client_reply_free(reply);
    if (!rc && !chosen->count && !away->count)
        return error_set(err, ERR_NOT_FOUND, "no node is left to run on");
    return rc;
}

/* ---- starting ---- */

static int create_job(struct run *r, const struct words *command, const struct words *nodes,
                      struct error *err)
{
    struct job_options job = {0};
    struct task_options task = {
        .work_dir = r->args->work_dir, .stdin_path = r->args->stdin_path, .env = r->args->env};
    Mu__JobSpec spec;
    Mu__TaskSpec base;
    Mu__JobCreate body = MU__JOB_CREATE__INIT;
    Mu__Request req = MU__REQUEST__INIT;
    Mu__Reply *reply;
    if (spec_job(&job, &spec, err) || spec_task(&task, command, 0, &base, err))
        return -1;
    spec.type = MU__JOB_TYPE__JOB_ADMIN;
    spec.name = (char *)"Remote command";
    spec.requested_nodes = nodes->list;
    spec.n_requested_nodes = nodes->count;
    Mu__TaskSpec *tasks = xcalloc(nodes->count, sizeof *tasks);
    body.tasks = xcalloc(nodes->count, sizeof(void *));
    for (size_t i = 0; i < nodes->count; i++) {
        tasks[i] = base;
        tasks[i].name = (char *)"Remote command";
        tasks[i].required_nodes = &nodes->list[i];
        tasks[i].n_required_nodes = 1;
        body.tasks[i] = &tasks[i];
    }
    body.spec = &spec;
    body.n_tasks = nodes->count;
    body.submit = true;
    req.kind_case = MU__REQUEST__KIND_JOB_CREATE;
    req.job_create = &body;
    int rc = call_job(r->ctx, &req, &reply, err);
    free(body.tasks);
    free(tasks);
    if (rc)
        return -1;
    r->job = reply->job->info->job->id;
    r->count = r->left = nodes->count;
    r->parts = cli_keep(xcalloc(nodes->count, sizeof *r->parts));
    for (size_t i = 0; i < nodes->count; i++) {
        r->parts[i].node = nodes->list[i];
        r->parts[i].task = i < reply->job->n_task_ids ? reply->job->task_ids[i] : (uint32_t)i + 1;
    }
    client_reply_free(reply);
    return 0;
}

/* ---- output ---- */

static void print_line(const struct part *p, const char *line, size_t len)
{
    printf("%s: ", p->node);
    fwrite(line, 1, len, stdout);
    putchar('\n');
}

/* Prints the whole lines in p->text; with `last` also what is left without a newline. */
static void print_lines(struct part *p, bool last)
{
    size_t at = 0;
    while (at < p->text.len) {
        const char *from = p->text.data + at, *nl = memchr(from, '\n', p->text.len - at);
        size_t len = nl ? (size_t)(nl - from) : p->text.len - at;
        if (!nl && !last && len < LINE_MAX_BYTES)
            break;
        print_line(p, from, len);
        at += len + (nl ? 1 : 0);
    }
    buf_consume(&p->text, at);
}

static void take_output(struct run *r, struct part *p, const Mu__OutputReply *o)
{
    if (p->attempt && p->attempt != o->attempt) { /* the task was started again */
        buf_reset(&p->text);
        p->offset = 0;
        p->attempt = o->attempt;
        return;
    }
    p->attempt = o->attempt;
    if (o->offset > p->offset)
        buf_addf(&p->text, "[%" PRIu64 " bytes of output were not kept]\n", o->offset - p->offset);
    buf_add(&p->text, o->data.data, o->data.len);
    p->offset = o->offset + o->data.len > p->offset ? o->offset + o->data.len : p->offset;
    p->output_done = o->end;
    if (!r->keep && p->text.len) {
        print_lines(p, o->end);
        fflush(stdout);
    }
}

static void take_result(struct run *r, struct part *p, const Mu__TaskReply *t)
{
    const Mu__Task *task = t->task;
    if (!task_state_ended(
            task->state)) { /* it is run again, or its end is not stored yet: more output will say */
        p->output_done = false;
        return;
    }
    p->done = true;
    r->left--;
    p->signal = task->exit_signal;
    p->state = task_state_name(task->state);
    p->message = cli_keep(xstrdup(task->message));
    p->code = task->state == MU__TASK_STATE__TASK_STATE_FINISHED ? 0
              : task->exit_signal                                ? 128 + (int)task->exit_signal
              : task->exit_code & 0xff                           ? task->exit_code & 0xff
                                                                 : 1;
}

/* ---- the loop ---- */

static int ask(struct run *r, size_t i, struct error *err)
{
    struct part *p = &r->parts[i];
    Mu__Request req = MU__REQUEST__INIT;
    Mu__TaskOutput output = MU__TASK_OUTPUT__INIT;
    Mu__TaskGet get = MU__TASK_GET__INIT;
    output.job_id = get.job_id = r->job;
    output.task_id = get.task_id = p->task;
    output.offset = p->offset;
    output.attempt = p->attempt;
    output.max = CHUNK_MAX;
    output.wait = true;
    if (p->output_done) {
        req.kind_case = MU__REQUEST__KIND_TASK_GET;
        req.task_get = &get;
    } else {
        req.kind_case = MU__REQUEST__KIND_TASK_OUTPUT;
        req.task_output = &output;
    }
    if (client_send(r->ctx->client, &req, err))
        return -1;
    p->request = req.id;
    r->open++;
    if (!r->asked_count)
        r->first_id = req.id;
    size_t slot = (size_t)(req.id - r->first_id);
    r->asked = xgrow(r->asked, &r->asked_cap, slot + 1, sizeof *r->asked);
    r->asked[slot] = i;
    r->asked_count = slot + 1;
    return 0;
}

static int ask_all(struct run *r, struct error *err)
{
    for (size_t i = r->first_open; i < r->count && r->open < WINDOW; i++)
        if (!r->parts[i].done && !r->parts[i].request && ask(r, i, err))
            return -1;
    while (r->first_open < r->count && r->parts[r->first_open].done)
        r->first_open++;
    return client_flush(r->ctx->client, err);
}

static struct part *part_of(struct run *r, uint64_t id)
{
    if (id < r->first_id || id - r->first_id >= r->asked_count)
        return NULL;
    struct part *p = &r->parts[r->asked[id - r->first_id]];
    return p->request == id ? p : NULL;
}

static int take_reply(struct run *r, const Mu__Reply *reply, struct error *err)
{
    struct part *p = part_of(r, reply->id);
    if (!p)
        return 0;
    p->request = 0;
    r->open--;
    if (!reply->error)
        context_alive(r->ctx);
    if (reply->error)
        return error_set(err, (enum error_code)reply->error->code, "%s", reply->error->text);
    if (reply->kind_case == MU__REPLY__KIND_OUTPUT)
        take_output(r, p, reply->output);
    else if (reply->kind_case == MU__REPLY__KIND_TASK && reply->task->task)
        take_result(r, p, reply->task);
    else
        return error_set(err, ERR_PROTOCOL, "the head's answer has no output in it");
    return p->done ? 0 : ask(r, (size_t)(p - r->parts), err);
}

/* Ctrl-C: the job is cancelled on all nodes, and we wait for that; a second one ends us at once. */
static int cancel_job(struct run *r, struct error *err)
{
    Mu__JobCancel body = MU__JOB_CANCEL__INIT;
    Mu__Request req = MU__REQUEST__INIT;
    body.job_id = r->job;
    body.message = (char *)"interrupted";
    req.kind_case = MU__REQUEST__KIND_JOB_CANCEL;
    req.job_cancel = &body;
    r->canceled = true;
    fprintf(stderr, "\n%s: ending the command on %zu nodes\n", r->ctx->program, r->left);
    return client_send(r->ctx->client, &req, err) || client_flush(r->ctx->client, err) ? -1 : 0;
}

static int turn(struct run *r, struct error *err)
{
    Mu__Reply *reply;
    if (context_open(r->ctx, err) || ask_all(r, err))
        return -1;
    if (interrupts && !r->canceled && cancel_job(r, err))
        return -1;
    if (client_receive(r->ctx->client, TICK_MS, &reply, err))
        return err->code == ERR_TIMEOUT ? 0 : -1;
    int rc = take_reply(r, reply, err);
    client_reply_free(reply);
    return rc;
}

static int follow_all(struct run *r, struct error *err)
{
    int rc = 0;
    while (r->left && !rc) {
        rc = turn(r, err);
        if (rc && context_lost(err)) {
            for (size_t i = 0; i < r->count; i++)
                r->parts[i].request = 0;
            r->asked_count = r->open = 0;
            rc = context_reopen(r->ctx, WAIT_REOPEN_MS, err);
        }
    }
    return rc;
}

/* ---- at the end ---- */

static bool same_text(const struct part *a, const struct part *b)
{
    return a->text.len == b->text.len && (!a->text.len || !memcmp(a->text.data, b->text.data, a->text.len));
}

/* Nodes with equal output share one block, as dshbak -c and clush -b print it. */
static void print_collated(struct run *r)
{
    static const char rule[] = "----------------";
    bool *shared = xcalloc(r->count, sizeof *shared);
    char **names = xcalloc(r->count, sizeof *names);
    for (size_t i = 0; i < r->count; i++) {
        size_t n = 0;
        if (shared[i] || !r->parts[i].text.len)
            continue;
        for (size_t k = i; k < r->count; k++) {
            if (shared[k] || !same_text(&r->parts[i], &r->parts[k]))
                continue;
            shared[k] = true;
            names[n++] = r->parts[k].node;
        }
        struct buf title = BUF_INIT;
        nodeset_fold(names, n, &title);
        printf("%s\n%s", rule, buf_str(&title));
        if (n > 1)
            printf(" (%zu)", n);
        printf("\n%s\n", rule);
        buf_free(&title);
        fwrite(r->parts[i].text.data, 1, r->parts[i].text.len, stdout);
        if (r->parts[i].text.data[r->parts[i].text.len - 1] != '\n')
            putchar('\n');
    }
    free(names);
    free(shared);
}

static void print_json(struct run *r)
{
    json_t *array = json_array();
    for (size_t i = 0; i < r->count; i++) {
        const struct part *p = &r->parts[i];
        json_array_append_new(array,
                              json_pack("{s:o, s:I, s:i, s:s, s:i, s:o, s:o, s:o}", "node",
                                        json_text(p->node), "job", (json_int_t)r->job, "task", (int)p->task,
                                        "state", p->state ? p->state : "", "exit_code", p->code,
                                        "exit_signal", p->signal ? json_integer(p->signal) : json_null(),
                                        "message", json_text(p->message ? p->message : ""), "output",
                                        json_bytes(buf_str(&p->text), p->text.len)));
    }
    json_print(array);
}

/* Prints what was kept, names the nodes that failed, gives the worst exit code. */
static int finish(struct run *r)
{
    int worst = EXIT_OK;
    if (r->ctx->json)
        print_json(r);
    else if (r->args->collate)
        print_collated(r);
    else if (r->keep)
        for (size_t i = 0; i < r->count; i++)
            print_lines(&r->parts[i], true);
    fflush(stdout);
    for (size_t i = 0; i < r->count; i++) {
        struct part *p = &r->parts[i];
        if (p->code > worst)
            worst = p->code;
        if (p->code && !r->ctx->json) {
            char text[32];
            const char *why = p->message;
            size_t named = strlen(p->node);
            if (!strncmp(why, p->node, named) && !strncmp(why + named, ": ", 2))
                why += named + 2; /* the node stands at the beginning already */
            snprintf(text, sizeof text, "exit code %d", p->code);
            fprintf(stderr, "%s: %s: %s", r->ctx->program, p->node, text);
            if (*why && strcmp(why, text))
                fprintf(stderr, " (%s)", shown_long(why));
            fputc('\n', stderr);
        }
        buf_free(&p->text);
    }
    free(r->asked);
    return interrupts ? EXIT_INTERRUPTED : worst;
}

static int run_run(struct context *ctx, void *args, const struct words *words)
{
    const struct run_args *a = args;
    struct run r = {.ctx = ctx, .args = a};
    struct words chosen = {0}, away = {0};
    struct error err = {0};
    if (a->all && (a->nodes.count || a->groups.count))
        return context_usage(ctx, "options --all and %s: expected one of them",
                             a->nodes.count ? "--nodes" : "--nodegroup");
    if (a->sorted + a->interleaved + a->collate > 1)
        return context_usage(ctx, "options --sorted, --interleaved and --collate: expected one of them");
    if (choose_nodes(ctx, a, &chosen, &away, &err))
        return context_fail(ctx, &err);
    for (size_t i = 0; i < away.count; i++)
        fprintf(stderr, "%s: %s: unreachable, left out\n", ctx->program, away.list[i]);
    if (!chosen.count)
        return EXIT_FAILED;
    r.keep = a->sorted || a->collate || ctx->json;
    if (create_job(&r, words, &chosen, &err))
        return context_fail(ctx, &err);
    struct sigaction sa = {.sa_handler = on_interrupt};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    int rc = follow_all(&r, &err) ? context_fail(ctx, &err) : EXIT_OK;
    int worst = finish(&r);
    if (rc == EXIT_OK)
        rc = worst;
    return rc == EXIT_OK && away.count ? EXIT_FAILED : rc;
}

static const struct option run_options[] = {
    {"nodes", "n", "NODES", "On these nodes: node01,node02, node[01-04], 'gpu*'", option_names,
     offsetof(struct run_args, nodes), 0, 0},
    {"nodegroup", "g", "GROUPS", "On the nodes that are in all of these groups", option_names,
     offsetof(struct run_args, groups), 0, GROUPS_MAX},
    {"all", "a", NULL, "On all nodes; the default when nothing is named", option_flag,
     offsetof(struct run_args, all), 0, 0},
    {"exclude", "x", "NODES", "But not on these", option_names, offsetof(struct run_args, exclude), 0, 0},
    {"interleaved", NULL, NULL, "Print each line as it comes, after its node's name; the default",
     option_flag, offsetof(struct run_args, interleaved), 0, 0},
    {"sorted", NULL, NULL, "Print at the end, in the order of the nodes", option_flag,
     offsetof(struct run_args, sorted), 0, 0},
    {"collate", "b", NULL, "Print at the end, nodes with equal output together", option_flag,
     offsetof(struct run_args, collate), 0, 0},
    {"workdir", NULL, "DIR", "Folder on the nodes that it starts in; default: the user's home", option_text,
     offsetof(struct run_args, work_dir), 0, 0},
    {"stdin", NULL, "FILE", "File on the nodes that it reads from", option_text,
     offsetof(struct run_args, stdin_path), 0, 0},
    {"env", NULL, "NAME=VALUE[;...]", "Variables for the command; may be repeated", option_env,
     offsetof(struct run_args, env), 0, 0},
    {"readynodes", NULL, NULL, NULL, NULL, 0, 0, 0},
    {"template", NULL, "NAME", NULL, NULL, 0, 0, 0},
    {"nodestate", NULL, "STATE", NULL, NULL, 0, 0, 0},
    {"location", NULL, "PLACE", NULL, NULL, 0, 0, 0},
    {"jobid", NULL, "ID", NULL, NULL, 0, 0, 0},
    {"task", NULL, "ID", NULL, NULL, 0, 0, 0},
    {"outputdir", NULL, "DIR", NULL, NULL, 0, 0, 0},
    {"user", NULL, "NAME", NULL, NULL, 0, 0, 0},
    {"password", NULL, "TEXT", NULL, NULL, 0, 0, 0},
    {0},
};
static const struct option_group run_groups[] = {{"Options", run_options, 0}, {NULL, NULL, 0}};
static const struct example run_examples[] = {
    {"muster run uptime", "On all nodes; each line after the name of its node"},
    {"muster run --nodes 'node[01-04]' --collate uname -r", "Equal answers together"},
    {"clusrun /nodegroup:AzureNodes hostname", "As typed for HPC Pack"},
    {NULL, NULL},
};

static const struct command commands[] = {
    {"run", "[options] COMMAND [ARG...]", "run a command on many nodes and see its output",
     "The command runs beside whatever else runs on the nodes and takes no cores. One word is a command line "
     "for the "
     "shell; several words are kept exactly. The exit code is the worst of all nodes'. Ctrl-C ends the "
     "command on all "
     "of them. For administrators.",
     run_groups, run_examples, sizeof(struct run_args), 1, -1, "the command to run", 0, true, false, run_run},
    {0},
};

const struct noun run_noun = {
    "run", "clusrun", "run a command on many nodes and see its output", NULL, commands,
    true,  NULL,      "muster(1), muster-node(1), muster-job(1)",
};
