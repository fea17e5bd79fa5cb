/* spawn.c - starting a process whose every detail is settled before the fork.
 *
 * clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD): the child runs on a stack of its own in the parent's
 * memory, the parent stands still until the exec. All signals are blocked meanwhile, so that no
 * handler of the parent runs in the child; the child sets every disposition back to the default.
 */
#include "step/spawn.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_STACK (64 * 1024)

struct child {
    const struct spawn *spawn;
    sigset_t mask; /* what the parent had before */
    const char *failed; /* set by the child: what it was doing when it failed */
    int error;
    char *const *script_argv; /* "/bin/sh", path, ...: for a file without #! */
};

static int child_fail(struct child *c, const char *what)
{
    c->error = errno;
    c->failed = what;
    _exit(127);
}

static int child_main(void *arg)
{
    struct child *c = arg;
    const struct spawn *s = c->spawn;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    struct sigaction sa = {.sa_handler = SIG_DFL};
    for (int sig = 1; sig < NSIG; sig++)
        sigaction(sig, &sa, NULL); /* KILL, STOP and the C library's own refuse: no matter */
    for (int i = 0; i < s->fds_n; i++) {
        const struct spawn_fd *f = &s->fds[i];
        if (f->from == f->to ? fcntl(f->to, F_SETFD, 0) : dup2(f->from, f->to) < 0)
            return child_fail(c, "cannot hand over a descriptor");
    }
    if (s->cpus && sched_setaffinity(0, s->cpus_size, s->cpus))
        return child_fail(c, "cannot bind to its processors");
    if (s->wdir && chdir(s->wdir))
        return child_fail(c, "cannot enter work directory");
    sigprocmask(SIG_SETMASK, &c->mask, NULL);
    execve(s->path, s->argv, s->envp);
    if (errno == ENOEXEC)
        execve("/bin/sh", c->script_argv, s->envp);
    return child_fail(c, "cannot execute");
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

pid_t spawn_process(const struct spawn *s, int *pidfd, struct error *err)
{
    static char *stack;
    if (!stack) {
        stack = mmap(NULL, CHILD_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        if (stack == MAP_FAILED) {
            stack = NULL;
            return error_sys(err, "no memory to start a process");
        }
    }
    char **fallback = script_argv(s);
    struct child c = {.spawn = s, .script_argv = fallback};
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &c.mask);
    int fd = -1;
    pid_t pid = clone(child_main, stack + CHILD_STACK, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &c, &fd);
    int clone_errno = errno;
    sigprocmask(SIG_SETMASK, &c.mask, NULL);
    free(fallback);
    if (pid < 0) {
        errno = clone_errno;
        return error_sys(err, "cannot start a process");
    }
    if (c.failed) {
        waitpid(pid, NULL, 0);
        close(fd);
        errno = c.error;
        return error_sys(err, "%s %s", c.failed,
                         strstr(c.failed, "directory") ? s->wdir : strstr(c.failed, "execute") ? s->path : "");
    }
    *pidfd = fd;
    return pid;
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
        errno = worst;
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
