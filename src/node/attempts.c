/* attempts.c - the attempts on this node. See attempts.h.
 *
 *   order --> folder, order file, lock --fsync of attempts/--> keeper --reports--> released --> forgotten
 *
 * The folder is the memory: it is durable before the keeper runs, so an attempt that was started is
 * never started again under its number, whatever dies in between. A restarted agent reads the
 * folders; a lock that is held means a keeper, which calls soon and says how it stands; a free lock with a
 * status is over; a free lock without one means that the keeper was killed (or never ran), and then
 * the agent itself ends what is left, by the cgroup or by the mark in the environment.
 *
 * An account, an install id or a folder that do not fit refuse an attempt. What no repetition can
 * cure (the account) is said as the task's failure, not as a refusal that would be tried again. */
#include "node/attempt.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/account.h"
#include "node/agent.h"
#include "node/cgroup.h"
#include "node/keeper_start.h"
#include "proto/step.pb-c.h"
#include "wire/openssl.h"
#include "wire/tls.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* ---- the table ---- */

struct attempt *attempt_find(struct attempts *all, uint64_t id)
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

void attempt_drop(struct attempt *a)
{
    attempt_close_control(a);
    attempt_close_starting(a);
    attempt_stop_streaming(a);
    if (a->dirty)
        TAILQ_REMOVE(&a->all->dirty, a, next_dirty);
    if (a->sweep)
        event_free(a->sweep);
    spool_close(&a->spool);
    free(a->end_order);
    HASH_DEL(a->all->by_id, a);
    free(a);
}

/* ---- preparing ---- */

static void put_env(struct order *o, const char *name, const char *value)
{
    char *line = xasprintf("%s=%s", name, value);
    order_push(&o->env, line);
    free(line);
}

static void order_fill(struct attempt *a, struct order *o, const Mu__PrepareOrder *p,
                       const struct account *who)
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
        snprintf(text, sizeof text, "%.64s: the order is for another installation of this node",
                 agent->config.name);
        attempt_over(a, KEEPER_REFUSED, KEEPER_FAIL_SYSTEM, text);
        return;
    }
    if (!p->owner || p->my_index >= p->n_nodes || (p->lease_ms && lease <= 0)) {
        snprintf(text, sizeof text, "%.64s: the order is %s", agent->config.name,
                 p->lease_ms && lease <= 0 ? "too old" : "not complete");
        attempt_over(a, KEEPER_REFUSED, KEEPER_FAIL_SYSTEM, text);
        return;
    }
    if (account_resolve(&agent->config, p->owner, &who, &err)) {
        /* To try again would not help: the task fails with the reason. Only the first node can say so. */
        attempt_over(a, a->first ? KEEPER_RELEASED : KEEPER_REFUSED, KEEPER_FAIL_SETUP, err.text);
        return;
    }
    a->uid = who.uid;
    const Mu__PeerNode *me = p->nodes[p->my_index];
    a->has_route = me->route.len == ROUTE_LEN;
    if (a->has_route)
        memcpy(a->route, me->route.data, ROUTE_LEN);
    attempt_take_cgroup(a);
    order_fill(a, &o, p, &who);
    if (p->lease_ms)
        o.lease_ms = (uint64_t)lease;
    if (attempt_make_folder(a, &o, &err) || (p->psk.len && make_context(a, p, &err))) {
        snprintf(text, sizeof text, "%.64s: %.400s", agent->config.name, err.text);
        log_error("attempt %s: %s", a->name, err.text);
        attempt_close_starting(a);
        attempt_over(a, KEEPER_REFUSED, KEEPER_FAIL_SYSTEM, text);
    } else {
        a->starting = a->alive = true;
        TAILQ_INSERT_TAIL(&a->all->starts, a, next_start);
        agent_soon(agent);
    }
    order_release(&o);
}

void attempts_prepare(struct attempts *all, const Mu__PrepareOrder *order)
{
    struct attempt *a = attempt_find(all, order->attempt);
    if (a) { /* repeated: never a second time, but say how it stands */
        if (a->report.phase)
            attempt_say(a);
        return;
    }
    prepare(add(all, order->attempt), order);
}

void attempts_turn(struct attempts *all)
{
    struct attempt *a, *next;
    char text[256];
    if (TAILQ_EMPTY(&all->starts))
        return;
    bool durable = fsync(all->folder) == 0;
    snprintf(text, sizeof text, "%.64s: folder attempts: fsync: %s", all->agent->config.name,
             strerror(errno));
    TAILQ_FOREACH_SAFE(a, &all->starts, next_start, next)
    {
        if (durable) {
            attempt_spawn(a);
            continue;
        }
        log_error("attempt %s: %s", a->name, text);
        attempt_close_starting(a);
        attempt_over(a, KEEPER_REFUSED, KEEPER_FAIL_SYSTEM, text);
    }
}

/* ---- other orders ---- */

void attempts_go(struct attempts *all, uint64_t id)
{
    struct attempt *a = attempt_find(all, id);
    if (!a)
        return; /* an END will follow: the head learns from our Hello that it is not here */
    if (a->alive)
        attempt_tell_go(a); /* a keeper that hears it twice runs the task once */
    if (a->report.phase > KEEPER_PREPARED)
        attempt_say(a);
}

void attempts_end(struct attempts *all, const Mu__EndOrder *order)
{
    struct attempt *a = attempt_find(all, order->attempt);
    char text[640];
    if (!a) { /* never seen, or forgotten: nothing of it lives here */
        a = add(all, order->attempt);
        a->report.phase = KEEPER_RELEASED;
        attempt_say(a);
    } else if (a->starting) {
        attempt_close_starting(a);
        attempt_over(a, KEEPER_RELEASED, KEEPER_FAIL_CANCEL, order->cause);
        attempt_write_status(a, &a->report);
    } else if (a->alive) {
        snprintf(text, sizeof text, "end %u %.400s", order->grace_ms, order->cause);
        attempt_tell_end(a, text);
    } else {
        /* What was refused is as good as released, now that the head has heard why. */
        a->report.phase = KEEPER_RELEASED;
        attempt_say(a);
    }
}

void attempts_forget(struct attempts *all, uint64_t id)
{
    struct attempt *a = attempt_find(all, id);
    struct error err;
    if (!a)
        return;
    if (a->alive) {
        log_warn("attempt %s lives and is not forgotten", a->name);
        return;
    }
    attempt_free_cgroup(a);
    if (a->cgroup[0])
        log_warn("attempt %s: its cgroup %s is left behind", a->name, a->cgroup);
    if (a->folder && !attempt_free_folder(a) && file_remove_tree(all->folder, a->name, &err))
        log_error("attempt %s: %s", a->name, err.text);
    attempt_drop(a);
}

void attempts_credit(struct attempts *all, const Mu__OutputCredit *credit)
{
    struct attempt *a = attempt_find(all, credit->attempt);
    if (!a)
        return;
    /* Without credit so far (a new link) the head says where to go on. */
    if (a->credit == 0 || credit->offset > a->sent)
        a->sent = credit->offset;
    a->credit = credit->offset + credit->window;
    attempt_stream(a);
}

void attempts_renew(struct attempts *all, uint32_t lease_ms)
{
    struct attempt *a, *next;
    int64_t now = clock_boot_ms();
    HASH_ITER (hh, all->by_id, a, next) {
        if (a->lease_ms && lease_ms)
            a->lease_ms = lease_ms;
        int64_t left = all->agent->lease_from_ms + a->lease_ms - now;
        char text[40];
        /* A keeper is not woken more often than it needs: it may share a processor with the task. */
        if (a->control < 0 || !a->lease_ms || left <= 0 || now - a->renewed_ms < a->lease_ms / 10)
            continue;
        snprintf(text, sizeof text, "lease %lld", (long long)left);
        if (attempt_tell(a, text))
            a->renewed_ms = now;
    }
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
    HASH_ITER (hh, all->by_id, a, next)
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
        (o.attempt == id ||
         error_set(&err, ERR_PROTOCOL, "it is of attempt %llu", (unsigned long long)o.attempt) == 0)) {
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
    attempt_look(a);
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
            disk_load_free(all, e->d_name);
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
    if (all->folder < 0 || load_all(all, err) || keepers_listen(all, err)) {
        if (all->folder < 0)
            error_sys(err, "cannot open folder attempts");
        attempts_destroy(all);
        return NULL;
    }
    disk_load_cgroups(all);
    disk_sweep_run_dirs(all);
    return all;
}

void attempts_destroy(struct attempts *all)
{
    struct attempt *a, *next;
    if (!all)
        return;
    bool alive = attempts_alive(all) > 0;
    HASH_ITER (hh, all->by_id, a, next)
        attempt_drop(a);
    keepers_hang_up(all);
    if (all->folder >= 0)
        close(all->folder);
    if (all->cgroup >= 0) {
        close(all->cgroup);
        if (!alive)
            cgroup_remove(all->cgroup_name);
    }
    free(all);
}
