/* supervisor.c - muster-local: starts the head and the agents of a local cluster and keeps them up.
 *
 * Up is one straight line with deadlines: namespaces, head, join of the nodes that are new, agents,
 * all nodes Online. Every step first looks whether its result is there, so the same line brings up
 * a new cluster, takes over one whose muster-local was killed, and mends one that is half dead.
 * Then an event loop sleeps on the pidfds of all processes; one that ends is started again after a
 * back-off (0.1 s doubling to 10 s, forgotten after 30 s of life).
 *
 * muster-local is the last subreaper: keepers whose agent was killed become its children. It ends
 * them only when the cluster goes down.
 *
 * It owns no state that matters: processes are found by their pid files, DIR/local.json only
 * tells `muster cluster status` what there is.
 */
#include "local/supervisor.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "local/proc.h"
#include "local/space.h"
#include "wire/link.h"

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 10000
#define BACKOFF_FORGET_MS 30000
#define UP_MS 30000   /* for each step of the start */
#define POLL_MS 10    /* between two looks at the head while starting */
#define ASK_MS 5000   /* for one answer of the head */
#define END_MS 5000   /* SIGTERM to SIGKILL, of head and agents */
#define TASKS_MS 2000 /* keepers told to end, to the killing of what is left */
#define ORPHANS_AT_ONCE 4096
#define STOPPED_COMMENT                                                                                      \
    "the cluster was stopped" /* control.c sets it; such nodes come back by themselves                       \
                               */

enum kind { KIND_NETWORK, KIND_HEAD, KIND_ANCHOR, KIND_AGENT };

struct member {
    struct supervisor *s;
    enum kind kind;
    uint32_t index; /* of the node */
    struct proc proc;
    struct event *watch; /* of the pidfd */
    struct event *again; /* timer of the restart; NULL until it first ends */
    int64_t started_ms;
    int backoff_ms; /* the last one; 0: none so far */
    uint32_t restarts;
};

struct node {
    struct member anchor, agent;
    bool joined_now;
};

struct supervisor {
    const struct cluster *c;
    int ready_fd;
    bool namespaces;
    char one_host[512]; /* why there are no namespaces */
    char head_address[64];
    struct member network, head;
    struct node *nodes;
    struct event_base *base;
    bool stopping;
};

/* ---- telling others ---- */

static void tell(struct supervisor *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void tell(struct supervisor *s, const char *fmt, ...)
{
    struct buf line = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_addv(&line, fmt, ap);
    va_end(ap);
    log_info("%s", buf_str(&line));
    buf_addc(&line, '\n');
    if (s->ready_fd >= 0)
        file_write_all(s->ready_fd, line.data, line.len);
    buf_free(&line);
}

static const char *kind_of_cluster(const struct supervisor *s)
{
    return !s->namespaces ? "one host" : s->c->root ? "namespaces" : "user namespaces";
}

/* DIR/local.json, for people and for `muster cluster status`. */
static void write_status(struct supervisor *s, const char *state)
{
    json_t *nodes = json_array();
    for (uint32_t i = 0; i < s->c->nodes; i++) {
        struct node *n = &s->nodes[i];
        json_array_append_new(
            nodes, json_pack("{s:s, s:s, s:i, s:i, s:i}", "name", cluster_node_name(s->c, i), "address",
                             cluster_node_address(s->c, s->namespaces, i), "pid", (int)n->agent.proc.pid,
                             "anchor", (int)n->anchor.proc.pid, "restarts", (int)n->agent.restarts));
    }
    json_t *root = json_pack("{s:i, s:s, s:s, s:s, s:{s:i, s:s, s:i}, s:i, s:o}", "pid", (int)getpid(),
                             "state", state, "kind", kind_of_cluster(s), "why", s->one_host, "head", "pid",
                             (int)s->head.proc.pid, "address", s->head_address, "restarts",
                             (int)s->head.restarts, "network", (int)s->network.proc.pid, "nodes", nodes);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    struct error err;
    if (!text ||
        file_write(AT_FDCWD, cluster_path(s->c, "local.json"), text, strlen(text), 0644, false, &err) < 0)
        log_warn("local.json: %s", text ? err.text : "cannot be made");
    free(text);
    json_decref(root);
}

/* ---- members ---- */

static void member_init(struct supervisor *s, struct member *m, enum kind kind, uint32_t index,
                        const char *name)
{
    m->s = s;
    m->kind = kind;
    m->index = index;
    proc_init(&m->proc, name);
}

static void member_started(struct member *m)
{
    m->started_ms = clock_boot_ms();
}

static struct supervisor *supervisor_create(const struct cluster *c, int ready_fd)
{
    struct supervisor *s = xcalloc(1, sizeof *s);
    char name[32];
    s->c = c;
    s->ready_fd = ready_fd;
    s->nodes = xcalloc(c->nodes, sizeof *s->nodes);
    member_init(s, &s->network, KIND_NETWORK, 0, "network");
    member_init(s, &s->head, KIND_HEAD, 0, "head");
    for (uint32_t i = 0; i < c->nodes; i++) {
        snprintf(name, sizeof name, "%s", cluster_node_name(c, i));
        member_init(s, &s->nodes[i].agent, KIND_AGENT, i, name);
        snprintf(name, sizeof name, "%s-anchor", cluster_node_name(c, i));
        member_init(s, &s->nodes[i].anchor, KIND_ANCHOR, i, name);
    }
    return s;
}

static void member_unwatch(struct member *m)
{
    if (m->watch)
        event_free(m->watch);
    if (m->again)
        event_free(m->again);
    m->watch = m->again = NULL;
}

static void supervisor_destroy(struct supervisor *s)
{
    struct member *all[2] = {&s->network, &s->head};
    for (int i = 0; i < 2; i++)
        member_unwatch(all[i]);
    for (uint32_t i = 0; i < s->c->nodes; i++) {
        member_unwatch(&s->nodes[i].anchor);
        member_unwatch(&s->nodes[i].agent);
    }
    if (s->base)
        event_base_free(s->base);
    free(s->nodes);
    free(s);
}

/* What was left by an earlier muster-local. */
static void adopt_all(struct supervisor *s)
{
    if (proc_adopt(&s->network.proc, s->c))
        member_started(&s->network);
    if (proc_adopt(&s->head.proc, s->c))
        member_started(&s->head);
    for (uint32_t i = 0; i < s->c->nodes; i++) {
        if (proc_adopt(&s->nodes[i].anchor.proc, s->c))
            member_started(&s->nodes[i].anchor);
        if (proc_adopt(&s->nodes[i].agent.proc, s->c))
            member_started(&s->nodes[i].agent);
    }
}

/* ---- starting one process ---- */

static int start(struct member *m, const struct proc_spec *spec, int *report, struct error *err)
{
    int own;
    if (proc_start(&m->proc, m->s->c, spec, report ? report : &own, err) < 0)
        return -1;
    member_started(m);
    return report ? 0 : proc_started(&m->proc, m->s->c, own, err);
}

/* An anchor: this program under another name. It is executed from the folder it was built in, as
 * ourselves: the namespace's view of it is not needed. */
static int start_anchor(struct member *m, proc_setup *setup, struct space *space, int *report,
                        struct error *err)
{
    char program[PATH_MAX + 16], name[sizeof m->proc.name];
    snprintf(program, sizeof program, "%s/muster-local", m->s->c->built);
    snprintf(name, sizeof name, "%s", m->proc.name);
    const char *argv[] = {"muster-local", "anchor", name, m->s->c->dir, NULL};
    struct proc_spec spec = {
        .name = name, .program = program, .argv = argv, .setup = setup, .arg = space, .stdin_fd = -1};
    return start(m, &spec, report, err);
}

static int start_head(struct supervisor *s, struct error *err)
{
    char program[PATH_MAX + 16], dir[PATH_MAX], sock[PATH_MAX], listen[64];
    snprintf(program, sizeof program, "%s/muster-head", s->c->bin);
    snprintf(dir, sizeof dir, "%s", cluster_path(s->c, "head"));
    snprintf(sock, sizeof sock, "%s", cluster_path(s->c, "sock/head.sock"));
    if (s->head_address[0])
        snprintf(listen, sizeof listen, "%s", s->head_address);
    else if (s->namespaces)
        snprintf(listen, sizeof listen, "%s:%u", SPACE_BRIDGE_ADDRESS,
                 s->c->port ? s->c->port : CLUSTER_HEAD_PORT);
    else
        snprintf(listen, sizeof listen, "127.0.0.1:%u", s->c->port);
    const char *argv[] = {"muster-head", "run", "--dir", dir, "--socket", sock, "--listen", listen, NULL};
    struct space space = {.c = s->c, .network = &s->network.proc};
    struct proc_spec spec = {.name = "head",
                             .program = program,
                             .argv = argv,
                             .uid = s->c->head_uid,
                             .gid = s->c->head_gid,
                             .stdin_fd = -1,
                             .arg = &space,
                             .setup = s->namespaces ? space_enter_network : NULL};
    return start(&s->head, &spec, NULL, err);
}

/* What agents and joins have in common: the program, in the node's namespaces. */
static int start_node_program(struct supervisor *s, struct proc *p, uint32_t i, const char *name,
                              const char *const *argv, int stdin_fd, bool unlisted, int *report,
                              struct error *err)
{
    char program[PATH_MAX + 16];
    snprintf(program, sizeof program, "%s/muster-node", s->c->bin);
    struct space space = {
        .c = s->c, .network = &s->network.proc, .node = &s->nodes[i].anchor.proc, .index = i};
    struct proc_spec spec = {.name = name,
                             .program = program,
                             .argv = argv,
                             .stdin_fd = stdin_fd,
                             .arg = &space,
                             .setup = s->namespaces ? space_enter_node : NULL,
                             .unlisted = unlisted};
    return proc_start(p, s->c, &spec, report, err);
}

static int start_agent(struct supervisor *s, uint32_t i, int *report, struct error *err)
{
    struct member *m = &s->nodes[i].agent;
    char dir[PATH_MAX], name[sizeof m->proc.name];
    snprintf(name, sizeof name, "%s", m->proc.name);
    snprintf(dir, sizeof dir, "%s", cluster_path(s->c, "nodes/%s", name));
    const char *argv[] = {"muster-node", "run", "--dir", dir, NULL};
    int own, rc = start_node_program(s, &m->proc, i, name, argv, -1, false, report ? report : &own, err);
    if (rc < 0)
        return -1;
    member_started(m);
    return report ? 0 : proc_started(&m->proc, s->c, own, err);
}

/* ---- up: namespaces ---- */

/* Takes what `reports` say of processes started together; the first failure is the one reported. */
static int collect(struct supervisor *s, int *reports, struct proc *(*which)(struct supervisor *, uint32_t),
                   struct error *err)
{
    int rc = 0;
    for (uint32_t i = 0; i < s->c->nodes; i++)
        if (reports[i] >= 0 && proc_started(which(s, i), s->c, reports[i], rc == 0 ? err : NULL) < 0)
            rc = -1;
    return rc;
}
static struct proc *anchor_of(struct supervisor *s, uint32_t i)
{
    return &s->nodes[i].anchor.proc;
}
static struct proc *agent_of(struct supervisor *s, uint32_t i)
{
    return &s->nodes[i].agent.proc;
}

static bool anything_lives(struct supervisor *s)
{
    bool lives = proc_alive(&s->head.proc);
    for (uint32_t i = 0; i < s->c->nodes && !lives; i++)
        lives = proc_alive(&s->nodes[i].agent.proc) || proc_alive(&s->nodes[i].anchor.proc);
    return lives;
}

/* The network's anchor is there, or is made again from the head's namespace, or both are new. */
static int up_network(struct supervisor *s, struct error *err)
{
    if (proc_alive(&s->network.proc))
        return 0;
    struct space space = {.c = s->c, .network = &s->head.proc};
    if (proc_alive(&s->head.proc))
        return start_anchor(&s->network, space_enter_network, &space, NULL, err);
    /* Nodes of a network that is gone reach nobody: they are made anew with it, here while starting, else
     * by their restarts. */
    for (uint32_t i = 0; i < s->c->nodes; i++) {
        proc_signal(&s->nodes[i].agent.proc, SIGKILL);
        proc_signal(&s->nodes[i].anchor.proc, SIGKILL);
        if (!s->base) {
            proc_end(&s->nodes[i].agent.proc, s->c, END_MS);
            proc_end(&s->nodes[i].anchor.proc, s->c, END_MS);
        }
    }
    space.network = NULL;
    return start_anchor(&s->network, space_make_network, &space, NULL, err);
}

static int up_anchor(struct supervisor *s, uint32_t i, int *report, struct error *err)
{
    struct node *n = &s->nodes[i];
    bool agent = proc_alive(&n->agent.proc);
    struct space space = {.c = s->c, .network = &s->network.proc, .node = &n->agent.proc, .index = i};
    return start_anchor(&n->anchor, agent ? space_enter_node : space_make_node, &space, report, err);
}

static int up_anchors(struct supervisor *s, struct error *err)
{
    int *reports = xcalloc(s->c->nodes, sizeof *reports), rc = 0;
    for (uint32_t i = 0; i < s->c->nodes; i++) {
        reports[i] = -1;
        if (rc == 0 && !proc_alive(&s->nodes[i].anchor.proc))
            rc = up_anchor(s, i, &reports[i], err);
    }
    if (collect(s, reports, anchor_of, rc == 0 ? err : NULL) < 0)
        rc = -1;
    free(reports);
    return rc;
}

/* Namespaces where they are to be had; else why not, in s->one_host. */
static int up_namespaces(struct supervisor *s, struct error *err)
{
    struct error why = {0};
    if (s->c->no_namespaces) {
        snprintf(s->one_host, sizeof s->one_host, "chosen when the cluster was made");
        return 0;
    }
    bool lives = anything_lives(s), had = proc_alive(&s->network.proc);
    if (lives && !had && !proc_alive(&s->nodes[0].anchor.proc)) {
        /* Processes without anchors: this cluster was started as one host. */
        snprintf(s->one_host, sizeof s->one_host, "it was started so");
        return 0;
    }
    if (space_write_hosts(s->c, err) < 0)
        return -1;
    if (up_network(s, &why) == 0 && up_anchors(s, &why) == 0) {
        s->namespaces = true;
        return 0;
    }
    if (had || lives) {
        if (err)
            *err = why;
        return -1;
    }
    for (uint32_t i = 0; i < s->c->nodes; i++)
        proc_end(&s->nodes[i].anchor.proc, s->c, 0);
    proc_end(&s->network.proc, s->c, 0);
    snprintf(s->one_host, sizeof s->one_host, "%s", why.text);
    return 0;
}

/* In root's cluster the programs may be where the tasks' account cannot go. With namespaces their
 * folder is mounted at DIR/bin in each; without, they are copied there. */
static int copy_programs(const struct cluster *c, struct error *err)
{
    DIR *d = opendir(c->built);
    struct dirent *e;
    int rc = 0;
    if (!d)
        return error_sys(err, "folder %s", c->built);
    while (rc == 0 && (e = readdir(d))) {
        struct stat st;
        struct buf data = BUF_INIT;
        if (fstatat(dirfd(d), e->d_name, &st, 0) == 0 && S_ISREG(st.st_mode) && (st.st_mode & S_IXUSR)) {
            rc = file_read(dirfd(d), e->d_name, 256u << 20, &data, err);
            if (rc == 0)
                rc = file_write(AT_FDCWD, cluster_path(c, "bin/%s", e->d_name), data.data, data.len, 0755,
                                false, err);
        }
        buf_free(&data);
    }
    closedir(d);
    return rc;
}

/* ---- up: head ---- */

/* The address that the head listens on, from its own file. */
static int read_listen(struct supervisor *s, struct error *err)
{
    struct buf text = BUF_INIT;
    const char *path = cluster_path(s->c, "head/listen");
    int rc = file_read(AT_FDCWD, path, sizeof s->head_address - 1, &text, err);
    if (rc == 0)
        snprintf(s->head_address, sizeof s->head_address, "%.*s", (int)strcspn(buf_str(&text), "\n"),
                 buf_str(&text));
    buf_free(&text);
    return rc;
}

static int last_words(struct supervisor *s, const struct member *m, struct error *err)
{
    const char *words = proc_last_words(s->c, m->proc.name);
    if (words[0])
        return error_set(err, ERR_IO, "%s", words);
    return error_set(err, ERR_IO, "%s ended while starting and said nothing", m->proc.name);
}

/* Connects when it answers; NULL when it has ended or has not answered in time. */
static struct client *wait_for_head(struct supervisor *s, struct error *err)
{
    int64_t deadline = clock_boot_ms() + UP_MS;
    for (;;) {
        struct client *client = client_open(cluster_path(s->c, "head.sock"), ASK_MS, err);
        if (client)
            return client;
        if (proc_wait(&s->head.proc, s->c, POLL_MS, NULL)) {
            last_words(s, &s->head, err);
            return NULL;
        }
        if (clock_boot_ms() > deadline) {
            error_prefix(err, "the head does not answer");
            return NULL;
        }
    }
}

static struct client *up_head(struct supervisor *s, struct error *err)
{
    /* Agents that live dial the address they know. */
    if (proc_alive(&s->head.proc) || (!s->namespaces && anything_lives(s)))
        read_listen(s, NULL);
    if (!proc_alive(&s->head.proc) && start_head(s, err) < 0)
        return NULL;
    struct client *client = wait_for_head(s, err);
    if (client && read_listen(s, err) < 0) {
        client_close(client);
        return NULL;
    }
    return client;
}

/* ---- up: nodes ---- */

/* A one-time token for node i, from the head, readable through the descriptor that is returned. */
static int token_for(struct supervisor *s, struct client *client, uint32_t i, struct error *err)
{
    Mu__TokenCreate create = MU__TOKEN_CREATE__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    Mu__Reply *reply;
    create.name = (char *)cluster_node_name(s->c, i);
    create.uses = 1;
    request.kind_case = MU__REQUEST__KIND_TOKEN_CREATE;
    request.token_create = &create;
    if (client_call(client, &request, -1, &reply, err) < 0)
        return -1;
    int fd = -1;
    if (reply->kind_case != MU__REPLY__KIND_TOKEN) {
        error_set(err, ERR_PROTOCOL, "the head gave no token");
    } else if ((fd = memfd_create("join-token", MFD_CLOEXEC)) < 0 ||
               file_write_all(fd, reply->token->token, strlen(reply->token->token)) < 0 ||
               lseek(fd, 0, SEEK_SET) < 0) {
        error_sys(err, "token of %s", cluster_node_name(s->c, i));
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    client_reply_free(reply);
    return fd;
}

static int start_join(struct supervisor *s, struct client *client, uint32_t i, struct proc *join, int *report,
                      struct error *err)
{
    char name[32], dir[PATH_MAX], log[48];
    int token = token_for(s, client, i, err);
    if (token < 0)
        return -1;
    snprintf(name, sizeof name, "%s", cluster_node_name(s->c, i));
    snprintf(log, sizeof log, "%s", name);
    snprintf(dir, sizeof dir, "%s", cluster_path(s->c, "nodes/%s", name));
    const char *argv[] = {"muster-node", "join",          "--dir",        dir, "--name", name,
                          "--head",      s->head_address, "--token-file", "-", NULL};
    int rc = start_node_program(s, join, i, log, argv, token, true, report, err);
    close(token);
    return rc;
}

static int join_ended(struct supervisor *s, struct proc *join, int report, struct error *err)
{
    int status;
    if (proc_started(join, s->c, report, err) < 0)
        return -1;
    if (!proc_wait(join, s->c, UP_MS, &status)) {
        proc_end(join, s->c, 0);
        return error_set(err, ERR_TIMEOUT, "%s did not join in %d s", join->name, UP_MS / 1000);
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return error_set(err, ERR_IO, "%s could not join: %s", join->name, proc_last_words(s->c, join->name));
    return 0;
}

/* Nodes without a certificate get one: all at once. */
static int up_joins(struct supervisor *s, struct client *client, struct error *err)
{
    struct proc *joins = xcalloc(s->c->nodes, sizeof *joins);
    int *reports = xcalloc(s->c->nodes, sizeof *reports), rc = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->c->nodes; i++) {
        reports[i] = -1;
        if (rc < 0 || access(cluster_path(s->c, "nodes/%s/node.crt", cluster_node_name(s->c, i)), F_OK) == 0)
            continue;
        rc = start_join(s, client, i, &joins[i], &reports[i], err);
        s->nodes[i].joined_now = true;
        count++;
    }
    for (uint32_t i = 0; i < s->c->nodes; i++)
        if (reports[i] >= 0 && join_ended(s, &joins[i], reports[i], rc == 0 ? err : NULL) < 0)
            rc = -1;
    free(joins);
    free(reports);
    return rc;
}

static int up_agents(struct supervisor *s, struct error *err)
{
    int *reports = xcalloc(s->c->nodes, sizeof *reports), rc = 0;
    for (uint32_t i = 0; i < s->c->nodes; i++) {
        reports[i] = -1;
        if (rc == 0 && !proc_alive(&s->nodes[i].agent.proc))
            rc = start_agent(s, i, &reports[i], err);
    }
    if (collect(s, reports, agent_of, rc == 0 ? err : NULL) < 0)
        rc = -1;
    free(reports);
    return rc;
}

static Mu__Reply *ask_nodes(struct client *client, struct error *err)
{
    Mu__NodeList list = MU__NODE_LIST__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    Mu__Reply *reply;
    request.kind_case = MU__REQUEST__KIND_NODE_LIST;
    request.node_list = &list;
    if (client_call(client, &request, -1, &reply, err) < 0)
        return NULL;
    if (reply->kind_case != MU__REPLY__KIND_NODES) {
        client_reply_free(reply);
        error_set(err, ERR_PROTOCOL, "the head gave no list of nodes");
        return NULL;
    }
    return reply;
}

static const Mu__Node *find_node(const Mu__Reply *reply, const char *name)
{
    for (size_t i = 0; i < reply->nodes->n_nodes; i++)
        if (!strcasecmp(reply->nodes->nodes[i]->node->name, name))
            return reply->nodes->nodes[i]->node;
    return NULL;
}

/* How many of our nodes the head does not reach; the first one's index in *first. */
static uint32_t count_missing(struct supervisor *s, const Mu__Reply *reply, uint32_t *first)
{
    uint32_t missing = 0;
    for (uint32_t i = s->c->nodes; i-- > 0;) {
        const Mu__Node *node = find_node(reply, cluster_node_name(s->c, i));
        if (!node || !node->reachable) {
            missing++;
            *first = i;
        }
    }
    return missing;
}

/* Nodes that have just joined, and those that were taken offline by `cluster stop`, come online;
 * one that a person has taken offline stays so. */
static int set_online(struct supervisor *s, struct client *client, const Mu__Reply *nodes, struct error *err)
{
    Mu__NodeSet set = MU__NODE_SET__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    Mu__Reply *reply;
    char **names = xcalloc(s->c->nodes, sizeof *names);
    for (uint32_t i = 0; i < s->c->nodes; i++) {
        const Mu__Node *node = find_node(nodes, cluster_node_name(s->c, i));
        if (node && node->state != MU__NODE_STATE__NODE_STATE_ONLINE &&
            (s->nodes[i].joined_now || !node->admin_offline || !strcmp(node->comment, STOPPED_COMMENT)))
            names[set.n_names++] = node->name;
    }
    int rc = 0;
    if (set.n_names > 0) {
        set.names = names;
        set.online = true;
        request.kind_case = MU__REQUEST__KIND_NODE_SET;
        request.node_set = &set;
        rc = client_call(client, &request, -1, &reply, err);
        if (rc == 0)
            client_reply_free(reply);
    }
    free(names);
    return rc;
}

static int up_online(struct supervisor *s, struct client *client, struct error *err)
{
    int64_t deadline = clock_boot_ms() + UP_MS;
    for (;;) {
        uint32_t first = 0;
        Mu__Reply *nodes = ask_nodes(client, err);
        if (!nodes)
            return -1;
        uint32_t missing = count_missing(s, nodes, &first);
        int rc = missing == 0 ? set_online(s, client, nodes, err) : 0;
        client_reply_free(nodes);
        if (missing == 0 || rc < 0)
            return rc;
        if (proc_wait(&s->nodes[first].agent.proc, s->c, POLL_MS, NULL))
            return last_words(s, &s->nodes[first].agent, err);
        if (clock_boot_ms() > deadline)
            return error_set(err, ERR_TIMEOUT,
                             "%u of %u nodes have not reached the head in %d s; the first is %s", missing,
                             s->c->nodes, UP_MS / 1000, cluster_node_name(s->c, first));
    }
}

static int up(struct supervisor *s, struct error *err)
{
    if (cluster_run_dir(s->c, err) < 0 || up_namespaces(s, err) < 0)
        return -1;
    if (s->namespaces)
        tell(s, "progress %u nodes in %s", s->c->nodes, kind_of_cluster(s));
    else
        tell(s, "progress one host: nodes are processes on 127.0.0.x (%s)", s->one_host);
    if (!s->namespaces && strcmp(s->c->bin, s->c->built) && copy_programs(s->c, err) < 0)
        return -1;
    write_status(s, "starting");
    struct client *client = up_head(s, err);
    if (!client)
        return -1;
    tell(s, "progress head listens on %s", s->head_address);
    int rc = 0;
    for (uint32_t i = 0; i < s->c->nodes && rc == 0; i++)
        rc = cluster_write_node(s->c, i, s->namespaces, s->head_address, err);
    if (rc == 0)
        rc = up_joins(s, client, err);
    if (rc == 0)
        rc = up_agents(s, err);
    if (rc == 0)
        rc = up_online(s, client, err);
    client_close(client);
    return rc;
}

/* ---- kept up ---- */

static void watch(struct member *m);

static int restart(struct member *m, struct error *err)
{
    struct supervisor *s = m->s;
    switch (m->kind) {
    case KIND_NETWORK:
        return up_network(s, err);
    case KIND_ANCHOR:
        return up_anchor(s, m->index, NULL, err);
    case KIND_HEAD:
        return start_head(s, err);
    case KIND_AGENT:
        return start_agent(s, m->index, NULL, err);
    }
    return -1;
}

static void plan_restart(struct member *m)
{
    if (clock_boot_ms() - m->started_ms > BACKOFF_FORGET_MS)
        m->backoff_ms = 0;
    m->backoff_ms = m->backoff_ms ? m->backoff_ms * 2 : BACKOFF_MIN_MS;
    if (m->backoff_ms > BACKOFF_MAX_MS)
        m->backoff_ms = BACKOFF_MAX_MS;
    struct timeval tv = {m->backoff_ms / 1000, m->backoff_ms % 1000 * 1000};
    evtimer_add(m->again, &tv);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    struct member *m = arg;
    struct error err;
    if (proc_alive(&m->proc))
        return;
    m->restarts++;
    if (restart(m, &err) < 0) {
        log_error("restart of %s: %s", m->proc.name, err.text);
        m->started_ms = clock_boot_ms();
        plan_restart(m);
        return;
    }
    log_info("%s runs again as process %d", m->proc.name, (int)m->proc.pid);
    watch(m);
    write_status(m->s, "running");
}

static void on_child(evutil_socket_t sig, short what, void *arg);

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
    struct member *m = arg;
    int status;
    event_free(m->watch);
    m->watch = NULL;
    pid_t pid = m->proc.pid;
    proc_wait(&m->proc, m->s->c, 0, &status);
    if (status != -1 && WIFSIGNALED(status))
        log_warn("%s (process %d) was ended by signal %d", m->proc.name, (int)pid, WTERMSIG(status));
    else if (status != -1 && WIFEXITED(status))
        log_warn("%s (process %d) has ended with exit code %d", m->proc.name, (int)pid, WEXITSTATUS(status));
    else
        log_warn("%s (process %d) has ended", m->proc.name, (int)pid);
    plan_restart(m);
    write_status(m->s, "running");
    on_child(SIGCHLD, 0, m->s);
}

static void watch(struct member *m)
{
    if (m->watch)
        event_free(m->watch);
    m->watch = NULL;
    if (!m->again)
        m->again = evtimer_new(m->s->base, on_again, m);
    if (m->proc.pid <= 0)
        return;
    m->watch = event_new(m->s->base, m->proc.pidfd, EV_READ, on_ended, m);
    event_add(m->watch, NULL);
}

static void for_each_member(struct supervisor *s, void (*fn)(struct member *))
{
    if (s->namespaces)
        fn(&s->network);
    fn(&s->head);
    for (uint32_t i = 0; i < s->c->nodes; i++) {
        if (s->namespaces)
            fn(&s->nodes[i].anchor);
        fn(&s->nodes[i].agent);
    }
}

static void hurry(struct member *m)
{
    struct timeval now = {0, 0};
    m->backoff_ms = 0;
    if (m->proc.pid <= 0 && m->again)
        evtimer_add(m->again, &now);
}

static void on_hurry(evutil_socket_t sig, short what, void *arg)
{
    for_each_member(arg, hurry);
}

static void on_stop(evutil_socket_t sig, short what, void *arg)
{
    struct supervisor *s = arg;
    s->stopping = true;
    event_base_loopbreak(s->base);
}

/* Orphans only: our own are waited for through their pidfds, and must still be there then. */
static void on_child(evutil_socket_t sig, short what, void *arg)
{
    struct supervisor *s = arg;
    for (int i = 0; i < ORPHANS_AT_ONCE; i++) {
        siginfo_t info = {0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return;
        bool ours = info.si_pid == s->head.proc.pid || info.si_pid == s->network.proc.pid;
        for (uint32_t n = 0; n < s->c->nodes && !ours; n++)
            ours = info.si_pid == s->nodes[n].agent.proc.pid || info.si_pid == s->nodes[n].anchor.proc.pid;
        if (ours)
            return; /* its pidfd is readable: on_ended comes next, and looks here for the rest */
        waitpid(info.si_pid, NULL, WNOHANG);
    }
}

static void keep_up(struct supervisor *s)
{
    struct event *signals[4];
    s->base = event_base_new();
    /* Ignored before and after they are watched: a second one must not cut the end short. */
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signals[0] = evsignal_new(s->base, SIGTERM, on_stop, s);
    signals[1] = evsignal_new(s->base, SIGINT, on_stop, s);
    signals[2] = evsignal_new(s->base, SIGHUP, on_hurry, s);
    signals[3] = evsignal_new(s->base, SIGCHLD, on_child, s);
    for (int i = 0; i < 4; i++)
        event_add(signals[i], NULL);
    for_each_member(s, watch);
    on_child(SIGCHLD, 0, s);
    event_base_dispatch(s->base);
    for (int i = 0; i < 4; i++)
        event_free(signals[i]);
}

/* ---- down ---- */

/* Keepers whose agent has gone call at `agent.sock` in the node's folder, a few times a second, and take what
 * is said there for the agent's word (src/node/keeper_proto.h). -1: nobody of this node will be told. */
static int keepers_listen(const struct cluster *c, uint32_t i)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int folder = open(cluster_path(c, "nodes/%s", cluster_node_name(c, i)), O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(addr.sun_path, sizeof addr.sun_path, "/proc/self/fd/%d/agent.sock", folder);
    bool good = folder >= 0 && fd >= 0 && (unlinkat(folder, "agent.sock", 0) == 0 || errno == ENOENT) &&
                bind(fd, (struct sockaddr *)&addr, sizeof addr) == 0 && listen(fd, SOMAXCONN) == 0;
    if (folder >= 0)
        close(folder);
    if (!good && fd >= 0)
        close(fd);
    return good ? fd : -1;
}

struct callers {
    int *fds; /* kept open: a keeper that cannot deliver its report drops the connection unread */
    size_t count, room;
};

static void end_callers(struct callers *callers, int listening)
{
    static const char words[] = "end 0 the cluster was stopped";
    for (int fd; (fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC)) >= 0;) {
        send(fd, words, sizeof words - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        callers->fds = xgrow(callers->fds, &callers->room, callers->count + 1, sizeof *callers->fds);
        callers->fds[callers->count++] = fd;
    }
}

static void callers_release(struct callers *callers)
{
    for (size_t i = 0; i < callers->count; i++)
        close(callers->fds[i]);
    free(callers->fds);
}

/* A keeper holds the lock of its order as long as it lives. */
static bool keepers_live(const struct cluster *c, uint32_t i)
{
    bool live = false;
    DIR *d = opendir(cluster_path(c, "nodes/%s/attempts", cluster_node_name(c, i)));
    for (struct dirent *e; d && !live && (e = readdir(d));) {
        char order[300];
        snprintf(order, sizeof order, "%s/order", e->d_name);
        live = e->d_name[0] != '.' && file_locked(dirfd(d), order, NULL) == 1;
    }
    if (d)
        closedir(d);
    return live;
}

static void pause_ms(int ms)
{
    poll(NULL, 0, ms);
}

static void reap_orphans(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

static void down_tasks(struct supervisor *s)
{
    int64_t deadline = clock_boot_ms() + TASKS_MS;
    int *listening = xcalloc(s->c->nodes, sizeof *listening);
    struct callers callers = {0};
    for (uint32_t i = 0; i < s->c->nodes; i++)
        listening[i] = keepers_live(s->c, i) ? keepers_listen(s->c, i) : -1;
    for (bool lives = true; lives && clock_boot_ms() < deadline; reap_orphans()) {
        lives = false;
        for (uint32_t i = 0; i < s->c->nodes; i++) {
            if (listening[i] < 0)
                continue;
            end_callers(&callers, listening[i]);
            lives = keepers_live(s->c, i) || lives;
        }
        if (lives)
            pause_ms(20);
    }
    for (uint32_t i = 0; i < s->c->nodes; i++)
        if (listening[i] >= 0)
            close(listening[i]);
    free(listening);
    callers_release(&callers);
    /* What is left in the namespaces: keepers that did not listen, and what their tasks have left behind. */
    deadline = clock_boot_ms() + END_MS;
    for (bool lives = true; lives && clock_boot_ms() < deadline; reap_orphans()) {
        lives = false;
        for (uint32_t i = 0; i < s->c->nodes; i++)
            lives = space_signal_all(&s->nodes[i].anchor.proc, NULL, SIGKILL) > 0 || lives;
        if (lives)
            pause_ms(5);
    }
}

static void signal_agents(struct supervisor *s)
{
    for (uint32_t i = 0; i < s->c->nodes; i++)
        proc_signal(&s->nodes[i].agent.proc, SIGTERM);
    for (uint32_t i = 0; i < s->c->nodes; i++)
        proc_end(&s->nodes[i].agent.proc, s->c, END_MS);
}

/* Agents first, so that nothing new starts; then tasks, head, and last what holds the namespaces. */
static void down(struct supervisor *s)
{
    struct error err;
    write_status(s, "stopping");
    signal_agents(s);
    down_tasks(s);
    proc_end(&s->head.proc, s->c, END_MS);
    for (uint32_t i = 0; i < s->c->nodes; i++)
        proc_signal(&s->nodes[i].anchor.proc, SIGTERM);
    for (uint32_t i = 0; i < s->c->nodes; i++)
        proc_end(&s->nodes[i].anchor.proc, s->c, END_MS);
    space_signal_all(&s->network.proc, NULL, SIGKILL);
    proc_end(&s->network.proc, s->c, END_MS);
    reap_orphans();
    if (file_remove_tree(AT_FDCWD, s->c->run_dir, &err) < 0)
        log_warn("%s", err.text);
    unlink(cluster_path(s->c, "local.json"));
    log_info("the cluster is down");
}

/* ---- the whole ---- */

int supervisor_run(const struct cluster *c, int ready_fd, struct error *err)
{
    int lock = file_lock(AT_FDCWD, cluster_path(c, "local.lock"), err);
    if (lock < 0)
        return err->code == ERR_EXISTS
                   ? error_set(err, ERR_EXISTS, "another muster-local runs the cluster in %s", c->dir)
                   : -1;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* nothing to hurry until it is up */
    struct supervisor *s = supervisor_create(c, ready_fd);
    adopt_all(s);
    bool lived = anything_lives(s);
    int rc = up(s, err);
    if (rc == 0) {
        write_status(s, "running");
        tell(s, "ready %s", kind_of_cluster(s));
        if (ready_fd >= 0)
            close(ready_fd);
        s->ready_fd = -1;
        keep_up(s);
    }
    /* What lived before a start that failed may hold running jobs: it is left as it is. */
    if (rc == 0 || !lived)
        down(s);
    supervisor_destroy(s);
    close(lock);
    return rc;
}

int supervisor_down(const struct cluster *c, struct error *err)
{
    int lock = file_lock(AT_FDCWD, cluster_path(c, "local.lock"), err);
    if (lock < 0)
        return -1;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGTERM, SIG_IGN); /* of another stop, which takes us for the cluster's muster-local */
    signal(SIGINT, SIG_IGN);
    struct supervisor *s = supervisor_create(c, -1);
    adopt_all(s);
    s->namespaces = proc_alive(&s->network.proc);
    down(s);
    supervisor_destroy(s);
    close(lock);
    return 0;
}
