/* core_test.c - the core driven by hand: commands in, rows and effects out.
 *
 * A small bench: a core, the batch and effects of the last turn, and helpers that do one command
 * in one turn and check the invariants after it.
 */
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

int main(void)
{
    user.name = "ann";
    user.uid = 1000;
    other.name = "bob";
    other.uid = 1001;
    test_one_node();
    test_four_nodes();
    test_groups();
    effects_free(&effects);
    core_destroy(core);
    return tap_done();
}
