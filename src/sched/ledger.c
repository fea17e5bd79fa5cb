/* ledger.c - who holds which core, and where cores are free.
 *
 * A core is free, or held by one job; a held core is idle or has one attempt. Each change keeps
 * the sums in node, job and sched, and the two indexes of open nodes (by free cores, and those
 * wholly free). Idle cores are only ever held on nodes where something may start: on others they
 * are given back at once, so nobody need ask before placing a task in held cores.
 */
#include "sched/internal.h"

#include "base/mem.h"
#include "model/names.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>

static int free_order(struct sched_node *a, struct sched_node *b)
{
    if (a->free != b->free)
        return a->free > b->free ? -1 : 1;
    return natural_compare(a->name, b->name);
}

static int whole_order(struct sched_node *a, struct sched_node *b)
{
    return natural_compare(a->name, b->name);
}

static int hold_name_order(struct sched_hold *a, struct sched_hold *b)
{
    return natural_compare(a->node->name, b->node->name);
}

static int hold_idle_order(struct sched_hold *a, struct sched_hold *b)
{
    if (a->idle != b->idle)
        return a->idle > b->idle ? -1 : 1;
    return natural_compare(a->node->name, b->node->name);
}

RB_GENERATE_STATIC(free_tree, sched_node, free_entry, free_order)
RB_GENERATE_STATIC(whole_tree, sched_node, whole_entry, whole_order)
RB_GENERATE_STATIC(sched_hold_names, sched_hold, name_entry, hold_name_order)
RB_GENERATE_STATIC(sched_hold_idle, sched_hold, idle_entry, hold_idle_order)

/* Takes the node out of the indexes: to be called before node->free changes. */
static void unindex(struct sched *s, struct sched_node *node)
{
    if (node->in_free) {
        RB_REMOVE(free_tree, &s->free, node);
        s->free_open -= node->free;
    }
    if (node->in_whole) {
        RB_REMOVE(whole_tree, &s->whole, node);
        s->n_whole--;
    }
    node->in_free = node->in_whole = false;
}

void ledger_index(struct sched *s, struct sched_node *node)
{
    unindex(s, node);
    if (node->avail != AVAIL_OPEN || node->free == 0)
        return;
    RB_INSERT(free_tree, &s->free, node);
    s->free_open += node->free;
    node->in_free = true;
    if (node->free == node->cores) {
        RB_INSERT(whole_tree, &s->whole, node);
        s->n_whole++;
        node->in_whole = true;
    }
}

/* Free cores have appeared on an open node: whoever waits for one is to be tried again. */
static void changed(struct sched *s, struct sched_node *node)
{
    if (node->avail != AVAIL_OPEN || node->free == 0 || node->changed)
        return;
    s->changed = xgrow(s->changed, &s->cap_changed, s->n_changed + 1, sizeof(*s->changed));
    s->changed[s->n_changed++] = node;
    node->changed = true;
}

void sched_node_add(struct sched *s, struct sched_node *node, const char *name, uint32_t cores)
{
    node->name = name;
    node->key = xstrdup(name);
    for (char *p = node->key; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    node->index = (uint32_t)s->n_nodes;
    node->cores = node->free = cores;
    node->core = xcalloc(cores ? cores : 1, sizeof *node->core);
    node->avail = AVAIL_OFFLINE;
    LIST_INIT(&node->holds);
    s->nodes = xgrow(s->nodes, &s->cap_nodes, s->n_nodes + 1, sizeof(*s->nodes));
    s->nodes[s->n_nodes++] = node;
    s->cores += cores;
    s->epoch++;
}

void sched_node_clear(struct sched_node *node)
{
    free(node->core);
    free(node->key);
    node->core = NULL;
    node->key = NULL;
}

bool sched_node_held(const struct sched_node *node)
{
    return node->free != node->cores;
}

void sched_node_resize(struct sched *s, struct sched_node *node, uint32_t cores)
{
    assert(!sched_node_held(node));
    unindex(s, node);
    s->cores += cores;
    s->cores -= node->cores;
    node->cores = node->free = cores;
    free(node->core);
    node->core = xcalloc(cores ? cores : 1, sizeof *node->core);
    ledger_index(s, node);
    changed(s, node);
}

void sched_node_avail(struct sched *s, struct sched_node *node, enum sched_avail avail)
{
    if (node->avail == avail)
        return;
    s->open += (avail == AVAIL_OPEN) - (node->avail == AVAIL_OPEN);
    s->unreachable += avail == AVAIL_UNREACHABLE;
    s->unreachable -= node->avail == AVAIL_UNREACHABLE;
    unindex(s, node);
    node->avail = avail;
    ledger_index(s, node);
    if (avail == AVAIL_OPEN)
        changed(s, node);
    if (avail != AVAIL_OFFLINE && avail != AVAIL_UNREACHABLE)
        return;
    struct sched_hold *hold, *next;
    for (hold = LIST_FIRST(&node->holds); hold; hold = next) {
        next = LIST_NEXT(hold, node_entry);
        struct sched_job *job = hold->job;
        uint32_t idle = hold->idle;
        if (idle == 0)
            continue;
        ledger_give(s, hold, idle);
        queue_look(s, job);
        s->ops.job_shrunk(s->arg, job);
    }
}

struct sched_hold *ledger_hold(struct sched_job *job, struct sched_node *node)
{
    struct sched_hold key = {.node = node};
    return RB_FIND(sched_hold_names, &job->holds, &key);
}

/* The hold of the job on the node, made if absent. */
static struct sched_hold *hold_get(struct sched_job *job, struct sched_node *node)
{
    struct sched_hold *hold = ledger_hold(job, node);
    if (hold)
        return hold;
    hold = xcalloc(1, sizeof *hold);
    hold->node = node;
    hold->job = job;
    RB_INSERT(sched_hold_names, &job->holds, hold);
    LIST_INSERT_HEAD(&node->holds, hold, node_entry);
    job->held_nodes++;
    return hold;
}

/* Changes a hold's idle count by `add` and keeps index and sums. */
static void hold_idle(struct sched_hold *hold, int64_t add)
{
    struct sched_job *job = hold->job;
    if (hold->idle > 0) {
        RB_REMOVE(sched_hold_idle, &job->idle, hold);
        job->idle_nodes--;
    }
    hold->idle = (uint32_t)(hold->idle + add);
    job->idle_cores = (uint32_t)(job->idle_cores + add);
    if (hold->idle > 0) {
        RB_INSERT(sched_hold_idle, &job->idle, hold);
        job->idle_nodes++;
    }
}

void ledger_take(struct sched *s, struct sched_job *job, struct sched_node *node, uint32_t n)
{
    assert(n > 0 && n <= node->free);
    struct sched_hold *hold = hold_get(job, node);
    uint32_t left = n;
    for (uint32_t i = 0; i < node->cores && left; i++) {
        if (node->core[i].job)
            continue;
        node->core[i].job = job;
        left--;
    }
    assert(left == 0);
    unindex(s, node);
    node->free -= n;
    ledger_index(s, node);
    hold->n += n;
    job->held_cores += n;
    s->held += n;
    hold_idle(hold, n);
}

static void hold_drop_if_empty(struct sched_hold *hold)
{
    if (hold->n > 0)
        return;
    RB_REMOVE(sched_hold_names, &hold->job->holds, hold);
    LIST_REMOVE(hold, node_entry);
    hold->job->held_nodes--;
    free(hold);
}

/* Highest core numbers first, so that what stays held is packed at the low end. */
void ledger_give(struct sched *s, struct sched_hold *hold, uint32_t n)
{
    struct sched_node *node = hold->node;
    struct sched_job *job = hold->job;
    assert(n > 0 && n <= hold->idle);
    uint32_t left = n;
    for (uint32_t i = node->cores; i-- > 0 && left;) {
        if (node->core[i].job != job || node->core[i].attempt)
            continue;
        node->core[i].job = NULL;
        left--;
    }
    assert(left == 0);
    unindex(s, node);
    node->free += n;
    ledger_index(s, node);
    hold_idle(hold, -(int64_t)n);
    hold->n -= n;
    job->held_cores -= n;
    s->held -= n;
    changed(s, node);
    hold_drop_if_empty(hold);
}

void ledger_give_idle(struct sched *s, struct sched_job *job)
{
    struct sched_hold *hold;
    while ((hold = RB_MIN(sched_hold_idle, &job->idle)))
        ledger_give(s, hold, hold->idle);
}

uint32_t ledger_units(const struct sched_job *job)
{
    return job->node_units ? job->held_nodes : job->held_cores;
}

uint32_t ledger_idle_units(const struct sched_job *job)
{
    return job->node_units ? job->idle_nodes : job->idle_cores;
}

struct sched_hold *ledger_idle_first(struct sched_job *job)
{
    return RB_MIN(sched_hold_idle, &job->idle);
}

struct sched_hold *ledger_idle_next(struct sched_hold *hold)
{
    return RB_NEXT(sched_hold_idle, , hold);
}

struct sched_hold *ledger_idle_last(struct sched_job *job)
{
    return RB_MAX(sched_hold_idle, &job->idle);
}

/* The indexes run from most to fewest, then by name. The best fit is the group of the smallest
 * count that suffices: the last entry not below n leads to that count, the count to its first. */
struct sched_hold *ledger_idle_fit(struct sched_job *job, uint32_t n)
{
    struct sched_node low = {.name = ""};
    struct sched_hold key = {.node = &low, .idle = n - 1}, *fit;
    fit = RB_NFIND(sched_hold_idle, &job->idle, &key); /* first with fewer than n */
    fit = fit ? RB_PREV(sched_hold_idle, , fit) : RB_MAX(sched_hold_idle, &job->idle);
    if (!fit)
        return NULL;
    key.idle = fit->idle;
    return RB_NFIND(sched_hold_idle, &job->idle, &key);
}

struct sched_node *ledger_free_first(struct sched *s)
{
    return RB_MIN(free_tree, &s->free);
}

struct sched_node *ledger_free_next(struct sched_node *node)
{
    return RB_NEXT(free_tree, , node);
}

struct sched_node *ledger_free_fit(struct sched *s, uint32_t n)
{
    struct sched_node key = {.name = "", .free = n - 1}, *fit;
    fit = RB_NFIND(free_tree, &s->free, &key);
    fit = fit ? RB_PREV(free_tree, , fit) : RB_MAX(free_tree, &s->free);
    if (!fit)
        return NULL;
    key.free = fit->free;
    return RB_NFIND(free_tree, &s->free, &key);
}

struct sched_node *ledger_whole_first(struct sched *s)
{
    return RB_MIN(whole_tree, &s->whole);
}

struct sched_node *ledger_whole_next(struct sched_node *node)
{
    return RB_NEXT(whole_tree, , node);
}

/* Gives n idle cores of the hold to the attempt, lowest numbers first, and writes them down. */
void ledger_attempt(struct sched *s, struct sched_hold *hold, uint32_t n, uint64_t attempt, uint32_t *cores)
{
    struct sched_node *node = hold->node;
    uint32_t got = 0;
    for (uint32_t i = 0; i < node->cores && got < n; i++) {
        if (node->core[i].job != hold->job || node->core[i].attempt)
            continue;
        node->core[i].attempt = attempt;
        cores[got++] = i;
    }
    assert(got == n);
    hold_idle(hold, -(int64_t)n);
}

int sched_hold(struct sched *s, struct sched_job *job, struct sched_node *node, uint32_t core)
{
    if (core >= node->cores || node->core[core].job)
        return -1;
    struct sched_hold *hold = hold_get(job, node);
    node->core[core].job = job;
    unindex(s, node);
    node->free--;
    ledger_index(s, node);
    hold->n++;
    job->held_cores++;
    s->held++;
    hold_idle(hold, 1);
    return 0;
}

struct sched_hold *sched_hold_first(struct sched_job *job)
{
    return RB_MIN(sched_hold_names, &job->holds);
}

struct sched_hold *sched_hold_next(struct sched_hold *hold)
{
    return RB_NEXT(sched_hold_names, , hold);
}

int sched_occupy(struct sched *s, struct sched_job *job, struct sched_node *node, uint32_t core,
                 uint64_t attempt)
{
    if (core >= node->cores || node->core[core].job != job || node->core[core].attempt)
        return -1;
    node->core[core].attempt = attempt;
    hold_idle(ledger_hold(job, node), -1);
    return 0;
}

void sched_vacate(struct sched *s, struct sched_job *job, struct sched_node *node, const uint32_t *cores,
                  size_t n, uint64_t attempt)
{
    struct sched_hold *hold = ledger_hold(job, node);
    uint32_t back = 0;
    for (size_t i = 0; hold && i < n; i++) {
        struct sched_core *core = cores[i] < node->cores ? &node->core[cores[i]] : NULL;
        if (!core || core->job != job || core->attempt != attempt)
            continue;
        core->attempt = 0;
        back++;
    }
    if (!back)
        return;
    hold_idle(hold, back);
    queue_look(s, job);
    if (!job->running || node->avail == AVAIL_OFFLINE || node->avail == AVAIL_UNREACHABLE)
        ledger_give(s, hold, hold->idle);
}

void sched_totals(const struct sched *s, struct sched_totals *totals)
{
    *totals = (struct sched_totals){
        .nodes = (uint32_t)s->n_nodes,
        .open = s->open,
        .unreachable = s->unreachable,
        .cores = s->cores,
        .held = s->held,
    };
}

int sched_check_node(const struct sched *s, const struct sched_node *node, struct error *err)
{
    uint32_t unheld = 0, held = 0;
    const struct sched_hold *hold;
    for (uint32_t i = 0; i < node->cores; i++) {
        if (!node->core[i].job)
            unheld++;
        if (!node->core[i].job && node->core[i].attempt)
            return error_set(err, ERR_INTERNAL, "node %s core %u has an attempt but no job", node->name, i);
    }
    LIST_FOREACH (hold, &node->holds, node_entry)
        held += hold->n;
    if (unheld != node->free || held + node->free != node->cores)
        return error_set(err, ERR_INTERNAL, "node %s: %u cores, %u free counted, %u said, %u held",
                         node->name, node->cores, unheld, node->free, held);
    bool open = node->avail == AVAIL_OPEN && node->free > 0;
    if (node->in_free != open || node->in_whole != (open && node->free == node->cores))
        return error_set(err, ERR_INTERNAL, "node %s stands in the wrong index", node->name);
    return 0;
}

int sched_check_job(const struct sched *s, const struct sched_job *job, struct error *err)
{
    uint32_t held = 0, idle = 0, nodes = 0, idle_nodes = 0;
    struct sched_hold *hold;
    struct sched_hold_names *holds = (struct sched_hold_names *)&job->holds;
    RB_FOREACH (hold, sched_hold_names, holds) {
        uint32_t n = 0, free_here = 0;
        for (uint32_t i = 0; i < hold->node->cores; i++) {
            n += hold->node->core[i].job == job;
            free_here += hold->node->core[i].job == job && !hold->node->core[i].attempt;
        }
        if (n != hold->n || free_here != hold->idle || n == 0)
            return error_set(err, ERR_INTERNAL, "job %llu on %s: holds %u, counted %u; idle %u, counted %u",
                             (unsigned long long)job->id, hold->node->name, hold->n, n, hold->idle,
                             free_here);
        if (job->node_units && n != hold->node->cores)
            return error_set(err, ERR_INTERNAL, "job %llu of whole nodes holds %u of %u cores of %s",
                             (unsigned long long)job->id, n, hold->node->cores, hold->node->name);
        held += n;
        idle += free_here;
        nodes++;
        idle_nodes += free_here > 0;
    }
    if (held != job->held_cores || idle != job->idle_cores || nodes != job->held_nodes ||
        idle_nodes != job->idle_nodes)
        return error_set(err, ERR_INTERNAL, "job %llu: sums of its holds differ",
                         (unsigned long long)job->id);
    if (!job->running && idle > 0)
        return error_set(err, ERR_INTERNAL, "job %llu holds %u idle cores and does not run",
                         (unsigned long long)job->id, idle);
    return queue_check(job, err);
}
