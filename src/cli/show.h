/* show.h - jobs, tasks, nodes as text and as JSON, and the calls that fetch them. */
#ifndef MUSTER_CLI_SHOW_H
#define MUSTER_CLI_SHOW_H

#include "cli/context.h"

#include <jansson.h>

/* context_call() for requests that are answered with a job or a task: *reply then has one. */
int call_job(struct context *ctx, Mu__Request *req, Mu__Reply **reply, struct error *err);
int call_task(struct context *ctx, Mu__Request *req, Mu__Reply **reply, struct error *err);
int get_job(struct context *ctx, uint64_t id, bool history, Mu__Reply **reply, struct error *err);
/* Hands every task of a job to `take`, in order; big jobs come in pages. */
int each_task_of(struct context *ctx, uint64_t job, void (*take)(void *arg, const Mu__Task *task), void *arg,
                 struct error *err);

void show_job(const Mu__JobInfo *info, bool detailed);
void show_task(const Mu__Task *task, const char *reason, bool detailed);
void show_history(Mu__Event *const *events, size_t n);
const char *task_exit_text(const Mu__Task *task); /* "3", "signal 9", "" before it has ended */

json_t *job_json(const Mu__JobInfo *info);
json_t *task_json(const Mu__Task *task, const char *reason);
json_t *events_json(Mu__Event *const *events, size_t n);

#endif
