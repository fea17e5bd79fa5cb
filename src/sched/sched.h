/* sched.h - which job goes where next: pure decisions over nodes, cores and queues.
 *
 * The scheduler knows nodes with cores, jobs with a place in the queue, and tasks that wait. It
 * keeps the ledger of who holds which core; sched_run() starts what can start and tells the
 * caller through `ops`. It knows nothing of attempts' protocol, rows or time.
 *
 * Policy: priority, then first come first served. A job that cannot start blocks the jobs behind
 * it that could use one of its nodes; jobs with none of its candidate nodes pass it. Running
 * jobs with waiting tasks grow up to their maximum before new jobs start; cores that a job's
 * waiting tasks cannot use are given back at once. There is no backfill.
 *
 * Cost: jobs with the same groups and requested nodes form a class with a queue of its own, so
 * a turn looks at the heads of classes, not at jobs; a head that did not fit is not looked at
 * again until a node of its class has changed; free nodes are indexed. A job whose own place or
 * tasks changed is "looked at" once.
 *
 * The structs are open so that the core can embed them; fields are the scheduler's to change.
 * Every iteration order that influences a decision follows names, priorities and order numbers,
 * never the time of insertion, so that a reloaded cluster decides as the old one.
 */
#ifndef MUSTER_SCHED_SCHED_H
#define MUSTER_SCHED_SCHED_H

#include "base/buf.h"
#include "base/error.h"
#include "model/tree.h"

#include <bsd/sys/queue.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sched;
struct sched_class;
struct sched_job;

enum sched_avail {
    AVAIL_OPEN,        /* online and reachable: takes new jobs */
    AVAIL_DRAINING,    /* only for jobs that hold cores there */
    AVAIL_OFFLINE,     /* nothing starts */
    AVAIL_UNREACHABLE, /* nothing starts; what runs there may still run */
};

struct sched_core {
    struct sched_job *job; /* who holds it; NULL: free */
    uint64_t attempt;      /* what runs on it; 0: idle */
};

/* Cores of one node held by one job. */
struct sched_hold {
    struct sched_node *node;
    struct sched_job *job;
    uint32_t n, idle; /* cores held; of these with no attempt */
    RB_ENTRY(sched_hold) name_entry;
    RB_ENTRY(sched_hold) idle_entry; /* only while idle > 0 */
    LIST_ENTRY(sched_hold) node_entry;
};
RB_HEAD(sched_hold_names, sched_hold);
RB_HEAD(sched_hold_idle, sched_hold);

struct sched_node {
    const char *name; /* borrowed; never changes */
    char *key;        /* the same in lower case */
    uint32_t index;   /* its bit in the classes' sets */
    uint32_t cores, free;
    enum sched_avail avail;
    struct sched_core *core; /* [cores] */
    LIST_HEAD(, sched_hold) holds;
    RB_ENTRY(sched_node) free_entry, whole_entry;
    uint64_t mark; /* scratch of one search */
    bool in_free, in_whole, changed;
};

struct sched_task {
    struct sched_job *job;
    uint32_t id;
    uint64_t order;
    uint32_t min, max; /* in the job's unit, 1 <= min <= max */
    bool exclusive;    /* whole nodes of the job for itself */
    bool waiting;
    struct sched_node **required; /* owned by the caller */
    size_t n_required;
    RB_ENTRY(sched_task) entry;
};
RB_HEAD(sched_tasks, sched_task);

struct sched_need { /* so many waiting tasks with this minimum */
    uint32_t min, count;
};

struct sched_job {
    uint64_t id;
    uint32_t priority;
    uint64_t order;
    bool node_units; /* else cores */
    bool exclusive;
    uint32_t min, max; /* 0: from the tasks */
    struct sched_class *class;

    bool queued, running, hungry, looked;
    struct sched_tasks waiting;
    struct sched_need *needs; /* ascending by min */
    size_t n_needs, cap_needs;
    uint64_t want; /* sum of the waiting tasks' maxima */

    struct sched_hold_names holds;
    struct sched_hold_idle idle;
    uint32_t held_cores, idle_cores, held_nodes, idle_nodes;
    uint32_t live; /* attempts that hold cores */

    RB_ENTRY(sched_job) queue_entry, hungry_entry, look_entry;
};

/* What a task gets: parallel to how the core writes rows. Borrowed for the call. */
struct sched_place {
    struct sched_node *node;
    uint32_t *cores;
    uint32_t n;
};

struct sched_ops {
    void (*job_started)(void *arg, struct sched_job *job);
    void (*job_grown)(void *arg, struct sched_job *job);
    void (*job_shrunk)(void *arg, struct sched_job *job);
    /* Nothing of the job runs and its next task does not fit in what it holds: it holds nothing
     * any more; the callee queues it again (sched_job_queue()). */
    void (*job_stuck)(void *arg, struct sched_job *job);
    /* The callee returns the number of the new attempt (not 0). Places are in order of name. */
    uint64_t (*task_started)(void *arg, struct sched_task *task, const struct sched_place *places, size_t n);
};

struct sched *sched_create(const struct sched_ops *ops, void *arg);
void sched_destroy(struct sched *s); /* jobs, tasks, nodes are the caller's; call the _clear() below first */

/* ---- nodes and groups ---- */
void sched_node_add(struct sched *s, struct sched_node *node, const char *name, uint32_t cores);
void sched_node_clear(struct sched_node *node); /* frees what it owns, at the very end */
void sched_node_avail(struct sched *s, struct sched_node *node, enum sched_avail avail);
/* Whether jobs hold cores there. */
bool sched_node_held(const struct sched_node *node);
/* Only while nothing is held there. */
void sched_node_resize(struct sched *s, struct sched_node *node, uint32_t cores);
/* Replaces the members; `name` in any case. n 0 with nodes NULL removes the group. */
void sched_group_set(struct sched *s, const char *name, struct sched_node *const *nodes, size_t n);
/* Jobs (not ended) that name the group; *example is the id of one. */
uint32_t sched_group_jobs(struct sched *s, const char *name, uint64_t *example);

/* What the groups and requested nodes leave, whatever its state, for validation. To find it costs as
 * much as there are names and nodes: a job's is found once for all its tasks. Ended before the next
 * change of nodes or groups. */
struct sched_candidates {
    struct sched_class *class;
    uint32_t nodes;
    uint64_t cores;
};
void sched_candidates(struct sched *s, char *const *groups, size_t n_groups, char *const *nodes,
                      size_t n_nodes, struct sched_candidates *out);
bool sched_candidates_have(struct sched *s, const struct sched_candidates *c, const struct sched_node *node);
void sched_candidates_end(struct sched *s, struct sched_candidates *c);

/* ---- jobs and tasks ---- */
/* Fields id .. max are set by the caller; the job is neither queued nor running after. */
void sched_job_add(struct sched *s, struct sched_job *job, char *const *groups, size_t n_groups,
                   char *const *nodes, size_t n_nodes);
void sched_job_remove(struct sched *s, struct sched_job *job); /* gives back what it holds */
void sched_job_queue(struct sched *s, struct sched_job *job);
void sched_job_dequeue(struct sched *s, struct sched_job *job);
/* Nothing more of it starts: it gives back idle cores now, the rest as attempts end. */
void sched_job_stop(struct sched *s, struct sched_job *job);
void sched_task_wait(struct sched *s, struct sched_task *task);
void sched_task_unwait(struct sched *s, struct sched_task *task); /* no-op when it does not wait */
/* Whether the node is one of the job's candidates. */
bool sched_job_candidate(struct sched *s, struct sched_job *job, const struct sched_node *node);

/* ---- the ledger, from rows (at start) and from attempts' ends ---- */
/* -1: no such core, or it is held already. */
int sched_hold(struct sched *s, struct sched_job *job, struct sched_node *node, uint32_t core);
void sched_job_resumed(struct sched *s, struct sched_job *job); /* it runs; after its sched_hold() calls */
/* -1: the core is not the job's or has an attempt. */
int sched_occupy(struct sched *s, struct sched_job *job, struct sched_node *node, uint32_t core,
                 uint64_t attempt);
void sched_vacate(struct sched *s, struct sched_job *job, struct sched_node *node, const uint32_t *cores,
                  size_t n, uint64_t attempt);
/* What the job holds, in order of node name. */
struct sched_hold *sched_hold_first(struct sched_job *job);
struct sched_hold *sched_hold_next(struct sched_hold *hold);
/* One attempt of the job is over (all its cores are vacated). */
void sched_attempt_over(struct sched *s, struct sched_job *job);

/* ---- deciding ---- */
void sched_run(struct sched *s);

/* Why the queued job waits, in words. */
void sched_explain(struct sched *s, const struct sched_job *job, struct buf *out);
/* Why the waiting task of a running job waits. */
void sched_explain_task(struct sched *s, const struct sched_task *task, struct buf *out);

struct sched_totals {
    uint32_t nodes, open, unreachable;
    uint64_t cores, held;
};
void sched_totals(const struct sched *s, struct sched_totals *totals);

/* Recounts everything of these nodes and jobs. 0 or -1. */
int sched_check_node(const struct sched *s, const struct sched_node *node, struct error *err);
int sched_check_job(const struct sched *s, const struct sched_job *job, struct error *err);

#endif
