/* head_test.c - a real muster-head, real clients, and agents that this program plays over TLS.
 *
 * The agents do nothing by themselves: each test waits for an order and answers it, so the head can
 * be killed (SIGKILL) between any two steps. Everything is awaited with a deadline; nothing sleeps. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "tests/unit/tap.h"
#include "wire/frame.h"
#include "wire/link.h"
#include "wire/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_MS 20000
#define SAFE_NAME "headtest"
#ifdef __SANITIZE_ADDRESS__ /* keeps freed memory for a while */
#define GREEDY_KB_MAX 2000000
#else
#define GREEDY_KB_MAX 60000
#endif

static char program[PATH_MAX]; /* muster-head */
static char folder[] = "/tmp/muster-head-XXXXXX";
static char head_dir[64], head_socket[64];
static pid_t head_pid;
static struct client *cl;
static struct event_base *base;

/* ---- processes ---- */

/* Starts muster-head with these arguments; its messages go to folder/log. */
static pid_t spawn(const char *const *argv)
{
    char log[PATH_MAX];
    snprintf(log, sizeof log, "%s/log", folder);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        execv(program, (char *const *)argv);
        _exit(127);
    }
    return pid;
}

static int finish(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool log_has(const char *text)
{
    char log[PATH_MAX];
    struct buf b = BUF_INIT;
    snprintf(log, sizeof log, "%s/log", folder);
    bool found = file_read(AT_FDCWD, log, 1 << 26, &b, NULL) == 0 && strstr(buf_str(&b), text);
    buf_free(&b);
    return found;
}

static char *listen_address(char out[80])
{
    struct buf b = BUF_INIT;
    char path[128];
    snprintf(path, sizeof path, "%s/listen", head_dir);
    *out = 0;
    if (file_read(AT_FDCWD, path, 80, &b, NULL) == 0)
        snprintf(out, 80, "%.*s", (int)strcspn(buf_str(&b), "\n"), buf_str(&b));
    buf_free(&b);
    return out;
}

static uint16_t head_port(void)
{
    char text[80];
    char *colon = strrchr(listen_address(text), ':');
    return colon ? (uint16_t)atoi(colon + 1) : 0;
}

/* Until the head answers on its socket. */
static bool head_start(void)
{
    char listen[80];
    uint16_t port = head_port();
    snprintf(listen, sizeof listen, "127.0.0.1:%u", port); /* after the first time: where the agents dial */
    const char *argv[] = {"muster-head", "run",      "--dir", head_dir, "--socket",
                          head_socket,   "--listen", listen,  NULL};
    struct error err = {0};
    head_pid = spawn(argv);
    for (int64_t end = clock_boot_ms() + DEADLINE_MS; clock_boot_ms() < end; usleep(2000)) {
        cl = client_open(head_socket, 5000, &err);
        if (cl)
            return true;
        if (waitpid(head_pid, NULL, WNOHANG) == head_pid)
            break;
    }
    printf("# no head: %s\n", err.text);
    return false;
}

static void head_kill(void)
{
    kill(head_pid, SIGKILL);
    finish(head_pid);
    client_close(cl);
    cl = NULL;
}

static bool head_restart(void)
{
    head_kill();
    return head_start();
}

/* ---- agents ---- */

struct agent {
    char name[64], dir[PATH_MAX], install_id[33];
    struct tls_context *tls;
    struct link *link;
    bool greeted, closed, silent;
    bool shows;      /* when it joins: its certificate */
    char error[512]; /* of the head's Hello */
    uint64_t generation;
    Mu__JoinReply *joined;
    /* orders that came and were not taken by a test so far */
    Mu__PrepareOrder *prepare;
    uint64_t go, end, forget, credit_attempt, credit_offset, credit_window, heartbeat;
    Mu__NodeHello hello;
    Mu__AttemptReport inventory[4], *inventory_list[4];
};

static void on_order(struct agent *a, Mu__NodeOrder *o)
{
    if (o->n_prepare) {
        if (a->prepare)
            mu__prepare_order__free_unpacked(a->prepare, NULL);
        a->prepare = o->prepare[--o->n_prepare];
    }
    if (o->n_go)
        a->go = o->go[o->n_go - 1];
    if (o->n_end)
        a->end = o->end[o->n_end - 1]->attempt;
    if (o->n_forget)
        a->forget = o->forget[o->n_forget - 1];
    if (o->n_credit) {
        a->credit_attempt = o->credit[o->n_credit - 1]->attempt;
        a->credit_offset = o->credit[o->n_credit - 1]->offset;
        a->credit_window = o->credit[o->n_credit - 1]->window;
    }
    if (o->heartbeat_seq)
        a->heartbeat = o->heartbeat_seq;
}

static void agent_frame(struct link *link, Mu__Frame *frame, void *arg)
{
    struct agent *a = arg;
    if (frame->kind_case == MU__FRAME__KIND_HELLO) {
        a->greeted = true;
        a->generation = frame->hello->generation;
        snprintf(a->error, sizeof a->error, "%s", frame->hello->error ? frame->hello->error->text : "");
    } else if (frame->kind_case == MU__FRAME__KIND_ORDER) {
        on_order(a, frame->order);
    } else if (frame->kind_case == MU__FRAME__KIND_JOIN_REPLY) {
        a->joined = frame->join_reply;
        frame->kind_case = MU__FRAME__KIND__NOT_SET;
    }
}

static void agent_closed(struct link *link, const struct error *err, void *arg)
{
    struct agent *a = arg;
    a->link = NULL;
    a->closed = true;
}

static const struct link_ops agent_ops = {.on_frame = agent_frame, .on_closed = agent_closed};

static struct agent agent1, agent2, *const all_agents[] = {&agent1, &agent2};

/* Agents that are connected report their load ten times a second. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    static int64_t last_ms;
    static uint64_t seq;
    if (clock_boot_ms() - last_ms < 100)
        return;
    last_ms = clock_boot_ms();
    for (size_t i = 0; i < 2; i++) {
        Mu__NodeLoad load = MU__NODE_LOAD__INIT;
        Mu__NodeReport body = MU__NODE_REPORT__INIT;
        Mu__Frame frame = MU__FRAME__INIT;
        struct agent *a = all_agents[i];
        if (!a->link || !a->greeted || a->silent || *a->error)
            continue;
        load.load_milli = 1500;
        body.load = &load;
        body.seq = ++seq;
        frame.kind_case = MU__FRAME__KIND_REPORT;
        frame.report = &body;
        link_send(a->link, &frame);
    }
}

/* Lets the agents' loop run until the condition holds. */
#define await(cond)                                                                                          \
    ({                                                                                                       \
        bool held_ = false;                                                                                  \
        for (int64_t end_ = clock_boot_ms() + DEADLINE_MS; !(held_ = (cond)) && clock_boot_ms() < end_;)     \
            event_base_loop(base, EVLOOP_ONCE);                                                              \
        held_;                                                                                               \
    })

static void send_hello(struct agent *a, Mu__Role role)
{
    Mu__Hello hello = MU__HELLO__INIT;
    Mu__Frame frame = MU__FRAME__INIT;
    hello.protocol = hello.protocol_min = 1;
    hello.role = role;
    if (role == MU__ROLE__ROLE_NODE)
        hello.node = &a->hello;
    frame.kind_case = MU__FRAME__KIND_HELLO;
    frame.hello = &hello;
    link_send(a->link, &frame);
}

static void agent_init(struct agent *a, const char *name)
{
    uint8_t id[16];
    *a = (struct agent){0};
    snprintf(a->name, sizeof a->name, "%s", name);
    snprintf(a->dir, sizeof a->dir, "%s/%s", folder, name);
    mkdir(a->dir, 0700);
    random_bytes(id, sizeof id);
    hex_encode(id, sizeof id, a->install_id);
    mu__node_hello__init(&a->hello);
    a->hello.name = a->name;
    a->hello.install_id = a->install_id;
    a->hello.boot_id = (char *)"boot";
    a->hello.cores = 2;
    a->hello.memory_mb = 1000;
    a->hello.address = (char *)"127.0.0.1";
    a->hello.port = 1234;
    a->hello.version = (char *)"0";
    a->hello.sockets = 1;
    a->hello.os = (char *)"test";
    a->hello.physical_host = (char *)"here";
    a->hello.attempts = a->inventory_list;
}

/* NULL or the error. Static storage. */
static const char *agent_join(struct agent *a, const char *token)
{
    static char text[512];
    struct token parsed;
    static struct error err;
    struct buf csr = BUF_INIT;
    snprintf(text, sizeof text, "no answer");
    if (token_parse(token, &parsed, &err) || node_csr(a->dir, a->name, &csr, &err) ||
        !(a->tls = a->shows ? tls_node(a->dir, &err) : tls_join(parsed.fingerprint, &err)) ||
        !(a->link = link_connect_tcp(base, "127.0.0.1", head_port(), a->tls, "head", &agent_ops, a, &err))) {
        snprintf(text, sizeof text, "%s", err.text);
        return text;
    }
    send_hello(a, MU__ROLE__ROLE_JOIN);
    Mu__JoinRequest join = MU__JOIN_REQUEST__INIT;
    Mu__Frame frame = MU__FRAME__INIT;
    join.token = (char *)token;
    join.name = a->name;
    join.install_id = a->install_id;
    join.csr_pem.data = (uint8_t *)csr.data;
    join.csr_pem.len = csr.len;
    frame.kind_case = MU__FRAME__KIND_JOIN;
    frame.join = &join;
    link_send(a->link, &frame);
    buf_free(&csr);
    bool answered = await(a->joined || a->closed);
    const char *said = text;
    if (answered && a->joined && a->joined->error) {
        snprintf(text, sizeof text, "%s", a->joined->error->text);
    } else if (answered && a->joined) {
        char *cert = strndup((char *)a->joined->cert_pem.data, a->joined->cert_pem.len);
        char *ca = strndup((char *)a->joined->ca_pem.data, a->joined->ca_pem.len);
        said = node_store_cert(a->dir, cert, ca, &err) ? err.text : NULL;
        free(cert);
        free(ca);
    }
    if (a->joined)
        mu__join_reply__free_unpacked(a->joined, NULL);
    a->joined = NULL;
    link_close(a->link);
    a->link = NULL;
    tls_free(a->tls);
    a->tls = NULL;
    return said;
}

static void agent_drop(struct agent *a)
{
    link_close(a->link);
    a->link = NULL;
}

/* Connects (again) and says what attempts there are. */
static bool agent_connect(struct agent *a)
{
    struct error err;
    agent_drop(a);
    if (!a->tls && !(a->tls = tls_node(a->dir, &err)))
        return false;
    for (int64_t end = clock_boot_ms() + DEADLINE_MS; clock_boot_ms() < end; usleep(2000)) {
        a->greeted = a->closed = false;
        *a->error = 0;
        a->link = link_connect_tcp(base, "127.0.0.1", head_port(), a->tls, "head", &agent_ops, a, &err);
        if (!a->link)
            return false;
        send_hello(a, MU__ROLE__ROLE_NODE);
        if (await(a->greeted || a->closed) && a->greeted) {
            if (!*a->error)
                link_limit(a->link, FRAME_MAX);
            return !*a->error;
        }
    }
    return false;
}

static void agent_forget(struct agent *a)
{
    if (a->prepare)
        mu__prepare_order__free_unpacked(a->prepare, NULL);
    a->prepare = NULL;
    a->go = a->end = a->forget = a->credit_attempt = 0;
}

static void report(struct agent *a, uint64_t attempt, Mu__AttemptPhase phase, int exit_code,
                   uint64_t output_total, const char *output, uint64_t offset)
{
    Mu__AttemptReport r = MU__ATTEMPT_REPORT__INIT, *list = &r;
    Mu__OutputChunk chunk = MU__OUTPUT_CHUNK__INIT, *chunks = &chunk;
    Mu__NodeReport body = MU__NODE_REPORT__INIT;
    Mu__Frame frame = MU__FRAME__INIT;
    r.attempt = attempt;
    r.phase = phase;
    r.exit_code = exit_code;
    r.failure = exit_code ? MU__TASK_FAILURE__FAIL_EXIT : MU__TASK_FAILURE__FAIL_NONE;
    r.output_total = output_total;
    r.has_result = phase >= MU__ATTEMPT_PHASE__PHASE_ENDED;
    if (phase) {
        body.attempts = &list;
        body.n_attempts = 1;
    }
    if (output) {
        chunk.attempt = attempt;
        chunk.offset = offset;
        chunk.data.data = (uint8_t *)output;
        chunk.data.len = strlen(output);
        body.output = &chunks;
        body.n_output = 1;
    }
    frame.kind_case = MU__FRAME__KIND_REPORT;
    frame.report = &body;
    link_send(a->link, &frame);
}

static void remember(struct agent *a, uint64_t attempt, Mu__AttemptPhase phase, int exit_code,
                     uint64_t output_total)
{
    a->hello.n_attempts = phase ? 1 : 0;
    mu__attempt_report__init(&a->inventory[0]);
    a->inventory[0].attempt = attempt;
    a->inventory[0].phase = phase;
    a->inventory[0].exit_code = exit_code;
    a->inventory[0].failure = exit_code ? MU__TASK_FAILURE__FAIL_EXIT : MU__TASK_FAILURE__FAIL_NONE;
    a->inventory[0].output_total = output_total;
    a->inventory[0].has_result = phase >= MU__ATTEMPT_PHASE__PHASE_ENDED;
    a->inventory_list[0] = &a->inventory[0];
}

/* ---- clients ---- */

static struct error call_error;
static Mu__Reply *call(Mu__Request *request)
{
    Mu__Reply *reply = NULL;
    memset(&call_error, 0, sizeof call_error);
    if (!cl || client_call(cl, request, DEADLINE_MS, &reply, &call_error))
        return NULL;
    return reply;
}

static char *make_token(const char *name)
{
    Mu__TokenCreate create = MU__TOKEN_CREATE__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    create.name = (char *)name;
    request.kind_case = MU__REQUEST__KIND_TOKEN_CREATE;
    request.token_create = &create;
    Mu__Reply *reply = call(&request);
    char *token = reply ? strdup(reply->token->token) : strdup("");
    client_reply_free(reply);
    return token;
}

static void fill_create(Mu__JobCreate *create, Mu__JobSpec *spec, Mu__TaskSpec *task, Mu__TaskSpec **list,
                        const char *command, uint32_t nodes)
{
    mu__job_create__init(create);
    mu__job_spec__init(spec);
    mu__task_spec__init(task);
    spec->name = (char *)"test";
    spec->priority = 2000;
    spec->unit = nodes ? MU__UNIT_TYPE__UNIT_NODE : MU__UNIT_TYPE__UNIT_CORE;
    spec->min_units = spec->max_units = nodes ? nodes : 1;
    task->command_line = (char *)command;
    *list = task;
    create->spec = spec;
    create->tasks = list;
    create->n_tasks = 1;
    create->submit = true;
}

static uint64_t submit(const char *command, uint32_t nodes)
{
    Mu__JobCreate create;
    Mu__JobSpec spec;
    Mu__TaskSpec task, *list;
    Mu__Request request = MU__REQUEST__INIT;
    fill_create(&create, &spec, &task, &list, command, nodes);
    request.kind_case = MU__REQUEST__KIND_JOB_CREATE;
    request.job_create = &create;
    Mu__Reply *reply = call(&request);
    uint64_t id = reply ? reply->job->info->job->id : 0;
    if (!reply)
        printf("# submit: %s\n", call_error.text);
    client_reply_free(reply);
    return id;
}

static Mu__Reply *job_get(uint64_t id)
{
    Mu__JobGet get = MU__JOB_GET__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    get.job_id = id;
    get.tasks = get.history = true;
    request.kind_case = MU__REQUEST__KIND_JOB_GET;
    request.job_get = &get;
    return call(&request);
}

static int job_state(uint64_t id)
{
    Mu__Reply *reply = job_get(id);
    int state = reply ? (int)reply->job->info->job->state : -1;
    client_reply_free(reply);
    return state;
}

/* Follows the job as a client does: JobWait with the event of the last answer. */
static int wait_job_end(uint64_t id)
{
    uint64_t seen = 0;
    for (int i = 0; i < 100; i++) {
        Mu__JobWait wait = MU__JOB_WAIT__INIT;
        Mu__Request request = MU__REQUEST__INIT;
        wait.job_id = id;
        wait.seen_event = seen;
        request.kind_case = MU__REQUEST__KIND_JOB_WAIT;
        request.job_wait = &wait;
        Mu__Reply *reply = call(&request);
        if (!reply)
            return -1;
        int state = (int)reply->job->info->job->state;
        seen = reply->event;
        client_reply_free(reply);
        if (state == MU__JOB_STATE__JOB_STATE_FINISHED || state == MU__JOB_STATE__JOB_STATE_FAILED ||
            state == MU__JOB_STATE__JOB_STATE_CANCELED)
            return state;
    }
    return -1;
}

/* The task's output from the beginning; waits for its end when asked to. */
static char *output_of(uint64_t job, bool wait)
{
    struct buf all = BUF_INIT;
    buf_adds(&all, "");
    for (bool end = false; !end;) {
        Mu__TaskOutput get = MU__TASK_OUTPUT__INIT;
        Mu__Request request = MU__REQUEST__INIT;
        get.job_id = job;
        get.task_id = 1;
        get.offset = all.len;
        get.wait = wait;
        request.kind_case = MU__REQUEST__KIND_TASK_OUTPUT;
        request.task_output = &get;
        Mu__Reply *reply = call(&request);
        if (!reply)
            break;
        buf_add(&all, reply->output->data.data, reply->output->data.len);
        end = reply->output->end || !wait;
        client_reply_free(reply);
    }
    return buf_detach(&all);
}

static Mu__Reply *node_list(void)
{
    Mu__NodeList list = MU__NODE_LIST__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    list.cores = true;
    request.kind_case = MU__REQUEST__KIND_NODE_LIST;
    request.node_list = &list;
    return call(&request);
}

static bool nodes_online(const char *const *names, size_t count)
{
    Mu__NodeSet set = MU__NODE_SET__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    set.names = (char **)names;
    set.n_names = count;
    set.online = true;
    request.kind_case = MU__REQUEST__KIND_NODE_SET;
    request.node_set = &set;
    Mu__Reply *reply = call(&request);
    bool good = reply && reply->nodes->n_nodes == count &&
                reply->nodes->nodes[0]->node->state == MU__NODE_STATE__NODE_STATE_ONLINE;
    client_reply_free(reply);
    return good;
}

/* ---- tests ---- */

static void test_start(void)
{
    const char *init[] = {"muster-head", "init", "--dir", head_dir, "--name", SAFE_NAME, NULL};
    const char *no_dir[] = {"muster-head", "run",      "--dir",       head_dir, "--socket",
                            head_socket,   "--listen", "127.0.0.1:0", NULL};
    is_int(finish(spawn(no_dir)), 1, "a folder without a head is refused");
    is_int(finish(spawn(init)), 0, "init makes the head's folder");
    is_int(finish(spawn(init)), 0, "and may be repeated");
    const char *unknown[] = {"muster-head", "run", "--dri", "x", NULL};
    is_int(finish(spawn(unknown)), 2, "an unknown option is a usage error");
    ok(log_has("unknown option --dri"), "which names it");
    char address[80];
    ok(head_start(), "a head starts");
    ok(head_port() > 0, "it says where it listens: %s", listen_address(address));
    is_str(client_hello(cl)->cluster, SAFE_NAME, "its Hello names the cluster");
    is_int(finish(spawn(no_dir)), 1, "a second head on the same folder is refused");
    ok(log_has("another muster-head runs on"), "in words");
    struct stat st;
    ok(stat(head_socket, &st) == 0 && (st.st_mode & 0777) == 0666, "everybody may connect");
}

static void test_addresses(void)
{
    char other[64], sock[64], address[80], path[128];
    snprintf(other, sizeof other, "%s/other", folder);
    snprintf(sock, sizeof sock, "%s/o.sock", folder);
    listen_address(address);
    const char *init[] = {"muster-head", "init", "--dir", other, "--name", "other", NULL};
    const char *tcp[] = {"muster-head", "run", "--dir", other, "--socket", sock, "--listen", address, NULL};
    const char *un[] = {"muster-head", "run",      "--dir",       other, "--socket",
                        head_socket,   "--listen", "127.0.0.1:0", NULL};
    finish(spawn(init));
    is_int(finish(spawn(tcp)), 1, "a TCP address in use is refused");
    is_int(finish(spawn(un)), 1, "so is a socket on which somebody answers");
    ok(log_has("address in use"), "in words");
    snprintf(path, sizeof path, "%s/head.json", other);
    ok(file_write(AT_FDCWD, path, "{\"lease_ms\": -1}", 16, 0600, false, NULL) == 0, "a wrong head.json");
    const char *bad[] = {"muster-head", "run",      "--dir",       other, "--socket",
                         sock,          "--listen", "127.0.0.1:0", NULL};
    is_int(finish(spawn(bad)), 2, "is refused");
    ok(log_has("\"lease_ms\" must be a number from"), "and the key is named");
    static const char store[] = "{\"store\": \"postgresql:///muster?host=/nowhere\"}";
    file_write(AT_FDCWD, path, store, sizeof store - 1, 0600, false, NULL);
    ok(finish(spawn(bad)) > 0, "a store that cannot be reached, or is not built in, ends the head");
    ok(log_has("PostgreSQL"), "and is named");
}

static void test_newer_store(void)
{
    char path[128], other[64], sock[64];
    sqlite3 *db = NULL;
    snprintf(other, sizeof other, "%s/newer", folder);
    snprintf(sock, sizeof sock, "%s/n.sock", folder);
    snprintf(path, sizeof path, "%s/store.db", other);
    const char *init[] = {"muster-head", "init", "--dir", other, "--name", "newer", NULL};
    const char *run[] = {"muster-head", "run",      "--dir",       other, "--socket",
                         sock,          "--listen", "127.0.0.1:0", NULL};
    finish(spawn(init));
    int rc = sqlite3_open(path, &db);
    rc = rc ? rc : sqlite3_exec(db, "CREATE TABLE x (y); PRAGMA user_version = 9999", NULL, NULL, NULL);
    sqlite3_close(db);
    is_int(rc, SQLITE_OK, "a store of a newer version");
    is_int(finish(spawn(run)), 1, "is refused");
    ok(log_has("has version 9999"), "and the version is named");
}

static void test_join(struct agent *a, struct agent *b)
{
    char *token = make_token("");
    const char *said = agent_join(a, token);
    ok(!said, "a machine joins with a token%s%s", said ? ": " : "", said ? said : "");
    struct agent c;
    agent_init(&c, "third");
    said = agent_join(&c, token);
    ok(said && strstr(said, "used up"), "the token works once: %s", said ? said : "it joined");
    free(token);
    token = make_token("other-name");
    said = agent_join(&c, token);
    ok(said && strstr(said, "is for node other-name"), "a named token is for that name: %s",
       said ? said : "");
    free(token);
    token = make_token("");
    struct agent twin;
    agent_init(&twin, a->name);
    snprintf(twin.dir, sizeof twin.dir, "%s/third", folder);
    said = agent_join(&twin, token);
    ok(said && strstr(said, "exists"), "a name is given once: %s", said ? said : "it joined");
    free(token);
    token = make_token("");
    ok(head_restart(), "(the head is killed)");
    said = agent_join(b, token);
    ok(!said, "a token outlives the head%s%s", said ? ": " : "", said ? said : "");
    free(token);
    ok(agent_connect(a) && agent_connect(b), "agents say hello: %s%s", a->error, b->error);
    ok(a->generation > 0, "and learn the generation");
    Mu__Reply *reply = node_list();
    ok(reply && reply->nodes->n_nodes == 2, "two nodes are listed");
    if (reply && reply->nodes->n_nodes == 2) {
        Mu__NodeInfo *n = reply->nodes->nodes[0];
        is_str(n->node->name, a->name, "by name");
        is_str(n->health, "OK", "reachable");
        ok(n->n_core_use == 2 && n->core_use[1]->job_id == 0, "with idle cores");
    }
    client_reply_free(reply);
    ok(await(a->heartbeat > 0 && b->heartbeat > 0), "their heartbeats are answered");
    const char *names[] = {a->name, b->name};
    ok(nodes_online(names, 2), "they are taken online: %s", call_error.text);
}

/* Knowing a node's install id is no proof of being that node; its certificate is. */
static void test_join_again(struct agent *a)
{
    char *token = make_token("");
    struct agent twin;
    agent_init(&twin, a->name);
    snprintf(twin.dir, sizeof twin.dir, "%s/third", folder);
    snprintf(twin.install_id, sizeof twin.install_id, "%s", a->install_id);
    const char *said = agent_join(&twin, token);
    ok(said && strstr(said, "made for that name"), "an install id does not get a node's name: %s",
       said ? said : "it joined");
    agent_drop(a);
    tls_free(a->tls);
    a->tls = NULL;
    a->shows = true;
    said = agent_join(a, token);
    ok(!said, "its certificate does%s%s", said ? ": " : "", said ? said : "");
    ok(agent_connect(a), "and it is back");
    free(token);
}

static void test_one_job(struct agent *a)
{
    uint64_t job = submit("echo hello", 0);
    ok(job > 0, "a job is submitted");
    ok(await(a->prepare), "its node is told to prepare");
    if (!a->prepare)
        return;
    uint64_t attempt = a->prepare->attempt;
    ok(a->prepare->go, "and go, in one order");
    is_str(a->prepare->command_line, "echo hello", "with the command line");
    is_int(a->prepare->psk.len, 32, "a key");
    ok(a->prepare->n_nodes == 1 && a->prepare->nodes[0]->route.len == 24, "a route");
    const char *cluster = NULL;
    for (size_t i = 0; i < a->prepare->n_env; i++)
        if (!strcmp(a->prepare->env[i]->name, "CCP_CLUSTER_NAME"))
            cluster = a->prepare->env[i]->value;
    is_str(cluster, SAFE_NAME, "CCP_CLUSTER_NAME");
    ok(a->credit_attempt == attempt && a->credit_window > 0, "and credit for output");
    report(a, attempt, MU__ATTEMPT_PHASE__PHASE_RUNNING, 0, 0, "hel", 0);
    char *text = NULL;
    for (int64_t end = clock_boot_ms() + DEADLINE_MS;
         clock_boot_ms() < end && (!text || strcmp(text, "hel"));) {
        event_base_loop(base, EVLOOP_ONCE);
        free(text);
        text = output_of(job, false);
    }
    is_str(text, "hel", "output is seen while the task runs");
    free(text);
    /* The end comes before the rest of the output: nobody may see it so. */
    report(a, attempt, MU__ATTEMPT_PHASE__PHASE_RELEASED, 0, 6, NULL, 0);
    report(a, attempt, MU__ATTEMPT_PHASE__PHASE_NONE, 0, 0, "lo\n", 3);
    ok(await(a->forget == attempt), "the agent may forget it");
    is_int(wait_job_end(job), MU__JOB_STATE__JOB_STATE_FINISHED, "the job is finished");
    text = output_of(job, true);
    is_str(text, "hello\n", "and its output is whole");
    free(text);
    Mu__Reply *reply = job_get(job);
    ok(reply && reply->job->n_tasks == 1 && reply->job->n_history > 2,
       "its history tells more than two events");
    client_reply_free(reply);
    agent_forget(a);
}

/* One job of two nodes; the head dies before step `die`. */
static void run_with_death(struct agent *a, struct agent *b, int die)
{
    enum { SUBMITTED, PREPARED_ONE, PREPARED_BOTH, RUNNING, ENDED, RELEASED_ONE, RELEASED_BOTH, STEPS };
    static const char *const names[] = {"submission", "the first prepared", "both prepared",      "running",
                                        "the end",    "one was released",   "both were released", "never"};
    struct agent *first = a, *second = b;
    agent_forget(a);
    agent_forget(b);
    remember(a, 0, 0, 0, 0);
    remember(b, 0, 0, 0, 0);
    uint64_t job = submit("two nodes", 2);
    uint64_t attempt = 0;
    for (int step = SUBMITTED; step < STEPS; step++) {
        if (step == RUNNING) {
            await(first->go == attempt);
            report(first, attempt, MU__ATTEMPT_PHASE__PHASE_RUNNING, 0, 0, "out", 0);
            remember(first, attempt, MU__ATTEMPT_PHASE__PHASE_RUNNING, 0, 3);
        } else if (step == PREPARED_ONE) {
            await(a->prepare && b->prepare);
            if (!a->prepare || !b->prepare)
                break;
            attempt = a->prepare->attempt;
            first = a->prepare->my_index == 0 ? a : b;
            second = first == a ? b : a;
            report(second, attempt, MU__ATTEMPT_PHASE__PHASE_PREPARED, 0, 0, NULL, 0);
            remember(second, attempt, MU__ATTEMPT_PHASE__PHASE_PREPARED, 0, 0);
        } else if (step == PREPARED_BOTH) {
            report(first, attempt, MU__ATTEMPT_PHASE__PHASE_PREPARED, 0, 0, NULL, 0);
            remember(first, attempt, MU__ATTEMPT_PHASE__PHASE_PREPARED, 0, 0);
        } else if (step == ENDED) {
            report(first, attempt, MU__ATTEMPT_PHASE__PHASE_ENDED, 7, 3, NULL, 0);
            remember(first, attempt, MU__ATTEMPT_PHASE__PHASE_ENDED, 7, 3);
        } else if (step == RELEASED_ONE) {
            await(first->end == attempt && second->end == attempt);
            report(second, attempt, MU__ATTEMPT_PHASE__PHASE_RELEASED, 0, 0, NULL, 0);
            remember(second, attempt, MU__ATTEMPT_PHASE__PHASE_RELEASED, 0, 0);
        } else if (step == RELEASED_BOTH) {
            report(first, attempt, MU__ATTEMPT_PHASE__PHASE_RELEASED, 7, 3, NULL, 0);
            remember(first, attempt, MU__ATTEMPT_PHASE__PHASE_RELEASED, 7, 3);
        }
        if (step != die)
            continue;
        head_restart();
        uint64_t before = a->generation;
        if (!agent_connect(a) || !agent_connect(b) || a->generation <= before)
            break;
        if (step >= RUNNING && first->link) /* the agent repeats what was not credited */
            report(first, attempt, MU__ATTEMPT_PHASE__PHASE_NONE, 0, 0, "out", 0);
    }
    await(a->forget == attempt && b->forget == attempt);
    int state = wait_job_end(job);
    char *text = output_of(job, true);
    Mu__Reply *reply = job_get(job);
    bool code = reply && reply->job->n_tasks == 1 && reply->job->tasks[0]->exit_code == 7 &&
                reply->job->tasks[0]->attempt == attempt;
    ok(attempt && state == MU__JOB_STATE__JOB_STATE_FAILED && code && !strcmp(text, "out"),
       "the head is killed after %s: the job's result is the same (state %d, output \"%s\")", names[die],
       state, text);
    ok(await(a->forget == attempt && b->forget == attempt), "both agents may forget the attempt");
    client_reply_free(reply);
    free(text);
    remember(a, 0, 0, 0, 0);
    remember(b, 0, 0, 0, 0);
}

static void test_pipelined(void)
{
    enum { JOBS = 1000 };
    Mu__JobCreate create;
    Mu__JobSpec spec;
    Mu__TaskSpec task, *list;
    struct error err;
    int good = 0;
    fill_create(&create, &spec, &task, &list, "true", 0);
    spec.requested_nodes = (char *[]){(char *)"agent1"};
    spec.n_requested_nodes = 1;
    int64_t began = clock_boot_us();
    for (int i = 0; i < JOBS; i++) {
        Mu__Request request = MU__REQUEST__INIT;
        request.kind_case = MU__REQUEST__KIND_JOB_CREATE;
        request.job_create = &create;
        if (client_send(cl, &request, &err))
            break;
    }
    client_flush(cl, &err);
    for (int i = 0; i < JOBS; i++) {
        Mu__Reply *reply = NULL;
        if (client_receive(cl, DEADLINE_MS, &reply, &err))
            break;
        good += !reply->error && reply->job->info->job->id > 0;
        client_reply_free(reply);
    }
    is_int(good, JOBS, "a thousand pipelined submissions are answered");
    printf("# in %lld us\n", (long long)(clock_boot_us() - began));
    uint64_t before = 0;
    Mu__JobList jobs = MU__JOB_LIST__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    jobs.limit = 10;
    request.kind_case = MU__REQUEST__KIND_JOB_LIST;
    request.job_list = &jobs;
    Mu__Reply *reply = call(&request);
    ok(reply && reply->jobs->n_jobs == 10 && reply->jobs->more && reply->jobs->total >= JOBS,
       "a list of ten says more");
    if (reply && reply->jobs->n_jobs == 10)
        before = reply->jobs->jobs[9]->job->id;
    client_reply_free(reply);
    jobs.after_id = before;
    reply = call(&request);
    ok(reply && reply->jobs->n_jobs == 10 && reply->jobs->jobs[0]->job->id == before - 1,
       "the next page follows");
    client_reply_free(reply);
    ok(head_restart(), "(the head is killed)");
    jobs.after_id = 0;
    reply = call(&request);
    ok(reply && reply->jobs->total >= JOBS, "all of them are still there");
    client_reply_free(reply);
}

static void test_refusals(void)
{
    Mu__Request request = MU__REQUEST__INIT;
    Mu__JobGet get = MU__JOB_GET__INIT;
    get.job_id = 99999999;
    request.kind_case = MU__REQUEST__KIND_JOB_GET;
    request.job_get = &get;
    ok(!call(&request) && call_error.code == ERR_NOT_FOUND, "no such job: %s", call_error.text);
    Mu__NodeList nodes = MU__NODE_LIST__INIT;
    nodes.group = (char *)"nogroup";
    request.kind_case = MU__REQUEST__KIND_NODE_LIST;
    request.node_list = &nodes;
    ok(!call(&request) && call_error.code == ERR_NOT_FOUND, "no such group: %s", call_error.text);
    Mu__Request nothing = MU__REQUEST__INIT;
    ok(!call(&nothing) && call_error.code == ERR_PROTOCOL, "an unknown request: %s", call_error.text);
    if (getuid())
        return;
    pid_t pid = fork();
    if (pid == 0) { /* an ordinary user */
        struct error err;
        if (setgid(65534) || setuid(65534))
            _exit(1);
        struct client *c = client_open(head_socket, 5000, &err);
        Mu__TokenCreate token = MU__TOKEN_CREATE__INIT;
        Mu__Reply *reply = NULL;
        request.kind_case = MU__REQUEST__KIND_TOKEN_CREATE;
        request.token_create = &token;
        if (!c || !client_call(c, &request, 5000, &reply, &err) || err.code != ERR_DENIED)
            _exit(1);
        mu__node_list__init(&nodes);
        request.kind_case = MU__REQUEST__KIND_NODE_LIST;
        request.node_list = &nodes;
        _exit(client_call(c, &request, 5000, &reply, &err) || !reply->nodes->n_nodes ||
              *reply->nodes->nodes[0]->node->install_id);
    }
    is_int(finish(pid), 0, "an ordinary user may not make tokens, and sees no install ids");
}

static void test_follow(struct agent *a)
{
    struct error err;
    struct client *other = client_open(head_socket, 5000, &err);
    Mu__Request request = MU__REQUEST__INIT;
    Mu__EventList events = MU__EVENT_LIST__INIT;
    Mu__Reply *reply = NULL;
    Mu__StatusRequest ask = MU__STATUS_REQUEST__INIT;
    Mu__Request status = MU__REQUEST__INIT;
    status.kind_case = MU__REQUEST__KIND_STATUS;
    status.status = &ask;
    reply = call(&status);
    events.after = reply ? reply->event : 0;
    client_reply_free(reply);
    events.wait = true;
    events.kind = MU__EVENT_KIND__EVENT_JOB;
    request.kind_case = MU__REQUEST__KIND_EVENT_LIST;
    request.event_list = &events;
    ok(other && client_send(other, &request, &err) == 0 && client_flush(other, &err) == 0,
       "a follower waits");
    uint64_t job = submit("follow me", 0);
    char subject[32];
    snprintf(subject, sizeof subject, "%llu", (unsigned long long)job);
    reply = NULL;
    ok(client_receive(other, DEADLINE_MS, &reply, &err) == 0 && reply->events &&
           reply->events->n_events > 0 && !strcmp(reply->events->events[0]->subject, subject),
       "and is told of a new job");
    client_reply_free(reply);
    Mu__JobCancel cancel = MU__JOB_CANCEL__INIT;
    cancel.job_id = job;
    cancel.message = (char *)"not needed";
    request.kind_case = MU__REQUEST__KIND_JOB_CANCEL;
    request.job_cancel = &cancel;
    reply = call(&request);
    ok(reply != NULL, "the job is cancelled");
    client_reply_free(reply);
    ok(await(a->end), "its node is told to end it");
    report(a, a->end, MU__ATTEMPT_PHASE__PHASE_RELEASED, 0, 0, NULL, 0);
    ok(await(a->forget), "(released)");
    is_int(wait_job_end(job), MU__JOB_STATE__JOB_STATE_CANCELED, "and it is");
    client_close(other);
    agent_forget(a);
}

static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;
    prlimit(head_pid, RLIMIT_FSIZE, NULL, &limit);
    limit.rlim_cur = bytes;
    prlimit(head_pid, RLIMIT_FSIZE, &limit, NULL);
}

static bool node_is(const char *name, const char *health)
{
    Mu__Reply *reply = node_list();
    bool is = false;
    for (size_t i = 0; reply && i < reply->nodes->n_nodes; i++)
        is |= !strcmp(reply->nodes->nodes[i]->node->name, name) &&
              !strcmp(reply->nodes->nodes[i]->health, health);
    client_reply_free(reply);
    return is;
}

/* Silence, a closed link, and a head that stood still itself. While this program waits for a client's
 * answer its agents are silent as well: the pulse must be slow against that, on a busy machine too. */
static void test_liveness(struct agent *a)
{
    static const char fast[] = "{\"heartbeat_ms\": 1000}";
    char path[128];
    snprintf(path, sizeof path, "%s/head.json", head_dir);
    file_write(AT_FDCWD, path, fast, strlen(fast), 0600, false, NULL);
    ok(head_restart() && agent_connect(a), "a head with a fast pulse");
    ok(await(node_is(a->name, "OK")), "the node is reachable");
    kill(head_pid, SIGSTOP);
    usleep(3500000); /* the test is about this time passing */
    kill(head_pid, SIGCONT);
    ok(node_is(a->name, "OK"), "a head that stood still does not take its own silence for the node's");
    ok(await(a->heartbeat > 0) && a->link, "and the link is kept");
    a->silent = true;
    ok(await(a->closed), "a node that sends no heartbeat loses its link");
    ok(await(node_is(a->name, "Unreachable")), "and is unreachable");
    a->silent = false;
    ok(agent_connect(a) && await(node_is(a->name, "OK")), "it comes back");
    agent_drop(a);
    ok(node_is(a->name, "OK"), "a link that closes may come back within a moment");
    ok(await(node_is(a->name, "Unreachable")), "and not later");
    unlink(path);
    ok(head_restart(), "(the head is killed)");
}

/* A client that asks and asks and does not read: the head's memory is not its buffer. */
static long head_peak_kb(void)
{
    char path[64], line[256];
    long kb = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)head_pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        sscanf(line, "VmHWM: %ld", &kb);
    if (f)
        fclose(f);
    return kb;
}

/* The same from many connections of one user. */
static void test_greedy_user(void)
{
    enum { CLIENTS = 24, REQUESTS = 500 };
    int told[2], stop[2];
    char byte;
    if (geteuid() || pipe(told) || pipe(stop)) {
        ok(true, "many greedy connections # SKIP needs a second user");
        return;
    }
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct error err;
        struct client *c[CLIENTS];
        Mu__JobList list = MU__JOB_LIST__INIT;
        Mu__Request request = MU__REQUEST__INIT;
        request.kind_case = MU__REQUEST__KIND_JOB_LIST;
        request.job_list = &list;
        close(stop[1]);
        if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
            _exit(1);
        for (int i = 0; i < CLIENTS; i++)
            if (!(c[i] = client_open(head_socket, DEADLINE_MS, &err)))
                _exit(2);
        for (int i = 0; i < CLIENTS; i++) {
            for (int k = 0; k < REQUESTS; k++)
                client_send(c[i], &request, &err);
            client_flush(c[i], NULL);
        }
        (void)!write(told[1], "", 1);
        (void)!read(stop[0], &byte, 1);
        _exit(0);
    }
    close(told[1]);
    ok(read(told[0], &byte, 1) == 1, "one user asks on many connections");
    ok(job_state(1) > 0, "others are served");
    long kb = 0;
    for (long before = -1; kb != before; usleep(200000)) { /* until it has taken what it will take */
        before = kb;
        kb = job_state(1) > 0 ? head_peak_kb() : 0;
    }
    ok(kb > 0 && kb < GREEDY_KB_MAX + 120000, "the head stays small: %ld kB", kb);
    close(stop[1]);
    is_int(finish(pid), 0, "(the user goes)");
    close(told[0]);
    close(stop[0]);
}

static void test_greedy(void)
{
    struct error err;
    struct client *greedy = client_open(head_socket, 5000, &err);
    Mu__JobList list = MU__JOB_LIST__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    request.kind_case = MU__REQUEST__KIND_JOB_LIST;
    request.job_list = &list;
    int sent = 0;
    for (; sent < 2000 && client_send(greedy, &request, &err) == 0; sent++)
        ;
    client_flush(greedy, NULL);
    ok(job_state(1) > 0, "others are served meanwhile");
    long kb = head_peak_kb();
    ok(kb > 0 && kb < GREEDY_KB_MAX, "the head stays small: %ld kB", kb);
    client_close(greedy);
}

/* A limit on the size of files fails writes as a full disk does. */
static void test_disk_full(struct agent *a)
{
    agent_forget(a);
    uint64_t running = submit("goes on", 0);
    ok(await(a->prepare), "a job runs");
    if (!a->prepare)
        return;
    uint64_t attempt = a->prepare->attempt;
    report(a, attempt, MU__ATTEMPT_PHASE__PHASE_RUNNING, 0, 0, NULL, 0);
    remember(a, attempt, MU__ATTEMPT_PHASE__PHASE_RUNNING, 0, 0);
    while (job_state(running) != MU__JOB_STATE__JOB_STATE_RUNNING)
        event_base_loop(base, EVLOOP_ONCE);
    limit_file_size(0);
    ok(submit("too much", 0) == 0 && strstr(call_error.text, "store full"), "a full disk: %s",
       call_error.text);
    ok(submit("again", 0) == 0 && call_error.code == ERR_UNAVAILABLE, "changes are refused");
    is_int(job_state(running), MU__JOB_STATE__JOB_STATE_RUNNING, "reads are answered");
    Mu__StatusRequest ask = MU__STATUS_REQUEST__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    request.kind_case = MU__REQUEST__KIND_STATUS;
    request.status = &ask;
    Mu__Reply *reply = call(&request);
    ok(reply && !reply->status->store_ok && strstr(reply->status->store_error, "store full"),
       "status says so");
    client_reply_free(reply);
    limit_file_size(RLIM_INFINITY);
    ok(await(a->closed || !a->link), "when there is room again, agents start anew");
    ok(agent_connect(a), "and come back: %s", a->error);
    uint64_t job = 0;
    for (int64_t end = clock_boot_ms() + DEADLINE_MS; !job && clock_boot_ms() < end; usleep(20000))
        job = submit("now", 0);
    ok(job > 0, "changes are taken again");
    report(a, attempt, MU__ATTEMPT_PHASE__PHASE_RELEASED, 0, 0, NULL, 0);
    ok(await(a->forget == attempt), "the task that ran meanwhile ends");
    is_int(wait_job_end(running), MU__JOB_STATE__JOB_STATE_FINISHED, "and its job is finished");
    remember(a, 0, 0, 0, 0);
}

static bool spool_error_is(const char *text)
{
    Mu__StatusRequest ask = MU__STATUS_REQUEST__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    request.kind_case = MU__REQUEST__KIND_STATUS;
    request.status = &ask;
    Mu__Reply *reply = call(&request);
    bool is =
        reply && (*text ? strstr(reply->status->spool_error, text) != NULL : !*reply->status->spool_error);
    client_reply_free(reply);
    return is;
}

/* Output that cannot be written waits at the agent; its link stays until it can. */
static void test_spool_stuck(struct agent *a)
{
    char path[128];
    agent_forget(a);
    uint64_t job = submit("prints", 0);
    ok(await(a->prepare), "a job runs");
    if (!a->prepare)
        return;
    uint64_t attempt = a->prepare->attempt;
    snprintf(path, sizeof path, "%s/spool/%llu", head_dir, (unsigned long long)job);
    file_write(AT_FDCWD, path, "", 0, 0600, false, NULL); /* where the job's folder should be */
    a->closed = false;
    report(a, attempt, MU__ATTEMPT_PHASE__PHASE_RUNNING, 0, 0, "out", 0);
    remember(a, attempt, MU__ATTEMPT_PHASE__PHASE_RUNNING, 0, 3);
    ok(await(spool_error_is("outputs cannot be kept")), "status says that its output cannot be kept");
    a->credit_attempt = 0;
    report(a, attempt, MU__ATTEMPT_PHASE__PHASE_NONE, 0, 0, "out", 0);
    uint64_t beat = a->heartbeat;
    ok(await(a->heartbeat > beat + 2) && !a->closed && !a->credit_attempt, "the link stays, without credit");
    unlink(path);
    ok(await(a->closed), "when it can, the agent starts again");
    ok(agent_connect(a) && await(a->credit_attempt == attempt) && a->credit_offset == 0,
       "from what is there");
    ok(spool_error_is(""), "status says no more");
    report(a, attempt, MU__ATTEMPT_PHASE__PHASE_RELEASED, 0, 3, "out", 0);
    ok(await(a->forget == attempt), "(it ends)");
    char *text = output_of(job, true);
    is_str(text, "out", "and the output is whole");
    free(text);
    remember(a, 0, 0, 0, 0);
}

/* A job that prints `len` times x and ends. */
static uint64_t print_much(struct agent *a, size_t len)
{
    char *text = malloc(len + 1);
    memset(text, 'x', len);
    text[len] = 0;
    agent_forget(a);
    uint64_t job = submit("prints much", 0);
    if (await(a->prepare)) {
        uint64_t attempt = a->prepare->attempt;
        report(a, attempt, MU__ATTEMPT_PHASE__PHASE_RUNNING, 0, 0, text, 0);
        report(a, attempt, MU__ATTEMPT_PHASE__PHASE_RELEASED, 0, len, NULL, 0);
        await(a->forget == attempt);
    }
    free(text);
    return job;
}

static char *output_note(uint64_t job)
{
    Mu__TaskOutput get = MU__TASK_OUTPUT__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    get.job_id = job;
    get.task_id = 1;
    request.kind_case = MU__REQUEST__KIND_TASK_OUTPUT;
    request.task_output = &get;
    Mu__Reply *reply = call(&request);
    char *text = reply && reply->output ? strdup(reply->output->message) : strdup("(no answer)");
    client_reply_free(reply);
    return text;
}

/* The outputs of old jobs go when all together are too many; before and after a restart. */
static void test_spool_total(struct agent *a)
{
    static const char small[] = "{\"spool_total_mb\": 1}";
    char path[128];
    snprintf(path, sizeof path, "%s/head.json", head_dir);
    file_write(AT_FDCWD, path, small, strlen(small), 0600, false, NULL);
    ok(head_restart() && agent_connect(a), "a head that keeps one megabyte");
    uint64_t first = print_much(a, 500000), second = print_much(a, 400000);
    ok(head_restart() && agent_connect(a), "(the head is killed)");
    char *note = output_note(first);
    is_str(note, "", "two outputs fit");
    free(note);
    uint64_t third = print_much(a, 400000);
    note = output_note(first);
    ok(strstr(note, "dropped") != NULL, "of three the oldest goes: %s", note);
    free(note);
    char *text = output_of(second, true), *last = output_of(third, true);
    ok(strlen(text) == 400000 && strlen(last) == 400000, "and no other");
    free(text);
    free(last);
    unlink(path);
    ok(head_restart() && agent_connect(a), "(the head is killed)");
}

/* One request for one node's name a million times must not cost a view of the node each. */
static void test_repeated_names(void)
{
    enum { NAMES = 400000 };
    Mu__NodeList list = MU__NODE_LIST__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    list.names = malloc(NAMES * sizeof(*list.names));
    for (list.n_names = 0; list.n_names < NAMES; list.n_names++)
        list.names[list.n_names] = (char *)"agent1";
    request.kind_case = MU__REQUEST__KIND_NODE_LIST;
    request.node_list = &list;
    Mu__Reply *reply = call(&request);
    ok(!reply && call_error.code == ERR_LIMIT, "a list of too many nodes is refused: %s", call_error.text);
    client_reply_free(reply);
    free(list.names);
}

/* One user cannot take all connections there are. */
static void test_many_connections(void)
{
    enum { MANY = 600 };
    if (geteuid()) {
        ok(true, "many connections # SKIP needs a second user");
        return;
    }
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct error err = {0};
        int i = 0;
        if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
            _exit(1);
        while (i < MANY && client_open(head_socket, 5000, &err))
            i++;
        _exit(i == 512 && err.code == ERR_LIMIT && strstr(err.text, "512 connections") ? 0 : 2);
    }
    is_int(finish(pid), 0, "a user's connections are bounded, with an error that says so");
    ok(job_state(1) > 0, "and others are served");
}

/* A user database that does not answer concerns whom it does not know, and nobody else. */
static void test_slow_accounts(void)
{
#ifdef __SANITIZE_ADDRESS__
    ok(true, "a slow user database # SKIP the sanitizer must be loaded first");
#else
    char module[PATH_MAX], file[PATH_MAX], byte = 0;
    int said[2];
    if (geteuid() || pipe(said)) {
        ok(true, "a slow user database # SKIP needs a second user");
        return;
    }
    snprintf(module, sizeof module, "%.*s/slow_accounts.so", (int)(strstr(program, "/../../bin") - program),
             program);
    snprintf(file, sizeof file, "%s/slow", folder);
    file_write(AT_FDCWD, file, "", 0, 0644, false, NULL);
    setenv("LD_PRELOAD", module, 1);
    setenv("SLOW_FILE", file, 1);
    ok(head_restart(), "a head whose user database does not answer");
    unsetenv("LD_PRELOAD");
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct error err;
        if (setresgid(65533, 65533, 65533) || setresuid(65533, 65533, 65533))
            _exit(1);
        (void)!write(said[1], "", 1);
        _exit(client_open(head_socket, DEADLINE_MS, &err) ? 0 : 2);
    }
    (void)!read(said[0], &byte, 1);
    struct error err;
    bool others = true;
    for (int i = 0; i < 20; i++) { /* the child's connection comes among these */
        struct client *c = client_open(head_socket, 2000, &err);
        others = others && c;
        client_close(c);
        usleep(5000);
    }
    ok(others, "others are served%s%s", others ? "" : ": ", others ? "" : err.text);
    is_int(waitpid(pid, NULL, WNOHANG), 0, "(one client waits)");
    unlink(file);
    is_int(finish(pid), 0, "who waited is served when it has answered");
    close(said[0]);
    close(said[1]);
#endif
}

static void test_shutdown(void)
{
    Mu__Shutdown shutdown = MU__SHUTDOWN__INIT;
    Mu__Request request = MU__REQUEST__INIT;
    request.kind_case = MU__REQUEST__KIND_SHUTDOWN;
    request.shutdown = &shutdown;
    Mu__Reply *reply = call(&request);
    ok(reply != NULL, "a request to shut down is answered");
    client_reply_free(reply);
    is_int(finish(head_pid), 0, "and ends the head with 0");
    client_close(cl);
    ok(head_start(), "(it is started again)");
}

static void test_stop(void)
{
    struct error err;
    kill(head_pid, SIGTERM);
    is_int(finish(head_pid), 0, "SIGTERM ends the head with 0");
    ok(!client_open(head_socket, 1000, &err), "nobody answers then: %s", err.text);
    client_close(cl);
    cl = NULL;
}

static void find_program(void)
{
    char self[PATH_MAX - 32];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    snprintf(program, sizeof program, "%s/../../bin/muster-head", self);
}

int main(void)
{
    struct timeval tick = {.tv_usec = 10000};
    signal(SIGPIPE, SIG_IGN);
    find_program();
    if (!mkdtemp(folder))
        return 1;
    snprintf(head_dir, sizeof head_dir, "%s/head", folder);
    snprintf(head_socket, sizeof head_socket, "%s/s", folder);
    chmod(folder, 0755);
    base = event_base_new();
    struct event *ticker = event_new(base, -1, EV_PERSIST, on_tick, NULL);
    event_add(ticker, &tick); /* so that await() looks at its deadline */
    agent_init(&agent1, "agent1");
    agent_init(&agent2, "agent2");
    test_start();
    test_addresses();
    test_newer_store();
    if (cl) {
        test_join(&agent1, &agent2);
        test_join_again(&agent1);
        test_refusals();
        agent_drop(&agent2);
        test_one_job(&agent1);
        test_follow(&agent1);
        ok(agent_connect(&agent2), "the second agent is back");
        for (int die = 0; die < 8; die++)
            run_with_death(&agent1, &agent2, die);
        agent_drop(&agent2);
        test_spool_stuck(&agent1);
        test_spool_total(&agent1);
        test_disk_full(&agent1);
        agent_drop(&agent1);
        test_pipelined();
        test_greedy();
        test_greedy_user();
        test_liveness(&agent1);
        test_repeated_names();
        test_many_connections();
        test_slow_accounts();
        test_shutdown();
        test_stop();
    }
    agent_drop(&agent1);
    agent_drop(&agent2);
    tls_free(agent1.tls);
    tls_free(agent2.tls);
    agent_forget(&agent1);
    agent_forget(&agent2);
    event_free(ticker);
    event_base_free(base);
    if (getenv("KEEP_LOG") && fork() == 0)
        execlp("cp", "cp", "-r", folder, getenv("KEEP_LOG"), NULL);
    else if (getenv("KEEP_LOG"))
        wait(NULL);
    file_remove_tree(AT_FDCWD, folder, NULL);
    return tap_done();
}
