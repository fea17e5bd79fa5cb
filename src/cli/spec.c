/* spec.c - the job and task options as tables, their values, and the messages made from them.
 *
 * Every option that HPC Pack's `job submit`, `job new` and `job add` know stands here: those of
 * this version with a reader, the others with a name alone, so that a script that uses them is
 * told so instead of getting a job that is not what it asked for.
 */
#include "cli/spec.h"
#include "base/buf.h"
#include "base/mem.h"
#include "cli/nodeset.h"
#include "model/names.h"
#include "model/priority.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define UNITS_MAX 1000000
#define RETRY_MAX 1000000
#define TASKS_MAX 100000000

/* ---- values ---- */

/* Digits alone, 0..max. The end of them goes to *end. */
static int read_digits(const char *text, uint64_t max, uint64_t *value, const char **end)
{
    if (!isdigit((unsigned char)*text))
        return -1;
    uint64_t n = 0;
    for (; isdigit((unsigned char)*text); text++) {
        n = n * 10 + (uint64_t)(*text - '0');
        if (n > max)
            return -1;
    }
    *value = n;
    *end = text;
    return 0;
}

/* One end of a range: a number from 1, or `*` (0) where a star may stand. */
static int read_bound(const char *text, bool star, uint32_t *value, const char **end)
{
    uint64_t n;
    if (*text == '*' && star) {
        *value = 0;
        *end = text + 1;
        return 0;
    }
    if (read_digits(text, UNITS_MAX, &n, end) || !n)
        return -1;
    *value = (uint32_t)n;
    return 0;
}

static int read_range(struct range *r, const char *value, bool star, struct error *err)
{
    static const char *const expected[] = {"expected MIN[-MAX], numbers from 1, MIN not above MAX",
                                           "expected MIN[-MAX], numbers from 1, MIN not above MAX, or *"};
    const char *end;
    struct range got = {.given = true};
    if (read_bound(value, star, &got.min, &end))
        return error_set(err, ERR_USAGE, "%s", expected[star]);
    got.max = got.min;
    if (*end == '-' && read_bound(end + 1, star, &got.max, &end))
        return error_set(err, ERR_USAGE, "%s", expected[star]);
    if (*end || (got.min && got.max && got.min > got.max))
        return error_set(err, ERR_USAGE, "%s", expected[star]);
    *r = got;
    return 0;
}

static int option_job_range(const struct option *opt, void *field, const char *value, struct error *err)
{
    return read_range(field, value, true, err);
}

static int option_task_range(const struct option *opt, void *field, const char *value, struct error *err)
{
    return read_range(field, value, false, err);
}

/* [[days:]hours:]minutes or Infinite, to seconds; 0 is no limit. */
static int option_runtime(const struct option *opt, void *field, const char *value, struct error *err)
{
    static const char expected[] = "expected [[DAYS:]HOURS:]MINUTES, more than 0 minutes, or Infinite";
    uint64_t part[3], seconds = 0;
    int count = 0;
    const char *p = value;
    if (!strcasecmp(value, "infinite")) {
        *(uint32_t *)field = 0;
        return 0;
    }
    do {
        if (count == 3 || read_digits(p, INT32_MAX, &part[count++], &p))
            return error_set(err, ERR_USAGE, "%s", expected);
    } while (*p == ':' && p++);
    if (*p)
        return error_set(err, ERR_USAGE, "%s", expected);
    static const uint64_t unit[] = {60, 3600, 86400};
    for (int i = 0; i < count; i++)
        seconds += part[i] * unit[count - 1 - i];
    if (!seconds || seconds > INT32_MAX)
        return error_set(err, ERR_USAGE, "%s, at most 2147483647 seconds in all", expected);
    *(uint32_t *)field = (uint32_t)seconds;
    return 0;
}

static int option_priority(const struct option *opt, void *field, const char *value, struct error *err)
{
    struct job_options *o = (struct job_options *)((char *)field - offsetof(struct job_options, priority));
    if (priority_parse(value, &o->priority, NULL))
        return error_set(
            err, ERR_USAGE,
            "expected 0 to 4000, or Lowest, BelowNormal, Normal, AboveNormal, Highest, also with +N or -N");
    o->priority_given = true;
    return 0;
}

static int add_env(struct env_list *env, const char *pair, size_t len, struct error *err)
{
    const char *equal = memchr(pair, '=', len);
    struct error why = {0};
    if (!equal || equal == pair)
        return error_set(err, ERR_USAGE, "expected NAME=VALUE, several separated by ;");
    Mu__Env *e = cli_keep(xcalloc(1, sizeof *e));
    mu__env__init(e);
    e->name = cli_keep(xstrndup(pair, (size_t)(equal - pair)));
    e->value = cli_keep(xstrndup(equal + 1, len - (size_t)(equal - pair) - 1));
    if (env_name_check("variable", e->name, &why))
        return error_set(err, ERR_USAGE, "%s", why.text);
    if (env->count == env->cap) {
        size_t cap = env->cap ? env->cap * 2 : 8;
        Mu__Env **list = cli_keep(xcalloc(cap, sizeof(void *)));
        if (env->count)
            memcpy(list, env->list, env->count * sizeof(void *));
        env->list = list;
        env->cap = cap;
    }
    env->list[env->count++] = e;
    return 0;
}

int option_env(const struct option *opt, void *field, const char *value, struct error *err)
{
    for (const char *p = value;;) {
        size_t n = strcspn(p, ";");
        if (n == 0 && !p[n] && p != value)
            return 0; /* a closing semicolon */
        if (add_env(field, p, n, err))
            return -1;
        if (!p[n])
            return 0;
        p += n + 1;
    }
}

/* Options of which this version has one value only: the others are refused by name. */
static int option_only(const struct option *opt, void *field, const char *value, struct error *err)
{
    if (!strcasecmp(value, opt->value))
        return 0;
    return error_set(err, ERR_USAGE, "expected %s, the only one in this version", opt->value);
}

static int option_path(const struct option *opt, void *field, const char *value, struct error *err)
{
    if (!*value || strlen(value) > PATH_TEXT_MAX)
        return error_set(err, ERR_USAGE, "expected a path of 1 to %d characters", PATH_TEXT_MAX);
    *(const char **)field = value;
    return 0;
}

static int option_rerunnable(const struct option *opt, void *field, const char *value, struct error *err)
{
    bool on = true;
    if (option_flag(opt, &on, value, err))
        return -1;
    *(bool *)field = !on;
    return 0;
}

/* ---- tables ---- */

#define REFUSED(name, value)                                                                                 \
    {                                                                                                        \
        name, NULL, value, NULL, NULL, 0, 0, 0                                                               \
    }
#define JOB(field) offsetof(struct job_options, field)
#define TASK(field) offsetof(struct task_options, field)

const struct option job_option_table[] = {
    {"numnodes", NULL, "MIN[-MAX]", "Whole nodes that the job needs and can use; * takes both from its tasks",
     option_job_range, JOB(nodes), 0, 0},
    {"numcores", "numprocessors", "MIN[-MAX]",
     "Cores that the job needs and can use; * takes both from its tasks", option_job_range, JOB(cores), 0, 0},
    {"nodegroup", NULL, "GROUPS", "Run on nodes that are in all of these groups", option_names,
     JOB(node_groups), 0, GROUPS_MAX},
    {"requestednodes", "askednodes", "NODES", "Run on these nodes only", option_names, JOB(requested_nodes),
     0, 0},
    {"exclusive", NULL, NULL, "No other job on the nodes of this one", option_flag, JOB(exclusive), 0, 0},
    {"priority", NULL, "PRIORITY", "0 to 4000, or a word such as Normal, Highest, Normal+10", option_priority,
     JOB(priority), 0, 0},
    {"runtime", NULL, "[[D:]H:]M", "The job is cancelled when it runs longer; or Infinite", option_runtime,
     JOB(runtime_s), 0, 0},
    {"failontaskfailure", NULL, NULL, "The first failed task fails the job at once", option_flag,
     JOB(fail_on_task_failure), 0, 0},
    {"taskexecutionfailureretrylimit", "taskexecutionretrylimit", "N",
     "How often a task that ended with a non-zero exit code is run again", option_number, JOB(retry_limit), 0,
     RETRY_MAX},
    {"jobname", NULL, "NAME", "Name of the job", option_text, JOB(name), 0, JOB_NAME_MAX},
    {"projectname", NULL, "NAME", "Project that the job belongs to", option_text, JOB(project), 0,
     JOB_NAME_MAX},
    {"jobenv", NULL, "NAME=VALUE[;...]", "Variables for every task; may be repeated; an empty value unsets",
     option_env, JOB(env), 0, 0},
    {"jobtemplate", NULL, "Default", "Job template", option_only, 0, 0, 0},
    {"nodegroupop", NULL, "Intersect", "How several groups combine", option_only, 0, 0, 0},
    REFUSED("numsockets", "RANGE"),
    REFUSED("corespernode", "RANGE"),
    REFUSED("memorypernode", "RANGE"),
    REFUSED("estimatedprocessmemory", "MB"),
    REFUSED("singlenode", NULL),
    REFUSED("orderby", "LIST"),
    REFUSED("rununtilcanceled", NULL),
    REFUSED("faildependenttasks", NULL),
    REFUSED("validexitcodes", "CODES"),
    REFUSED("parentjobids", "IDS"),
    REFUSED("holduntil", "TIME"),
    REFUSED("license", "LIST"),
    REFUSED("customproperties", "LIST"),
    REFUSED("progress", "N"),
    REFUSED("progressmsg", "TEXT"),
    REFUSED("emailaddress", "ADDRESS"),
    REFUSED("notifyonstart", NULL),
    REFUSED("notifyoncompletion", NULL),
    REFUSED("pool", "NAME"),
    REFUSED("user", "NAME"),
    REFUSED("password", "TEXT"),
    REFUSED("jobfile", "FILE"),
    {0},
};

const struct option task_option_table[] = {
    {"name", NULL, "NAME", "Name of the task, without commas", option_text, TASK(name), 0, TASK_NAME_MAX},
    {"workdir", NULL, "DIR", "Folder on the node that it starts in; default: the user's home", option_path,
     TASK(work_dir), 0, 0},
    {"stdin", NULL, "FILE", "File it reads from; relative to the work directory", option_path,
     TASK(stdin_path), 0, 0},
    {"stdout", NULL, "FILE", "File for its output; default: kept for 'muster task view'", option_path,
     TASK(stdout_path), 0, 0},
    {"stderr", NULL, "FILE", "File for its errors; default: with the output", option_path, TASK(stderr_path),
     0, 0},
    {"env", NULL, "NAME=VALUE[;...]", "Variables for this task; may be repeated; an empty value unsets",
     option_env, TASK(env), 0, 0},
    {"requirednodes", NULL, "NODES", "Run on all of these nodes", option_names, TASK(required_nodes), 0, 0},
    {"rerunnable", NULL, NULL, "Run it again when its node is lost, the default; --rerunnable=false does not",
     option_rerunnable, TASK(rerunnable_off), 0, 0},
    {"type", NULL, "Basic", "Type of the task", option_only, 0, 0, 0},
    REFUSED("depend", "NAMES"),
    REFUSED("parametric", "RANGE"),
    REFUSED("validexitcodes", "CODES"),
    REFUSED("taskfile", "FILE"),
    {0},
};

const struct option task_size_table[] = {
    {"numcores", "numprocessors", "MIN[-MAX]", "Cores of the task, when the job counts cores; default 1",
     option_task_range, TASK(cores), 0, 0},
    {"numnodes", NULL, "MIN[-MAX]", "Nodes of the task, when the job counts nodes; default 1",
     option_task_range, TASK(nodes), 0, 0},
    {"runtime", NULL, "[[D:]H:]M", "The task is ended when it runs longer; or Infinite", option_runtime,
     TASK(runtime_s), 0, 0},
    {"exclusive", NULL, NULL, "No other task of the job on its nodes; the job must be exclusive too",
     option_flag, TASK(exclusive), 0, 0},
    REFUSED("numsockets", "RANGE"),
    {0},
};

/* ---- messages ---- */

static void set_words(char ***list, size_t *n, const struct words *w)
{
    *list = w->list;
    *n = w->count;
}

/* Node names may have brackets, node[01-04]; what they stand for is sent. */
static int set_nodes(char ***list, size_t *n, const struct words *given, const char *option,
                     struct error *err)
{
    struct words names = {0};
    for (size_t i = 0; i < given->count; i++)
        if (nodeset_expand(given->list[i], &names, err) ||
            node_name_check("node name", names.list[names.count - 1], err))
            return error_prefix(err, "option %s", option);
    set_words(list, n, &names);
    return 0;
}

static char *text_of(const char *s)
{
    return (char *)(s ? s : "");
}

int spec_job(const struct job_options *o, Mu__JobSpec *spec, struct error *err)
{
    mu__job_spec__init(spec);
    if (o->cores.given && o->nodes.given)
        return error_set(err, ERR_USAGE, "options --numcores and --numnodes: expected one of them");
    if (text_check("option --jobname", text_of(o->name), JOB_NAME_MAX, err) ||
        text_check("option --projectname", text_of(o->project), JOB_NAME_MAX, err))
        return -1;
    const struct range *r = o->nodes.given ? &o->nodes : &o->cores;
    spec->name = text_of(o->name);
    spec->project = text_of(o->project);
    spec->unit = o->nodes.given ? MU__UNIT_TYPE__UNIT_NODE : MU__UNIT_TYPE__UNIT_CORE;
    spec->min_units = r->min;
    spec->max_units = r->max;
    spec->priority = o->priority_given ? o->priority : PRIORITY_NORMAL;
    spec->exclusive = o->exclusive;
    spec->runtime_s = o->runtime_s;
    spec->fail_on_task_failure = o->fail_on_task_failure;
    spec->task_retry_limit = o->retry_limit;
    set_words(&spec->node_groups, &spec->n_node_groups, &o->node_groups);
    if (set_nodes(&spec->requested_nodes, &spec->n_requested_nodes, &o->requested_nodes, "--requestednodes",
                  err))
        return -1;
    spec->env = o->env.list;
    spec->n_env = o->env.count;
    return 0;
}

bool spec_given(const struct job_options *j, const struct task_options *t)
{
    return j->cores.given || j->nodes.given || j->name || j->project || j->priority_given ||
           j->node_groups.count || j->requested_nodes.count || j->exclusive || j->fail_on_task_failure ||
           j->runtime_s || j->retry_limit || j->env.count || t->cores.given || t->nodes.given || t->name ||
           t->work_dir || t->stdin_path || t->stdout_path || t->stderr_path || t->runtime_s || t->exclusive ||
           t->rerunnable_off || t->required_nodes.count || t->env.count;
}

/* A relative folder is meant from where the user stands. */
static char *work_dir(const char *dir)
{
    if (!dir || dir[0] == '/')
        return text_of(dir);
    char *cwd = getcwd(NULL, 0);
    if (!cwd)
        return text_of(dir);
    char *path = !strcmp(dir, ".") ? xstrdup(cwd) : xasprintf("%s/%s", cwd, dir);
    free(cwd);
    return cli_keep(path);
}

int spec_task(const struct task_options *o, const struct words *command, size_t first_word,
              Mu__TaskSpec *spec, struct error *err)
{
    mu__task_spec__init(spec);
    if (o->cores.given && o->nodes.given)
        return error_set(err, ERR_USAGE, "options --numcores and --numnodes: expected one of them");
    if (text_check("option --name", text_of(o->name), TASK_NAME_MAX, err))
        return -1;
    if (o->name && strchr(o->name, ','))
        return error_set(err, ERR_USAGE, "option --name: \"%s\": expected a name without commas",
                         shown(o->name));
    const struct range *r = o->nodes.given ? &o->nodes : &o->cores;
    spec->name = text_of(o->name);
    spec->command_line = command_line(command->list + first_word, command->count - first_word);
    if (strspn(spec->command_line, " \t\n") == strlen(spec->command_line))
        return error_set(err, ERR_USAGE, "the command line is empty: expected a command to run");
    if (strlen(spec->command_line) > COMMAND_LINE_MAX)
        return error_set(err, ERR_USAGE, "the command line has %zu bytes: expected at most %d",
                         strlen(spec->command_line), COMMAND_LINE_MAX);
    spec->work_dir = work_dir(o->work_dir);
    spec->stdin_path = text_of(o->stdin_path);
    spec->stdout_path = text_of(o->stdout_path);
    spec->stderr_path = text_of(o->stderr_path);
    spec->min_units = r->min;
    spec->max_units = r->max;
    spec->runtime_s = o->runtime_s;
    spec->exclusive = o->exclusive;
    spec->not_rerunnable = o->rerunnable_off;
    if (set_nodes(&spec->required_nodes, &spec->n_required_nodes, &o->required_nodes, "--requirednodes", err))
        return -1;
    spec->env = o->env.list;
    spec->n_env = o->env.count;
    return 0;
}

/* Whether a word means the same with and without a shell. */
static bool plain_word(const char *word, bool first)
{
    if (!*word)
        return false;
    for (const char *p = word; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("@+:,./_-", *p) && (*p != '=' || first))
            return false;
    return true;
}

char *command_line(char *const *words, size_t count)
{
    struct buf b = BUF_INIT;
    if (count == 1)
        return words[0];
    buf_adds(&b, "");
    for (size_t i = 0; i < count; i++) {
        if (i)
            buf_addc(&b, ' ');
        if (plain_word(words[i], i == 0)) {
            buf_adds(&b, words[i]);
            continue;
        }
        buf_addc(&b, '\'');
        for (const char *p = words[i]; *p; p++) {
            if (*p == '\'')
                buf_adds(&b, "'\\''");
            else
                buf_addc(&b, *p);
        }
        buf_addc(&b, '\'');
    }
    return cli_keep(buf_detach(&b));
}

/* ---- ids ---- */

int read_job_id(const char *text, uint64_t *job, struct error *err)
{
    const char *end;
    if (read_digits(text, INT64_MAX / 10, job, &end) || *end || !*job)
        return error_set(err, ERR_USAGE, "job id \"%s\": expected a number such as 12", shown(text));
    return 0;
}

int read_task_id(const char *text, uint64_t *job, uint32_t *task, struct error *err)
{
    const char *end;
    uint64_t n = 0;
    if (read_digits(text, INT64_MAX / 10, job, &end) || !*job || *end != '.' ||
        read_digits(end + 1, TASKS_MAX, &n, &end) || !n || (*end && *end != '.'))
        return error_set(err, ERR_USAGE, "task id \"%s\": expected JOB.TASK, such as 12.1", shown(text));
    if (*end)
        return error_set(err, ERR_USAGE, "task id \"%s\": subtasks are not supported in this version",
                         shown(text));
    *task = (uint32_t)n;
    return 0;
}
