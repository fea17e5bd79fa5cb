/* run.c - one run of the scheduler: tasks into held cores, growth, shrink, then the queue.
 *
 * The order within one run:
 *   1. jobs of which something changed: their waiting tasks into cores they hold idle, what
 *      they cannot use goes back;
 *   2. running jobs below their maximum, in order of the queue: grow where that lets their next
 *      task start;
 *   3. running jobs that hold nothing useful and have nothing running go back to the queue, so
 *      that no two jobs can wait for each other's cores;
 *   4. the queue: heads of classes in order; one that does not fit blocks what shares its nodes.
 */
#include "sched/internal.h"

#include "base/mem.h"
#include "model/names.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int head_order(struct sched_class *a, struct sched_class *b)
{
    return job_order(class_head(a), class_head(b));
}

RB_GENERATE_STATIC(head_tree, sched_class, head_entry, head_order)

struct sched *sched_create(const struct sched_ops *ops, void *arg)
{
    struct sched *s = xcalloc(1, sizeof *s);
    s->ops = *ops;
    s->arg = arg;
    s->epoch = 1;
    return s;
}

void sched_destroy(struct sched *s)
{
    if (!s)
        return;
    struct sched_group *g, *next;
    HASH_ITER (hh, s->groups, g, next) {
        HASH_DEL(s->groups, g);
        free(g->name);
        free(g->title);
        free(g->nodes);
        free(g);
    }
    queue_free(s);
    free(s->nodes);
    free(s->changed);
    free(s->picks);
    free(s->list);
    free(s->blocked);
    free(s);
}

static int by_pick_name(const void *a, const void *b)
{
    return natural_compare(((const struct pick *)a)->node->name, ((const struct pick *)b)->node->name);
}

/* The cores in s->picks become the task's. */
static void start_task(struct sched *s, struct sched_task *task)
{
    struct sched_job *job = task->job;
    size_t n = s->n_picks, cores = 0;
    qsort(s->picks, n, sizeof *s->picks, by_pick_name);
    for (size_t i = 0; i < n; i++)
        cores += s->picks[i].n;
    struct sched_place *places = xcalloc(n, sizeof *places);
    uint32_t *ids = xcalloc(cores, sizeof *ids), *next = ids;
    /* The attempt's number comes from the caller, who needs the cores' numbers for its row: they
     * are taken under a stand-in number first. */
    for (size_t i = 0; i < n; i++) {
        places[i] = (struct sched_place){s->picks[i].node, next, s->picks[i].n};
        ledger_attempt(s, ledger_hold(job, s->picks[i].node), s->picks[i].n, UINT64_MAX, next);
        next += s->picks[i].n;
    }
    sched_task_unwait(s, task);
    job->live++;
    uint64_t attempt = s->ops.task_started(s->arg, task, places, n);
    assert(attempt != 0);
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < places[i].n; k++)
            places[i].node->core[places[i].cores[k]].attempt = attempt;
    free(ids);
    free(places);
}

/* Strictly in order: a task that does not fit holds back those after it, or a large task would
 * wait for ever behind small ones. */
static void start_tasks(struct sched *s, struct sched_job *job)
{
    struct sched_task *task;
    while ((task = queue_task(job)) && place_task(s, task))
        start_task(s, task);
}

/* Gives back idle cores beyond what the waiting tasks could use. */
static void shrink(struct sched *s, struct sched_job *job)
{
    uint32_t before = job->held_cores;
    struct sched_hold *hold;
    while ((hold = ledger_idle_last(job)) && ledger_idle_units(job) > job->want) {
        uint32_t over = (uint32_t)(ledger_idle_units(job) - job->want);
        if (job->node_units) {
            ledger_give(s, hold, hold->idle);
        } else if (job->exclusive) {
            if (hold->idle != hold->n || hold->idle > over)
                break;
            ledger_give(s, hold, hold->idle);
        } else {
            ledger_give(s, hold, hold->idle < over ? hold->idle : over);
        }
    }
    if (job->held_cores != before)
        s->ops.job_shrunk(s->arg, job);
}

static void take_picks(struct sched *s, struct sched_job *job)
{
    for (size_t i = 0; i < s->n_picks; i++)
        ledger_take(s, job, s->picks[i].node, s->picks[i].n);
}

/* Takes free cores when they let the next task start. Idle cores are never hoarded for it. */
static bool grow(struct sched *s, struct sched_job *job)
{
    struct sched_task *task = queue_task(job);
    uint32_t held = ledger_units(job), idle = ledger_idle_units(job);
    if (!task || (job->max && held >= job->max))
        return false;
    uint64_t room = job->max ? job->max - held : UINT32_MAX;
    uint64_t need = task->min > idle ? task->min - idle : 1;
    uint64_t want = job->want > idle ? job->want - idle : need;
    if (want < need)
        want = need;
    if (want > room)
        want = room;
    if (need > room || !place_job(s, job, need, want, task->required, task->n_required))
        return false;
    take_picks(s, job);
    s->ops.job_grown(s->arg, job);
    start_tasks(s, job);
    shrink(s, job);
    return true;
}

static void settle_job(struct sched *s, struct sched_job *job)
{
    start_tasks(s, job);
    shrink(s, job);
    queue_hungry(s, job);
}

/* Free cores have appeared on these nodes: classes that contain one are to be tried. */
static bool spread_changes(struct sched *s)
{
    struct sched_class *c, *next;
    bool any = false;
    HASH_ITER (hh, s->classes, c, next) {
        class_refresh(s, c);
        c->grown = false;
        for (size_t i = 0; i < s->n_changed && !c->grown; i++)
            c->grown = class_has(s, c, s->changed[i]);
        if (!c->grown)
            continue;
        any = c->dirty = true;
        s->pass_wanted = true;
    }
    for (size_t i = 0; i < s->n_changed; i++)
        s->changed[i]->changed = false;
    s->n_changed = 0;
    return any;
}

static void grow_jobs(struct sched *s)
{
    struct sched_job *job, *next;
    for (job = queue_hungry_first(s); job && s->free_open; job = next) {
        next = queue_hungry_next(job);
        if (!job->class->grown)
            continue;
        if (grow(s, job))
            queue_hungry(s, job);
    }
}

/* Jobs of which something changed, for as long as that changes others. */
static void run_jobs(struct sched *s)
{
    for (int round = 0; round < 4; round++) {
        struct sched_job *job, **stuck = NULL;
        size_t n_stuck = 0, cap = 0, n = 0, cap_looked = 0;
        struct sched_job **looked = NULL;
        while ((job = queue_look_pop(s))) {
            settle_job(s, job);
            looked = xgrow(looked, &cap_looked, n + 1, sizeof(*looked));
            looked[n++] = job;
        }
        bool grown = s->n_changed > 0 && spread_changes(s);
        if (grown)
            grow_jobs(s);
        for (size_t i = 0; i < n; i++) {
            job = looked[i];
            if (job->hungry && grow(s, job))
                queue_hungry(s, job);
            if (job->running && job->live == 0 && queue_task(job)) {
                stuck = xgrow(stuck, &cap, n_stuck + 1, sizeof(*stuck));
                stuck[n_stuck++] = job;
            }
        }
        for (size_t i = 0; i < n_stuck; i++) {
            sched_job_stop(s, stuck[i]);
            s->ops.job_stuck(s->arg, stuck[i]);
        }
        free(stuck);
        free(looked);
        if (RB_EMPTY(&s->look) && s->n_changed == 0)
            break;
    }
}

/* Starts the queued job with what place_job() found. */
static void start_job(struct sched *s, struct sched_job *job)
{
    sched_job_dequeue(s, job);
    take_picks(s, job);
    job->running = true;
    s->ops.job_started(s->arg, job);
    settle_job(s, job);
}

static bool try_job(struct sched *s, struct sched_job *job)
{
    struct sched_task *task = queue_task(job);
    uint64_t need = queue_need(job);
    if (need < job->min)
        need = job->min;
    if (need == 0)
        need = 1;
    uint64_t want = job->want;
    if (job->max && want > job->max)
        want = job->max;
    if (want < need)
        want = need;
    if (!place_job(s, job, need, want, task ? task->required : NULL, task ? task->n_required : 0))
        return false;
    start_job(s, job);
    return true;
}

/* Whether jobs before have a claim to a node of the class. */
static bool class_blocked(const struct sched *s, const struct sched_class *c, bool all_blocked,
                          bool any_blocked)
{
    if (all_blocked || (c->all && any_blocked))
        return true;
    if (c->all || !any_blocked)
        return false;
    for (size_t i = 0; i < c->n_words; i++)
        if (c->bits[i] & s->blocked[i])
            return true;
    return false;
}

static void block_nodes(struct sched *s, const struct sched_class *c)
{
    for (size_t i = 0; i < c->n_words; i++)
        s->blocked[i] |= c->bits[i];
}

static void set_blocker(struct sched_class *c, const struct sched_job *job)
{
    c->blocker = job->id;
    c->blocker_priority = job->priority;
    c->blocker_order = job->order;
}

/* The job before this class whose nodes overlap: the first head that did not fit. */
static const struct sched_job *blocker_of(struct sched_class *const *blocked, size_t n,
                                          const struct sched_class *c)
{
    for (size_t i = 0; i < n; i++) {
        if (c->all || blocked[i]->all)
            return class_head(blocked[i]);
        for (size_t k = 0; k < c->n_words && k < blocked[i]->n_words; k++)
            if (c->bits[k] & blocked[i]->bits[k])
                return class_head(blocked[i]);
    }
    return NULL;
}

static void run_queue(struct sched *s)
{
    struct head_tree heads = RB_INITIALIZER(&heads);
    struct sched_class *c, *next, **blocked;
    bool all_blocked = false, any_blocked = false;
    size_t n_blocked = 0, words = s->n_nodes / 64 + 1;
    s->pass_wanted = false;
    s->blocked = xgrow(s->blocked, &s->cap_blocked, words, sizeof *s->blocked);
    memset(s->blocked, 0, words * sizeof *s->blocked);
    blocked = xcalloc(HASH_COUNT(s->classes) + 1, sizeof(*blocked));
    HASH_ITER (hh, s->classes, c, next) {
        class_refresh(s, c);
        if (class_head(c))
            RB_INSERT(head_tree, &heads, c);
    }
    while ((c = RB_MIN(head_tree, &heads))) {
        struct sched_job *job = class_head(c);
        RB_REMOVE(head_tree, &heads, c);
        if (class_blocked(s, c, all_blocked, any_blocked)) {
            const struct sched_job *before = blocker_of(blocked, n_blocked, c);
            set_blocker(c, before ? before : job);
        } else {
            if (c->dirty && try_job(s, job)) {
                if (class_head(c))
                    RB_INSERT(head_tree, &heads, c);
                continue;
            }
            c->dirty = false;
            set_blocker(c, job);
            blocked[n_blocked++] = c;
        }
        any_blocked = true;
        if (c->all)
            all_blocked = true;
        else
            block_nodes(s, c);
    }
    free(blocked);
    s->pass_wanted = false;
}

void sched_run(struct sched *s)
{
    run_jobs(s);
    if (s->n_changed > 0)
        spread_changes(s);
    if (s->pass_wanted)
        run_queue(s);
}
