/* file.c - files written whole or not at all, and small files read whole. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_TRIES 20
#define LOCK_RETRY_US 5000
#define REMOVE_DEPTH_MAX 32 /* descriptors open at a time; deeper folders are first moved up */
#define REMOVE_MOVES_MAX 100000000

int file_read(int dirfd, const char *path, size_t max, struct buf *out, struct error *err)
{
    int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        error_sys(err, "cannot open %s", path);
        if (err && errno == ENOENT)
            err->code = ERR_NOT_FOUND;
        return -1;
    }
    size_t total = 0;
    for (;;) {
        char *at = buf_reserve(out, 16384);
        ssize_t n = read(fd, at, 16384);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            error_sys(err, "cannot read %s", path);
            close(fd);
            return -1;
        }
        if (n == 0)
            break;
        buf_added(out, (size_t)n);
        total += (size_t)n;
        if (total > max) {
            close(fd);
            return error_set(err, ERR_LIMIT, "%s is longer than %zu bytes", path, max);
        }
    }
    close(fd);
    return 0;
}

int file_write_all(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

static int sync_folder_of(int dirfd, const char *path)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder ? 1 : 0] = 0;
    int fd = openat(dirfd, slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int rc = fsync(fd);
    close(fd);
    return rc;
}

int file_write(int dirfd, const char *path, const void *data, size_t len, mode_t mode, bool sync,
               struct error *err)
{
    char tmp[PATH_MAX];
    if (snprintf(tmp, sizeof tmp, "%s.tmp", path) >= (int)sizeof tmp)
        return error_set(err, ERR_LIMIT, "path too long: %.200s", path);
    int fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return error_sys(err, "cannot create %s", tmp);
    if (file_write_all(fd, data, len) || (sync && fsync(fd))) {
        error_sys(err, "cannot write %s", tmp);
        close(fd);
        unlinkat(dirfd, tmp, 0);
        return -1;
    }
    close(fd);
    if (renameat(dirfd, tmp, dirfd, path) || (sync && sync_folder_of(dirfd, path))) {
        error_sys(err, "cannot rename %s to %s", tmp, path);
        unlinkat(dirfd, tmp, 0);
        return -1;
    }
    return 0;
}

int file_mkdirs(const char *path, mode_t mode, struct error *err)
{
    char part[PATH_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
        return error_set(err, ERR_LIMIT, "path too long: %.200s", path);
    for (char *p = part + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char was = *p;
        *p = 0;
        if (mkdir(part, mode) && errno != EEXIST)
            return error_sys(err, "cannot make folder %s", part);
        *p = was;
        if (!was)
            return 0;
    }
}

int file_lock(int dirfd, const char *path, struct error *err)
{
    int fd = openat(dirfd, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_sys(err, "cannot open %s", path);
    /* Whoever asks file_locked() holds it for a moment. */
    int rc = flock(fd, LOCK_EX | LOCK_NB);
    for (int i = 0; rc && errno == EWOULDBLOCK && i < LOCK_TRIES; i++) {
        usleep(LOCK_RETRY_US);
        rc = flock(fd, LOCK_EX | LOCK_NB);
    }
    if (rc) {
        bool held = errno == EWOULDBLOCK;
        error_sys(err, "cannot lock %s", path);
        if (held)
            error_set(err, ERR_EXISTS, "%s is locked by another process", path);
        close(fd);
        return -1;
    }
    return fd;
}

int file_locked(int dirfd, const char *path, struct error *err)
{
    int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        error_sys(err, "cannot open %s", path);
        if (err && errno == ENOENT)
            err->code = ERR_NOT_FOUND;
        return -1;
    }
    /* A shared try-lock: two who ask at once do not see each other as the holder. */
    int held = flock(fd, LOCK_SH | LOCK_NB) ? (errno == EWOULDBLOCK ? 1 : -1) : 0;
    if (held < 0)
        error_sys(err, "cannot test the lock of %s", path);
    close(fd);
    return held;
}

/* A tree that is removed: what lies too deep is moved into its top folder and waits for the next pass. */
struct removal {
    int top;
    unsigned moved;
    struct error *err;
};

/* A folder of our own that its owner has locked: root need not ask, nobody else may. */
static int open_folder(int dirfd, const char *name)
{
    struct stat st;
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == EACCES && geteuid() != 0 && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(st.st_mode) && fchmodat(dirfd, name, 0700, 0) == 0)
        fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && geteuid() != 0 && fstat(fd, &st) == 0 && (st.st_mode & 0700) != 0700)
        fchmod(fd, 0700); /* where that fails, removing does too, and says so */
    return fd;
}

static int move_up(struct removal *r, int dirfd, const char *name)
{
    char to[32];
    do
        snprintf(to, sizeof to, "deep.%u", ++r->moved);
    while (renameat2(dirfd, name, r->top, to, RENAME_NOREPLACE) && errno == EEXIST);
    return faccessat(r->top, to, F_OK, AT_SYMLINK_NOFOLLOW)
               ? error_sys(r->err, "cannot move %s, to remove it", name)
               : 0;
}

static int remove_below(struct removal *r, int dirfd, const char *name, int depth);

static int empty(struct removal *r, int fd, int depth)
{
    int rc = 0, own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = own < 0 ? NULL : fdopendir(own);
    if (!dir) {
        error_sys(r->err, "cannot list a folder");
        if (own >= 0)
            close(own);
        return -1;
    }
    for (struct dirent *e; rc == 0 && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            rc = remove_below(r, fd, e->d_name, depth);
    closedir(dir);
    return rc;
}

/* Of one that was moved up nothing is left here. */
static int remove_below(struct removal *r, int dirfd, const char *name, int depth)
{
    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return error_sys(r->err, "cannot remove %s", name);
    if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0)
        return 0;
    int fd = open_folder(dirfd, name);
    if (fd < 0)
        return error_sys(r->err, "cannot open %s", name);
    if (depth == REMOVE_DEPTH_MAX) {
        close(fd);
        return move_up(r, dirfd, name);
    }
    int rc = empty(r, fd, depth + 1);
    close(fd);
    if (rc == 0 && unlinkat(dirfd, name, AT_REMOVEDIR))
        rc = error_sys(r->err, "cannot remove %s", name);
    return rc;
}

int file_remove_tree(int dirfd, const char *path, struct error *err)
{
    struct removal r = {.err = err};
    if (unlinkat(dirfd, path, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return error_sys(err, "cannot remove %s", path);
    r.top = open_folder(dirfd, path);
    if (r.top < 0)
        return error_sys(err, "cannot open %s", path);
    /* Each pass takes REMOVE_DEPTH_MAX levels from everything that is there. A folder may also be filled
     * while it is emptied, so ENOTEMPTY is no error so far. */
    int rc = -1;
    unsigned before;
    do {
        before = r.moved;
        rc = empty(&r, r.top, 1);
        if (rc == 0 && (rc = unlinkat(dirfd, path, AT_REMOVEDIR)))
            error_sys(err, "cannot remove %s", path);
    } while (rc && errno == ENOTEMPTY && r.moved != before && r.moved < REMOVE_MOVES_MAX);
    close(r.top);
    return rc;
}
