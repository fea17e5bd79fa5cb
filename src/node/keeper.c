/* keeper.c - muster-keeper: custody of one attempt on one node.
 *
 * Started by the agent with an order (keeper_proto.h), and then on its own: it outlives the agent,
 * and needs no one to end the attempt at its run-time limit or when its lease runs out. One thread,
 * one poll loop:
 *
 *   prepared --go--> running --the task ends, "end", limit, lease--> killing --nothing lives--> exit
 *
 * Ending by "end", limit or lease first sends SIGTERM to all and waits the grace period; the task's
 * own end kills what it left behind at once. Only when nothing of the attempt lives is `status`
 * written (RELEASED) and the keeper exits. It reads no user's file, and listens to one socket: `s`
 * in the run folder, where the user's mpiexec calls. An agent that was restarted is called by us.
 *
 * What can go wrong: a process in uninterruptible sleep keeps the attempt in "killing" (the agent
 * is told ENDED meanwhile, and RELEASED when it is gone). Without a cgroup an ordinary user's task
 * can kill its own keeper; the agent then ends what is left. */
#include "base/clock.h"
#include "base/file.h"
#include "base/spool.h"
#include "node/custody.h"
#include "node/keeper_proto.h"
#include "node/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_REPORT_MS 50 /* at most one report of new output in this time */
#define RUNNING_REPORT_MS 3 /* how long a task must live to be reported RUNNING */
#define KILL_RETRY_MS 20    /* how often killing is tried again while something lives */
#define SLOW_KILL_MS 500    /* after this the agent is told ENDED without waiting for RELEASED */
#define NEVER INT64_MAX

struct step {
    pid_t pid; /* 0: free */
    int cgroup;
    unsigned number; /* names its cgroup */
};

struct keeper {
    struct order order;
    int control, step_listen, context, cgroup, signals, errors, events;
    int output[2]; /* pipe from the task; [1] stays open for steps */
    struct spool spool;
    bool spooling;
    char lost[256]; /* why output could not be kept; empty: it was */
    pid_t task;
    bool task_ended, killing, ending, told_ended;
    struct step steps[KEEPER_STEPS_MAX];
    unsigned step_count; /* ever started: names their cgroups */
    int64_t lease_at, limit_at, kill_at, report_at, call_at, killing_since;
    int64_t reported_output_ms;
    struct report report;
};

static struct keeper k = {.control = -1,
                          .step_listen = -1,
                          .context = -1,
                          .cgroup = -1,
                          .signals = -1,
                          .errors = -1,
                          .events = -1,
                          .output = {-1, -1},
                          .spool = {.fd = -1},
                          .lease_at = NEVER,
                          .limit_at = NEVER,
                          .kill_at = NEVER,
                          .report_at = NEVER,
                          .call_at = NEVER};

static void say(const char *text, const char *more)
{
    dprintf(2, "muster-keeper %s/%llu: %s%s%s\n", k.order.node ? k.order.node : "?",
            (unsigned long long)k.order.attempt, text, more[0] ? ": " : "", more);
}

/* ---- reports ---- */

static void agent_lost(void)
{
    if (k.control >= 0)
        close(k.control);
    k.control = -1;
    k.call_at = clock_boot_ms() + KEEPER_CALL_MS;
}

static void send_report(void)
{
    char text[KEEPER_PACKET_MAX];
    k.report.output_total = k.spool.total;
    size_t len = report_format(&k.report, text, sizeof text);
    k.report_at = NEVER;
    if (k.control < 0)
        return;
    if (send(k.control, text, len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return;
    if (errno == EAGAIN || errno == ENOBUFS) {
        k.report_at = clock_boot_ms() + OUTPUT_REPORT_MS; /* the agent is busy */
        return;
    }
    agent_lost();
}

static void report_phase(int phase)
{
    k.report.phase = phase;
    send_report();
}

static void say_result(int failure, const char *message)
{
    k.report.failure = failure;
    snprintf(k.report.message, sizeof k.report.message, "%s", message);
}

static void remove_run_dir(void)
{
    char path[PATH_MAX];
    struct error err;
    if (!k.order.run_dir[0])
        return;
    launch_step_path(&k.order, path, sizeof path);
    if (unlink(path) == 0 && rmdir(k.order.run_dir) == 0)
        return; /* nothing else was in it */
    /* There may be millions of files: the result is told before. The cores are free when all are gone. */
    if (k.task_ended && !k.told_ended)
        report_phase(KEEPER_ENDED);
    if (file_remove_tree(AT_FDCWD, k.order.run_dir, &err))
        say("run folder", err.text);
}

/* Usually the agent does it, or uses it again. Where there is no agent, nobody may come any more. */
static void remove_cgroup(void)
{
    char path[64];
    if (k.cgroup < 0 || k.control >= 0 || !k.order.cgroup[0])
        return;
    snprintf(path, sizeof path, "../%.40s", k.order.cgroup);
    custody_cgroup_remove(k.cgroup, path);
}

/* One write within one page: there is no moment at which half of it is there. */
static void write_status(const char *text, size_t len)
{
    char page[KEEPER_STATUS_LEN];
    memset(page, '\n', sizeof page);
    memcpy(page, text, len < sizeof page ? len : sizeof page - 1);
    int fd = openat(KEEPER_FD_FOLDER, "status", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || pwrite(fd, page, sizeof page, 0) != (ssize_t)sizeof page)
        say("cannot write status", strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* The last thing a keeper does. */
static _Noreturn void leave(int phase)
{
    char text[KEEPER_PACKET_MAX];
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    k.report.cpu_ms = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
                      (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
    k.report.output_total = k.spool.total;
    if (k.lost[0] && !k.report.message[0])
        snprintf(k.report.message, sizeof k.report.message, "%.64s: output was lost: %s", k.order.node,
                 k.lost);
    remove_run_dir();
    k.report.phase = phase;
    size_t len = report_format(&k.report, text, sizeof text);
    remove_cgroup();
    write_status(text, len);
    /* The agent acts on this packet at once, so it comes after the file. */
    if (k.control >= 0)
        send(k.control, text, len, MSG_NOSIGNAL);
    exit(0);
}

static _Noreturn void refuse(const struct error *err)
{
    snprintf(k.report.message, sizeof k.report.message, "%.64s: %.440s", k.order.node, err->text);
    k.report.failure = KEEPER_FAIL_SYSTEM;
    leave(KEEPER_REFUSED);
}

/* ---- preparing ---- */

/* The run folder is handed to the user last: until then nobody can put anything in our way. */
static int make_run_dir(struct error *err)
{
    char path[PATH_MAX];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    launch_step_path(&k.order, path, sizeof path);
    if (strlen(path) >= sizeof address.sun_path)
        return error_set(err, ERR_LIMIT, "socket path is longer than %zu bytes: %s",
                         sizeof address.sun_path - 1, path);
    if (mkdir(k.order.run_dir, 0700))
        return error_sys(err, "cannot make folder %s", k.order.run_dir);
    strcpy(address.sun_path, path);
    k.step_listen = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (k.step_listen < 0 || bind(k.step_listen, (struct sockaddr *)&address, sizeof address) ||
        listen(k.step_listen, 64))
        return error_sys(err, "cannot listen at %s", path);
    if (geteuid() == 0 && (lchown(path, (uid_t)k.order.uid, (gid_t)k.order.gid) ||
                           lchown(k.order.run_dir, (uid_t)k.order.uid, (gid_t)k.order.gid)))
        return error_sys(err, "cannot give %s to user %llu", k.order.run_dir,
                         (unsigned long long)k.order.uid);
    return 0;
}

static int prepare(struct error *err)
{
    sigset_t set;
    sigfillset(&set); /* all but the synchronous ones: they are read, or ignored, in the loop */
    sigdelset(&set, SIGSEGV);
    sigdelset(&set, SIGBUS);
    sigdelset(&set, SIGFPE);
    sigdelset(&set, SIGILL);
    sigdelset(&set, SIGABRT);
    sigprocmask(SIG_SETMASK, &set, NULL);
    sigset_t wanted;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGCHLD);
    sigaddset(&wanted, SIGTERM);
    k.signals = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
    if (k.signals < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1))
        return error_sys(err, "cannot become a subreaper");
    if (k.order.run_dir[0] && make_run_dir(err))
        return -1;
    if (k.cgroup >= 0)
        k.events = openat(k.cgroup, "cgroup.events", O_RDONLY | O_CLOEXEC);
    if (pipe2(k.output, O_CLOEXEC | O_NONBLOCK))
        return error_sys(err, "cannot make a pipe");
    /* Writers block when the pipe is full: only our own end must not. */
    fcntl(k.output[1], F_SETFL, fcntl(k.output[1], F_GETFL) & ~O_NONBLOCK);
    if (k.order.lease_ms)
        k.lease_at = clock_boot_ms() + (int64_t)k.order.lease_ms;
    return 0;
}

/* ---- output ---- */

static void take_output(void)
{
    static char chunk[65536];
    struct error err;
    for (int turn = 0; turn < 16; turn++) { /* bounded: signals must be heard beside a flood */
        ssize_t n = read(k.output[0], chunk, sizeof chunk);
        if (n <= 0)
            return;
        if (!k.spooling &&
            spool_open(&k.spool, KEEPER_FD_FOLDER, "out", SPOOL_HEAD_DEFAULT, SPOOL_TAIL_DEFAULT, &err) == 0)
            k.spooling = true;
        if ((!k.spooling || spool_write(&k.spool, chunk, (size_t)n, &err)) && !k.lost[0]) {
            snprintf(k.lost, sizeof k.lost, "%.*s", (int)sizeof k.lost - 1, err.text);
            say("output is lost", err.text);
        }
        if (k.report_at == NEVER) {
            int64_t now = clock_boot_ms();
            k.report_at = now - k.reported_output_ms >= OUTPUT_REPORT_MS
                              ? now
                              : k.reported_output_ms + OUTPUT_REPORT_MS;
        }
        if ((size_t)n < sizeof chunk)
            return;
    }
}

/* ---- the task ---- */

static void start_killing(void)
{
    if (k.killing)
        return;
    k.killing = true;
    k.killing_since = clock_boot_ms();
    k.kill_at = k.lease_at = k.limit_at = NEVER;
    if (k.step_listen >= 0)
        close(k.step_listen);
    k.step_listen = -1;
}

static void task_failed_to_start(const char *text)
{
    k.task_ended = true;
    k.report.has_result = true;
    k.report.exit_code = 126;
    say_result(KEEPER_FAIL_SETUP, text);
    start_killing();
}

static void start_task(void)
{
    int errors[2];
    char text[300];
    if (k.task || k.task_ended || k.ending || k.killing || k.order.index != 0)
        return;
    if (pipe2(errors, O_CLOEXEC)) {
        snprintf(text, sizeof text, "%.64s: cannot make a pipe: %s", k.order.node, strerror(errno));
        task_failed_to_start(text);
        return;
    }
    pid_t self = getpid(), pid = custody_fork(k.cgroup);
    if (pid == 0)
        launch_task(&k.order, self, k.order.stdout_path[0] ? -1 : k.output[1], errors[1]);
    int saved = errno;
    close(errors[1]);
    if (pid < 0) {
        close(errors[0]);
        snprintf(text, sizeof text, "%.64s: cannot start a process: %s", k.order.node, strerror(saved));
        task_failed_to_start(text);
        return;
    }
    k.task = pid;
    k.errors = errors[0];
    if (k.order.runtime_s)
        k.limit_at = clock_boot_ms() + (int64_t)k.order.runtime_s * 1000;
}

/* The pipe is closed by a successful exec, or brings what went wrong. */
static void take_start_error(void)
{
    struct launch_error e;
    if (k.errors < 0)
        return;
    ssize_t n = read(k.errors, &e, sizeof e);
    close(k.errors);
    k.errors = -1;
    if (n == (ssize_t)sizeof e) {
        e.text[sizeof e.text - 1] = 0;
        k.report.exit_code = e.exit_code;
        say_result(KEEPER_FAIL_SETUP, e.text);
        return;
    }
    if (!k.task_ended) {
        /* Not at once: of a task that ends within that time one report says all. */
        k.report.phase = KEEPER_RUNNING;
        k.report_at = clock_boot_ms() + RUNNING_REPORT_MS;
    }
}

static void task_ended(int status)
{
    k.task_ended = true;
    take_start_error();
    struct report *r = &k.report;
    r->has_result = true;
    if (r->failure == KEEPER_FAIL_SETUP) {
        start_killing();
        return;
    }
    r->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    r->exit_signal = WIFSIGNALED(status) ? (unsigned)WTERMSIG(status) : 0;
    /* A limit, a lease or an order has said the cause already. */
    if (!k.ending && r->exit_signal) {
        r->failure = KEEPER_FAIL_EXIT;
        snprintf(r->message, sizeof r->message, "%.64s: killed by signal %u (%s)", k.order.node,
                 r->exit_signal, strsignal((int)r->exit_signal));
    } else if (!k.ending && r->exit_code) {
        r->failure = KEEPER_FAIL_EXIT;
    }
    start_killing();
}

/* ---- MPI steps ---- */

static void step_cgroup_name(unsigned number, char out[24])
{
    snprintf(out, 24, "s%u", number);
}

static int step_cgroup(unsigned number)
{
    char name[24];
    if (k.cgroup < 0)
        return -1;
    step_cgroup_name(number, name);
    if (mkdirat(k.cgroup, name, 0755))
        return -1;
    return openat(k.cgroup, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Takes over `socket`. */
static void start_step(const char *role, int socket)
{
    struct step *step = NULL;
    for (int i = 0; i < KEEPER_STEPS_MAX && !step; i++)
        if (!k.steps[i].pid)
            step = &k.steps[i];
    /* A description of its own: steps must not share the place where they read. */
    char path[48];
    snprintf(path, sizeof path, "/proc/self/fd/%d", k.context);
    int context = k.context >= 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (!step || context < 0 || k.killing || k.ending) {
        say("MPI step refused", !step         ? "64 run already"
                                : context < 0 ? "no context"
                                              : "the attempt is ending");
    } else {
        step->number = ++k.step_count;
        step->cgroup = step_cgroup(step->number);
        pid_t self = getpid(), pid = custody_fork(step->cgroup >= 0 ? step->cgroup : k.cgroup);
        if (pid == 0)
            launch_step(&k.order, self, role, socket, context, k.order.stdout_path[0] ? -1 : k.output[1]);
        if (pid < 0)
            say("cannot start muster-step", strerror(errno));
        step->pid = pid > 0 ? pid : 0;
    }
    if (context >= 0)
        close(context);
    close(socket);
}

static void accept_step(void)
{
    struct ucred who;
    socklen_t len = sizeof who;
    int fd = accept4(k.step_listen, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) || who.uid != (uid_t)k.order.uid) {
        say("MPI step refused", "the caller is another user");
        close(fd);
        return;
    }
    start_step("root", fd);
}

/* A step that is gone takes its ranks with it. Without a cgroup they are found by their session. */
static void step_ended(struct step *step, int status)
{
    char name[32];
    pid_t pid = step->pid;
    step->pid = 0;
    if (step->cgroup >= 0) {
        custody_cgroup_kill(step->cgroup);
        close(step->cgroup);
        step->cgroup = -1;
        /* As a rule it is empty by now; a busy one goes with the attempt's. */
        step_cgroup_name(step->number, name);
        unlinkat(k.cgroup, name, AT_REMOVEDIR);
    } else if (WIFSIGNALED(status)) {
        custody_signal_session(pid, SIGKILL);
    }
    if (k.killing || k.ending)
        return;
    if (WIFSIGNALED(status)) {
        snprintf(name, sizeof name, "signal %d", WTERMSIG(status));
        say("muster-step was killed", name);
    } else if (WEXITSTATUS(status) == 126 || WEXITSTATUS(status) == 127) {
        say("cannot run muster-step", k.order.step_program);
    }
}

/* ---- ending ---- */

static void end_attempt(int64_t grace_ms, int failure, const char *message)
{
    int64_t now = clock_boot_ms();
    if (k.killing)
        return;
    if (!k.ending) {
        k.ending = true;
        if (!k.task_ended)
            say_result(failure, message);
        k.limit_at = k.lease_at = NEVER;
    }
    bool alive = k.task && !k.task_ended;
    for (int i = 0; i < KEEPER_STEPS_MAX && !alive; i++)
        alive = k.steps[i].pid != 0;
    if (!alive || grace_ms <= 0) {
        start_killing();
        return;
    }
    if (k.kill_at == NEVER || now + grace_ms < k.kill_at)
        k.kill_at = now + grace_ms;
    custody_signal(SIGTERM);
    custody_signal(SIGCONT); /* a stopped one would not hear it */
}

/* Takes the dead. True when this process has no children. */
static bool reap(void)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid < 0)
            return errno == ECHILD;
        if (pid == 0)
            return false;
        if (pid == k.task && !k.task_ended)
            task_ended(status);
        for (int i = 0; i < KEEPER_STEPS_MAX; i++)
            if (k.steps[i].pid == pid)
                step_ended(&k.steps[i], status);
    }
}

/* One try to end all that is left; leaves when nothing lives. */
static void kill_round(void)
{
    bool childless = reap();
    int populated = k.events >= 0 ? custody_cgroup_populated(k.events) : 0;
    if (childless && populated <= 0) {
        while (k.output[0] >= 0) { /* what is still in the pipe; nobody writes any more */
            uint64_t before = k.spool.total;
            take_output();
            if (k.spool.total == before)
                break;
        }
        if (!k.task_ended && k.order.index == 0) { /* ended before it ran, or never told to run */
            k.report.has_result = true;
            k.report.exit_code = k.task ? 137 : 128 + SIGTERM;
        }
        leave(KEEPER_RELEASED);
    }
    if (populated > 0) {
        k.report.killed = true;
        custody_cgroup_kill(k.cgroup);
    } else {
        custody_kill();
    }
    if (!k.told_ended && k.task_ended && clock_boot_ms() - k.killing_since > SLOW_KILL_MS) {
        k.told_ended = true;
        report_phase(KEEPER_ENDED);
    }
}

/* ---- commands ---- */

static void command(char *text, int fd)
{
    char *rest = text + strcspn(text, " ");
    if (*rest)
        *rest++ = 0;
    if (!strcmp(text, "go")) {
        start_task();
    } else if (!strcmp(text, "end")) {
        char *cause;
        int64_t grace = strtoll(rest, &cause, 10);
        end_attempt(grace, KEEPER_FAIL_CANCEL, cause + strspn(cause, " "));
    } else if (!strcmp(text, "lease")) {
        if (!k.ending && !k.killing)
            k.lease_at = clock_boot_ms() + strtoll(rest, NULL, 10);
    } else if (!strcmp(text, "step") && fd >= 0) {
        start_step("branch", fd);
        fd = -1;
    } else {
        say("unknown command", text);
    }
    if (fd >= 0)
        close(fd);
}

static void take_commands(void)
{
    for (int turn = 0; turn < 64 && k.control >= 0; turn++) {
        char text[KEEPER_PACKET_MAX], ancillary[CMSG_SPACE(sizeof(int) * 4)];
        struct iovec io = {text, sizeof text - 1};
        struct msghdr message = {
            .msg_iov = &io, .msg_iovlen = 1, .msg_control = ancillary, .msg_controllen = sizeof ancillary};
        ssize_t n = recvmsg(k.control, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        int fd = -1;
        for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&message) : NULL; c; c = CMSG_NXTHDR(&message, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && fd < 0)
                memcpy(&fd, CMSG_DATA(c), sizeof fd); /* the agent sends one */
        if (n <= 0) {
            agent_lost();
            return;
        }
        text[n] = 0;
        command(text, fd);
    }
}

/* The folder is the agent's own: whoever listens there is the agent. */
static void call_agent(int64_t now)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/" AGENT_SOCKET, KEEPER_FD_NODE);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    k.call_at = now + KEEPER_CALL_MS;
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
        k.control = fd;
        k.call_at = NEVER;
        send_report();
    } else if (fd >= 0) {
        close(fd);
    }
}

static void take_signals(void)
{
    struct signalfd_siginfo info;
    while (read(k.signals, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo == SIGTERM) {
            char text[160];
            snprintf(text, sizeof text, "%.64s: its keeper was told to end by process %u", k.order.node,
                     info.ssi_pid);
            end_attempt((int64_t)k.order.grace_ms, KEEPER_FAIL_SYSTEM, text);
        }
    reap();
}

static void take_time(int64_t now)
{
    char text[200];
    if (now >= k.limit_at) {
        snprintf(text, sizeof text, "%.64s: ended at its run-time limit of %llu s", k.order.node,
                 (unsigned long long)k.order.runtime_s);
        end_attempt((int64_t)k.order.grace_ms, KEEPER_FAIL_TIMEOUT, text);
    }
    if (now >= k.lease_at) {
        snprintf(text, sizeof text, "%.64s: ended because no head was heard within the lease", k.order.node);
        end_attempt((int64_t)k.order.grace_ms, KEEPER_FAIL_SYSTEM, text);
    }
    if (now >= k.kill_at)
        start_killing();
    if (now >= k.call_at)
        call_agent(now);
    if (now >= k.report_at) {
        k.reported_output_ms = now;
        send_report();
    }
}

static int time_left(int64_t now)
{
    int64_t at = k.lease_at;
    const int64_t others[] = {k.limit_at, k.kill_at, k.report_at, k.call_at,
                              k.killing ? now + KILL_RETRY_MS : NEVER};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (others[i] < at)
            at = others[i];
    if (at == NEVER)
        return -1;
    return at <= now ? 0 : at - now > 3600000 ? 3600000 : (int)(at - now);
}

static void loop(void)
{
    for (;;) {
        if (k.killing)
            kill_round();
        /* A negative descriptor is skipped by poll. cgroup.events is looked at only while killing. */
        struct pollfd p[] = {{k.signals, POLLIN, 0},     {k.control, POLLIN, 0},
                             {k.step_listen, POLLIN, 0}, {k.output[0], POLLIN, 0},
                             {k.errors, POLLIN, 0},      {k.killing ? k.events : -1, POLLPRI, 0}};
        int n = poll(p, sizeof p / sizeof p[0], time_left(clock_boot_ms()));
        if (n < 0 && errno != EINTR) {
            say("poll", strerror(errno));
            exit(1);
        }
        if (n > 0) {
            if (p[3].revents)
                take_output();
            if (p[4].revents)
                take_start_error();
            if (p[0].revents)
                take_signals();
            if (p[1].revents)
                take_commands();
            if (p[2].revents && k.step_listen >= 0)
                accept_step();
        }
        take_time(clock_boot_ms());
    }
}

static int read_order(struct buf *text, struct error *err)
{
    ssize_t n = 0;
    while (text->len < KEEPER_ORDER_MAX &&
           (n = pread(KEEPER_FD_ORDER, buf_reserve(text, 8192), 8192, (off_t)text->len)) > 0)
        buf_added(text, (size_t)n);
    return n < 0 ? error_sys(err, "cannot read it") : 0;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

int main(void)
{
    struct error err;
    struct buf text = BUF_INIT;
    if (!is_open(KEEPER_FD_FOLDER) || !is_open(KEEPER_FD_ORDER) || !is_open(KEEPER_FD_NODE)) {
        static const char usage[] = "muster-keeper is started by muster-node, not by hand\n";
        return file_write_all(2, usage, sizeof usage - 1) ? 1 : 2;
    }
    k.control = is_open(KEEPER_FD_CONTROL) ? KEEPER_FD_CONTROL : -1;
    k.context = is_open(KEEPER_FD_CONTEXT) ? KEEPER_FD_CONTEXT : -1;
    k.cgroup = is_open(KEEPER_FD_CGROUP) ? KEEPER_FD_CGROUP : -1;
    setsid(); /* the agent's terminal and its signals are not ours; fails only where we lead already */
    if (read_order(&text, &err) || order_decode(&k.order, text.data, text.len, &err)) {
        say("cannot read the order", err.text);
        return 1;
    }
    buf_free(&text);
    k.report.attempt = k.order.attempt;
    if (prepare(&err))
        refuse(&err);
    if (k.order.go)
        start_task();
    else
        report_phase(KEEPER_PREPARED);
    loop();
}
