/* agent_test.c - muster-node as a process, beside a head that is this test: it joins, takes orders,
 * reports, streams output, hands over step connections, and survives kill -9. As root, tasks run as
 * `nobody`. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "proto/step.pb-c.h"
#include "tap.h"
#include "wire/frame.h"
#include "wire/link.h"
#include "wire/listener.h"
#include "wire/tls.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 15000

static char top[64], bin[1024], head_dir[96], node_dir[96], run_dir[96], log_path[96];
static struct event_base *base;
static struct tls_context *tls;
static struct listener *listener;
static struct link *node; /* the agent's link, NULL: none */
static unsigned hellos, beats;
static Mu__NodeHello *hello; /* the last one */
static uint64_t generation = 5;
static struct token token;
static pid_t agent;

/* What was heard of each attempt. */
#define ATTEMPTS 4096
static struct heard {
    Mu__AttemptReport last;
    char message[256];
    unsigned seen; /* bit per phase */
    unsigned reports;
    struct buf output;
} heard[ATTEMPTS];
static unsigned released;

static void note(const Mu__AttemptReport *r)
{
    struct heard *h = &heard[r->attempt % ATTEMPTS];
    if (r->phase == MU__ATTEMPT_PHASE__PHASE_RELEASED && !(h->seen & (1u << r->phase)))
        released++;
    h->last = *r;
    h->seen |= 1u << r->phase;
    h->reports++;
    snprintf(h->message, sizeof h->message, "%s", r->message);
}

static void send_order(Mu__NodeOrder *o)
{
    Mu__Frame f = MU__FRAME__INIT;
    o->generation = generation;
    f.kind_case = MU__FRAME__KIND_ORDER;
    f.order = o;
    if (node)
        link_send(node, &f);
}

static void take_hello(struct link *link, const Mu__Hello *h)
{
    Mu__Frame f = MU__FRAME__INIT;
    Mu__Hello mine = MU__HELLO__INIT;
    mine.protocol = mine.protocol_min = 1;
    mine.role = MU__ROLE__ROLE_HEAD;
    mine.generation = generation;
    mine.cluster = (char *)"test";
    f.kind_case = MU__FRAME__KIND_HELLO;
    f.hello = &mine;
    link_send(link, &f);
    if (h->role != MU__ROLE__ROLE_NODE)
        return;
    link_limit(link, FRAME_MAX);
    node = link;
    if (hello)
        wire_free(&hello->base);
    size_t len = mu__node_hello__get_packed_size(h->node);
    uint8_t *copy = xmalloc(len);
    mu__node_hello__pack(h->node, copy);
    hello = (Mu__NodeHello *)wire_unpack(&mu__node_hello__descriptor, copy, len);
    free(copy);
    hellos++;
    for (size_t i = 0; i < h->node->n_attempts; i++)
        note(h->node->attempts[i]);
}

static void take_join(struct link *link, const Mu__JoinRequest *j)
{
    Mu__Frame f = MU__FRAME__INIT;
    Mu__JoinReply r = MU__JOIN_REPLY__INIT;
    Mu__ErrorReply e = MU__ERROR_REPLY__INIT;
    struct token shown;
    struct error err;
    struct buf cert = BUF_INIT, ca = BUF_INIT;
    if (token_parse(j->token, &shown, &err) || !token_equal(&shown, &token)) {
        e.code = ERR_DENIED;
        e.text = (char *)"no such token";
        r.error = &e;
    } else if (ca_sign(head_dir, j->name, j->csr_pem.data, j->csr_pem.len, &cert, &err) == 0) {
        char path[128];
        snprintf(path, sizeof path, "%s/ca.crt", head_dir);
        file_read(AT_FDCWD, path, 65536, &ca, NULL);
        r.cert_pem = (ProtobufCBinaryData){cert.len, (uint8_t *)cert.data};
        r.ca_pem = (ProtobufCBinaryData){ca.len, (uint8_t *)ca.data};
        r.cluster = (char *)"test";
    }
    f.kind_case = MU__FRAME__KIND_JOIN_REPLY;
    f.join_reply = &r;
    link_send(link, &f);
    buf_free(&cert);
    buf_free(&ca);
}

static void take_report(const Mu__NodeReport *r)
{
    for (size_t i = 0; i < r->n_output; i++) {
        struct buf *out = &heard[r->output[i]->attempt % ATTEMPTS].output;
        if (r->output[i]->offset == out->len) /* the tests below drop nothing */
            buf_add(out, r->output[i]->data.data, r->output[i]->data.len);
    }
    for (size_t i = 0; i < r->n_attempts; i++)
        note(r->attempts[i]);
    if (r->load) {
        Mu__NodeOrder o = MU__NODE_ORDER__INIT;
        o.heartbeat_seq = r->seq;
        o.heartbeat_ms = 100;
        o.lease_ms = 60000;
        beats++;
        send_order(&o);
    }
}

static void on_frame(struct link *link, Mu__Frame *f, void *arg)
{
    if (f->kind_case == MU__FRAME__KIND_HELLO)
        take_hello(link, f->hello);
    else if (f->kind_case == MU__FRAME__KIND_JOIN)
        take_join(link, f->join);
    else if (f->kind_case == MU__FRAME__KIND_REPORT)
        take_report(f->report);
}

static void on_closed(struct link *link, const struct error *err, void *arg)
{
    if (link == node)
        node = NULL;
}

static const struct link_ops ops = {NULL, on_frame, on_closed};

static void on_accept(struct listener *l, int fd, void *arg)
{
    struct error err;
    if (!link_accept(base, fd, tls, &ops, NULL, &err))
        printf("# accept: %s\n", err.text);
}

#define wait_until(cond)                                                                                     \
    ({                                                                                                       \
        int64_t until_ = clock_boot_ms() + WAIT_MS;                                                          \
        while (!(cond) && clock_boot_ms() < until_) {                                                        \
            struct timeval tv_ = {.tv_usec = 20000};                                                         \
            event_base_loopexit(base, &tv_);                                                                 \
            event_base_loop(base, EVLOOP_ONCE);                                                              \
        }                                                                                                    \
        (cond);                                                                                              \
    })

static pid_t run(const char *const *argv)
{
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
        dup2(fd, 2);
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    return pid;
}

/* Runs a command to its end while this test goes on being the head. */
static int run_wait(const char *const *argv)
{
    int status = -1;
    pid_t pid = run(argv);
    wait_until(waitpid(pid, &status, WNOHANG) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void start_agent(void)
{
    char program[1100];
    snprintf(program, sizeof program, "%s/muster-node", bin);
    const char *argv[] = {program, "run", "--dir", node_dir, NULL};
    agent = run(argv);
}

static void stop_agent(int sig)
{
    kill(agent, sig);
    waitpid(agent, NULL, 0);
    wait_until(!node);
}

/* ---- orders ---- */

static Mu__Owner owner = MU__OWNER__INIT;

struct order_parts {
    Mu__PrepareOrder p;
    Mu__PeerNode peer, *peers[1];
    uint8_t route[24], psk[32];
    uint32_t core;
};

static void prepare_fill(struct order_parts *x, uint64_t attempt, const char *command)
{
    *x = (struct order_parts){.p = MU__PREPARE_ORDER__INIT, .peer = MU__PEER_NODE__INIT};
    memset(x->route, (int)(attempt & 0xff), sizeof x->route);
    memcpy(x->route, &attempt, sizeof attempt);
    x->peers[0] = &x->peer;
    x->peer.name = (char *)"node01";
    x->peer.route = (ProtobufCBinaryData){sizeof x->route, x->route};
    x->peer.cores = &x->core;
    x->peer.n_cores = 1;
    x->p.attempt = attempt;
    x->p.job_id = 1;
    x->p.task_id = 1;
    x->p.install_id = hello->install_id;
    x->p.owner = &owner;
    x->p.command_line = (char *)command;
    x->p.work_dir = top;
    x->p.nodes = x->peers;
    x->p.n_nodes = 1;
    x->p.psk = (ProtobufCBinaryData){sizeof x->psk, x->psk};
    x->p.lease_ms = 60000;
    x->p.grace_ms = 200;
    x->p.go = true;
}

static void order_prepare(struct order_parts *x, bool credit)
{
    Mu__NodeOrder o = MU__NODE_ORDER__INIT;
    Mu__PrepareOrder *p = &x->p;
    Mu__OutputCredit c = MU__OUTPUT_CREDIT__INIT, *cs = &c;
    o.prepare = &p;
    o.n_prepare = 1;
    c.attempt = p->attempt;
    c.window = 1 << 20;
    o.credit = &cs;
    o.n_credit = credit;
    send_order(&o);
}

static void order_end(uint64_t attempt, uint32_t grace)
{
    Mu__NodeOrder o = MU__NODE_ORDER__INIT;
    Mu__EndOrder e = MU__END_ORDER__INIT, *es = &e;
    e.attempt = attempt;
    e.grace_ms = grace;
    e.cause = (char *)"canceled";
    o.end = &es;
    o.n_end = 1;
    send_order(&o);
}

static void order_numbers(uint64_t attempt, bool go, bool forget)
{
    Mu__NodeOrder o = MU__NODE_ORDER__INIT;
    o.go = o.forget = &attempt;
    o.n_go = go;
    o.n_forget = forget;
    send_order(&o);
}

static bool seen(uint64_t attempt, int phase)
{
    return heard[attempt % ATTEMPTS].seen & (1u << phase);
}
#define RELEASED MU__ATTEMPT_PHASE__PHASE_RELEASED

static void submit(uint64_t attempt, const char *command)
{
    struct order_parts x;
    prepare_fill(&x, attempt, command);
    order_prepare(&x, true);
}

static bool folder_exists(uint64_t attempt)
{
    char path[160];
    snprintf(path, sizeof path, "%s/attempts/%llu", node_dir, (unsigned long long)attempt);
    return access(path, F_OK) == 0;
}

/* ---- tests ---- */

static void test_join(void)
{
    char program[1100], address[64], path[160];
    struct error err;
    struct buf text = BUF_INIT;
    snprintf(program, sizeof program, "%s/muster-node", bin);
    snprintf(address, sizeof address, "%s", listener_text(listener));
    snprintf(path, sizeof path, "%s/token", top);
    const char *argv[] = {program,  "join",  "--dir",        node_dir, "--name", "node01",
                          "--head", address, "--token-file", path,     NULL};
    char fingerprint[65];
    ca_fingerprint(head_dir, fingerprint, &err);
    token_make(fingerprint, &token, &text, &err);
    file_write(AT_FDCWD, path, "muster1.zz", 10, 0600, false, NULL);
    is_int(run_wait(argv), 2, "a token that is none is refused");
    struct token other;
    struct buf wrong = BUF_INIT;
    token_make(fingerprint, &other, &wrong, &err);
    file_write(AT_FDCWD, path, wrong.data, wrong.len, 0600, false, NULL);
    is_int(run_wait(argv), 1, "an unknown token is refused by the head");
    file_write(AT_FDCWD, path, text.data, text.len, 0600, false, NULL);
    is_int(run_wait(argv), 0, "a node joins with its token");
    snprintf(path, sizeof path, "%s/node.json", node_dir);
    ok(access(path, F_OK) == 0, "and has a configuration");
    buf_free(&text);
    buf_free(&wrong);
    /* What `muster cluster` would add. */
    char config[1800];
    int len = snprintf(config, sizeof config,
                       "{\"name\":\"node01\",\"head\":\"%s\",\"address\":\"127.0.0.1\",\"run_dir\":\"%s\","
                       "\"bin\":\"%s/bin\","
                       "\"virtual_cores\":true,\"home_fallback\":\"%s\",\"map\":{\"root\":\"nobody\"},"
                       "\"env\":{\"EXTRA\":\"yes\"}}",
                       address, run_dir, top, top);
    file_write(AT_FDCWD, path, config, (size_t)len, 0600, false, NULL);
}

/* Before the agent runs: a probe that was killed has left its folder, a short one for this boot. */
static char probe_left[300];
static void leave_probe(void)
{
    struct buf boot = BUF_INIT;
    char path[300];
    file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &boot, NULL);
    snprintf(path, sizeof path, "%s/boot-%.36s/probe-XXXX", run_dir, buf_str(&boot));
    file_mkdirs(path, 0755, NULL);
    snprintf(probe_left, sizeof probe_left, "%s", path);
    buf_free(&boot);
}

static void test_same_run_dir(void)
{
    char program[1100], other[160], from[200], to[200];
    struct buf text = BUF_INIT;
    snprintf(program, sizeof program, "%s/muster-node", bin);
    snprintf(other, sizeof other, "%s/other", top);
    mkdir(other, 0700);
    snprintf(from, sizeof from, "%s/node.json", node_dir);
    snprintf(to, sizeof to, "%s/node.json", other);
    file_read(AT_FDCWD, from, 65536, &text, NULL);
    file_write(AT_FDCWD, to, text.data, text.len, 0600, false, NULL);
    const char *argv[] = {program, "run", "--dir", other, NULL};
    is_int(run_wait(argv), 1, "a second agent with the same run folder refuses to start");
    buf_reset(&text);
    file_read(AT_FDCWD, log_path, 1000000, &text, NULL);
    ok(strstr(buf_str(&text), "another muster-node uses") != NULL, "and says why");
    buf_free(&text);
}

static void test_one(void)
{
    struct order_parts x;
    submit(1, "echo hello $EXTRA $USER; exit 3");
    ok(wait_until(seen(1, RELEASED)), "a task runs");
    is_int(heard[1].last.exit_code, 3, "its exit code comes back");
    is_int(heard[1].last.failure, MU__TASK_FAILURE__FAIL_EXIT, "as a failure by exit");
    ok(heard[1].last.has_result, "as a result");
    char want[128];
    snprintf(want, sizeof want, "hello yes %s\n", geteuid() == 0 ? "nobody" : owner.name);
    ok(wait_until(heard[1].output.len >= strlen(want)), "its output comes");
    is_str(buf_str(&heard[1].output), want, "whole");
    ok(folder_exists(1), "its folder stays");
    unsigned before = heard[1].reports;
    submit(1, "echo again");
    ok(wait_until(heard[1].reports > before), "a repeated order is answered");
    is_int(heard[1].last.exit_code, 3, "with the same end, not with a second run");
    order_numbers(1, false, true);
    ok(wait_until(!folder_exists(1)), "a forgotten attempt leaves no folder");

    prepare_fill(&x, 2, "true");
    x.p.install_id = (char *)"another";
    order_prepare(&x, false);
    ok(wait_until(seen(2, MU__ATTEMPT_PHASE__PHASE_REFUSED)), "an order for another installation is refused");
    ok(!folder_exists(2), "without a folder");
    order_end(2, 0);
    ok(wait_until(seen(2, RELEASED)), "and released when it is ended");

    Mu__Owner stranger = owner;
    stranger.name = (char *)"daemon";
    stranger.uid = 1;
    prepare_fill(&x, 3, "true");
    x.p.owner = &stranger;
    order_prepare(&x, false);
    ok(wait_until(seen(3, RELEASED)), "a system account's task ends");
    is_int(heard[3].last.failure, MU__TASK_FAILURE__FAIL_SETUP, "as one that cannot be set up");
    ok(strstr(heard[3].message, "node01: ") && strstr(heard[3].message, "daemon"), "and says whose: %s",
       heard[3].message);

    order_end(99, 0);
    ok(wait_until(seen(99, RELEASED)), "the end of an unknown attempt is answered");
}

static void test_two_phases(void)
{
    struct order_parts x;
    prepare_fill(&x, 10, "echo went");
    x.p.go = false;
    order_prepare(&x, true);
    ok(wait_until(seen(10, MU__ATTEMPT_PHASE__PHASE_PREPARED)), "without go it is prepared");
    order_numbers(10, true, false);
    ok(wait_until(seen(10, RELEASED)), "go runs it");
    ok(wait_until(heard[10].output.len == 5), "with output");

    submit(11, "trap '' TERM; echo up; while :; do sleep 1000; done");
    ok(wait_until(heard[11].output.len == 3), "output comes while a task runs");
    order_end(11, 100);
    ok(wait_until(seen(11, RELEASED)), "an end order ends it");
    is_int(heard[11].last.exit_code, 137, "by force in the end");
    is_int(heard[11].last.failure, MU__TASK_FAILURE__FAIL_CANCEL, "as cancelled");
}

static void test_restart(void)
{
    char command[300], path[128];
    snprintf(path, sizeof path, "%s/gate", top);
    snprintf(command, sizeof command, "echo one; until [ -e %s ]; do sleep 0.02; done; echo two", path);
    submit(20, command);
    ok(wait_until(heard[20].output.len == 4), "a task runs");
    stop_agent(SIGKILL);
    ok(!node, "the agent is killed");
    file_write(AT_FDCWD, path, "", 0, 0644, false, NULL);
    unsigned before = hellos;
    memset(&heard[20].seen, 0, sizeof heard[20].seen);
    heard[20].output.len = 0;
    start_agent();
    ok(wait_until(hellos > before), "it comes back");
    ok(wait_until(seen(20, RELEASED)), "and reports the end");
    is_int(heard[20].last.exit_code, 0, "as if nothing had been");
    Mu__NodeOrder o = MU__NODE_ORDER__INIT;
    Mu__OutputCredit c = MU__OUTPUT_CREDIT__INIT, *cs = &c;
    c.attempt = 20;
    c.window = 4096;
    o.credit = &cs;
    o.n_credit = 1;
    send_order(&o);
    ok(wait_until(heard[20].output.len == 8), "with all of its output");
    is_str(buf_str(&heard[20].output), "one\ntwo\n", "in order");

    submit(21, "sleep 1000");
    ok(wait_until(seen(21, MU__ATTEMPT_PHASE__PHASE_RUNNING)), "a task runs");
    before = hellos;
    stop_agent(SIGTERM);
    start_agent();
    ok(wait_until(hellos > before), "an agent that was stopped comes back");
    is_int(heard[21].last.phase, MU__ATTEMPT_PHASE__PHASE_RUNNING,
           "and knows from its keeper that the task runs");
    order_end(21, 0);
    ok(wait_until(seen(21, RELEASED)), "and can end it");
}

/* The pid of the keeper whose current attempt folder is open: by its descriptor 4. */
static pid_t find_keeper(uint64_t attempt)
{
    char want[160], path[64], target[300];
    snprintf(want, sizeof want, "%s/attempts/%llu", node_dir, (unsigned long long)attempt);
    DIR *dir = opendir("/proc");
    pid_t found = 0;
    for (struct dirent *e; dir && !found && (e = readdir(dir));) {
        snprintf(path, sizeof path, "/proc/%.20s/fd/4", e->d_name);
        ssize_t n = readlink(path, target, sizeof target - 1);
        if (n > 0) {
            target[n] = 0;
            snprintf(path, sizeof path, "/proc/%.20s/comm", e->d_name);
            struct buf comm = BUF_INIT;
            if (!strcmp(target, want) && file_read(AT_FDCWD, path, 64, &comm, NULL) == 0 &&
                !strncmp(buf_str(&comm), "muster-keeper", 13))
                found = atoi(e->d_name);
            buf_free(&comm);
        }
    }
    closedir(dir);
    return found;
}

/* One that is dead, and only not taken note of by its parent, lives no more. */
static bool lives(pid_t pid)
{
    char path[64];
    struct buf text = BUF_INIT;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    bool there = file_read(AT_FDCWD, path, 4096, &text, NULL) == 0;
    const char *tail = there ? strrchr(buf_str(&text), ')') : NULL;
    bool alive = tail && strncmp(tail, ") Z", 3) && strncmp(tail, ") X", 3);
    buf_free(&text);
    return alive;
}

/* Nothing of attempts is in the run folder: no folder of one, and none that waits to be removed. */
static bool run_dir_clean(void)
{
    DIR *dir = opendir(run_dir);
    bool clean = dir != NULL;
    for (struct dirent *e; dir && (e = readdir(dir));)
        clean =
            clean && (e->d_name[0] == '.' || !strncmp(e->d_name, "boot-", 5) || !strcmp(e->d_name, "lock"));
    if (dir)
        closedir(dir);
    return clean;
}

static void test_dead_keeper(void)
{
    char pidfile[128], command[300];
    snprintf(pidfile, sizeof pidfile, "%s/daemon.pid", top);
    /* What it leaves in its run folder lies deep. */
    snprintf(command, sizeof command,
             "cd ${MUSTER_STEP%%/s}; for i in `seq 100`; do mkdir d; cd d; done; "
             "setsid sleep 1000 & echo $! >%s; echo up; wait",
             pidfile);
    for (int pass = 0; pass < 2; pass++) {
        uint64_t id = 30 + (uint64_t)pass;
        submit(id, command);
        ok(wait_until(heard[id].output.len == 3), "a task with a daemon runs");
        struct buf text = BUF_INIT;
        file_read(AT_FDCWD, pidfile, 64, &text, NULL);
        pid_t left = atoi(buf_str(&text)), keeper = find_keeper(id);
        buf_free(&text);
        ok(left > 1 && lives(left) && keeper > 1, "its keeper is found");
        unsigned before = hellos;
        if (pass)
            stop_agent(SIGKILL);
        if (keeper > 1)
            kill(keeper, SIGKILL);
        if (pass) {
            start_agent();
            wait_until(hellos > before);
        }
        ok(wait_until(seen(id, RELEASED)),
           pass ? "killed with its agent, it is noticed by the next one" : "a killed keeper is noticed");
        is_int(heard[id].last.failure, MU__TASK_FAILURE__FAIL_SYSTEM, "as a failure of the system");
        is_str(heard[id].message, "node01: the keeper of this attempt was killed", "that says what happened");
        ok(!lives(left), "and nothing of it lives");
        ok(wait_until(run_dir_clean()), "nor is a run folder left");
    }
}

/* A keeper that is slow to call the new agent is told to go when it does. */
static void test_go_before_keeper(void)
{
    struct order_parts x;
    prepare_fill(&x, 45, "echo went");
    x.p.go = false;
    order_prepare(&x, true);
    ok(wait_until(seen(45, MU__ATTEMPT_PHASE__PHASE_PREPARED)), "an attempt is prepared");
    pid_t keeper = find_keeper(45);
    ok(keeper > 1 && kill(keeper, SIGSTOP) == 0, "its keeper stands still");
    unsigned before = hellos;
    stop_agent(SIGKILL);
    start_agent();
    ok(wait_until(hellos > before), "a new agent says hello without having heard it");
    order_numbers(45, true, false);
    ok(wait_until(beats > 0), "(the order is there)");
    unsigned seen_beats = beats;
    wait_until(beats > seen_beats + 1);
    kill(keeper, SIGCONT);
    ok(wait_until(seen(45, RELEASED)), "the order to go reaches the keeper");
    is_int(heard[45].last.exit_code, 0, "and the task runs");
}

static int call_step(uint64_t attempt, const char *magic)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)hello->port)};
    struct order_parts x;
    uint8_t preamble[32];
    inet_pton(AF_INET, "127.0.0.1", &in.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&in, sizeof in)) {
        close(fd);
        return -1;
    }
    prepare_fill(&x, attempt, "");
    memcpy(preamble, magic, 8);
    memcpy(preamble + 8, x.route, 24);
    return send(fd, preamble, sizeof preamble, MSG_NOSIGNAL) == 32 ? fd : -1;
}

static void read_all(int fd, char *out, size_t size)
{
    size_t len = 0;
    for (ssize_t n; len < size - 1 && (n = read(fd, out + len, size - 1 - len)) > 0;)
        len += (size_t)n;
    out[len] = 0;
    close(fd);
}

static void test_steps(void)
{
    char text[4096];
    submit(40, "sleep 1000");
    ok(wait_until(seen(40, MU__ATTEMPT_PHASE__PHASE_RUNNING)), "a task runs");
    read_all(call_step(40, "MUSTEP1\n"), text, sizeof text);
    ok(!strncmp(text, "branch ", 7), "a peer's connection reaches muster-step");
    ok(strstr(text, "nod") != NULL, "which has the context");
    read_all(call_step(40, "MUSTEP2\n"), text, sizeof text);
    is_str(text, "", "another preamble gets nothing");
    read_all(call_step(41, "MUSTEP1\n"), text, sizeof text);
    is_str(text, "", "nor does another route");
    order_end(40, 0);
    ok(wait_until(seen(40, RELEASED)), "it ends");
    read_all(call_step(40, "MUSTEP1\n"), text, sizeof text);
    is_str(text, "", "after that the route leads nowhere");
}

/* Silent callers must not keep others out, and one that drips must not stay. */
static void test_silent_callers(void)
{
    enum { SILENT = 300 };
    char text[4096];
    int silent[SILENT];
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)hello->port)};
    inet_pton(AF_INET, "127.0.0.1", &in.sin_addr);
    submit(46, "sleep 1000");
    ok(wait_until(seen(46, MU__ATTEMPT_PHASE__PHASE_RUNNING)), "a task runs");
    int64_t start = clock_boot_ms();
    for (int i = 0; i < SILENT; i++) {
        silent[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(silent[i], (struct sockaddr *)&in, sizeof in))
            printf("# connect: %s\n", strerror(errno));
    }
    read_all(call_step(46, "MUSTEP1\n"), text, sizeof text);
    int64_t took = clock_boot_ms() - start;
    ok(!strncmp(text, "branch ", 7) && took < 3000, "beside 300 silent callers a step is served (%d ms)",
       (int)took);
    for (int i = 0; i < SILENT; i++)
        close(silent[i]);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ok(connect(fd, (struct sockaddr *)&in, sizeof in) == 0, "one calls and sends a byte every 400 ms");
    start = clock_boot_ms();
    int64_t next = 0;
    ok(wait_until(({
           took = clock_boot_ms() - start;
           if (took >= next && next < 12000) {
               send(fd, "M", 1, MSG_NOSIGNAL);
               next += 400;
           }
           poll(&(struct pollfd){fd, POLLIN, 0}, 1, 0) == 1;
       })),
       "it is hung up on");
    ok(took > 4000 && took < 7500, "5 s after it called (%d ms)", (int)took);
    close(fd);
    order_end(46, 0);
    ok(wait_until(seen(46, RELEASED)), "the task ends");
}

/* A keeper that stands still does not read; what it is told meanwhile must not be lost. */
static void test_full_keeper(void)
{
    enum { CALLS = 1000 };
    static int calls[CALLS];
    static struct pollfd polled[CALLS];
    struct order_parts x;
    int count = 0, full = 0;
    prepare_fill(&x, 47, "echo went");
    x.p.go = false;
    x.p.psk.len = 0; /* no MPI steps: the keeper turns them all away */
    order_prepare(&x, true);
    ok(wait_until(seen(47, MU__ATTEMPT_PHASE__PHASE_PREPARED)), "an attempt is prepared");
    pid_t keeper = find_keeper(47);
    ok(keeper > 1 && kill(keeper, SIGSTOP) == 0, "its keeper stands still");
    while (count < CALLS && !full) {
        calls[count] = call_step(47, "MUSTEP1\n");
        polled[count] = (struct pollfd){calls[count], POLLIN, 0};
        full = poll(polled, (nfds_t)++count, 2); /* the agent hangs up on what it cannot hand over */
    }
    ok(full > 0, "and its socket is full after %d calls", count);
    order_numbers(47, true, false);
    unsigned seen_beats = beats;
    wait_until(beats > seen_beats + 2);
    kill(keeper, SIGCONT);
    ok(wait_until(seen(47, RELEASED)), "then go reaches it nevertheless");
    is_int(heard[47].last.exit_code, 0, "and the task runs");
    for (int i = 0; i < count; i++)
        close(calls[i]);
}

static void test_generation(void)
{
    unsigned before = hellos;
    generation = 4;
    stop_agent(SIGTERM);
    start_agent();
    ok(wait_until(hellos > before), "the agent calls a head of an older store");
    ok(wait_until(!node), "and turns away from it");
    generation = 6;
    before = hellos;
    unsigned beats_before = beats;
    ok(wait_until(hellos > before && beats > beats_before), "it goes on with a newer one");
}

static void test_speed(unsigned count)
{
    char path[64];
    released = 0;
    for (unsigned i = 0; i < count; i++)
        heard[(1000 + i) % ATTEMPTS].seen = 0;
    int64_t start = clock_boot_us();
    unsigned sent = 0;
    while (released < count) {
        for (; sent < count && sent < released + 8; sent++)
            submit(1000 + sent, "/bin/true");
        unsigned was = released;
        if (!wait_until(released > was))
            break;
    }
    int64_t took = clock_boot_us() - start;
    is_int(released, count, "%u attempts of /bin/true, 8 at a time", count);
    printf("# %.0f attempts/s, %.2f ms each\n", count * 1e6 / (double)took, (double)took / 1e3 / count);
    struct buf text = BUF_INIT;
    snprintf(path, sizeof path, "/proc/%d/stat", agent);
    if (file_read(AT_FDCWD, path, 4096, &text, NULL) == 0)
        printf("# agent: %s", strrchr(buf_str(&text), ')'));
    buf_free(&text);
    for (unsigned i = 0; i < count; i++)
        order_numbers(1000 + i, false, true);
    ok(wait_until(!folder_exists(1000 + count - 1)), "and all are forgotten");
}

static int set_up(struct error *err)
{
    char path[160], from[1200];
    strcpy(top, "/tmp/muagentXXXXXX");
    if (!mkdtemp(top) || chmod(top, 0777))
        return error_sys(err, "cannot make a folder");
    snprintf(head_dir, sizeof head_dir, "%s/head", top);
    snprintf(node_dir, sizeof node_dir, "%s/node", top);
    /* Where files cost least, as `muster cluster` has it. */
    snprintf(run_dir, sizeof run_dir, "%s%s/run", access("/dev/shm", W_OK) ? "" : "/dev/shm/",
             top + (access("/dev/shm", W_OK) ? 0 : 5));
    snprintf(log_path, sizeof log_path, "%s/log", top);
    snprintf(path, sizeof path, "%s/bin", top);
    mkdir(head_dir, 0700);
    mkdir(path, 0755);
    snprintf(from, sizeof from, "%s/muster-keeper", bin);
    snprintf(path, sizeof path, "%s/bin/muster-keeper", top);
    if (symlink(from, path))
        return error_sys(err, "symlink");
    /* In the place of muster-step: says who it is and what it was given. */
    static const char step[] =
        "#!/bin/sh\n[ \"$1\" = --probe ] && exit 1\necho $MUSTER_STEP_ROLE `tr -cd a-z <&4` >&3\n";
    snprintf(path, sizeof path, "%s/bin/muster-step", top);
    file_write(AT_FDCWD, path, step, sizeof step - 1, 0755, false, NULL);
    struct passwd *pw = getpwuid(geteuid());
    owner.name = pw ? xstrdup(pw->pw_name) : (char *)"me";
    owner.uid = geteuid();
    owner.gid = getegid();
    owner.home = top;
    base = event_base_new();
    if (ca_init(head_dir, "test", err) || !(tls = tls_server(head_dir, err)))
        return -1;
    listener = listener_tcp(base, "127.0.0.1:0", on_accept, NULL, err);
    return listener ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct error err = {0};
    const char *given = getenv("MUSTER_BIN");
    char program[600];
    snprintf(program, sizeof program, "%s", argv[0]);
    char *slash = strrchr(program, '/');
    if (slash)
        *slash = 0;
    snprintf(bin, sizeof bin, "%s%s", given ? given : program, given ? "" : "/../../bin");
    char *absolute = realpath(bin, NULL);
    snprintf(bin, sizeof bin, "%s", absolute ? absolute : bin);
    free(absolute);
    signal(SIGPIPE, SIG_IGN);
    if (set_up(&err)) {
        printf("Bail out! %s\n", err.text);
        return 1;
    }
    test_join();
    leave_probe();
    start_agent();
    ok(wait_until(hellos == 1 && beats >= 2), "the agent says hello and beats");
    is_str(hello->name, "node01", "with its name");
    ok(hello->cores > 0 && hello->memory_mb > 0 && hello->port > 0 && *hello->boot_id, "and what it is");
    ok(access(probe_left, F_OK) != 0, "what a killed probe left is gone");
    test_same_run_dir();
    test_one();
    test_two_phases();
    test_restart();
    test_dead_keeper();
    test_go_before_keeper();
    test_steps();
    test_silent_callers();
    test_full_keeper();
    test_generation();
    test_speed(argc > 1 ? (unsigned)atoi(argv[1]) : 100);
    stop_agent(SIGTERM);
    if (tap_failed) {
        struct buf text = BUF_INIT;
        file_read(AT_FDCWD, log_path, 1000000, &text, NULL);
        for (char *line = strtok((char *)buf_str(&text), "\n"); line; line = strtok(NULL, "\n"))
            printf("# %s\n", line);
    }
    listener_free(listener);
    tls_free(tls);
    event_base_free(base);
    file_remove_tree(AT_FDCWD, top, NULL);
    *strrchr(run_dir, '/') = 0;
    file_remove_tree(AT_FDCWD, run_dir, NULL);
    return tap_done();
}
