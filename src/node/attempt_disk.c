/* attempt_disk.c - folders, status, cgroups: what of an attempt outlives the agent.
 *
 * Making and deleting files is what a short task's life costs most (keeper_proto.h), so a forgotten
 * attempt's folder is renamed to free.N and serves a later one; the same goes for its cgroup. */
#include "node/attempt.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "node/agent.h"
#include "node/custody.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static void pool_put(struct pool *pool, const char *name)
{
    snprintf(pool->names[pool->count++], sizeof pool->names[0], "%s", name);
}

static void pool_seen(struct pool *pool, const char *name)
{
    unsigned number = (unsigned)strtoul(strchr(name, '.') + 1, NULL, 10);
    if (number > pool->last)
        pool->last = number;
}

/* It has been seen empty (by the keeper, or by a sweep). One with groups of MPI steps in it (a folder
 * with more than two links) or one that was killed (cgroup.h) does not serve again. */
void attempt_free_cgroup(struct attempt *a)
{
    struct attempts *all = a->all;
    struct stat st;
    if (!a->cgroup[0])
        return;
    if (!a->report.killed && all->cgroups.count < FREE_MAX && fstatat(all->cgroup, a->cgroup, &st, 0) == 0 &&
        st.st_nlink == 2)
        pool_put(&all->cgroups, a->cgroup);
    else if (custody_cgroup_remove(all->cgroup, a->cgroup))
        return; /* busy for a moment: tried again when the attempt is forgotten */
    a->cgroup[0] = 0;
}

/* Gives the attempt a cgroup: its name, empty where there is none to be had. */
void attempt_take_cgroup(struct attempt *a)
{
    struct attempts *all = a->all;
    if (all->cgroup < 0)
        return;
    if (all->cgroups.count) {
        snprintf(a->cgroup, sizeof a->cgroup, "%s", all->cgroups.names[--all->cgroups.count]);
        return;
    }
    snprintf(a->cgroup, sizeof a->cgroup, "a.%u", ++all->cgroups.last);
    if (mkdirat(all->cgroup, a->cgroup, 0755)) {
        log_warn("attempt %s: cannot make a cgroup: %s", a->name, strerror(errno));
        a->cgroup[0] = 0;
    }
}

void attempt_write_status(struct attempt *a, const struct report *report)
{
    char path[64], text[KEEPER_STATUS_LEN];
    struct report r = *report;
    r.attempt = a->id;
    snprintf(path, sizeof path, "%s/status", a->name);
    memset(text, '\n', sizeof text);
    size_t len = report_format(&r, text, sizeof text);
    text[len] = '\n';
    int fd = openat(a->all->folder, path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || pwrite(fd, text, sizeof text, 0) != (ssize_t)sizeof text)
        log_error("attempt %s: cannot write its status: %s", a->name, strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* A status with another number is left from the folder's last use; an empty one is being written. */
bool attempt_read_status(struct attempt *a, struct report *r)
{
    char path[64];
    struct buf text = BUF_INIT;
    struct error err;
    snprintf(path, sizeof path, "%s/status", a->name);
    bool good = a->folder && file_read(a->all->folder, path, KEEPER_STATUS_LEN, &text, NULL) == 0 && text.len;
    if (good && report_parse(r, buf_str(&text), text.len, &err)) {
        log_error("attempt %s: status: %s", a->name, err.text);
        good = false;
    }
    buf_free(&text);
    return good && r->attempt == a->id;
}

bool attempt_locked(struct attempt *a)
{
    char path[64];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/order", a->name);
    int held = file_locked(a->all->folder, path, &err);
    if (held < 0 && err.code != ERR_NOT_FOUND)
        log_error("attempt %s: %s", a->name, err.text);
    return held == 1;
}

/* One that served an earlier attempt, if there is one. */
static int take_folder(struct attempt *a, struct error *err)
{
    struct attempts *all = a->all;
    while (all->folders.count) {
        const char *free_one = all->folders.names[--all->folders.count];
        if (renameat2(all->folder, free_one, all->folder, a->name, RENAME_NOREPLACE) == 0)
            return 0;
        if (errno == EEXIST)
            break;
        log_warn("attempts/%s: %s", free_one, strerror(errno));
    }
    return mkdirat(all->folder, a->name, 0700) ? error_sys(err, "cannot make folder attempts/%s", a->name)
                                               : 0;
}

static int open_order(struct attempt *a, struct error *err)
{
    char path[64];
    snprintf(path, sizeof path, "%s/order", a->name);
    a->order = openat(a->all->folder, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (a->order < 0)
        return error_sys(err, "cannot create attempts/%s", path);
    if (flock(a->order, LOCK_EX | LOCK_NB) == 0)
        return 0;
    error_sys(err, "cannot lock attempts/%s", path);
    close(a->order);
    a->order = -1;
    return -1;
}

int attempt_make_folder(struct attempt *a, const struct order *o, struct error *err)
{
    struct buf text = BUF_INIT;
    if (take_folder(a, err))
        return -1;
    a->folder = true;
    if (open_order(a, NULL)) { /* its last keeper is not quite gone: take a new one */
        if (file_remove_tree(a->all->folder, a->name, err))
            return -1;
        if (mkdirat(a->all->folder, a->name, 0700))
            return error_sys(err, "cannot make folder attempts/%s", a->name);
        if (open_order(a, err))
            return -1;
    }
    order_encode(o, &text);
    ssize_t n = pwrite(a->order, text.data, text.len, 0);
    size_t len = text.len;
    buf_free(&text);
    if (n != (ssize_t)len)
        return error_sys(err, "cannot write attempts/%s/order", a->name);
    return 0;
}

/* What it printed is removed; order and status are overwritten by the next one. */
bool attempt_free_folder(struct attempt *a)
{
    struct attempts *all = a->all;
    char path[64], name[24];
    if (all->folders.count == FREE_MAX)
        return false;
    snprintf(path, sizeof path, "%s/out", a->name);
    if (unlinkat(all->folder, path, 0) && errno != ENOENT)
        return false;
    snprintf(name, sizeof name, "free.%u", ++all->folders.last);
    if (renameat2(all->folder, a->name, all->folder, name, RENAME_NOREPLACE))
        return false;
    pool_put(&all->folders, name);
    return true;
}

void attempt_remove_run_dir(struct attempt *a)
{
    struct janitor *j = &a->all->agent->janitor;
    janitor_take(j, a->name);
    janitor_start(j);
}

/* A file `out` means that it was not emptied to the end. */
void disk_load_free(struct attempts *all, const char *name)
{
    char path[64];
    struct error err;
    pool_seen(&all->folders, name);
    snprintf(path, sizeof path, "%.24s/out", name);
    unlinkat(all->folder, path, 0);
    if (all->folders.count < FREE_MAX && strlen(name) < sizeof all->folders.names[0])
        pool_put(&all->folders, name);
    else if (file_remove_tree(all->folder, name, &err))
        log_warn("attempts/%s: %s", name, err.text);
}

/* Groups of attempts that live are theirs; the others are removed, so that the numbers start anew. */
void disk_load_cgroups(struct attempts *all)
{
    struct attempt *a, *next;
    int fd = all->cgroup >= 0 ? openat(all->cgroup, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        bool used = false;
        if (strncmp(e->d_name, "a.", 2))
            continue;
        for (unsigned i = 0; i < all->cgroups.count; i++)
            used = used || !strcmp(all->cgroups.names[i], e->d_name);
        pool_seen(&all->cgroups, e->d_name);
        HASH_ITER (hh, all->by_id, a, next)
            used = used || !strcmp(a->cgroup, e->d_name);
        if (!used)
            custody_cgroup_remove(all->cgroup, e->d_name);
    }
    if (dir)
        closedir(dir);
}

/* Run folders of attempts that do not live: left by a keeper that was killed with its agent. */
void disk_sweep_run_dirs(struct attempts *all)
{
    struct janitor *j = &all->agent->janitor;
    DIR *dir = opendir(j->folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char *end;
        uint64_t id = strtoull(e->d_name, &end, 10);
        struct attempt *a = id && !*end ? attempt_find(all, id) : NULL;
        if (id && !*end && (!a || !a->alive))
            janitor_take(j, e->d_name);
    }
    if (dir)
        closedir(dir);
}
