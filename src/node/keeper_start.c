/* keeper_start.c - starting a keeper. See keeper_start.h.
 *
 * posix_spawn, because it does not copy the agent's page tables: a big agent starts a keeper as
 * fast as a small one. */
#include "node/keeper_start.h"
#include "base/file.h"
#include "node/keeper_proto.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* Descriptors are first copied above the places they go to, so that none overwrites another. */
static int spawn(const struct keeper_start *start, int control, pid_t *pid)
{
    const int from[] = {control, start->folder, start->order, start->node, start->context, start->cgroup};
    enum { COUNT = sizeof from / sizeof from[0] };
    int high[COUNT], rc = 0;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    /* Handlers end with exec; these may have been ignored, which would be inherited. */
    const int defaults[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGCHLD, SIGTSTP, SIGTTIN, SIGTTOU};
    sigset_t none, ignored;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    sigemptyset(&none);
    sigemptyset(&ignored);
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
        sigaddset(&ignored, defaults[i]);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &ignored);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    for (int i = 0; i < COUNT; i++)
        high[i] = from[i] >= 0 ? fcntl(from[i], F_DUPFD_CLOEXEC, KEEPER_FD_END + COUNT) : -1;
    for (int i = 0; i < COUNT; i++) {
        if (from[i] >= 0 && high[i] < 0)
            rc = errno;
        else if (from[i] >= 0)
            posix_spawn_file_actions_adddup2(&actions, high[i], KEEPER_FD_CONTROL + i);
        else
            posix_spawn_file_actions_addclose(&actions, KEEPER_FD_CONTROL + i);
    }
    posix_spawn_file_actions_addclosefrom_np(&actions, KEEPER_FD_END);
    char *const argv[] = {"muster-keeper", NULL}, *const environment[] = {NULL};
    if (!rc)
        rc = posix_spawn(pid, start->program, &actions, &attributes, argv, environment);
    for (int i = 0; i < COUNT; i++)
        if (high[i] >= 0)
            close(high[i]);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return rc;
}

int keeper_spawn(const struct keeper_start *start, int *control, pid_t *pid, struct error *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
        return error_sys(err, "cannot make a socket pair");
    int rc = spawn(start, pair[1], pid);
    close(pair[1]);
    if (rc) {
        close(pair[0]);
        errno = rc;
        return error_sys(err, "cannot start %s", start->program);
    }
    *control = pair[0];
    return 0;
}

int keeper_memfd(const char *name, const void *data, size_t len, struct error *err)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || file_write_all(fd, data, len) ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)) {
        error_sys(err, "cannot make a memfd");
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}
