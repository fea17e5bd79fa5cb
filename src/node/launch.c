/* launch.c - from the keeper's fork to the user's program. See launch.h.
 *
 * Order matters: descriptors first (nothing of the keeper's may be held open by a child that
 * hangs in a slow open, least of all the lock `alive`), then what needs privilege, then identity,
 * then what must happen with the user's own rights. The keeper has one thread, so the child may
 * use all of libc. */
#include "node/launch.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORDS_MAX 4096
#define FILES_MAX 65536

static int error_fd = -1; /* of the child */
static const char *node_name;

__attribute__((format(printf, 2, 3))) static _Noreturn void fail(int exit_code, const char *fmt, ...)
{
    struct launch_error e = {.exit_code = exit_code};
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized): it is */
    va_end(ap);
    snprintf(e.text, sizeof e.text, "%.64s: %s", node_name, text);
    if (error_fd >= 0) {
        ssize_t done = write(error_fd, &e, sizeof e);
        (void)done; /* the keeper then sees the exit code alone */
    }
    _exit(exit_code);
}

void launch_step_path(const struct order *order, char *out, size_t size)
{
    snprintf(out, size, "%s/s", order->run_dir);
}

/* Makes fds[i] descriptor 3+i and closes all others from 3 up. They are first copied above the
 * places they go to, so that none overwrites another. -1 stays closed. */
static void keep_descriptors(int *fds, int count)
{
    for (int i = 0; i < count; i++)
        if (fds[i] >= 0)
            fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3 + count);
    for (int i = 0; i < count; i++) {
        if (fds[i] >= 0)
            dup2(fds[i], 3 + i);
        else
            close(3 + i);
    }
    close_range((unsigned)(3 + count), ~0u, 0);
}

/* The keeper was started with default actions and has installed none. */
static void unblock_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* What the daemons need for themselves must not leak into jobs, and pinned memory for RDMA must
 * not depend on how the agent was started. */
static void set_limits(void)
{
    struct rlimit core, files;
    if (getrlimit(RLIMIT_CORE, &core) == 0) {
        core.rlim_cur = 0;
        setrlimit(RLIMIT_CORE, &core);
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur > FILES_MAX) {
        files.rlim_cur = FILES_MAX; /* the agent raised its own; a task may do so too */
        setrlimit(RLIMIT_NOFILE, &files);
    }
    struct rlimit locked = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_MEMLOCK, &locked); /* only root may raise it; others keep what they have */
}

static void set_processors(const struct order *order)
{
    if (!order->cpu.count)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    for (size_t i = 0; i < order->cpu.count; i++) {
        unsigned long cpu = strtoul(order->cpu.items[i], NULL, 10);
        if (cpu < CPU_SETSIZE)
            CPU_SET(cpu, &set);
    }
    if (sched_setaffinity(0, sizeof set, &set))
        fail(126, "cannot bind to the processors of this task: %s", strerror(errno));
}

static void become_user(const struct order *order)
{
    uid_t uid = (uid_t)order->uid;
    gid_t gid = (gid_t)order->gid;
    if (geteuid() == 0) {
        gid_t groups[256];
        size_t count = 0;
        for (; count < order->group.count && count < 256; count++)
            groups[count] = (gid_t)strtoul(order->group.items[count], NULL, 10);
        if (setgroups(count, groups) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
            fail(126, "cannot become user %u: %s", uid, strerror(errno));
    }
    if (getuid() != uid || geteuid() != uid)
        fail(126, "the agent runs as user %u and cannot run tasks of user %u", getuid(), uid);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail(126, "cannot set no_new_privs: %s", strerror(errno));
}

/* Dies with the keeper: without a keeper nobody would keep limits and count the output. The signal
 * comes for a death after prctl(), the look at the parent is for one before. It stands after the change
 * of identity, which resets the signal. */
static void die_with(pid_t keeper)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != keeper)
        _exit(126);
}

static const char *home_of(const struct order *order)
{
    struct stat st;
    if (order->home[0] && stat(order->home, &st) == 0 && S_ISDIR(st.st_mode))
        return order->home;
    return order->home_fallback[0] ? order->home_fallback : order->home;
}

static void set_environment(const struct order *order, const char *home)
{
    clearenv();
    for (size_t i = 0; i < order->env.count; i++) {
        char *name = order->env.items[i], *value = strchr(name, '=');
        if (!value || value == name)
            continue;
        *value++ = 0;
        if (*value)
            setenv(name, value, 1);
        else
            unsetenv(name);
    }
    /* HOME is what the node found, unless the user says otherwise: then it is in the list. */
    setenv("HOME", home[0] ? home : "/", 0);
    char text[512];
    snprintf(text, sizeof text, "%s.%llu", order->install_id, (unsigned long long)order->attempt);
    setenv("MUSTER_ATTEMPT", text, 1);
    launch_step_path(order, text, sizeof text);
    setenv("MUSTER_STEP", text, 1);
}

static void enter_work_dir(const struct order *order, const char *home)
{
    const char *dir = order->work_dir[0] ? order->work_dir : home[0] ? home : "/";
    /* A relative one counts from home, as a shell started there would have it. */
    if (dir[0] != '/' && home[0] && chdir(home))
        fail(126, "work directory %s: home %s: %s", dir, home, strerror(errno));
    if (chdir(dir))
        fail(126, "work directory %s: %s", dir, strerror(errno));
    setenv("PWD", dir, 1);
    if (dir[0] != '/')
        unsetenv("PWD");
}

static void open_as(int target, const char *what, const char *path, int flags)
{
    int fd = open(path, flags | O_NOCTTY | O_CLOEXEC, 0666);
    if (fd < 0)
        fail(126, "%s %s: %s", what, path, strerror(errno));
    dup2(fd, target);
    close(fd);
}

static void open_stdio(const struct order *order, int output)
{
    const int write_flags = O_WRONLY | O_CREAT | O_TRUNC;
    open_as(0, "stdin", order->stdin_path[0] ? order->stdin_path : "/dev/null", O_RDONLY);
    if (order->stdout_path[0])
        open_as(1, "stdout", order->stdout_path, write_flags);
    else
        dup2(output, 1);
    if (order->stderr_path[0] && strcmp(order->stderr_path, order->stdout_path))
        open_as(2, "stderr", order->stderr_path, write_flags);
    else
        dup2(1, 2);
}

/* Words that a shell provides and no program does. `test`, `echo`, `true` exist as programs. */
static const char *const shell_words[] = {
    ".",    ":",      "alias",  "break",  "builtin", "case",     "cd",    "command",
    "eval", "exec",   "exit",   "export", "for",     "function", "if",    "let",
    "read", "return", "select", "set",    "shift",   "source",   "times", "trap",
    "type", "ulimit", "umask",  "until",  "unset",   "wait",     "while"};

bool launch_needs_shell(const char *command)
{
    if (strpbrk(command, "|&;<>()$`\\\"'*?[]#~%{}!\n"))
        return true;
    command += strspn(command, " \t");
    size_t len = strcspn(command, " \t");
    if (memchr(command, '=', len))
        return true;
    for (size_t i = 0; i < sizeof shell_words / sizeof shell_words[0]; i++)
        if (len == strlen(shell_words[i]) && !strncmp(command, shell_words[i], len))
            return true;
    return false;
}

static _Noreturn void run(char *const *argv)
{
    execvp(argv[0], argv);
    int saved = errno;
    char cwd[PATH_MAX];
    /* Who wrote ./program most often means another folder than that in which tasks start. */
    if (argv[0][0] != '/' && strchr(argv[0], '/') && getcwd(cwd, sizeof cwd))
        fail(saved == ENOENT ? 127 : 126, "cannot run %s in work directory %s: %s", argv[0], cwd,
             strerror(saved));
    fail(saved == ENOENT ? 127 : 126, "cannot run %s: %s", argv[0], strerror(saved));
}

static _Noreturn void run_command(const char *command)
{
    if (launch_needs_shell(command)) {
        char *const argv[] = {"/bin/bash", "-c", (char *)command, NULL};
        run(argv);
    }
    char *copy = xstrdup(command), *argv[WORDS_MAX + 1], *state = NULL;
    size_t count = 0;
    for (char *word = strtok_r(copy, " \t\r", &state); word; word = strtok_r(NULL, " \t\r", &state)) {
        if (count == WORDS_MAX)
            fail(126, "command line has more than %d words", WORDS_MAX);
        argv[count++] = word;
    }
    argv[count] = NULL;
    if (!count)
        fail(126, "command line is empty");
    run(argv);
}

_Noreturn void launch_task(const struct order *order, pid_t keeper, int output, int error)
{
    int fds[2] = {error, output};
    node_name = order->node;
    keep_descriptors(fds, 2);
    error_fd = 3;
    fcntl(3, F_SETFD, FD_CLOEXEC);
    if (output >= 0)
        fcntl(4, F_SETFD, FD_CLOEXEC);
    setsid();
    unblock_signals();
    set_processors(order);
    set_limits();
    become_user(order);
    die_with(keeper);
    umask(022);
    const char *home = home_of(order);
    set_environment(order, home);
    enter_work_dir(order, home);
    open_stdio(order, 4);
    run_command(order->command);
}

_Noreturn void launch_step(const struct order *order, pid_t keeper, const char *role, int socket, int context,
                           int output)
{
    int fds[3] = {socket, context, output};
    node_name = order->node;
    error_fd = -1;
    keep_descriptors(fds, 3);
    setsid();
    unblock_signals();
    set_processors(order);
    set_limits();
    become_user(order);
    die_with(keeper);
    umask(022);
    const char *home = home_of(order);
    set_environment(order, home);
    setenv("MUSTER_STEP_ROLE", role, 1);
    /* Where ranks run is said by mpiexec, and what is missing is reported by the step. */
    if (!order->work_dir[0] || chdir(order->work_dir))
        if (!home[0] || chdir(home)) {
            int rc = chdir("/");
            (void)rc; /* any folder will do */
        }
    open_as(0, "stdin", "/dev/null", O_RDONLY);
    if (output >= 0) {
        dup2(5, 1);
        dup2(5, 2);
        close(5);
    } else {
        open_as(1, "stdout", "/dev/null", O_WRONLY);
        dup2(1, 2);
    }
    char *const argv[] = {"muster-step", NULL};
    execv(order->step_program, argv);
    fail(127, "cannot run %s: %s", order->step_program, strerror(errno));
}
