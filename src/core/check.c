/* check.c - what is checked before a job or task is taken, with the words users see.
 *
 * Each message names the option as the command line spells it, the value, and what was expected.
 * Nothing here changes anything.
 */
#include "core/internal.h"

#include "base/mem.h"
#include "model/priority.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *unit_option(const Mu__JobSpec *spec)
{
    return spec->unit == MU__UNIT_TYPE__UNIT_NODE ? "numnodes" : "numcores";
}

static const char *range_text(uint32_t min, uint32_t max, char *out, size_t size)
{
    if (min && max && min != max)
        snprintf(out, size, "%u-%u", min, max);
    else
        snprintf(out, size, "%u", min ? min : max);
    return out;
}

static int check_env(const char *option, Mu__Env *const *env, size_t n, struct error *err)
{
    size_t total = 0;
    if (n > ENV_COUNT_MAX)
        return error_set(err, ERR_LIMIT, "%s: %zu variables; at most %d", option, n, ENV_COUNT_MAX);
    for (size_t i = 0; i < n; i++) {
        if (env_name_check(option, env[i]->name, err) ||
            free_text_check(option, env[i]->value, ENV_TOTAL_MAX, true, err))
            return -1;
        total += strlen(env[i]->name) + strlen(env[i]->value) + 2;
    }
    if (total > ENV_TOTAL_MAX)
        return error_set(err, ERR_LIMIT, "%s: %zu bytes; at most %d", option, total, ENV_TOTAL_MAX);
    return 0;
}

static int check_nodes(struct core *core, const char *option, char *const *names, size_t n, struct error *err)
{
    if (n > LIST_MAX)
        return error_set(err, ERR_LIMIT, "%s: %zu nodes; at most %d", option, n, LIST_MAX);
    for (size_t i = 0; i < n; i++)
        if (!node_find(core, names[i]))
            return error_set(err, ERR_USAGE, "%s %.64s: no such node", option, names[i]);
    return 0;
}

static int check_groups(struct core *core, char *const *names, size_t n, struct error *err)
{
    if (n > GROUPS_MAX)
        return error_set(err, ERR_LIMIT, "nodegroup: %zu groups; at most %d", n, GROUPS_MAX);
    for (size_t i = 0; i < n; i++)
        if (!group_find(core, names[i]))
            return error_set(err, ERR_USAGE, "nodegroup %.64s: no such node group", names[i]);
    return 0;
}

static int check_known(const Mu__JobSpec *spec, struct error *err)
{
    if (spec->unit == MU__UNIT_TYPE__UNIT_SOCKET)
        return error_set(err, ERR_USAGE, "numsockets: sockets are not supported; use numcores or numnodes");
    if (spec->unit != MU__UNIT_TYPE__UNIT_CORE && spec->unit != MU__UNIT_TYPE__UNIT_NODE)
        return error_set(err, ERR_USAGE, "unit %d: expected core or node", (int)spec->unit);
    if (spec->type != MU__JOB_TYPE__JOB_BATCH && spec->type != MU__JOB_TYPE__JOB_ADMIN)
        return error_set(err, ERR_USAGE, "job type %d: expected batch or admin", (int)spec->type);
    if (spec->node_group_op != MU__NODE_GROUP_OP__GROUP_INTERSECT)
        return error_set(err, ERR_USAGE, "nodegroupop: only Intersect is supported");
    if (spec->n_depends || spec->rerunnable_off)
        return error_set(err, ERR_USAGE, "depends: not supported in this version");
    return 0;
}

int check_spec(struct core *core, const struct actor *actor, const Mu__JobSpec *spec, struct error *err)
{
    char range[32];
    if (text_check("jobname", spec->name, JOB_NAME_MAX, err) ||
        text_check("projectname", spec->project, JOB_NAME_MAX, err) ||
        text_check("jobtemplate", spec->job_template, JOB_NAME_MAX, err) || check_known(spec, err))
        return -1;
    if (spec->min_units && spec->max_units && spec->min_units > spec->max_units)
        return error_set(err, ERR_USAGE, "%s %s: the minimum is larger than the maximum", unit_option(spec),
                         range_text(spec->min_units, spec->max_units, range, sizeof range));
    if (spec->priority > PRIORITY_MAX)
        return error_set(err, ERR_USAGE, "priority %u: expected 0 to %d", spec->priority, PRIORITY_MAX);
    if (check_groups(core, spec->node_groups, spec->n_node_groups, err) ||
        check_nodes(core, "requestednodes", spec->requested_nodes, spec->n_requested_nodes, err) ||
        check_env("jobenv", spec->env, spec->n_env, err))
        return -1;
    if (spec->type == MU__JOB_TYPE__JOB_ADMIN)
        return actor->admin || !actor->owner
                   ? 0
                   : error_set(err, ERR_DENIED, "only an administrator may run commands on nodes");
    return check_fit(core, spec, err);
}

/* "are registered", "are in AzureNodes and ComputeNodes", "are among the requested nodes" */
static void where(const Mu__JobSpec *spec, struct buf *out)
{
    if (spec->n_node_groups == 0 && spec->n_requested_nodes == 0)
        buf_adds(out, "registered");
    else if (spec->n_node_groups == 0)
        buf_adds(out, "among the requested nodes");
    for (size_t i = 0; i < spec->n_node_groups; i++)
        buf_addf(out, "%s%s", i == 0 ? "in " : " and ", spec->node_groups[i]);
    if (spec->n_node_groups && spec->n_requested_nodes)
        buf_adds(out, " and requested");
}

/* A minimum that no state of the cluster as registered can satisfy is refused at once. */
static int check_count(const Mu__JobSpec *spec, const struct sched_candidates *c, uint32_t min, uint32_t max,
                       struct error *err)
{
    char range[32];
    bool by_node = spec->unit == MU__UNIT_TYPE__UNIT_NODE;
    uint64_t there = by_node ? c->nodes : c->cores;
    if (min <= there && c->nodes > 0)
        return 0;
    struct buf text = BUF_INIT;
    where(spec, &text);
    error_set(err, ERR_USAGE, "%s %s: only %" PRIu64 " %s%s %s %s", unit_option(spec),
              range_text(min, max, range, sizeof range), there, by_node ? "node" : "core",
              there == 1 ? "" : "s", there == 1 ? "is" : "are", buf_str(&text));
    buf_free(&text);
    return -1;
}

void job_candidates(struct core *core, const Mu__JobSpec *spec, struct sched_candidates *out)
{
    sched_candidates(core->sched, spec->node_groups, spec->n_node_groups, spec->requested_nodes,
                     spec->n_requested_nodes, out);
}

int check_fit(struct core *core, const Mu__JobSpec *spec, struct error *err)
{
    struct sched_candidates c;
    job_candidates(core, spec, &c);
    int rc = check_count(spec, &c, spec->min_units ? spec->min_units : 1, spec->max_units, err);
    sched_candidates_end(core->sched, &c);
    return rc;
}

void task_range(const Mu__JobSpec *job, const Mu__TaskSpec *task, bool only, uint32_t *min, uint32_t *max)
{
    *min = task->min_units;
    *max = task->max_units;
    if (only && *min == 0 && *max == 0) {
        *min = job->min_units;
        *max = job->max_units;
    }
    if (*min == 0)
        *min = task->n_required_nodes && task->n_required_nodes <= UINT32_MAX
                   ? (uint32_t)task->n_required_nodes
                   : 1;
    if (*max == 0)
        *max = *min;
}

static int check_required(struct core *core, const Mu__JobSpec *job, const struct sched_candidates *c,
                          const Mu__TaskSpec *task, uint32_t max, struct error *err)
{
    if (check_nodes(core, "requirednodes", task->required_nodes, task->n_required_nodes, err))
        return -1;
    if (job->type == MU__JOB_TYPE__JOB_ADMIN)
        return task->n_required_nodes == 1
                   ? 0
                   : error_set(err, ERR_USAGE,
                               "requirednodes: a command on nodes has one node for each task");
    if (task->n_required_nodes > max)
        return error_set(err, ERR_USAGE, "requirednodes: %zu nodes, but the task gets at most %u %s",
                         task->n_required_nodes, max,
                         job->unit == MU__UNIT_TYPE__UNIT_NODE ? "nodes" : "cores");
    for (size_t i = 0; i < task->n_required_nodes; i++) {
        const char *one = task->required_nodes[i];
        if (!sched_candidates_have(core->sched, c, &node_find(core, one)->s))
            return error_set(err, ERR_USAGE, "requirednodes %s: not one of the nodes that the job may use",
                             one);
    }
    return 0;
}

int check_task(struct core *core, const Mu__JobSpec *job, const struct sched_candidates *c,
               const Mu__TaskSpec *task, struct error *err)
{
    char range[32];
    uint32_t min = task->min_units, max = task->max_units;
    if (!*task->command_line)
        return error_set(err, ERR_USAGE, "command line: expected a command, got nothing");
    if (free_text_check("command line", task->command_line, COMMAND_LINE_MAX, true, err) ||
        text_check("name", task->name, TASK_NAME_MAX, err) ||
        free_text_check("workdir", task->work_dir, PATH_TEXT_MAX, false, err) ||
        free_text_check("stdin", task->stdin_path, PATH_TEXT_MAX, false, err) ||
        free_text_check("stdout", task->stdout_path, PATH_TEXT_MAX, false, err) ||
        free_text_check("stderr", task->stderr_path, PATH_TEXT_MAX, false, err) ||
        check_env("env", task->env, task->n_env, err))
        return -1;
    if (strchr(task->name, ','))
        return error_set(err, ERR_USAGE, "name %s: a comma is not allowed", task->name);
    if (min > max)
        return error_set(err, ERR_USAGE, "%s %s: the minimum is larger than the maximum", unit_option(job),
                         range_text(min, max, range, sizeof range));
    if (job->max_units && min > job->max_units)
        return error_set(err, ERR_USAGE, "%s %s: the job may use at most %u", unit_option(job),
                         range_text(min, max, range, sizeof range), job->max_units);
    if (task->exclusive && !job->exclusive)
        return error_set(err, ERR_USAGE, "exclusive: a task may be exclusive only in an exclusive job");
    if (check_required(core, job, c, task, max, err))
        return -1;
    return job->type == MU__JOB_TYPE__JOB_ADMIN ? 0 : check_count(job, c, min, max, err);
}
