/* attempt_keeper.c - the keeper of an attempt: started, heard, spoken to, missed.
 *
 * A keeper is heard over a socket pair, or, by an agent that came later, over the connection with
 * which it calls. When the connection ends, the status says how the attempt ended; without one and
 * with the lock free, the keeper was killed, and the agent itself ends what is left.
 *
 * A keeper that stands still (stopped, or starved by its own task) does not read, and its socket fills
 * up. What must reach it then waits here: at most one "go" and the last "end". */
#include "node/attempt.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/agent.h"
#include "node/custody.h"
#include "node/keeper_start.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SWEEP_MS 50
#define CALLERS_MAX 4096

static void on_control(evutil_socket_t fd, short what, void *arg);
static void on_sweep(evutil_socket_t fd, short what, void *arg);

void attempt_close_control(struct attempt *a)
{
    if (a->readable)
        event_free(a->readable);
    if (a->writable)
        event_free(a->writable);
    a->readable = a->writable = NULL;
    if (a->control >= 0)
        close(a->control);
    a->control = -1;
}

void attempt_close_starting(struct attempt *a)
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

/* The attempt is over, one way or the other: nothing of it lives. */
void attempt_take_end(struct attempt *a, const struct report *report)
{
    uint64_t printed = a->report.output_total;
    a->alive = false;
    a->report = *report;
    if (a->report.output_total < printed)
        a->report.output_total = printed;
    attempt_close_control(a);
    attempt_free_cgroup(a);
    attempt_stream(a);
    attempt_say(a);
}

void attempt_over(struct attempt *a, int phase, int failure, const char *text)
{
    struct report r = {.phase = phase,
                       .failure = failure,
                       .killed = a->swept,
                       .has_result = a->first && phase == KEEPER_RELEASED};
    if (r.has_result)
        r.exit_code = failure == KEEPER_FAIL_SETUP ? 126 : 137;
    snprintf(r.message, sizeof r.message, "%s", text);
    attempt_take_end(a, &r);
}

/* True: something was there (and has been told to die). */
static bool kill_left(struct attempt *a)
{
    char mark[160];
    struct attempts *all = a->all;
    int cgroup = a->cgroup[0] ? openat(all->cgroup, a->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
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
    attempt_remove_run_dir(a);
    count_output(a);
    snprintf(text, sizeof text, "%.64s: the keeper of this attempt was killed", a->all->agent->config.name);
    attempt_over(a, KEEPER_RELEASED, KEEPER_FAIL_SYSTEM, text);
    attempt_write_status(a, &a->report);
    log_warn("attempt %s: its keeper was killed; what it left has been ended", a->name);
}

static void keeper_gone(struct attempt *a)
{
    struct report r;
    attempt_close_control(a);
    if (attempt_read_status(a, &r))
        attempt_take_end(a, &r);
    else if (attempt_locked(a)) /* it is still ending, or it lives and will call */
        sweep_later(a);
    else
        sweep(a);
}

bool attempt_tell(struct attempt *a, const char *text)
{
    if (a->control < 0)
        return false;
    if (send(a->control, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
        return true;
    if (errno != EAGAIN)
        log_warn("attempt %s: its keeper was not told \"%.20s\": %s", a->name, text, strerror(errno));
    return false;
}

static void on_writable(evutil_socket_t fd, short what, void *arg);

/* What waits, as far as the socket takes it; the rest when it can be written to. */
static void tell_waiting(struct attempt *a)
{
    if (a->go_waits)
        a->go_waits = !attempt_tell(a, "go");
    if (a->end_waits)
        a->end_waits = !attempt_tell(a, a->end_order);
    if (a->control < 0 || (!a->go_waits && !a->end_waits))
        return;
    if (!a->writable)
        a->writable = event_new(a->all->agent->base, a->control, EV_WRITE, on_writable, a);
    if (!a->writable || event_add(a->writable, NULL))
        log_error("attempt %s: cannot watch its keeper", a->name);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    tell_waiting(arg);
}

void attempt_tell_go(struct attempt *a)
{
    a->go_waits = true;
    tell_waiting(a);
}

void attempt_tell_end(struct attempt *a, const char *text)
{
    free(a->end_order);
    a->end_order = xstrdup(text);
    a->end_waits = true;
    tell_waiting(a);
}

static void take_report(struct attempt *a, const struct report *r)
{
    bool news = r->phase != a->report.phase;
    if (r->phase == KEEPER_RELEASED || r->phase == KEEPER_REFUSED) {
        attempt_take_end(a, r);
        return;
    }
    a->report = *r;
    attempt_stream(a);
    if (news)
        attempt_say(a);
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
    a->end_waits = a->end_order != NULL; /* again: the last connection may have ended before it was read */
    tell_waiting(a);
}

/* Looks at an attempt whose keeper is not connected: it is over, or left for dead, or it will call. */
void attempt_look(struct attempt *a)
{
    struct report r;
    if (attempt_read_status(a, &r)) {
        attempt_take_end(a, &r);
    } else if (attempt_locked(a)) {
        sweep_later(a);
    } else if (attempt_read_status(a, &r)) { /* written between the two looks */
        attempt_take_end(a, &r);
    } else {
        sweep(a);
    }
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct attempt *a = arg;
    if (a->control < 0 && a->alive)
        attempt_look(a);
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
    struct attempt *a =
        n > 0 && report_parse(&r, text, (size_t)n, &err) == 0 ? attempt_find(c->all, r.attempt) : NULL;
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
int keepers_listen(struct attempts *all, struct error *err)
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

void attempt_spawn(struct attempt *a)
{
    struct attempts *all = a->all;
    struct error err;
    char text[512], program[PATH_MAX];
    snprintf(program, sizeof program, "%s/muster-keeper", all->agent->config.bin);
    struct keeper_start start = {
        .program = program, .order = a->order, .node = all->agent->dir, .context = a->context, .cgroup = -1};
    int control = -1;
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
    attempt_close_starting(a);
    if (rc == 0) {
        watch(a, control);
        return;
    }
    log_error("attempt %s: %s", a->name, err.text);
    snprintf(text, sizeof text, "%.64s: %.400s", all->agent->config.name, err.text);
    attempt_over(a, KEEPER_REFUSED, KEEPER_FAIL_SYSTEM, text);
    attempt_write_status(a, &a->report);
}

void keepers_hang_up(struct attempts *all)
{
    struct caller *c, *next;
    TAILQ_FOREACH_SAFE(c, &all->callers, next, next)
    caller_free(c, true);
    if (all->calls)
        event_free(all->calls);
    if (all->listening >= 0)
        close(all->listening);
}
