/* agent.c - muster-node run: the link to the head, and the loop.
 *
 * The agent dials the head for ever, with a back-off that grows to 5 s and is jittered, so that
 * thousands of agents do not return in step. On a link it says Hello with every attempt that it
 * knows; from then on orders come in and each loop turn sends at most one report frame. Every
 * heartbeat that the head echoes renews the leases: they count from when that heartbeat was SENT,
 * so that however long a message lay in a buffer, no attempt outlives what the head assumes.
 *
 * An order of a store older than one already seen (a deposed or restored head) is refused: the
 * generation is durable before the first order under it is obeyed. */
#include "node/agent.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/attempts.h"
#include "node/step_port.h"
#include "wire/frame.h"
#include "wire/link.h"
#include "wire/tls.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define HEARTBEAT_DEFAULT_MS 1000 /* until the head says otherwise */
#define SILENCE_HEARTBEATS 4      /* without an order for so long, the link counts as dead */
#define SILENCE_MIN_MS 5000
#define SETTLE_MS 500 /* at start: how long keepers may take to say how they stand */
#define REPORT_BYTES (1024 * 1024)
#define UNSENT_MAX (2 * 1024 * 1024)
#define UNSENT_RETRY_MS 10
#define SENT_KEPT 16

struct uplink {
    struct agent *agent;
    struct tls_context *tls;
    struct link *link;
    bool greeted; /* the head's Hello has come */
    uint64_t generation;
    int backoff_ms;
    int64_t heard_ms, hello_ms, start_ms;
    uint32_t heartbeat_ms;
    uint64_t seq;
    int64_t sent_ms[SENT_KEPT]; /* when heartbeat seq was sent, at seq % SENT_KEPT */
    struct event *dial, *beat, *drain;
};
static struct uplink up;

/* ---- generation ---- */

static void generation_read(struct agent *agent)
{
    struct buf text = BUF_INIT;
    if (file_read(agent->dir, "generation", 64, &text, NULL) == 0)
        up.generation = strtoull(buf_str(&text), NULL, 10);
    buf_free(&text);
}

static int generation_check(struct agent *agent, uint64_t generation, struct error *err)
{
    char text[32];
    if (generation < up.generation)
        return error_set(err, ERR_DENIED,
                         "its store has generation %llu and %llu was seen: an old or restored head",
                         (unsigned long long)generation, (unsigned long long)up.generation);
    if (generation == up.generation)
        return 0;
    int len = snprintf(text, sizeof text, "%llu\n", (unsigned long long)generation);
    if (file_write(agent->dir, "generation", text, (size_t)len, 0600, true, err))
        return -1;
    up.generation = generation;
    return 0;
}

/* ---- the link ---- */

static void set_timer(struct event *event, int64_t ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
    evtimer_add(event, &tv);
}

static void dial_later(void)
{
    uint32_t random;
    random_bytes(&random, sizeof random);
    up.backoff_ms = up.backoff_ms ? up.backoff_ms * 2 : BACKOFF_MIN_MS;
    if (up.backoff_ms > BACKOFF_MAX_MS)
        up.backoff_ms = BACKOFF_MAX_MS;
    set_timer(up.dial, up.backoff_ms / 2 + (int)(random % (uint32_t)up.backoff_ms) / 2 + 1);
}

static void link_down(const char *why, bool close_it)
{
    if (!up.link)
        return;
    if (up.greeted || up.backoff_ms < BACKOFF_MAX_MS)
        log_warn("head %s: %s", up.agent->config.head, why);
    if (close_it)
        link_close(up.link);
    up.link = NULL;
    if (up.greeted)
        up.backoff_ms = 0;
    up.greeted = false;
    evtimer_del(up.beat);
    evtimer_del(up.drain);
    dial_later();
}

static void send_frame(Mu__Frame *frame)
{
    if (up.link)
        link_send(up.link, frame);
}

static void beat(void)
{
    Mu__Frame frame = MU__FRAME__INIT;
    Mu__NodeReport report = MU__NODE_REPORT__INIT;
    Mu__NodeLoad load = MU__NODE_LOAD__INIT;
    load.load_milli = inventory_load_milli();
    load.memory_free_mb = inventory_memory_free_mb();
    load.attempts = attempts_alive(up.agent->attempts);
    report.load = &load;
    report.seq = ++up.seq;
    up.sent_ms[up.seq % SENT_KEPT] = clock_boot_ms();
    frame.kind_case = MU__FRAME__KIND_REPORT;
    frame.report = &report;
    send_frame(&frame);
    set_timer(up.beat, up.heartbeat_ms);
}

static void on_beat(evutil_socket_t fd, short what, void *arg)
{
    int64_t silence = clock_boot_ms() - up.heard_ms;
    int64_t limit = (int64_t)up.heartbeat_ms * SILENCE_HEARTBEATS;
    if (silence > (limit > SILENCE_MIN_MS ? limit : SILENCE_MIN_MS))
        link_down("it does not answer", true);
    else
        beat();
}

/* Everything there is to say goes in one frame a turn; bulk waits while the link is full. */
static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct agent *agent = arg;
    Mu__Frame frame = MU__FRAME__INIT;
    Mu__NodeReport report = MU__NODE_REPORT__INIT;
    attempts_turn(agent->attempts);
    if (!up.greeted)
        return;
    if (link_unsent(up.link) > UNSENT_MAX) {
        set_timer(up.drain, UNSENT_RETRY_MS);
        return;
    }
    if (attempts_collect(agent->attempts, &report, REPORT_BYTES)) {
        frame.kind_case = MU__FRAME__KIND_REPORT;
        frame.report = &report;
        send_frame(&frame);
    }
    attempts_report_free(&report);
}

static void on_drain(evutil_socket_t fd, short what, void *arg)
{
    agent_soon(arg);
}

void agent_soon(struct agent *agent)
{
    struct timeval now = {0};
    if (!evtimer_pending(agent->turn, NULL))
        evtimer_add(agent->turn, &now);
}

static void take_heartbeat(const Mu__NodeOrder *order)
{
    if (order->heartbeat_ms >= 10 && order->heartbeat_ms <= 600000)
        up.heartbeat_ms = order->heartbeat_ms;
    if (order->heartbeat_seq > up.seq || up.seq - order->heartbeat_seq >= SENT_KEPT)
        return;
    int64_t sent = up.sent_ms[order->heartbeat_seq % SENT_KEPT];
    if (sent > up.agent->lease_from_ms)
        up.agent->lease_from_ms = sent;
    attempts_renew(up.agent->attempts, order->lease_ms);
}

static void take_order(const Mu__NodeOrder *o)
{
    struct agent *agent = up.agent;
    struct error err;
    if (generation_check(agent, o->generation, &err)) {
        link_down(err.text, true);
        return;
    }
    if (o->heartbeat_seq)
        take_heartbeat(o);
    for (size_t i = 0; i < o->n_forget; i++)
        attempts_forget(agent->attempts, o->forget[i]);
    for (size_t i = 0; i < o->n_prepare; i++)
        attempts_prepare(agent->attempts, o->prepare[i]);
    for (size_t i = 0; i < o->n_go; i++)
        attempts_go(agent->attempts, o->go[i]);
    for (size_t i = 0; i < o->n_end; i++)
        attempts_end(agent->attempts, o->end[i]);
    for (size_t i = 0; i < o->n_credit; i++)
        attempts_credit(agent->attempts, o->credit[i]);
}

static void take_hello(const Mu__Hello *h)
{
    struct error err;
    if (h->error) {
        link_down(h->error->text, true);
        return;
    }
    if (h->role != MU__ROLE__ROLE_HEAD || h->protocol_min > 1 || h->protocol < 1) {
        link_down("it is no head that speaks protocol 1", true);
        return;
    }
    if (generation_check(up.agent, h->generation, &err)) {
        link_down(err.text, true);
        return;
    }
    link_limit(up.link, FRAME_MAX);
    snprintf(up.agent->cluster, sizeof up.agent->cluster, "%s", h->cluster);
    up.greeted = true;
    up.backoff_ms = 0;
    up.agent->lease_from_ms = up.hello_ms > up.agent->lease_from_ms ? up.hello_ms : up.agent->lease_from_ms;
    log_info("connected to head %s of cluster %s", up.agent->config.head, up.agent->cluster);
    beat();
    attempts_renew(up.agent->attempts, 0);
    agent_soon(up.agent);
}

static void on_frame(struct link *link, Mu__Frame *frame, void *arg)
{
    up.heard_ms = clock_boot_ms();
    if (frame->kind_case == MU__FRAME__KIND_HELLO && !up.greeted)
        take_hello(frame->hello);
    else if (frame->kind_case == MU__FRAME__KIND_ORDER && up.greeted)
        take_order(frame->order);
    else
        link_down("it sent what a head must not send", true);
}

/* The address by which peers reach us is, unless it is configured, the one that reaches the head. */
static void find_address(char *out, size_t size)
{
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof peer;
    snprintf(out, size, "127.0.0.1");
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in *in = (struct sockaddr_in *)&peer;
    in->sin_family = AF_INET;
    in->sin_port = htons(up.agent->config.head_port);
    if (fd >= 0 && inet_pton(AF_INET, up.agent->config.head_host, &in->sin_addr) == 1 &&
        connect(fd, (struct sockaddr *)in, sizeof *in) == 0 &&
        getsockname(fd, (struct sockaddr *)&peer, &len) == 0)
        inet_ntop(AF_INET, &in->sin_addr, out, (socklen_t)size);
    if (fd >= 0)
        close(fd);
}

static void on_ready(struct link *link, void *arg)
{
    struct agent *agent = up.agent;
    Mu__Frame frame = MU__FRAME__INIT;
    Mu__Hello hello = MU__HELLO__INIT;
    Mu__NodeHello node = MU__NODE_HELLO__INIT;
    char address[64];
    find_address(address, sizeof address);
    hello.protocol = hello.protocol_min = 1;
    hello.software = (char *)"muster-node " MUSTER_VERSION;
    hello.role = MU__ROLE__ROLE_NODE;
    hello.node = &node;
    node.name = agent->config.name;
    node.install_id = agent->install_id;
    node.boot_id = agent->inventory.boot_id;
    node.cores = (uint32_t)(agent->config.cores ? agent->config.cores : agent->inventory.cpu_count);
    node.memory_mb = agent->config.memory_mb ? agent->config.memory_mb : agent->inventory.memory_mb;
    node.address = agent->config.address[0] ? agent->config.address : address;
    node.port = step_port_number(agent->step_port);
    node.version = (char *)MUSTER_VERSION;
    node.sockets = agent->inventory.sockets;
    node.virtual_cores = agent->config.virtual_cores;
    node.physical_host =
        agent->config.physical_host[0] ? agent->config.physical_host : agent->inventory.boot_id;
    node.os = agent->inventory.os;
    node.attempts = attempts_inventory(agent->attempts, &node.n_attempts);
    frame.kind_case = MU__FRAME__KIND_HELLO;
    frame.hello = &hello;
    up.hello_ms = clock_boot_ms();
    send_frame(&frame);
    attempts_reports_free(node.attempts, node.n_attempts);
}

static void on_closed(struct link *link, const struct error *err, void *arg)
{
    link_down(err->text, false);
}

static const struct link_ops head_ops = {on_ready, on_frame, on_closed};

static void on_dial(evutil_socket_t fd, short what, void *arg)
{
    struct agent *agent = up.agent;
    struct error err;
    if (!attempts_settled(agent->attempts) && clock_boot_ms() - up.start_ms < SETTLE_MS) {
        set_timer(up.dial, 5);
        return;
    }
    if (!up.tls)
        up.tls = tls_node(agent->dir_path, &err);
    if (up.tls)
        up.link = link_connect_tcp(agent->base, agent->config.head_host, agent->config.head_port, up.tls,
                                   "head", &head_ops, NULL, &err);
    if (!up.link) {
        log_error("head %s: %s", agent->config.head, err.text);
        dial_later();
    }
}

/* ---- the rest of the process ---- */

static pid_t probe_pid;

/* What probes that were killed have left in their folder. */
static void sweep_probes(const char *out)
{
    struct error err;
    DIR *dir = opendir(out);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (!strncmp(e->d_name, "probe-", 6) && file_remove_tree(dirfd(dir), e->d_name, &err))
            log_warn("%s/%s: %s", out, e->d_name, err.text);
    if (dir)
        closedir(dir);
}

/* The topology and what the MPI libraries need of it are found once per boot, by a program that
 * links them (the agent does not); steps start faster with it, and work without it. */
static void probe(struct agent *agent)
{
    char out[PATH_MAX], file[PATH_MAX], program[PATH_MAX];
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    snprintf(out, sizeof out, "%s/boot-%.36s", agent->config.run_dir, agent->inventory.boot_id);
    snprintf(program, sizeof program, "%s/muster-step", agent->config.bin);
    if (snprintf(file, sizeof file, "%s/topology.xml", out) >= (int)sizeof file || access(program, X_OK))
        return;
    sweep_probes(out);
    free(agent->topology);
    agent->topology = xstrdup(file);
    if (access(file, R_OK) == 0)
        return;
    free(agent->topology);
    agent->topology = xstrdup("");
    if (mkdir(out, 0755) && errno != EEXIST)
        return;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    posix_spawnattr_init(&attributes);
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    char *const argv[] = {"muster-step", "--probe", "--out", out, NULL};
    char *const environment[] = {"PATH=/usr/bin:/bin", NULL};
    if (posix_spawn(&probe_pid, program, &actions, &attributes, argv, environment))
        probe_pid = 0;
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
}

static void on_child(evutil_socket_t sig, short what, void *arg)
{
    struct agent *agent = arg;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (janitor_child(&agent->janitor, pid) || pid != probe_pid)
            continue; /* a keeper: what it did is in its reports and its status */
        probe_pid = 0;
        char file[PATH_MAX];
        snprintf(file, sizeof file, "%s/boot-%.36s/topology.xml", agent->config.run_dir,
                 agent->inventory.boot_id);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && access(file, R_OK) == 0) {
            free(agent->topology);
            agent->topology = xstrdup(file);
        } else {
            log_info("no topology file: MPI steps find the topology themselves");
        }
    }
}

static void on_stop(evutil_socket_t sig, short what, void *arg)
{
    struct agent *agent = arg;
    log_info("ends; its attempts go on");
    event_base_loopbreak(agent->base);
}

int install_id_read(int dir, char out[65], struct error *err)
{
    struct buf text = BUF_INIT;
    struct error first = {0};
    uint8_t random[16];
    if (file_read(dir, "install_id", 256, &text, &first) == 0) {
        size_t len = strcspn(buf_str(&text), "\n");
        bool good = len > 0 && len < 65;
        if (good)
            snprintf(out, 65, "%.*s", (int)len, buf_str(&text));
        buf_free(&text);
        return good ? 0 : error_set(err, ERR_PROTOCOL, "install_id: expected 1 to 64 characters");
    }
    buf_free(&text);
    if (first.code != ERR_NOT_FOUND) {
        if (err)
            *err = first;
        return -1;
    }
    random_bytes(random, sizeof random);
    hex_encode(random, sizeof random, out);
    return file_write(dir, "install_id", out, strlen(out), 0600, true, err);
}

/* Keepers must find a free descriptor for each attempt's sockets. */
static void raise_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* It may lie in a folder that everybody can write to: what somebody else has put there is refused. */
static int make_run_dir(const char *path, struct error *err)
{
    struct stat st;
    if (file_mkdirs(path, geteuid() == 0 ? 0711 : 0700, err))
        return -1;
    if (lstat(path, &st))
        return error_sys(err, "cannot look at %s", path);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
        return error_set(err, ERR_DENIED, "%s: expected a folder of uid %u that nobody else can write to",
                         path, geteuid());
    return 0;
}

/* Two agents would each sweep away the folders of the other's attempts. Held until the process ends. */
static int lock_run_dir(struct agent *agent, struct error *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", agent->config.run_dir);
    if (file_lock(AT_FDCWD, path, err) >= 0)
        return 0;
    return err->code == ERR_EXISTS
               ? error_set(err, ERR_EXISTS,
                           "another muster-node uses %s: give each its own \"run_dir\" in %s/node.json",
                           agent->config.run_dir, agent->dir_path)
               : -1;
}

static int open_all(struct agent *agent, struct error *err)
{
    char path[PATH_MAX];
    agent->dir = open(agent->dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (agent->dir < 0)
        return error_sys(err, "cannot open folder %s", agent->dir_path);
    snprintf(path, sizeof path, "%s/node.json", agent->dir_path);
    if (config_load(&agent->config, path, err))
        return -1;
    if (file_lock(agent->dir, "lock", err) < 0) /* held until the process ends */
        return err->code == ERR_EXISTS
                   ? error_set(err, ERR_EXISTS, "another muster-node runs in %s", agent->dir_path)
                   : -1;
    if (install_id_read(agent->dir, agent->install_id, err))
        return -1;
    if (make_run_dir(agent->config.run_dir, err) || lock_run_dir(agent, err))
        return -1;
    agent->base = event_base_new();
    if (!agent->base)
        return error_set(err, ERR_INTERNAL, "cannot make an event loop");
    agent->turn = evtimer_new(agent->base, on_turn, agent);
    agent->topology = xstrdup("");
    inventory_read(&agent->inventory);
    up.agent = agent;
    up.heartbeat_ms = HEARTBEAT_DEFAULT_MS;
    up.start_ms = agent->lease_from_ms = clock_boot_ms();
    up.dial = evtimer_new(agent->base, on_dial, agent);
    up.beat = evtimer_new(agent->base, on_beat, agent);
    up.drain = evtimer_new(agent->base, on_drain, agent);
    generation_read(agent);
    agent->janitor.folder = agent->config.run_dir;
    agent->attempts = attempts_create(agent, err);
    if (!agent->attempts)
        return -1;
    agent->step_port = step_port_create(agent, err);
    return agent->step_port ? 0 : -1;
}

static void close_all(struct agent *agent)
{
    struct event *events[] = {agent->turn, up.dial, up.beat, up.drain};
    link_close(up.link);
    tls_free(up.tls);
    step_port_destroy(agent->step_port);
    attempts_destroy(agent->attempts);
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
        if (events[i])
            event_free(events[i]);
    if (agent->base)
        event_base_free(agent->base);
    inventory_release(&agent->inventory);
    config_release(&agent->config);
    free(agent->topology);
}

int agent_run(const char *dir)
{
    static struct agent agent;
    struct error err = {0};
    const int signals[] = {SIGTERM, SIGINT};
    struct event *watched[3] = {NULL};
    agent.dir_path = dir;
    agent.dir = -1;
    raise_limits();
    signal(SIGPIPE, SIG_IGN);
    log_open("muster-node", 2);
    if (open_all(&agent, &err)) {
        fprintf(stderr, "muster-node: %s\n", err.text);
        close_all(&agent);
        return 1;
    }
    watched[0] = evsignal_new(agent.base, SIGCHLD, on_child, &agent);
    /* Ignored before and after they are watched: a second one must not cut the end short. */
    for (int i = 0; i < 2; i++)
        signal(signals[i], SIG_IGN);
    for (int i = 0; i < 2; i++)
        watched[i + 1] = evsignal_new(agent.base, signals[i], on_stop, &agent);
    for (int i = 0; i < 3; i++)
        evsignal_add(watched[i], NULL);
    probe(&agent);
    on_child(SIGCHLD, 0, &agent); /* a helper of the start may have ended before it was watched */
    janitor_start(&agent.janitor);
    set_timer(up.dial, 0);
    log_info("node %s, %zu processors, step port %u", agent.config.name, agent.inventory.cpu_count,
             step_port_number(agent.step_port));
    event_base_dispatch(agent.base);
    for (int i = 0; i < 3; i++)
        event_free(watched[i]);
    close_all(&agent);
    return 0;
}
