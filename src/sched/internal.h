/* internal.h - what the files of sched share. */
#ifndef MUSTER_SCHED_INTERNAL_H
#define MUSTER_SCHED_INTERNAL_H

#include "sched/sched.h"

#include <uthash.h>

RB_HEAD(free_tree, sched_node);
RB_HEAD(whole_tree, sched_node);
RB_HEAD(queue_tree, sched_job);
RB_HEAD(hungry_tree, sched_job);
RB_HEAD(look_tree, sched_job);
RB_HEAD(head_tree, sched_class);

struct sched_group {
    char *name;  /* lower case */
    char *title; /* as it was first written */
    struct sched_node **nodes;
    size_t n;
    UT_hash_handle hh;
};

/* Jobs with the same candidate nodes. */
struct sched_class {
    char *key;
    char **groups, **requested; /* lower case, sorted */
    size_t n_groups, n_requested;
    bool all;                    /* every node */
    uint32_t refs;               /* jobs */
    uint64_t epoch;              /* of members and bits; sched.epoch: they are right */
    struct sched_node **members; /* in order of name */
    size_t n_members, cap_members;
    uint64_t *bits;
    size_t n_words;
    struct queue_tree queue;
    bool dirty;       /* the head has not been tried since something changed */
    bool grown;       /* a member has got free cores in this run */
    uint64_t blocker; /* job because of which the head did not start; 0: none known */
    uint32_t blocker_priority;
    uint64_t blocker_order;
    RB_ENTRY(sched_class) head_entry; /* scratch of one pass */
    UT_hash_handle hh;
};

struct pick {
    struct sched_node *node;
    uint32_t n;
};

struct sched {
    struct sched_ops ops;
    void *arg;
    struct sched_node **nodes; /* by index */
    size_t n_nodes, cap_nodes;
    struct free_tree free;   /* open nodes with free cores, most free first */
    struct whole_tree whole; /* open nodes all of whose cores are free, by name */
    uint32_t n_whole;
    uint64_t free_open; /* free cores of open nodes */
    struct sched_group *groups;
    struct sched_class *classes;
    uint64_t epoch;              /* grows when a node or a group changes what classes contain */
    struct hungry_tree hungry;   /* running, tasks wait, below the maximum */
    struct look_tree look;       /* something of its own has changed */
    struct sched_node **changed; /* nodes that got free cores since the last run */
    size_t n_changed, cap_changed;
    bool pass_wanted; /* some queue may have a head that can start now */
    uint64_t mark;    /* of the search under way; never the same again */
    uint64_t held, cores;
    uint32_t open, unreachable;
    struct pick *picks; /* scratch */
    size_t n_picks, cap_picks;
    struct sched_node **list; /* scratch */
    size_t cap_list;
    uint64_t *blocked; /* scratch: nodes that jobs before have a claim to */
    size_t cap_blocked;
};

int job_order(const struct sched_job *a, const struct sched_job *b);

/* ledger.c */
void ledger_index(struct sched *s, struct sched_node *node); /* put it where its free cores say */
void ledger_take(struct sched *s, struct sched_job *job, struct sched_node *node, uint32_t n);
void ledger_give(struct sched *s, struct sched_hold *hold, uint32_t n); /* n idle cores back */
void ledger_give_idle(struct sched *s, struct sched_job *job);
uint32_t ledger_units(const struct sched_job *job);      /* held, in the job's unit */
uint32_t ledger_idle_units(const struct sched_job *job); /* of these idle */
struct sched_hold *ledger_hold(struct sched_job *job, struct sched_node *node);
struct sched_hold *ledger_idle_first(struct sched_job *job);
struct sched_hold *ledger_idle_next(struct sched_hold *hold);
struct sched_hold *ledger_idle_last(struct sched_job *job);
struct sched_hold *ledger_idle_fit(struct sched_job *job, uint32_t n); /* fewest idle cores >= n */
struct sched_node *ledger_free_first(struct sched *s);
struct sched_node *ledger_free_next(struct sched_node *node);
struct sched_node *ledger_free_fit(struct sched *s, uint32_t n); /* fewest free cores >= n */
struct sched_node *ledger_whole_first(struct sched *s);
struct sched_node *ledger_whole_next(struct sched_node *node);
void ledger_attempt(struct sched *s, struct sched_hold *hold, uint32_t n, uint64_t attempt, uint32_t *cores);

/* queue.c */
void class_refresh(struct sched *s, struct sched_class *c);
bool class_has(struct sched *s, struct sched_class *c, const struct sched_node *node);
struct sched_job *class_head(struct sched_class *c);
void queue_look(struct sched *s, struct sched_job *job);
struct sched_job *queue_look_pop(struct sched *s);
void queue_hungry(struct sched *s, struct sched_job *job); /* in or out, as its fields say */
struct sched_job *queue_hungry_first(struct sched *s);
struct sched_job *queue_hungry_next(struct sched_job *job);
struct sched_task *queue_task(struct sched_job *job); /* the next that waits */
uint32_t queue_need(const struct sched_job *job);     /* largest minimum of a waiting task */

const char *queue_group_title(struct sched *s, const char *lower_name);
void queue_free(struct sched *s);
int queue_check(const struct sched_job *job, struct error *err);

/* place.c */
/* Whether the job can get `need` units of free nodes (up to `want`), some on each of `required`;
 * fills s->picks. */
bool place_job(struct sched *s, struct sched_job *job, uint64_t need, uint64_t want,
               struct sched_node *const *required, size_t n_required);
/* The same for a task in the idle cores that its job holds. */
bool place_task(struct sched *s, struct sched_task *task);

#endif
