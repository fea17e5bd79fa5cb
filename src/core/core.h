/* core.h - the cluster's state and every decision about it, without I/O.
 *
 * The core is a state machine: commands go in, changed rows and effects come out. It reads no
 * clock, no random source, no file; the same commands in the same order give the same rows,
 * byte for byte. One turn of the head's loop is
 *
 *     core_begin(core, up_ms, wall_ms);          time is one value for the whole turn
 *     core_command(core, &cmd, &result);         any number of times
 *     core_end(core, &batch, &effects);          schedules; gives what changed
 *     ... batch goes to the store; when durable, replies and effects are sent ...
 *
 * Rows are the truth: core_load() of every row that core_end() gave, then core_resume(), is a
 * core that behaves as the old one, and core_resume() re-issues exactly the open effects.
 * Every effect can be derived from rows and may be sent again without harm.
 *
 * Reads (core_job() and so on) return pointers into the core, valid until the next
 * core_command(), core_end() or core_destroy().
 */
#ifndef MUSTER_CORE_CORE_H
#define MUSTER_CORE_CORE_H

#include "base/error.h"
#include "proto/model.pb-c.h"
#include "proto/wire.pb-c.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct core;

struct core_config {
    uint32_t lease_ms;           /* an attempt lives this long without any head; default 600000 */
    uint32_t lease_margin_ms;    /* added, with grace_ms, before a lost attempt is over; default 10000 */
    uint32_t grace_ms;           /* SIGTERM to SIGKILL; default 15000 (TaskCancelGracePeriod) */
    uint32_t system_retry_limit; /* automatic requeues after system failures (TaskRetryCount); default 3 */
    uint64_t event_keep_count;   /* default 200000 */
    int64_t event_keep_ms;       /* default 30 days */
    int64_t job_keep_ms;         /* ended jobs are deleted after this (TtlCompletedJobs); default 5 days */
    uint32_t jobs_max;           /* jobs that have not ended, as many kept that have; default 1000000 */
    uint32_t tasks_per_job_max;  /* default 100000 */
    uint32_t user_jobs_max;      /* of one user who is no administrator, not ended; default 0: no limit */
    uint64_t user_bytes_max;     /* what they ask for, stored; default 0: no limit */
};
void core_config_default(struct core_config *config);

/* ---- rows ---- */

/* A row is one packed message of model.proto under a key. */
#define ROW_KINDS(X)                                                                                         \
    X(ROW_COUNTERS, "counters") /* id 0 */                                                                   \
    X(ROW_JOB, "job")           /* id = job */                                                               \
    X(ROW_TASK, "task")         /* id = job, sub = task */                                                   \
    X(ROW_NODE, "node")         /* name, lower case */                                                       \
    X(ROW_GROUP, "node_group")  /* name, lower case */                                                       \
    X(ROW_ATTEMPT, "attempt")   /* id = attempt */                                                           \
    X(ROW_EVENT, "event")       /* id = seq */
enum row_kind {
#define X(name, word) name,
    ROW_KINDS(X)
#undef X
        ROW_KIND_COUNT
};

struct row {
    enum row_kind kind;
    uint64_t id;
    uint32_t sub;
    char *name;    /* NULL but for nodes and groups; owned by the batch */
    bool deleted;  /* data is NULL */
    bool up_to;    /* deleted, events only: every id <= this one */
    uint8_t *data; /* owned by the batch */
    size_t len;
};
struct batch {
    struct row *rows;
    size_t count, cap;
};
void batch_free(struct batch *batch); /* frees the rows; the struct is empty and usable after */

/* ---- effects ---- */

enum effect_kind {
    EFFECT_PREPARE, /* send PrepareOrder of `attempt` to `node` (core_prepare_order() fills it) */
    EFFECT_GO,      /* send go of `attempt` to `node`, its first */
    EFFECT_END,     /* send EndOrder of `attempt` to `node` */
    EFFECT_FORGET,  /* the end is stored: `node` may delete the attempt's folder */
};
struct effect {
    enum effect_kind kind;
    char node[65];
    uint64_t attempt;
    uint32_t grace_ms; /* EFFECT_END */
};
struct effects {
    struct effect *list;
    size_t count, cap;
};
void effects_free(struct effects *effects);

/* ---- commands ---- */

/* Who asks. Clients' requests carry the caller; what the system does has NULL owner fields. */
struct actor {
    const Mu__Owner *owner; /* NULL: the system itself */
    bool admin;             /* may act on others' jobs, nodes and groups */
};

enum command_kind {
    CMD_JOB_CREATE,
    CMD_JOB_ADD,
    CMD_JOB_SUBMIT,
    CMD_JOB_CANCEL,
    CMD_JOB_REQUEUE,
    CMD_TASK_CANCEL,
    CMD_TASK_REQUEUE,
    CMD_NODE_SET,
    CMD_GROUP_SET,
    CMD_NODE_UP,   /* an agent's link is up: node_hello with every attempt that it knows */
    CMD_NODE_DOWN, /* its link is gone (late heartbeats, closed connection): node */
    CMD_REPORT,    /* node reports on one attempt: node, report */
    CMD_TICK,      /* time has passed: run-time limits, leases, retention */
};
struct command {
    enum command_kind kind;
    struct actor actor;
    union { /* borrowed for the call; nothing is kept */
        const Mu__JobCreate *job_create;
        const Mu__JobAdd *job_add;
        const Mu__JobSubmit *job_submit;
        const Mu__JobCancel *job_cancel;
        const Mu__JobRequeue *job_requeue;
        const Mu__TaskCancel *task_cancel;
        const Mu__TaskRequeue *task_requeue;
        const Mu__NodeSet *node_set;
        const Mu__GroupSet *group_set;
        const Mu__NodeHello *node_hello;
        const Mu__AttemptReport *report;
    };
    const char *node; /* CMD_NODE_DOWN, CMD_REPORT */
};
struct result {
    struct error error;              /* code ERR_NONE: done. Else nothing was changed. */
    uint64_t job_id;                 /* job commands */
    uint32_t first_task, task_count; /* JOB_CREATE, JOB_ADD: ids given */
};

/* ---- life ---- */

/* `config` is copied; NULL takes the defaults. An empty cluster with generation 0. */
struct core *core_create(const struct core_config *config);
void core_destroy(struct core *core); /* NULL is fine */

/* Takes one row at start-up, in any order. A row that cannot be read or contradicts itself is an
 * error that names it; the caller sets it aside and goes on. */
int core_load(struct core *core, const struct row *row, struct error *err);

/* After the last core_load(): builds indexes, drops what refers to rows that are not there (each
 * with an event), marks every node unreachable (a link must come up first), raises the
 * generation to `generation` when that is higher. Call within core_begin()/core_end(), whose
 * effects are exactly the open ones. */
void core_resume(struct core *core, uint64_t generation);

/* Time of the turn. up_ms never decreases (a smaller value counts as the last one). */
void core_begin(struct core *core, int64_t up_ms, int64_t wall_ms);
void core_command(struct core *core, const struct command *cmd, struct result *result);
/* Schedules what can start, then appends changed rows to `batch` (each at most once, in a fixed
 * order) and effects to `effects`. */
void core_end(struct core *core, struct batch *batch, struct effects *effects);

/* Uptime at which CMD_TICK is due (a run-time limit, a lease); INT64_MAX: never. */
int64_t core_deadline(const struct core *core);
/* The same for what may come a little later: retention, and the uptime to be stored. */
int64_t core_upkeep_due(const struct core *core);

/* The open effects of one node. CMD_NODE_UP does not give them itself: whoever drives the core asks
 * for them after the core_end() of that turn. */
void core_open_effects(const struct core *core, const char *node, struct effects *effects);

/* All rows as they are now: for snapshots and for the test that load(rows(core)) equals core. */
void core_rows(const struct core *core, struct batch *batch);

/* Checks the invariants (no core given twice, indexes equal to what rows say, counters ...).
 * 0, or -1 with the first that does not hold. Linear in the size of the cluster: for tests. */
int core_check(const struct core *core, struct error *err);

/* ---- reads ---- */

const Mu__Counters *core_counters(const struct core *core);
const Mu__Job *core_job(const struct core *core, uint64_t id); /* NULL: none */
const Mu__Task *core_task(const struct core *core, uint64_t job, uint32_t task);
const Mu__Attempt *core_attempt(const struct core *core, uint64_t id);
const Mu__Node *core_node(const struct core *core, const char *name); /* without case */
const Mu__Group *core_group(const struct core *core, const char *name);

/* Iteration in order of id or of name. `after` 0 / NULL starts; NULL ends. */
const Mu__Job *core_next_job(const struct core *core, uint64_t after);
const Mu__Job *core_prev_job(const struct core *core, uint64_t before); /* 0: the newest */
const Mu__Task *core_next_task(const struct core *core, uint64_t job, uint32_t after);
const Mu__Node *core_next_node(const struct core *core, const char *after);
const Mu__Group *core_next_group(const struct core *core, const char *after);
/* Events are kept in memory as rows are: seq in [counters.first_event, counters.next_event). */
const Mu__Event *core_event(const struct core *core, uint64_t seq);
/* The newest event of a job or of its tasks ("12" and "12.*"); 0: none kept. Cheap. */
uint64_t core_job_event(const struct core *core, uint64_t job);

/* Why a queued job or task waits, in words: "needs 4 nodes in AzureNodes; 3 online". Static
 * until the next call. "" when it does not wait. */
const char *core_pending_reason(const struct core *core, uint64_t job, uint32_t task /* 0: the job */);

/* What runs on one core of a node: attempt id, 0 idle. */
uint64_t core_core_use(const struct core *core, const char *node, uint32_t core_id);
uint32_t core_node_busy(const struct core *core, const char *node); /* cores given to tasks or held by jobs */

struct core_totals {
    uint32_t nodes, nodes_online, nodes_unreachable, cores, cores_busy;
    uint64_t jobs, jobs_queued, jobs_running;
};
void core_totals(const struct core *core, struct core_totals *totals); /* O(1) */

/* Fills everything of a PrepareOrder that follows from rows (owner, command, CCP_* environment,
 * nodes, my_index, lease, limits); the head adds route, psk and paths of its own. The message is
 * heap-allocated; free with mu__prepare_order__free_unpacked(). NULL: no such attempt or node. */
Mu__PrepareOrder *core_prepare_order(const struct core *core, uint64_t attempt, const char *node);

#endif
