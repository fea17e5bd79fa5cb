/* internal.h - the core's own structs and what its files offer each other.
 *
 * Every object wraps its row (a message of model.proto, owned here) and the scheduler's part.
 * Whoever changes a row calls its _touch(): the row is then packed once at the end of the turn.
 * Invariants that core_check() tests stand with the fields.
 */
#ifndef MUSTER_CORE_INTERNAL_H
#define MUSTER_CORE_INTERNAL_H

#include "core/core.h"
#include "model/message.h"
#include "model/names.h"
#include "model/states.h"
#include "model/tree.h"
#include "sched/sched.h"

#include <bsd/sys/queue.h>
#include <uthash.h>

/* Short names for the generated ones. */
#define JOB(s) MU__JOB_STATE__JOB_STATE_##s
#define TASK(s) MU__TASK_STATE__TASK_STATE_##s
#define NODE(s) MU__NODE_STATE__NODE_STATE_##s
#define ATTEMPT(s) MU__ATTEMPT_STATE__ATTEMPT_##s
#define ANODE(s) MU__ATTEMPT_NODE_STATE__ANODE_##s
#define FAIL(s) MU__TASK_FAILURE__FAIL_##s
#define PHASE(s) MU__ATTEMPT_PHASE__PHASE_##s
#define EVENT(s) MU__EVENT_KIND__EVENT_##s

#define PREPARE_REFUSALS_MAX 3 /* requeues in a row that use up no retry */
#define JOB_DELETIONS_MAX 1000 /* old jobs deleted in one tick */

enum timer_kind { TIMER_NODE, TIMER_JOB, TIMER_ATTEMPT };
struct timer {
    int64_t at; /* uptime; 0: not set */
    enum timer_kind kind;
    uint64_t id;      /* job, attempt */
    const char *name; /* node */
    void *owner;
    RB_ENTRY(timer) entry;
};
RB_HEAD(timer_tree, timer);

struct attempt;
/* One node's share of an attempt. */
struct part {
    struct attempt *attempt;
    struct node *node;
    Mu__AttemptNode *row;
    RB_ENTRY(part) entry; /* in node->parts; until released or lost */
    bool open;            /* stands there */
};
RB_HEAD(part_tree, part);

struct node {
    struct sched_node s;
    Mu__Node *row;
    RB_ENTRY(node) entry;
    struct part_tree parts;
    struct timer timer;    /* while unreachable: when its attempts are surely over */
    uint32_t cores_wanted; /* as its agent says; taken over when nothing is held there */
    bool settling;         /* drains, or has another number of cores coming */
    TAILQ_ENTRY(node) settling_entry;
    bool dirty;
    TAILQ_ENTRY(node) dirty_entry;
};
RB_HEAD(node_tree, node);

struct group {
    Mu__Group *row;
    RB_ENTRY(group) entry;
    bool dirty;
    TAILQ_ENTRY(group) dirty_entry;
};
RB_HEAD(group_tree, group);

struct job {
    struct sched_job s;
    Mu__Job *row;
    bool in_sched; /* not ended, and not of type admin */
    uint32_t live; /* attempts, of any type of job */
    uint64_t last_event;
    uint64_t bytes; /* quota.c's */
    bool counted;   /* in its owner's quota: it has not ended */
    struct timer timer;
    RB_ENTRY(job) entry, ended_entry;
    bool ended; /* stands among the ended */
    bool dirty, allocation_stale;
    TAILQ_ENTRY(job) dirty_entry;
    bool admin_open, admin_look; /* an admin job that has not ended; with tasks to start */
    TAILQ_ENTRY(job) admin_entry;
};
RB_HEAD(job_tree, job);
RB_HEAD(ended_tree, job);

struct task {
    struct sched_task s;
    Mu__Task *row;
    struct job *job;
    struct attempt *attempt; /* live; NULL: none */
    RB_ENTRY(task) entry;
    bool dirty;
    TAILQ_ENTRY(task) dirty_entry;
};
RB_HEAD(task_tree, task);

struct attempt {
    Mu__Attempt *row;
    struct task *task;
    struct part *parts; /* parallel to row->nodes */
    size_t n_open;      /* parts neither released nor lost */
    struct timer timer; /* run-time limit */
    RB_ENTRY(attempt) entry;
    bool dirty;
    TAILQ_ENTRY(attempt) dirty_entry;
};
RB_HEAD(attempt_tree, attempt);

struct events { /* by number: slot[i] is event base + i; NULL where a record was lost */
    Mu__Event **slot;
    size_t first, n, cap; /* slot[first .. first + n) */
    uint64_t base;        /* number of slot[first] */
    uint64_t fresh;       /* first number that no batch has had */
    uint64_t trimmed;     /* every number <= this was dropped in this turn; 0: none */
};

struct core {
    struct core_config config;
    int64_t up_ms, wall_ms;
    Mu__Counters *counters;
    bool counters_dirty;
    int64_t counters_up_ms; /* as last given to the store */
    int64_t upkeep_up_ms;   /* when retention is to be looked at next */
    struct sched *sched;

    struct job_tree jobs;
    struct ended_tree ended; /* by time of end */
    struct task_tree tasks;  /* by job, task */
    struct node_tree nodes;
    struct group_tree groups;
    struct attempt_tree attempts;
    struct timer_tree timers;
    struct events events;
    struct quota *quotas; /* by uid */
    uint64_t n_jobs, n_queued, n_running, n_open_jobs, n_tasks;

    TAILQ_HEAD(, job) dirty_jobs;
    TAILQ_HEAD(, task) dirty_tasks;
    TAILQ_HEAD(, node) dirty_nodes;
    TAILQ_HEAD(, group) dirty_groups;
    TAILQ_HEAD(, attempt) dirty_attempts;
    TAILQ_HEAD(, node) settling_nodes;
    TAILQ_HEAD(admin_list, job) admin_jobs; /* not ended */
    bool admin_wanted;                      /* one of them is to be looked at */
    struct batch gone;                      /* rows deleted in this turn */
    struct effects effects;
    struct buf reason; /* core_pending_reason()'s text */
    bool resumed;      /* indexes are built: a fresh core, or one after core_resume() */
};

/* rows.c */
void job_touch(struct core *core, struct job *job);
void task_touch(struct core *core, struct task *task);
void node_touch(struct core *core, struct node *node);
void group_touch(struct core *core, struct group *group);
void attempt_touch(struct core *core, struct attempt *attempt);
void row_gone(struct core *core, enum row_kind kind, uint64_t id, uint32_t sub, const char *name);
void rows_collect(struct core *core, struct batch *batch); /* everything dirty, and forgets that */
void job_allocation(struct core *core, struct job *job);   /* row from holds */

/* index.c: objects by key */
struct job *job_find(const struct core *core, uint64_t id);
struct task *task_find(const struct core *core, uint64_t job, uint32_t id);
struct task *task_next(const struct core *core, uint64_t job, uint32_t after); /* within the job */
struct node *node_find(const struct core *core, const char *name);
struct group *group_find(const struct core *core, const char *name);
struct attempt *attempt_find(const struct core *core, uint64_t id);
struct part *part_of(struct attempt *attempt, const struct node *node);
struct task *tasks_first(struct task_tree *tasks);
struct task *tasks_after(struct task *task);
struct attempt *attempts_first(struct attempt_tree *attempts);
struct attempt *attempts_after(struct attempt *attempt);
struct part *node_part_after(struct node *node, uint64_t attempt);  /* the next with a higher number */
void timer_set(struct core *core, struct timer *timer, int64_t at); /* 0 clears */
struct timer *timer_first(const struct core *core);
struct job *job_new(struct core *core, Mu__Job *row); /* takes the row; in the index, not in the scheduler */
struct task *task_new(struct core *core, Mu__Task *row);
struct node *node_new(struct core *core, Mu__Node *row);
struct group *group_new(struct core *core, Mu__Group *row);
struct attempt *attempt_new(struct core *core, Mu__Attempt *row);
void job_free(struct core *core, struct job *job);
void task_free(struct core *core, struct task *task);
void node_free(struct core *core, struct node *node);
void group_free(struct core *core, struct group *group);
void attempt_free(struct core *core, struct attempt *attempt);
void ended_add(struct core *core, struct job *job);
void ended_remove(struct core *core, struct job *job);
struct job *ended_first(const struct core *core);
void part_open(struct part *part);
void part_close(struct part *part);

/* events.c */
#define ACTOR_SCHEDULER "scheduler"
void event_job(struct core *core, struct job *job, const char *what, const char *cause, const char *actor);
/* The event that was just added was the job's: it tells the nodes of its row's allocation. */
void event_job_nodes(struct core *core, const Mu__Job *job);
void event_task(struct core *core, struct task *task, const char *what, const char *cause, const char *actor);
void event_node(struct core *core, struct node *node, const char *what, const char *cause, const char *actor);
void event_other(struct core *core, int kind, const char *subject, const char *what, const char *cause,
                 const char *actor);
int event_load(struct core *core, Mu__Event *event, struct error *err);
void events_trim(struct core *core);
void events_free(struct core *core);
const Mu__Event *event_at(const struct core *core, uint64_t seq);
const char *actor_name(const struct actor *actor); /* static until the next call */

/* check.c (submission) */
int check_spec(struct core *core, const struct actor *actor, const Mu__JobSpec *spec, struct error *err);
/* The nodes that a job may use; sched_candidates_end() ends it. */
void job_candidates(struct core *core, const Mu__JobSpec *spec, struct sched_candidates *out);
int check_task(struct core *core, const Mu__JobSpec *job, const struct sched_candidates *candidates,
               const Mu__TaskSpec *task, struct error *err);
int check_fit(struct core *core, const Mu__JobSpec *spec, struct error *err);
/* min and max as they count, from what was said. `only`: the job's only task at its creation. */
void task_range(const Mu__JobSpec *job, const Mu__TaskSpec *task, bool only, uint32_t *min, uint32_t *max);

/* quota.c */
uint64_t quota_bytes(const Mu__JobSpec *job, Mu__TaskSpec *const *tasks, size_t n); /* job may be NULL */
/* Whether `owner` may have that much more. Administrators may. */
int quota_check(struct core *core, const struct actor *actor, const Mu__Owner *owner, uint64_t jobs,
                uint64_t bytes, struct error *err);
void quota_count(struct core *core, struct job *job); /* its state has changed */
void quota_add(struct core *core, struct job *job, uint64_t bytes);
uint64_t quota_jobs(const struct core *core); /* counted, of all users */
void quota_free(struct core *core);

/* jobs.c */
void job_create(struct core *core, const struct actor *actor, const Mu__JobCreate *c, struct result *r);
void job_add(struct core *core, const struct actor *actor, const Mu__JobAdd *c, struct result *r);
void job_submit(struct core *core, const struct actor *actor, const Mu__JobSubmit *c, struct result *r);
void job_cancel(struct core *core, const struct actor *actor, const Mu__JobCancel *c, struct result *r);
void job_requeue(struct core *core, const struct actor *actor, const Mu__JobRequeue *c, struct result *r);
void task_cancel(struct core *core, const struct actor *actor, const Mu__TaskCancel *c, struct result *r);
void task_requeue(struct core *core, const struct actor *actor, const Mu__TaskRequeue *c, struct result *r);

/* life.c: moves of jobs and tasks, whoever asked */
void job_move(struct core *core, struct job *job, enum move move, const char *cause, const char *actor);
void task_move(struct core *core, struct task *task, enum move move, const char *cause, const char *actor);
void job_enter(struct core *core, struct job *job); /* hands it to the scheduler, as its row says */
void job_leave(struct core *core, struct job *job);
void task_enter(struct core *core, struct task *task); /* the same for a queued task */
void job_queue(struct core *core, struct job *job);    /* its state is Queued now */
void job_settle(struct core *core, struct job *job);   /* ends it when nothing is left to do */
void job_wind_down(struct core *core, struct job *job, Mu__JobState end, int failure, uint32_t grace_ms,
                   const char *cause, const char *actor);
void job_requeue_tasks(struct core *core, struct job *job);
void task_fail(struct core *core, struct task *task, int failure, const char *message, const char *actor);
void task_again(struct core *core, struct task *task, const char *cause, const char *actor);
void job_look(struct core *core, struct job *job); /* an admin job has a task to start */
void admin_run(struct core *core);
void admin_wake(struct core *core); /* a node is back: look at all of them */
void admin_node_lost(struct core *core, struct node *node, const char *why);
void job_limit_reached(struct core *core, struct job *job);
bool jobs_expire(struct core *core); /* true: there are more to go */
extern const struct sched_ops core_sched_ops;

/* attempts.c */
uint64_t attempt_start(struct core *core, struct task *task, const struct sched_place *places, size_t n);
void attempt_end(struct core *core, struct attempt *attempt, uint32_t grace_ms);
void attempt_settle(struct core *core, struct attempt *attempt);
void attempt_report(struct core *core, struct node *node, const Mu__AttemptReport *report);
void attempt_limit_reached(struct core *core, struct attempt *attempt);
void attempt_lost(struct core *core, struct part *part, const char *why);
void effect_add(struct effects *effects, enum effect_kind kind, const char *node, uint64_t attempt,
                uint32_t grace_ms);
void effects_open(const struct attempt *attempt, const struct node *only, struct effects *effects);

/* nodes.c */
void node_up(struct core *core, const Mu__NodeHello *hello, struct result *r);
void node_down(struct core *core, const char *name, struct result *r);
void node_set(struct core *core, const struct actor *actor, const Mu__NodeSet *c, struct result *r);
void group_set(struct core *core, const struct actor *actor, const Mu__GroupSet *c, struct result *r);
void node_avail(struct core *core, struct node *node);  /* tells the scheduler what the row says */
void node_settle(struct core *core, struct node *node); /* Draining to Offline, new core count */
bool nodes_settle(struct core *core);                   /* all that wait for it; whether one did */
void node_watch(struct core *core, struct node *node);  /* after its state or cores_wanted changed */
/* Uptime: nothing lives there. */
int64_t node_lease_end(const struct core *core, struct node *node, int64_t lost_up_ms);
void node_lease_over(struct core *core, struct node *node);
void group_publish(struct core *core, const struct group *group);

#endif
