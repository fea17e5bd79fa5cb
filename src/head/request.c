/* request.c - what clients may ask, as one table.
 *
 * A handler answers, or returns -1 with an error which becomes the answer. Whether a job is the
 * caller's own is the core's to decide: it gets the caller with each command. */
#include "head/request.h"
#include "base/buf.h"
#include "head/join.h"
#include "head/loop.h"
#include "head/reply.h"
#include "head/waits.h"

#include <string.h>

typedef int handler_fn(struct session *s, const Mu__Request *r, struct error *err);

static int run(struct session *s, struct command *cmd, struct result *result, struct error *err)
{
    cmd->actor.owner = s->owner;
    cmd->actor.admin = s->admin;
    loop_command(s->head->loop, cmd, result);
    if (result->error.code == ERR_NONE)
        return 0;
    *err = result->error;
    return -1;
}

/* ---- changes ---- */

static int on_job_create(struct session *s, const Mu__Request *r, struct error *err)
{
    struct result result;
    if (run(s, &(struct command){.kind = CMD_JOB_CREATE, .job_create = r->job_create}, &result, err))
        return -1;
    loop_answer_later(s->head->loop, ANSWER_JOB, s, r->id, result.job_id, 0, result.first_task,
                      result.task_count);
    return 0;
}

static int on_job_add(struct session *s, const Mu__Request *r, struct error *err)
{
    struct result result;
    if (run(s, &(struct command){.kind = CMD_JOB_ADD, .job_add = r->job_add}, &result, err))
        return -1;
    loop_answer_later(s->head->loop, ANSWER_JOB, s, r->id, r->job_add->job_id, 0, result.first_task,
                      result.task_count);
    return 0;
}

static int job_change(struct session *s, const Mu__Request *r, struct command *cmd, uint64_t job,
                      struct error *err)
{
    struct result result;
    if (run(s, cmd, &result, err))
        return -1;
    loop_answer_later(s->head->loop, ANSWER_JOB, s, r->id, job, 0, 0, 0);
    return 0;
}

static int on_job_submit(struct session *s, const Mu__Request *r, struct error *err)
{
    return job_change(s, r, &(struct command){.kind = CMD_JOB_SUBMIT, .job_submit = r->job_submit},
                      r->job_submit->job_id, err);
}

static int on_job_cancel(struct session *s, const Mu__Request *r, struct error *err)
{
    return job_change(s, r, &(struct command){.kind = CMD_JOB_CANCEL, .job_cancel = r->job_cancel},
                      r->job_cancel->job_id, err);
}

static int on_job_requeue(struct session *s, const Mu__Request *r, struct error *err)
{
    return job_change(s, r, &(struct command){.kind = CMD_JOB_REQUEUE, .job_requeue = r->job_requeue},
                      r->job_requeue->job_id, err);
}

static int task_change(struct session *s, const Mu__Request *r, struct command *cmd, uint64_t job,
                       uint32_t task, struct error *err)
{
    struct result result;
    if (run(s, cmd, &result, err))
        return -1;
    loop_answer_later(s->head->loop, ANSWER_TASK, s, r->id, job, task, 0, 0);
    return 0;
}

static int on_task_cancel(struct session *s, const Mu__Request *r, struct error *err)
{
    return task_change(s, r, &(struct command){.kind = CMD_TASK_CANCEL, .task_cancel = r->task_cancel},
                       r->task_cancel->job_id, r->task_cancel->task_id, err);
}

static int on_task_requeue(struct session *s, const Mu__Request *r, struct error *err)
{
    return task_change(s, r, &(struct command){.kind = CMD_TASK_REQUEUE, .task_requeue = r->task_requeue},
                       r->task_requeue->job_id, r->task_requeue->task_id, err);
}

static int on_node_set(struct session *s, const Mu__Request *r, struct error *err)
{
    struct result result;
    Mu__NodeList list = MU__NODE_LIST__INIT;
    if (run(s, &(struct command){.kind = CMD_NODE_SET, .node_set = r->node_set}, &result, err))
        return -1;
    if (!r->node_set->all) {
        list.names = r->node_set->names;
        list.n_names = r->node_set->n_names;
    }
    reply_nodes(s, r->id, &list);
    return 0;
}

static int on_group_set(struct session *s, const Mu__Request *r, struct error *err)
{
    struct result result;
    if (run(s, &(struct command){.kind = CMD_GROUP_SET, .group_set = r->group_set}, &result, err))
        return -1;
    reply_groups(s, r->id, r->group_set->verb == MU__GROUP_SET__VERB__DELETE ? "" : r->group_set->name);
    return 0;
}

static int on_token_create(struct session *s, const Mu__Request *r, struct error *err)
{
    struct buf text = BUF_INIT;
    Mu__TokenReply body = MU__TOKEN_REPLY__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    int rc = token_create(s->head->joins, r->token_create, &text, &body.expires_wall_ms, err);
    if (rc == 0) {
        body.token = text.data;
        reply.kind_case = MU__REPLY__KIND_TOKEN;
        reply.token = &body;
        reply_send(s, r->id, &reply);
    }
    if (text.data)
        explicit_bzero(text.data, text.len);
    buf_free(&text);
    return rc;
}

static int on_shutdown(struct session *s, const Mu__Request *r, struct error *err)
{
    reply_empty(s, r->id);
    loop_stop(s->head->loop);
    return 0;
}

/* ---- reads ---- */

static int on_status(struct session *s, const Mu__Request *r, struct error *err)
{
    reply_status(s, r->id);
    return 0;
}

static int on_job_get(struct session *s, const Mu__Request *r, struct error *err)
{
    reply_job_get(s, r->id, r->job_get);
    return 0;
}

static int on_job_list(struct session *s, const Mu__Request *r, struct error *err)
{
    reply_job_list(s, r->id, r->job_list);
    return 0;
}

static int on_task_get(struct session *s, const Mu__Request *r, struct error *err)
{
    reply_task(s, r->id, r->task_get->job_id, r->task_get->task_id);
    return 0;
}

static int on_task_output(struct session *s, const Mu__Request *r, struct error *err)
{
    if (r->task_output->wait)
        return waits_add(s->head->waits, s, r, err);
    reply_output(s, r->id, r->task_output, true);
    return 0;
}

static int on_node_list(struct session *s, const Mu__Request *r, struct error *err)
{
    reply_nodes(s, r->id, r->node_list);
    return 0;
}

static int on_group_list(struct session *s, const Mu__Request *r, struct error *err)
{
    reply_groups(s, r->id, r->group_list->name);
    return 0;
}

static int on_event_list(struct session *s, const Mu__Request *r, struct error *err)
{
    if (r->event_list->wait)
        return waits_add(s->head->waits, s, r, err);
    reply_events(s, r->id, r->event_list, true);
    return 0;
}

static int on_job_wait(struct session *s, const Mu__Request *r, struct error *err)
{
    return waits_add(s->head->waits, s, r, err);
}

/* ---- the table ---- */

enum { READ = 0, CHANGE = 1, ADMIN = 2, ALWAYS = 4 };

static const struct request_kind {
    const char *name;
    handler_fn *handle;
    int flags; /* CHANGE: refused while nothing can be stored. ALWAYS: even when nothing can be read. */
} kinds[] = {
    [MU__REQUEST__KIND_STATUS] = {"status", on_status, READ | ALWAYS},
    [MU__REQUEST__KIND_JOB_CREATE] = {"job create", on_job_create, CHANGE},
    [MU__REQUEST__KIND_JOB_ADD] = {"job add", on_job_add, CHANGE},
    [MU__REQUEST__KIND_JOB_SUBMIT] = {"job submit", on_job_submit, CHANGE},
    [MU__REQUEST__KIND_JOB_GET] = {"job get", on_job_get, READ},
    [MU__REQUEST__KIND_JOB_LIST] = {"job list", on_job_list, READ},
    [MU__REQUEST__KIND_JOB_CANCEL] = {"job cancel", on_job_cancel, CHANGE},
    [MU__REQUEST__KIND_JOB_REQUEUE] = {"job requeue", on_job_requeue, CHANGE},
    [MU__REQUEST__KIND_TASK_GET] = {"task get", on_task_get, READ},
    [MU__REQUEST__KIND_TASK_CANCEL] = {"task cancel", on_task_cancel, CHANGE},
    [MU__REQUEST__KIND_TASK_REQUEUE] = {"task requeue", on_task_requeue, CHANGE},
    [MU__REQUEST__KIND_TASK_OUTPUT] = {"task output", on_task_output, READ},
    [MU__REQUEST__KIND_NODE_LIST] = {"node list", on_node_list, READ},
    [MU__REQUEST__KIND_NODE_SET] = {"node set", on_node_set, CHANGE | ADMIN},
    [MU__REQUEST__KIND_GROUP_LIST] = {"group list", on_group_list, READ},
    [MU__REQUEST__KIND_GROUP_SET] = {"group set", on_group_set, CHANGE | ADMIN},
    [MU__REQUEST__KIND_EVENT_LIST] = {"event list", on_event_list, READ},
    [MU__REQUEST__KIND_JOB_WAIT] = {"job wait", on_job_wait, READ},
    [MU__REQUEST__KIND_TOKEN_CREATE] = {"token create", on_token_create, CHANGE | ADMIN},
    [MU__REQUEST__KIND_SHUTDOWN] = {"shutdown", on_shutdown, ADMIN | ALWAYS},
};

static int admit(struct session *s, const Mu__Request *r, struct error *err)
{
    struct loop *loop = s->head->loop;
    const struct request_kind *kind = NULL;
    if ((size_t)r->kind_case < sizeof kinds / sizeof *kinds && kinds[r->kind_case].handle)
        kind = &kinds[r->kind_case];
    if (!kind)
        return error_set(err, ERR_PROTOCOL, "unknown request; the client is newer than this head");
    if ((kind->flags & ADMIN) && !s->admin)
        return error_set(err, ERR_DENIED, "only an administrator may do that");
    if ((kind->flags & CHANGE) && !loop_writable(loop, err))
        return -1;
    if (!(kind->flags & ALWAYS) && !loop_readable(loop, err))
        return -1;
    return 0;
}

void request_handle(struct session *session, const Mu__Request *request)
{
    struct error err = {0};
    loop_turn(session->head->loop);
    if (admit(session, request, &err) || kinds[request->kind_case].handle(session, request, &err))
        reply_error(session, request->id, &err);
}
