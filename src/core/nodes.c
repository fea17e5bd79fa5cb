/* nodes.c - nodes coming, going, going on- and offline; node groups.
 *
 * Losing the link to a node ends nothing: what runs there goes on and may be found again. Only
 * when the lease of its attempts is surely over (or the machine was re-imaged, or says itself
 * that an attempt is not there) do they count as lost.
 */
#include "core/internal.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- state ---- */

void node_avail(struct core *core, struct node *node)
{
    enum sched_avail avail = AVAIL_OFFLINE;
    if (!node->row->reachable)
        avail = AVAIL_UNREACHABLE;
    else if (node->row->state == NODE(ONLINE))
        avail = AVAIL_OPEN;
    else if (node->row->state == NODE(DRAINING))
        avail = AVAIL_DRAINING;
    sched_node_avail(core->sched, &node->s, avail);
}

static bool node_in_use(struct node *node)
{
    return sched_node_held(&node->s) || node_part_after(node, 0);
}

static void set_state(struct core *core, struct node *node, Mu__NodeState state, const char *cause,
                      const char *actor)
{
    if (node->row->state == state)
        return;
    node->row->state = state;
    node_watch(core, node);
    node->row->changed_wall_ms = core->wall_ms;
    node_touch(core, node);
    event_node(core, node, node_state_name((int)state), cause, actor);
    node_avail(core, node);
}

void node_watch(struct core *core, struct node *node)
{
    bool settling = node->row->state == NODE(DRAINING) || node->cores_wanted != node->row->cores;
    if (settling && !node->settling)
        TAILQ_INSERT_TAIL(&core->settling_nodes, node, settling_entry);
    else if (!settling && node->settling)
        TAILQ_REMOVE(&core->settling_nodes, node, settling_entry);
    node->settling = settling;
}

bool nodes_settle(struct core *core)
{
    struct node *node, *next;
    bool any = false;
    TAILQ_FOREACH_SAFE(node, &core->settling_nodes, settling_entry, next)
    {
        node_settle(core, node);
        any = any || !node->settling;
    }
    return any;
}

/* When the last work is gone: a draining node is offline, another number of cores counts. */
void node_settle(struct core *core, struct node *node)
{
    if (node->cores_wanted != node->row->cores && !node_in_use(node)) {
        node->row->cores = node->cores_wanted;
        node_touch(core, node);
        sched_node_resize(core->sched, &node->s, node->cores_wanted);
        node_watch(core, node);
    }
    if (node->row->state == NODE(DRAINING) && !node_in_use(node))
        set_state(core, node, NODE(OFFLINE), "drained", ACTOR_SCHEDULER);
}

/* ---- links ---- */

static int hello_check(const Mu__NodeHello *h, struct error *err)
{
    if (node_name_check("node name", h->name, err))
        return -1;
    if (h->cores < 1 || h->cores > 65536)
        return error_set(err, ERR_USAGE, "node %s: cores %u: expected 1 to 65536", h->name, h->cores);
    if (text_check("install id", h->install_id, 256, err) || text_check("boot id", h->boot_id, 256, err) ||
        text_check("address", h->address, 256, err) || text_check("version", h->version, 256, err) ||
        text_check("physical host", h->physical_host, 256, err) || text_check("os", h->os, 256, err))
        return error_prefix(err, "node %s", h->name);
    if (!*h->install_id)
        return error_set(err, ERR_USAGE, "node %s: install id: expected a value, got nothing", h->name);
    return 0;
}

static void take_hello(struct node *node, const Mu__NodeHello *h)
{
    Mu__Node *row = node->row;
    message_set(&row->install_id, h->install_id);
    message_set(&row->boot_id, h->boot_id);
    message_set(&row->address, h->address);
    message_set(&row->version, h->version);
    message_set(&row->physical_host, h->physical_host);
    message_set(&row->os, h->os);
    row->memory_mb = h->memory_mb;
    row->port = h->port;
    row->sockets = h->sockets;
    row->virtual_cores = h->virtual_cores;
    node->cores_wanted = h->cores;
}

/* New nodes are offline: an administrator (or muster-local, which is one) brings them online. */
static struct node *node_join(struct core *core, const Mu__NodeHello *h)
{
    Mu__Node *row = message_new(&mu__node__descriptor);
    message_set(&row->name, h->name);
    row->state = NODE(OFFLINE);
    row->cores = h->cores;
    row->joined_wall_ms = row->changed_wall_ms = core->wall_ms;
    struct node *node = node_new(core, row);
    take_hello(node, h);
    sched_node_add(core->sched, &node->s, row->name, row->cores);
    event_node(core, node, "Joined", "", h->name);
    return node;
}

static bool in_inventory(const Mu__NodeHello *h, uint64_t attempt)
{
    for (size_t i = 0; i < h->n_attempts; i++)
        if (h->attempts[i]->attempt == attempt)
            return true;
    return false;
}

/* What we know of and the node does not have. An order to prepare may not have arrived, or may
 * still be under way in a batch that is not durable: it, or the order to end, is sent again and
 * the answer awaited. Only what the node has once reported as prepared is lost. */
static void reconcile_absent(struct core *core, struct node *node, const Mu__NodeHello *h)
{
    struct part *part;
    char why[160];
    for (uint64_t id = 0; (part = node_part_after(node, id));) {
        id = part->attempt->row->id;
        if (part->row->state != ANODE(PREPARED) || in_inventory(h, id))
            continue;
        snprintf(why, sizeof why, "node %s has lost the task's attempt", node->row->name);
        attempt_lost(core, part, why);
    }
}

static void lose_all(struct core *core, struct node *node, const char *why)
{
    struct part *part;
    while ((part = node_part_after(node, 0)))
        attempt_lost(core, part, why);
}

void node_up(struct core *core, const Mu__NodeHello *h, struct result *r)
{
    char why[160];
    if (hello_check(h, &r->error))
        return;
    struct node *node = node_find(core, h->name);
    bool reimaged = node && strcmp(node->row->install_id, h->install_id) != 0;
    if (!node)
        node = node_join(core, h);
    if (reimaged) {
        snprintf(why, sizeof why, "node %s was installed anew", node->row->name);
        event_node(core, node, "Installed anew", "", h->name);
        lose_all(core, node, why);
    }
    take_hello(node, h);
    node_watch(core, node);
    node->row->lost_up_ms = 0;
    timer_set(core, &node->timer, 0);
    node->row->changed_wall_ms = core->wall_ms;
    node_touch(core, node);
    if (!node->row->reachable) {
        node->row->reachable = true;
        event_node(core, node, "Reachable", "", h->name);
    }
    reconcile_absent(core, node, h);
    for (size_t i = 0; i < h->n_attempts; i++)
        attempt_report(core, node, h->attempts[i]);
    node_settle(core, node);
    node_avail(core, node);
    admin_wake(core);
}

/* When the lease runs out, the keeper first asks the task to end and waits the grace period. Attempts
 * that a head with longer times has prepared keep those. */
int64_t node_lease_end(const struct core *core, struct node *node, int64_t lost_up_ms)
{
    const struct core_config *c = &core->config;
    int64_t longest = (int64_t)c->lease_ms + c->grace_ms;
    struct part *part;
    for (uint64_t id = 0; (part = node_part_after(node, id)); id = part->attempt->row->id) {
        int64_t its = (int64_t)part->attempt->row->lease_ms + part->attempt->row->lease_grace_ms;
        longest = its > longest ? its : longest;
    }
    return lost_up_ms + longest + c->lease_margin_ms;
}

void node_down(struct core *core, const char *name, struct result *r)
{
    struct node *node = name ? node_find(core, name) : NULL;
    if (!node) {
        error_set(&r->error, ERR_NOT_FOUND, "node %s: no such node", name ? name : "");
        return;
    }
    if (!node->row->reachable)
        return;
    node->row->reachable = false;
    node->row->lost_up_ms = core->up_ms;
    node->row->changed_wall_ms = core->wall_ms;
    node_touch(core, node);
    event_node(core, node, "Unreachable", "", "head");
    node_avail(core, node);
    timer_set(core, &node->timer, node_lease_end(core, node, core->up_ms));
}

/* Its attempts have ended themselves by now. */
void node_lease_over(struct core *core, struct node *node)
{
    char why[160];
    snprintf(why, sizeof why, "node %s was lost", node->row->name);
    lose_all(core, node, why);
    admin_node_lost(core, node, why);
}

/* ---- online, offline ---- */

static void take_online(struct core *core, struct node *node, const char *actor)
{
    node->row->admin_offline = false;
    message_set(&node->row->comment, "");
    node_touch(core, node);
    set_state(core, node, NODE(ONLINE), "", actor);
}

static void take_offline(struct core *core, struct node *node, const Mu__NodeSet *c, const char *actor)
{
    char why[160];
    struct part *part;
    node->row->admin_offline = true;
    message_set(&node->row->comment, c->comment);
    node_touch(core, node);
    /* By force it is offline at once, and no job starts anything there any more, even in cores that
     * it holds; without, jobs that hold cores there may use them to their end. */
    if (c->force || !node_in_use(node))
        set_state(core, node, NODE(OFFLINE), c->comment, actor);
    else if (node->row->state != NODE(OFFLINE))
        set_state(core, node, NODE(DRAINING), c->comment, actor);
    if (!c->force)
        return;
    snprintf(why, sizeof why, "node %s was taken offline", node->row->name);
    for (uint64_t id = 0; (part = node_part_after(node, id));) {
        struct attempt *a = part->attempt;
        id = a->row->id;
        if (!a->row->ended && !a->row->prepare_failed && !*a->row->message) {
            message_set(&a->row->message, why);
            attempt_touch(core, a);
        }
        attempt_end(core, a, core->config.grace_ms);
        attempt_settle(core, a);
    }
}

static void set_one(struct core *core, struct node *node, const Mu__NodeSet *c, const char *actor)
{
    if (c->online)
        take_online(core, node, actor);
    else
        take_offline(core, node, c, actor);
}

void node_set(struct core *core, const struct actor *actor, const Mu__NodeSet *c, struct result *r)
{
    if (!actor->admin) {
        error_set(&r->error, ERR_DENIED, "node %s: only an administrator may do that",
                  c->online ? "online" : "offline");
        return;
    }
    if (!c->all && c->n_names == 0) {
        error_set(&r->error, ERR_USAGE, "node: expected a name or --all");
        return;
    }
    if (text_check("comment", c->comment, DESCRIPTION_MAX, &r->error))
        return;
    for (size_t i = 0; !c->all && i < c->n_names; i++)
        if (!node_find(core, c->names[i])) {
            error_set(&r->error, ERR_NOT_FOUND, "node %.64s: no such node", c->names[i]);
            return;
        }
    char *who = xstrdup(actor_name(actor));
    const Mu__Node *row = NULL;
    while (c->all && (row = core_next_node(core, row ? row->name : NULL)))
        set_one(core, node_find(core, row->name), c, who);
    for (size_t i = 0; !c->all && i < c->n_names; i++)
        set_one(core, node_find(core, c->names[i]), c, who);
    free(who);
}

/* ---- groups ---- */

void group_publish(struct core *core, const struct group *group)
{
    size_t n = 0;
    struct sched_node **nodes = xcalloc(group->row->n_nodes ? group->row->n_nodes : 1, sizeof(*nodes));
    for (size_t i = 0; i < group->row->n_nodes; i++) {
        struct node *node = node_find(core, group->row->nodes[i]);
        if (node)
            nodes[n++] = &node->s;
    }
    sched_group_set(core->sched, group->row->name, nodes, n);
    free(nodes);
}

static bool group_has(const Mu__Group *row, const char *node)
{
    for (size_t i = 0; i < row->n_nodes; i++)
        if (!strcasecmp(row->nodes[i], node))
            return true;
    return false;
}

static int by_natural(const void *a, const void *b)
{
    return natural_compare(*(char *const *)a, *(char *const *)b);
}

static void group_add(struct core *core, struct group *group, char *const *names, size_t n)
{
    Mu__Group *row = group->row;
    for (size_t i = 0; i < n; i++) {
        if (group_has(row, names[i]))
            continue;
        row->nodes = xrealloc(row->nodes, (row->n_nodes + 1) * sizeof(*row->nodes));
        row->nodes[row->n_nodes++] = xstrdup(node_find(core, names[i])->row->name);
    }
    if (row->n_nodes)
        qsort(row->nodes, row->n_nodes, sizeof(*row->nodes), by_natural);
}

static void group_drop(struct group *group, char *const *names, size_t n)
{
    Mu__Group *row = group->row;
    size_t kept = 0;
    for (size_t i = 0; i < row->n_nodes; i++) {
        bool drop = false;
        for (size_t k = 0; k < n; k++)
            drop = drop || !strcasecmp(row->nodes[i], names[k]);
        if (drop)
            free(row->nodes[i]);
        else
            row->nodes[kept++] = row->nodes[i];
    }
    row->n_nodes = kept;
}

static int group_check(struct core *core, const struct actor *actor, const Mu__GroupSet *c, struct error *err)
{
    struct group *group = group_find(core, c->name);
    if (!actor->admin)
        return error_set(err, ERR_DENIED, "group %.64s: only an administrator may change node groups",
                         c->name);
    if (group_name_check("group", c->name, err) ||
        text_check("description", c->description, DESCRIPTION_MAX, err))
        return -1;
    if (c->n_nodes > LIST_MAX)
        return error_set(err, ERR_LIMIT, "group %s: %zu nodes at once; at most %d", c->name, c->n_nodes,
                         LIST_MAX);
    if (c->verb == MU__GROUP_SET__VERB__NEW && group)
        return error_set(err, ERR_EXISTS, "group %s: there is one of that name", c->name);
    if (c->verb != MU__GROUP_SET__VERB__NEW && !group)
        return error_set(err, ERR_NOT_FOUND, "group %s: no such node group", c->name);
    if ((c->verb == MU__GROUP_SET__VERB__ADD || c->verb == MU__GROUP_SET__VERB__REMOVE) && c->n_nodes == 0)
        return error_set(err, ERR_USAGE, "group %s: expected the name of a node", c->name);
    for (size_t i = 0; i < c->n_nodes; i++) {
        if (!node_find(core, c->nodes[i]))
            return error_set(err, ERR_NOT_FOUND, "node %.64s: no such node", c->nodes[i]);
        if (c->verb == MU__GROUP_SET__VERB__REMOVE && !group_has(group->row, c->nodes[i]))
            return error_set(err, ERR_NOT_FOUND, "node %s is not in group %s", c->nodes[i], group->row->name);
    }
    uint64_t example;
    uint32_t jobs =
        c->verb == MU__GROUP_SET__VERB__DELETE ? sched_group_jobs(core->sched, c->name, &example) : 0;
    if (jobs)
        return error_set(err, ERR_STATE, "group %s: %u job%s that %s not ended use it", c->name, jobs,
                         jobs == 1 ? "" : "s", jobs == 1 ? "has" : "have");
    return 0;
}

void group_set(struct core *core, const struct actor *actor, const Mu__GroupSet *c, struct result *r)
{
    static const char *const words[] = {"", "Created", "Nodes added", "Nodes removed", "Deleted"};
    if (c->verb < MU__GROUP_SET__VERB__NEW || c->verb > MU__GROUP_SET__VERB__DELETE) {
        error_set(&r->error, ERR_USAGE, "group: unknown verb %d", (int)c->verb);
        return;
    }
    if (group_check(core, actor, c, &r->error))
        return;
    struct group *group = group_find(core, c->name);
    struct buf names = BUF_INIT;
    for (size_t i = 0; i < c->n_nodes && i < 16; i++)
        buf_addf(&names, "%s%s", i ? ", " : "", c->nodes[i]);
    if (c->n_nodes > 16)
        buf_addf(&names, " and %zu more", c->n_nodes - 16);
    event_other(core, EVENT(GROUP), group ? group->row->name : c->name, words[c->verb], buf_str(&names),
                actor_name(actor));
    buf_free(&names);
    if (c->verb == MU__GROUP_SET__VERB__DELETE && group) {
        sched_group_set(core->sched, group->row->name, NULL, 0);
        row_gone(core, ROW_GROUP, 0, 0, group->row->name);
        group_free(core, group);
        return;
    }
    if (!group) {
        Mu__Group *row = message_new(&mu__group__descriptor);
        message_set(&row->name, c->name);
        message_set(&row->description, c->description);
        group = group_new(core, row);
    }
    if (c->verb == MU__GROUP_SET__VERB__REMOVE)
        group_drop(group, c->nodes, c->n_nodes);
    else
        group_add(core, group, c->nodes, c->n_nodes);
    group_touch(core, group);
    group_publish(core, group);
}
