/* node.c - muster node: list, view, listcores, online, offline. */
#include "base/mem.h"
#include "cli/command.h"
#include "cli/nodeset.h"
#include "cli/nodes.h"
#include "cli/print.h"
#include "model/names.h"
#include "model/states.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int option_node_state(const struct option *opt, void *field, const char *value, struct error *err)
{
    int state = node_state_parse(value);
    if (!state)
        return error_set(err, ERR_USAGE, "expected Online, Offline or Draining");
    *(Mu__NodeState *)field = (Mu__NodeState)state;
    return 0;
}

/* ---- asking ---- */

int get_nodes(struct context *ctx, const struct words *names, const char *group, Mu__NodeState state,
              bool cores, Mu__Reply **reply, struct error *err)
{
    Mu__NodeList body = MU__NODE_LIST__INIT;
    Mu__Request req = MU__REQUEST__INIT;
    if (names) {
        body.names = names->list;
        body.n_names = names->count;
    }
    body.group = (char *)(group ? group : "");
    body.state = state;
    body.cores = cores;
    req.kind_case = MU__REQUEST__KIND_NODE_LIST;
    req.node_list = &body;
    if (context_call(ctx, &req, reply, err))
        return -1;
    if ((*reply)->kind_case == MU__REPLY__KIND_NODES)
        return 0;
    client_reply_free(*reply);
    *reply = NULL;
    error_set(err, ERR_PROTOCOL, "the head's answer has no nodes in it");
    return -1; /* said so that static analysis sees it */
}

int select_nodes(struct context *ctx, const struct words *patterns, struct words *names, struct error *err)
{
    struct words expanded = {0};
    bool wild = false;
    if (nodeset_expand_words(patterns, &expanded, err))
        return -1;
    for (size_t i = 0; i < expanded.count; i++) {
        wild = wild || nodeset_is_pattern(expanded.list[i]);
        if (!nodeset_is_pattern(expanded.list[i]) && node_name_check("node name", expanded.list[i], err))
            return -1;
    }
    if (!wild) {
        *names = expanded;
        return 0;
    }
    Mu__Reply *reply;
    if (get_nodes(ctx, NULL, NULL, 0, false, &reply, err))
        return -1;
    int rc = 0;
    for (size_t i = 0; i < expanded.count && !rc; i++) {
        size_t before = names->count;
        if (!nodeset_is_pattern(expanded.list[i])) {
            words_add(names, expanded.list[i]);
            continue;
        }
        for (size_t n = 0; n < reply->nodes->n_nodes; n++)
            if (nodeset_match(expanded.list[i], reply->nodes->nodes[n]->node->name))
                words_add(names, cli_keep(xstrdup(reply->nodes->nodes[n]->node->name)));
        if (names->count == before)
            rc = error_set(err, ERR_NOT_FOUND, "no node matches \"%s\"", shown(expanded.list[i]));
    }
    client_reply_free(reply);
    return rc;
}

/* ---- showing ---- */

static json_t *core_json(const Mu__CoreUse *use)
{
    return json_pack("{s:i, s:o, s:o}", "core", (int)use->core, "job",
                     use->job_id ? json_integer((json_int_t)use->job_id) : json_null(), "task",
                     use->task_id ? json_integer(use->task_id) : json_null());
}

/* A local node declares a share of its machine's memory, but measures what the whole machine has free. */
static uint64_t memory_free_mb(const Mu__NodeInfo *info)
{
    uint64_t free_mb = info->load->memory_free_mb, all = info->node->memory_mb;
    return all && free_mb > all ? all : free_mb;
}

static json_t *node_json(const Mu__NodeInfo *info)
{
    const Mu__Node *n = info->node;
    json_t *o = json_object();
    json_object_set_new(o, "name", json_text(n->name));
    json_object_set_new(o, "state", json_string(node_state_name(n->state)));
    json_object_set_new(o, "health", json_text(info->health));
    json_object_set_new(o, "reachable", json_boolean(n->reachable));
    json_object_set_new(o, "cores", json_integer(n->cores));
    json_object_set_new(o, "cores_busy", json_integer(info->cores_busy));
    json_object_set_new(o, "jobs", json_integer(info->jobs));
    json_object_set_new(o, "sockets", json_integer(n->sockets));
    json_object_set_new(o, "virtual_cores", json_boolean(n->virtual_cores));
    json_object_set_new(o, "memory_mb", json_integer((json_int_t)n->memory_mb));
    json_object_set_new(o, "memory_free_mb",
                        info->load ? json_integer((json_int_t)memory_free_mb(info)) : json_null());
    json_object_set_new(o, "load", info->load ? json_real(info->load->load_milli / 1000.0) : json_null());
    json_object_set_new(o, "address", json_text(n->address));
    json_object_set_new(o, "port", json_integer(n->port));
    json_object_set_new(o, "physical_host", json_text(n->physical_host));
    json_object_set_new(o, "groups", json_texts(info->groups, info->n_groups));
    json_object_set_new(o, "os", json_text(n->os));
    json_object_set_new(o, "version", json_text(n->version));
    json_object_set_new(o, "comment", json_text(n->comment));
    json_object_set_new(o, "joined", json_time(n->joined_wall_ms));
    json_object_set_new(o, "changed", json_time(n->changed_wall_ms));
    return o;
}

static json_t *nodes_json(const Mu__NodeListReply *r)
{
    json_t *array = json_array();
    for (size_t i = 0; i < r->n_nodes; i++)
        json_array_append_new(array, node_json(r->nodes[i]));
    return array;
}

static const struct column node_columns[] = {
    {"Node Name", false, FIT_KEEP}, {"State", false, FIT_KEEP},      {"Health", false, FIT_KEEP},
    {"Cores", true, FIT_KEEP},      {"Busy", true, FIT_KEEP},        {"Jobs", true, FIT_KEEP},
    {"Memory MB", true, FIT_DROP},  {"Address", false, FIT_SHORTEN}, {"Groups", false, FIT_SHORTEN},
    {NULL, false, FIT_KEEP},
};

static void node_row(struct table *t, const Mu__NodeInfo *info)
{
    const Mu__Node *n = info->node;
    table_add(t, n->name);
    table_add(t, node_state_name(n->state));
    table_add(t, info->health);
    table_addf(t, "%u", n->cores);
    table_addf(t, "%u", info->cores_busy);
    table_addf(t, "%u", info->jobs);
    table_addf(t, "%" PRIu64, n->memory_mb);
    table_add(t, n->address);
    table_add(t, join(info->groups, info->n_groups, ","));
}

static void show_node(const Mu__NodeInfo *info, bool detailed)
{
    const Mu__Node *n = info->node;
    show("Node Name", n->name);
    show("State", node_state_name(n->state));
    show("Health", info->health);
    if (*n->comment)
        show("Comment", n->comment);
    showf("Cores", "%u%s", n->cores, n->virtual_cores ? " (virtual)" : "");
    showf("Cores Busy", "%u", info->cores_busy);
    showf("Jobs", "%u", info->jobs);
    showf("Memory (MB)", "%" PRIu64, n->memory_mb);
    if (info->load && n->reachable) {
        showf("Free Memory (MB)", "%" PRIu64, memory_free_mb(info));
        showf("Load", "%.2f", info->load->load_milli / 1000.0);
    }
    show("Groups", join(info->groups, info->n_groups, ","));
    show("Address", n->address);
    if (!n->reachable && info->seen_ms_ago > 0)
        show("Last Seen", duration_text(info->seen_ms_ago));
    if (!detailed)
        return;
    showf("Port", "%u", n->port);
    showf("Sockets", "%u", n->sockets);
    show("Physical Host", n->physical_host);
    show("Operating System", n->os);
    show("Version", n->version);
    show("Join Time", time_text(n->joined_wall_ms));
    show("Change Time", time_text(n->changed_wall_ms));
}

/* ---- list, view ---- */

struct list_args {
    const char *group;
    Mu__NodeState state;
    enum list_format format;
};

static const struct option list_options[] = {
    {"group", "nodegroup", "GROUP", "Only nodes of this group", option_text,
     offsetof(struct list_args, group), 0, GROUP_NAME_MAX},
    {"state", NULL, "STATE", "Only nodes in this state: Online, Offline, Draining", option_node_state,
     offsetof(struct list_args, state), 0, 0},
    {"format", NULL, "list|table", "How to print; default table", option_format,
     offsetof(struct list_args, format), 0, 0},
    {"activeheadnode", NULL, NULL, NULL, NULL, 0, 0, 0},
    {"history", NULL, NULL, NULL, NULL, 0, 0, 0},
    {"lastdays", NULL, "N", NULL, NULL, 0, 0, 0},
    {0},
};
static const struct option_group list_groups[] = {{"Options", list_options, 0}, {NULL, NULL, 0}};
static const struct example list_examples[] = {
    {"muster node list", "All nodes"},
    {"muster node list --group AzureNodes --state Online", "Those that can take work"},
    {NULL, NULL},
};

static int run_list(struct context *ctx, void *args, const struct words *words)
{
    const struct list_args *a = args;
    struct error err = {0};
    struct words names = {0};
    Mu__Reply *reply;
    if (words->count && select_nodes(ctx, words, &names, &err))
        return context_fail(ctx, &err);
    if (get_nodes(ctx, &names, a->group, a->state, false, &reply, &err))
        return context_fail(ctx, &err);
    if (ctx->json) {
        json_print(nodes_json(reply->nodes));
    } else {
        struct table *t = table_new(node_columns);
        for (size_t i = 0; i < reply->nodes->n_nodes; i++)
            node_row(t, reply->nodes->nodes[i]);
        table_print(ctx, t, a->format == FORMAT_LIST, 1);
    }
    client_reply_free(reply);
    return EXIT_OK;
}

struct view_args {
    bool detailed;
};
static const struct option view_options[] = {
    {"detailed", NULL, NULL, "All properties", option_flag, offsetof(struct view_args, detailed), 0, 0},
    {"history", NULL, NULL, NULL, NULL, 0, 0, 0},
    {"lastdays", NULL, "N", NULL, NULL, 0, 0, 0},
    {0},
};
static const struct option_group view_groups[] = {{"Options", view_options, 0}, {NULL, NULL, 0}};
static const struct example view_examples[] = {
    {"muster node view node01", "State, load and groups of a node"}, {NULL, NULL}};

static int run_view(struct context *ctx, void *args, const struct words *words)
{
    const struct view_args *a = args;
    struct error err = {0};
    struct words names = {0};
    Mu__Reply *reply;
    if (select_nodes(ctx, words, &names, &err) || get_nodes(ctx, &names, NULL, 0, false, &reply, &err))
        return context_fail(ctx, &err);
    if (ctx->json)
        json_print(nodes_json(reply->nodes));
    for (size_t i = 0; !ctx->json && i < reply->nodes->n_nodes; i++) {
        if (i)
            putchar('\n');
        show_node(reply->nodes->nodes[i], a->detailed);
    }
    client_reply_free(reply);
    return EXIT_OK;
}

/* ---- listcores ---- */

/* What a core can be in this version, under HPC Pack's names. */
static const char *core_state(const Mu__NodeInfo *info, const Mu__CoreUse *use)
{
    if (!info->node->reachable || info->node->state == MU__NODE_STATE__NODE_STATE_OFFLINE)
        return "Offline";
    return !use->job_id ? "Idle" : use->task_id ? "TaskRunning" : "JobScheduled";
}

static int option_core_states(const struct option *opt, void *field, const char *value, struct error *err)
{
    static const char *const known[] = {"*", "all", "offline", "idle", "jobscheduled", "taskrunning"};
    struct words *w = field;
    if (option_names(&(struct option){.max = 16}, w, value, err))
        return -1;
    for (size_t i = 0; i < w->count; i++) {
        bool good = false;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            good = good || !strcasecmp(w->list[i], known[k]);
        if (!good)
            return error_set(
                err, ERR_USAGE,
                "expected states separated by commas: All, Offline, Idle, JobScheduled, TaskRunning");
    }
    return 0;
}

static int option_job_number(const struct option *opt, void *field, const char *value, struct error *err)
{
    char *end;
    unsigned long long n = strtoull(value, &end, 10);
    if (value[0] < '1' || value[0] > '9' || *end || strlen(value) > 18)
        return error_set(err, ERR_USAGE, "expected a job id such as 12");
    *(uint64_t *)field = n;
    return 0;
}

struct cores_args {
    enum list_format format;
    uint64_t job;
    struct words states;
};
static const struct option cores_options[] = {
    {"jobid", NULL, "JOB", "Only cores that this job holds", option_job_number,
     offsetof(struct cores_args, job), 0, 0},
    {"state", NULL, "STATES", "Only cores in these states: All, Offline, Idle, JobScheduled, TaskRunning",
     option_core_states, offsetof(struct cores_args, states), 0, 0},
    {"format", NULL, "list|table", "How to print; default table", option_format,
     offsetof(struct cores_args, format), 0, 0},
    {0},
};
static const struct option_group cores_groups[] = {{"Options", cores_options, 0}, {NULL, NULL, 0}};
static const struct example cores_examples[] = {
    {"muster node listcores --state idle", "The cores that are free"},
    {NULL, NULL},
};
static const struct column core_columns[] = {
    {"Node Name", false, FIT_KEEP}, {"Core ID", true, FIT_KEEP}, {"State", false, FIT_KEEP},
    {"Job ID", true, FIT_KEEP},     {"Task ID", true, FIT_KEEP}, {NULL, false, FIT_KEEP},
};

static bool core_wanted(const struct cores_args *a, const Mu__NodeInfo *info, const Mu__CoreUse *use)
{
    if (a->job && use->job_id != a->job)
        return false;
    for (size_t i = 0; i < a->states.count; i++) {
        const char *s = a->states.list[i];
        if (!strcmp(s, "*") || !strcasecmp(s, "all") || !strcasecmp(s, core_state(info, use)))
            return true;
    }
    return a->states.count == 0;
}

static void core_row(struct table *t, const Mu__NodeInfo *info, const Mu__CoreUse *use)
{
    table_add(t, info->node->name);
    table_addf(t, "%u", use->core);
    table_add(t, core_state(info, use));
    if (use->job_id)
        table_addf(t, "%" PRIu64, use->job_id);
    else
        table_add(t, "");
    if (use->task_id)
        table_addf(t, "%" PRIu64 ".%u", use->job_id, use->task_id);
    else
        table_add(t, "");
}

static int run_listcores(struct context *ctx, void *args, const struct words *words)
{
    const struct cores_args *a = args;
    struct error err = {0};
    Mu__Reply *reply;
    if (get_nodes(ctx, NULL, NULL, 0, true, &reply, &err))
        return context_fail(ctx, &err);
    struct table *t = table_new(core_columns);
    json_t *array = json_array();
    for (size_t i = 0; i < reply->nodes->n_nodes; i++) {
        const Mu__NodeInfo *info = reply->nodes->nodes[i];
        for (size_t k = 0; k < info->n_core_use; k++) {
            if (!core_wanted(a, info, info->core_use[k]))
                continue;
            core_row(t, info, info->core_use[k]);
            json_t *core = core_json(info->core_use[k]);
            json_object_set_new(core, "node", json_text(info->node->name));
            json_object_set_new(core, "state", json_string(core_state(info, info->core_use[k])));
            json_array_append_new(array, core);
        }
    }
    client_reply_free(reply);
    if (ctx->json) {
        table_free(t);
        return json_print(array);
    }
    json_decref(array);
    table_print(ctx, t, a->format == FORMAT_LIST, 2);
    return EXIT_OK;
}

/* ---- online, offline ---- */

struct set_args {
    bool all, force;
    const char *comment;
};
static const struct option online_options[] = {
    {"all", "a", NULL, "All nodes", option_flag, offsetof(struct set_args, all), 0, 0},
    {0},
};
static const struct option offline_options[] = {
    {"all", "a", NULL, "All nodes", option_flag, offsetof(struct set_args, all), 0, 0},
    {"force", NULL, NULL, "End what runs there, instead of draining", option_flag,
     offsetof(struct set_args, force), 0, 0},
    {"comment", NULL, "TEXT", "Why; shown with the node", option_text, offsetof(struct set_args, comment), 0,
     DESCRIPTION_MAX},
    {0},
};
static const struct option_group online_groups[] = {{"Options", online_options, 0}, {NULL, NULL, 0}};
static const struct option_group offline_groups[] = {{"Options", offline_options, 0}, {NULL, NULL, 0}};
static const struct example online_examples[] = {
    {"muster node online node[01-04]", "Four nodes take work"},
    {NULL, NULL},
};
static const struct example offline_examples[] = {
    {"muster node offline node02 --comment \"bad cable\"", "It takes no new work; what runs there goes on"},
    {NULL, NULL},
};

static int set_nodes(struct context *ctx, const struct set_args *a, const struct words *words, bool online)
{
    struct error err = {0};
    struct words names = {0};
    Mu__NodeSet body = MU__NODE_SET__INIT;
    Mu__Request req = MU__REQUEST__INIT;
    Mu__Reply *reply;
    if (a->all == (words->count > 0))
        return context_usage(ctx, "expected either node names or --all");
    if (words->count && select_nodes(ctx, words, &names, &err))
        return context_fail(ctx, &err);
    body.names = names.list;
    body.n_names = names.count;
    body.all = a->all;
    body.online = online;
    body.force = a->force;
    body.comment = (char *)(a->comment ? a->comment : "");
    req.kind_case = MU__REQUEST__KIND_NODE_SET;
    req.node_set = &body;
    if (context_call(ctx, &req, &reply, &err))
        return context_fail(ctx, &err);
    if (reply->kind_case != MU__REPLY__KIND_NODES) {
        error_set(&err, ERR_PROTOCOL, "the head's answer has no nodes in it");
        client_reply_free(reply);
        return context_fail(ctx, &err);
    }
    if (ctx->json)
        json_print(nodes_json(reply->nodes));
    for (size_t i = 0; !ctx->json && i < reply->nodes->n_nodes; i++) {
        const Mu__Node *n = reply->nodes->nodes[i]->node;
        printf("Node %s is now %s.\n", shown(n->name), node_state_name(n->state));
    }
    client_reply_free(reply);
    return EXIT_OK;
}

static int run_online(struct context *ctx, void *args, const struct words *words)
{
    return set_nodes(ctx, args, words, true);
}

static int run_offline(struct context *ctx, void *args, const struct words *words)
{
    return set_nodes(ctx, args, words, false);
}

static const struct command commands[] = {
    {"list", "[NODE...] [options]", "list nodes", NULL, list_groups, list_examples, sizeof(struct list_args),
     0, -1, NULL, -1, true, false, run_list},
    {"view", "NODE... [options]", "show nodes", NULL, view_groups, view_examples, sizeof(struct view_args), 1,
     -1, "the node's name", -1, true, false, run_view},
    {"listcores", "[options]", "list cores and what runs on them", NULL, cores_groups, cores_examples,
     sizeof(struct cores_args), 0, 0, NULL, -1, true, false, run_listcores},
    {"online", "NODE...\n--all", "let nodes take work", "For administrators.", online_groups, online_examples,
     sizeof(struct set_args), 0, -1, NULL, -1, true, false, run_online},
    {"offline", "NODE... [options]\n--all [options]", "keep nodes from taking work",
     "For administrators. A node with work on it is Draining until that has ended.", offline_groups,
     offline_examples, sizeof(struct set_args), 0, -1, NULL, -1, true, false, run_offline},
    {0},
};

const struct noun node_noun = {
    "node",
    NULL,
    "see nodes, and say which take work",
    "Nodes are named as node01, in lists as node01,node02 or node[01-04], and with wildcards as 'node*'.",
    commands,
    false,
    "approve pause resume history",
    "muster(1), muster-group(1)",
};
