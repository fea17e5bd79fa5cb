/* attempts.c - the attempts on this node. See attempts.h.
 *
 *   order --> folder, order file, lock --fsync of attempts/--> keeper --reports--> released --> forgotten
 *
 * Making and deleting files is what a short task's life costs most (keeper_proto.h), so a forgotten
 * attempt's folder is renamed to free.N and serves a later one; the same goes for its cgroup.
 *
 * The folder is the memory: it is durable before the keeper runs, so an attempt that was started is
 * never started again under its number, whatever dies in between. A restarted agent reads the
 * folders; a lock that is held means a keeper, which calls soon and says how it stands; a free lock with a
 * status is over; a free lock without one means that the keeper was killed (or never ran), and then
 * the agent itself ends what is left, by the cgroup or by the mark in the environment.
 *
 * An account, an install id or a folder that do not fit refuse an attempt. What no repetition can
 * cure (the account) is said as the task's failure, not as a refusal that would be tried again. */
#include "node/attempts.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/spool.h"
#include "node/account.h"
#include "node/agent.h"
#include "node/cgroup.h"
#include "node/custody.h"
#include "node/keeper_proto.h"
#include "node/keeper_start.h"
#include "proto/step.pb-c.h"
#include "wire/openssl.h"
#include "wire/tls.h"

#include <bsd/sys/queue.h>
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uthash.h>

_Static_assert((int)KEEPER_REFUSED == (int)MU__ATTEMPT_PHASE__PHASE_REFUSED &&
                   (int)KEEPER_PREPARED == (int)MU__ATTEMPT_PHASE__PHASE_PREPARED &&
                   (int)KEEPER_RUNNING == (int)MU__ATTEMPT_PHASE__PHASE_RUNNING &&
                   (int)KEEPER_ENDED == (int)MU__ATTEMPT_PHASE__PHASE_ENDED &&
                   (int)KEEPER_RELEASED == (int)MU__ATTEMPT_PHASE__PHASE_RELEASED,
               "phases travel as numbers");
_Static_assert((int)KEEPER_FAIL_EXIT == (int)MU__TASK_FAILURE__FAIL_EXIT &&
                   (int)KEEPER_FAIL_SYSTEM == (int)MU__TASK_FAILURE__FAIL_SYSTEM &&
                   (int)KEEPER_FAIL_CANCEL == (int)MU__TASK_FAILURE__FAIL_CANCEL &&
                   (int)KEEPER_FAIL_TIMEOUT == (int)MU__TASK_FAILURE__FAIL_TIMEOUT &&
                   (int)KEEPER_FAIL_SETUP == (int)MU__TASK_FAILURE__FAIL_SETUP,
               "failures travel as numbers");

#define CHUNK_MAX 65536
#define SWEEP_MS 50
#define FREE_MAX 64 /* folders and cgroups kept for later attempts */
#define CALLERS_MAX 4096

struct attempt {
    uint64_t id;
    struct attempts *all;
    char name[24];   /* of its folder */
    char cgroup[24]; /* of its cgroup; empty: none */
    bool first;    /* this node runs the task */
    bool folder;   /* it has one */
    bool alive;    /* a keeper, or what a dead one left */
    bool swept;    /* its cgroup was killed from here */
    bool starting; /* folder made, keeper to be spawned at the end of this turn */
    int order, context; /* while starting */
    uid_t uid;
    uint8_t route[ROUTE_LEN];
    bool has_route;
    uint32_t lease_ms;
    int64_t renewed_ms;
    int control;
    struct event *readable;
    struct event *sweep; /* timer while something of a dead keeper may live */
    char *end_order;     /* for a keeper that we have no connection to so far */
    struct report report;
    bool dirty, streams; /* in the lists below */
    struct spool spool;
    uint64_t sent, credit; /* offsets: sent so far, may be sent up to */
    TAILQ_ENTRY(attempt) next_dirty, next_stream, next_start;
    UT_hash_handle hh;
};
TAILQ_HEAD(attempt_list, attempt);

/* Names PREFIX.N that exist and serve nobody. */
struct pool {
    char names[FREE_MAX][24];
    unsigned count, last; /* last: greatest N given */
};

/* A keeper that has called and not said so far whose it is. */
struct caller {
    struct attempts *all;
    int fd;
    struct event *event;
    TAILQ_ENTRY(caller) next;
};
TAILQ_HEAD(callers, caller);

struct attempts {
    struct agent *agent;
    struct attempt *by_id;
    struct attempt_list dirty, streams, starts;
    int folder; /* DIR/attempts */
    int cgroup; /* parent of the attempts' cgroups, -1: none here */
    char cgroup_name[96];
    struct pool folders, cgroups; /* not in use */
    int listening; /* agent.sock */
    struct event *calls;
    struct callers callers;
};

static void on_control(evutil_socket_t fd, short what, void *arg);
static void on_sweep(evutil_socket_t fd, short what, void *arg);

/* ---- the table ---- */

static struct attempt *find(struct attempts *all, uint64_t id)
{
    struct attempt *a;
    HASH_FIND(hh, all->by_id, &id, sizeof id, a);
    return a;
}

static struct attempt *add(struct attempts *all, uint64_t id)
{
    struct attempt *a = xcalloc(1, sizeof *a);
    a->id = id;
    a->all = all;
    a->control = a->order = a->context = a->spool.fd = -1;
    snprintf(a->name, sizeof a->name, "%llu", (unsigned long long)id);
    HASH_ADD(hh, all->by_id, id, sizeof a->id, a);
    return a;
}

static void say(struct attempt *a)
{
    if (!a->dirty) {
        a->dirty = true;
        TAILQ_INSERT_TAIL(&a->all->dirty, a, next_dirty);
    }
    agent_soon(a->all->agent);
}

static void stream(struct attempt *a)
{
    if (a->streams || a->sent >= a->credit || a->sent >= a->report.output_total)
        return;
    a->streams = true;
    TAILQ_INSERT_TAIL(&a->all->streams, a, next_stream);
    agent_soon(a->all->agent);
}

static void stop_streaming(struct attempt *a)
{
    if (a->streams)
        TAILQ_REMOVE(&a->all->streams, a, next_stream);
    a->streams = false;
}

static void close_control(struct attempt *a)
{
    if (a->readable)
        event_free(a->readable);
    a->readable = NULL;
    if (a->control >= 0)
        close(a->control);
    a->control = -1;
}

static void close_starting(struct attempt *a)
{
    if (a->starting)
        TAILQ_REMOVE(&a->all->starts, a, next_start);
    a->starting = false;
    if (a->order >= 0)
        close(a->order);
    if (a->context >= 0)
        close(a->context);
    a->order = a->context = -1;
}

static void drop(struct attempt *a)
{
    close_control(a);
    close_starting(a);
    stop_streaming(a);
    if (a->dirty)
        TAILQ_REMOVE(&a->all->dirty, a, next_dirty);
    if (a->sweep)
        event_free(a->sweep);
    spool_close(&a->spool);
    free(a->end_order);
    HASH_DEL(a->all->by_id, a);
    free(a);
}

static void pool_put(struct pool *pool, const char *name)
{
    snprintf(pool->names[pool->count++], sizeof pool->names[0], "%s", name);
}

static void pool_seen(struct pool *pool, const char *name)
{
    unsigned number = (unsigned)strtoul(strchr(name, '.') + 1, NULL, 10);
    if (number > pool->last)
        pool->last = number;
}

/* It has been seen empty (by the keeper, or by a sweep). One with groups of MPI steps in it (a folder
 * with more than two links) or one that was killed (cgroup.h) does not serve again. */
static void cgroup_free(struct attempt *a)
{
    struct attempts *all = a->all;
    struct stat st;
    if (!a->cgroup[0])
        return;
    if (!a->report.killed && all->cgroups.count < FREE_MAX && fstatat(all->cgroup, a->cgroup, &st, 0) == 0 && st.st_nlink == 2)
        pool_put(&all->cgroups, a->cgroup);
    else if (custody_cgroup_remove(all->cgroup, a->cgroup))
        return; /* busy for a moment: tried again when the attempt is forgotten */
    a->cgroup[0] = 0;
}

/* Gives the attempt a cgroup: its name, empty where there is none to be had. */
static void cgroup_take(struct attempt *a)
{
    struct attempts *all = a->all;
    if (all->cgroup < 0)
        return;
    if (all->cgroups.count) {
        snprintf(a->cgroup, sizeof a->cgroup, "%s", all->cgroups.names[--all->cgroups.count]);
        return;
    }
    snprintf(a->cgroup, sizeof a->cgroup, "a.%u", ++all->cgroups.last);
    if (mkdirat(all->cgroup, a->cgroup, 0755)) {
        log_warn("attempt %s: cannot make a cgroup: %s", a->name, strerror(errno));
        a->cgroup[0] = 0;
    }
}

/* The attempt is over, one way or the other: nothing of it lives. */
static void over(struct attempt *a, const struct report *report)
{
    uint64_t printed = a->report.output_total;
    a->alive = false;
    a->report = *report;
    if (a->report.output_total < printed)
        a->report.output_total = printed;
    close_control(a);
    cgroup_free(a);
    stream(a);
    say(a);
}

static void over_because(struct attempt *a, int phase, int failure, const char *text)
{
    struct report r = {.phase = phase, .failure = failure, .killed = a->swept, .has_result = a->first && phase == KEEPER_RELEASED};
    if (r.has_result)
        r.exit_code = failure == KEEPER_FAIL_SETUP ? 126 : 137;
    snprintf(r.message, sizeof r.message, "%s", text);
    over(a, &r);
}

/* ---- what a dead keeper left ---- */

static void write_status(struct attempt *a, const struct report *report)
{
    char path[64], text[KEEPER_STATUS_LEN];
    struct report r = *report;
    r.attempt = a->id;
    snprintf(path, sizeof path, "%s/status", a->name);
    memset(text, '\n', sizeof text);
    size_t len = report_format(&r, text, sizeof text);
    text[len] = '\n';
    int fd = openat(a->all->folder, path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || pwrite(fd, text, sizeof text, 0) != (ssize_t)sizeof text)
        log_error("attempt %s: cannot write its status: %s", a->name, strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* A status with another number is left from the folder's last use. */
static bool read_status(struct attempt *a, struct report *r)
{
    char path[64];
    struct buf text = BUF_INIT;
    struct error err;
    snprintf(path, sizeof path, "%s/status", a->name);
    bool good = a->folder && file_read(a->all->folder, path, KEEPER_STATUS_LEN, &text, NULL) == 0;
    if (good && report_parse(r, buf_str(&text), text.len, &err)) {
        log_error("attempt %s: status: %s", a->name, err.text);
        good = false;
    }
    buf_free(&text);
    return good && r->attempt == a->id;
}

/* True: something was there (and has been told to die). */
static bool kill_left(struct attempt *a)
{
    char mark[160];
    struct attempts *all = a->all;
    int cgroup = a->cgroup[0]
                     ? openat(all->cgroup, a->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                     : -1;
    if (cgroup >= 0) {
        int events = openat(cgroup, "cgroup.events", O_RDONLY | O_CLOEXEC);
        bool lives = custody_cgroup_populated(events) == 1;
        if (lives) {
            a->swept = true;
            custody_cgroup_kill(cgroup);
        }
        if (events >= 0)
            close(events);
        close(cgroup);
        return lives;
    }
    snprintf(mark, sizeof mark, "MUSTER_ATTEMPT=%s.%s", all->agent->install_id, a->name);
    return custody_kill_marked(a->uid, mark) > 0;
}

static void remove_run_dir(struct attempt *a)
{
    char path[PATH_MAX];
    struct error err;
    snprintf(path, sizeof path, "%s/%s", a->all->agent->config.run_dir, a->name);
    if (file_remove_tree(AT_FDCWD, path, &err))
        log_warn("attempt %s: %s", a->name, err.text);
}

static void sweep_later(struct attempt *a)
{
    struct timeval tv = {.tv_usec = SWEEP_MS * 1000};
    if (!a->sweep)
        a->sweep = evtimer_new(a->all->agent->base, on_sweep, a);
    if (a->sweep)
        evtimer_add(a->sweep, &tv);
}

/* What the task printed before is in the spool: the keeper can no longer say how much. */
static void count_output(struct attempt *a)
{
    char path[64];
    struct spool s;
    snprintf(path, sizeof path, "%s/out", a->name);
    if (spool_open_read(&s, a->all->folder, path, NULL) == 0) {
        a->report.output_total = s.total;
        spool_close(&s);
    }
}

static void sweep(struct attempt *a)
{
    char text[160];
    a->alive = true;
    if (kill_left(a)) {
        sweep_later(a);
        return;
    }
    remove_run_dir(a);
    count_output(a);
    snprintf(text, sizeof text, "%.64s: the keeper of this attempt was killed", a->all->agent->config.name);
    over_because(a, KEEPER_RELEASED, KEEPER_FAIL_SYSTEM, text);
    write_status(a, &a->report);
    log_warn("attempt %s: its keeper was killed; what it left has been ended", a->name);
}

/* ---- keepers ---- */

static bool locked(struct attempt *a)
{
    char path[64];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/order", a->name);
    int held = file_locked(a->all->folder, path, &err);
    if (held < 0 && err.code != ERR_NOT_FOUND)
        log_error("attempt %s: %s", a->name, err.text);
    return held == 1;
}

static void keeper_gone(struct attempt *a)
{
    struct report r;
    close_control(a);
    if (read_status(a, &r))
        over(a, &r);
    else if (locked(a)) /* it is still ending, or it lives and will call */
        sweep_later(a);
    else
        sweep(a);
}

static void tell(struct attempt *a, const char *text)
{
    if (a->control >= 0 && send(a->control, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log_warn("attempt %s: its keeper was not told \"%.20s\": %s", a->name, text, strerror(errno));
}

static void take_report(struct attempt *a, const struct report *r)
{
    bool news = r->phase != a->report.phase;
    if (r->phase == KEEPER_RELEASED || r->phase == KEEPER_REFUSED) {
        over(a, r);
        return;
    }
    a->report = *r;
    stream(a);
    if (news)
        say(a);
}

static void on_control(evutil_socket_t fd, short what, void *arg)
{
    struct attempt *a = arg;
    char text[KEEPER_PACKET_MAX];
    for (int turn = 0; turn < 16 && a->control >= 0; turn++) {
        struct report r;
        struct error err;
        ssize_t n = recv(a->control, text, sizeof text, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            keeper_gone(a);
            return;
        }
        if (report_parse(&r, text, (size_t)n, &err))
            log_error("attempt %s: %s", a->name, err.text);
        else
            take_report(a, &r);
    }
}

static void watch(struct attempt *a, int control)
{
    a->control = control;
    a->alive = true;
    a->readable = event_new(a->all->agent->base, control, EV_READ | EV_PERSIST, on_control, a);
    if (!a->readable || event_add(a->readable, NULL))
        log_error("attempt %s: cannot watch its keeper", a->name);
    if (a->end_order)
        tell(a, a->end_order);
}

/* Looks at an attempt whose keeper is not connected: it is over, or left for dead, or it will call. */
static void look(struct attempt *a)
{
    struct report r;
    if (read_status(a, &r)) {
        over(a, &r);
    } else if (locked(a)) {
        sweep_later(a);
    } else if (read_status(a, &r)) { /* written between the two looks */
        over(a, &r);
    } else {
        sweep(a);
    }
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct attempt *a = arg;
    if (a->control < 0 && a->alive)
        look(a);
}

static void caller_free(struct caller *c, bool hang_up)
{
    TAILQ_REMOVE(&c->all->callers, c, next);
    if (c->event)
        event_free(c->event);
    if (hang_up)
        close(c->fd);
    free(c);
}

/* Its first packet is a report, which says whose keeper it is. */
static void on_caller(evutil_socket_t fd, short what, void *arg)
{
    struct caller *c = arg;
    char text[KEEPER_PACKET_MAX];
    struct report r;
    struct error err;
    ssize_t n = recv(fd, text, sizeof text, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    struct attempt *a = n > 0 && report_parse(&r, text, (size_t)n, &err) == 0 ? find(c->all, r.attempt) : NULL;
    bool good = a && a->alive && a->control < 0;
    caller_free(c, !good);
    if (!good)
        return;
    watch(a, fd);
    take_report(a, &r);
}

static void on_call(evutil_socket_t listening, short what, void *arg)
{
    struct attempts *all = arg;
    struct ucred who;
    socklen_t len = sizeof who;
    int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) || who.uid != geteuid()) {
        close(fd);
        return;
    }
    struct caller *c = xcalloc(1, sizeof *c);
    c->all = all;
    c->fd = fd;
    TAILQ_INSERT_TAIL(&all->callers, c, next);
    c->event = event_new(all->agent->base, fd, EV_READ | EV_PERSIST, on_caller, c);
    if (!c->event || event_add(c->event, NULL))
        caller_free(c, true);
}

/* The path goes by the descriptor: the folder's own may be longer than a socket address. */
static int listen_for_keepers(struct attempts *all, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int dir = all->agent->dir;
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/" AGENT_SOCKET, dir);
    unlinkat(dir, AGENT_SOCKET, 0);
    all->listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (all->listening < 0 || bind(all->listening, (struct sockaddr *)&address, sizeof address) ||
        listen(all->listening, CALLERS_MAX))
        return error_sys(err, "cannot listen at " AGENT_SOCKET);
    all->calls = event_new(all->agent->base, all->listening, EV_READ | EV_PERSIST, on_call, all);
    if (!all->calls || event_add(all->calls, NULL))
        return error_set(err, ERR_INTERNAL, "cannot watch " AGENT_SOCKET);
    return 0;
}

/* ---- preparing ---- */

static void put_env(struct order *o, const char *name, const char *value)
{
    char *line = xasprintf("%s=%s", name, value);
    order_push(&o->env, line);
    free(line);
}

static void order_fill(struct attempt *a, struct order *o, const Mu__PrepareOrder *p, const struct account *who)
{
    const struct agent *agent = a->all->agent;
    const struct node_config *c = &agent->config;
    char text[PATH_MAX];
    o->attempt = p->attempt;
    o->uid = who->uid;
    o->gid = who->gid;
    o->index = p->my_index;
    o->go = p->go && p->my_index == 0;
    o->runtime_s = p->runtime_s;
    o->grace_ms = p->grace_ms;
    o->lease_ms = p->lease_ms;
    order_set(&o->install_id, agent->install_id);
    order_set(&o->node, c->name);
    order_set(&o->home, who->home);
    order_set(&o->home_fallback, c->home_fallback);
    order_set(&o->command, p->command_line);
    order_set(&o->work_dir, p->work_dir);
    order_set(&o->stdin_path, p->stdin_path);
    order_set(&o->stdout_path, p->stdout_path);
    order_set(&o->stderr_path, p->stderr_path);
    snprintf(text, sizeof text, "%s/%s", c->run_dir, a->name);
    order_set(&o->run_dir, text);
    snprintf(text, sizeof text, "%s/muster-step", c->bin);
    order_set(&o->step_program, text);
    order_set(&o->cgroup, a->cgroup);
    if (a->has_route) {
        char hex[2 * ROUTE_LEN + 1];
        hex_encode(a->route, ROUTE_LEN, hex);
        order_set(&o->route, hex);
    }
    put_env(o, "PATH", c->path);
    put_env(o, "LANG", "C.UTF-8");
    put_env(o, "USER", who->name);
    put_env(o, "LOGNAME", who->name);
    put_env(o, "SHELL", who->shell);
    for (size_t i = 0; i < c->env_count; i++)
        put_env(o, c->env[i].name, c->env[i].value);
    for (size_t i = 0; i < p->n_env; i++)
        put_env(o, p->env[i]->name, p->env[i]->value);
    for (size_t i = 0; i < who->group_count; i++) {
        snprintf(text, sizeof text, "%u", who->groups[i]);
        order_push(&o->group, text);
    }
    if (c->virtual_cores || p->admin || p->my_index >= p->n_nodes)
        return;
    const Mu__PeerNode *me = p->nodes[p->my_index];
    for (size_t i = 0; i < me->n_cores; i++)
        if (me->cores[i] < agent->inventory.cpu_count) {
            snprintf(text, sizeof text, "%d", agent->inventory.cpus[me->cores[i]]);
            order_push(&o->cpu, text);
        }
}

static int make_context(struct attempt *a, const Mu__PrepareOrder *p, struct error *err)
{
    const struct agent *agent = a->all->agent;
    Mu__StepContext c = MU__STEP_CONTEXT__INIT;
    char run_dir[PATH_MAX];
    snprintf(run_dir, sizeof run_dir, "%s/%s", agent->config.run_dir, a->name);
    c.attempt = p->attempt;
    c.job_id = p->job_id;
    c.task_id = p->task_id;
    c.nodes = p->nodes;
    c.n_nodes = p->n_nodes;
    c.my_index = p->my_index;
    c.psk = p->psk;
    c.run_dir = run_dir;
    c.hwloc_xml = agent->topology;
    c.cluster = (char *)agent->cluster;
    c.interface = agent->config.interface;
    size_t len = mu__step_context__get_packed_size(&c);
    uint8_t *packed = xmalloc(len);
    mu__step_context__pack(&c, packed);
    a->context = keeper_memfd("muster-context", packed, len, err);
    explicit_bzero(packed, len); /* the key in it is on no disk, and not to stay in memory either */
    free(packed);
    return a->context < 0 ? -1 : 0;
}

/* One that served an earlier attempt, if there is one. */
static int take_folder(struct attempt *a, struct error *err)
{
    struct attempts *all = a->all;
    while (all->folders.count) {
        const char *free_one = all->folders.names[--all->folders.count];
        if (renameat2(all->folder, free_one, all->folder, a->name, RENAME_NOREPLACE) == 0)
            return 0;
        if (errno == EEXIST)
            break;
        log_warn("attempts/%s: %s", free_one, strerror(errno));
    }
    return mkdirat(all->folder, a->name, 0700) ? error_sys(err, "cannot make folder attempts/%s", a->name) : 0;
}

static int open_order(struct attempt *a, struct error *err)
{
    char path[64];
    snprintf(path, sizeof path, "%s/order", a->name);
    a->order = openat(a->all->folder, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (a->order < 0)
        return error_sys(err, "cannot create attempts/%s", path);
    if (flock(a->order, LOCK_EX | LOCK_NB) == 0)
        return 0;
    error_sys(err, "cannot lock attempts/%s", path);
    close(a->order);
    a->order = -1;
    return -1;
}

static int make_folder(struct attempt *a, const struct order *o, struct error *err)
{
    struct buf text = BUF_INIT;
    if (take_folder(a, err))
        return -1;
    a->folder = true;
    if (open_order(a, NULL)) { /* its last keeper is not quite gone: take a new one */
        if (file_remove_tree(a->all->folder, a->name, err))
            return -1;
        if (mkdirat(a->all->folder, a->name, 0700))
            return error_sys(err, "cannot make folder attempts/%s", a->name);
        if (open_order(a, err))
            return -1;
    }
    order_encode(o, &text);
    ssize_t n = pwrite(a->order, text.data, text.len, 0);
    size_t len = text.len;
    buf_free(&text);
    if (n != (ssize_t)len)
        return error_sys(err, "cannot write attempts/%s/order", a->name);
    return 0;
}

static void prepare(struct attempt *a, const Mu__PrepareOrder *p)
{
    struct agent *agent = a->all->agent;
    struct account who;
    struct order o = {0};
    struct error err = {0};
    char text[512];
    int64_t lease = agent->lease_from_ms + p->lease_ms - clock_boot_ms();
    a->first = p->my_index == 0;
    a->lease_ms = p->lease_ms;
    if (strcmp(p->install_id, agent->install_id)) {
        snprintf(text, sizeof text, "%.64s: the order is for another installation of this node", agent->config.name);
        over_because(a, KEEPER_REFUSED, KEEPER_FAIL_SYSTEM, text);
        return;
    }
    if (!p->owner || p->my_index >= p->n_nodes || (p->lease_ms && lease <= 0)) {
        snprintf(text, sizeof text, "%.64s: the order is %s", agent->config.name,
                 p->lease_ms && lease <= 0 ? "too old" : "not complete");
        over_because(a, KEEPER_REFUSED, KEEPER_FAIL_SYSTEM, text);
        return;
    }
    if (account_resolve(&agent->config, p->owner, &who, &err)) {
        /* To try again would not help: the task fails with the reason. Only the first node can say so. */
        over_because(a, a->first ? KEEPER_RELEASED : KEEPER_REFUSED, KEEPER_FAIL_SETUP, err.text);
        return;
    }
    a->uid = who.uid;
    const Mu__PeerNode *me = p->nodes[p->my_index];
    a->has_route = me->route.len == ROUTE_LEN;
    if (a->has_route)
        memcpy(a->route, me->route.data, ROUTE_LEN);
    cgroup_take(a);
    order_fill(a, &o, p, &who);
    if (p->lease_ms)
        o.lease_ms = (uint64_t)lease;
    if (make_folder(a, &o, &err) || (p->psk.len && make_context(a, p, &err))) {
        snprintf(text, sizeof text, "%.64s: %.400s", agent->config.name, err.text);
        log_error("attempt %s: %s", a->name, err.text);
        close_starting(a);
        over_because(a, KEEPER_REFUSED, KEEPER_FAIL_SYSTEM, text);
    } else {
        a->starting = a->alive = true;
        TAILQ_INSERT_TAIL(&a->all->starts, a, next_start);
        agent_soon(agent);
    }
    order_release(&o);
}

void attempts_prepare(struct attempts *all, const Mu__PrepareOrder *order)
{
    struct attempt *a = find(all, order->attempt);
    if (a) { /* repeated: never a second time, but say how it stands */
        if (a->report.phase)
            say(a);
        return;
    }
    prepare(add(all, order->attempt), order);
}

static void spawn(struct attempt *a)
{
    struct attempts *all = a->all;
    struct error err;
    char text[512], program[PATH_MAX];
    snprintf(program, sizeof program, "%s/muster-keeper", all->agent->config.bin);
    struct keeper_start start = {.program = program,
                                 .order = a->order,
                                 .node = all->agent->dir,
                                 .context = a->context,
                                 .cgroup = -1};
    int control;
    pid_t pid;
    start.folder = openat(all->folder, a->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (a->cgroup[0])
        start.cgroup = openat(all->cgroup, a->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = start.folder < 0 ? error_sys(&err, "cannot open folder attempts/%s", a->name)
                              : keeper_spawn(&start, &control, &pid, &err);
    if (start.folder >= 0)
        close(start.folder);
    if (start.cgroup >= 0)
        close(start.cgroup);
    close_starting(a);
    if (rc == 0) {
        watch(a, control);
        return;
    }
    log_error("attempt %s: %s", a->name, err.text);
    snprintf(text, sizeof text, "%.64s: %.400s", all->agent->config.name, err.text);
    over_because(a, KEEPER_REFUSED, KEEPER_FAIL_SYSTEM, text);
    write_status(a, &a->report);
}

void attempts_turn(struct attempts *all)
{
    struct attempt *a, *next;
    if (TAILQ_EMPTY(&all->starts))
        return;
    if (fsync(all->folder))
        log_error("attempts folder: fsync: %s", strerror(errno));
    TAILQ_FOREACH_SAFE (a, &all->starts, next_start, next)
        spawn(a);
}

/* ---- other orders ---- */

void attempts_go(struct attempts *all, uint64_t id)
{
    struct attempt *a = find(all, id);
    if (!a)
        return; /* an END will follow: the head learns from our Hello that it is not here */
    tell(a, "go"); /* once is enough for a keeper; it runs the task only once */
    if (a->report.phase > KEEPER_PREPARED)
        say(a);
}

void attempts_end(struct attempts *all, const Mu__EndOrder *order)
{
    struct attempt *a = find(all, order->attempt);
    char text[640];
    if (!a) { /* never seen, or forgotten: nothing of it lives here */
        a = add(all, order->attempt);
        a->report.phase = KEEPER_RELEASED;
        say(a);
    } else if (a->starting) {
        close_starting(a);
        over_because(a, KEEPER_RELEASED, KEEPER_FAIL_CANCEL, order->cause);
        write_status(a, &a->report);
    } else if (a->alive) {
        snprintf(text, sizeof text, "end %u %.400s", order->grace_ms, order->cause);
        tell(a, text);
        if (a->control < 0 && !a->end_order)
            a->end_order = xstrdup(text);
    } else {
        /* What was refused is as good as released, now that the head has heard why. */
        a->report.phase = KEEPER_RELEASED;
        say(a);
    }
}

/* What it printed is removed; order and status are overwritten by the next one. */
static bool folder_free(struct attempt *a)
{
    struct attempts *all = a->all;
    char path[64], name[24];
    if (all->folders.count == FREE_MAX)
        return false;
    snprintf(path, sizeof path, "%s/out", a->name);
    if (a->report.output_total && unlinkat(all->folder, path, 0) && errno != ENOENT)
        return false;
    snprintf(name, sizeof name, "free.%u", ++all->folders.last);
    if (renameat2(all->folder, a->name, all->folder, name, RENAME_NOREPLACE))
        return false;
    pool_put(&all->folders, name);
    return true;
}

void attempts_forget(struct attempts *all, uint64_t id)
{
    struct attempt *a = find(all, id);
    struct error err;
    if (!a)
        return;
    if (a->alive) {
        log_warn("attempt %s lives and is not forgotten", a->name);
        return;
    }
    cgroup_free(a);
    if (a->cgroup[0])
        log_warn("attempt %s: its cgroup %s is left behind", a->name, a->cgroup);
    if (a->folder && !folder_free(a) && file_remove_tree(all->folder, a->name, &err))
        log_error("attempt %s: %s", a->name, err.text);
    drop(a);
}

void attempts_credit(struct attempts *all, const Mu__OutputCredit *credit)
{
    struct attempt *a = find(all, credit->attempt);
    if (!a)
        return;
    /* Without credit so far (a new link) the head says where to go on. */
    if (a->credit == 0 || credit->offset > a->sent)
        a->sent = credit->offset;
    a->credit = credit->offset + credit->window;
    stream(a);
}

void attempts_renew(struct attempts *all, uint32_t lease_ms)
{
    struct attempt *a, *next;
    int64_t now = clock_boot_ms();
    HASH_ITER(hh, all->by_id, a, next)
    {
        if (a->lease_ms && lease_ms)
            a->lease_ms = lease_ms;
        int64_t left = all->agent->lease_from_ms + a->lease_ms - now;
        char text[40];
        /* A keeper is not woken more often than it needs: it may share a processor with the task. */
        if (a->control < 0 || !a->lease_ms || left <= 0 || now - a->renewed_ms < a->lease_ms / 10)
            continue;
        a->renewed_ms = now;
        snprintf(text, sizeof text, "lease %lld", (long long)left);
        tell(a, text);
    }
}

/* ---- saying ---- */

static Mu__AttemptReport *report_make(const struct attempt *a)
{
    Mu__AttemptReport *m = xmalloc(sizeof *m);
    mu__attempt_report__init(m);
    m->attempt = a->id;
    m->phase = (Mu__AttemptPhase)a->report.phase;
    m->exit_code = a->report.exit_code;
    m->exit_signal = a->report.exit_signal;
    m->failure = (Mu__TaskFailure)a->report.failure;
    m->message = xstrdup(a->report.message);
    m->output_total = a->report.output_total;
    m->cpu_ms = a->report.cpu_ms;
    m->has_result = a->report.has_result;
    return m;
}

void attempts_reports_free(Mu__AttemptReport **reports, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(reports[i]->message);
        free(reports[i]);
    }
    free(reports);
}

Mu__AttemptReport **attempts_inventory(struct attempts *all, size_t *count)
{
    struct attempt *a, *next;
    Mu__AttemptReport **list = xcalloc(HASH_COUNT(all->by_id) + 1, sizeof(*list));
    *count = 0;
    HASH_ITER(hh, all->by_id, a, next)
    {
        a->credit = a->sent = 0;
        stop_streaming(a);
        list[*count] = report_make(a);
        /* Not heard of so far. To say less than is true is safe: a repeated "go" does nothing. */
        if (!a->report.phase)
            list[*count]->phase = MU__ATTEMPT_PHASE__PHASE_PREPARED;
        (*count)++;
        if (a->dirty)
            TAILQ_REMOVE(&all->dirty, a, next_dirty);
        a->dirty = false;
    }
    return list;
}

/* The next piece of an attempt's output, NULL when there is none (or it cannot be read). */
static Mu__OutputChunk *chunk_make(struct attempt *a)
{
    char path[64];
    struct error err = {0};
    uint64_t offset = a->sent;
    snprintf(path, sizeof path, "%s/out", a->name);
    if (a->spool.fd < 0 && spool_open_read(&a->spool, a->all->folder, path, &err)) {
        if (err.code != ERR_NOT_FOUND)
            log_error("attempt %s: %s", a->name, err.text);
        return NULL;
    }
    if (spool_refresh(&a->spool, &err)) {
        log_error("attempt %s: %s", a->name, err.text);
        return NULL;
    }
    size_t want = a->credit - a->sent < CHUNK_MAX ? (size_t)(a->credit - a->sent) : CHUNK_MAX;
    uint8_t *data = xmalloc(want);
    ssize_t n = spool_read(&a->spool, &offset, data, want, NULL, &err);
    if (n <= 0) {
        free(data);
        return NULL;
    }
    Mu__OutputChunk *m = xmalloc(sizeof *m);
    mu__output_chunk__init(m);
    m->attempt = a->id;
    m->offset = offset - (uint64_t)n;
    m->data = (ProtobufCBinaryData){(size_t)n, data};
    a->sent = offset;
    return m;
}

bool attempts_collect(struct attempts *all, Mu__NodeReport *report, size_t max)
{
    size_t bytes = 0, cap = 0;
    struct attempt *a, *next;
    /* One piece of each in turn, so that a task that prints much does not keep others waiting. */
    while (bytes < max && (a = TAILQ_FIRST(&all->streams))) {
        Mu__OutputChunk *chunk = chunk_make(a);
        stop_streaming(a);
        if (!chunk)
            continue;
        report->output = xgrow(report->output, &cap, report->n_output + 1, sizeof *report->output);
        report->output[report->n_output++] = chunk;
        bytes += chunk->data.len + 32;
        stream(a);
    }
    cap = 0;
    TAILQ_FOREACH_SAFE (a, &all->dirty, next_dirty, next) {
        if (bytes >= max + CHUNK_MAX)
            break;
        if (a->report.phase) {
            report->attempts = xgrow(report->attempts, &cap, report->n_attempts + 1, sizeof *report->attempts);
            report->attempts[report->n_attempts++] = report_make(a);
            bytes += 64 + strlen(a->report.message);
        }
        TAILQ_REMOVE(&all->dirty, a, next_dirty);
        a->dirty = false;
        if (!a->folder && !a->alive && a->report.phase == KEEPER_RELEASED && !a->has_route && !a->first)
            drop(a); /* made up only to answer the end of something that is not here */
    }
    if (!TAILQ_EMPTY(&all->dirty) || !TAILQ_EMPTY(&all->streams))
        agent_soon(all->agent);
    return report->n_output || report->n_attempts;
}

void attempts_report_free(Mu__NodeReport *report)
{
    for (size_t i = 0; i < report->n_output; i++) {
        free(report->output[i]->data.data);
        free(report->output[i]);
    }
    free(report->output);
    attempts_reports_free(report->attempts, report->n_attempts);
}

bool attempts_settled(const struct attempts *all)
{
    for (const struct attempt *a = all->by_id; a; a = a->hh.next)
        if (!a->report.phase)
            return false;
    return true;
}

uint32_t attempts_alive(const struct attempts *all)
{
    uint32_t count = 0;
    for (const struct attempt *a = all->by_id; a; a = a->hh.next)
        count += a->alive;
    return count;
}

/* ---- steps of other nodes ---- */

/* All routes are compared, each in constant time: how long it takes says nothing about any of them. */
bool attempts_step(struct attempts *all, const uint8_t route[ROUTE_LEN], int fd)
{
    struct attempt *a, *next, *found = NULL;
    HASH_ITER(hh, all->by_id, a, next)
    if (a->has_route && a->control >= 0 && CRYPTO_memcmp(a->route, route, ROUTE_LEN) == 0)
        found = a;
    if (!found)
        return false;
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } u = {0};
    struct iovec io = {(char *)"step", 4};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof u};
    u.header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&u.header), &fd, sizeof fd);
    if (sendmsg(found->control, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        log_warn("attempt %s: a step cannot be handed to its keeper: %s", found->name, strerror(errno));
        return false;
    }
    return true;
}

/* ---- life ---- */

static int hex_decode(const char *text, uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (sscanf(text + 2 * i, "%2hhx", &out[i]) != 1)
            return -1;
    return 0;
}

/* An attempt whose order cannot be read was never started: the keeper reads the same file. */
static void load(struct attempts *all, uint64_t id)
{
    struct attempt *a = add(all, id);
    struct order o = {0};
    struct buf text = BUF_INIT;
    struct error err = {0};
    char path[64];
    a->folder = a->alive = true;
    a->first = true;
    snprintf(path, sizeof path, "%s/order", a->name);
    if (file_read(all->folder, path, KEEPER_ORDER_MAX, &text, &err) == 0 &&
        order_decode(&o, text.data, text.len, &err) == 0 &&
        (o.attempt == id || error_set(&err, ERR_PROTOCOL, "it is of attempt %llu", (unsigned long long)o.attempt) == 0)) {
        a->first = o.index == 0;
        snprintf(a->cgroup, sizeof a->cgroup, "%s", o.cgroup);
        a->uid = (uid_t)o.uid;
        a->lease_ms = (uint32_t)o.lease_ms;
        a->has_route = strlen(o.route) == 2 * ROUTE_LEN && hex_decode(o.route, a->route, ROUTE_LEN) == 0;
    } else {
        log_warn("attempt %s: its order cannot be read: %s", a->name, err.text);
        a->uid = geteuid();
    }
    order_release(&o);
    buf_free(&text);
    look(a);
}

/* A file `out` means that it was not emptied to the end. */
static void load_free(struct attempts *all, const char *name)
{
    char path[64];
    struct error err;
    pool_seen(&all->folders, name);
    snprintf(path, sizeof path, "%.24s/out", name);
    unlinkat(all->folder, path, 0);
    if (all->folders.count < FREE_MAX && strlen(name) < sizeof all->folders.names[0])
        pool_put(&all->folders, name);
    else if (file_remove_tree(all->folder, name, &err))
        log_warn("attempts/%s: %s", name, err.text);
}

/* Groups of attempts that live are theirs; the others are removed, so that the numbers start anew. */
static void load_cgroups(struct attempts *all)
{
    struct attempt *a, *next;
    int fd = all->cgroup >= 0 ? openat(all->cgroup, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        bool used = false;
        if (strncmp(e->d_name, "a.", 2))
            continue;
        for (unsigned i = 0; i < all->cgroups.count; i++)
            used = used || !strcmp(all->cgroups.names[i], e->d_name);
        pool_seen(&all->cgroups, e->d_name);
        HASH_ITER(hh, all->by_id, a, next)
        used = used || !strcmp(a->cgroup, e->d_name);
        if (!used)
            custody_cgroup_remove(all->cgroup, e->d_name);
    }
    if (dir)
        closedir(dir);
}

/* Run folders of attempts that do not live: left by a keeper that was killed with its agent. */
static void sweep_run_dirs(struct attempts *all)
{
    const char *path = all->agent->config.run_dir;
    struct error err;
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char *end;
        uint64_t id = strtoull(e->d_name, &end, 10);
        struct attempt *a = id && !*end ? find(all, id) : NULL;
        if (id && !*end && (!a || !a->alive) && file_remove_tree(dirfd(dir), e->d_name, &err))
            log_warn("%s/%s: %s", path, e->d_name, err.text);
    }
    if (dir)
        closedir(dir);
}

static int load_all(struct attempts *all, struct error *err)
{
    int fd = openat(all->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir)
        return error_sys(err, "cannot list attempts");
    for (struct dirent *e; (e = readdir(dir));) {
        char *end;
        uint64_t id = strtoull(e->d_name, &end, 10);
        if (id && !*end)
            load(all, id);
        else if (!strncmp(e->d_name, "free.", 5))
            load_free(all, e->d_name);
        else if (e->d_name[0] != '.')
            log_warn("attempts/%s is not an attempt", e->d_name);
    }
    closedir(dir);
    return 0;
}

struct attempts *attempts_create(struct agent *agent, struct error *err)
{
    struct attempts *all = xcalloc(1, sizeof *all);
    struct error none;
    all->agent = agent;
    all->cgroup = all->listening = -1;
    TAILQ_INIT(&all->callers);
    TAILQ_INIT(&all->dirty);
    TAILQ_INIT(&all->streams);
    TAILQ_INIT(&all->starts);
    if (mkdirat(agent->dir, "attempts", 0700) && errno != EEXIST)
        error_sys(err, "cannot make folder attempts");
    all->folder = openat(agent->dir, "attempts", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    snprintf(all->cgroup_name, sizeof all->cgroup_name, "muster-%.64s-%.12s", agent->config.name,
             agent->install_id);
    all->cgroup = cgroup_open(all->cgroup_name, &none);
    if (all->cgroup < 0)
        log_info("no cgroups for attempts: %s", none.text);
    if (all->folder < 0 || load_all(all, err) || listen_for_keepers(all, err)) {
        if (all->folder < 0)
            error_sys(err, "cannot open folder attempts");
        attempts_destroy(all);
        return NULL;
    }
    load_cgroups(all);
    sweep_run_dirs(all);
    return all;
}

void attempts_destroy(struct attempts *all)
{
    struct attempt *a, *next;
    if (!all)
        return;
    HASH_ITER(hh, all->by_id, a, next)
    drop(a);
    while (!TAILQ_EMPTY(&all->callers))
        caller_free(TAILQ_FIRST(&all->callers), true);
    if (all->calls)
        event_free(all->calls);
    if (all->listening >= 0)
        close(all->listening);
    if (all->folder >= 0)
        close(all->folder);
    if (all->cgroup >= 0) {
        close(all->cgroup);
        cgroup_remove(all->cgroup_name); /* stays if attempts go on in it */
    }
    free(all);
}
