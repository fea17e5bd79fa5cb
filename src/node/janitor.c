/* janitor.c - removing what tasks have left, beside the agent's loop. See janitor.h.
 *
 * FOLDER/gone.N waits to be removed. It is what is left when agent or helper are killed, too: a helper
 * removes all that it finds. The agent has one thread, so the child of its fork may use all of libc; it
 * holds nothing of the agent's but the log, least of all locks and listening sockets. */
#include "node/janitor.h"
#include "base/file.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define GONE "gone."
#define PRIORITY 19

void janitor_take(struct janitor *j, const char *name)
{
    char to[32];
    int rc, dir = open(j->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    do {
        snprintf(to, sizeof to, GONE "%u", ++j->given);
        rc = renameat2(dir, name, dir, to, RENAME_NOREPLACE);
    } while (rc && errno == EEXIST);
    if (rc && errno != ENOENT)
        log_warn("%s/%s: %s", j->folder, name, strerror(errno));
    if (dir >= 0)
        close(dir);
    if (rc == 0)
        j->again = true;
}

static _Noreturn void help(const char *folder)
{
    sigset_t none;
    struct error err;
    int failed = 0;
    const int caught[] = {SIGTERM, SIGINT, SIGCHLD}; /* by handlers that write to descriptors of the loop */
    for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++)
        signal(caught[i], SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close_range(3, ~0u, 0);
    setpriority(PRIO_PROCESS, 0, PRIORITY);
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (!strncmp(e->d_name, GONE, strlen(GONE)) && file_remove_tree(dirfd(dir), e->d_name, &err)) {
            log_warn("%s/%s: %s", folder, e->d_name, err.text);
            failed = 1;
        }
    _exit(failed);
}

void janitor_start(struct janitor *j)
{
    if (j->helper)
        return;
    j->again = false;
    pid_t pid = fork();
    if (pid == 0)
        help(j->folder);
    if (pid < 0)
        log_warn("cannot start a process that clears up: %s", strerror(errno));
    else
        j->helper = pid;
}

bool janitor_child(struct janitor *j, pid_t pid)
{
    if (!j->helper || pid != j->helper)
        return false;
    j->helper = 0;
    if (j->again)
        janitor_start(j);
    return true;
}
