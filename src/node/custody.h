/* custody.h - finding and ending the processes of an attempt. libc only.
 *
 * With a cgroup (v2) the kernel ends all of it at once. Without one, the keeper is a subreaper:
 * whatever the task leaves behind becomes its child, so all of the attempt descends from it; they
 * are stopped until a scan of /proc finds no new one, then killed. When the keeper itself was
 * killed, the agent finds what is left by the mark in its environment.
 */
#ifndef MUSTER_NODE_CUSTODY_H
#define MUSTER_NODE_CUSTODY_H

#include <stdbool.h>
#include <sys/types.h>

/* fork(), into `cgroup` (a descriptor of its folder) unless that is -1. As fork(): 0 in the child. */
pid_t custody_fork(int cgroup);

/* Sends `sig` to all that descend from this process. Returns how many were found. */
int custody_signal(int sig);
/* The same, but only this process's own children of session `session`. */
int custody_signal_session(pid_t session, int sig);
/* Stops, then kills all that descend from this process. Does not wait for them. */
void custody_kill(void);

/* Writes cgroup.kill; 0, or -1 with errno. */
int custody_cgroup_kill(int cgroup);
/* 1 when a process lives in it or below, 0 when none does, -1 with errno. `events` is its file
 * cgroup.events, open for reading; poll() of it says POLLPRI when that has changed since. */
int custody_cgroup_populated(int events);
/* Removes the empty cgroup `name` in `parent` and those below it. 0, or -1 with errno (EBUSY: not empty). */
int custody_cgroup_remove(int parent, const char *name);

/* Kills every process of user `uid` whose environment holds the line `mark`. Returns how many there
 * were: 0 means that none is left. */
int custody_kill_marked(uid_t uid, const char *mark);

#endif
