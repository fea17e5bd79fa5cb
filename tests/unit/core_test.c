/* core_test.c - the core driven by hand: commands in, rows and effects out.
 *
 * A small bench: a core, the batch and effects of the last turn, and helpers that do one command
 * in one turn and check the invariants after it.
 */
#include "base/clock.h"
#include "core/core.h"
#include "model/message.h"
#include "tap.h"

#include <inttypes.h>

#define JOB(s) MU__JOB_STATE__JOB_STATE_##s
#define TASK(s) MU__TASK_STATE__TASK_STATE_##s
#define NODE(s) MU__NODE_STATE__NODE_STATE_##s
#define FAIL(s) MU__TASK_FAILURE__FAIL_##s
#define PHASE(s) MU__ATTEMPT_PHASE__PHASE_##s

static struct core *core;
static struct effects effects; /* of the last turn */
static int64_t up, wall = 1700000000000;
static Mu__Owner user = MU__OWNER__INIT, other = MU__OWNER__INIT;

static struct result turn(const struct command *cmd)
{
    struct result r;
    struct batch batch = {0};
    struct error err;
    effects_free(&effects);
    core_begin(core, ++up, ++wall);
    core_command(core, cmd, &r);
    core_end(core, &batch, &effects);
    batch_free(&batch);
    if (core_check(core, &err))
        ok(false, "invariants: %s", err.text);
    return r;
}

static void start(uint32_t grace_ms)
{
    struct core_config config;
    core_destroy(core);
    core_config_default(&config);
    config.grace_ms = grace_ms;
    core = core_create(&config);
    up = 0;
}

static void node_is_up(const char *name, const char *install, uint32_t cores, Mu__AttemptReport **reports,
                       size_t n)
{
    Mu__NodeHello hello = MU__NODE_HELLO__INIT;
    hello.name = (char *)name;
    hello.install_id = (char *)install;
    hello.cores = cores;
    hello.attempts = reports;
    hello.n_attempts = n;
    turn(&(struct command){.kind = CMD_NODE_UP, .node_hello = &hello});
}

static struct result set_nodes(char *name, bool online, bool force)
{
    Mu__NodeSet set = MU__NODE_SET__INIT;
    set.all = name == NULL;
    set.names = &name;
    set.n_names = name ? 1 : 0;
    set.online = online;
    set.force = force;
    return turn(&(struct command){.kind = CMD_NODE_SET, .actor = {&user, true}, .node_set = &set});
}

static struct result make_group(const char *name, char **nodes, size_t n, Mu__GroupSet__Verb verb)
{
    Mu__GroupSet set = MU__GROUP_SET__INIT;
    set.verb = verb;
    set.name = (char *)name;
    set.nodes = nodes;
    set.n_nodes = n;
    return turn(&(struct command){.kind = CMD_GROUP_SET, .actor = {&user, true}, .group_set = &set});
}

static void cluster(int nodes, uint32_t cores)
{
    char name[16];
    start(15000);
    for (int i = 1; i <= nodes; i++) {
        snprintf(name, sizeof name, "node%d", i);
        node_is_up(name, name, cores, NULL, 0);
    }
    set_nodes(NULL, true, false);
}

/* One task, `min` to `max` units. */
static struct result submit(bool nodes, uint32_t min, uint32_t max,
                            void (*change)(Mu__JobSpec *, Mu__TaskSpec *))
{
    Mu__JobSpec spec = MU__JOB_SPEC__INIT;
    Mu__TaskSpec task = MU__TASK_SPEC__INIT, *tasks = &task;
    Mu__JobCreate create = MU__JOB_CREATE__INIT;
    spec.unit = nodes ? MU__UNIT_TYPE__UNIT_NODE : MU__UNIT_TYPE__UNIT_CORE;
    spec.min_units = min;
    spec.max_units = max;
    spec.priority = 2000;
    task.command_line = "true";
    if (change)
        change(&spec, &task);
    create.spec = &spec;
    create.tasks = &tasks;
    create.n_tasks = 1;
    create.submit = true;
    return turn(&(struct command){.kind = CMD_JOB_CREATE, .actor = {&user, false}, .job_create = &create});
}

static void report(const char *node, uint64_t attempt, int phase, int exit_code, const char *message)
{
    Mu__AttemptReport r = MU__ATTEMPT_REPORT__INIT;
    r.attempt = attempt;
    r.phase = (Mu__AttemptPhase)phase;
    r.has_result = phase == PHASE(ENDED) || (phase == PHASE(RELEASED) && exit_code >= 0);
    r.exit_code = exit_code < 0 ? 0 : exit_code;
    r.failure = exit_code > 0 ? FAIL(EXIT) : FAIL(NONE);
    r.message = (char *)message;
    turn(&(struct command){.kind = CMD_REPORT, .node = node, .report = &r});
}

static int count_effects(enum effect_kind kind, const char *node)
{
    int n = 0;
    for (size_t i = 0; i < effects.count; i++)
        n += effects.list[i].kind == kind && (!node || !strcmp(effects.list[i].node, node));
    return n;
}

static void test_one_node(void)
{
    cluster(2, 2);
    struct result r = submit(false, 0, 0, NULL);
    is_int(r.error.code, ERR_NONE, "a one-core job is taken");
    is_int(core_job(core, 1)->state, JOB(RUNNING), "and starts in the same turn");
    is_int(count_effects(EFFECT_PREPARE, "node1"), 1, "its node is told to prepare");
    Mu__PrepareOrder *o = core_prepare_order(core, 1, "node1");
    ok(o && o->go && !strcmp(o->command_line, "true"), "one node: prepare and go in one order");
    mu__prepare_order__free_unpacked(o, NULL);
    is_int(core_core_use(core, "node1", 0), 1, "core 0 is the attempt's");
    report("node1", 1, PHASE(RUNNING), -1, "");
    is_int(core_task(core, 1, 1)->state, TASK(RUNNING), "the task runs");
    report("node1", 1, PHASE(RELEASED), 0, "");
    is_int(core_task(core, 1, 1)->state, TASK(FINISHED), "the task is finished");
    is_int(core_job(core, 1)->state, JOB(FINISHED), "the job is finished");
    is_int(count_effects(EFFECT_FORGET, "node1"), 1, "the node may forget the attempt");
    is_int(core_node_busy(core, "node1"), 0, "its core is free again");
    is_int(core_job(core, 1)->n_allocation, 0, "the job holds nothing");
}

static void test_four_nodes(void)
{
    cluster(4, 2);
    submit(true, 4, 0, NULL);
    is_int(count_effects(EFFECT_PREPARE, NULL), 4, "four nodes are told to prepare");
    const char *names[] = {"node1", "node2", "node3", "node4"};
    for (int i = 0; i < 4; i++)
        report(names[i], 1, PHASE(PREPARED), -1, "");
    is_int(count_effects(EFFECT_GO, "node1"), 1, "when all are ready the first is told to go");
    report("node1", 1, PHASE(RUNNING), -1, "");
    report("node1", 1, PHASE(ENDED), 3, "");
    is_int(count_effects(EFFECT_END, NULL), 4, "its end ends the attempt everywhere");
    is_int(core_task(core, 1, 1)->state, TASK(FINISHING), "the task is finishing");
    for (int i = 0; i < 4; i++)
        report(names[i], 1, PHASE(RELEASED), i ? -1 : 3, "");
    is_int(core_job(core, 1)->state, JOB(FAILED), "the job failed");
    is_int(core_job(core, 1)->exit_code, 3, "with the exit code of its task");
    is_str(core_job(core, 1)->message, "task 1: exit code 3", "and says so");
}

static void test_groups(void)
{
    char *two[] = {"NODE2", "node10"};
    cluster(12, 1);
    is_int(make_group("Blue", two, 2, MU__GROUP_SET__VERB__NEW).error.code, ERR_NONE, "a group is made");
    is_str(core_group(core, "bLUE")->nodes[1], "node10", "found without case, nodes in natural order");
    is_int(make_group("blue", two, 2, MU__GROUP_SET__VERB__NEW).error.code, ERR_EXISTS, "not twice");
}

/* ---- what one case asks for beside its units ---- */

static char *blue[] = {"blue"}, *none[] = {"none"}, *node9[] = {"node9"}, *node2[] = {"node2"},
            *node3[] = {"node3"};
static Mu__Env env_reserved = MU__ENV__INIT, env_job = MU__ENV__INIT, env_task = MU__ENV__INIT;
static Mu__Env *reserved[] = {&env_reserved}, *of_job[] = {&env_job}, *of_task[] = {&env_task};

static void in_blue(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    job->node_groups = blue, job->n_node_groups = 1;
}

static void in_none(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    job->node_groups = none, job->n_node_groups = 1;
}

static void on_node9(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    job->requested_nodes = node9, job->n_requested_nodes = 1;
}

static void on_node2(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    job->requested_nodes = node2, job->n_requested_nodes = 1;
}

static void needs_node3(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    on_node2(job, task);
    task->required_nodes = node3, task->n_required_nodes = 1;
}

static void too_urgent(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    job->priority = 4001;
}

static void no_command(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    task->command_line = "";
}

static void exclusive_task(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    task->exclusive = true;
}

static void reserved_env(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    env_reserved.name = "CCP_JOBID";
    task->env = reserved, task->n_env = 1;
}

static void with_env(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    env_job.name = env_task.name = "COLOUR";
    env_job.value = "job";
    env_task.value = "task";
    job->env = of_job, job->n_env = 1;
    task->env = of_task, task->n_env = 1;
    task->work_dir = "/work";
}

static void sockets(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    job->unit = MU__UNIT_TYPE__UNIT_SOCKET;
}

static void big_task(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    task->min_units = 3;
}

static void admin_job(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    job->type = MU__JOB_TYPE__JOB_ADMIN;
}

static void two_retries(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    job->task_retry_limit = 2;
}

static void not_rerunnable(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    task->not_rerunnable = true;
}

static void ten_seconds(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    task->runtime_s = 10;
}

static void job_ten_seconds(Mu__JobSpec *job, Mu__TaskSpec *task)
{
    job->runtime_s = 10;
}

static void test_checks(void)
{
    char *groups[] = {"node1"};
    cluster(4, 2);
    make_group("Blue", groups, 1, MU__GROUP_SET__VERB__NEW);
    static const struct {
        const char *text;
        int code;
        void (*change)(Mu__JobSpec *, Mu__TaskSpec *);
        bool nodes;
        uint32_t min, max;
    } rows[] = {
        {"numnodes 9: only 4 nodes are registered", ERR_USAGE, NULL, true, 9, 0},
        {"numcores 9: only 8 cores are registered", ERR_USAGE, NULL, false, 9, 0},
        {"numnodes 4-2: the minimum is larger than the maximum", ERR_USAGE, NULL, true, 4, 2},
        {"numnodes 2: only 1 node is in blue", ERR_USAGE, in_blue, true, 2, 0},
        {"nodegroup none: no such node group", ERR_USAGE, in_none, true, 1, 0},
        {"requestednodes node9: no such node", ERR_USAGE, on_node9, true, 1, 0},
        {"numnodes 2: only 1 node is among the requested nodes", ERR_USAGE, on_node2, true, 2, 0},
        {"priority 4001: expected 0 to 4000", ERR_USAGE, too_urgent, true, 1, 0},
        {"command line: expected a command, got nothing", ERR_USAGE, no_command, true, 1, 0},
        {"exclusive: a task may be exclusive only in an exclusive job", ERR_USAGE, exclusive_task, true, 1,
         0},
        {"env CCP_JOBID: cannot change a reserved environment variable", ERR_USAGE, reserved_env, true, 1, 0},
        {"numsockets: sockets are not supported; use numcores or numnodes", ERR_USAGE, sockets, false, 1, 0},
        {"numnodes 3: the job may use at most 2", ERR_USAGE, big_task, true, 1, 2},
        {"only an administrator may run commands on nodes", ERR_DENIED, admin_job, false, 0, 0},
        {"requirednodes node3: not one of the nodes that the job may use", ERR_USAGE, needs_node3, true, 1,
         0},
    };
    uint64_t jobs = core_counters(core)->next_job, events = core_counters(core)->next_event;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct result r = submit(rows[i].nodes, rows[i].min, rows[i].max, rows[i].change);
        is_str(r.error.text, rows[i].text, "refused, case %zu", i);
        is_int(r.error.code, rows[i].code, "with its code");
    }
    ok(core_counters(core)->next_job == jobs && core_counters(core)->next_event == events,
       "what was refused left no trace");
}

static struct result job_verb(enum command_kind kind, uint64_t job, Mu__Owner *who)
{
    Mu__JobCancel cancel = MU__JOB_CANCEL__INIT;
    Mu__JobRequeue requeue = MU__JOB_REQUEUE__INIT;
    Mu__JobSubmit sub = MU__JOB_SUBMIT__INIT;
    struct command cmd = {.kind = kind, .actor = {who, false}};
    cancel.job_id = requeue.job_id = sub.job_id = job;
    if (kind == CMD_JOB_CANCEL)
        cmd.job_cancel = &cancel;
    else if (kind == CMD_JOB_REQUEUE)
        cmd.job_requeue = &requeue;
    else
        cmd.job_submit = &sub;
    return turn(&cmd);
}

static struct result task_verb(bool cancel_it, uint64_t job, uint32_t task)
{
    Mu__TaskCancel cancel = MU__TASK_CANCEL__INIT;
    Mu__TaskRequeue requeue = MU__TASK_REQUEUE__INIT;
    struct command cmd = {.kind = cancel_it ? CMD_TASK_CANCEL : CMD_TASK_REQUEUE, .actor = {&user, false}};
    cancel.job_id = requeue.job_id = job;
    cancel.task_id = requeue.task_id = task;
    if (cancel_it)
        cmd.task_cancel = &cancel;
    else
        cmd.task_requeue = &requeue;
    return turn(&cmd);
}

static void test_cancel(void)
{
    cluster(1, 1);
    submit(false, 1, 0, NULL);
    submit(false, 1, 0, NULL);
    is_int(job_verb(CMD_JOB_CANCEL, 2, &other).error.code, ERR_DENIED, "another user may not cancel");
    is_int(job_verb(CMD_JOB_CANCEL, 9, &user).error.code, ERR_NOT_FOUND, "a job that is not there");
    job_verb(CMD_JOB_CANCEL, 2, &user);
    is_int(core_job(core, 2)->state, JOB(CANCELED), "a queued job is Canceled at once");
    is_int(core_task(core, 2, 1)->state, TASK(CANCELED), "with its task");
    is_int(job_verb(CMD_JOB_CANCEL, 2, &user).error.code, ERR_STATE, "not twice");
    report("node1", 1, PHASE(RUNNING), -1, "");
    job_verb(CMD_JOB_CANCEL, 1, &user);
    is_int(core_job(core, 1)->state, JOB(CANCELING), "a running one is Canceling");
    is_int(count_effects(EFFECT_END, "node1"), 1, "and ended on its node");
    is_int(effects.list[0].grace_ms, 15000, "with grace");
    report("node1", 1, PHASE(RELEASED), 143, "");
    is_int(core_job(core, 1)->state, JOB(CANCELED), "then Canceled");
    is_int(core_task(core, 1, 1)->state, TASK(FAILED), "its running task Failed, as at HPC Pack");
    is_str(core_job(core, 1)->message, "cancelled by ann", "by whom is kept");
    job_verb(CMD_JOB_REQUEUE, 1, &user);
    is_int(core_job(core, 1)->state, JOB(RUNNING), "a cancelled job can be queued again");
    is_int(core_job(core, 1)->requeue_count, 1, "and counts that");
    report("node1", 2, PHASE(RELEASED), 0, "");
    is_int(core_job(core, 1)->state, JOB(FINISHED), "and finish");
    is_int(job_verb(CMD_JOB_REQUEUE, 1, &user).error.code, ERR_STATE, "a finished one not");
}

static void test_tasks(void)
{
    Mu__JobSpec spec = MU__JOB_SPEC__INIT;
    Mu__TaskSpec one = MU__TASK_SPEC__INIT, *tasks[] = {&one, &one, &one};
    Mu__JobCreate create = MU__JOB_CREATE__INIT;
    cluster(1, 2);
    one.command_line = "true";
    spec.priority = 2000;
    create.spec = &spec;
    struct result r =
        turn(&(struct command){.kind = CMD_JOB_CREATE, .actor = {&user, false}, .job_create = &create});
    is_int(core_job(core, 1)->state, JOB(CONFIGURING), "a job can be made without tasks");
    is_int(job_verb(CMD_JOB_SUBMIT, 1, &user).error.code, ERR_STATE, "but not submitted");
    Mu__JobAdd add = MU__JOB_ADD__INIT;
    add.job_id = 1;
    add.tasks = tasks;
    add.n_tasks = 3;
    r = turn(&(struct command){.kind = CMD_JOB_ADD, .actor = {&user, false}, .job_add = &add});
    ok(r.first_task == 1 && r.task_count == 3, "tasks get numbers in order");
    job_verb(CMD_JOB_SUBMIT, 1, &user);
    is_int(core_job(core, 1)->tasks_running, 2, "two run on two cores");
    is_str(core_pending_reason(core, 1, 3), "needs 1 core; its job holds 2, 0 of them idle",
           "the third says why not");
    task_verb(true, 1, 3);
    is_int(core_task(core, 1, 3)->state, TASK(CANCELED), "a queued task is Canceled");
    report("node1", 1, PHASE(RUNNING), -1, "");
    task_verb(true, 1, 1);
    is_int(core_task(core, 1, 1)->state, TASK(CANCELING), "a running one Canceling");
    report("node1", 1, PHASE(RELEASED), 1, "");
    is_int(core_task(core, 1, 1)->failure, FAIL(CANCEL), "then Failed because cancelled");
    task_verb(false, 1, 3);
    is_int(core_task(core, 1, 3)->state, TASK(DISPATCHING),
           "a cancelled task can be queued again while its job runs");
    report("node1", 2, PHASE(RELEASED), 0, "");
    report("node1", 3, PHASE(RELEASED), 0, "");
    is_int(core_job(core, 1)->state, JOB(FAILED),
           "a job with a failed task ends Failed when the rest has run");
    is_int(core_job(core, 1)->tasks_finished, 2, "and counts what finished");
}

static void test_retries(void)
{
    cluster(1, 1);
    submit(false, 1, 0, two_retries);
    for (uint64_t a = 1; a <= 3; a++) {
        is_int(core_task(core, 1, 1)->attempt, a, "attempt %d", (int)a);
        report("node1", a, PHASE(RELEASED), 7, "");
    }
    is_int(core_job(core, 1)->state, JOB(FAILED), "retries after an exit code are limited");
    submit(false, 1, 0, NULL);
    for (uint64_t a = 4; a <= 7; a++) {
        report("node1", a, PHASE(REFUSED), -1, "no room");
        is_int(count_effects(EFFECT_END, "node1"), 1,
               "a node that refused is told to end what may be under way");
        report("node1", a, PHASE(RELEASED), -1, "");
    }
    is_int(core_job(core, 2)->state, JOB(FAILED), "refusals in a row are limited");
    is_str(core_job(core, 2)->message, "task 1: node node1: no room", "with the node's words");
    is_int(core_task(core, 2, 1)->auto_requeue_count, 0, "and use up no retry");
}

static void tick_at(int64_t at)
{
    up = at - 1;
    turn(&(struct command){.kind = CMD_TICK});
}

static void test_lost_node(void)
{
    cluster(2, 1);
    submit(true, 2, 0, NULL);
    report("node1", 1, PHASE(PREPARED), -1, "");
    report("node2", 1, PHASE(PREPARED), -1, "");
    report("node1", 1, PHASE(RUNNING), -1, "");
    turn(&(struct command){.kind = CMD_NODE_DOWN, .node = "node2"});
    is_int(core_task(core, 1, 1)->state, TASK(RUNNING), "a lost link ends nothing");
    int64_t due = core_deadline(core);
    is_int(due - core_node(core, "node2")->lost_up_ms, 625000, "lease, grace and margin run from the loss");
    Mu__AttemptReport runs = MU__ATTEMPT_REPORT__INIT, *inventory = &runs;
    runs.attempt = 1;
    runs.phase = PHASE(PREPARED);
    node_is_up("node2", "node2", 1, &inventory, 1);
    is_int(core_deadline(core), INT64_MAX, "a node that is back with its attempt is as before");
    turn(&(struct command){.kind = CMD_NODE_DOWN, .node = "node2"});
    tick_at(core_deadline(core) - 1);
    is_int(core_task(core, 1, 1)->state, TASK(RUNNING), "a moment before the lease is over still nothing");
    tick_at(core_deadline(core));
    is_int(count_effects(EFFECT_END, "node1"), 1, "then the attempt ends everywhere");
    report("node1", 1, PHASE(RELEASED), 137, "");
    is_int(core_job(core, 1)->state, JOB(QUEUED), "and its job waits for nodes");
    is_int(core_task(core, 1, 1)->auto_requeue_count, 1, "the requeue is counted");
    is_str(core_pending_reason(core, 1, 0), "needs 2 nodes; 1 online, 1 unreachable; 1 free",
           "and says for what");
    runs.phase = PHASE(RUNNING);
    node_is_up("node2", "node2", 1, &inventory, 1);
    is_int(count_effects(EFFECT_END, "node2"), 1, "what the node still knows of it is ended");
    is_int(core_task(core, 1, 1)->attempt, 2, "and the job starts anew");
}

static void test_reimaged(void)
{
    cluster(1, 1);
    submit(false, 1, 0, not_rerunnable);
    report("node1", 1, PHASE(RUNNING), -1, "");
    node_is_up("node1", "other", 1, NULL, 0);
    is_int(core_job(core, 1)->state, JOB(FAILED), "a machine installed anew has lost its attempts at once");
    is_str(core_job(core, 1)->message, "task 1: node node1 was installed anew; the task is not rerunnable",
           "the cause is named");
    submit(false, 1, 0, NULL);
    report("node1", 2, PHASE(PREPARED), -1, "");
    node_is_up("node1", "other", 1, NULL, 0);
    is_int(core_task(core, 2, 1)->attempt, 3, "an attempt that was prepared and is not there is lost too");
    node_is_up("node1", "other", 1, NULL, 0);
    is_int(core_task(core, 2, 1)->attempt, 3, "one whose order may not have arrived is not");
    effects_free(&effects);
    core_open_effects(core, "node1", &effects);
    is_int(count_effects(EFFECT_PREPARE, "node1"), 1, "its order is open");
}

static void test_limits(void)
{
    cluster(1, 1);
    submit(false, 1, 0, ten_seconds);
    report("node1", 1, PHASE(RUNNING), -1, "");
    int64_t started = up;
    is_int(core_deadline(core), started + 10000, "a task's run-time limit is due");
    tick_at(started + 10000);
    is_int(count_effects(EFFECT_END, "node1"), 1, "and ends it");
    report("node1", 1, PHASE(RELEASED), 143, "");
    is_int(core_task(core, 1, 1)->failure, FAIL(TIMEOUT), "as timeout");
    submit(false, 1, 0, job_ten_seconds);
    started = core_job(core, 2)->started_up_ms;
    tick_at(started + 10000);
    is_int(core_job(core, 2)->state, JOB(CANCELING), "a job's limit cancels it");
    report("node1", 2, PHASE(RELEASED), 143, "");
    is_int(core_job(core, 2)->state, JOB(CANCELED), "it is Canceled");
    is_str(core_job(core, 2)->message, "run time limit of 10 s reached", "with the cause");
}

static void test_offline(void)
{
    cluster(2, 1);
    submit(false, 1, 0, NULL);
    is_int(turn(&(struct command){.kind = CMD_NODE_SET,
                                  .actor = {&user, false},
                                  .node_set = &(Mu__NodeSet)MU__NODE_SET__INIT})
               .error.code,
           ERR_DENIED, "only an administrator changes nodes");
    set_nodes("node1", false, false);
    is_int(core_node(core, "node1")->state, NODE(DRAINING), "a node with work drains");
    report("node1", 1, PHASE(RELEASED), 0, "");
    is_int(core_node(core, "node1")->state, NODE(OFFLINE), "and is offline when it is done");
    submit(false, 1, 0, NULL);
    set_nodes("node2", false, true);
    is_int(count_effects(EFFECT_END, "node2"), 1, "by force its work is ended");
    report("node2", 2, PHASE(RELEASED), 143, "");
    is_int(core_job(core, 2)->state, JOB(QUEUED), "and queued again");
    set_nodes("node1", true, false);
    is_int(core_job(core, 2)->state, JOB(RUNNING), "it runs where a node comes online");
}

static void test_admin_job(void)
{
    Mu__JobSpec spec = MU__JOB_SPEC__INIT;
    Mu__TaskSpec list[3], *tasks[3];
    char *names[] = {"node1", "node2", "node3"};
    Mu__JobCreate create = MU__JOB_CREATE__INIT;
    cluster(3, 1);
    submit(false, 1, 0, NULL);
    set_nodes("node2", false, false);
    turn(&(struct command){.kind = CMD_NODE_DOWN, .node = "node3"});
    spec.type = MU__JOB_TYPE__JOB_ADMIN;
    for (int i = 0; i < 3; i++) {
        mu__task_spec__init(&list[i]);
        list[i].command_line = "hostname";
        list[i].required_nodes = &names[i];
        list[i].n_required_nodes = 1;
        tasks[i] = &list[i];
    }
    create.spec = &spec;
    create.tasks = tasks;
    create.n_tasks = 3;
    create.submit = true;
    turn(&(struct command){.kind = CMD_JOB_CREATE, .actor = {&user, true}, .job_create = &create});
    is_int(core_task(core, 2, 1)->state, TASK(DISPATCHING), "a command runs beside other work");
    is_int(core_task(core, 2, 2)->state, TASK(DISPATCHING), "and on a node that is offline");
    is_int(core_task(core, 2, 3)->state, TASK(FAILED), "not on one that cannot be reached");
    is_str(core_task(core, 2, 3)->message, "node node3 is unreachable", "which is said");
    is_int(core_node_busy(core, "node2"), 0, "it takes no cores");
    report("node1", 2, PHASE(RELEASED), 0, "");
    report("node2", 3, PHASE(RELEASED), 0, "");
    is_int(core_job(core, 2)->state, JOB(FAILED), "its job ends when all have");
}

static void test_order(void)
{
    cluster(2, 2);
    submit(true, 2, 0, with_env);
    Mu__PrepareOrder *o = core_prepare_order(core, 1, "NODE2");
    static const char *const want[][2] = {
        {"CCP_JOBID", "1"},
        {"CCP_TASKID", "1"},
        {"CCP_TASKINSTANCEID", "0"},
        {"CCP_TASKSYSTEMID", "1"},
        {"CCP_TASKCONTEXT", "1.1"},
        {"CCP_JOBTYPE", "Batch"},
        {"CCP_JOBTEMPLATE", "Default"},
        {"CCP_NODES", "2 node1 2 node2 2"},
        {"CCP_NODES_CORES", "2 node1 2 node2 2"},
        {"CCP_NUMCPUS", "4"},
        {"CCP_COREIDS", "0 1"},
        {"CCP_EXCLUSIVE", "False"},
        {"CCP_RERUNNABLE", "True"},
        {"CCP_RUNTIME", "2147483647"},
        {"CCP_WORKDIR", "/work"},
        {"COLOUR", "task"},
    };
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        const char *got = NULL;
        for (size_t k = 0; k < o->n_env; k++)
            if (!strcmp(o->env[k]->name, want[i][0]))
                got = o->env[k]->value;
        is_str(got ? got : "(absent)", want[i][1], "%s", want[i][0]);
    }
    ok(o->my_index == 1 && o->n_nodes == 2 && !o->go && o->lease_ms == 600000 && o->owner->uid == 1000,
       "the rest of the order");
    mu__prepare_order__free_unpacked(o, NULL);
    ok(!core_prepare_order(core, 2, "node1") && !core_prepare_order(core, 1, "node9"),
       "none where there is none");
}

static const char *order_env(const Mu__PrepareOrder *o, const char *name)
{
    for (size_t i = 0; o && i < o->n_env; i++)
        if (!strcmp(o->env[i]->name, name))
            return o->env[i]->value;
    return "(absent)";
}

/* No variable may be longer than the kernel takes, no order longer than a frame. */
static void test_order_of_many(void)
{
    enum { NODES = 600, CORES = 128 };
    char name[64];
    start(15000);
    for (int i = 0; i < NODES; i++) {
        snprintf(name, sizeof name, "a-node-whose-name-is-really-quite-long-for-the-test-%04d", i);
        node_is_up(name, name, CORES, NULL, 0);
    }
    set_nodes(NULL, true, false);
    submit(true, NODES, 0, NULL);
    Mu__PrepareOrder *o = core_prepare_order(core, 1, name);
    is_str(order_env(o, "CCP_NODES"), "Overflow", "a list of nodes that is too long");
    is_str(order_env(o, "CCP_NODES_CORES"), "Overflow", "and with their cores");
    is_int(strlen(order_env(o, "CCP_COREIDS")), 10 * 2 + 90 * 3 + 28 * 4 - 1, "a list of cores that is not");
    size_t each = o ? mu__prepare_order__get_packed_size(o) / NODES : 0;
    ok(each > 0 && each * 5000 < 4u << 20, "an order of 5,000 nodes: %zu bytes", each * 5000);
    mu__prepare_order__free_unpacked(o, NULL);
}

/* Owner `user` is an ordinary one here; requests of `submit` come from there. */
static void test_quota(void)
{
    struct core_config config;
    struct batch rows = {0}, batch = {0};
    struct error err;
    core_destroy(core);
    core_config_default(&config);
    config.user_jobs_max = 2;
    config.user_bytes_max = 2000;
    core = core_create(&config);
    up = 0;
    node_is_up("node1", "node1", 4, NULL, 0);
    set_nodes(NULL, true, false);
    submit(false, 1, 0, NULL);
    submit(false, 1, 0, NULL);
    struct result r = submit(false, 1, 0, NULL);
    is_str(r.error.text, "2 jobs of user ann have not ended: at most 2 of one user", "jobs of one user");
    report("node1", 1, PHASE(RUNNING), 0, "");
    report("node1", 1, PHASE(RELEASED), 0, "");
    is_int(submit(false, 1, 0, NULL).error.code, ERR_NONE, "one has ended: another is taken");
    core_rows(core, &rows);
    struct core *next = core_create(&config);
    for (size_t i = 0; i < rows.count; i++)
        core_load(next, &rows.rows[i], &err);
    core_begin(next, 5, 0);
    core_resume(next, 9);
    core_end(next, &batch, &effects);
    batch_free(&rows);
    batch_free(&batch);
    core_destroy(core);
    core = next;
    is_int(submit(false, 1, 0, NULL).error.code, ERR_LIMIT, "they count after a restart");
    Mu__TaskSpec spec = MU__TASK_SPEC__INIT, *specs[20];
    Mu__JobAdd add = MU__JOB_ADD__INIT;
    spec.command_line = "true";
    for (size_t i = 0; i < 20; i++)
        specs[i] = &spec;
    add.job_id = 3;
    add.tasks = specs;
    add.n_tasks = 20;
    r = turn(&(struct command){.kind = CMD_JOB_ADD, .actor = {&user, false}, .job_add = &add});
    ok(r.error.code == ERR_LIMIT && strstr(r.error.text, "at most 2000 of one user"), "bytes of one user: %s",
       r.error.text);
    r = turn(&(struct command){.kind = CMD_JOB_ADD, .actor = {&user, true}, .job_add = &add});
    is_int(r.error.code, ERR_NONE, "an administrator may");
}

static void test_groups_in_use(void)
{
    char *one[] = {"node1"};
    cluster(2, 1);
    make_group("blue", one, 1, MU__GROUP_SET__VERB__NEW);
    submit(true, 1, 0, in_blue);
    submit(true, 1, 0, in_blue);
    struct result r = make_group("blue", NULL, 0, MU__GROUP_SET__VERB__DELETE);
    is_str(r.error.text, "group blue: 2 jobs that have not ended use it", "a group in use is not deleted");
    is_int(make_group("blue", one, 1, MU__GROUP_SET__VERB__REMOVE).error.code, ERR_NONE,
           "its nodes may leave it");
    is_str(core_pending_reason(core, 2, 0), "needs 1 node in blue; 0 online", "which the waiting job says");
    char *two[] = {"node2"};
    make_group("blue", two, 1, MU__GROUP_SET__VERB__ADD);
    is_int(core_job(core, 2)->state, JOB(RUNNING), "a node that is added serves it");
}

/* Rows of one core into another, which goes on where the first was. */
static void test_resume(void)
{
    struct batch rows = {0}, batch = {0};
    struct error err;
    cluster(2, 2);
    submit(true, 2, 0, NULL);
    submit(false, 1, 0, NULL);
    report("node1", 1, PHASE(PREPARED), -1, "");
    core_rows(core, &rows);
    struct core *next = core_create(NULL);
    for (size_t i = rows.count; i-- > 0;)
        ok(core_load(next, &rows.rows[i], &err) == 0, "row %zu is taken", i);
    struct row bad = {.kind = ROW_JOB, .id = 77, .data = (uint8_t *)"\xff\xff", .len = 2};
    is_int(core_load(next, &bad, &err), -1, "one that cannot be read is not: %s", err.text);
    core_begin(next, 5, 0);
    core_resume(next, 9);
    effects_free(&effects);
    core_end(next, &batch, &effects);
    is_int(effects.count, 1, "one order is open: node2 has not prepared");
    is_int(core_counters(next)->generation, 9, "the generation is the store's");
    ok(!core_node(next, "node1")->reachable, "no node is reachable before its link is up");
    is_int(core_check(next, &err), 0, "and everything holds");
    batch_free(&rows);
    batch_free(&batch);
    core_destroy(core);
    core = next;
    is_str(core_pending_reason(core, 2, 0), "needs 1 core; 0 online, 2 unreachable", "who waits says so");
    report("node2", 1, PHASE(PREPARED), -1, "");
    is_int(core_attempt(core, 1)->state, MU__ATTEMPT_STATE__ATTEMPT_STARTING, "it goes on");
}

/* A head that is started with shorter times must not think that what an earlier one prepared is over. */
static void test_shorter_lease(void)
{
    struct batch rows = {0}, batch = {0};
    struct core_config config;
    struct error err;
    cluster(1, 1);
    submit(false, 1, 0, NULL);
    core_rows(core, &rows);
    for (uint32_t lease = 1000; lease <= 900000; lease += 899000) {
        core_config_default(&config);
        config.lease_ms = lease;
        config.grace_ms = 0;
        struct core *next = core_create(&config);
        for (size_t i = 0; i < rows.count; i++)
            core_load(next, &rows.rows[i], &err);
        core_begin(next, 5000, 0);
        core_resume(next, 9);
        effects_free(&effects);
        core_end(next, &batch, &effects);
        int64_t longest = lease > 600000 ? lease : 600000;
        is_int(core_deadline(next), 5000 + longest + 15000 + 10000, "a lease of %u ms after one of 600000",
               lease);
        batch_free(&batch);
        batch_free(&rows);
        core_rows(next, &rows); /* the third head comes after the second */
        core_destroy(next);
    }
    batch_free(&rows);
}

static void test_events(void)
{
    cluster(1, 1);
    uint64_t first = core_counters(core)->next_event;
    submit(false, 1, 0, NULL);
    report("node1", 1, PHASE(RUNNING), -1, "");
    report("node1", 1, PHASE(RELEASED), 0, "");
    static const char *const want[] = {
        "1 Created ann",         "1.1 Created ann",        "1 Submitted ann",
        "1.1 Queued ann",        "1 Running scheduler",    "1.1 Dispatching scheduler",
        "1.1 Running scheduler", "1.1 Finished scheduler", "1 Finished scheduler"};
    uint64_t seq = first;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; seq++) {
        const Mu__Event *e = core_event(core, seq);
        char text[128];
        if (!e)
            break;
        snprintf(text, sizeof text, "%s %s %s", e->subject, e->what, e->actor);
        if (e->kind == MU__EVENT_KIND__EVENT_JOB || e->kind == MU__EVENT_KIND__EVENT_TASK)
            is_str(text, want[i++], "event %d", (int)(seq - first));
    }
    is_int(core_job_event(core, 1), seq - 1, "the newest event of the job is known");
    is_int(core_counters(core)->next_event, seq, "numbers are dense");
}

/* What a job may use is found once, not for each of its tasks and required nodes. */
static void test_long_lists(void)
{
    enum { NAMES = 10000, TASKS = 300 };
    static char *names[NAMES], *requested[NAMES];
    static Mu__TaskSpec task = MU__TASK_SPEC__INIT, *tasks[TASKS];
    Mu__JobSpec spec = MU__JOB_SPEC__INIT;
    Mu__JobCreate create = MU__JOB_CREATE__INIT;
    cluster(2, 2);
    for (int i = 0; i < NAMES; i++) {
        names[i] = (char *)"node1";
        requested[i] = (char *)(i < NAMES - 1 ? "node2" : "node1");
    }
    task.command_line = "true";
    task.min_units = 1;
    task.max_units = NAMES;
    task.required_nodes = names;
    task.n_required_nodes = NAMES;
    for (int i = 0; i < TASKS; i++)
        tasks[i] = &task;
    spec.requested_nodes = requested;
    spec.n_requested_nodes = NAMES;
    create.spec = &spec;
    create.tasks = tasks;
    create.n_tasks = TASKS;
    int64_t began = clock_boot_ms();
    turn(&(struct command){.kind = CMD_JOB_CREATE, .actor = {&user, false}, .job_create = &create});
    int64_t took = clock_boot_ms() - began;
    ok(took < 10000, "300 tasks that name 10,000 nodes each are looked through in %lld ms", (long long)took);
}

/* A keeper whose lease is over asks the task to end and waits the grace period before it kills. */
static void test_lease_and_grace(void)
{
    struct core_config c;
    core_config_default(&c);
    cluster(2, 1);
    submit(false, 0, 0, NULL);
    report("node1", 1, PHASE(RUNNING), -1, "");
    turn(&(struct command){.kind = CMD_NODE_DOWN, .node = "node1"});
    int64_t lost = up;
    tick_at(lost + c.lease_ms + c.grace_ms);
    is_int(core_task(core, 1, 1)->state, TASK(RUNNING), "within lease and grace the task may still live");
    is_int(count_effects(EFFECT_PREPARE, NULL), 0, "and is not started a second time");
    tick_at(lost + c.lease_ms + c.grace_ms + c.lease_margin_ms);
    is_int(count_effects(EFFECT_PREPARE, "node2"), 1, "after them it is started again elsewhere");
}

/* Nothing has a time limit and no node is lost: old jobs go all the same. */
static void test_retention(void)
{
    struct core_config c;
    core_config_default(&c);
    cluster(1, 1);
    submit(false, 0, 0, NULL);
    report("node1", 1, PHASE(RELEASED), 0, "");
    is_int(core_job(core, 1)->state, JOB(FINISHED), "a job has ended");
    int64_t kept_wall = wall;
    wall += c.job_keep_ms;
    ok(core_upkeep_due(core) < up + 3600000, "time is looked at again within the hour");
    tick_at(core_upkeep_due(core) > up ? core_upkeep_due(core) : up + 1);
    ok(!core_job(core, 1), "and the job is gone when its time is over");
    wall = kept_wall;
    submit(false, 0, 0, NULL);
    report("node1", 2, PHASE(RUNNING), -1, "");
    tick_at(core_upkeep_due(core));
    ok(core_upkeep_due(core) <= up + 60000, "while something runs the uptime is stored every minute");
}

int main(void)
{
    user.name = "ann";
    user.uid = 1000;
    other.name = "bob";
    other.uid = 1001;
    test_one_node();
    test_four_nodes();
    test_groups();
    test_checks();
    test_cancel();
    test_tasks();
    test_retries();
    test_lost_node();
    test_reimaged();
    test_limits();
    test_offline();
    test_admin_job();
    test_order();
    test_order_of_many();
    test_quota();
    test_groups_in_use();
    test_resume();
    test_shorter_lease();
    test_events();
    test_lease_and_grace();
    test_long_lists();
    test_retention();
    effects_free(&effects);
    core_destroy(core);
    return tap_done();
}
