/* proc.h - a process that outlives its supervisor.
 *
 * Every process started here writes DIR/pids/NAME ("PID START", START being its start time in
 * clock ticks since boot, from /proc/PID/stat) before it becomes the program: a supervisor that
 * was killed at any moment leaves no process that the next one cannot find. The start time tells
 * a process from a later one that was given the same number; the pidfd keeps it apart for good.
 */
#ifndef MUSTER_LOCAL_PROC_H
#define MUSTER_LOCAL_PROC_H

#include "base/error.h"
#include "local/cluster.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct proc {
    char name[32]; /* of its pid file and its log */
    pid_t pid;     /* 0: not running, as far as is known */
    uint64_t start;
    int pidfd; /* -1 with pid 0 */
};

/* What the child does between fork and exec, as root or in a new namespace as may be. */
typedef int proc_setup(void *arg, struct error *err);

struct proc_spec {
    const char *name;
    const char *program; /* path, as it is after `setup` */
    const char *const *argv;
    uid_t uid; /* when root and not 0: setgroups, setgid, setuid before the exec */
    gid_t gid;
    proc_setup *setup; /* may be NULL */
    void *arg;
    int stdin_fd;  /* -1: /dev/null */
    bool unlisted; /* a short helper: no pid file */
};

void proc_init(struct proc *p, const char *name);

/* Starts it; its standard output and error go to DIR/log/NAME.log. proc_started() must follow:
 * that waits until the exec has succeeded (0) or tells what failed (-1, p->pid is 0 again). Between
 * the two several can be started at once. */
int proc_start(struct proc *p, const struct cluster *c, const struct proc_spec *spec, int *report,
               struct error *err);
int proc_started(struct proc *p, const struct cluster *c, int report, struct error *err);

/* Looks whether the process of the pid file lives and takes it over. true: it does. */
bool proc_adopt(struct proc *p, const struct cluster *c);
/* The same without taking it over: its number, or 0. */
pid_t proc_peek(const struct cluster *c, const char *name);

bool proc_alive(const struct proc *p);
int proc_signal(const struct proc *p, int sig); /* not running: no-op */
/* Waits until it has ended, at most `ms`. true: it has; p->pid is 0 then, the pid file is gone,
 * and, if it was a child, *status (may be NULL) holds what waitpid() says, else -1. */
bool proc_wait(struct proc *p, const struct cluster *c, int ms, int *status);
/* SIGTERM, at most `ms` of patience, SIGKILL, wait. */
void proc_end(struct proc *p, const struct cluster *c, int ms);
/* Forgets a process that has ended: closes, removes the pid file. */
void proc_clear(struct proc *p, const struct cluster *c);

/* The last line that NAME has logged, for "could not start" messages; "" if none. Static
 * storage. */
const char *proc_last_words(const struct cluster *c, const char *name);

#endif
