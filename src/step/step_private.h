/* step_private.h - the state of one node's part of a step, shared by step.c (its life and frames),
 * step_end.c (faults and ending) and step_pmix.c (what libpmix asks). Nobody else includes it.
 */
#ifndef MUSTER_STEP_STEP_PRIVATE_H
#define MUSTER_STEP_STEP_PRIVATE_H

#include "step/gather.h"
#include "step/kvs.h"
#include "step/links.h"
#include "step/pmixhost.h"
#include "step/rank.h"
#include "step/step.h"

#include <limits.h>

/* mpiexec's exit codes for what is no rank's own code. */
#define CODE_STARTED_NOT 255 /* -1 of MS-MPI: could not be started, interrupted */
#define CODE_TIMEOUT 254     /* -2 */
#define CODE_LOST 253        /* -3: left before finalize, step server lost */

struct step {
    struct step_config config;
    Mu__StepLaunch *launch; /* owned: unpacked memory of a branch, or built by the root */
    uint32_t me;            /* index in launch->nodes */
    uint32_t size;
    uint32_t *rank_node; /* [size] */
    uint32_t *rank_section;

    struct rank *ranks; /* of this node, ascending */
    uint32_t ranks_n;
    uint32_t exited_n; /* ended, or never started */
    uint32_t barrier_n;
    struct kvs *kvs;
    char *mapping; /* NULL: too long */
    struct gather *gather;
    struct pmixhost *pmix;
    uint32_t *pmix_rank_node; /* as rank_node, over the nodes that have ranks */
    const char **pmix_names;
    uint64_t modex_last;
    struct modex_waiting {
        struct modex_waiting *next;
        uint64_t id;
        struct pmixmod_event *event;
    } * modexes; /* our questions */
    struct modex_asked {
        struct modex_asked *next;
        uint64_t local_id, id;
        uint32_t from;
    } * asked; /* questions of other nodes: libpmix knows them by local_id */
    struct fence {
        struct fence *next;
        struct pmixmod_event *event;
        char *key;
    } * fences;            /* of libpmix, until the bytes come back */
    char tmpdir[PATH_MAX]; /* made when something needs it */
    struct event *fail_event;
    int fail_fd;    /* where ranks say why they do not start */
    int64_t credit; /* bytes of output that may be sent up */

    struct links *links;
    uint32_t *done;      /* per node, root and inner nodes: 1 when it is done */
    uint32_t done_below; /* branches (whole subtrees' nodes) that are done */
    uint32_t below;      /* how many nodes are below */

    struct event *kill_event, *grace_event, *timeout_event, *branch_event, *drain_event;
    struct event *child_event, *reap_event; /* orphans of ranks fall to us */
    bool root, tmpdir_made, reading_paused;
    bool output_seen; /* since the last look of the drain timer */
    bool ending, swept, local_done, finished;

    /* root */
    bool faulted, fault_quiet; /* quiet: end without a word */
    bool others_ended;         /* somebody had to be ended because of the fault */
    bool family_seen[3];
    uint32_t family_rank[3], family_node[3];
    uint32_t ranks_ended;
    Mu__StepFault *fault; /* the first */
};

/* A frame on the stack, for the call that takes it. */
#define FRAME(kind_, field, value)                                                                           \
    (&(Mu__StepFrame){.base = PROTOBUF_C_MESSAGE_INIT(&mu__step_frame__descriptor),                          \
                      .kind_case = MU__STEP_FRAME__KIND_##kind_,                                             \
                      .field = (value)})

/* ---- step.c ---- */

void step_up(struct step *s, Mu__StepFrame *f);
/* To another node: down the branch that leads there, or up. */
void step_route(struct step *s, uint32_t to, Mu__StepFrame *f);
/* Told with -verbose. */
void step_note(struct step *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *step_node_name(const struct step *s, uint32_t node);
/* A timer that calls fn(s) once, `ms` from now; the caller frees it. And once more. */
struct event *step_after(struct step *s, uint32_t ms, event_callback_fn fn);
void step_again_after(struct event *e, uint32_t ms);
struct rank *step_find_rank(struct step *s, uint32_t number); /* NULL: not of this node */
void step_rank_abort(void *arg, struct rank *r, int code, const char *text);
/* This node's part of an operation over all nodes; `ranks` none: all. */
void step_contribute(struct step *s, const char *key, const uint32_t *ranks, size_t n, const void *data,
                     size_t len);
int step_make_tmpdir(struct step *s, struct error *err);

/* ---- step_end.c ---- */

/* Something went wrong here: rank's (-1: the node's) doing. The step ends after the grace, with this code
 * if nothing else went wrong before. */
void step_fault(struct step *s, int64_t rank, int code, uint32_t grace_ms, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void step_take_fault(struct step *s, const Mu__StepFault *f); /* root: its own, or a branch's */
void step_end(struct step *s, uint32_t grace_ms);             /* here and below; 0: at once */
/* Finishes what can be finished: to be called when a rank, a branch or an output has ended. */
void step_check_over(struct step *s);
void step_reap_begin(struct step *s); /* from here on what ranks have lost leaves no zombies */
void step_end_free(struct step *s);

/* ---- step_pmix.c ---- */

/* Nothing is offered when there is no PMIx here: s->pmix stays NULL, and -verbose says why. */
void step_pmix_open(struct step *s);
void step_pmix_release(struct step *s, const Mu__StepRelease *r); /* a fence is complete on all nodes */
void step_pmix_modex(struct step *s, const Mu__StepModex *m);     /* another node's question */
void step_pmix_modex_reply(struct step *s, const Mu__StepModexReply *r);
void step_pmix_free(struct step *s);

#endif
