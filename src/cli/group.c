/* group.c - muster group: list, new, add, remove, delete. */
#include "cli/command.h"
#include "cli/nodes.h"
#include "cli/nodeset.h"
#include "cli/print.h"
#include "model/names.h"

#include <stddef.h>
#include <string.h>

static json_t *group_json(const Mu__Group *g)
{
    return json_pack("{s:o, s:o, s:o, s:b}", "name", json_text(g->name), "description",
                     json_text(g->description), "nodes", json_texts(g->nodes, g->n_nodes), "builtin",
                     (int)g->builtin);
}

static int call_groups(struct context *ctx, Mu__Request *req, Mu__Reply **reply, struct error *err)
{
    if (context_call(ctx, req, reply, err))
        return -1;
    if ((*reply)->kind_case == MU__REPLY__KIND_GROUPS)
        return 0;
    client_reply_free(*reply);
    *reply = NULL;
    error_set(err, ERR_PROTOCOL, "the head's answer has no groups in it");
    return -1; /* said so that static analysis sees it */
}

/* ---- list ---- */

struct list_args {
    enum list_format format;
};
static const struct option list_options[] = {
    {"format", NULL, "list|table", "How to print; default table", option_format,
     offsetof(struct list_args, format), 0, 0},
    {0},
};
static const struct option_group list_groups[] = {{"Options", list_options, 0}, {NULL, NULL, 0}};
static const struct example list_examples[] = {
    {"muster group list", "All groups and their nodes"},
    {NULL, NULL},
};
static const struct column columns[] = {
    {"Group Name", false, FIT_KEEP},     {"Count", true, FIT_KEEP}, {"Nodes", false, FIT_SHORTEN},
    {"Description", false, FIT_SHORTEN}, {NULL, false, FIT_KEEP},
};

static int run_list(struct context *ctx, void *args, const struct words *words)
{
    const struct list_args *a = args;
    struct error err = {0};
    Mu__GroupList body = MU__GROUP_LIST__INIT;
    Mu__Request req = MU__REQUEST__INIT;
    Mu__Reply *reply;
    body.name = words->count ? words->list[0] : (char *)"";
    req.kind_case = MU__REQUEST__KIND_GROUP_LIST;
    req.group_list = &body;
    if (call_groups(ctx, &req, &reply, &err))
        return context_fail(ctx, &err);
    struct table *t = table_new(columns);
    json_t *array = json_array();
    for (size_t i = 0; i < reply->groups->n_groups; i++) {
        const Mu__Group *g = reply->groups->groups[i];
        struct buf nodes = BUF_INIT;
        json_array_append_new(array, group_json(g));
        nodeset_fold(g->nodes, g->n_nodes, &nodes);
        table_add(t, g->name);
        table_addf(t, "%zu", g->n_nodes);
        table_add(t, buf_str(&nodes));
        table_add(t, g->description);
        buf_free(&nodes);
    }
    client_reply_free(reply);
    if (ctx->json) {
        table_free(t);
        return json_print(array);
    }
    json_decref(array);
    table_print(ctx, t, a->format == FORMAT_LIST, -1);
    return EXIT_OK;
}

/* ---- changes ---- */

struct new_args {
    const char *description;
};
static const struct option new_options[] = {
    {"description", NULL, "TEXT", "What the group is for", option_text,
     offsetof(struct new_args, description), 0, DESCRIPTION_MAX},
    {0},
};
static const struct option_group new_groups[] = {{"Options", new_options, 0}, {NULL, NULL, 0}};

static int set_group(struct context *ctx, const struct words *words, Mu__GroupSet__Verb verb,
                     const char *description, const char *done_text)
{
    struct error err = {0};
    struct words patterns = {.list = words->list + 1, .count = words->count - 1}, names = {0};
    Mu__GroupSet body = MU__GROUP_SET__INIT;
    Mu__Request req = MU__REQUEST__INIT;
    Mu__Reply *reply;
    if (group_name_check("group name", words->list[0], &err)) {
        err.code = ERR_USAGE;
        return context_fail(ctx, &err);
    }
    if (patterns.count && select_nodes(ctx, &patterns, &names, &err))
        return context_fail(ctx, &err);
    body.verb = verb;
    body.name = words->list[0];
    body.description = (char *)(description ? description : "");
    body.nodes = names.list;
    body.n_nodes = names.count;
    req.kind_case = MU__REQUEST__KIND_GROUP_SET;
    req.group_set = &body;
    if (call_groups(ctx, &req, &reply, &err))
        return context_fail(ctx, &err);
    if (ctx->json) {
        json_t *array = json_array();
        for (size_t i = 0; i < reply->groups->n_groups; i++)
            json_array_append_new(array, group_json(reply->groups->groups[i]));
        json_print(array);
    } else {
        printf("Group %s %s.\n", shown(words->list[0]), done_text);
    }
    client_reply_free(reply);
    return EXIT_OK;
}

static int run_new(struct context *ctx, void *args, const struct words *words)
{
    const struct new_args *a = args;
    return set_group(ctx, words, MU__GROUP_SET__VERB__NEW, a->description, "created");
}

static int run_add(struct context *ctx, void *args, const struct words *words)
{
    return set_group(ctx, words, MU__GROUP_SET__VERB__ADD, NULL, "changed");
}

static int run_remove(struct context *ctx, void *args, const struct words *words)
{
    return set_group(ctx, words, MU__GROUP_SET__VERB__REMOVE, NULL, "changed");
}

static int run_delete(struct context *ctx, void *args, const struct words *words)
{
    return set_group(ctx, words, MU__GROUP_SET__VERB__DELETE, NULL, "deleted");
}

static const struct example new_examples[] = {
    {"muster group new AzureNodes node[01-04]", "A group of four nodes"},
    {NULL, NULL},
};
static const struct example add_examples[] = {{"muster group add AzureNodes node05,node06", "Two more"},
                                              {NULL, NULL}};
static const struct example remove_examples[] = {
    {"muster group remove AzureNodes node05", "One less; the node itself stays"},
    {NULL, NULL},
};
static const struct example delete_examples[] = {
    {"muster group delete AzureNodes", "The group goes, its nodes stay"},
    {NULL, NULL},
};

static const struct command commands[] = {
    {"list", "[GROUP] [options]", "list groups", NULL, list_groups, list_examples, sizeof(struct list_args),
     0, 1, NULL, -1, true, false, run_list},
    {"new", "GROUP [NODE...] [options]", "make a group", "For administrators, as all changes of groups.",
     new_groups, new_examples, sizeof(struct new_args), 1, -1, "the group's name", -1, true, false, run_new},
    {"add", "GROUP NODE...", "add nodes to a group", NULL, NULL, add_examples, 0, 2, -1,
     "the group's or a node's name", -1, true, false, run_add},
    {"remove", "GROUP NODE...", "take nodes out of a group", NULL, NULL, remove_examples, 0, 2, -1,
     "the group's or a node's name", -1, true, false, run_remove},
    {"delete", "GROUP", "delete a group", NULL, NULL, delete_examples, 0, 1, 1, "the group's name", -1, true,
     false, run_delete},
    {0},
};

const struct noun group_noun = {
    "group",
    NULL,
    "name sets of nodes",
    "Jobs ask for nodes of a group with --nodegroup. A node may be in several groups; names are compared "
    "without case.",
    commands,
    false,
    NULL,
    "muster(1), muster-node(1), muster-job(1)",
};
