/* confine.c - gives up what the head does not need.
 *
 * Landlock (write accesses only: user databases may read anything readable) and a seccomp filter
 * that lists what a head never does. A list of what is allowed would be stricter, and would break
 * with the next version of libc, OpenSSL or SQLite. */
#include "head/confine.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WRITES                                                                                               \
    (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |        \
     LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |              \
     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |           \
     LANDLOCK_ACCESS_FS_MAKE_SYM)

static const int never[] = {
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(move_mount),
    SCMP_SYS(open_tree),
    SCMP_SYS(pivot_root),
    SCMP_SYS(chroot),
    SCMP_SYS(setns),
    SCMP_SYS(unshare),
    SCMP_SYS(bpf),
    SCMP_SYS(kexec_load),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(reboot),
    SCMP_SYS(swapon),
    SCMP_SYS(swapoff),
    SCMP_SYS(settimeofday),
    SCMP_SYS(setuid),
    SCMP_SYS(setgid),
    SCMP_SYS(setresuid),
    SCMP_SYS(setresgid),
    SCMP_SYS(setgroups),
    SCMP_SYS(mknodat),
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(keyctl),
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(process_vm_writev),
};

int confine_process(struct error *err)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return error_sys(err, "cannot give up privileges");
#ifndef __SANITIZE_ADDRESS__ /* the leak check at the end of the process looks at it with ptrace() */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        return error_sys(err, "cannot close the process's memory to others");
#endif
    return 0;
}

static int allow(int rules, const char *path, uint64_t access, struct error *err)
{
    struct landlock_path_beneath_attr beneath = {.allowed_access = access,
                                                 .parent_fd = open(path, O_PATH | O_CLOEXEC)};
    if (beneath.parent_fd < 0)
        return error_sys(err, "cannot open %s", path);
    long rc = syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0);
    close(beneath.parent_fd);
    return rc ? error_sys(err, "cannot confine writing to %s", path) : 0;
}

static int confine_files(const char *dir, const char *socket_folder, struct error *err)
{
    struct landlock_ruleset_attr attr = {.handled_access_fs = WRITES | LANDLOCK_ACCESS_FS_EXECUTE};
    int rules = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (rules < 0) {
        log_info("this kernel has no landlock: writing is confined by permissions alone");
        return 0;
    }
    int rc = allow(rules, dir, WRITES, err) ||
                     allow(rules, socket_folder,
                           LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REMOVE_FILE, err)
                 ? -1
                 : 0;
    if (!rc && syscall(SYS_landlock_restrict_self, rules, 0))
        rc = error_sys(err, "cannot confine writing");
    close(rules);
    return rc;
}

static int confine_calls(struct error *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    if (!filter)
        return error_set(err, ERR_IO, "cannot make a system call filter");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof never / sizeof *never; i++)
        rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), never[i], 0);
    if (rc == 0)
        rc = seccomp_load(filter);
    seccomp_release(filter);
    if (rc == -EINVAL || rc == -ENOSYS || rc == -EOPNOTSUPP) {
        log_info("this kernel has no system call filter");
        return 0;
    }
    errno = rc < 0 ? -rc : 0;
    return rc ? error_sys(err, "cannot load a system call filter") : 0;
}

int confine_access(const char *dir, const char *socket_folder, struct error *err)
{
    if (confine_files(dir, socket_folder, err))
        return -1;
#ifdef __SANITIZE_ADDRESS__
    (void)confine_calls;
    return 0;
#else
    return confine_calls(err);
#endif
}
