/* cluster.c - the folder of a local cluster: choices in, paths and accounts out.
 *
 * Everything that can be refused is refused here, before a process is started: names, numbers,
 * folders that cannot be written or that the head's account could not reach, paths too long for
 * a socket. cluster_init() may be repeated and interrupted: each step looks whether it is done.
 *
 * Who runs what. An ordinary user runs everything as himself. Root runs the head as the account
 * `muster` if there is one, else as a number from the range that systemd keeps for such uses
 * (61184..65519), chosen by the folder's path so that it stays the same; tasks of root run as
 * another account, because a cluster never runs a task as root.
 */
#include "local/cluster.h"

#include "base/file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pwd.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define UID_RANGE_FIRST 61184 /* systemd's range for dynamic users: no account is made there by hand */
#define UID_RANGE_LAST 65519
#define SOCKET_PATH_MAX (sizeof((struct sockaddr_un *)0)->sun_path - 1)
#define CLUSTER_JSON_MAX 65536
#define FIRST_HOST 11 /* node 1 is .11: room for the head and others below */

static char *scratch(void)
{
    static char slots[8][PATH_MAX];
    static unsigned next;
    return slots[next++ % 8];
}

const char *cluster_path(const struct cluster *c, const char *fmt, ...)
{
    char *out = scratch();
    int n = snprintf(out, PATH_MAX, "%s/", c->dir);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out + n, PATH_MAX - (size_t)n, fmt, ap);
    va_end(ap);
    return out;
}

const char *cluster_node_name(const struct cluster *c, uint32_t i)
{
    char *out = scratch();
    snprintf(out, PATH_MAX, "node%02u", i + 1);
    return out;
}

const char *cluster_node_address(const struct cluster *c, bool namespaces, uint32_t i)
{
    char *out = scratch();
    uint32_t host = FIRST_HOST + i;
    snprintf(out, PATH_MAX, "%s.%u.%u", namespaces ? "10.77" : "127.0", host >> 8, host & 255);
    return out;
}

/* FNV-1a: only has to give the same number for the same path. */
static uint32_t hash_text(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 16777619u;
    return h;
}

static bool folder_open_to_all(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && (st.st_mode & S_IXOTH);
}

bool cluster_open_to_all(const char *path)
{
    char part[PATH_MAX];
    if (strlen(path) >= sizeof part)
        return false;
    for (const char *p = path; p && *p; p = strchr(p + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(p - path), path);
        if (p > path && !folder_open_to_all(part))
            return false;
    }
    return folder_open_to_all(path);
}

/* ---- the choices ---- */

static int check_name(const char *name, struct error *err)
{
    size_t len = strlen(name);
    bool good = len > 0 && len <= CLUSTER_NAME_MAX && isalnum((unsigned char)name[0]);
    for (size_t i = 0; i < len; i++)
        good = good && (isalnum((unsigned char)name[i]) || strchr("-_.", name[i]));
    if (!good)
        return error_set(err, ERR_USAGE,
                         "cluster name '%.70s': expected 1 to %d letters, digits, '-', '_' or '.'", name,
                         CLUSTER_NAME_MAX);
    return 0;
}

static int check_number(const char *what, uint32_t value, uint32_t max, struct error *err)
{
    if (value < 1 || value > max)
        return error_set(err, ERR_USAGE, "%s %u: expected a number from 1 to %u", what, value, max);
    return 0;
}

static int choose_user(struct cluster *c, const char *wanted, struct error *err)
{
    if (!c->root) {
        if (wanted)
            return error_set(err, ERR_USAGE, "user '%.64s': only root can name an account for tasks", wanted);
        return 0;
    }
    const char *sudo = getenv("SUDO_USER");
    struct passwd *pw = NULL;
    if (!wanted && sudo && *sudo && (pw = getpwnam(sudo)) && pw->pw_uid)
        wanted = sudo;
    if (!wanted)
        wanted = "nobody";
    pw = getpwnam(wanted);
    if (!pw)
        return error_set(err, ERR_USAGE, "user '%.64s': there is no such account", wanted);
    if (pw->pw_uid == 0)
        return error_set(err, ERR_USAGE, "user '%.64s': tasks never run as root; expected another account",
                         wanted);
    if (strlen(wanted) >= sizeof c->user)
        return error_set(err, ERR_USAGE, "user '%.64s': the name is too long", wanted);
    strcpy(c->user, wanted);
    return 0;
}

static void choose_head_account(struct cluster *c)
{
    c->head_uid = geteuid();
    c->head_gid = getegid();
    if (!c->root)
        return;
    struct passwd *pw = getpwnam("muster");
    if (pw && pw->pw_uid) {
        c->head_uid = pw->pw_uid;
        c->head_gid = pw->pw_gid;
        return;
    }
    uint32_t count = UID_RANGE_LAST - UID_RANGE_FIRST + 1, first = hash_text(c->dir) % count;
    for (uint32_t i = 0; i < count; i++) {
        uid_t uid = UID_RANGE_FIRST + (first + i) % count;
        if (!getpwuid(uid)) {
            c->head_uid = uid;
            c->head_gid = uid;
            return;
        }
    }
}

static int choose(struct cluster *c, const struct cluster_choice *choice, struct error *err)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    snprintf(c->name, sizeof c->name, "%s", choice->name ? choice->name : "muster");
    c->nodes = choice->nodes ? choice->nodes : 4;
    /* The nodes share the machine: together they offer what it has, but each at least one core. */
    uint32_t share = processors > 0 ? (uint32_t)processors / c->nodes : 1;
    c->cores_per_node = choice->cores_per_node ? choice->cores_per_node : share > 0 ? share : 1;
    c->no_namespaces = choice->no_namespaces;
    c->port = choice->port;
    if (choice->name && check_name(choice->name, err) < 0)
        return -1;
    if (check_number("nodes", c->nodes, CLUSTER_NODES_MAX, err) < 0 ||
        check_number("cores per node", c->cores_per_node, CLUSTER_CORES_MAX, err) < 0)
        return -1;
    if (choose_user(c, choice->user, err) < 0)
        return -1;
    choose_head_account(c);
    return 0;
}

static int differs(const struct cluster *c, const struct cluster_choice *w, struct error *err)
{
    const char *fmt = "the cluster in %s has %s, not %s: leave the option out, or choose another folder";
    char have[160], want[96];
    have[0] = 0;
    if (w->name && strcmp(w->name, c->name)) {
        snprintf(have, sizeof have, "the name '%s'", c->name);
        snprintf(want, sizeof want, "'%.64s'", w->name);
    } else if (w->nodes && w->nodes != c->nodes) {
        snprintf(have, sizeof have, "%u nodes", c->nodes);
        snprintf(want, sizeof want, "%u", w->nodes);
    } else if (w->cores_per_node && w->cores_per_node != c->cores_per_node) {
        snprintf(have, sizeof have, "%u cores per node", c->cores_per_node);
        snprintf(want, sizeof want, "%u", w->cores_per_node);
    } else if (w->user && strcmp(w->user, c->user)) {
        snprintf(have, sizeof have, "'%s' as the account of root's tasks", c->user);
        snprintf(want, sizeof want, "'%.64s'", w->user);
    } else if (w->port && w->port != c->port) {
        snprintf(have, sizeof have, c->port ? "port %u" : "no fixed port", c->port);
        snprintf(want, sizeof want, "%u", w->port);
    } else if (w->no_namespaces && !c->no_namespaces) {
        snprintf(have, sizeof have, "nodes in namespaces");
        snprintf(want, sizeof want, "processes on one host");
    }
    return have[0] ? error_set(err, ERR_EXISTS, fmt, c->dir, have, want) : 0;
}

/* ---- cluster.json ---- */

static int cluster_save(const struct cluster *c, struct error *err)
{
    json_t *root = json_pack("{s:i, s:s, s:I, s:I, s:I, s:b, s:s, s:I, s:I}", "version", 1, "name", c->name,
                             "nodes", (json_int_t)c->nodes, "cores_per_node", (json_int_t)c->cores_per_node,
                             "port", (json_int_t)c->port, "no_namespaces", c->no_namespaces, "user", c->user,
                             "head_uid", (json_int_t)c->head_uid, "head_gid", (json_int_t)c->head_gid);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    int rc = text ? file_write(AT_FDCWD, cluster_path(c, "cluster.json"), text, strlen(text), 0644, true, err)
                  : error_set(err, ERR_INTERNAL, "cluster.json cannot be made");
    free(text);
    json_decref(root);
    return rc;
}

static int cluster_load(struct cluster *c, struct error *err)
{
    const char *path = cluster_path(c, "cluster.json");
    struct buf text = BUF_INIT;
    if (file_read(AT_FDCWD, path, CLUSTER_JSON_MAX, &text, err) < 0) {
        buf_free(&text);
        return -1;
    }
    json_error_t jerr;
    json_t *root = json_loadb(text.data ? text.data : "", text.len, 0, &jerr);
    buf_free(&text);
    if (!root)
        return error_set(err, ERR_IO, "%s: line %d: %s", path, jerr.line, jerr.text);
    int version = 0, no_ns = 0;
    json_int_t nodes = 0, cores = 0, port = 0, uid = -1, gid = -1;
    const char *name = "", *user = "";
    int rc = json_unpack_ex(root, &jerr, 0, "{s:i, s:s, s:I, s:I, s:I, s:b, s:s, s:I, s:I}", "version",
                            &version, "name", &name, "nodes", &nodes, "cores_per_node", &cores, "port", &port,
                            "no_namespaces", &no_ns, "user", &user, "head_uid", &uid, "head_gid", &gid);
    if (rc < 0) {
        rc = error_set(err, ERR_IO, "%s: %s", path, jerr.text);
    } else if (version != 1) {
        rc = error_set(err, ERR_VERSION, "%s: version %d, this program knows version 1", path, version);
    } else if (check_name(name, err) < 0 || nodes < 1 || nodes > CLUSTER_NODES_MAX || cores < 1 ||
               cores > CLUSTER_CORES_MAX || port < 0 || port > 65535 || uid < 0 || gid < 0 ||
               strlen(user) >= sizeof c->user) {
        rc = error_set(err, ERR_IO, "%s: a value is out of its range", path);
    } else {
        snprintf(c->name, sizeof c->name, "%s", name);
        snprintf(c->user, sizeof c->user, "%s", user);
        c->nodes = (uint32_t)nodes;
        c->cores_per_node = (uint32_t)cores;
        c->port = (uint32_t)port;
        c->no_namespaces = no_ns;
        c->head_uid = (uid_t)uid;
        c->head_gid = (gid_t)gid;
    }
    json_decref(root);
    return rc;
}

/* ---- what follows from the folder and the caller ---- */

static int absolute(const char *dir, char out[PATH_MAX], struct error *err)
{
    char cwd[PATH_MAX] = "";
    if (dir[0] != '/' && !getcwd(cwd, sizeof cwd))
        return error_sys(err, "the current folder");
    int n = dir[0] == '/' ? snprintf(out, PATH_MAX, "%s", dir) : snprintf(out, PATH_MAX, "%s/%s", cwd, dir);
    if (n >= PATH_MAX - 64)
        return error_set(err, ERR_LIMIT, "folder path of %d bytes: expected at most %d", n, PATH_MAX - 64);
    char real[PATH_MAX];
    if (realpath(out, real)) /* an absent folder keeps the name it was given */
        snprintf(out, PATH_MAX, "%s", real);
    for (size_t len = strlen(out); len > 1 && out[len - 1] == '/'; len--)
        out[len - 1] = 0;
    return 0;
}

static bool in_memory(const char *folder)
{
    struct statfs fs;
    return statfs(folder, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

static int derive(struct cluster *c, struct error *err)
{
    ssize_t n = readlink("/proc/self/exe", c->built, sizeof c->built - 1);
    if (n < 0)
        return error_sys(err, "/proc/self/exe");
    c->built[n] = 0;
    *strrchr(c->built, '/') = 0;
    c->root = geteuid() == 0;
    bool reachable = !c->root || cluster_open_to_all(c->built);
    snprintf(c->bin, sizeof c->bin, "%s", reachable ? c->built : cluster_path(c, "bin"));

    uint32_t h = hash_text(c->dir);
    const char *xdg = getenv("XDG_RUNTIME_DIR"), *base = "/tmp";
    if (c->root)
        base = "/run";
    else if (xdg && xdg[0] == '/' && strlen(xdg) < 32 && access(xdg, W_OK | X_OK) == 0)
        base = xdg;
    /* Every attempt makes a folder and a socket there: on a disk that would be its greatest cost. */
    if (!in_memory(base) && in_memory("/dev/shm") && access("/dev/shm", W_OK | X_OK) == 0)
        base = "/dev/shm";
    if (c->root)
        snprintf(c->run_dir, sizeof c->run_dir, "%s/muster-%08x", base, h);
    else
        snprintf(c->run_dir, sizeof c->run_dir, "%s/muster-%u-%08x", base, (unsigned)geteuid(), h);
    return 0;
}

static int check_socket_path(const struct cluster *c, struct error *err)
{
    const char *path = cluster_path(c, "sock/head.sock");
    if (strlen(path) > SOCKET_PATH_MAX)
        return error_set(err, ERR_LIMIT,
                         "folder %s is too long for a socket: %zu bytes, expected at most %zu", c->dir,
                         strlen(c->dir), SOCKET_PATH_MAX - strlen("/sock/head.sock"));
    return 0;
}

int cluster_open(struct cluster *c, const char *dir, struct error *err)
{
    memset(c, 0, sizeof *c);
    if (absolute(dir, c->dir, err) < 0 || derive(c, err) < 0)
        return -1;
    struct error why = {0};
    if (cluster_load(c, &why) < 0) {
        if (why.code == ERR_NOT_FOUND)
            return error_set(err, ERR_NOT_FOUND,
                             "there is no cluster in %s: 'muster cluster start' makes one", c->dir);
        if (err)
            *err = why;
        return -1;
    }
    return 0;
}

int cluster_check_owner(const struct cluster *c, struct error *err)
{
    struct stat st;
    if (stat(c->dir, &st) < 0 || st.st_uid == geteuid())
        return 0;
    const struct passwd *pw = getpwuid(st.st_uid);
    char number[16];
    snprintf(number, sizeof number, "%u", (unsigned)st.st_uid);
    return error_set(err, ERR_DENIED,
                     "folder %s belongs to account %.64s: only that account runs a cluster there", c->dir,
                     pw ? pw->pw_name : number);
}

/* ---- making ---- */

static int make_folder(const char *path, mode_t mode, uid_t uid, gid_t gid, struct error *err)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return error_sys(err, "folder %s", path);
    if (chmod(path, mode) < 0 || chown(path, uid, gid) < 0)
        return error_sys(err, "folder %s", path);
    return 0;
}

/* A cluster takes names such as `hosts`, `home` and `bin` in its folder and gives away what is below them: in
 * /etc or in a home that would be a disaster. So it takes only a folder that is empty, or that a start which
 * is under way, or did not get to its end, has marked as its own by init.lock. */
static int check_empty(const struct cluster *c, struct error *err)
{
    const char *mark = cluster_path(c, "init.lock");
    if (access(mark, F_OK) == 0)
        return 0;
    DIR *d = opendir(c->dir);
    if (!d)
        return error_sys(err, "folder %s", c->dir);
    const struct dirent *e;
    int rc = 0;
    while (rc == 0 && (e = readdir(d)))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && strcmp(e->d_name, "lost+found") &&
            access(mark, F_OK) < 0)
            rc = error_set(err, ERR_EXISTS,
                           "folder %s holds other things (%.64s): expected an empty or a new folder", c->dir,
                           e->d_name);
    closedir(d);
    return rc;
}

/* Of several that make a cluster in one folder at the same time, the others wait here. The lock's descriptor.
 */
static int claim_folder(const struct cluster *c, struct error *err)
{
    const char *path = cluster_path(c, "init.lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_sys(err, "%s", path);
    while (flock(fd, LOCK_EX) < 0)
        if (errno != EINTR) {
            close(fd);
            return error_sys(err, "%s", path);
        }
    return fd;
}

static int make_cluster_folder(struct cluster *c, struct error *err)
{
    if (check_socket_path(c, err) < 0)
        return -1;
    if (file_mkdirs(c->dir, 0755, err) < 0)
        return -1;
    char real[PATH_MAX];
    if (realpath(c->dir, real)) {
        snprintf(c->dir, sizeof c->dir, "%s", real);
        if (derive(c, err) < 0 || check_socket_path(c, err) < 0)
            return -1;
    }
    if (access(c->dir, W_OK | X_OK) < 0)
        return error_sys(err, "folder %s cannot be written", c->dir);
    if (cluster_check_owner(c, err) < 0 || check_empty(c, err) < 0)
        return -1;
    if (!c->root)
        return 0;
    struct stat st;
    if (stat(c->dir, &st) < 0)
        return error_sys(err, "folder %s", c->dir);
    /* The head's account must be able to pass. The cluster's own folder is ours to open; others' are not. */
    if (!(st.st_mode & S_IXOTH) && chmod(c->dir, (st.st_mode & 07777) | 0011) < 0)
        return error_sys(err, "folder %s", c->dir);
    if (!cluster_open_to_all(c->dir))
        return error_set(
            err, ERR_DENIED,
            "folder %s is below one that is closed to other accounts: the head runs as account %u and "
            "could not reach it; choose another folder",
            c->dir, (unsigned)c->head_uid);
    return 0;
}

/* head.json, once: root's jobs belong to the account that its tasks run as, and who came by sudo
 * administers the cluster that he has made. */
static int write_head_config(const struct cluster *c, struct error *err)
{
    const char *path = cluster_path(c, "head/head.json"), *sudo = getenv("SUDO_USER");
    if (!c->root || access(path, F_OK) == 0)
        return 0;
    json_t *root = json_pack("{s:{s:s}, s:[]}", "map", "root", c->user, "admins");
    if (root && sudo && *sudo && getpwnam(sudo))
        json_array_append_new(json_object_get(root, "admins"), json_string(sudo));
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    int rc = text ? file_write(AT_FDCWD, path, text, strlen(text), 0600, false, err)
                  : error_set(err, ERR_INTERNAL, "head.json cannot be made");
    free(text);
    json_decref(root);
    return rc;
}

/* Runs `muster-head init` as ourselves and then gives the files to the head's account: its folder
 * may hold nothing of anybody else, and its program may be out of that account's reach. */
static int make_head(const struct cluster *c, struct error *err)
{
    const char *dir = cluster_path(c, "head"), *program = NULL;
    struct stat st;
    /* What muster-head writes last: with it, the folder is complete. */
    if (stat(cluster_path(c, "head/name"), &st) == 0 && st.st_uid == c->head_uid)
        return 0;
    if (make_folder(dir, 0700, geteuid(), getegid(), err) < 0)
        return -1;
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/muster-head", c->built);
    program = path;
    char *argv[] = {(char *)"muster-head",
                    (char *)"init",
                    (char *)"--dir",
                    (char *)dir,
                    (char *)"--name",
                    (char *)c->name,
                    NULL};
    pid_t pid;
    int status, rc = posix_spawn(&pid, program, NULL, NULL, argv, environ);
    if (rc) {
        errno = rc;
        return error_sys(err, "%s", program);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return error_set(err, ERR_IO, "muster-head init failed");
    if (write_head_config(c, err) < 0)
        return -1;
    if (c->head_uid == geteuid())
        return 0;
    DIR *d = opendir(dir);
    if (!d)
        return error_sys(err, "folder %s", dir);
    struct dirent *e;
    while ((e = readdir(d)))
        if (strcmp(e->d_name, "..") && strcmp(e->d_name, ".") &&
            fchownat(dirfd(d), e->d_name, c->head_uid, c->head_gid, AT_SYMLINK_NOFOLLOW) < 0)
            rc = error_sys(err, "%s/%s", dir, e->d_name);
    closedir(d);
    if (rc == 0 && chown(dir, c->head_uid, c->head_gid) < 0)
        rc = error_sys(err, "folder %s", dir);
    return rc;
}

static int make_rest(const struct cluster *c, struct error *err)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (make_folder(cluster_path(c, "nodes"), 0711, uid, gid, err) < 0 ||
        make_folder(cluster_path(c, "log"), 0755, uid, gid, err) < 0 ||
        make_folder(cluster_path(c, "pids"), 0755, uid, gid, err) < 0 ||
        make_folder(cluster_path(c, "sock"), 0755, c->head_uid, c->head_gid, err) < 0)
        return -1;
    const char *link = cluster_path(c, "head.sock");
    if (symlink("sock/head.sock", link) < 0 && errno != EEXIST)
        return error_sys(err, "%s", link);
    if (!c->root)
        return 0;
    struct passwd *pw = getpwnam(c->user);
    if (!pw)
        return error_set(err, ERR_NOT_FOUND, "account '%s' of root's tasks: there is no such account",
                         c->user);
    if (make_folder(cluster_path(c, "home"), 0700, pw->pw_uid, pw->pw_gid, err) < 0 ||
        make_folder(cluster_path(c, "bin"), 0755, uid, gid, err) < 0)
        return -1;
    return 0;
}

/* All but the last step; `lock` is then held by who makes the cluster, -1 when it is there. */
static int open_or_begin(struct cluster *c, const char *dir, const struct cluster_choice *choice, int *lock,
                         struct error *err)
{
    struct error why = {0};
    if (cluster_open(c, dir, &why) == 0)
        return differs(c, choice, err);
    if (why.code != ERR_NOT_FOUND) {
        if (err)
            *err = why;
        return -1;
    }
    if (choose(c, choice, err) < 0 || make_cluster_folder(c, err) < 0)
        return -1;
    choose_head_account(c);
    if ((*lock = claim_folder(c, err)) < 0)
        return -1;
    if (access(cluster_path(c, "cluster.json"), F_OK) < 0)
        return 0;
    close(*lock); /* somebody else was faster */
    *lock = -1;
    return cluster_open(c, dir, err) < 0 ? -1 : differs(c, choice, err);
}

static int init(struct cluster *c, const char *dir, const struct cluster_choice *choice, bool *made,
                struct error *err)
{
    int lock = -1, rc = open_or_begin(c, dir, choice, &lock, err);
    if (rc == 0)
        rc = cluster_check_owner(c, err);
    if (rc == 0 && access(c->dir, W_OK | X_OK) < 0)
        rc = error_sys(err, "folder %s cannot be written", c->dir);
    if (rc == 0 && (make_rest(c, err) < 0 || make_head(c, err) < 0))
        rc = -1;
    /* Last: a folder with a cluster.json is complete. */
    if (rc == 0 && lock >= 0 && (rc = cluster_save(c, err)) == 0)
        unlink(cluster_path(c, "init.lock"));
    if (made)
        *made = lock >= 0;
    if (lock >= 0)
        close(lock);
    return rc < 0 ? -1 : 0;
}

/* Who may read what is settled file by file; the caller's umask would close the folders above ours to the
 * head's account. */
int cluster_init(struct cluster *c, const char *dir, const struct cluster_choice *choice, bool *made,
                 struct error *err)
{
    mode_t was = umask(022);
    int rc = init(c, dir, choice, made, err);
    umask(was);
    return rc;
}

int cluster_run_dir(const struct cluster *c, struct error *err)
{
    if (mkdir(c->run_dir, c->root ? 0711 : 0700) < 0 && errno != EEXIST)
        return error_sys(err, "folder %s", c->run_dir);
    struct stat st;
    if (lstat(c->run_dir, &st) < 0)
        return error_sys(err, "folder %s", c->run_dir);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
        return error_set(err, ERR_DENIED, "%s: expected a folder of account %u that nobody else can write",
                         c->run_dir, (unsigned)geteuid());
    return 0;
}

int cluster_write_node(const struct cluster *c, uint32_t i, bool namespaces, const char *head,
                       struct error *err)
{
    const char *name = cluster_node_name(c, i), *dir = cluster_path(c, "nodes/%s", name);
    if (make_folder(dir, 0700, geteuid(), getegid(), err) < 0)
        return -1;
    char host[256] = "localhost", run_dir[PATH_MAX], path[PATH_MAX * 2];
    gethostname(host, sizeof host - 1);
    snprintf(run_dir, sizeof run_dir, "%s/%s", c->run_dir, name);
    if (make_folder(run_dir, c->root ? 0711 : 0700, geteuid(), getegid(), err) < 0)
        return -1;
    snprintf(path, sizeof path, "%s:/usr/local/bin:/usr/bin:/bin", c->bin);
    json_int_t memory_mb =
        (json_int_t)sysconf(_SC_PHYS_PAGES) * (sysconf(_SC_PAGESIZE) / 1024) / 1024 / c->nodes;
    bool shared = c->nodes > 1 || c->cores_per_node > (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    json_t *root = json_pack("{s:s, s:s, s:s, s:i, s:I, s:I, s:b, s:s, s:s, s:s, s:s, s:s, s:b}", "name",
                             name, "head", head, "address", cluster_node_address(c, namespaces, i), "port",
                             namespaces ? CLUSTER_STEP_PORT : 0, "cores", (json_int_t)c->cores_per_node,
                             "memory_mb", memory_mb, "virtual_cores", shared, "physical_host", host,
                             "interface", namespaces ? "eth0" : "lo", "run_dir", run_dir, "path", path, "bin",
                             c->bin, "allow_root", false);
    if (root && c->root) {
        json_object_set_new(root, "map", json_pack("{s:s}", "root", c->user));
        json_object_set_new(root, "home_fallback", json_string(cluster_path(c, "home")));
    }
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    int rc = text ? file_write(AT_FDCWD, cluster_path(c, "nodes/%s/node.json", name), text, strlen(text),
                               0600, false, err)
                  : error_set(err, ERR_INTERNAL, "node.json of %s cannot be made", name);
    free(text);
    json_decref(root);
    return rc;
}
