/* spawn.c - starting a process whose every detail is settled before the fork.
 *
 * A bare clone(2) with CLONE_PIDFD: fork without the C library's fork handlers. All signals are
 * blocked meanwhile, so that no handler of the parent runs in the child; the child sets every
 * disposition back to the default first. vfork would make the parent sleep through each exec.
 */
#include "step/spawn.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum failed_call { FAILED_FD, FAILED_CPUS, FAILED_WDIR, FAILED_EXEC };

static _Noreturn void child_fail(const struct spawn_failure *as, int fail_fd, int what)
{
    struct spawn_failure f = {.tag = as->tag, .error = errno, .what = what};
    ssize_t n = write(fail_fd, &f, sizeof f);
    (void)n; /* nothing is left to tell it with */
    _exit(127);
}

static _Noreturn void child_main(const struct spawn *s, unsigned tag, int fail_fd, pid_t parent,
                                 const sigset_t *mask, char *const *script_argv)
{
    struct spawn_failure me = {.tag = tag};
    struct sigaction sa = {.sa_handler = SIG_DFL};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before that */
        _exit(127);
    /* A session of its own: the terminal's signals do not reach it (we end it our way), and where
     * the kernel shares processors by session, we are not scheduled behind ranks that spin. */
    setsid();
    for (int sig = 1; sig < NSIG; sig++)
        sigaction(sig, &sa, NULL); /* KILL, STOP and the C library's own refuse: no matter */
    for (int i = 0; i < s->fds_n; i++) {
        const struct spawn_fd *f = &s->fds[i];
        if (f->from == f->to ? fcntl(f->to, F_SETFD, 0) : dup2(f->from, f->to) < 0)
            child_fail(&me, fail_fd, FAILED_FD);
    }
    if (s->cpus && sched_setaffinity(0, s->cpus_size, s->cpus))
        child_fail(&me, fail_fd, FAILED_CPUS);
    if (s->wdir && chdir(s->wdir))
        child_fail(&me, fail_fd, FAILED_WDIR);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execve(s->path, s->argv, s->envp);
    if (errno == ENOEXEC) /* a script without #! */
        execve("/bin/sh", script_argv, s->envp);
    child_fail(&me, fail_fd, FAILED_EXEC);
}

static char **script_argv(const struct spawn *s)
{
    size_t n = 0;
    while (s->argv[n])
        n++;
    char **argv = xcalloc(n + 3, sizeof *argv);
    argv[0] = (char *)"/bin/sh";
    argv[1] = (char *)s->path;
    for (size_t i = 1; i < n; i++)
        argv[i + 1] = s->argv[i];
    return argv;
}

pid_t spawn_process(const struct spawn *s, unsigned tag, int fail_fd, int *pidfd, struct error *err)
{
    char **fallback = script_argv(s);
    sigset_t all, mask;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &mask);
    pid_t parent = getpid();
    pid_t pid = (pid_t)syscall(SYS_clone, (unsigned long)(CLONE_PIDFD | SIGCHLD), NULL, pidfd, NULL, NULL);
    if (pid == 0)
        child_main(s, tag, fail_fd, parent, &mask, fallback);
    int saved = errno;
    sigprocmask(SIG_SETMASK, &mask, NULL);
    free(fallback);
    errno = saved;
    return pid < 0 ? error_sys(err, "cannot start a process") : pid;
}

void spawn_failure_text(const struct spawn_failure *f, const char *path, const char *wdir, struct error *err)
{
    errno = f->error;
    switch (f->what) {
    case FAILED_WDIR:
        error_sys(err, "cannot enter work directory %s", wdir);
        break;
    case FAILED_EXEC:
        error_sys(err, "cannot execute %s", path);
        break;
    case FAILED_CPUS:
        error_sys(err, "cannot bind it to its processors");
        break;
    default:
        error_sys(err, "cannot hand over a descriptor");
    }
}

/* 0: can be executed; else errno. */
static int executable(const char *path)
{
    struct stat st;
    if (stat(path, &st))
        return errno;
    if (!S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? EISDIR : EACCES;
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) ? errno : 0;
}

static char *below(const char *folder, size_t len, const char *wdir, const char *name)
{
    if (len == 0)
        return wdir ? xasprintf("%s/%s", wdir, name) : xstrdup(name);
    if (folder[0] == '/' || !wdir)
        return xasprintf("%.*s/%s", (int)len, folder, name);
    return xasprintf("%s/%.*s/%s", wdir, (int)len, folder, name);
}

char *spawn_lookup(const char *name, const char *path, const char *wdir, struct error *err)
{
    int worst = ENOENT;
    if (strchr(name, '/')) {
        char *full = name[0] == '/' ? xstrdup(name) : below("", 0, wdir, name);
        worst = executable(full);
        if (worst == 0)
            return full;
        free(full);
        char cwd[PATH_MAX];
        /* Who wrote ./program most often means another folder than that in which tasks start. */
        const char *from = name[0] == '/' ? NULL : wdir ? wdir : getcwd(cwd, sizeof cwd);
        errno = worst;
        if (from)
            error_sys(err, "cannot execute %s in work directory %s", name, from);
        else
            error_sys(err, "cannot execute %s", name);
        return NULL;
    }
    if (!path)
        path = "/usr/local/bin:/usr/bin:/bin";
    for (const char *p = path;;) {
        size_t len = strcspn(p, ":");
        char *full = below(p, len, wdir, name);
        int e = executable(full);
        if (e == 0)
            return full;
        free(full);
        if (e == EACCES)
            worst = e;
        if (!p[len])
            break;
        p += len + 1;
    }
    char *full = below("", 0, wdir, name);
    if (executable(full) == 0)
        return full;
    free(full);
    error_set(err, ERR_NOT_FOUND, "cannot find program %s in PATH%s", name,
              worst == EACCES ? " (one that was found is not executable)" : "");
    return NULL;
}
