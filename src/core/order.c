/* order.c - what a node is told to run: the order to prepare an attempt, with its environment.
 *
 * The CCP_* variables and their formats are HPC Pack's (reference: environment of a task). The
 * list is in order, later wins: the scheduler's own, then the job's, then the task's.
 */
#include "core/internal.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNTIME_INFINITE "2147483647"
/* The kernel refuses a program one of whose variables is longer than 128 KiB. HPC Pack's limit is far
 * lower, and so is its word for a list that does not fit; our mpiexec reads no list, but its allocation. */
#define LIST_TEXT_MAX 32768
#define LIST_OVERFLOW "Overflow"

/* Variables that mpiexec hands on to the ranks wherever they run. */
#define ENVLIST                                                                                              \
    "CCP_TASKSYSTEMID,CCP_TASKINSTANCEID,CCP_JOBID,CCP_TASKID,CCP_TASKCONTEXT,CCP_JOBNAME,CCP_JOBTYPE,"      \
    "CCP_JOBTEMPLATE,CCP_CLUSTER_NAME,CCP_SCHEDULER"

static void env_add(Mu__PrepareOrder *o, const char *name, const char *value)
{
    Mu__Env *env = message_new(&mu__env__descriptor);
    message_set(&env->name, name);
    message_set(&env->value, value);
    o->env[o->n_env++] = env;
}

__attribute__((format(printf, 3, 4))) static void env_addf(Mu__PrepareOrder *o, const char *name,
                                                           const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    env_add(o, name, text);
}

static void env_list(Mu__PrepareOrder *o, const char *name, const struct buf *list)
{
    env_add(o, name, list->len > LIST_TEXT_MAX ? LIST_OVERFLOW : buf_str(list));
}

static void env_runtime(Mu__PrepareOrder *o, uint32_t seconds)
{
    if (seconds)
        env_addf(o, "CCP_RUNTIME", "%u", seconds);
    else
        env_add(o, "CCP_RUNTIME", RUNTIME_INFINITE);
}

/* "<n> <node1> <cores1> <node2> <cores2> ..."; an admin task counts as one core. */
static void env_nodes(Mu__PrepareOrder *o, const Mu__Attempt *a)
{
    struct buf nodes = BUF_INIT, ids = BUF_INIT;
    size_t cores = 0;
    buf_addf(&nodes, "%zu", a->n_nodes);
    for (size_t i = 0; i < a->n_nodes; i++) {
        size_t n = a->nodes[i]->n_cores ? a->nodes[i]->n_cores : 1;
        buf_addf(&nodes, " %s %zu", a->nodes[i]->node, n);
        cores += n;
    }
    const Mu__AttemptNode *mine = a->nodes[o->my_index];
    for (size_t i = 0; i < mine->n_cores; i++)
        buf_addf(&ids, "%s%u", i ? " " : "", mine->cores[i]);
    env_list(o, "CCP_NODES", &nodes);
    env_list(o, "CCP_NODES_CORES", &nodes);
    env_addf(o, "CCP_NUMCPUS", "%zu", cores);
    env_list(o, "CCP_COREIDS", &ids);
    buf_free(&nodes);
    buf_free(&ids);
}

#define OWN_VARIABLES 32

static void fill_env(Mu__PrepareOrder *o, const struct task *task, const Mu__Attempt *a)
{
    const Mu__JobSpec *job = task->job->row->spec;
    const Mu__TaskSpec *spec = task->row->spec;
    o->env = xcalloc(OWN_VARIABLES + job->n_env + spec->n_env, sizeof(*o->env));
    env_addf(o, "CCP_JOBID", "%" PRIu64, a->job_id);
    env_addf(o, "CCP_TASKID", "%u", a->task_id);
    env_add(o, "CCP_TASKINSTANCEID", "0");
    env_addf(o, "CCP_TASKSYSTEMID", "%" PRIu64, a->id);
    env_addf(o, "CCP_TASKCONTEXT", "%" PRIu64 ".%" PRIu64, a->job_id, a->id);
    env_add(o, "CCP_JOBNAME", job->name);
    env_add(o, "CCP_JOBTYPE", job->type == MU__JOB_TYPE__JOB_ADMIN ? "Admin" : "Batch");
    env_add(o, "CCP_JOBTEMPLATE", *job->job_template ? job->job_template : "Default");
    env_nodes(o, a);
    env_add(o, "CCP_EXCLUSIVE", job->exclusive ? "True" : "False");
    env_add(o, "CCP_RERUNNABLE", spec->not_rerunnable ? "False" : "True");
    env_runtime(o, spec->runtime_s);
    env_addf(o, "CCP_RETRY_COUNT", "%u", task->row->retry_count + task->row->auto_requeue_count);
    env_add(o, "CCP_WORKDIR", spec->work_dir);
    env_add(o, "CCP_STDIN", spec->stdin_path);
    env_add(o, "CCP_STDOUT", spec->stdout_path);
    env_add(o, "CCP_STDERR", spec->stderr_path);
    env_add(o, "CCP_ENVLIST", ENVLIST);
    for (size_t i = 0; i < job->n_env; i++)
        env_add(o, job->env[i]->name, job->env[i]->value);
    for (size_t i = 0; i < spec->n_env; i++)
        env_add(o, spec->env[i]->name, spec->env[i]->value);
}

static Mu__PeerNode *peer_row(const struct part *part)
{
    const Mu__Node *node = part->node->row;
    Mu__PeerNode *peer = message_new(&mu__peer_node__descriptor);
    message_set(&peer->name, node->name);
    message_set(&peer->address, node->address);
    message_set(&peer->physical_host, node->physical_host);
    peer->port = node->port;
    peer->virtual_cores = node->virtual_cores;
    peer->n_cores = part->row->n_cores;
    if (peer->n_cores)
        peer->cores = xmemdup(part->row->cores, peer->n_cores * sizeof *peer->cores);
    return peer;
}

Mu__PrepareOrder *core_prepare_order(const struct core *core, uint64_t id, const char *name)
{
    struct attempt *a = attempt_find(core, id);
    struct node *node = node_find(core, name);
    struct part *part = a && node ? part_of(a, node) : NULL;
    if (!part)
        return NULL;
    const struct task *task = a->task;
    const Mu__TaskSpec *spec = task->row->spec;
    Mu__PrepareOrder *o = message_new(&mu__prepare_order__descriptor);
    o->attempt = id;
    o->job_id = a->row->job_id;
    o->task_id = a->row->task_id;
    o->my_index = (uint32_t)(part - a->parts);
    message_set(&o->install_id, part->row->install_id);
    o->owner = message_copy(task->job->row->owner);
    message_set(&o->command_line, spec->command_line);
    message_set(&o->work_dir, spec->work_dir);
    message_set(&o->stdin_path, spec->stdin_path);
    message_set(&o->stdout_path, spec->stdout_path);
    message_set(&o->stderr_path, spec->stderr_path);
    fill_env(o, task, a->row);
    o->nodes = xcalloc(a->row->n_nodes, sizeof(*o->nodes));
    for (size_t i = 0; i < a->row->n_nodes; i++)
        o->nodes[o->n_nodes++] = peer_row(&a->parts[i]);
    o->runtime_s = a->row->runtime_s;
    o->lease_ms = a->row->lease_ms;
    o->grace_ms = a->row->lease_grace_ms;
    o->go = a->row->n_nodes == 1;
    o->admin = task->job->row->spec->type == MU__JOB_TYPE__JOB_ADMIN;
    return o;
}
