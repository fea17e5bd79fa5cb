/* sweep.c - leaving no process behind.
 *
 * The kernel lists a task's children in /proc; a killed child's children become ours in their turn,
 * so the list is read until it is empty. What dies uninterruptibly slowly is left to the kernel.
 */
#include "step/sweep.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SWEEP_LIMIT_MS 1000

static pid_t *spared;
static size_t spared_n, spared_cap;

/* Children of this process's first thread, the one that forks and adopts. */
static void list_children(struct buf *out)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    buf_reset(out);
    file_read(AT_FDCWD, path, 1024 * 1024, out, NULL);
}

void sweep_begin(void)
{
    struct buf b = BUF_INIT;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    list_children(&b);
    char *end;
    for (const char *p = buf_str(&b);; p = end) {
        long pid = strtol(p, &end, 10);
        if (end == p)
            break;
        spared = xgrow(spared, &spared_cap, spared_n + 1, sizeof *spared);
        spared[spared_n++] = (pid_t)pid;
    }
    buf_free(&b);
}

static bool is_spared(pid_t pid)
{
    for (size_t i = 0; i < spared_n; i++)
        if (spared[i] == pid)
            return true;
    return false;
}

void sweep_reap(bool (*keep)(void *arg, pid_t pid), void *arg)
{
    struct buf b = BUF_INIT;
    list_children(&b);
    char *end;
    for (const char *p = buf_str(&b);; p = end) {
        pid_t pid = (pid_t)strtol(p, &end, 10);
        if (end == p)
            break;
        if (pid > 1 && !is_spared(pid) && !keep(arg, pid))
            waitpid(pid, NULL, WNOHANG);
    }
    buf_free(&b);
}

void sweep_children(void)
{
    struct buf b = BUF_INIT;
    int64_t limit = clock_boot_ms() + SWEEP_LIMIT_MS;
    for (bool first = true;; first = false) {
        int others = 0;
        list_children(&b);
        char *end;
        for (const char *p = buf_str(&b);; p = end) {
            pid_t pid = (pid_t)strtol(p, &end, 10);
            if (end == p)
                break;
            if (pid <= 1 || is_spared(pid)) /* 0 would be our own group */
                continue;
            others++;
            kill(pid, SIGKILL);
            waitpid(pid, NULL, WNOHANG);
        }
        if (!others || clock_boot_ms() > limit)
            break;
        if (!first)
            nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
    buf_free(&b);
}
