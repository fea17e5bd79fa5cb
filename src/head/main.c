/* main.c - muster-head: options, start and end.
 *
 * Start-up: lock the folder, bind both addresses, give up privilege, open the store, load, serve.
 * Addresses come before the store, so that a head which cannot serve does not raise its generation. */
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "head/confine.h"
#include "head/door.h"
#include "head/head.h"
#include "head/held.h"
#include "head/join.h"
#include "head/loop.h"
#include "head/nodelink.h"
#include "head/outspool.h"
#include "head/owner.h"
#include "head/session.h"
#include "head/waits.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_FILE "name" /* the cluster's */
#define EXIT_USAGE 2

struct options {
    const char *dir, *name, *socket, *listen, *user;
};
struct account {
    uid_t uid;
    gid_t gid;
    char name[256];
};

static int usage_error(const char *fmt, const char *word)
{
    fprintf(stderr, "muster-head: ");
    fprintf(stderr, fmt, word);
    fprintf(stderr, "\nTry 'muster-head --help'.\n");
    return EXIT_USAGE;
}

static int failed(const struct error *err)
{
    fprintf(stderr, "muster-head: %s\n", err->text);
    return err->code == ERR_USAGE ? EXIT_USAGE : 1;
}

/* ---- accounts and privilege ---- */

static int account_find(const char *word, struct account *a, struct error *err)
{
    char *end;
    unsigned long uid = strtoul(word, &end, 10);
    struct passwd *pw = *word && !*end ? getpwuid((uid_t)uid) : getpwnam(word);
    if (!pw)
        return error_set(err, ERR_USAGE, "--user %s: there is no such account", word);
    *a = (struct account){.uid = pw->pw_uid, .gid = pw->pw_gid};
    snprintf(a->name, sizeof a->name, "%s", pw->pw_name);
    return 0;
}

static int become(const struct account *a, struct error *err)
{
    if (a->uid == geteuid())
        return 0;
    if (initgroups(a->name, a->gid) || setresgid(a->gid, a->gid, a->gid) || setresuid(a->uid, a->uid, a->uid))
        return error_sys(err, "cannot become user %s", a->name);
    return 0;
}

static void raise_limits(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    limit.rlim_cur = limit.rlim_max = 0;
    setrlimit(RLIMIT_CORE, &limit);
}

/* ---- init ---- */

static int cluster_name_check(const char *name, struct error *err)
{
    size_t len = strlen(name);
    if (len >= 1 && len <= 64 &&
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == len)
        return 0;
    return error_set(err, ERR_USAGE, "--name %.80s: 1 to 64 letters, digits, - _ . are expected", name);
}

/* A folder that was made for another name keeps it, and that is no success. */
static int name_write(int dirfd, const struct options *o, struct error *err)
{
    struct buf text = BUF_INIT;
    struct error why = {0};
    int rc = file_read(dirfd, NAME_FILE, 256, &text, &why);
    if (rc < 0 && why.code == ERR_NOT_FOUND)
        rc = file_write(dirfd, NAME_FILE, o->name, strlen(o->name), 0600, true, err);
    else if (rc < 0)
        *err = why;
    else if (strcmp(buf_str(&text), o->name))
        rc = error_set(err, ERR_EXISTS, "--name %s: %s is the folder of cluster %.64s", o->name, o->dir,
                       buf_str(&text));
    buf_free(&text);
    return rc;
}

static int init(const struct options *o)
{
    struct error err;
    struct account a = {.uid = geteuid(), .gid = getegid()};
    if (!o->name)
        return usage_error("%s is missing", "--name");
    if (cluster_name_check(o->name, &err) || (o->user && account_find(o->user, &a, &err)) ||
        file_mkdirs(o->dir, 0700, &err))
        return failed(&err);
    if (geteuid() == 0 && o->user && chown(o->dir, a.uid, a.gid)) {
        error_sys(&err, "cannot give %s to user %s", o->dir, a.name);
        return failed(&err);
    }
    if ((o->user && become(&a, &err)) || ca_init(o->dir, o->name, &err))
        return failed(&err);
    int dirfd = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0) {
        error_sys(&err, "cannot open %s", o->dir);
        return failed(&err);
    }
    if (name_write(dirfd, o, &err))
        return failed(&err);
    return 0;
}

/* ---- run ---- */

static int load_name(struct head *h, struct error *err)
{
    struct buf text = BUF_INIT;
    if (file_read(h->dirfd, NAME_FILE, 256, &text, err)) {
        if (err->code == ERR_NOT_FOUND)
            error_set(err, ERR_NOT_FOUND, "%s is not a head's folder: 'muster-head init' makes one", h->dir);
        buf_free(&text);
        return -1;
    }
    size_t len = strcspn(buf_str(&text), "\r\n");
    snprintf(h->cluster, sizeof h->cluster, "%.*s", (int)(len < 64 ? len : 64), buf_str(&text));
    buf_free(&text);
    return 0;
}

static int lock_folder(struct head *h, const struct account *a, struct error *err)
{
    struct error why;
    struct buf pid = BUF_INIT;
    int fd = file_lock(h->dirfd, "lock", &why);
    if (fd >= 0) {
        if (geteuid() == 0 && a && fchown(fd, a->uid, a->gid)) {
            error_sys(err, "cannot give %s/lock to user %s", h->dir, a->name);
            close(fd);
            return -1;
        }
        return fd; /* held until the process ends */
    }
    if (why.code != ERR_EXISTS)
        return error_set(err, why.code, "%s/%s", h->dir, why.text);
    if (file_read(h->dirfd, "head.pid", 64, &pid, NULL))
        buf_reset(&pid);
    error_set(err, ERR_EXISTS, "another muster-head runs on %s (pid %.*s)", h->dir,
              (int)strcspn(buf_str(&pid), "\r\n"), pid.len ? buf_str(&pid) : "unknown");
    buf_free(&pid);
    return -1;
}

static int note(struct head *h, const char *file, const char *text, struct error *err)
{
    char line[128];
    snprintf(line, sizeof line, "%s\n", text);
    return file_write(h->dirfd, file, line, strlen(line), 0644, false, err);
}

static int open_base(struct head *h, struct error *err)
{
    struct event_config *config = event_config_new();
    if (config)
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    h->base = config ? event_base_new_with_config(config) : NULL;
    if (config)
        event_config_free(config);
    if (!h->base || event_base_priority_init(h->base, PRIORITY_COUNT))
        return error_set(err, ERR_IO, "cannot make an event loop");
    return 0;
}

static int open_folder(struct head *h, struct error *err)
{
    h->dirfd = open(h->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (h->dirfd < 0) {
        error_sys(err, "cannot open %s", h->dir);
        if (errno == ENOENT)
            error_set(err, ERR_NOT_FOUND, "%s is absent: 'muster-head init' makes one", h->dir);
        return -1;
    }
    if (faccessat(h->dirfd, ".", W_OK, AT_EACCESS))
        return error_sys(err, "cannot write to %s", h->dir);
    char *copy = xstrdup(h->socket_path);
    struct stat st;
    int rc = stat(dirname(copy), &st);
    free(copy);
    if (rc)
        return error_sys(err, "cannot find the folder of %s", h->socket_path);
    h->socket_folder_uid = st.st_uid;
    return 0;
}

/* Parts in the order in which they need each other. */
static int open_parts(struct head *h, struct error *err)
{
    char *path = h->config.store ? xstrdup(h->config.store) : xasprintf("%s/store.db", h->dir);
    int rc = store_open(&h->store, path, &h->generation, err);
    free(path);
    if (rc || !(h->tls = tls_server(h->dir, err)) || secret_load(h->dir, h->secret, err))
        return -1;
    h->held = held_create(h);
    h->waits = waits_create(h);
    h->outspools = outspools_create(h, err);
    if (!h->outspools || !(h->joins = joins_create(h, err)) || !(h->nodelinks = nodelinks_create(h, err)))
        return -1;
    if (!loop_create(h, err))
        return -1;
    outspools_sweep(h->outspools);
    return 0;
}

/* Before the store is opened, so that its thread is confined as well. */
static int confine_self(struct head *h, struct error *err)
{
    char *copy = xstrdup(h->socket_path);
    int rc = confine_access(h->dir, dirname(copy), err);
    free(copy);
    return rc;
}

static int start(struct head *h, const struct options *o, const struct account *a, struct error *err)
{
    char pid[32];
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    if (open_folder(h, err) || load_name(h, err) || config_load(&h->config, h->dirfd, err) ||
        lock_folder(h, a, err) < 0)
        return -1;
    log_set_level((enum log_level)h->config.log_level);
    if (open_base(h, err))
        return -1;
    h->owners = owners_create(h);
    if (!(h->door = door_create(h, o->listen, err)) || !(h->sessions = sessions_create(h, err)))
        return -1;
    if ((a && become(a, err)) || confine_process(err) || confine_self(h, err))
        return -1;
    if (note(h, "head.pid", pid, err) || open_parts(h, err) || note(h, "listen", h->listen_text, err))
        return -1;
    door_open(h->door);
    log_info("cluster %s, generation %llu, agents dial %s, clients use %s", h->cluster,
             (unsigned long long)h->generation, h->listen_text, h->socket_path);
    return 0;
}

static void stop(struct head *h)
{
    struct error err;
    door_destroy(h->door);
    sessions_destroy(h->sessions);
    nodelinks_destroy(h->nodelinks);
    joins_destroy(h->joins);
    outspools_destroy(h->outspools);
    held_destroy(h->held);
    waits_destroy(h->waits);
    loop_destroy(h->loop);
    if (h->store && store_failed(h->store, &err))
        log_error("not everything could be stored: %s", err.text);
    store_close(h->store);
    core_destroy(h->core);
    owners_destroy(h->owners);
    tls_free(h->tls);
    if (h->base)
        event_base_free(h->base);
    config_free(&h->config);
    explicit_bzero(h->secret, sizeof h->secret);
    if (h->dirfd >= 0)
        close(h->dirfd);
}

static int run(const struct options *o)
{
    struct head h = {.dir = o->dir, .dirfd = -1, .socket_path = o->socket};
    struct account account = {0};
    struct error err;
    if (!o->socket || !o->listen)
        return usage_error("%s is missing", o->socket ? "--listen" : "--socket");
    if (o->user && account_find(o->user, &account, &err))
        return failed(&err);
    if (gethostname(h.host, sizeof h.host - 1))
        snprintf(h.host, sizeof h.host, "localhost");
    log_open("muster-head", 2);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is a full disk, not a death */
    raise_limits();
    if (start(&h, o, o->user ? &account : NULL, &err)) {
        stop(&h);
        return failed(&err);
    }
    int rc = loop_run(h.loop);
    stop(&h);
    log_info("stopped");
    return rc ? 1 : 0;
}

/* ---- options ---- */

static const struct {
    const char *name;
    size_t offset;
    const char *value, *help;
} option_table[] = {
    {"--dir", offsetof(struct options, dir), "DIR", "the head's private folder"},
    {"--name", offsetof(struct options, name), "NAME", "init: the cluster's name"},
    {"--socket", offsetof(struct options, socket), "PATH", "run: the unix socket for clients"},
    {"--listen", offsetof(struct options, listen), "ADDR:PORT",
     "run: where agents dial; port 0 takes any free one"},
    {"--user", offsetof(struct options, user), "USER", "as root: become this user (name or uid)"},
};
static const struct {
    const char *name;
    int (*run)(const struct options *o);
    const char *help;
} verbs[] = {
    {"init", init, "makes the folder: certificate authority, keys, name; what exists is kept"},
    {"run", run, "serves the cluster until SIGTERM"},
};

static int help(void)
{
    printf("usage: muster-head init --dir DIR --name NAME [--user USER]\n"
           "       muster-head run --dir DIR --socket PATH --listen ADDR:PORT [--user USER]\n\n");
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        printf("  %-20s %s\n", verbs[i].name, verbs[i].help);
    printf("\n");
    for (size_t i = 0; i < sizeof option_table / sizeof *option_table; i++)
        printf("  %s %-*s %s\n", option_table[i].name, (int)(19 - strlen(option_table[i].name)),
               option_table[i].value, option_table[i].help);
    printf("  %-20s %s\n  %-20s %s\n", "--help", "this text", "--version", "the version");
    return 0;
}

static int take_option(struct options *o, char **argv, int *i)
{
    for (size_t k = 0; k < sizeof option_table / sizeof *option_table; k++) {
        size_t len = strlen(option_table[k].name);
        const char **at = (const char **)((char *)o + option_table[k].offset);
        if (strncmp(argv[*i], option_table[k].name, len))
            continue;
        if (argv[*i][len] == '=') {
            *at = argv[*i] + len + 1;
            return 0;
        }
        if (argv[*i][len])
            continue;
        if (!argv[*i + 1])
            return usage_error("%s needs a value", argv[*i]);
        *at = argv[++*i];
        return 0;
    }
    return usage_error("unknown option %s", argv[*i]);
}

int main(int argc, char **argv)
{
    struct options o = {0};
    umask(077);
    if (argc > 1 && !strcmp(argv[1], "--version"))
        return printf("muster-head " MUSTER_VERSION "\n") < 0;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help"))
            return help();
    if (argc < 2)
        return usage_error("%s is expected", "init or run");
    for (size_t v = 0; v < sizeof verbs / sizeof *verbs; v++) {
        if (strcmp(argv[1], verbs[v].name))
            continue;
        for (int i = 2; i < argc; i++) {
            int rc = take_option(&o, argv, &i);
            if (rc)
                return rc;
        }
        return o.dir ? verbs[v].run(&o) : usage_error("%s is missing", "--dir");
    }
    return usage_error("unknown command %s: init or run is expected", argv[1]);
}
