/* cluster.c - muster cluster: a cluster on this machine; made, started, stopped, looked at; tokens.
 *
 * The work is done by src/local; here are options and words. Only `token` needs a running head.
 */
#include "cli/command.h"
#include "cli/print.h"
#include "local/control.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct init_args {
    const char *name, *user;
    uint32_t nodes, cores, port;
    bool no_namespaces, quiet;
};

#define INIT_OPTIONS                                                                                           \
    {"nodes",                                                                                                  \
     NULL,                                                                                                     \
     "N",                                                                                                      \
     "Number of nodes; default 4",                                                                             \
     option_number,                                                                                            \
     offsetof(struct init_args, nodes),                                                                        \
     1,                                                                                                        \
     CLUSTER_NODES_MAX},                                                                                       \
        {"cores-per-node",                                                                                     \
         NULL,                                                                                                 \
         "C",                                                                                                  \
         "Cores that each node offers; default: its share of this machine's processors",                       \
         option_number,                                                                                        \
         offsetof(struct init_args, cores),                                                                    \
         1,                                                                                                    \
         CLUSTER_CORES_MAX},                                                                                   \
        {"name",      NULL,                                                                                    \
         "NAME",      "The cluster's name; default muster",                                                    \
         option_text, offsetof(struct init_args, name),                                                        \
         0,           0},                                                                                      \
        {"user",      NULL,                                                                                    \
         "ACCOUNT",   "Root only: the account that root's tasks run as; default: who used sudo, else nobody",  \
         option_text, offsetof(struct init_args, user),                                                        \
         0,           0},                                                                                      \
        {"port", NULL, "PORT", "Port of the head", option_number, offsetof(struct init_args, port), 1, 65535}, \
    {                                                                                                          \
        "no-namespaces", NULL, NULL, "Nodes are processes on 127.0.0.x: one host, as MPI sees it",             \
            option_flag, offsetof(struct init_args, no_namespaces), 0, 0                                       \
    }

static const struct option init_options[] = {INIT_OPTIONS, {0}};
static const struct option_group init_groups[] = {{"Options", init_options, 0}, {NULL, NULL, 0}};
static const struct option start_options[] = {
    INIT_OPTIONS,
    {"quiet", "q", NULL, "Do not tell what is going on", option_flag, offsetof(struct init_args, quiet), 0,
     0},
    {0},
};
static const struct option_group start_groups[] = {{"Options", start_options, 0}, {NULL, NULL, 0}};

static const struct example init_examples[] = {
    {"muster cluster init --nodes 8 --cores-per-node 2", "Choose, without starting anything"},
    {NULL, NULL},
};
static const struct example start_examples[] = {
    {"muster cluster start", "Four nodes on this machine"},
    {"muster cluster start --dir /tmp/c1 --nodes 2", "Another cluster beside it"},
    {NULL, NULL},
};

static struct cluster_choice choice_of(const struct init_args *a)
{
    return (struct cluster_choice){.name = a->name,
                                   .nodes = a->nodes,
                                   .cores_per_node = a->cores,
                                   .user = a->user,
                                   .no_namespaces = a->no_namespaces,
                                   .port = a->port};
}

static void on_progress(const char *text, void *arg)
{
    const struct context *ctx = arg;
    fprintf(stderr, ctx->color_err ? "\033[2m%s\033[0m\n" : "%s\n", shown(text));
}

static json_t *init_json(const struct cluster *c, bool made)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:s, s:b}", "name", c->name, "dir", c->dir, "nodes",
                     (json_int_t)c->nodes, "cores_per_node", (json_int_t)c->cores_per_node, "user", c->user,
                     "made", made);
}

static int run_init(struct context *ctx, void *args, const struct words *words)
{
    struct cluster_choice choice = choice_of(args);
    struct cluster c;
    struct error err = {0};
    bool made;
    if (cluster_init(&c, ctx->dir, &choice, &made, &err) < 0)
        return context_fail(ctx, &err);
    if (ctx->json)
        return json_print(init_json(&c, made));
    printf("%s cluster %s in %s: %u node%s, %u core%s each\n", made ? "Made" : "There is already", c.name,
           c.dir, c.nodes, c.nodes == 1 ? "" : "s", c.cores_per_node, c.cores_per_node == 1 ? "" : "s");
    return EXIT_OK;
}

static int run_start(struct context *ctx, void *args, const struct words *words)
{
    const struct init_args *a = args;
    struct cluster_choice choice = choice_of(a);
    struct cluster c;
    struct error err = {0};
    bool was_up;
    control_progress *progress = a->quiet || ctx->json ? NULL : on_progress;
    if (cluster_init(&c, ctx->dir, &choice, NULL, &err) < 0 ||
        control_start(&c, progress, ctx, &was_up, &err) < 0)
        return context_fail(ctx, &err);
    json_t *status = control_status(&c, &err);
    if (!status)
        return context_fail(ctx, &err);
    if (ctx->json)
        return json_print(status);
    printf("Cluster %s %s: %u node%s with %u core%s each, %s, in %s\n", c.name,
           was_up ? "is already running" : "is up", c.nodes, c.nodes == 1 ? "" : "s", c.cores_per_node,
           c.cores_per_node == 1 ? "" : "s", json_string_value(json_object_get(status, "kind")), c.dir);
    json_decref(status);
    return EXIT_OK;
}

static int run_stop(struct context *ctx, void *args, const struct words *words)
{
    struct cluster c;
    struct error err = {0};
    bool was_up;
    if (cluster_open(&c, ctx->dir, &err) < 0 || control_stop(&c, on_progress, ctx, &was_up, &err) < 0)
        return context_fail(ctx, &err);
    printf("Cluster %s %s\n", c.name, was_up ? "is stopped" : "was not running");
    return EXIT_OK;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long number_of(const json_t *object, const char *key)
{
    return (long)json_integer_value(json_object_get(object, key));
}

static void print_nodes(struct context *ctx, const json_t *nodes)
{
    static const struct column columns[] = {
        {"Node", false, false}, {"State", false, false}, {"Health", false, false}, {"Address", false, false},
        {"Cores", true, false}, {"Jobs", true, false},   {"Process", true, false}, {NULL, false, false}};
    struct table *t = table_new(columns);
    size_t i;
    const json_t *n;
    json_array_foreach ((json_t *)nodes, i, n) {
        table_add(t, text_of(n, "name"));
        table_add(t, text_of(n, "state"));
        table_add(t, text_of(n, "health"));
        table_add(t, text_of(n, "address"));
        table_addf(t, "%ld", number_of(n, "cores"));
        table_addf(t, "%ld", number_of(n, "jobs"));
        if (number_of(n, "pid"))
            table_addf(t, "%ld", number_of(n, "pid"));
        else
            table_add(t, "");
    }
    table_print(ctx, t, false, 1);
}

static void show_process(const char *name, const json_t *process)
{
    long pid = number_of(process, "pid");
    if (pid)
        showf(name, "%s, process %ld", text_of(process, "state"), pid);
    else
        show(name, text_of(process, "state"));
}

static int run_status(struct context *ctx, void *args, const struct words *words)
{
    struct cluster c;
    struct error err = {0};
    if (cluster_open(&c, ctx->dir, &err) < 0)
        return context_fail(ctx, &err);
    json_t *status = control_status(&c, &err);
    if (!status)
        return context_fail(ctx, &err);
    if (ctx->json)
        return json_print(status);
    const json_t *head = json_object_get(status, "head"), *jobs = json_object_get(status, "jobs");
    const char *why = text_of(status, "why");
    show("Cluster", c.name);
    show("Folder", c.dir);
    if (*why)
        showf("Nodes are", "one host: processes on 127.0.0.x (%s)", shown(why));
    else
        show("Nodes are", text_of(status, "kind"));
    show_process("Supervisor", json_object_get(status, "supervisor"));
    show_process("Head", head);
    show("Head's address", text_of(head, "address"));
    show("Store", text_of(head, "store"));
    showf("Jobs", "%ld running, %ld queued", number_of(jobs, "running"), number_of(jobs, "queued"));
    putchar('\n');
    print_nodes(ctx, json_object_get(status, "nodes"));
    json_decref(status);
    return EXIT_OK;
}

struct token_args {
    const char *name;
    uint32_t minutes;
};
static const struct option token_options[] = {
    {"name", NULL, "NODE", "Only a machine that joins under this name may use it", option_text,
     offsetof(struct token_args, name), 0, 0},
    {"minutes", NULL, "N", "How long it is good for; default 10", option_number,
     offsetof(struct token_args, minutes), 1, 1440},
    {0},
};
static const struct option_group token_groups[] = {{"Options", token_options, 0}, {NULL, NULL, 0}};
static const struct example token_examples[] = {
    {"muster cluster token --name node17 | ssh node17 muster-node join --dir /var/lib/muster/node --name "
     "node17 "
     "--head HEAD:7470 --token-file -",
     "Another machine joins"},
    {NULL, NULL},
};

static int run_token(struct context *ctx, void *args, const struct words *words)
{
    const struct token_args *a = args;
    struct error err = {0};
    Mu__TokenCreate create = MU__TOKEN_CREATE__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    Mu__Reply *reply;
    create.name = (char *)(a->name ? a->name : "");
    create.ttl_s = a->minutes * 60;
    request.kind_case = MU__REQUEST__KIND_TOKEN_CREATE;
    request.token_create = &create;
    if (context_call(ctx, &request, &reply, &err) < 0)
        return context_fail(ctx, &err);
    if (reply->kind_case != MU__REPLY__KIND_TOKEN)
        error_set(&err, ERR_PROTOCOL, "the head's answer has no token in it");
    else if (ctx->json)
        json_print(json_pack("{s:s, s:o}", "token", reply->token->token, "expires",
                             json_time(reply->token->expires_wall_ms)));
    else
        puts(reply->token->token);
    client_reply_free(reply);
    return err.code ? context_fail(ctx, &err) : EXIT_OK;
}

static const struct command commands[] = {
    {"init", "[options]", "choose how the cluster shall be, without starting it",
     "Makes the cluster's folder with its certificates. Repeating it with the same options changes nothing.",
     init_groups, init_examples, sizeof(struct init_args), 0, 0, NULL, -1, true, true, run_init},
    {"start", "[options]", "start the cluster, or what of it has ended",
     "Starts a head and the nodes on this machine, and returns when all nodes are online. A cluster that "
     "does not exist "
     "is made first; one that is running is left as it is.\n\n"
     "Each node is a network, UTS and mount namespace of its own where the kernel allows it (for an ordinary "
     "user: inside "
     "a user namespace), else a process on an address 127.0.0.x.",
     start_groups, start_examples, sizeof(struct init_args), 0, 0, NULL, -1, true, true, run_start},
    {"stop", "", "stop the cluster",
     "Running jobs are cancelled, waiting jobs stay queued for the next start. Nothing of the cluster runs "
     "on.",
     NULL, NULL, 0, 0, 0, NULL, -1, false, true, run_stop},
    {"status", "", "show the head and the nodes", NULL, NULL, NULL, 0, 0, 0, NULL, -1, true, true,
     run_status},
    {"token", "[options]", "print a token with which another machine joins",
     "For administrators. It is good for one machine. Give it to muster-node join on that machine's standard "
     "input.",
     token_groups, token_examples, sizeof(struct token_args), 0, 0, NULL, -1, true, false, run_token},
    {0},
};

const struct noun cluster_noun = {
    "cluster",
    NULL,
    "a cluster on this machine: make, start, stop, status",
    "A local cluster is a head node and some nodes on this machine, in a folder of its own. It is for trying "
    "things and for "
    "tests: jobs, MPI and faults are as on many machines, speed is not.",
    commands,
    false,
    NULL,
    "muster(1), muster-node(1), muster-job(1), muster-local(8)",
};
