/* sched.c - what decisions cost: the core alone, with as many nodes and jobs as one likes.
 *
 *     sched_bench [NODES [JOBS]]      default 10000 nodes of 4 cores, 100000 queued jobs
 *
 * A cluster full of one-core jobs with JOBS more in the queue; then turns in which some of what
 * runs ends and the next starts. No store, no network: rows and effects are made and dropped.
 */
#include "base/clock.h"
#include "core/core.h"
#include "model/message.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CORES 4
#define PER_TURN 100

static struct core *core;
static struct batch batch;
static struct effects effects;
static int64_t up;

static void begin(void)
{
    up++;
    core_begin(core, up, 1700000000000 + up);
}

static void end(void)
{
    batch_free(&batch);
    effects_free(&effects);
    core_end(core, &batch, &effects);
}

static void command(const struct command *cmd)
{
    struct result r;
    core_command(core, cmd, &r);
    if (r.error.code == ERR_NONE)
        return;
    fprintf(stderr, "sched_bench: %s\n", r.error.text);
    exit(1);
}

static Mu__Owner owner = MU__OWNER__INIT;

static void add_nodes(uint32_t n)
{
    begin();
    for (uint32_t i = 0; i < n; i++) {
        char name[32];
        Mu__NodeHello hello = MU__NODE_HELLO__INIT;
        snprintf(name, sizeof name, "node%u", i + 1);
        hello.name = hello.install_id = name;
        hello.cores = CORES;
        command(&(struct command){.kind = CMD_NODE_UP, .node_hello = &hello});
    }
    Mu__NodeSet set = MU__NODE_SET__INIT;
    set.all = set.online = true;
    command(&(struct command){.kind = CMD_NODE_SET, .actor = {&owner, true}, .node_set = &set});
    end();
}

static void submit(void)
{
    Mu__JobSpec spec = MU__JOB_SPEC__INIT;
    Mu__TaskSpec task = MU__TASK_SPEC__INIT, *tasks = &task;
    Mu__JobCreate create = MU__JOB_CREATE__INIT;
    spec.priority = 2000;
    task.command_line = "/bin/true";
    create.spec = &spec;
    create.tasks = &tasks;
    create.n_tasks = 1;
    create.submit = true;
    command(&(struct command){.kind = CMD_JOB_CREATE, .actor = {&owner, false}, .job_create = &create});
}

/* The attempt has run: one report, as a short task on one node gives it. */
static void finish(uint64_t attempt)
{
    const Mu__Attempt *row = core_attempt(core, attempt);
    Mu__AttemptReport r = MU__ATTEMPT_REPORT__INIT;
    char node[65];
    snprintf(node, sizeof node, "%s", row->nodes[0]->node);
    r.attempt = attempt;
    r.phase = MU__ATTEMPT_PHASE__PHASE_RELEASED;
    r.has_result = true;
    command(&(struct command){.kind = CMD_REPORT, .node = node, .report = &r});
}

static double seconds(int64_t since)
{
    return (double)(clock_boot_us() - since) / 1e6;
}

int main(int argc, char **argv)
{
    uint32_t nodes = argc > 1 ? (uint32_t)atoi(argv[1]) : 10000,
             jobs = argc > 2 ? (uint32_t)atoi(argv[2]) : 100000;
    if (nodes < 1 || jobs < 1 || nodes > 100000 || jobs > 900000) {
        fprintf(stderr, "usage: sched_bench [NODES [JOBS]]\n");
        return 2;
    }
    struct core_config config;
    core_config_default(&config);
    config.event_keep_count = 10000;
    core = core_create(&config);
    owner.name = "bench";
    owner.uid = 1000;
    int64_t start = clock_boot_us();
    add_nodes(nodes);
    printf("figure sched-join %.1f us/node\n", seconds(start) * 1e6 / nodes);

    uint32_t fill = nodes * CORES;
    start = clock_boot_us();
    for (uint32_t i = 0; i < fill + jobs; i++) {
        if (i % PER_TURN == 0)
            begin();
        submit();
        if (i % PER_TURN == PER_TURN - 1 || i + 1 == fill + jobs)
            end();
    }
    printf("figure sched-submit %.1f us/job\n", seconds(start) * 1e6 / (fill + jobs));

    uint64_t attempt = 1, ended = 0;
    start = clock_boot_us();
    for (; ended < jobs; ended += PER_TURN) {
        begin();
        for (int i = 0; i < PER_TURN && attempt <= fill + jobs; i++)
            finish(attempt++);
        end();
    }
    double all = seconds(start);
    printf("figure sched-end-and-start %.1f us/job\n", all * 1e6 / (double)ended);
    printf("figure sched-decisions %.0f 1/s\n", (double)ended / all);
    batch_free(&batch);
    effects_free(&effects);
    core_destroy(core);
    return 0;
}
