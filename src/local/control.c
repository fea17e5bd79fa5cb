/* control.c - the other side of muster-local: starts it, stops it, and asks how the cluster is.
 *
 * Starting is muster-local's work; here it is spawned, in a session of its own, and its progress
 * is read from a pipe until it says ready or error. Stopping first goes through the head, so that
 * what is stopped is on record: nodes offline, running jobs cancelled; then muster-local gets
 * SIGTERM, or, where it has died, another one is run only to end what is left.
 */
#include "local/control.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "local/proc.h"
#include "wire/link.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS 120000
#define STOP_MS 60000
#define STOP_TRIES 3 /* of ending what a dead muster-local has left */
#define ASK_MS 5000
#define CANCEL_MS 5000 /* cancelled jobs: patience before force */
#define STOPPED "the cluster was stopped"

static void say(control_progress *progress, void *arg, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void say(control_progress *progress, void *arg, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    if (!progress)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    progress(text, arg);
}

/* ---- muster-local ---- */

static bool supervised(const struct cluster *c)
{
    return file_locked(AT_FDCWD, cluster_path(c, "local.lock"), NULL) == 1;
}

/* DIR/local.json; NULL when there is none. */
static json_t *read_local(const struct cluster *c)
{
    struct buf text = BUF_INIT;
    json_t *root = NULL;
    if (file_read(AT_FDCWD, cluster_path(c, "local.json"), 1 << 20, &text, NULL) == 0)
        root = json_loadb(buf_str(&text), text.len, 0, NULL);
    buf_free(&text);
    return root;
}

static long local_number(const json_t *root, const char *key)
{
    return (long)json_integer_value(json_object_get(root, key));
}

static pid_t supervisor_pid(const struct cluster *c)
{
    json_t *local = supervised(c) ? read_local(c) : NULL;
    pid_t pid = (pid_t)local_number(local, "pid");
    json_decref(local);
    return pid;
}

/* fork and exec of muster-local, away from our terminal. `out` becomes its --ready-fd. */
static pid_t spawn_local(const struct cluster *c, const char *verb, int out, struct error *err)
{
    char program[PATH_MAX + 16], fd_text[16];
    snprintf(program, sizeof program, "%s/muster-local", c->built);
    snprintf(fd_text, sizeof fd_text, "%d", out);
    int log = open(cluster_path(c, "log/local.log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pid_t pid = log < 0 || null < 0 ? -1 : fork();
    if (pid == 0) {
        setsid();
        umask(022);
        dup2(null, 0);
        dup2(log, 1);
        dup2(log, 2);
        /* What the caller's shell has open (a lock, a pipe somebody waits on) is not the cluster's to hold.
         */
        close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
        if (out >= 0)
            fcntl(out, F_SETFD, 0);
        const char *argv[] = {"muster-local", verb, "--dir", c->dir, out >= 0 ? "--ready-fd" : NULL,
                              fd_text,        NULL};
        execv(program, (char *const *)argv);
        if (out >= 0)
            dprintf(out, "error %s: %s\n", program, strerror(errno));
        _exit(127);
    }
    if (pid < 0)
        error_sys(err, "muster-local");
    if (log >= 0)
        close(log);
    if (null >= 0)
        close(null);
    return pid;
}

/* One line of muster-local's. 1: ready, 0: go on, -1: error. */
static int take_line(const char *line, control_progress *progress, void *arg, struct error *err)
{
    if (!strncmp(line, "progress ", 9))
        say(progress, arg, "%s", line + 9);
    else if (!strncmp(line, "error ", 6))
        return error_set(err, ERR_IO, "%s", line + 6);
    return !strncmp(line, "ready", 5);
}

static int read_progress(const struct cluster *c, int fd, control_progress *progress, void *arg,
                         struct error *err)
{
    struct buf text = BUF_INIT;
    int64_t deadline = clock_boot_ms() + START_MS;
    int rc = 0;
    while (rc == 0) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        int64_t left = deadline - clock_boot_ms();
        if (left <= 0 || poll(&pfd, 1, (int)left) == 0) {
            rc = error_set(err, ERR_TIMEOUT, "the cluster did not come up in %d s: see %s", START_MS / 1000,
                           cluster_path(c, "log"));
            break;
        }
        ssize_t n = read(fd, buf_reserve(&text, 4096), 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = error_set(err, ERR_IO, "muster-local has ended: see %s", cluster_path(c, "log/local.log"));
            break;
        }
        buf_added(&text, (size_t)n);
        char *end;
        while (rc == 0 && text.len && (end = memchr(text.data, '\n', text.len))) {
            *end = 0;
            rc = take_line(text.data, progress, arg, err);
            buf_consume(&text, (size_t)(end - text.data) + 1);
        }
    }
    buf_free(&text);
    return rc < 0 ? -1 : 0;
}

static int spawn_and_wait(const struct cluster *c, control_progress *progress, void *arg, struct error *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_sys(err, "pipe");
    pid_t pid = spawn_local(c, "run", fds[1], err);
    close(fds[1]);
    int rc = pid < 0 ? -1 : read_progress(c, fds[0], progress, arg, err);
    close(fds[0]);
    if (rc < 0 && pid > 0) {
        /* It ends by itself after an error, and has cleaned up when it has. */
        int pidfd = pidfd_open(pid, 0);
        struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
        if (pidfd >= 0 && poll(&pfd, 1, STOP_MS) > 0)
            waitpid(pid, NULL, 0);
        if (pidfd >= 0)
            close(pidfd);
    }
    return rc;
}

/* ---- asking the head ---- */

static Mu__Reply *ask(struct client *client, Mu__Request *request, int kind, struct error *err)
{
    Mu__Reply *reply;
    if (client_call(client, request, ASK_MS, &reply, err) < 0)
        return NULL;
    if ((int)reply->kind_case != kind) {
        client_reply_free(reply);
        error_set(err, ERR_PROTOCOL, "the head gave another answer than was asked for");
        return NULL;
    }
    return reply;
}

static Mu__Reply *ask_status(struct client *client, struct error *err)
{
    Mu__StatusRequest status = MU__STATUS_REQUEST__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    request.kind_case = MU__REQUEST__KIND_STATUS;
    request.status = &status;
    return ask(client, &request, MU__REPLY__KIND_STATUS, err);
}

static Mu__Reply *ask_nodes(struct client *client, struct error *err)
{
    Mu__NodeList list = MU__NODE_LIST__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    request.kind_case = MU__REQUEST__KIND_NODE_LIST;
    request.node_list = &list;
    return ask(client, &request, MU__REPLY__KIND_NODES, err);
}

static bool all_reachable(const struct cluster *c)
{
    struct client *client = client_open(cluster_path(c, "head.sock"), ASK_MS, NULL);
    Mu__Reply *reply = client ? ask_status(client, NULL) : NULL;
    bool good = reply && reply->status->nodes_total >= c->nodes && reply->status->nodes_unreachable == 0;
    client_reply_free(reply);
    client_close(client);
    return good;
}

/* ---- start ---- */

/* muster-local is there, but something of the cluster is not: it is told to hurry, then awaited. */
static int wait_mended(const struct cluster *c, struct error *err)
{
    int64_t deadline = clock_boot_ms() + START_MS / 4;
    while (!all_reachable(c)) {
        if (!supervised(c))
            return error_set(err, ERR_IO, "muster-local has ended: see %s", cluster_path(c, "log/local.log"));
        if (clock_boot_ms() > deadline)
            return error_set(err, ERR_TIMEOUT,
                             "the cluster in %s is running, but not all of it answers: see %s", c->dir,
                             cluster_path(c, "log"));
        poll(NULL, 0, 20);
    }
    return 0;
}

int control_start(const struct cluster *c, control_progress *progress, void *arg, bool *was_up,
                  struct error *err)
{
    bool running = supervised(c), whole = running && all_reachable(c);
    if (was_up)
        *was_up = whole;
    if (whole)
        return 0;
    if (!running) {
        int rc = spawn_and_wait(c, progress, arg, err);
        if (rc == 0 || !supervised(c)) /* else another start was faster than this one */
            return rc;
    }
    say(progress, arg, "muster-local is running; waiting for what is being restarted");
    pid_t pid = supervisor_pid(c);
    if (pid > 1)
        kill(pid, SIGHUP);
    return wait_mended(c, err);
}

/* ---- stop ---- */

static int set_all_offline(struct client *client, struct error *err)
{
    Mu__Reply *nodes = ask_nodes(client, err), *reply = NULL;
    if (!nodes)
        return -1;
    Mu__NodeSet set = MU__NODE_SET__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    char **names = calloc(nodes->nodes->n_nodes + 1, sizeof *names);
    for (size_t i = 0; names && i < nodes->nodes->n_nodes; i++)
        if (nodes->nodes->nodes[i]->node->state == MU__NODE_STATE__NODE_STATE_ONLINE)
            names[set.n_names++] = nodes->nodes->nodes[i]->node->name;
    int rc = 0;
    if (set.n_names > 0) {
        set.names = names;
        set.comment = (char *)STOPPED;
        request.kind_case = MU__REQUEST__KIND_NODE_SET;
        request.node_set = &set;
        reply = ask(client, &request, MU__REPLY__KIND_NODES, err);
        rc = reply ? 0 : -1;
        client_reply_free(reply);
    }
    free(names);
    client_reply_free(nodes);
    return rc;
}

static void cancel(struct client *client, uint64_t id, bool force)
{
    Mu__JobCancel one = MU__JOB_CANCEL__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    one.job_id = id;
    one.message = (char *)STOPPED;
    one.force = force;
    request.kind_case = MU__REQUEST__KIND_JOB_CANCEL;
    request.job_cancel = &one;
    client_reply_free(ask(client, &request, MU__REPLY__KIND_JOB, NULL)); /* it may have ended by now */
}

/* The jobs that hold nodes; -1: the head does not say. `cancel_them`: 0 no, 1 yes, 2 without grace. */
static long jobs_active(struct client *client, int cancel_them)
{
    static Mu__JobState states[] = {MU__JOB_STATE__JOB_STATE_RUNNING, MU__JOB_STATE__JOB_STATE_FINISHING,
                                    MU__JOB_STATE__JOB_STATE_CANCELING};
    Mu__JobList list = MU__JOB_LIST__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    list.states = states;
    list.n_states = 3;
    request.kind_case = MU__REQUEST__KIND_JOB_LIST;
    request.job_list = &list;
    Mu__Reply *reply = ask(client, &request, MU__REPLY__KIND_JOBS, NULL);
    if (!reply)
        return -1;
    long count = (long)reply->jobs->n_jobs;
    for (size_t i = 0; i < reply->jobs->n_jobs && cancel_them; i++)
        cancel(client, reply->jobs->jobs[i]->job->id, cancel_them == 2);
    client_reply_free(reply);
    return count;
}

static bool jobs_gone(struct client *client)
{
    int64_t deadline = clock_boot_ms() + CANCEL_MS;
    long n;
    while ((n = jobs_active(client, 0)) > 0 && clock_boot_ms() < deadline)
        poll(NULL, 0, 20);
    return n <= 0;
}

/* Through the head, while it answers. What fails here is only not on record: it is ended all the same. */
static void stop_jobs(const struct cluster *c, control_progress *progress, void *arg)
{
    struct client *client = client_open(cluster_path(c, "head.sock"), ASK_MS, NULL);
    if (!client)
        return;
    if (set_all_offline(client, NULL) == 0) {
        long n = jobs_active(client, 1);
        if (n > 0)
            say(progress, arg, "%ld running job%s cancelled", n, n == 1 ? " is" : "s are");
        if (n > 0 && !jobs_gone(client)) {
            jobs_active(client, 2);
            jobs_gone(client);
        }
    }
    client_close(client);
}

static int wait_ended(int pidfd, struct error *err)
{
    struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
    int n;
    while ((n = poll(&pfd, 1, STOP_MS)) < 0 && errno == EINTR)
        ;
    return n == 1 ? 0 : error_set(err, ERR_TIMEOUT, "muster-local did not end in %d s", STOP_MS / 1000);
}

static bool any_process(const struct cluster *c)
{
    if (proc_peek(c, "head") || proc_peek(c, "network"))
        return true;
    for (uint32_t i = 0; i < c->nodes; i++) {
        char anchor[64];
        snprintf(anchor, sizeof anchor, "%s-anchor", cluster_node_name(c, i));
        if (proc_peek(c, cluster_node_name(c, i)) || proc_peek(c, anchor))
            return true;
    }
    return false;
}

/* Whoever else is ending the cluster at this moment may finish that. */
static int wait_unlocked(const struct cluster *c, struct error *err)
{
    int64_t deadline = clock_boot_ms() + STOP_MS;
    for (; supervised(c); poll(NULL, 0, 20))
        if (clock_boot_ms() > deadline)
            return error_set(err, ERR_TIMEOUT, "muster-local did not end in %d s", STOP_MS / 1000);
    return 0;
}

/* muster-local has died: one is run to end what is left, and waited for. */
static int down_rest(const struct cluster *c, struct error *err)
{
    int status = -1;
    pid_t pid = spawn_local(c, "down", -1, err);
    if (pid < 0)
        return -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return error_set(err, ERR_IO, "the rest of the cluster could not be ended: %s",
                         proc_last_words(c, "local"));
    return 0;
}

int control_stop(const struct cluster *c, control_progress *progress, void *arg, bool *was_up,
                 struct error *err)
{
    if (cluster_check_owner(c, err) < 0)
        return -1;
    pid_t pid = supervisor_pid(c);
    bool up = pid > 1 || any_process(c);
    if (was_up)
        *was_up = up;
    if (!up)
        return 0;
    int pidfd = pid > 1 ? pidfd_open(pid, 0) : -1;
    stop_jobs(c, progress, arg);
    /* The lock is looked at again: were the process another by now, nobody would hold it. */
    if (pidfd >= 0 && supervisor_pid(c) == pid) {
        int rc = pidfd_send_signal(pidfd, SIGTERM, NULL, 0) < 0 && errno != ESRCH
                     ? error_sys(err, "muster-local")
                     : wait_ended(pidfd, err);
        close(pidfd);
        if (rc < 0)
            return -1;
    } else if (pidfd >= 0) {
        close(pidfd);
    }
    int rc = 0;
    for (int i = 0; i < STOP_TRIES && any_process(c); i++) {
        rc = wait_unlocked(c, err);
        if (rc == 0 && any_process(c))
            rc = down_rest(c, err);
        if (rc == 0 || !supervised(c)) /* else another stop was faster, and is waited for */
            break;
    }
    return rc < 0 && any_process(c) ? -1 : 0;
}

/* ---- status ---- */

static const char *node_state_word(const Mu__Node *node)
{
    switch (node->state) {
    case MU__NODE_STATE__NODE_STATE_ONLINE:
        return "Online";
    case MU__NODE_STATE__NODE_STATE_OFFLINE:
        return "Offline";
    case MU__NODE_STATE__NODE_STATE_DRAINING:
        return "Draining";
    default:
        return "Unknown";
    }
}

static const Mu__NodeInfo *find_info(const Mu__Reply *reply, const char *name)
{
    for (size_t i = 0; reply && i < reply->nodes->n_nodes; i++)
        if (!strcasecmp(reply->nodes->nodes[i]->node->name, name))
            return reply->nodes->nodes[i];
    return NULL;
}

static json_t *node_status(const struct cluster *c, bool namespaces, uint32_t i, const Mu__Reply *reply)
{
    const char *name = cluster_node_name(c, i);
    const Mu__NodeInfo *info = find_info(reply, name);
    const char *health = !info ? "Unknown" : info->node->reachable ? "OK" : "Unreachable";
    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:I}", "name", name, "state",
                     info ? node_state_word(info->node) : "Unknown", "health", health, "address",
                     cluster_node_address(c, namespaces, i), "pid", (int)proc_peek(c, name), "cores",
                     (json_int_t)(info ? info->node->cores : c->cores_per_node), "jobs",
                     (json_int_t)(info ? info->jobs : 0));
}

json_t *control_status(const struct cluster *c, struct error *err)
{
    bool run = supervised(c);
    json_t *local = run || proc_peek(c, "head") ? read_local(c) : NULL;
    const char *kind = json_string_value(json_object_get(local, "kind"));
    const char *why = json_string_value(json_object_get(local, "why"));
    const char *address = json_string_value(json_object_get(json_object_get(local, "head"), "address"));
    const char *state = json_string_value(json_object_get(local, "state"));
    bool namespaces = kind ? strcmp(kind, "one host") != 0 : !c->no_namespaces;
    pid_t head_pid = proc_peek(c, "head");

    struct client *client = head_pid ? client_open(cluster_path(c, "head.sock"), ASK_MS, NULL) : NULL;
    Mu__Reply *status = client ? ask_status(client, NULL) : NULL,
              *nodes = client ? ask_nodes(client, NULL) : NULL;
    const Mu__StatusReply *st = status ? status->status : NULL;
    const char *store = !st                  ? "unknown"
                        : st->store_ok       ? (*st->spool_error ? st->spool_error : "ok")
                        : st->store_error[0] ? st->store_error
                                             : "failed";

    json_t *list = json_array();
    for (uint32_t i = 0; i < c->nodes; i++)
        json_array_append_new(list, node_status(c, namespaces, i, nodes));
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:s, s:{s:i, s:s}, s:{s:i, s:s, s:s, s:s, s:s, s:I}, s:o, s:{s:I, s:I}}",
                  "name", c->name, "dir", c->dir, "kind", kind ? kind : "none", "why", why ? why : "",
                  "supervisor", "pid", run ? (int)local_number(local, "pid") : 0, "state",
                  run ? (state ? state : "starting") : "dead", "head", "pid", (int)head_pid, "state",
                  st         ? "running"
                  : head_pid ? "not answering"
                             : "dead",
                  "address", address ? address : "", "version", st ? st->version : "", "store", store,
                  "uptime_ms", (json_int_t)(st ? st->up_ms : 0), "nodes", list, "jobs", "queued",
                  (json_int_t)(st ? st->jobs_queued : 0), "running", (json_int_t)(st ? st->jobs_running : 0));
    client_reply_free(status);
    client_reply_free(nodes);
    client_close(client);
    json_decref(local);
    if (!root)
        error_set(err, ERR_INTERNAL, "the status cannot be put together");
    return root;
}
