/* space.c - making and entering namespaces.
 *
 * All of it runs in children between fork and exec; muster-local itself stays outside, as who it
 * is. An ordinary user's child owns every capability inside the user namespace it has made or
 * entered and loses them by itself at the exec. Only ip(8), which sets up the network, must keep
 * two: they are made ambient for it.
 */
#include "local/space.h"

#include "base/buf.h"
#include "base/file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BRIDGE_MAC "02:4d:75:00:00:00" /* locally administered */
#define NODE_MAC "02:4d:75:01:%02x:%02x"

/* ---- ip(8) ---- */

static int raise_ambient(struct error *err)
{
    static const cap_value_t caps[] = {CAP_NET_ADMIN, CAP_SYS_ADMIN};
    cap_t set = cap_get_proc();
    int rc = set && cap_set_flag(set, CAP_INHERITABLE, 2, caps, CAP_SET) == 0 ? cap_set_proc(set) : -1;
    if (set)
        cap_free(set);
    for (int i = 0; i < 2 && rc == 0; i++)
        rc = cap_set_ambient(caps[i], CAP_SET);
    return rc < 0 ? error_sys(err, "capabilities for ip") : 0;
}

static void ip_child(int in, int out, int net_ns)
{
    struct error err = {0};
    if (net_ns >= 0 && setns(net_ns, CLONE_NEWNET) < 0)
        error_sys(&err, "setns");
    else if (geteuid() == 0 || raise_ambient(&err) == 0) {
        dup2(in, 0);
        dup2(out, 1);
        dup2(out, 2);
        execlp("ip", "ip", "-batch", "-", (char *)NULL);
        error_sys(&err, "ip (package iproute2)");
    }
    file_write_all(out, err.text, strlen(err.text));
    _exit(127);
}

/* Runs ip(8) on a batch of commands, in the network namespace `net_ns` (-1: this one). */
static int ip_batch(const char *commands, int net_ns, struct error *err)
{
    int in = memfd_create("ip-batch", MFD_CLOEXEC), out = memfd_create("ip-output", MFD_CLOEXEC);
    if (in < 0 || out < 0 || file_write_all(in, commands, strlen(commands)) < 0 ||
        lseek(in, 0, SEEK_SET) < 0) {
        error_sys(err, "memfd");
        close(in);
        close(out);
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0)
        ip_child(in, out, net_ns);
    int status = -1;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    close(in);
    int rc = 0;
    if (pid < 0) {
        rc = error_sys(err, "fork");
    } else if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        char text[256];
        ssize_t n = pread(out, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = 0;
        text[strcspn(text, "\n")] = 0;
        rc = error_set(err, ERR_IO, "ip: %s", text[0] ? text : "failed");
    }
    close(out);
    return rc;
}

/* ---- making ---- */

static int write_proc(const char *path, const char *text, struct error *err)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int rc = fd < 0 || file_write_all(fd, text, strlen(text)) < 0 ? error_sys(err, "%s", path) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* A user namespace in which we are who we are, and nobody else is anybody. */
static int make_user(struct error *err)
{
    char map[64];
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (unshare(CLONE_NEWUSER) < 0)
        return error_sys(err, "user namespace");
    if (write_proc("/proc/self/setgroups", "deny", err) < 0)
        return -1;
    snprintf(map, sizeof map, "%u %u 1", (unsigned)uid, (unsigned)uid);
    if (write_proc("/proc/self/uid_map", map, err) < 0)
        return -1;
    snprintf(map, sizeof map, "%u %u 1", (unsigned)gid, (unsigned)gid);
    return write_proc("/proc/self/gid_map", map, err);
}

int space_make_network(void *arg, struct error *err)
{
    const struct cluster *c = ((struct space *)arg)->c;
    if (!c->root && make_user(err) < 0)
        return -1;
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
        return error_sys(err, "network and mount namespace");
    /* Mounts made on the host later appear here too; ours never appear there. */
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return error_sys(err, "mount namespace");
    if (strcmp(c->bin, c->built) && mount(c->built, c->bin, NULL, MS_BIND | MS_REC, NULL) < 0)
        return error_sys(err, "mount of %s on %s", c->built, c->bin);
    /* addrgenmode none: no IPv6 link addresses, which MPI libraries would try. forward_delay 0: the
     * bridge forwards from the first packet on. The hardware addresses are fixed, or the neighbours of one
     * that is made anew (and of a bridge, which takes the lowest of its ports') would look for the old one
     * for up to a minute. */
    return ip_batch("link set lo up\n"
                    "link add mu0 address " BRIDGE_MAC " type bridge forward_delay 0\n"
                    "link set mu0 addrgenmode none\n"
                    "addr add " SPACE_BRIDGE_ADDRESS "/16 dev mu0\n"
                    "link set mu0 up\n",
                    -1, err);
}

/* A /sys that shows this network namespace, with the control groups of the old one still in it. */
static int mount_sys(struct error *err)
{
    int cgroups = open_tree(AT_FDCWD, "/sys/fs/cgroup", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) {
        error_sys(err, "mount of /sys");
        if (cgroups >= 0)
            close(cgroups);
        return -1;
    }
    int rc = 0;
    if (cgroups >= 0) {
        if (move_mount(cgroups, "", AT_FDCWD, "/sys/fs/cgroup", MOVE_MOUNT_F_EMPTY_PATH) < 0)
            rc = error_sys(err, "mount of /sys/fs/cgroup");
        close(cgroups);
    }
    return rc;
}

int space_make_node(void *arg, struct error *err)
{
    const struct space *s = arg;
    const struct cluster *c = s->c;
    const char *name = cluster_node_name(c, s->index);
    if (space_enter_network(arg, err) < 0)
        return -1;
    int outer = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (outer < 0)
        return error_sys(err, "/proc/self/ns/net");
    if (unshare(CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWNS) < 0 || sethostname(name, strlen(name)) < 0)
        return error_sys(err, "namespaces of %s", name);
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return error_sys(err, "mount namespace of %s", name);
    if (mount_sys(err) < 0)
        return error_prefix(err, "%s", name);
    if (access("/etc/hosts", F_OK) == 0 &&
        mount(cluster_path(c, "hosts"), "/etc/hosts", NULL, MS_BIND, NULL) < 0)
        return error_sys(err, "mount of /etc/hosts in %s", name);

    struct buf text = BUF_INIT;
    buf_addf(&text,
             "link set lo up\n"
             "link add eth0 address " NODE_MAC " type veth peer name v%u netns %d\n"
             "link set eth0 addrgenmode none\n"
             "addr add %s/16 dev eth0\n"
             "link set eth0 up\n",
             (s->index + 1) >> 8, (s->index + 1) & 255, s->index + 1, (int)s->network->pid,
             cluster_node_address(c, true, s->index));
    int rc = ip_batch(buf_str(&text), -1, err);
    if (rc < 0) {
        /* The node's last namespace may still have its cable plugged in. */
        struct buf del = BUF_INIT;
        buf_addf(&del, "link del v%u\n", s->index + 1);
        if (ip_batch(buf_str(&del), outer, NULL) == 0)
            rc = ip_batch(buf_str(&text), -1, err);
        buf_free(&del);
    }
    buf_reset(&text);
    buf_addf(&text, "link set v%u addrgenmode none\nlink set v%u master mu0 up\n", s->index + 1,
             s->index + 1);
    if (rc == 0)
        rc = ip_batch(buf_str(&text), outer, err);
    buf_free(&text);
    close(outer);
    return rc < 0 ? error_prefix(err, "network of %s", name) : 0;
}

/* ---- entering ---- */

static int enter(const struct cluster *c, const struct proc *anchor, int flags, struct error *err)
{
    if (setns(anchor->pidfd, flags | (c->root ? 0 : CLONE_NEWUSER)) < 0)
        return error_sys(err, "namespaces of %s", anchor->name);
    return 0;
}

int space_enter_network(void *arg, struct error *err)
{
    const struct space *s = arg;
    return enter(s->c, s->network, CLONE_NEWNET | CLONE_NEWNS, err);
}

int space_enter_node(void *arg, struct error *err)
{
    const struct space *s = arg;
    return enter(s->c, s->node, CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS, err);
}

/* ---- the rest ---- */

int space_write_hosts(const struct cluster *c, struct error *err)
{
    struct buf text = BUF_INIT;
    if (file_read(AT_FDCWD, "/etc/hosts", 1 << 20, &text, NULL) < 0)
        buf_reset(&text);
    buf_addf(&text, "\n# nodes of the cluster %s\n", c->name);
    for (uint32_t i = 0; i < c->nodes; i++)
        buf_addf(&text, "%s %s\n", cluster_node_address(c, true, i), cluster_node_name(c, i));
    int rc = file_write(AT_FDCWD, cluster_path(c, "hosts"), text.data, text.len, 0644, false, err);
    buf_free(&text);
    return rc;
}

static bool net_of(pid_t pid, struct stat *st)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)pid);
    return stat(path, st) == 0;
}

int space_signal_all(const struct proc *anchor, const struct proc *spare, int sig)
{
    struct stat ours, st;
    if (anchor->pid <= 0 || !net_of(anchor->pid, &ours))
        return 0;
    /* An anchor that has not entered its namespace yet is still in the one we are in: the machine's. */
    if (!net_of(getpid(), &st) || (st.st_ino == ours.st_ino && st.st_dev == ours.st_dev))
        return 0;
    DIR *d = opendir("/proc");
    if (!d)
        return 0;
    int count = 0;
    struct dirent *e;
    while ((e = readdir(d))) {
        pid_t pid = isdigit((unsigned char)e->d_name[0]) ? (pid_t)atol(e->d_name) : 0;
        if (pid <= 1 || pid == anchor->pid || (spare && pid == spare->pid) || pid == getpid())
            continue;
        /* Opened first, looked at second: the number cannot become another process in between. */
        int fd = pidfd_open(pid, 0);
        if (fd >= 0 && net_of(pid, &st) && st.st_ino == ours.st_ino && st.st_dev == ours.st_dev &&
            pidfd_send_signal(fd, sig, NULL, 0) == 0)
            count++;
        if (fd >= 0)
            close(fd);
    }
    closedir(d);
    return count;
}
