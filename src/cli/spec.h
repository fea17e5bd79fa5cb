/* spec.h - the options that describe a job and a task (HPC Pack's names), and what is sent for them. */
#ifndef MUSTER_CLI_SPEC_H
#define MUSTER_CLI_SPEC_H

#include "cli/options.h"
#include "proto/model.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

/* "min[-max]", where 0 stands for `*`. */
struct range {
    bool given;
    uint32_t min, max;
};
struct env_list {
    Mu__Env **list;
    size_t count, cap;
};

struct job_options {
    struct range cores, nodes;
    const char *name, *project;
    uint32_t priority;
    bool priority_given;
    struct words node_groups, requested_nodes;
    bool exclusive, fail_on_task_failure;
    uint32_t runtime_s; /* 0: no limit */
    uint32_t retry_limit;
    struct env_list env;
};

struct task_options {
    struct range cores, nodes; /* job add only */
    const char *name, *work_dir, *stdin_path, *stdout_path, *stderr_path;
    uint32_t runtime_s;
    bool exclusive, rerunnable_off;
    struct words required_nodes;
    struct env_list env;
};

/* Of struct job_options; with the options that this version refuses by name. */
extern const struct option job_option_table[];
/* Of struct task_options: what does not stand in the job's table too ... */
extern const struct option task_option_table[];
/* ... and what does: for `job add`, where only the task is described. */
extern const struct option task_size_table[];

/* Whether the options ask for anything: /id goes with none of them. */
bool spec_given(const struct job_options *job, const struct task_options *task);

/* The messages point into the options and into argv: freed by the end of the program only. */
int spec_job(const struct job_options *o, Mu__JobSpec *spec, struct error *err);
int spec_task(const struct task_options *o, const struct words *command, size_t first_word,
              Mu__TaskSpec *spec, struct error *err);

/* One word is a command line as it is; several are joined, each quoted for the shell if need be. */
char *command_line(char *const *words, size_t count);

int option_env(const struct option *opt, void *field /* struct env_list */, const char *value,
               struct error *err);

/* "12" and "12.1" */
int read_job_id(const char *text, uint64_t *job, struct error *err);
int read_task_id(const char *text, uint64_t *job, uint32_t *task, struct error *err);

#endif
