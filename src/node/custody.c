/* custody.c - finding and ending the processes of an attempt. See custody.h.
 *
 * A scan of /proc is a snapshot that is old when it is done: a process may fork behind it. So the
 * killing scan is repeated, with everything that was found stopped, until a round finds nobody new;
 * a stopped process cannot fork. Rounds are bounded; the caller comes back while children are left. */
#include "node/custody.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STOP_ROUNDS_MAX 50

struct process {
    pid_t pid, parent, session;
    char state;
    bool ours;
};
struct processes {
    struct process *list;
    size_t count, cap;
};

pid_t custody_fork(int cgroup)
{
    if (cgroup < 0)
        return fork();
    struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)cgroup};
    return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static ssize_t read_small(int dirfd, const char *path, char *out, size_t size)
{
    int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, out, size - 1);
    close(fd);
    out[n > 0 ? n : 0] = 0;
    return n;
}

/* /proc/PID/stat: "PID (name) state ppid pgrp session ..."; the name may hold blanks and brackets. */
static bool read_process(int proc, const char *pid, struct process *p)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "%.20s/stat", pid);
    if (read_small(proc, path, text, sizeof text) <= 0)
        return false;
    const char *tail = strrchr(text, ')');
    int parent, group, session;
    *p = (struct process){.pid = (pid_t)atoi(pid)};
    if (!tail || sscanf(tail + 1, " %c %d %d %d", &p->state, &parent, &group, &session) != 4)
        return false;
    p->parent = parent;
    p->session = session;
    return true;
}

static void scan(struct processes *all)
{
    all->count = 0;
    DIR *dir = opendir("/proc");
    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] < '1' || e->d_name[0] > '9')
            continue;
        all->list = xgrow(all->list, &all->cap, all->count + 1, sizeof *all->list);
        if (read_process(dirfd(dir), e->d_name, &all->list[all->count]))
            all->count++;
    }
    closedir(dir);
    /* Marks what descends from us, generation by generation: `next` walks the pids found so far. */
    pid_t *found = xmalloc((all->count + 1) * sizeof *found);
    size_t have = 1;
    found[0] = getpid();
    for (size_t next = 0; next < have; next++)
        for (size_t i = 0; i < all->count; i++) {
            struct process *p = &all->list[i];
            if (p->parent == found[next] && !p->ours && p->pid != found[0]) {
                p->ours = true;
                found[have++] = p->pid;
            }
        }
    free(found);
}

int custody_signal(int sig)
{
    struct processes all = {0};
    int found = 0;
    scan(&all);
    for (size_t i = 0; i < all.count; i++)
        if (all.list[i].ours && all.list[i].state != 'Z') {
            kill(all.list[i].pid, sig);
            found++;
        }
    free(all.list);
    return found;
}

int custody_signal_session(pid_t session, int sig)
{
    struct processes all = {0};
    int found = 0;
    scan(&all);
    for (size_t i = 0; i < all.count; i++)
        if (all.list[i].parent == getpid() && all.list[i].session == session && all.list[i].state != 'Z') {
            kill(all.list[i].pid, sig);
            found++;
        }
    free(all.list);
    return found;
}

void custody_kill(void)
{
    struct processes all = {0};
    for (int round = 0, running = 1; running && round < STOP_ROUNDS_MAX; round++) {
        running = 0;
        scan(&all);
        for (size_t i = 0; i < all.count; i++) {
            struct process *p = &all.list[i];
            if (!p->ours || p->state == 'Z' || p->state == 'T')
                continue;
            kill(p->pid, SIGSTOP);
            running++;
        }
    }
    for (size_t i = 0; i < all.count; i++)
        if (all.list[i].ours)
            kill(all.list[i].pid, SIGKILL);
    free(all.list);
}

int custody_cgroup_kill(int cgroup)
{
    int fd = openat(cgroup, "cgroup.kill", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, "1", 1);
    close(fd);
    return n == 1 ? 0 : -1;
}

int custody_cgroup_populated(int events)
{
    char text[256];
    ssize_t n = pread(events, text, sizeof text - 1, 0);
    if (n <= 0)
        return -1;
    text[n] = 0;
    return strstr(text, "populated 1") ? 1 : 0;
}

/* The steps' own groups are one level below; nothing of ours is deeper. */
int custody_cgroup_remove(int parent, const char *name)
{
    if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return -1;
    }
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_type == DT_DIR && e->d_name[0] != '.')
            unlinkat(fd, e->d_name, AT_REMOVEDIR);
    closedir(dir);
    return unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -1;
}

static bool environment_has(int proc, const char *pid, const char *mark)
{
    char path[64];
    snprintf(path, sizeof path, "%.20s/environ", pid);
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    char chunk[16384];
    size_t keep = 0, want = strlen(mark);
    bool found = false, first = true;
    for (ssize_t n; !found && (n = read(fd, chunk + keep, sizeof chunk - keep)) > 0;) {
        size_t len = keep + (size_t)n;
        for (size_t i = 0; !found && i + want < len; i++)
            found = chunk[i + want] == 0 && ((i == 0 && first) || (i > 0 && chunk[i - 1] == 0)) &&
                    !memcmp(chunk + i, mark, want);
        keep = len < want + 1 ? len : want + 1;
        memmove(chunk, chunk + len - keep, keep);
        first = false;
    }
    close(fd);
    return found;
}

/* The descriptor pins the process, so that between the look at its environment and the signal its
 * number cannot go to someone else. */
static bool kill_if_marked(int proc, const char *name, uid_t uid, const char *mark)
{
    struct stat st;
    if (fstatat(proc, name, &st, 0) || (st.st_uid != uid && st.st_uid != 0))
        return false;
    int fd = (int)syscall(SYS_pidfd_open, atoi(name), 0);
    if (fd < 0)
        return false;
    bool marked = environment_has(proc, name, mark);
    if (marked)
        syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
    close(fd);
    return marked;
}

int custody_kill_marked(uid_t uid, const char *mark)
{
    DIR *dir = opendir("/proc");
    if (!dir)
        return 0;
    int found = 0;
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
            found += kill_if_marked(dirfd(dir), e->d_name, uid, mark);
    closedir(dir);
    return found;
}
