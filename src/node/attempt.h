/* attempt.h - an attempt on this node, for the files that make up attempts.h.
 *
 *   attempts.c        the table, orders, start and end of the agent
 *   attempt_disk.c    folders, status, cgroups: what outlives the agent
 *   attempt_keeper.c  the keeper: started, heard, spoken to, missed
 *   attempt_say.c     what the head is told: reports and output
 */
#ifndef MUSTER_NODE_ATTEMPT_H
#define MUSTER_NODE_ATTEMPT_H

#include "base/spool.h"
#include "node/attempts.h"
#include "node/keeper_proto.h"

#include <bsd/sys/queue.h>
#include <event2/event.h>
#include <sys/types.h>
#include <uthash.h>

#define FREE_MAX 64 /* folders and cgroups kept for later attempts */

struct attempt {
    uint64_t id;
    struct attempts *all;
    char name[24];      /* of its folder */
    char cgroup[24];    /* of its cgroup; empty: none */
    bool first;         /* this node runs the task */
    bool folder;        /* it has one */
    bool alive;         /* a keeper, or what a dead one left */
    bool swept;         /* its cgroup was killed from here */
    bool starting;      /* folder made, keeper to be spawned at the end of this turn */
    int order, context; /* while starting */
    uid_t uid;
    uint8_t route[ROUTE_LEN];
    bool has_route;
    uint32_t lease_ms;
    int64_t renewed_ms;
    int control;
    struct event *readable;
    struct event *writable;   /* while its keeper's socket is full and a command waits */
    struct event *sweep;      /* timer while something of a dead keeper may live */
    char *end_order;          /* the last one; told again to a keeper that calls */
    bool go_waits, end_waits; /* not yet in the hands of its keeper: full, or not connected so far */
    struct report report;
    bool dirty, streams; /* in the lists below */
    struct spool spool;
    uint64_t sent, credit; /* offsets: sent so far, may be sent up to */
    TAILQ_ENTRY(attempt) next_dirty, next_stream, next_start;
    UT_hash_handle hh;
};
TAILQ_HEAD(attempt_list, attempt);

/* Names PREFIX.N that exist and serve nobody. */
struct pool {
    char names[FREE_MAX][24];
    unsigned count, last; /* last: greatest N given */
};

/* A keeper that has called and not said so far whose it is. */
struct caller {
    struct attempts *all;
    int fd;
    struct event *event;
    TAILQ_ENTRY(caller) next;
};
TAILQ_HEAD(callers, caller);

struct attempts {
    struct agent *agent;
    struct attempt *by_id;
    struct attempt_list dirty, streams, starts;
    int folder; /* DIR/attempts */
    int cgroup; /* parent of the attempts' cgroups, -1: none here */
    char cgroup_name[96];
    struct pool folders, cgroups; /* not in use */
    int listening;                /* agent.sock */
    struct event *calls;
    struct callers callers;
};

struct attempt *attempt_find(struct attempts *all, uint64_t id); /* NULL: none */
void attempt_drop(struct attempt *a);                            /* takes it out of all lists; frees it */

/* attempt_disk.c */
int attempt_make_folder(struct attempt *a, const struct order *order, struct error *err); /* and locks it */
bool attempt_free_folder(struct attempt *a); /* for a later attempt; false: it must be removed */
void attempt_take_cgroup(struct attempt *a); /* sets a->cgroup; empty where there is none to be had */
void attempt_free_cgroup(struct attempt *a);
void attempt_write_status(struct attempt *a, const struct report *report);
bool attempt_read_status(struct attempt *a, struct report *report); /* false: none of this attempt's */
bool attempt_locked(struct attempt *a);                             /* its keeper lives */
void attempt_remove_run_dir(struct attempt *a);
/* At start: a folder free.N, cgroups that nobody uses, run folders of attempts that do not live. */
void disk_load_free(struct attempts *all, const char *name);
void disk_load_cgroups(struct attempts *all);
void disk_sweep_run_dirs(struct attempts *all);

/* attempt_keeper.c */
void attempt_spawn(struct attempt *a);
/* A command that may be lost, because it is repeated: a lease. False: it was. */
bool attempt_tell(struct attempt *a, const char *text);
/* These may not: they wait until the keeper's socket takes them, or for its next call. */
void attempt_tell_go(struct attempt *a);
void attempt_tell_end(struct attempt *a, const char *text); /* instead of an earlier one that waits */
void attempt_look(struct attempt *a); /* at one whose keeper is not connected: over, dead, or to wait for */
/* Nothing of it lives: this is how it ended. */
void attempt_take_end(struct attempt *a, const struct report *report);
void attempt_over(struct attempt *a, int phase, int failure, const char *text);
void attempt_close_control(struct attempt *a);
void attempt_close_starting(struct attempt *a);
int keepers_listen(struct attempts *all, struct error *err); /* at agent.sock */
void keepers_hang_up(struct attempts *all);

/* attempt_say.c */
void attempt_say(struct attempt *a);    /* a report of it goes out at the end of this turn */
void attempt_stream(struct attempt *a); /* the same for output, if there is some and the head takes it */
void attempt_stop_streaming(struct attempt *a);

#endif
