/* queue.c - classes of jobs, their queues, and the lists of jobs to be looked at.
 *
 * Two jobs are in one class when they name the same groups and the same requested nodes. What a
 * class contains is worked out when it is first needed after a node or group changed (epoch).
 */
#include "sched/internal.h"

#include "base/mem.h"
#include "model/names.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define SPARE_CLASSES 64

int job_order(const struct sched_job *a, const struct sched_job *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority ? -1 : 1;
    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    return TREE_ORDER(a->id, b->id);
}

static int queue_order(struct sched_job *a, struct sched_job *b)
{
    return job_order(a, b);
}

static int waiting_order(struct sched_task *a, struct sched_task *b)
{
    return a->order != b->order ? TREE_ORDER(a->order, b->order) : TREE_ORDER(a->id, b->id);
}

RB_GENERATE_STATIC(queue_tree, sched_job, queue_entry, queue_order)
RB_GENERATE_STATIC(hungry_tree, sched_job, hungry_entry, queue_order)
RB_GENERATE_STATIC(look_tree, sched_job, look_entry, queue_order)
RB_GENERATE_STATIC(sched_tasks, sched_task, entry, waiting_order)

/* ---- classes ---- */

static char *lower(const char *s)
{
    char *out = xstrdup(s);
    for (char *p = out; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return out;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Lower case, sorted, without repeats. */
static char **name_set(char *const *names, size_t n, size_t *count)
{
    char **out = xcalloc(n ? n : 1, sizeof *out);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        out[i] = lower(names[i]);
    qsort(out, n, sizeof *out, by_text);
    for (size_t i = 0; i < n; i++) {
        if (kept && !strcmp(out[kept - 1], out[i]))
            free(out[i]);
        else
            out[kept++] = out[i];
    }
    *count = kept;
    return out;
}

static void name_set_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

static struct sched_class *class_get(struct sched *s, char *const *groups, size_t n_groups,
                                     char *const *nodes, size_t n_nodes)
{
    size_t ng, nn;
    char **g = name_set(groups, n_groups, &ng), **r = name_set(nodes, n_nodes, &nn);
    struct buf key = BUF_INIT;
    for (size_t i = 0; i < ng; i++)
        buf_addf(&key, "%s,", g[i]);
    buf_addc(&key, '|');
    for (size_t i = 0; i < nn; i++)
        buf_addf(&key, "%s,", r[i]);
    struct sched_class *c;
    HASH_FIND_STR(s->classes, buf_str(&key), c);
    if (c) {
        name_set_free(g, ng);
        name_set_free(r, nn);
        buf_free(&key);
        return c;
    }
    c = xcalloc(1, sizeof *c);
    c->key = buf_detach(&key);
    c->groups = g, c->n_groups = ng;
    c->requested = r, c->n_requested = nn;
    c->all = ng == 0 && nn == 0;
    HASH_ADD_KEYPTR(hh, s->classes, c->key, strlen(c->key), c);
    return c;
}

static void class_free(struct sched *s, struct sched_class *c)
{
    HASH_DEL(s->classes, c);
    name_set_free(c->groups, c->n_groups);
    name_set_free(c->requested, c->n_requested);
    free(c->members);
    free(c->bits);
    free(c->key);
    free(c);
}

/* A few classes of groups alone are kept without jobs: the next job very likely names the same,
 * and working out what a class contains costs a look at every node. */
static void class_release(struct sched *s, struct sched_class *c)
{
    if (c->refs == 0 && (c->n_requested || HASH_COUNT(s->classes) > SPARE_CLASSES))
        class_free(s, c);
}

void queue_free(struct sched *s)
{
    struct sched_class *c, *next;
    HASH_ITER (hh, s->classes, c, next) {
        assert(c->refs == 0);
        class_free(s, c);
    }
}

static struct sched_group *group_find(struct sched *s, const char *lower_name)
{
    struct sched_group *g;
    HASH_FIND_STR(s->groups, lower_name, g);
    return g;
}

static bool class_wants(const struct sched_class *c, const char *lower_node)
{
    return c->n_requested == 0 ||
           bsearch(&lower_node, c->requested, c->n_requested, sizeof *c->requested, by_text);
}

static int by_name(const void *a, const void *b)
{
    return natural_compare((*(struct sched_node *const *)a)->name, (*(struct sched_node *const *)b)->name);
}

/* Marks of one intersection: a node has mark + i after the first i groups. */
void class_refresh(struct sched *s, struct sched_class *c)
{
    if (c->epoch == s->epoch)
        return;
    c->epoch = s->epoch;
    c->dirty = true;
    s->pass_wanted = true;
    if (c->all)
        return;
    c->n_words = s->n_nodes / 64 + 1;
    c->bits = xrealloc(c->bits, c->n_words * sizeof *c->bits);
    memset(c->bits, 0, c->n_words * sizeof *c->bits);
    c->n_members = 0;
    uint64_t base = s->mark + 1;
    s->mark += c->n_groups + 1;
    for (size_t i = 0; i < c->n_groups; i++) {
        struct sched_group *g = group_find(s, c->groups[i]);
        for (size_t k = 0; g && k < g->n; k++)
            if (i == 0 || g->nodes[k]->mark == base + i - 1)
                g->nodes[k]->mark = base + i;
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct sched_node *node = s->nodes[i];
        if (c->n_groups && node->mark != base + c->n_groups - 1)
            continue;
        if (!class_wants(c, node->key))
            continue;
        c->members = xgrow(c->members, &c->cap_members, c->n_members + 1, sizeof(*c->members));
        c->members[c->n_members++] = node;
        c->bits[node->index / 64] |= UINT64_C(1) << (node->index % 64);
    }
    if (c->n_members)
        qsort(c->members, c->n_members, sizeof *c->members, by_name);
}

bool class_has(struct sched *s, struct sched_class *c, const struct sched_node *node)
{
    class_refresh(s, c);
    return c->all || (node->index / 64 < c->n_words && (c->bits[node->index / 64] >> (node->index % 64) & 1));
}

struct sched_job *class_head(struct sched_class *c)
{
    return RB_MIN(queue_tree, &c->queue);
}

void sched_group_set(struct sched *s, const char *name, struct sched_node *const *nodes, size_t n)
{
    char *key = lower(name);
    struct sched_group *g = group_find(s, key);
    s->epoch++;
    s->pass_wanted = true;
    if (!nodes && n == 0) {
        if (g) {
            HASH_DEL(s->groups, g);
            free(g->name);
            free(g->title);
            free(g->nodes);
            free(g);
        }
        free(key);
        return;
    }
    if (!g) {
        g = xcalloc(1, sizeof *g);
        g->name = key;
        g->title = xstrdup(name);
        HASH_ADD_KEYPTR(hh, s->groups, g->name, strlen(g->name), g);
    } else {
        free(key);
    }
    free(g->nodes);
    g->nodes = xcalloc(n ? n : 1, sizeof(*g->nodes));
    if (n)
        memcpy(g->nodes, nodes, n * sizeof(*g->nodes));
    g->n = n;
}

const char *queue_group_title(struct sched *s, const char *lower_name)
{
    struct sched_group *g = group_find(s, lower_name);
    return g ? g->title : lower_name;
}

uint32_t sched_group_jobs(struct sched *s, const char *name, uint64_t *example)
{
    char *key = lower(name);
    uint32_t jobs = 0;
    struct sched_class *c, *next;
    *example = 0;
    HASH_ITER (hh, s->classes, c, next) {
        if (!bsearch(&key, c->groups, c->n_groups, sizeof *c->groups, by_text))
            continue;
        jobs += c->refs;
        struct sched_job *head = class_head(c);
        if (head && (*example == 0 || head->id < *example))
            *example = head->id;
    }
    free(key);
    return jobs;
}

void sched_candidates(struct sched *s, char *const *groups, size_t n_groups, char *const *nodes,
                      size_t n_nodes, struct sched_candidates *out)
{
    struct sched_class *c = class_get(s, groups, n_groups, nodes, n_nodes);
    class_refresh(s, c);
    c->refs++;
    *out = (struct sched_candidates){.class = c, .nodes = (uint32_t)s->n_nodes, .cores = s->cores};
    if (c->all)
        return;
    out->nodes = (uint32_t)c->n_members;
    out->cores = 0;
    for (size_t i = 0; i < c->n_members; i++)
        out->cores += c->members[i]->cores;
}

bool sched_candidates_have(struct sched *s, const struct sched_candidates *c, const struct sched_node *node)
{
    return class_has(s, c->class, node);
}

void sched_candidates_end(struct sched *s, struct sched_candidates *c)
{
    c->class->refs--;
    class_release(s, c->class);
    c->class = NULL;
}

bool sched_job_candidate(struct sched *s, struct sched_job *job, const struct sched_node *node)
{
    return class_has(s, job->class, node);
}

/* ---- jobs ---- */

void sched_job_add(struct sched *s, struct sched_job *job, char *const *groups, size_t n_groups,
                   char *const *nodes, size_t n_nodes)
{
    RB_INIT(&job->waiting);
    RB_INIT(&job->holds);
    RB_INIT(&job->idle);
    job->class = class_get(s, groups, n_groups, nodes, n_nodes);
    job->class->refs++;
}

void sched_job_remove(struct sched *s, struct sched_job *job)
{
    sched_job_dequeue(s, job);
    sched_job_stop(s, job);
    assert(job->held_cores == 0);
    free(job->needs);
    job->needs = NULL;
    job->n_needs = job->cap_needs = 0;
    if (!job->class)
        return;
    job->class->refs--;
    class_release(s, job->class);
    job->class = NULL;
}

/* The head of the queue is another one, or wants something else: it has not been tried. */
static void head_changed(struct sched *s, struct sched_class *c)
{
    c->dirty = true;
    s->pass_wanted = true;
}

void sched_job_queue(struct sched *s, struct sched_job *job)
{
    if (job->queued)
        return;
    RB_INSERT(queue_tree, &job->class->queue, job);
    job->queued = true;
    if (class_head(job->class) == job)
        head_changed(s, job->class);
}

void sched_job_dequeue(struct sched *s, struct sched_job *job)
{
    if (!job->queued)
        return;
    /* Others may have waited behind it: their classes are still dirty, as a class that is
     * blocked is not tried. */
    if (class_head(job->class) == job)
        head_changed(s, job->class);
    RB_REMOVE(queue_tree, &job->class->queue, job);
    job->queued = false;
}

static void look_remove(struct sched *s, struct sched_job *job)
{
    if (job->looked)
        RB_REMOVE(look_tree, &s->look, job);
    job->looked = false;
}

void queue_look(struct sched *s, struct sched_job *job)
{
    if (job->looked || !job->running)
        return;
    RB_INSERT(look_tree, &s->look, job);
    job->looked = true;
}

struct sched_job *queue_look_pop(struct sched *s)
{
    struct sched_job *job = RB_MIN(look_tree, &s->look);
    if (job)
        look_remove(s, job);
    return job;
}

void queue_hungry(struct sched *s, struct sched_job *job)
{
    bool hungry = job->running && !RB_EMPTY(&job->waiting) && (job->max == 0 || ledger_units(job) < job->max);
    if (hungry && !job->hungry)
        RB_INSERT(hungry_tree, &s->hungry, job);
    else if (!hungry && job->hungry)
        RB_REMOVE(hungry_tree, &s->hungry, job);
    job->hungry = hungry;
}

struct sched_job *queue_hungry_first(struct sched *s)
{
    return RB_MIN(hungry_tree, &s->hungry);
}

struct sched_job *queue_hungry_next(struct sched_job *job)
{
    return RB_NEXT(hungry_tree, , job);
}

void sched_job_resumed(struct sched *s, struct sched_job *job)
{
    job->running = true;
    queue_look(s, job);
    queue_hungry(s, job);
}

void sched_job_stop(struct sched *s, struct sched_job *job)
{
    look_remove(s, job);
    job->running = false;
    queue_hungry(s, job);
    ledger_give_idle(s, job);
}

void sched_attempt_over(struct sched *s, struct sched_job *job)
{
    assert(job->live > 0);
    job->live--;
    queue_look(s, job);
}

/* ---- tasks ---- */

static size_t need_index(const struct sched_job *job, uint32_t min)
{
    size_t i = 0;
    while (i < job->n_needs && job->needs[i].min < min)
        i++;
    return i;
}

static void need_add(struct sched_job *job, uint32_t min)
{
    size_t i = need_index(job, min);
    if (i < job->n_needs && job->needs[i].min == min) {
        job->needs[i].count++;
        return;
    }
    job->needs = xgrow(job->needs, &job->cap_needs, job->n_needs + 1, sizeof *job->needs);
    memmove(job->needs + i + 1, job->needs + i, (job->n_needs - i) * sizeof *job->needs);
    job->needs[i] = (struct sched_need){.min = min, .count = 1};
    job->n_needs++;
}

static void need_remove(struct sched_job *job, uint32_t min)
{
    size_t i = need_index(job, min);
    assert(i < job->n_needs && job->needs[i].min == min);
    if (--job->needs[i].count)
        return;
    job->n_needs--;
    memmove(job->needs + i, job->needs + i + 1, (job->n_needs - i) * sizeof *job->needs);
}

uint32_t queue_need(const struct sched_job *job)
{
    return job->n_needs ? job->needs[job->n_needs - 1].min : 0;
}

/* What the job asks for has changed. */
static void tasks_changed(struct sched *s, struct sched_job *job)
{
    queue_look(s, job);
    queue_hungry(s, job);
    if (job->queued && class_head(job->class) == job)
        head_changed(s, job->class);
}

void sched_task_wait(struct sched *s, struct sched_task *task)
{
    if (task->waiting)
        return;
    RB_INSERT(sched_tasks, &task->job->waiting, task);
    task->waiting = true;
    need_add(task->job, task->min);
    task->job->want += task->max;
    tasks_changed(s, task->job);
}

void sched_task_unwait(struct sched *s, struct sched_task *task)
{
    if (!task->waiting)
        return;
    RB_REMOVE(sched_tasks, &task->job->waiting, task);
    task->waiting = false;
    need_remove(task->job, task->min);
    task->job->want -= task->max;
    tasks_changed(s, task->job);
}

struct sched_task *queue_task(struct sched_job *job)
{
    return RB_MIN(sched_tasks, &job->waiting);
}

int queue_check(const struct sched_job *job, struct error *err)
{
    uint64_t want = 0, waiting = 0, counted = 0;
    struct sched_task *task;
    struct sched_tasks *tasks = (struct sched_tasks *)&job->waiting;
    RB_FOREACH (task, sched_tasks, tasks) {
        want += task->max;
        waiting++;
    }
    for (size_t i = 0; i < job->n_needs; i++)
        counted += job->needs[i].count;
    if (want != job->want || waiting != counted)
        return error_set(err, ERR_INTERNAL, "job %llu: sums of its waiting tasks differ",
                         (unsigned long long)job->id);
    return 0;
}
