/* proc.c - starting, finding again and ending the processes of a local cluster.
 *
 * The child of proc_start() opens its log, runs `setup` (enters or makes namespaces), writes its
 * pid file, gives up root, and executes the program. What fails on the way is written into a pipe
 * that closes by itself at the exec: an empty pipe means success.
 */
#include "local/proc.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_BYTES_MAX (4 << 20) /* a longer log becomes NAME.log.1 at the next start */

void proc_init(struct proc *p, const char *name)
{
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "%s", name);
    p->pidfd = -1;
}

/* Field 22 of /proc/PID/stat; the name in field 2 may hold blanks and brackets. 0: no such process. */
static uint64_t start_time(pid_t pid)
{
    char path[64];
    struct buf text = BUF_INIT;
    uint64_t start = 0;
    char state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (file_read(AT_FDCWD, path, 4096, &text, NULL) == 0) {
        const char *p = strrchr(buf_str(&text), ')');
        if (p &&
            sscanf(p + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lu",
                   &state, &start) != 2)
            start = 0;
        if (state == 'Z' || state == 'X') /* ended, only not yet waited for */
            start = 0;
    }
    buf_free(&text);
    return start;
}

static bool read_pid_file(const struct cluster *c, const char *name, pid_t *pid, uint64_t *start)
{
    struct buf text = BUF_INIT;
    long n = 0;
    unsigned long s = 0;
    bool good = file_read(AT_FDCWD, cluster_path(c, "pids/%s", name), 256, &text, NULL) == 0 &&
                sscanf(buf_str(&text), "%ld %lu", &n, &s) == 2 && n > 1 && s > 0;
    buf_free(&text);
    *pid = (pid_t)n;
    *start = s;
    return good && start_time(*pid) == s;
}

pid_t proc_peek(const struct cluster *c, const char *name)
{
    pid_t pid;
    uint64_t start;
    return read_pid_file(c, name, &pid, &start) ? pid : 0;
}

bool proc_adopt(struct proc *p, const struct cluster *c)
{
    pid_t pid;
    uint64_t start;
    if (!read_pid_file(c, p->name, &pid, &start))
        return false;
    int fd = pidfd_open(pid, 0);
    /* The number may have been given to another between the look and the open: look again. */
    if (fd < 0 || start_time(pid) != start) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    p->pid = pid;
    p->start = start;
    p->pidfd = fd;
    return true;
}

/* ---- the child ---- */

static int open_log(const struct cluster *c, const char *name)
{
    const char *path = cluster_path(c, "log/%s.log", name);
    struct stat st;
    if (stat(path, &st) == 0 && st.st_size > LOG_BYTES_MAX)
        rename(path, cluster_path(c, "log/%s.log.1", name));
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
}

static int become(const struct proc_spec *spec, struct error *err)
{
    if (geteuid() != 0 || spec->uid == 0)
        return 0;
    gid_t gid = spec->gid;
    if (setgroups(1, &gid) < 0 || setresgid(gid, gid, gid) < 0 ||
        setresuid(spec->uid, spec->uid, spec->uid) < 0)
        return error_sys(err, "account %u", (unsigned)spec->uid);
    return 0;
}

/* Daemons get an environment of their own: what the user's shell holds is not theirs to know. */
static void clean_environment(void)
{
    const char *keep[] = {"HOME",         "USER",         "LOGNAME", "TZ", "XDG_RUNTIME_DIR",
                          "ASAN_OPTIONS", "UBSAN_OPTIONS"};
    char *values[sizeof keep / sizeof *keep];
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
        const char *v = getenv(keep[i]);
        values[i] = v ? strdup(v) : NULL;
    }
    clearenv();
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("LANG", "C.UTF-8", 1);
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++)
        if (values[i])
            setenv(keep[i], values[i], 1);
}

static int child(const struct cluster *c, const struct proc_spec *spec, struct error *err)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int sig = 1; sig < SIGRTMAX; sig++)
        signal(sig, SIG_DFL);
    umask(022);
    setsid();
    int log = open_log(c, spec->name);
    if (log < 0)
        return error_sys(err, "%s", cluster_path(c, "log/%s.log", spec->name));
    int in = spec->stdin_fd >= 0 ? spec->stdin_fd : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in < 0 || dup2(in, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
        return error_sys(err, "standard input and output");
    if (chdir("/") < 0)
        return error_sys(err, "/");
    if (!spec->unlisted) {
        char text[64];
        int n = snprintf(text, sizeof text, "%d %lu\n", (int)getpid(), start_time(getpid()));
        if (file_write(AT_FDCWD, cluster_path(c, "pids/%s", spec->name), text, (size_t)n, 0644, false, err) <
            0)
            return -1;
    }
    clean_environment();
    if (spec->setup && spec->setup(spec->arg, err) < 0)
        return -1;
    if (become(spec, err) < 0)
        return -1;
    execv(spec->program, (char *const *)spec->argv);
    return error_sys(err, "%s", spec->program);
}

/* ---- the parent ---- */

int proc_start(struct proc *p, const struct cluster *c, const struct proc_spec *spec, int *report,
               struct error *err)
{
    int pipefd[2];
    proc_init(p, spec->name);
    if (pipe2(pipefd, O_CLOEXEC) < 0)
        return error_sys(err, "pipe");
    pid_t pid = fork();
    if (pid < 0) {
        close(pipefd[0]);
        close(pipefd[1]);
        return error_sys(err, "fork");
    }
    if (pid == 0) {
        struct error why = {0};
        close(pipefd[0]);
        child(c, spec, &why);
        file_write_all(pipefd[1], why.text, strlen(why.text));
        _exit(127);
    }
    close(pipefd[1]);
    p->pid = pid;
    p->start = start_time(pid);
    p->pidfd = pidfd_open(pid, 0);
    *report = pipefd[0];
    if (p->pidfd < 0) {
        error_sys(err, "pidfd_open");
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(pipefd[0]);
        p->pid = 0;
        return -1;
    }
    return 0;
}

int proc_started(struct proc *p, const struct cluster *c, int report, struct error *err)
{
    char text[sizeof err->text];
    size_t len = 0;
    ssize_t n;
    while (len < sizeof text - 1 &&
           ((n = read(report, text + len, sizeof text - 1 - len)) > 0 || (n < 0 && errno == EINTR)))
        len += n > 0 ? (size_t)n : 0;
    text[len] = 0;
    close(report);
    if (len == 0)
        return 0;
    proc_wait(p, c, -1, NULL);
    return error_set(err, ERR_IO, "%s: %s", p->name, text);
}

bool proc_alive(const struct proc *p)
{
    struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};
    return p->pid > 0 && poll(&pfd, 1, 0) == 0;
}

int proc_signal(const struct proc *p, int sig)
{
    return p->pid > 0 ? pidfd_send_signal(p->pidfd, sig, NULL, 0) : 0;
}

void proc_clear(struct proc *p, const struct cluster *c)
{
    pid_t pid;
    uint64_t start;
    if (p->pidfd >= 0)
        close(p->pidfd);
    p->pidfd = -1;
    p->pid = 0;
    if (!read_pid_file(c, p->name, &pid, &start)) /* another may have written it by now */
        unlink(cluster_path(c, "pids/%s", p->name));
}

bool proc_wait(struct proc *p, const struct cluster *c, int ms, int *status)
{
    if (status)
        *status = -1;
    if (p->pid > 0) {
        struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};
        int n;
        while ((n = poll(&pfd, 1, ms)) < 0 && errno == EINTR)
            ;
        if (n == 0)
            return false;
        int st;
        if (waitpid(p->pid, &st, 0) == p->pid && status) /* not our child when it was adopted */
            *status = st;
    }
    proc_clear(p, c);
    return true;
}

void proc_end(struct proc *p, const struct cluster *c, int ms)
{
    proc_signal(p, SIGTERM);
    if (proc_wait(p, c, ms, NULL))
        return;
    proc_signal(p, SIGKILL);
    proc_wait(p, c, 5000, NULL);
}

const char *proc_last_words(const struct cluster *c, const char *name)
{
    static char line[400];
    char tail[2048];
    line[0] = 0;
    int fd = open(cluster_path(c, "log/%s.log", name), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return line;
    off_t size = lseek(fd, 0, SEEK_END),
          from = size > (off_t)sizeof tail - 1 ? size - (off_t)sizeof tail + 1 : 0;
    ssize_t n = pread(fd, tail, sizeof tail - 1, from);
    close(fd);
    while (n > 0 && (tail[n - 1] == '\n' || tail[n - 1] == '\r'))
        n--;
    if (n <= 0)
        return line;
    tail[n] = 0;
    const char *last = strrchr(tail, '\n');
    snprintf(line, sizeof line, "%.399s", last ? last + 1 : tail);
    return line;
}
