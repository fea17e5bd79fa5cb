/* keeper_proto.h - what the agent and the keeper of an attempt say to each other.
 *
 * Three things, all readable by people and open to new keys, because a keeper outlives the agent
 * that started it and may be told what to do by a newer one:
 *   order   file `order` in the attempt's folder, written by the agent before the keeper is
 *           spawned: key=value, each ended by a zero byte; unknown keys are skipped; `end` is the
 *           last. Its lock (flock) is held while the keeper lives.
 *   report  how the attempt stands: lines key=value. Sent by the keeper as one packet when something
 *           changes and on every new connection; the last one (phase REFUSED or RELEASED) is also
 *           the file `status`.
 *   command one packet from the agent: "go", "end GRACE_MS CAUSE", "lease MS", and "step" with
 *           the socket of a step tree as an attached descriptor.
 *
 * Folders are used again for later attempts, because making and deleting files is what costs most
 * in the life of a short task (ext4 looks through everything that was deleted in the last seconds).
 * So order and status are overwritten in place, each with one write, and say whose they are:
 * where the number is another attempt's, the file counts as absent.
 *
 * A keeper that has lost its agent calls the new one at `agent.sock` in the node's folder, a few
 * times a second. It has no arguments. libc only.
 */
#ifndef MUSTER_NODE_KEEPER_PROTO_H
#define MUSTER_NODE_KEEPER_PROTO_H

#include "base/buf.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a keeper is started with; all are close-on-exec there. */
enum {
    KEEPER_FD_CONTROL = 3, /* one end of a SOCK_SEQPACKET pair: the agent */
    KEEPER_FD_FOLDER = 4,  /* the attempt's folder */
    KEEPER_FD_ORDER = 5,   /* `order`, opened and locked by the agent: there is no unlocked moment */
    KEEPER_FD_NODE = 6,    /* the node's folder */
    KEEPER_FD_CONTEXT = 7, /* sealed memfd with the packed mu.StepContext; may be closed: no MPI steps */
    KEEPER_FD_CGROUP = 8,  /* the attempt's cgroup (v2); may be closed: there is none */
    KEEPER_FD_END = 9
};

#define KEEPER_PACKET_MAX 2048         /* any packet on the control socket */
#define KEEPER_ORDER_MAX (1024 * 1024) /* the order file */
#define KEEPER_STEPS_MAX 64            /* MPI steps at one time */
#define KEEPER_CALL_MS 200             /* how often a keeper without an agent looks for one */
#define KEEPER_STATUS_LEN 1024         /* the file `status`, filled up with line ends */

/* The numbers of enum AttemptPhase and TaskFailure (wire.proto, model.proto); the agent checks. */
enum keeper_phase {
    KEEPER_REFUSED = 1,
    KEEPER_PREPARED = 2,
    KEEPER_RUNNING = 3,
    KEEPER_ENDED = 4,
    KEEPER_RELEASED = 5
};
enum keeper_failure {
    KEEPER_FAIL_NONE = 0,
    KEEPER_FAIL_EXIT = 1,
    KEEPER_FAIL_SYSTEM = 2,
    KEEPER_FAIL_CANCEL = 3,
    KEEPER_FAIL_TIMEOUT = 4,
    KEEPER_FAIL_SETUP = 6
};

#define ORDER_STRINGS(X)                                                                                     \
    X(install_id)    /* of the node: with `attempt` it marks the attempt's processes (MUSTER_ATTEMPT) */     \
    X(node)          /* the node's name, for messages */                                                     \
    X(route)         /* 48 hex digits: which attempt a connection to the step port is for */                 \
    X(home)          /* the user's home; work directory when none is given */                                \
    X(home_fallback) /* instead of a home that does not exist; may be empty */                               \
    X(command)       /* the command line */                                                                  \
    X(work_dir)                                                                                              \
    X(stdin_path)                                                                                            \
    X(stdout_path)  /* empty: to the spool `out` */                                                          \
    X(stderr_path)  /* empty: with stdout */                                                                 \
    X(run_dir)      /* folder made for this attempt, private to the user; the step socket is `s` in it */    \
    X(cgroup)       /* name of its cgroup among the node's; empty: none */                                   \
    X(step_program) /* path of muster-step */
#define ORDER_NUMBERS(X)                                                                                     \
    X(attempt)                                                                                               \
    X(uid)                                                                                                   \
    X(gid)                                                                                                   \
    X(index)     /* which node of the attempt this is; 0 runs the task */                                    \
    X(go)        /* 1: run at once */                                                                        \
    X(runtime_s) /* 0: no limit */                                                                           \
    X(grace_ms)  /* SIGTERM to SIGKILL at the run-time limit and when the lease runs out */                  \
    X(lease_ms)  /* 0: no lease */
#define ORDER_LISTS(X)                                                                                       \
    X(env)   /* NAME=VALUE in this order, later wins; an empty value unsets */                               \
    X(group) /* supplementary groups */                                                                      \
    X(cpu)   /* processors to run on; none: any */

struct order_list {
    char **items;
    size_t count, cap;
};
struct order {
#define X(name) char *name;
    ORDER_STRINGS(X)
#undef X
#define X(name) uint64_t name;
    ORDER_NUMBERS(X)
#undef X
#define X(name) struct order_list name;
    ORDER_LISTS(X)
#undef X
};

/* `order` must be zeroed or a struct order that was released. After it no string is NULL. */
int order_decode(struct order *order, const char *data, size_t len, struct error *err);
void order_encode(const struct order *order, struct buf *out); /* NULL strings count as empty */
void order_release(struct order *order);
void order_set(char **field, const char *value); /* frees what was there; copies */
void order_push(struct order_list *list, const char *value);

struct report {
    uint64_t attempt;
    int phase;             /* enum keeper_phase */
    bool has_result;       /* the fields below, up to message, hold (first node, ENDED and RELEASED) */
    int exit_code;         /* 128 + N when signal N ended it */
    unsigned exit_signal;  /* 0: none */
    int failure;           /* enum keeper_failure */
    uint64_t output_total; /* bytes printed so far into the spool */
    int64_t cpu_ms;
    bool killed;       /* cgroup.kill was written: the cgroup must not serve again (see cgroup.h) */
    char message[512]; /* one line; "" when there is nothing to say */
};
#define AGENT_SOCKET "agent.sock"

size_t report_format(const struct report *report, char *out, size_t size); /* length, below size */
int report_parse(struct report *report, const char *text, size_t len, struct error *err);

#endif
