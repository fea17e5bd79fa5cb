/* reply.c - rows to replies. Messages are assembled from borrowed pointers and packed at once: the
 * core's rows are valid only until its next command. */
#include "head/reply.h"
#include "base/clock.h"
#include "base/mem.h"
#include "head/held.h"
#include "head/loop.h"
#include "head/nodelink.h"
#include "head/outspool.h"
#include "wire/frame.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <uthash.h>

#define JOBS_MAX 10000 /* in one reply */
#define EVENTS_MAX 1000
#define CORES_MAX 1000000u /* listed one by one, of nodes that are named */
#define OUTPUT_MAX (256u * 1024)
#define REPLY_BYTES_MAX (6u * 1024 * 1024) /* lists stop here and say that there is more */

/* ---- packing ---- */

static void frame_of(Mu__Reply *reply, uint64_t request, uint64_t event, struct buf *out)
{
    struct error err;
    Mu__Frame frame = MU__FRAME__INIT;
    reply->id = request;
    reply->event = event;
    frame.kind_case = MU__FRAME__KIND_REPLY;
    frame.reply = reply;
    if (frame_encode(&frame, out, &err))
        reply_error_frame(request, event, &err, out);
}

void reply_error_frame(uint64_t request, uint64_t event, const struct error *err, struct buf *frame)
{
    Mu__ErrorReply error = MU__ERROR_REPLY__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    error.code = err->code;
    error.text = (char *)err->text;
    reply.error = &error;
    buf_reset(frame);
    frame_of(&reply, request, event, frame);
}

void reply_send(struct session *session, uint64_t request, Mu__Reply *reply)
{
    struct head *h = session->head;
    struct buf frame = BUF_INIT;
    frame_of(reply, request, loop_event(h->loop), &frame);
    held_reply(h->held, session, request, &frame);
}

void reply_error(struct session *session, uint64_t request, const struct error *err)
{
    struct buf frame = BUF_INIT;
    reply_error_frame(request, loop_event(session->head->loop), err, &frame);
    held_reply(session->head->held, session, request, &frame);
}

void reply_empty(struct session *session, uint64_t request)
{
    Mu__Empty empty = MU__EMPTY__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    reply.kind_case = MU__REPLY__KIND_EMPTY;
    reply.empty = &empty;
    reply_send(session, request, &reply);
}

static void no_job(struct session *session, uint64_t request, uint64_t job)
{
    struct error err;
    error_set(&err, ERR_NOT_FOUND, "no job %llu", (unsigned long long)job);
    reply_error(session, request, &err);
}

static void no_task(struct session *session, uint64_t request, uint64_t job, uint32_t task)
{
    struct error err;
    error_set(&err, ERR_NOT_FOUND, "no task %llu.%u", (unsigned long long)job, task);
    reply_error(session, request, &err);
}

/* ---- jobs and tasks ---- */

bool task_over(const Mu__Task *task)
{
    return task->state == MU__TASK_STATE__TASK_STATE_FINISHED ||
           task->state == MU__TASK_STATE__TASK_STATE_FAILED ||
           task->state == MU__TASK_STATE__TASK_STATE_CANCELED;
}

/* A row with its environment left out, made of copies one level deep. */
struct job_view {
    Mu__JobInfo info;
    Mu__Job job;
    Mu__JobSpec spec;
};
struct task_view {
    Mu__Task task;
    Mu__TaskSpec spec;
};

static Mu__JobInfo *view_job(struct session *s, const Mu__Job *job, bool env, struct job_view *v)
{
    mu__job_info__init(&v->info);
    v->job = *job;
    if (job->spec) {
        v->spec = *job->spec;
        if (!env || !session_owns(s, job->owner))
            v->spec.n_env = 0;
        v->job.spec = &v->spec;
    }
    v->info.job = &v->job;
    v->info.pending_reason = (char *)core_pending_reason(s->head->core, job->id, 0);
    return &v->info;
}

static Mu__Task *view_task(struct session *s, const Mu__Job *job, const Mu__Task *task, struct task_view *v)
{
    v->task = *task;
    if (task->spec) {
        v->spec = *task->spec;
        if (!job || !session_owns(s, job->owner))
            v->spec.n_env = 0;
        v->task.spec = &v->spec;
    }
    return &v->task;
}

void reply_job(struct session *session, uint64_t request, uint64_t id, uint32_t first, uint32_t count)
{
    const Mu__Job *job = core_job(session->head->core, id);
    struct job_view view;
    Mu__JobReply body = MU__JOB_REPLY__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    if (!job) {
        no_job(session, request, id);
        return;
    }
    body.info = view_job(session, job, true, &view);
    if (count) {
        body.task_ids = xcalloc(count, sizeof *body.task_ids);
        for (; body.n_task_ids < count; body.n_task_ids++)
            body.task_ids[body.n_task_ids] = first + (uint32_t)body.n_task_ids;
    }
    reply.kind_case = MU__REPLY__KIND_JOB;
    reply.job = &body;
    reply_send(session, request, &reply);
    free(body.task_ids);
}

void reply_task(struct session *session, uint64_t request, uint64_t job_id, uint32_t id)
{
    struct core *core = session->head->core;
    const Mu__Job *job = core_job(core, job_id);
    const Mu__Task *task = core_task(core, job_id, id);
    struct task_view view;
    Mu__TaskReply body = MU__TASK_REPLY__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    if (!job || !task) {
        job ? no_task(session, request, job_id, id) : no_job(session, request, job_id);
        return;
    }
    body.task = view_task(session, job, task, &view);
    body.pending_reason = (char *)core_pending_reason(core, job_id, id);
    body.job_state = job->state;
    reply.kind_case = MU__REPLY__KIND_TASK;
    reply.task = &body;
    reply_send(session, request, &reply);
}

static void add_tasks(struct session *s, const Mu__Job *job, uint32_t after, Mu__JobReply *body)
{
    size_t bytes = 0, cap = 0, pcap = 0;
    struct task_view *views = NULL;
    const Mu__Task *task;
    for (; (task = core_next_task(s->head->core, job->id, after)); after = task->id) {
        if (bytes > REPLY_BYTES_MAX) {
            body->more_tasks = true;
            break;
        }
        views = xgrow(views, &cap, body->n_tasks + 1, sizeof *views);
        bytes += mu__task__get_packed_size(view_task(s, job, task, &views[body->n_tasks++]));
    }
    body->tasks = xgrow(NULL, &pcap, body->n_tasks + 1, sizeof *body->tasks);
    for (size_t i = 0; i < body->n_tasks; i++) {
        if (views[i].task.spec) /* the array has moved while it grew */
            views[i].task.spec = &views[i].spec;
        body->tasks[i] = &views[i].task;
    }
    if (!body->n_tasks)
        free(views);
}

/* Events of "12" and "12.*"; the newest EVENTS_MAX of them. */
static void add_history(struct core *core, uint64_t job, Mu__JobReply *body)
{
    const Mu__Counters *c = core_counters(core);
    char subject[32];
    size_t len = (size_t)snprintf(subject, sizeof subject, "%llu", (unsigned long long)job);
    uint64_t newest = core_job_event(core, job);
    body->history = xcalloc(EVENTS_MAX, sizeof *body->history);
    for (uint64_t seq = newest; seq && seq >= c->first_event && body->n_history < EVENTS_MAX; seq--) {
        const Mu__Event *e = core_event(core, seq);
        if (e && !strncmp(e->subject, subject, len) && (!e->subject[len] || e->subject[len] == '.') &&
            (e->kind == MU__EVENT_KIND__EVENT_JOB || e->kind == MU__EVENT_KIND__EVENT_TASK))
            body->history[body->n_history++] = (Mu__Event *)e;
    }
    for (size_t i = 0, j = body->n_history; i + 1 < j; i++) { /* oldest first */
        Mu__Event *swap = body->history[i];
        body->history[i] = body->history[--j];
        body->history[j] = swap;
    }
}

void reply_job_get(struct session *session, uint64_t request, const Mu__JobGet *get)
{
    struct core *core = session->head->core;
    const Mu__Job *job = core_job(core, get->job_id);
    struct job_view view;
    Mu__JobReply body = MU__JOB_REPLY__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    if (!job) {
        no_job(session, request, get->job_id);
        return;
    }
    body.info = view_job(session, job, true, &view);
    if (get->tasks)
        add_tasks(session, job, get->after_task, &body);
    if (get->history)
        add_history(core, job->id, &body);
    reply.kind_case = MU__REPLY__KIND_JOB;
    reply.job = &body;
    reply_send(session, request, &reply);
    if (body.n_tasks)
        free(body.tasks[0]); /* the first member of the first view: the whole array */
    free(body.tasks);
    free(body.history);
}

static bool job_matches(const struct session *s, const Mu__JobList *list, const Mu__Job *job)
{
    if (list->n_states) {
        bool found = false;
        for (size_t i = 0; i < list->n_states && !found; i++)
            found = list->states[i] == job->state;
        if (!found)
            return false;
    }
    if (list->own && (!job->owner || job->owner->uid != s->owner->uid))
        return false;
    if (*list->owner && (!job->owner || strcmp(list->owner, job->owner->name)))
        return false;
    if (*list->name) {
        const char *name = job->spec ? job->spec->name : "";
        size_t len = strlen(list->name);
        if (list->name[len - 1] == '*' ? strncasecmp(name, list->name, len - 1)
                                       : strcasecmp(name, list->name))
            return false;
    }
    return true;
}

/* Newest first. The total counts every job that matches, not only those of this page. */
void reply_job_list(struct session *session, uint64_t request, const Mu__JobList *list)
{
    struct core *core = session->head->core;
    uint32_t limit = list->limit && list->limit < JOBS_MAX ? list->limit : JOBS_MAX;
    struct job_view *views = xcalloc(limit, sizeof *views);
    Mu__JobListReply body = MU__JOB_LIST_REPLY__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    size_t bytes = 0;
    body.jobs = xcalloc(limit, sizeof *body.jobs);
    for (const Mu__Job *job = core_prev_job(core, 0); job; job = core_prev_job(core, job->id)) {
        if (!job_matches(session, list, job))
            continue;
        body.total++;
        if (list->after_id && job->id >= list->after_id)
            continue;
        if (body.more || body.n_jobs == limit || bytes > REPLY_BYTES_MAX) {
            body.more = true;
            continue;
        }
        bytes += mu__job__get_packed_size(job);
        body.jobs[body.n_jobs] = view_job(session, job, false, &views[body.n_jobs]);
        /* pending_reason is overwritten by the next call */
        views[body.n_jobs].info.pending_reason = xstrdup(views[body.n_jobs].info.pending_reason);
        body.n_jobs++;
    }
    reply.kind_case = MU__REPLY__KIND_JOBS;
    reply.jobs = &body;
    reply_send(session, request, &reply);
    for (size_t i = 0; i < body.n_jobs; i++)
        free(views[i].info.pending_reason);
    free(body.jobs);
    free(views);
}

/* ---- nodes and groups ---- */

/* Which groups each node is in: one pass over the groups instead of one for each node. */
struct membership {
    char node[NODE_NAME_MAX + 1]; /* lower case */
    char **groups;
    size_t count, cap;
    UT_hash_handle hh;
};

static struct membership *membership_find(struct membership *all, const char *node)
{
    struct membership *m;
    char key[NODE_NAME_MAX + 1];
    node_key(node, key);
    HASH_FIND_STR(all, key, m);
    return m;
}

static struct membership *memberships(struct core *core)
{
    struct membership *all = NULL;
    for (const Mu__Group *g = core_next_group(core, NULL); g; g = core_next_group(core, g->name)) {
        for (size_t i = 0; i < g->n_nodes; i++) {
            struct membership *m = membership_find(all, g->nodes[i]);
            if (!m) {
                m = xcalloc(1, sizeof *m);
                node_key(g->nodes[i], m->node);
                HASH_ADD_STR(all, node, m);
            }
            m->groups = xgrow(m->groups, &m->cap, m->count + 1, sizeof *m->groups);
            m->groups[m->count++] = g->name;
        }
    }
    return all;
}

static void memberships_free(struct membership *all)
{
    struct membership *m, *tmp;
    HASH_ITER (hh, all, m, tmp) {
        HASH_DEL(all, m);
        free(m->groups);
        free(m);
    }
}

struct node_view {
    Mu__NodeInfo info;
    Mu__Node node;
    Mu__NodeLoad load;
    Mu__CoreUse *uses;
};

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void view_core_use(struct core *core, const Mu__Node *node, bool cores, struct node_view *v)
{
    size_t count = 0;
    uint64_t *jobs = xcalloc(node->cores + 1, sizeof *jobs);
    if (cores) {
        v->uses = xcalloc(node->cores + 1, sizeof *v->uses);
        v->info.core_use = xcalloc(node->cores + 1, sizeof *v->info.core_use);
        v->info.n_core_use = node->cores;
    }
    for (uint32_t i = 0; i < node->cores; i++) {
        uint64_t attempt = core_core_use(core, node->name, i);
        const Mu__Attempt *a = attempt ? core_attempt(core, attempt) : NULL;
        if (a)
            jobs[count++] = a->job_id;
        if (!cores)
            continue;
        mu__core_use__init(&v->uses[i]);
        v->uses[i].core = i;
        v->uses[i].job_id = a ? a->job_id : 0;
        v->uses[i].task_id = a ? a->task_id : 0;
        v->info.core_use[i] = &v->uses[i];
    }
    qsort(jobs, count, sizeof *jobs, compare_u64);
    for (size_t i = 0; i < count; i++)
        v->info.jobs += i == 0 || jobs[i] != jobs[i - 1];
    free(jobs);
}

/* What tells one installation from another is for administrators. */
static void view_node(struct session *s, const Mu__Node *node, bool cores, struct membership *groups,
                      struct node_view *v)
{
    struct head *h = s->head;
    struct membership *m = membership_find(groups, node->name);
    mu__node_info__init(&v->info);
    mu__node_load__init(&v->load);
    v->node = *node;
    if (!s->admin)
        v->node.install_id = v->node.boot_id = (char *)"";
    v->info.node = &v->node;
    v->info.seen_ms_ago = -1;
    nodelink_load(h->nodelinks, node->name, &v->load, &v->info.seen_ms_ago);
    v->info.load = &v->load;
    v->info.groups = m ? m->groups : NULL;
    v->info.n_groups = m ? m->count : 0;
    v->info.cores_busy = core_node_busy(h->core, node->name);
    v->info.health = (char *)(node->reachable ? "OK" : "Unreachable");
    view_core_use(h->core, node, cores, v);
}

static bool in_group(const Mu__Group *group, const char *node)
{
    for (size_t i = 0; group && i < group->n_nodes; i++)
        if (!strcasecmp(group->nodes[i], node))
            return true;
    return !group;
}

static void send_nodes(struct session *s, uint64_t request, const Mu__Node **nodes, size_t count, bool cores)
{
    Mu__NodeListReply body = MU__NODE_LIST_REPLY__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    struct node_view *views = xcalloc(count + 1, sizeof *views);
    struct membership *groups = memberships(s->head->core);
    body.nodes = xcalloc(count + 1, sizeof *body.nodes);
    for (size_t i = 0; i < count; i++) {
        view_node(s, nodes[i], cores, groups, &views[i]);
        body.nodes[body.n_nodes++] = &views[i].info;
    }
    reply.kind_case = MU__REPLY__KIND_NODES;
    reply.nodes = &body;
    reply_send(s, request, &reply);
    for (size_t i = 0; i < count; i++) {
        free(views[i].uses);
        free(views[i].info.core_use);
    }
    memberships_free(groups);
    free(body.nodes);
    free(views);
}

static void add_node(const Mu__Node ***nodes, size_t *count, size_t *cap, const Mu__Node *node)
{
    *nodes = xgrow(*nodes, cap, *count + 1, sizeof **nodes);
    (*nodes)[(*count)++] = node;
}

void reply_nodes(struct session *session, uint64_t request, const Mu__NodeList *list)
{
    struct core *core = session->head->core;
    const Mu__Group *group = NULL;
    const Mu__Node **nodes = NULL, *node;
    size_t count = 0, cap = 0;
    uint64_t cores = 0;
    struct error err = {0};
    if (list->n_names > LIST_MAX)
        error_set(&err, ERR_LIMIT, "%zu nodes at once: at most %d", list->n_names, LIST_MAX);
    else if (*list->group && !(group = core_group(core, list->group)))
        error_set(&err, ERR_NOT_FOUND, "no node group %s", list->group);
    for (size_t i = 0; !err.code && i < list->n_names; i++) {
        if (!(node = core_node(core, list->names[i])))
            error_set(&err, ERR_NOT_FOUND, "no node %s", list->names[i]);
        else if (in_group(group, node->name) && (!list->state || list->state == node->state))
            add_node(&nodes, &count, &cap, node);
        cores += list->cores && node ? node->cores : 0;
        if (cores > CORES_MAX)
            error_set(&err, ERR_LIMIT, "more than %u cores at once: name fewer nodes", CORES_MAX);
    }
    for (node = list->n_names || err.code ? NULL : core_next_node(core, NULL); node;
         node = core_next_node(core, node->name))
        if (in_group(group, node->name) && (!list->state || list->state == node->state))
            add_node(&nodes, &count, &cap, node);
    if (err.code)
        reply_error(session, request, &err);
    else
        send_nodes(session, request, nodes, count, list->cores);
    free(nodes);
}

void reply_groups(struct session *session, uint64_t request, const char *name)
{
    struct core *core = session->head->core;
    Mu__GroupListReply body = MU__GROUP_LIST_REPLY__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    const Mu__Group *group;
    size_t cap = 0;
    if (*name && !core_group(core, name)) {
        struct error err;
        error_set(&err, ERR_NOT_FOUND, "no node group %s", name);
        reply_error(session, request, &err);
        return;
    }
    for (group = *name ? core_group(core, name) : core_next_group(core, NULL); group;
         group = *name ? NULL : core_next_group(core, group->name)) {
        body.groups = xgrow(body.groups, &cap, body.n_groups + 1, sizeof *body.groups);
        body.groups[body.n_groups++] = (Mu__Group *)group;
    }
    reply.kind_case = MU__REPLY__KIND_GROUPS;
    reply.groups = &body;
    reply_send(session, request, &reply);
    free(body.groups);
}

/* ---- events, output, status ---- */

bool reply_events(struct session *session, uint64_t request, const Mu__EventList *list, bool even_if_none)
{
    struct core *core = session->head->core;
    const Mu__Counters *c = core_counters(core);
    uint32_t limit = list->limit && list->limit < EVENTS_MAX ? list->limit : EVENTS_MAX;
    uint64_t end = loop_event(session->head->loop);
    Mu__EventListReply body = MU__EVENT_LIST_REPLY__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    body.events = xcalloc(limit, sizeof *body.events);
    body.first = c->first_event;
    body.last = end;
    for (uint64_t seq = list->after + 1 > c->first_event ? list->after + 1 : c->first_event;
         seq && seq <= end && body.n_events < limit; seq++) {
        const Mu__Event *e = core_event(core, seq);
        if (e && (!list->kind || list->kind == e->kind) &&
            (!*list->subject || !strcmp(list->subject, e->subject)))
            body.events[body.n_events++] = (Mu__Event *)e;
    }
    bool say = body.n_events || even_if_none || c->first_event > list->after + 1;
    reply.kind_case = MU__REPLY__KIND_EVENTS;
    reply.events = &body;
    if (say)
        reply_send(session, request, &reply);
    free(body.events);
    return say;
}

/* Where output is that the head does not keep, as the node would find it: from the work directory, and that
 * from the home of the account. */
static char *output_elsewhere(const Mu__Task *task)
{
    const Mu__TaskSpec *spec = task->spec;
    if (!spec || !*spec->stdout_path)
        return NULL;
    bool below = spec->stdout_path[0] != '/' && *spec->work_dir;
    bool home = spec->stdout_path[0] != '/' && spec->work_dir[0] != '/';
    return xasprintf("the output is in %s%s%s%s%s%s", below ? spec->work_dir : "", below ? "/" : "",
                     spec->stdout_path, home ? " in the home folder of the task's account" : "",
                     task->n_allocation ? " on node " : "",
                     task->n_allocation ? task->allocation[0]->node : "");
}

bool reply_output(struct session *session, uint64_t request, const Mu__TaskOutput *get, bool even_if_none)
{
    struct head *h = session->head;
    const Mu__Job *job = core_job(h->core, get->job_id);
    const Mu__Task *task = core_task(h->core, get->job_id, get->task_id);
    Mu__OutputReply body = MU__OUTPUT_REPLY__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    struct error err;
    if (!job || !task) {
        job ? no_task(session, request, get->job_id, get->task_id) : no_job(session, request, get->job_id);
        return true;
    }
    if (!session_owns(session, job->owner)) {
        error_set(&err, ERR_DENIED, "only the owner of job %llu or an administrator may read its output",
                  (unsigned long long)job->id);
        reply_error(session, request, &err);
        return true;
    }
    struct buf data = BUF_INIT;
    bool other = get->attempt && get->attempt != task->attempt;
    uint32_t max = get->max && get->max < OUTPUT_MAX ? get->max : OUTPUT_MAX;
    body.attempt = task->attempt;
    body.offset = other ? 0 : get->offset;
    if (outspool_read(h->outspools, task, max, &body.offset, &data, &body.total, &err)) {
        reply_error(session, request, &err);
        buf_free(&data);
        return true;
    }
    body.data.data = (uint8_t *)data.data;
    body.data.len = data.len;
    body.end = task_over(task) && body.offset + data.len >= body.total;
    body.message = output_elsewhere(task);
    if (!body.message && !body.total && task->output_bytes && task_over(task))
        body.message = xstrdup("the output was dropped: there were too many of newer jobs (spool_total_mb)");
    bool say = data.len || body.end || other || even_if_none;
    if (!body.message)
        body.message = xstrdup("");
    reply.kind_case = MU__REPLY__KIND_OUTPUT;
    reply.output = &body;
    if (say)
        reply_send(session, request, &reply);
    free(body.message);
    buf_free(&data);
    return say;
}

void reply_status(struct session *session, uint64_t request)
{
    struct head *h = session->head;
    struct error why = {0};
    struct core_totals t;
    Mu__StatusReply body = MU__STATUS_REPLY__INIT;
    Mu__Reply reply = MU__REPLY__INIT;
    core_totals(h->core, &t);
    body.cluster = h->cluster;
    body.pid = (uint32_t)getpid();
    body.version = (char *)MUSTER_VERSION;
    body.generation = h->generation;
    body.up_ms = loop_up_ms(h->loop);
    body.store_ok = loop_writable(h->loop, &why);
    body.store_error = why.text;
    body.nodes_total = t.nodes;
    body.nodes_online = t.nodes_online;
    body.nodes_unreachable = t.nodes_unreachable;
    body.cores_total = t.cores;
    body.cores_busy = t.cores_busy;
    body.jobs_total = t.jobs;
    body.jobs_queued = (uint32_t)t.jobs_queued;
    body.jobs_running = (uint32_t)t.jobs_running;
    body.listen = h->listen_text;
    body.spool_error = (char *)outspools_error(h->outspools);
    body.rows_set_aside = loop_set_aside(h->loop);
    reply.kind_case = MU__REPLY__KIND_STATUS;
    reply.status = &body;
    reply_send(session, request, &reply);
}
