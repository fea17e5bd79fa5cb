/* cgroup.c - the node's place for the cgroups of its attempts. See cgroup.h. */
#include "node/cgroup.h"
#include "base/buf.h"
#include "base/file.h"
#include "node/custody.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define REMOVE_TRIES 20
#define REMOVE_PAUSE_MS 10

/* A mount without a place in the tree: nobody else sees it, and it is gone with the descriptor. It
 * works where /sys was mounted anew for a network namespace and shows no cgroups. */
static int private_mount(void)
{
    int fs = fsopen("cgroup2", FSOPEN_CLOEXEC);
    if (fs < 0)
        return -1;
    int mount = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) ? -1 : fsmount(fs, FSMOUNT_CLOEXEC, 0);
    close(fs);
    return mount;
}

static int visible_mount(void)
{
    FILE *table = setmntent("/proc/self/mounts", "re");
    int fd = -1;
    for (struct mntent *m; table && fd < 0 && (m = getmntent(table));)
        if (!strcmp(m->mnt_type, "cgroup2"))
            fd = open(m->mnt_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (table)
        endmntent(table);
    return fd;
}

/* The path of our own cgroup below the mount: "." for its top. */
static void own_path(char *out, size_t size)
{
    struct buf text = BUF_INIT;
    snprintf(out, size, ".");
    if (file_read(AT_FDCWD, "/proc/self/cgroup", 65536, &text, NULL) == 0) {
        const char *line =
            strncmp(buf_str(&text), "0::/", 4) ? strstr(buf_str(&text), "\n0::/") : text.data - 1;
        size_t len = line ? strcspn(line + 5, "\n") : 0;
        /* "/../x": outside of what this namespace shows. */
        if (len && len < size && strncmp(line + 5, "..", 2)) {
            memcpy(out, line + 5, len);
            out[len] = 0;
        }
    }
    buf_free(&text);
}

static int try_out(int cgroup)
{
    if (faccessat(cgroup, "cgroup.kill", W_OK, AT_EACCESS))
        return -1;
    pid_t pid = custody_fork(cgroup);
    if (pid == 0)
        _exit(0);
    if (pid < 0)
        return -1;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return 0;
}

/* Opens the hierarchy and says where `name` is in it. */
static int locate(const char *name, char path[PATH_MAX])
{
    char own[PATH_MAX - 256];
    int mount = private_mount();
    own_path(own, sizeof own);
    snprintf(path, PATH_MAX, "%s/%.200s", own, name);
    return mount >= 0 ? mount : visible_mount();
}

void cgroup_remove(const char *name)
{
    char path[PATH_MAX];
    int mount = locate(name, path);
    if (mount < 0)
        return;
    /* One whose last process has just died may be busy for a moment. */
    for (int i = 0; custody_cgroup_remove(mount, path) && i < REMOVE_TRIES; i++)
        poll(NULL, 0, REMOVE_PAUSE_MS);
    close(mount);
}

int cgroup_open(const char *name, struct error *err)
{
    char path[PATH_MAX];
    int mount = locate(name, path);
    if (mount < 0)
        return error_sys(err, "no cgroup2 mount");
    if (mkdirat(mount, path, 0755) && errno != EEXIST) {
        error_sys(err, "cannot make cgroup %s", path);
        close(mount);
        return -1;
    }
    int fd = openat(mount, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(mount);
    if (fd < 0)
        return error_sys(err, "cannot open cgroup %s", path);
    if (try_out(fd)) {
        error_sys(err, "cannot start processes in cgroup %s", path);
        close(fd);
        return -1;
    }
    return fd;
}
