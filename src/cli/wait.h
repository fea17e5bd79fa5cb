/* wait.h - following a job or a task until it ends, through restarts of the head. */
#ifndef MUSTER_CLI_WAIT_H
#define MUSTER_CLI_WAIT_H

#include "base/buf.h"
#include "cli/context.h"

#include <stdint.h>

/* A wait survives that the head is away for this long. */
#define WAIT_REOPEN_MS 60000

/* Waits for the end of a job, with its progress on stderr where that is a terminal; with `follow_task` (0:
 * none) that task's output goes to stdout as it comes. Ctrl-C leaves the job alone, says how to cancel it,
 * and ends the program with 130. *end: the last reply (client_reply_free()). Returns 0 or -1. */
int wait_job(struct context *ctx, uint64_t job, uint32_t follow_task, Mu__Reply **end, struct error *err);

/* The exit code that a finished wait returns: 0, the job's, or 1 when it has none of its own. */
int job_exit_code(const Mu__Job *job);

/* Copies a task's output to stdout: what there is now, or with `follow` until the task has ended. *bytes (may
 * be NULL) counts what was printed; *note (may be NULL; cli_keep()) says where the output is when the head
 * has none. */
int print_output(struct context *ctx, uint64_t job, uint32_t task, bool follow, uint64_t *bytes,
                 const char **note, struct error *err);

/* The same into memory, for JSON; *dropped counts bytes that the head did not keep. */
int collect_output(struct context *ctx, uint64_t job, uint32_t task, struct buf *out, uint64_t *dropped,
                   const char **note, struct error *err);

#endif
