/* keeper_test.c - the keeper alone: orders in, real processes, reports out. Every case runs with a
 * cgroup (where this machine lets us make one) and without. As root, tasks run as `nobody`. */
#include "base/clock.h"
#include "base/file.h"
#include "base/spool.h"
#include "node/cgroup.h"
#include "node/custody.h"
#include "node/keeper_proto.h"
#include "node/launch.h"
#include "node/keeper_start.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char base[64], program[1024], tool[128];
static int groups = -1; /* folder for cgroups, -1: not tried, or none */
static bool with_groups;
static unsigned long long number = 100;

struct trial {
    struct order order;
    char name[32], mark[128];
    int folder, node, control, group;
    pid_t keeper;
    struct report report;
};

static void trial_init(struct trial *t, const char *command)
{
    *t = (struct trial){.folder = -1, .node = -1, .control = -1, .group = -1};
    bool root = geteuid() == 0;
    t->order.attempt = ++number;
    t->order.uid = root ? 65534 : geteuid();
    t->order.gid = root ? 65534 : getegid();
    t->order.go = 1;
    t->order.grace_ms = 200;
    order_set(&t->order.install_id, base + 5);
    order_set(&t->order.node, "node01");
    order_set(&t->order.command, command);
    order_set(&t->order.work_dir, base);
    order_set(&t->order.step_program, tool);
    order_push(&t->order.env, "PATH=/usr/local/bin:/usr/bin:/bin");
    order_push(&t->order.env, "WORD=one");
    snprintf(t->name, sizeof t->name, "%llu", number);
    snprintf(t->mark, sizeof t->mark, "MUSTER_ATTEMPT=%s.%llu", base + 5, number);
    char path[128];
    snprintf(path, sizeof path, "%s/r%llu", base, number);
    order_set(&t->order.run_dir, path);
}

static void trial_start(struct trial *t)
{
    struct error err = {0};
    struct buf text = BUF_INIT;
    char path[128];
    snprintf(path, sizeof path, "%s/a%s", base, t->name);
    mkdir(path, 0700);
    t->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    order_encode(&t->order, &text);
    t->node = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    buf_add(&text, "older order", 12); /* left in a file that is used again */
    file_write(t->folder, "order", text.data, text.len, 0600, false, &err);
    buf_free(&text);
    int order = file_lock(t->folder, "order", &err),
        context = keeper_memfd("context", "the context", 11, &err);
    if (with_groups && mkdirat(groups, t->name, 0755) == 0)
        t->group = openat(groups, t->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct keeper_start start = {program, t->folder, order, t->node, context, t->group};
    if (keeper_spawn(&start, &t->control, &t->keeper, &err))
        printf("# %s\n", err.text);
    close(order);
    close(context);
}

/* The next report, or false when the keeper is gone or 10 s have passed. */
static bool next_report(struct trial *t)
{
    char text[KEEPER_PACKET_MAX];
    struct pollfd p = {t->control, POLLIN, 0};
    if (poll(&p, 1, 10000) != 1)
        return false;
    ssize_t n = recv(t->control, text, sizeof text, 0);
    return n > 0 && report_parse(&t->report, text, (size_t)n, NULL) == 0;
}

static bool wait_phase(struct trial *t, int phase)
{
    while (next_report(t))
        if (t->report.phase == phase)
            return true;
    return false;
}

static void tell(struct trial *t, const char *text)
{
    if (send(t->control, text, strlen(text), MSG_NOSIGNAL) < 0)
        printf("# send: %s\n", strerror(errno));
}

static void trial_end(struct trial *t)
{
    if (t->keeper > 0)
        waitpid(t->keeper, NULL, 0);
    if (t->group >= 0) {
        int events = openat(t->group, "cgroup.events", O_RDONLY | O_CLOEXEC);
        for (int i = 0; i < 1000 && custody_cgroup_populated(events) == 1; i++)
            poll(&(struct pollfd){events, POLLPRI, 0}, 1, 10);
        ok(custody_cgroup_populated(events) == 0, "the cgroup is empty");
        close(events);
        close(t->group);
        ok(custody_cgroup_remove(groups, t->name) == 0, "the cgroup can be removed");
    }
    ok(custody_kill_marked((uid_t)t->order.uid, t->mark) == 0, "no process is left");
    close(t->control);
    close(t->folder);
    close(t->node);
    order_release(&t->order);
}

/* Runs to the end; the report is t->report. */
static bool trial_run(struct trial *t)
{
    trial_start(t);
    return wait_phase(t, KEEPER_RELEASED);
}

static size_t read_output(struct trial *t, char *out, size_t size)
{
    struct spool s;
    uint64_t offset = 0;
    size_t len = 0;
    out[0] = 0;
    if (spool_open_read(&s, t->folder, "out", NULL))
        return 0;
    for (ssize_t n;
         len < size - 1 && (n = spool_read(&s, &offset, out + len, size - 1 - len, NULL, NULL)) > 0;)
        len += (size_t)n;
    out[len] = 0;
    spool_close(&s);
    return len;
}

static void test_results(void)
{
    static const struct {
        const char *command;
        int code, signal, failure;
        const char *message;
    } cases[] = {
        {"true", 0, 0, KEEPER_FAIL_NONE, ""},
        {"/bin/sh -c true", 0, 0, KEEPER_FAIL_NONE, ""},
        {"exit 3", 3, 0, KEEPER_FAIL_EXIT, ""},
        {"kill -9 $$", 137, 9, KEEPER_FAIL_EXIT, "node01: killed by signal 9 (Killed)"},
        {"no-such-program x", 127, 0, KEEPER_FAIL_SETUP,
         "node01: cannot run no-such-program: No such file or directory"},
        {"/etc/passwd", 126, 0, KEEPER_FAIL_SETUP, "node01: cannot run /etc/passwd: Permission denied"},
        {"   ", 126, 0, KEEPER_FAIL_SETUP, "node01: command line is empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct trial t;
        trial_init(&t, cases[i].command);
        ok(trial_run(&t), "\"%s\" ends", cases[i].command);
        is_int(t.report.exit_code, cases[i].code, "exit code");
        is_int(t.report.exit_signal, cases[i].signal, "signal");
        is_int(t.report.failure, cases[i].failure, "failure");
        is_str(t.report.message, cases[i].message, "message");
        ok(t.report.has_result, "has a result");
        ok(faccessat(t.folder, "status", F_OK, 0) == 0, "status is written");
        ok(access(t.order.run_dir, F_OK) != 0, "the run folder is gone");
        ok(file_locked(t.folder, "order", NULL) == 0 || waitpid(t.keeper, NULL, 0) == t.keeper,
           "keeper ends");
        trial_end(&t);
    }
}

static void test_files(void)
{
    struct trial t;
    char text[256];
    trial_init(&t, "true");
    order_set(&t.order.work_dir, "/no/such/dir");
    ok(trial_run(&t), "a missing work directory ends the attempt");
    is_str(t.report.message, "node01: work directory /no/such/dir: No such file or directory", "message");
    is_int(t.report.failure, KEEPER_FAIL_SETUP, "as a failure to set up");
    trial_end(&t);

    trial_init(&t, "./no-such-program");
    order_set(&t.order.work_dir, "/");
    ok(trial_run(&t), "a program below the work directory is looked for there");
    is_str(t.report.message,
           "node01: cannot run ./no-such-program in work directory /: No such file or directory",
           "the message names that folder");
    trial_end(&t);

    trial_init(&t, "true");
    order_set(&t.order.stdout_path, "/proc/no");
    ok(trial_run(&t), "a stdout that cannot be made ends the attempt");
    is_str(t.report.message, "node01: stdout /proc/no: No such file or directory", "message");
    trial_end(&t);

    if (geteuid() == 0) {
        trial_init(&t, "true");
        order_set(&t.order.stdout_path, "/etc/muster-keeper-test");
        ok(trial_run(&t), "stdout is opened with the user's rights");
        is_str(t.report.message, "node01: stdout /etc/muster-keeper-test: Permission denied", "message");
        trial_end(&t);
    }

    trial_init(&t, "cat; echo error >&2");
    order_set(&t.order.stdin_path, "in");
    order_set(&t.order.stdout_path, "out1");
    order_set(&t.order.stderr_path, "out2");
    int dir = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    file_write(dir, "in", "input", 5, 0644, false, NULL);
    ok(trial_run(&t), "stdin, stdout and stderr are files in the work directory");
    struct buf b = BUF_INIT;
    ok(file_read(dir, "out1", 100, &b, NULL) == 0, "stdout is there");
    is_str(buf_str(&b), "input", "with what stdin held");
    buf_reset(&b);
    ok(file_read(dir, "out2", 100, &b, NULL) == 0, "stderr is there");
    is_str(buf_str(&b), "error\n", "with its text");
    buf_free(&b);
    trial_end(&t);

    trial_init(&t, "pwd; echo $HOME; touch made");
    order_set(&t.order.work_dir, "");
    order_set(&t.order.home, "/nonexistent");
    order_set(&t.order.home_fallback, base);
    ok(trial_run(&t), "a home that does not exist is replaced");
    read_output(&t, text, sizeof text);
    char want[256];
    snprintf(want, sizeof want, "%s\n%s\n", base, base);
    is_str(text, want, "as work directory and HOME");
    trial_end(&t);
    close(dir);
}

static void test_environment(void)
{
    struct trial t;
    char text[512];
    trial_init(&t, "echo $WORD:${GONE-unset}:$MUSTER_ATTEMPT; id -u; ls /proc/self/fd | wc -l");
    order_push(&t.order.env, "GONE=x");
    order_push(&t.order.env, "GONE=");
    order_push(&t.order.env, "WORD=two words=");
    ok(trial_run(&t), "a task with an environment ends");
    read_output(&t, text, sizeof text);
    char want[1024];
    /* ls itself: 0, 1, 2 and the folder it reads */
    snprintf(want, sizeof want, "two words=:unset:%s\n%u\n4\n", t.mark + 15, (unsigned)t.order.uid);
    is_str(text, want, "later wins, empty unsets, the user is right, no descriptor leaks");
    trial_end(&t);
}

static void test_output(void)
{
    struct trial t;
    struct stat st;
    trial_init(&t, "head -c 20000000 /dev/zero");
    ok(trial_run(&t), "a task that prints 20 MB ends");
    is_int(t.report.output_total, 20000000, "all of it is counted");
    ok(fstatat(t.folder, "out", &st, 0) == 0 && st.st_size < 5000000, "and the file is bounded");
    trial_end(&t);
}

/* As on a full disk: the file of output cannot grow. The limit is the keeper's, the others only start it. */
static void test_output_lost(void)
{
    struct trial t;
    struct rlimit was, small;
    char text[8192];
    getrlimit(RLIMIT_FSIZE, &was);
    trial_init(&t, "head -c 1000 /dev/zero; sleep 0.2; head -c 20000 /dev/zero; exit 3");
    small = (struct rlimit){8192, was.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    trial_start(&t);
    setrlimit(RLIMIT_FSIZE, &was);
    ok(wait_phase(&t, KEEPER_RELEASED), "a task whose output cannot be kept ends");
    is_int(t.report.exit_code, 3, "with its own exit code");
    is_str(t.report.message, "node01: output was lost: cannot write output spool: File too large",
           "and the loss is told, with its cause");
    ok(read_output(&t, text, sizeof text) >= 1000, "what was kept before can be read");
    ok(faccessat(t.folder, "status", F_OK, 0) == 0, "the status is written");
    trial_end(&t);
}

static void test_left_over(void)
{
    struct trial t;
    trial_init(&t, "(setsid sh -c 'trap \"\" TERM HUP; sleep 1000; sleep 1000' &) ; setsid sleep 1000 & "
                   "sleep 0.1; exit 5");
    ok(trial_run(&t), "a task that leaves daemons behind ends");
    is_int(t.report.exit_code, 5, "with its own exit code");
    trial_end(&t);

    trial_init(&t, "cd ${MUSTER_STEP%/s}; for i in `seq 100`; do mkdir d; cd d; touch f; done; exit 6");
    ok(trial_run(&t), "a task that leaves a deep run folder ends");
    is_int(t.report.exit_code, 6, "with its own exit code");
    ok(access(t.order.run_dir, F_OK) != 0, "and the folder is gone");
    trial_end(&t);
}

static void test_cancel(void)
{
    struct trial t;
    trial_init(&t, "trap '' TERM; echo ready; while :; do sleep 1000; done");
    trial_start(&t);
    while (t.report.output_total == 0 && next_report(&t))
        ;
    int64_t before = clock_boot_ms();
    tell(&t, "end 300 canceled by bob");
    ok(wait_phase(&t, KEEPER_RELEASED), "a task that ignores SIGTERM is ended");
    int64_t took = clock_boot_ms() - before;
    ok(took >= 280 && took < 10000, "after the grace period (%d ms)", (int)took);
    is_int(t.report.exit_code, 137, "by SIGKILL");
    is_int(t.report.failure, KEEPER_FAIL_CANCEL, "as cancelled");
    is_str(t.report.message, "canceled by bob", "with the cause");
    trial_end(&t);

    trial_init(&t, "trap 'exit 9' TERM; echo ready; sleep 1000 & wait");
    trial_start(&t);
    while (t.report.output_total == 0 && next_report(&t))
        ;
    tell(&t, "end 20000 x");
    ok(wait_phase(&t, KEEPER_RELEASED), "a task that hears SIGTERM ends at once");
    is_int(t.report.exit_code, 9, "with the code it chose");
    trial_end(&t);
}

static void test_limits(void)
{
    struct trial t;
    trial_init(&t, "sleep 1000");
    t.order.runtime_s = 1;
    ok(trial_run(&t), "the run-time limit ends a task");
    is_int(t.report.failure, KEEPER_FAIL_TIMEOUT, "as timed out");
    is_str(t.report.message, "node01: ended at its run-time limit of 1 s", "and says so");
    trial_end(&t);

    trial_init(&t, "sleep 1000");
    t.order.lease_ms = 300;
    trial_start(&t);
    close(t.control); /* the agent dies */
    bool whole = false;
    for (int i = 0; i < 1000 && !whole; i++) {
        struct buf b = BUF_INIT; /* the file is there for a moment before what stands in it */
        whole = file_read(t.folder, "status", 4096, &b, NULL) == 0 && b.len &&
                report_parse(&t.report, b.data, b.len, NULL) == 0;
        buf_free(&b);
        if (!whole)
            poll(NULL, 0, 10);
    }
    ok(whole, "without agent and lease the keeper ends the attempt alone");
    is_str(t.report.message, "node01: ended because no head was heard within the lease", "and says so");
    t.control = -1;
    trial_end(&t);
}

/* As an agent that has just been started. */
static int take_call(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/" AGENT_SOCKET, base);
    unlink(address.sun_path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), caller = -1;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 4) == 0 &&
        poll(&(struct pollfd){fd, POLLIN, 0}, 1, 5000) == 1)
        caller = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    close(fd);
    return caller;
}

static void test_two_phases(void)
{
    struct trial t;
    trial_init(&t, "echo run");
    t.order.go = 0;
    trial_start(&t);
    ok(wait_phase(&t, KEEPER_PREPARED), "a keeper without go is prepared");
    close(t.control); /* the agent restarts */
    t.control = take_call();
    ok(t.control >= 0, "the keeper calls the new agent");
    ok(wait_phase(&t, KEEPER_PREPARED), "and says how it stands");
    is_int(t.report.attempt, t.order.attempt, "and which attempt it keeps");
    is_int(file_locked(t.folder, "order", NULL), 1, "the keeper holds its lock");
    tell(&t, "go");
    tell(&t, "go");
    ok(wait_phase(&t, KEEPER_RELEASED), "go runs it, once");
    is_int(t.report.output_total, 4, "with its output");
    trial_end(&t);

    trial_init(&t, "echo run");
    t.order.go = 0;
    t.order.index = 1;
    trial_start(&t);
    ok(wait_phase(&t, KEEPER_PREPARED), "a keeper of a second node is prepared");
    tell(&t, "go");
    tell(&t, "end 0 over");
    ok(wait_phase(&t, KEEPER_RELEASED), "and released by an end");
    ok(!t.report.has_result && t.report.output_total == 0, "without having run anything");
    trial_end(&t);

    trial_init(&t, "true");
    order_set(&t.order.run_dir, "/no/such/place");
    trial_start(&t);
    ok(wait_phase(&t, KEEPER_REFUSED), "a keeper that cannot prepare refuses");
    is_str(t.report.message, "node01: cannot make folder /no/such/place: No such file or directory",
           "and says why");
    trial_end(&t);
}

static int connect_step(struct trial *t, uid_t uid)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    launch_step_path(&t->order, address.sun_path, sizeof address.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uid_t self = geteuid();
    if (self == 0 && seteuid(uid))
        return -1;
    int rc = connect(fd, (struct sockaddr *)&address, sizeof address);
    if (self == 0 && seteuid(self))
        return -1;
    if (rc == 0)
        return fd;
    close(fd);
    return -1;
}

static void test_steps(void)
{
    struct trial t;
    char text[256] = "";
    trial_init(&t, "sleep 1000");
    trial_start(&t);
    ok(wait_phase(&t, KEEPER_RUNNING), "a task runs");
    for (int i = 0; i < 2; i++) {
        int fd = connect_step(&t, (uid_t)t.order.uid);
        ok(fd >= 0, "its user reaches the step socket");
        ssize_t n = recv(fd, text, sizeof text - 1, MSG_WAITALL);
        text[n > 0 ? n : 0] = 0;
        is_str(text, "root the context one\n", "muster-step has role, context, environment and connection");
        close(fd);
    }
    if (geteuid() == 0) {
        int fd = connect_step(&t, 0);
        ssize_t n = fd >= 0 ? recv(fd, text, sizeof text - 1, MSG_WAITALL) : 0;
        ok(n == 0, "another user gets nothing");
        close(fd);
    }
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        abort();
    struct iovec io = {"step", 4};
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } u = {0};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof u};
    u.align = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&u.align), &pair[1], sizeof(int));
    ok(sendmsg(t.control, &message, 0) > 0, "the agent hands over a tree connection");
    close(pair[1]);
    ssize_t n = recv(pair[0], text, sizeof text - 1, MSG_WAITALL);
    text[n > 0 ? n : 0] = 0;
    is_str(text, "branch the context one\n", "which starts muster-step as a branch");
    close(pair[0]);
    tell(&t, "end 0 over");
    ok(wait_phase(&t, KEEPER_RELEASED), "steps end with the attempt");
    trial_end(&t);
}

static void test_dead_keeper(void)
{
    struct trial t;
    trial_init(&t, "setsid sleep 1000 & echo ready; wait");
    trial_start(&t);
    while (t.report.output_total == 0 && next_report(&t))
        ;
    kill(t.keeper, SIGKILL);
    waitpid(t.keeper, NULL, 0);
    t.keeper = 0;
    is_int(file_locked(t.folder, "order", NULL), 0, "a killed keeper holds no lock");
    ok(faccessat(t.folder, "status", F_OK, 0) != 0, "and leaves no status");
    if (t.group >= 0)
        ok(custody_cgroup_kill(t.group) == 0, "what is left is ended by its cgroup");
    else
        ok(custody_kill_marked((uid_t)t.order.uid, t.mark) > 0, "what is left is found by its mark");
    for (int i = 0; i < 500 && custody_kill_marked((uid_t)t.order.uid, t.mark); i++)
        poll(NULL, 0, 10);
    trial_end(&t);
}

/* The child of a keeper that died between fork and the child's first look: its parent is another one. */
static void test_orphan(void)
{
    char path[128];
    int status = 0;
    struct trial t;
    snprintf(path, sizeof path, "%s/orphan", base);
    trial_init(&t, "true");
    order_set(&t.order.stdout_path, path);
    order_set(&t.order.home, "/");
    order_set(&t.order.home_fallback, "");
    order_set(&t.order.stdin_path, "");
    order_set(&t.order.stderr_path, "");
    pid_t pid = fork();
    if (pid == 0)
        launch_task(&t.order, getppid() + 1, -1, dup(2));
    waitpid(pid, &status, 0);
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 126, "a task whose keeper is gone ends before it runs");
    ok(access(path, F_OK) != 0, "and has touched nothing");
    order_release(&t.order);
}

static void test_codec(void)
{
    struct order a = {.attempt = 7, .uid = 1000, .go = 1}, b = {0};
    struct buf text = BUF_INIT;
    struct error err = {0};
    order_set(&a.command, "a = b\nc");
    order_push(&a.env, "X=y=z");
    order_push(&a.env, "E=");
    order_encode(&a, &text);
    struct buf changed = BUF_INIT;
    buf_add(&changed, "later=1", 8);
    buf_add(&changed, text.data, text.len);
    buf_add(&changed, "left from an older order", 25);
    ok(order_decode(&b, changed.data, changed.len, &err) == 0, "an order is read, unknown keys are skipped");
    buf_free(&changed);
    ok(b.attempt == 7 && b.uid == 1000 && b.go == 1 && b.env.count == 2, "numbers and lists come back");
    is_str(b.command, "a = b\nc", "a command line comes back byte for byte");
    is_str(b.env.items[0], "X=y=z", "so does a variable");
    order_release(&a);
    order_release(&b);
    ok(order_decode(&b, text.data, text.len - 1, &err) == -1, "an order cut short is refused");
    order_release(&b);
    ok(order_decode(&b, "uid=-1", 7, &err) == -1, "so is a negative number");
    is_str(err.text, "uid=-1: not a number", "by name");
    order_release(&b);
    buf_free(&text);

    struct report r = {.phase = KEEPER_ENDED,
                       .has_result = true,
                       .exit_code = 137,
                       .exit_signal = 9,
                       .cpu_ms = 12,
                       .output_total = 1ull << 40,
                       .message = "two\nlines"},
                  s;
    char line[KEEPER_PACKET_MAX];
    size_t len = report_format(&r, line, sizeof line);
    ok(report_parse(&s, line, len, &err) == 0 && s.exit_code == 137 && s.output_total == 1ull << 40,
       "a report comes back");
    is_str(s.message, "two lines", "its message is one line");
    ok(report_parse(&s, "phase=9\n", 8, &err) == -1, "an unknown phase is refused");
    ok(launch_needs_shell("a | b") && launch_needs_shell("X=1 a") && launch_needs_shell("cd /") &&
           launch_needs_shell("a 'b'") && launch_needs_shell("a *"),
       "shell syntax is seen");
    ok(!launch_needs_shell("mpiexec -n 4 a:b=c,d /x-y.z @w") && !launch_needs_shell("true") &&
           !launch_needs_shell(""),
       "plain words need no shell");
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(program, sizeof program, "%s", argv[0]);
    char *slash = strrchr(program, '/');
    snprintf(slash ? slash : program, 64, "/../../bin/muster-keeper");
    if (getenv("MUSTER_BIN"))
        snprintf(program, sizeof program, "%s/muster-keeper", getenv("MUSTER_BIN"));
    strcpy(base, "/tmp/mukeepXXXXXX");
    if (!mkdtemp(base) || chmod(base, 0777))
        return 1;
    snprintf(tool, sizeof tool, "%s/step", base);
    static const char step[] = "#!/bin/sh\necho $MUSTER_STEP_ROLE `cat <&4` $WORD >&3\n"
                               "exec >/dev/null 3>&- 4>&-; setsid sleep 1000 & \n";
    file_write(AT_FDCWD, tool, step, sizeof step - 1, 0755, false, NULL);
    struct error err = {0};
    char name[80];
    snprintf(name, sizeof name, "muster-test-%s", base + 5);
    test_codec();
    test_orphan();
    groups = cgroup_open(name, &err);
    for (int pass = groups >= 0 ? 0 : 1; pass < 2; pass++) {
        with_groups = pass == 0;
        printf("# %s cgroup\n", with_groups ? "with a" : "without");
        test_results();
        test_files();
        test_environment();
        test_output();
        test_output_lost();
        test_left_over();
        test_cancel();
        test_limits();
        test_two_phases();
        test_steps();
        test_dead_keeper();
    }
    if (groups < 0)
        printf("# no cgroups here: %s\n", err.text);
    else
        cgroup_remove(name);
    file_remove_tree(AT_FDCWD, base, NULL);
    return tap_done();
}
