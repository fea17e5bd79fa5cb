/* properties.h - the properties a job or task can be given: one table for options, help and files.
 *
 * Columns: HPC Pack's property name, the command line option, type, default as shown, help.
 * The classic spelling of an option is the same word after '/'. What the option's value may be
 * is in the type; parsing run times and ranges is the command line's work.
 */
#ifndef MUSTER_MODEL_PROPERTIES_H
#define MUSTER_MODEL_PROPERTIES_H

#include <stddef.h>

enum property_type {
    PROP_TEXT,
    PROP_BOOL,
    PROP_INT,
    PROP_RANGE,    /* min[-max] or '*' */
    PROP_PRIORITY, /* 0..4000 or a word */
    PROP_RUNTIME,  /* [[days:]hours:]minutes or Infinite */
    PROP_NODES,    /* comma-separated node names */
    PROP_GROUPS,   /* comma-separated group names */
    PROP_ENV,      /* name=value[;name=value...] */
    PROP_PATH,
};

#define JOB_PROPERTIES(X)                                                                                    \
    X("Name", "jobname", PROP_TEXT, "", "name of the job, at most 80 characters")                            \
    X("Project", "projectname", PROP_TEXT, "", "project it belongs to, at most 80 characters")               \
    X("JobTemplate", "jobtemplate", PROP_TEXT, "Default", "job template")                                    \
    X("NumCores", "numcores", PROP_RANGE, "*", "cores, min[-max]; * takes both from the tasks")              \
    X("NumNodes", "numnodes", PROP_RANGE, "*", "whole nodes, min[-max]; * takes both from the tasks")        \
    X("ExpandedPriority", "priority", PROP_PRIORITY, "Normal", "0 to 4000, or a word such as Normal+10")     \
    X("NodeGroups", "nodegroup", PROP_GROUPS, "", "run on nodes that are in all of these groups")            \
    X("RequestedNodes", "requestednodes", PROP_NODES, "", "run on these nodes only")                         \
    X("IsExclusive", "exclusive", PROP_BOOL, "false", "no other job on the nodes of this one")               \
    X("RuntimeSeconds", "runtime", PROP_RUNTIME, "Infinite", "the job is cancelled when it runs longer")     \
    X("FailOnTaskFailure", "failontaskfailure", PROP_BOOL, "false", "the first failed task fails the job")   \
    X("TaskExecutionFailureRetryLimit", "taskexecutionfailureretrylimit", PROP_INT, "0",                     \
      "runs again of a task that ended with a non-zero exit code")                                           \
    X("EnvironmentVariables", "jobenv", PROP_ENV, "", "variables for every task of the job")

#define TASK_PROPERTIES(X)                                                                                   \
    X("Name", "name", PROP_TEXT, "", "name of the task, at most 80 characters, no comma")                    \
    X("MinCores", "numcores", PROP_RANGE, "1", "cores of the task, min[-max]")                               \
    X("MinNodes", "numnodes", PROP_RANGE, "1", "whole nodes of the task, min[-max]")                         \
    X("WorkDirectory", "workdir", PROP_PATH, "", "folder the task starts in; default: the user's home")      \
    X("StdInFilePath", "stdin", PROP_PATH, "", "file the task reads from")                                   \
    X("StdOutFilePath", "stdout", PROP_PATH, "", "file for its output; default: kept for 'task view'")       \
    X("StdErrFilePath", "stderr", PROP_PATH, "", "file for its errors; default: with the output")            \
    X("EnvironmentVariables", "env", PROP_ENV, "", "variables for this task")                                \
    X("RuntimeSeconds", "runtime", PROP_RUNTIME, "Infinite", "the task is ended when it runs longer")        \
    X("IsRerunnable", "rerunnable", PROP_BOOL, "true", "run it again when its node is lost")                 \
    X("IsExclusive", "exclusive", PROP_BOOL, "false", "no other task of the job on its nodes")               \
    X("RequiredNodes", "requirednodes", PROP_NODES, "", "run on all of these nodes")

struct property {
    const char *name;   /* HPC Pack's */
    const char *option; /* without dashes */
    enum property_type type;
    const char *initial; /* default as shown; "" none */
    const char *help;
};

extern const struct property job_properties[], task_properties[];
extern const size_t job_property_count, task_property_count;

/* By option, without case; NULL when there is none. */
const struct property *job_property(const char *option);
const struct property *task_property(const char *option);
/* "min[-max]", "true|false": what the option's value looks like, for help. */
const char *property_value_form(enum property_type type);

#endif
